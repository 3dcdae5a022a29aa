//! restore-all --dry-run: what a restore would replace, from which files, how long n8n would be stopped, and what would be
//! refused. It takes no lock, writes no record and starts no container of the stack.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{ensure, Result};

use super::fits::{check_n8n, is_gone};
use super::{keeps, together, Options, JOURNAL};
use crate::app::App;
use crate::components::{check_encrypted, About, Component, RestoreOptions, COMPONENTS};
use crate::engine::Status;
use crate::process::hint_of;
use crate::report::units;
use crate::stack;
use crate::stack::discovery;
use crate::stack::pause::check_can_rest;
use crate::store::inventory;
use crate::store::manifest::Point;
use crate::store::Kind;

/// What is known of the parts, as far as it was looked at.
#[derive(Default)]
struct Tally {
    refused: usize,
    unknown: usize,
}

impl Tally {
    fn refuse(&mut self, what: &str, error: &anyhow::Error) {
        self.refused += 1;
        JOURNAL.error(format_args!("[DRY-RUN] Would be refused: {what}: {error:#}"));
        if let Some(hint) = hint_of(error) {
            JOURNAL.info(format_args!("[DRY-RUN] Hint: {hint}"));
        }
    }

    fn leave_open(&mut self, why: std::fmt::Arguments<'_>) {
        self.unknown += 1;
        JOURNAL.warn(format_args!("[DRY-RUN] {why}"));
    }
}

/// Tells what the restore of `parts` of `point` would do.
///
/// # Errors
/// When it would be refused.
pub fn dry_run(app: &App, point: &Point, parts: &[Kind], options: &Options) -> Result<()> {
    let _used = point.hold(&app.store)?;
    let mut tally = Tally::default();
    let gone = is_gone(app, point)?;
    if gone && !options.create {
        let error = anyhow::anyhow!("the containers of the stack are not on this host, and --create was not given");
        tally.refuse("the restore", &error);
    } else if gone {
        JOURNAL.info(
            "[DRY-RUN] Would write the files that the stack is deployed from, and have Compose create and start the stack",
        );
    }
    let chosen: Vec<(&'static dyn Component, PathBuf)> = COMPONENTS
        .iter()
        .filter(|component| parts.contains(&component.kind()))
        .filter_map(|component| {
            let member = component.member(point)?;
            Some((*component, app.store.root().join(&member.name)))
        })
        .collect();
    let options = &Options {
        parts: together(&chosen, options.parts),
        ..options.clone()
    };
    let from_backup = settings_of_backup(app, &chosen, &mut tally);
    let app = from_backup.as_ref().unwrap_or(app);
    if !gone {
        let fits = || check_n8n(app, &app.docker()?, point, options.force);
        let has_database = parts.iter().any(|kind| kind.is_database());
        let rests = app.docker().and_then(|docker| check_can_rest(app, &docker));
        for error in [has_database.then(fits), Some(rests)]
            .into_iter()
            .flatten()
            .filter_map(Result::err)
        {
            tally.refuse("the restore", &error);
        }
    }
    for (component, file) in &chosen {
        let kind = component.kind();
        let size = file.metadata().map_or(0, |meta| meta.len());
        JOURNAL.info(format_args!(
            "[DRY-RUN] Would restore: {} from {} ({})",
            kind.name(),
            file.display(),
            units::amount(size)
        ));
        if let Err(error) = part(app, *component, file, options, gone, &mut tally) {
            tally.refuse(kind.name(), &error);
        }
    }
    let about: Vec<&About> = chosen.iter().map(|(component, _)| component.about()).collect();
    JOURNAL.info(format_args!("[DRY-RUN] {}", keeps(&about)));
    if !gone {
        tell_pause(app, point, parts);
    }
    ensure!(
        tally.refused == 0,
        "The restore would be refused, for {} reason(s)",
        tally.refused
    );
    match tally.unknown {
        0 => JOURNAL.success("Dry-run completed"),
        left => JOURNAL.success(format_args!(
            "Dry-run completed; {left} part(s) can be judged only when the restore begins"
        )),
    }
    Ok(())
}

/// The settings that come with the point, where there is no `.env`: everything else needs them.
fn settings_of_backup(app: &App, chosen: &[(&'static dyn Component, PathBuf)], tally: &mut Tally) -> Option<App> {
    if app.config.env_file_exists {
        return None;
    }
    let settings = chosen
        .iter()
        .find_map(|(component, file)| component.settings(app, file).transpose());
    match settings {
        Some(Ok(config)) => {
            let mut app = App::new(config);
            discovery::discover(&mut app);
            Some(app)
        }
        Some(Err(error)) => {
            tally.refuse("the restore", &error);
            None
        }
        None => {
            if !app.config.found.is_told() {
                tally.refuse("the restore", &anyhow::anyhow!(".env file not found"));
            }
            None
        }
    }
}

/// Looks at one part, as far as that can be done without starting anything.
fn part(
    app: &App,
    component: &'static dyn Component,
    file: &Path,
    options: &Options,
    gone: bool,
    tally: &mut Tally,
) -> Result<()> {
    let kind = component.kind();
    check_encrypted(app, file, options.parts)?;
    if !gone {
        app.config.found.check(kind)?;
        let Some((name, setting)) = component.needs(app) else {
            return planned(app, component, file, options);
        };
        let container = app.docker()?.existing(&name, setting)?;
        if !matches!(container.status, Status::Created | Status::Exited) {
            return planned(app, component, file, options);
        }
        container.check_outlives_stop()?;
        component.verify(app, file)?;
        tally.leave_open(format_args!(
            "{name} is stopped and was not started: the file is whole, and whether the server can take it is not known"
        ));
        return Ok(());
    }
    if kind == Kind::Env {
        return planned(app, component, file, options);
    }
    component.verify(app, file)?;
    tally.leave_open(format_args!(
        "{}: the file is whole, and whether the stack can take it is known once that is created",
        kind.name()
    ));
    Ok(())
}

fn planned(app: &App, component: &'static dyn Component, file: &Path, options: &Options) -> Result<()> {
    let how = RestoreOptions {
        dry_run: true,
        ..options.parts
    };
    let plan = component.plan_restore(app, file, how)?;
    for warning in plan.warnings() {
        JOURNAL.warn(format_args!("[DRY-RUN] {warning}"));
    }
    if let Some(why) = plan.comes_first() {
        JOURNAL.info(format_args!("[DRY-RUN] {why}"));
    }
    Ok(())
}

/// Says which containers would be stopped, and for how long.
fn tell_pause(app: &App, point: &Point, parts: &[Kind]) {
    let Some(names) = stack::running(app) else {
        JOURNAL.info("[DRY-RUN] n8n does not run, so it would be neither stopped nor started");
        return;
    };
    let parts: Vec<Kind> = parts.iter().copied().filter(|kind| *kind != Kind::Env).collect();
    match last_drill(app, point, &parts) {
        Some((of, took)) => JOURNAL.info(format_args!(
            "[DRY-RUN] Would stop {names} for about {}, as long as the recovery test of {of} took",
            units::span(took)
        )),
        None => JOURNAL.info(format_args!(
            "[DRY-RUN] Would stop {names}; for how long is not known before a recovery test: n8n-backup test-recovery --full"
        )),
    }
}

/// How long the recovery of these parts took in a drill: of this point, or else of the newest that has one.
fn last_drill(app: &App, point: &Point, parts: &[Kind]) -> Option<(String, Duration)> {
    let took = |point: &Point| Some((point.stamp.to_string(), point.drill_took(parts)?));
    took(point).or_else(|| {
        let points = inventory::latest_first(&app.store, SystemTime::now()).ok()?;
        let readable = points.into_iter().filter_map(|(_, point)| point.ok());
        let mut of_ours = readable.filter(|point| point.excluded_from_latest().is_none());
        of_ours.find_map(|point| took(&point))
    })
}
