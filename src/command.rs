//! What the commands do with the components: orchestration only.

pub mod backup_all;
pub mod cleanup;
pub mod restore;

use std::path::Path;

use anyhow::{bail, Result};

use crate::component::Context;
use crate::lock::{Attempt, Lock};
use crate::logging::Journal;

/// Takes the lock that backup-all and the restores share.
///
/// # Errors
/// `Backup already in progress` when another process holds it, or that the lock file cannot be used.
pub fn hold(context: &Context, journal: Journal) -> Result<Lock> {
    let path: &Path = &context.config.lock_file;
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
