//! What is put back of a workflow, and what is told of it.

use super::*;
use std::sync::Arc;

fn record(fields: &[(&str, &str)]) -> Record {
    let mut record = Record::new(Arc::default(), Vec::new());
    for (column, value) in fields {
        record.add(column, Some((*value).to_owned()));
    }
    record
}

fn restored(fields: &[(&str, &str)]) -> Restored {
    Restored::of(record(fields), Vec::new())
}

#[test]
fn what_n8n_notes_while_it_runs_stays_where_a_workflow_is_replaced() {
    let restored = restored(&[
        ("id", "w"),
        ("nodes", "[]"),
        ("staticData", "{}"),
        ("triggerCount", "1"),
    ]);
    let now = Directory::default();
    let columns = |is_there| {
        let puts = restored.puts(&now, &now, "w", Vec::new(), is_there, false);
        puts[0].columns.join(" ")
    };
    assert_eq!(columns(true), "id nodes");
    assert_eq!(columns(false), "id nodes staticData triggerCount");
}

#[test]
fn what_is_activated_is_in_the_archive_no_more() {
    for (activate, wanted) in [(false, true), (true, false)] {
        let mut restored = restored(&[("id", "w"), ("isArchived", "t")]);
        restored.complete(&Directory::default(), activate).unwrap();
        assert_eq!(restored.workflow.is("isArchived"), wanted);
    }
}

#[test]
fn credentials_that_are_gone_are_told() {
    let nodes = r#"[{"credentials":{"a":{"id":"1","name":"One"},"b":{"id":"2","name":"Two"},"c":{"id":null,"name":"Old"}}},
        {"credentials":{"b":{"id":"2","name":"Two"}}},{}]"#;
    let restored = restored(&[("nodes", nodes)]);
    let lacking = restored.lacking(&HashSet::from(["1".to_owned()]));
    assert_eq!(lacking, BTreeMap::from([("2".to_owned(), "Two".to_owned())]));
}

#[test]
fn webhooks_get_new_ids_and_keep_the_paths_that_people_chose() {
    let long = "5f3e8b1a-0000-4000-8000-000000000001";
    let nodes = format!(
        r#"[{{"webhookId" : "{long}","parameters":{{"path":"{long}","note":"{long} \"webhookId\":\"{long}\" \ud83d"}}}}]"#
    );
    let changed = nodes.replacen(&format!("\"{long}\""), "\"new\"", 2);
    assert_eq!(with_webhook(&nodes, long, "new"), changed);
    assert_eq!(
        with_webhook(r#"{"webhookId":"a","parameters":{"path":"a"}}"#, "a", "new"),
        r#"{"webhookId":"new","parameters":{"path":"a"}}"#
    );
}

#[test]
fn the_path_of_a_form_is_told_wherever_n8n_has_it() {
    for (parameters, wanted) in [
        (r#"{"path":"a"}"#, &["a"][..]),
        (r#"{"path":"a","options":{"path":"b"}}"#, &["a"]),
        (r#"{"path":"","options":{"path":"b"}}"#, &["b"]),
        (r#"{"options":{"path":"b"}}"#, &["b"]),
        (r#"{"options":{"path":""}}"#, &[]),
        (r#"{"options":{}}"#, &[]),
    ] {
        let nodes = format!(r#"[{{"webhookId":"w","parameters":{parameters}}}]"#);
        let mut restored = restored(&[("id", "w"), ("nodes", &nodes)]);
        assert_eq!(restored.renew().unwrap(), wanted, "{parameters}");
    }
}

#[test]
fn what_was_published_counts_beside_what_is_edited() {
    let node = |id: &str| {
        format!(
            r#"[{{"webhookId":"w","parameters":{{"path":"path-{id}"}},"credentials":{{"a":{{"id":"{id}","name":"N"}}}}}}]"#
        )
    };
    let row = |version: &str, more: &[(&str, &str)]| {
        let nodes = node(version);
        record(&[&[("versionId", version), ("nodes", nodes.as_str())], more].concat())
    };
    let versions = ["old", "live", "draft"].map(|version| row(version, &[]));
    let mut restored = Restored::of(row("draft", &[("activeVersionId", "live")]), versions.into());
    let lacking: Vec<String> = restored.lacking(&HashSet::new()).into_keys().collect();
    assert_eq!(lacking, ["draft", "live"]);
    assert_eq!(restored.renew().unwrap(), ["path-draft", "path-live"]);
}
