//! What is sent again: copies that have rotted, pins that were set meanwhile.

use std::fs;

use super::stacks::{binary, manifest_of, plain, point, POINTS};
use super::{configure, lacks_programs, send, stack_dir, to_directory};
use crate::common::{sh, Outcome};

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
    let copy = stack_dir(&dir.join("n8n-backups")).join(format!("redis/dump_{}.rdb.bin", POINTS[0]));
    let rot = || {
        let mut bytes = fs::read(&copy).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(&copy, bytes).unwrap();
    };
    rot();
    let outcomes: Vec<Outcome> = (0..3).map(|_| send(&sandbox)).collect();
    let codes: Vec<Option<i32>> = outcomes.iter().map(|outcome| outcome.code).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{outcomes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(2)).count(), 2, "{outcomes:?}");
    let told = "The copy of recovery point 20260102_020000 is not as it was sent. It is sent again";
    assert_eq!(sandbox.log().matches(told).count(), 1, "{}", sandbox.log());
    let dump = sandbox.path(format!("backups/redis/dump_{}.rdb", POINTS[0]));
    let original = fs::read(&dump).unwrap();
    fs::remove_file(&dump).unwrap();
    binary(&sandbox, &["fetch-offsite", POINTS[0]]).assert_success();
    assert_eq!(fs::read(&dump).unwrap(), original);

    // One that has rotted here, too, cannot be sent; the others are, and have their turn.
    rot();
    let mut rotten = original.clone();
    rotten[0] ^= 1;
    fs::write(&dump, &rotten).unwrap();
    point(&sandbox, POINTS[2], POINTS[2], "the newest");
    for _ in 0..3 {
        let outcome = send(&sandbox);
        outcome.assert_error("Recovery point {} could not be sent to {}");
        outcome.assert_log_has(
            "backup-offsite",
            "ERROR Cause: {} is not what was backed up: its SHA-256 is {}",
        );
    }
    for stamp in &POINTS[1..] {
        let text = manifest_of(&sandbox, stamp);
        assert!(
            text.contains("# offsite: ") && text.contains("# offsite.checked: "),
            "{text}"
        );
    }
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
    // Unpinned, it goes.
    binary(&sandbox, &["unpin", POINTS[0]]).assert_success();
    send(&sandbox);
    assert!(!stack.join(format!("sets/{}.sha256", POINTS[0])).exists());
}
