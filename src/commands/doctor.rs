//! doctor: looks at everything that a backup will need, and says what to do about what is not right. Changes nothing.

mod schedule;

use std::env;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Error, Result};

use super::status::State;
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Row, QUIET};
use crate::components::COMPONENTS;
use crate::config::{Config, Encryption};
use crate::engine::Docker;
use crate::process::{self, explained};
use crate::report::channels::channels;
use crate::report::finding::{Level, Report};
use crate::report::log::{ascii, Journal};
use crate::stack::{self, discovery};
use crate::store::lock::{check_shared, component_lock, is_ours, is_same, is_strangers, look_at, Seen};
use crate::store::place::{limits, Limits};
use crate::store::Kind;
use crate::stream::compress::Compressor;

pub const COMMAND: Command = Command {
    row: &Row {
        name: "doctor",
        summary: "look at everything that a backup needs, and say what to do",
        details:
            "One line for each check, OK, WARN or FAIL; exits 1 when any failed. Changes nothing. --quiet leaves out\n\
                  what is OK.",
        ..Row::TELLS
    },
    run: Run::Project(|project, call| {
        let (config, unread) = match Config::load(project) {
            Ok(config) => (config, None),
            Err(error) => (Config::without_env_file(project)?, Some(error)),
        };
        let mut app = App::new(config);
        discovery::discover(&mut app);
        run(&app, unread.as_ref(), call.has(&QUIET)).map(|well| u8::from(!well))
    }),
};

const JOURNAL: Journal = Journal::new("doctor");
/// A backup that is older than this does not come every night.
const EXPECTED_AGE: Duration = Duration::from_secs(26 * 3600);

/// Prints a line for each check, and gives whether nothing failed. `unread` is why `.env` could not be read, when it could
/// not; the other checks go by the defaults then.
fn run(app: &App, unread: Option<&Error>, quiet: bool) -> Result<bool> {
    let mut report = Report::default();
    if let Some(error) = unread {
        report.fail(
            "settings",
            format!(
                "{}; the other checks go by the defaults until this is set right",
                explained(error)
            ),
        );
    }
    let docker = engine(app, &mut report);
    stack(app, &mut report);
    for component in COMPONENTS
        .iter()
        .filter(|component| app.config.found.uses(component.kind()))
    {
        match app.config.found.check(component.kind()) {
            Ok(()) => component.probe(app, docker.as_ref(), &mut report),
            Err(error) => report.error(component.kind().name(), &error),
        }
    }
    cron_environment(app, &mut report);
    programs(app, &mut report);
    places(app, &mut report);
    history(app, &mut report);
    schedule::check(app, &mut report);

    let mut out = io::stdout().lock();
    for finding in &report.0 {
        if !(quiet && finding.level == Level::Ok) {
            let (verdict, text) = (verdict(finding.level), ascii(&finding.text));
            writeln!(out, "{verdict:4} {}: {text}", finding.check).context("Cannot write to standard output")?;
        }
    }
    Ok(!report.0.iter().any(|finding| finding.level == Level::Critical))
}

/// The word for a finding.
fn verdict(level: Level) -> &'static str {
    match level {
        Level::Ok => "OK",
        Level::Warning => "WARN",
        Level::Critical => "FAIL",
    }
}

/// The engine, if one answers.
fn engine(app: &App, report: &mut Report) -> Option<Docker> {
    let reached = app.docker().and_then(|docker| Ok((docker.engine_version()?, docker)));
    match reached {
        Ok((version, docker)) => {
            report.ok(
                "docker",
                format!("{} reaches engine {version}", docker.program().display()),
            );
            Some(docker)
        }
        Err(error) => {
            report.error("docker", &error);
            None
        }
    }
}

/// What n8n's containers tell of the stack.
fn stack(app: &App, report: &mut Report) {
    let found = &app.config.found;
    for row in &found.rows {
        report.ok("stack", format!("{}: {} ({})", row.what, row.value, row.from));
    }
    for warning in found.warnings.iter().chain(&found.undeployed) {
        report.warn("stack", warning.clone());
    }
}

/// Whether cron, which passes next to nothing, reaches the engine.
fn cron_environment(app: &App, report: &mut Report) {
    let cron = Docker::locate(Some("/usr/bin:/bin".into()), app.config.stall)
        .and_then(|docker| docker.engine_version_under_cron());
    match (
        cron,
        ["DOCKER_HOST", "DOCKER_CONTEXT"]
            .into_iter()
            .find(|name| env::var_os(name).is_some()),
    ) {
        (Ok(_), None) => report.ok(
            "cron",
            format!(
                "the engine answers in cron's environment, too{}",
                schedule::not_asked_as_owner(&app.config.project)
            ),
        ),
        (Ok(_), Some(name)) => report.warn(
            "cron",
            format!("{name} is set here, and cron does not pass it: put {name}=... above the entry in the crontab"),
        ),
        (Err(error), _) => report.warn("cron", format!("in cron's environment: {}", explained(&error))),
    }
}

/// The programs that a run starts.
fn programs(app: &App, report: &mut Report) {
    let config = &app.config;
    report.result(
        "compressor",
        Compressor::choose(&config.compressor, config.path.as_ref()).map(|compressor| compressor.label()),
    );
    let mut wanted = vec![("sha256sum", "coreutils"), ("df", "coreutils"), ("gzip", "gzip")];
    if config.offsite {
        wanted.push(("rclone", "rclone"));
    }
    for (name, package) in wanted {
        if process::find(name, config.path.as_ref()).is_none() {
            report.fail("programs", format!("{name} is missing: install {package}"));
        }
    }
    let how = match &config.encryption {
        None => "off: the files are as readable as their mode says",
        Some(Encryption::Passphrase(_)) => "gpg takes the passphrase; is a copy of it kept elsewhere?",
        Some(Encryption::Recipient(_)) => "gpg takes the recipient's key",
    };
    let misread = app.check_as_written();
    match misread.and_then(|misread| app.check_gpg(JOURNAL).map(|()| misread)) {
        Ok(Some(warning)) => report.warn("encryption", explained(&warning)),
        checked => report.result("encryption", checked.map(|_| how.to_owned())),
    }
    for channel in channels(config) {
        if let Err(error) = channel.probe(config) {
            report.error(channel.name(), &error);
        }
    }
}

/// Directories, the lock.
fn places(app: &App, report: &mut Report) {
    let config = &app.config;
    let mut open = Vec::new();
    for dir in [config.backups(), config.project.join("logs")] {
        // A run makes what is missing.
        let missing = dir
            .symlink_metadata()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound);
        let tried = match dir.parent().filter(|_| missing) {
            Some(parent) => parent,
            None => &dir,
        };
        match limits(tried) {
            Ok(found) => {
                let how = if missing { "will be made and take" } else { "takes" };
                report.ok("directory", format!("{} {how} files", dir.display()));
                tell_limits(tried, found, report);
                open.extend(found.open_mode.map(|_| dir));
            }
            Err(error) => report.fail(
                "directory",
                format!(
                    "{} takes no files: {error}; make it, or give it to this user",
                    dir.display()
                ),
            ),
        }
    }
    let closes = |dir: &PathBuf| !open.iter().any(|open| dir.starts_with(open));
    for dir in dirs(app).into_iter().filter(closes) {
        match dir.metadata().map(|meta| meta.mode() & 0o7777) {
            Ok(mode) if mode & 0o077 != 0 => report.warn(
                "directory",
                format!(
                    "others may look into {}, or more (mode {mode:o}): chmod 700 keeps them out",
                    dir.display()
                ),
            ),
            _ => {}
        }
    }
    locks(app, report);
}

/// `backups/`, what is in it, and `logs/`.
fn dirs(app: &App) -> Vec<PathBuf> {
    let kinds = Kind::PARTS.map(|kind| app.store.dir(kind));
    let mut dirs = vec![
        app.config.backups(),
        app.config.project.join("logs"),
        app.store.sets_dir(),
    ];
    dirs.extend(kinds);
    dirs
}

/// The lock that decides, and the file that earlier versions know.
fn locks(app: &App, report: &mut Report) {
    let (deciding, shared) = (component_lock(app.store.root()), &app.config.lock_file);
    if is_strangers(shared, app.store.root()) {
        report.warn(
            "lock",
            format!(
                "{} belongs to another user, so scripts of earlier versions are not seen: have it removed, or set \
                 BACKUP_LOCK_FILE in .env",
                shared.display()
            ),
        );
    }
    if let Err(error) = check_shared(app.store.root(), shared) {
        report.error("lock", &error);
    }
    let shared_alone = (!is_same(&deciding, shared)).then_some(shared);
    for path in [&deciding].into_iter().chain(shared_alone) {
        match look_at(path) {
            Err(_) if is_strangers(path, app.store.root()) => {}
            Ok(Seen::Free) => report.ok("lock", format!("{} is free", path.display())),
            Ok(Seen::Stale) => report.ok(
                "lock",
                format!("{} is free; the last run that held it was killed", path.display()),
            ),
            Ok(Seen::Busy(pid)) if path == shared && !is_ours(&pid, app.store.root()) => report.warn(
                "lock",
                format!(
                    "{} is held, and not by a backup or restore, so scripts of earlier versions are not seen: end what \
                     holds it, or set BACKUP_LOCK_FILE in .env",
                    path.display()
                ),
            ),
            Ok(Seen::Busy(pid)) => report.warn("lock", format!("a backup or restore runs (PID: {pid})")),
            Err(error) => report.error("lock", &error),
        }
    }
    if let Some(left) = stack::interrupted(app) {
        match left.holds {
            true => report.fail("restore", left.text),
            false => report.warn("restore", left.text),
        }
    }
}

/// Says what the file system of a directory cannot do, and what that means for the backups in it.
fn tell_limits(dir: &Path, limits: Limits, report: &mut Report) {
    let mut warn = |text: String| report.warn("directory", format!("the file system of {} {text}", dir.display()));
    if limits.no_links {
        warn("has no hard links: files get their final names by a rename".to_owned());
    }
    if let Some(mode) = limits.open_mode {
        warn(format!(
            "keeps no modes (files have {mode:o}), so that others may read what is there: mount it with umask=077, or set \
             BACKUP_GPG_PASSPHRASE in .env"
        ));
    }
    if let Some(user) = limits.owner {
        warn(format!(
            "gives what we make to user {user}: let the same user run all commands"
        ));
    }
    if limits.no_sync {
        warn(
            "brings no names to disk when asked to: a power cut right after a run may take its backups; copy them off-site"
                .to_owned(),
        );
    }
}

/// The last backups, the disk, the clock.
fn history(app: &App, report: &mut Report) {
    let state = match State::gather(app) {
        Ok(state) => state,
        Err(error) => return report.error("last run", &error),
    };
    for finding in state.findings(EXPECTED_AGE) {
        let check = match finding.check {
            "age" | "run" => "last run",
            check @ ("files" | "size" | "disk" | "proven" | "offsite") => check,
            _ => continue,
        };
        match finding.level {
            Level::Ok => report.ok(check, finding.text),
            Level::Warning => report.warn(check, finding.text),
            // No run yet is where everybody begins; a disk that is full stops one.
            Level::Critical if finding.check == "age" => report.warn(check, finding.text),
            Level::Critical => report.fail(check, finding.text),
        }
    }
    if state.newest_age().is_none() {
        if let Some(free) = state.free() {
            report.ok("disk", format!("{} free", crate::report::units::available(free)));
        }
    }
    let mut timedatectl = process::command("timedatectl");
    timedatectl.args(["show", "--property=NTPSynchronized", "--value"]);
    match process::output("timedatectl", timedatectl, None, Duration::from_secs(5)) {
        Ok(output) if output.success && output.text() == "no" => {
            report.warn(
                "clock",
                "it is not synchronized: retention and status count by it; turn NTP on",
            );
        }
        Ok(output) if output.success => report.ok("clock", "it is synchronized"),
        _ => report.ok(
            "clock",
            format!(
                "{} (whether it is synchronized cannot be told here)",
                super::shared::now()
            ),
        ),
    }
}
