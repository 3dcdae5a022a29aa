//! A night with all that can be switched on, and the loss of the host after it. What is done on the new one are the commands
//! of the documentation, word for word.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::page::{blocks, compose, shell};
use crate::common::servers::{files, next, serve, Rclone};
use crate::common::{assert_same, has_program, mode, output, skip, Outcome, Sandbox};

const PASSPHRASE: &str = "correct horse battery staple";
/// A line of `.env` and a value in the database that must not be found on any disk but in `.env`.
const MARKER: &str = "PLAINTEXT_MARKER_OF_THE_TEST";
const POSTGRES_PASSWORD: &str = "it's $5 #1 \"pass\\word\"";

/// Fails when a file of the sandbox, the server's and temporary ones with it, is or holds what was to be encrypted.
#[track_caller]
fn assert_no_plaintext(sandbox: &Sandbox) {
    let root = sandbox.aside("");
    for name in files(&root).iter().filter(|name| !name.starts_with("checkout/")) {
        let mut start = [0; 6];
        // It may have been published or removed since.
        let read = fs::File::open(root.join(name)).and_then(|mut file| file.read_exact(&mut start));
        let plain = start.starts_with(b"\x1f\x8b") || start.starts_with(b"REDIS0");
        assert!(read.is_err() || !plain, "{name} is not encrypted");
    }
    // From a file: another test looks for its passphrase in what processes show.
    let patterns = sandbox.aside("checkout/patterns");
    fs::write(&patterns, format!("{MARKER}\n{PASSPHRASE}\nPostgreSQL database dump\n")).unwrap();
    let mut grep = Command::new("grep");
    grep.args([
        "-rlaFs",
        "--exclude=.env",
        "--exclude-dir=checkout",
        "--exclude-dir=bin",
        "-f",
    ])
    .arg(&patterns)
    .arg(&root);
    let found = output(grep).stdout;
    assert!(found.is_empty(), "plaintext in {}", String::from_utf8_lossy(&found));
}

/// The home directory of a user with rclone's configuration in its own place.
fn home(sandbox: &Sandbox, name: &str, server: &Rclone) -> PathBuf {
    let home = sandbox.aside(name);
    fs::create_dir_all(home.join(".config/rclone")).unwrap();
    let config = format!("[n8n-backup]\n{}", server.section());
    fs::write(home.join(".config/rclone/rclone.conf"), config).unwrap();
    home
}

/// The crontab's command line, with the environment that cron gives.
fn night(sandbox: &Sandbox, project: &Path, home: &Path) -> Outcome {
    let line = "exec \"$1/scripts/backup-all.sh\" >> \"$1/logs/backup.log\" 2>&1";
    let mut run = sandbox
        .call("")
        .under(&[
            "/bin/sh".as_ref(),
            "-c".as_ref(),
            line.as_ref(),
            "sh".as_ref(),
            project.as_os_str(),
        ])
        .env("HOME", home)
        .env("LOGNAME", "me")
        .env("SHELL", "/bin/sh")
        .env("TMPDIR", sandbox.aside("tmp"))
        .spawn();
    run.await_that("the run to be over", |_| {
        assert_no_plaintext(sandbox);
        sleep(Duration::from_millis(150));
        fs::read_to_string(project.join("logs/backup.log")).is_ok_and(|log| log.contains("[backup-all] All backups"))
    });
    run.wait()
}

/// Ends the host: the containers, the volumes, the project directory and the user's home.
fn lose(sandbox: &Sandbox, project: &Path, home: &Path) {
    let containers = ["postgres", "redis", "n8n-main", "n8n-worker"].map(|name| sandbox.container(name));
    sandbox.docker(&[&["rm", "-f", "-v"], &containers.each_ref().map(String::as_str)[..]].concat());
    for volume in ["postgres_data", "redis_data", "n8n_data"] {
        sandbox.docker(&["volume", "rm", &format!("{}_{volume}", sandbox.prefix())]);
    }
    for dir in [project, home] {
        let _ = fs::remove_dir_all(dir);
        assert!(!dir.exists());
    }
}

/// Installs the program into `~/n8n` of a new host and types `script` there. Gives the project directory.
fn type_on_new_host(sandbox: &Sandbox, home: &Path, docker: &Path, script: &str) -> PathBuf {
    let project = home.join("n8n");
    fs::create_dir(&project).unwrap();
    let mut install = Command::new(sandbox.aside("checkout/scripts/make/install.sh"));
    install.env("N8N_DIR", &project);
    crate::common::done(install);
    let mut shell = shell(script, home, docker);
    shell
        .env("HOME", home)
        .env("TMPDIR", sandbox.aside("tmp"))
        // Until .env is back, the lock would be the one of this machine's own backups.
        .env("BACKUP_LOCK_FILE", sandbox.lock_file())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut shell = shell.spawn().unwrap();
    // What is typed where the commands ask for it.
    let typed = format!("{PASSPHRASE}\n");
    shell.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let said = shell.wait_with_output().unwrap();
    assert!(
        said.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    project
}

#[test]
fn a_night_with_everything_on_brings_a_lost_host_back_by_the_documented_commands() {
    for program in ["rclone", "gpg", "curl", "openssl"] {
        if !has_program(program) {
            return skip("acceptance::a_night_with_everything_on", &format!("no {program}"));
        }
    }
    let (address, requests) = serve(0);
    let sandbox = Sandbox::new("whole")
        .kept()
        .stack()
        .n8n()
        .seeded()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .env("BACKUP_DRILL", "full")
        .env("BACKUP_OFFSITE", "true")
        .env("BACKUP_PING_URL", &format!("{address}/uuid"))
        .env("BACKUP_METRICS_FILE", "logs/n8n.prom")
        .env("POSTGRES_PASSWORD", POSTGRES_PASSWORD)
        .env(MARKER, "1")
        .build();
    fs::create_dir(sandbox.aside("tmp")).unwrap();
    sandbox.psql(&format!("INSERT INTO settings VALUES ('{MARKER}', '{MARKER}', false)"));
    let server = Rclone::start(&sandbox.aside("elsewhere"), "webdav");
    let old_home = home(&sandbox, "old", &server);
    let before = sandbox.fingerprint();
    let env = fs::read(sandbox.path(".env")).unwrap();

    let outcome = night(&sandbox, sandbox.dir(), &old_home);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    outcome.assert_log_has("backup-all", "SUCCESS All backups completed successfully (7/7)");
    outcome.assert_never_says("[ERROR]");
    assert_no_plaintext(&sandbox);
    assert_eq!(next(&requests).line, "POST /uuid/start");
    assert_eq!(next(&requests).line, "POST /uuid");
    assert!(requests.try_recv().is_err());
    let manifest = fs::read_to_string(sandbox.backup("sets")).unwrap();
    for line in ["# failed: none", "# drill: passed", "# offsite: "] {
        assert!(manifest.contains(line), "{line}\n{manifest}");
    }
    let metrics = fs::read_to_string(sandbox.path("logs/n8n.prom")).unwrap();
    for name in [
        "n8n_backup_last_run_success{",
        "n8n_backup_drill_success{",
        "n8n_backup_proven_timestamp_seconds{",
        ",proof=\"compared\"} ",
        ",proof=\"loaded\"} ",
    ] {
        assert!(metrics.contains(name), "{name}\n{metrics}");
    }
    let status = sandbox.binary().arg("status").run();
    assert_eq!(status.code, Some(0), "{status}");
    assert!(
        status.stdout.starts_with("BACKUP OK - ") && !status.stdout.contains("[WARNING]"),
        "{status}"
    );

    let docker = compose(&sandbox);
    let stamp = crate::common::name(&sandbox.backup("sets")).replace(".sha256", "");
    let mut project = sandbox.dir().to_owned();
    let mut old = old_home;
    let offsite = blocks(
        include_str!("../../docs/offsite.md"),
        "A new host, with only the passphrase and the remote",
    )
    .concat();
    // What comes before puts the program and rclone's settings in place.
    let (_, offsite) = offsite.split_once("cd ~/n8n\n").unwrap();
    let recovery = blocks(
        include_str!("../../docs/recovery.md"),
        "The host is lost, or n8n moves to another one",
    );
    let recovery = recovery
        .concat()
        .replace("YYYYMMDD_HHMMSS.backup", &format!("{stamp}.backup.gpg"));
    for (name, script) in [
        ("new", format!("cd ~/n8n\n{offsite}")),
        // The passphrase comes first: the manifests are encrypted as well.
        ("newer", {
            let (before, after) = recovery.split_once("scripts/restore-env.sh").unwrap();
            format!("cd ~/n8n\n{before}scripts/fetch-offsite.sh latest\nscripts/restore-env.sh{after}")
        }),
    ] {
        lose(&sandbox, &project, &old);
        let _ = fs::remove_file(sandbox.lock_file());
        old = home(&sandbox, name, &server);
        project = type_on_new_host(&sandbox, &old, &docker, &script);
        assert_eq!(fs::read(project.join(".env")).unwrap(), env, "{script}");
        assert_eq!(mode(&project.join(".env")), 0o600, "{script}");
        assert_same(&before, &sandbox.fingerprint());
        for container in ["postgres", "redis", "n8n-main", "n8n-worker"] {
            let format = ["inspect", "--format", "{{.State.Running}}"];
            let said = sandbox.docker(&[&format[..], &[&sandbox.container(container)]].concat());
            assert_eq!(said, "true\n", "{container}");
        }
    }
    assert!(requests.try_recv().is_err());

    // The next night, on the new host.
    sleep(Duration::from_millis(1100));
    night(&sandbox, &project, &old);
    let log = fs::read_to_string(project.join("logs/backup.log")).unwrap();
    assert!(log.contains("All backups completed successfully (7/7)"), "{log}");
    assert_eq!(next(&requests).line, "POST /uuid/start");
    assert_eq!(next(&requests).line, "POST /uuid");
}
