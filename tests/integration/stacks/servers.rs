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
