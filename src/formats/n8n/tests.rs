//! Dumps of n8n's database: a real one, those of older schemas, and those that are none.

use std::fs;
use std::process::Command;

use super::*;
use crate::formats::json::Json;
use crate::formats::pg_dump::Rows;
use anyhow::Result;

fn data(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn real() -> String {
    let output = Command::new("gzip")
        .arg("-dc")
        .stdin(fs::File::open(data("n8n-2.40.7.sql.gz")).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Keeps every row.
#[derive(Default)]
struct All {
    workflows: Vec<Record>,
    history: Vec<Record>,
}

impl Visitor for All {
    fn wants(&self, _: Table) -> bool {
        true
    }

    fn visit(&mut self, table: Table, row: Record) -> Result<()> {
        match table {
            Table::Workflow => self.workflows.push(row),
            Table::History => self.history.push(row),
            _ => {}
        }
        Ok(())
    }
}

fn read<V: Visitor>(dump: &str, visitor: V) -> Result<(V, Directory)> {
    read_told(dump, visitor, None)
}

fn read_told<V: Visitor>(dump: &str, visitor: V, told: Option<Place>) -> Result<(V, Directory)> {
    let mut rows: Rows<Reader<V>> = Reader::rows(visitor, told);
    for chunk in dump.as_bytes().chunks(1000) {
        rows.feed(chunk)?;
    }
    Reader::finish(rows)
}

fn why_not(dump: &str) -> String {
    match read(dump, All::default()) {
        Ok(_) => panic!("it was read"),
        Err(error) => format!("{error:#}"),
    }
}

/// A dump with these statements.
fn dump(statements: &str) -> String {
    format!("--\n-- PostgreSQL database dump\n--\n{statements}\n--\n-- PostgreSQL database dump complete\n--\n")
}

fn exported(workflow: &Record, directory: &Directory, version: Option<&Record>) -> Result<Json> {
    let mut text = String::new();
    open(workflow, &mut text)?;
    close(workflow.text("id"), directory, version, &mut text)?;
    Json::parse(&text)
}

#[test]
fn a_workflow_is_exported_as_by_n8n() {
    let wanted = Json::parse(&fs::read_to_string(data("n8n-2.40.7-workflows.json")).unwrap()).unwrap();
    let (all, directory) = read(&real(), All::default()).unwrap();
    assert_eq!((all.workflows.len(), wanted.items().len()), (3, 3));
    for wanted in wanted.items() {
        let id = wanted.get("id").and_then(Json::as_str).unwrap();
        let row = all.workflows.iter().find(|row| row.text("id") == id).unwrap();
        let version = all
            .history
            .iter()
            .find(|version| version.get("versionId") == row.get("versionId"));
        assert_eq!(&exported(row, &directory, version).unwrap(), wanted);
    }
}

/// As n8n 1.0 has it, in a schema and with a prefix of its own.
const OLD: &str = r#"
CREATE TABLE x.n8n_workflow_entity (name character varying(128) NOT NULL, active boolean NOT NULL, nodes json NOT NULL,
    connections json NOT NULL, "createdAt" timestamp(3) with time zone NOT NULL, settings json, "staticData" json,
    "triggerCount" integer DEFAULT 0 NOT NULL, id character varying(36) NOT NULL, future jsonb);
CREATE TABLE x.n8n_shared_workflow ("roleId" integer NOT NULL, "userId" uuid NOT NULL, "workflowId" character varying(36));
CREATE TABLE x.n8n_user (id uuid, email character varying(255), password character varying(255));
CREATE TABLE x.n8n_tag_entity (id character varying(36), name character varying(24));
CREATE TABLE x.n8n_workflows_tags ("workflowId" character varying(36), "tagId" character varying(36));
CREATE TABLE public."user" (id integer);
COPY x.n8n_shared_workflow ("roleId", "userId", "workflowId") FROM stdin;
1	u1	1
\.
COPY x.n8n_tag_entity (id, name) FROM stdin;
t	money
\.
COPY x.n8n_user (id, email, password) FROM stdin;
u1	a@example.com	hash
\.
COPY public."user" (id) FROM stdin;
7
\.
COPY x.n8n_workflow_entity (name, active, nodes, connections, "createdAt", settings, "staticData", "triggerCount", id, future) FROM stdin;
A\nb	t	[{"name":"N","credentials":{"api":"Old"},"text":"Half \\ud83d of it"}]	{}	2023-01-02 03:04:05+01	\N	{"a":1}	2	1	{"f":1.10}
Bad	f	[{"name":	{}	2023-01-02 03:04:05+01	\N	\N	0	2	\N
\.
COPY x.n8n_workflows_tags ("workflowId", "tagId") FROM stdin;
1	t
\.
"#;

#[test]
fn older_schemas_prefixes_and_unknown_columns_are_read() {
    let (all, directory) = read(&dump(OLD), All::default()).unwrap();
    let [row, bad] = &all.workflows[..] else { panic!() };
    let mut text = String::new();
    open(row, &mut text).unwrap();
    close("1", &directory, None, &mut text).unwrap();
    assert!(text.contains("Half \\ud83d of it"), "{text}");
    let json = Json::parse_lossy(&text).unwrap();
    let keys: Vec<&str> = json.fields().iter().map(|(name, _)| name.as_str()).collect();
    let wanted = "createdAt id name active nodes connections settings staticData triggerCount future tags shared";
    assert_eq!(keys.join(" "), wanted);
    assert_eq!(json.get("name"), Some(&Json::text("A\nb")));
    assert_eq!(json.get("createdAt"), Some(&Json::text("2023-01-02T02:04:05.000Z")));
    assert_eq!(json.get("future").unwrap().to_string(), "{\"f\": 1.10}");
    assert_eq!(
        json.get("shared").unwrap().items()[0].get("userId"),
        Some(&Json::text("u1"))
    );
    assert_eq!(directory.owner("1"), Some("a@example.com"));
    let error = format!("{:#}", exported(bad, &directory, None).unwrap_err());
    assert!(error.starts_with("column nodes: "), "{error}");

    let (listing, _) = read(&dump(OLD), Listing::new(None)).unwrap();
    assert_eq!(listing.entries[0].nodes, Ok(1));
    assert!(listing.entries[1].nodes.is_err());
    let found = |text| {
        let (listing, _) = read(&dump(OLD), Listing::new(Some(text))).unwrap();
        listing.entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(
        (found("HALF"), found("bad"), found("none")),
        (vec!["1".to_owned()], vec!["2".to_owned()], vec![])
    );
}

#[test]
fn a_workflow_of_ten_megabytes_is_read() {
    let long = "x\\\\n".repeat(2 << 20);
    let text = dump(OLD).replace("Half", &long);
    let (all, directory) = read(&text, All::default()).unwrap();
    let mut text = String::new();
    open(&all.workflows[0], &mut text).unwrap();
    close("1", &directory, None, &mut text).unwrap();
    assert!(text.len() > 6 << 20 && text.contains("x\\nx\\n \\ud83d"));
}

/// The tables of two n8n, with the rows of one.
fn two() -> String {
    let (created, rows) = OLD.split_once("COPY").unwrap();
    format!("{created}{}COPY{rows}", created.replace("x.n8n_", "y."))
}

#[test]
fn of_several_n8n_the_one_that_is_told_is_read() {
    let told = |schema: &str, prefix: &str| {
        let place = Place {
            schema: schema.to_owned(),
            prefix: prefix.to_owned(),
        };
        read_told(&dump(&two()), All::default(), Some(place))
    };
    assert_eq!(told("x", "n8n_").unwrap().0.workflows.len(), 2);
    assert!(format!("{:#}", told("y", "").err().unwrap()).contains("no rows of n8n's workflows"));
    assert!(format!("{:#}", told("z", "").err().unwrap()).contains("more than one n8n"));
}

#[test]
fn what_is_no_dump_of_n8n_is_told() {
    let tables = "CREATE TABLE public.workflow_entity (id text, name text, nodes json, connections json);\n";
    for (text, why) in [
        (
            dump("CREATE TABLE a (b text);\nCOPY a (b) FROM stdin;\n\\."),
            "not a database of n8n",
        ),
        (
            dump("CREATE TABLE workflow_entity (id text);\nCOPY workflow_entity (id) FROM stdin;\n\\."),
            "not a database of n8n",
        ),
        (dump("COPY a (b) FROM stdin;\n\\."), "--data-only"),
        (dump(tables), "--schema-only"),
        (
            dump(&format!(
                "{tables}INSERT INTO public.workflow_entity VALUES ('1', 'a', '[]', '{{}}');"
            )),
            "--inserts",
        ),
        (dump(""), "holds no table"),
        (dump(OLD).replace("database dump complete", ""), "cut off"),
        ("nothing".to_owned(), "not a dump"),
        (
            dump(&two()),
            "more than one n8n keeps its workflows in this database: x.n8n_workflow_entity, y.workflow_entity",
        ),
    ] {
        assert!(why_not(&text).contains(why), "{why}: {}", why_not(&text));
    }
}

#[test]
fn a_copy_of_a_table_is_not_taken_for_n8ns() {
    let copies = "CREATE TABLE x.old_workflow_entity (id text, name text, nodes json, connections json);\n\
                  CREATE TABLE x.old_credentials_entity (id text, data text);\n";
    let rows = "COPY x.old_workflow_entity (id, name, nodes, connections) FROM stdin;\n9\tOld\t[]\t{}\n\\.\n";
    let (all, directory) = read(&dump(&format!("{copies}{OLD}{rows}")), All::default()).unwrap();
    assert_eq!(all.workflows.len(), 2);
    assert!(all.workflows.iter().all(|row| row.text("id") != "9"));
    assert_eq!(directory.place.unwrap().prefix, "n8n_");
}

#[test]
fn folders_are_told_from_the_outermost() {
    let text = real()
        .replace(
            "COPY public.folder (id, name, \"parentFolderId\", \"projectId\", \"createdAt\", \"updatedAt\") FROM stdin;\n",
            "COPY public.folder (id, name, \"parentFolderId\", \"projectId\", \"createdAt\", \"updatedAt\") FROM stdin;\n\
             f1\tA\t\\N\tp\tx\ty\nf2\tB\tf1\tp\tx\ty\nf3\tLoop\tf3\tp\tx\ty\n",
        )
        .replace("COPY public.workflows_tags (\"workflowId\", \"tagId\") FROM stdin;\n", 
            "COPY public.workflows_tags (\"workflowId\", \"tagId\") FROM stdin;\ny2CJSrlVXagfDxv8\t1xK74TlTEVnkFcla\n");
    let (all, directory) = read(&text, All::default()).unwrap();
    assert_eq!(directory.folder("f2"), ["A", "B"]);
    assert!(directory.folder("f3").len() <= 100);
    let invoices = all.workflows.iter().find(|row| row.text("name") == "Invoices").unwrap();
    let json = exported(invoices, &directory, None).unwrap();
    let tag = &json.get("tags").unwrap().items()[0];
    assert_eq!(
        tag.to_string(),
        "{\"updatedAt\": \"2026-11-28T03:07:39.112Z\", \"createdAt\": \"2026-11-28T03:07:39.112Z\", \
         \"id\": \"1xK74TlTEVnkFcla\", \"name\": \"money\"}"
    );
}

/// The real one, in which a workflow was edited since it was published, and nothing is left in what is edited.
fn edited() -> String {
    let real = real();
    let line = real
        .lines()
        .find(|line| line.starts_with("Uses credential\tf\t"))
        .unwrap();
    let mut fields: Vec<&str> = line.split('\t').collect();
    let version = fields[9];
    (fields[2], fields[9], fields[17]) = ("[]", "draft", version);
    real.replacen(line, &fields.join("\t"), 1)
}

#[test]
fn what_n8n_runs_counts_as_what_is_edited() {
    let (credentials, _) = read(&edited(), Credentials::default()).unwrap();
    let old = credentials.rows.iter().find(|row| row.text("name") == "Old header");
    assert_eq!(credentials.uses(old.unwrap()), ["Uses credential"]);
    for (text, wanted) in [("genericCREDENTIALtype", 1), ("Uses cred", 1), ("no such", 0)] {
        for dump in [real(), edited()] {
            let (listing, _) = read(&dump, Listing::new(Some(text))).unwrap();
            assert_eq!(listing.entries.len(), wanted, "{text}");
        }
    }
    let (listing, _) = read(&edited(), Listing::new(None)).unwrap();
    assert_eq!(listing.entries.len(), 3);
}

#[test]
fn credentials_tell_who_uses_them_and_not_what_they_hold() {
    let (credentials, _) = read(&real(), Credentials::default()).unwrap();
    let row = |name| credentials.rows.iter().find(|row| row.text("name") == name).unwrap();
    assert_eq!(credentials.uses(row("Old header")), ["Uses credential"]);
    assert!(credentials.uses(row("First key")).is_empty());
    assert!(credentials.rows.iter().all(|row| row.get("data").is_none()));
}
