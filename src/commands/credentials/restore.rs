//! credentials restore: one credential of a backup back into the live database, still encrypted.

use std::collections::HashMap;

use anyhow::{bail, ensure, Context as _, Result};

use crate::app::App;
use crate::cli::{Call, Flag, Row};
use crate::commands::restore::goes_on;
use crate::commands::shared::{hold, open_stack};
use crate::commands::workflows::place::shares;
use crate::commands::workflows::restore::{put, FROM, PROJECT};
use crate::commands::workflows::source::{as_read, check_unchanged, dump_of, read, read_live, similar, Dump};
use crate::commands::{Command, Run};
use crate::components::drill::DrillEnv;
use crate::components::key_proof::not_opened_live;
use crate::components::{check_put, put_rows, Guard, How, YES};
use crate::formats::n8n::{self, Credentials, Directory, Record, Table, Visitor};
use crate::formats::text::ascii;
use crate::process::hinted;
use crate::report::log::{self, Journal};
use crate::store::manifest::Point;
use crate::store::Stamp;
use crate::stream::publish::keep_text;

const FORCE: Flag = Flag::new("force", "even where it is not known whether n8n's key opens it");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "credentials restore",
        summary: "put one credential of a backup back into the running n8n",
        details:
            "It stays encrypted, so that n8n must have the key that it is encrypted under. What is there now is saved\n\
                  to backups/credentials first, encrypted as it is.",
        operand: Some("ID"),
        flags: &[FROM, PROJECT, FORCE, YES],
        ..Row::ACTS
    },
    run: Run::Project(|project, call| run(&open_stack(project, call)?, call).map(|()| 0)),
};

const JOURNAL: Journal = Journal::new("credentials restore");

/// All credentials, encrypted, by their IDs.
#[derive(Default)]
struct All(HashMap<String, Record>);

impl Visitor for All {
    fn wants(&self, table: Table) -> bool {
        table == Table::Credential || table.is_small()
    }

    fn visit(&mut self, _: Table, row: Record) -> Result<()> {
        self.0.insert(row.text("id").to_owned(), row);
        Ok(())
    }
}

fn run(app: &App, call: &Call) -> Result<()> {
    let id = call.operand().to_string_lossy().into_owned();
    JOURNAL.info(format_args!("Starting restore of credential {}", ascii(&id)));
    log::check_started()?;
    app.check_encryption(JOURNAL)?;
    check_put(app)?;
    let dump = dump_of(app, call.value(&FROM))?;
    let (backup, then) = read(app, &dump, All::default())?;
    let Some(credential) = backup.0.get(&id) else {
        let known = backup.0.values().map(|row| (row.text("id"), row.text("name")));
        bail!(
            "There is no credential {} in {}{}",
            ascii(&id),
            dump.path.display(),
            similar(&id, known)
        );
    };
    let _lock = hold(app, JOURNAL)?;
    let (live, now) = read_live(app, All::default())?;
    if !call.has(&FORCE) {
        check_key((app, &dump), credential, (&backup, &then), (&live, &now))?;
    }
    let replaced = live.0.get(&id);
    let project = call
        .value(&PROJECT)
        .map(|project| project.to_string_lossy().into_owned());
    let shares = if credential.text("usageScope") == "instance" {
        ensure!(
            project.is_none(),
            hinted("It belongs to n8n itself and to no project", "leave out --project")
        );
        Vec::new()
    } else {
        shares(
            JOURNAL,
            then.credential_shares(&id),
            &now,
            (Table::SharedCredential, &id, replaced.is_some()),
            project.as_deref(),
        )?
    };
    let name = ascii(credential.text("name"));
    JOURNAL.warn(format_args!(
        "This will {} credential {name} ({}), as it was in {}",
        if replaced.is_some() { "replace" } else { "add" },
        ascii(&id),
        dump.path.display()
    ));
    if !goes_on(JOURNAL, call.has(&YES)) {
        return Ok(());
    }
    let (current, now) = read_live(app, All::default())?;
    check_unchanged(replaced, current.0.get(&id))?;
    if let Some(replaced) = replaced {
        save(app, replaced).context("What is there now cannot be saved, so it is not replaced")?;
    }
    let how = if replaced.is_some() { How::Replace } else { How::Insert };
    // n8n has dropped this column, and what was in it.
    let dropped = ["nodesAccess"];
    let dropped = if now.has(Table::Credential, dropped[0]) {
        &[][..]
    } else {
        &dropped[..]
    };
    let mut puts = vec![put(&now, Table::Credential, how, &[credential], dropped)];
    if !shares.is_empty() {
        let shares: Vec<&Record> = shares.iter().collect();
        puts.push(put(&now, Table::SharedCredential, How::Insert, &shares, &[]));
    }
    let table = now.table(Table::Credential);
    let guard = replaced.map(|replaced| Guard {
        table: &table,
        id: &id,
        off: &[],
        read: as_read(replaced),
    });
    put_rows(app, &puts, guard).context("The credential was not restored, and nothing was changed")?;
    JOURNAL.success(format_args!("Credential restored: {name} ({})", ascii(&id)));
    Ok(())
}

/// Refuses a credential that the live n8n cannot open: tried with its key, where that is known. Else as far as can be
/// told without opening anything: a key of the database must be the same there, and n8n's own is the same where it
/// still has something that was encrypted under it.
fn check_key(
    (app, dump): (&App, &Dump),
    credential: &Record,
    (backup, then): (&All, &Directory),
    (live, now): (&All, &Directory),
) -> Result<()> {
    const UNKNOWN: &str = "It is not known whether the live n8n's key opens the credential";
    const FORCED: &str = "add --force when N8N_ENCRYPTION_KEY is the same as it was then";
    let point = dump.point.clone().unwrap_or_else(|| Point::new(Stamp::now()));
    let mut tried = Credentials::default();
    tried.visit(Table::Credential, credential.clone())?;
    let not_opened = not_opened_live(&DrillEnv::beside(app, &point)?, tried.sealed(now));
    let no_key = || {
        hinted(
            "The live n8n does not have the key that the credential is encrypted under",
            "bring back that key (docs/recovery.md, \"The key\"), restore the database with its keys, or enter the credential \
             again",
        )
    };
    if let Some(not_opened) = not_opened.with_context(|| hinted(UNKNOWN, FORCED))? {
        let certain = not_opened.get(credential.text("id"));
        ensure!(certain != Some(&true), no_key());
        ensure!(
            certain.is_none(),
            hinted(format!("{UNKNOWN}: it has a form that is not known here"), FORCED)
        );
        return Ok(());
    }
    let data = credential.text("data");
    let (old, new) = (then.key(data), now.key(data));
    if data.contains(':') || old.is_some() {
        let pair = old.zip(new).filter(|(old, new)| old.get("id") == new.get("id"));
        let (old, new) = pair.with_context(no_key)?;
        // n8n may have wrapped the same key again, or under another one of its own.
        ensure!(
            old.get("value") == new.get("value"),
            hinted(
                format!("{UNKNOWN}: it wraps the credential's key in another way now"),
                FORCED
            )
        );
        return Ok(());
    }
    let unchanged = |(id, row): (&String, &Record)| {
        let text = row.get("data").filter(|text| !text.contains(':'));
        text.is_some() && live.0.get(id).and_then(|row| row.get("data")) == text
    };
    ensure!(
        backup.0.iter().any(unchanged),
        hinted(format!("{UNKNOWN}: no other one is the same there"), FORCED)
    );
    Ok(())
}

fn save(app: &App, credential: &Record) -> Result<()> {
    let mut text = String::new();
    n8n::version(credential, &mut text)?;
    text.push('\n');
    let dir = app.store.root().join("credentials");
    let id = n8n::file_name(credential.text("id"), "");
    let path = keep_text(&app.config, &dir, id.trim_end_matches('-'), text)?;
    JOURNAL.info(format_args!("Saved what is there now: {}", path.display()));
    Ok(())
}
