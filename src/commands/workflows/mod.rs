//! workflows: what workflows a dump holds, and how one comes out of it. Needs no docker to read a backup.

pub mod diff;
pub mod export;
pub mod place;
pub mod restore;
pub mod source;
mod staging;

use std::io::Write as _;

use anyhow::{Context as _, Result};

use super::list::table;
use super::shared::open;
use super::{Command, Run};
use crate::cli::{Flag, Row};
use crate::formats::json::Json;
use crate::formats::n8n::{Directory, Entry, Listing};
use crate::formats::text::ascii;
use crate::report::log::Journal;
use source::{dump_of, read};

const JSON: Flag = Flag::new("json", "as JSON, for other programs");
const FIND: Flag = Flag::new(
    "find",
    "only those with this in their name, the types of their nodes or the nodes' text",
)
.value("TEXT");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "workflows",
        summary: "list the workflows in a recovery point or a dump",
        details: "SET is the stamp of a recovery point (YYYYMMDD_HHMMSS) or 'latest', FILE a dump (.sql.gz); without\n\
                  either, it is the latest. Reads the dump alone: neither docker nor n8n is needed. A database in SQLite\n\
                  is read by Node.js of n8n's image, in a container. Exits 1 when a workflow cannot be read; the others\n\
                  are listed all the same.",
        operand: Some("[SET|FILE]"),
        flags: &[FIND, JSON],
        ..Row::TELLS
    },
    run: Run::Project(|project, call| {
        let app = open(project, call)?;
        let dump = dump_of(&app, call.operand.as_deref())?;
        let find = call.value(&FIND).map(|text| text.to_string_lossy().into_owned());
        let (listing, directory) = read(&app, &dump, Listing::new(find.as_deref()))?;
        tell(listing.entries, &directory, call.has(&JSON))
    }),
};

const JOURNAL: Journal = Journal::new("workflows");

/// Prints a list. Gives the exit code.
fn tell(mut entries: Vec<Entry>, directory: &Directory, json: bool) -> Result<u8> {
    entries.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let text = match json {
        true => {
            let entries = entries.iter().map(|entry| as_json(entry, directory));
            format!("{}\n", Json::List(entries.collect()))
        }
        false if entries.is_empty() => "There is no such workflow.\n".to_owned(),
        false => {
            let head = ["ID", "STATE", "NODES", "CHANGED", "OWNER", "NAME"].map(str::to_owned);
            let rows = entries.iter().map(|entry| cells(entry, directory));
            let mut text = String::new();
            table(&mut text, &[head.to_vec()].into_iter().chain(rows).collect::<Vec<_>>());
            text
        }
    };
    print(&text)?;
    let mut code = 0;
    for entry in &entries {
        if let Err(why) = &entry.nodes {
            JOURNAL.error(format_args!(
                "{} ({}) cannot be read: {why}",
                ascii(&entry.name),
                ascii(&entry.id)
            ));
            code = 1;
        }
    }
    Ok(code)
}

/// Prints what was asked for.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("Cannot print the list")
}

fn cells(entry: &Entry, directory: &Directory) -> Vec<String> {
    let mut name = ascii(&entry.name);
    let tags = directory.tags(&entry.id);
    if !tags.is_empty() {
        let tags: Vec<String> = tags.iter().map(|tag| ascii(tag.text("name"))).collect();
        name.push_str(&format!(" [{}]", tags.join(", ")));
    }
    if let Some(folder) = &entry.folder {
        name.push_str(&format!(" in {}", ascii(&directory.folder(folder).join(" / "))));
    }
    let state = match (entry.archived, entry.active) {
        (true, _) => "archived",
        (false, true) => "active",
        (false, false) => "inactive",
    };
    let changed = entry.updated.as_deref().unwrap_or("-");
    vec![
        ascii(&entry.id),
        state.to_owned(),
        entry.nodes.as_ref().map_or_else(|_| "?".to_owned(), usize::to_string),
        ascii(changed.split('T').next().unwrap_or(changed)),
        ascii(directory.owner(&entry.id).unwrap_or("-")),
        name,
    ]
}

fn as_json(entry: &Entry, directory: &Directory) -> Json {
    let tags = directory.tags(&entry.id).into_iter();
    let folder = entry.folder.as_ref().map(|id| directory.folder(id));
    let texts = |texts: Vec<&str>| Json::List(texts.into_iter().map(Json::text).collect());
    Json::object([
        ("id", Json::text(&entry.id)),
        ("name", Json::text(&entry.name)),
        ("active", Json::Bool(entry.active)),
        ("archived", Json::Bool(entry.archived)),
        ("nodes", entry.nodes.as_ref().map_or(Json::Null, Json::number)),
        ("updated", Json::maybe(entry.updated.as_ref())),
        ("owner", Json::maybe(directory.owner(&entry.id))),
        ("folder", folder.map_or(Json::Null, texts)),
        ("tags", texts(tags.map(|tag| tag.text("name")).collect())),
    ])
}
