//! What the retention deletes, and what it keeps.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use chrono::NaiveDateTime;

use super::{
    days_ago, fact, jq, loose, manifest, offline, point, point_at, points, sha256sum_agrees, stamp, touch, whole, DAY,
    KINDS,
};
use crate::common::{name, sh, skip, Sandbox};

#[test]
fn a_point_goes_with_all_its_files_and_its_manifest() {
    let sandbox = Sandbox::new("retention").env("BACKUP_KEEP_LAST", "1").build();
    let old = point(&sandbox, 9, &whole(100), &[]);
    let older = point(&sandbox, 30, &whole(100), &[]);
    let young = point(&sandbox, 7, &whole(100), &[]);
    let before = sandbox.listing();
    let dry = sandbox.run("cleanup-backups", &["--dry-run"]);
    dry.assert_success();
    assert_eq!(before, sandbox.listing(), "a dry run changes nothing");
    for stamp in [&old, &older] {
        dry.assert_log_has(
            "cleanup-backups",
            &format!("INFO [DRY-RUN] Would remove recovery point: {stamp}"),
        );
        dry.assert_log_has(
            "cleanup-backups",
            &format!("INFO [DRY-RUN] Would delete: {{}}/postgres/n8n_{stamp}.sql.gz ({{}})"),
        );
        dry.assert_log_has(
            "cleanup-backups",
            &format!("INFO [DRY-RUN] Reason: {{}} day(s) old, and no rule keeps it, recovery point {stamp}"),
        );
    }
    dry.assert_log_has(
        "cleanup-backups",
        &format!("INFO [DRY-RUN] Would keep: {{}}/env/env_{young}.backup ({{}}): 7 day(s) old, which is not over the retention; {{}}"),
    );
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "cleanup-backups",
        "SUCCESS Cleanup completed: 8 files deleted, 800B freed",
    );
    assert_eq!(points(&sandbox), [young]);
    for (kind, _, _) in KINDS {
        sandbox.backup(kind);
    }
    assert!(sha256sum_agrees(&sandbox, &manifest(&sandbox)));
}

#[test]
fn a_pinned_point_stays_until_it_is_unpinned() {
    let sandbox = Sandbox::new("pin").env("BACKUP_KEEP_LAST", "1").build();
    let old = point(&sandbox, 90, &whole(100), &[]);
    let young = point(&sandbox, 1, &whole(200), &[]);
    offline(&sandbox, &["pin", "20010101_000000"]).assert_error("There is no recovery point 20010101_000000");
    offline(&sandbox, &["unpin", &old]).assert_error(&format!("Recovery point {old} is not pinned"));
    let outcome = offline(&sandbox, &["pin", &old, "--reason", "before 2.0: the audit"]);
    outcome.assert_success();
    outcome.assert_log_has(
        "pin",
        &format!("SUCCESS Recovery point {old} is pinned: before 2.0: the audit"),
    );
    let listed = offline(&sandbox, &["list"]).stdout;
    let line = listed.lines().find(|line| line.starts_with(&old)).unwrap();
    assert!(line.ends_with("complete, pinned (before 2.0: the audit)"), "{line}");
    let json = offline(&sandbox, &["list", "--json"]).stdout;
    if let Some(said) = jq("list --json", &json, "[.points[].pinned | if . then .[26:] else . end]") {
        assert_eq!(said, r#"["before 2.0: the audit",null]"#);
    }

    // A file that has gone and one that has changed take nothing from it.
    fs::remove_file(sandbox.path(format!("backups/redis/dump_{old}.rdb"))).unwrap();
    let changed = sandbox.write(&format!("backups/env/env_{old}.backup"), "something else");
    touch(&changed, days_ago(90));
    let dry = sandbox.run("cleanup-backups", &["--dry-run"]);
    dry.assert_success().assert_log_has(
        "cleanup-backups",
        &format!("INFO [DRY-RUN] Would keep: {{}}/postgres/n8n_{old}.sql.gz ({{}}): pinned, recovery point {old}"),
    );
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(points(&sandbox), [old.clone(), young.clone()]);
    assert_eq!(sandbox.backups("postgres").len(), 2);
    offline(&sandbox, &["pin", &old]).assert_success().assert_log_has(
        "pin",
        &format!("WARN Recovery point {old} lacks files already: n8n-backup verify {old} tells which"),
    );

    offline(&sandbox, &["unpin", &old]).assert_success();
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(points(&sandbox), [young]);
    assert_eq!(sandbox.backups("postgres").len(), 1);
}

#[test]
fn the_younger_of_name_and_file_counts_for_a_point_and_the_file_alone_without_one() {
    let sandbox = Sandbox::new("ages").build();
    let newest = point(&sandbox, 0, &whole(100), &[]);
    // Its files were touched to look old.
    let touched = point(&sandbox, 2, &whole(100), &[]);
    for (kind, _, _) in KINDS {
        for file in sandbox.backups(kind) {
            touch(&file, days_ago(40));
        }
    }
    // One of its files was copied back yesterday.
    let returned = point(&sandbox, 9, &whole(100), &[]);
    touch(&sandbox.path(format!("backups/redis/dump_{returned}.rdb")), days_ago(1));
    let aged = point(&sandbox, 10, &whole(100), &[]);
    // Without a recovery point it is as with find -mtime +7.
    let gone = loose(&sandbox, "postgres", 1, 8, b"x");
    let kept = loose(&sandbox, "postgres", 2000, 7, b"x");

    let dry = sandbox.run("cleanup-backups", &["--dry-run"]);
    let counts = "a file of it was written later than it says, and that time counts";
    assert!(
        dry.log
            .lines()
            .any(|line| line.contains(&returned) && line.contains(counts)),
        "{dry}"
    );
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(points(&sandbox), [returned, touched, newest]);
    assert!(!gone.exists() && kept.exists());
    assert!(!sandbox.path(format!("backups/env/env_{aged}.backup")).exists());
}

#[test]
fn what_is_kept_for_years_is_kept_by_point() {
    let mut sandbox = Sandbox::new("years").env("BACKUP_RETENTION_DAYS", "2");
    for (setting, count) in [
        ("LAST", "2"),
        ("DAILY", "4"),
        ("WEEKLY", "3"),
        ("MONTHLY", "3"),
        ("YEARLY", "2"),
    ] {
        sandbox = sandbox.env(&format!("BACKUP_KEEP_{setting}"), count);
    }
    let sandbox = sandbox.build();
    let mut all: Vec<String> = (0..60).map(|age| point(&sandbox, age, &[("env", 10)], &[])).collect();
    all.extend((2..30).map(|month| point(&sandbox, month * 31, &[("env", 10)], &[])));
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "cleanup-backups",
        "INFO Kept besides: 2 last, 4 daily, 3 weekly, 3 monthly, 2 yearly",
    );
    // The newest of each period, from the newest point on, said by its stamp.
    let dates: Vec<NaiveDateTime> = all
        .iter()
        .map(|stamp| NaiveDateTime::parse_from_str(stamp, "%Y%m%d_%H%M%S").unwrap())
        .collect();
    let mut expected: Vec<String> = all[..4].to_vec();
    for (format, count) in [("%G-%V", 3), ("%Y-%m", 3), ("%Y", 2)] {
        let mut seen = Vec::new();
        for (date, stamp) in dates.iter().zip(&all) {
            let period = date.format(format).to_string();
            if !seen.contains(&period) && seen.len() < count {
                seen.push(period);
                expected.push(stamp.clone());
            }
        }
        assert_eq!(seen.len(), count);
    }
    expected.sort();
    expected.dedup();
    assert_eq!(points(&sandbox), expected);
    // What stays now stays the next time.
    let again = sandbox.run("cleanup-backups", &[]);
    again.assert_log_has(
        "cleanup-backups",
        "SUCCESS Cleanup completed: 0 files deleted, 0B freed",
    );
}

#[test]
fn proven_verified_and_larger_points_stay() {
    let sandbox = Sandbox::new("proven").env("BACKUP_KEEP_LAST", "1").build();
    let newest = point(&sandbox, 1, &whole(100), &[]);
    let plain = point(&sandbox, 8, &whole(100), &[]);
    let failed_drill = point(&sandbox, 10, &whole(100), &["drill: failed 2026-01-01"]);
    let verified = point(&sandbox, 15, &whole(100), &["verified: 2026-01-01T00:00:00+00:00"]);
    // Of the others this proves nothing.
    let database = point(
        &sandbox,
        18,
        &whole(100),
        &["drill: passed postgres 2026-01-01T00:00:00+00:00"],
    );
    let proven = point(
        &sandbox,
        20,
        &whole(100),
        &["drill: passed full 2026-01-01T00:00:00+00:00"],
    );
    let older = point(
        &sandbox,
        22,
        &whole(100),
        &["drill: passed full 2026-01-01T00:00:00+00:00"],
    );
    let larger = point(&sandbox, 25, &[("n8n", 201), ("env", 1)], &[]);
    let large = point(&sandbox, 30, &[("n8n", 999)], &[]);
    let damaged = point(&sandbox, 35, &[("n8n", 9999)], &["damaged: n8n", "verified: x"]);
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    assert_eq!(points(&sandbox), [larger, proven, database, verified, newest]);
    for gone in [plain, older, failed_drill, large, damaged] {
        outcome.assert_log_has("cleanup-backups", &format!("INFO Removed recovery point: {gone}"));
    }
}

/// What watches the backups takes that for the newest which a restore of the latest would take.
#[test]
fn a_point_that_was_set_aside_is_not_the_newest() {
    let sandbox = Sandbox::new("aside").build();
    let good = point(&sandbox, 1, &whole(100), &[]);
    let aside = point(
        &sandbox,
        0,
        &whole(100),
        &["aside: made while a restore was interrupted"],
    );
    let status = offline(&sandbox, &["status", "--max-age", "3d"]);
    assert_eq!(status.code, Some(1), "{status}");
    for told in [
        format!("[OK] age: {good} is "),
        format!("[WARNING] run: a later run, {aside}, is not taken for the latest: made while a restore"),
    ] {
        assert!(status.stdout.contains(&told), "{status}");
    }
    fs::remove_file(sandbox.path(format!("backups/sets/{good}.sha256"))).unwrap();
    let status = offline(&sandbox, &["status"]);
    assert_eq!(status.code, Some(2), "{status}");
    let told = format!("the newest one, {aside}, cannot be relied on: made while a restore was interrupted");
    assert!(status.stdout.contains(&told), "{status}");
}

#[test]
fn a_backup_that_is_not_as_it_was_is_no_last_resort() {
    let sandbox = Sandbox::new("resort").build();
    let good = point(&sandbox, 14, &[("postgres", 500)], &[]);
    let newest = point(&sandbox, 4, &[("redis", 500)], &[]);
    let cut = point(&sandbox, 10, &[("postgres", 500)], &[]);
    let file = sandbox.path(format!("backups/postgres/n8n_{cut}.sql.gz"));
    fs::write(&file, "x").unwrap();
    touch(&file, days_ago(10));
    let older = point(&sandbox, 16, &[("postgres", 500)], &[]);
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(points(&sandbox), [good, newest], "neither {cut} nor {older}");
}

/// A dump without a recovery point, whole but for its last `cut` bytes.
fn loose_dump(sandbox: &Sandbox, named: u64, written: u64, cut: usize) -> PathBuf {
    let text = "--\n-- PostgreSQL database dump\n--\n\nSET a = 1;\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
    let path = loose(sandbox, "postgres", named, written, b"");
    sh(
        "printf '%s' \"$2\" | gzip >\"$1\"",
        &[path.as_os_str(), OsStr::new(text)],
    );
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
    touch(&path, days_ago(written));
    path
}

#[test]
fn a_cut_dump_without_a_point_does_not_cost_the_whole_one_before_it() {
    let sandbox = Sandbox::new("cut").build();
    let [older, whole, cut] = [(40, 0), (30, 0), (20, 9)].map(|(age, cut)| loose_dump(&sandbox, age, age, cut));
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "cleanup-backups",
        &format!("WARN Not a good backup: {}: {{}}", cut.display()),
    );
    assert_eq!(sandbox.backups("postgres"), [whole]);
    assert!(!older.exists());
}

#[test]
fn of_dumps_with_one_time_the_whole_one_stays() {
    let sandbox = Sandbox::new("equal").build();
    // As a copy without -p leaves them.
    let written = SystemTime::now() - Duration::from_secs(20 * DAY);
    let [_first, whole, cut] = [(22, 0), (21, 0), (20, 9)].map(|(named, cut)| {
        let path = loose_dump(&sandbox, named, 20, cut);
        touch(&path, written);
        path
    });
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "cleanup-backups",
        &format!("WARN Not a good backup: {}: {{}}", cut.display()),
    );
    assert_eq!(sandbox.backups("postgres"), [whole]);
}

#[test]
fn a_dump_that_could_not_be_read_is_not_taken_for_a_bad_one() {
    for (what, fault) in [("stands still", "exec /bin/sleep 60"), ("is killed", "kill -KILL $$")] {
        let sandbox = Sandbox::new("unread").env("BACKUP_STALL_SECONDS", "1").build();
        loose_dump(&sandbox, 30, 30, 0);
        let newest = loose_dump(&sandbox, 20, 20, 0);
        let script = format!(
            "#!/bin/sh\ncase $(/usr/bin/readlink /proc/$$/fd/0) in *{}) {fault} ;; esac\nexec /bin/gzip \"$@\"\n",
            name(&newest)
        );
        // It alone is on the PATH, since a faster program would be taken.
        let path = sandbox.stand_in("gzip", &script);
        let outcome = sandbox.binary().arg("cleanup-backups").path(path).run();
        outcome.assert_success();
        outcome.assert_log_has(
            "cleanup-backups",
            &format!("WARN Could not be judged, and is kept: {}: {{}}", newest.display()),
        );
        assert!(newest.exists(), "unpacking {what}: {outcome}");
    }
}

#[test]
fn where_none_is_a_dump_the_one_that_unpacks_stays() {
    let sandbox = Sandbox::new("unpacks").build();
    let intact = loose(&sandbox, "postgres", 30, 30, b"");
    sh("echo 'SELECT 1;' | gzip >\"$1\"", &[intact.as_os_str()]);
    let bytes = fs::read(&intact).unwrap();
    touch(&intact, days_ago(30));
    loose(&sandbox, "postgres", 20, 20, &bytes[..bytes.len() - 9]);
    loose(&sandbox, "postgres", 19, 19, b"");
    loose(&sandbox, "postgres", 40, 40, &bytes);
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(sandbox.backups("postgres"), [intact]);
}

#[test]
fn without_the_env_file_that_was_there_nothing_is_deleted() {
    let sandbox = Sandbox::new("envgone")
        .redis()
        .env("BACKUP_RETENTION_DAYS", "90")
        .build();
    let old = [20, 14, 9, 4].map(|age| {
        let stamp = point(&sandbox, age, &whole(100), &[]);
        let copy = sandbox.write(
            &format!("backups/env/env_{stamp}.backup"),
            format!("A={}", "x".repeat(98)),
        );
        touch(&copy, days_ago(age));
        stamp
    });
    let alone = loose(&sandbox, "redis", 16, 16, b"x");
    sandbox.run("cleanup-backups", &[]).assert_success();
    let all_there = || {
        let left = points(&sandbox);
        old.iter().all(|stamp| left.contains(stamp)) && sandbox.backups("postgres").len() == 4 && alone.exists()
    };
    assert!(all_there());
    let settings = sandbox.settings();
    for (lost, missing) in [
        (".env is missing, and there are copies of it", true),
        (".env sets nothing, and copies of it do", false),
    ] {
        match missing {
            true => fs::remove_file(sandbox.path(".env")).unwrap(),
            false => drop(sandbox.write(".env", "")),
        }
        for args in [&["--dry-run"][..], &[]] {
            let outcome = sandbox.call("cleanup-backups").args(args).envs(&settings).run();
            outcome.assert_success();
            outcome.assert_log_has(
                "cleanup-backups",
                &format!("WARN {lost}: {{}} nothing is deleted. {{}}"),
            );
            outcome.assert_never_says("Would delete");
            assert!(all_there(), "{outcome}");
        }
        let before = sandbox.backups("redis").len();
        let outcome = sandbox.call("backup-all").envs(&settings).run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        outcome.assert_log_has(
            "backup-all",
            match missing {
                true => "ERROR .env file not found at {}",
                false => "ERROR Failed to backup environment file",
            },
        );
        // The rest is backed up as always.
        assert_eq!(sandbox.backups("redis").len(), before + 1, "{outcome}");
        assert!(all_there() && sandbox.backups("env").len() == 4, "{outcome}");
    }
    sandbox.set("BACKUP_RETENTION_DAYS", "15");
    sandbox.call("cleanup-backups").envs(&settings).run().assert_success();
    assert!(!points(&sandbox).contains(&old[0]) && points(&sandbox).contains(&old[1]));
}

#[test]
fn an_env_file_that_never_set_anything_is_not_missed() {
    let sandbox = Sandbox::new("envnone").build();
    for age in [30, 20, 14, 9, 4] {
        let stamp = point(&sandbox, age, &whole(100), &[]);
        let copy = sandbox.write(&format!("backups/env/env_{stamp}.backup"), format!("{:100}", "# none"));
        touch(&copy, days_ago(age));
    }
    sandbox.write(".env", "# none\n");
    // Nor is that of another stack, whose point was fetched.
    sandbox.write("backups/.identity", "0123456789abcdef\n");
    let stamp = point(&sandbox, 25, &whole(100), &["stack: fedcba9876543210"]);
    let text = format!("A={}", "x".repeat(98));
    let copy = sandbox.write(&format!("backups/env/env_{stamp}.backup"), &text);
    touch(&copy, days_ago(25));
    let clean = || {
        let outcome = sandbox.call("cleanup-backups").envs(&sandbox.settings()).run();
        outcome.assert_success();
        points(&sandbox).len()
    };
    assert_eq!(clean(), 3);
    // One that no point is known to hold may be this stack's.
    sandbox.write("backups/env/env_20250101_020000.backup", &text);
    point(&sandbox, 40, &whole(100), &[]);
    assert_eq!(clean(), 4);
}

/// Whatever the clock says: it may have jumped, the host been off, or every backup have failed.
#[test]
fn the_newest_three_complete_points_always_stay() {
    let sandbox = Sandbox::new("three").build();
    let all: Vec<String> = (400..408).map(|age| point(&sandbox, age, &whole(10), &[])).collect();
    let only_env = point(&sandbox, 390, &[("env", 10)], &[]);
    let aside = point(
        &sandbox,
        391,
        &whole(10),
        &["aside: made while a restore was interrupted"],
    );
    let damaged = point(&sandbox, 392, &whole(10), &["damaged: redis"]);
    let dry = sandbox.run("cleanup-backups", &["--dry-run"]);
    dry.assert_success();
    dry.assert_log_has(
        "cleanup-backups",
        &format!(
            "INFO [DRY-RUN] Would keep: {{}}/redis/dump_{}.rdb ({{}}): among the newest complete recovery points{{}}",
            all[2]
        ),
    );
    // The newest good backup of a component stays besides, and with it the rest of its point.
    let kept = |last: usize| {
        let mut kept: Vec<String> = all[..last].to_vec();
        kept.extend([only_env.clone(), damaged.clone()]);
        kept.sort();
        kept
    };
    for _ in 0..2 {
        sandbox.run("cleanup-backups", &[]).assert_success();
        assert_eq!(points(&sandbox), kept(3), "neither {aside} nor an older one");
    }
    sandbox.set("BACKUP_KEEP_LAST", "1");
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(points(&sandbox), kept(1));
}

/// What an interrupted restore goes on with is not deleted before it has.
#[test]
fn what_an_unfinished_restore_needs_stays() {
    let sandbox = Sandbox::new("needed").env("BACKUP_KEEP_LAST", "1").build();
    let all: Vec<String> = (400..404).map(|age| point(&sandbox, age, &whole(10), &[])).collect();
    let clean = |message: &str| {
        let outcome = sandbox.run("cleanup-backups", &[]);
        outcome.assert_success();
        outcome.assert_log_has("cleanup-backups", message);
        points(&sandbox)
    };
    let mut wanted = all.clone();
    wanted.sort();
    // Of a file by itself nobody knows which; nor is a record understood that a later version may have written.
    let alone = format!(
        "container {} 0001-01-01T00:00:00Z runs\npart n8n\n",
        sandbox.container("n8n-main")
    );
    for record in [alone.as_str(), "junk\n"] {
        sandbox.write("backups/.restore", record);
        let left = clean("WARN A restore is unfinished, and what it needs is not known ({}): nothing is deleted {}");
        assert_eq!(left, wanted, "{record}");
    }
    sandbox.write("backups/.restore", format!("point {}\npart n8n\n", all[2]));
    let dry = sandbox.run("cleanup-backups", &["--dry-run"]);
    dry.assert_log_has(
        "cleanup-backups",
        "INFO [DRY-RUN] Would keep: {}: an unfinished restore may need it, recovery point {}",
    );
    let told = format!(
        "INFO Recovery point {} stays, because its restore is unfinished",
        all[2]
    );
    assert_eq!(clean(&told), [all[2].clone(), all[0].clone()]);
    fs::remove_file(sandbox.path("backups/.restore")).unwrap();
    assert_eq!(clean("INFO Removed recovery point: {}"), [all[0].clone()]);
}

/// Nothing is counted from a point that is dated in the future, and it stays.
#[test]
fn a_point_of_the_future_takes_no_place() {
    let sandbox = Sandbox::new("future").build();
    let all = [4, 10, 12, 14, 16].map(|age| point(&sandbox, age, &whole(10), &[]));
    let ahead = point_at(
        &sandbox,
        &stamp(SystemTime::now() + Duration::from_secs(400 * DAY)),
        SystemTime::now(),
        &whole(10),
        &[],
    );
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    assert_eq!(points(&sandbox), [&all[2], &all[1], &all[0], &ahead].map(String::clone));
}

#[test]
fn in_the_hour_that_clocks_repeat_the_newer_point_stays_the_newer() {
    let sandbox = Sandbox::new("hour").redis().build();
    // Clocks are set back by an hour between the two.
    sandbox.call("backup-redis").env("TZ", "AAA-1").run().assert_success();
    let first = points(&sandbox);
    sandbox.redis(&["set", "later", "1"]);
    sandbox.call("backup-redis").env("TZ", "BBB0").run().assert_success();
    let both = points(&sandbox);
    assert!(both.len() == 2 && both[0] == first[0], "{first:?} {both:?}");
    assert_eq!(fact(&sandbox.backups("sets")[1], "redis.keys").as_deref(), Some("1"));
    let status = sandbox.binary().arg("status").env("TZ", "BBB0").run();
    assert!(!status.stdout.contains("future"), "{status}");
    let cleanup = sandbox.call("cleanup-backups").env("TZ", "BBB0").run();
    cleanup.assert_success().assert_never_says("clock");
    // A clock that was wrong by more is another matter.
    let far = sandbox.call("backup-redis").env("TZ", "CCC5").run();
    far.assert_success();
    assert!(points(&sandbox)[0] < first[0], "{:?}", points(&sandbox));
}

#[test]
fn a_file_that_cannot_be_deleted_keeps_its_line_and_the_point_is_partial() {
    let sandbox = Sandbox::new("stuck").env("BACKUP_KEEP_LAST", "1").build();
    point(&sandbox, 1, &whole(10), &[]);
    let old = point(&sandbox, 8, &whole(10), &[]);
    let stuck = sandbox.path(format!("backups/redis/dump_{old}.rdb"));
    let other = sandbox.path(format!("backups/n8n/n8n_data_{old}.tar.gz"));
    for file in [&stuck, &other] {
        let mut hold = Command::new("chattr");
        hold.arg("+i").arg(file);
        if !hold.output().is_ok_and(|said| said.status.success()) {
            skip("a file that cannot be deleted", "chattr +i does not work here");
            return;
        }
    }
    let first = sandbox.run("cleanup-backups", &[]);
    sh("chattr -i \"$1\"", &[other.as_os_str()]);
    let outcome = sandbox.run("cleanup-backups", &[]);
    sh("chattr -i \"$1\"", &[stuck.as_os_str()]);
    assert_eq!((first.code, outcome.code), (Some(1), Some(1)), "{first}{outcome}");
    outcome.assert_log_has(
        "cleanup-backups",
        &format!("ERROR Failed to delete: {}", stuck.display()),
    );
    let set = sandbox.path(format!("backups/sets/{old}.sha256"));
    assert!(
        sha256sum_agrees(&sandbox, &set),
        "only the line of the file that is left"
    );
    assert_eq!(fact(&set, "deleted").as_deref(), Some("postgres env n8n"));
    let list = offline(&sandbox, &["list"]);
    assert!(
        list.stdout
            .lines()
            .any(|row| row.starts_with(&old) && row.ends_with(" partial")),
        "{list}"
    );
    // A point that names no file any more has none that is good.
    let text = fs::read_to_string(&set).unwrap();
    let none = text.replace("# deleted: postgres", "# deleted: redis postgres");
    let none: Vec<&str> = none.lines().filter(|line| line.starts_with('#')).collect();
    fs::write(&set, none.join("\n")).unwrap();
    offline(&sandbox, &["verify", &old]).assert_error("There was no file to verify: {}");
    fs::write(&set, text).unwrap();
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert!(!set.exists() && !stuck.exists());
}
