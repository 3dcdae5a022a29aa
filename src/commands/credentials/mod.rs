//! credentials: what credentials a dump holds, and which workflows use them; never what is in them.

pub mod restore;

use anyhow::Result;

use super::list::table;
use super::shared::open;
use super::workflows::print;
use super::workflows::source::{dump_of, read};
use super::{Command, Run};
use crate::cli::{Flag, Row};
use crate::formats::json::Json;
use crate::formats::n8n::{Credentials, Directory};
use crate::formats::text::ascii;
use crate::report::log::Journal;

const JSON: Flag = Flag::new("json", "as JSON, for other programs");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "credentials",
        summary: "list the credentials in a recovery point or a dump, without their contents",
        details:
            "Their names and types, and the workflows that use them. SET, FILE: see 'workflows'. What they hold stays\n\
                  encrypted and is not looked at: test-recovery proves that the point's key opens them.",
        operand: Some("[SET|FILE]"),
        flags: &[JSON],
        ..Row::TELLS
    },
    run: Run::Project(|project, call| {
        let app = open(project, call)?;
        let dump = dump_of(&app, call.operand.as_deref())?;
        let (credentials, directory) = read(&app, &dump.path, Credentials::default())?;
        tell(credentials, &directory, call.has(&JSON))
    }),
};

const JOURNAL: Journal = Journal::new("credentials");

/// Prints the list. Gives the exit code.
fn tell(mut credentials: Credentials, directory: &Directory, json: bool) -> Result<u8> {
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
                    ("workflows", Json::List(uses.collect())),
                ])
            });
            format!("{}\n", Json::List(rows.collect()))
        }
        false if rows.is_empty() => "There is no credential.\n".to_owned(),
        false => {
            let head = ["ID", "TYPE", "NAME", "OWNER", "USED BY"].map(str::to_owned).to_vec();
            let cells = rows.iter().map(|row| {
                let uses: Vec<String> = credentials.uses(row).into_iter().map(ascii).collect();
                vec![
                    ascii(row.text("id")),
                    ascii(row.text("type")),
                    ascii(row.text("name")),
                    ascii(directory.credential_owner(row.text("id")).unwrap_or("-")),
                    if uses.is_empty() {
                        "-".to_owned()
                    } else {
                        uses.join(", ")
                    },
                ]
            });
            let mut text = String::new();
            table(&mut text, &[head].into_iter().chain(cells).collect::<Vec<_>>());
            text
        }
    };
    print(&text)?;
    for (id, why) in &credentials.unread {
        JOURNAL.error(format_args!("Workflow {} cannot be read: {why}", ascii(id)));
    }
    Ok(u8::from(!credentials.unread.is_empty()))
}
