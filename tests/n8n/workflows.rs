//! Exports and restores of workflows, judged by n8n itself.

use std::fs;
use std::process::Command;

use crate::common::{done, n8n, sh, Sandbox};
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

    let compare = |one: &str, other: &str| {
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
        done(command)
    };
    cli(
        &sandbox,
        "n8n",
        dir,
        &["export:workflow", "--all", "--output=/x/theirs.json"],
    );
    assert_eq!(compare("/x/ours", "/x/theirs.json").trim(), "3 3");

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
        compare("/x/ours", "/x/again.json").trim(),
        "3 3 active activeVersionId shared versionId"
    );
}
