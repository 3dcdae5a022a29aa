//! cleanup-backups: the retention applied to `backups/`.

use std::fs;
use std::io::ErrorKind;
use std::time::SystemTime;

use anyhow::{bail, Result};

use crate::component::Context;
use crate::logging::{self, Journal};
use crate::retention::{self, Candidate, Verdict};
use crate::size;
use crate::store::{Entry, Kind};

const JOURNAL: Journal = Journal::new("cleanup-backups");

/// Deletes what the retention lets go, or says what it would delete.
///
/// # Errors
/// When a directory cannot be read or a file not be deleted; the others are deleted all the same.
pub fn run(context: &Context, dry_run: bool) -> Result<()> {
    let days = context.config.retention_days;
    JOURNAL.info(format_args!("Starting backup cleanup (retention: {days} days)"));
    logging::check_started()?;
    if dry_run {
        JOURNAL.info("Running in dry-run mode (no files will be deleted)");
    }
    let (mut deleted, mut freed, mut failed) = (0_u64, 0_u64, 0_u64);
    for kind in Kind::ALL {
        let dir = context.store.dir(kind);
        if !dir.is_dir() {
            JOURNAL.info(format_args!("Directory does not exist, skipping: {}", dir.display()));
            continue;
        }
        JOURNAL.info(format_args!("Scanning {}...", dir.display()));
        let entries = match context.store.list(kind) {
            Ok(entries) => entries,
            Err(error) => {
                JOURNAL.failure(&error);
                failed += 1;
                continue;
            }
        };
        for (entry, verdict) in entries.iter().zip(decide(&entries, days)) {
            if verdict != Verdict::Delete {
                continue;
            }
            let (path, size) = (entry.path.display(), size::du(entry.disk));
            if dry_run {
                JOURNAL.info(format_args!("[DRY-RUN] Would delete: {path} ({size})"));
                continue;
            }
            match fs::remove_file(&entry.path) {
                Ok(()) => {
                    JOURNAL.info(format_args!("Deleted: {path} ({size})"));
                    deleted += 1;
                    freed += entry.bytes;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    JOURNAL.failure(&anyhow::Error::new(error).context(format!("Failed to delete: {path}")));
                    failed += 1;
                }
            }
        }
    }
    if dry_run {
        JOURNAL.success("Dry-run completed");
    } else {
        JOURNAL.success(format_args!(
            "Cleanup completed: {deleted} files deleted, {} freed",
            size::amount(freed)
        ));
    }
    if failed > 0 {
        bail!("{failed} item(s) could not be cleaned up");
    }
    Ok(())
}

/// The bytes on disk that the cleanup will free; none in a directory that cannot be read.
pub fn reclaimable(context: &Context) -> u64 {
    let mut bytes = 0;
    for kind in Kind::ALL {
        let entries = context.store.list(kind).unwrap_or_default();
        let verdicts = decide(&entries, context.config.retention_days);
        bytes += entries
            .iter()
            .zip(verdicts)
            .filter(|(_, verdict)| *verdict == Verdict::Delete)
            .map(|(entry, _)| entry.disk)
            .sum::<u64>();
    }
    bytes
}

/// The verdict on each of one component's files.
fn decide(entries: &[Entry], days: u64) -> Vec<Verdict> {
    let candidates: Vec<Candidate> = entries
        .iter()
        .map(|entry| Candidate {
            path: entry.path.clone(),
            component: 0,
            taken: entry.modified,
            bytes: entry.bytes,
            good: entry.bytes > 0,
        })
        .collect();
    retention::decide(&candidates, SystemTime::now(), days)
}
