//! n8n on SQLite: its database is backed up while it works with it, tested, and brought back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::servers::files as files_of;
use crate::common::sqlite::{on_sqlite, FILE, HOME};
use crate::common::{assert_same, has_program, mode, name, sh, skip, Sandbox};

/// Writes something, so that what is there differs from a backup.
pub fn change(sandbox: &Sandbox) {
    sandbox.sql(&format!(
        "DELETE FROM credentials_entity; UPDATE workflow_entity SET name = {}; \
         INSERT INTO execution_entity (data) VALUES (hex(randomblob(100000)))",
        std::process::id()
    ));
}

/// The files in n8n's home, apart from what SQLite keeps beside the database.
fn files(sandbox: &Sandbox) -> String {
    sandbox.beside_n8n("cd /home/node/.n8n && find . ! -name '*-wal' ! -name '*-shm' | sort")
}

/// What is left of ours in n8n's container, and of containers.
pub fn assert_clean(sandbox: &Sandbox) {
    let left = sandbox.beside_n8n("cd /home/node/.n8n && find . -name '.n8n-backup*'");
    assert_eq!(left, "", "left in the volume");
    let running = sandbox.docker(&["inspect", "--format", "{{.State.Running}}", &sandbox.n8n()]);
    if running.trim() == "true" {
        assert_eq!(
            sandbox.in_n8n("find /tmp -name '.n8n-backup*'"),
            "",
            "left in the container"
        );
    }
    for kind in ["sqlite", "n8n"] {
        assert!(sandbox.leftovers(kind).is_empty(), "{:?}", sandbox.leftovers(kind));
    }
}

pub fn is_running(sandbox: &Sandbox) -> bool {
    sandbox
        .docker(&["inspect", "--format", "{{.State.Status}}", &sandbox.n8n()])
        .trim()
        == "running"
}

#[test]
fn a_database_comes_back_with_every_row() {
    let sandbox = on_sqlite("sqlite-circle", "A=1", HOME);
    // All that was written is in the log beside the file alone.
    let size = sandbox.in_n8n(&format!("stat -c %s {FILE} {FILE}-wal"));
    let sizes: Vec<u64> = size.lines().map(|line| line.parse().unwrap()).collect();
    assert!(sizes[1] > sizes[0], "{size}");
    let before = sandbox.dump_sqlite(FILE);
    let listed = files(&sandbox);
    let owner = sandbox.in_n8n(&format!("chmod 640 {FILE}; stat -c '%u:%g %a' {FILE}"));

    let backup = sandbox.locked("backup-all", &[]);
    backup.assert_success();
    // cleanup, sqlite, n8n and the deployment.
    assert!(backup.stdout.contains("(4/4)"), "{backup}");
    let file = sandbox.backup("sqlite");
    assert!(name(&file).starts_with("n8n_") && name(&file).ends_with(".sqlite.gz"));
    assert_eq!(mode(&file), 0o600);
    assert_same(&before, &sandbox.dump_backup(&file));
    assert!(sandbox.backups("postgres").is_empty() && sandbox.backups("redis").is_empty());
    assert_clean(&sandbox);

    let archive = sandbox.backup("n8n");
    let members = sh("tar -tzf \"$1\"", &[archive.as_os_str()]);
    assert!(
        members.contains("./config") && !members.contains("database.sqlite"),
        "{members}"
    );

    let drill = sandbox.locked("test-recovery", &["--sqlite"]);
    drill.assert_success();
    assert!(drill.stdout.contains("Decrypted 5 of 5 credentials"), "{drill}");
    let nothing = sandbox.locked("test-recovery", &["--postgres"]);
    assert_eq!(nothing.code, Some(2), "{nothing}");
    assert!(nothing.stdout.contains("uses no postgres"), "{nothing}");
    let verify = sandbox.binary().args(&["verify"]).run();
    verify.assert_success();
    let status = sandbox.binary().args(&["status"]).run();
    assert!(status.stdout.starts_with("BACKUP OK"), "{status}");
    let doctor = sandbox.binary().args(&["doctor"]).run();
    assert!(doctor.stdout.contains(&format!("OK   sqlite: {FILE} in ")), "{doctor}");
    let setup = sandbox.binary().args(&["setup"]).run();
    assert!(
        setup.stdout.contains(FILE) && setup.stdout.contains("journal mode wal"),
        "{setup}"
    );
    let list = sandbox.binary().args(&["list"]).run();
    assert!(
        list.stdout.contains("SQLITE") && !list.stdout.contains("POSTGRES"),
        "{list}"
    );
    assert!(
        list.stdout.contains("528") && list.stdout.contains("complete"),
        "{list}"
    );
    let refused = sandbox.locked("backup-postgres", &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("no use for postgres"), "{refused}");

    change(&sandbox);
    assert_ne!(sandbox.dump_sqlite(FILE), before);
    let restore = sandbox.locked("restore-all", &["--yes", "latest"]);
    restore.assert_success();
    assert!(is_running(&sandbox), "{restore}");
    assert_same(&before, &sandbox.dump_sqlite(FILE));
    assert_same(&listed, &files(&sandbox));
    assert_eq!(sandbox.in_n8n(&format!("stat -c '%u:%g %a' {FILE}")), owner);
    assert_clean(&sandbox);

    // A lost volume.
    sandbox.compose(&["rm", "-sfv", "n8n"]);
    sandbox.docker(&["volume", "rm", &sandbox.volume()]);
    sandbox.compose(&["up", "--no-start"]);
    sandbox.locked("restore-all", &["--yes", "latest"]).assert_success();
    assert_same(&before, &sandbox.dump_sqlite(FILE));
    assert_same(&listed, &files(&sandbox));
}

#[test]
fn a_restore_of_the_home_leaves_the_database_alone() {
    let sandbox = on_sqlite("sqlite-home", "A=1", HOME);
    sandbox.in_n8n("mkdir /home/node/.n8n/nodes; echo one >/home/node/.n8n/nodes/a");
    sandbox.locked("backup-n8n", &[]).assert_success();
    let archive = sandbox.backup("n8n");
    change(&sandbox);
    sandbox.in_n8n("rm -r /home/node/.n8n/nodes; echo two >/home/node/.n8n/b");
    let changed = sandbox.dump_sqlite(FILE);
    let restore = sandbox.locked("restore-n8n", &["--yes", &archive.to_string_lossy()]);
    restore.assert_success();
    assert_same(&changed, &sandbox.dump_sqlite(FILE));
    let found = sandbox.beside_n8n("cat /home/node/.n8n/nodes/a; ls /home/node/.n8n/b 2>&1; true");
    assert!(found.starts_with("one") && found.contains("No such file"), "{found}");
    assert_clean(&sandbox);
}

#[test]
fn a_database_behind_a_symbolic_link_is_told_and_stays() {
    let sandbox = on_sqlite("sqlite-link", "A=1", HOME);
    sandbox.in_n8n("rm /tmp/ready");
    sandbox.compose(&["stop", "n8n"]);
    sandbox.beside_n8n(
        "cd /home/node/.n8n && mkdir db && for end in '' -wal -shm; do [ ! -e database.sqlite$end ] || mv \
         database.sqlite$end db/real.sqlite$end; done && ln -s db/real.sqlite database.sqlite && \
         chown -Rh 1000:1000 db database.sqlite",
    );
    sandbox.compose(&["start", "n8n"]);
    sandbox.await_work();
    let before = sandbox.dump_sqlite(FILE);
    let real = "/home/node/.n8n/db/real.sqlite";
    let told = format!("{FILE} lies behind a symbolic link, beside which restore-n8n replaces nothing: {{}} to {real}");
    let backup = sandbox.locked("backup-all", &[]);
    backup.assert_success();
    backup.assert_log_has("backup-sqlite", &format!("WARN {told}"));
    assert_same(&before, &sandbox.dump_backup(&sandbox.backup("sqlite")));
    let doctor = sandbox.binary().args(&["doctor"]).run();
    assert!(
        doctor.stdout.contains(&format!("{FILE} lies behind a symbolic link")),
        "{doctor}"
    );

    change(&sandbox);
    let changed = sandbox.dump_sqlite(FILE);
    let archive = sandbox.backup("n8n").to_string_lossy().into_owned();
    let refused = sandbox.locked("restore-n8n", &["--yes", &archive]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(
        refused.stdout.contains("lies behind a symbolic link (database.sqlite)"),
        "{refused}"
    );
    refused.assert_never_says("Stopping n8n");
    assert!(is_running(&sandbox), "{refused}");
    assert_same(&changed, &sandbox.dump_sqlite(FILE));
    assert_clean(&sandbox);

    // n8n is told of the file itself, of which the archive has a copy.
    crate::common::sqlite::write_stack(&sandbox, "DB_SQLITE_DATABASE=db/real.sqlite", HOME);
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    sandbox.locked("restore-n8n", &["--yes", &archive]).assert_success();
    assert_same(&changed, &sandbox.dump_sqlite(real));
    sandbox
        .locked("backup-sqlite", &[])
        .assert_success()
        .assert_never_says("symbolic link");

    // A link on the way.
    let moved = |script: &str| {
        sandbox.in_n8n("rm /tmp/ready");
        sandbox.compose(&["stop", "n8n"]);
        sandbox.beside_n8n(&format!("cd /home/node/.n8n && {script}"));
        sandbox.compose(&["start", "n8n"]);
        sandbox.await_work();
    };
    moved("mv db store && ln -s store db");
    let backup = sandbox.locked("backup-sqlite", &[]);
    backup.assert_success();
    let told = format!("WARN {real} lies behind a symbolic link, {{}} to /home/node/.n8n/store/real.sqlite");
    backup.assert_log_has("backup-sqlite", &told);
    let doctor = sandbox.binary().args(&["doctor"]).run();
    assert!(
        doctor.stdout.contains(&format!("{real} lies behind a symbolic link")),
        "{doctor}"
    );
    let refused = sandbox.locked("restore-all", &["--yes", "--only", "sqlite,n8n", "latest"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.contains("lies behind a symbolic link (db)"), "{refused}");
    refused.assert_never_says("Stopping n8n");
    moved("rm db && mv store db && ln -sf db/real.sqlite database.sqlite");

    // Restored with n8n's data, the database takes the place of the link.
    crate::common::sqlite::write_stack(&sandbox, "A=1", HOME);
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    assert_same(&changed, &sandbox.dump_sqlite(FILE));
    sandbox.locked("restore-all", &["--dry-run", "latest"]).assert_success();
    sandbox.locked("restore-all", &["--yes", "latest"]).assert_success();
    assert_same(&before, &sandbox.dump_sqlite(FILE));
    sandbox.beside_n8n(&format!("[ ! -L {FILE} ]"));
    assert!(is_running(&sandbox));
    assert_clean(&sandbox);
}

#[test]
fn a_database_that_is_mounted_as_a_file_is_told_and_not_replaced() {
    let sandbox = Sandbox::new("sqlite-file").containers().no_env_file().build();
    let mounts = format!("{HOME}, './db/database.sqlite:{FILE}'");
    crate::common::sqlite::write_stack(&sandbox, "A=1", &mounts);
    let file = sandbox.path("db/database.sqlite");
    fs::create_dir(sandbox.path("db")).unwrap();
    fs::write(&file, "").unwrap();
    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    let before = sandbox.dump_sqlite(FILE);
    let told = "as a single file, which no restore can replace";
    let backup = sandbox.locked("backup-all", &[]);
    backup.assert_success();
    backup.assert_log_has(
        "backup-sqlite",
        &format!("WARN n8n's database {FILE} is mounted in {{}} {told}: {{}}"),
    );
    let copy = sandbox.backup("sqlite");
    assert_same(&before, &sandbox.dump_backup(&copy));
    let deployment = sandbox.backup("env");
    let deployment = sh("tar -tzf \"$1\"", &[deployment.as_os_str()]);
    assert!(!deployment.contains("database.sqlite"), "{deployment}");
    let doctor = sandbox.binary().args(&["doctor"]).run();
    assert!(doctor.stdout.contains(told), "{doctor}");
    change(&sandbox);
    let changed = sandbox.dump_sqlite(FILE);
    let refused = sandbox.locked("restore-sqlite", &["--yes", &copy.to_string_lossy()]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.contains(told), "{refused}");
    refused.assert_never_says("Stopping n8n");
    assert_same(&changed, &sandbox.dump_sqlite(FILE));
}

#[test]
fn encrypted_backups_come_back_from_another_place_and_stay_secret() {
    let sandbox = on_sqlite("sqlite-gpg", "A=1", HOME);
    sandbox.set("BACKUP_GPG_PASSPHRASE", "correct horse battery");
    let before = sandbox.dump_sqlite(FILE);
    sandbox.locked("backup-all", &[]).assert_success();
    let file = sandbox.backup("sqlite");
    assert!(name(&file).ends_with(".sqlite.gz.gpg"));
    let bytes = fs::read(&file).unwrap();
    assert!(!bytes.windows(6).any(|six| six == b"SQLite"));
    sandbox.locked("test-recovery", &["--sqlite"]).assert_success();
    change(&sandbox);
    sandbox
        .locked("restore-all", &["--yes", "--only", "sqlite", "latest"])
        .assert_success();
    assert_same(&before, &sandbox.dump_sqlite(FILE));
    let refused = sandbox.locked("restore-all", &["--yes", "--only", "postgres", "latest"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("has no use for postgres"), "{refused}");

    // Off-site, where everything is lost here but the passphrase.
    if !has_program("rclone") {
        return skip("database::encrypted_backups off-site", "no rclone");
    }
    let (conf, there) = (sandbox.aside("rclone.conf"), sandbox.aside("there"));
    fs::write(
        &conf,
        format!("[n8n-backup]\ntype = alias\nremote = {}\n", there.display()),
    )
    .unwrap();
    sandbox.set("RCLONE_CONFIG", &conf.to_string_lossy());
    sandbox.locked("backup-offsite", &[]).assert_success();
    let sent = files_of(&there);
    assert!(
        sent.iter().any(|name| name.ends_with(".sqlite.gz.gpg")) && sent.iter().all(|name| name.ends_with(".gpg")),
        "{sent:?}"
    );
    fs::remove_dir_all(sandbox.path("backups")).unwrap();
    change(&sandbox);
    let fetch = sandbox.binary().args(&["fetch-offsite", "latest"]).run();
    fetch.assert_success();
    sandbox.binary().args(&["verify"]).run().assert_success();
    sandbox.locked("restore-all", &["--yes", "latest"]).assert_success();
    assert_same(&before, &sandbox.dump_sqlite(FILE));

    // Files without a point, which the retention goes over by their age.
    let old = sandbox.path("backups/sqlite/n8n_20250101_000000.sqlite.gz.gpg");
    fs::copy(sandbox.backup("sqlite"), &old).unwrap();
    sh("touch -d '30 days ago' \"$1\"", &[old.as_os_str()]);
    sandbox.locked("cleanup-backups", &["--dry-run"]).assert_success();
    assert!(old.exists());
    let cleanup = sandbox.locked("cleanup-backups", &[]);
    cleanup.assert_success();
    assert!(!old.exists() && sandbox.backups("sqlite").len() == 1, "{cleanup}");
}

#[test]
fn what_n8n_writes_meanwhile_is_in_a_copy_or_not_but_never_half() {
    let sandbox = on_sqlite("sqlite-writes", "WRITES=1", HOME);
    for _ in 0..3 {
        sandbox.locked("backup-sqlite", &[]).assert_success();
        let newest = sandbox.backups("sqlite").pop().unwrap();
        let dump = sandbox.dump_backup(&newest);
        assert!(dump.contains("\"live\""), "nothing was written meanwhile");
        assert!(dump.contains("Flow") && dump.contains("journal_mode\":\"wal"), "{dump}");
    }
    // It is as it was when it rests, too.
    sandbox.compose(&["stop", "n8n"]);
    let before = sandbox.dump_sqlite(FILE);
    sandbox.locked("backup-sqlite", &[]).assert_success();
    assert_same(&before, &sandbox.dump_backup(&sandbox.backups("sqlite").pop().unwrap()));
    assert_clean(&sandbox);
}

#[test]
fn a_single_restore_keeps_or_replaces_and_refuses_what_is_not_whole() {
    let sandbox = on_sqlite("sqlite-single", "A=1", HOME);
    sandbox.sql(
        "CREATE TABLE agents (id text, \"activeVersionId\" text); INSERT INTO agents VALUES ('a', 'v1'); \
         ALTER TABLE execution_entity ADD \"waitTill\" text; ALTER TABLE execution_entity ADD status text; \
         UPDATE execution_entity SET status = 'new' WHERE id < 9",
    );
    // What an n8n works with that was given another prefix since.
    for name in ["workflow_entity", "credentials_entity", "execution_entity"] {
        sandbox.sql(&format!("CREATE TABLE x_{name} AS SELECT * FROM {name}"));
    }
    // An old one had few tables.
    sandbox.sql("CREATE TABLE old_workflow_entity AS SELECT * FROM workflow_entity");
    let before = sandbox.dump_sqlite(FILE);
    sandbox.locked("backup-sqlite", &[]).assert_success();
    let file = sandbox.backup("sqlite");
    change(&sandbox);
    let changed = sandbox.dump_sqlite(FILE);

    // What is cut off, something else, or has other rows than were recorded.
    let cut = sandbox.aside("n8n_20260101_000000.sqlite.gz");
    let other = sandbox.aside("other.sqlite.gz");
    let make = |script: &str, to: &Path| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&file).arg(to);
        assert!(command.status().unwrap().success());
    };
    make("gzip -dc \"$1\" | head -c 100000 | gzip >\"$2\"", &cut);
    make("head -c 100000 /dev/urandom | gzip >\"$2\"", &other);
    for bad in [&cut, &other] {
        let outcome = sandbox.locked("restore-sqlite", &["--yes", &bad.to_string_lossy()]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(
            outcome.stdout.contains("corrupted or not a SQLite database"),
            "{outcome}"
        );
        assert!(is_running(&sandbox));
        assert_same(&changed, &sandbox.dump_sqlite(FILE));
    }
    // As long as it says, and damaged within.
    let damaged = sandbox.aside("damaged.sqlite.gz");
    make(
        "gzip -dc \"$1\" >\"$2.db\"; dd if=/dev/urandom of=\"$2.db\" bs=4096 seek=10 count=3 conv=notrunc status=none; \
         gzip -c \"$2.db\" >\"$2\"",
        &damaged,
    );
    let outcome = sandbox.locked("restore-sqlite", &["--yes", &damaged.to_string_lossy()]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stdout.contains("is damaged"), "{outcome}");
    assert!(is_running(&sandbox));
    assert_same(&changed, &sandbox.dump_sqlite(FILE));
    assert_clean(&sandbox);

    let inactive = sandbox.locked("restore-sqlite", &["--yes", "--deactivate", &file.to_string_lossy()]);
    inactive.assert_success();
    assert!(
        inactive.stdout.contains("60 workflow(s) that were active"),
        "{inactive}"
    );
    assert_same(
        &before
            .replace("\"active\":\"1n\"", "\"active\":\"0n\"")
            .replace("\"activeVersionId\":\"v1\"", "\"activeVersionId\":null")
            .replace("\"status\":\"new\"", "\"status\":\"canceled\""),
        &sandbox.dump_sqlite(FILE),
    );
    change(&sandbox);
    let changed = sandbox.dump_sqlite(FILE);

    let restore = sandbox.locked("restore-sqlite", &["--yes", "--keep-old", &file.to_string_lossy()]);
    restore.assert_success();
    assert_same(&before, &sandbox.dump_sqlite(FILE));
    let kept = sandbox.in_n8n("ls /home/node/.n8n/n8n_old_*.sqlite");
    assert_same(&changed, &sandbox.dump_sqlite(kept.trim()));
    assert_clean(&sandbox);
}

#[test]
fn a_database_with_another_name_in_another_home_is_found() {
    let environment = "N8N_USER_FOLDER=/data, DB_SQLITE_DATABASE=my data.db, DB_TYPE=sqlite";
    let sandbox = Sandbox::new("sqlite-names").containers().no_env_file().build();
    crate::common::sqlite::write_stack(&sandbox, environment, "'./data:/data'");
    let home = sandbox.path("data/.n8n");
    fs::create_dir_all(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    let file = "/data/.n8n/my data.db";
    let before = sandbox.dump_sqlite(file);
    sandbox.in_n8n(&format!("chmod 640 '{file}'"));
    sandbox.locked("backup-all", &[]).assert_success();
    let backup = sandbox.backup("sqlite");
    assert_same(&before, &sandbox.dump_backup(&backup));
    fs::write(home.join("my data.db"), "").unwrap();
    let outcome = sandbox.locked("restore-sqlite", &["--yes", &backup.to_string_lossy()]);
    outcome.assert_success();
    assert_same(&before, &sandbox.dump_sqlite(file));
    // The engine makes a directory that is lost, as root; n8n could not write there. What no point records is given to
    // n8n's user.
    let unknown = sandbox.aside("unknown.sqlite.gz");
    fs::copy(&backup, &unknown).unwrap();
    let unknown = unknown.to_string_lossy();
    for (name, of, owners) in [
        ("restore-sqlite", &*unknown, "1000:1000 755\n1000:1000 644\n"),
        ("restore-all", "latest", "1000:1000 755\n1000:1000 640\n"),
    ] {
        sandbox.compose(&["rm", "--force", "--stop", "n8n"]);
        fs::remove_dir_all(sandbox.path("data")).unwrap();
        sandbox.compose(&["up", "--no-start"]);
        sandbox.locked(name, &["--yes", of]).assert_success();
        assert_same(&before, &sandbox.dump_sqlite(file));
        let stat = format!("stat -c '%u:%g %a' /data/.n8n '{file}'");
        assert_eq!(sandbox.beside_n8n(&stat), owners, "{name}");
    }
}

/// A directory that is missing may be one of a disk that is not mounted.
#[test]
fn a_database_is_not_restored_beside_a_disk_that_is_missing() {
    let sandbox = Sandbox::new("sqlite-away").containers().no_env_file().build();
    let disk = sandbox.aside("disk");
    let home = disk.join(".n8n");
    fs::create_dir_all(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    let environment = "N8N_USER_FOLDER=/data, DB_TYPE=sqlite";
    crate::common::sqlite::write_stack(&sandbox, environment, &format!("'{}:/data'", disk.display()));
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    sandbox.locked("backup-all", &[]).assert_success();
    let backup = sandbox.backup("sqlite");
    sandbox.compose(&["rm", "--force", "--stop", "n8n"]);
    fs::remove_dir_all(&disk).unwrap();
    sandbox.compose(&["up", "--no-start"]);
    for (name, args) in [
        ("restore-sqlite", ["--yes", &backup.to_string_lossy()]),
        ("restore-all", ["--dry-run", "latest"]),
        ("restore-all", ["--yes", "latest"]),
    ] {
        let outcome = sandbox.locked(name, &args);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(
            outcome.stdout.contains("/disk, which n8n mounts, is not there"),
            "{outcome}"
        );
        assert!(!disk.exists(), "{name}");
    }
}

/// A mounted directory of another file system, gone when this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        let _ = umount.arg("-l").arg(&self.0).output();
    }
}

/// A home on a file system whose renames, locks and owners another program makes. NFS needs a server in the kernel, so it is FUSE.
#[test]
fn a_home_on_a_remote_file_system_comes_back() {
    let test = "database::a_home_on_a_remote_file_system";
    if !has_program("rclone") {
        return skip(test, "no rclone");
    }
    let sandbox = Sandbox::new("sqlite-remote").containers().no_env_file().build();
    let (there, home) = (sandbox.aside("there"), Mounted(sandbox.aside("home")));
    for dir in [&there, &home.0] {
        fs::create_dir(dir).unwrap();
    }
    let mut mount = Command::new("rclone");
    mount.args([
        "mount",
        "--config",
        "/dev/null",
        "--daemon",
        "--allow-other",
        "--vfs-cache-mode",
        "full",
    ]);
    mount.args([
        // What was renamed or removed is so at once, as on NFS for its own client.
        "--attr-timeout",
        "0s",
        "--vfs-write-back",
        "0s",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--umask",
        "0022",
        "--cache-dir",
    ]);
    mount.arg(sandbox.aside("cache")).arg(&there).arg(&home.0);
    if !mount.output().unwrap().status.success() {
        return skip(test, "rclone cannot mount");
    }
    // WAL takes memory that all who work with the database share, which such a file system has not.
    crate::common::sqlite::write_stack(
        &sandbox,
        "JOURNAL=DELETE",
        &format!("'{}:/home/node/.n8n'", home.0.display()),
    );
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    let before = sandbox.dump_sqlite(FILE);
    let backup = sandbox.locked("backup-all", &[]);
    backup.assert_success();
    assert!(backup.stdout.contains("in the journal mode delete"), "{backup}");
    assert_same(&before, &sandbox.dump_backup(&sandbox.backup("sqlite")));
    change(&sandbox);
    sandbox.locked("restore-all", &["--yes", "latest"]).assert_success();
    assert_same(&before, &sandbox.dump_sqlite(FILE));
    assert_clean(&sandbox);
    sandbox.compose(&["down"]);
}

/// n8n 1 came with a Node.js that knows no SQLite; n8n brings a module for it.
#[test]
fn an_older_image_has_only_n8ns_own_module() {
    let sandbox = Sandbox::new("sqlite-module").containers().no_env_file().build();
    let node = sandbox.aside("node");
    crate::common::script(
        &node,
        "#!/bin/sh\nexec /usr/local/bin/node --no-experimental-sqlite \"$@\"\n",
    );
    let mounts = format!("{HOME}, '{}:/usr/local/sbin/node:ro'", node.display());
    crate::common::sqlite::write_stack(&sandbox, "A=1", &mounts);
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    let finds = "try { require('node:sqlite'); console.log('built in') } catch { console.log('none') }";
    assert_eq!(sandbox.in_n8n(&format!("node -e \"{finds}\"")).trim(), "none");
    let before = sandbox.dump_sqlite(FILE);
    sandbox.locked("backup-all", &[]).assert_success();
    assert_same(&before, &sandbox.dump_backup(&sandbox.backup("sqlite")));
    change(&sandbox);
    sandbox.locked("restore-all", &["--yes", "latest"]).assert_success();
    assert_same(&before, &sandbox.dump_sqlite(FILE));
    // The status of an error is the same.
    for (spoil, why) in [
        (
            format!("head -c 100000 /dev/urandom >{FILE}"),
            "is damaged, or is no database",
        ),
        (format!("rm {FILE}*"), "cannot be opened"),
    ] {
        sandbox.beside_n8n(&spoil);
        let outcome = sandbox.locked("backup-sqlite", &[]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stdout.contains(why), "{outcome}");
    }
    assert_clean(&sandbox);
}

#[test]
fn an_old_database_beside_another_one_that_a_start_script_sets_is_no_backup() {
    let sandbox = on_sqlite("sqlite-old", "A=1", HOME);
    // As a script that exports it and starts n8n, whose container does not tell.
    let n8n = sandbox.n8n();
    sandbox.docker(&["exec", "-d", "-e", "DB_TYPE=postgresdb", &n8n, "sleep", "3333"]);
    let finds = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -x DB_TYPE=postgresdb; true";
    crate::common::await_true("it does not run", || !sandbox.in_n8n(finds).is_empty());
    let doctor = sandbox.binary().args(&["doctor"]).run();
    for outcome in [sandbox.locked("backup-sqlite", &[]), doctor] {
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stdout.contains("is not what n8n works with"), "{outcome}");
    }
    assert!(sandbox.backups("sqlite").is_empty());
    sandbox.in_n8n("for p in /proc/[0-9]*; do grep -qa '333[3]' $p/cmdline && kill ${p#/proc/}; done; true");
    sandbox.locked("backup-sqlite", &[]).assert_success();
    assert_clean(&sandbox);
}

#[test]
fn a_container_that_docker_run_made_is_found_by_its_image() {
    let sandbox = Sandbox::new("sqlite-run").containers().no_env_file().build();
    // Made by hand, and without a compose file beside it.
    crate::common::sqlite::write_stack(&sandbox, "A=1", HOME);
    fs::remove_file(sandbox.path("docker-compose.yml")).unwrap();
    sandbox.make_volume(&sandbox.volume());
    let (work, home, called) = (
        format!(
            "{}:/docker-entrypoint.sh:ro",
            sandbox.aside("docker-entrypoint.sh").display()
        ),
        format!("{}:/home/node/.n8n", sandbox.volume()),
        sandbox.n8n(),
    );
    let labels = sandbox.labels();
    let mut args = vec![
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        called.as_str(),
        "-v",
        &work,
        "-v",
        &home,
    ];
    args.extend(labels.iter().map(String::as_str));
    args.push(crate::common::sqlite::n8n_image());
    sandbox.docker(&args);
    sandbox.await_work();
    // Others may run here at the same time: then both are named, and this one is chosen.
    let sets = [("BACKUP_N8N_CONTAINERS", called.as_str())];
    let before = sandbox.dump_sqlite(FILE);
    let run = |name: &str, args: &[&str]| {
        let mut call = sandbox
            .call(name)
            .args(args)
            .env("BACKUP_LOCK_FILE", sandbox.lock_file());
        for (name, value) in sets {
            call = call.env(name, value);
        }
        call.run()
    };
    run("backup-all", &[]).assert_success();
    assert_same(&before, &sandbox.dump_backup(&sandbox.backup("sqlite")));
    change(&sandbox);
    run("restore-all", &["--yes", "latest"]).assert_success();
    assert_same(&before, &sandbox.dump_sqlite(FILE));
}
