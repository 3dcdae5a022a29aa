//! Restores: what goes wrong in them, what they keep, and what hinders them.

use std::process::{Command, Stdio};

use super::{
    assert_backups_whole, assert_next_run_succeeds, assert_no_sessions, before_end, case, docker_stand_in, dump_of,
    edited, held_dump, restore, staged_databases, trusted_restore,
};
use crate::common::{assert_same, await_true, point, skip, Sandbox};

/// A statement fails in the middle: the live database is untouched and lets everybody in meanwhile.
#[test]
fn an_error_in_the_dump_leaves_the_live_database() {
    let sandbox = Sandbox::new("sqlerr").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    for (what, statement) in [
        ("a statement that fails", "INSERT INTO public.no_such_table VALUES (1);"),
        ("a syntax error", "SELEC 1;"),
        (
            "a session that is ended from within",
            "SELECT pg_terminate_backend(pg_backend_pid());",
        ),
        ("rows that go after the COPY", "DELETE FROM public.settings;"),
        (
            "a table that goes after its CREATE",
            "DROP TABLE public.settings CASCADE;",
        ),
    ] {
        case(what, || {
            let path = edited(&sandbox, &dump, "error.sql.gz", |text| before_end(&text, statement));
            let mut running = trusted_restore(&sandbox).arg(&path).spawn();
            running.await_log("Restoring database from backup...");
            assert_eq!(sandbox.psql("SELECT 1").trim(), "1", "the live database serves");
            running.wait().assert_error("Database restore failed");
            assert_same(&before, &sandbox.fingerprint_postgres());
            assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
        });
    }
    case("a transaction that is never committed", || {
        let path = edited(&sandbox, &dump, "open.sql.gz", |text| {
            before_end(&text, "BEGIN;\nDELETE FROM public.settings;")
        });
        // It counts as never begun.
        restore(&sandbox, &path).assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    case("an index that would want more memory than the server gives", || {
        // Built in parallel, it may want as much shared memory, of which a container has 64 MB.
        let check =
            "DO $$ BEGIN IF current_setting('maintenance_work_mem') <> '5MB' THEN RAISE 'changed'; END IF; END $$;";
        sandbox.psql("ALTER SYSTEM SET maintenance_work_mem = '5MB'");
        sandbox.psql("SELECT pg_reload_conf()");
        let path = edited(&sandbox, &dump, "memory.sql.gz", |text| before_end(&text, check));
        restore(&sandbox, &path).assert_success();
    });
    assert_no_sessions(&sandbox);
    restore(&sandbox, &dump).assert_success();
    assert_same(&before, &sandbox.fingerprint_postgres());
}

/// Owner, privileges, comment, settings, connection limit of the live database are those of the restored one.
#[test]
fn the_properties_of_the_database_are_kept() {
    let sandbox = Sandbox::new("props").postgres().seeded().build();
    sandbox.psql_in(
        "postgres",
        "CREATE ROLE somebody; ALTER DATABASE n8n OWNER TO somebody; ALTER DATABASE n8n SET work_mem = '7MB'; \
         ALTER DATABASE n8n SET search_path = public, \"odd, one\"; ALTER DATABASE n8n CONNECTION LIMIT 33",
    );
    sandbox.psql_in(
        "postgres",
        "GRANT CREATE ON DATABASE n8n TO n8n_reader; REVOKE TEMPORARY ON DATABASE n8n FROM PUBLIC; \
         ALTER ROLE n8n_reader IN DATABASE n8n SET statement_timeout = '5s'; COMMENT ON DATABASE n8n IS 'it''s ours'; \
         ALTER DATABASE n8n SET default_transaction_read_only = on",
    );
    // What a view computes while it is loaded depends on the database's own time zone.
    sandbox.psql_in("postgres", "ALTER DATABASE n8n SET timezone = 'America/New_York'");
    sandbox.psql(
        "BEGIN READ WRITE; CREATE MATERIALIZED VIEW days AS SELECT timestamptz '2026-01-02 03:00+00'::date AS day; COMMIT",
    );
    let day = || sandbox.psql("SELECT day FROM days").trim().to_owned();
    assert_eq!(day(), "2026-01-01");
    let before = sandbox.fingerprint_postgres();
    assert!(before.lines().filter(|line| line.starts_with("database|")).count() > 7);
    let dump = dump_of(&sandbox);
    for option in ["--yes", "--in-place"] {
        case(
            &format!("a restore with {option} keeps the database's properties"),
            || {
                let outcome = trusted_restore(&sandbox).arg(option).arg(&dump).run();
                outcome.assert_success();
                assert!(!outcome.log.contains("will differ"), "{outcome}");
                assert_same(&before, &sandbox.fingerprint_postgres());
                assert_eq!(day(), "2026-01-01");
            },
        );
    }
    case(
        "a time limit for the role's statements does not hold for a restore",
        || {
            // Each row takes its time when the index is built, and again for the statistics.
            sandbox.psql(
                "BEGIN READ WRITE; CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_catalog.pg_sleep(0.06); RETURN n; END $$; \
             CREATE TABLE slow AS SELECT n FROM generate_series(1, 10) n; CREATE INDEX ON slow (slow(n)); COMMIT",
            );
            let before = sandbox.fingerprint_postgres();
            let dump = dump_of(&sandbox);
            sandbox.psql_in("postgres", "ALTER ROLE n8n SET statement_timeout = '300ms'");
            let outcome = trusted_restore(&sandbox).arg(&dump).run();
            sandbox.psql_in("postgres", "ALTER ROLE n8n RESET statement_timeout");
            outcome.assert_success();
            assert!(!outcome.log.contains("Statistics"), "{outcome}");
            assert_same(&before, &sandbox.fingerprint_postgres());
            sandbox.psql("BEGIN READ WRITE; DROP TABLE slow; DROP FUNCTION slow; COMMIT");
        },
    );
    case("--keep-old keeps the replaced database", || {
        sandbox.psql("BEGIN READ WRITE; CREATE TABLE mark AS SELECT 1 AS n; COMMIT");
        let outcome = trusted_restore(&sandbox).arg("--keep-old").arg(&dump).run();
        outcome.assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
        let old = staged_databases(&sandbox);
        assert_eq!(old.len(), 1);
        assert!(outcome.log.contains(&old[0]), "{outcome}");
        assert_eq!(sandbox.psql_in(&old[0], "SELECT n FROM mark").trim(), "1");
        // No later run takes it for a leftover.
        restore(&sandbox, &dump).assert_success();
        sandbox.run("backup-all", &[]);
        assert_eq!(staged_databases(&sandbox), old);
    });
}

/// Clients that reconnect in a loop do not stop the swap.
#[test]
fn clients_that_reconnect_do_not_stop_the_swap() {
    let sandbox = Sandbox::new("loop").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    sandbox.psql("CREATE TABLE mark AS SELECT 1 AS n");
    case("eight clients that reconnect in a loop", || {
        let script = "for i in 1 2 3 4 5 6 7 8; do (while [ -e /tmp/loop ]; do \
                      echo 'SELECT pg_sleep(0.2) FROM settings LIMIT 1;' | psql -qXAt -U n8n >/dev/null 2>&1; done) & done; wait";
        let container = sandbox.container("postgres");
        sandbox.docker(&["exec", &container, "touch", "/tmp/loop"]);
        let mut clients = Command::new("docker")
            .args(["exec", &container, "sh", "-c", script])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let connected = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(0.2)%'";
        await_true("no client comes", || sandbox.psql(connected).trim() != "0");
        let outcome = restore(&sandbox, &dump);
        sandbox.docker(&["exec", &container, "rm", "/tmp/loop"]);
        clients.wait().unwrap();
        outcome.assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
    });
}

/// A prepared transaction would hold the database: refused before anything happens, saying which.
#[test]
fn a_prepared_transaction_is_told_before_anything_happens() {
    let sandbox = Sandbox::new("prep")
        .postgres()
        .seeded()
        .pg_arg("-c")
        .pg_arg("max_prepared_transactions=4")
        .build();
    let dump = dump_of(&sandbox);
    sandbox.psql("CREATE TABLE p (n int)");
    let before = sandbox.fingerprint_postgres();
    let mut prepare = Command::new("docker");
    prepare.args([
        "exec",
        &sandbox.container("postgres"),
        "psql",
        "-U",
        "n8n",
        "-c",
        "BEGIN",
    ]);
    prepare.args(["-c", "INSERT INTO p VALUES (1)", "-c", "PREPARE TRANSACTION 'held'"]);
    crate::common::done(prepare);
    case("a prepared transaction", || {
        for option in ["--yes", "--in-place"] {
            let outcome = trusted_restore(&sandbox).arg(option).arg(&dump).run();
            outcome.assert_error("Database n8n has a prepared transaction (held): {}");
            assert_same(&before, &sandbox.fingerprint_postgres());
        }
    });
    sandbox.psql("ROLLBACK PREPARED 'held'");
    restore(&sandbox, &dump).assert_success();
}

/// The database is lost: a restore creates it.
#[test]
fn a_lost_database_is_created_again() {
    let sandbox = Sandbox::new("lost").stack().n8n().seeded().build();
    let before = sandbox.fingerprint_postgres();
    let dump = dump_of(&sandbox);
    let contents = |text: &str| -> String {
        text.lines()
            .filter(|line| !line.starts_with("database|"))
            .fold(String::new(), |all, line| all + line + "\n")
    };
    case("the live database is gone", || {
        sandbox.psql_in("postgres", "DROP DATABASE n8n WITH (FORCE)");
        let outcome = sandbox.run("backup-all", &[]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        outcome.assert_log_has("backup-postgres", "ERROR pg_dump failed");
        restore(&sandbox, &dump).assert_success();
        assert_same(&contents(&before), &contents(&sandbox.fingerprint_postgres()));
    });
    case("a restore in place dies after the drop", || {
        sandbox.psql_in("postgres", "ALTER DATABASE n8n SET work_mem = '9MB'");
        let before = sandbox.fingerprint_postgres();
        let slow = edited(&sandbox, &dump, "slow.sql.gz", |text| {
            before_end(&text, "SELECT pg_sleep(5);")
        });
        let mut running = trusted_restore(&sandbox).arg("--in-place").arg(&slow).spawn();
        running.await_log("Restoring database from backup...");
        running.signal("KILL");
        let _ = running.wait();
        assert!(!sandbox.databases().contains(&"n8n".to_owned()));
        // Neither a backup nor a restore that fails may clear what still knows the settings of the lost database.
        sandbox.run("backup-all", &[]);
        assert_eq!(staged_databases(&sandbox).len(), 1);
        let bad = edited(&sandbox, &dump, "bad.sql.gz", |text| {
            before_end(&text, "SELECT no_such_thing;")
        });
        restore(&sandbox, &bad).assert_error("Database restore failed");
        assert_eq!(staged_databases(&sandbox).len(), 1);
        let safety = sandbox.backups("postgres").remove(0);
        restore(&sandbox, &safety).assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
    });
    case("a restore in place fails after the drop", || {
        let before = sandbox.fingerprint_postgres();
        super::clear_backups(&sandbox);
        let bad = edited(&sandbox, &dump, "bad.sql.gz", |text| {
            before_end(&text, "SELECT no_such_thing;")
        });
        let outcome = trusted_restore(&sandbox).arg("--in-place").arg(&bad).run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert_eq!(
            outcome.errors(),
            ["n8n stays stopped", "Database restore failed"],
            "{outcome}"
        );
        let safety = sandbox.backup("postgres");
        assert!(outcome.log.contains(safety.to_str().unwrap()), "{outcome}");
        assert_backups_whole(&sandbox);
        // What n8n wrote between the dump and the drop would be in neither, so it was stopped before, and stays so.
        let messages = outcome.messages("restore-postgres");
        let at = |text: &str| {
            let found = messages.iter().position(|message| message.starts_with(text));
            found.unwrap_or_else(|| panic!("{text}: {outcome}"))
        };
        assert!(at("INFO Stopping n8n: ") < at("INFO Dumping database n8n before it is dropped"));
        let runs = || {
            let format = "{{.State.Running}}";
            sandbox.docker(&["inspect", "--format", format, &sandbox.container("n8n-main")])
        };
        assert_eq!(runs().trim(), "false");
        restore(&sandbox, &safety).assert_success();
        assert_eq!(runs().trim(), "true");
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    case("another program writes to the database that is to be dropped", || {
        let before = sandbox.fingerprint_postgres();
        let postgres = sandbox.container("postgres");
        let session = [
            "exec",
            "-d",
            &postgres,
            "psql",
            "-U",
            "n8n",
            "-c",
            "SELECT pg_sleep(600)",
        ];
        sandbox.docker(&session);
        let connected = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
        await_true("the other program does not come", || {
            sandbox.psql(connected).trim() == "1"
        });
        let outcome = trusted_restore(&sandbox).arg("--in-place").arg(&dump).run();
        outcome.assert_error("Database n8n is used by others than n8n's containers (psql as user n8n): {}");
        sandbox.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'");
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    for (who, cause) in [
        ("n8n", "{} was started while what it works on was being replaced: {}"),
        (
            "another program",
            "Database n8n is used by others than n8n's containers (psql as user n8n): {}",
        ),
    ] {
        case(
            &format!("{who} comes while the database is dumped that is to be dropped"),
            || {
                let (held, gate) = held_dump(&sandbox);
                let call = trusted_restore(&sandbox).arg("--in-place").arg(&dump);
                let mut running = call.path_first(held).spawn();
                running.await_that("the middle of the dump", |_| gate.is_reached());
                let postgres = sandbox.container("postgres");
                if who == "n8n" {
                    sandbox.docker(&["start", &sandbox.container("n8n-main")]);
                } else {
                    let stays = "SELECT pg_sleep(600)";
                    sandbox.docker(&["exec", "-d", &postgres, "psql", "-U", "n8n", "-c", stays]);
                    let connected = format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{stays}'");
                    await_true("the other program does not come", || {
                        sandbox.psql(&connected).trim() == "1"
                    });
                }
                sandbox.psql("CREATE TABLE written_since AS SELECT 1 AS n");
                gate.open();
                let outcome = running.wait();
                outcome.assert_error("Database restore failed");
                outcome.assert_log_has("restore-postgres", &format!("ERROR Cause: {cause}"));
                assert_eq!(sandbox.psql("SELECT n FROM written_since").trim(), "1", "{outcome}");
                assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
                sandbox
                    .psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'");
                sandbox.psql("DROP TABLE written_since");
            },
        );
    }
    case("the answer to the drop is lost on its way", || {
        let before = sandbox.fingerprint_postgres();
        // The server drops the live database, and the client says that it failed.
        let script = "case \"$*\" in *'n8n-backup restore'*) \
                      input=$(cat; printf x)\n\
                      printf '%s' \"${input%x}\" | \"$docker\" \"$@\"; code=$?\n\
                      case $input in *'DROP DATABASE'*\"datname = 'n8n'\"*) exit 1 ;; *) exit $code ;; esac ;; esac";
        let stand_in = docker_stand_in(&sandbox, script);
        let outcome = trusted_restore(&sandbox)
            .arg("--in-place")
            .arg(&dump)
            .path_first(stand_in)
            .run();
        outcome.assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    assert_next_run_succeeds(&sandbox);
}

/// Somebody creates the database, and works with it, while a lost one is restored, or one in place.
#[test]
fn a_database_that_is_created_meanwhile_is_not_replaced() {
    let sandbox = Sandbox::new("created").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let slow = edited(&sandbox, &dump, "slow.sql.gz", |text| {
        before_end(&text, "SELECT pg_sleep(10);")
    });
    for option in ["--yes", "--in-place"] {
        case(option, || {
            if option == "--yes" {
                sandbox.psql_in("postgres", "DROP DATABASE n8n WITH (FORCE)");
            }
            let running = trusted_restore(&sandbox).arg(option).arg(&slow).spawn();
            let loads = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(10)%'";
            await_true("the dump is not loaded", || {
                sandbox.psql_in("postgres", loads).trim() == "1"
            });
            sandbox.psql_in("postgres", "CREATE DATABASE n8n");
            sandbox.psql("CREATE TABLE written_since AS SELECT 1 AS n");
            let outcome = running.wait();
            assert_eq!(outcome.code, Some(1), "{outcome}");
            let told = "Database n8n was created while it was being restored, and stays as it is";
            assert!(outcome.log.contains(told), "{outcome}");
            assert!(!outcome.log.contains("trying again"), "{outcome}");
            sandbox.run("backup-postgres", &[]).assert_success();
            assert_eq!(sandbox.psql("SELECT n FROM written_since").trim(), "1", "{outcome}");
            assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
            restore(&sandbox, &dump).assert_success();
        });
    }
}

/// A restore in place was ended in the middle of its drop, which leaves a database that nobody can connect to.
#[test]
fn a_drop_that_was_cut_short_hinders_no_restore() {
    let sandbox = Sandbox::new("cutdrop").postgres().seeded().build();
    sandbox.psql_in("postgres", "ALTER DATABASE n8n SET work_mem = '9MB'");
    let before = sandbox.fingerprint_postgres();
    let dump = dump_of(&sandbox);
    for option in ["--in-place", "--yes"] {
        case(&format!("a drop that was cut short, {option}"), || {
            // The server marks it so before it deletes the files.
            sandbox.psql_in(
                "postgres",
                "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'n8n'",
            );
            let outcome = sandbox.run("backup-postgres", &[]);
            outcome.assert_error("pg_dump failed");
            assert!(outcome.log.contains("its drop was cut short"), "{outcome}");
            let doctor = sandbox.binary().arg("doctor").run();
            assert_eq!(doctor.code, Some(1), "{doctor}");
            assert!(doctor.stdout.contains("its drop was cut short"), "{doctor}");
            let outcome = trusted_restore(&sandbox).arg(option).arg(&dump).run();
            outcome.assert_success();
            assert_same(&before, &sandbox.fingerprint_postgres());
            assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
        });
    }
    case(
        "an earlier restore's database, whose drop was cut short after its files went",
        || {
            let left = "n8n_restore_20260102_030405";
            for statement in [
                format!("CREATE DATABASE {left}"),
                format!("COMMENT ON DATABASE {left} IS 'n8n-backup: staged for \"n8n\"'"),
                // What is not written yet would be written into files that are gone.
                "CHECKPOINT".to_owned(),
                format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{left}'"),
            ] {
                sandbox.psql_in("postgres", &statement);
            }
            let ask = |what: &str| {
                let ask = format!("SELECT {what} FROM pg_database WHERE datname = '{left}'");
                sandbox.psql_in("postgres", &ask).trim().to_owned()
            };
            let files = ask("current_setting('data_directory') || '/base/' || oid");
            sandbox.docker(&["exec", &sandbox.container("postgres"), "rm", "-r", "--", &files]);
            assert_eq!(ask("pg_database_size(oid) IS NULL"), "t");
            restore(&sandbox, &dump).assert_success();
            assert_same(&before, &sandbox.fingerprint_postgres());
            assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
        },
    );
    sandbox.run("backup-postgres", &[]).assert_success();
}

/// Whatever may take the staged database away, a restore says that it is done only when that is the live one.
#[test]
fn a_staged_database_that_goes_is_no_success() {
    let sandbox = Sandbox::new("stgone").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    sandbox.psql("CREATE TABLE mark AS SELECT 1 AS n");
    let before = sandbox.fingerprint_postgres();
    case("the staged database is dropped before the swap", || {
        let drop = "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database WHERE datname LIKE 'n8n_restore_%' \\gexec";
        let script = format!(
            "case \"$*\" in *'n8n-backup swap'*) printf '%s\\n' \"{drop}\" | \"$docker\" exec -i {} psql -XqU n8n -d postgres ;; esac",
            sandbox.container("postgres")
        );
        let stand_in = docker_stand_in(&sandbox, &script);
        let outcome = trusted_restore(&sandbox).arg(&dump).path_first(stand_in).run();
        outcome.assert_error("Database restore failed");
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
    });
}

/// Extensions: one that the server lacks is told before anything happens, one with tables of its own comes back.
#[test]
fn extensions_are_looked_at_before_and_come_back() {
    let sandbox = Sandbox::new("exts").postgres().build();
    let files = "dir=$(pg_config --sharedir 2>/dev/null || echo /usr/share/postgresql/*)/extension; cd $dir && \
                 echo \"default_version = '1'\" >n8nbt.control && \
                 echo \"CREATE SEQUENCE n8nbt_seq; CREATE TABLE n8nbt_settings (n int); INSERT INTO n8nbt_settings VALUES (0); \
                 SELECT pg_extension_config_dump('n8nbt_seq', ''); SELECT pg_extension_config_dump('n8nbt_settings', 'WHERE n > 0')\" >n8nbt--1.sql";
    let container = sandbox.container("postgres");
    sandbox.docker(&["exec", "-u", "0", &container, "sh", "-c", files]);
    sandbox.psql(
        "CREATE EXTENSION n8nbt; INSERT INTO n8nbt_settings VALUES (7); SELECT setval('n8nbt_seq', 42); CREATE TABLE t AS SELECT 1 AS n",
    );
    let state =
        || sandbox.psql("SELECT last_value, (SELECT sum(n) FROM n8nbt_settings), (SELECT n FROM t) FROM n8nbt_seq");
    let before = state();
    let dump = dump_of(&sandbox);
    case("an extension with rows and a sequence of its own", || {
        sandbox.psql("SELECT setval('n8nbt_seq', 99); UPDATE t SET n = 2");
        restore(&sandbox, &dump).assert_success();
        assert_same(&before, &state());
    });
    case("an extension that the server does not have", || {
        sandbox.docker(&[
            "exec",
            "-u",
            "0",
            &container,
            "sh",
            "-c",
            "rm /usr/share/postgresql/*/extension/n8nbt*",
        ]);
        for option in ["--yes", "--in-place"] {
            let outcome = trusted_restore(&sandbox).arg(option).arg(&dump).run();
            outcome.assert_error("The dump needs the extension n8nbt, which the server in {} does not have: {}");
            assert_same(&before, &state());
        }
    });
}

/// The new database is one that pg_hba.conf lets nobody into: not found out when the live one is gone already.
#[test]
fn a_server_that_lets_nobody_into_the_new_database_keeps_the_live_one() {
    let sandbox = Sandbox::new("hba").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let container = sandbox.container("postgres");
    let rules = |databases: &str| {
        let rules = format!(
            "printf 'local {databases} all trust\\nhost {databases} all 127.0.0.1/32 trust\\n' >\"$PGDATA/pg_hba.conf\"; kill -HUP 1"
        );
        sandbox.docker(&["exec", &container, "sh", "-c", &rules]);
        let enters = || {
            let mut psql = Command::new("docker");
            psql.args(["exec", &container, "psql", "-wU", "n8n", "-d", "template1", "-c", ""]);
            crate::common::output(psql).status.success()
        };
        await_true("the server does not read its rules again", || {
            enters() == (databases == "all")
        });
    };
    rules("n8n,postgres");
    for option in ["--yes", "--in-place"] {
        case(&format!("pg_hba.conf that names databases, {option}"), || {
            let outcome = trusted_restore(&sandbox).arg(option).arg(&dump).run();
            outcome.assert_error("Database restore failed");
            assert!(
                outcome
                    .log
                    .contains("PostgreSQL does not let n8n into the new database"),
                "{outcome}"
            );
            assert!(outcome.log.contains("pg_hba.conf"), "{outcome}");
            assert_same(&before, &sandbox.fingerprint_postgres());
            assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
        });
    }
    rules("all");
    trusted_restore(&sandbox)
        .arg("--in-place")
        .arg(&dump)
        .run()
        .assert_success();
    assert_same(&before, &sandbox.fingerprint_postgres());
}

/// A trigger on login writes a row for each session, ours included.
#[test]
fn what_a_trigger_on_login_writes_fails_no_restore() {
    let sandbox = Sandbox::new("logins").postgres().seeded().build();
    if sandbox.psql("SHOW server_version_num").trim() < "170000" {
        return skip(
            "a trigger on login",
            "the server is older than PostgreSQL 17, which has them first",
        );
    }
    sandbox.psql(
        "CREATE TABLE logins (at timestamptz DEFAULT now()); CREATE FUNCTION note_login() RETURNS event_trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO public.logins DEFAULT VALUES; END $$; \
         CREATE EVENT TRIGGER logins ON login EXECUTE FUNCTION note_login()",
    );
    case("a trigger on login that writes a row", || {
        sandbox.run("backup-postgres", &[]).assert_success();
        sandbox.run("test-recovery", &["--postgres"]).assert_success();
        let dump = sandbox.backup("postgres");
        for option in ["--yes", "--in-place"] {
            trusted_restore(&sandbox).arg(option).arg(&dump).run().assert_success();
        }
        // n8n's sessions have it run as before.
        let logins = || {
            sandbox
                .psql("SELECT count(*) FROM logins")
                .trim()
                .parse::<u32>()
                .unwrap()
        };
        let before = logins();
        assert_eq!(logins(), before + 1);
    });
}

/// A dump of a newer server may fail in the middle: not when the live database is gone already.
#[test]
fn a_dump_of_a_newer_server_is_not_restored_in_place() {
    let sandbox = Sandbox::new("newer").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let newer = edited(&sandbox, &dump, "newer.sql.gz", |text| {
        text.replacen(
            "-- Dumped from database version ",
            "-- Dumped from database version 99",
            1,
        )
    });
    let before = sandbox.fingerprint_postgres();
    case("a dump of a newer server", || {
        let outcome = trusted_restore(&sandbox).arg("--in-place").arg(&newer).run();
        outcome.assert_error("The dump was made from PostgreSQL {} and the server is {}--in-place is not done");
        assert_same(&before, &sandbox.fingerprint_postgres());
        restore(&sandbox, &newer).assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
}

/// A subscription holds the replaced database: told, and the next restore goes on all the same.
#[test]
fn a_database_that_cannot_be_dropped_hinders_no_restore() {
    let sandbox = Sandbox::new("subs").postgres().build();
    sandbox.psql("CREATE TABLE t AS SELECT 1 AS n");
    let dump = dump_of(&sandbox);
    sandbox.psql(
        "CREATE SUBSCRIPTION feed CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false, slot_name = NONE); UPDATE t SET n = 2",
    );
    case("a subscription in the replaced database", || {
        let first = restore(&sandbox, &dump);
        first.assert_success().assert_log_has(
            "restore-postgres",
            "WARN The subscription feed stays with the database that is replaced, which cannot be dropped before it",
        );
        let left = staged_databases(&sandbox);
        assert_eq!(left.len(), 1);
        sandbox.psql("UPDATE t SET n = 3");
        restore(&sandbox, &dump).assert_success().assert_log_has(
            "restore-postgres",
            &format!(
                "WARN Database {} (replaced) that an earlier restore left could not be dropped: {{}}",
                left[0]
            ),
        );
        assert_eq!(sandbox.psql("SELECT n FROM t").trim(), "1");
        assert_eq!(sandbox.psql_in(&left[0], "SELECT n FROM t").trim(), "2");
    });
}

/// Roles: a restore without superuser, and a dump of roles that are not there.
#[test]
fn roles_that_are_missing_or_weak_are_told() {
    let sandbox = Sandbox::new("roles").postgres().build();
    sandbox.psql("CREATE TABLE t AS SELECT 1 AS n; CREATE ROLE gone; ALTER TABLE t OWNER TO gone");
    let dump = dump_of(&sandbox);
    sandbox.psql("ALTER TABLE t OWNER TO n8n; DROP ROLE gone");
    case("a dump whose owner is not there", || {
        let outcome = restore(&sandbox, &dump);
        outcome.assert_error("The dump names roles that the server does not have: gone");
        assert!(outcome.log.contains("--create-roles"));
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
        let outcome = trusted_restore(&sandbox).arg("--create-roles").arg(&dump).run();
        outcome
            .assert_success()
            .assert_log_has("restore-postgres", "INFO Created role gone without login");
        let owner = sandbox.psql("SELECT tableowner FROM pg_tables WHERE tablename = 't'");
        assert_eq!(owner.trim(), "gone");
    });
    case("a user that may not create databases", || {
        sandbox.psql("CREATE ROLE weak LOGIN; CREATE ROLE owner LOGIN CREATEDB");
        sandbox.set("POSTGRES_USER", "weak");
        restore(&sandbox, &dump).assert_error("PostgreSQL user weak may not restore: {}");
    });
    case(
        "a user that owns the database and may create some, and is no superuser",
        || {
            sandbox.psql("ALTER DATABASE n8n OWNER TO owner; ALTER TABLE t OWNER TO owner");
            sandbox.set("POSTGRES_USER", "owner");
            let dump = dump_of(&sandbox);
            restore(&sandbox, &dump).assert_success();
            assert_eq!(sandbox.psql("SELECT n FROM t").trim(), "1");
            assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
        },
    );
    case("in place, with a limit of one connection", || {
        let dump = dump_of(&sandbox);
        // From after the dump that is made before the drop on, which takes two sessions one right after the other.
        let limit = "ALTER DATABASE n8n CONNECTION LIMIT 1";
        let script = format!(
            "case \" $* \" in *' pg_dump '*) \"$docker\" \"$@\"; code=$?; \
             \"$docker\" exec {} psql -XqU n8n -d postgres -c '{limit}' </dev/null >&2; exit $code ;; esac",
            sandbox.container("postgres")
        );
        let stand_in = docker_stand_in(&sandbox, &script);
        let call = trusted_restore(&sandbox).arg("--in-place").arg(&dump);
        call.path_first(stand_in).run().assert_success();
        let ask = "SELECT datconnlimit FROM pg_database WHERE datname = 'n8n'";
        assert_eq!(sandbox.psql_in("postgres", ask).trim(), "1");
        assert_eq!(sandbox.psql("SELECT n FROM t").trim(), "1");
        sandbox.psql_in("postgres", "ALTER DATABASE n8n CONNECTION LIMIT -1");
        super::clear_backups(&sandbox);
    });
    case("privileges that such a user may not grant", || {
        let dump = dump_of(&sandbox);
        let warning = "WARN Privileges that PostgreSQL user owner may not grant or revoke are left out, {}";
        let outcome = restore(&sandbox, &dump);
        assert!(!outcome.log.contains("Privileges that"), "{outcome}");
        let path = edited(&sandbox, &dump, "grant.sql.gz", |text| {
            before_end(&text, "GRANT SELECT ON TABLE pg_catalog.pg_class TO PUBLIC;")
        });
        let outcome = restore(&sandbox, &path);
        outcome.assert_success().assert_log_has("restore-postgres", warning);
        assert!(outcome.log.contains("BACKUP_POSTGRES_USER"), "{outcome}");
    });
    case("an extension that only a superuser may create", || {
        sandbox.psql("CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pgcrypto");
        let dump = dump_of(&sandbox);
        restore(&sandbox, &dump).assert_error(
            "The dump needs the extension pg_stat_statements, which only a superuser may create, and PostgreSQL user owner is none",
        );
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
        sandbox.psql("DROP EXTENSION pg_stat_statements");
        let dump = dump_of(&sandbox);
        restore(&sandbox, &dump).assert_success();
        sandbox.psql("DROP EXTENSION pgcrypto");
    });
    case("a setting that only a superuser may give", || {
        sandbox
            .psql("ALTER DATABASE n8n SET log_min_duration_statement = 1000; ALTER DATABASE n8n SET work_mem = '7MB'");
        let dump = dump_of(&sandbox);
        sandbox.psql("UPDATE t SET n = 2");
        restore(&sandbox, &dump).assert_success().assert_log_has(
            "restore-postgres",
            "WARN The restored database will differ from the replaced one in: settings",
        );
        assert_eq!(sandbox.psql("SELECT n FROM t").trim(), "1");
        // Told in time to look it up: the rest of them is kept.
        assert_eq!(sandbox.psql("SHOW work_mem").trim(), "7MB");
    });
}

/// n8n's role owned the database, of which a dump tells nothing. In one that the server's own user has made it is to
/// make tables as well, or the next update of n8n fails.
#[test]
fn n8ns_role_may_make_tables_in_a_new_database() {
    let sandbox = Sandbox::new("newowner").postgres().build();
    sandbox.psql(
        "CREATE ROLE app LOGIN; CREATE ROLE team; GRANT team TO app; ALTER DATABASE n8n OWNER TO app; SET ROLE app; \
         CREATE TABLE workflow_entity AS SELECT 1 AS id; CREATE TABLE migrations AS SELECT 1 AS id; RESET ROLE; \
         CREATE TABLE of_another_program AS SELECT 1 AS id",
    );
    sandbox.run("backup-postgres", &[]).assert_success();
    point::edit(&sandbox, |text| {
        let (title, rest) = text.split_once('\n').unwrap();
        format!("{title}\n# stack.n8n: gone\n# stack.login: app\n{rest}")
    });
    let dump = sandbox.backup("postgres");
    let restored = |options: &[&str]| {
        let outcome = sandbox.call("restore-postgres").args(options).arg(&dump).run();
        outcome.assert_success();
        assert!(!outcome.log.contains("may not read and write"), "{outcome}");
        sandbox.psql("SET ROLE app; CREATE TABLE migrated (id int); DROP TABLE migrated");
        outcome
    };
    let lets =
        "n8n's role app could not have created tables in the restored database, which n8n's updates need; it was \
                granted that: GRANT ALL ON SCHEMA public TO app";
    case("the database is its own", || {
        let outcome = restored(&["--yes"]);
        assert!(!outcome.log.contains("could not have created tables"), "{outcome}");
    });
    case("a new server", || {
        sandbox.psql("ALTER DATABASE n8n OWNER TO n8n; DROP OWNED BY app; DROP ROLE app");
        let outcome = restored(&["--yes", "--create-roles"]);
        outcome.assert_log_has("restore-postgres", &format!("WARN {lets}"));
        outcome.assert_log_has(
            "restore-postgres",
            "WARN n8n logs in as app: have a superuser run ALTER ROLE \"app\" LOGIN PASSWORD '...'; GRANT \"team\" TO \"app\"",
        );
        // It has it now.
        assert!(!restored(&["--yes"]).log.contains("n8n logs in as"));
    });
    case("in place, and where the database is lost", || {
        sandbox.psql_in("postgres", "DROP DATABASE n8n WITH (FORCE)");
        restored(&["--yes"]).assert_log_has("restore-postgres", &format!("WARN {lets}"));
        restored(&["--in-place"]).assert_log_has("restore-postgres", &format!("WARN {lets}"));
    });
    sandbox.psql("CREATE ROLE other");
    for (owner, grants) in [
        ("other", "GRANT other TO app"),
        (
            "n8n",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app",
        ),
    ] {
        case(&format!("tables of n8n that belong to {owner}"), || {
            let file = edited(&sandbox, &dump, "other.sql.gz", |text| {
                text.replace("OWNER TO app;", &format!("OWNER TO {owner};"))
            });
            let warning =
                "n8n's role app may not read and write n8n's tables in the restored database, which belong to \
                           another role: have a superuser run in it";
            let outcome = restore(&sandbox, &file);
            outcome
                .assert_success()
                .assert_log_has("restore-postgres", &format!("WARN {warning} {grants};"));
            sandbox.psql(grants);
            assert_eq!(sandbox.psql("SET ROLE app; SELECT id FROM workflow_entity").trim(), "1");
        });
    }
    case("a member of the role that n8n's tables belong to", || {
        let file = edited(&sandbox, &dump, "member.sql.gz", |text| {
            text.replace("OWNER TO app;", "OWNER TO team;")
        });
        sandbox.psql("GRANT team TO app");
        let outcome = restore(&sandbox, &file);
        assert!(
            !outcome.assert_success().log.contains("may not read and write"),
            "{outcome}"
        );
    });
}

/// Names that a shell, psql or docker would take for something else.
#[test]
fn hostile_names_are_only_names() {
    let name = "n'8\"n $(touch /tmp/n8nbt-planted) =;--\u{e4}";
    let sandbox = Sandbox::new("names")
        .postgres()
        .postgres_db(name)
        .postgres_user("u'ser \"x\" = \\")
        .seeded()
        .build();
    let before = sandbox.fingerprint_postgres();
    case("a database and a user with hostile names", || {
        let dump = dump_of(&sandbox);
        sandbox.psql("CREATE TABLE mark AS SELECT 1 AS n");
        restore(&sandbox, &dump).assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert!(!std::path::Path::new("/tmp/n8nbt-planted").exists());
    });
    for file in ["--help.sql.gz", "-rf.sql.gz", "a b'c\"$(x)\n.sql.gz"] {
        case(&format!("a file called {file:?}"), || {
            let dump = dump_of(&sandbox);
            let dir = sandbox.aside("operands");
            std::fs::create_dir_all(&dir).unwrap();
            let encrypted = dump.extension().is_some_and(|end| end == "gpg");
            let file = format!("{file}{}", if encrypted { ".gpg" } else { "" });
            std::fs::rename(dump, dir.join(&file)).unwrap();
            let mut call = trusted_restore(&sandbox).cwd(&dir);
            if file.starts_with('-') {
                call = call.arg("--");
            }
            call.arg(&file).run().assert_success();
            assert_same(&before, &sandbox.fingerprint_postgres());
        });
    }
}
