//! The commands of docs/recovery.md, word for word, after each loss that it is for.

use std::fs;

use crate::common::page::{blocks, compose, shell};
use crate::common::{assert_same, has_program, sh, skip, Sandbox};

const PAGE: &str = include_str!("../../docs/recovery.md");

/// An operator at the sandbox's project directory, with backups of one stamp.
struct Operator<'a> {
    sandbox: &'a Sandbox,
    docker: std::path::PathBuf,
    stamp: String,
}

impl<'a> Operator<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        Self {
            sandbox,
            docker: compose(sandbox),
            stamp: crate::common::name(sandbox.backups("sets").last().unwrap()).replace(".sha256", ""),
        }
    }

    /// Types a block of commands, with the names of this stack, and gives what was said.
    fn types(&self, block: &str) -> String {
        let names = block
            .replace("YYYYMMDD_HHMMSS", &self.stamp)
            .replace("n8n-postgres", &self.sandbox.container("postgres"))
            .replace("n8n_postgres_data", &format!("{}_postgres_data", self.sandbox.prefix()));
        crate::common::done(shell(&names, self.sandbox.dir(), &self.docker))
    }
}

#[test]
fn a_row_a_table_a_database_redis_and_the_volume_come_back() {
    let sandbox = Sandbox::new("rbloss").kept().stack().n8n().seeded().build();
    // One of the seed's keeps rows of workflow_entity from being deleted.
    sandbox.psql("DO $$ DECLARE p name; BEGIN FOR p IN SELECT pubname FROM pg_publication LOOP EXECUTE format('DROP PUBLICATION %I', p); END LOOP; END $$");
    sandbox.run("backup-all", &[]).assert_success();
    let operator = Operator::new(&sandbox);
    let database = sandbox.fingerprint_postgres();

    let one = blocks(PAGE, "One table, or a few rows");
    let [side, table, end] = one.as_slice() else {
        panic!("{one:?}")
    };
    let id = sandbox.psql(
        "SELECT w.id FROM workflow_entity w JOIN workflows_tags t ON t.\"workflowId\" = w.id \
         WHERE w.\"activeVersionId\" IS NULL AND NOT w.active ORDER BY 1 LIMIT 1",
    );
    let id = id.trim();
    assert!(!id.is_empty());
    let its = || {
        ["workflow_history", "shared_workflow", "workflows_tags"].iter().fold(
            sandbox.psql(&format!("SELECT * FROM workflow_entity WHERE id = '{id}'")),
            |all, table| all + &sandbox.psql(&format!("SELECT * FROM {table} WHERE \"workflowId\" = '{id}'")),
        )
    };
    let before = its();
    sandbox.psql(&format!(
        "BEGIN; DELETE FROM workflow_entity WHERE id = '{id}'; DELETE FROM workflow_history WHERE \"workflowId\" = '{id}'; COMMIT"
    ));
    assert_eq!(its(), "");
    operator.types(
        &blocks(PAGE, "One workflow")[0]
            .replace("--find TEXT", "")
            .replace("WORKFLOW_ID", id),
    );
    assert_eq!(its(), before);
    let settings = sandbox.psql("SELECT * FROM settings ORDER BY 1");
    sandbox.psql("DROP TABLE settings");
    operator.types(side);
    operator.types(table);
    operator.types(end);
    assert_eq!(its(), before);
    assert_eq!(sandbox.psql("SELECT * FROM settings ORDER BY 1"), settings);
    assert_eq!(sandbox.databases(), ["n8n"]);

    sandbox.psql_in("postgres", "DROP DATABASE n8n WITH (FORCE)");
    operator.types(blocks(PAGE, "The database")[0]);
    let contents = |text: &str| -> String {
        let lines = text.split_inclusive('\n').filter(|line| !line.starts_with("database|"));
        lines.collect()
    };
    assert_same(&contents(&database), &contents(&sandbox.fingerprint_postgres()));

    let saved = sandbox.fingerprint_redis();
    sandbox.redis(&["flushall"]);
    let redis = blocks(PAGE, "Redis");
    operator.types(redis[0]);
    assert_same(&saved, &sandbox.fingerprint_redis());
    operator.types(redis[1]);
    assert_eq!(sandbox.redis(&["keys", "bull:*"]).trim(), "");

    let saved = sandbox.fingerprint_volume();
    let lose = "rm -rf /home/node/.n8n/* && echo new >/home/node/.n8n/config";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", lose]);
    operator.types(blocks(PAGE, "The n8n volume")[0]);
    assert_same(&saved, &sandbox.fingerprint_volume());
}

#[test]
fn a_lost_key_comes_back_from_what_still_holds_it() {
    if !has_program("openssl") {
        return skip("runbook::a_lost_key", "openssl is missing");
    }
    let key = sh(
        "\"$1\" key",
        &[crate::common::repository().join("tests/stack/stack.sh").as_os_str()],
    );
    let key = key.trim();
    let sandbox = Sandbox::new("rbkey")
        .kept()
        .stack()
        .n8n()
        .seeded()
        .env("N8N_ENCRYPTION_KEY", key)
        .env("POSTGRES_PASSWORD", "x")
        .build();
    sandbox.run("backup-all", &[]).assert_success();
    let operator = Operator::new(&sandbox);

    // Both places get another key, as of an n8n that found nothing.
    let env = fs::read_to_string(sandbox.path(".env")).unwrap();
    sandbox.write(".env", env.replace(key, "another key"));
    let lose = "printf '{\"encryptionKey\": \"another key\"}' >/home/node/.n8n/config";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", lose]);
    sandbox.run("backup-all", &[]).assert_success();
    let proven = |code: i32, said: &str| {
        let outcome = sandbox.run("test-recovery", &["--postgres"]);
        assert!(
            outcome.code == Some(code) && outcome.stdout.contains(said),
            "{said}: {outcome}"
        );
    };
    proven(1, "20 cannot be decrypted");

    let section = blocks(PAGE, "The key");
    let [look, bring] = section.as_slice() else {
        panic!("{section:?}")
    };
    let said = operator.types(look);
    assert_eq!(said.matches(key).count(), 2, "{said}");
    assert!(
        said.contains("Decrypted 20 of 20 credentials with the backed-up key"),
        "{said}"
    );
    operator.types(bring);
    assert_eq!(fs::read_to_string(sandbox.path(".env")).unwrap(), env);
    let config = ["exec", &sandbox.container("n8n-main"), "cat", "/home/node/.n8n/config"];
    assert!(sandbox.docker(&config).contains(key));
    sandbox.run("backup-all", &[]).assert_success();
    proven(0, "Decrypted 20 of 20 credentials with the backed-up key");
}

#[test]
fn the_server_gets_another_major_version() {
    let sandbox = Sandbox::new("rbmajor")
        .kept()
        .stack()
        .n8n()
        .seeded()
        .env("POSTGRES_PASSWORD", "x")
        .build();
    sandbox.psql("CREATE ROLE somebody; ALTER TABLE settings OWNER TO somebody");
    sandbox.run("backup-all", &[]).assert_success();
    let operator = Operator::new(&sandbox);
    let contents = || -> String {
        let text = sandbox.fingerprint_postgres();
        let lines = text.split_inclusive('\n').filter(|line| !line.starts_with("database|"));
        lines.collect()
    };
    let before = contents();

    // A dump of a newer server: said, and loaded as far as this one knows what is in it.
    let forged = |change: &dyn Fn(String) -> String| {
        let path = sandbox.path("newer.sql.gz");
        let dump = sandbox.backup("postgres");
        let text = sh("gzip -dc -- \"$1\"", &[dump.as_os_str()]);
        let version = text
            .lines()
            .find(|line| line.starts_with("-- Dumped from database version "))
            .unwrap();
        let text = change(text.replace(version, "-- Dumped from database version 99.1"));
        fs::write(path.with_extension(""), text).unwrap();
        sh("gzip -f -- \"$1\"", &[path.with_extension("").as_os_str()]);
        path.display().to_string()
    };
    let warning = "WARN The dump was made from PostgreSQL 99 and the server is {}";
    let outcome = sandbox.run("restore-postgres", &["--trust-dump", &forged(&|text| text)]);
    outcome.assert_success().assert_log_has("restore-postgres", warning);
    assert_same(&before, &contents());
    let end = "-- PostgreSQL database dump complete";
    let newer = forged(&|text| {
        let table = "CREATE TABLE public.newer (a integer, b integer GENERATED ALWAYS AS (a * 2) VIRTUAL);";
        // The same words stand in its data.
        let (before, after) = text.rsplit_once(end).unwrap();
        format!("{before}{table}\n\n--\n{end}{after}")
    });
    let outcome = sandbox.run("restore-postgres", &["--trust-dump", &newer]);
    outcome.assert_error("Database restore failed");
    outcome.assert_log_has("restore-postgres", warning);
    assert!(outcome.log.contains("syntax error"), "{outcome}");
    assert_same(&before, &contents());
    fs::remove_file(newer).unwrap();

    // A volume of another version: the server does not start on it.
    let postgres = sandbox.container("postgres");
    let version = "cd /var/lib/postgresql/data && echo 99 >PG_VERSION";
    sandbox.docker(&["exec", &postgres, "sh", "-c", version]);
    sandbox.docker(&["stop", &postgres]);
    let outcome = sandbox.run("restore-all", &["latest"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(
        outcome.log.contains("database files are incompatible with server"),
        "{outcome}"
    );
    assert!(!sandbox.path("backups/.restore").exists());
    let repair = format!("{}_postgres_data:/v", sandbox.prefix());
    let mut run = vec![
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &repair,
        "n8n-backup-test/busybox:1",
    ];
    let script = "v=$(cat /v/base/1/PG_VERSION) && echo $v >/v/PG_VERSION";
    run.extend(["sh", "-c", script]);
    sandbox.docker(&run);
    sandbox.docker(&["start", &postgres]);

    // As the page has it, to the same version here.
    let said = operator.types(blocks(PAGE, "Another major version of PostgreSQL")[0]);
    assert!(said.contains("Full restore completed"), "{said}");
    assert_same(&before, &contents());
}
