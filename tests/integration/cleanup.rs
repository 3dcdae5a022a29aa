//! cleanup-backups: what the retention lets go, and all that it must not touch.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::common::{name, Sandbox};

const DAY: u64 = 86_400;

/// Makes a backup file of an age.
fn aged(sandbox: &Sandbox, relative: &str, age: Duration, bytes: usize) -> PathBuf {
    let path = sandbox.write(relative, vec![b'x'; bytes]);
    let taken = SystemTime::now() - age;
    let dated = fs::File::options()
        .append(true)
        .open(&path)
        .and_then(|file| file.set_modified(taken));
    dated.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY)
}

/// Files of all four components: young, just below eight days, eight days and older.
fn fill(sandbox: &Sandbox) {
    for (dir, first, last) in KINDS {
        for (age, tag) in [
            (days(0), "20260301"),
            (days(8) - Duration::from_secs(120), "20260222"),
            (days(8) + Duration::from_secs(5), "20260221"),
            (days(400), "20250101"),
        ] {
            aged(sandbox, &format!("backups/{dir}/{first}{tag}_020000{last}"), age, 1000);
        }
    }
}

const KINDS: [(&str, &str, &str); 4] = [
    ("postgres", "n8n_", ".sql.gz"),
    ("redis", "dump_", ".rdb"),
    ("n8n", "n8n_data_", ".tar.gz"),
    ("env", "env_", ".backup"),
];

#[test]
fn a_file_that_another_command_reads_stays() {
    let sandbox = Sandbox::new("used").build();
    fill(&sandbox);
    let used = sandbox.path("backups/postgres/n8n_20250101_020000.sql.gz");
    let file = fs::File::open(&used).unwrap();
    file.lock_shared().unwrap();
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome
        .assert_success()
        .assert_log_has("cleanup-backups", "INFO Kept, because another command reads it now: {}");
    assert!(used.exists());
    assert_eq!(sandbox.backups("postgres").len(), 3);
    // Not by dropping it: a child that another thread is starting may hold a copy of it.
    file.unlock().unwrap();
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert!(!used.exists());
}

#[test]
fn files_go_from_eight_whole_days_on() {
    let sandbox = Sandbox::new("clean").build();
    fill(&sandbox);
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success().assert_logged_as_printed();
    let mut patterns = vec!["INFO Starting backup cleanup (retention: 7 days)".to_owned()];
    for (dir, first, last) in KINDS {
        let dir = sandbox.path("backups").join(dir);
        patterns.push(format!("INFO Scanning {}...", dir.display()));
        for tag in ["20250101", "20260221"] {
            patterns.push(format!(
                "INFO Deleted: {}/{first}{tag}_020000{last} (4.0K)",
                dir.display()
            ));
        }
    }
    patterns.push("SUCCESS Cleanup completed: 8 files deleted, 7.9KiB freed".to_owned());
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    outcome.assert_messages("cleanup-backups", &patterns);
    for (dir, first, last) in KINDS {
        let left: Vec<String> = sandbox.backups(dir).iter().map(|path| name(path)).collect();
        assert_eq!(
            left,
            [
                format!("{first}20260222_020000{last}"),
                format!("{first}20260301_020000{last}")
            ]
        );
        assert!(sandbox.path("backups").join(dir).join(".gitkeep").exists());
    }
    let again = sandbox.run("cleanup-backups", &[]);
    again.assert_success();
    again.assert_log_has(
        "cleanup-backups",
        "SUCCESS Cleanup completed: 0 files deleted, 0B freed",
    );
}

#[test]
fn a_dry_run_only_tells() {
    let sandbox = Sandbox::new("dry").build();
    fill(&sandbox);
    // Nor does a warning come before the line that says so.
    sandbox.set("BACKUP_COMPRESSR", "gzip");
    let before = sandbox.listing();
    let outcome = sandbox.run("cleanup-backups", &["--dry-run"]);
    outcome.assert_success();
    assert_eq!(sandbox.listing(), before);
    outcome.assert_messages(
        "cleanup-backups",
        &[
            "INFO Running in dry-run mode (no files will be deleted)",
            "INFO Starting backup cleanup (retention: 7 days)",
            "INFO Scanning {}/backups/postgres...",
            "INFO [DRY-RUN] Would delete: {}/n8n_20250101_020000.sql.gz (4.0K)",
            "INFO [DRY-RUN] Would delete: {}/n8n_20260221_020000.sql.gz (4.0K)",
            "INFO Scanning {}/backups/redis...",
            "INFO Scanning {}/backups/n8n...",
            "INFO Scanning {}/backups/env...",
            "SUCCESS Dry-run completed",
        ],
    );
    outcome.assert_never_says("Deleted: ");
    assert_eq!(outcome.log.matches("[DRY-RUN] Would delete: ").count(), 8);
    assert!(
        outcome.log.contains("BACKUP_COMPRESSR in .env is no setting"),
        "{outcome}"
    );
    let first = outcome.lines().remove(0).message;
    assert_eq!(first, "Running in dry-run mode (no files will be deleted)", "{outcome}");
}

#[test]
fn a_mistyped_option_deletes_nothing() {
    let sandbox = Sandbox::new("typo").build();
    fill(&sandbox);
    let before = sandbox.listing();
    for args in [
        &["--dryrun"][..],
        &["-dry-run"],
        &["--dry-run=yes"],
        &["--dry-run", "extra"],
        &["dry-run"],
        &[""],
    ] {
        let outcome = sandbox.run("cleanup-backups", args);
        assert_eq!(
            (outcome.code, outcome.errors().len()),
            (Some(1), 1),
            "{args:?}: {outcome}"
        );
        assert!(
            outcome
                .stderr
                .starts_with("Usage: n8n-backup cleanup-backups [--dry-run]"),
            "{outcome}"
        );
        assert_eq!(sandbox.listing(), before, "{args:?}");
    }
}

#[test]
fn the_newest_stays_whatever_its_age() {
    let sandbox = Sandbox::new("newest").build();
    for age in [300, 200, 100] {
        aged(
            &sandbox,
            &format!("backups/postgres/n8n_2025{age}_020000.sql.gz"),
            days(age),
            10,
        );
        aged(
            &sandbox,
            &format!("backups/n8n/n8n_data_2025{age}_020000.tar.gz"),
            days(age),
            10,
        );
    }
    // An empty file is no backup: the one before it is the newest good one.
    aged(&sandbox, "backups/redis/dump_20250101_020000.rdb", days(60), 10);
    aged(&sandbox, "backups/redis/dump_20250102_020000.rdb", days(50), 0);
    sandbox.run("cleanup-backups", &[]).assert_success();
    let left = |kind| -> Vec<String> { sandbox.backups(kind).iter().map(|path| name(path)).collect() };
    assert_eq!(left("postgres"), ["n8n_2025100_020000.sql.gz"]);
    assert_eq!(left("n8n"), ["n8n_data_2025100_020000.tar.gz"]);
    assert_eq!(left("redis"), ["dump_20250101_020000.rdb"]);
}

#[test]
fn what_is_not_a_backup_is_not_touched() {
    let sandbox = Sandbox::new("foreign").build();
    let outside = sandbox.aside("outside.sql.gz");
    fs::write(&outside, "x").unwrap();
    for dir in [
        "backups/postgres/old",
        "backups/postgres/dir.sql.gz",
        "backups/other",
        "logs/old",
    ] {
        fs::create_dir_all(sandbox.path(dir)).unwrap();
    }
    for relative in [
        "backups/postgres/notes.txt",
        "backups/postgres/n8n_20250101_020000.sql",
        "backups/postgres/dump_20250101_020000.rdb",
        "backups/postgres/old/n8n_20250101_020000.sql.gz",
        "backups/postgres/dir.sql.gz/n8n_20250101_020000.sql.gz",
        "backups/redis/dump_20250101_020000.rdb.bak",
        "backups/other/n8n_20250101_020000.sql.gz",
        "backups/n8n_20250101_020000.sql.gz",
        "logs/old/n8n_20250101_020000.sql.gz",
    ] {
        aged(&sandbox, relative, days(100), 10);
    }
    std::os::unix::fs::symlink(&outside, sandbox.path("backups/postgres/link.sql.gz")).unwrap();
    // One that may go, and one that makes it not the last.
    let gone = aged(
        &sandbox,
        "backups/postgres/before the upgrade;\n$(id).sql.gz",
        days(100),
        10,
    );
    let before = sandbox.listing();
    aged(&sandbox, "backups/postgres/n8n_20260301_020000.sql.gz", days(0), 10);
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "cleanup-backups",
        "INFO Deleted: {}/before the upgrade;\\n$(id).sql.gz (4.0K)",
    );
    assert!(!gone.exists() && outside.exists());
    fs::remove_file(sandbox.path("backups/postgres/n8n_20260301_020000.sql.gz")).unwrap();
    let mut expected = before;
    expected.retain(|line| !line.contains("before the upgrade"));
    assert_eq!(sandbox.listing(), expected);
}

#[test]
fn the_retention_is_a_setting_and_missing_directories_are_none() {
    let sandbox = Sandbox::new("retain").env("BACKUP_RETENTION_DAYS", "2").build();
    aged(&sandbox, "backups/env/env_20260301_020000.backup", days(0), 10);
    let stays = aged(
        &sandbox,
        "backups/env/env_20260228_020000.backup",
        days(3) - Duration::from_secs(60),
        10,
    );
    let goes = aged(
        &sandbox,
        "backups/env/env_20260227_020000.backup",
        days(3) + Duration::from_secs(1),
        10,
    );
    fs::remove_dir_all(sandbox.path("backups/redis")).unwrap();
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success().assert_messages(
        "cleanup-backups",
        &[
            "INFO Starting backup cleanup (retention: 2 days)",
            "INFO Scanning {}/backups/postgres...",
            "INFO Directory does not exist, skipping: {}/backups/redis",
            "SUCCESS Cleanup completed: 1 files deleted, 10B freed",
        ],
    );
    assert!(stays.exists() && !goes.exists());
    // A value that is no number of days deletes nothing.
    fs::create_dir(sandbox.path("backups/redis")).unwrap();
    fill(&sandbox);
    let before = sandbox.listing();
    for bad in ["0x7", "-1", "7 days", "1.5"] {
        sandbox.set("BACKUP_RETENTION_DAYS", bad);
        let outcome = sandbox.run("cleanup-backups", &[]);
        assert_eq!((outcome.code, outcome.errors().len()), (Some(1), 1), "{bad}: {outcome}");
        outcome.assert_log_has("cleanup-backups", "ERROR {}");
        assert!(outcome.log.contains("BACKUP_RETENTION_DAYS"), "{outcome}");
    }
    let settled: Vec<String> = sandbox
        .listing()
        .into_iter()
        .filter(|line| !line.contains(".env"))
        .collect();
    let expected: Vec<String> = before.into_iter().filter(|line| !line.contains(".env")).collect();
    assert_eq!(settled, expected);
}

#[test]
fn a_file_that_cannot_be_deleted_is_an_error_and_the_others_go() {
    let test = "cleanup::a_file_that_cannot_be_deleted_is_an_error_and_the_others_go";
    let sandbox = Sandbox::new("stuck").build();
    fill(&sandbox);
    if !crate::common::can_mount() {
        return crate::common::skip(test, "needs to mount in a namespace of its own (root)");
    }
    let stuck = sandbox.path("backups/redis");
    let script = r#"dir=$1; shift; mount --bind "$dir" "$dir" && mount -o remount,ro,bind "$dir" && exec "$@""#;
    let under = ["unshare", "-m", "sh", "-c", script, "sh"].map(std::ffi::OsString::from);
    let under: Vec<_> = under.into_iter().chain([stuck.clone().into_os_string()]).collect();
    let outcome = sandbox.call("cleanup-backups").under(&under).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    for tag in ["20250101", "20260221"] {
        let message = format!("ERROR Failed to delete: {}/dump_{tag}_020000.rdb", stuck.display());
        outcome.assert_log_has("cleanup-backups", &message);
    }
    assert_eq!(sandbox.backups("redis").len(), 4);
    for kind in ["postgres", "n8n", "env"] {
        assert_eq!(sandbox.backups(kind).len(), 2, "{kind}");
    }
}

#[test]
fn a_slip_in_the_name_of_a_setting_is_told() {
    let sandbox = Sandbox::new("slip").build();
    sandbox.set("BACKUP_RETENTON_DAYS", "30");
    sandbox.set("BACKUP_OF_SOMETHING_ELSE", "1");
    let [old, _newer] = [20, 10].map(|days| {
        let name = format!("backups/env/env_202501{days}_020000.backup");
        aged(&sandbox, &name, Duration::from_secs(days * DAY), 10)
    });
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_error(
        "BACKUP_RETENTON_DAYS in .env is no setting, did you mean BACKUP_RETENTION_DAYS? Nothing is deleted{}",
    );
    assert!(old.exists());
    let slip = "WARN BACKUP_RETENTON_DAYS in .env is no setting, did you mean BACKUP_RETENTION_DAYS?";
    outcome.assert_log_has("cleanup-backups", slip);
    assert!(!outcome.stdout.contains("SOMETHING_ELSE"));
    // Whatever it was to be: it is about what is kept.
    let env = fs::read_to_string(sandbox.path(".env")).unwrap();
    sandbox.write(".env", env.replace("BACKUP_RETENTON_DAYS", "BACKUP_KEEP_DAYS"));
    sandbox
        .run("cleanup-backups", &[])
        .assert_error("BACKUP_KEEP_DAYS in .env is no setting. Nothing is deleted{}");
    assert!(old.exists());
}
