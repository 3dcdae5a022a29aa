//! The commands of docs/updates.md, word for word, on a real n8n: to another image of n8n and another PostgreSQL, and back.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::page::{blocks, shell};
use crate::common::{await_true, done, n8n, output, Sandbox};
use crate::stack::{fill, image};

const PAGE: &str = include_str!("../../docs/updates.md");
/// A newer PostgreSQL, where it was built.
const NEWER: &str = "n8n-backup-test/postgres:17";

const SERVICES: &str = "  postgres:
    image: {postgres}
    container_name: {prefix}-postgres
    {labels}
    environment: {POSTGRES_USER: n8n, POSTGRES_DB: n8n}
    volumes: ['{data}:/var/lib/postgresql/data']
    stop_signal: SIGINT
  n8n:
    image: {n8n}
    container_name: {prefix}-n8n-main
    {labels}
    environment: [DB_TYPE=postgresdb, DB_POSTGRESDB_HOST=postgres, DB_POSTGRESDB_DATABASE=n8n, DB_POSTGRESDB_USER=n8n,
      N8N_ENV_FEAT_ENCRYPTION_KEY_ROTATION=true, N8N_DIAGNOSTICS_ENABLED=false, N8N_PORT=5999]
    volumes: ['n8n_data:/home/node/.n8n']
    stop_grace_period: 5s
";

/// An operator who types the page's commands.
struct Operator<'a> {
    sandbox: &'a Sandbox,
    docker: PathBuf,
    n8n: String,
}

impl<'a> Operator<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        // The plug-in need not be there; and what is pulled is here.
        let docker = sandbox.stand_in_docker(&format!(
            "case $1 in compose) shift; exec docker-compose --project-name {} \"$@\" ;; \
             pull) exec \"$real\" image inspect --format '{{{{.Id}}}}' \"$2\" ;; esac",
            sandbox.prefix()
        ));
        let n8n = format!("{}/n8n:2.41.0", sandbox.prefix());
        Self { sandbox, docker, n8n }
    }

    fn compose_file(&self, n8n: &str, postgres: &str, data: &str) {
        let services = SERVICES.replace("{n8n}", n8n).replace("{postgres}", postgres);
        self.sandbox.compose_file(&services.replace("{data}", data));
    }

    fn types(&self, block: &str, stamp: &str) -> String {
        let block = block
            .replace("n8nio/n8n:2.41.0", &self.n8n)
            .replace(" postgres:17", &format!(" {NEWER}"))
            .replace("YYYYMMDD_HHMMSS", stamp);
        done(shell(&block, self.sandbox.dir(), &self.docker))
    }

    /// The newest point.
    fn stamp(&self) -> String {
        crate::common::name(self.sandbox.backups("sets").last().unwrap()).replace(".sha256", "")
    }

    /// Waits until n8n's webhook answers.
    fn await_n8n(&self) {
        let script = "fetch('http://127.0.0.1:5999/webhook/hook', { signal: AbortSignal.timeout(9000) }).then((r) => r.text()).then(console.log, () => {})";
        let begun = Instant::now();
        loop {
            let mut ask = Command::new("docker");
            ask.args(["exec", &self.sandbox.container("n8n-main"), "node", "-e", script]);
            if String::from_utf8_lossy(&output(ask).stdout).contains("\"answer\":\"forty two") {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(600), "n8n does not answer");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn migrations(&self) -> String {
        self.sandbox.psql("SELECT count(*) FROM migrations").trim().to_owned()
    }
}

/// Waits until PostgreSQL lets clients in.
fn await_postgres(sandbox: &Sandbox) {
    await_true("PostgreSQL does not answer", || {
        let mut ask = Command::new("docker");
        let container = sandbox.container("postgres");
        ask.args([
            "exec",
            &container,
            "psql",
            "-h",
            "127.0.0.1",
            "-U",
            "n8n",
            "-d",
            "n8n",
            "-c",
            "SELECT 1",
        ]);
        output(ask).status.success()
    });
}

#[test]
fn the_page_leads_there_and_back() {
    let sandbox = Sandbox::new("nupdates").containers().no_env_file().build();
    sandbox.set("BACKUP_LOCK_FILE", &sandbox.lock_file().to_string_lossy());
    let operator = Operator::new(&sandbox);
    let old = format!("{}/n8n:2.40.7", sandbox.prefix());
    for name in [&old, &operator.n8n] {
        sandbox.docker(&["tag", image(), name]);
    }
    operator.compose_file(&old, "n8n-backup-test/postgres:1", "pg_data");
    sandbox.compose(&["up", "--no-start"]);
    sandbox.compose(&["start", "postgres"]);
    await_postgres(&sandbox);
    n8n::load(&sandbox);
    fill(&sandbox);
    // As the version before the newest migration left it, which makes an index.
    let index = sandbox.psql("SELECT indexname FROM pg_indexes WHERE tablename = 'instance_ai_threads' AND indexdef LIKE '%\"updatedAt\", id)'");
    sandbox.psql(&format!(
        "DROP INDEX \"{}\"; DELETE FROM migrations WHERE id = 270",
        index.trim()
    ));

    let steps = blocks(PAGE, "n8n");
    let [before, update, back] = steps.as_slice() else {
        panic!("{steps:?}")
    };
    let said = operator.types(before, "");
    assert!(
        said.contains("migrated the recovered database from 269 to 270 migrations"),
        "{said}"
    );
    assert_eq!(operator.migrations(), "269");
    let stamp = operator.stamp();
    operator.compose_file(&operator.n8n, "n8n-backup-test/postgres:1", "pg_data");
    operator.types(update, &stamp);
    operator.await_n8n();
    assert_eq!(operator.migrations(), "270");
    sandbox.psql("CREATE TABLE made_by_the_newer_one ()");
    operator.compose_file(&old, "n8n-backup-test/postgres:1", "pg_data");
    let said = operator.types(back, &stamp);
    assert!(said.contains("Full restore completed"), "{said}");
    assert_eq!(sandbox.psql("SELECT to_regclass('made_by_the_newer_one')").trim(), "");
    let used = sandbox.docker(&[
        "inspect",
        "--format",
        "{{.Config.Image}}",
        &sandbox.container("n8n-main"),
    ]);
    assert_eq!(used.trim(), old);
    operator.await_n8n();

    let mut look = Command::new("docker");
    look.args(["image", "inspect", NEWER]);
    if output(look).status.success() {
        to_a_newer_postgres(&operator, &old);
    } else {
        crate::common::skip("updates: PostgreSQL 17", &format!("{NEWER} is not here"));
    }
    sandbox.compose(&["down"]);
    for name in [&old, &operator.n8n] {
        sandbox.docker(&["rmi", name]);
    }
}

fn to_a_newer_postgres(operator: &Operator<'_>, n8n: &str) {
    let sandbox = operator.sandbox;
    let version = || sandbox.psql("SHOW server_version_num").trim().to_owned();
    let rows = || sandbox.psql("SELECT count(*), sum(length(data)) FROM credentials_entity");
    let steps = blocks(PAGE, "PostgreSQL");
    let [before, update, back] = steps.as_slice() else {
        panic!("{steps:?}")
    };
    let (was, held) = (version(), rows());
    let said = operator.types(before, "");
    assert!(said.contains("Recovery test passed: full"), "{said}");
    operator.compose_file(n8n, NEWER, "./postgres-17");
    let said = operator.types(update, "");
    assert!(said.contains("Full restore completed"), "{said}");
    operator.await_n8n();
    assert!(version().starts_with("17"), "{}", version());
    assert_eq!(rows(), held);
    operator.compose_file(n8n, "n8n-backup-test/postgres:1", "pg_data");
    operator.types(back, "");
    await_postgres(sandbox);
    assert_eq!(version(), was);
    operator.await_n8n();
}
