//! Exports and restores of workflows, judged by n8n itself.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::sqlite::{on_sqlite, FILE, HOME};
use crate::common::{assert_same, await_true, done, n8n, output, sh, Sandbox};
use crate::stack;

/// Prints how many workflows two exports have, and the keys whose parsed values differ in any of them.
const COMPARE: &str = r#"
const fs = require('fs'), util = require('util');
const parse = (file) => JSON.parse(fs.readFileSync(file));
const all = (path) => (fs.statSync(path).isDirectory()
  ? fs.readdirSync(path).map((name) => parse(`${path}/${name}`)) : parse(path));
const read = (path) => new Map(all(path).map((workflow) => [workflow.id, workflow]));
const [one, other] = process.argv.slice(1).map(read);
const keys = new Set();
for (const id of new Set([...one.keys(), ...other.keys()])) {
  const [a, b] = [one.get(id) || {}, other.get(id) || {}];
  for (const key of Object.keys({ ...a, ...b })) if (!util.isDeepStrictEqual(a[key], b[key])) keys.add(key);
}
console.log([one.size, other.size, ...[...keys].sort()].join(' '));
"#;

/// Runs n8n's command line on a database, with a directory of this host at /x.
fn cli(sandbox: &Sandbox, database: &str, dir: &str, args: &[&str]) {
    let mut command = Command::new("docker");
    command.args([
        "run",
        "--rm",
        "--user",
        "0",
        "--network",
        &format!("{}-net", sandbox.prefix()),
    ]);
    command.args(sandbox.labels()).args(["-v", &format!("{dir}:/x")]);
    for variable in [
        "DB_TYPE=postgresdb",
        "DB_POSTGRESDB_HOST=postgres",
        &format!("DB_POSTGRESDB_DATABASE={database}"),
        "DB_POSTGRESDB_USER=n8n",
        "DB_POSTGRESDB_PASSWORD=any",
        &format!("N8N_ENCRYPTION_KEY={}", n8n::KEY),
        "N8N_DIAGNOSTICS_ENABLED=false",
    ] {
        command.args(["-e", variable]);
    }
    command.arg(stack::image()).args(args);
    done(command);
}

/// Compares two exports in a directory of this host, which is at /x: see [`COMPARE`].
fn compare(sandbox: &Sandbox, dir: &str, one: &str, other: &str) -> String {
    sh("chmod -R a+rX \"$1\"", &[dir.as_ref()]);
    let mut command = Command::new("docker");
    command.args([
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        "0",
        "--entrypoint",
        "node",
    ]);
    command.args(sandbox.labels()).args(["-v", &format!("{dir}:/x:ro")]);
    command.arg(stack::image()).args(["-e", COMPARE, one, other]);
    done(command).trim().to_owned()
}

#[test]
fn an_export_is_what_n8n_exports_and_imports() {
    let sandbox = Sandbox::new("nexports").postgres().network().build();
    n8n::load(&sandbox);
    let dir = sandbox.aside("x");
    fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    let ours = format!("{dir}/ours");
    let dump = n8n::data("n8n.sql.gz");
    let args = ["workflows", "export", dump.to_str().unwrap(), "--to", &ours];
    sandbox.binary().args(&args).run().assert_success();
    sh("chmod -R a+rX \"$1\"", &[dir.as_ref()]);

    let compare = |one: &str, other: &str| compare(&sandbox, dir, one, other);
    cli(
        &sandbox,
        "n8n",
        dir,
        &["export:workflow", "--all", "--output=/x/theirs.json"],
    );
    assert_eq!(compare("/x/ours", "/x/theirs.json"), "3 3");

    sandbox.psql_in("postgres", "CREATE DATABASE fresh");
    cli(
        &sandbox,
        "fresh",
        dir,
        &["import:workflow", "--separate", "--input=/x/ours"],
    );
    cli(
        &sandbox,
        "fresh",
        dir,
        &["export:workflow", "--all", "--output=/x/again.json"],
    );
    // n8n imports a workflow inactive, under a new version and for its own owner, and changes nothing else.
    assert_eq!(
        compare("/x/ours", "/x/again.json"),
        "3 3 active activeVersionId shared versionId"
    );
}

const HOOK: &str = "i4YonIkhBdusvbhG";
const VERSION: &str = "0943c66e-3813-4ce9-b55d-286a17ea35c8";

/// Asks n8n's own interface, logged in as its owner; n8n takes few logins a minute, so that the cookie is kept.
const ASK: &str = r#"
const fs = require('fs');
const ask = (method, path, body, cookie) => fetch(`http://127.0.0.1:5999${path}`, { method, body,
  headers: { 'content-type': 'application/json', cookie }, signal: AbortSignal.timeout(60000) });
(async () => {
  if (!fs.existsSync('/tmp/cookie')) {
    const login = await ask('POST', '/rest/login', JSON.stringify({ emailOrLdapLoginId: 'owner@example.com', password: 'Secret-of-test-1' }), '');
    if (login.status !== 200) throw new Error(`login: ${login.status}`);
    fs.writeFileSync('/tmp/cookie', login.headers.get('set-cookie').split(';')[0]);
  }
  const [method, path, body] = process.argv.slice(1);
  const answer = await ask(method, path, body, fs.readFileSync('/tmp/cookie', 'utf8'));
  console.log(answer.status, await answer.text());
})();
"#;

/// The interface of the n8n in a container.
struct Rest<'a> {
    sandbox: &'a Sandbox,
    container: String,
}

impl Rest<'_> {
    /// What n8n answers: the status and the text.
    fn ask(&self, method: &str, path: &str, body: Option<&str>) -> String {
        let mut args = vec!["exec", &self.container, "node", "-e", ASK, method, path];
        args.extend(body);
        self.sandbox.docker(&args)
    }

    /// Deletes a workflow as its owner does.
    fn delete(&self, id: &str) {
        let path = format!("/rest/workflows/{id}");
        self.ask("POST", &format!("{path}/archive"), Some("{}"));
        await_true("n8n does not delete the workflow", || {
            self.ask("DELETE", &path, None);
            self.ask("GET", &path, None).starts_with("404")
        });
    }

    /// Activates a version of a workflow as its owner does. Gives the answer.
    fn activate(&self, id: &str, version: &str) -> String {
        let body = format!("{{\"versionId\":\"{version}\"}}");
        self.ask("POST", &format!("/rest/workflows/{id}/activate"), Some(&body))
    }

    /// Waits until a webhook answers with a status.
    fn await_webhook(&self, path: &str, status: &str) {
        await_true("a webhook is not as it should be", || {
            stack::webhook(&self.container, path).starts_with(status)
        });
    }
}

/// Waits until n8n's webhook answers, or no more.
fn await_hook(sandbox: &Sandbox, answers: bool) {
    await_true("the webhook is not as it should be", || {
        stack::answers(sandbox) == answers
    });
}

/// A workflow that answers its webhook.
const SECOND: &str = r#"[{"id":"sqliteHook000002","name":"Second","active":false,"settings":{},"connections":{},"nodes":[{"id":"a",
"name":"Webhook","type":"n8n-nodes-base.webhook","typeVersion":2,"position":[0,0],"webhookId":"second",
"parameters":{"path":"second","responseMode":"onReceived","options":{}}}]}]"#;

/// Compares the workflows of a recovery point with n8n's own export, deletes one and brings it back, all of it while n8n works
/// with its database in SQLite, in which the workflow `active` is active.
pub fn come_back_on_sqlite(sandbox: &Sandbox, active: &str) {
    const ID: &str = "sqliteHook000002";
    let run = |args: &[&str]| {
        let call = sandbox.binary().args(args);
        call.env("BACKUP_LOCK_FILE", sandbox.lock_file()).run()
    };
    let (sandbox, container) = (sandbox, sandbox.n8n());
    let rest = Rest { sandbox, container };
    let owner = r#"{"email":"owner@example.com","firstName":"O","lastName":"W","password":"Secret-of-test-1"}"#;
    let script = "fetch('http://127.0.0.1:5999/rest/owner/setup', { method: 'POST', headers: { 'content-type': 'application/json' }, \
                  body: process.argv[1] }).then((r) => process.exit(r.ok ? 0 : 1))";
    sandbox.docker(&["exec", &rest.container, "node", "-e", script, owner]);
    sandbox.in_n8n(&format!(
        "printf '%s' '{SECOND}' >/tmp/w && n8n import:workflow --input=/tmp/w"
    ));
    sandbox.locked("backup-all", &[]).assert_success();

    let dir = sandbox.aside("x");
    fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    run(&["workflows", "export", "--to", &format!("{dir}/ours")]).assert_success();
    sandbox.in_n8n("n8n export:workflow --all --output=/tmp/theirs.json");
    sandbox.docker(&["cp", &format!("{}:/tmp/theirs.json", rest.container), dir]);
    assert_eq!(compare(sandbox, dir, "/x/ours", "/x/theirs.json"), "2 2");
    let told = run(&["credentials"]);
    assert!(
        told.stdout.contains("  opens it  ") && told.stdout.contains("  does not  "),
        "{told}"
    );

    let restore = |id: &str, args: &[&str]| run(&[&["workflows", "restore", id, "--yes"], args].concat());
    restore(active, &[]).assert_error("Workflow Hook ({}) is active now{}");
    rest.delete(ID);
    restore(ID, &[]).assert_success();
    let shown = rest.ask("GET", &format!("/rest/workflows/{ID}"), None);
    assert!(
        shown.starts_with("200 ") && shown.contains("n8n-nodes-base.webhook"),
        "{shown}"
    );
    let told = run(&["workflows", "diff", "latest"]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), ""), "{told}");
    let version = shown
        .split_once("\"versionId\":\"")
        .and_then(|(_, rest)| rest.split('"').next());
    let answer = rest.activate(ID, version.unwrap());
    assert!(answer.starts_with("200 "), "{answer}");
    rest.await_webhook("second", "200");
    // A copy beside it has a history and an owner of its own.
    restore(ID, &["--as-copy"]).assert_success();
    let all = rest.ask("GET", "/rest/workflows", None);
    assert!(all.contains("\"count\":3"), "{all}");
    rest.delete(ID);
    rest.await_webhook("second", "404");
}

/// Deletes the workflow `Hook` as its owner does, and brings it back while n8n runs.
pub fn come_back(sandbox: &Sandbox) {
    let hash = "const { createRequire } = require('module'); const bin = require('fs').realpathSync(process.argv[1]); \
                console.log(createRequire(bin)('bcryptjs').hashSync('Secret-of-test-1', 10))";
    let find = "exec node -e \"$1\" \"$(command -v n8n)\"";
    let main = sandbox.container("n8n-main");
    let rest = Rest {
        sandbox,
        container: main.clone(),
    };
    let hash = sandbox.docker(&["exec", &main, "sh", "-c", find, "sh", hash]);
    sandbox.psql(&format!(
        "UPDATE \"user\" SET password = '{}' WHERE email = 'owner@example.com'",
        hash.trim()
    ));
    let path = format!("/rest/workflows/{HOOK}");
    let restore = |args: &[&str]| {
        let dump = n8n::data("n8n.sql.gz");
        let args = [
            &["workflows", "restore", HOOK, "--from", dump.to_str().unwrap(), "--yes"],
            args,
        ]
        .concat();
        let outcome = sandbox.binary().args(&args).run();
        outcome.assert_success();
        outcome
    };
    let delete = || {
        rest.delete(HOOK);
        await_hook(sandbox, false);
    };

    delete();
    restore(&[]);
    let all = rest.ask("GET", "/rest/workflows", None);
    assert!(all.starts_with("200 ") && all.contains(HOOK), "{all}");
    let shown = rest.ask("GET", &path, None);
    assert!(shown.starts_with("200 ") && shown.contains("forty two"), "{shown}");
    let answer = rest.activate(HOOK, VERSION);
    assert!(answer.starts_with("200 "), "{answer}");
    await_hook(sandbox, true);

    // A copy is n8n's as well; on the path of the original n8n activates it no more than one that it duplicates itself.
    restore(&["--as-copy"]);
    let copy = sandbox.psql(&format!(
        "SELECT id, \"versionId\" FROM workflow_entity WHERE name = 'Hook' AND id <> '{HOOK}'"
    ));
    let (copy, version) = copy.trim().split_once('|').unwrap();
    let answer = rest.activate(copy, version);
    assert!(
        answer.starts_with("409 ") && answer.contains("conflict with one of the webhooks"),
        "{answer}"
    );
    let path_changed = "nodes = replace(nodes::text, '\"path\":\"hook\"', '\"path\":\"hook2\"')::json";
    sandbox.psql(&format!(
        "UPDATE workflow_entity SET {path_changed} WHERE id = '{copy}'; UPDATE workflow_history SET {path_changed} WHERE \"workflowId\" = '{copy}'"
    ));
    let answer = rest.activate(copy, version);
    assert!(answer.starts_with("200 "), "{answer}");
    rest.await_webhook("hook2", "200 {\"answer\":\"forty two");
    assert!(stack::answers(sandbox));

    // Activated by us, it waits until n8n looks or starts.
    rest.ask("POST", &format!("/rest/workflows/{copy}/deactivate"), Some("{}"));
    delete();
    restore(&["--activate"]).assert_log_has("workflows restore", "WARN n8n takes it up by itself{}");
    sandbox.docker(&["restart", &main, &sandbox.container("n8n-worker")]);
    stack::start(sandbox);
}

/// A copy of the recovery point `latest` on a test host, where no workflow starts.
pub fn start_none(sandbox: &Sandbox) {
    let n8n = ["n8n-main", "n8n-worker"].map(|name| sandbox.container(name));
    sandbox.docker(&["stop", &n8n[0], &n8n[1]]);
    let outcome = sandbox.run("restore-all", &["latest", "--yes", "--deactivate"]);
    outcome.assert_success();
    sandbox.docker(&["start", &n8n[0], &n8n[1]]);
    let begun = Instant::now();
    while !ready(&n8n[0]) {
        assert!(begun.elapsed() < Duration::from_secs(600), "n8n does not start");
        thread::sleep(Duration::from_secs(1));
    }
    thread::sleep(Duration::from_secs(10));
    assert!(!stack::answers(sandbox));
    let active = sandbox.psql(
        "SELECT (SELECT count(*) FROM workflow_entity WHERE active), (SELECT count(*) FROM webhook_entity), \
         (SELECT count(*) FROM workflow_entity)",
    );
    assert!(active.trim().starts_with("0|0|"), "{active}");
    assert!(!active.trim().ends_with("|0"), "{active}");
}

/// Whether n8n has started.
fn ready(container: &str) -> bool {
    let script = "fetch('http://127.0.0.1:5999/healthz/readiness', { signal: AbortSignal.timeout(9000) }).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))";
    let mut ask = Command::new("docker");
    ask.args(["exec", container, "node", "-e", script]);
    output(ask).status.success()
}

#[test]
fn workflows_come_out_of_sqlite_and_back() {
    let sandbox = on_sqlite("wf-sqlite", "A=1", HOME);
    sandbox.sql("ALTER TABLE workflow_entity ADD COLUMN extra text; ALTER TABLE workflow_entity ADD COLUMN updatedAt datetime(3)");
    sandbox.sql("UPDATE workflow_entity SET updatedAt = '2026-01-01 00:00:00.000'");
    sandbox.sql("UPDATE workflow_entity SET nodes = '[{\"name\":\"Tab\\t\\\\\"}]', extra = 'a' || char(9, 10, 92) || 'b' WHERE id = 'w3'");
    let sealed = format!("U2FsdGVkX18{}=", "A".repeat(32));
    sandbox.sql(&format!(
        "UPDATE credentials_entity SET data = '{sealed}' WHERE id = 'c0'; UPDATE credentials_entity SET data = 'AAAA' WHERE id = 'c2'"
    ));
    // More than a call takes arguments, and than should be in memory at once.
    sandbox.sql(
        "CREATE TABLE execution_data (id integer PRIMARY KEY, data text); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 \
         FROM n WHERE i < 150000) INSERT INTO execution_data SELECT i, '\"filesystem-v2:workflows/w1/one\"' FROM n",
    );
    sandbox.locked("backup-all", &[]).assert_success();
    sandbox.sql("DROP TABLE execution_data");
    let drill = sandbox.locked("test-recovery", &["--full"]);
    let told = "1 of 1 files of binary data that executions name are not in the archive";
    assert!(drill.stdout.contains(told), "{drill}");
    let run = |args: &[&str]| {
        sandbox
            .binary()
            .args(args)
            .env("BACKUP_LOCK_FILE", sandbox.lock_file())
            .run()
    };
    let listed = run(&["workflows", "--json"]);
    listed.assert_success();
    assert_eq!(listed.stdout.matches("\"active\": true").count(), 20, "{listed}");
    let credentials = run(&["credentials", "--json"]);
    let told = |text: &str| credentials.stdout.matches(text).count();
    assert_eq!(
        ["true", "false", "null"].map(|value| told(&format!("\"opens\": {value}"))),
        [3, 1, 1],
        "{credentials}"
    );
    credentials.assert_never_says(&sealed);
    let to = sandbox.aside("out");
    run(&["workflows", "export", "--to", to.to_str().unwrap(), "w3"]).assert_success();
    let text = fs::read_to_string(to.join("Flow_\u{e4}_3-w3.json")).unwrap();
    assert!(
        text.contains("\"name\": \"Tab\\t\\\\\"") && text.contains("\"extra\": \"a\\t\\n\\\\b\""),
        "{text}"
    );
    let diff = || run(&["workflows", "diff", "latest"]);
    assert_eq!((diff().code, diff().stdout.as_str()), (Some(0), ""), "{}", diff());
    // The backup is unpacked for it, on a disk that the live stack shares.
    let refused = sandbox
        .binary()
        .args(&["workflows", "diff", "latest"])
        .env("BACKUP_LOCK_FILE", sandbox.lock_file())
        .env("BACKUP_MIN_FREE_KB", "900000000000")
        .run();
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.to_string().contains("Docker's disk has "), "{refused}");

    sandbox
        .sql("DELETE FROM workflow_entity WHERE id = 'w3'; UPDATE workflow_entity SET name = 'Spoilt' WHERE id = 'w4'");
    let told = diff();
    assert_eq!(told.code, Some(1), "{told}");
    assert!(
        told.stdout.contains("removed: Flow \\u{e4} 3 (w3)") && told.stdout.contains("renamed: Spoilt (w4)"),
        "{told}"
    );
    let restore = |args: &[&str]| run(&[&["workflows", "restore", "--yes"], args].concat());
    restore(&["w3"]).assert_success();
    restore(&["w4"]).assert_error("Workflow Flow \\u{e4} 4 (w4) is active now{}");
    // Edited after the last look at it.
    let edit = "UPDATE workflow_entity SET name = 'Late', updatedAt = '2030-01-01 00:00:00.000' WHERE id = 'w4'";
    let refused = sandbox
        .binary()
        .args(&["workflows", "restore", "--yes", "w4", "--force"])
        .env("BACKUP_LOCK_FILE", sandbox.lock_file())
        .path_first(sandbox.sql_before(&format!("put {FILE}"), edit))
        .run();
    refused.assert_log_has(
        "workflows restore",
        "ERROR Cause: node failed: it has changed in n8n meanwhile{}",
    );
    assert!(diff().stdout.contains("renamed: Late (w4)"), "{}", diff());
    restore(&["w4", "--force"]).assert_success();
    let left = "deactivated: Flow \\u{e4} 3 (w3)\ndeactivated: Flow \\u{e4} 4 (w4)\n";
    assert_eq!(diff().stdout, left, "{}", diff());
    let dumped = sandbox.dump_sqlite(FILE);
    assert!(dumped.contains("a\\t\\n\\\\b"), "{dumped}");

    sandbox.sql("DELETE FROM workflow_entity WHERE id = 'w3'; ALTER TABLE workflow_entity DROP COLUMN extra");
    let before = sandbox.dump_sqlite(FILE);
    let refused = restore(&["w3"]);
    refused.assert_error("The workflow was not restored, and nothing was changed");
    refused.assert_log_has(
        "workflows restore",
        "ERROR Cause: {}lacks columns that are in the backup: workflow_entity.extra",
    );
    assert_same(&before, &sandbox.dump_sqlite(FILE));
    sandbox.sql("DELETE FROM credentials_entity WHERE id = 'c1'");
    let back = || run(&["credentials", "restore", "c1", "--yes"]);
    // What is encrypted is unchanged, and n8n has another key.
    sandbox.in_n8n("cd /home/node/.n8n; cp -p config was; echo '{\"encryptionKey\":\"another\"}' >config");
    back().assert_error("The live n8n does not have the key that the credential is encrypted under");
    sandbox.in_n8n("cd /home/node/.n8n; mv was config");
    back().assert_log_has("credentials restore", "SUCCESS Credential restored: Cred 1 (c1)");

    // Nothing is read or asked where nothing could be put back.
    sandbox.docker(&["stop", &sandbox.n8n()]);
    for outcome in [back(), restore(&["w3"])] {
        outcome.assert_error("Container {} is not running");
        outcome.assert_never_says("This will");
    }
}
