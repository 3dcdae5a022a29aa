//! Servers that are set up as people run them, beside the images' defaults.

use std::process::{Command, Stdio};

use super::*;
use crate::common::{output, skip};

/// An image of Redis with a module that has a type of its own.
const MODULE_IMAGE: &str = "n8n-backup-test/stand-in/redis-module:1";

/// An image of PostgreSQL with an extension that, as pg_cron, can be created in one database alone.
const CRON_IMAGE: &str = "n8n-backup-test/stand-in/pg-cron:1";

const CRON_CONTROL: &str = "default_version = '1'\nrelocatable = false\n";
const CRON_SQL: &str = "DO $$ BEGIN
    IF current_database() <> current_setting('cron.database_name') THEN
        RAISE EXCEPTION 'can only be created in database %', current_setting('cron.database_name');
    END IF;
END $$;
CREATE SCHEMA cron;
CREATE SEQUENCE cron.jobid_seq;
CREATE TABLE cron.job (jobid bigint PRIMARY KEY DEFAULT nextval('cron.jobid_seq'), command text);
SELECT pg_catalog.pg_extension_config_dump('cron.job', '');
SELECT pg_catalog.pg_extension_config_dump('cron.jobid_seq', '');
";

/// Builds [`CRON_IMAGE`].
fn cron_image(sandbox: &Sandbox) {
    let dir = sandbox.aside("pg-cron");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("pg_cron.control"), CRON_CONTROL).unwrap();
    fs::write(dir.join("pg_cron--1.sql"), CRON_SQL).unwrap();
    let recipe = "FROM n8n-backup-test/postgres:1\nCOPY pg_cron* /tmp/cron/\n\
                  RUN mv /tmp/cron/* \"$(dirname \"$(find / -xdev -name plpgsql.control)\")\"\n";
    fs::write(dir.join("Dockerfile"), recipe).unwrap();
    let mut build = Command::new("docker");
    build.args(["build", "-q", "-t", CRON_IMAGE]).arg(dir);
    done(build);
}

/// An image of PostgreSQL with the real pgaudit, which has to be preloaded.
const AUDIT_IMAGE: &str = "n8n-backup-test/stand-in/pgaudit:1";

/// Builds [`AUDIT_IMAGE`] from the host's package for the image's PostgreSQL; what keeps it from that.
fn audit_image(sandbox: &Sandbox) -> Result<(), String> {
    let mut make = Command::new("sh");
    make.args([
        "-euc",
        "cd \"$1\"\n\
         major=$(docker run --rm --network none --entrypoint sh n8n-backup-test/postgres:1 -c 'ls /usr/lib/postgresql')\n\
         apt-get -q download \"postgresql-$major-pgaudit\" >/dev/null 2>&1 || {\n\
           apt-get -q update\n\
           apt-get -q download \"postgresql-$major-pgaudit\"\n\
         } >&2\n\
         dpkg-deb -x postgresql-*-pgaudit_*.deb package\n\
         printf '%s\\n' 'FROM n8n-backup-test/postgres:1' 'COPY package/usr /usr' >Dockerfile\n\
         docker build -q -t \"$2\" . >&2",
        "sh",
    ]);
    let dir = sandbox.aside("pgaudit");
    fs::create_dir_all(&dir).unwrap();
    let made = output({
        make.arg(dir).arg(AUDIT_IMAGE);
        make
    });
    match made.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&made.stderr).into_owned()),
    }
}

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
fn redis_by_tls_alone_with_a_module_and_postgres_with_pg_cron_come_back() {
    let sandbox = bare("shape-tls");
    cron_image(&sandbox);
    module_and_certificate(&sandbox);
    let redis = REDIS.replace("n8n-backup-test/redis:1", MODULE_IMAGE).replace(
        "'--port', '6386'",
        "'--port', '0', '--tls-port', '6386', '--tls-cert-file', '/tls/cert.pem', '--tls-key-file', '/tls/key.pem', \
         '--tls-ca-cert-file', '/tls/cert.pem', '--tls-auth-clients', 'no', '--appendonly', 'yes', \
         '--loadmodule', '/modules/counter.so', 'strict'",
    );
    let redis = format!("{redis}    volumes: ['./tls:/tls:ro']\n");
    let postgres = POSTGRES.replace("n8n-backup-test/postgres:1", CRON_IMAGE).replace(
        "    shm_size",
        "    command: ['postgres', '-c', 'cron.database_name=flows']\n    shm_size",
    );
    sandbox.compose_file(&format!(
        "{postgres}{redis}{}",
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
    sandbox.psql("CREATE EXTENSION pg_cron; INSERT INTO cron.job (command) VALUES ('VACUUM')");
    let rows = || sandbox.psql("SELECT count(*) FROM execution_entity");
    let held = || {
        [
            redis(&["counter.get", "jobs"]),
            redis(&["get", "plain"]),
            redis(&["dbsize"]),
            rows(),
        ]
        .concat()
    };
    assert!(held().starts_with("41\ntext\n2\n"), "{}", held());
    full_circle(&sandbox, 5, &held, &|| {
        redis(&["flushall"]);
        sandbox.psql("DELETE FROM execution_entity WHERE id % 2 = 0");
    });
    assert!(redis(&["config", "get", "appendonly"]).contains("yes"));
    // It is made again by hand, as the log says.
    let log = fs::read_to_string(sandbox.path("logs/backup.log")).unwrap();
    assert!(log.contains("pg_cron and its jobs are left out"), "{log}");
    assert_eq!(
        sandbox
            .psql("SELECT count(*) FROM pg_extension WHERE extname = 'pg_cron'")
            .trim(),
        "0"
    );
    sandbox.psql("CREATE EXTENSION pg_cron");
    // A user who may not list modules: the arguments of the server name them.
    redis(&[
        "acl",
        "setuser",
        "saver",
        "on",
        ">let me in",
        "~*",
        "&*",
        "+@all",
        "-module",
    ]);
    sandbox.set("BACKUP_REDIS_USER", "saver");
    sandbox.set("BACKUP_REDIS_PASSWORD", "let me in");
    run(&sandbox, "backup-redis", &[]).assert_success();
    run(&sandbox, "test-recovery", &["--redis"]).assert_success();
    // Where neither tells them, that is no fault of the snapshot.
    let point = sandbox.backups("sets").pop().unwrap();
    let told = fs::read_to_string(&point).unwrap();
    assert!(told.contains("redis.modules: /modules/counter.so strict"), "{told}");
    let untold = told.lines().filter(|line| !line.contains("redis.modules"));
    fs::write(&point, untold.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let outcome = run(&sandbox, "test-recovery", &["--redis"]);
    assert_eq!(outcome.code, Some(2), "{outcome}");
    assert!(!fs::read_to_string(&point).unwrap().contains("failed redis"));
}

#[test]
fn postgres_with_pgaudit_comes_back() {
    let sandbox = bare("shape-audit");
    if let Err(why) = audit_image(&sandbox) {
        return skip("stacks::servers::postgres_with_pgaudit_comes_back", &why);
    }
    let postgres = POSTGRES.replace("n8n-backup-test/postgres:1", AUDIT_IMAGE).replace(
        "    shm_size",
        "    command: ['postgres', '-c', 'shared_preload_libraries=pgaudit', '-c', 'pgaudit.log=write']\n    shm_size",
    );
    sandbox.compose_file(&format!("{postgres}{}", n8n("n8n", "start", ON_POSTGRES, HOME)));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    sandbox.psql("CREATE EXTENSION pgaudit; ALTER DATABASE flows SET pgaudit.log = 'ddl'");
    let held = || {
        sandbox.psql(
            "SELECT count(*) FROM execution_entity; SELECT extname FROM pg_extension ORDER BY 1; \
             SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'flows' \
             ORDER BY 1",
        )
    };
    assert!(
        held().contains("pgaudit\n") && held().contains("pgaudit.log=ddl"),
        "{}",
        held()
    );
    full_circle(&sandbox, 4, &held, &|| {
        sandbox.psql("DELETE FROM execution_entity WHERE id % 2 = 0");
    });
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
        "CREATE TABLE workflow_entity AS SELECT id, id::text AS name, '[]'::json AS nodes, '{}'::json AS connections \
         FROM generate_series(1, 5) id; CREATE TABLE migrations AS SELECT 1 AS id",
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
    let same = binary(&sandbox, &["workflows", "diff", &dump]);
    assert_eq!(same.code, Some(0), "{same}");
    let outcome = run(&sandbox, "restore-postgres", &["--yes", &dump]);
    outcome.assert_error("PostgreSQL user app may not restore: {}");
    assert!(outcome.log.contains("ALTER ROLE \"app\" CREATEDB;"), "{outcome}");
    outcome.assert_never_says("its own");

    psql("n8n", "postgres", "ALTER ROLE app CREATEDB");
    // What only a superuser can do is told before anything is loaded.
    let refused = |reason: &str| {
        let outcome = run(&sandbox, "restore-postgres", &["--yes", &dump]);
        outcome.assert_error(reason);
        assert!(outcome.log.contains("BACKUP_POSTGRES_USER"), "{outcome}");
        assert!(!outcome.log.contains("Restoring database"), "{outcome}");
    };
    let mut other = Command::new("docker");
    let session = "postgresql://n8n@127.0.0.1:5433/flows?application_name=exporter";
    other.args(["exec", &sandbox.container("postgres"), "psql", "-Xq", session]);
    let mut other = other
        .args(["-c", "SELECT pg_sleep(600)"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'exporter'";
    await_true("no session", || psql("n8n", "postgres", there) == "1\n");
    refused("exporter as user n8n is connected to flows, and PostgreSQL user app may not end that session, {}");
    psql(
        "n8n",
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'exporter'",
    );
    other.wait().unwrap();

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

    let watch = "CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS $x$ BEGIN END $x$; \
                 CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION public.watch()";
    psql("n8n", "flows", watch);
    run(&sandbox, "backup-postgres", &[]).assert_success();
    let dump = sandbox.backups("postgres").pop().unwrap().display().to_string();
    let outcome = run(&sandbox, "restore-postgres", &["--yes", &dump]);
    outcome.assert_error("The dump holds event triggers (watches), which only a superuser may create, {}");
    psql("n8n", "flows", "CREATE TABLE secrets AS SELECT 1 AS id; ALTER TABLE secrets ENABLE ROW LEVEL SECURITY; GRANT SELECT ON secrets TO app");
    let outcome = run(&sandbox, "backup-postgres", &[]);
    outcome.assert_error("pg_dump failed");
    assert!(outcome.log.contains("affected by row-level security"), "{outcome}");
    assert!(outcome.log.contains("BACKUP_POSTGRES_USER"), "{outcome}");
    psql("n8n", "flows", "REVOKE SELECT ON secrets FROM app");
    let outcome = run(&sandbox, "backup-postgres", &[]);
    assert!(outcome.log.contains("permission denied for table secrets"), "{outcome}");
    assert!(outcome.log.contains("BACKUP_POSTGRES_USER"), "{outcome}");
}

#[test]
fn a_redis_whose_data_lie_on_no_volume_is_told_before_anything_is_replaced() {
    let sandbox = bare("shape-tmpfs");
    let redis = REDIS.replace("'--port'", "'--dir', '/ram', '--port'") + "    tmpfs: ['/ram:mode=1777']\n";
    let environment = format!("{ON_POSTGRES}, {QUEUE}, N8N_ENCRYPTION_KEY={KEY}");
    sandbox.compose_file(&format!("{POSTGRES}{redis}{}", n8n("n8n", "start", &environment, HOME)));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-redis", sandbox.prefix()]));
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    let reason = format!(
        "Redis keeps its data in /ram, which lies on no volume of {}",
        sandbox.container("redis")
    );
    let setup = binary(&sandbox, &["setup"]);
    assert!(setup.stdout.contains(&format!("WARN redis: {reason}")), "{setup}");
    let held = || [sandbox.fingerprint_postgres(), sandbox.fingerprint_volume()].concat();
    let before = without_database(&held());
    run(&sandbox, "backup-all", &[]).assert_success();

    sandbox.psql("DROP TABLE credentials_entity CASCADE");
    let damaged = held();
    let running = || {
        sandbox.docker(&[
            "inspect",
            "--format",
            "{{.State.StartedAt}}",
            &format!("{}_n8n_1", sandbox.prefix()),
        ])
    };
    let began = running();
    let refused = run(&sandbox, "restore-all", &["--yes", "latest"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(
        refused.log.contains(&reason) && refused.log.contains("--skip redis"),
        "{refused}"
    );
    assert_eq!((held(), running()), (damaged, began), "something was touched");
    run(&sandbox, "restore-all", &["--yes", "--skip", "redis", "latest"]).assert_success();
    assert_same(&before, &without_database(&held()));
}
