//! What the program may cost: memory that does not grow with the data, and time. One test, so that it has the machine to
//! itself as far as the others of this suite go.

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::{Outcome, Sandbox};

/// The most memory that a run may take, in KiB.
const MEMORY: u64 = 32 << 10;

#[track_caller]
fn assert_flat(what: &str, outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{outcome}");
    eprintln!("{what}: {} KiB, {:?}", outcome.peak_kib, outcome.took);
    assert!(outcome.peak_kib > 0, "{what}: the peak was not seen");
    assert!(outcome.peak_kib < MEMORY, "{what} takes {} KiB", outcome.peak_kib);
}

#[test]
fn memory_stays_flat_and_small_stacks_are_quick() {
    let sandbox = Sandbox::new("limits").kept().stack().seeded().build();
    starts_quickly(&sandbox);
    small_stack_is_quick(&sandbox);

    assert_flat("backup-all", &sandbox.run("backup-all", &[]));
    // 200 MB of rows, 40 MB of Redis values and 60 MB in the volume: random, since what packs well would hide a buffer.
    sandbox.psql(
        "CREATE TABLE big AS SELECT g AS id, (SELECT string_agg(encode(sha512((random()::text || i)::bytea), 'hex'), '') \
         FROM generate_series(g * 0 + 1, 8) i) AS text FROM generate_series(1, 195000) g",
    );
    sandbox.redis(&[
        "EVAL",
        "for i = 1, 40 do redis.call('SETRANGE', 'big:' .. i, 1000000, i) end",
        "0",
    ]);
    let mount = format!("{}:/volume", sandbox.volume());
    let write = "dd if=/dev/urandom of=/volume/big bs=1M count=60 2>/dev/null";
    sandbox.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &mount,
        "n8n-backup-test/busybox:1",
        "sh",
        "-c",
        write,
    ]);

    assert_flat("backup-all of 300 MB", &sandbox.run("backup-all", &[]));
    let file = sandbox.backups("postgres").pop().unwrap();
    let unpacked = common::sh("gunzip -c -- \"$1\" | wc -c", &[file.as_os_str()]);
    assert!(unpacked.trim().parse::<u64>().unwrap() > 190_000_000, "{unpacked}");
    let outcome = sandbox.call("restore-postgres").arg(&file).run();
    assert_flat("restore-postgres", &outcome);
    assert_eq!(sandbox.psql("SELECT count(*) FROM big").trim(), "195000");
}

/// `--version` in less than ten milliseconds, the best of a few.
fn starts_quickly(sandbox: &Sandbox) {
    let program = sandbox.path("bin/n8n-backup");
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let begun = Instant::now();
        let mut command = std::process::Command::new(&program);
        command.arg("--version");
        assert!(common::output(command).status.success());
        best = best.min(begun.elapsed());
    }
    eprintln!("--version: {best:?}");
    assert!(best < Duration::from_millis(10), "{best:?}");
}

/// backup-all in less than two seconds, docker's time included, the best of a few.
fn small_stack_is_quick(sandbox: &Sandbox) {
    let mut best = Duration::MAX;
    for _ in 0..4 {
        best = best.min(sandbox.run("backup-all", &[]).assert_success().took);
        if best < Duration::from_secs(2) {
            eprintln!("backup-all: {best:?}");
            return;
        }
    }
    // Two seconds of a machine that is busy with other work prove nothing.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    assert!(
        load > 2.0 * cores as f64,
        "backup-all took {best:?} at a load of {load}"
    );
    common::skip(
        "limits::small_stack_is_quick",
        &format!("a load of {load} on {cores} cores; backup-all took {best:?}"),
    );
}
