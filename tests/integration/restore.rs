//! restore-postgres: what is destroyed comes back, and what cannot be restored destroys nothing.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{assert_same, await_true, env_line, output, sh, Outcome, Sandbox};

/// The contract's lines, in the order of the work.
#[track_caller]
fn assert_restored(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{outcome}");
    outcome.assert_messages(
        "restore-postgres",
        &[
            "INFO Starting PostgreSQL restore from: {}.sql.gz",
            "INFO Verifying backup file integrity...",
            "INFO Backup file integrity verified",
            "WARN This will drop and recreate the database {}",
            "WARN All existing data will be replaced with backup data",
            "INFO Creating fresh database...",
            "INFO Restoring database from backup...",
            "INFO Verifying restore...",
            "INFO Found {} tables in restored database",
            "INFO Terminating existing database connections...",
            "SUCCESS Database restored successfully",
            "INFO Dropping existing database...",
            "SUCCESS PostgreSQL restore completed from: {}.sql.gz",
        ],
    );
}

/// Writes a gzip file of SQL text or whatever else.
fn gzipped(sandbox: &Sandbox, name: &str, text: &str) -> PathBuf {
    let (plain, file) = (sandbox.aside("plain"), sandbox.aside(name));
    fs::write(&plain, text).unwrap_or_else(|error| panic!("{error}"));
    sh("gzip -c -- \"$1\" >\"$2\"", &[plain.as_os_str(), file.as_os_str()]);
    file
}

fn restore(sandbox: &Sandbox, file: &Path) -> Outcome {
    sandbox.call("restore-postgres").arg(file).run()
}

#[test]
fn what_was_destroyed_comes_back() {
    let sandbox = Sandbox::new("back").postgres().seeded().build();
    sandbox.psql("ALTER DATABASE n8n SET statement_timeout = '7min'; COMMENT ON DATABASE n8n IS 'it''s ours'");
    let before = sandbox.fingerprint_postgres();
    sandbox.run("backup-postgres", &[]).assert_success();
    let file = sandbox.backup("postgres");
    sandbox.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE ruins(x int)");
    assert_ne!(sandbox.fingerprint_postgres(), before);

    // As from a crontab, with the log as standard output: each line once.
    let outcome = sandbox.call("restore-postgres").arg(&file).into_log().run();
    assert_restored(&outcome);
    outcome.assert_log_has(
        "restore-postgres",
        "INFO Running non-interactively, proceeding with restore",
    );
    assert_same(&before, &sandbox.fingerprint_postgres());
    assert_eq!(sandbox.databases(), ["n8n"]);
    let tables = sandbox.psql(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p') \
         AND nspname !~ '^pg_' AND nspname <> 'information_schema'",
    );
    outcome.assert_log_has(
        "restore-postgres",
        &format!("INFO Found {} tables in restored database", tables.trim()),
    );

    // Odd names of the same file, from its own directory too.
    for name in ["-dash with blanks.sql.gz", "new\nline $(id) ;'\"\u{fc}.sql.gz"] {
        let odd = sandbox.aside(name);
        fs::hard_link(&file, &odd).unwrap();
        sandbox.psql("DROP TABLE workflow_entity CASCADE");
        let call = sandbox.call("restore-postgres").cwd(odd.parent().unwrap());
        assert_restored(&call.args(&["--", name]).run());
        assert_eq!(
            sandbox.psql("SELECT count(*) > 0 FROM workflow_entity").trim(),
            "t",
            "{name}"
        );
    }
    assert_same(&before, &sandbox.fingerprint_postgres());

    // A database that is not there any more.
    sandbox.psql_in("postgres", "DROP DATABASE n8n");
    let outcome = restore(&sandbox, &file);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    let contents = |text: &str| -> String {
        let kept = text.lines().filter(|line| !line.starts_with("database|"));
        kept.map(|line| format!("{line}\n")).collect()
    };
    assert_same(&contents(&before), &contents(&sandbox.fingerprint_postgres()));
}

/// What an interrupted restore leaves is cleared by the next backup, but not what somebody has given another name.
#[test]
fn a_replaced_database_that_was_renamed_stays() {
    let sandbox = Sandbox::new("renamed").stack().seeded().build();
    let before = sandbox.fingerprint_postgres();
    for name in ["n8n_old_20260101_020000", "n8n_restore_20260101_020000", "rescued"] {
        sandbox.psql_in("postgres", &format!("CREATE DATABASE {name} TEMPLATE n8n"));
    }
    for (name, mark) in [
        ("n8n_old_20260101_020000", "replaced"),
        ("n8n_restore_20260101_020000", "staged for"),
        ("rescued", "replaced"),
    ] {
        sandbox.psql_in(
            "postgres",
            &format!("COMMENT ON DATABASE {name} IS 'n8n-backup: {mark} \"n8n\"'"),
        );
    }
    sandbox.run("backup-all", &[]).assert_success();
    assert_eq!(sandbox.databases(), ["n8n", "rescued"]);
    let file = sandbox.backup("postgres");
    restore(&sandbox, &file).assert_success();
    assert_eq!(sandbox.databases(), ["n8n", "rescued"]);
    let contents = |text: String| -> Vec<String> {
        let kept = text.lines().filter(|line| !line.starts_with("database|"));
        kept.map(str::to_owned).collect()
    };
    assert_eq!(contents(before), contents(sandbox.fingerprint_postgres_of("rescued")));
}

#[test]
fn a_terminal_is_asked() {
    let sandbox = Sandbox::new("ask").postgres().build();
    if !crate::common::has_program("script") {
        return crate::common::skip("restore::a_terminal_is_asked", "needs the program script (bsdutils)");
    }
    sandbox.psql("CREATE TABLE t AS SELECT 'before' AS x");
    sandbox.run("backup-postgres", &[]).assert_success();
    let file = sandbox.backup("postgres");
    sandbox.psql("UPDATE t SET x = 'after'");
    for answer in ["no\n", "y\n", "YES\n", "\n", "yes please\n"] {
        let outcome = sandbox.call("restore-postgres").arg(&file).terminal(answer).run();
        assert_eq!(outcome.code, Some(0), "{answer:?}: {outcome}");
        assert!(
            outcome.stdout.contains("Are you sure you want to continue? (yes/no): "),
            "{outcome}"
        );
        outcome.assert_log_has("restore-postgres", "INFO Restore cancelled by user");
        outcome.assert_never_says("Running non-interactively");
        assert_eq!(sandbox.psql("SELECT x FROM t").trim(), "after", "{answer:?}");
        assert_eq!(sandbox.databases(), ["n8n"]);
    }
    let outcome = sandbox.call("restore-postgres").arg(&file).terminal("yes\n").run();
    assert_restored(&outcome);
    assert!(
        outcome.stdout.contains("Are you sure you want to continue? (yes/no): "),
        "{outcome}"
    );
    assert!(!outcome.log.contains("Are you sure"), "{outcome}");
    assert_eq!(sandbox.psql("SELECT x FROM t").trim(), "before");
    // Answered beforehand, even on a terminal.
    sandbox.psql("UPDATE t SET x = 'after'");
    let outcome = sandbox
        .call("restore-postgres")
        .arg("--yes")
        .arg(&file)
        .terminal("no\n")
        .run();
    assert_restored(&outcome);
    assert_eq!(sandbox.psql("SELECT x FROM t").trim(), "before");
}

#[test]
fn a_file_that_is_not_a_whole_dump_destroys_nothing() {
    let sandbox = Sandbox::new("whole").postgres().seeded().build();
    sandbox.run("backup-postgres", &[]).assert_success();
    let good = sandbox.backup("postgres");
    let plain = sandbox.aside("good.sql");
    sh("gunzip -c -- \"$1\" >\"$2\"", &[good.as_os_str(), plain.as_os_str()]);
    let text = fs::read(&plain).unwrap();
    let compressed = fs::read(&good).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = sandbox.aside(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let cut_text = |name: &str, at: usize| {
        let part = write("part.sql", &text[..at]);
        let file = sandbox.aside(name);
        sh("gzip -c -- \"$1\" >\"$2\"", &[part.as_os_str(), file.as_os_str()]);
        file
    };
    let mut flipped = compressed.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let end = "-- PostgreSQL database dump complete";
    let at = text
        .windows(end.len())
        .rposition(|window| window == end.as_bytes())
        .unwrap();
    let first_half = cut_text("half.sql.gz", text.len() / 2);
    let mut members = fs::read(&first_half).unwrap();
    members.extend(&compressed[..20]);
    let corrupted = "Backup file is corrupted or not a valid gzip file";
    let before = sandbox.fingerprint_postgres();
    for (what, file) in [
        ("cut gzip", write("a.sql.gz", &compressed[..compressed.len() - 9])),
        (
            "without the last byte",
            write("b.sql.gz", &compressed[..compressed.len() - 1]),
        ),
        ("a flipped bit", write("c.sql.gz", &flipped)),
        ("text cut in the middle, gzip whole", first_half),
        ("text without its last line, gzip whole", cut_text("e.sql.gz", at)),
        ("a second member that is cut", write("f.sql.gz", &members)),
        (
            "another text",
            gzipped(&sandbox, "g.sql.gz", "DROP TABLE workflow_entity CASCADE;\n"),
        ),
        ("no text", gzipped(&sandbox, "h.sql.gz", "")),
        ("no gzip", write("i.sql.gz", &text)),
    ] {
        let listing = sandbox.listing();
        let outcome = restore(&sandbox, &file);
        outcome.assert_error(corrupted).assert_logged_as_printed();
        outcome.assert_never_says("This will drop");
        assert_eq!(sandbox.databases(), ["n8n"], "{what}");
        assert_eq!(sandbox.listing(), listing, "{what}");
    }

    // Whole dumps that the server refuses, at their end and in their data.
    let dump = String::from_utf8_lossy(&text).into_owned();
    let at = dump.rfind("--\n-- PostgreSQL database dump complete").unwrap();
    for (what, statement) in [
        ("an error at the end", "SELECT 1/0;\n\n"),
        ("a table twice", "CREATE TABLE public.workflow_entity (x integer);\n\n"),
        ("a commit of its own", "COMMIT; SELECT 1/0;\n\n"),
    ] {
        let text = [&dump[..at], statement, &dump[at..]].concat();
        let file = gzipped(&sandbox, "refused.sql.gz", &text);
        let outcome = sandbox.call("restore-postgres").arg("--trust-dump").arg(&file).run();
        outcome.assert_error("Database restore failed");
        outcome.assert_never_says("Database restored successfully");
        assert_eq!(sandbox.databases(), ["n8n"], "{what}: {outcome}");
    }
    assert_same(&before, &sandbox.fingerprint_postgres());

    sandbox.docker(&["stop", &sandbox.container("postgres")]);
    let outcome = restore(&sandbox, &good);
    outcome.assert_error(&format!("Container {} is not running", sandbox.container("postgres")));
    outcome.assert_never_says("This will drop");
}

/// Names that a shell, a connection string or an option parser would take for something else.
fn hostile_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "it's \"quoted\"; DROP DATABASE n8n; -- $HOME `id` $(id) %s {}*?",
        "-U",
        "--dbname=postgres",
        "dbname=postgres host=/nowhere",
        "postgresql://nowhere.invalid/other",
        " \u{dc}bersicht \u{1f4e6}\t\\",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(63));
    names
}

/// The image may be told to ask for a password in the container, too.
#[test]
fn a_server_that_asks_for_a_password_is_backed_up_and_restored() {
    let sandbox = Sandbox::new("scram")
        .postgres()
        .postgres_password("pass word'\"$x")
        .seeded()
        .build();
    let before = sandbox.fingerprint_postgres();
    let rule = |method: &str| {
        let line = format!("sed -i 's/^local all all .*/local all all {method}/' \"$PGDATA/pg_hba.conf\"");
        sandbox.docker(&["exec", &sandbox.container("postgres"), "sh", "-c", &line]);
        sandbox.docker(&["kill", "-s", "HUP", &sandbox.container("postgres")]);
        await_true("the server does not read its rules again", || {
            let mut psql = Command::new("docker");
            psql.args(["exec", &sandbox.container("postgres"), "psql", "-wU", "n8n", "-c", ""]);
            output(psql).status.success() == (method == "trust")
        });
    };
    rule("scram-sha-256");
    sandbox.run("backup-postgres", &[]).assert_success();
    let dump = sandbox.backup("postgres").display().to_string();
    rule("trust");
    sandbox.psql("DROP TABLE execution_data CASCADE");
    rule("scram-sha-256");
    let outcome = sandbox.run("restore-postgres", &["--yes", &dump]);
    outcome.assert_success();
    outcome.assert_never_says("pass word");
    rule("trust");
    assert_same(&before, &sandbox.fingerprint_postgres());

    // The role that loads a stranger's dump logs in by a password, too.
    let strange = sandbox.aside("strange.sql.gz");
    let container = sandbox.container("postgres");
    let mut dump = Command::new("bash");
    dump.args([
        "-euo",
        "pipefail",
        "-c",
        "docker exec \"$1\" pg_dump -U n8n -t tag_entity n8n | gzip >\"$2\"",
        "bash",
        &container,
    ])
    .arg(&strange);
    assert!(output(dump).status.success());
    let rows = sandbox.psql("SELECT count(*) FROM tag_entity");
    rule("scram-sha-256");
    let outcome = sandbox.call("restore-postgres").arg("--yes").arg(&strange).run();
    outcome.assert_success();
    rule("trust");
    assert_eq!(sandbox.psql("SELECT count(*) FROM tag_entity"), rows);
    assert_eq!(
        sandbox
            .psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            .trim(),
        "1"
    );

    let line = "sed -i 's/^local all all .*/local all n8n trust\\nlocal all all reject/' \"$PGDATA/pg_hba.conf\"";
    sandbox.docker(&["exec", &container, "sh", "-c", line]);
    sandbox.docker(&["kill", "-s", "HUP", &container]);
    await_true("the server does not read its rules again", || {
        let mut psql = Command::new("docker");
        psql.args(["exec", &container, "psql", "-wU", "nobody", "-d", "n8n", "-c", ""]);
        String::from_utf8_lossy(&output(psql).stderr).contains("rejects")
    });
    let outcome = sandbox.call("restore-postgres").arg("--yes").arg(&strange).run();
    outcome.assert_error("Database restore failed");
    outcome.assert_log_has(
        "restore-postgres",
        "ERROR Hint: add --trust-dump if you know where the file is from",
    );
    assert_eq!(sandbox.psql("SELECT count(*) FROM tag_entity"), rows);
}

#[test]
fn hostile_names_of_users_and_databases() {
    let sandbox = Sandbox::new("names").postgres().build();
    let ident = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let env = fs::read_to_string(sandbox.path(".env")).unwrap();
    let names = hostile_names();
    for (i, name) in names.iter().enumerate() {
        // A user of another name than the database, so that one is not taken for the other.
        let user = &names[(i + 1) % names.len()];
        sandbox.psql_in("postgres", &format!("CREATE ROLE {} SUPERUSER LOGIN", ident(user)));
        sandbox.psql_in(
            "postgres",
            &format!("CREATE DATABASE {} OWNER {}", ident(name), ident(user)),
        );
        let table = format!(
            "CREATE TABLE {0}({0} text); INSERT INTO {0} VALUES ($q${1}$q$)",
            ident(name),
            name
        );
        sandbox.psql_in(name, &table);
        let settings = [env_line("POSTGRES_USER", user), env_line("POSTGRES_DB", name)].join("\n");
        sandbox.write(".env", format!("{env}{settings}\n"));
        fs::remove_dir_all(sandbox.path("backups/postgres")).unwrap();
        let outcome = sandbox.run("backup-postgres", &[]);
        outcome.assert_success().assert_logged_as_printed();
        assert!(!outcome.log.contains("WARN"), "{outcome}");
        sandbox.psql_in(name, &format!("DROP TABLE {0}; CREATE TABLE ruins()", ident(name)));
        let outcome = restore(&sandbox, &sandbox.backup("postgres"));
        assert_restored(&outcome);
        let found = sandbox.psql_in(name, &format!("SELECT {0} FROM {0}", ident(name)));
        assert_eq!(found.trim_end_matches('\n'), name, "{outcome}");
        let owner =
            "SELECT rolname FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE datname = current_database()";
        assert_eq!(sandbox.psql_in(name, owner).trim_end_matches('\n'), user);
    }
    // Nothing else is left, and the bystander is as it was.
    assert_eq!(sandbox.databases().len(), names.len() + 1, "{:?}", sandbox.databases());
    assert_eq!(
        sandbox
            .psql("SELECT count(*) FROM pg_class WHERE relname = 'ruins'")
            .trim(),
        "0"
    );
}

#[test]
fn a_restore_waits_for_no_backup_and_a_backup_for_no_restore() {
    let sandbox = Sandbox::new("apart").postgres().build();
    sandbox.psql("CREATE TABLE t AS SELECT 1 AS x");
    sandbox.run("backup-postgres", &[]).assert_success();
    let file = sandbox.backup("postgres");
    let gate = sandbox.gate();
    let slow = sandbox.stand_in_docker(&format!("case \"$*\" in *psql*) {} ;; esac", gate.wait()));
    let mut running = sandbox.call("restore-postgres").arg(&file).path_first(&slow).spawn();
    running.await_log("Backup file integrity verified");
    let busy = format!("Backup already in progress (PID: {})", running.pid());
    for (script, args) in [("backup-all", vec![]), ("restore-postgres", vec![file.as_os_str()])] {
        let outcome = sandbox.call(script).args::<&OsStr>(&args).run();
        let said = outcome
            .stdout
            .lines()
            .filter(|line| line.starts_with("[ERROR]"))
            .collect::<Vec<_>>();
        assert!(
            outcome.code == Some(1) && said.len() == 1 && said[0].ends_with(&busy),
            "{script}: {outcome}"
        );
    }
    gate.open();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
}

#[test]
fn n8n_is_restarted_where_that_is_asked_for() {
    let sandbox = Sandbox::new("rrestart").postgres().n8n().build();
    sandbox.psql("CREATE TABLE things (id int); INSERT INTO things VALUES (1)");
    sandbox.run("backup-postgres", &[]).assert_success();
    let file = sandbox.backup("postgres");
    let file = file.to_str().unwrap();
    let started = || {
        ["n8n-main", "n8n-worker"]
            .map(|name| sandbox.docker(&["inspect", "--format", "{{.State.StartedAt}}", &sandbox.container(name)]))
    };
    let before = started();
    let outcome = sandbox.run("restore-postgres", &["--yes", file]);
    outcome.assert_success();
    outcome.assert_log_has("restore-postgres", "WARN {}: docker restart {}");
    assert_eq!(started(), before);
    let outcome = sandbox.run("restore-postgres", &["--yes", "--restart-n8n", file]);
    outcome.assert_success();
    outcome.assert_log_has("restore-postgres", "INFO Restarting {}");
    let after = started();
    assert!(after[0] != before[0] && after[1] != before[1], "{after:?}");
    assert_eq!(sandbox.psql("SELECT count(*) FROM things").trim(), "1");
}
