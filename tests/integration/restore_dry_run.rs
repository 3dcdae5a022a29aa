//! restore-all --dry-run: it says what would be done, and does nothing.

use std::fs;

use crate::common::{assert_same, Sandbox};

/// When each container of the stack was started last, and whether it runs.
fn starts(sandbox: &Sandbox) -> String {
    let names = ["postgres", "redis", "n8n-main", "n8n-worker"].map(|name| sandbox.container(name));
    let mut args = vec![
        "inspect",
        "--format",
        "{{.Name}} {{.State.Status}} {{.State.StartedAt}}",
    ];
    args.extend(names.iter().map(String::as_str));
    sandbox.docker(&args)
}

/// The files of the project but for the log.
fn files(sandbox: &Sandbox) -> Vec<String> {
    let all = sandbox.listing();
    all.into_iter().filter(|line| !line.contains("logs/")).collect()
}

#[test]
fn a_rehearsal_tells_what_would_happen_and_changes_nothing() {
    let sandbox = Sandbox::new("dryall")
        .stack()
        .n8n()
        .seeded()
        .env("BACKUP_LOCK_FILE", "dry.lock")
        .build();
    sandbox.run("backup-all", &[]).assert_success();
    let lock = sandbox.path("dry.lock");
    let _ = fs::remove_file(&lock);
    sandbox.psql("drop table settings cascade");
    let (before, contents, started) = (files(&sandbox), sandbox.fingerprint(), starts(&sandbox));
    let unchanged = |what: &str| {
        assert_eq!(before, files(&sandbox), "{what}");
        assert!(!lock.exists(), "{what}");
    };
    let outcome = sandbox.run("restore-all", &["--dry-run"]);
    outcome.assert_success();
    outcome.assert_messages(
        "restore-all",
        &[
            "INFO Running in dry-run mode (nothing will be changed)",
            "INFO Recovery point {}: postgres redis n8n env",
            "INFO [DRY-RUN] Would restore: postgres from {}/backups/postgres/n8n_{}.sql.gz ({})",
            "WARN [DRY-RUN] This will drop and recreate the database n8n",
            "INFO [DRY-RUN] Would restore: redis from {}/backups/redis/dump_{}.rdb ({})",
            "WARN [DRY-RUN] This will replace all that Redis in {} holds, and stop n8n meanwhile",
            "INFO [DRY-RUN] Would restore: n8n from {}/backups/n8n/n8n_data_{}.tar.gz ({})",
            "INFO [DRY-RUN] Would restore: env from {}/backups/env/env_{}.backup ({})",
            "INFO [DRY-RUN] Of what is there now: {}",
            "INFO [DRY-RUN] Would stop {}; for how long is not known before a recovery test: {}",
            "SUCCESS Dry-run completed",
        ],
    );
    unchanged("a rehearsal");
    assert_same(&contents, &sandbox.fingerprint());
    assert_eq!(started, starts(&sandbox), "no container was stopped or started");

    // A recovery test has measured it since.
    sandbox.run("test-recovery", &["--full"]).assert_success();
    let manifest = fs::read_to_string(sandbox.backup("sets")).unwrap();
    let took = manifest.lines().find_map(|line| line.strip_prefix("# drill.took: "));
    let took: Vec<&str> = took
        .unwrap()
        .split(", ")
        .map(|part| part.split_once(' ').unwrap().0)
        .collect();
    assert_eq!(took, ["postgres", "redis", "n8n", "env"]);
    let outcome = sandbox.run("restore-all", &["-n", "--only", "postgres,redis"]);
    outcome.assert_success().assert_log_has(
        "restore-all",
        "INFO [DRY-RUN] Would stop {} for about {} s, as long as the recovery test of {} took",
    );

    // A server that is stopped stays so.
    sandbox.docker(&["stop", &sandbox.container("postgres")]);
    let started = starts(&sandbox);
    let outcome = sandbox.run("restore-all", &["--dry-run", "latest"]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-all",
        "WARN [DRY-RUN] {}-postgres is stopped and was not started: the file is whole, and whether the server can take it is not known",
    );
    outcome.assert_log_has(
        "restore-all",
        "SUCCESS Dry-run completed; 1 part(s) can be judged only when the restore begins",
    );
    assert_eq!(started, starts(&sandbox));
    assert!(!sandbox.path("backups/.restore").exists());

    // What would be refused is told of every part, and of the whole.
    let worker = sandbox.container("n8n-worker");
    sandbox.docker(&["rm", "-f", &worker]);
    let labels = sandbox.labels();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let run = ["run", "-d", "--rm", "--name", &worker, "--network", "none"];
    sandbox.docker(&[&run[..], &labels, &["n8n-backup-test/busybox:1", "sleep", "600"]].concat());
    let started = starts(&sandbox);
    for kind in ["postgres", "n8n"] {
        fs::write(sandbox.backup(kind), "no backup").unwrap();
    }
    let outcome = sandbox.run("restore-all", &["--dry-run", "latest"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    for kind in ["postgres", "n8n"] {
        outcome.assert_log_has(
            "restore-all",
            &format!("ERROR [DRY-RUN] Would be refused: {kind}: {{}}"),
        );
    }
    outcome.assert_log_has(
        "restore-all",
        "ERROR [DRY-RUN] Would be refused: the restore: {}-n8n-worker was created with --rm: {}",
    );
    outcome.assert_log_has("restore-all", "ERROR The restore would be refused, for 3 reason(s)");
    assert_eq!(started, starts(&sandbox));
    assert!(!lock.exists());
}
