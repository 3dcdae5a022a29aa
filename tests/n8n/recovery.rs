//! Backup, drill, loss and restore of a stack with a real n8n.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::point::{edit, encrypt, fact, manifest};
use crate::common::{await_true, n8n, sh, Outcome, Sandbox};
use crate::stack::{self, answers, start, state};
use crate::workflows;

#[track_caller]
fn assert_says(outcome: &Outcome, text: &str) {
    assert!(outcome.stdout.contains(text), "'{text}' expected: {outcome}");
}

/// Runs a script that starts n8n, which takes minutes on a busy machine.
fn long(sandbox: &Sandbox, name: &str, args: &[&str]) -> Outcome {
    sandbox.call(name).args(args).limit(Duration::from_secs(900)).run()
}

#[test]
fn a_real_stack_is_drilled_lost_and_restored() {
    let sandbox = stack::created("nreal");
    start(&sandbox);
    sandbox.run("backup-all", &[]).assert_success();

    let migrations = || sandbox.psql("SELECT count(*), max(name) FROM migrations");
    let (before, seen) = (state(&sandbox), migrations());
    let drill = long(&sandbox, "test-recovery", &["--full"]);
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

    // Everything is lost but the backups.
    for name in ["n8n-main", "n8n-worker"] {
        sandbox.docker(&["stop", &sandbox.container(name)]);
    }
    sandbox.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    sandbox.redis(&["flushall"]);
    sandbox.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &format!("{}:/v", sandbox.volume()),
        "n8n-backup-test/busybox:1",
        "sh",
        "-c",
        "rm -rf /v/* /v/.[!.]*",
    ]);
    sandbox.run("restore-all", &["latest", "--yes"]).assert_success();
    start(&sandbox);
    workflows::come_back(&sandbox);
    workflows::start_none(&sandbox);
}

#[test]
fn an_older_n8n_is_not_given_newer_data() {
    let sandbox = stack::created("nolder");
    sandbox.run("backup-all", &[]).assert_success();
    edit(&sandbox, |text| {
        text.replace(
            &format!("# n8n.version.{}: 2.40.7", sandbox.container("n8n-main")),
            &format!("# n8n.version.{}: 2.41.0", sandbox.container("n8n-main")),
        )
    });
    assert!(fact(&sandbox, "n8n.migrations").unwrap().starts_with("270 "));
    let refused = sandbox.run("restore-all", &["latest", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert_says(&refused, "is n8n 2.40.7, and the recovery point was made by n8n 2.41.0");
    assert_says(&refused, "add --force");
    sandbox
        .run("restore-all", &["latest", "--yes", "--force"])
        .assert_success();
}

#[test]
fn a_migration_is_told_and_one_that_may_not_be_made_fails() {
    let sandbox = stack::created("nmigrates");
    // As the version before the newest migration left it, which makes an index.
    let index = sandbox.psql("SELECT indexname FROM pg_indexes WHERE tablename = 'instance_ai_threads' AND indexdef LIKE '%\"updatedAt\", id)'");
    sandbox.psql(&format!(
        "DROP INDEX \"{}\"; DELETE FROM migrations WHERE id = 270",
        index.trim()
    ));
    // One credential was lost long ago.
    let lost = encrypt("lost", "{}");
    sandbox.psql(&format!(
        "UPDATE credentials_entity SET data = '{lost}' WHERE name = 'Old basic'"
    ));
    sandbox.set("BACKUP_DEAD_CREDENTIALS", "JTiXbvzr5Qy3YACo");
    sandbox.run("backup-all", &[]).assert_success();

    let missing = sandbox.run("rehearse-update", &["nobody/n8n:0"]);
    assert_eq!(missing.code, Some(2), "{missing}");
    assert_says(&missing, "Image nobody/n8n:0 is not on this host");
    let rehearsal = long(
        &sandbox,
        "rehearse-update",
        &[stack::image(), "--postgres-image", "n8n-backup-test/postgres:1"],
    );
    rehearsal.assert_success();
    for text in [
        "Decrypted 3 of 4 credentials with the backed-up key",
        "n8n 2.40.7 opened 3 of 3 credentials",
        "n8n 2.40.7 migrated the recovered database from 269 to 270 migrations",
        "n8n 2.40.7 started from the backup in ",
    ] {
        assert_says(&rehearsal, text);
    }
    assert_eq!(fact(&sandbox, "drill"), None);
    assert!(fact(&sandbox, "drill.rehearsed").unwrap().starts_with(stack::image()));

    // n8n's role may use the tables, and does not own them.
    sandbox.psql(
        "CREATE ROLE app LOGIN; GRANT ALL ON DATABASE n8n TO app; GRANT ALL ON SCHEMA public TO app; \
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app",
    );
    recreate(&sandbox, stack::image(), &["-e", "DB_POSTGRESDB_USER=app"]);
    fs::remove_file(manifest(&sandbox)).unwrap();
    thread::sleep(Duration::from_secs(1));
    sandbox.run("backup-all", &[]).assert_success();
    // n8n tells of the failure, and goes on waiting for nothing.
    sandbox.set("BACKUP_DRILL_N8N_SECONDS", "60");
    let drill = long(&sandbox, "test-recovery", &["--full"]);
    assert_eq!(drill.code, Some(1), "{drill}");
    assert_says(&drill, "must be owner of table instance_ai_threads");
}

/// Makes n8n's containers again.
fn recreate(sandbox: &Sandbox, image: &str, options: &[&str]) {
    for name in ["n8n-main", "n8n-worker"] {
        sandbox.docker(&["rm", "-f", &sandbox.container(name)]);
    }
    stack::create(sandbox, image, options);
}

/// In place of n8n: behaves as `MODE` says.
const STAND_IN: &str = r#"#!/bin/sh
case $1 in
  export:credentials)
    for argument; do case $argument in --output=*) echo "[1, 2, 3$MORE]" >"${argument#--output=}" ;; esac; done
    ;;
  *)
    echo 'Activation of workflow "Bot" (x1) did fail with error: "getaddrinfo"'
    echo "the last line of n8n"
    [ "$MODE" != exits ] || exit 3
    exec sleep 3600
    ;;
esac
"#;

/// Makes an image of the stand-in, which goes with the returned name.
fn stand_in(sandbox: &Sandbox) -> String {
    let (image, container) = (
        format!("{}/n8n", sandbox.prefix()),
        format!("{}-make", sandbox.prefix()),
    );
    let dir = sandbox.aside("image");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("n8n"), STAND_IN).unwrap();
    sh(
        "chmod 755 \"$1/n8n\" && docker create --name \"$2\" --network none \"$3\" >&2 && \
         tar -C \"$1\" --owner=0 --group=0 -c n8n | docker cp - \"$2:/usr/local/bin\" && docker commit \"$2\" \"$4\" && docker rm \"$2\"",
        &[dir.as_os_str(), container.as_ref(), stack::image().as_ref(), image.as_ref()],
    );
    image
}

/// The scratch containers that there are.
fn scratch(sandbox: &Sandbox) -> String {
    sandbox.docker(&["ps", "-aq", "--filter", "label=n8n-backup.drill"])
}

#[test]
fn an_n8n_that_does_not_open_or_start_fails_the_drill() {
    let sandbox = stack::created("nfails");
    let image = stand_in(&sandbox);
    sandbox.set("BACKUP_DRILL_N8N_SECONDS", "2");
    sandbox.run("backup-all", &[]).assert_success();
    for (options, reasons) in [
        (&[][..], &["n8n 2.40.7 opened 3 of 4 credentials"][..]),
        (
            &["-e", "MORE=, 4"],
            &[
                "n8n 2.40.7 did not start from the backup",
                "it was not ready after 2 s",
                "the last line of n8n",
            ],
        ),
        (
            &["-e", "MORE=, 4", "-e", "MODE=exits"],
            &[
                "n8n 2.40.7 did not start from the backup",
                "exit code 3",
                "the last line of n8n",
            ],
        ),
    ] {
        recreate(&sandbox, &image, options);
        let drill = long(&sandbox, "test-recovery", &["--full"]);
        assert_eq!(drill.code, Some(1), "{drill}");
        reasons.iter().for_each(|reason| assert_says(&drill, reason));
        assert!(fact(&sandbox, "drill").unwrap().ends_with(": start"));
    }

    // Killed while n8n starts: nothing of it stays.
    sandbox.set("BACKUP_DRILL_N8N_SECONDS", "600");
    recreate(&sandbox, &image, &["-e", "MORE=, 4"]);
    let run = sandbox.spawn("test-recovery", &["--full"]);
    await_true("n8n does not open", || {
        fs::read_to_string(sandbox.path("logs/recovery-test.log"))
            .is_ok_and(|log| log.matches("opened 4 of 4").count() == 3)
    });
    run.signal("KILL");
    run.wait();
    await_true("containers stay", || scratch(&sandbox).is_empty());
    assert!(!fs::read_dir("/dev/shm")
        .unwrap()
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with(".n8n-backup-")));
    sandbox.docker(&[
        "rm",
        "-f",
        &sandbox.container("n8n-main"),
        &sandbox.container("n8n-worker"),
    ]);
    sandbox.docker(&["rmi", &image]);
}

/// Whether the command line of any process holds one of these.
fn shown(secrets: &[&str]) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| {
        secrets
            .iter()
            .any(|secret| String::from_utf8_lossy(&line).contains(secret))
    })
}

#[test]
fn no_command_line_shows_a_secret() {
    let secrets = [n8n::KEY, "correct horse battery"];
    let mut decoy = Command::new("sleep")
        .args(["30"])
        .env("X", "")
        .arg0(format!("sleep {}", secrets[0]))
        .spawn()
        .unwrap();
    await_true("the watch finds nothing", || shown(&secrets));
    decoy.kill().unwrap();
    decoy.wait().unwrap();
    let sandbox = stack::created("nshown");
    sandbox.set("N8N_ENCRYPTION_KEY", n8n::KEY);
    sandbox.run("backup-all", &[]).assert_success();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut found = false;
            while !stop.load(Ordering::Relaxed) {
                found |= shown(&secrets);
                thread::sleep(Duration::from_millis(20));
            }
            found
        });
        let drill = long(&sandbox, "test-recovery", &["--full"]);
        stop.store(true, Ordering::Relaxed);
        drill.assert_success();
        for secret in secrets {
            drill.assert_never_says(secret);
        }
        assert!(!watch.join().unwrap());
    });
}
