//! What killed runs left in n8n's data.

use anyhow::Result;

use super::helper;
use super::restore::database_dir;
use super::Reader;
use crate::components::dirswap::{DirSwaps, State};
use crate::engine::{Exec, Label};
use crate::report::log::Journal;
use crate::store::lock::{component_lock, Attempt, Lock};
use crate::store::Kind;

/// Takes directories. Removes copies of the database from there, and prints which.
const REMOVE_COPIES: &str = r#"for dir; do
  for copy in "$dir"/.n8n-backup-sqlite-*; do
    [ ! -d "$copy" ] || { rm -rf -- "$copy" && echo "${copy##*/}"; }
  done
done"#;

/// Removes what a restore that was killed had staged, and not yet begun to exchange, and the copies of the database of backups that
/// were killed. The lock of the component is held; backups and restores of the database work in the same directory of the volume under
/// its own lock.
pub(super) fn clear(reader: &Reader<'_>, journal: Journal) -> Result<()> {
    let Reader {
        app, docker, layout, ..
    } = *reader;
    let mut database = None;
    if app.config.found.sqlite.is_some() || app.store.dir(Kind::Sqlite).is_dir() {
        match Lock::attempt(&component_lock(&app.store.make_dir(Kind::Sqlite)?))? {
            Attempt::Held(lock) => database = Some(lock),
            Attempt::Busy(pid) => {
                journal.info(format_args!(
                    "What was unpacked or copied in the volume is left there while a run works on the database (PID: {pid})"
                ));
                return Ok(());
            }
        }
    }
    // Not as a restore's: one may be about to begin, which waits for the lock.
    let labels = [Label::Helper(reader.owner)];
    let guard = helper::start_wanted(app, docker, journal, &labels, &layout.writing())?;
    let directories = layout.directories();
    let targets = || directories.iter().map(|directory| directory.target.as_str());
    let beside = database_dir(app, layout);
    let script = ["sh", "-c", REMOVE_COPIES, "sh"].into_iter();
    let argv: Vec<&str> = script.chain(targets()).chain(beside.as_deref()).collect();
    let removed = docker.answer("sh", docker.exec(guard.id(), Exec::default(), &argv), None)?;
    if !removed.text().is_empty() {
        journal.warn("Removed from the volume a copy of the database that an interrupted backup had made there");
    }
    for swaps in [
        DirSwaps::new(&guard, targets()),
        DirSwaps::new(&guard, beside.as_deref()),
    ] {
        if swaps.state()? == State::Staged {
            swaps.roll_back(journal)?;
            journal.warn("Removed from the volume what an interrupted restore had unpacked there");
        }
    }
    drop(database);
    Ok(())
}
