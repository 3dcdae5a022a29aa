//! Standard output and the log: closed, full, never read.

use std::fs::{self, OpenOptions};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{assert_backups_whole, case};
use crate::common::{await_true, full_pipe, pipe_without_reader, Sandbox};

fn backup_all(sandbox: &Sandbox, stdout: Stdio) -> std::process::Child {
    backup_all_to(sandbox, &[], stdout, Stdio::piped())
}

fn backup_all_to(sandbox: &Sandbox, args: &[&str], stdout: Stdio, stderr: Stdio) -> std::process::Child {
    let mut command = Command::new(sandbox.path("scripts/backup-all.sh"));
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    command.spawn().unwrap()
}

/// A standard output that takes nothing ends the run before it begins: nobody would read that it failed.
#[test]
fn an_output_that_takes_nothing_ends_the_run_before_it_begins() {
    let sandbox = Sandbox::new("outc").stack().build();
    case("standard output is a closed pipe", || {
        let child = backup_all(&sandbox, pipe_without_reader().into());
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    });
    case("standard output is a full device", || {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let child = backup_all(&sandbox, full.into());
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    });
    let log = sandbox.log();
    assert_eq!(log.matches("[ERROR]").count(), 2, "{log}");
    assert_eq!(log.matches("Cannot write to standard output").count(), 2, "{log}");
    for kind in ["postgres", "redis", "n8n", "env"] {
        assert!(sandbox.backups(kind).is_empty());
    }
}

/// A reader that goes away in the middle costs nothing: the log file has it all.
#[test]
fn a_reader_that_goes_away_costs_no_backup() {
    let sandbox = Sandbox::new("outg").stack().seeded().build();
    case("the reader goes away in the middle", || {
        let (reader, writer) = std::io::pipe().unwrap();
        let child = backup_all(&sandbox, writer.into());
        await_true("no log", || sandbox.log().contains("Running: backup-postgres.sh"));
        drop(reader);
        let said = child.wait_with_output().unwrap();
        assert_eq!(said.status.code(), Some(0), "{}", sandbox.log());
        assert!(sandbox.log().contains("All backups completed successfully (5/5)"));
        assert_backups_whole(&sandbox);
    });
}

/// A reader that never reads does not hold a run, with its lock, for ever.
#[test]
fn a_pipe_that_nobody_reads_does_not_hold_a_run() {
    // At once: each waits for longer than all the rest of it takes.
    std::thread::scope(|scope| {
        for (what, args, both) in [
            ("standard output is a full pipe", &[][..], false),
            ("standard output and error are a full pipe", &[], true),
            ("standard output and error are a full pipe, with -v", &["-v"], true),
        ] {
            scope.spawn(move || case(what, || is_not_held(args, both)));
        }
    });
}

fn is_not_held(args: &[&str], both: bool) {
    let sandbox = Sandbox::new("outp").env("BACKUP_STALL_SECONDS", "2").build();
    let (reader, writer) = full_pipe();
    let stderr = match both {
        true => writer.try_clone().unwrap().into(),
        false => Stdio::piped(),
    };
    let start = Instant::now();
    let mut child = backup_all_to(&sandbox, args, writer.into(), stderr);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(20) {
            super::kill("KILL", child.id());
            panic!("it is held: {}", sandbox.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(1), "{}", sandbox.log());
    assert!(sandbox.backups("env").is_empty(), "it goes on: {}", sandbox.log());
    super::assert_lock_free(&sandbox);
    drop(reader);
}

/// A log directory that is no directory, or may not be written, is an error before anything is done.
#[test]
fn a_log_that_cannot_be_opened_ends_the_run_before_it_begins() {
    let sandbox = Sandbox::new("outl").stack().build();
    case("logs is a file", || {
        fs::remove_dir_all(sandbox.path("logs")).unwrap();
        fs::write(sandbox.path("logs"), "").unwrap();
        let child = backup_all(&sandbox, Stdio::piped());
        let said = child.wait_with_output().unwrap();
        assert_eq!(said.status.code(), Some(1));
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(
            text.matches("[ERROR]").count(),
            text.matches("Cause: ").count() + 1,
            "{text}"
        );
        assert!(text.contains("Cannot create log directory"), "{text}");
        assert!(sandbox.backups("postgres").is_empty());
    });
}
