//! The restores of one component: what is asked, checked, locked and stopped around the component's own restore.

use std::ffi::OsStr;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, Result};

use super::{backup_one, hold};
use crate::app::App;
use crate::components::postgres::restore::{prepare, Options};
use crate::components::{env_file, n8n_data, redis};
use crate::report::log::{self, Journal};
use crate::stack::pause;
use crate::store::lock::InUse;
use crate::store::Kind;

/// Replaces the database by the contents of `file`. `yes` answers the question beforehand.
///
/// # Errors
/// When the file is not a whole dump, or the server cannot take it; the live database is then the one from before.
pub fn postgres(app: &App, file: &OsStr, yes: bool, options: Options) -> Result<()> {
    const JOURNAL: Journal = Journal::new("restore-postgres");
    JOURNAL.info(format_args!(
        "Starting PostgreSQL restore from: {}",
        Path::new(file).display()
    ));
    log::check_started()?;
    if !app.config.env_file_exists {
        bail!(".env file not found");
    }
    let path = backup_file(file, Kind::Postgres)?;
    let _lock = hold(app, JOURNAL)?;
    let _used = InUse::hold([path])?;
    let _component = app.hold(Kind::Postgres, JOURNAL)?;
    let plan = prepare(app, path, options, JOURNAL)?;
    JOURNAL.warn(format_args!(
        "This will drop and recreate the database {}",
        app.config.postgres_db
    ));
    if !confirmed(JOURNAL, yes) {
        return Ok(());
    }
    // n8n goes on meanwhile, unless it has been stopped for this or cannot work.
    if plan.stops_n8n() || matches!(pause::unfinished(app)?, Some(None)) {
        let docker = app.docker()?;
        pause::with_n8n_stopped(app, &docker, JOURNAL, Kind::Postgres, &[], || plan.run())?;
    } else {
        pause::within(app, JOURNAL, Kind::Postgres, || plan.run())?;
        if let Some(names) = pause::running(app) {
            JOURNAL.warn(format_args!(
                "n8n ran while its database was replaced, and may hold what is not in it any more: docker restart {names}"
            ));
        }
    }
    JOURNAL.success(format_args!("PostgreSQL restore completed from: {}", path.display()));
    Ok(())
}

/// Replaces all that Redis holds by the snapshot in `file`. n8n is stopped meanwhile.
///
/// # Errors
/// When the file is not a whole snapshot, or Redis cannot take it; Redis then holds what it held before.
pub fn redis(app: &App, file: &OsStr, yes: bool, options: redis::restore::Options) -> Result<()> {
    const JOURNAL: Journal = Journal::new("restore-redis");
    JOURNAL.info(format_args!(
        "Starting Redis restore from: {}",
        Path::new(file).display()
    ));
    log::check_started()?;
    let path = backup_file(file, Kind::Redis)?;
    let _lock = hold(app, JOURNAL)?;
    let _used = InUse::hold([path])?;
    let _component = app.hold(Kind::Redis, JOURNAL)?;
    let plan = redis::restore::prepare(app, path, options, JOURNAL)?;
    JOURNAL.warn(format_args!(
        "This will replace all that Redis in {} holds, and stop n8n meanwhile",
        plan.target()
    ));
    if !options.empty_queue {
        JOURNAL.warn("Jobs of n8n's queue that wait in the snapshot may run again; --empty-queue leaves them out");
    }
    if !confirmed(JOURNAL, yes) {
        return Ok(());
    }
    let docker = app.docker()?;
    pause::with_n8n_stopped(app, &docker, JOURNAL, Kind::Redis, &[plan.target()], || plan.run())?;
    JOURNAL.success(format_args!("Redis restore completed from: {}", path.display()));
    Ok(())
}

/// Replaces the contents of the n8n volume by the archive in `file`. n8n is stopped meanwhile, and what was there is
/// backed up first.
///
/// # Errors
/// When the file is not a whole archive, or the volume cannot take it; it then holds what it held before.
pub fn n8n(app: &App, file: &OsStr, yes: bool) -> Result<()> {
    const JOURNAL: Journal = Journal::new("restore-n8n");
    JOURNAL.info(format_args!(
        "Starting n8n data restore from: {}",
        Path::new(file).display()
    ));
    log::check_started()?;
    let path = backup_file(file, Kind::N8n)?;
    let _lock = hold(app, JOURNAL)?;
    let _used = InUse::hold([path])?;
    let plan = n8n_data::restore::prepare(app, path, JOURNAL)?;
    JOURNAL.warn(format_args!(
        "This will replace the contents of the volume {}, and stop n8n meanwhile",
        plan.target()
    ));
    if !confirmed(JOURNAL, yes) {
        return Ok(());
    }
    let docker = app.docker()?;
    pause::with_n8n_stopped(app, &docker, JOURNAL, Kind::N8n, &[], || plan.run(|| keep_volume(app)))?;
    JOURNAL.success(format_args!("n8n data restore completed from: {}", path.display()));
    Ok(())
}

/// Backs the volume up as it is before it is replaced.
///
/// # Errors
/// As for the backup.
pub fn keep_volume(app: &App) -> Result<()> {
    backup_one(
        app,
        Journal::new("backup-n8n"),
        n8n_data::backup,
        Some("made before a restore"),
    )
}

/// Replaces `.env` by the copy in `file`; the one that was there stays beside it.
///
/// # Errors
/// When the file is no environment file or cannot be put in place; `.env` is then the one from before.
pub fn env(app: &App, file: &OsStr, yes: bool) -> Result<()> {
    const JOURNAL: Journal = Journal::new("restore-env");
    JOURNAL.info(format_args!(
        "Starting environment file restore from: {}",
        Path::new(file).display()
    ));
    log::check_started()?;
    let path = backup_file(file, Kind::Env)?;
    let _lock = hold(app, JOURNAL)?;
    let _used = InUse::hold([path])?;
    let _component = app.hold(Kind::Env, JOURNAL)?;
    let plan = env_file::restore::prepare(app, path, JOURNAL)?;
    plan.report();
    if !plan.is_same() && !plan.is_missing() {
        JOURNAL.warn(format_args!("This will replace {}", plan.target().display()));
        if !confirmed(JOURNAL, yes) {
            return Ok(());
        }
    }
    pause::within(app, JOURNAL, Kind::Env, || plan.run())?;
    JOURNAL.success(format_args!(
        "Environment file restore completed from: {}",
        path.display()
    ));
    if !plan.is_same() {
        JOURNAL.info("Containers keep the values that they were made with, until docker compose up -d makes them anew");
    }
    Ok(())
}

/// The operand, as a backup file of a kind.
fn backup_file(file: &OsStr, kind: Kind) -> Result<&Path> {
    let path = Path::new(file);
    if !path.exists() {
        bail!("Backup file not found: {}", path.display());
    }
    if !kind.is_name(&path.to_string_lossy()) || !path.is_file() {
        bail!("Backup file must be a {} file", kind.suffix());
    }
    Ok(path)
}

/// How long a question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(600);

/// Warns, and asks on a terminal; goes on where nobody can be asked. Says so when the answer is not `yes`, or none comes.
pub fn confirmed(journal: Journal, yes: bool) -> bool {
    journal.warn("All existing data will be replaced with backup data");
    if yes || !io::stdin().is_terminal() {
        journal.info("Running non-interactively, proceeding with restore");
        return true;
    }
    let mut out = io::stdout().lock();
    let _ = write!(out, "Are you sure you want to continue? (yes/no): ").and_then(|()| out.flush());
    drop(out);
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = io::stdin().lock().read_line(&mut line).map(|_| answer.send(line));
    });
    // The locks are held meanwhile: a question that nobody answers must not cost the nightly backup.
    let agreed = answered.recv_timeout(PATIENCE).is_ok_and(|line| line.trim() == "yes");
    if !agreed {
        journal.info("Restore cancelled by user");
    }
    agreed
}
