//! Dumps of which nobody knows where they are from, and what they may do.

use std::fs;
use std::path::Path;

use super::{before_end, case, dump_of, edited, few_or_many, restore, staged_databases, trusted_restore};
use crate::common::{assert_same, await_true, Outcome, Sandbox};

/// A dump is a program; what it must not reach is refused before anything is loaded.
#[test]
fn what_acts_outside_of_the_database_is_refused() {
    let sandbox = Sandbox::new("outside").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let databases = sandbox.databases();
    for statement in [
        "COPY settings FROM PROGRAM 'touch /tmp/planted; echo';",
        "COPY settings TO PROGRAM 'touch /tmp/planted';",
        "COPY settings FROM '/etc/passwd';",
        "DROP DATABASE IF EXISTS n8n WITH (FORCE); SELECT 1/0;",
        "drop -- x\n database n8n;",
        "ALTER DATABASE n8n RENAME TO gone;",
        "ALTER SYSTEM SET archive_command = 'touch /tmp/planted';",
        "CREATE ROLE intruder SUPERUSER LOGIN;",
        "REASSIGN OWNED BY n8n TO intruder;",
        "COMMENT ON DATABASE n8n IS 'intruded';",
        "GRANT ALL ON DATABASE n8n TO pg_monitor;",
        "COMMENT ON ROLE n8n IS 'intruded';",
    ] {
        case(statement, || {
            let path = edited(&sandbox, &dump, "outside.sql.gz", |text| before_end(&text, statement));
            restore(&sandbox, &path)
                .assert_error("The dump holds a statement that acts outside of its database (line {}): {}");
        });
    }
    assert_eq!(sandbox.databases(), databases);
    assert_same(&before, &sandbox.fingerprint_postgres());
    assert_nothing_planted(&sandbox);
}

/// A dump's functions run with the rights of whoever loads it; of a stranger's dump, that is a role that may do nothing else.
#[test]
fn what_a_strangers_dump_does_in_the_dark_is_refused_by_the_server() {
    let sandbox = Sandbox::new("stranger").postgres().seeded().build();
    // What only a superuser can make.
    sandbox.psql("DROP EVENT TRIGGER zz_ignore; DROP PUBLICATION n8n_changes");
    let dump = dump_of(&sandbox);
    sandbox.psql("CREATE ROLE \"n8n app\" LOGIN; ALTER TABLE settings OWNER TO \"n8n app\"; CREATE ROLE reader; GRANT SELECT ON settings TO reader");
    let roles = "SELECT string_agg(rolname || rolsuper || rolcanlogin, ',' ORDER BY rolname) FROM pg_roles";
    let server = || (sandbox.psql(roles), sandbox.databases(), sandbox.fingerprint_postgres());
    let before = server();
    let hidden = |statement: &str| {
        format!(
            "DO $x$ BEGIN EXECUTE convert_from('\\x{}', 'UTF8'); END $x$;",
            hex(statement)
        )
    };
    let statements = [
        hidden("COPY settings TO PROGRAM 'touch /tmp/planted'"),
        hidden("COPY settings TO '/tmp/planted'"),
        hidden("CREATE ROLE intruder SUPERUSER LOGIN"),
        hidden("ALTER ROLE n8n PASSWORD 'x'"),
        hidden("ALTER DATABASE n8n RENAME TO gone"),
        hidden("ALTER DATABASE n8n SET search_path = evil"),
        hidden("SET SESSION AUTHORIZATION n8n"),
        hidden("SET ROLE n8n"),
        hidden("CREATE TABLE public.taken AS SELECT pg_read_file('/etc/passwd') AS line"),
        hidden("CREATE EXTENSION file_fdw SCHEMA public"),
        "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/planted');".to_owned(),
        "RESET SESSION AUTHORIZATION; SET ROLE \"n8n\";".to_owned(),
        "CREATE FUNCTION public.f(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $x$ BEGIN RETURN pg_read_file('/etc/passwd'); END $x$; \
         CREATE INDEX evil ON public.settings (public.f(key));"
            .to_owned(),
    ];
    for statement in statements.into_iter().step_by(few_or_many(3, 1)) {
        case(&statement, || {
            let path = edited(&sandbox, &dump, "dark.sql.gz", |text| before_end(&text, &statement));
            let outcome = stranger(&sandbox, &path);
            outcome.assert_error("Database restore failed");
            assert!(outcome.log.contains("The dump is of unknown origin"), "{outcome}");
            assert!(
                outcome.log.contains("permission denied") || outcome.log.contains("must be"),
                "{outcome}"
            );
            assert_eq!(server(), before, "{outcome}");
            assert_nothing_planted(&sandbox);
        });
    }
    let owners = "SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ',') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                  WHERE nspname = 'public' AND relkind IN ('r', 'S', 'v', 'i')";
    case("an honest one is loaded, and belongs to the role of n8n", || {
        sandbox.psql("ALTER TABLE workflow_entity OWNER TO \"n8n app\"");
        let path = edited(&sandbox, &dump, "honest.sql.gz", |text| {
            before_end(&text, "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1';\nALTER FUNCTION public.mine() OWNER TO nobody_here;\n\
                SET SESSION AUTHORIZATION 'nobody_here';\nCREATE SCHEMA more;\nCREATE TYPE more.kind AS ENUM ('a');\nRESET SESSION AUTHORIZATION;\n\
                CREATE TABLE public.old_workflow_entity (id text);")
        });
        // A copy of a table says nothing of who n8n is.
        sandbox.psql("CREATE TABLE public.old_workflow_entity (id text)");
        let outcome = stranger(&sandbox, &path);
        outcome.assert_success();
        assert_eq!(sandbox.psql(owners).trim(), "n8n app");
        let others = "SELECT string_agg(DISTINCT pg_get_userbyid(o), ',') FROM (SELECT nspowner FROM pg_namespace WHERE nspname = 'more' \
                      UNION ALL SELECT typowner FROM pg_type WHERE typname = 'kind' \
                      UNION ALL SELECT proowner FROM pg_proc WHERE proname = 'mine') x(o)";
        assert_eq!(sandbox.psql(others).trim(), "n8n app");
        // n8n's migrations create tables.
        sandbox.psql("SET ROLE \"n8n app\"; CREATE TABLE public.migrated (id int); DROP TABLE public.migrated, public.old_workflow_entity");
        assert_eq!(sandbox.psql(roles), before.0);
        let rows = |print: &str| {
            print
                .lines()
                .filter(|line| line.starts_with("rows|"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(&before.2), rows(&sandbox.fingerprint_postgres()));
        assert!(!rows(&before.2).is_empty());
        assert_eq!(sandbox.psql("SELECT mine()").trim(), "1");
    });
    case(
        "a trigger of it does not run with more when workflows are made inactive",
        || {
            let trigger = format!(
            "CREATE FUNCTION public.t() RETURNS trigger LANGUAGE plpgsql AS $x$ BEGIN EXECUTE convert_from('\\x{}', 'UTF8'); RETURN NEW; END $x$;\n\
             CREATE TRIGGER t BEFORE UPDATE ON public.workflow_entity FOR EACH ROW EXECUTE FUNCTION public.t();",
            hex("ALTER ROLE n8n PASSWORD 'x'")
        );
            let path = edited(&sandbox, &dump, "trigger.sql.gz", |text| {
                before_end(
                    &text,
                    &format!("UPDATE public.workflow_entity SET active = true;\n{trigger}"),
                )
            });
            let outcome = sandbox.run("restore-postgres", &["--yes", "--deactivate", path.to_str().unwrap()]);
            outcome.assert_error("Database restore failed");
            assert_eq!(sandbox.psql("SELECT mine()").trim(), "1");
            assert_eq!(sandbox.psql(roles), before.0);
        },
    );
    case(
        "killed while it loads: the next restore drops the database and the role",
        || {
            let slow = edited(&sandbox, &dump, "slow.sql.gz", |text| {
                before_end(&text, "SELECT pg_sleep(600);")
            });
            let running = sandbox.call("restore-postgres").arg(&slow).spawn();
            let loads = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND usename LIKE 'n8n_load_%'";
            await_true("the dump is not loaded", || sandbox.psql(loads).trim() == "1");
            running.signal("KILL");
            running.wait();
            assert_ne!(sandbox.psql(roles), before.0);
            let honest = edited(&sandbox, &dump, "again.sql.gz", |text| text);
            stranger(&sandbox, &honest).assert_success();
            assert_eq!(sandbox.psql(roles), before.0);
        },
    );
    case("what only the owner of a schema may say is left out", || {
        let path = edited(&sandbox, &dump, "public.sql.gz", |text| {
            before_end(&text, "COMMENT ON SCHEMA public IS '';")
        });
        stranger(&sandbox, &path).assert_success();
    });
    case("what only a superuser may create is told before the load", || {
        let path = edited(&sandbox, &dump, "extension.sql.gz", |text| {
            before_end(
                &text,
                "CREATE EXTENSION IF NOT EXISTS pg_stat_statements WITH SCHEMA public;",
            )
        });
        stranger(&sandbox, &path).assert_error(
            "The dump is of unknown origin, and needs the extension pg_stat_statements, which only a superuser may create",
        );
    });
    case("in place, it is not loaded at all", || {
        let path = edited(&sandbox, &dump, "inplace.sql.gz", |text| text);
        sandbox
            .run("restore-postgres", &["--yes", "--in-place", path.to_str().unwrap()])
            .assert_error("The dump is of unknown origin, so it is loaded with few rights, {}");
    });
    assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
}

/// What comes off-site in clear is a stranger's, and n8n is to work with what comes of it.
#[test]
fn what_a_strangers_dump_holds_is_for_the_role_of_n8n() {
    let sandbox = Sandbox::new("strangerrole").postgres().build();
    sandbox.psql("CREATE TABLE workflow_entity AS SELECT 1 AS id; CREATE TABLE migrations AS SELECT 1 AS id");
    sandbox.run("backup-postgres", &[]).assert_success();
    let (file, set) = (sandbox.backup("postgres"), sandbox.backup("sets"));
    let text = fs::read_to_string(&set).unwrap();
    let told = |facts: &str| {
        let (title, rest) = text.split_once('\n').unwrap();
        let fetched = "# fetched: 2026-01-05T00:00:00+00:00";
        fs::write(&set, format!("{title}\n{fetched}\n{facts}{rest}")).unwrap();
    };
    let login = "# stack.n8n: gone\n# stack.login: n8n app\n";
    told(login);
    case("a role that the server does not have", || {
        let outcome = stranger(&sandbox, &file);
        outcome.assert_error("n8n logs in as a role that the server does not have: n8n app");
        assert!(outcome.log.contains("--create-roles"), "{outcome}");
        let outcome = sandbox.call("restore-postgres").arg("--create-roles").arg(&file).run();
        outcome.assert_success();
        outcome.assert_log_has("restore-postgres", "INFO Created role n8n app without login");
        outcome.assert_log_has("restore-postgres", "WARN n8n logs in as n8n app: {}");
        let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'workflow_entity'";
        assert_eq!(sandbox.psql(owner).trim(), "n8n app");
    });
    sandbox.psql("CREATE ROLE keeper LOGIN CREATEDB; ALTER DATABASE n8n OWNER TO keeper");
    let refused = "The dump is of unknown origin, so all that it holds would belong to PostgreSQL user keeper, whose \
                   rights n8n's role n8n app does not have";
    sandbox.set("POSTGRES_USER", "keeper");
    case("a user that can give nothing to n8n's role", || {
        for facts in [login, ""] {
            told(facts);
            stranger(&sandbox, &file).assert_error(refused);
        }
    });
    case("a user whose rights n8n's role has", || {
        sandbox.psql("GRANT keeper TO \"n8n app\"");
        stranger(&sandbox, &file).assert_success();
        let read = "SET ROLE \"n8n app\"; SELECT count(*) FROM workflow_entity; CREATE TABLE migrated (id int)";
        assert!(sandbox.psql(read).contains('1'));
    });
    assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
}

/// What a stranger's dump holds is asked for by a superuser in each backup, and by `doctor`, and has no rights by that.
#[test]
fn what_a_strangers_dump_holds_has_the_rights_of_n8ns_role_alone() {
    let sandbox = Sandbox::new("strangerlive").postgres().seeded().build();
    sandbox.psql("DROP EVENT TRIGGER zz_ignore; DROP PUBLICATION n8n_changes");
    let dump = dump_of(&sandbox);
    sandbox.psql("CREATE ROLE \"n8n app\" LOGIN; ALTER TABLE workflow_entity OWNER TO \"n8n app\"");
    // doctor tells it.
    sandbox.psql_in("postgres", "CREATE DATABASE beside");
    let has_risen = || {
        sandbox
            .psql("SELECT rolsuper FROM pg_roles WHERE rolname = 'n8n app'")
            .trim()
            == "t"
    };
    let rise = format!(
        "CREATE FUNCTION public.rise() RETURNS text LANGUAGE plpgsql AS $x$ BEGIN \
         IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN \
         EXECUTE convert_from('\\x{}', 'UTF8'); END IF; RETURN 'x'; END $x$;",
        hex("ALTER ROLE \"n8n app\" SUPERUSER")
    );
    for (what, statements) in [
        (
            "an implicit cast of a column",
            "CREATE TYPE public.m AS ENUM ('none', 'x');
             ALTER TABLE public.migrations ALTER name TYPE public.m USING 'x'::public.m;
             CREATE FUNCTION public.f(public.m) RETURNS text LANGUAGE plpgsql AS $x$ BEGIN RETURN public.rise(); END $x$;
             CREATE CAST (public.m AS text) WITH FUNCTION public.f(public.m) AS IMPLICIT;",
        ),
        (
            "an index that the planner computes",
            "CREATE FUNCTION public.f() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $x$ BEGIN RETURN public.rise(); END $x$;
             CREATE INDEX planned ON public.migrations ((public.f()));
             CREATE INDEX planned_too ON public.binary_data ((public.f()));",
        ),
        (
            "an operator that stands for one of the server's",
            "CREATE FUNCTION public.f(name, name) RETURNS text LANGUAGE plpgsql AS $x$ BEGIN RETURN public.rise(); END $x$;
             CREATE OPERATOR public.|| (LEFTARG = name, RIGHTARG = name, FUNCTION = public.f);",
        ),
    ] {
        case(what, || {
            let path = edited(&sandbox, &dump, "rise.sql.gz", |text| {
                before_end(&text, &format!("{rise}\n{statements}"))
            });
            stranger(&sandbox, &path).assert_success();
            assert!(!has_risen(), "by the restore");
            for executions in ["on", "off"] {
                sandbox.set("BACKUP_EXECUTIONS", executions);
                sandbox.run("backup-postgres", &[]).assert_success();
                assert!(!has_risen(), "by a backup");
            }
            let doctor = sandbox.binary().arg("doctor").run();
            assert!(doctor.stdout.contains("beside"), "{doctor}");
            assert!(!has_risen(), "by doctor: {doctor}");
        });
    }
    assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
}

/// No program was run in the server's container, and no file written there.
#[track_caller]
fn assert_nothing_planted(sandbox: &Sandbox) {
    let list = "ls /tmp/planted 2>/dev/null || true";
    let planted = sandbox.docker(&["exec", &sandbox.container("postgres"), "sh", "-c", list]);
    assert_eq!(planted.trim(), "");
}

/// Restores a file of which nobody says where it is from.
fn stranger(sandbox: &Sandbox, file: &Path) -> Outcome {
    sandbox.call("restore-postgres").arg(file).run()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Where psql cannot be restricted, a file is ours, or somebody vouches for it.
#[test]
fn a_dump_of_unknown_origin_needs_a_psql_that_can_be_restricted() {
    let sandbox = Sandbox::new("origin").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let foreign = edited(&sandbox, &dump, "foreign.sql.gz", |text| text);
    let container = sandbox.container("postgres");
    // The real one, but for its version.
    let old = r#"real=$(command -v psql); mv "$real" "$real.real"
printf '#!/bin/sh\n%s.real "$@" | sed "s/^15[.][0-9][0-9]*\\( .*\\)*$/15.10/"\n' "$real" >"$real"
chmod 755 "$real""#;
    sandbox.docker(&["exec", "-u", "0", &container, "sh", "-c", old]);
    case("a foreign file and an old psql", || {
        stranger(&sandbox, &foreign).assert_error("The dump is of unknown origin: {}");
    });
    case("with --trust-dump", || {
        let path = foreign.to_str().unwrap();
        sandbox
            .run("restore-postgres", &["--yes", "--trust-dump", path])
            .assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    sandbox.run("backup-postgres", &[]).assert_success();
    let own = sandbox.backup("postgres");
    case("a copy of a file that a recovery point records", || {
        let copy = sandbox.aside("copy.sql.gz");
        std::fs::copy(&own, &copy).unwrap();
        stranger(&sandbox, &copy).assert_success();
    });
    let sets = sandbox.path("backups/sets");
    std::fs::rename(&sets, sandbox.path("backups/sets.away")).unwrap();
    case("a file of backups/postgres that nobody else can write", || {
        stranger(&sandbox, &own).assert_success();
    });
    case("the same, once others can", || {
        std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o622)).unwrap();
        stranger(&sandbox, &own).assert_error("The dump is of unknown origin: {}");
    });
    assert_same(&before, &sandbox.fingerprint_postgres());
}

/// What a function of the dump runs on the server is not seen beforehand; that the live database is gone is said.
#[test]
fn a_live_database_that_a_dump_has_dropped_is_told() {
    let sandbox = Sandbox::new("dumpdrop").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let database = sandbox.psql("SELECT current_database()").trim().to_owned();
    let user = sandbox.psql("SELECT current_user").trim().to_owned();
    case(
        "a dump that drops the live database in a DO block and fails then",
        || {
            // In the background: a server drops no database while one of its sessions waits for a program.
            let drop = format!(
                "CREATE TABLE public.out(line text); DO $x$ BEGIN EXECUTE $y$COPY public.out FROM PROGRAM \
             'dropdb --force -U \"{user}\" \"{database}\" >/dev/null 2>&1 &'$y$; END $x$; \
             SELECT pg_sleep(5); SELECT 1/0;"
            );
            let bad = edited(&sandbox, &dump, "drops.sql.gz", |text| before_end(&text, &drop));
            // In the directory of our own dumps it is loaded as one of them.
            let bad_name = sandbox.path("backups/postgres/n8n_20200101_000000.sql.gz");
            fs::copy(&bad, &bad_name).unwrap();
            let outcome = trusted_restore(&sandbox).arg(&bad_name).run();
            assert_eq!(outcome.code, Some(1), "{outcome}");
            outcome.assert_log_has(
                "restore-postgres",
                "ERROR The live database {} is gone: the dump has dropped it",
            );
            outcome.assert_log_has(
                "restore-postgres",
                "ERROR Hint: stop n8n and restore a good recovery point at once: {}",
            );
            outcome.assert_log_has("restore-postgres", "ERROR Database restore failed");
            fs::remove_file(&bad_name).unwrap();
            trusted_restore(&sandbox).arg(&dump).run().assert_success();
            assert_same(&before, &sandbox.fingerprint_postgres());
        },
    );
    case("a dump that fails and leaves the live database", || {
        let bad = edited(&sandbox, &dump, "fails.sql.gz", |text| before_end(&text, "SELECT 1/0;"));
        let outcome = trusted_restore(&sandbox).arg(&bad).run();
        outcome.assert_error("Database restore failed");
        assert!(!outcome.stdout.contains("is gone"), "{outcome}");
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
}
