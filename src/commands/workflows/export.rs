//! workflows export: a file of JSON for each workflow, as n8n's own export writes it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{anyhow, Context as _, Result};

use super::source::{dump_of, read, similar};
use super::staging::{write, Staging, Writer};
use super::JOURNAL;
use crate::cli::{Call, Flag, Row};
use crate::commands::shared::open;
use crate::commands::{Command, Run};
use crate::formats::n8n::{self, file_name, Directory, Record, Spans, Table, Visitor, VERSIONED};
use crate::formats::text::ascii;
use crate::store::{is_there, Stamp};

const TO: Flag = Flag::new("to", "the directory to write to; it is made where it is not there").value("DIR");
const HISTORY: Flag = Flag::new(
    "history",
    "write the versions of each workflow too, to history/ in that directory",
);
const FORCE: Flag = Flag::new(
    "force",
    "write to a directory that holds files, in the place of those of the same name",
);

pub const COMMAND: Command = Command {
    row: &Row {
        name: "workflows export",
        summary: "write workflows of a recovery point or a dump as JSON files",
        details: "One file for each workflow, or for each ID, with the keys and values of n8n's own export:workflow.\n\
                  n8n's editor and 'n8n import:workflow --separate' take them. Credentials are named in them, not\n\
                  contained. SET, FILE: see 'workflows'. A workflow that cannot be read is named, the others are\n\
                  written, and the exit code is 1. When the dump is not whole, nothing is written.",
        operand: Some("[SET|FILE] [ID...]"),
        flags: &[TO, HISTORY, FORCE],
        ..Row::TELLS
    },
    run: Run::Project(|project, call| {
        let app = open(project, call)?;
        let to = call
            .value(&TO)
            .filter(|to| !to.is_empty())
            .context("--to DIR is missing")?;
        let (source, ids) = operands(call);
        let dump = dump_of(&app, source)?;
        let staging = Staging::make(Path::new(to), call.has(&FORCE))?;
        let export = Export {
            ids: (!ids.is_empty()).then(|| ids.iter().cloned().collect()),
            with_history: call.has(&HISTORY),
            ..Export::new(&staging)
        };
        let (export, directory) = read(&app, &dump, export)?;
        finish(export, &directory, &ids, staging)
    }),
};

/// The dump and the IDs. An operand is an ID where it can be no dump.
fn operands(call: &Call) -> (Option<&OsStr>, Vec<String>) {
    let is_source = |name: &OsStr| {
        let text = name.to_string_lossy();
        text == "latest" || text.contains(['/', '.']) || Stamp::parse(&text).is_some() || is_there(Path::new(name))
    };
    let text = |ids: &[std::ffi::OsString]| ids.iter().map(|id| id.to_string_lossy().into_owned()).collect();
    match call.operands.split_first() {
        Some((first, ids)) if is_source(first) => (Some(first), text(ids)),
        _ => (None, text(&call.operands)),
    }
}

/// A workflow whose columns have been written.
struct Written {
    name: String,
    file: String,
    spans: Spans,
    version_id: Option<String>,
    /// The values that a version may replace.
    digest: u64,
    /// The row of the current version, without them.
    version: Option<Record>,
    /// It has a file of versions.
    history: bool,
}

impl Written {
    /// Whether a row is that of the workflow's current version.
    fn is_current(&self, version: &Record) -> bool {
        self.version_id.as_deref() == version.get("versionId")
    }
}

/// Writes workflows while the dump is read.
struct Export {
    writer: Writer,
    staged: PathBuf,
    ids: Option<HashSet<String>>,
    with_history: bool,
    written: HashMap<String, Written>,
    /// Names of files in lower case, for file systems to which these are the same.
    names: HashSet<String>,
    /// All workflows that there are, for the error of an ID that is none.
    known: Vec<(String, String)>,
    failed: Vec<String>,
}

impl Export {
    fn new(staging: &Staging) -> Self {
        Self {
            writer: Writer::start(),
            staged: staging.staged.clone(),
            ids: None,
            with_history: false,
            written: HashMap::new(),
            names: HashSet::new(),
            known: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn workflow(&mut self, row: Record) {
        let (id, name) = (row.text("id"), row.text("name"));
        if let Some(ids) = &self.ids {
            self.known.push((id.to_owned(), name.to_owned()));
            if !ids.contains(id) {
                return;
            }
        }
        let mut file = file_name(name, id);
        while !self.names.insert(file.to_lowercase()) {
            file.push_str("_2");
        }
        let path = self.staged.join(format!("{file}.json"));
        let written = Written {
            name: name.to_owned(),
            file,
            spans: Spans::new(),
            version_id: row.get("versionId").map(str::to_owned),
            digest: digest(&row),
            version: None,
            history: false,
        };
        self.written.insert(id.to_owned(), written);
        self.writer.write(row, path);
    }

    /// Waits until the columns of all workflows are written.
    fn opened(&mut self) -> Result<()> {
        for (id, opened) in self.writer.finish()? {
            match (opened, self.written.get_mut(&id)) {
                (Ok(spans), Some(written)) => written.spans = spans,
                (Err(why), _) => {
                    let name = self.written.remove(&id).map(|written| ascii(&written.name));
                    self.failed
                        .push(format!("{} ({}): {why}", name.unwrap_or_default(), ascii(&id)));
                }
                (Ok(_), None) => {}
            }
        }
        Ok(())
    }

    fn history(&mut self, row: &Record) -> Result<()> {
        let own = self.written.get(row.text("workflowId"));
        let differs = own.is_some_and(|own| own.is_current(row) && own.digest != digest(row));
        if self.with_history || differs {
            self.opened()?;
        }
        let Some(written) = self.written.get_mut(row.text("workflowId")) else {
            return Ok(());
        };
        let failed = |error: anyhow::Error| {
            let (name, version) = (ascii(&written.name), ascii(row.text("versionId")));
            format!("{name}, version {version}: {error:#}")
        };
        if self.with_history {
            let mut text = String::from(if written.history { ",\n  " } else { "[\n  " });
            match n8n::version(row, &mut text) {
                Ok(()) => {
                    let path = self.staged.join("history").join(format!("{}.json", written.file));
                    write(&path, &text, written.history)?;
                    written.history = true;
                }
                Err(error) => self.failed.push(failed(error)),
            }
        }
        if !written.is_current(row) {
            return Ok(());
        }
        // The version is nearly always what the workflow itself holds.
        if differs {
            let path = self.staged.join(format!("{}.json", written.file));
            let old = fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))?;
            match replaced(&old, &written.spans, row) {
                Ok(text) => {
                    fs::remove_file(&path)
                        .with_context(|| format!("Cannot write {}", path.display()))
                        .and_then(|()| write(&path, &text, false))?;
                }
                Err(error) => self.failed.push(failed(error)),
            }
        }
        written.version = Some(row.only(&["name", "description"]));
        Ok(())
    }
}

impl Visitor for Export {
    fn wants(&self, table: Table) -> bool {
        table != Table::Credential
    }

    fn visit(&mut self, table: Table, row: Record) -> Result<()> {
        match table {
            Table::History => return self.history(&row),
            _ => self.workflow(row),
        }
        Ok(())
    }
}

/// A number for the values that a version may replace.
fn digest(row: &Record) -> u64 {
    n8n::digest(row, &VERSIONED)
}

/// The text of a workflow with the values of a version.
fn replaced(old: &str, spans: &Spans, version: &Record) -> Result<String> {
    let mut spans: Vec<_> = spans.iter().filter(|(name, _)| version.has(name)).collect();
    spans.sort_by_key(|(_, span)| span.start);
    let (mut text, mut at) = (String::with_capacity(old.len()), 0);
    for (name, span) in spans {
        text.push_str(&old[at..span.start]);
        version.write(name, 1, &mut text)?;
        at = span.end;
    }
    text.push_str(&old[at..]);
    Ok(text)
}

/// Writes the rest of each file, and gives them their places. Gives the exit code.
fn finish(mut export: Export, directory: &Directory, ids: &[String], staging: Staging) -> Result<u8> {
    let mut unknown = ids
        .iter()
        .filter(|id| !export.known.iter().any(|(known, _)| known == *id));
    if let Some(id) = unknown.next() {
        let known = export.known.iter().map(|(id, name)| (id.as_str(), name.as_str()));
        anyhow::bail!("There is no workflow {}{}", ascii(id), similar(id, known));
    }
    export.opened()?;
    let written: Vec<(&String, &Written)> = export.written.iter().collect();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
    thread::scope(|scope| {
        let closing: Vec<_> = written
            .chunks(written.len().div_ceil(threads).max(1))
            .map(|part| {
                scope.spawn(|| {
                    part.iter()
                        .try_for_each(|(id, one)| close(id, one, directory, &staging.staged))
                })
            })
            .collect();
        closing
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
    })?;
    let dir = staging.dir.clone();
    staging.publish()?;
    JOURNAL.success(format_args!(
        "{} workflow(s) written to {}",
        export.written.len(),
        dir.display()
    ));
    for what in &export.failed {
        JOURNAL.error(format_args!("Cannot be read: {what}"));
    }
    Ok(u8::from(!export.failed.is_empty()))
}

/// Writes what follows the columns of a workflow.
fn close(id: &str, written: &Written, directory: &Directory, staged: &Path) -> Result<()> {
    let mut text = String::new();
    n8n::close(id, directory, written.version.as_ref(), &mut text)
        .with_context(|| format!("Workflow {} ({})", ascii(&written.name), ascii(id)))?;
    let file = format!("{}.json", written.file);
    write(&staged.join(&file), &text, true)?;
    match written.history {
        true => write(&staged.join("history").join(&file), "\n]\n", true),
        false => Ok(()),
    }
}
