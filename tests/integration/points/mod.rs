//! Recovery points: what a run leaves, and what verify, list, the restores and the retention make of it.

mod cost;
mod newest;
mod presence;
mod retention;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::common::{done, has_program, name, output, sh, skip, Outcome, Sandbox};
use chrono::{DateTime, Local};

const DAY: u64 = 86_400;
const KINDS: [(&str, &str, &str); 4] = [
    ("postgres", "n8n_", ".sql.gz"),
    ("redis", "dump_", ".rdb"),
    ("n8n", "n8n_data_", ".tar.gz"),
    ("env", "env_", ".backup"),
];

/// Runs a command of the binary where no docker engine can be reached.
fn offline(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    let call = sandbox.binary().args(args);
    call.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").run()
}

/// The only recovery point's manifest.
fn manifest(sandbox: &Sandbox) -> PathBuf {
    sandbox.backup("sets")
}

/// The value of a fact in a manifest.
fn fact(manifest: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let value = |line: &str| Some(line.strip_prefix(&format!("# {name}: "))?.to_owned());
    text.lines().find_map(value)
}

/// Whether GNU sha256sum finds every file of a point as it was recorded.
fn sha256sum_agrees(sandbox: &Sandbox, manifest: &Path) -> bool {
    let mut check = Command::new("sha256sum");
    check
        .args(["--check", "--strict", "--quiet"])
        .arg(format!("sets/{}", name(manifest)));
    check.current_dir(sandbox.path("backups"));
    output(check).status.success()
}

/// Evaluates a jq expression on JSON; none, and told, where there is no jq.
fn jq(test: &str, json: &str, expression: &str) -> Option<String> {
    if !has_program("jq") {
        skip(test, "no jq");
        return None;
    }
    let script = "printf '%s' \"$1\" | jq -rc \"$2\"";
    Some(
        sh(script, &[OsStr::new(json), OsStr::new(expression)])
            .trim_end()
            .to_owned(),
    )
}

/// Adds 1 to the byte in the middle of a file, whose time stays.
fn damage(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = bytes[middle].wrapping_add(1);
    fs::write(path, bytes).unwrap();
    touch(path, modified);
}

fn touch(path: &Path, time: SystemTime) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

fn days_ago(days: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(days * DAY + 60)
}

fn stamp(time: SystemTime) -> String {
    DateTime::<Local>::from(time).format("%Y%m%d_%H%M%S").to_string()
}

#[test]
fn a_run_leaves_a_point_that_proves_its_files() {
    let sandbox = Sandbox::new("points").stack().n8n().build();
    sandbox.psql(
        "CREATE TABLE execution_entity (id serial, data text); CREATE SEQUENCE untouched START 7; \
         INSERT INTO execution_entity (data) SELECT md5(i::text) FROM generate_series(1, 500) AS i",
    );
    sandbox.redis(&["SET", "key", "value"]);
    sandbox.run("backup-all", &[]).assert_success();
    let set = manifest(&sandbox);
    assert!(sha256sum_agrees(&sandbox, &set));
    facts_are_true(&sandbox, &set);

    let point = name(&set).replace(".sha256", "");
    let list = offline(&sandbox, &["list"]);
    list.assert_success();
    let row = list.stdout.lines().nth(1).unwrap_or_default();
    assert!(row.starts_with(&point) && row.ends_with(" complete"), "{list}");
    assert!(list.log.is_empty(), "a list is no event");

    for args in [
        &["verify"][..],
        &["verify", &point],
        &["verify", &set.to_string_lossy()],
        &["verify", "--all"],
    ] {
        let outcome = offline(&sandbox, args);
        outcome.assert_success();
        outcome.assert_log_has("verify", "SUCCESS Verification completed: 4 file(s) are good");
        assert!(fact(&set, "verified").is_some());
        assert!(sha256sum_agrees(&sandbox, &set));
    }
    let list = offline(&sandbox, &["list"]);
    assert!(list.stdout.contains(" complete, verified 20"), "{list}");
    let json = offline(&sandbox, &["list", "--json"]).stdout;
    let expression = "[.points[0].stamp, .points[0].complete, .points[0].verified != null, .points[0].drill, \
                      (.points[0].files | map(.component + .state)), (.loose | length), .points[0].age_seconds < 900]";
    if let Some(said) = jq("list --json", &json, expression) {
        let expected = format!(
            r#"["{point}",true,true,null,["postgrespresent","redispresent","n8npresent","envpresent"],0,true]"#
        );
        assert_eq!(said, expected);
    }

    damage_is_found(&sandbox, &set);
    a_cut_manifest_is_no_point(&sandbox, &set);
    a_dump_that_is_not_the_recorded_one_is_refused(&sandbox);
    what_failed_and_what_shrank_is_told(&sandbox);
}

/// The comment lines of the manifest against the stack.
fn facts_are_true(sandbox: &Sandbox, set: &Path) {
    let there = |name: &str| fact(set, name).unwrap_or_else(|| panic!("no fact {name}"));
    assert_eq!(there("failed"), "none");
    assert!(there("tool").starts_with("n8n-backup "));
    for time in ["begun", "finished"] {
        assert!(DateTime::parse_from_rfc3339(&there(time)).is_ok(), "{time}");
    }
    for (kind, _, _) in KINDS {
        let bytes = fs::metadata(sandbox.backup(kind)).unwrap().len();
        assert_eq!(there(&format!("size.{kind}")), bytes.to_string());
    }
    let server = sandbox.psql("SHOW server_version");
    assert_eq!(there("postgres.version"), server.trim());
    assert!(!there("postgres.pg_dump").is_empty());
    let info = sandbox.redis(&["INFO", "server"]);
    assert!(info.contains(&format!("redis_version:{}", there("redis.version"))));
    for worker in ["n8n-main", "n8n-worker"] {
        let container = sandbox.container(worker);
        let image = sandbox.docker(&["inspect", "--format", "{{.Config.Image}} {{.Image}}", &container]);
        assert_eq!(there(&format!("n8n.image.{container}")), image.trim());
    }
    let rows = sandbox.psql("SELECT count(*) FROM public.execution_entity");
    assert_eq!(there("postgres.rows.public.execution_entity"), rows.trim());
    assert_eq!(rows.trim(), "500");
    assert_eq!(there("postgres.sequence.public.execution_entity_id_seq"), "500 used");
    assert_eq!(there("postgres.sequence.public.untouched"), "7 next");
    assert_eq!(there("redis.keys"), "1");
}

/// Each kind of damage is found, told with the file's name, and taken back once the file is well again.
fn damage_is_found(sandbox: &Sandbox, set: &Path) {
    let verify = || offline(sandbox, &["verify"]);
    for (kind, _, _) in KINDS {
        let file = sandbox.backup(kind);
        let whole = fs::read(&file).unwrap();
        let keep = |bytes: &[u8]| fs::write(&file, bytes).unwrap();

        damage(&file);
        let outcome = verify();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        let bad: Vec<String> = outcome
            .errors()
            .into_iter()
            .filter(|line| line.starts_with("Bad: "))
            .collect();
        assert_eq!(bad.len(), 1, "{outcome}");
        assert!(bad[0].contains(&name(&file)) && bad[0].contains("SHA-256"), "{outcome}");
        outcome.assert_log_has("verify", "ERROR Verification failed: 1 of 4 file(s) are bad");
        assert_eq!(fact(set, "damaged").as_deref(), Some(kind));
        assert_eq!(fact(set, "verified"), None);
        assert!(offline(sandbox, &["list"]).stdout.contains(" damaged "), "{kind}");
        let status = offline(sandbox, &["status"]);
        let told = format!("[CRITICAL] files: found damaged by verify: {kind}/{}\n", name(&file));
        assert!(status.code == Some(2) && status.stdout.contains(&told), "{status}");
        // The file alone, named by its path, is as bad.
        let alone = offline(sandbox, &["verify", &file.to_string_lossy()]);
        assert_eq!(alone.code, Some(1), "{alone}");

        keep(&whole[..whole.len() - 1]);
        assert_eq!(verify().code, Some(1));
        assert!(offline(sandbox, &["list"]).stdout.contains(" changed "), "{kind}");
        keep(&[]);
        assert_eq!(verify().code, Some(1));
        fs::remove_file(&file).unwrap();
        let outcome = verify();
        assert!(
            outcome.errors().iter().any(|line| line.contains("it is missing")),
            "{outcome}"
        );
        assert!(offline(sandbox, &["list"]).stdout.contains(" partial"), "{kind}");

        keep(&whole);
        offline(sandbox, &["verify", &file.to_string_lossy()]).assert_success();
        assert_eq!(
            (fact(set, "damaged"), fact(set, "verified")),
            (None, None),
            "one file is not the point"
        );
        verify().assert_success();
        assert!(fact(set, "verified").is_some() && sha256sum_agrees(sandbox, set));
    }
}

/// A manifest that ends at any line but its last proves nothing of the files that it no longer names, and costs none.
fn a_cut_manifest_is_no_point(sandbox: &Sandbox, set: &Path) {
    let whole = fs::read_to_string(set).unwrap();
    let point = name(set).replace(".sha256", "");
    let files: Vec<PathBuf> = KINDS.iter().map(|(kind, _, _)| sandbox.backup(kind)).collect();
    let ends: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at + 1).collect();
    assert!(ends.len() > 20, "{whole}");
    for end in &ends[..ends.len() - 1] {
        fs::write(set, &whole[..*end]).unwrap();
        let cut = &whole[..*end];
        let outcome = offline(sandbox, &["verify", &point]);
        assert_eq!(outcome.code, Some(1), "{outcome}\n{cut}");
        assert!(outcome.log.contains("it is cut off: it "), "{outcome}\n{cut}");
        let list = offline(sandbox, &["list"]);
        let told = format!("Cannot be read: {}", set.display());
        assert!(list.stdout.contains(&told), "{list}\n{cut}");
        let cleanup = offline(sandbox, &["cleanup-backups"]);
        cleanup.assert_success();
        cleanup.assert_log_has("cleanup-backups", "WARN Recovery point left out: {}");
        assert!(files.iter().all(|file| file.exists()), "{cleanup}\n{cut}");
        assert_eq!(fs::read_to_string(set).unwrap(), cut, "it is not marked");
    }
    fs::write(set, whole).unwrap();
    offline(sandbox, &["verify", &point]).assert_success();
}

/// Only the manifest can tell a whole dump from the one that was made.
fn a_dump_that_is_not_the_recorded_one_is_refused(sandbox: &Sandbox) {
    let file = sandbox.backup("postgres");
    let whole = fs::read(&file).unwrap();
    let before = sandbox.psql("SELECT oid FROM pg_database WHERE datname = current_database()");
    sh(
        "gunzip -c \"$1\" | sed 's/^-- Dumped by/-- dumped by/' | gzip > \"$1.new\" && mv \"$1.new\" \"$1\"",
        &[file.as_os_str()],
    );
    let outcome = sandbox.run("restore-postgres", &[&file.to_string_lossy()]);
    outcome.assert_error("Backup file is corrupted or not a valid gzip file");
    outcome.assert_log_has(
        "restore-postgres",
        "ERROR Cause: its SHA-256 is {}, but recovery point {} recorded {}",
    );
    outcome.assert_log_has("restore-postgres", "INFO Verifying backup file integrity...");
    let after = sandbox.psql("SELECT oid FROM pg_database WHERE datname = current_database()");
    assert_eq!(before, after);
    fs::write(&file, whole).unwrap();
    sandbox
        .run("restore-postgres", &[&file.to_string_lossy()])
        .assert_success();
}

/// A component that fails makes a partial point; a dump that lost most of its rows is warned about.
fn what_failed_and_what_shrank_is_told(sandbox: &Sandbox) {
    sandbox.docker(&["stop", "-t", "0", &sandbox.container("redis")]);
    sandbox.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has(
        "backup-all",
        "WARN The newest backup of postgres is much smaller than the one before it ({} after {}): see whether something is missing",
    );
    let newest = sandbox.backups("sets").pop().unwrap();
    sandbox.run("backup-n8n", &[]).assert_success();
    let list = offline(sandbox, &["list"]);
    let last = list.stdout.lines().last().unwrap_or_default();
    assert!(last.ends_with(" n8n only"), "{list}");
    fs::remove_file(sandbox.backups("sets").pop().unwrap()).unwrap();
    fs::remove_file(sandbox.backups("n8n").pop().unwrap()).unwrap();
    assert_eq!(fact(&newest, "failed").as_deref(), Some("redis"));
    assert!(sha256sum_agrees(sandbox, &newest));
    let list = offline(sandbox, &["list"]);
    let row = list.stdout.lines().last().unwrap_or_default();
    assert!(row.contains(" failed ") && row.ends_with(" partial"), "{list}");
    let outcome = offline(sandbox, &["verify"]);
    outcome.assert_success();
    outcome.assert_log_has("verify", "WARN Recovery point {} holds no redis: its backup failed");
    let json = offline(sandbox, &["list", "--json"]).stdout;
    if let Some(said) = jq("list --json", &json, "[.points[1].complete, .points[1].failed]") {
        assert_eq!(said, r#"[false,["redis"]]"#);
    }
}

/// A recovery point made by hand: files of these kinds and lengths, as old as their names say.
fn point(sandbox: &Sandbox, age: u64, kinds: &[(&str, usize)], facts: &[&str]) -> String {
    let time = days_ago(age);
    point_at(sandbox, &stamp(time), time, kinds, facts)
}

/// The same with a name and a time of its files.
fn point_at(sandbox: &Sandbox, stamp: &str, time: SystemTime, kinds: &[(&str, usize)], facts: &[&str]) -> String {
    let mut text = format!("# n8n-backup recovery point {stamp}\n# failed: none\n");
    let mut lines = String::new();
    for (kind, prefix, suffix) in KINDS {
        let Some((_, length)) = kinds.iter().find(|(wanted, _)| *wanted == kind) else {
            continue;
        };
        let file = format!("{kind}/{prefix}{stamp}{suffix}");
        let path = sandbox.path("backups").join(&file);
        fs::write(&path, vec![b'x'; *length]).unwrap();
        touch(&path, time);
        let sum = sh("sha256sum <\"$1\" | cut -c -64", &[path.as_os_str()]);
        lines.push_str(&format!("{}  {file}\n", sum.trim()));
        text.push_str(&format!("# size.{kind}: {length}\n"));
    }
    for fact in facts {
        text.push_str(&format!("# {fact}\n"));
    }
    fs::create_dir_all(sandbox.path("backups/sets")).unwrap();
    sandbox.write(&format!("backups/sets/{stamp}.sha256"), text + &lines);
    stamp.to_owned()
}

fn whole(length: usize) -> [(&'static str, usize); 4] {
    KINDS.map(|(kind, _, _)| (kind, length))
}

/// The stamps of the points that are left.
fn points(sandbox: &Sandbox) -> Vec<String> {
    let sets = sandbox.backups("sets");
    sets.iter().map(|path| name(path).replace(".sha256", "")).collect()
}

/// A file without a recovery point, with the age of its name and that of its contents apart.
fn loose(sandbox: &Sandbox, kind: &str, named: u64, written: u64, contents: &[u8]) -> PathBuf {
    let (_, prefix, suffix) = KINDS.into_iter().find(|(known, _, _)| *known == kind).unwrap();
    let path = sandbox.write(
        &format!("backups/{kind}/{prefix}{}{suffix}", stamp(days_ago(named))),
        contents,
    );
    touch(&path, days_ago(written));
    path
}

#[test]
fn a_manifest_leads_nowhere_but_to_backups() {
    let sandbox = Sandbox::new("evil").build();
    fs::create_dir(sandbox.path("postgres")).unwrap();
    let precious = sandbox.write("postgres/n8n.sql.gz", "precious");
    touch(&precious, days_ago(90));
    let stamp = stamp(days_ago(80));
    let sum = "0".repeat(64);
    point(&sandbox, 1, &whole(10), &[]);
    for evil in [
        "../postgres/n8n.sql.gz",
        &precious.to_string_lossy(),
        "postgres/../../postgres/n8n.sql.gz",
    ] {
        sandbox.write(
            &format!("backups/sets/{stamp}.sha256"),
            format!("# n8n-backup recovery point {stamp}\n{sum}  {evil}\n"),
        );
        let outcome = sandbox.run("cleanup-backups", &[]);
        outcome.assert_success();
        outcome.assert_log_has("cleanup-backups", "WARN Recovery point left out: {}no backup file: {}");
        assert!(precious.exists());
        let outcome = offline(&sandbox, &["verify", &stamp]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        let list = offline(&sandbox, &["list"]);
        list.assert_success();
        assert!(list.stdout.contains("Cannot be read: "), "{list}");
    }
}

#[test]
fn verify_says_what_it_cannot_do() {
    let sandbox = Sandbox::new("verify").build();
    for (args, error) in [
        (
            &["verify"][..],
            "There is no recovery point yet: name a file, or take --all",
        ),
        (
            &["verify", "20260102_030405"],
            "There is no recovery point 20260102_030405",
        ),
        (&["verify", "/nowhere/x.rdb"], "Backup file not found: /nowhere/x.rdb"),
        (
            &["verify", "/etc/hostname"],
            "/etc/hostname has no name of a backup file (.sql.gz, .rdb, ...)",
        ),
        (
            &["verify", "--all", "latest"],
            "--all takes neither a file nor a recovery point",
        ),
    ] {
        offline(&sandbox, args).assert_error(error);
    }
    offline(&sandbox, &["verify", "--all"]).assert_success();
    let list = offline(&sandbox, &["list"]);
    assert_eq!(list.stdout, "There is no recovery point yet.\n");
    // A file that belongs to no point is proven by its form alone.
    let file = loose(&sandbox, "redis", 1, 1, b"REDIS0011\xff");
    let outcome = offline(&sandbox, &["verify", "--all"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.log.contains(&format!("Bad: {}: ", file.display())), "{outcome}");
    let list = offline(&sandbox, &["list"]);
    assert!(list.stdout.contains("redis  1 file(s)  10  newest "), "{list}");
    let list = offline(&sandbox, &["list", "--all"]);
    let relative = file.strip_prefix(sandbox.path("backups")).unwrap();
    assert!(list.stdout.contains(&format!("{}  10 ", relative.display())), "{list}");
    let mut tool = Command::new("python3");
    tool.args(["-m", "json.tool", "--json-lines"]);
    let json = sandbox.write("list.json", offline(&sandbox, &["list", "--json"]).stdout);
    tool.arg(json);
    if has_program("python3") {
        assert!(done(tool).contains("\"loose\""));
    } else {
        skip("list --json", "no python3");
    }
}
