//! restore-redis, restore-n8n and restore-env on real containers.

mod env_file;
mod n8n_data;
mod redis_data;

use crate::common::Sandbox;

/// A state of a container that a restore must leave as it was: whether it runs.
fn runs(sandbox: &Sandbox, name: &str) -> bool {
    let format = ["inspect", "--format", "{{.State.Running}}"];
    sandbox
        .docker(&[&format[..], &[&sandbox.container(name)]].concat())
        .trim()
        == "true"
}

#[test]
fn a_no_on_the_terminal_leaves_everything() {
    let sandbox = Sandbox::new("no").redis().n8n().build();
    sandbox.redis(&["set", "a", "b"]);
    sandbox.run("backup-redis", &[]).assert_success();
    sandbox.run("backup-n8n", &[]).assert_success();
    for kind in ["redis", "n8n"] {
        let file = sandbox.backup(kind);
        let outcome = sandbox
            .call(&format!("restore-{kind}"))
            .arg(&file)
            .terminal("no\n")
            .run();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        outcome.assert_log_has(&format!("restore-{kind}"), "INFO Restore cancelled by user");
        assert!(runs(&sandbox, "n8n-main"));
    }
}
