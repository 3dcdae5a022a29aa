//! A real n8n on SQLite, from its first backup to its move to PostgreSQL.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::point::encrypt;
use crate::common::sqlite::{n8n_image, FILE};
use crate::common::{assert_same, await_true, done, output, sh, Outcome, Sandbox};
use crate::workflows;

const ID: &str = "sqliteHook000001";
/// The credential that n8n lost long ago.
const DEAD: &str = "sqliteCred000002";

/// A workflow that answers its webhook, and credentials.
const WORKFLOW: &str = r#"[{"id":"sqliteHook000001","name":"Hook","active":true,"settings":{},"connections":{},"nodes":[{"id":"a",
"name":"Webhook","type":"n8n-nodes-base.webhook","typeVersion":2,"position":[0,0],"webhookId":"hook",
"parameters":{"path":"hook","responseMode":"onReceived","options":{}}}]}]"#;
const CREDENTIALS: &str = r#"[{"id":"sqliteCred000001","name":"Account","type":"httpBasicAuth","data":{"user":"a","password":"b"}},
{"id":"sqliteCred000002","name":"Lost","type":"httpBasicAuth","data":{"user":"a","password":"b"}}]"#;

/// Every file of the home but the database's own and the logs.
const FILES: &str = "cd /home/node/.n8n && find . -type f ! -name 'database.sqlite*' ! -name '*.log' ! -name crash.journal \
                     -exec sha256sum {} + | sort -k 2; find . ! -name '*.log' ! -name 'database.sqlite-*' ! -name crash.journal | sort";

/// Calls the webhook ten times a second until it is told to stop, and says how many calls failed.
const CALLER: &str = "let n = 0, bad = 0, slowest = 0, why = ''; const fs = require('fs');
const tick = setInterval(() => {
  if (fs.existsSync('/tmp/stop')) { clearInterval(tick); setTimeout(() => fs.writeFileSync('/tmp/calls', `${n} ${bad} ${slowest} ${why}`), 5000); return; }
  n++; const begun = Date.now(); const done = (good, said) => { slowest = Math.max(slowest, Date.now() - begun); if (!good) { bad++; why ||= said; } };
  fetch('http://127.0.0.1:5999/webhook/hook').then((r) => done(r.status === 200, `status ${r.status}`), (error) => done(false, `${error} ${error.cause}`)); }, 100)";

/// Makes n8n's container, with more options.
fn create(sandbox: &Sandbox, options: &[&str]) {
    let mut command = Command::new("docker");
    command.args(["create", "--name", &sandbox.n8n(), "--stop-timeout", "20"]);
    command.args(sandbox.labels());
    command.args(["-v", &format!("{}:/home/node/.n8n", sandbox.volume())]);
    for variable in [
        "N8N_DIAGNOSTICS_ENABLED=false",
        "N8N_VERSION_NOTIFICATIONS_ENABLED=false",
        "N8N_PORT=5999",
    ] {
        command.args(["-e", variable]);
    }
    command.args(options).arg(n8n_image());
    done(command);
}

/// Calls the webhook once. Gives its status.
fn call(sandbox: &Sandbox) -> String {
    let script = "fetch('http://127.0.0.1:5999/webhook/hook', { signal: AbortSignal.timeout(9000) }).then((r) => console.log(r.status), () => {})";
    let mut ask = Command::new("docker");
    ask.args(["exec", &sandbox.n8n(), "node", "-e", script]);
    String::from_utf8_lossy(&output(ask).stdout).trim().to_owned()
}

fn start(sandbox: &Sandbox) {
    sandbox.docker(&["start", &sandbox.n8n()]);
    let begun = Instant::now();
    while call(sandbox) != "200" {
        if begun.elapsed() > Duration::from_secs(600) {
            let log = sh("docker logs --tail 40 \"$1\" 2>&1", &[sandbox.n8n().as_ref()]);
            panic!("n8n does not answer: {log}");
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Runs n8n's commands once, with the volume and more options. Gives what they print.
fn n8n(sandbox: &Sandbox, options: &[&str], script: &str) -> String {
    let from = sandbox.n8n();
    let script = format!("{{ {script}; }} 2>&1");
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--volumes-from", &from, "--entrypoint", "sh"]);
    command.args(options).arg(n8n_image()).args(["-ec", &script]);
    done(command)
}

/// Runs what starts n8n, which takes minutes on a busy machine.
fn long(sandbox: &Sandbox, name: &str, args: &[&str]) -> Outcome {
    sandbox
        .call(name)
        .args(args)
        .env("BACKUP_LOCK_FILE", sandbox.lock_file())
        .limit(Duration::from_secs(900))
        .run()
}

#[track_caller]
fn assert_says(outcome: &Outcome, texts: &[&str]) {
    for text in texts {
        assert!(outcome.stdout.contains(text), "'{text}' expected: {outcome}");
    }
}

/// A fact of the newest point.
fn fact(sandbox: &Sandbox, name: &str) -> Option<String> {
    let newest = fs::read_to_string(sandbox.backups("sets").last()?).unwrap();
    let start = format!("# {name}: ");
    Some(newest.lines().find_map(|line| line.strip_prefix(&start))?.to_owned())
}

/// Runs SQL in the database of an n8n at rest.
fn sql(sandbox: &Sandbox, sql: &str) {
    const RUN: &str =
        "const { DatabaseSync } = require('node:sqlite'); new DatabaseSync(process.argv[1]).exec(process.argv[2])";
    let from = sandbox.n8n();
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        &from,
        "--entrypoint",
        "node",
    ];
    sandbox.docker(&[&run[..], &[n8n_image(), "-e", RUN, FILE, sql]].concat());
}

#[test]
fn a_real_n8n_on_sqlite_is_backed_up_drilled_lost_restored_and_moved_to_postgres() {
    let sandbox = Sandbox::new("nsqlite").postgres().network().no_env_file().build();
    sandbox.make_volume(&sandbox.volume());
    let none = ["--network", "none"];
    create(&sandbox, &none);
    sandbox.set("BACKUP_N8N_CONTAINERS", &sandbox.n8n());
    sandbox.set("BACKUP_DEAD_CREDENTIALS", DEAD);
    n8n(
        &sandbox,
        &none,
        &format!(
            "printf '%s' '{WORKFLOW}' >/tmp/w && printf '%s' '{CREDENTIALS}' >/tmp/c && n8n import:workflow --input=/tmp/w && \
             n8n import:credentials --input=/tmp/c && n8n update:workflow --id={ID} --active=true && \
             mkdir -p ~/.n8n/nodes && echo '{{}}' >~/.n8n/nodes/package.json"
        ),
    );
    let lost = encrypt("lost", "{}");
    sql(
        &sandbox,
        &format!("UPDATE credentials_entity SET data = '{lost}' WHERE id = '{DEAD}'"),
    );
    start(&sandbox);

    backed_up_under_load(&sandbox);
    drilled(&sandbox);
    // At rest, so that nothing is written between a backup and the comparison; and as the version before left it.
    sandbox.docker(&["stop", &sandbox.n8n()]);
    let migrated = older(&sandbox);
    sql(&sandbox, "UPDATE workflow_entity SET description = 'of another one'");
    let backup = sandbox.locked("backup-all", &[]);
    backup.assert_success();
    assert_says(&backup, &["Since the last backup: 1 workflow changed"]);
    let postgres = sandbox.run("rehearse-update", &["--postgres-image", n8n_image()]);
    assert_eq!(postgres.code, Some(2), "{postgres}");
    assert_says(&postgres, &["uses no PostgreSQL to rehearse an update of"]);
    assert_eq!(fact(&sandbox, "drill.rehearsed"), None);
    let rehearsal = long(&sandbox, "rehearse-update", &[n8n_image()]);
    rehearsal.assert_success();
    assert_says(
        &rehearsal,
        &[
            "already runs: pull or name the one to update to",
            "n8n 2.40.7 opened 1 of 1 credentials",
            &format!(
                "n8n 2.40.7 migrated the recovered database from {} to {migrated} migrations",
                migrated - 1
            ),
            "n8n 2.40.7 started from the backup in ",
        ],
    );
    assert!(fact(&sandbox, "drill.rehearsed").unwrap().starts_with(n8n_image()));

    lost_and_restored(&sandbox);
    workflows::come_back_on_sqlite(&sandbox, ID);
    moved(&sandbox);
}

/// A backup while n8n answers ten calls a second, of which none may fail.
fn backed_up_under_load(sandbox: &Sandbox) {
    sandbox.docker(&["exec", "-d", &sandbox.n8n(), "node", "-e", CALLER]);
    for round in 0..3 {
        let backup = sandbox.locked("backup-all", &[]);
        backup.assert_success();
        assert_says(&backup, &["(4/4)"]);
        let told = backup.stdout.contains("Since the last backup: no workflow changed");
        assert_eq!(told, round > 0, "{backup}");
    }
    sandbox.in_n8n("touch /tmp/stop");
    let calls = || sandbox.in_n8n("cat /tmp/calls 2>/dev/null || true");
    await_true("the calls do not end", || !calls().is_empty());
    let calls = calls();
    eprintln!("calls, failed calls, the slowest answer in ms, why the first failed: {calls}");
    let numbers = calls.split(' ').take(3).map(|number| number.parse().unwrap());
    let numbers: Vec<u32> = numbers.collect();
    assert!(numbers[0] > 15 && numbers[1] == 0, "{calls}");
}

/// n8n itself opens the credentials of the newest point, and starts from it.
fn drilled(sandbox: &Sandbox) {
    let state = || {
        sandbox.docker(&[
            "inspect",
            "--format",
            "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}",
            &sandbox.n8n(),
        ])
    };
    let before = state();
    let drill = long(sandbox, "test-recovery", &["--full"]);
    drill.assert_success();
    assert_says(
        &drill,
        &[
            "Decrypted 1 of 2 credentials with the backed-up key",
            "n8n 2.40.7 opened 1 of 1 credentials",
            "n8n 2.40.7 started from the backup in ",
            "The recovered database had all ",
            "Recovery test passed: full of recovery point",
        ],
    );
    assert_eq!(fact(sandbox, "drill.opened").as_deref(), Some("1 of 1 by n8n 2.40.7"));
    assert!(fact(sandbox, "drill.started").unwrap().starts_with("n8n 2.40.7 in "));
    assert_eq!(state(), before);
    assert_eq!(call(sandbox), "200");
    await_true("scratch containers are left", || {
        sandbox
            .docker(&["ps", "-aq", "--filter", "label=n8n-backup.drill"])
            .is_empty()
    });
    let status = sandbox.binary().args(&["status"]).run();
    assert!(status.stdout.starts_with("BACKUP OK"), "{status}");
    sandbox.binary().args(&["verify"]).run().assert_success();
}

/// Takes the newest migration back, which makes an index. Gives how many there were.
fn older(sandbox: &Sandbox) -> u64 {
    let of_index = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'instance_ai_threads' AND sql LIKE '%updatedAt%'";
    let run = format!(
        "const {{ DatabaseSync }} = require('node:sqlite'); const db = new DatabaseSync('{FILE}'); \
         const {{ name }} = db.prepare(`{of_index}`).get(); const {{ n, id }} = db.prepare('SELECT count(*) AS n, max(id) AS id FROM migrations').get(); \
         db.exec(`DROP INDEX \"${{name}}\"; DELETE FROM migrations WHERE id = ${{id}}`); console.log(n)"
    );
    let from = sandbox.n8n();
    let docker = [
        "run",
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        &from,
        "--entrypoint",
        "node",
    ];
    let count = sandbox.docker(&[&docker[..], &[n8n_image(), "-e", &run]].concat());
    count.trim().parse().unwrap()
}

/// The volume is destroyed and comes back, row by row and file by file, also by a restore after four that were killed.
fn lost_and_restored(sandbox: &Sandbox) {
    let (rows, files) = (sandbox.dump_sqlite(FILE), sandbox.beside_n8n(FILES));
    assert!(rows.contains(ID) && rows.contains("execution_entity"), "{rows}");
    assert!(
        files.contains("nodes/package.json") && files.contains("config"),
        "{files}"
    );
    let same = || {
        assert_same(&rows, &sandbox.dump_sqlite(FILE));
        assert_same(&files, &sandbox.beside_n8n(FILES));
    };
    let lose = || {
        sandbox.docker(&["rm", "-fv", "-v", &sandbox.n8n()]);
        sandbox.docker(&["volume", "rm", &sandbox.volume()]);
        sandbox.make_volume(&sandbox.volume());
        create(sandbox, &["--network", "none"]);
    };
    lose();
    sandbox.locked("restore-all", &["latest", "--yes"]).assert_success();
    same();
    lose();
    for step in [
        "Unpacking the database",
        "Verifying restore",
        "Replacing the database",
        "Creating archive",
    ] {
        let mut running = sandbox
            .call("restore-all")
            .args(&["--yes", "latest"])
            .env("BACKUP_LOCK_FILE", sandbox.lock_file())
            .spawn();
        running.await_log(step);
        running.signal("KILL");
        running.wait();
    }
    sandbox.locked("restore-all", &["latest", "--yes"]).assert_success();
    same();
    start(sandbox);
}

/// Makes n8n's container again, with other options.
fn create_again(sandbox: &Sandbox, options: &[&str]) {
    sandbox.docker(&["rm", "-fv", &sandbox.n8n()]);
    create(sandbox, options);
}

/// As `docs/updates.md` says: by n8n's own export and import, with our backup before and our drill after.
fn moved(sandbox: &Sandbox) {
    let none = ["--network", "none"];
    sandbox.docker(&["stop", &sandbox.n8n()]);
    sandbox.locked("backup-all", &[]).assert_success();
    let export = n8n(
        sandbox,
        &none,
        "n8n export:entities --outputDir=/home/node/.n8n/move --includeExecutionHistoryDataTables=true",
    );
    assert!(export.contains("Task completed successfully"), "{export}");
    let network = format!("{}-net", sandbox.prefix());
    let mut postgres = vec!["--network", &network];
    for variable in [
        "DB_TYPE=postgresdb",
        "DB_POSTGRESDB_HOST=postgres",
        "DB_POSTGRESDB_DATABASE=n8n",
        "DB_POSTGRESDB_USER=n8n",
        "DB_POSTGRESDB_PASSWORD=any",
    ] {
        postgres.extend(["-e", variable]);
    }
    let import = n8n(
        sandbox,
        &postgres,
        "n8n import:entities --inputDir=/home/node/.n8n/move --truncateTables=true",
    );
    assert!(import.contains("Import completed successfully"), "{import}");
    create_again(sandbox, &postgres);
    start(sandbox);
    sandbox.locked("backup-all", &[]).assert_success();
    let drill = long(sandbox, "test-recovery", &["--full"]);
    drill.assert_success();
    assert_says(
        &drill,
        &[
            "n8n 2.40.7 opened 1 of 1 credentials",
            "n8n 2.40.7 started from the backup in ",
        ],
    );
    let executions = "SELECT count(*), min(id), max(id) FROM execution_entity";
    let count = sandbox.psql(executions);
    assert!(count.split('|').next().unwrap().parse::<u32>().unwrap() > 15, "{count}");
    // What it has left is named.
    let doctor = sandbox.binary().args(&["doctor"]).run();
    assert_says(
        &doctor,
        &[&format!(
            "WARN sqlite: {} uses PostgreSQL, and {FILE} is left",
            sandbox.n8n()
        )],
    );
}
