//! What n8n's Node.js finds out about the key.

use crate::common::n8n::{load, prove_every_form, prove_tags, Point};
use crate::common::point::fact;
use crate::common::sqlite::{on_sqlite, HOME};
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

#[test]
fn the_credentials_are_those_of_the_tables_that_n8n_works_with() {
    let sandbox = on_sqlite("sqlite-two", "DB_TABLE_PREFIX=x_", HOME);
    // What another n8n has left there, with a key of its own, are more tables than those with the prefix.
    let other = format!("U2FsdGVkX18{}=", "A".repeat(32));
    sandbox.sql(&format!(
        "CREATE TABLE x_workflow_entity AS SELECT * FROM workflow_entity; \
         CREATE TABLE x_credentials_entity AS SELECT * FROM credentials_entity WHERE id <> 'c0'; \
         UPDATE credentials_entity SET data = '{other}'"
    ));
    sandbox.locked("backup-all", &[]).assert_success();
    let drill = sandbox.locked("test-recovery", &["--sqlite"]);
    drill.assert_success();
    assert!(drill.stdout.contains("Decrypted 4 of 4 credentials"), "{drill}");
}
