//! What a drill finds out about the key of a real n8n, whose credentials are of every form.

use crate::common::n8n::{load, prove_every_form, Point};
use crate::common::point::fact;
use crate::common::Sandbox;

#[test]
fn pgcrypto_opens_every_form() {
    let sandbox = Sandbox::new("dforms").postgres().volume().build();
    load(&sandbox);
    let point = Point::new(&sandbox);
    prove_every_form(&point);
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("decrypted 4 of 4"));
}
