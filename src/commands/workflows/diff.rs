//! workflows diff: what has changed between two recovery points, or since one.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fmt::Write as _;

use anyhow::Result;

use super::source::{dump_of, read, read_live, Dump};
use super::{print, JOURNAL, JSON};
use crate::app::App;
use crate::cli::Row;
use crate::commands::shared::{open, open_stack};
use crate::commands::{Command, Run};
use crate::formats::json::Json;
use crate::formats::n8n::{changes, digest, Change, Content, Record, Table, Visitor, CONTENT};
use crate::formats::text::ascii;

pub const COMMAND: Command = Command {
    row: &Row {
        name: "workflows diff",
        summary: "tell how the workflows of two recovery points differ",
        details:
            "SET1 and SET2 are stamps of recovery points, 'latest' or dumps; 'live', as without SET2, is the running\n\
                  database, which is only read. Tells what was added, removed, renamed, activated or archived, and of\n\
                  what was changed the nodes and parameters with their old and new values. Exits 0 when nothing\n\
                  differs, 1 when something does, 2 after an error.",
        operand: Some("SET1 [SET2|live]"),
        flags: &[JSON],
        failure: 2,
        ..Row::TELLS
    },
    run: Run::Project(|project, call| {
        let live = call.operands.iter().skip(1).all(|name| name == "live");
        let app = if live {
            open_stack(project, call)?
        } else {
            open(project, call)?
        };
        let old = Side::of(&app, call.operand.as_deref())?;
        let new = Side::of(&app, Some(call.operands.get(1).map_or(OsStr::new("live"), |name| name)))?;
        run(&app, &old, &new, call.has(&JSON))
    }),
};

/// Bytes of contents that are held to tell differences in detail.
const MAX_HELD: usize = 256 << 20;
/// The longest value that is shown whole.
const MAX_SHOWN: usize = 160;

/// One of what is compared.
enum Side {
    Dump(Dump),
    Live,
}

impl Side {
    fn of(app: &App, name: Option<&OsStr>) -> Result<Self> {
        match name {
            Some(name) if name == "live" => Ok(Self::Live),
            name => Ok(Self::Dump(dump_of(app, name)?)),
        }
    }

    fn read<V: Visitor>(&self, app: &App, visitor: V) -> Result<V> {
        match self {
            Self::Dump(dump) => read(app, dump, visitor),
            Self::Live => read_live(app, visitor),
        }
        .map(|(visitor, _)| visitor)
    }
}

/// What is compared first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    name: String,
    active: bool,
    archived: bool,
    /// The version that n8n 2 runs.
    published: Option<String>,
    digest: u64,
}

#[derive(Default)]
struct States(BTreeMap<String, State>);

impl Visitor for States {
    fn wants(&self, table: Table) -> bool {
        table == Table::Workflow
    }

    fn visit(&mut self, _: Table, row: Record) -> Result<()> {
        let state = State {
            name: row.text("name").to_owned(),
            active: row.is("active"),
            archived: row.is("isArchived"),
            published: row
                .get("activeVersionId")
                .filter(|_| row.is("active"))
                .map(str::to_owned),
            digest: digest(&row, &CONTENT),
        };
        self.0.insert(row.text("id").to_owned(), state);
        Ok(())
    }
}

/// The contents of chosen workflows, as long as there is room.
struct Contents {
    wanted: Vec<String>,
    rows: HashMap<String, Record>,
    bytes: usize,
}

impl Visitor for Contents {
    fn wants(&self, table: Table) -> bool {
        table == Table::Workflow
    }

    fn visit(&mut self, _: Table, row: Record) -> Result<()> {
        let id = row.text("id");
        if self.wanted.iter().any(|wanted| wanted == id) && self.bytes < MAX_HELD {
            let row = row.only(&[&CONTENT[..], &["id"]].concat());
            self.bytes += row.fields().map(|(_, field)| field.map_or(0, str::len)).sum::<usize>();
            self.rows.insert(row.text("id").to_owned(), row);
        }
        Ok(())
    }
}

/// How a workflow differs.
struct Difference {
    id: String,
    name: String,
    old_name: Option<String>,
    what: Vec<&'static str>,
    /// Differences of its contents, or why there are none to tell.
    changes: Result<Vec<Change>, String>,
}

fn run(app: &App, old: &Side, new: &Side, json: bool) -> Result<u8> {
    let (before, after) = (old.read(app, States::default())?.0, new.read(app, States::default())?.0);
    let changed: Vec<String> = before
        .iter()
        .filter(|(id, state)| after.get(*id).is_some_and(|now| now.digest != state.digest))
        .map(|(id, _)| id.clone())
        .collect();
    let contents = |side: &Side| match changed.is_empty() {
        true => Ok(HashMap::new()),
        false => {
            let (wanted, rows, bytes) = (changed.clone(), HashMap::new(), 0);
            side.read(app, Contents { wanted, rows, bytes }).map(|held| held.rows)
        }
    };
    let (olds, news) = (contents(old)?, contents(new)?);
    let mut all = Vec::new();
    for (id, then) in &before {
        let told = |id: &str, what| Difference {
            id: id.to_owned(),
            name: then.name.clone(),
            old_name: None,
            what,
            changes: Ok(Vec::new()),
        };
        let Some(now) = after.get(id) else {
            all.push(told(id, vec!["removed"]));
            continue;
        };
        let changes = match then.digest == now.digest {
            true => Ok(Vec::new()),
            false => compared(olds.get(id), news.get(id)),
        };
        let what = [
            (then.name != now.name, "renamed"),
            (!then.active && now.active, "activated"),
            (then.active && !now.active, "deactivated"),
            // An older n8n tells of no version.
            (
                then.published.is_some() && now.published.is_some() && then.published != now.published,
                "published",
            ),
            (!then.archived && now.archived, "archived"),
            (then.archived && !now.archived, "unarchived"),
            (!changes.as_ref().is_ok_and(Vec::is_empty), "changed"),
        ];
        let what: Vec<&str> = what.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
        if !what.is_empty() {
            all.push(Difference {
                name: now.name.clone(),
                old_name: (then.name != now.name).then(|| then.name.clone()),
                changes,
                ..told(id, what)
            });
        }
    }
    for (id, now) in after.iter().filter(|(id, _)| !before.contains_key(*id)) {
        all.push(Difference {
            id: id.clone(),
            name: now.name.clone(),
            old_name: None,
            what: vec!["added"],
            changes: Ok(Vec::new()),
        });
    }
    print(&match json {
        true => format!("{}\n", Json::List(all.iter().map(as_json).collect())),
        false => all.iter().map(as_text).collect(),
    })?;
    let mut failed = false;
    for difference in &all {
        if let Err(why) = &difference.changes {
            let (name, id) = (ascii(&difference.name), ascii(&difference.id));
            JOURNAL.error(format_args!("{name} ({id}) cannot be compared: {why}"));
            failed = true;
        }
    }
    Ok(match (failed, all.is_empty()) {
        (true, _) => 2,
        (false, empty) => u8::from(!empty),
    })
}

fn compared(old: Option<&Record>, new: Option<&Record>) -> Result<Vec<Change>, String> {
    let (Some(old), Some(new)) = (old, new) else {
        return Err("too much has changed, or it has just been deleted".to_owned());
    };
    match (Content::of(old), Content::of(new)) {
        (Ok(old), Ok(new)) => Ok(changes(&old, &new)),
        (Err(error), _) | (_, Err(error)) => Err(format!("{error:#}")),
    }
}

fn as_text(difference: &Difference) -> String {
    let mut text = String::new();
    let name = ascii(&difference.name);
    let from = difference
        .old_name
        .as_deref()
        .map(|old| format!(", was {}", ascii(old)));
    let what = difference.what.join(", ");
    let _ = writeln!(
        text,
        "{what}: {name} ({}){}",
        ascii(&difference.id),
        from.unwrap_or_default()
    );
    for change in difference.changes.iter().flatten() {
        let place = match (&change.node, change.path.as_str()) {
            (Some(node), "") => format!("node {}", ascii(node)),
            (Some(node), path) => format!("node {}: {}", ascii(node), ascii(path)),
            (None, path) => ascii(path),
        };
        let value = |value: &Option<Json>| value.as_ref().map(|value| shown(&value.to_string()));
        let _ = match (value(&change.old), value(&change.new)) {
            (None, _) if change.path.is_empty() => writeln!(text, "  {place} added"),
            (_, None) if change.path.is_empty() => writeln!(text, "  {place} removed"),
            (None, Some(new)) => writeln!(text, "  {place}: added {new}"),
            (Some(old), None) => writeln!(text, "  {place}: removed {old}"),
            (old, new) => writeln!(
                text,
                "  {place}: {} -> {}",
                old.unwrap_or_default(),
                new.unwrap_or_default()
            ),
        };
    }
    text
}

/// A value as JSON, in ASCII, cut where it is long.
fn shown(text: &str) -> String {
    match text.get(..MAX_SHOWN) {
        Some(begin) if text.len() > MAX_SHOWN => format!("{begin}... ({} bytes)", text.len()),
        _ => text.to_owned(),
    }
}

fn as_json(difference: &Difference) -> Json {
    let changes = difference.changes.iter().flatten().map(|change| {
        let value = |value: &Option<Json>| value.clone().unwrap_or(Json::Null);
        Json::object([
            ("node", Json::maybe(change.node.as_ref())),
            ("path", Json::text(&change.path)),
            ("old", value(&change.old)),
            ("new", value(&change.new)),
        ])
    });
    Json::object([
        ("id", Json::text(&difference.id)),
        ("name", Json::text(&difference.name)),
        ("old_name", Json::maybe(difference.old_name.as_ref())),
        (
            "what",
            Json::List(difference.what.iter().copied().map(Json::text).collect()),
        ),
        ("changes", Json::List(changes.collect())),
    ])
}
