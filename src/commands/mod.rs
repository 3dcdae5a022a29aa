//! What the commands do with the components: orchestration only.

pub mod backup_all;
pub mod backup_offsite;
pub mod cleanup;
pub mod doctor;
pub mod list;
pub mod restore;
pub mod restore_all;
pub mod status;
pub mod test_recovery;
pub mod verify;
pub mod watched;

use std::path::Path;

use anyhow::{bail, Result};
use chrono::{Local, SecondsFormat};

use crate::app::App;
use crate::components::Backup;
use crate::report::log::Journal;
use crate::store::lock::{Attempt, Lock};
use crate::store::manifest::{Member, Point, NONE};
use crate::store::Stamp;

/// Takes the lock that backup-all and the restores share.
///
/// # Errors
/// `Backup already in progress` when another process holds it, or that the lock file cannot be used.
pub fn hold(app: &App, journal: Journal) -> Result<Lock> {
    let path: &Path = &app.config.lock_file;
    match Lock::attempt(path)? {
        Attempt::Held(lock) => {
            if lock.was_stale() {
                journal.warn("Stale lock file found, removing");
            }
            Ok(lock)
        }
        Attempt::Busy(pid) => bail!("Backup already in progress (PID: {pid})"),
    }
}

/// Backs up one component by itself, and records it as a recovery point. `aside` says why that is restored by name only, if
/// it is.
///
/// # Errors
/// When the backup or its record fails.
pub fn backup_one(
    app: &App,
    journal: Journal,
    backup: fn(&App, Stamp) -> Result<Backup>,
    aside: Option<&str>,
) -> Result<()> {
    app.check_encryption(journal)?;
    let stamp = app.store.free_stamp();
    let begun = now();
    let backup = backup(app, stamp)?;
    record(app, journal, stamp, &begun, &[backup], &[], aside).map(drop)
}

/// Writes the recovery point of a run, and gives the stamp that it bears. It is set aside by the same write: a run that
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
    aside: Option<&str>,
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
    for backup in backups {
        let name = backup
            .entry
            .path
            .strip_prefix(app.store.root())
            .unwrap_or(&backup.entry.path);
        point.set(&format!("size.{}", backup.kind.dir()), &backup.entry.bytes.to_string());
        for (fact, value) in &backup.facts {
            point.set(fact, value);
        }
        point.members.push(Member {
            kind: backup.kind,
            name: name.display().to_string(),
            sha256: backup.sha256.clone(),
        });
    }
    if let Some(why) = aside {
        point.exclude_from_latest(why);
    }
    let path = point.write(&app.store)?;
    journal.info(format_args!("Recovery point written: {}", path.display()));
    Ok(point.stamp)
}

/// The time now with its offset, as a manifest tells it.
pub fn now() -> String {
    Local::now().to_rfc3339_opts(SecondsFormat::Secs, false)
}
