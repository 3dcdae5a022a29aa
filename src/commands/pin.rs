//! pin and unpin: a recovery point that no retention deletes, and its end.

use std::ffi::OsStr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{ensure, Context as _, Result};

use super::shared::open;
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Call, Flag, Row};
use crate::report::log::{self, ascii, Journal};
use crate::store::manifest::{self, Point};
use crate::store::marks::{self, Mark, Pin, Time};
use crate::store::{inventory, is_there, Stamp};

const REASON: Flag = Flag::new("reason", "why, as list shows it").value("TEXT");

pub const PIN: Command = Command {
    row: &Row {
        name: "pin",
        summary: "keep a recovery point, whatever the retention says",
        details:
            "SET is the stamp of a recovery point (YYYYMMDD_HHMMSS) or 'latest', the newest one. A pinned point is\n\
                  deleted neither here nor off-site until unpin. To pin it again changes the reason.",
        operand: Some("SET"),
        flags: &[REASON],
        ..Row::ACTS
    },
    run: Run::Project(|project, call| pin(&open(project, call)?, call).map(|()| 0)),
};

pub const UNPIN: Command = Command {
    row: &Row {
        name: "unpin",
        summary: "give a pinned recovery point back to the retention",
        details: "SET is the stamp of a recovery point (YYYYMMDD_HHMMSS) or 'latest', the newest one.",
        operand: Some("SET"),
        ..Row::ACTS
    },
    run: Run::Project(|project, call| unpin(&open(project, call)?, call.operand()).map(|()| 0)),
};

fn pin(app: &App, call: &Call) -> Result<()> {
    const JOURNAL: Journal = Journal::new("pin");
    log::check_started()?;
    let point = find(app, call.operand())?;
    let reason = call
        .value(&REASON)
        .map(|reason| reason.to_string_lossy().trim().to_owned());
    let reason = reason.filter(|reason| !reason.is_empty());
    let mark = Mark::Pinned(Pin {
        at: Time::now(),
        reason: reason.clone(),
    });
    let there = |point: &Point| {
        let files = point.members.iter();
        files
            .filter(|member| is_there(&app.store.root().join(&member.name)))
            .count()
    };
    // A cleanup at work passes over files that are held, and looks for the mark before it deletes others.
    let _used = point.hold(&app.store)?;
    let before = there(&point);
    manifest::update(&app.store, point.stamp, |point| point.mark(&mark))?;
    ensure!(
        is_there(&point.path(&app.store)) && there(&point) == before,
        "A cleanup has deleted files of recovery point {} meanwhile",
        point.stamp
    );
    if before < point.members.len() || before == 0 {
        JOURNAL.warn(format_args!(
            "Recovery point {} lacks files already: n8n-backup verify {} tells which",
            point.stamp, point.stamp
        ));
    }
    let why = reason.map_or_else(String::new, |reason| format!(": {}", ascii(&reason)));
    JOURNAL.success(format_args!("Recovery point {} is pinned{why}", point.stamp));
    Ok(())
}

fn unpin(app: &App, set: &OsStr) -> Result<()> {
    const JOURNAL: Journal = Journal::new("unpin");
    log::check_started()?;
    let point = find(app, set)?;
    ensure!(point.pin().is_some(), "Recovery point {} is not pinned", point.stamp);
    manifest::update(&app.store, point.stamp, |point| point.unset(marks::PINNED))?;
    JOURNAL.success(format_args!("Recovery point {} is no longer pinned", point.stamp));
    Ok(())
}

/// The point that is named.
fn find(app: &App, set: &OsStr) -> Result<Point> {
    if set == "latest" {
        let newest = inventory::newest(&app.store, SystemTime::now())?;
        return newest.context("There is no recovery point yet")?.1;
    }
    let text = Path::new(set).file_name().unwrap_or_default().to_string_lossy();
    let stamp = Stamp::parse(text.strip_suffix(crate::store::SET_SUFFIX).unwrap_or(&text))
        .with_context(|| format!("{text} is no recovery point: name one as YYYYMMDD_HHMMSS, or 'latest'"))?;
    let path = app.store.set_path(stamp);
    ensure!(is_there(&path), "There is no recovery point {stamp}");
    Point::load(&path)
}
