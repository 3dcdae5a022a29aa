//! BACKUP_EXECUTIONS=off: a dump without the rows of executions, which loads, and which nobody takes for a full one.

use std::fs;

use crate::common::Sandbox;

const WARNING: &str = "WARN The dump holds no executions (BACKUP_EXECUTIONS=off when it was made): {}";

/// What must come back in spite of it, as text.
fn rest(sandbox: &Sandbox) -> String {
    sandbox.psql(
        "select 'workflows', md5(string_agg(w::text, ',' order by w.id)) from workflow_entity w union all
         select 'credentials', md5(string_agg(c::text, ',' order by c.id)) from credentials_entity c union all
         select 'chat', md5(string_agg(m::text, ',' order by m.id)) from chat_hub_messages m union all
         select 'insights', md5(string_agg(i::text, ',' order by i.id)) from insights_raw i union all
         select 'tags', md5(string_agg(t::text, ',' order by t.id)) from annotation_tag_entity t union all
         select 'sequence', last_value::text from execution_entity_id_seq",
    )
}

fn executions(sandbox: &Sandbox) -> String {
    let count = "select (select count(*) from execution_entity) + (select count(*) from execution_data)
        + (select count(*) from execution_metadata) + (select count(*) from execution_annotations)
        + (select count(*) from execution_annotation_tags) + (select count(*) from test_case_execution)
        + (select count(*) from binary_data where \"sourceType\" = 'execution')";
    sandbox.psql(count).trim().to_owned()
}

#[test]
fn a_dump_without_executions_loads_and_says_so_everywhere() {
    let sandbox = Sandbox::new("noexec")
        .stack()
        .n8n()
        .seeded()
        .env("BACKUP_EXECUTIONS", "off")
        .build();
    assert_ne!(executions(&sandbox), "0");
    // The files of a chat lie in one table with those of executions, and would be lost with them.
    let files = |source: &str| {
        sandbox.psql(&format!(
            r#"insert into binary_data ("fileId", "sourceType", "sourceId", data, "fileSize") values (gen_random_uuid(), '{source}', '1', 'x', 1)"#
        ));
    };
    files("execution");
    files("chat_message_attachment");
    // Rows that cannot be loaded without executions are not lost: the dump then holds all.
    sandbox.psql(
        r#"update chat_hub_messages set "executionId" = (select min(id) from execution_entity)
           where ctid = (select min(ctid) from chat_hub_messages)"#,
    );
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_success().assert_log_has(
        "backup-postgres",
        "WARN Executions are not left out of this dump, because rows of other tables refer to them: public.chat_hub_messages",
    );
    let full = sandbox.backup("postgres");
    assert!(!fs::read_to_string(sandbox.backup("sets"))
        .unwrap()
        .contains("postgres.executions"));
    fs::remove_file(full).unwrap();
    fs::remove_file(sandbox.backup("sets")).unwrap();

    sandbox.psql(r#"update chat_hub_messages set "executionId" = null"#);
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_success().assert_log_has(
        "backup-postgres",
        "INFO Binary data of executions are not left out, because what does not belong to one lies among them: \"public\".\"binary_data\"",
    );
    fs::remove_file(sandbox.backup("postgres")).unwrap();
    fs::remove_file(sandbox.backup("sets")).unwrap();

    sandbox.psql("delete from binary_data where \"sourceType\" = 'chat_message_attachment'");
    let before = rest(&sandbox);
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_success().assert_log_has(
        "backup-postgres",
        "INFO Executions are left out (BACKUP_EXECUTIONS=off)",
    );
    let manifest = fs::read_to_string(sandbox.backup("sets")).unwrap();
    assert!(manifest.contains("\n# postgres.executions: left out\n"), "{manifest}");
    assert!(
        !manifest.contains("postgres.rows.public.execution_entity"),
        "{manifest}"
    );
    let listed = sandbox.binary().arg("list").run().stdout;
    assert!(listed.contains("complete, without executions"), "{listed}");
    let drill = sandbox.run("test-recovery", &["--postgres"]);
    drill.assert_success();
    for said in [
        "[WARN] ",
        "The dump holds no executions",
        " sequences, without executions recovered in ",
    ] {
        assert!(drill.stdout.contains(said), "{said}: {drill}");
    }

    sandbox.psql("drop table settings cascade");
    let outcome = sandbox.run("restore-all", &["--only", "postgres", "latest"]);
    outcome.assert_success().assert_log_has("restore-postgres", WARNING);
    assert_eq!(executions(&sandbox), "0");
    assert_eq!(rest(&sandbox), before);
    // n8n goes on: the keys between the tables are in place, and numbers are not given out again.
    let next = r#"insert into execution_entity (finished, mode, status, "workflowId")
        select true, 'manual', 'success', id from workflow_entity limit 1 returning id > 1"#;
    assert_eq!(sandbox.psql(next).lines().next(), Some("t"));
}
