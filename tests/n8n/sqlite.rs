//! A real n8n on SQLite: backup while it works, drill, loss, restore.

use std::process::Command;
use std::time::Duration;

use crate::common::{assert_same, await_true, done, output, sh, Sandbox};
use crate::stack::image;

const FILE: &str = "/home/node/.n8n/database.sqlite";
const ID: &str = "sqliteHook000001";

/// A workflow that answers its webhook, and a credential.
const WORKFLOW: &str = r#"[{"id":"sqliteHook000001","name":"Hook","active":true,"settings":{},"connections":{},"nodes":[{"id":"a",
"name":"Webhook","type":"n8n-nodes-base.webhook","typeVersion":2,"position":[0,0],"webhookId":"hook",
"parameters":{"path":"hook","responseMode":"onReceived","options":{}}}]}]"#;
const CREDENTIAL: &str =
    r#"[{"id":"sqliteCred000001","name":"Account","type":"httpBasicAuth","data":{"user":"a","password":"b"}}]"#;

/// Prints every row of every table.
const DUMP: &str = r#"
const { DatabaseSync } = require("node:sqlite");
const db = new DatabaseSync(process.argv[1]);
for (const { name } of db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").all()) {
  const rows = db.prepare(`SELECT * FROM "${name}"`).all().map((row) => JSON.stringify(row)).sort();
  console.log(name, rows.length);
  console.log(rows.join("\n"));
}
db.close();
"#;

fn create(sandbox: &Sandbox) {
    let mut command = Command::new("docker");
    command.args([
        "create",
        "--name",
        &sandbox.container("n8n-main"),
        "--network",
        "none",
        "--stop-timeout",
        "20",
    ]);
    command.args(sandbox.labels());
    command.args(["-v", &format!("{}:/home/node/.n8n", sandbox.volume())]);
    for variable in [
        "N8N_DIAGNOSTICS_ENABLED=false",
        "N8N_VERSION_NOTIFICATIONS_ENABLED=false",
        "N8N_PORT=5999",
    ] {
        command.args(["-e", variable]);
    }
    command.arg(image());
    done(command);
}

/// Calls the webhook once. Gives its status.
fn call(sandbox: &Sandbox) -> String {
    let script = "fetch('http://127.0.0.1:5999/webhook/hook', { signal: AbortSignal.timeout(9000) }).then((r) => console.log(r.status), () => {})";
    let mut ask = Command::new("docker");
    ask.args(["exec", &sandbox.container("n8n-main"), "node", "-e", script]);
    String::from_utf8_lossy(&output(ask).stdout).trim().to_owned()
}

fn start(sandbox: &Sandbox) {
    sandbox.docker(&["start", &sandbox.container("n8n-main")]);
    let begun = std::time::Instant::now();
    while call(sandbox) != "200" {
        if begun.elapsed() > Duration::from_secs(600) {
            panic!(
                "n8n does not answer: {}",
                sh(
                    "docker logs --tail 40 \"$1\" 2>&1",
                    &[sandbox.container("n8n-main").as_ref()]
                )
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The database at rest.
fn dump(sandbox: &Sandbox) -> String {
    let from = sandbox.container("n8n-main");
    sandbox.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        &from,
        "--entrypoint",
        "node",
        image(),
        "-e",
        DUMP,
        FILE,
    ])
}

/// Runs n8n once on the volume.
fn n8n(sandbox: &Sandbox, script: &str) {
    let from = sandbox.container("n8n-main");
    let script = format!("{script} >/tmp/said 2>&1 || {{ cat /tmp/said; exit 1; }}");
    sandbox.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        &from,
        "--entrypoint",
        "sh",
        image(),
        "-c",
        &script,
    ]);
}

#[test]
fn a_real_n8n_on_sqlite_comes_back_with_every_row() {
    let sandbox = Sandbox::new("nsqlite").containers().no_env_file().build();
    sandbox.make_volume(&sandbox.volume());
    create(&sandbox);
    sandbox.set("BACKUP_N8N_CONTAINERS", &sandbox.container("n8n-main"));
    n8n(
        &sandbox,
        &format!(
            "printf '%s' '{WORKFLOW}' >/tmp/w && printf '%s' '{CREDENTIAL}' >/tmp/c && n8n import:workflow --input=/tmp/w && \
             n8n import:credentials --input=/tmp/c && n8n update:workflow --id={ID} --active=true"
        ),
    );
    start(&sandbox);
    // Ten calls a second meanwhile, of which none may fail.
    let caller = "let n = 0, bad = 0; const stop = Date.now() + 600000; const tick = setInterval(() => { \
        if (require('fs').existsSync('/tmp/stop') || Date.now() > stop) { clearInterval(tick); setTimeout(() => require('fs').writeFileSync('/tmp/calls', `${n} ${bad}`), 10000); return; } \
        n++; fetch('http://127.0.0.1:5999/webhook/hook').then((r) => { if (r.status !== 200) bad++; }, () => bad++); }, 100)";
    sandbox.docker(&["exec", "-d", &sandbox.container("n8n-main"), "node", "-e", caller]);
    let backup = sandbox.locked("backup-all", &[]);
    backup.assert_success();
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "touch", "/tmp/stop"]);
    let calls = || {
        let mut cat = Command::new("docker");
        cat.args(["exec", &sandbox.container("n8n-main"), "cat", "/tmp/calls"]);
        String::from_utf8_lossy(&output(cat).stdout).into_owned()
    };
    await_true("the calls do not end", || !calls().is_empty());
    let calls = calls();
    let (made, failed) = calls.split_once(' ').unwrap();
    assert!(made.parse::<u32>().unwrap() > 3, "{calls}");
    assert_eq!(failed, "0", "{calls}");

    let drill = sandbox
        .call("test-recovery")
        .args(&["--full"])
        .env("BACKUP_LOCK_FILE", sandbox.lock_file())
        .limit(Duration::from_secs(900))
        .run();
    drill.assert_success();
    assert!(
        drill
            .stdout
            .contains("Decrypted 1 of 1 credentials with the backed-up key"),
        "{drill}"
    );

    // At rest, so that nothing is written between a backup and the comparison.
    sandbox.docker(&["stop", &sandbox.container("n8n-main")]);
    sandbox.locked("backup-all", &[]).assert_success();
    let before = dump(&sandbox);
    assert!(
        before.contains("sqliteHook000001") && before.contains("execution_entity"),
        "{before}"
    );
    sandbox.docker(&["rm", "-f", "-v", &sandbox.container("n8n-main")]);
    sandbox.docker(&["volume", "rm", &sandbox.volume()]);
    sandbox.make_volume(&sandbox.volume());
    create(&sandbox);
    sandbox.locked("restore-all", &["latest", "--yes"]).assert_success();
    assert_same(&before, &dump(&sandbox));
    start(&sandbox);
}
