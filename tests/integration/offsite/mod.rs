//! Off-site copies, by the real rclone: to a directory, and to WebDAV and SFTP servers on this host.

mod again;
mod locked;
mod s3;
mod stacks;
mod tampered;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::servers::{files, Rclone};
use crate::common::{assert_same, done, has_program, mode, name, sh, skip, Outcome, Sandbox};

const PASSPHRASE: &str = "correct horse battery staple";
const REMOTE: &str = "n8n-backup:n8n-backups";

fn lacks_programs(test: &str) -> bool {
    for program in ["rclone", "gpg"] {
        if !has_program(program) {
            skip(test, &format!("no {program}"));
            return true;
        }
    }
    false
}

/// Names `remote` in a configuration of rclone, and that in `.env`.
fn configure(sandbox: &Sandbox, section: &str) {
    let file = sandbox.aside("rclone.conf");
    fs::write(&file, format!("[n8n-backup]\n{section}")).unwrap();
    sandbox.set("RCLONE_CONFIG", &file.to_string_lossy());
}

/// A remote that is a directory of this host. Gives the one that points are sent to.
fn to_directory(sandbox: &Sandbox) -> PathBuf {
    let dir = sandbox.aside("elsewhere");
    configure(sandbox, &format!("type = alias\nremote = {}\n", dir.display()));
    dir.join("n8n-backups")
}

/// The directory of the one stack there.
fn stack_dir(there: &Path) -> PathBuf {
    let items = fs::read_dir(there).unwrap().map(|item| item.unwrap().path());
    let mut stacks: Vec<PathBuf> = items.filter(|path| name(path).starts_with("stack-")).collect();
    assert_eq!(stacks.len(), 1, "{stacks:?}");
    stacks.remove(0)
}

/// The identity that a project has.
fn identity(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.path("backups/.identity"))
        .unwrap()
        .trim()
        .to_owned()
}

fn manifest(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.backup("sets")).unwrap()
}

fn send(sandbox: &Sandbox) -> Outcome {
    sandbox.run("backup-offsite", &[])
}

/// What the error says of a place that was emptied on purpose.
fn forget_copies(sandbox: &Sandbox) {
    let sets = sandbox.path("backups/sets");
    sh("sed -i '/^# offsite: /d' \"$1\"/*.sha256", &[sets.as_os_str()]);
}

/// A volume with `mb` megabytes that do not pack.
fn fill(sandbox: &Sandbox, mb: u32) {
    let volume = format!("{}:/data", sandbox.volume());
    let script = format!("head -c {mb}000000 /dev/urandom >/data/big");
    let mut args = vec!["run", "--rm", "--network", "none"];
    let labels = sandbox.labels();
    args.extend(labels.iter().map(String::as_str));
    args.extend(["-v", &volume, "n8n-backup-test/busybox:1", "sh", "-c", &script]);
    sandbox.docker(&args);
}

#[test]
fn a_point_goes_off_site_and_comes_back_on_a_new_host() {
    if lacks_programs("offsite::a_point_goes_off_site") {
        return;
    }
    let sandbox = Sandbox::new("off")
        .stack()
        .seeded()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .env("BACKUP_OFFSITE", "true")
        .build();
    let there = to_directory(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_success();
    outcome.assert_messages(
        "backup-all",
        &[
            "INFO Running: env file backup",
            "INFO Running: backup-offsite.sh",
            "SUCCESS All backups completed successfully (6/6)",
        ],
    );
    outcome.assert_messages(
        "backup-offsite",
        &[
            &format!("INFO Starting off-site copy to {REMOTE}"),
            "INFO Sending recovery point {} ({})",
            "INFO Recovery point {} is at {}, compared by checksum",
            "SUCCESS Off-site copy completed: 1 recovery point(s), {}, to {}",
        ],
    );
    let here = sandbox.path("backups");
    let bucket = there;
    let there = stack_dir(&bucket);
    assert_eq!(name(&there), format!("stack-{}", identity(&sandbox)));
    assert_eq!(mode(&sandbox.path("backups/.identity")), 0o600);
    let mut sent = files(&there);
    assert_eq!(sent.len(), 5, "{sent:?}");
    let set = sent.pop().unwrap();
    assert!(
        set.starts_with("sets/") && sent.iter().chain([&set]).all(|name| name.ends_with(".gpg")),
        "{sent:?}"
    );
    for name in &sent {
        assert_eq!(
            fs::read(here.join(name)).unwrap(),
            fs::read(there.join(name)).unwrap(),
            "{name}"
        );
    }
    let public = String::from_utf8_lossy(&fs::read(there.join(&set)).unwrap()).into_owned();
    assert!(!public.contains("workflow_entity") && manifest(&sandbox).contains("workflow_entity"));
    assert!(manifest(&sandbox).contains(&format!("# stack: {}\n", identity(&sandbox))));
    assert!(manifest(&sandbox).contains(&format!(" {REMOTE} (compared by checksum)\n")));

    let again = send(&sandbox);
    assert_eq!(again.code, Some(2), "{again}");
    again.assert_log_has("backup-offsite", "INFO Nothing to send to {}");
    // What is deleted here stays there.
    for name in sent.iter().map(String::as_str).chain([set.trim_end_matches(".gpg")]) {
        fs::remove_file(here.join(name)).unwrap();
    }
    assert_eq!(send(&sandbox).code, Some(2));
    assert_eq!(files(&bucket).len(), 5);

    let new_host = Sandbox::new("offnew").postgres().build();
    new_host.set("RCLONE_CONFIG", &sandbox.aside("rclone.conf").to_string_lossy());
    let fetch = |args: &[&str]| new_host.binary().arg("fetch-offsite").args(args).run();
    let locked = fetch(&["latest"]);
    assert_eq!(locked.code, Some(1), "{locked}");
    locked.assert_log_has("fetch-offsite", "ERROR Hint: set BACKUP_GPG_PASSPHRASE {}");
    assert!(new_host.backups("sets").is_empty());
    new_host.set("BACKUP_GPG_PASSPHRASE", PASSPHRASE);
    let fetched = fetch(&["latest"]);
    fetched.assert_success();
    fetched.assert_log_has("fetch-offsite", "INFO This host takes over the identity of stack {}");
    assert_eq!(identity(&new_host), name(&there).trim_start_matches("stack-"));
    for name in &sent {
        assert_eq!(
            fs::read(new_host.path("backups").join(name)).unwrap(),
            fs::read(there.join(name)).unwrap()
        );
    }
    let verified = new_host.binary().arg("verify").run();
    verified.assert_success();
    verified.assert_log_has("verify", "SUCCESS Verification completed: 4 file(s) are good");
    let dump = new_host.backup("postgres");
    new_host
        .run("restore-postgres", &[&dump.to_string_lossy()])
        .assert_success();
    // What belongs to the database as a whole (its comment, its settings) is no part of a dump.
    let contents = |fingerprint: &str| -> String {
        let lines = fingerprint.lines().filter(|line| !line.starts_with("database|"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    assert_same(&contents(&before), &contents(&new_host.fingerprint_postgres()));

    let listing = new_host.listing();
    let again = fetch(&[]);
    again.assert_success();
    again.assert_log_has("fetch-offsite", "INFO Already here: {}");
    assert_eq!(listing, new_host.listing());
    fetch(&["20200101_000000"])
        .assert_error("There is no recovery point 20200101_000000 at {}; the last one by its name is {}");
    fetch(&["yesterday"]).assert_error("'yesterday' is no recovery point{}");

    // A copy that has rotted there does not get a name here, nor does the point.
    let dump = dump.strip_prefix(new_host.path("backups")).unwrap().to_owned();
    fs::remove_file(new_host.path("backups").join(&dump)).unwrap();
    fs::remove_file(new_host.backup("sets")).unwrap();
    let mut bytes = fs::read(there.join(&dump)).unwrap();
    bytes[1000] ^= 1;
    fs::write(there.join(&dump), bytes).unwrap();
    let rotten = fetch(&[]);
    rotten.assert_error("postgres/{} could not be fetched");
    rotten.assert_log_has("fetch-offsite", "ERROR Cause: the copy is damaged{}");
    assert!(new_host.backups("postgres").is_empty() && new_host.backups("sets").is_empty());
    assert!(new_host.leftovers("postgres").is_empty());
}

#[test]
fn only_what_is_encrypted_leaves_the_host() {
    if lacks_programs("offsite::only_what_is_encrypted") {
        return;
    }
    let sandbox = Sandbox::new("offplain").redis().build();
    let there = to_directory(&sandbox);
    let nothing = send(&sandbox);
    assert_eq!(nothing.code, Some(2), "{nothing}");
    sandbox.run("backup-redis", &[]).assert_success();
    send(&sandbox).assert_error("The newest recovery point ({}) holds unencrypted files and is not sent");
    assert!(files(&there).is_empty() && !manifest(&sandbox).contains("# offsite"));

    sandbox.set("BACKUP_GPG_PASSPHRASE", PASSPHRASE);
    sandbox.run("backup-redis", &[]).assert_success();
    let listing = sandbox.listing();
    let dry = sandbox.run("backup-offsite", &["--dry-run"]);
    dry.assert_success();
    dry.assert_log_has("backup-offsite", "INFO [DRY-RUN] Would send: recovery point {} ({})");
    assert!(files(&there).is_empty() && listing == sandbox.listing());
    let sent = send(&sandbox);
    sent.assert_success();
    sent.assert_log_has(
        "backup-offsite",
        "INFO 1 older recovery point(s) hold unencrypted files and are not sent{}",
    );
    assert_eq!(files(&there).len(), 2);
    sandbox.set("RCLONE_SYNC_ENCRYPTED_ONLY", "false");
    send(&sandbox).assert_success();
    assert_eq!(files(&there).len(), 4);
    assert_eq!(send(&sandbox).code, Some(2));
    // A remote that has lost its contents gets them again once somebody says that it is the right one.
    fs::remove_dir_all(&there).unwrap();
    send(&sandbox).assert_error("{} holds nothing of the recovery points that were sent there");
    assert!(!there.exists());
    forget_copies(&sandbox);
    send(&sandbox).assert_success();
    assert_eq!(files(&there).len(), 4);
}

/// A copy on another disk is not to land on this one.
#[test]
fn a_path_of_this_host_is_what_it_says() {
    if lacks_programs("offsite::a_path_of_this_host") {
        return;
    }
    let sandbox = stacks::plain("offpath");
    configure(&sandbox, "type = local\n");
    stacks::point(&sandbox, stacks::POINTS[0], stacks::POINTS[0], "the snapshot");
    let disk = sandbox.aside("disk/n8n");
    for (bucket, there) in [
        (format!("{}/", disk.display()), disk),
        ("copies".to_owned(), sandbox.path("copies")),
    ] {
        sandbox.set("RCLONE_BUCKET", &bucket);
        send(&sandbox).assert_success();
        assert_eq!(files(&stack_dir(&there)).len(), 2, "{bucket}");
        assert_eq!(send(&sandbox).code, Some(2), "{bucket}");
    }
}

#[test]
fn what_has_rotted_here_is_not_sent() {
    if lacks_programs("offsite::what_has_rotted") {
        return;
    }
    let sandbox = Sandbox::new("offrot")
        .redis()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .build();
    let there = to_directory(&sandbox);
    sandbox.run("backup-redis", &[]).assert_success();
    let file = sandbox.backup("redis");
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[20] ^= 1;
    fs::write(&file, &bad).unwrap();
    let outcome = send(&sandbox);
    outcome.assert_error("Recovery point {} could not be sent to {}");
    outcome.assert_log_has("backup-offsite", "ERROR Cause: redis/{} is not what was backed up{}");
    fs::write(&file, &good[1..]).unwrap();
    let dry = sandbox.run("backup-offsite", &["--dry-run"]);
    for outcome in [dry, send(&sandbox)] {
        outcome
            .assert_error("The newest recovery point ({}) lacks a file or holds one that has changed, and is not sent");
    }
    assert!(files(&there).is_empty());
    // An older one is a matter of its own.
    sandbox.run("backup-redis", &[]).assert_success();
    let outcome = send(&sandbox);
    outcome.assert_success().assert_log_has(
        "backup-offsite",
        "WARN 1 recovery point(s) lack a file or hold one that has changed{}",
    );
    fs::write(&file, &good).unwrap();
    send(&sandbox).assert_success();
    assert_eq!(files(&there).len(), 4);
}

#[test]
fn a_server_that_dies_or_stands_still_costs_one_run_only() {
    if lacks_programs("offsite::a_server_that_dies") {
        return;
    }
    // At once: most of it is waiting.
    std::thread::scope(|scope| {
        for (protocol, proof) in [("webdav", "compared by size"), ("sftp", "compared by checksum")] {
            scope.spawn(move || a_server_dies_and_stands_still(protocol, proof));
        }
    });
}

fn a_server_dies_and_stands_still(protocol: &'static str, proof: &str) {
    let sandbox = Sandbox::new("offdie")
        .volume()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .env("BACKUP_HELPER_IMAGE", "n8n-backup-test/busybox:1")
        // rclone alone would try for three minutes to reach a server that is gone.
        .env("BACKUP_STALL_SECONDS", "8")
        .build();
    fill(&sandbox, 12);
    let mut server = Rclone::start(&sandbox.aside("served"), protocol);
    let server_dir = server.dir.clone();
    configure(&sandbox, &server.section());
    sandbox.run("backup-n8n", &[]).assert_success();
    let slowly = || sandbox.call("backup-offsite").env("RCLONE_BWLIMIT", "3M");
    let sets = || -> Vec<String> {
        let mut names = files(&server_dir.join("n8n-backups"));
        names.retain(|name| name.contains("/sets/"));
        names
    };

    let mut run = slowly().spawn();
    run.await_that("a part of the file to arrive", |_| server.bytes() > 1_000_000);
    server.kill();
    let outcome = run.wait();
    outcome.assert_error("Recovery point {} could not be sent to {}");
    assert!(
        sets().is_empty() && !newest(&sandbox).contains("# offsite"),
        "{outcome}"
    );
    server.restart();

    let mut run = slowly().spawn();
    let before = server.bytes();
    run.await_that("more to arrive", |_| {
        server.bytes() > before.max(1_000_000) || server.bytes() < before
    });
    server.signal("STOP");
    let outcome = run.wait();
    server.signal("CONT");
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.took < Duration::from_secs(40), "{outcome}");
    assert!(
        sets().is_empty() && !newest(&sandbox).contains("# offsite"),
        "{outcome}"
    );
    let outcome = send(&sandbox);
    outcome.assert_success();
    outcome.assert_log_has(
        "backup-offsite",
        &format!("INFO Recovery point {{}} is at {{}}, {proof}"),
    );
    let sent = sandbox.backups("n8n").pop().unwrap();
    let copy = stack_dir(&server.dir.join("n8n-backups")).join("n8n").join(name(&sent));
    assert_eq!(fs::read(sent).unwrap(), fs::read(copy).unwrap());
    assert!(newest(&sandbox).contains("# offsite"));
    assert_eq!(send(&sandbox).code, Some(2));
}

fn newest(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.backups("sets").pop().unwrap()).unwrap()
}

#[test]
fn a_remote_that_is_not_there_spoils_no_backup() {
    if lacks_programs("offsite::a_remote_that_is_not_there") {
        return;
    }
    let sandbox = Sandbox::new("offgone")
        .stack()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .env("BACKUP_OFFSITE", "true")
        .build();
    configure(&sandbox, "type = webdav\nurl = http://127.0.0.1:9\nvendor = other\n");
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_messages(
        "backup-all",
        &[
            "INFO Running: backup-offsite.sh",
            "ERROR backup-offsite.sh failed with exit code 1",
            "ERROR Backup completed with errors: 5/6 succeeded, 1 failed",
        ],
    );
    outcome.assert_log_has("backup-offsite", "ERROR n8n-backup:n8n-backups cannot be listed: {}");
    assert!(!manifest(&sandbox).contains("# offsite"));
    sandbox.binary().arg("verify").run().assert_success();
    sandbox.set("RCLONE_REMOTE", "no such remote");
    send(&sandbox).assert_error("no such remote:n8n-backups cannot be listed: {}didn't find section in config file");
    sandbox.set("RCLONE_REMOTE", "--dump");
    send(&sandbox).assert_error("Bad setting {}");
}

#[test]
fn age_alone_deletes_off_site_copies_and_never_the_newest() {
    if lacks_programs("offsite::age_alone") {
        return;
    }
    let sandbox = Sandbox::new("offold")
        .redis()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .env("BACKUP_OFFSITE_KEEP_DAYS", "30")
        .build();
    let there = to_directory(&sandbox);
    let put = |name: &str| {
        let path = there.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let stamp = name.strip_prefix("sets/").and_then(|name| name.strip_suffix(".sha256"));
        let text = stamp.map(|stamp| format!("# n8n-backup recovery point {stamp}\n# deleted: n8n\n"));
        fs::write(path, text.unwrap_or_else(|| "x".to_owned())).unwrap();
    };
    let old = ["sets/20200101_020000.sha256", "redis/dump_20200101_020000.rdb.gpg"];
    let recent = ["sets/20200130_020000.sha256", "redis/dump_20200130_020001.rdb.gpg"];
    let foreign = ["redis/mine.rdb", "notes.txt", "deep/er/dump_20190101_000000.rdb.gpg"];
    // The newest one there is years old: it stays, and so does what is close to it.
    for name in recent.iter().chain(&foreign).chain(&old) {
        put(name);
    }
    assert_eq!(send(&sandbox).code, Some(2));
    assert_eq!(files(&there).len(), 7);
    sandbox.run("backup-redis", &[]).assert_success();
    let dry = sandbox.run("backup-offsite", &["--dry-run"]);
    dry.assert_success();
    assert_eq!(files(&there).len(), 7);
    let outcome = send(&sandbox);
    outcome.assert_success();
    outcome.assert_log_has(
        "backup-offsite",
        "INFO Deleting there, older than 30 days: sets/20200101_020000.sha256",
    );
    outcome.assert_log_has(
        "backup-offsite",
        "INFO Deleting there, older than 30 days: sets/20200130_020000.sha256",
    );
    let left = files(&there);
    assert_eq!(left.len(), 5, "{left:?}");
    assert!(
        foreign.iter().all(|name| left.contains(&(*name).to_owned())),
        "{left:?}"
    );
}

#[test]
fn a_crypt_remote_is_compared_by_what_it_stores() {
    if lacks_programs("offsite::a_crypt_remote") {
        return;
    }
    let sandbox = Sandbox::new("offcrypt")
        .redis()
        .env("RCLONE_SYNC_ENCRYPTED_ONLY", "false")
        .build();
    let mut obscure = Command::new("rclone");
    obscure.args(["obscure", "secret"]);
    let password = done(obscure);
    let dir = sandbox.aside("elsewhere");
    configure(
        &sandbox,
        &format!(
            "type = crypt\nremote = {}\npassword = {}\n",
            dir.display(),
            password.trim()
        ),
    );
    sandbox.run("backup-redis", &[]).assert_success();
    let outcome = send(&sandbox);
    outcome.assert_success();
    outcome.assert_log_has("backup-offsite", "INFO {}, compared by checksum of the encrypted form");
    fs::remove_file(sandbox.backup("redis")).unwrap();
    fs::remove_file(sandbox.backup("sets")).unwrap();
    sandbox.binary().arg("fetch-offsite").run().assert_success();
    sandbox.binary().arg("verify").run().assert_success();
}
