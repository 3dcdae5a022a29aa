//! Copies whose manifests cannot be decrypted here: of a passphrase that was changed, or of a private key that is elsewhere.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use super::stacks::{binary, point};
use super::{files, lacks_programs, send, stack_dir, to_directory, PASSPHRASE};
use crate::common::{name, sh, Sandbox};

const CHANGED: &str = "another battery, another staple";

fn sealed(name: &'static str, passphrase: &str) -> Sandbox {
    let sandbox = Sandbox::new(name).env("RCLONE_SYNC_ENCRYPTED_ONLY", "false");
    sandbox.env("BACKUP_GPG_PASSPHRASE", passphrase).build()
}

#[test]
fn copies_expire_though_their_manifests_cannot_be_decrypted() {
    if lacks_programs("offsite::locked::copies_expire") {
        return;
    }
    let sandbox = sealed("offexpire", PASSPHRASE);
    let there = to_directory(&sandbox);
    let stamps = [
        "20260101_020000",
        "20260102_020000",
        "20260103_020000",
        "20260110_020000",
    ];
    for stamp in stamps {
        point(&sandbox, stamp, stamp, stamp);
        let file = sandbox.path(format!("backups/redis/dump_{stamp}.rdb"));
        let old = SystemTime::now() - Duration::from_secs(90 * 86_400);
        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    binary(&sandbox, &["pin", stamps[0]]).assert_success();
    send(&sandbox).assert_success();
    binary(&sandbox, &["unpin", stamps[0]]).assert_success();
    send(&sandbox).assert_success();
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(name(&sandbox.backup("sets")), format!("{}.sha256", stamps[3]));
    // Of one of them nothing is known, as where an earlier version has let it go here.
    let kept = |stamp: &str| sandbox.path(format!("backups/sets/.offsite/{stamp}.sha256"));
    fs::remove_file(kept(stamps[1])).unwrap();
    sandbox.set("BACKUP_GPG_PASSPHRASE", CHANGED);
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "1");
    sandbox.set("BACKUP_KEEP_LAST", "0");
    let outcome = send(&sandbox);
    outcome.assert_log_has(
        "backup-offsite",
        &format!("WARN 1 recovery point(s) there, up to {}, stay {{}}", stamps[1]),
    );
    outcome.assert_log_has(
        "backup-offsite",
        "WARN Hint: run backup-offsite once with the passphrase {}",
    );
    let left = files(&stack_dir(&there));
    let wanted = [stamps[1], stamps[3]];
    let sets = wanted.map(|stamp| format!("sets/{stamp}.sha256.gpg"));
    let dumps = wanted.map(|stamp| format!("redis/dump_{stamp}.rdb"));
    assert_eq!(left, [dumps, sets].concat(), "{outcome}");
    // What was kept for them here goes after them, and the passphrase of that time lets the last one go.
    assert!(kept(stamps[0]).exists(), "{outcome}");
    sandbox.set("BACKUP_GPG_PASSPHRASE", PASSPHRASE);
    let outcome = send(&sandbox);
    assert!(!kept(stamps[0]).exists() && !kept(stamps[2]).exists(), "{outcome}");
    assert_eq!(files(&stack_dir(&there)).len(), 2, "{outcome}");
}

/// A recovery point that is complete.
fn whole(sandbox: &Sandbox, stamp: &str) {
    let name = format!("postgres/n8n_{stamp}.sql.gz");
    let file = sandbox.write(&format!("backups/{name}"), stamp);
    let sum = sh("sha256sum <\"$1\" | cut -c -64", &[file.as_os_str()]);
    fs::create_dir_all(sandbox.path("backups/sets")).unwrap();
    sandbox.write(
        &format!("backups/sets/{stamp}.sha256"),
        format!(
            "# n8n-backup recovery point {stamp}\n# unused: redis n8n env\n# size.postgres: {}\n{}  {name}\n",
            stamp.len(),
            sum.trim()
        ),
    );
}

#[test]
fn the_latest_is_found_beside_one_of_another_passphrase() {
    if lacks_programs("offsite::locked::the_latest_is_found") {
        return;
    }
    let sandbox = sealed("offchanged", PASSPHRASE);
    to_directory(&sandbox);
    let stamps = ["20260102_020000", "20260102_200000"];
    whole(&sandbox, stamps[0]);
    send(&sandbox).assert_success();
    sandbox.set("BACKUP_GPG_PASSPHRASE", CHANGED);
    whole(&sandbox, stamps[1]);
    send(&sandbox).assert_success();

    let host = sealed("offchangedhost", PASSPHRASE);
    host.set("RCLONE_CONFIG", &sandbox.aside("rclone.conf").to_string_lossy());
    let fetch = || binary(&host, &["fetch-offsite", "--allow-plain", "latest"]);
    // Nothing tells that an older one is what is wanted.
    fetch().assert_error("Cannot decrypt {}");
    host.set("BACKUP_GPG_PASSPHRASE", CHANGED);
    let fetched = fetch();
    fetched.assert_success().assert_log_has(
        "fetch-offsite",
        &format!("WARN Passing over recovery point {}: {{}}", stamps[0]),
    );
    assert_eq!(name(&host.backup("sets")), format!("{}.sha256", stamps[1]));
}
