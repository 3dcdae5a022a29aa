//! Servers that are set up as people run them, beside the images' defaults.

use std::process::Command;

use super::*;
use crate::common::output;

/// An image of Redis with a module that has a type of its own.
const MODULE_IMAGE: &str = "n8n-backup-test/stand-in/redis-module:1";

/// Builds [`MODULE_IMAGE`], and the certificate of a server.
fn module_and_certificate(sandbox: &Sandbox) {
    let mut make = Command::new("sh");
    make.args([
        "-euc",
        "mkdir -p \"$1\" \"$2\"\n\
         cc -shared -fPIC -O1 -o \"$1/counter.so\" \"$3\"\n\
         printf 'FROM n8n-backup-test/redis:1\\nCOPY counter.so /modules/counter.so\\n' >\"$1/Dockerfile\"\n\
         docker build -q -t \"$4\" \"$1\"\n\
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=cache \
         -keyout \"$2/key.pem\" -out \"$2/cert.pem\"\n\
         chmod 755 \"$2\"; chmod 644 \"$2/key.pem\"",
        "sh",
    ]);
    make.args([&sandbox.aside("module"), &sandbox.path("tls")]);
    make.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stack/redis-module.c"));
    done({
        make.arg(MODULE_IMAGE);
        make
    });
}

#[test]
fn a_redis_that_listens_by_tls_alone_and_has_a_module_comes_back() {
    let sandbox = bare("shape-tls");
    module_and_certificate(&sandbox);
    let redis = REDIS.replace("n8n-backup-test/redis:1", MODULE_IMAGE).replace(
        "'--port', '6386'",
        "'--port', '0', '--tls-port', '6386', '--tls-cert-file', '/tls/cert.pem', '--tls-key-file', '/tls/key.pem', \
         '--tls-ca-cert-file', '/tls/cert.pem', '--tls-auth-clients', 'no', '--appendonly', 'yes', \
         '--loadmodule', '/modules/counter.so', 'strict'",
    );
    let redis = format!("{redis}    volumes: ['./tls:/tls:ro']\n");
    sandbox.compose_file(&format!(
        "{POSTGRES}{redis}{}",
        n8n(
            "n8n",
            "start",
            &format!("{ON_POSTGRES}, {QUEUE}, QUEUE_BULL_REDIS_TLS=true"),
            HOME
        )
    ));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    let redis = |args: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["exec", "-e", "REDISCLI_AUTH=let me in", &sandbox.container("redis")]);
        command.args(["redis-cli", "-p", "6386", "--tls", "--insecure"]);
        command.args(args);
        String::from_utf8(output(command).stdout).unwrap()
    };
    await_true("Redis does not answer by TLS", || redis(&["ping"]) == "PONG\n");
    redis(&["counter.set", "jobs", "41"]);
    redis(&["set", "plain", "text"]);
    let held = || {
        [
            redis(&["counter.get", "jobs"]),
            redis(&["get", "plain"]),
            redis(&["dbsize"]),
        ]
        .concat()
    };
    assert_eq!(held(), "41\ntext\n2\n");
    full_circle(&sandbox, 5, &held, &|| drop(redis(&["flushall"])));
    assert!(redis(&["config", "get", "appendonly"]).contains("yes"));
}

#[test]
fn a_role_that_owns_the_database_logs_in_by_tcp_where_the_socket_lets_nobody_in() {
    let sandbox = bare("shape-peer");
    let postgres = POSTGRES
        .replace("POSTGRES_USER: root, POSTGRES_DB: flows, SEED: '1', ", "")
        .replace("    shm_size", "    command: ['postgres', '-p', '5433']\n    shm_size");
    let environment = "DB_TYPE=postgresdb, DB_POSTGRESDB_HOST=database, DB_POSTGRESDB_PORT=5433, \
                       DB_POSTGRESDB_DATABASE=flows, DB_POSTGRESDB_USER=app, 'DB_POSTGRESDB_PASSWORD=its own'";
    sandbox.compose_file(&format!("{postgres}{}", n8n("n8n", "start", environment, HOME)));
    sandbox.compose(&["up", "-d"]);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    let psql = |user: &str, database: &str, sql: &str| {
        let target = format!("postgresql://{user}:its%20own@127.0.0.1:5433/{database}");
        let mut command = Command::new("docker");
        command.args([
            "exec",
            &sandbox.container("postgres"),
            "psql",
            "-XAtq",
            &target,
            "-c",
            sql,
        ]);
        String::from_utf8(output(command).stdout).unwrap()
    };
    await_true("PostgreSQL does not answer", || {
        psql("n8n", "postgres", "SELECT 1") == "1\n"
    });
    psql("n8n", "postgres", "CREATE ROLE app LOGIN PASSWORD 'its own'");
    psql("n8n", "postgres", "CREATE DATABASE flows OWNER app");
    psql(
        "app",
        "flows",
        "CREATE TABLE workflow_entity AS SELECT generate_series(1, 5) AS id; CREATE TABLE migrations AS SELECT 1 AS id",
    );
    let rules =
        "printf 'local all all peer\\nhost all n8n 127.0.0.1/32 trust\\nhost all all 127.0.0.1/32 scram-sha-256\\n' \
                 >\"$PGDATA/pg_hba.conf\"; kill -HUP 1";
    sandbox.docker(&["exec", &sandbox.container("postgres"), "sh", "-c", rules]);
    await_true("the server does not read its rules again", || {
        let mut psql = Command::new("docker");
        psql.args([
            "exec",
            &sandbox.container("postgres"),
            "psql",
            "-wp",
            "5433",
            "-U",
            "n8n",
            "-c",
            "",
        ]);
        !output(psql).status.success()
    });

    let outcome = binary(&sandbox, &["setup"]);
    assert!(outcome.stdout.contains("app"), "{outcome}");
    run(&sandbox, "backup-postgres", &[]).assert_success();
    let dump = sandbox.backup("postgres").display().to_string();
    let outcome = run(&sandbox, "restore-postgres", &["--yes", &dump]);
    outcome.assert_error("PostgreSQL user app may not restore: {}");
    assert!(outcome.log.contains("ALTER ROLE \"app\" CREATEDB;"), "{outcome}");
    outcome.assert_never_says("its own");

    psql("n8n", "postgres", "ALTER ROLE app CREATEDB");
    let held = || {
        psql(
            "app",
            "flows",
            "SELECT id, tableowner FROM workflow_entity, pg_tables WHERE schemaname = 'public' ORDER BY 1, 2",
        )
    };
    full_circle(&sandbox, 4, &held, &|| {
        drop(psql("app", "flows", "DELETE FROM workflow_entity WHERE id > 2"))
    });
}
