//! What n8n's Node.js finds out about the key.

use crate::common::n8n::{load, prove_every_form, prove_tags, Point};
use crate::common::point::fact;
use crate::common::Sandbox;
use crate::stack;

#[test]
fn node_opens_every_form_and_checks_tags() {
    let image = stack::image();
    // Without a home there is one key, which the test changes.
    let sandbox = Sandbox::new("nforms").postgres().volume().network().build();
    load(&sandbox);
    stack::create(&sandbox, image, &[]);
    let point = Point::new(&sandbox);
    prove_every_form(&point);
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("authenticated 4 of 4"));
    prove_tags(&point);
}
