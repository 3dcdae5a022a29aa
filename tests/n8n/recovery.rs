//! Backup, drill, loss and restore of a stack with a real n8n.

use crate::common::point::fact;
use crate::common::Outcome;
use crate::stack::{self, answers, start, state};

#[track_caller]
fn assert_says(outcome: &Outcome, text: &str) {
    assert!(outcome.stdout.contains(text), "'{text}' expected: {outcome}");
}

#[test]
fn a_real_stack_is_drilled_lost_and_restored() {
    let sandbox = stack::created("nreal");
    start(&sandbox);
    sandbox.run("backup-all", &[]).assert_success();

    let migrations = || sandbox.psql("SELECT count(*), max(name) FROM migrations");
    let (before, seen) = (state(&sandbox), migrations());
    let drill = sandbox.run("test-recovery", &["--full"]);
    drill.assert_success();
    for text in [
        "SUCCESS] ",
        "Decrypted 4 of 4 credentials with the backed-up key",
        "n8n 2.40.7 opened 4 of 4 credentials",
        "n8n 2.40.7 started from the backup in ",
        "The recovered database had all 270 migrations of n8n 2.40.7",
        "Recovery test passed: full of recovery point",
    ] {
        assert_says(&drill, text);
    }
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("authenticated 4 of 4"));
    assert_eq!(fact(&sandbox, "drill.opened").as_deref(), Some("4 of 4 by n8n 2.40.7"));
    assert!(fact(&sandbox, "drill.started").unwrap().starts_with("n8n 2.40.7 in "));
    assert_eq!((state(&sandbox), migrations()), (before, seen));
    assert!(answers(&sandbox));
    eprintln!("{drill}");
}
