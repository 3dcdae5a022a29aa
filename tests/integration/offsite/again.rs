//! What is sent again: copies that have rotted, pins that were set meanwhile.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::stacks::{binary, manifest_of, plain, point, POINTS};
use super::{configure, files, forget_copies, lacks_programs, send, stack_dir, to_directory, PASSPHRASE};
use crate::common::{sh, Outcome, Sandbox};

/// A point that rots before it is sent.
const NEVER_SENT: &str = "20260101_020000";

/// A remote of type crypt has no checksum in common with what is here.
#[test]
fn what_rots_on_a_crypt_remote_is_sent_again() {
    if lacks_programs("offsite::again::what_rots_on_a_crypt_remote") {
        return;
    }
    let sandbox = plain("offrot");
    let dir = sandbox.aside("elsewhere");
    let password = sh("rclone obscure secret", &[]);
    configure(
        &sandbox,
        &format!(
            "type = crypt\nremote = {}\npassword = {}\nfilename_encryption = off\ndirectory_name_encryption = false\n",
            dir.display(),
            password.trim()
        ),
    );
    for stamp in &POINTS[..2] {
        point(&sandbox, stamp, stamp, &format!("the snapshot of {stamp}").repeat(100));
    }
    send(&sandbox).assert_success();
    let stack = stack_dir(&dir.join("n8n-backups"));
    let copy = stack.join(format!("redis/dump_{}.rdb.bin", POINTS[0]));
    for rotten in [&stack.join(format!("sets/{}.sha256.bin", POINTS[0])), &copy] {
        let mut bytes = fs::read(rotten).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(rotten, bytes).unwrap();
        let outcomes: Vec<Outcome> = (0..3).map(|_| send(&sandbox)).collect();
        let codes: Vec<Option<i32>> = outcomes.iter().map(|outcome| outcome.code).collect();
        assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{outcomes:?}");
        assert_eq!(codes.iter().filter(|code| **code == Some(2)).count(), 2, "{outcomes:?}");
    }
    let told = "The copy of recovery point 20260102_020000 is not as it was sent. It is sent again";
    assert_eq!(sandbox.log().matches(told).count(), 2, "{}", sandbox.log());
    let dump = sandbox.path(format!("backups/redis/dump_{}.rdb", POINTS[0]));
    let original = fs::read(&dump).unwrap();
    fs::remove_file(&dump).unwrap();
    binary(&sandbox, &["fetch-offsite", POINTS[0]]).assert_success();
    assert_eq!(fs::read(&dump).unwrap(), original);

    // Of one that has rotted here, the copy is the only good one. One that cannot be sent at all holds up no other.
    let copied = fs::read(&copy).unwrap();
    let rotten = |dump: &Path| {
        let mut bytes = fs::read(dump).unwrap();
        bytes[0] ^= 1;
        fs::write(dump, bytes).unwrap();
    };
    rotten(&dump);
    point(&sandbox, POINTS[2], POINTS[2], "the newest");
    point(&sandbox, NEVER_SENT, NEVER_SENT, "never sent");
    rotten(&sandbox.path(format!("backups/redis/dump_{NEVER_SENT}.rdb")));
    for _ in 0..3 {
        let outcome = send(&sandbox);
        outcome.assert_error(&format!("Recovery point {NEVER_SENT} could not be sent to {{}}"));
        outcome.assert_log_has(
            "backup-offsite",
            "ERROR Cause: {} is not what was backed up: its SHA-256 is {}",
        );
        assert_eq!(fs::read(&copy).unwrap(), copied, "{outcome}");
    }
    assert_eq!(
        sandbox.log().matches("It is sent again").count(),
        2,
        "{}",
        sandbox.log()
    );
    for stamp in &POINTS[1..] {
        let text = manifest_of(&sandbox, stamp);
        assert!(
            text.contains("# offsite: ") && text.contains("# offsite.checked: "),
            "{text}"
        );
    }
    // It is recorded as damaged, as by verify, and not tried again.
    let text = manifest_of(&sandbox, POINTS[0]);
    assert!(text.contains("# damaged: redis"), "{text}");
    assert_eq!(sandbox.log().matches("cannot be compared").count(), 1);
    fs::remove_file(&dump).unwrap();
    binary(&sandbox, &["fetch-offsite", POINTS[0]]).assert_success();
    assert_eq!(fs::read(&dump).unwrap(), original);
}

/// A directory of `backups/` may be a link to another disk, and so may a single file.
#[test]
fn what_is_a_link_here_is_sent_once() {
    if lacks_programs("offsite::again::what_is_a_link_here") {
        return;
    }
    let sandbox = plain("offlinks");
    for stamp in &POINTS[..2] {
        point(&sandbox, stamp, stamp, &format!("the snapshot of {stamp}"));
    }
    let (dir, disk) = (sandbox.path("backups/redis"), sandbox.aside("disk"));
    fs::rename(&dir, &disk).unwrap();
    symlink(&disk, &dir).unwrap();
    let (file, moved) = (disk.join(format!("dump_{}.rdb", POINTS[0])), sandbox.aside("moved.rdb"));
    fs::rename(&file, &moved).unwrap();
    symlink(&moved, &file).unwrap();
    // One that leads nowhere is no backup of ours.
    symlink("nowhere", disk.join("latest.rdb")).unwrap();
    let password = sh("rclone obscure secret", &[]);
    for section in [
        format!("type = alias\nremote = {}\n", sandbox.aside("elsewhere").display()),
        format!(
            "type = crypt\nremote = {}\npassword = {}\n",
            sandbox.aside("sealed").display(),
            password.trim()
        ),
    ] {
        configure(&sandbox, &section);
        forget_copies(&sandbox);
        let outcome = send(&sandbox);
        outcome.assert_success();
        outcome.assert_log_has("backup-offsite", "INFO Recovery point {} is at {}, compared by {}");
        for _ in 0..2 {
            let outcome = send(&sandbox);
            assert_eq!(outcome.code, Some(2), "{outcome}");
            outcome.assert_log_has(
                "backup-offsite",
                "INFO The copy of recovery point {} is as it was sent, {}",
            );
        }
    }
    assert!(!sandbox.log().contains("It is sent again"), "{}", sandbox.log());
}

/// Where the connection fails, nothing is known of the copies, and nothing is sent for it.
#[test]
fn an_error_while_comparing_is_no_difference() {
    if lacks_programs("offsite::again::an_error_while_comparing") {
        return;
    }
    let sandbox = plain("offcompare");
    to_directory(&sandbox);
    for stamp in &POINTS[..2] {
        point(&sandbox, stamp, stamp, stamp);
    }
    send(&sandbox).assert_success();
    let (real, calls) = (sh("command -v rclone", &[]), sandbox.aside("calls"));
    let rclone = sandbox.stand_in(
        "rclone",
        &format!(
            "#!/bin/sh\necho \"$1\" >>'{}'\n[ \"$1\" != check ] || {{\n  echo 'NOTICE: there: 1 differences found' >&2\n  \
             echo 'Failed to check: connection reset by peer' >&2\n  exit 1\n}}\nexec '{}' \"$@\"\n",
            calls.display(),
            real.trim()
        ),
    );
    let fails = || {
        let _ = fs::remove_file(&calls);
        let outcome = sandbox.call("backup-offsite").path_first(&rclone).run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        outcome.assert_log_has(
            "backup-offsite",
            "ERROR The copy of recovery point {} could not be compared",
        );
        outcome.assert_log_has(
            "backup-offsite",
            "ERROR Cause: what is at {} cannot be compared with what was sent: {}connection reset by peer",
        );
        let calls = fs::read_to_string(&calls).unwrap();
        (outcome, calls.lines().filter(|word| word.starts_with("copy")).count())
    };
    let (outcome, copies) = fails();
    assert_eq!(copies, 0, "{outcome}");
    // What is new is sent once, and is not called sent.
    point(&sandbox, POINTS[2], POINTS[2], POINTS[2]);
    let (outcome, copies) = fails();
    assert_eq!(copies, 1, "{outcome}");
    outcome.assert_log_has(
        "backup-offsite",
        &format!("ERROR Recovery point {} could not be sent to {{}}", POINTS[2]),
    );
    outcome.assert_never_says("It is sent again");
    assert!(!manifest_of(&sandbox, POINTS[2]).contains("# offsite: "));
    let outcome = send(&sandbox);
    outcome.assert_success().assert_never_says("It is sent again");
    assert_eq!(send(&sandbox).code, Some(2));
}

/// A run that sends for hours works with what it saw when it began.
#[test]
fn a_pin_that_is_set_while_points_are_sent_counts() {
    if lacks_programs("offsite::again::a_pin_that_is_set") {
        return;
    }
    let sandbox = plain("offpinned");
    let there = to_directory(&sandbox);
    for stamp in &POINTS[..2] {
        point(&sandbox, stamp, stamp, stamp);
    }
    send(&sandbox).assert_success();
    point(&sandbox, POINTS[2], POINTS[2], POINTS[2]);
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "1");
    sandbox.set("BACKUP_KEEP_LAST", "0");
    let real = sh("command -v rclone", &[]);
    let rclone = sandbox.stand_in(
        "rclone",
        &format!(
            "#!/bin/sh\ncase $1 in lsf) pinned={} ;; copy) pinned={} ;; *) pinned= ;; esac\n\
             [ -z \"$pinned\" ] || '{}' --project-dir '{}' pin \"$pinned\" </dev/null >/dev/null 2>&1\nexec '{}' \"$@\"\n",
            POINTS[0],
            POINTS[2],
            sandbox.path("bin/n8n-backup").display(),
            sandbox.dir().display(),
            real.trim()
        ),
    );
    let outcome = sandbox.call("backup-offsite").path_first(&rclone).run();
    outcome.assert_success();
    // The point that this run has sent has its pin there after the next one.
    send(&sandbox).assert_success();
    let stack = stack_dir(&there);
    for stamp in [POINTS[0], POINTS[2]] {
        assert!(manifest_of(&sandbox, stamp).contains("\n# pinned: "), "{outcome}");
        let sent = fs::read_to_string(stack.join(format!("sets/{stamp}.sha256")));
        assert!(
            sent.is_ok_and(|text| text.contains("\n# pinned: ")),
            "{stamp}: {outcome}"
        );
        assert!(stack.join(format!("redis/dump_{stamp}.rdb")).exists(), "{outcome}");
    }
    // Unpinned, it goes, unless a restore of it is unfinished.
    binary(&sandbox, &["unpin", POINTS[0]]).assert_success();
    let record = sandbox.write("backups/.restore", format!("point {}\npart redis\n", POINTS[0]));
    send(&sandbox);
    assert!(stack.join(format!("redis/dump_{}.rdb", POINTS[0])).exists());
    fs::remove_file(record).unwrap();
    send(&sandbox);
    assert!(!stack.join(format!("sets/{}.sha256", POINTS[0])).exists());
}

/// The newest point is what a copy is for: that it is not there is no success, and costs no other its copy.
#[test]
fn a_newest_point_that_cannot_be_sent_is_a_failure() {
    if lacks_programs("offsite::again::a_newest_point_that_cannot_be_sent") {
        return;
    }
    let sandbox = plain("offnewest");
    let there = to_directory(&sandbox);
    for stamp in POINTS {
        point(&sandbox, stamp, stamp, stamp);
    }
    let newest = sandbox.path(format!("backups/sets/{}.sha256", POINTS[2]));
    let text = fs::read_to_string(&newest).unwrap();
    for spoiled in [
        "no manifest".to_owned(),
        text.replacen("# size", "# damaged: redis\n# size", 1),
    ] {
        fs::write(&newest, spoiled).unwrap();
        let outcome = send(&sandbox);
        let told = [
            "Not sent: {}",
            "The newest recovery point ({}) lacks a file or holds one that has changed{}",
        ];
        outcome.assert_error(told[usize::from(fs::read_to_string(&newest).unwrap().contains("damaged"))]);
        assert_eq!(files(&stack_dir(&there)).len(), 4, "{outcome}");
    }
    // One that is restored by name only is not what is missed.
    let aside = text.replacen("# size", "# aside: made by a test\n# damaged: redis\n# size", 1);
    fs::write(&newest, aside).unwrap();
    let outcome = send(&sandbox);
    assert_eq!(outcome.code, Some(2), "{outcome}");
    fs::write(&newest, text).unwrap();
    send(&sandbox).assert_success();
}

/// A manifest that is sent under the other name takes the place of the one that is there.
#[test]
fn encryption_that_is_switched_off_or_on_leaves_one_manifest() {
    if lacks_programs("offsite::again::encryption_that_is_switched") {
        return;
    }
    let sandbox = plain("offswitch");
    let there = to_directory(&sandbox);
    sandbox.set("BACKUP_GPG_PASSPHRASE", PASSPHRASE);
    for stamp in &POINTS[..2] {
        point(&sandbox, stamp, stamp, stamp);
    }
    send(&sandbox).assert_success();
    let stack = stack_dir(&there);
    let sets = || -> Vec<String> {
        let names = files(&stack).into_iter();
        names
            .filter_map(|name| Some(name.strip_prefix("sets/")?.to_owned()))
            .collect()
    };
    let names = |ends: [&str; 2]| [0, 1].map(|n| format!("{}.sha256{}", POINTS[n], ends[n]));
    let rests = || (0..3).for_each(|_| assert_eq!(send(&sandbox).code, Some(2), "{}", sandbox.log()));

    sandbox.set("BACKUP_GPG_PASSPHRASE", "");
    // One is pinned, and of the other one a file is lost.
    binary(&sandbox, &["pin", POINTS[0]]).assert_success();
    fs::remove_file(stack.join(format!("redis/dump_{}.rdb", POINTS[1]))).unwrap();
    send(&sandbox).assert_success();
    assert_eq!(sets(), names(["", ""]));
    let sent = fs::read_to_string(stack.join(format!("sets/{}", sets()[0]))).unwrap();
    assert!(sent.contains("\n# pinned: "), "{sent}");
    rests();

    // With a key that may not delete there are two.
    sandbox.set("BACKUP_GPG_PASSPHRASE", PASSPHRASE);
    binary(&sandbox, &["unpin", POINTS[0]]).assert_success();
    let real = sh("command -v rclone", &[]);
    let rclone = sandbox.stand_in(
        "rclone",
        &format!(
            "#!/bin/sh\n[ \"$1\" != delete ] || {{ echo 'AccessDenied' >&2; exit 1; }}\nexec '{}' \"$@\"\n",
            real.trim()
        ),
    );
    let outcome = sandbox.call("backup-offsite").path_first(&rclone).run();
    outcome.assert_success().assert_log_has(
        "backup-offsite",
        &format!(
            "WARN An earlier manifest of recovery point {} stays there: {{}}",
            POINTS[0]
        ),
    );
    assert_eq!(sets().len(), 3, "{outcome}");
    rests();
    assert!(!sandbox.log().contains("is not as it was sent"), "{}", sandbox.log());
    binary(&sandbox, &["pin", POINTS[0]]).assert_success();
    send(&sandbox).assert_success();
    assert_eq!(sets(), names([".gpg", ""]));
}

/// A first copy over a slow line takes days, and the retention here goes on.
#[test]
fn points_that_are_deleted_while_others_are_sent_are_passed_over() {
    if lacks_programs("offsite::again::points_that_are_deleted") {
        return;
    }
    let sandbox = plain("offslow");
    let there = to_directory(&sandbox);
    for stamp in POINTS {
        point(&sandbox, stamp, stamp, stamp);
    }
    // The newest is sent first; the oldest is deleted then, and the other one in the middle of being sent: its file first.
    let real = sh("command -v rclone", &[]);
    let rclone = sandbox.stand_in(
        "rclone",
        &format!(
            "#!/bin/sh\n[ \"$1\" != copy ] || {{\n  cd '{}'\n  old={}\n  [ -e sets/$old.sha256 ] || old={}\n  \
             rm -f redis/dump_$old.rdb sets/{}.sha256\n}}\nexec '{}' \"$@\"\n",
            sandbox.path("backups").display(),
            POINTS[0],
            POINTS[1],
            POINTS[0],
            real.trim()
        ),
    );
    let outcome = sandbox.call("backup-offsite").path_first(&rclone).run();
    outcome.assert_success();
    for stamp in &POINTS[..2] {
        let told = format!("INFO Recovery point {stamp} is not sent: it has been deleted here since this run began");
        outcome.assert_log_has("backup-offsite", &told);
    }
    let sets: Vec<String> = files(&stack_dir(&there))
        .into_iter()
        .filter(|name| name.starts_with("sets/"))
        .collect();
    assert_eq!(sets, [format!("sets/{}.sha256", POINTS[2])], "{outcome}");
    assert_eq!(send(&sandbox).code, Some(2));
}

/// A copy that takes longer than a day is none that backup-all fails by; one that has come to a halt is.
#[test]
fn a_copy_that_has_come_to_a_halt_fails_the_night() {
    if lacks_programs("offsite::again::a_copy_that_has_come_to_a_halt") {
        return;
    }
    let sandbox = Sandbox::new("offhalt")
        .stack()
        .env("RCLONE_SYNC_ENCRYPTED_ONLY", "false")
        .env("BACKUP_OFFSITE", "true")
        .build();
    to_directory(&sandbox);
    sandbox.run("backup-all", &[]).assert_success();
    sandbox.run("backup-redis", &[]).assert_success();
    let waits = sandbox.backups("sets").pop().unwrap();
    let gate = sandbox.gate();
    let rclone = sandbox.stand_in("rclone", &format!("#!/bin/sh\n{}\nexit 1\n", gate.wait()));
    let mut copy = sandbox.call("backup-offsite").path_first(&rclone).spawn();
    copy.await_that("the copy to begin", |_| gate.is_reached());

    let night = sandbox.run("backup-all", &[]);
    night.assert_success().assert_log_has(
        "backup-offsite",
        "WARN An off-site copy is already in progress (PID: {}); the next run sends what that one does not",
    );
    let fails = |cause: &str| {
        let night = sandbox.run("backup-all", &[]);
        assert_eq!(night.code, Some(1), "{night}");
        night.assert_log_has(
            "backup-offsite",
            "ERROR An off-site copy is already in progress (PID: {})",
        );
        night.assert_log_has("backup-offsite", &format!("ERROR Cause: {cause}"));
        night.assert_log_has("backup-all", "ERROR backup-offsite.sh failed with exit code 1");
    };
    copy.signal("STOP");
    fails("that process is stopped: kill -CONT {} has it go on, kill -KILL {} ends it");
    copy.signal("CONT");
    sandbox.run("backup-all", &[]).assert_success();

    // The point that it was to send has waited since the night before the last.
    let begun = chrono::Local::now() - chrono::TimeDelta::hours(48);
    let text = fs::read_to_string(&waits).unwrap();
    let old = text.lines().find(|line| line.starts_with("# begun: ")).unwrap();
    fs::write(&waits, text.replace(old, &format!("# begun: {}", begun.to_rfc3339()))).unwrap();
    let first = sandbox.backups("sets").remove(0);
    let text = fs::read_to_string(&first).unwrap();
    let old = text.lines().find(|line| line.starts_with("# begun: ")).unwrap();
    let begun = begun - chrono::TimeDelta::hours(24);
    fs::write(&first, text.replace(old, &format!("# begun: {}", begun.to_rfc3339()))).unwrap();
    // That copy has begun since, as the first one to a new remote.
    sandbox.run("backup-all", &[]).assert_success();
    let lock = fs::File::options()
        .write(true)
        .open(sandbox.path("backups/.offsite.lock"))
        .unwrap();
    lock.set_modified((chrono::Local::now() - chrono::TimeDelta::hours(40)).into())
        .unwrap();
    fails("recovery point {} is {} old and is not off-site yet: see whether that copy still sends");
    gate.open();
    copy.wait();
    sandbox.run("backup-all", &[]).assert_success();
}
