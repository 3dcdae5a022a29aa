//! Encryption at rest, on a real stack and with the real gpg.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{assert_same, await_true, done, has_program, mode, name, output, skip, Outcome, Sandbox};

const PASSPHRASE: &str = "correct horse battery staple";
/// A line of `.env` that must not be found in any backup.
const MARKER: &str = "PLAINTEXT_MARKER_OF_THE_TEST";
const KINDS: [&str; 4] = ["postgres", "redis", "n8n", "env"];

fn no_gpg(test: &str) -> bool {
    let missing = !has_program("gpg");
    if missing {
        skip(test, "no gpg");
    }
    missing
}

fn verify(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox.binary().arg("verify").args(args).run()
}

/// Every file in the directories of the components, unfinished ones included, locks left out.
fn files(sandbox: &Sandbox) -> Vec<PathBuf> {
    KINDS
        .iter()
        .filter_map(|kind| fs::read_dir(sandbox.path("backups").join(kind)).ok())
        .flatten()
        .map(|item| item.unwrap().path())
        .filter(|path| ![".gitkeep", ".lock"].contains(&name(path).as_str()))
        .collect()
}

/// Fails when a file does not begin as an OpenPGP message or holds the marker.
#[track_caller]
fn assert_no_plaintext(sandbox: &Sandbox) {
    for path in files(sandbox) {
        // It may have been published or removed since.
        let Ok(bytes) = fs::read(&path) else { continue };
        let marked = bytes.windows(MARKER.len()).any(|part| part == MARKER.as_bytes());
        assert!(
            !marked && bytes.first().is_none_or(|byte| [0x8c, 0x84, 0x85].contains(byte)),
            "plaintext in {}",
            path.display()
        );
    }
}

/// Fails when a process other than `but` shows the passphrase in its arguments or its environment.
#[track_caller]
fn assert_no_process_shows(secret: &str, but: u32) {
    for item in fs::read_dir("/proc").unwrap().flatten() {
        let pid = item.file_name().to_string_lossy().into_owned();
        if pid.parse::<u32>().is_err() || pid == but.to_string() {
            continue;
        }
        // A child is a copy of its parent, the shim's bash or our own program, until it becomes what it is to be.
        let program = fs::read_link(item.path().join("exe")).unwrap_or_default();
        let copy = ["bash", "n8n-backup"].iter().any(|parent| program.ends_with(parent));
        for file in ["cmdline", "environ"] {
            if copy && file == "environ" {
                continue;
            }
            let bytes = fs::read(item.path().join(file)).unwrap_or_default();
            let shown = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!shown, "{file} of {}", String::from_utf8_lossy(&bytes));
        }
    }
}

/// Decrypts as the documentation says, with gpg alone.
fn by_hand(sandbox: &Sandbox, file: &Path) -> Vec<u8> {
    let home = sandbox.aside("gpg-home");
    let passphrase = sandbox.aside("passphrase");
    let _ = fs::create_dir(&home);
    fs::write(&passphrase, PASSPHRASE).unwrap();
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--quiet", "--no-autostart", "--no-permission-warning"])
        .args(["--pinentry-mode", "loopback", "--homedir"])
        .arg(home)
        .arg("--passphrase-file")
        .arg(passphrase)
        .arg("--decrypt")
        .arg(file);
    let said = output(gpg);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    said.stdout
}

fn key_home(sandbox: &Sandbox) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let home = sandbox.aside("k");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let mut make = Command::new("gpg");
    make.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""])
        .args(["--quick-generate-key", "Scratch Key <backup@example.org>"])
        .args(["default", "default", "never"])
        .env("GNUPGHOME", &home);
    done(make);
    home
}

/// Ends the agent that the user's own keyring has started.
struct Agent(PathBuf);

impl Drop for Agent {
    fn drop(&mut self) {
        let mut kill = Command::new("gpgconf");
        let _ = kill.args(["--kill", "all"]).env("GNUPGHOME", &self.0).status();
    }
}

/// Whoever has kept what is written in `.env` could read nothing.
#[test]
fn a_passphrase_that_is_read_as_another_one_encrypts_nothing_new() {
    let sandbox = Sandbox::new("gpgread")
        .env_text("BACKUP_GPG_PASSPHRASE=My$Kitchen-2024")
        .build();
    for call in [
        sandbox.call("backup-all"),
        sandbox.call("backup-n8n"),
        sandbox.binary().arg("doctor"),
    ] {
        let outcome = call.run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(
            outcome
                .stdout
                .contains("BACKUP_GPG_PASSPHRASE is not what is written in .env"),
            "{outcome}"
        );
        assert!(outcome.stdout.contains("put it in single quotes"), "{outcome}");
        outcome.assert_never_says("Kitchen");
    }
    // That one opens what there is.
    sandbox.write("backups/redis/dump_20260102_030405.rdb.gpg", "x");
    sandbox.run("backup-all", &[]).assert_log_has(
        "backup-all",
        "WARN BACKUP_GPG_PASSPHRASE is not what is written in .env{}",
    );
    let doctor = sandbox.binary().arg("doctor").run();
    let told = |verdict: &str| {
        let of = format!("{verdict:4} encryption: ");
        doctor.stdout.lines().any(|line| line.starts_with(&of))
    };
    assert!(told("WARN") && !told("OK"), "{doctor}");
}

#[test]
fn a_cycle_with_a_passphrase_brings_everything_back_and_writes_no_plaintext() {
    if no_gpg("encryption::a_cycle_with_a_passphrase") {
        return;
    }
    let sandbox = Sandbox::new("gpg")
        .stack()
        .seeded()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .env_text(&format!("{MARKER}=1"))
        .build();
    let before = sandbox.fingerprint_postgres();
    let mut run = sandbox
        .call("backup-all")
        .arg("--verbose")
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .spawn();
    let pid = run.pid();
    run.await_that("the run to end", |run| {
        assert_no_plaintext(&sandbox);
        assert_no_process_shows(PASSPHRASE, pid);
        run.log().contains("All backups completed successfully")
    });
    let outcome = run.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    outcome.assert_never_says(PASSPHRASE);
    outcome.assert_log_has(
        "backup-all",
        "WARN The copy of .env is encrypted with the passphrase that stands in .env{}",
    );
    assert_no_plaintext(&sandbox);
    for (kind, end) in KINDS
        .iter()
        .zip([".sql.gz.gpg", ".rdb.gpg", ".tar.gz.gpg", ".backup.gpg"])
    {
        let file = sandbox.backup(kind);
        assert!(name(&file).ends_with(end), "{}", file.display());
        assert_eq!(mode(&file), 0o600);
        assert!(sandbox.leftovers(kind).is_empty());
    }
    assert!(!sandbox.path("nonexistent").exists());

    let env = by_hand(&sandbox, &sandbox.backup("env"));
    assert_eq!(env, fs::read(sandbox.path(".env")).unwrap());
    assert!(by_hand(&sandbox, &sandbox.backup("redis")).starts_with(b"REDIS"));
    assert!(by_hand(&sandbox, &sandbox.backup("n8n")).starts_with(b"\x1f\x8b"));

    verify(&sandbox, &["--all"]).assert_success();
    sandbox.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    let dump = sandbox.backup("postgres");
    let restored = sandbox.run("restore-postgres", &[&dump.to_string_lossy()]);
    restored.assert_success().assert_never_says(PASSPHRASE);
    assert_same(&before, &sandbox.fingerprint_postgres());

    let second = sandbox.run("backup-all", &[]);
    second.assert_success();
    second.assert_never_says("The copy of .env is encrypted with the passphrase");
}

#[test]
fn what_cannot_be_encrypted_fails_before_anything_begins() {
    if no_gpg("encryption::what_cannot_be_encrypted") {
        return;
    }
    for (settings, error) in [
        (
            &[
                ("BACKUP_GPG_PASSPHRASE", "a b c d e f g"),
                ("BACKUP_GPG_RECIPIENT", "me@example.org"),
            ][..],
            "Cause: BACKUP_GPG_PASSPHRASE and BACKUP_GPG_RECIPIENT are both set{}",
        ),
        (
            &[("BACKUP_GPG_PASSPHRASE", "two\nlines")],
            "Cause: BACKUP_GPG_PASSPHRASE must be one line",
        ),
        (
            &[("BACKUP_GPG_RECIPIENT", "keys/none.asc")],
            "Cannot encrypt with BACKUP_GPG_RECIPIENT {}none.asc{}",
        ),
        (
            &[("BACKUP_GPG_RECIPIENT", "nobody@example.org")],
            "Cannot encrypt with BACKUP_GPG_RECIPIENT nobody@example.org{}",
        ),
    ] {
        let mut builder = Sandbox::new("gpgbad");
        for (name, value) in settings {
            builder = builder.env(name, value);
        }
        let sandbox = builder.build();
        let before = sandbox.listing();
        for command in ["backup-all", "backup-postgres"] {
            let outcome = sandbox.call(command).env("HOME", sandbox.aside("")).run();
            assert_eq!(outcome.code, Some(1), "{outcome}");
            outcome.assert_log_has(command, &format!("ERROR {error}"));
            outcome.assert_never_says("lines");
        }
        assert_eq!(before, sandbox.listing());
    }
}

#[test]
fn a_host_without_gpg_is_told_so_before_anything_begins() {
    let sandbox = Sandbox::new("nogpg").env("BACKUP_GPG_PASSPHRASE", PASSPHRASE).build();
    let hide = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c"])
            .arg(format!("mount --bind /dev/null /usr/bin/gpg && {script}"))
            .arg(sandbox.path("scripts/backup-all.sh"));
        command.output().unwrap()
    };
    if !hide("true").status.success() {
        return skip("encryption::a_host_without_gpg", "no right to hide a program");
    }
    let before = sandbox.listing();
    let said = hide("exec \"$0\"");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(
        text.contains("gpg not found\n") && text.contains("] Hint: install gnupg"),
        "{text}"
    );
    assert_eq!(before, sandbox.listing());
}

#[test]
fn a_short_passphrase_is_warned_about() {
    if no_gpg("encryption::a_short_passphrase") {
        return;
    }
    let sandbox = Sandbox::new("gpgshort")
        .redis()
        .env("BACKUP_GPG_PASSPHRASE", "eleven char")
        .build();
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_success().assert_never_says("eleven char");
    outcome.assert_log_has(
        "backup-redis",
        "WARN BACKUP_GPG_PASSPHRASE is short (11 characters): take 12 or more",
    );
}

#[test]
fn a_wrong_passphrase_or_a_damaged_file_stops_a_restore_before_anything_is_touched() {
    if no_gpg("encryption::a_wrong_passphrase") {
        return;
    }
    let sandbox = Sandbox::new("gpgwrong")
        .postgres()
        .seeded()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .build();
    sandbox.run("backup-postgres", &[]).assert_success();
    let dump = sandbox.backup("postgres");
    let before = sandbox.fingerprint_postgres();
    let restore = |file: &Path| sandbox.run("restore-postgres", &[&file.to_string_lossy()]);

    sandbox.set("BACKUP_GPG_PASSPHRASE", "another passphrase");
    let refused = restore(&dump);
    refused.assert_error("Cannot decrypt {}");
    refused.assert_log_has(
        "restore-postgres",
        "ERROR Cause: BACKUP_GPG_PASSPHRASE is not its passphrase{}",
    );
    let outcome = verify(&sandbox, &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has(
        "verify",
        "ERROR Not checked: {}: BACKUP_GPG_PASSPHRASE is not its passphrase{}",
    );
    outcome.assert_log_has(
        "verify",
        "ERROR Verification failed: 1 of 1 file(s) could not be checked",
    );
    sandbox.set("BACKUP_GPG_PASSPHRASE", "");
    let refused = restore(&dump);
    refused.assert_error("Cannot decrypt {}");
    refused.assert_log_has("restore-postgres", "ERROR Hint: set BACKUP_GPG_PASSPHRASE in .env{}");
    sandbox.set("BACKUP_GPG_PASSPHRASE", PASSPHRASE);
    let whole = fs::read(&dump).unwrap();
    let (start, end) = whole.split_at(whole.len() / 2);
    let copy = sandbox.aside("copy.sql.gz.gpg");
    for bytes in [
        start.to_vec(),
        [start, &[!end[0]], &end[1..]].concat(),
        whole[..whole.len() - 1].to_vec(),
    ] {
        fs::write(&copy, bytes).unwrap();
        restore(&copy).assert_error("Backup file is corrupted or not a valid gzip file");
    }
    fs::write(&copy, "nothing that gpg wrote").unwrap();
    restore(&copy).assert_error("Backup file is corrupted or not a valid gzip file");
    assert_same(&before, &sandbox.fingerprint_postgres());
    assert_eq!(sandbox.databases(), ["n8n"]);
}

#[test]
fn only_the_private_key_reads_what_is_encrypted_to_its_public_key() {
    if no_gpg("encryption::only_the_private_key") {
        return;
    }
    let sandbox = Sandbox::new("gpgkey")
        .stack()
        .seeded()
        .env_text(&format!("{MARKER}=1"))
        .build();
    let home = key_home(&sandbox);
    let _agent = Agent(home.clone());
    let mut export = Command::new("gpg");
    export.args(["--batch", "--armor", "--export"]).env("GNUPGHOME", &home);
    sandbox.write("backup-key.asc", done(export));
    let before = sandbox.fingerprint_postgres();

    // The key in a file, and a run without any home directory, as under a bare systemd unit.
    sandbox.set("BACKUP_GPG_RECIPIENT", "./backup-key.asc");
    sandbox.run("backup-all", &[]).assert_success();
    assert_no_plaintext(&sandbox);
    let dump = sandbox.backup("postgres");
    let verified = sandbox
        .binary()
        .args(&["verify", "--all"])
        .env("HOME", sandbox.aside(""))
        .run();
    verified.assert_success();
    verified.assert_log_has("verify", "INFO {}.sql.gz.gpg can be read with its private key only{}");
    let locked = sandbox
        .call("restore-postgres")
        .arg(&dump)
        .env("HOME", sandbox.aside(""))
        .run();
    locked.assert_error("Cannot decrypt {}");
    locked.assert_log_has("restore-postgres", "ERROR Hint: import its private key {}");

    // The private key, and the key by its name.
    sandbox.set("BACKUP_GPG_RECIPIENT", "backup@example.org");
    let with_key = |command: &'static str| sandbox.call(command).env("GNUPGHOME", &home);
    with_key("backup-redis").run().assert_success();
    let verified = sandbox
        .binary()
        .args(&["verify", "--all"])
        .env("GNUPGHOME", &home)
        .run();
    verified.assert_success().assert_never_says("private key only");
    sandbox.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    with_key("restore-postgres").arg(&dump).run().assert_success();
    assert_same(&before, &sandbox.fingerprint_postgres());
}

#[test]
fn plain_and_encrypted_backups_live_side_by_side() {
    if no_gpg("encryption::plain_and_encrypted") {
        return;
    }
    let sandbox = Sandbox::new("gpgmix").postgres().redis().build();
    sandbox.run("backup-postgres", &[]).assert_success();
    sandbox.run("backup-redis", &[]).assert_success();
    sandbox.set("BACKUP_GPG_PASSPHRASE", PASSPHRASE);
    sandbox.run("backup-postgres", &[]).assert_success();
    sandbox.run("backup-redis", &[]).assert_success();
    let verified = verify(&sandbox, &["--all"]);
    verified.assert_success();
    verified.assert_log_has("verify", "SUCCESS Verification completed: 4 file(s) are good");
    let dumps = sandbox.backups("postgres");
    assert_eq!(dumps.len(), 2);
    let [plain, encrypted] = [&dumps[0], &dumps[1]].map(|dump| dump.to_string_lossy());
    sandbox.run("restore-postgres", &[&encrypted]).assert_success();
    // Who made a plain one is not known.
    if std::env::var_os("TEST_PASSPHRASE").is_none() {
        sandbox
            .run("restore-postgres", &[&plain])
            .assert_error("{} is not encrypted, while this project encrypts its backups: {}");
    }
    let trusted = ["--allow-plain", &*plain];
    sandbox.run("restore-postgres", &trusted).assert_success();
    sandbox
        .run("restore-postgres", &[&sandbox.backups("redis")[1].to_string_lossy()])
        .assert_error("Backup file must be a .sql.gz file");

    // Files without a recovery point, of both forms, 9 days old and 30.
    for (days, end) in [(30, ".sql.gz"), (9, ".sql.gz.gpg"), (9, ".gpg")] {
        let file = sandbox.write(&format!("backups/postgres/mine-{days}{end}"), "x");
        let mut touch = Command::new("touch");
        touch.args(["-d", &format!("{days} days ago")]).arg(file);
        done(touch);
    }
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    let left: Vec<String> = sandbox.backups("postgres").iter().map(|path| name(path)).collect();
    assert!(
        !left
            .iter()
            .any(|name| name.starts_with("mine-") && name.contains(".sql.gz")),
        "{left:?}"
    );
    assert!(left.contains(&"mine-9.gpg".to_owned()) && left.len() == 3, "{left:?}");
}

#[test]
fn no_plain_backup_follows_an_encrypted_one_when_the_env_file_is_lost() {
    if no_gpg("encryption::no_plain_backup_follows_an_encrypted_one") {
        return;
    }
    // Not the one that another test looks for in the environment of every process.
    let passphrase = "shown to every process";
    let sandbox = Sandbox::new("gpglost")
        .redis()
        .env("BACKUP_GPG_PASSPHRASE", passphrase)
        .build();
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_log_has("backup-all", "INFO Recovery point written: {}");
    fs::remove_file(sandbox.path(".env")).unwrap();
    let before = sandbox.listing();
    let backup = || sandbox.call("backup-redis").envs(&sandbox.settings());
    backup().run().assert_error(
        ".env is missing, and there are copies of it: the newest backup of redis is encrypted, and none is made that is \
         not. Put .env back {}",
    );
    assert_eq!(sandbox.listing(), before);
    let outcome = backup().env("BACKUP_GPG_PASSPHRASE", passphrase).run();
    outcome.assert_success();
    assert_no_plaintext(&sandbox);
    assert_eq!(sandbox.backups("redis").len(), 2);
    // A new one that sets something, and no encryption, is what its owner wants.
    for (name, value) in sandbox.settings() {
        sandbox.set(name, &value);
    }
    sandbox.run("backup-redis", &[]).assert_success();
    assert_eq!(sandbox.backups("redis").len(), 3);
}

#[test]
fn a_gpg_that_fails_or_lies_makes_no_backup() {
    if no_gpg("encryption::a_gpg_that_fails") {
        return;
    }
    let sandbox = Sandbox::new("gpglies")
        .stack()
        .seeded()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .build();
    // The check before the run encrypts nothing and passes; what is long enough to be a backup is cut.
    for script in [
        "#!/bin/sh\n/usr/bin/gpg \"$@\" | head -c 150\n",
        "#!/bin/sh\nset -e\n/usr/bin/gpg \"$@\" >\"$0.out\"\nhead -c 150 \"$0.out\"\ntest \"$(wc -c <\"$0.out\")\" -le 150\n",
        "#!/bin/sh\n/usr/bin/gpg \"$@\" | head -c 150\ncat >/dev/null\nkill -KILL $$\n",
    ] {
        let dir = sandbox.stand_in("gpg", script);
        let outcome = sandbox.call("backup-all").path_first(&dir).run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(files(&sandbox).is_empty(), "{script}: {:?}", files(&sandbox));
        assert!(!sandbox.path("backups/sets").exists() || sandbox.backups("sets").is_empty());
    }
    sandbox.run("backup-all", &[]).assert_success();
}

#[test]
fn a_kill_at_any_point_leaves_no_broken_file_under_a_backups_name() {
    if no_gpg("encryption::a_kill_at_any_point") {
        return;
    }
    let sandbox = Sandbox::new("gpgkill")
        .stack()
        .seeded()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .build();
    for delay in [40, 120, 250, 400, 600, 850] {
        let run = sandbox.spawn("backup-all", &[]);
        std::thread::sleep(Duration::from_millis(delay));
        run.signal("KILL");
        drop(run.wait());
        assert_no_plaintext(&sandbox);
        for file in files(&sandbox) {
            if !name(&file).starts_with('.') {
                assert!(!by_hand(&sandbox, &file).is_empty(), "{}", file.display());
            }
        }
    }
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    for kind in KINDS {
        assert!(sandbox.leftovers(kind).is_empty(), "{kind}");
    }
    verify(&sandbox, &["--all"]).assert_success();
    let dir = sandbox.dir().as_os_str().as_bytes();
    // What the killed runs have started ends by itself, if not at once.
    await_true("processes are left", || {
        let lines = fs::read_dir("/proc").unwrap().flatten();
        let mut lines = lines.filter_map(|item| fs::read(item.path().join("cmdline")).ok());
        !lines.any(|line| line.windows(dir.len()).any(|part| part == dir))
    });
}
