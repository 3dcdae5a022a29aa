//! A workflow as the JSON that n8n's `export:workflow` writes.

use std::ops::Range;

use anyhow::{Context, Result};

use super::directory::Directory;
use super::record::Record;
use crate::formats::json::string;

/// The order of keys, as far as they are known; the others follow in the order of the table.
const WORKFLOW: [&str; 19] = [
    "updatedAt",
    "createdAt",
    "id",
    "name",
    "description",
    "active",
    "isArchived",
    "nodes",
    "connections",
    "settings",
    "staticData",
    "meta",
    "nodeGroups",
    "pinData",
    "versionId",
    "activeVersionId",
    "versionCounter",
    "triggerCount",
    "sourceWorkflowId",
];
const SHARE: [&str; 5] = ["updatedAt", "createdAt", "role", "workflowId", "projectId"];
const PROJECT: [&str; 9] = [
    "updatedAt",
    "createdAt",
    "id",
    "name",
    "type",
    "icon",
    "description",
    "customTelemetryTags",
    "creatorId",
];
const TAG: [&str; 4] = ["updatedAt", "createdAt", "id", "name"];
/// n8n does not export the folder.
const NOT_EXPORTED: [&str; 1] = ["parentFolderId"];

/// What n8n takes of a workflow's current version, where that is recorded.
pub const VERSIONED: [&str; 3] = ["nodes", "connections", "nodeGroups"];

/// Where the values that come of a version stand in the text of a workflow.
pub type Spans = Vec<(&'static str, Range<usize>)>;

/// Members of an object that is being written.
struct Members<'a> {
    out: &'a mut String,
    depth: usize,
    any: bool,
}

impl<'a> Members<'a> {
    fn open(depth: usize, out: &'a mut String) -> Self {
        out.push('{');
        let any = false;
        Self { out, depth, any }
    }

    /// Writes the name of the next member; gives what its value is written to.
    fn name(&mut self, name: &str) -> &mut String {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(',');
        }
        self.line(self.depth + 1);
        string(name, self.out);
        self.out.push_str(": ");
        self.out
    }

    /// Writes the columns of a record; gives where those of [`VERSIONED`] stand.
    fn columns(&mut self, record: &Record, order: &[&str]) -> Result<Spans> {
        let known = order.iter().copied().filter(|name| record.has(name));
        let others = record.fields().map(|(column, _)| column.name.as_str());
        let others = others.filter(|name| !order.contains(name) && !NOT_EXPORTED.contains(name));
        let mut spans = Spans::new();
        for name in known.chain(others) {
            let depth = self.depth + 1;
            let out = self.name(name);
            let start = out.len();
            record
                .write(name, depth, out)
                .with_context(|| format!("column {name}"))?;
            if let Some(versioned) = VERSIONED.iter().find(|versioned| **versioned == name) {
                spans.push((versioned, start..out.len()));
            }
        }
        Ok(spans)
    }

    fn line(&mut self, depth: usize) {
        self.out.push('\n');
        (0..depth).for_each(|_| self.out.push_str("  "));
    }

    fn close(mut self) {
        if self.any {
            self.line(self.depth);
        }
        self.out.push('}');
    }
}

/// Writes the columns of a workflow; [`close`] writes the rest. Gives where those of [`VERSIONED`] stand.
pub fn open(workflow: &Record, out: &mut String) -> Result<Spans> {
    Members::open(0, out).columns(workflow, &WORKFLOW)
}

/// Writes what belongs to the workflow `id`, after its columns. `version` is the row of its current version.
pub fn close(id: &str, directory: &Directory, version: Option<&Record>, out: &mut String) -> Result<()> {
    let mut members = Members {
        out,
        depth: 0,
        any: true,
    };
    let tags = directory.tags(id);
    list(members.name("tags"), &tags, |tag, out| {
        let mut members = Members::open(2, out);
        members.columns(tag, &TAG)?;
        members.close();
        Ok(())
    })?;
    let shares: Vec<&Record> = directory.shares(id).iter().collect();
    list(members.name("shared"), &shares, |share, out| {
        let mut members = Members::open(2, out);
        members.columns(share, &SHARE)?;
        if let Some(project) = share.get("projectId").and_then(|id| directory.project(id)) {
            let mut inner = Members::open(3, members.name("project"));
            inner.columns(project, &PROJECT)?;
            inner.close();
        }
        members.close();
        Ok(())
    })?;
    if let Some(version) = version {
        let mut inner = Members::open(1, members.name("versionMetadata"));
        for name in ["name", "description"].into_iter().filter(|name| version.has(name)) {
            version.write(name, 2, inner.name(name))?;
        }
        inner.close();
    }
    members.close();
    out.push('\n');
    Ok(())
}

/// Writes a version of a workflow as an element of a list.
pub fn version(record: &Record, out: &mut String) -> Result<()> {
    let mut members = Members::open(1, out);
    members.columns(record, &[])?;
    members.close();
    Ok(())
}

fn list(out: &mut String, records: &[&Record], write: impl Fn(&Record, &mut String) -> Result<()>) -> Result<()> {
    out.push('[');
    for (at, record) in records.iter().enumerate() {
        out.push_str(if at > 0 { ",\n    " } else { "\n    " });
        write(record, out)?;
    }
    out.push_str(if records.is_empty() { "]" } else { "\n  ]" });
    Ok(())
}
