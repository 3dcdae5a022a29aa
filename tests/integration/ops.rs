//! What an operator watches: status, pings, metrics, the notify command. The HTTP server is a real one on loopback.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::common::servers::{next, serve};
use crate::common::{has_program, mode, script, skip, Sandbox};

/// The value of a metric in a textfile.
fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Checks a textfile with Prometheus' own program, where it is installed.
fn promtool(test: &str, text: &str) {
    if !has_program("promtool") {
        skip(test, "promtool is not installed (Debian: prometheus)");
        return;
    }
    let mut child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.trim().is_empty(), "{words}\n{text}");
}

const HOOK: &str = "#!/bin/sh\n(env | grep ^N8N_BACKUP_ | sort; echo \"args: $*\"; echo \"leaks: $BACKUP_PING_URL$REDIS_PASSWORD\"; cat) >told\n";

#[test]
fn a_good_run_is_told_to_those_who_watch_and_status_agrees() {
    let sandbox = Sandbox::new("watch").stack().seeded().build();
    let (address, requests) = serve(0);
    sandbox.set("BACKUP_PING_URL", &format!("{address}/secret-uuid?create=1"));
    sandbox.set("BACKUP_METRICS_FILE", "n8n.prom");
    sandbox.set("BACKUP_NOTIFY_COMMAND", "./hook --to ops $(id)");
    script(&sandbox.path("hook"), HOOK);
    // Shows what curl is given as arguments.
    let arguments = sandbox.aside("arguments");
    let curl = sandbox.stand_in(
        "curl",
        &format!(
            "#!/bin/sh\necho \"$@\" >>'{}'\nexec /usr/bin/curl \"$@\"\n",
            arguments.display()
        ),
    );

    let critical = sandbox.binary().arg("status").run();
    assert_eq!(critical.code, Some(2), "{critical}");
    assert!(
        critical
            .stdout
            .starts_with("BACKUP CRITICAL - age: no recovery point yet"),
        "{critical}"
    );

    let outcome = sandbox.call("backup-all").arg("-v").path_first(&curl).run();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stderr.contains("/curl --disable --config -\n"), "{outcome}");
    outcome.assert_never_says("secret-uuid");

    let (start, end) = (next(&requests), next(&requests));
    assert_eq!(start.line, "POST /secret-uuid/start?create=1");
    assert_eq!(start.body, "");
    assert_eq!(end.line, "POST /secret-uuid?create=1");
    assert!(
        end.body.contains("[backup-all] All backups completed successfully"),
        "{end:?}"
    );
    assert!(requests.try_recv().is_err());
    let arguments = fs::read_to_string(arguments).unwrap();
    assert_eq!(arguments, "--disable --config -\n".repeat(2));

    let text = fs::read_to_string(sandbox.path("n8n.prom")).unwrap();
    assert_eq!(mode(&sandbox.path("n8n.prom")), 0o644);
    assert_eq!(metric(&text, "n8n_backup_last_run_success"), Some(1.0));
    assert_eq!(metric(&text, "n8n_backup_points"), Some(1.0));
    let dump = fs::metadata(sandbox.backup("postgres")).unwrap().len();
    let (_, of_postgres) = text.split_once("component_size_bytes{").unwrap();
    assert!(of_postgres.starts_with("project=") && of_postgres.contains(&format!("component=\"postgres\"}} {dump}\n")));
    promtool("a_good_run_is_told_to_those_who_watch_and_status_agrees", &text);

    let told = fs::read_to_string(sandbox.path("told")).unwrap();
    for line in [
        "N8N_BACKUP_RESULT=success",
        "N8N_BACKUP_FAILED=",
        "args: --to ops $(id)",
        "leaks: ",
    ] {
        assert!(told.lines().any(|said| said == line), "{line} in {told}");
    }
    assert!(
        told.contains(&format!("N8N_BACKUP_PROJECT={}\n", sandbox.dir().display())),
        "{told}"
    );
    assert!(told.contains("[SUCCESS]"), "{told}");

    let status = sandbox.binary().arg("status").run();
    assert_eq!(status.code, Some(0), "{status}");
    assert!(status.stdout.starts_with("BACKUP OK - recovery point 2"), "{status}");
    assert!(
        status.stdout.is_ascii() && status.stdout.contains(" | age="),
        "{status}"
    );
    let json = sandbox.binary().args(&["status", "--json"]).run();
    assert!(json.stdout.starts_with("{\"status\": \"ok\", \"code\": 0, "), "{json}");
    if has_program("python3") {
        let file = sandbox.aside("status.json");
        fs::write(&file, &json.stdout).unwrap();
        crate::common::sh("python3 -m json.tool \"$1\"", &[file.as_os_str()]);
    }

    // An old point, then one that has lost a byte, then an age that is none.
    thread::sleep(Duration::from_millis(1100));
    let old = sandbox.binary().args(&["status", "--max-age", "0s"]).run();
    assert_eq!(old.code, Some(2), "{old}");
    assert!(old.stdout.contains("more than 0 s"), "{old}");
    let env = sandbox.backup("env");
    let contents = fs::read(&env).unwrap();
    fs::write(&env, &contents[1..]).unwrap();
    let broken = sandbox.binary().arg("status").run();
    assert_eq!(broken.code, Some(2), "{broken}");
    assert!(
        broken
            .stdout
            .starts_with("BACKUP CRITICAL - files: missing or of another size: env/env_"),
        "{broken}"
    );
    let unknown = sandbox.binary().args(&["status", "--max-age", "soon"]).run();
    assert_eq!(unknown.code, Some(3), "{unknown}");
    assert!(
        unknown.stdout.starts_with("BACKUP UNKNOWN - Bad --max-age: "),
        "{unknown}"
    );
    assert_eq!(sandbox.binary().args(&["status", "--nonsense"]).run().code, Some(3));
    sandbox.set("BACKUP_JOBS", "many");
    let unread = sandbox.binary().arg("status").run();
    assert_eq!(unread.code, Some(3));
    assert!(
        unread.stdout.starts_with("BACKUP UNKNOWN - Bad setting (see "),
        "{}",
        unread.stdout
    );
}

#[test]
fn the_page_is_written_for_its_owner_alone_and_costs_no_run() {
    let sandbox = Sandbox::new("page")
        .redis()
        .env("BACKUP_STATUS_PAGE", "status.html")
        .build();
    // Other components fail: the page is written all the same.
    assert_eq!(sandbox.run("backup-all", &[]).code, Some(1));
    let page = sandbox.path("status.html");
    assert_eq!(mode(&page), 0o600);
    let text = fs::read_to_string(&page).unwrap();
    assert!(
        text.starts_with("<!DOCTYPE html>") && text.ends_with("</html>\n"),
        "{text}"
    );
    assert!(
        text.contains("<b>CRITICAL</b>") && text.contains("Make a backup"),
        "{text}"
    );
    // A link in its place is replaced, not followed.
    let other = sandbox.write("other", "mine");
    fs::remove_file(&page).unwrap();
    std::os::unix::fs::symlink(&other, &page).unwrap();
    let said = sandbox.binary().args(&["status", "--html"]).arg(&page).run();
    assert_eq!(said.code, Some(2), "{said}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    assert!(!page.is_symlink() && mode(&page) == 0o600);
    sandbox.set("BACKUP_STATUS_PAGE", "/nonexistent/page.html");
    sandbox
        .run("backup-all", &[])
        .assert_log_has("backup-all", "WARN BACKUP_STATUS_PAGE was not written: {}");
}

/// The rules of docs/monitoring fire on what they are for, and on nothing else.
#[test]
fn the_alert_rules_do_what_they_say() {
    if !has_program("promtool") {
        skip("ops::the_alert_rules", "promtool is not installed (Debian: prometheus)");
        return;
    }
    let mut promtool = std::process::Command::new("promtool");
    promtool.args(["test", "rules", "n8n-backup.test.yml"]);
    promtool.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring"));
    assert!(crate::common::done(promtool).contains("SUCCESS"));
}

#[test]
fn a_failed_run_is_told_with_its_last_lines() {
    let sandbox = Sandbox::new("fails").build();
    // The first try of the start ping is answered with an error and not repeated.
    let (address, requests) = serve(1);
    sandbox.set("BACKUP_PING_URL", &address);
    sandbox.set("BACKUP_METRICS_FILE", "n8n.prom");
    sandbox.set("BACKUP_NOTIFY_COMMAND", "./hook");
    script(&sandbox.path("hook"), HOOK);

    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has("backup-all", "WARN BACKUP_PING_URL was not reached: {}503");
    assert_eq!(next(&requests).line, "POST /start");
    let fail = next(&requests);
    assert_eq!(fail.line, "POST /fail");
    assert!(fail.body.contains("[backup-postgres] Container"), "{fail:?}");
    assert!(
        fail.body.contains("[backup-all] Backup completed with errors: "),
        "{fail:?}"
    );

    let text = fs::read_to_string(sandbox.path("n8n.prom")).unwrap();
    assert_eq!(metric(&text, "n8n_backup_last_run_success"), Some(0.0));
    assert_eq!(metric(&text, "n8n_backup_newest_timestamp_seconds"), None);
    promtool("a_failed_run_is_told_with_its_last_lines", &text);
    let told = fs::read_to_string(sandbox.path("told")).unwrap();
    assert!(told.contains("N8N_BACKUP_RESULT=failure\n"), "{told}");
    assert!(told.contains("N8N_BACKUP_FAILED=postgres redis n8n\n"), "{told}");
}

/// A dump whose load fails on a row, in ways in which the server shows that row.
#[test]
fn what_rows_hold_reaches_neither_log_nor_monitor() {
    const SECRET: &str = "s3cr3t-of-a-row";
    let sandbox = Sandbox::new("rows").stack().env("BACKUP_DRILL", "postgres").build();
    sandbox.set("BACKUP_METRICS_FILE", "n8n.prom");
    sandbox.set("BACKUP_NOTIFY_COMMAND", "./hook");
    script(&sandbox.path("hook"), HOOK);
    // Many lines, so that only the row is left of the last ones.
    let value = format!("E'{}'", format!("{SECRET}\\n").repeat(20));
    let function = |body: &str| {
        let head = "CREATE OR REPLACE FUNCTION ok(v text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql";
        sandbox.psql(&format!("{head} AS $$ BEGIN {body}; END $$"));
    };
    function("RETURN true");
    sandbox.psql("CREATE TABLE odd (v text CHECK (ok(v)))");
    sandbox.psql(&format!("INSERT INTO odd VALUES ({value})"));
    for (what, body) in [
        ("a value of another type", "RETURN v::integer > 0"),
        ("a check", "RETURN false"),
        ("an exception", "RAISE EXCEPTION 'it is %', v USING ERRCODE = '23505'"),
        ("a warning", "RAISE WARNING 'it is %', v; RETURN false"),
    ] {
        function(body);
        sandbox.run("backup-postgres", &[]).assert_success();
        let dumps = sandbox.backups("postgres");
        let restore = sandbox.run("restore-postgres", &[&dumps[dumps.len() - 1].to_string_lossy()]);
        restore
            .assert_error("Database restore failed")
            .assert_never_says(SECRET);
        // What failed where is told all the same.
        assert!(restore.log.contains("COPY odd, line 1"), "{what}: {restore}");
    }

    let (address, requests) = serve(0);
    sandbox.set("BACKUP_PING_URL", &address);
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has(
        "test-recovery",
        "ERROR Cause: Database restore failed: {}COPY odd, line 1{}",
    );
    outcome.assert_never_says(SECRET);
    let (start, fail) = (next(&requests), next(&requests));
    assert!(!start.body.contains(SECRET) && !fail.body.contains(SECRET), "{fail:?}");
    assert!(fail.body.contains("COPY odd, line 1"), "{fail:?}");
    let told = fs::read_to_string(sandbox.path("told")).unwrap();
    assert!(told.contains("COPY odd, line 1") && !told.contains(SECRET), "{told}");
    for dir in ["backups/sets", "logs"] {
        for file in fs::read_dir(sandbox.path(dir)).unwrap().flatten() {
            let text = fs::read_to_string(file.path()).unwrap();
            assert!(!text.contains(SECRET), "{text}");
        }
    }
}

#[test]
fn a_monitor_that_is_away_costs_no_backup() {
    let sandbox = Sandbox::new("away").stack().build();
    // A port where nobody listens, a metrics directory that is missing, a command that fails.
    sandbox.set("BACKUP_PING_URL", "http://127.0.0.1:1/secret-uuid");
    sandbox.set("BACKUP_METRICS_FILE", "/nonexistent/n8n.prom");
    sandbox.set("BACKUP_NOTIFY_COMMAND", "false");
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_success();
    outcome.assert_log_has("backup-all", "WARN BACKUP_PING_URL was not reached: {}");
    outcome.assert_log_has(
        "backup-all",
        "WARN BACKUP_METRICS_FILE was not written: Cannot write /nonexistent/n8n.prom: {}",
    );
    outcome.assert_log_has("backup-all", "WARN BACKUP_NOTIFY_COMMAND failed: {}");
    outcome.assert_never_says("secret-uuid");
    assert!(outcome.took < Duration::from_secs(45), "{outcome}");

    sandbox.set("BACKUP_PING_URL", "file:///etc/passwd");
    let refused = sandbox.run("backup-all", &[]);
    refused.assert_error("Bad setting {}");
    refused.assert_never_says("passwd");
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let sandbox = Sandbox::new("doctor").stack().n8n().build();
    let env = sandbox.path(".env");
    fs::set_permissions(&env, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let before = sandbox.listing();
    let fine = sandbox.binary().arg("doctor").run();
    assert_eq!(fine.code, Some(0), "{fine}");
    let line = |outcome: &crate::common::Outcome, start: &str| {
        assert!(
            outcome.stdout.lines().any(|line| line.starts_with(start)),
            "{start}\n{outcome}"
        );
    };
    for start in [
        "OK   docker: ",
        "OK   postgres: PostgreSQL ",
        "OK   redis: Redis answers on port 6386 and holds 0 keys",
        &format!(
            "OK   n8n: {} mounts {}",
            sandbox.container("n8n-main"),
            sandbox.volume()
        ),
        "OK   cron: ",
        "OK   lock: ",
        "WARN key: there is no N8N_ENCRYPTION_KEY in .env",
        "WARN last run: no recovery point yet",
        "WARN schedule: nothing was found",
    ] {
        line(&fine, start);
    }
    assert_eq!(sandbox.listing(), before);

    // What is right is left out on request, and what was done is seen.
    sandbox.set("N8N_ENCRYPTION_KEY", "key");
    sandbox.run("backup-all", &[]).assert_success();
    let quiet = sandbox.binary().args(&["doctor", "--quiet"]).run();
    assert!(
        !quiet.stdout.contains("OK ") && !quiet.stdout.contains("last run"),
        "{quiet}"
    );
    assert!(!quiet.stdout.contains("key:"), "{quiet}");

    // What a run makes is no failure.
    fs::rename(sandbox.path("logs"), sandbox.path("away")).unwrap();
    let unmade = sandbox.binary().arg("doctor").run();
    fs::rename(sandbox.path("away"), sandbox.path("logs")).unwrap();
    assert_eq!(unmade.code, Some(0), "{unmade}");
    assert!(unmade.stdout.contains("/logs will be made and take files"), "{unmade}");

    // One more worker, as after docker compose up --scale.
    let (worker, mount) = (sandbox.container("n8n.worker.2"), format!("{}:/data", sandbox.volume()));
    sandbox.run_idle(&worker, &mount);
    let scaled = sandbox.binary().args(&["doctor", "--quiet"]).run();
    line(
        &scaled,
        &format!(
            "WARN n8n: {} is mounted by {worker}, too, and a restore refuses",
            sandbox.volume()
        ),
    );
    sandbox.docker(&["rm", "-fv", &worker]);

    // Another volume than n8n's, a password that is wrong, a program that is missing, a file that others read.
    sandbox.make_volume(&format!("{}-other", sandbox.volume()));
    sandbox.set("BACKUP_N8N_VOLUME", &format!("{}-other", sandbox.volume()));
    sandbox.set("REDIS_PORT", "6399");
    sandbox.set("BACKUP_COMPRESSOR", "no-such-program");
    sandbox.set("BACKUP_POSTGRES_CONTAINER", "n8nbt-no-such-container");
    sandbox.set("BACKUP_NOTIFY_COMMAND", "./none");
    sandbox.set("DB_POSTGRESDB_DATABASE", "workflows");
    fs::set_permissions(&env, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let ill = sandbox.binary().arg("doctor").run();
    assert_eq!(ill.code, Some(1), "{ill}");
    for start in [
        "WARN settings: others may read ",
        "WARN settings: n8n's database is workflows (DB_POSTGRESDB_DATABASE), and n8n is what is backed up: ",
        "FAIL postgres: Container n8nbt-no-such-container is not running",
        "FAIL redis: ",
        "FAIL compressor: Compressor no-such-program not found",
        "FAIL notify: ",
        &format!(
            "FAIL n8n: {} keeps its data in the volume ",
            sandbox.container("n8n-main")
        ),
    ] {
        line(&ill, start);
    }
    let nowhere = sandbox
        .binary()
        .arg("doctor")
        .env("DOCKER_HOST", "tcp://127.0.0.1:1")
        .run();
    assert_eq!(nowhere.code, Some(1), "{nowhere}");
    line(&nowhere, "FAIL docker: Docker engine does not answer");
    line(&nowhere, "WARN cron: DOCKER_HOST is set here");
}

#[test]
fn a_directory_of_the_host_becomes_a_volume_as_the_doctor_says() {
    let sandbox = Sandbox::new("bind").redis().build();
    // A worker's name with dots, as compose of old and swarm have it.
    let names = [sandbox.container("n8n-main"), sandbox.container("n8n.worker.1")];
    sandbox.set("BACKUP_N8N_CONTAINERS", &names.join(" "));
    sandbox.set("BACKUP_HELPER_IMAGE", "n8n-backup-test/busybox:1");
    let data = sandbox.aside("n8n's data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("config"), "{\"encryptionKey\": \"key\"}").unwrap();
    let mount = format!("{}:/home/node/.n8n", data.display());
    for name in &names {
        sandbox.run_idle(name, &mount);
    }
    let advice = |said: &crate::common::Outcome| -> String {
        let line = said.stdout.lines().find(|line| line.starts_with("FAIL n8n: ")).unwrap();
        assert!(line.contains("keeps its data in the directory "), "{said}");
        line.split_once("(nothing is moved): ").unwrap().1.to_owned()
    };
    let said = sandbox.binary().arg("doctor").run();
    let command = advice(&said);
    assert!(command.ends_with(&format!(" {}", sandbox.volume())), "{command}");
    crate::common::sh(&command, &[]);
    let said = sandbox.binary().arg("doctor").run();
    for name in &names {
        let line = format!(
            "OK   n8n: {name} mounts {}, which is {}",
            data.display(),
            sandbox.volume()
        );
        assert!(said.stdout.lines().any(|said| said == line), "{line}\n{said}");
    }
    let outcome = sandbox.run("backup-n8n", &[]);
    assert!(!outcome.assert_success().stdout.contains("keeps its data"), "{outcome}");
    fs::write(data.join("config"), "lost").unwrap();
    fs::write(data.join("stray"), "x").unwrap();
    let archive = sandbox.backup("n8n");
    let outcome = sandbox.run("restore-n8n", &[&archive.to_string_lossy()]);
    outcome.assert_success();
    assert_eq!(
        fs::read_to_string(data.join("config")).unwrap(),
        "{\"encryptionKey\": \"key\"}"
    );
    assert!(!data.join("stray").exists());

    // Where a volume of that name holds something else, it is left alone.
    sandbox.docker(&["volume", "rm", &sandbox.volume()]);
    sandbox.make_volume(&sandbox.volume());
    let said = sandbox.binary().arg("doctor").run();
    assert!(
        advice(&said).ends_with(" n8n_data_directory, and set BACKUP_N8N_VOLUME=n8n_data_directory in .env"),
        "{said}"
    );
}

#[test]
fn progress_is_shown_on_a_terminal_and_nowhere_else() {
    let sandbox = Sandbox::new("progress")
        .postgres()
        .seeded()
        .env("BACKUP_COMPRESSOR", "slow-gzip")
        .build();
    // A stream that takes a second, however fast the machine is.
    let slow = sandbox.stand_in("slow-gzip", "#!/bin/sh\nsleep 1\nexec gzip -1 \"$@\"\n");
    let on_terminal = sandbox.call("backup-postgres").path_first(&slow).terminal("").run();
    on_terminal.assert_success();
    // Standard error is part of standard output there.
    assert!(
        on_terminal.stdout.contains("\rpostgres: ") || on_terminal.stdout.contains("\x1b[Kpostgres: "),
        "{}",
        on_terminal.stdout
    );
    assert!(on_terminal.stdout.contains("B/s"), "{}", on_terminal.stdout);
    let elsewhere = sandbox.call("backup-postgres").path_first(&slow).run();
    elsewhere.assert_success();
    assert_eq!(elsewhere.stderr, "");
    assert!(
        !elsewhere.stdout.contains('\r') && !elsewhere.stdout.contains("B/s"),
        "{}",
        elsewhere.stdout
    );
}
