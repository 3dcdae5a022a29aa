//! workflows restore: one workflow of a backup back into the running n8n, which goes on meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::ptr;

use anyhow::{bail, ensure, Context as _, Result};

use super::place::{check_folder, shares};
use super::source::{as_read, check_unchanged, dump_of, read, read_live, similar};
use crate::app::App;
use crate::cli::{Call, Flag, Row};
use crate::commands::restore::goes_on;
use crate::commands::shared::{hold, open_stack};
use crate::commands::{Command, Run};
use crate::components::{check_put, put_rows, Guard, How, Put, YES};
use crate::formats::json::{self, Json};
use crate::formats::n8n::{self, Directory, Record, Table, Visitor};
use crate::formats::text::ascii;
use crate::process::hinted;
use crate::report::log::{self, Journal};
use crate::stream::publish::keep_text;

pub const FROM: Flag = Flag::new(
    "from",
    "the recovery point or dump to take it from, in place of the latest",
)
.value("SET");
const AS_COPY: Flag = Flag::new(
    "as-copy",
    "under a new ID and with new webhook IDs, beside the one that is there; paths of webhooks stay",
);
const ACTIVATE: Flag = Flag::new("activate", "active; n8n before 2.40 must be restarted for that");
pub const PROJECT: Flag = Flag::new("project", "into this project, outside of folders").value("ID");
const FORCE: Flag = Flag::new("force", "even where it is active now");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "workflows restore",
        summary: "put one workflow of a backup back into the running n8n",
        details:
            "With its versions, tags and shares, in one transaction that deletes nothing. What is there now is saved\n\
                  to backups/workflows first. It comes back inactive, and n8n shows it without a restart. Where it is\n\
                  there, its project and folder stay; else these must be there, or --project must name another one.",
        operand: Some("ID"),
        flags: &[FROM, AS_COPY, ACTIVATE, PROJECT, FORCE, YES],
        ..Row::ACTS
    },
    run: Run::Project(|project, call| run(&open_stack(project, call)?, call).map(|()| 0)),
};

const JOURNAL: Journal = Journal::new("workflows restore");

/// A workflow with its versions.
struct One {
    id: String,
    workflow: Option<Record>,
    versions: Vec<Record>,
    /// The IDs of all credentials.
    credentials: HashSet<String>,
    /// All workflows that there are, for the error of an ID that is none.
    known: Vec<(String, String)>,
}

impl One {
    fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            workflow: None,
            versions: Vec::new(),
            credentials: HashSet::new(),
            known: Vec::new(),
        }
    }
}

impl Visitor for One {
    fn wants(&self, _: Table) -> bool {
        true
    }

    fn visit(&mut self, table: Table, row: Record) -> Result<()> {
        let id = row.text("id");
        if table == Table::History {
            if row.text("workflowId") == self.id {
                self.versions.push(row);
            }
        } else if table == Table::Credential {
            self.credentials.insert(id.to_owned());
        } else {
            self.known.push((id.to_owned(), row.text("name").to_owned()));
            if id == self.id {
                self.workflow = Some(row);
            }
        }
        Ok(())
    }
}

fn run(app: &App, call: &Call) -> Result<()> {
    let id = call.operand().to_string_lossy().into_owned();
    JOURNAL.info(format_args!("Starting restore of workflow {}", ascii(&id)));
    log::check_started()?;
    app.check_encryption(JOURNAL)?;
    check_put(app)?;
    let dump = dump_of(app, call.value(&FROM))?;
    let (backup, then) = read(app, &dump, One::of(&id))?;
    let Some(workflow) = backup.workflow else {
        let known = backup.known.iter().map(|(id, name)| (id.as_str(), name.as_str()));
        bail!(
            "There is no workflow {} in {}{}",
            ascii(&id),
            dump.path.display(),
            similar(&id, known)
        );
    };
    let mut restored = Restored::of(workflow, backup.versions);
    let _lock = hold(app, JOURNAL)?;
    let (live, now) = read_live(app, One::of(&id))?;
    let as_copy = call.has(&AS_COPY);
    let replaced = live.workflow.filter(|_| !as_copy);
    let name = ascii(restored.workflow.text("name"));
    if let Some(replaced) = &replaced {
        ensure!(
            !runs(replaced) || call.has(&FORCE),
            hinted(
                format!(
                    "Workflow {name} ({}) is active now, and n8n keeps its triggers in memory",
                    ascii(&id)
                ),
                "deactivate it in n8n, take --as-copy, or add --force (n8n before 2.40 must be restarted afterwards)"
            )
        );
    }
    let kept_paths = match as_copy {
        true => restored.renew()?,
        false => Vec::new(),
    };
    let activate = call.has(&ACTIVATE);
    restored.complete(&now, activate)?;
    let project = call
        .value(&PROJECT)
        .map(|project| project.to_string_lossy().into_owned());
    let shares = shares(
        JOURNAL,
        then.shares(&id),
        &now,
        (Table::SharedWorkflow, restored.workflow.text("id"), replaced.is_some()),
        project.as_deref(),
    )?;
    if replaced.is_none() {
        check_folder(&mut restored.workflow, &now, &shares, project.as_deref())?;
    }
    match &replaced {
        Some(replaced) => JOURNAL.warn(format_args!(
            "This will replace workflow {} ({}), changed last {}",
            ascii(replaced.text("name")),
            ascii(&id),
            replaced.time("updatedAt").as_deref().unwrap_or("at an unknown time")
        )),
        None => JOURNAL.warn(format_args!(
            "This will add workflow {name} ({}), as it was in {}",
            ascii(restored.workflow.text("id")),
            dump.path.display()
        )),
    }
    restored.tell(activate, &live.credentials, &backup.credentials);
    if !goes_on(JOURNAL, call.has(&YES)) {
        return Ok(());
    }
    if let Some(replaced) = &replaced {
        let (current, _) = read_live(app, One::of(&id))?;
        check_unchanged(Some(replaced), current.workflow.as_ref())?;
        save(app, replaced, &live.versions, &now)?;
    }
    let puts = restored.puts(&then, &now, &id, shares, replaced.is_some(), activate);
    let table = now.table(Table::Workflow);
    let mut running = STATES.to_vec();
    running.retain(|column| now.has(Table::Workflow, column));
    let guard = Guard {
        table: &table,
        id: restored.workflow.text("id"),
        off: if call.has(&FORCE) { &[] } else { &running },
        read: replaced.as_ref().and_then(as_read),
    };
    put_rows(app, &puts, Some(guard)).context("The workflow was not restored, and nothing was changed")?;
    JOURNAL.success(format_args!(
        "Workflow restored: {name} ({}), from {}",
        ascii(restored.workflow.text("id")),
        dump.path.display()
    ));
    if !kept_paths.is_empty() {
        let paths: Vec<String> = kept_paths.iter().map(|path| ascii(path)).collect();
        JOURNAL.warn(format_args!(
            "Its webhooks have the paths of the original ({}), and n8n registers one of the two only: change them in the copy before \
             you activate it",
            paths.join(", ")
        ));
    }
    if activate || replaced.as_ref().is_some_and(runs) {
        JOURNAL.warn("n8n takes it up by itself within seconds (2.40 or newer), an older one after a restart");
    }
    Ok(())
}

/// The columns that tell what n8n runs: from 2.0 on the published version alone.
const STATES: [&str; 2] = ["active", "activeVersionId"];

/// Whether n8n runs a workflow once it starts.
fn runs(workflow: &Record) -> bool {
    workflow.is("active") || workflow.get("activeVersionId").is_some()
}

/// Saves what is there now, as the JSON that an export writes.
fn save(app: &App, workflow: &Record, versions: &[Record], directory: &Directory) -> Result<()> {
    let current = versions
        .iter()
        .find(|version| version.get("versionId") == workflow.get("versionId"));
    let mut text = String::new();
    n8n::open(workflow, &mut text)
        .and_then(|_| n8n::close(workflow.text("id"), directory, current, &mut text))
        .context("What is there now cannot be saved, so it is not replaced")?;
    let dir = app.store.root().join("workflows");
    let id = n8n::file_name(workflow.text("id"), "");
    let path = keep_text(&app.config, &dir, id.trim_end_matches('-'), text)
        .context("What is there now cannot be saved, so it is not replaced")?;
    JOURNAL.info(format_args!("Saved what is there now: {}", path.display()));
    Ok(())
}

/// What is put into the live database.
struct Restored {
    workflow: Record,
    versions: Vec<Record>,
    /// The version that was published, where the backup has it.
    published: Option<String>,
    /// A version for what is edited, where the backup has none.
    added: Option<Record>,
}

impl Restored {
    fn of(workflow: Record, versions: Vec<Record>) -> Self {
        let is_there = |id: &&str| versions.iter().any(|version| version.get("versionId") == Some(*id));
        let published = workflow.get("activeVersionId").filter(is_there).map(str::to_owned);
        Self {
            workflow,
            versions,
            published,
            added: None,
        }
    }

    /// Deactivates it, and adds what the live n8n needs and an older one did not write: without a version of what is
    /// edited, n8n 2 cannot publish it.
    fn complete(&mut self, now: &Directory, activate: bool) -> Result<()> {
        self.workflow.set("active", Some("f".to_owned()));
        self.workflow.set("activeVersionId", None);
        if activate {
            self.workflow.set("isArchived", Some("f".to_owned()));
        }
        if now.has(Table::Workflow, "activeVersionId") {
            self.workflow.add("activeVersionId", None);
        }
        // As in a row that n8n adds, lest what a newer n8n has in them stays with the nodes of before.
        for (column, value) in [
            ("nodeGroups", Some("[]")),
            ("isArchived", Some("f")),
            ("description", None),
        ] {
            if now.has(Table::Workflow, column) && !self.workflow.has(column) {
                self.workflow.add(column, value.map(str::to_owned));
            }
        }
        if !now.has(Table::History, "versionId") {
            return Ok(());
        }
        if self.workflow.text("versionId").trim().is_empty() {
            self.workflow.add("versionId", Some(new_uuid()?));
        }
        let current = self.workflow.get("versionId");
        if self.versions.iter().all(|version| version.get("versionId") != current) {
            let mut columns = vec!["versionId", "nodes", "connections", "nodeGroups"];
            columns.retain(|column| now.has(Table::History, column));
            let mut version = self.workflow.only(&columns);
            version.add("workflowId", self.workflow.get("id").map(str::to_owned));
            version.add("authors", Some("n8n-backup".to_owned()));
            self.added = Some(version);
        }
        Ok(())
    }

    /// Says what is not as it was seen in n8n then, and what it lacks: which credentials are there `now`, and were `then`.
    fn tell(&self, activate: bool, now: &HashSet<String>, then: &HashSet<String>) {
        if self.workflow.is("isArchived") {
            JOURNAL.warn("It was archived then: n8n shows it under archived workflows; unarchive it there");
        }
        for (id, name) in self.lacking(now) {
            let (name, id) = (ascii(&name), ascii(&id));
            match then.contains(&*id) {
                true => JOURNAL.warn(format_args!(
                    "It uses credential {name} ({id}), which is not there now: 'n8n-backup credentials restore {id}', with the same \
                     --from, brings it back"
                )),
                false => JOURNAL.warn(format_args!(
                    "It uses credential {name} ({id}), which is neither there now nor in this point: choose another one in n8n"
                )),
            }
        }
        let current = self.workflow.get("versionId");
        let Some(published) = self.published.as_deref().filter(|id| Some(*id) != current) else {
            return;
        };
        let published = ascii(published);
        match activate {
            true => JOURNAL.info(format_args!(
                "Version {published} will be published, as it was then; what was edited since stays a draft"
            )),
            false => JOURNAL.warn(format_args!(
                "Version {published} was published then, and what was edited since is a draft: publish that version from the \
                 workflow's history, or take --activate"
            )),
        }
    }

    /// What is edited, and what was published, where that is another version.
    fn used(&self) -> impl Iterator<Item = &Record> {
        let published = self.published.as_deref();
        let is_published = move |row: &&Record| published.is_some() && row.get("versionId") == published;
        let mut version = self.versions.iter().filter(is_published);
        [&self.workflow].into_iter().chain(version.next())
    }

    /// The credentials that its nodes name and that are not there now: IDs and names.
    fn lacking(&self, credentials: &HashSet<String>) -> BTreeMap<String, String> {
        let mut lacking = BTreeMap::new();
        for row in self.used() {
            let nodes = Json::parse_lossy(row.text("nodes")).unwrap_or(Json::Null);
            let named = nodes.items().iter().flat_map(n8n::credentials_in);
            let named = named.filter_map(|(_, id, name)| Some((id?.to_owned(), name.unwrap_or_default().to_owned())));
            lacking.extend(named.filter(|(id, _)| !id.is_empty() && !credentials.contains(id)));
        }
        lacking
    }

    /// Gives the workflow, its versions and its webhooks new IDs. Paths of webhooks that people chose stay; gives those.
    fn renew(&mut self) -> Result<Vec<String>> {
        let id = new_id()?;
        let mut renamed: Vec<(String, String)> = Vec::new();
        let mut paths = Vec::new();
        for row in self.versions.iter().chain([&self.workflow]) {
            let parsed = Json::parse_lossy(row.text("nodes")).context("The workflow's nodes cannot be read")?;
            let is_used = self.used().any(|used| ptr::eq(used, row));
            for node in parsed.items() {
                let Some(webhook) = node.get("webhookId").and_then(Json::as_str) else {
                    continue;
                };
                if !renamed.iter().any(|(old, _)| old == webhook) {
                    renamed.push((webhook.to_owned(), new_uuid()?));
                }
                // As n8n takes them: a form trigger has its path among the options.
                let parameters = node.get("parameters");
                let path = [parameters, parameters.and_then(|values| values.get("options"))]
                    .into_iter()
                    .filter_map(|values| values?.get("path")?.as_str())
                    .find(|path| !path.is_empty());
                // With a part that varies, n8n puts the ID in front of it.
                let path = path.filter(|path| is_used && (*path != webhook || path.len() < 16) && !path.contains(':'));
                paths.extend(path.map(str::to_owned));
            }
        }
        let current = self.workflow.get("versionId").map(str::to_owned);
        let published = self.published.take();
        for row in self.versions.iter_mut().chain([&mut self.workflow]) {
            let mut nodes = row.text("nodes").to_owned();
            for (old, new) in &renamed {
                nodes = with_webhook(&nodes, old, new);
            }
            row.set("nodes", Some(nodes));
        }
        let mut new_current = None;
        for version in &mut self.versions {
            let new = new_uuid()?;
            if version.get("versionId") == current.as_deref() {
                new_current = Some(new.clone());
            }
            if published.is_some() && version.get("versionId") == published.as_deref() {
                self.published = Some(new.clone());
            }
            version.set("versionId", Some(new));
            version.set("workflowId", Some(id.clone()));
        }
        self.workflow
            .set("versionId", Some(new_current.map_or_else(new_uuid, Ok)?));
        self.workflow.set("id", Some(id));
        // It names webhooks that n8n has registered with other services, which the copy would take over and delete.
        self.workflow.set("staticData", None);
        self.workflow.set("triggerCount", Some("0".to_owned()));
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    /// The rows of the transaction. Foreign keys lead from versions, shares and tags to the workflow, and from its
    /// active version to that.
    fn puts(
        &self,
        then: &Directory,
        now: &Directory,
        old_id: &str,
        shares: Vec<Record>,
        is_there: bool,
        activate: bool,
    ) -> Vec<Put> {
        let id = self.workflow.text("id");
        let put = |table, how, rows: &[&Record], without: &[&str]| put(now, table, how, rows, without);
        let mut puts = match is_there {
            // It stays where it is, and so does what n8n notes while it runs: its counter of changes, how far a trigger
            // has read, the webhooks that it has registered with other services.
            true => vec![put(
                Table::Workflow,
                How::Replace,
                &[&self.workflow],
                &["parentFolderId", "versionCounter", "staticData", "triggerCount"],
            )],
            false => vec![put(Table::Workflow, How::Insert, &[&self.workflow], &[])],
        };
        let versions: Vec<&Record> = self.versions.iter().collect();
        puts.push(put(Table::History, How::InsertMissing, &versions, &[]));
        let added: Vec<&Record> = self.added.iter().collect();
        puts.push(put(Table::History, How::InsertMissing, &added, &[]));
        puts.push(put(
            Table::SharedWorkflow,
            How::Insert,
            &shares.iter().collect::<Vec<_>>(),
            &[],
        ));
        let (mut tags, mut ids) = (Vec::new(), Vec::new());
        for tag in then.tags(old_id) {
            // Names of tags are unique.
            let known = now.all_tags().find(|known| known.get("name") == tag.get("name"));
            ids.push(known.unwrap_or(tag).text("id").to_owned());
            tags.extend(known.is_none().then_some(tag));
        }
        puts.push(put(Table::Tag, How::InsertMissing, &tags, &[]));
        puts.push(Put {
            table: now.table(Table::WorkflowTag),
            how: How::InsertMissing,
            columns: vec!["workflowId".to_owned(), "tagId".to_owned()],
            rows: ids
                .into_iter()
                .map(|tag| vec![Some(id.to_owned()), Some(tag)])
                .collect(),
        });
        if activate {
            let mut active = self.workflow.only(&["id", "active", "activeVersionId"]);
            active.set("active", Some("t".to_owned()));
            let published = self.published.as_deref().or(self.workflow.get("versionId"));
            active.set("activeVersionId", published.map(str::to_owned));
            puts.push(put(Table::Workflow, How::Replace, &[&active], &[]));
        }
        puts.retain(|put| !put.rows.is_empty());
        puts
    }
}

/// The text of nodes with another webhook ID. A path that is the ID changes with it; a short one is a path that somebody chose.
fn with_webhook(nodes: &str, old: &str, new: &str) -> String {
    let names = ["\"webhookId\"", "\"path\""];
    let names = if old.len() < 16 { &names[..1] } else { &names[..] };
    let mut old_text = String::new();
    json::string(old, &mut old_text);
    let mut text = String::with_capacity(nodes.len());
    let mut rest = nodes;
    // Nothing else of the text may change, which may hold what no Rust string can.
    while let Some(at) = rest.find(&old_text) {
        let before = rest[..at].trim_end().strip_suffix(':').map_or("", str::trim_end);
        text.push_str(&rest[..at]);
        rest = &rest[at + old_text.len()..];
        match names.iter().any(|name| before.ends_with(name)) {
            true => json::string(new, &mut text),
            false => text.push_str(&old_text),
        }
    }
    text + rest
}

/// Rows of a table with all of their columns but those in `without`.
pub fn put(now: &Directory, table: Table, how: How, rows: &[&Record], without: &[&str]) -> Put {
    let wanted = |name: &str| !without.contains(&name);
    let columns = rows.first().map_or_else(Vec::new, |row| {
        let names = row.fields().map(|(column, _)| column.name.clone());
        names.filter(|name| wanted(name)).collect()
    });
    let values = |row: &&Record| {
        let fields = row.fields().filter(|(column, _)| wanted(&column.name));
        fields.map(|(_, field)| field.map(str::to_owned)).collect()
    };
    Put {
        table: now.table(table),
        how,
        columns,
        rows: rows.iter().map(values).collect(),
    }
}

fn new_uuid() -> Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map(|text| text.trim().to_owned())
        .context("Cannot make a new ID")
}

/// An ID as n8n makes them: 16 letters and digits.
fn new_id() -> Result<String> {
    const SIGNS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut bytes = [0; 256];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("Cannot make a new ID")?;
    // All signs are to be as likely.
    let fair = bytes.iter().filter(|byte| **byte < 248);
    Ok(fair
        .take(16)
        .map(|byte| char::from(SIGNS[usize::from(byte % 62)]))
        .collect())
}

#[cfg(test)]
mod tests;
