//! What the commands cost grows with the number of recovery points, and no faster.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, SystemTime};

use super::{stamp, KINDS};
use crate::common::Sandbox;

/// So many times as much for ten times as many points. One that looks at every point for each point takes a hundred times.
const LIMIT: f64 = 20.0;

/// A project with so many points, all of them off-site, as a stand-in for rclone says.
fn project(count: u32) -> Sandbox {
    let sandbox = Sandbox::new("cost")
        .env("BACKUP_RETENTION_DAYS", "36500")
        .env("BACKUP_KEEP_DAILY", "100000")
        .env("BACKUP_OFFSITE_KEEP_DAYS", "36500")
        .env("RCLONE_SYNC_ENCRYPTED_ONLY", "false")
        .build();
    let backups = sandbox.path("backups");
    let sum = "0".repeat(64);
    let mut names = String::new();
    for number in 0..count {
        let time = SystemTime::now() - Duration::from_secs(7200 * u64::from(count - number));
        let stamp = stamp(time);
        let mut text = format!("# n8n-backup recovery point {stamp}\n# failed: none\n");
        text.push_str("# offsite: 2026-01-01T00:00:00+00:00 n8n-backup:n8n-backups (compared by size)\n");
        for table in 0..30 {
            let _ = writeln!(text, "# postgres.rows.public.table_{table}: {number}");
        }
        let mut lines = String::new();
        for (kind, prefix, suffix) in KINDS {
            let name = format!("{kind}/{prefix}{stamp}{suffix}");
            fs::write(backups.join(&name), "ten bytes.").unwrap();
            let _ = writeln!(text, "# size.{kind}: 10");
            let _ = writeln!(lines, "{sum}  {name}");
            let _ = writeln!(names, "10 {name}");
        }
        let set = format!("sets/{stamp}.sha256");
        fs::write(backups.join(&set), text + &lines).unwrap();
        let _ = writeln!(names, "900 {set}");
    }
    fs::write(sandbox.aside("names"), names).unwrap();
    sandbox
}

/// The processor time of a command and what it starts, in seconds; the best of a few runs.
fn cost(sandbox: &Sandbox, runs: usize, args: &[&str]) -> f64 {
    let names = sandbox.aside("names");
    let rclone = sandbox.stand_in(
        "rclone",
        &format!(
            "#!/bin/sh\ncase \" $* \" in *' lsf '*) cat '{}' ;; *' check '*) echo '4 matching files' >&2 ;; esac\n",
            names.display()
        ),
    );
    let report = sandbox.aside("time");
    let script = "TIMEFORMAT='%U %S'; { time \"$@\" 2>&3; } 3>&2 2>\"$REPORT\"";
    let once = || {
        let call = sandbox.binary().args(args).under(&["bash", "-c", script, "bash"]);
        let outcome = call.env("REPORT", &report).path_first(&rclone).run();
        assert!(matches!(outcome.code, Some(0..=2)), "{args:?}: {outcome}");
        let text = fs::read_to_string(&report).unwrap();
        let times = text.split_whitespace().map(|time| time.parse::<f64>().unwrap());
        times.sum::<f64>()
    };
    (0..runs).map(|_| once()).fold(f64::MAX, f64::min)
}

#[test]
fn ten_times_as_many_points_cost_ten_times_as_much() {
    let [few, many] = [300, 3_000].map(project);
    for args in [
        &["list"][..],
        &["list", "--json"],
        &["status"],
        &["cleanup-backups"],
        &["cleanup-backups", "--dry-run"],
        &["backup-offsite"],
    ] {
        let (few, many) = (cost(&few, 3, args), cost(&many, 1, args));
        eprintln!("{args:?}: {few:.3} s and {many:.3} s");
        assert!(few > 0.0 && many < LIMIT * few, "{args:?}: {few:.3} s and {many:.3} s");
    }
}
