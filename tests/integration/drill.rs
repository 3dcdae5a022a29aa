//! test-recovery: recovery points, whole and damaged, recovered into scratch containers.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

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

/// The manifest of the only recovery point.
fn manifest(sandbox: &Sandbox) -> PathBuf {
    let found = sandbox.backups("sets");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The value of a fact in the only manifest.
fn fact(sandbox: &Sandbox, name: &str) -> Option<String> {
    let text = fs::read_to_string(manifest(sandbox)).unwrap();
    let prefix = format!("# {name}: ");
    text.lines()
        .find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
}

/// Changes the text of the only manifest.
#[track_caller]
fn edit(sandbox: &Sandbox, change: impl FnOnce(&str) -> String) {
    let path = manifest(sandbox);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text, "nothing changed");
    fs::write(path, changed).unwrap();
}

/// Gives a backup file other contents, and the manifest the checksum of those: only what the contents mean can tell.
#[track_caller]
fn forge(sandbox: &Sandbox, file: &Path, contents: &[u8]) {
    let sum = |path: &Path| sh("sha256sum <\"$1\" | cut -c1-64", &[path.as_os_str()]);
    let before = sum(file);
    fs::write(file, contents).unwrap();
    let after = sum(file);
    if before == after {
        return;
    }
    edit(sandbox, |text| text.replace(before.trim(), after.trim()));
}

/// Packs as gzip does.
fn gzip(sandbox: &Sandbox, contents: &[u8]) -> Vec<u8> {
    let path = sandbox.aside("packed");
    fs::write(&path, contents).unwrap();
    sh("gzip -f -n -- \"$1\"", &[path.as_os_str()]);
    fs::read(path.with_extension("gz")).unwrap()
}

/// Unpacks as gzip does.
fn gunzip(file: &Path) -> Vec<u8> {
    let mut command = Command::new("gzip");
    command.arg("-dc").arg(file);
    crate::common::output(command).stdout
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
    assert_ends(&sandbox.run("test-recovery", &["--redis"]), 1, "is missing");
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

/// Encrypts as n8n does.
fn encrypt(key: &str, plain: &str) -> String {
    let script = "printf '%s\\n%s' \"$1\" \"$2\" | openssl enc -aes-256-cbc -md md5 -a -A -pass stdin 2>/dev/null";
    sh(script, &[OsStr::new(key), OsStr::new(plain)])
}

/// An archive of a volume with this `config`, or without one.
fn volume_archive(sandbox: &Sandbox, config: Option<&str>) -> Vec<u8> {
    let dir = sandbox.aside("volume");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("other"), "x").unwrap();
    if let Some(config) = config {
        fs::write(dir.join("config"), config).unwrap();
    }
    let mut command = Command::new("tar");
    command.arg("-cz").arg("-C").arg(&dir).arg(".");
    crate::common::output(command).stdout
}

#[test]
fn the_key_proof_tells_right_from_wrong_and_from_unknown() {
    if !has_program("openssl") {
        skip("drill: the key proof", "openssl is missing");
        return;
    }
    // The table may have a prefix and stand in another schema.
    let sandbox = Sandbox::new("dkey").postgres().volume().build();
    let (right, wrong) = ("k\u{e4}y 'A'\\\"$x", "key B");
    sandbox.psql("CREATE SCHEMA n8n; CREATE TABLE n8n.my_credentials_entity (id text PRIMARY KEY, data text NOT NULL)");
    // n8n takes the key's characters as bytes.
    let latin1 = sh(
        "printf %s \"$1\" | iconv -f UTF-8 -t ISO-8859-1 | base64 -w0",
        &[OsStr::new(right)],
    );
    let script = "{ printf %s \"$1\" | base64 -d; printf '\\n%s' \"$2\"; } | openssl enc -aes-256-cbc -md md5 -a -A -pass stdin 2>/dev/null";
    let rows: Vec<String> = (0..12)
        .map(|n| {
            let plain = format!("{{\"password\":\"secret {n}\"}}");
            let data = sh(script, &[OsStr::new(&latin1), OsStr::new(&plain)]);
            format!("('id{n}', '{data}')")
        })
        .collect();
    sandbox.psql(&format!(
        "INSERT INTO n8n.my_credentials_entity VALUES {}",
        rows.join(", ")
    ));
    // Redis is not there, so the run fails and the point is incomplete: enough for a test of the database.
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has("backup-all", "WARN The recovery point holds no encryption key: {}");
    edit(&sandbox, |text| {
        text.replace("# postgres.bytes: ", "# not-postgres.bytes: ")
    });
    let (env, archive, dump) = (sandbox.backup("env"), sandbox.backup("n8n"), sandbox.backup("postgres"));

    let test = |env_key: Option<&str>, config: Option<&str>| {
        let line = env_key.map_or_else(String::new, |key| crate::common::env_line("N8N_ENCRYPTION_KEY", key));
        forge(&sandbox, &env, format!("A=1\n{line}\n").as_bytes());
        forge(&sandbox, &archive, &volume_archive(&sandbox, config));
        sandbox.run("test-recovery", &["--postgres"])
    };
    let json = |key: &str| {
        format!(
            "{{\n\t\"encryptionKey\": \"{}\"\n}}",
            key.replace('\\', "\\\\").replace('"', "\\\"")
        )
    };
    let all = "Decrypted 12 of 12 credentials with the backed-up key";

    let outcome = test(Some(right), None);
    assert_ends(&outcome, 0, all);
    outcome.assert_never_says("secret");
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("decrypted 12 of 12"));
    let outcome = test(None, Some(&json(right)));
    assert_ends(&outcome, 0, all);
    let outcome = test(Some(wrong), None);
    assert_ends(
        &outcome,
        1,
        "Decrypted 0 of 12 credentials with the backed-up key; 12 cannot be decrypted, such as ID id0, id1",
    );
    outcome.assert_never_says(wrong);
    assert!(fact(&sandbox, "drill").unwrap().ends_with(": key"));
    let outcome = test(Some(right), Some(&json(wrong)));
    assert_ends(&outcome, 1, "differ: n8n does not start");
    outcome.assert_never_says(wrong);
    let outcome = test(None, None);
    assert_ends(
        &outcome,
        1,
        "the recovery point holds no encryption key, and its database 12 credentials",
    );

    // One that is damaged and one of a form that is not known; then only such.
    let text = String::from_utf8(gunzip(&dump)).unwrap();
    let row = |id: &str| text.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    let mut bytes = row("id3\t").into_bytes();
    let last = bytes.len() - 6;
    bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
    let damaged = text
        .replace(&row("id3\t"), &String::from_utf8(bytes).unwrap())
        .replace(&row("id5\t"), "id5\tn8n:v2:AAAA");
    forge(&sandbox, &dump, &gzip(&sandbox, damaged.as_bytes()));
    let outcome = test(Some(right), Some(&json(right)));
    assert_ends(
        &outcome,
        1,
        "Decrypted 10 of 12 credentials with the backed-up key; 1 cannot be decrypted, such as ID id3",
    );
    let unknown: String = text
        .lines()
        .map(|line| match line.split_once('\t') {
            Some((id, _)) if line.starts_with("id") => format!("{id}\t{{\"iv\":\"x\"}}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    forge(&sandbox, &dump, &gzip(&sandbox, unknown.as_bytes()));
    let outcome = test(None, Some(&json(right)));
    assert_ends(
        &outcome,
        0,
        "Encryption key not checked: 12 credentials are stored in a form",
    );
    assert!(!outcome.stdout.contains("Decrypted"), "{outcome}");
    assert!(fact(&sandbox, "drill.key").unwrap().starts_with("not checked"));
}

#[test]
fn a_dump_that_is_not_what_it_should_be_fails() {
    let sandbox = Sandbox::new("ddump").postgres().build();
    sandbox.psql("CREATE TABLE things (id serial PRIMARY KEY); INSERT INTO things SELECT FROM generate_series(1, 50)");
    sandbox.psql("CREATE ROLE somebody; ALTER TABLE things OWNER TO somebody");
    sandbox.run("backup-postgres", &[]).assert_success();
    let dump = sandbox.backup("postgres");
    let whole = fs::read(&dump).unwrap();
    // The point holds neither .env nor the volume. The role of the dump is not there in a fresh server.
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    outcome.assert_success();
    assert_says(
        &outcome,
        "SUCCESS PostgreSQL: 1 tables, 50 rows, 1 sequences recovered in {}",
    );

    let text = String::from_utf8(gunzip(&dump)).unwrap();
    edit(&sandbox, |text| {
        text.replace("# postgres.bytes: ", "# not-postgres.bytes: ")
    });
    let check = |text: &str, reason: &str| {
        forge(&sandbox, &dump, &gzip(&sandbox, text.as_bytes()));
        let outcome = sandbox.run("test-recovery", &["--postgres"]);
        assert_ends(&outcome, 1, reason);
        assert!(outcome.stdout.contains("PostgreSQL test failed"), "{outcome}");
    };
    check(&text[..text.len() / 2], "the dump is cut off");
    check(&text.replace("\n50\n", "\n"), "rows.public.things is 49 instead of 50");
    check(
        &text.replace("setval('public.things_id_seq', 50", "setval('public.things_id_seq', 49"),
        "sequence.public.things_id_seq is 49 used instead of 50 used",
    );
    // It says what the manifest says, and does not load.
    check(
        &text.replace("CREATE TABLE public.things", "SELECT 1/0;\nCREATE TABLE public.things"),
        "division by zero",
    );
    // It loads, and what is there then is not what it says.
    check(
        &text.replace(
            "COPY public.things",
            "CREATE RULE less AS ON INSERT TO public.things DO ALSO NOTHING;\nCREATE FUNCTION public.less() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RETURN NULL; END';\nCREATE TRIGGER less BEFORE INSERT ON public.things FOR EACH ROW EXECUTE FUNCTION \
             public.less();\nCOPY public.things",
        ),
        "table public.things has 0 rows instead of 50",
    );
    forge(&sandbox, &dump, &whole);
    edit(&sandbox, |text| {
        text.replace("rows.public.things: 50", "rows.public.things: 51")
    });
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    assert_ends(&outcome, 1, "rows.public.things is 50 instead of 51");
    edit(&sandbox, |text| {
        text.replace("rows.public.things: 51", "rows.public.others: 1")
    });
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    assert_ends(&outcome, 1, "rows.public.others is missing, recorded as 1");
    edit(&sandbox, |text| {
        text.replace("rows.public.others: 1", "rows.public.things: 50")
    });
    sandbox.run("test-recovery", &["--postgres"]).assert_success();
}

#[test]
fn a_test_that_is_killed_leaves_nothing_running() {
    let sandbox = Sandbox::new("dkill").postgres().build();
    // What holds nothing proves nothing.
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "backup-postgres",
        "WARN Database n8n holds no table: set POSTGRES_DB in .env {}",
    );
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stdout.contains("the dump holds no table"), "{outcome}");
    sandbox.psql("CREATE TABLE workflow_entity AS SELECT 1 AS id");
    sandbox.run("backup-postgres", &[]).assert_success();
    // It stands still in the middle of the load.
    let reached = sandbox.aside("reached");
    let shown = reached.display();
    let watch = sandbox.stand_in_docker(&format!(
        "case \"$*\" in *psql*n8n_backup_drill*) : >'{shown}'; sleep 60 ;; esac"
    ));
    let mut running = sandbox
        .call("test-recovery")
        .args(&["--postgres"])
        .path_first(&watch)
        .spawn();
    let containers = || {
        let format = "{{.ID}} {{.Label \"n8n-backup.drill\"}} {{.Status}}";
        let image = sandbox.docker(&["inspect", "--format", "{{.Image}}", &sandbox.container("postgres")]);
        sandbox.docker(&[
            "ps",
            "-a",
            "--no-trunc",
            "--filter",
            &format!("label={LABEL}={}", owner_of(sandbox.dir())),
            "--filter",
            &format!("ancestor={}", image.trim()),
            "--format",
            format,
        ])
    };
    running.await_that("the load", |_| reached.exists());
    assert!(containers().contains(" Up "), "{}", containers());
    let volumes = |id: &str| sandbox.docker(&["inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", id]);
    let id = containers().split_whitespace().next().unwrap().to_owned();
    let volumes = volumes(&id);
    running.signal("KILL");
    drop(running);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !containers().is_empty() {
        assert!(Instant::now() < deadline, "still there: {}", containers());
        thread::sleep(Duration::from_millis(100));
    }
    // The engine removes a container's volumes after the container is gone from its list.
    for volume in volumes.split_whitespace() {
        let there = || sandbox.docker(&["volume", "ls", "-q", "--filter", &format!("name={volume}")]);
        while !there().is_empty() {
            assert!(Instant::now() < deadline, "still there: {}", there());
            thread::sleep(Duration::from_millis(100));
        }
    }
    // One that never ran is swept by the next test.
    let image = sandbox.docker(&["inspect", "--format", "{{.Image}}", &sandbox.container("postgres")]);
    let label = format!("{LABEL}={}", owner_of(sandbox.dir()));
    sandbox.docker(&["create", "--label", &label, image.trim(), "true"]);
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    outcome.assert_success();
    assert_says(
        &outcome,
        "WARN Removed 1 scratch container(s) that an interrupted test left",
    );
    assert_eq!(containers(), "");
}

/// The value of the label: FNV-1a of host name and project directory.
fn owner_of(project: &Path) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let project = project.canonicalize().unwrap();
    let bytes = host
        .trim()
        .bytes()
        .chain([0])
        .chain(project.as_os_str().as_encoded_bytes().iter().copied());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// An image that goes when the test ends.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

#[test]
fn a_server_that_makes_its_cluster_first_is_waited_for() {
    let sandbox = Sandbox::new("dinit").postgres().postgres_user("odd user").build();
    sandbox.psql("CREATE TABLE things AS SELECT generate_series(1, 30) AS id");
    sandbox.run("backup-postgres", &[]).assert_success();

    // As the official image does it: a first server, for the set-up, on the socket only, which is ended again.
    let entry = sandbox.write(
        "entry.sh",
        r#"#!/bin/sh
set -e
[ "$1" = postgres ] && [ "$POSTGRES_HOST_AUTH_METHOD" = trust ] && [ "$POSTGRES_DB" = postgres ]
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  chown postgres "$PGDATA" /run/postgresql
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
initdb -D "$PGDATA" -U "$POSTGRES_USER" --no-sync
echo 'host all all all trust' >>"$PGDATA/pg_hba.conf"
shift
pg_ctl -D "$PGDATA" -o "$* -c listen_addresses=''" -w start
sleep 2
pg_ctl -D "$PGDATA" -m fast -w stop
exec postgres "$@"
"#,
    );
    sh("chmod 755 \"$1\"", &[entry.as_os_str()]);
    let base = sandbox.docker(&["inspect", "--format", "{{.Image}}", &sandbox.container("postgres")]);
    let source = format!("{}-source", sandbox.prefix());
    let mut create = vec!["create".to_owned(), "--name".to_owned(), source.clone()];
    create.extend(sandbox.labels());
    create.push(base.trim().to_owned());
    sandbox.docker(&create);
    let target = format!("{source}:/usr/local/bin/entry");
    sandbox.docker(&["cp".as_ref(), entry.as_os_str(), target.as_ref()]);
    let image = Image(format!("{}-official:1", sandbox.prefix().to_lowercase()));
    sandbox.docker(&[
        "commit",
        "-c",
        r#"ENTRYPOINT ["/usr/local/bin/entry"]"#,
        &source,
        &image.0,
    ]);

    // The stack's container need not run: its image is asked for, and no more.
    let live = format!("{}-official", sandbox.prefix());
    let mut create = vec!["create".to_owned(), "--name".to_owned(), live.clone()];
    create.extend(sandbox.labels());
    create.push(image.0.clone());
    sandbox.docker(&create);
    sandbox.set("BACKUP_POSTGRES_CONTAINER", &live);
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    outcome.assert_success();
    assert_says(
        &outcome,
        "SUCCESS PostgreSQL: 1 tables, 30 rows, 0 sequences recovered in {}",
    );
    // The image goes only after what was made from it.
    drop(sandbox);
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
