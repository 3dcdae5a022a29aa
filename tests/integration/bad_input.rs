//! Bad input: one clear ERROR line, exit code 1, nothing changed.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::common::{pipe_without_reader, Call, Outcome, Sandbox};

/// Every script.
const SCRIPTS: [&str; 6] = [
    "backup-all",
    "backup-postgres",
    "backup-redis",
    "backup-n8n",
    "cleanup-backups",
    "restore-postgres",
];

/// Fails unless there is one ERROR line in standard output and the log alike, with `text`.
#[track_caller]
fn assert_refused(outcome: &Outcome, text: &str) {
    let errors: Vec<&str> = outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with("[ERROR] "))
        .collect();
    assert_eq!(
        (outcome.code, errors.len(), outcome.stdout.lines().count()),
        (Some(1), 1, 1),
        "{outcome}"
    );
    assert!(errors[0].contains(text), "'{text}' expected: {outcome}");
    outcome.assert_logged_as_printed();
}

#[test]
fn unknown_options_and_arguments_are_refused_with_usage() {
    let sandbox = Sandbox::new("options").build();
    let before = sandbox.listing();
    for script in SCRIPTS {
        for option in ["--no-such-option", "-Z", "--", "--help=no"] {
            if option == "--" && script != "restore-postgres" {
                continue;
            }
            let outcome = sandbox.run(script, &[option]);
            assert_refused(&outcome, if option == "--" { "FILE is missing" } else { "option" });
            assert!(
                outcome.stderr.starts_with(&format!("Usage: n8n-backup {script}")),
                "{outcome}"
            );
        }
    }
    assert_refused(&sandbox.run("backup-all", &["now"]), "unexpected argument: now");
    for args in [&[][..], &["a.sql.gz", "b.sql.gz"]] {
        let outcome = sandbox.run("restore-postgres", args);
        assert_refused(&outcome, "FILE");
        assert!(
            outcome.stderr.starts_with("Usage: n8n-backup restore-postgres"),
            "{outcome}"
        );
    }
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn an_unknown_command_is_refused_with_the_list_of_commands() {
    let sandbox = Sandbox::new("word").build();
    let before = sandbox.listing();
    for args in [
        &["backup-everything"][..],
        &["--project-dir"],
        &[],
        &["--frobnicate", "backup-all"],
    ] {
        let outcome = sandbox.binary().args(args).cwd(sandbox.dir()).run();
        let errors = outcome
            .stdout
            .lines()
            .filter(|line| line.starts_with("[ERROR] "))
            .count();
        assert_eq!((outcome.code, errors), (Some(1), 1), "{outcome}");
        assert!(outcome.stderr.contains("Usage: n8n-backup"), "{outcome}");
    }
    let outcome = sandbox
        .binary()
        .args(&["--project-dir", "/no/such/directory", "backup-all"])
        .run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(
        outcome
            .stdout
            .contains("No n8n project directory at /no/such/directory"),
        "{outcome}"
    );
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn an_env_file_that_cannot_be_read_is_named_with_its_line() {
    let sandbox = Sandbox::new("dotenv").build();
    let secret = "hunter2-is-secret";
    for (text, line) in [
        (format!("A=1\nPOSTGRES_PASSWORD=\"{secret}\nB=2\n"), 2),
        (format!("A=1\n\n'{secret}'\n"), 3),
        (format!("A=1\nPASSWORD=${{{secret}\n"), 2),
        (format!("A='{secret}' more\n"), 1),
    ] {
        sandbox.write(".env", &text);
        let before = sandbox.listing();
        for script in SCRIPTS {
            let args: &[&str] = if script == "restore-postgres" {
                &["x.sql.gz"]
            } else {
                &[]
            };
            let outcome = sandbox.run(script, args);
            assert_refused(&outcome, &format!("/my n8n/.env, line {line}: "));
            outcome.assert_never_says(secret);
        }
        assert_eq!(sandbox.listing(), before);
    }
    for (bytes, line) in [
        (&b"# gr\xfcn\n\nREDIS_PASSWORD=gr\xfcn\n"[..], 3),
        (b"A=gr\xfcn\nPOSTGRES_DB=${A}\n", 2),
        (b"A=1\nB=\0\n", 2),
        (b"\xff\xfeA\0=\0", 1),
    ] {
        sandbox.write(".env", bytes);
        let outcome = sandbox.run("backup-all", &[]);
        assert_refused(&outcome, &format!("/my n8n/.env, line {line}: "));
    }
    fs::remove_file(sandbox.path(".env")).unwrap();
    fs::create_dir(sandbox.path(".env")).unwrap();
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_error("Cannot read {}/my n8n/.env");
}

#[test]
fn settings_that_cannot_be_are_named() {
    let sandbox = Sandbox::new("settings").build();
    for (name, value) in [
        ("REDIS_PORT", "6379x"),
        ("BACKUP_N8N_VOLUME", "/etc"),
        ("BACKUP_POSTGRES_CONTAINER", "--privileged"),
        ("BACKUP_STALL_SECONDS", "0"),
        ("BACKUP_HELPER_IMAGE", "-v"),
    ] {
        let whole = fs::read_to_string(sandbox.path(".env")).unwrap();
        sandbox.set(name, value);
        let before = sandbox.listing();
        let outcome = sandbox.run("backup-all", &[]);
        assert_eq!((outcome.code, outcome.errors().len()), (Some(1), 1), "{outcome}");
        assert!(
            outcome.stdout.contains(name) && outcome.stdout.contains(value),
            "{outcome}"
        );
        assert_eq!(sandbox.listing(), before);
        sandbox.write(".env", whole);
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_before_anything_is_done() {
    let sandbox = Sandbox::new("log").build();
    let log = sandbox.path("logs/backup.log");
    fs::create_dir(&log).unwrap();
    let before = sandbox.listing();
    let refused = |what: &str| {
        for script in SCRIPTS {
            let args: &[&str] = if script == "restore-postgres" {
                &["x.sql.gz"]
            } else {
                &[]
            };
            let outcome = sandbox.run(script, args);
            // Where standard output is the log, standard error is what remains.
            let said = [&outcome.stdout, &outcome.stderr].map(|text| -> Vec<&str> {
                let errors = text.lines().filter(|line| line.starts_with("[ERROR] "));
                let further = |line: &&str| line.contains("] Cause: ") || line.contains("] Hint: ");
                errors.filter(|line| !further(line)).collect()
            });
            assert!(
                outcome.code == Some(1) && !said.concat().is_empty(),
                "{what}: {outcome}"
            );
            for errors in said {
                assert!(errors.len() <= 1, "{what}: {outcome}");
                assert!(
                    errors.iter().all(|line| line.contains("logs/backup.log")),
                    "{what}: {outcome}"
                );
            }
        }
        assert_eq!(sandbox.listing(), before, "{what}");
    };
    refused("a directory");
    fs::remove_dir(&log).unwrap();
    // A disk that is full.
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    refused("full");
    fs::remove_file(&log).unwrap();
    fs::remove_file(sandbox.path("logs/.gitkeep")).unwrap();
    fs::remove_dir(sandbox.path("logs")).unwrap();
    fs::write(sandbox.path("logs"), "in the way").unwrap();
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert_eq!(fs::read_to_string(sandbox.path("logs")).unwrap(), "in the way");
}

#[test]
fn a_standard_output_that_cannot_be_written_stops_before_anything_is_done() {
    let sandbox = Sandbox::new("stdout").build();
    let before = sandbox.listing();
    for what in ["closed", "full", "without a reader"] {
        for name in ["backup-all", "cleanup-backups", "restore-postgres"] {
            let args: &[&str] = if name == "restore-postgres" { &["x.sql.gz"] } else { &[] };
            let call = sandbox.call(name).args(args);
            let call = match what {
                "closed" => call.under(&["bash", "-c", r#"exec "$@" >&-"#, "bash"]),
                "full" => call.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap()),
                _ => call.stdout(pipe_without_reader()),
            };
            let outcome = call.run();
            let errors = outcome.stderr.lines().filter(|line| line.starts_with("[ERROR] "));
            assert_eq!((outcome.code, errors.count()), (Some(1), 1), "{what}: {outcome}");
            assert!(!outcome.stderr.contains("panicked"), "{what}: {outcome}");
            assert_eq!(sandbox.listing(), before, "{what}: {outcome}");
        }
    }
}

#[test]
fn files_that_are_no_backups_are_not_restored() {
    let sandbox = Sandbox::new("nofile").build();
    let file = |name: &str| -> PathBuf { sandbox.aside(name) };
    fs::create_dir(file("directory.sql.gz")).unwrap();
    fs::write(file("dump.sql"), "SELECT 1;").unwrap();
    fs::write(file("dump.rdb"), "REDIS0011").unwrap();
    fs::write(file("empty.sql.gz"), "").unwrap();
    fs::write(file("plain.sql.gz"), "SELECT 1;").unwrap();
    std::os::unix::fs::symlink("nowhere.sql.gz", file("dangling.sql.gz")).unwrap();
    let before = sandbox.listing();
    for (name, message) in [
        ("no such.sql.gz", "Backup file not found: {}/no such.sql.gz"),
        ("no such", "Backup file not found: {}/no such"),
        ("two\nlines.sql.gz", "Backup file not found: {}/two\\nlines.sql.gz"),
        ("dangling.sql.gz", "Backup file not found: {}/dangling.sql.gz"),
        ("", "Backup file must be a .sql.gz file"),
        ("directory.sql.gz", "Backup file must be a .sql.gz file"),
        ("dump.sql", "Backup file must be a .sql.gz file"),
        ("dump.rdb", "Backup file must be a .sql.gz file"),
        ("empty.sql.gz", "Backup file is corrupted or not a valid gzip file"),
        ("plain.sql.gz", "Backup file is corrupted or not a valid gzip file"),
    ] {
        let outcome = sandbox.call("restore-postgres").arg(file(name)).run();
        outcome.assert_error(message).assert_logged_as_printed();
        outcome.assert_log_has("restore-postgres", "INFO Starting PostgreSQL restore from: {}");
        assert_eq!(sandbox.listing(), before, "{name}");
    }
    sandbox
        .run("restore-postgres", &[""])
        .assert_error("Backup file not found: ");
}

#[test]
fn without_an_env_file_the_database_is_not_touched() {
    let sandbox = Sandbox::new("noenv").no_env_file().build();
    let before = sandbox.listing();
    let outcome = sandbox.call("backup-postgres").envs(&sandbox.settings()).run();
    outcome.assert_error(".env file not found");
    let file = sandbox.aside("x.sql.gz");
    fs::write(&file, "x").unwrap();
    let outcome = sandbox
        .call("restore-postgres")
        .arg(&file)
        .envs(&sandbox.settings())
        .run();
    outcome.assert_error(".env file not found");
    assert_eq!(sandbox.listing(), before);
}

/// What nobody writes on purpose, and a broken clock, file system or hand may: an error at most, never a fault of our own.
#[test]
fn no_time_size_or_name_is_an_internal_error() {
    let sandbox = Sandbox::new("extreme").build();
    // A file system in memory takes any time and any size.
    let memory = PathBuf::from(format!("/dev/shm/{}", sandbox.prefix()));
    fs::create_dir(&memory).unwrap();
    let _removed = Removed(memory.clone());
    for kind in ["postgres", "redis", "n8n", "env"] {
        let dir = sandbox.path(format!("backups/{kind}"));
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(memory.join(kind)).unwrap();
        std::os::unix::fs::symlink(memory.join(kind), &dir).unwrap();
    }
    let names = [
        "postgres/n8n_{}.sql.gz",
        "redis/dump_{}.rdb",
        "n8n/n8n_data_{}.tar.gz",
        "env/env_{}.backup",
    ];
    let huge = u64::MAX.to_string();
    let longest = i64::MAX.to_string();
    for (stamp, mtime, begun, size) in [
        (
            "00000101_000000",
            "-9223372036854775808",
            "0000-01-01T00:00:00+14:00",
            &longest,
        ),
        ("00010101_000000", "-62135596800", "0001-01-01T00:00:00-14:00", &longest),
        ("19700101_000000", "0", "1970-01-01T00:00:00Z", &huge),
        ("20250101_000000", "1735689600", "2025-01-01T00:00:00Z", &longest),
        (
            "99991231_235959",
            "9223372036854775807",
            "9999-12-31T23:59:59-14:00",
            &longest,
        ),
    ] {
        let mut manifest = format!(
            "# n8n-backup recovery point {stamp}\n# begun: {begun}\n# postgres.bytes: {huge}\n# postgres.rows: {huge}\n\
             # verified: {begun}\n# drill: \n# failed: none\n"
        );
        let mut members = String::new();
        for name in names {
            let name = name.replace("{}", stamp);
            let script = "truncate -s 9223372036854775807 -- \"$1\" && touch -d \"@$2\" -- \"$1\"";
            crate::common::sh(
                script,
                &[sandbox.path("backups").join(&name).as_os_str(), mtime.as_ref()],
            );
            let (kind, _) = name.split_once('/').unwrap();
            manifest += &format!("# size.{kind}: {size}\n");
            members += &format!("{}  {name}\n", "0".repeat(64));
        }
        sandbox.write(&format!("backups/sets/{stamp}.sha256"), manifest + &members);
        // The same without a point, under names that are no text.
        for name in [
            &b"n8n_20200101_000000.sql.gz"[..],
            b"n8n_\xff\xfe.sql.gz",
            b"\xc3\xa4.sql.gz",
            b" .sql.gz",
        ] {
            let name = [stamp.as_bytes(), name].concat();
            let path = memory.join("postgres").join(OsStr::from_bytes(&name));
            let script = "truncate -s 9223372036854775807 -- \"$1\" && touch -d \"@$2\" -- \"$1\"";
            crate::common::sh(script, &[path.as_os_str(), mtime.as_ref()]);
        }
    }
    for (days, count) in [("0", "0"), ("36500", "100000")] {
        for (name, value) in [
            ("BACKUP_RETENTION_DAYS", days),
            ("BACKUP_OFFSITE_KEEP_DAYS", days),
            ("BACKUP_KEEP_LAST", count),
            ("BACKUP_KEEP_DAILY", count),
            ("BACKUP_KEEP_WEEKLY", count),
            ("BACKUP_KEEP_MONTHLY", count),
            ("BACKUP_KEEP_YEARLY", count),
            ("BACKUP_MIN_FREE_KB", "18014398509481983"),
            ("BACKUP_STALL_SECONDS", "604800"),
        ] {
            sandbox.set(name, value);
        }
        for zone in [
            "UTC",
            "Pacific/Kiritimati",
            "America/St_Johns",
            "Nowhere/At_All",
            ":/etc/passwd",
        ] {
            for command in [
                &["list"][..],
                &["list", "--all"],
                &["list", "--json"],
                &["status"],
                &["status", "--json", "--max-age", "4294967295d"],
                &["cleanup-backups", "--dry-run"],
            ] {
                assert_no_internal_error(sandbox.binary().args(command).env("TZ", zone));
            }
        }
        for command in ["doctor", "backup-all", "cleanup-backups"] {
            let nowhere = ("DOCKER_HOST", "unix:///nonexistent");
            assert_no_internal_error(sandbox.binary().arg(command).env(nowhere.0, nowhere.1));
        }
    }
    // What cannot be, as an argument of every command and of none.
    for bytes in [
        &b""[..],
        b"\xff",
        b"-",
        b"-\xff",
        b"--\xff=\xff",
        b"--\xff\xff\xff=",
        b"--=",
        b"-\xc3\xa4",
        b"--json=\xff",
    ] {
        let odd = OsStr::from_bytes(bytes);
        assert_no_internal_error(sandbox.binary().arg(odd));
        for command in [
            "list",
            "status",
            "verify",
            "restore-all",
            "restore-env",
            "help",
            "completions",
        ] {
            assert_no_internal_error(sandbox.binary().arg(command).arg(odd));
        }
    }
}

/// Whatever it says, it is not that the program itself is at fault.
#[track_caller]
fn assert_no_internal_error(call: Call<'_>) {
    let outcome = call.run();
    let told = [&outcome.stdout, &outcome.stderr, &outcome.log]
        .map(String::as_str)
        .concat();
    assert!(
        outcome.code.is_some_and(|code| code < 100) && !told.contains("nternal error") && !told.contains("panicked"),
        "{outcome}"
    );
}

/// Removes a directory when this is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
