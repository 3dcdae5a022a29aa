//! Workflows and credentials of a dump that come back into a live database.

use std::fs;
use std::path::Path;

use super::{changed, dump, names, path, workflows, HOOK, INVOICES, USES};
use crate::common::servers::{next, serve};
use crate::common::{mode, Outcome, Sandbox};

/// A sandbox whose database is that of the dump.
fn live(name: &'static str) -> Sandbox {
    let sandbox = Sandbox::new(name).postgres().build();
    let loaded = sandbox
        .binary()
        .args(&["restore-postgres", "--trust-dump", "--yes", path(&dump())])
        .run();
    assert_eq!(loaded.code, Some(0), "{loaded}");
    sandbox
}

/// All that belongs to a workflow.
fn rows(sandbox: &Sandbox, id: &str) -> String {
    let tables = ["workflow_history", "shared_workflow", "workflows_tags"];
    let own = sandbox.psql(&format!("SELECT * FROM workflow_entity WHERE id = '{id}'"));
    tables.iter().fold(own, |all, table| {
        all + &sandbox.psql(&format!(
            "SELECT * FROM {table} WHERE \"workflowId\" = '{id}' ORDER BY 1, 2"
        ))
    })
}

#[test]
fn one_workflow_comes_back_into_the_live_database() {
    let sandbox = live("wf-restore");
    let file = dump();
    let restore = |args: &[&str]| {
        workflows(
            &sandbox,
            &[&["workflows", "restore"], args, &["--from", path(&file), "--yes"]].concat(),
        )
    };
    let diff = || workflows(&sandbox, &["workflows", "diff", path(&file)]);
    assert_eq!((diff().code, diff().stdout.as_str()), (Some(0), ""), "{}", diff());

    // Deleted: it comes back as it was, with what belonged to it.
    sandbox.psql(&format!(
        "INSERT INTO workflows_tags SELECT '{INVOICES}', id FROM tag_entity"
    ));
    let tagged = changed(
        &sandbox,
        "tagged.sql.gz",
        &format!("/^COPY public.workflows_tags /a {INVOICES}\\t1xK74TlTEVnkFcla"),
    );
    let before = rows(&sandbox, INVOICES);
    let executions = sandbox.psql("SELECT count(*) FROM execution_entity");
    sandbox.psql(&format!("DELETE FROM workflow_entity WHERE id = '{INVOICES}'"));
    assert_eq!(rows(&sandbox, INVOICES), "");
    assert!(diff().stdout.contains("removed: Invoices"), "{}", diff());
    let outcome = workflows(&sandbox, &["workflows", "restore", INVOICES, "--from", path(&tagged)]);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert_eq!(rows(&sandbox, INVOICES), before);
    assert_eq!(sandbox.psql("SELECT count(*) FROM execution_entity"), executions);

    // Spoilt: what is there is saved, and the executions stay.
    sandbox.psql(&format!(
        "UPDATE workflow_entity SET nodes = '[]', name = 'Spoilt' WHERE id = '{USES}'"
    ));
    restore(&[USES]).assert_success();
    assert_eq!(
        sandbox
            .psql(&format!(
                "SELECT name, json_array_length(nodes) FROM workflow_entity WHERE id = '{USES}'"
            ))
            .trim(),
        "Uses credential|2"
    );
    let saved = names(&sandbox.path("backups/workflows"));
    assert!(saved.len() == 1 && saved[0].starts_with(USES), "{saved:?}");
    let saved = sandbox.path("backups/workflows").join(&saved[0]);
    assert_eq!(mode(&saved), 0o600);
    assert!(fs::read_to_string(&saved).unwrap().contains("\"name\": \"Spoilt\""));

    // Edited after the last look at it.
    let args = ["workflows", "restore", USES, "--from", path(&file), "--yes"];
    let outcome = edited_before_the_rows(&sandbox, "workflow_entity", &args);
    outcome.assert_log_has("workflows restore", "ERROR Cause: it has changed in n8n meanwhile");
    let name = format!("SELECT name FROM workflow_entity WHERE id = '{USES}'");
    assert_eq!(sandbox.psql(&name).trim(), "Late");
    restore(&[USES]).assert_success();

    let outcome = restore(&[USES, "--project", "kUOail2oPxHO7R5n"]);
    outcome.assert_error("It is there and stays in its project, so --project is not for it");

    // Active: refused, unless it is forced; then it is inactive until n8n is told otherwise.
    restore(&[HOOK]).assert_error("Workflow Hook (i4YonIkhBdusvbhG) is active now{}");
    let outcome = restore(&[HOOK, "--force"]);
    outcome.assert_log_has("workflows restore", "WARN n8n takes it up by itself{}");
    let state = || {
        sandbox.psql(&format!(
            "SELECT active, \"activeVersionId\" FROM workflow_entity WHERE id = '{HOOK}'"
        ))
    };
    assert_eq!(state().trim(), "f|");
    restore(&[HOOK, "--activate"]).assert_log_has("workflows restore", "WARN n8n takes it up by itself{}");
    assert_eq!(state().trim(), "t|0943c66e-3813-4ce9-b55d-286a17ea35c8");

    // As a copy, beside the one that is active: everything that must be unique is new.
    let outcome = restore(&[HOOK, "--as-copy"]);
    outcome.assert_log_has(
        "workflows restore",
        "WARN Its webhooks have the paths of the original (hook), and n8n registers one of the two only{}",
    );
    let copies = sandbox.psql("SELECT id FROM workflow_entity WHERE name = 'Hook' AND NOT active");
    let copy = copies.trim();
    assert!(copy.len() == 16 && copy != HOOK, "{copies}");
    let rows = rows(&sandbox, copy);
    for old in [
        HOOK,
        "0943c66e-3813-4ce9-b55d-286a17ea35c8",
        "5f3e8b1a-0000-4000-8000-000000000001",
    ] {
        assert!(!rows.contains(old), "{rows}");
    }
    assert_eq!(rows.matches("webhookId").count(), 2, "{rows}");

    restore(&["y2CJSrlVXagfDxv"])
        .assert_error("There is no workflow y2CJSrlVXagfDxv in {}, did you mean y2CJSrlVXagfDxv8?");
    published_versions(&sandbox);
}

/// A trigger of n8n's tables has the rights of n8n's role, whoever restores.
#[test]
fn a_workflow_is_written_with_the_rights_of_n8ns_role() {
    let sandbox = live("wf-role");
    let file = dump();
    sandbox.run("backup-postgres", &[]).assert_success();
    // The containers of n8n are gone, and a recovery point remembers its role.
    let set = sandbox.backup("sets");
    let text = fs::read_to_string(&set).unwrap();
    let (title, rest) = text.split_once('\n').unwrap();
    let facts = "# stack.n8n: gone\n# stack.login: app\n# stack.schema: public\n";
    fs::write(&set, format!("{title}\n{facts}{rest}")).unwrap();
    sandbox.psql(&format!(
        "UPDATE workflow_entity SET name = 'Spoilt' WHERE id = '{USES}'"
    ));
    sandbox.psql(
        "CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app;
         DO $x$ DECLARE t regclass; BEGIN
             FOR t IN SELECT format('public.%I', tablename) FROM pg_tables WHERE schemaname = 'public' LOOP
                 EXECUTE format('ALTER TABLE %s OWNER TO app', t);
             END LOOP;
         END $x$;
         CREATE FUNCTION rise() RETURNS trigger LANGUAGE plpgsql AS $x$ BEGIN
             IF (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
                 RESET ROLE;
                 ALTER ROLE app SUPERUSER;
             END IF;
             RETURN NEW;
         END $x$;
         CREATE TRIGGER rises BEFORE INSERT OR UPDATE ON workflow_entity FOR EACH ROW EXECUTE FUNCTION rise()",
    );
    let restore = || {
        let args = ["workflows", "restore", USES, "--from", path(&file), "--yes"];
        workflows(&sandbox, &args)
    };
    let name = || {
        let ask = format!("SELECT name FROM workflow_entity WHERE id = '{USES}'");
        sandbox.psql(&ask).trim().to_owned()
    };
    // What stands in its way is told, with what to do.
    for (hinder, told, help) in [
        (
            "REVOKE TEMPORARY ON DATABASE n8n FROM PUBLIC",
            "ERROR Hint: have a superuser run GRANT TEMPORARY ON DATABASE \"n8n\" TO \"app\";",
            "GRANT TEMPORARY ON DATABASE n8n TO app",
        ),
        (
            "ALTER ROLE app NOLOGIN",
            "ERROR Cause: n8n's role app, with whose rights rows are written, cannot log in: {}",
            "ALTER ROLE app LOGIN",
        ),
    ] {
        sandbox.psql(hinder);
        let outcome = restore();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        outcome.assert_log_has("workflows restore", told);
        assert_eq!(name(), "Spoilt");
        sandbox.psql(help);
    }
    restore().assert_success();
    assert_eq!(name(), "Uses credential");
    let app = "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'";
    assert_eq!(sandbox.psql(app).trim(), "f");
}

/// What is published is not always what is edited, and what n8n 1 wrote lacks what n8n 2 goes by.
fn published_versions(sandbox: &Sandbox) {
    const OLD: &str = "11111111-0000-4000-8000-000000000001";
    const DRAFT: &str = "0943c66e-3813-4ce9-b55d-286a17ea35c8";
    let two = changed(
        sandbox,
        "two.sql.gz",
        &format!(
            "/^COPY public.workflow_history /a {OLD}\\t{HOOK}\\tO W\\t2026-11-27\\t2026-11-27\\t[]\\t{{}}\\tThen\\tf\\t\\\\N\\t[]\n\
             /^Hook\t/{{s/{DRAFT}(\t\\[\\])/{OLD}\\1/; s/\\\\N\t\\{{\\}}\t/{{\"node:Webhook\":{{}}}}\t{{}}\t/}}"
        ),
    );
    let before = changed(
        sandbox,
        "before.sql.gz",
        "s/^(COPY public.workflow_entity .*), \"activeVersionId\", \"nodeGroups\"/\\1/
         /^COPY public.workflow_entity/,/^\\\\\\.$/s/\t[^\t]*\t[^\t]*(\t[^\t]*)$/\\1/
         /^COPY public.workflow_history/,/^\\\\\\.$/{/^[0-9a-f]{8}-/d}",
    );
    let restore = |file: &Path, args: &[&str]| {
        let outcome = workflows(
            sandbox,
            &[&["workflows", "restore"], args, &["--from", path(file), "--yes"]].concat(),
        );
        outcome.assert_success();
        outcome
    };
    let state = |id: &str| {
        let state = sandbox.psql(&format!(
            "SELECT w.active, w.\"activeVersionId\", w.\"staticData\", w.\"triggerCount\", count(h.*), max(h.name) \
             FROM workflow_entity w LEFT JOIN workflow_history h ON h.\"workflowId\" = w.id WHERE w.id = '{id}' GROUP BY w.id"
        ));
        state.trim().to_owned()
    };
    let counter = || {
        let counter = sandbox.psql(&format!(
            "SELECT \"versionCounter\" FROM workflow_entity WHERE id = '{HOOK}'"
        ));
        counter.trim().parse::<u32>().unwrap()
    };
    sandbox.psql(&format!(
        "UPDATE workflow_entity SET \"versionCounter\" = 70, nodes = '[]', \"staticData\" = '{{\"live\":1}}', \"triggerCount\" = 3 WHERE id = '{HOOK}'; \
         UPDATE workflow_history SET name = 'Now' WHERE \"workflowId\" = '{HOOK}'"
    ));
    restore(&two, &[HOOK, "--force"]).assert_log_has(
        "workflows restore",
        &format!("WARN Version {OLD} was published then, {{}}"),
    );
    restore(&two, &[HOOK, "--activate"]).assert_log_has(
        "workflows restore",
        &format!("INFO Version {OLD} will be published, {{}}"),
    );
    assert_eq!(state(HOOK), format!("t|{OLD}|{{\"live\":1}}|3|2|Then"));
    let told = workflows(sandbox, &["workflows", "diff", path(&dump())]);
    assert!(told.stdout.contains(&format!("published: Hook ({HOOK})")), "{told}");
    let told = workflows(sandbox, &["workflows", "diff", path(&two)]);
    assert!(!told.stdout.contains(HOOK), "{told}");
    assert!(counter() > 70, "{}", counter());
    let named = format!("SELECT name FROM workflow_history WHERE \"versionId\" = '{DRAFT}'");
    assert_eq!(sandbox.psql(&named).trim(), "Now");

    restore(&two, &[HOOK, "--as-copy", "--activate"]);
    let copy = sandbox.psql(&format!(
        "SELECT w.id FROM workflow_entity w JOIN workflow_history h ON h.\"versionId\" = w.\"activeVersionId\" \
         WHERE w.id <> '{HOOK}' AND w.name = 'Hook' AND h.name = 'Then' AND w.\"versionId\" <> w.\"activeVersionId\""
    ));
    let copied = state(copy.trim());
    assert!(copied.starts_with("t|") && copied.ends_with("||0|2|Then"), "{copied}");

    // n8n 2 runs what has a published version, whatever the other column says.
    sandbox.psql(&format!(
        "UPDATE workflow_entity SET active = false WHERE id = '{HOOK}'"
    ));
    let refused = workflows(sandbox, &["workflows", "restore", HOOK, "--from", path(&two), "--yes"]);
    refused.assert_error("Workflow Hook (i4YonIkhBdusvbhG) is active now{}");
    // Groups of nodes that are not there any more.
    let groups = format!("UPDATE workflow_entity SET \"nodeGroups\" = '[{{\"id\":\"g\"}}]' WHERE id = '{HOOK}'");
    sandbox.psql(&groups);
    restore(&before, &[HOOK, "--force"]);
    assert_eq!(state(HOOK), "f||{\"live\":1}|3|2|Then");
    let groups = format!("SELECT \"nodeGroups\" FROM workflow_entity WHERE id = '{HOOK}'");
    assert_eq!(sandbox.psql(&groups).trim(), "[]");
    sandbox.psql(&format!(
        "DELETE FROM workflow_published_version; DELETE FROM workflow_entity WHERE id = '{HOOK}'"
    ));
    restore(&before, &[HOOK, "--activate"]);
    assert_eq!(state(HOOK), format!("t|{DRAFT}||1|1|"));
    restore(&before, &[HOOK, "--as-copy"]);
    let versions = "SELECT count(*) FROM workflow_entity w JOIN workflow_history h ON h.\"workflowId\" = w.id AND \
         h.\"versionId\" = w.\"versionId\" WHERE w.name = 'Hook' AND h.authors = 'n8n-backup' AND h.nodes::text = w.nodes::text";
    assert_eq!(sandbox.psql(versions).trim(), "2");
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let sandbox = live("wf-refuse");
    let restore = |file: &Path, args: &[&str]| {
        workflows(
            &sandbox,
            &[&["workflows", "restore", INVOICES, "--from", path(file)], args].concat(),
        )
    };
    sandbox.psql(&format!("DELETE FROM workflow_entity WHERE id = '{INVOICES}'"));
    let before = sandbox.fingerprint_postgres();
    // A project that is gone, a folder, and a column that is not known here.
    let project = changed(
        &sandbox,
        "project.sql.gz",
        "s/^(y2CJSrlVXagfDxv8\\t)kUOail2oPxHO7R5n/\\1gone/",
    );
    let outcome = restore(&project, &[]);
    outcome.assert_error("The project gone that it belongs to is not there now");
    assert!(
        outcome.stdout.contains("kUOail2oPxHO7R5n (O W <owner@example.com>)"),
        "{outcome}"
    );
    let folder = changed(
        &sandbox,
        "folder.sql.gz",
        "s/^(Invoices\\t.*y2CJSrlVXagfDxv8\\t\\\\N\\t)\\\\N/\\1folder1/",
    );
    restore(&folder, &[]).assert_error("The folder folder1 that it belongs to is not there now");
    let column = changed(
        &sandbox,
        "column.sql.gz",
        "s/^(COPY public.workflow_entity .*\"sourceWorkflowId\")/\\1, future/; /^COPY public.workflow_entity/,/^\\\\\\.$/s/\\t\\\\N$/&\\tx/",
    );
    restore(&column, &[]).assert_error("The workflow was not restored, and nothing was changed");
    assert_eq!(sandbox.fingerprint_postgres(), before);
    // A folder of another project.
    sandbox.psql(
        "INSERT INTO project (id, name, type) VALUES ('other', 'Other', 'team'); \
         INSERT INTO folder (id, name, \"projectId\") VALUES ('folder1', 'F', 'other')",
    );
    restore(&folder, &[]).assert_error("The folder folder1 of its project that it belongs to is not there now");
    // With a project that is there, it goes into that.
    assert_eq!(restore(&project, &["--project", "kUOail2oPxHO7R5n"]).code, Some(0));
    assert!(rows(&sandbox, INVOICES).contains("kUOail2oPxHO7R5n"));

    // Nor are others who are gone what it belongs to.
    let shared = changed(
        &sandbox,
        "shared.sql.gz",
        "s/^y2CJSrlVXagfDxv8\\tkUOail2oPxHO7R5n\\tworkflow:owner(.*)/&\\ny2CJSrlVXagfDxv8\\tgone\\tworkflow:editor\\1/",
    );
    sandbox.psql(&format!("DELETE FROM workflow_entity WHERE id = '{INVOICES}'"));
    restore(&shared, &[]).assert_log_has(
        "workflows restore",
        "WARN It will not be shared with project gone, which is not there now",
    );
    let shares = format!("SELECT role FROM shared_workflow WHERE \"workflowId\" = '{INVOICES}'");
    assert_eq!(sandbox.psql(&shares).trim(), "workflow:owner");

    // Before n8n had projects, a share named a user.
    let users = changed(
        &sandbox,
        "users.sql.gz",
        "s/^(COPY public.shared_workflow .*)\"projectId\"/\\1\"userId\"/",
    );
    sandbox.psql(&format!("DELETE FROM workflow_entity WHERE id = '{INVOICES}'"));
    restore(&users, &[]).assert_error("The project that it belongs to is not there now");
    restore(&users, &["--project", "other"]).assert_success();
    let owner = format!("SELECT \"projectId\", role FROM shared_workflow WHERE \"workflowId\" = '{INVOICES}'");
    assert_eq!(sandbox.psql(&owner).trim(), "other|workflow:owner");
}

#[test]
fn each_backup_tells_what_has_changed() {
    let sandbox = live("wf-since");
    let since = || {
        let outcome = sandbox.run("backup-all", &[]);
        let lines = outcome.messages("backup-all");
        lines.into_iter().find(|line| line.contains("Since the last backup"))
    };
    assert_eq!(since(), None);
    assert_eq!(mode(&sandbox.path("backups/.workflows")), 0o600);
    assert_eq!(
        since().as_deref(),
        Some("INFO Since the last backup: no workflow changed")
    );
    sandbox.psql(&format!("UPDATE workflow_entity SET nodes = '[{{}}]' WHERE id = '{USES}'; DELETE FROM workflow_entity WHERE id = '{INVOICES}'"));
    assert_eq!(
        since().as_deref(),
        Some("INFO Since the last backup: 1 workflow changed, 1 deleted (Invoices)")
    );
    sandbox.psql(
        "INSERT INTO workflow_entity (id, name, active, nodes, connections, \"versionId\") \
         SELECT 'w' || n, E'n\\n' || n, false, '[]', '{}', gen_random_uuid() FROM generate_series(1, 6) n",
    );
    assert_eq!(
        since().as_deref(),
        Some("INFO Since the last backup: 6 workflows added")
    );
    sandbox.psql("DELETE FROM workflow_entity WHERE id LIKE 'w_'");
    let (address, requests) = serve(0);
    sandbox.set("BACKUP_PING_URL", &address);
    let line = since().unwrap_or_default();
    assert!(
        line.starts_with("WARN Since the last backup: 6 workflows deleted (n\\n1, "),
        "{line}"
    );
    assert_eq!(next(&requests).line, "POST /start");
    let told = next(&requests).body;
    assert!(
        told.contains("Since the last backup: 6 workflows deleted (n\\n1, "),
        "{told}"
    );
}

#[test]
fn a_copy_for_a_test_host_starts_no_workflow() {
    let sandbox = live("wf-copy");
    sandbox.psql(&format!(
        "INSERT INTO execution_entity (finished, mode, status, \"workflowId\", \"waitTill\") \
         VALUES (false, 'trigger', 'waiting', '{HOOK}', now()), (false, 'trigger', 'new', '{HOOK}', NULL); \
         INSERT INTO agents (id, name, \"projectId\") SELECT 'agent1', 'Bot', id FROM project; \
         INSERT INTO agent_history (\"versionId\", \"agentId\", author) VALUES ('version1', 'agent1', 'O W'); \
         UPDATE agents SET \"activeVersionId\" = 'version1'"
    ));
    // An old n8n has few of the tables.
    sandbox.psql("CREATE SCHEMA old; CREATE TABLE old.n_workflow_entity AS SELECT * FROM workflow_entity");
    sandbox.run("backup-postgres", &[]).assert_success();
    let file = sandbox.backup("postgres");
    let executions = "SELECT count(*) FROM execution_entity";
    let before = sandbox.psql(executions);
    let outcome = sandbox
        .binary()
        .args(&["restore-postgres", "--deactivate", path(&file)])
        .run();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    outcome.assert_log_has(
        "restore-postgres",
        "WARN --deactivate: 2 workflow(s) that were active are inactive, and no execution waits",
    );
    let active = "SELECT (SELECT count(*) FROM workflow_entity WHERE active OR \"activeVersionId\" IS NOT NULL), \
                  (SELECT count(*) FROM webhook_entity), (SELECT count(*) FROM workflow_published_version), \
                  (SELECT count(*) FROM execution_entity WHERE \"waitTill\" IS NOT NULL OR status IN ('waiting', 'new')), \
                  (SELECT count(*) FROM agents WHERE \"activeVersionId\" IS NOT NULL)";
    assert_eq!(sandbox.psql(active).trim(), "0|0|0|0|0");
    let old = "SELECT count(*) FROM old.n_workflow_entity WHERE active OR \"activeVersionId\" IS NOT NULL";
    assert_eq!(sandbox.psql(old).trim(), "0");
    assert_eq!(sandbox.psql("SELECT count(*) FROM workflow_entity").trim(), "3");
    assert_eq!(sandbox.psql(executions), before);

    // Where there is no n8n, nothing could be made sure of, and nothing is swapped in.
    sandbox.psql("ALTER TABLE workflow_entity RENAME TO other; DROP SCHEMA old CASCADE");
    sandbox.run("backup-postgres", &[]).assert_success();
    let file = sandbox.backups("postgres").pop().unwrap();
    let outcome = sandbox
        .binary()
        .args(&["restore-postgres", "--deactivate", path(&file)])
        .run();
    outcome.assert_error("--deactivate: the dump holds no workflows of n8n");
}

/// Runs a command while n8n saves all rows of `table` once they were read for the second time.
fn edited_before_the_rows(sandbox: &Sandbox, table: &str, args: &[&str]) -> Outcome {
    let reads = sandbox.aside(format!("reads-of-{table}"));
    let edit = format!("UPDATE {table} SET name = 'Late', \\\"updatedAt\\\" = now()");
    let script = format!(
        "case \" $* \" in *' pg_dump '*) echo >>{0} ;; *) [ -e {0} ] && [ $(wc -l <{0}) = 2 ] && echo >>{0} && \
         \"$real\" exec {1} psql -qU n8n n8n -c \"{edit}\" ;; esac",
        reads.display(),
        sandbox.container("postgres")
    );
    let call = sandbox.binary().args(args);
    call.path_first(sandbox.stand_in_docker(&script)).run()
}

#[test]
fn a_credential_comes_back_where_its_key_is() {
    let sandbox = live("wf-cred");
    let file = dump();
    let restore = |id: &str, more: &[&str]| {
        let args = [&["credentials", "restore", id, "--from", path(&file)], more].concat();
        workflows(&sandbox, &args)
    };
    let all = "SELECT * FROM credentials_entity JOIN shared_credentials ON \"credentialsId\" = id ORDER BY id";
    let before = sandbox.psql(all);
    let (old, rotated) = ("JTiXbvzr5Qy3YACo", "LINkcfAoGqGWYzAC");
    // One of each form, deleted and spoilt.
    sandbox.psql(&format!(
        "DELETE FROM credentials_entity WHERE id = '{old}'; UPDATE credentials_entity SET data = 'x' WHERE id = '{rotated}'"
    ));
    restore(old, &[]).assert_log_has("credentials restore", "SUCCESS Credential restored: Old basic ({})");
    let outcome = restore(rotated, &[]);
    outcome.assert_log_has("credentials restore", "SUCCESS Credential restored: Second key ({})");
    outcome.assert_never_says("FSoGtTx4c4UFzXbw:");
    assert_eq!(sandbox.psql(all), before);
    assert_eq!(names(&sandbox.path("backups/credentials")).len(), 1);
    // One that n8n itself uses belongs to no project.
    let own = changed(
        &sandbox,
        "instance.sql.gz",
        &format!("/^{old}\\t.*credential:owner/d; /^Old basic\\t/s/project$/instance/"),
    );
    sandbox.psql(&format!("DELETE FROM credentials_entity WHERE id = '{old}'"));
    let args = ["credentials", "restore", old, "--from", path(&own)];
    let outcome = workflows(&sandbox, &[&args[..], &["--project", "any"]].concat());
    outcome.assert_error("It belongs to n8n itself and to no project");
    workflows(&sandbox, &args).assert_log_has("credentials restore", "SUCCESS Credential restored: Old basic ({})");
    let share = "(SELECT count(*) FROM shared_credentials WHERE \"credentialsId\" = id)";
    let placed = format!("SELECT \"usageScope\", {share} FROM credentials_entity WHERE id = '{old}'");
    assert_eq!(sandbox.psql(&placed).trim(), "instance|0");
    // What is changed during the question would be lost: what is saved is what was read before.
    let psql = format!(
        "\"$real\" exec {} psql -qU n8n n8n -c \"UPDATE credentials_entity SET name = 'Edited' WHERE id = '{rotated}'\"",
        sandbox.container("postgres")
    );
    let count = sandbox.aside("reads");
    let edit = format!(
        "case \" $* \" in *' pg_dump '*) echo >>{0}; [ $(wc -l <{0}) != 2 ] || {psql} ;; esac",
        count.display()
    );
    let args = ["credentials", "restore", rotated, "--from", path(&file)];
    let call = sandbox.binary().args(&args);
    let outcome = call.path_first(sandbox.stand_in_docker(&edit)).run();
    outcome.assert_error("It has changed in n8n meanwhile, so nothing was done");
    let name = format!("SELECT name FROM credentials_entity WHERE id = '{rotated}'");
    assert_eq!(sandbox.psql(&name).trim(), "Edited");
    let outcome = edited_before_the_rows(&sandbox, "credentials_entity", &args);
    outcome.assert_log_has("credentials restore", "ERROR Cause: it has changed in n8n meanwhile");
    assert_eq!(sandbox.psql(&name).trim(), "Late");
    // n8n wraps its keys again.
    sandbox.psql("UPDATE deployment_key SET value = 'x' WHERE id = 'FSoGtTx4c4UFzXbw'");
    restore(rotated, &[]).assert_error("It is not known whether the live n8n's key opens the credential: {}");
    restore(rotated, &["--force"]).assert_success();
    // Without the key in the database, the credential would be of no use.
    sandbox.psql("DELETE FROM deployment_key WHERE id = 'FSoGtTx4c4UFzXbw'");
    restore(rotated, &[]).assert_error("The live n8n does not have the key that the credential is encrypted under");
    restore("none", &[]).assert_error("There is no credential none in {}");
}
