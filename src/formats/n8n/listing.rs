//! What is told of workflows and credentials.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;

use super::directory::Directory;
use super::reader::Visitor;
use super::record::Record;
use super::tables::Table;
use crate::formats::json::Json;

/// A workflow in a list.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: String,
    pub name: String,
    pub active: bool,
    pub archived: bool,
    /// How many nodes it has, or why that cannot be read.
    pub nodes: Result<usize, String>,
    /// When it was changed last.
    pub updated: Option<String>,
    /// The ID of its folder.
    pub folder: Option<String>,
}

/// Lists workflows.
#[derive(Debug, Default)]
pub struct Listing {
    /// Only those in which this stands.
    find: Option<String>,
    pub entries: Vec<Entry>,
    /// The others, by the version that n8n runs.
    published: HashMap<String, Entry>,
}

impl Listing {
    /// A list of all workflows, or of those with `find` in their name, the types of their nodes or the text of these,
    /// as they are edited or run.
    pub fn new(find: Option<&str>) -> Self {
        Self {
            find: find.map(str::to_lowercase),
            ..Self::default()
        }
    }
}

/// The version that n8n 2 runs, where that is not what is edited. Its row comes later: pg_dump sorts tables by name.
fn published(workflow: &Record) -> Option<&str> {
    let version = workflow.get("activeVersionId");
    version.filter(|_| version != workflow.get("versionId"))
}

impl Visitor for Listing {
    fn wants(&self, table: Table) -> bool {
        table == Table::Workflow || table.is_small() || (table == Table::History && self.find.is_some())
    }

    fn visit(&mut self, table: Table, row: Record) -> Result<()> {
        let find = self.find.as_deref().unwrap_or_default();
        if table == Table::History {
            if let Some(entry) = self.published.remove(row.text("versionId")) {
                let nodes = Json::parse_lossy(row.text("nodes"));
                self.entries
                    .extend(nodes.is_ok_and(|nodes| holds(&nodes, find)).then_some(entry));
            }
            return Ok(());
        }
        let nodes = Json::parse_lossy(row.text("nodes"));
        let found =
            row.text("name").to_lowercase().contains(find) || nodes.as_ref().is_ok_and(|nodes| holds(nodes, find));
        let entry = Entry {
            id: row.text("id").to_owned(),
            name: row.text("name").to_owned(),
            active: row.is("active"),
            archived: row.is("isArchived"),
            nodes: nodes
                .map(|nodes| nodes.items().len())
                .map_err(|error| format!("{error:#}")),
            updated: row.time("updatedAt"),
            folder: row.get("parentFolderId").map(str::to_owned),
        };
        match published(&row) {
            _ if found => self.entries.push(entry),
            Some(version) => drop(self.published.insert(version.to_owned(), entry)),
            None => {}
        }
        Ok(())
    }
}

/// Whether a text, in lower case, stands in a value.
fn holds(value: &Json, text: &str) -> bool {
    match value {
        Json::Text(value) => value.to_lowercase().contains(text),
        Json::Number(value) => value.contains(text),
        Json::List(values) => values.iter().any(|value| holds(value, text)),
        Json::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.to_lowercase().contains(text) || holds(value, text)),
        Json::Null | Json::Bool(_) => false,
    }
}

/// The credentials that a node refers to: type, ID and name. Old nodes have the name only.
pub fn credentials_in(node: &Json) -> impl Iterator<Item = (&str, Option<&str>, Option<&str>)> {
    let credentials = node.get("credentials").map_or(&[][..], Json::fields);
    credentials.iter().map(|(kind, value)| {
        let text = |name| value.get(name).and_then(Json::as_str);
        (kind.as_str(), text("id"), text("name").or(value.as_str()))
    })
}

/// Lists credentials, and the workflows that use them.
#[derive(Debug, Default)]
pub struct Credentials {
    /// Their rows, without what is secret.
    pub rows: Vec<Record>,
    /// Names of workflows by what their nodes refer to: an ID, or where there is none a type and name.
    uses: BTreeMap<String, Vec<String>>,
    /// Names of workflows by the version that n8n runs, where that is not what is edited.
    published: HashMap<String, String>,
    /// What they hold, where they hold something, encrypted: lines of their kind, ID, name, type and data.
    sealed: Vec<u8>,
    /// IDs of workflows that cannot be read, and why.
    pub unread: Vec<(String, String)>,
}

impl Credentials {
    /// The workflows that use a credential: IDs and names.
    pub fn uses(&self, credential: &Record) -> Vec<&str> {
        let old = format!("{}\n{}", credential.text("type"), credential.text("name"));
        let names = [credential.text("id"), old.as_str()];
        let found = names.iter().filter_map(|name| self.uses.get(*name)).flatten();
        found.map(String::as_str).collect()
    }

    /// What is encrypted, as those take it who open it: lines of six fields, the keys first.
    pub fn sealed(&self, directory: &Directory) -> Vec<u8> {
        let mut lines = Vec::new();
        for key in directory.keys() {
            let fields = ["id", "type", "status", "algorithm", "value"].map(|name| key.text(name));
            sealed_line("key", fields, &mut lines);
        }
        lines.extend(&self.sealed);
        lines
    }
}

/// Adds a line whose fields are in hexadecimal.
fn sealed_line(kind: &str, fields: [&str; 5], lines: &mut Vec<u8>) {
    lines.extend(kind.as_bytes());
    for field in fields {
        lines.push(b'\t');
        lines.extend(field.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()));
    }
    lines.push(b'\n');
}

impl Visitor for Credentials {
    fn wants(&self, _: Table) -> bool {
        true
    }

    fn visit(&mut self, table: Table, mut row: Record) -> Result<()> {
        if table == Table::Credential {
            let fields = [row.text("id"), row.text("name"), row.text("type"), "", row.text("data")];
            if !row.text("data").is_empty() {
                sealed_line("credential", fields, &mut self.sealed);
            }
            row.set("data", None);
            self.rows.push(row);
            return Ok(());
        }
        let (id, name) = match table {
            Table::History => match self.published.remove(row.text("versionId")) {
                Some(name) => (row.text("workflowId"), name),
                None => return Ok(()),
            },
            _ => (row.text("id"), row.text("name").to_owned()),
        };
        self.published
            .extend(published(&row).map(|version| (version.to_owned(), name.clone())));
        let nodes = match Json::parse_lossy(row.text("nodes")) {
            Ok(nodes) => nodes,
            Err(error) => {
                self.unread.push((id.to_owned(), format!("{error:#}")));
                return Ok(());
            }
        };
        for (kind, id, called) in nodes.items().iter().flat_map(credentials_in) {
            let key = match (id, called) {
                (Some(id), _) => id.to_owned(),
                (None, Some(called)) => format!("{kind}\n{called}"),
                (None, None) => continue,
            };
            let names = self.uses.entry(key).or_default();
            let is_known = names.last() == Some(&name) || (table == Table::History && names.contains(&name));
            if !is_known {
                names.push(name.clone());
            }
        }
        Ok(())
    }
}
