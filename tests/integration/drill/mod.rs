//! test-recovery: recovery points, whole and damaged, recovered into scratch containers.

mod containers;
mod key;
mod proof;

use std::fs;

use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::common::point::{edit, encrypt, fact, forge, gunzip, gzip, manifest};
use crate::common::{assert_same, done, has_program, matches, name, sh, skip, Outcome, Sandbox};

/// The label of the scratch containers.
const LABEL: &str = "n8n-backup.drill";

/// Fails unless standard output has a line `[LEVEL] TIME [test-recovery] MESSAGE` of this pattern (`LEVEL MESSAGE`).
#[track_caller]
fn assert_says(outcome: &Outcome, pattern: &str) {
    let (level, message) = pattern.split_once(' ').unwrap();
    let line = format!("[{level}] {{}} [test-recovery] {message}");
    assert!(
        outcome.stdout.lines().any(|said| matches(&line, said)),
        "missing: {pattern}\n{outcome}"
    );
}

/// Fails unless the test ended with `code`, and for the reason given.
#[track_caller]
fn assert_ends(outcome: &Outcome, code: i32, reason: &str) {
    assert!(
        outcome.code == Some(code) && outcome.stdout.contains(reason),
        "exit code {code} and '{reason}' expected: {outcome}"
    );
}

/// What the engine knows of the sandbox's own containers, which a drill must not change.
fn live(sandbox: &Sandbox) -> String {
    let format = "{{.Name}} {{.State.StartedAt}} {{.State.Status}} {{.RestartCount}} {{json .Mounts}}";
    let names = ["postgres", "redis", "n8n-main", "n8n-worker"].map(|name| sandbox.container(name));
    let mut command = Command::new("docker");
    command.args(["inspect", "--format", format]).args(&names);
    done(command)
}

#[test]
fn a_whole_point_passes_and_nothing_live_is_touched() {
    let sandbox = Sandbox::new("drill").stack().n8n().seeded().build();
    sandbox.run("backup-all", &[]).assert_success();
    let contents = || {
        [
            sandbox.fingerprint_postgres(),
            sandbox.fingerprint_redis(),
            sandbox.fingerprint_volume(),
        ]
        .join("\n")
    };
    let (state, before) = (live(&sandbox), contents());

    // What docker is given, by arguments, environment and standard input of the short calls.
    let record = sandbox.aside("record");
    let shown = record.display();
    let watch = sandbox.stand_in_docker(&format!("{{ printf '<%s>' \"$@\"; echo; env; }} >>'{shown}'"));
    let outcome = sandbox.call("test-recovery").args(&["--full"]).path_first(&watch).run();
    outcome.assert_success();
    for line in [
        "INFO Starting recovery test: full",
        "INFO Recovery point: {}, {} old",
        "SUCCESS Environment file: {} settings recovered in {}",
        "SUCCESS n8n volume: {} members, {} files, {}B recovered in {}",
        "SUCCESS Redis: {} keys recovered in {}",
        "SUCCESS PostgreSQL: {} tables, {} rows, {} sequences recovered in {}",
        "SUCCESS Decrypted 20 of 20 credentials with the backed-up key",
        "INFO A recovery of this would take about {} (RTO), and its data would be {} old (RPO)",
        "SUCCESS Recovery test passed: full of recovery point {} (5/5)",
    ] {
        assert_says(&outcome, line);
    }
    let log = fs::read_to_string(sandbox.path("logs/recovery-test.log")).unwrap();
    assert_eq!(log, outcome.stdout);
    assert!(fact(&sandbox, "drill").unwrap().starts_with("passed full 2"));
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("decrypted 20 of 20"));
    let listed = sandbox.run("test-recovery", &["--list"]);
    listed.assert_success();
    assert!(
        listed.stdout.contains("postgres redis n8n env   passed full 2"),
        "{listed}"
    );

    assert_eq!(live(&sandbox), state);
    assert_same(&before, &contents());
    let record = fs::read_to_string(&record).unwrap();
    let key = sh(
        "\"$1\" key",
        &[crate::common::repository().join("tests/stack/stack.sh").as_os_str()],
    );
    for secret in [key.trim(), "not a secret"] {
        assert!(!record.contains(secret), "docker was given {secret}");
    }
    let calls: Vec<&str> = record.lines().filter(|line| line.starts_with('<')).collect();
    let mut owner = None;
    for call in &calls {
        // The live containers and volumes are asked about, and no more.
        let names_live = call.contains(sandbox.prefix());
        assert!(!names_live || call.starts_with("<inspect>"), "{call}");
        if call.starts_with("<create>") {
            assert!(
                call.contains("<--network><none>") && call.contains("<--memory><1g>"),
                "{call}"
            );
            owner = call
                .split('>')
                .find_map(|word| word.strip_prefix(&format!("<{LABEL}=")));
        }
    }
    assert_eq!(calls.iter().filter(|call| call.starts_with("<create>")).count(), 3);
    let owner = owner.expect("no label");
    let left = sandbox.docker(&["ps", "-aq", "--filter", &format!("label={LABEL}={owner}")]);
    assert_eq!(left, "");
}

#[test]
fn damaged_files_of_redis_and_the_volume_fail_for_what_they_are() {
    let sandbox = Sandbox::new("dmg").redis().n8n().seeded().build();
    let nothing = sandbox.run("test-recovery", &["--full"]);
    assert_ends(&nothing, 2, "There is no backup to test yet");

    // Redis. A key whose time runs out before the test was in the snapshot all the same.
    sandbox.redis(&["set", "soon", "gone", "px", "1"]);
    sandbox.redis(&["set", "later", "gone", "px", "1500"]);
    let keys = sandbox.redis(&["dbsize"]).trim().to_owned();
    assert_ne!(keys, "0");
    sandbox.run("backup-redis", &[]).assert_success();
    thread::sleep(Duration::from_millis(1600));
    let file = sandbox.backup("redis");
    let whole = fs::read(&file).unwrap();
    sandbox.run("test-recovery", &["--redis"]).assert_success();
    assert_eq!(fact(&sandbox, "drill"), None, "a snapshot alone proves no point");

    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&file, &flipped).unwrap();
    let outcome = sandbox.run("test-recovery", &["--redis"]);
    assert_ends(&outcome, 1, "is not the file that was recorded");
    assert!(fact(&sandbox, "drill").unwrap().starts_with("failed redis 2"));
    fs::write(&file, &whole).unwrap();
    forge(&sandbox, &file, &flipped);
    assert_ends(&sandbox.run("test-recovery", &["--redis"]), 1, "checksum");
    forge(&sandbox, &file, &whole[..whole.len() - 100]);
    assert_ends(&sandbox.run("test-recovery", &["--redis"]), 1, "Redis test failed");
    fs::remove_file(&file).unwrap();
    // A disk may be away: that is no failure of the backup, and leaves its mark.
    let mark = fact(&sandbox, "drill");
    assert_ends(&sandbox.run("test-recovery", &["--redis"]), 2, "is missing");
    assert_eq!(fact(&sandbox, "drill"), mark);
    fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    forge(&sandbox, &file, &whole);
    // What had failed is well again, and the mark goes.
    sandbox.run("test-recovery", &["--redis"]).assert_success();
    assert_eq!(fact(&sandbox, "drill"), None);
    fs::remove_file(manifest(&sandbox)).unwrap();

    // The volume.
    sandbox.run("backup-n8n", &[]).assert_success();
    let file = sandbox.backup("n8n");
    let whole = fs::read(&file).unwrap();
    sandbox.run("test-recovery", &["--n8n", "latest"]).assert_success();
    // What becomes of the engine or its disk says nothing of the archive.
    for (fault, told) in [
        ("exit 255", "Docker engine went away"),
        (
            "echo 'tar: ./a: Cannot write: No space left on device' >&2; exit 2",
            "There was no room on Docker's disk",
        ),
        (
            "echo 'Error response from daemon: No such container: x' >&2; exit 1",
            "The scratch container of n8n volume was ended",
        ),
    ] {
        let docker = sandbox.stand_in_docker(&format!(
            "case \" $* \" in *strip-components*) cat >/dev/null; {fault} ;; esac"
        ));
        let outcome = sandbox.call("test-recovery").args(&["--n8n"]).path_first(&docker).run();
        assert_ends(&outcome, 2, told);
        assert_eq!(fact(&sandbox, "drill"), None);
    }
    let unpacked = gunzip(&file);
    forge(&sandbox, &file, &gzip(&sandbox, &unpacked[..unpacked.len() / 2]));
    assert_ends(&sandbox.run("test-recovery", &["--n8n"]), 1, "the archive is cut off");
    forge(&sandbox, &file, &whole[..whole.len() / 2]);
    assert_ends(&sandbox.run("test-recovery", &["--n8n"]), 1, "n8n volume test failed");
    forge(&sandbox, &file, &whole);
    let members = fact(&sandbox, "n8n.members").unwrap();
    edit(&sandbox, |text| {
        text.replace(&format!("n8n.members: {members}"), "n8n.members: 999999")
    });
    let outcome = sandbox.run("test-recovery", &["--n8n"]);
    assert_ends(&outcome, 1, &format!("members is {members} instead of 999999"));

    // Another point is there, but not the one that is asked for.
    let outcome = sandbox.run("test-recovery", &["--n8n", "20200101_000000"]);
    assert_ends(&outcome, 2, "There is no recovery point 20200101_000000");
    // The snapshot has no manifest any more and is found by its name; nothing holds all.
    let outcome = sandbox.run("test-recovery", &["--full"]);
    assert_ends(&outcome, 1, "holds no postgres");
    sandbox.run("test-recovery", &["--redis"]).assert_success();
}

#[test]
fn files_without_a_manifest_are_listed_as_what_they_are() {
    let sandbox = Sandbox::new("dlist").build();
    for (kind, name) in [
        ("postgres", "n8n_20250101_020000.sql.gz"),
        ("redis", "dump_20250101_020007.rdb"),
    ] {
        fs::create_dir_all(sandbox.path("backups").join(kind)).unwrap();
        sandbox.write(&format!("backups/{kind}/{name}"), "x");
    }
    sandbox.run("backup-all", &[]);
    let listed = sandbox.run("test-recovery", &["--list"]);
    listed.assert_success();
    let (points, files) = listed.stdout.split_once("\n\n").unwrap();
    let points: Vec<&str> = points.lines().collect();
    assert_eq!(points.len(), 2, "{listed}");
    assert!(points[1].ends_with("env                      never"), "{listed}");
    let files: Vec<&str> = files.lines().collect();
    assert!(
        files[0].starts_with("Files that belong to no recovery point"),
        "{listed}"
    );
    assert!(
        files[2].starts_with("20250101_020007") && files[2].ends_with(" redis"),
        "{listed}"
    );
    assert!(
        files[3].starts_with("20250101_020000") && files[3].ends_with(" postgres"),
        "{listed}"
    );
    assert_eq!(files.len(), 4, "{listed}");
}

/// A passphrase opens a whole point and proves its key. A wrong one says nothing of the backup, a damaged file does.
#[test]
fn an_encrypted_point_is_tested_as_any_other() {
    if !has_program("gpg") || !has_program("openssl") {
        skip("drill: an encrypted point", "gpg or openssl is missing");
        return;
    }
    let passphrase = "the right one, of some length";
    let sandbox = Sandbox::new("dcrypt")
        .stack()
        .n8n()
        .seeded()
        .env("BACKUP_GPG_PASSPHRASE", passphrase)
        .build();
    sandbox.run("backup-all", &[]).assert_success();
    let archive = sandbox.backup("n8n");
    assert!(name(&archive).ends_with(".tar.gz.gpg"), "{}", archive.display());
    let outcome = sandbox.run("test-recovery", &["--full"]);
    outcome.assert_success().assert_never_says(passphrase);
    for line in [
        "SUCCESS Decrypted 20 of 20 credentials with the backed-up key",
        "SUCCESS Recovery test passed: full of recovery point {} (5/5)",
    ] {
        assert_says(&outcome, line);
    }
    let passed = fact(&sandbox, "drill").unwrap();
    assert!(passed.starts_with("passed full 2"), "{passed}");

    // No verdict, and none is recorded.
    sandbox.set("BACKUP_GPG_PASSPHRASE", "a wrong one, of some length");
    let outcome = sandbox.run("test-recovery", &["--full"]);
    assert_ends(&outcome, 2, "BACKUP_GPG_PASSPHRASE is not its passphrase");
    assert_says(&outcome, "ERROR PostgreSQL could not be tested");
    assert!(!outcome.stdout.contains("test failed"), "{outcome}");
    assert_eq!(fact(&sandbox, "drill").as_deref(), Some(passed.as_str()));
    sandbox.set("BACKUP_GPG_PASSPHRASE", "");
    let outcome = sandbox.run("test-recovery", &["--redis"]);
    assert_ends(&outcome, 2, "set BACKUP_GPG_PASSPHRASE in .env to the passphrase");
    sandbox.set("BACKUP_GPG_PASSPHRASE", passphrase);

    // Damaged in the middle, and cut off; first against the manifest, then with one that was made for it.
    for (kind, part) in [("n8n", "--n8n"), ("postgres", "--postgres"), ("redis", "--redis")] {
        let file = sandbox.backup(kind);
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() * 3 / 4] ^= 1;
        fs::write(&file, &flipped).unwrap();
        let outcome = sandbox.run("test-recovery", &[part]);
        assert_ends(&outcome, 1, "is not the file that was recorded");
        fs::write(&file, &whole).unwrap();
        for damaged in [&flipped[..], &whole[..whole.len() * 3 / 4]] {
            forge(&sandbox, &file, damaged);
            let outcome = sandbox.run("test-recovery", &[part]);
            assert_ends(&outcome, 1, "test failed");
            assert!(outcome.stdout.contains("gpg --decrypt"), "{outcome}");
            assert!(!outcome.stdout.contains("is not its passphrase"), "{outcome}");
        }
        forge(&sandbox, &file, &whole);
        sandbox.run("test-recovery", &[part]).assert_success();
    }
}

#[test]
fn what_cannot_be_tested_is_no_verdict() {
    let sandbox = Sandbox::new("dsetup").redis().seeded().build();
    for args in [
        &[][..],
        &["--redis", "--n8n"],
        &["--everything"],
        &["--redis", "a", "b"],
    ] {
        let outcome = sandbox.run("test-recovery", args);
        assert_eq!(outcome.code, Some(2), "{args:?}: {outcome}");
    }
    assert_eq!(sandbox.run("test-recovery", &["--help"]).code, Some(0));
    sandbox.run("backup-redis", &[]).assert_success();
    let marked = fs::read_to_string(manifest(&sandbox)).unwrap();
    let cases = [
        (
            "BACKUP_REDIS_CONTAINER",
            "n8nbt-no-such-container",
            "There is no container n8nbt-no-such-container",
        ),
        ("BACKUP_MIN_FREE_KB", "900000000000", "Docker's disk has "),
        ("BACKUP_DRILL_CPUS", "4000", "could not make a scratch container"),
    ];
    for (setting, value, reason) in cases {
        let outcome = sandbox
            .call("test-recovery")
            .args(&["--redis"])
            .env(setting, value)
            .run();
        // What stands in .env wins, so that one is set there.
        let outcome = if setting == "BACKUP_REDIS_CONTAINER" {
            let env = fs::read_to_string(sandbox.path(".env")).unwrap();
            sandbox.set(setting, value);
            let outcome = sandbox.run("test-recovery", &["--redis"]);
            fs::write(sandbox.path(".env"), env).unwrap();
            outcome
        } else {
            outcome
        };
        assert_ends(&outcome, 2, reason);
    }
    assert_eq!(fs::read_to_string(manifest(&sandbox)).unwrap(), marked);
}

#[test]
fn backup_all_can_end_with_the_test() {
    let sandbox = Sandbox::new("dafter").stack().env("BACKUP_DRILL", "full").build();
    sandbox.psql("CREATE TABLE credentials_entity (id int, data text)");
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_success();
    outcome.assert_log_has("backup-all", "INFO Running: test-recovery.sh");
    outcome.assert_log_has(
        "test-recovery",
        "SUCCESS Recovery test passed: full of recovery point {} (5/5)",
    );
    outcome.assert_log_has("backup-all", "SUCCESS All backups completed successfully (6/6)");
    assert!(fact(&sandbox, "drill").unwrap().starts_with("passed full 2"));
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("no credentials"));
    fs::remove_file(manifest(&sandbox)).unwrap();

    // Credentials and no key: the run fails, the backups stay.
    let data = encrypt("lost", "{}");
    sandbox.psql(&format!("INSERT INTO credentials_entity VALUES (1, '{data}')"));
    sandbox.set("BACKUP_DRILL", "postgres");
    thread::sleep(Duration::from_millis(1100));
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has("test-recovery", "ERROR Encryption key test failed");
    outcome.assert_log_has(
        "backup-all",
        "ERROR Backup completed with errors: 5/6 succeeded, 1 failed",
    );
    let mark = fact(&sandbox, "drill").unwrap();
    assert!(
        mark.starts_with("failed postgres 2") && mark.ends_with(": key"),
        "{mark}"
    );
    let names: Vec<String> = sandbox.backups("postgres").iter().map(|path| name(path)).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
