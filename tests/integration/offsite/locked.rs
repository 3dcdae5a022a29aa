//! Copies whose manifests cannot be decrypted here: of a passphrase that was changed, or of a private key that this host does not have.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use super::stacks::{binary, point};
use super::{files, lacks_programs, send, stack_dir, to_directory, PASSPHRASE};
use crate::common::{name, sh, Sandbox};

const CHANGED: &str = "another battery, another staple";
/// Two that are sent after that.
const LATE: [&str; 2] = ["20260111_020000", "20260120_020000"];

fn sealed(name: &'static str, passphrase: &str) -> Sandbox {
    let sandbox = Sandbox::new(name).env("RCLONE_SYNC_ENCRYPTED_ONLY", "false");
    sandbox.env("BACKUP_GPG_PASSPHRASE", passphrase).build()
}

#[test]
fn copies_whose_manifests_cannot_be_decrypted_hold_up_no_other() {
    if lacks_programs("offsite::locked::copies_whose_manifests") {
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
    send(&sandbox).assert_success();
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(name(&sandbox.backup("sets")), format!("{}.sha256", stamps[3]));
    sandbox.set("BACKUP_GPG_PASSPHRASE", CHANGED);
    point(&sandbox, LATE[0], LATE[0], LATE[0]);
    point(&sandbox, LATE[1], LATE[1], LATE[1]);
    send(&sandbox).assert_success();
    for stamp in [LATE[0], stamps[3]] {
        fs::remove_file(sandbox.path(format!("backups/redis/dump_{stamp}.rdb"))).unwrap();
        fs::remove_file(sandbox.path(format!("backups/sets/{stamp}.sha256"))).unwrap();
    }
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "1");
    sandbox.set("BACKUP_KEEP_LAST", "0");
    // Those that are gone here: one can be read, and goes; the others stay, whatever is in their manifests.
    let outcome = send(&sandbox);
    assert_eq!(outcome.code, Some(2), "nothing is left to send: {outcome}");
    outcome.assert_log_has(
        "backup-offsite",
        &format!("WARN 4 recovery point(s) there, up to {}, stay {{}}", stamps[3]),
    );
    outcome.assert_log_has("backup-offsite", "WARN Hint: delete there what you do not need, and {}");
    let wanted: Vec<&str> = stamps.into_iter().chain([LATE[1]]).collect();
    let sets = wanted.iter().map(|stamp| format!("sets/{stamp}.sha256.gpg"));
    let dumps = wanted.iter().map(|stamp| format!("redis/dump_{stamp}.rdb"));
    assert_eq!(
        files(&stack_dir(&there)),
        dumps.chain(sets).collect::<Vec<_>>(),
        "{outcome}"
    );
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
    fetch().assert_error("sets/{} cannot be read");
    host.set("BACKUP_GPG_PASSPHRASE", CHANGED);
    let fetched = fetch();
    fetched.assert_success().assert_log_has(
        "fetch-offsite",
        &format!("WARN Passing over recovery point {}: {{}}", stamps[0]),
    );
    assert_eq!(name(&host.backup("sets")), format!("{}.sha256", stamps[1]));
}
