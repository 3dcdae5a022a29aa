//! workflows export: a file of JSON for each workflow, as n8n's own export writes it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::source::{dump_of, read, similar};
use super::JOURNAL;
use crate::cli::{Call, Flag, Row};
use crate::commands::shared::open;
use crate::commands::{Command, Run};
use crate::formats::n8n::{self, file_name, Directory, Record, Spans, Table, Visitor, VERSIONED};
use crate::formats::text::ascii;
use crate::process::hinted;
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
        details: "One file for each workflow, or for each ID, with the keys and values of n8n's own export:workflow. n8n's\n\
                  editor and 'n8n import:workflow --separate' take them. Credentials are named in them, not contained.\n\
                  SET, FILE: see 'workflows'. A workflow that cannot be read is named, the others are written, and the\n\
                  exit code is 1. When the dump is not whole, nothing is written.",
        operand: Some("[SET|FILE] [ID...]"),
        flags: &[TO, HISTORY, FORCE],
        ..Row::TELLS
    },
    run: Run::Project(|project, call| {
        let app = open(project, call)?;
        let to = call.value(&TO).filter(|to| !to.is_empty()).context("--to DIR is missing")?;
        let (source, ids) = operands(call);
        let dump = dump_of(&app, source)?;
        let staging = Staging::make(Path::new(to), call.has(&FORCE))?;
        let export = Export {
            ids: (!ids.is_empty()).then(|| ids.iter().cloned().collect()),
            with_history: call.has(&HISTORY),
            ..Export::new(&staging)
        };
        let (export, directory) = read(&app, &dump.path, export)?;
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

/// The directory, and one in it for files that are not yet whole; that is removed when this is dropped.
struct Staging {
    dir: PathBuf,
    staged: PathBuf,
    /// The directory was made.
    made: bool,
}

const STAGED: &str = ".n8n-backup.partial";

impl Staging {
    fn make(dir: &Path, force: bool) -> Result<Self> {
        let made = match private_dir(dir) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => false,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(hinted(format!("{} is no directory", dir.display()), "name another one by --to").into());
            }
            Err(error) => return Err(error).with_context(|| format!("Cannot make {}", dir.display())),
        };
        let held = || -> std::io::Result<bool> {
            let names = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name()));
            Ok(names.collect::<Result<Vec<_>, _>>()?.iter().any(|name| name != STAGED))
        };
        if !force && held().with_context(|| format!("Cannot read {}", dir.display()))? {
            return Err(hinted(
                format!("{} holds files", dir.display()),
                "name another directory, or write to it with --force",
            )
            .into());
        }
        let staging = Self {
            dir: dir.to_owned(),
            staged: dir.join(STAGED),
            made,
        };
        // What a run that was killed has left.
        let _ = fs::remove_dir_all(&staging.staged);
        for dir in [&staging.staged, &staging.staged.join("history")] {
            private_dir(dir).with_context(|| format!("Cannot make {}", dir.display()))?;
        }
        Ok(staging)
    }

    /// Gives the files of a directory their places.
    fn publish(&self, below: &str) -> Result<()> {
        let (from, to) = (self.staged.join(below), self.dir.join(below));
        for entry in fs::read_dir(&from).with_context(|| format!("Cannot read {}", from.display()))? {
            let entry = entry.with_context(|| format!("Cannot read {}", from.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let place = to.join(entry.file_name());
                fs::rename(entry.path(), &place).with_context(|| format!("Cannot write {}", place.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.staged);
        if self.made {
            // Only where nothing came into it.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn private_dir(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(dir)
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

/// Writes workflows while the dump is read.
struct Export {
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
            staged: staging.staged.clone(),
            ids: None,
            with_history: false,
            written: HashMap::new(),
            names: HashSet::new(),
            known: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn workflow(&mut self, row: &Record) -> Result<()> {
        let (id, name) = (row.text("id"), row.text("name"));
        if let Some(ids) = &self.ids {
            self.known.push((id.to_owned(), name.to_owned()));
            if !ids.contains(id) {
                return Ok(());
            }
        }
        let mut text = String::new();
        let spans = match n8n::open(row, &mut text) {
            Ok(spans) => spans,
            Err(error) => {
                self.failed.push(format!("{} ({}): {error:#}", ascii(name), ascii(id)));
                return Ok(());
            }
        };
        let mut file = file_name(name, id);
        while !self.names.insert(file.to_lowercase()) {
            file.push_str("_2");
        }
        write(&self.staged.join(format!("{file}.json")), &text, false)?;
        let written = Written {
            name: name.to_owned(),
            file,
            spans,
            version_id: row.get("versionId").map(str::to_owned),
            digest: digest(row),
            version: None,
            history: false,
        };
        self.written.insert(id.to_owned(), written);
        Ok(())
    }

    fn history(&mut self, row: &Record) -> Result<()> {
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
        if written.version_id.as_deref() != row.get("versionId") {
            return Ok(());
        }
        // The version is nearly always what the workflow itself holds.
        if digest(row) != written.digest {
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
            Table::History => self.history(&row),
            _ => self.workflow(&row),
        }
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

/// Writes a new file for our user alone, or to the end of one. It is not brought to disk: an export can be repeated, and that of
/// ten thousand workflows would take minutes.
fn write(path: &Path, text: &str, append: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    match append {
        true => options.append(true),
        false => options.write(true).create_new(true).mode(0o600),
    };
    options
        .open(path)
        .and_then(|mut file: File| file.write_all(text.as_bytes()))
        .with_context(|| format!("Cannot write {}", path.display()))
}

/// Writes the rest of each file, and gives them their places. Gives the exit code.
fn finish(export: Export, directory: &Directory, ids: &[String], staging: Staging) -> Result<u8> {
    let mut unknown = ids
        .iter()
        .filter(|id| !export.known.iter().any(|(known, _)| known == *id));
    if let Some(id) = unknown.next() {
        let known = export.known.iter().map(|(id, name)| (id.as_str(), name.as_str()));
        anyhow::bail!("There is no workflow {}{}", ascii(id), similar(id, known));
    }
    for (id, written) in &export.written {
        let mut text = String::new();
        n8n::close(id, directory, written.version.as_ref(), &mut text)
            .with_context(|| format!("Workflow {} ({})", ascii(&written.name), ascii(id)))?;
        write(&staging.staged.join(format!("{}.json", written.file)), &text, true)?;
        if written.history {
            write(
                &staging.staged.join("history").join(format!("{}.json", written.file)),
                "\n]\n",
                true,
            )?;
        }
    }
    if export.with_history {
        match private_dir(&staging.dir.join("history")) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("Cannot make {}/history", staging.dir.display()));
            }
            _ => staging.publish("history")?,
        }
    }
    staging.publish("")?;
    JOURNAL.success(format_args!(
        "{} workflow(s) written to {}",
        export.written.len(),
        staging.dir.display()
    ));
    for what in &export.failed {
        JOURNAL.error(format_args!("Cannot be read: {what}"));
    }
    Ok(u8::from(!export.failed.is_empty()))
}
