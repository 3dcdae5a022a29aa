//! credentials: what credentials a dump holds, and which workflows use them; never what is in them.

pub mod restore;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::list::table;
use super::shared::open;
use super::workflows::print;
use super::workflows::source::{dump_of, read, Dump};
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::components::drill::DrillEnv;
use crate::components::key_proof::not_opened;
use crate::formats::json::Json;
use crate::formats::n8n::{Credentials, Directory, Record};
use crate::formats::text::ascii;
use crate::report::log::Journal;

const JSON: Flag = Flag::new("json", "as JSON, for other programs");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "credentials",
        summary: "list the credentials in a recovery point or a dump, without their contents",
        details:
            "Their names and types, the workflows that use them, and whether the recovery point's key opens them. That\n\
                  is tried where n8n's image is here, in a container without network, and nothing that it opens leaves it.\n\
                  SET, FILE: see 'workflows'.",
        operand: Some("[SET|FILE]"),
        flags: &[JSON],
        ..Row::TELLS
    },
    run: Run::Project(|project, call| {
        let app = open(project, call)?;
        let dump = dump_of(&app, call.operand.as_deref())?;
        let (credentials, directory) = read(&app, &dump, Credentials::default())?;
        let opened = opened(&app, &dump, &credentials, &directory);
        tell(credentials, &directory, &opened, call.has(&JSON))
    }),
};

const JOURNAL: Journal = Journal::new("credentials");

/// Which credentials the key does not open, as far as that is certain.
fn opened(app: &App, dump: &Dump, credentials: &Credentials, directory: &Directory) -> Result<BTreeMap<String, bool>> {
    if credentials.rows.is_empty() {
        return Ok(BTreeMap::new());
    }
    let point = dump.point.as_ref();
    let point = point.context("the file belongs to no recovery point, which would hold the key")?;
    not_opened(&DrillEnv::beside(app, point)?, credentials.sealed(directory))
}

/// Prints the list. Gives the exit code.
fn tell(
    mut credentials: Credentials,
    directory: &Directory,
    sealed: &Result<BTreeMap<String, bool>>,
    json: bool,
) -> Result<u8> {
    let opens = |row: &Record| match sealed.as_ref().ok()?.get(row.text("id")) {
        None => Some(true),
        Some(certain) => certain.then_some(false),
    };
    credentials
        .rows
        .sort_by(|a, b| (a.text("name"), a.text("id")).cmp(&(b.text("name"), b.text("id"))));
    let rows = &credentials.rows;
    let text = match json {
        true => {
            let rows = rows.iter().map(|row| {
                let uses = credentials.uses(row).into_iter().map(Json::text);
                Json::object([
                    ("id", Json::maybe(row.get("id"))),
                    ("name", Json::text(row.text("name"))),
                    ("type", Json::text(row.text("type"))),
                    ("updated", Json::maybe(row.time("updatedAt"))),
                    ("owner", Json::maybe(directory.credential_owner(row.text("id")))),
                    ("opens", opens(row).map_or(Json::Null, Json::Bool)),
                    ("workflows", Json::List(uses.collect())),
                ])
            });
            format!("{}\n", Json::List(rows.collect()))
        }
        false if rows.is_empty() => "There is no credential.\n".to_owned(),
        false => {
            let head = ["ID", "TYPE", "NAME", "OWNER", "KEY", "USED BY"]
                .map(str::to_owned)
                .to_vec();
            let cells = rows.iter().map(|row| {
                let uses: Vec<String> = credentials.uses(row).into_iter().map(ascii).collect();
                vec![
                    ascii(row.text("id")),
                    ascii(row.text("type")),
                    ascii(row.text("name")),
                    ascii(directory.credential_owner(row.text("id")).unwrap_or("-")),
                    match opens(row) {
                        Some(true) => "opens it",
                        Some(false) => "does not",
                        None if sealed.is_ok() => "unknown form",
                        None => "not tried",
                    }
                    .to_owned(),
                    if uses.is_empty() {
                        "-".to_owned()
                    } else {
                        uses.join(", ")
                    },
                ]
            });
            let mut text = String::new();
            table(&mut text, &[head].into_iter().chain(cells).collect::<Vec<_>>());
            if let Err(why) = sealed {
                text.push_str(&format!("The key was not tried: {}\n", ascii(&format!("{why:#}"))));
            }
            text
        }
    };
    print(&text)?;
    for (id, why) in &credentials.unread {
        JOURNAL.error(format_args!("Workflow {} cannot be read: {why}", ascii(id)));
    }
    Ok(u8::from(!credentials.unread.is_empty()))
}
