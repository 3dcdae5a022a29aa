//! The lock: what is planted at its path, who holds it, who starts beside whom.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use super::{assert_backups_whole, assert_lock_free, case, docker_stand_in, dump_of, trusted_restore};
use crate::common::{assert_same, await_true, Sandbox};

/// What somebody plants at the lock's path is neither followed nor emptied, and said.
#[test]
fn a_planted_lock_file_is_refused() {
    let sandbox = Sandbox::new("lockp").build();
    let (lock, victim) = (sandbox.aside("lock"), sandbox.aside("victim"));
    fs::write(&victim, "keep").unwrap();
    let plant: [(&str, &dyn Fn()); 4] = [
        ("a symbolic link", &|| symlink(&victim, &lock).unwrap()),
        ("a link to nothing", &|| {
            symlink(sandbox.aside("nothing"), &lock).unwrap()
        }),
        ("a second name of a file", &|| fs::hard_link(&victim, &lock).unwrap()),
        ("a pipe", &|| {
            let mut mkfifo = Command::new("mkfifo");
            mkfifo.arg(&lock);
            crate::common::done(mkfifo);
        }),
    ];
    for (what, plant) in plant {
        case(&format!("{what} at the lock's path"), || {
            plant();
            let outcome = sandbox.run("backup-all", &[]);
            outcome.assert_error("Lock file {}");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "keep");
            assert!(!sandbox.aside("nothing").exists());
            fs::remove_file(&lock).unwrap();
        });
    }
}

/// A run that is stopped by Ctrl-Z holds its component as long as it stands, and no other.
#[test]
fn a_run_that_is_stopped_costs_its_component_only() {
    let sandbox = Sandbox::new("lockt").stack().env("BACKUP_STALL_SECONDS", "2").build();
    case("backup-all beside a backup-postgres that is stopped", || {
        let gate = sandbox.gate();
        let script = format!("case \" $* \" in *' pg_dump '*) {} ;; esac", gate.wait());
        let slow = docker_stand_in(&sandbox, &script);
        let mut stopped = sandbox.call("backup-postgres").path_first(&slow).spawn();
        stopped.await_log("Dumping database");
        stopped.signal("STOP");
        gate.open();
        let outcome = sandbox.call("backup-all").limit(Duration::from_secs(20)).run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        outcome.assert_messages(
            "backup-postgres",
            &[
                &format!(
                    "INFO Waiting for the run that works on postgres (PID: {})",
                    stopped.pid()
                ),
                &format!("ERROR Backup already in progress (PID: {})", stopped.pid()),
                "ERROR Cause: that process is stopped: {}",
            ],
        );
        for kind in ["redis", "n8n", "env", "sets"] {
            assert_eq!(sandbox.backups(kind).len(), 1, "{kind}: {outcome}");
        }
        assert_lock_free(&sandbox);
        stopped.signal("CONT");
        // It finds that nothing has moved for longer than its own limit, or gets through.
        stopped.wait();
        super::assert_next_run_succeeds(&sandbox);
    });
}

/// A pipe that nobody writes to, or reads, in the place of one of our files is said and not waited for.
#[test]
fn a_pipe_in_the_place_of_a_file_holds_no_run() {
    let sandbox = Sandbox::new("lockf").redis().env("BACKUP_STALL_SECONDS", "2").build();
    sandbox.run("backup-redis", &[]).assert_success();
    let set = sandbox.backup("sets");
    let stamp = super::name(&set).replace(".sha256", "");
    let only = ["--only", "redis", "--yes", &stamp];
    for (what, path, command, args, line) in [
        (
            "a recovery point",
            set.with_file_name("20260102_020000.sha256"),
            "backup-all",
            &[][..],
            "[WARN]",
        ),
        (
            "the record of a restore",
            sandbox.path("backups/.restore"),
            "backup-all",
            &[],
            "[WARN]",
        ),
        (
            "a backup that is to be restored",
            sandbox.backup("redis"),
            "restore-all",
            &only,
            "[ERROR]",
        ),
        ("the log", sandbox.path("logs/backup.log"), "backup-all", &[], "[ERROR]"),
        // The last one, since the settings go with it.
        (".env", sandbox.path(".env"), "backup-all", &[], "[ERROR]"),
    ] {
        case(&format!("a pipe in the place of {what}"), || {
            let _ = fs::remove_file(&path);
            let mut mkfifo = Command::new("mkfifo");
            mkfifo.arg(&path);
            crate::common::done(mkfifo);
            let call = sandbox.call(command).args(args).limit(Duration::from_secs(20));
            let outcome = call.run();
            let named = |text: &str| {
                let lines = text.lines().filter(|text| text.contains(&path.display().to_string()));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            let lines = named(&outcome.stdout);
            let told = !lines.is_empty() && lines.iter().all(|text| text.starts_with(line));
            assert!(told, "{outcome}");
            assert!(outcome.stdout.contains("it is not a regular file"), "{outcome}");
            assert_lock_free(&sandbox);
            fs::remove_file(&path).unwrap();
        });
    }
}

/// The process ID in the file means nothing: one that runs, and one that does not, hold nobody up.
#[test]
fn a_reused_process_id_holds_nobody_up() {
    let sandbox = Sandbox::new("lockr").stack().build();
    for pid in [
        std::process::id().to_string(),
        "1".to_owned(),
        "999999".to_owned(),
        "no number".to_owned(),
    ] {
        case(
            &format!(
                "a lock file of a dead run with the PID {}",
                if pid.len() == 1 { "1" } else { "of another" }
            ),
            || {
                fs::write(sandbox.aside("lock"), format!("{pid}\n")).unwrap();
                let outcome = sandbox.run("backup-all", &[]);
                outcome
                    .assert_success()
                    .assert_log_has("backup-all", "WARN Stale lock file found, removing");
            },
        );
    }
}

/// Of four starts at once, one works and three say who does.
#[test]
fn four_starts_at_once_are_one_run() {
    let sandbox = Sandbox::new("lockf").stack().seeded().build();
    case("four starts of backup-all at once", || {
        // One holds it until the others have been refused.
        let gate = sandbox.gate();
        let slow = docker_stand_in(&sandbox, &format!("[[ $1 != cp ]] || {}", gate.wait()));
        let start = |_| sandbox.call("backup-all").path_first(&slow).spawn();
        let runs: Vec<_> = (0..4).map(start).collect();
        await_true("three are not refused", || {
            sandbox.log().matches("Backup already in progress").count() == 3
        });
        gate.open();
        let pids: Vec<u32> = runs.iter().map(|run| run.pid()).collect();
        let codes: Vec<_> = runs.into_iter().map(|run| run.wait().code).collect();
        let winners: Vec<u32> = pids
            .iter()
            .zip(&codes)
            .filter(|(_, code)| **code == Some(0))
            .map(|(pid, _)| *pid)
            .collect();
        assert_eq!(winners.len(), 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|code| **code == Some(1)).count(), 3, "{codes:?}");
        let refusal = format!("Backup already in progress (PID: {})", winners[0]);
        assert_eq!(sandbox.log().matches(&refusal).count(), 3, "{}", sandbox.log());
        for kind in ["postgres", "redis", "n8n", "env"] {
            assert_eq!(sandbox.backups(kind).len(), 1, "{kind}");
        }
        assert_backups_whole(&sandbox);
    });
    case("four starts of backup-postgres at once", || {
        super::clear_backups(&sandbox);
        let runs: Vec<_> = (0..4).map(|_| sandbox.spawn("backup-postgres", &[])).collect();
        for run in runs {
            run.wait().assert_success();
        }
        assert_eq!(sandbox.backups("postgres").len(), 4);
        assert_backups_whole(&sandbox);
    });
}

/// A restore and a backup never run at the same time, whoever came first.
#[test]
fn a_restore_and_a_backup_exclude_each_other() {
    let sandbox = Sandbox::new("lockx")
        .stack()
        .seeded()
        .env("BACKUP_STALL_SECONDS", "3")
        .build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    case("a backup while a restore runs", || {
        let slow = super::edited(&sandbox, &dump, "slow.sql.gz", |text| {
            super::before_end(&text, "SELECT pg_sleep(10);")
        });
        let mut restore = trusted_restore(&sandbox).arg(&slow).spawn();
        restore.await_log("Restoring database from backup...");
        let outcome = sandbox.run("backup-all", &[]);
        outcome.assert_error("Backup already in progress (PID: {})");
        // A single component waits, for longer than the stall limit, as long as the other run moves.
        let mut single = sandbox.call("backup-postgres").spawn();
        single.await_log("Waiting for the run that works on postgres");
        assert!(sandbox.backups("postgres").is_empty());
        restore.wait().assert_success();
        single.wait().assert_success();
        assert_eq!(sandbox.backups("postgres").len(), 1);
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    case("a restore while a backup runs", || {
        let gate = sandbox.gate();
        let slow = docker_stand_in(&sandbox, &format!("[[ $1 != cp ]] || {}", gate.wait()));
        let mut backup = sandbox.call("backup-all").path_first(&slow).spawn();
        backup.await_log("Starting full backup process");
        let outcome = trusted_restore(&sandbox).arg(&dump).run();
        gate.open();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        outcome.assert_log_has("restore-postgres", "ERROR Backup already in progress (PID: {})");
        backup.wait().assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    assert_lock_free(&sandbox);
}
