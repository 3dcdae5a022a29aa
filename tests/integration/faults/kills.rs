//! Signals to us, to our children and to the container, over the whole length of a run.

use std::fs;
use std::thread;

use super::{
    assert_backups_whole, assert_lock_free, assert_next_run_succeeds, assert_no_helpers, assert_no_sessions,
    await_no_clients, before_end, case, clear_backups, dump_of, edited, few_or_many, held_dump, kill_child,
    staged_databases, start_postgres, trusted_restore,
};
use crate::common::{assert_same, has_program, matches, name, Outcome, Sandbox};

const SIGNALS: [&str; 4] = ["KILL", "TERM", "INT", "HUP"];

/// Whatever ends us whenever: no file under a final name that is not whole, and the next run succeeds.
#[test]
fn a_signal_at_any_point_of_a_backup_leaves_no_broken_backup() {
    let sandbox = Sandbox::new("killb").stack().seeded().build();
    let length = sandbox.run("backup-all", &[]).assert_success().took;
    clear_backups(&sandbox);
    let points = few_or_many(3, 24);
    for point in 0..points {
        let signal = SIGNALS[point % SIGNALS.len()];
        let delay = length.mul_f64(point as f64 / points as f64);
        case(&format!("SIG{signal} to backup-all at {point}/{points}"), || {
            let running = sandbox.spawn("backup-all", &[]);
            thread::sleep(delay);
            running.signal(signal);
            let outcome = running.wait();
            eprintln!("{outcome}");
            assert!(outcome.code != Some(1), "{outcome}");
            assert_backups_whole(&sandbox);
            assert_lock_free(&sandbox);
            assert_no_sessions(&sandbox);
            assert_next_run_succeeds(&sandbox);
            clear_backups(&sandbox);
        });
    }
}

/// Whatever ends a restore whenever: the old database or the new one, whole, under the live name, serving.
#[test]
fn a_signal_at_any_point_of_a_restore_leaves_the_old_or_the_new_database() {
    let sandbox = Sandbox::new("killr").stack().seeded().build();
    let new = sandbox.fingerprint_postgres();
    let dump = dump_of(&sandbox);
    sandbox.psql("CREATE TABLE after_the_dump AS SELECT 1 AS n");
    let old = sandbox.fingerprint_postgres();
    let operand = dump.to_str().unwrap();
    let length = {
        let outcome = sandbox.run("restore-postgres", &["--trust-dump", operand]);
        outcome.assert_success().took
    };
    assert_same(&new, &sandbox.fingerprint_postgres());
    let points = few_or_many(3, 24);
    let mut swapped = 0;
    for point in 0..points {
        let signal = SIGNALS[point % SIGNALS.len()];
        let delay = length.mul_f64(point as f64 / points as f64);
        case(&format!("SIG{signal} to restore-postgres at {point}/{points}"), || {
            sandbox.psql("CREATE TABLE IF NOT EXISTS after_the_dump AS SELECT 1 AS n");
            let running = sandbox.spawn("restore-postgres", &["--trust-dump", operand]);
            thread::sleep(delay);
            running.signal(signal);
            let outcome = running.wait();
            eprintln!("{outcome}");
            assert_lock_free(&sandbox);
            let said_restored = outcome.log.contains("Database restored successfully");
            assert_no_sessions(&sandbox);
            let now = sandbox.fingerprint_postgres();
            if now == new {
                swapped += 1;
            } else {
                assert!(!said_restored, "{outcome}");
                assert_same(&old, &now);
            }
            let left = staged_databases(&sandbox);
            let next = assert_next_run_succeeds(&sandbox);
            for name in left {
                next.assert_log_has(
                    "backup-postgres",
                    &format!("WARN Dropped database {name} ({{}}) that an interrupted restore left"),
                );
            }
            assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
            clear_backups(&sandbox);
        });
    }
    eprintln!("the new database was live after {swapped} of {points}");
    // And a restore after all of that.
    sandbox
        .run("restore-postgres", &["--trust-dump", operand])
        .assert_success();
    assert_same(&new, &sandbox.fingerprint_postgres());
}

/// A restore of the volume or of Redis that is killed leaves a helper container that holds it. The next backup removes that.
/// What is there is the old or the new, or half of both, which the same restore, run again, sets right.
#[test]
fn the_helpers_of_a_killed_restore_go_with_the_next_backup() {
    let sandbox = Sandbox::new("killh").stack().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    sandbox.run("backup-redis", &[]).assert_success();
    let kept = |kind: &str| {
        let made = sandbox.backup(kind);
        let kept = sandbox.aside(name(&made));
        fs::rename(&made, &kept).unwrap();
        kept
    };
    let of = |kind: &str| match kind {
        "n8n" => sandbox.fingerprint_volume(),
        _ => sandbox.fingerprint_redis(),
    };
    let spoil = |kind: &str| match kind {
        "n8n" => {
            let mount = format!("{}:/v", sandbox.volume());
            let script = "cd /v && rm -rf odd && echo new >config && echo x >since";
            let run = ["run", "--rm", "--network", "none", "--entrypoint", "sh", "-v", &mount];
            sandbox.docker(&[&run[..], &["n8n-backup-test/busybox:1", "-c", script]].concat());
        }
        _ => {
            sandbox.redis(&["flushall"]);
            sandbox.redis(&["set", "since", "then"]);
        }
    };
    let redis = sandbox.container("redis");
    let redis_runs = || sandbox.docker(&["inspect", "--format", "{{.State.Running}}", &redis]) == "true\n";
    let files = [("n8n", kept("n8n"), of("n8n")), ("redis", kept("redis"), of("redis"))];
    clear_backups(&sandbox);
    let points = few_or_many(2, 12);
    for (kind, file, saved) in &files {
        let script = format!("restore-{kind}");
        let restore = || sandbox.call(&script).arg(file).run();
        let mut length = restore().assert_success().took;
        let mut left = 0;
        // A machine that is busy for a moment misses some: others are tried then.
        let more = (1..20).map(|point| (7 * point % 20, 20));
        for (index, (point, of_points)) in (1..=points).map(|point| (point, points + 1)).chain(more).enumerate() {
            if index >= points && left > 0 {
                break;
            }
            let delay = length.mul_f64(point as f64 / of_points as f64);
            case(&format!("SIGKILL to {script} at {point}/{of_points}"), || {
                spoil(kind);
                let old = of(kind);
                let running = sandbox.call(&script).arg(file).spawn();
                thread::sleep(delay);
                running.signal("KILL");
                running.wait();
                // What it had just asked the engine for, it gets.
                await_no_clients(&sandbox);
                let next = sandbox.run("backup-all", &[]);
                assert_no_helpers(&sandbox);
                // One that the restore was about to remove may have gone by itself.
                let told = next.messages("backup-all");
                let told = told.iter().filter(|said| {
                    matches(
                        "WARN Removed {} helper container(s) that an interrupted restore left",
                        said,
                    )
                });
                left += told.count();
                assert_backups_whole(&sandbox);
                // A Redis that was stopped for the exchange is started by the restore.
                if *kind == "n8n" || redis_runs() {
                    let now = of(kind);
                    let half = now.contains(".n8n-backup-restore");
                    assert!(half || now == old || now == *saved, "{now}");
                }
                length = restore().assert_success().took;
                assert_same(saved, &of(kind));
                clear_backups(&sandbox);
            });
        }
        assert!(left > 0, "no point of {script} was hit at which it has a helper");
    }
    assert_next_run_succeeds(&sandbox);
}

/// Runs `command` until a child of it was there to be killed. One that has little to do may be over before it is seen,
/// and then the run is to succeed.
fn run_and_kill_child(sandbox: &Sandbox, command: &str, child: &str, signal: &str) -> Outcome {
    for _ in 0..10 {
        let running = sandbox.spawn(command, &[]);
        let is_hit = kill_child(&running, child, signal);
        let outcome = running.wait();
        if is_hit {
            return outcome;
        }
        outcome.assert_success();
        clear_backups(sandbox);
    }
    panic!("no child '{child}' of {command} was seen");
}

/// A child that dies, by whatever signal, is a failure of its component and of no other.
#[test]
fn a_killed_child_is_a_failure_of_its_component() {
    // The stand-in is slow enough to be hit.
    let sandbox = Sandbox::new("killc")
        .stack()
        .seeded()
        .env("BACKUP_COMPRESSOR", "gzip -9")
        .build();
    sandbox.psql("CREATE TABLE long AS SELECT md5(n::text) AS text FROM generate_series(1, 400000) n");
    sandbox.redis(&["config", "set", "rdbcompression", "no"]);
    let fill = "for n = 1, 32 do redis.call('set', 'long:' .. n, string.rep('x', 1000000)) end";
    sandbox.redis(&["eval", fill, "0"]);
    let digest = if has_program("openssl") {
        "dgst -sha256"
    } else {
        "sha256sum"
    };
    let children = [
        ("backup-postgres", "pg_dump", "pg_dump failed"),
        ("backup-postgres", "gzip -9", "pg_dump failed"),
        ("backup-postgres", digest, "pg_dump failed"),
        ("backup-n8n", " sh data ", "tar backup failed"),
        ("backup-n8n", digest, "tar backup failed"),
        ("backup-redis", digest, "Failed to copy RDB file from container"),
    ];
    let signals = few_or_many(1, 4);
    for (number, (command, child, message)) in children.into_iter().enumerate() {
        for signal in SIGNALS.iter().cycle().skip(number).take(signals) {
            case(
                &format!("SIG{signal} to the child '{}' of {command}", child.trim()),
                || {
                    let outcome = run_and_kill_child(&sandbox, command, child, signal);
                    eprintln!("{outcome}");
                    let kind = command.trim_start_matches("backup-");
                    // A child that had done its work already is no fault.
                    if outcome.code == Some(0) {
                        assert_eq!(sandbox.backups(kind).len(), 1);
                    } else {
                        outcome.assert_error(message);
                        assert!(sandbox.backups(kind).is_empty());
                    }
                    assert!(sandbox.leftovers(kind).is_empty(), "{:?}", sandbox.leftovers(kind));
                    assert_backups_whole(&sandbox);
                    assert_no_sessions(&sandbox);
                    assert_no_helpers(&sandbox);
                    clear_backups(&sandbox);
                },
            );
        }
    }
    assert_next_run_succeeds(&sandbox);
}

/// The server goes in the middle of a dump: an error, the other components all the same, and no file.
#[test]
fn a_killed_container_costs_its_own_component_only() {
    let sandbox = Sandbox::new("killd").kept().stack().seeded().build();
    case("docker kill in the middle of a dump", || {
        let (held, gate) = held_dump(&sandbox);
        let mut running = sandbox.call("backup-all").path_first(held).spawn();
        running.await_that("the middle of the dump", |_| gate.is_reached());
        sandbox.docker(&["kill", &sandbox.container("postgres")]);
        gate.open();
        let outcome = running.wait();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        outcome.assert_log_has("backup-postgres", "ERROR pg_dump failed");
        outcome.assert_log_has(
            "backup-all",
            "ERROR Backup completed with errors: 4/5 succeeded, 1 failed",
        );
        assert!(sandbox.backups("postgres").is_empty() && sandbox.leftovers("postgres").is_empty());
        assert_eq!(sandbox.backups("n8n").len(), 1);
        assert_backups_whole(&sandbox);
    });
    start_postgres(&sandbox);
    assert_next_run_succeeds(&sandbox);
    case("docker kill in the middle of a restore", || {
        let before = sandbox.fingerprint_postgres();
        let slow = edited(&sandbox, &sandbox.backup("postgres"), "slow.sql.gz", |text| {
            before_end(&text, "SELECT pg_sleep(60);")
        });
        let mut running = trusted_restore(&sandbox).arg(&slow).spawn();
        let loads = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        running.await_that("the load", |_| sandbox.psql_in("postgres", loads).trim() == "1");
        sandbox.docker(&["kill", &sandbox.container("postgres")]);
        let outcome = running.wait();
        outcome.assert_error("Database restore failed");
        start_postgres(&sandbox);
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert_next_run_succeeds(&sandbox);
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
    });
}
