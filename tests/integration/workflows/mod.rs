//! Workflows out of a dump: listed, exported, compared, and put back into a live database. The dump is one of a real n8n 2.40.7.

mod live;

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::common::{mode, repository, sh, Outcome, Sandbox};

const HOOK: &str = "i4YonIkhBdusvbhG";
const INVOICES: &str = "y2CJSrlVXagfDxv8";
const USES: &str = "MFqBLQ4Zvaa8GZ2a";

fn dump() -> PathBuf {
    repository().join("tests/data/n8n-2.40.7.sql.gz")
}

/// The dump with a change, made by sed.
fn changed(sandbox: &Sandbox, name: &str, script: &str) -> PathBuf {
    let file = sandbox.aside(name);
    let args = [
        dump().as_os_str().to_owned(),
        script.into(),
        file.as_os_str().to_owned(),
    ];
    sh(
        "gunzip -c -- \"$1\" | sed -E \"$2\" | gzip >\"$3\"",
        &args.each_ref().map(AsRef::as_ref),
    );
    file
}

fn workflows(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox.binary().args(args).run()
}

/// Fails unless the exit code is 1 and an ERROR line says `text`. What only tells has no log.
#[track_caller]
fn fails(outcome: &Outcome, text: &str) {
    let told = outcome
        .stdout
        .lines()
        .any(|line| line.starts_with("[ERROR]") && line.contains(text));
    assert!(outcome.code == Some(1) && told, "'{text}' expected: {outcome}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_dump_tells_its_workflows_without_docker() {
    let sandbox = Sandbox::new("wf-list").build();
    let file = dump();
    let listed = workflows(&sandbox, &["workflows", path(&file)]);
    listed.assert_success();
    let ids: Vec<&str> = listed
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(ids, ["ID", HOOK, INVOICES, USES], "{listed}");
    let found = workflows(&sandbox, &["workflows", path(&file), "--find", "httprequest", "--json"]);
    assert!(
        found
            .stdout
            .starts_with(&format!("[{{\"id\": \"{USES}\", \"name\": \"Uses credential\"")),
        "{found}"
    );
    assert_eq!(found.stdout.matches("\"id\"").count(), 1, "{found}");
    let credentials = workflows(&sandbox, &["credentials", path(&file)]);
    assert!(
        credentials
            .stdout
            .contains("Old header  O W <owner@example.com>  not tried  Uses credential\n"),
        "{credentials}"
    );
    credentials.assert_never_says("U2FsdGVkX1");

    fails(
        &workflows(&sandbox, &["workflows", "exprot"]),
        "Backup file not found: exprot, did you mean export?",
    );
    fails(
        &workflows(&sandbox, &["workflows"]),
        "There is no recovery point with a dump",
    );
    fails(
        &workflows(&sandbox, &["workflows", "20200101_000000"]),
        "There is no recovery point 20200101_000000",
    );
    // A point of which only the environment file is there.
    let (sets, env) = (sandbox.path("backups/sets"), sandbox.path("backups/env"));
    fs::create_dir_all(&sets).unwrap();
    fs::create_dir_all(&env).unwrap();
    fs::write(env.join("env_20260101_000000.backup"), "A=1\n").unwrap();
    let sum = sh("cd \"$1\" && sha256sum env/*", &[sandbox.path("backups").as_os_str()]);
    let head =
        "# n8n-backup recovery point 20260101_000000\n# tool: n8n-backup 0.1.0\n# begun: 2026-01-01T00:00:00+00:00\n\
                # failed: postgres\n";
    fs::write(sets.join("20260101_000000.sha256"), format!("{head}{sum}")).unwrap();
    for command in ["workflows", "credentials"] {
        fails(
            &workflows(&sandbox, &[command, "20260101_000000"]),
            "Recovery point 20260101_000000 holds no dump of the database",
        );
        fails(
            &workflows(&sandbox, &[command]),
            "There is no recovery point with a dump",
        );
    }
    let to = sandbox.aside("none");
    fails(
        &workflows(&sandbox, &["workflows", "export", "20260101_000000", "--to", path(&to)]),
        "holds no dump of the database",
    );
    assert!(!to.exists());
    // Names are not to do anything to a terminal.
    let odd = changed(
        &sandbox,
        "odd.sql.gz",
        "s/^Invoices\\t/a\\x1b[31m\\\\n\\\\tb\u{202e}c\\t/",
    );
    let listed = workflows(&sandbox, &["workflows", path(&odd)]);
    assert!(listed.stdout.contains("a\\u{1b}[31m\\n\\tb\\u{202e}c"), "{listed}");
    // The key is in a recovery point.
    assert!(
        credentials.stdout.contains("  not tried  ") && credentials.stdout.contains("The key was not tried: the file"),
        "{credentials}"
    );
    let credentials = workflows(&sandbox, &["credentials", path(&file), "--json"]);
    assert_eq!(
        credentials.stdout.matches("\"opens\": null").count(),
        4,
        "{credentials}"
    );
}

#[test]
fn an_export_is_whole_or_not_there() {
    let sandbox = Sandbox::new("wf-export").build();
    let to = sandbox.aside("out");
    let export = |file: &Path, more: &[&str]| {
        let args = [&["workflows", "export", path(file), "--to", path(&to)], more].concat();
        workflows(&sandbox, &args)
    };
    export(&dump(), &["--history"]).assert_success();
    let files = [
        format!("Hook-{HOOK}.json"),
        format!("Invoices-{INVOICES}.json"),
        format!("Uses_credential-{USES}.json"),
    ];
    assert_eq!(names(&to.join("history")), files);
    assert_eq!(names(&to)[..3], files);
    assert_eq!(mode(&to.join(&files[0])), 0o600);
    fails(&export(&dump(), &[]), " holds files");
    export(&dump(), &["--force"]).assert_success();
    fs::remove_dir_all(&to).unwrap();

    // Bad input leaves nothing.
    let gone = || assert!(!to.exists());
    fails(&export(&dump(), &["zzz"]), "There is no workflow zzz");
    gone();
    fails(
        &export(&dump(), &["invoice"]),
        &format!("There is no workflow invoice, did you mean {INVOICES} (Invoices)?"),
    );
    gone();
    fails(
        &export(&changed(&sandbox, "cut.sql.gz", "/dump complete/d"), &[]),
        "the dump is cut off",
    );
    gone();
    let inserts = changed(&sandbox, "none.sql.gz", "s/workflow_entity/other_entity/");
    fails(&export(&inserts, &[]), "not a database of n8n");
    gone();
    fs::write(&to, "file").unwrap();
    fails(&export(&dump(), &[]), " is no directory");
    fs::remove_file(&to).unwrap();
    symlink("elsewhere", &to).unwrap();
    fails(&export(&dump(), &[]), " is no directory");
    fs::remove_file(&to).unwrap();

    // n8n takes the nodes of the current version, which may be others than the workflow's own.
    let version = changed(
        &sandbox,
        "version.sql.gz",
        "s/^(7e7bcbd6-58bb-4a5a-98ef-542a78c34f72\\ty2C.*)\\t\\[\\]\\t\\{\\}\\t\\\\N/\\1\\t[{\"name\":\"Z\"}]\\t{\"Z\":{}}\\tv2/",
    );
    export(&version, &[]).assert_success();
    let text = fs::read_to_string(to.join(format!("Invoices-{INVOICES}.json"))).unwrap();
    assert!(
        text.contains(
            "  \"nodes\": [\n    {\n      \"name\": \"Z\"\n    }\n  ],\n  \"connections\": {\n    \"Z\": {}\n  },\n"
        ),
        "{text}"
    );
    assert!(text.contains("\"versionMetadata\": {\n    \"name\": \"v2\""), "{text}");
    fs::remove_dir_all(&to).unwrap();

    // IDs and names that are the same where case is not told apart, text that no Rust string holds, and what a killed run left.
    let left = to.with_file_name(".out.n8n-backup.partial");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("old.json"), "{").unwrap();
    let odd = changed(
        &sandbox,
        "case.sql.gz",
        "s/^Uses credential\\t/HOOK\\t/; s/MFqBLQ4Zvaa8GZ2a/I4YONIKHBDUSVBHG/; s/\"name\":\"answer\"/\"name\":\"\\\\\\\\ud83d \\\\\\\\u0000\"/",
    );
    export(&odd, &[]).assert_success();
    assert_eq!(
        names(&to),
        [
            "HOOK-I4YONIKHBDUSVBHG.json".to_owned(),
            format!("Hook-{HOOK}_2.json"),
            format!("Invoices-{INVOICES}.json")
        ]
    );
    let text = fs::read_to_string(to.join(format!("Hook-{HOOK}_2.json"))).unwrap();
    assert!(text.contains("\"name\": \"\\ud83d \\u0000\""), "{text}");
    assert!(!left.exists());
    fs::remove_dir_all(&to).unwrap();

    // What cannot be read is named, and the others are there; names of files are safe, and one alone comes by its ID.
    let bad = changed(
        &sandbox,
        "bad.sql.gz",
        "s/^Hook\\tt\\t\\[/Hook\\tt\\t{/; s/^Invoices\\t/..\\/..\\/etc\\/passwd\\t/; s/^Uses credential\\t/-rf\\t/",
    );
    fails(
        &export(&bad, &[]),
        &format!("Cannot be read: Hook ({HOOK}): column nodes: "),
    );
    assert_eq!(
        names(&to),
        [format!("etc_passwd-{INVOICES}.json"), format!("rf-{USES}.json")]
    );
    fs::remove_dir_all(&to).unwrap();
    export(&dump(), &[INVOICES]).assert_success();
    assert_eq!(names(&to), [format!("Invoices-{INVOICES}.json")]);
    fs::set_permissions(&to, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn what_differs_is_told() {
    let sandbox = Sandbox::new("wf-diff").build();
    let diff = |old: &Path, new: &Path, more: &[&str]| {
        workflows(&sandbox, &[&["workflows", "diff", path(old), path(new)], more].concat())
    };
    let same = diff(&dump(), &dump(), &[]);
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""));
    let other = changed(
        &sandbox,
        "other.sql.gz",
        "s/^Invoices\\t.*y2CJSrlVXagfDxv8.*/New\\tf\\t[]\\t{}\\t2026-11-28 03:07:38+00\\t2026-11-28 03:07:38+00\\t{}\\t\\\\N\\t\\\\N\\tv\\t0\\tnew1\\t\\\\N\\t\\\\N\\tf\\t1\\t\\\\N\\t\\\\N\\t[]\\t\\\\N/
         s/^Hook\\tt\\t/Hook 2\\tf\\t/; /^Uses credential/s#http://localhost/#http://example.com/#",
    );
    let told = diff(&dump(), &other, &[]);
    let wanted = format!(
        "changed: Uses credential ({USES})\n  node HTTP: parameters.url: \"http://localhost/\" -> \"http://example.com/\"\n\
         renamed, deactivated: Hook 2 ({HOOK}), was Hook\nremoved: Invoices ({INVOICES})\nadded: New (new1)\n"
    );
    assert_eq!((told.code, told.stdout.as_str()), (Some(1), wanted.as_str()), "{told}");
    let json = diff(&dump(), &other, &["--json"]);
    assert!(
        json.stdout
            .contains("\"what\": [\"changed\"], \"changes\": [{\"node\": \"HTTP\", \"path\": \"parameters.url\""),
        "{json}"
    );
    let wrong = diff(&dump(), &sandbox.aside("none.sql.gz"), &[]);
    assert_eq!(wrong.code, Some(2), "{wrong}");
}

#[test]
fn an_encrypted_dump_needs_its_passphrase() {
    let sandbox = Sandbox::new("wf-gpg").build();
    let file = sandbox.aside("n8n.sql.gz.gpg");
    sh(
        "GNUPGHOME=$(mktemp -d); export GNUPGHOME; \
         gpg --batch --quiet --pinentry-mode loopback --passphrase 'a good passphrase' -c -o \"$2\" -- \"$1\"; rm -rf \"$GNUPGHOME\"",
        &[dump().as_os_str(), file.as_os_str()],
    );
    fails(
        &workflows(&sandbox, &["workflows", path(&file)]),
        "Cannot read the workflows of ",
    );
    sandbox.set("BACKUP_GPG_PASSPHRASE", "a good passphrase");
    let listed = workflows(&sandbox, &["workflows", path(&file)]);
    assert!(listed.code == Some(0) && listed.stdout.contains(HOOK), "{listed}");
}
