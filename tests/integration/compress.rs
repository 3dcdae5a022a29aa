//! Backups by each compressor: the archives are standard .gz files, hold the same, and restore.

use std::path::PathBuf;

use crate::common::{assert_same, has_program, sh, skip, Outcome, Sandbox};

/// Backs up the database and the volume, ruins the database, and restores it from the archive.
#[track_caller]
fn round_trip(sandbox: &Sandbox, path: &str, used: &str) {
    let before = sandbox.fingerprint_postgres();
    for kind in ["postgres", "n8n"] {
        for old in sandbox.backups(kind) {
            sh("rm -- \"$1\"", &[old.as_os_str()]);
        }
        let backup = format!("backup-{kind}");
        let outcome: Outcome = sandbox.call(&backup).path(path).run();
        outcome.assert_success();
        outcome.assert_log_has(&backup, &format!("INFO Compressing with {used}"));
    }
    let (dump, archive) = (sandbox.backup("postgres"), sandbox.backup("n8n"));
    // gzip itself reads what any of them wrote.
    sh("gzip -t \"$1\" \"$2\"", &[dump.as_os_str(), archive.as_os_str()]);
    sh("tar -tzf \"$1\" | grep -q '^\\./config$'", &[archive.as_os_str()]);
    sandbox.psql("DROP TABLE execution_data CASCADE");
    let restore = sandbox.call("restore-postgres").path(path).arg(&dump).run();
    restore.assert_success();
    assert_same(&before, &sandbox.fingerprint_postgres());
}

/// A directory with every program of /usr/bin but `without`.
fn bin_without(sandbox: &Sandbox, without: &[&str]) -> PathBuf {
    let dir = sandbox.aside("bin");
    sh("mkdir -- \"$1\" && ln -s /usr/bin/* \"$1\"", &[dir.as_os_str()]);
    for name in without {
        sh("rm -f -- \"$1\"", &[dir.join(name).as_os_str()]);
    }
    dir
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new("compress").postgres().volume().seeded().build();
    // More than one part for each of several processes.
    sandbox.psql("CREATE TABLE long AS SELECT n, repeat(md5(n::text), 3) AS text FROM generate_series(1, 60000) n");
    // A restore refreshes it, so that it must not be stale before.
    sandbox.psql("REFRESH MATERIALIZED VIEW execution_counts");
    sandbox
}

#[test]
fn every_compressor_makes_archives_that_restore() {
    let sandbox = sandbox();
    for (setting, program, used) in [
        ("/usr/bin/gzip", "gzip", "gzip -6{}"),
        ("igzip", "igzip", "igzip -1"),
        ("pigz -3 -p 2", "pigz", "pigz -3 -p 2"),
        ("libdeflate-gzip", "libdeflate-gzip", "libdeflate-gzip -6{}"),
        ("auto", "gzip", "{} -6{}"),
    ] {
        if !has_program(program) {
            skip(
                "every_compressor_makes_archives_that_restore",
                &format!("{program} is not installed"),
            );
            continue;
        }
        sandbox.set("BACKUP_COMPRESSOR", setting);
        round_trip(&sandbox, "/usr/bin:/bin", used);
    }
    sandbox.set("BACKUP_COMPRESSOR", "no-such-gzip -1");
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_error("Compressor no-such-gzip not found");
}

#[test]
fn a_host_with_gzip_alone_backs_up_and_restores() {
    let sandbox = sandbox();
    let bin = bin_without(
        &sandbox,
        &["igzip", "pigz", "unpigz", "libdeflate-gzip", "libdeflate-gunzip"],
    );
    let path = bin.to_string_lossy().into_owned();
    round_trip(&sandbox, &path, "gzip -6{}");
}

/// A nice value counts within a session alone where the kernel shares the processors out among sessions: then the session steps back
/// for the run.
#[test]
fn a_backup_has_its_session_step_back_for_the_live_stack() {
    const OF_SESSION: &str = "/proc/self/autogroup";
    if !std::path::Path::new(OF_SESSION).exists() {
        return skip("a session that steps back", "the kernel has no CONFIG_SCHED_AUTOGROUP");
    }
    let sandbox = Sandbox::new("session").postgres().build();
    let said = sandbox.aside("nice values");
    let script = format!("#!/bin/sh\ncat {OF_SESSION} >>'{}'\nexec gzip -c\n", said.display());
    let dir = sandbox.stand_in("session-gzip", &script);
    sandbox.set("BACKUP_COMPRESSOR", &dir.join("session-gzip").to_string_lossy());
    // The first and the last line are from before and after it.
    let around = format!("cat {OF_SESSION}; \"$@\" && cat {OF_SESSION}");
    let values = |before: &str| {
        let _ = std::fs::remove_file(&said);
        let script = format!("{before}{around}");
        let outcome = sandbox
            .call("backup-postgres")
            .under(&["setsid", "-w", "sh", "-c", &script, "sh"])
            .run();
        outcome.assert_success();
        let during = std::fs::read_to_string(&said).unwrap();
        let value = |line: Option<&str>| line.unwrap().rsplit_once(' ').unwrap().1.to_owned();
        let mut around = outcome.stdout.lines().filter(|line| line.starts_with("/autogroup"));
        [value(around.next()), value(during.lines().next()), value(around.next())]
    };
    assert_eq!(values(""), ["0", "10", "0"]);
    assert_eq!(values(&format!("echo 3 >{OF_SESSION}; ")), ["3", "3", "3"]);
    sandbox.set("BACKUP_NICE", "0");
    assert_eq!(values(""), ["0", "0", "0"]);
}

/// What runs live goes first: our processes have a nice value, unless the caller has chosen one.
#[test]
fn a_backup_steps_back_for_the_live_stack() {
    let sandbox = Sandbox::new("nice").postgres().build();
    let said = sandbox.aside("nice values");
    let script = format!("#!/bin/sh\nnice >>'{}'\nexec gzip -c\n", said.display());
    let dir = sandbox.stand_in("nice-gzip", &script);
    sandbox.set("BACKUP_COMPRESSOR", &dir.join("nice-gzip").to_string_lossy());
    let nice_value = || {
        let _ = std::fs::remove_file(&said);
        sandbox.run("backup-postgres", &[]).assert_success();
        let text = std::fs::read_to_string(&said).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    let ours = sh("nice", &[]).trim().to_owned();
    assert_eq!(nice_value(), if ours == "0" { "10" } else { &ours });
    sandbox.set("BACKUP_NICE", "0");
    assert_eq!(nice_value(), ours);
    sandbox.set("BACKUP_NICE", "20");
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_error("Bad setting (see {})");
    assert!(
        outcome
            .log
            .contains("BACKUP_NICE must be a whole number from 0 to 19, not '20'"),
        "{outcome}"
    );
}

#[test]
fn a_compressor_that_loses_bytes_is_found_out() {
    let sandbox = Sandbox::new("lossy").postgres().seeded().build();
    // Standard gzip output, exit code 0, but not of all that went in.
    let dir = sandbox.stand_in("short-gzip", "#!/bin/sh\nhead -c 20000 | gzip -c\ncat >/dev/null\n");
    sandbox.set("BACKUP_COMPRESSOR", &dir.join("short-gzip").to_string_lossy());
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_error("pg_dump failed");
    outcome.assert_log_has(
        "backup-postgres",
        "ERROR Cause: the file unpacks to {} bytes, and {} were packed",
    );
    assert!(sandbox.backups("postgres").is_empty() && sandbox.leftovers("postgres").is_empty());
    // A stream that is damaged on its way does not unpack at all.
    let dir = sandbox.stand_in(
        "bad-gzip",
        "#!/bin/sh\ngzip -c | { head -c 300; printf damaged; tail -c +8; }\n",
    );
    sandbox.set("BACKUP_COMPRESSOR", &dir.join("bad-gzip").to_string_lossy());
    sandbox.run("backup-postgres", &[]).assert_error("pg_dump failed");
    assert!(sandbox.backups("postgres").is_empty() && sandbox.leftovers("postgres").is_empty());
}
