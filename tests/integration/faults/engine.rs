//! The engine and its client: silent, lying, standing still.

use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use super::{
    assert_backups_whole, assert_lock_free, assert_next_run_succeeds, assert_no_helpers, assert_no_sessions, case,
    docker_stand_in, dump_of, held_dump, staged_databases, trusted_restore,
};
use crate::common::{assert_same, await_true, Outcome, Sandbox};

/// With a stall limit of two seconds, no command takes longer than a few of them.
#[track_caller]
fn assert_ended_in_time(outcome: &Outcome) {
    assert!(outcome.took < Duration::from_secs(15), "{outcome}");
}

/// An engine that takes a connection and says nothing is an error in good time, for every command.
#[test]
fn an_engine_that_never_answers_is_an_error_in_time() {
    let sandbox = Sandbox::new("silent").env("BACKUP_STALL_SECONDS", "2").build();
    let socket = sandbox.aside("engine.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            held.push(stream);
        }
    });
    let host = format!("unix://{}", socket.display());
    let dump = super::pack(&sandbox, "x.sql.gz", dumps());
    for command in [
        "backup-postgres",
        "backup-redis",
        "backup-n8n",
        "backup-all",
        "restore-postgres",
    ] {
        case(&format!("a silent engine under {command}"), || {
            let mut call = sandbox.call(command).env("DOCKER_HOST", &host);
            if command == "restore-postgres" {
                call = call.arg(&dump);
            }
            let outcome = call.run();
            assert_eq!(outcome.code, Some(1), "{outcome}");
            assert_ended_in_time(&outcome);
            assert!(outcome.log.contains("Docker engine does not answer"), "{outcome}");
            assert_lock_free(&sandbox);
        });
    }
    assert_eq!(sandbox.backups("env").len(), 1, "what needs no engine is backed up");
    case("no engine at all", || {
        let outcome = sandbox
            .call("backup-all")
            .env("DOCKER_HOST", "unix:///nonexistent.sock")
            .run();
        assert_eq!(outcome.code, Some(1));
        assert_ended_in_time(&outcome);
        assert!(outcome.log.contains("Docker engine does not answer"), "{outcome}");
    });
}

/// The smallest text that passes as a dump.
fn dumps() -> &'static str {
    "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.1\n-- Dumped by pg_dump version 15.1\n\nSET x = 1;\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
}

/// A docker client that cuts a stream short and says that all is well is not believed.
#[test]
fn a_client_that_truncates_and_exits_zero_is_not_believed() {
    let sandbox = Sandbox::new("liar").stack().seeded().build();
    let streams = [
        ("backup-postgres", "*pg_dump*", "pg_dump failed", "postgres"),
        ("backup-n8n", "*' sh data '*", "tar backup failed", "n8n"),
        (
            "backup-redis",
            "*' cat '*",
            "Failed to copy RDB file from container",
            "redis",
        ),
    ];
    for (command, pattern, message, kind) in streams {
        for bytes in [0, 1, 100, 4000] {
            case(&format!("{command} gets {bytes} bytes and exit code 0"), || {
                let stand_in = docker_stand_in(
                    &sandbox,
                    &format!("case \"$*\" in {pattern}) \"$docker\" \"$@\" | head -c {bytes}; exit 0;; esac"),
                );
                let outcome = sandbox.call(command).path_first(&stand_in).run();
                let errors = outcome.errors();
                assert!(
                    errors == [message] || bytes == 0 && errors == ["Backup file is empty"],
                    "{outcome}"
                );
                assert_eq!(outcome.code, Some(1));
                assert!(sandbox.backups(kind).is_empty() && sandbox.leftovers(kind).is_empty());
                assert_no_helpers(&sandbox);
            });
        }
    }
    case("an engine that tells nothing of a container of somebody else", || {
        // As while somebody has stopped a docker cp of it, which would stop the neighbours of this test, too.
        let foreign = sandbox.container("foreign");
        sandbox.run_idle(&foreign, "/data");
        let id = sandbox.docker(&["inspect", "--format", "{{.Id}}", &foreign]);
        let silent = format!("case \" $* \" in *' inspect '*{}*) exec sleep 60;; esac", id.trim());
        let outcome = sandbox
            .call("backup-all")
            .env("BACKUP_STALL_SECONDS", "6")
            .path_first(docker_stand_in(&sandbox, &silent))
            .run();
        outcome.assert_success();
        assert_backups_whole(&sandbox);
        super::clear_backups(&sandbox);
    });
    case("a dump that says all is well and then fails", || {
        let stand_in = docker_stand_in(&sandbox, "case \"$*\" in *pg_dump*) \"$docker\" \"$@\"; exit 7;; esac");
        let outcome = sandbox.call("backup-postgres").path_first(&stand_in).run();
        outcome.assert_error("pg_dump failed");
        assert!(sandbox.backups("postgres").is_empty() && sandbox.leftovers("postgres").is_empty());
    });
    assert_no_sessions(&sandbox);
}

/// What stands still is ended after the stall limit, and the other components go on.
#[test]
fn a_stream_that_stands_still_is_ended() {
    let sandbox = Sandbox::new("still")
        .stack()
        .seeded()
        .env("BACKUP_STALL_SECONDS", "2")
        .build();
    case("a client that stands still in the middle of the dump", || {
        let stand_in = docker_stand_in(
            &sandbox,
            "case \"$*\" in *pg_dump*) \"$docker\" \"$@\" | { head -c 3000; sleep 60; }; exit 0;; esac",
        );
        let outcome = sandbox.call("backup-all").path_first(&stand_in).run();
        assert_ended_in_time(&outcome);
        outcome.assert_log_has(
            "backup-all",
            "ERROR Backup completed with errors: 4/5 succeeded, 1 failed",
        );
        assert!(
            outcome.log.contains("nothing moved and nothing answered for 2 s"),
            "{outcome}"
        );
        assert!(sandbox.backups("postgres").is_empty());
        assert_backups_whole(&sandbox);
        assert_no_sessions(&sandbox);
    });
    case("a client that never reads what the restore writes", || {
        let dump = dump_of(&sandbox);
        let before = sandbox.fingerprint_postgres();
        let stand_in = docker_stand_in(&sandbox, "case \"$*\" in *'n8n-backup load'*) sleep 60; exit 0;; esac");
        let outcome = trusted_restore(&sandbox).arg(&dump).path_first(&stand_in).run();
        assert_ended_in_time(&outcome);
        outcome.assert_error("Database restore failed");
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
    });
    assert_next_run_succeeds(&sandbox);
}

/// A paused container: ended after the stall limit, also inside it once it goes on.
#[test]
fn a_paused_container_is_a_stall() {
    let sandbox = Sandbox::new("pause")
        .stack()
        .seeded()
        .env("BACKUP_STALL_SECONDS", "3")
        .build();
    let container = sandbox.container("postgres");
    let dump = dump_of(&sandbox);
    case("docker pause in the middle of a dump", || {
        let (held, gate) = held_dump(&sandbox);
        let mut running = sandbox.call("backup-all").path_first(held).spawn();
        running.await_that("the middle of the dump", |_| gate.is_reached());
        sandbox.pause(&container);
        gate.open();
        let outcome = running.wait();
        sandbox.docker(&["unpause", &container]);
        assert_ended_in_time(&outcome);
        outcome.assert_log_has(
            "backup-all",
            "ERROR Backup completed with errors: 4/5 succeeded, 1 failed",
        );
        assert!(sandbox.backups("postgres").is_empty() && sandbox.leftovers("postgres").is_empty());
        assert_eq!(sandbox.backups("n8n").len(), 1);
        assert_no_sessions(&sandbox);
        assert_next_run_succeeds(&sandbox);
    });
    case("docker pause in the middle of a restore", || {
        let before = sandbox.fingerprint_postgres();
        let slow = super::edited(&sandbox, &dump, "slow.sql.gz", |text| {
            super::before_end(&text, "SELECT pg_sleep(4);")
        });
        let mut running = trusted_restore(&sandbox).arg(&slow).spawn();
        running.await_that("the load sleeps", |_| {
            sandbox
                .psql_in(
                    "postgres",
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
                )
                .trim()
                == "1"
        });
        sandbox.pause(&container);
        let outcome = running.wait();
        sandbox.docker(&["unpause", &container]);
        assert!(outcome.took < Duration::from_secs(30), "{outcome}");
        outcome.assert_error("Database restore failed");
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert_next_run_succeeds(&sandbox);
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
    });
    case("a container that is paused before", || {
        sandbox.pause(&container);
        let outcome = sandbox.run("backup-postgres", &[]);
        sandbox.docker(&["unpause", &container]);
        outcome.assert_error("Container {} is not running");
        assert!(outcome.log.contains("docker unpause"), "{outcome}");
    });
}

/// A server that works for longer than the stall limit without moving a byte is not taken for one that hangs; one that
/// waits for a lock is.
#[test]
fn slow_work_in_the_server_is_no_stall() {
    let sandbox = Sandbox::new("slow")
        .postgres()
        .seeded()
        .env("BACKUP_STALL_SECONDS", "2")
        .build();
    let dump = dump_of(&sandbox);
    case("a statement that takes three times the stall limit", || {
        let slow = super::edited(&sandbox, &dump, "slow.sql.gz", |text| {
            super::before_end(&text, "SELECT pg_sleep(6);")
        });
        let outcome = super::restore(&sandbox, &slow);
        outcome.assert_success();
        assert!(outcome.took > Duration::from_secs(6));
    });
    case("a dump that waits for a lock", || {
        let container = sandbox.container("postgres");
        let lock = "BEGIN; LOCK TABLE execution_entity; SELECT pg_sleep(20)";
        let mut holder = std::process::Command::new("docker")
            .args(["exec", &container, "psql", "-U", "n8n", "-c", lock])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        await_true("the table is not locked", || {
            sandbox.psql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'execution_entity'::regclass").trim() == "1"
        });
        let outcome = sandbox.run("backup-postgres", &[]);
        outcome.assert_error("pg_dump failed");
        assert_ended_in_time(&outcome);
        sandbox.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        let _ = holder.wait();
        assert_no_sessions(&sandbox);
    });
    sandbox.run("backup-postgres", &[]).assert_success();
}

/// A client that warns of its configuration on each call, as one without a home does, or podman under docker's name.
#[test]
fn a_client_that_warns_on_each_call_is_believed() {
    let sandbox = Sandbox::new("engwarn").stack().seeded().build();
    let warnings = "echo 'WARNING: Error loading config file: /root/.docker/config.json: permission denied' >&2\n\
                    echo 'Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.' >&2";
    let noisy = docker_stand_in(&sandbox, warnings);
    let before = sandbox.fingerprint();
    case("a backup by a client that warns on each call", || {
        sandbox.call("backup-all").path_first(&noisy).run().assert_success();
    });
    case(
        "restores by a client that warns on each call, where n8n's containers are not there",
        || {
            sandbox.psql("drop table settings cascade");
            sandbox.redis(&["flushall"]);
            let outcome = sandbox
                .call("restore-all")
                .args(&["latest", "--yes"])
                .path_first(&noisy)
                .run();
            outcome.assert_success();
            assert_same(&before, &sandbox.fingerprint());
            // A volume that is not there is no silence of the engine either.
            sandbox.set("BACKUP_N8N_VOLUME", "n8nbt-no-such-volume");
            let outcome = sandbox.call("backup-n8n").path_first(&noisy).run();
            outcome.assert_error("Docker volume n8nbt-no-such-volume does not exist");
        },
    );
}
