//! restore-all: every part of one recovery point, in the order in which they need each other.
//!
//! First everything is verified, and nothing is touched before. Where there is no `.env`, the settings are those of the point's
//! own copy, which is written first; else it comes last, so that the containers that run now are reached by what is true of them now.
//! n8n is stopped before the first part and started after the last.

mod dry_run;
mod fits;
mod lost_host;

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{bail, ensure, Context as _, Result};

use super::restore::{confirmed, Surroundings};
use super::shared::{dry_run, hold, open_to_restore};
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Call, Flag, Row};
use crate::components::{check_encrypted, About, Component, RestoreOptions, RestorePlan};
use crate::components::{
    ALLOW_PLAIN, COMPONENTS, CREATE_ROLES, DEACTIVATE, EMPTY_QUEUE, REPLACE_DEPLOYMENT, TRUST_DUMP, YES,
};
use crate::engine::{Docker, Status};
use crate::process::hinted;
use crate::report::log::{self, Journal};
use crate::stack;
use crate::stack::discovery;
use crate::stack::pause::Pause;
use crate::store::inventory::{self, is_ahead};
use crate::store::lock::InUse;
use crate::store::manifest::Point;
use crate::store::{Kind, Stamp};

const ONLY: Flag = Flag::new("only", "restore these parts, comma-separated").value("PARTS");
const SKIP: Flag = Flag::new("skip", "leave these parts as they are").value("PARTS");
const CREATE: Flag = Flag::new(
    "create",
    "on a host without the stack: write the files that it is deployed from, and have Compose create it",
);
const FORCE: Flag = Flag::new("force", "restore also for an n8n that is older than the data");
const DRY_RUN: Flag = dry_run("only say what would be replaced and refused, and how long n8n would be stopped");
const START: Flag = Flag::new("start", "start the whole stack at the end, whatever ran before");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "restore-all",
        summary: "restore n8n's database, Redis, the n8n volume and .env from one recovery point",
        details:
            "SET is the stamp of a recovery point (YYYYMMDD_HHMMSS) or 'latest', the newest one that holds every\n\
                  part asked for; without SET it is the latest, and --yes is needed where nobody can be asked.\n\
                  Everything is verified before anything is touched. n8n is stopped first and started last;\n\
                  containers that did not run are stopped again. A run that was interrupted or failed continues where\n\
                  it was when it is called again, as long as n8n has not run since; until then n8n stays stopped when\n\
                  only some parts are restored.\n\
                  On a new host --create brings back the whole stack, from its compose files on; it is started at the end.\n\
                  Parts: postgres or sqlite, redis, n8n, env.",
        operand: Some("[SET]"),
        flags: &[
            YES,
            DRY_RUN,
            ONLY,
            SKIP,
            START,
            FORCE,
            CREATE,
            EMPTY_QUEUE,
            CREATE_ROLES,
            DEACTIVATE,
            REPLACE_DEPLOYMENT,
            ALLOW_PLAIN,
            TRUST_DUMP,
        ],
        ..Row::ACTS
    },
    run: Run::Project(|project, call| {
        let app = open_to_restore(project, call, call.has(&DRY_RUN))?;
        run(&app, call.operand.as_deref(), &Options::of(call)).map(|()| 0)
    }),
};

const JOURNAL: Journal = Journal::new("restore-all");
const RULE: &str = "==========================================";

/// How a restore is to be done.
#[derive(Clone, Debug, Default)]
struct Options {
    /// Answers the question beforehand.
    yes: bool,
    /// Change nothing.
    dry_run: bool,
    /// The parts to restore, comma-separated; all without it.
    only: Option<String>,
    /// The parts to leave as they are.
    skip: Option<String>,
    /// Start the whole stack at the end, whatever ran before.
    start: bool,
    /// Have Compose create the stack where it is not there.
    create: bool,
    /// Restore for an older n8n.
    force: bool,
    /// How the parts are restored.
    parts: RestoreOptions,
}

impl Options {
    fn of(call: &Call) -> Self {
        let text = |flag| call.value(flag).map(|value| value.to_string_lossy().into_owned());
        Self {
            yes: call.has(&YES),
            dry_run: call.has(&DRY_RUN),
            only: text(&ONLY),
            skip: text(&SKIP),
            start: call.has(&START),
            create: call.has(&CREATE),
            force: call.has(&FORCE),
            parts: RestoreOptions::of(call),
        }
    }
}

/// Restores the recovery point that `operand` names: its stamp, or `latest`, as without one.
///
/// # Errors
/// When the point is not whole, or a part cannot be restored; a part that fails holds what it held before, and those
/// after it are not begun. n8n then stays stopped where other parts were restored already. That nobody can be asked and
/// nothing was named.
fn run(app: &App, operand: Option<&OsStr>, options: &Options) -> Result<()> {
    JOURNAL.info(RULE);
    JOURNAL.info("Starting full restore");
    JOURNAL.info(RULE);
    if options.dry_run {
        JOURNAL.info("Running in dry-run mode (nothing will be changed)");
    }
    log::check_started()?;
    let parts = parts(options)?;
    ensure!(
        operand.is_some() || options.yes || options.dry_run || io::stdin().is_terminal(),
        "Nobody can be asked here: name a recovery point or 'latest', or add --yes"
    );
    let point = point(app, operand, &parts)?;
    let asked = parts.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let parts: Vec<Kind> = parts.into_iter().filter(|kind| !point.is_unused(*kind)).collect();
    ensure!(
        !parts.is_empty(),
        "Recovery point {} is of a stack that has no use for {asked}",
        point.stamp
    );
    JOURNAL.info(format_args!(
        "Recovery point {}: {}",
        point.stamp,
        parts.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" ")
    ));
    for kind in Kind::PARTS
        .iter()
        .filter(|kind| !parts.contains(kind) && !point.is_unused(**kind))
    {
        JOURNAL.warn(format_args!("Left as it is: {}", kind.name()));
    }
    if options.dry_run {
        return dry_run::dry_run(app, &point, &parts, options);
    }
    let _lock = hold(app, JOURNAL)?;
    let mut chosen = Vec::new();
    for component in COMPONENTS.iter().filter(|component| parts.contains(&component.kind())) {
        let member = component.member(&point);
        let member =
            member.with_context(|| format!("Recovery point {} holds no {}", point.stamp, component.kind().name()))?;
        chosen.push((*component, app.store.root().join(&member.name)));
    }
    let _used = point.hold(&app.store)?;
    // What cannot be read of these is told before the stack is created.
    let _read = InUse::hold(chosen.iter().map(|(_, file)| file.as_path()))?;
    let mut made = None;
    let mut options = options.clone();
    if fits::is_gone(app, &point)? {
        ensure!(
            options.create,
            hinted(
                "The containers of the stack are not on this host, so nothing was changed",
                format_args!(
                    "restore-all --create {} writes the files that the stack is deployed from, has Compose create it (docker \
                     compose up --no-start), restores everything and starts it",
                    point.stamp
                )
            )
        );
        if !confirmed(JOURNAL, options.yes) {
            return Ok(());
        }
        made = Some(lost_host::create(app, &point, options.parts)?);
        options.yes = true;
        options.start = true;
    } else if options.create {
        // What an earlier run that created it did not come to.
        let n8n = app.n8n_containers(&app.docker()?)?;
        options.start |= n8n.iter().any(|container| container.status == Status::Created);
    }
    let (app, options) = (made.as_ref().unwrap_or(app), &options);
    let mut times = Vec::new();
    let restored = if app.config.env_file_exists {
        restore(app, &point, &chosen, options, &mut times)?
    } else {
        // Everything else needs the settings that come with it.
        let mut settings = None;
        for (component, file) in &chosen {
            settings = settings.or(component.settings(app, file)?);
        }
        let config = match settings {
            None if app.config.found.is_told() => app.config.clone(),
            settings => settings.context(".env file not found")?,
        };
        let mut app = App::new(config);
        discovery::discover(&mut app);
        restore(&app, &point, &chosen, options, &mut times)?
    };
    if !restored {
        return Ok(());
    }
    if options.start {
        lost_host::start_rest(app)?;
    }
    JOURNAL.info(RULE);
    let total: Duration = times.iter().map(|(_, took)| *took).sum();
    for (kind, took) in &times {
        JOURNAL.info(format_args!("{}: {:.1} s", kind.name(), took.as_secs_f64()));
    }
    JOURNAL.success(format_args!(
        "Full restore completed from: {} ({}/{} parts in {:.1} s)",
        point.stamp,
        times.len(),
        parts.len(),
        total.as_secs_f64()
    ));
    Ok(())
}

/// The parts in a list.
fn kinds(list: &Option<String>) -> Result<Vec<Kind>> {
    let words = list.as_deref().unwrap_or_default().split(',').map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(|word| {
            let mut parts = Kind::PARTS.into_iter();
            parts
                .find(|kind| kind.name() == word)
                .with_context(|| format!("There is no part '{word}': they are postgres, sqlite, redis, n8n and env"))
        })
        .collect()
}

/// The parts that are asked for.
fn parts(options: &Options) -> Result<Vec<Kind>> {
    let (only, skip) = (kinds(&options.only)?, kinds(&options.skip)?);
    let parts: Vec<Kind> = Kind::PARTS
        .into_iter()
        .filter(|kind| (options.only.is_none() || only.contains(kind)) && !skip.contains(kind))
        .collect();
    ensure!(!parts.is_empty(), "No part is left to restore");
    Ok(parts)
}

/// The point that is asked for, when it holds the parts, whole.
fn point(app: &App, operand: Option<&OsStr>, parts: &[Kind]) -> Result<Point> {
    let mut name = operand.map_or_else(|| "latest".into(), OsStr::to_string_lossy);
    let latest = name == "latest";
    let unfinished = if latest { stack::unfinished(app)? } else { None };
    if let Some(stamp) = unfinished.flatten() {
        JOURNAL.warn(format_args!(
            "Going on with recovery point {stamp}, whose restore was interrupted; name another one to restore that"
        ));
        name = stamp.to_string().into();
    }
    if name != "latest" {
        let name = Path::new(name.as_ref());
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let stamp = Stamp::parse(name.strip_suffix(crate::store::SET_SUFFIX).unwrap_or(&name))
            .with_context(|| format!("{name} is no recovery point: name one as YYYYMMDD_HHMMSS, or 'latest'"))?;
        let path = app.store.set_path(stamp);
        ensure!(path.exists(), "There is no recovery point {stamp}");
        let point = Point::load(&path)?;
        if let Some(missing) = point.missing_parts(parts) {
            bail!(
                "Recovery point {stamp} is not complete: {missing}. Restore what it has with --only or --skip, and the rest \
                 from another one"
            );
        }
        return Ok(point);
    }
    let now = SystemTime::now();
    let points = inventory::latest_first(&app.store, now)?;
    let future = |point: &Point| is_ahead(point.time(), now);
    let readable = points.iter().filter_map(|(_, point)| point.as_ref().ok());
    for point in readable.filter(|point| future(point) && point.why_not_latest(parts).is_none()) {
        JOURNAL.warn(format_args!(
            "Passing over recovery point {}, which is dated in the future",
            point.stamp
        ));
    }
    let found = inventory::latest(points, |point| {
        let Some(why) = point.why_not_latest(parts) else {
            return true;
        };
        let why = format!("Passing over the newer recovery point {}: {why}", point.stamp);
        // The backup of one component by itself is nothing unusual.
        match point.members.len() == 1 && point.damaged().is_empty() {
            true => JOURNAL.info(why),
            false => JOURNAL.warn(why),
        }
        false
    })?;
    let point = found.with_context(|| {
        hinted(
            "There is no recovery point that holds all of these parts",
            "name one, with --only or --skip for the parts that it holds",
        )
    })?;
    if future(&point) {
        JOURNAL.warn("There is no other one, so it is taken all the same: is the clock right?");
    }
    Ok(point)
}

/// What is kept of what the parts hold now.
fn keeps(parts: &[&About]) -> String {
    let kept: Vec<&str> = parts.iter().map(|about| about.kept).collect();
    format!("Of what is there now: {}", kept.join("; "))
}

/// How parts are restored that are restored together.
fn together(chosen: &[(&'static dyn Component, PathBuf)], options: RestoreOptions) -> RestoreOptions {
    RestoreOptions {
        with_sqlite: chosen.iter().any(|(component, _)| component.kind() == Kind::Sqlite),
        ..options
    }
}

/// A part of the point that is going to be restored.
struct Part<'a> {
    component: &'static dyn Component,
    plan: Box<dyn RestorePlan + 'a>,
}

impl Part<'_> {
    fn kind(&self) -> Kind {
        self.component.kind()
    }

    fn run(&self, app: &App) -> Result<()> {
        self.plan.run(&Surroundings {
            app,
            component: self.component,
            at_rest: true,
        })
    }
}

/// Starts the servers that n8n works with.
fn start_servers(app: &App, docker: &Docker) -> Result<()> {
    let used = COMPONENTS
        .iter()
        .filter(|component| app.config.found.uses(component.kind()));
    used.flat_map(|component| component.servers(app))
        .try_for_each(|name| docker.start(&name))
}

/// Plans every part, and starts those servers that do not run and must be asked. In the order in which they are restored.
fn plan<'a>(
    app: &'a App,
    docker: &Docker,
    chosen: &'a [(&'static dyn Component, PathBuf)],
    options: RestoreOptions,
    pause: &mut Pause<'_>,
) -> Result<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    // A server is started for a point alone of which the other parts can be restored.
    let (servers, files): (Vec<_>, Vec<_>) = chosen.iter().partition(|(component, _)| component.needs(app).is_some());
    for (component, file) in files.into_iter().chain(servers) {
        check_encrypted(app, file, options)?;
        if let Some((name, setting)) = component.needs(app) {
            let container = docker.existing(&name, setting)?;
            if matches!(container.status, Status::Created | Status::Exited) {
                container.check_outlives_stop()?;
                pause.start_temporarily(&name)?;
                component.await_ready(app, docker)?;
            }
        }
        let plan = component.plan_restore(app, file, options)?;
        parts.push(Part {
            component: *component,
            plan,
        });
    }
    parts.sort_by_key(Part::kind);
    Ok(parts)
}

/// Restores the parts, in their order, but first those without which the others cannot be. `false` when the answer was no, or an
/// interrupted restore is not yet finished by these parts.
fn restore(
    app: &App,
    point: &Point,
    chosen: &[(&'static dyn Component, PathBuf)],
    options: &Options,
    times: &mut Vec<(Kind, Duration)>,
) -> Result<bool> {
    let docker = app.docker()?;
    chosen
        .iter()
        .try_for_each(|(component, _)| app.config.found.check(component.kind()))?;
    if chosen.iter().any(|(component, _)| component.kind().is_database()) {
        fits::check_n8n(app, &docker, point, options.force)?;
    }
    let servers: Vec<String> = chosen
        .iter()
        .flat_map(|(component, _)| component.servers(app))
        .collect();
    let mut pause = Pause::plan(app, &docker, JOURNAL, &servers)?;
    let parts = plan(app, &docker, chosen, together(chosen, options.parts), &mut pause)?;
    JOURNAL.info("Everything is verified, no data were changed so far");
    JOURNAL.warn(format_args!(
        "This will replace {} by recovery point {}, and stop n8n meanwhile",
        parts
            .iter()
            .map(|part| part.kind().name())
            .collect::<Vec<_>>()
            .join(", "),
        point.stamp
    ));
    let about: Vec<&About> = parts.iter().map(|part| part.component.about()).collect();
    JOURNAL.info(keeps(&about));
    let (first, parts): (Vec<Part<'_>>, Vec<Part<'_>>) =
        parts.into_iter().partition(|part| part.plan.comes_first().is_some());
    for why in first.iter().filter_map(|part| part.plan.comes_first()) {
        JOURNAL.warn(why);
    }
    if !confirmed(JOURNAL, options.yes) {
        return Ok(false);
    }
    for part in &first {
        let begun = Instant::now();
        part.run(app)?;
        times.push((part.kind(), begun.elapsed()));
    }
    let kinds: Vec<Kind> = parts.iter().map(Part::kind).collect();
    let skipped = self::kinds(&options.skip)?;
    pause.begin()?;
    let done = (|| {
        let done = pause.resume(point.stamp, &kinds, &skipped, &options.parts.left_out())?;
        for part in &parts {
            let kind = part.kind();
            if done.contains(&kind) {
                JOURNAL.info(format_args!("Already restored by the interrupted run: {}", kind.name()));
                continue;
            }
            let begun = Instant::now();
            let untouched = pause.is_untouched();
            let work = || {
                JOURNAL.info(format_args!("Restoring: {}", kind.name()));
                part.run(app)
            };
            pause.restore_part(kind, work).with_context(|| match untouched {
                true => hinted(
                    format_args!("Full restore failed at {}; no other part was touched", kind.name()),
                    "run it again once the cause is gone",
                ),
                false => hinted(
                    format_args!("Full restore failed at {}", kind.name()),
                    "run it again to go on",
                ),
            })?;
            times.push((kind, begun.elapsed()));
        }
        Ok(())
    })();
    let runs_again = pause.starts_n8n();
    if pause.stay_stopped() {
        done?;
        let with = [&*point.stamp.to_string(), &*options.parts.left_out()].join(" ");
        JOURNAL.info(format_args!("restore-all.sh {} goes on with the rest", with.trim_end()));
        return Ok(false);
    }
    let done = done.and_then(|()| match options.start {
        true => start_servers(app, &docker),
        false => Ok(()),
    });
    if done.is_ok() {
        for part in &parts {
            part.plan.afterwards(JOURNAL);
        }
    }
    pause.end(done, options.start)?;
    if !options.start && !runs_again {
        JOURNAL
            .info("n8n did not run before, so it was not started: docker compose up -d does it, or --start next time");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::component;

    fn asked(only: Option<&str>, skip: Option<&str>) -> Result<Vec<Kind>> {
        parts(&Options {
            only: only.map(str::to_owned),
            skip: skip.map(str::to_owned),
            ..Options::default()
        })
    }

    #[test]
    fn what_is_kept_is_told_of_the_parts_alone() {
        let about = [Kind::Redis, Kind::N8n].map(|kind| component(kind).unwrap().about());
        let text = keeps(&about);
        assert!(
            text.contains("Redis") && text.contains("archived") && !text.contains("database"),
            "{text}"
        );
    }

    #[test]
    fn parts_are_chosen_by_name() {
        assert_eq!(asked(None, None).unwrap(), Kind::PARTS);
        assert_eq!(asked(Some("redis, env"), None).unwrap(), [Kind::Redis, Kind::Env]);
        assert_eq!(
            asked(None, Some("env")).unwrap(),
            [Kind::Postgres, Kind::Sqlite, Kind::Redis, Kind::N8n]
        );
        assert!(asked(Some("everything"), None).is_err());
        assert!(asked(Some("env"), Some("env")).is_err());
        assert!(asked(Some(""), None).is_err());
    }
}
