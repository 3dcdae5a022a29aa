//! What commands share: the way into a project, the main lock, the record of a run.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{bail, Result};
use chrono::{DateTime, Local, SecondsFormat};

use crate::app::App;
use crate::cli::{suggestion, Call, Flag};
use crate::components::{self, Backup, BackupRun, Component};
use crate::config::{Config, SETTINGS};
use crate::engine::Label;
use crate::process::priority;
use crate::report::log::Journal;
use crate::stack::{self, discovery};
use crate::store::disk;
use crate::store::identity::{Identity, OF_ANOTHER};
use crate::store::inventory::{self, is_ahead, Inventory};
use crate::store::lock::{component_lock, Attempt, Lock, ProjectLock};
use crate::store::manifest::{Member, Point, NONE};
use crate::store::marks::Mark;
use crate::store::{Kind, Stamp, Store};

/// A rehearsal.
pub const fn dry_run(help: &'static str) -> Flag {
    Flag::new("dry-run", help).short('n')
}

/// Takes the lock that backup-all and the restores share.
///
/// # Errors
/// `Backup already in progress` when another process holds it, or that the lock file cannot be used.
pub fn hold(app: &App, journal: Journal) -> Result<ProjectLock> {
    match app.lock()? {
        Attempt::Held(lock) => {
            if let Some(error) = lock.warning() {
                journal.warning(error);
            }
            if lock.was_stale() {
                journal.warn("Stale lock file found, removing");
            }
            Ok(lock)
        }
        Attempt::Busy(pid) => bail!("Backup already in progress (PID: {pid})"),
    }
}

/// Backs up one component by itself, and records it as a recovery point. `excluded` says why that is restored by name
/// only, if it is.
pub fn backup_one(app: &App, component: &dyn Component, excluded: Option<&str>) -> Result<()> {
    let journal = component.about().backup_journal();
    app.check_encryption(journal)?;
    app.config.found.check(component.kind())?;
    let stamp = app.store.free_stamp();
    let begun = begins(&app.store);
    let backup = component.backup(app, &BackupRun::alone(stamp, excluded.is_some()))?;
    record(app, journal, stamp, &begun, &[backup], &[], excluded).map(drop)
}

/// The instant of a run that begins now, as its point tells it: after those of the points that there are, also where the clock
/// ran fast then, and was set right since.
pub fn begins(store: &Store) -> String {
    let now = SystemTime::now();
    let points = inventory::list(store).unwrap_or_default();
    let points = points.into_iter().filter_map(|(_, point)| point.ok());
    let ours = points.filter(|point| point.excluded_from_latest() != Some(OF_ANOTHER));
    let newest = ours
        .map(|point| point.time())
        .filter(|time| !is_ahead(*time, now))
        .max();
    let next = newest.map(|newest| newest + Duration::from_millis(1));
    rfc3339(next.map_or(now, |next| next.max(now)).into())
}

/// Writes the recovery point of a run, and gives the stamp that it bears. It is excluded by the same write: a run that
/// ends in between must not leave it as one of all the others.
///
/// # Errors
/// When it cannot be written; the backups are whole all the same.
pub fn record(
    app: &App,
    journal: Journal,
    stamp: Stamp,
    begun: &str,
    backups: &[Backup],
    failed: &[&str],
    excluded: Option<&str>,
) -> Result<Stamp> {
    let mut point = Point::new(stamp);
    point.set("tool", concat!("n8n-backup ", env!("CARGO_PKG_VERSION")));
    point.set("begun", begun);
    point.set("finished", &now());
    point.set(
        "failed",
        if failed.is_empty() {
            NONE.to_owned()
        } else {
            failed.join(" ")
        }
        .as_str(),
    );
    for (fact, value) in discovery::facts(app) {
        point.set(&fact, &value);
    }
    for backup in backups {
        for file in &backup.files {
            let path = &file.entry.path;
            let name = path.strip_prefix(app.store.root()).unwrap_or(path);
            point.set(&format!("size.{}", file.kind.name()), &file.entry.bytes.to_string());
            point.members.push(Member {
                kind: file.kind,
                name: name.display().to_string(),
                sha256: file.sha256.clone(),
            });
        }
        for (fact, value) in &backup.facts {
            point.set(fact, value);
        }
    }
    point.members.sort_by_key(|member| member.kind);
    if let Some(why) = excluded {
        point.mark(&Mark::ExcludedFromLatest(why.to_owned()));
    }
    Inventory::note_away(&app.store, &mut point);
    let identity = Identity::of_project(&app.store)?;
    identity.mark(&mut point);
    let path = point.write(&app.store)?;
    disk::leave_trace(&app.store, &identity, &point);
    journal.info(format_args!("Recovery point written: {}", path.display()));
    Ok(point.stamp)
}

/// Removes the containers that killed runs have left; each kind of run holds a lock while its containers are at work.
fn sweep(app: &App, journal: Journal) -> Result<()> {
    let docker = app.docker()?;
    let owner = app.owner();
    let remove = |label: Label<'_>, journal: Journal, what: &str| -> Result<()> {
        match docker.sweep(label)? {
            0 => {}
            left => journal.warn(format_args!("Removed {left} {what} left")),
        }
        Ok(())
    };
    if let Ok(_lock) = components::drill::hold(app) {
        let tests = components::drill::JOURNAL;
        remove(
            Label::Drill(&owner),
            tests,
            "scratch container(s) that an interrupted test",
        )?;
    }
    if let Ok(_lock) = hold(app, journal) {
        remove(
            Label::Restore(&owner),
            journal,
            "helper container(s) that an interrupted restore",
        )?;
    }
    let dir = app.store.dir(Kind::N8n);
    if let Ok(Attempt::Held(_lock)) = Lock::attempt(&component_lock(&dir)) {
        let backups = components::component(Kind::N8n)?.about().backup_journal();
        remove(
            Label::Helper(&owner),
            backups,
            "helper container(s) that an interrupted run",
        )?;
    }
    Ok(())
}

/// The time now with its offset, as a manifest tells it; two runs of the same second are told apart.
pub fn now() -> String {
    rfc3339(Local::now())
}

fn rfc3339(time: DateTime<Local>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, false)
}

/// The settings and the backups of a project, for a command that begins: warns about unknown settings, and completes
/// what a killed restore has left undone. Of the stack it knows what the newest recovery point remembers.
pub fn open(project: &Path, call: &Call) -> Result<App> {
    open_with(project, call, discovery::recall, call.row.log.is_some())
}

/// As [`open`], for a command that works on the stack: n8n's containers tell what that consists of.
pub fn open_stack(project: &Path, call: &Call) -> Result<App> {
    open_with(project, call, discovery::discover, call.row.log.is_some())
}

/// As [`open_stack`], for a restore: what Docker has made in the place of `.env` keeps none from it. One that only `looks`
/// completes nothing.
pub fn open_to_restore(project: &Path, call: &Call, looks: bool) -> Result<App> {
    let config = Config::load_to_restore(project)?;
    Ok(begin(App::new(config), call, discovery::discover, !looks))
}

fn open_with(project: &Path, call: &Call, find: fn(&mut App), completes: bool) -> Result<App> {
    let config = Config::load(project)?;
    Ok(begin(App::new(config), call, find, completes))
}

fn begin(mut app: App, call: &Call, find: fn(&mut App), completes: bool) -> App {
    find(&mut app);
    let journal = Journal::new(call.row.name);
    let acts = call.row.log.is_some();
    // A setting whose name is mistyped must not pass for one that is not set.
    for name in app.config.unknown.iter().filter(|_| acts) {
        let meant = suggestion(name, SETTINGS.iter().map(|known| known.name.to_owned()));
        if !meant.is_empty() {
            journal.warn(format_args!("{name} in .env is no setting{meant}"));
        }
    }
    if completes {
        if let Err(error) = stack::release(&app, journal) {
            journal.warning(&error.context("What an interrupted restore has left could not be put back"));
        }
    }
    if acts && app.config.found.ours {
        if let Err(error) = sweep(&app, journal) {
            log::trace!("what runs that were killed have left stays: {error:#}");
        }
    }
    if call.row.in_background {
        priority::lower(app.config.nice, app.config.path.as_ref());
    }
    app
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_run_begins_after_what_a_fast_clock_has_dated() {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        let now = SystemTime::now();
        let minutes = |minutes: u64| now + Duration::from_secs(minutes * 60);
        let add = |stamp: &str, begun: SystemTime, stack: &str| {
            let mut point = Point::new(Stamp::parse(stamp).unwrap());
            point.set("deleted", "redis");
            point.set("begun", &rfc3339(begun.into()));
            if let Some(stack) = Identity::parse(stack) {
                stack.mark(&mut point);
            }
            point.write(&store).unwrap();
        };
        let begins = || SystemTime::from(DateTime::parse_from_rfc3339(&begins(&store)).unwrap());
        let own = "00000000000000aa";
        Identity::parse(own).unwrap().adopt(&store).unwrap();
        // What is dated in the future hides nothing, and what is of another stack tells nothing of this clock.
        add("20260101_020000", minutes(600), own);
        add("20260101_030000", minutes(60), "00000000000000bb");
        assert!(begins() < minutes(10));
        add("20260101_040000", minutes(50), own);
        assert!(begins() > minutes(49) && begins() < minutes(51));
        // Two of them keep their order.
        let first = begins();
        add("20260101_050000", first, own);
        assert!(begins() > first);
    }
}
