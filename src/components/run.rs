//! The run that backups are made in, and what they tell each other in it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::Result;
use chrono::{SecondsFormat, Utc};

use crate::process::Observer;
use crate::store::Stamp;

/// The run that a backup is a part of.
#[derive(Clone, Debug)]
pub struct BackupRun {
    /// Its name.
    pub stamp: Stamp,
    /// Whether it keeps what a restore is about to replace: then it need not be what n8n could work with.
    pub before_restore: bool,
    /// When the database is as the dump has it.
    pub snapshot: Snapshot,
}

impl BackupRun {
    /// A run that dumps the database; whoever makes the dump opens [`BackupRun::snapshot`] at the latest when that is done.
    pub fn with_dump(stamp: Stamp) -> Self {
        Self {
            stamp,
            before_restore: false,
            snapshot: Snapshot::default(),
        }
    }

    /// A run in which nothing waits for a dump.
    pub fn alone(stamp: Stamp, before_restore: bool) -> Self {
        let snapshot = Snapshot::default();
        snapshot.open();
        Self {
            stamp,
            before_restore,
            snapshot,
        }
    }
}

/// The moment from which on nothing that changes in the database is in the dump. What is read after it holds all that the
/// dump names.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    taken: Option<String>,
    is_open: bool,
}

impl Snapshot {
    /// Notes that it was taken by now.
    pub fn take(&self) {
        let mut state = self.0 .0.lock().unwrap_or_else(PoisonError::into_inner);
        state.taken.get_or_insert_with(instant);
        state.is_open = true;
        self.0 .1.notify_all();
    }

    /// Lets everybody go on who waits, whether it was taken or not.
    pub fn open(&self) {
        self.0 .0.lock().unwrap_or_else(PoisonError::into_inner).is_open = true;
        self.0 .1.notify_all();
    }

    /// Waits until it was taken, or nobody takes it any more.
    pub fn wait(&self) {
        let state = self.0 .0.lock().unwrap_or_else(PoisonError::into_inner);
        // A panic elsewhere opens it, too.
        drop(self.0 .1.wait_while(state, |state| !state.is_open));
    }

    /// Whether nobody needs to wait.
    pub fn is_open(&self) -> bool {
        self.0 .0.lock().unwrap_or_else(PoisonError::into_inner).is_open
    }

    /// When it was taken.
    pub fn taken(&self) -> Option<String> {
        let state = self.0 .0.lock().unwrap_or_else(PoisonError::into_inner);
        state.taken.clone()
    }

    /// What notes it at the first byte of a dump.
    pub fn at_first_byte(&self) -> FirstByte {
        FirstByte(self.clone())
    }
}

/// pg_dump writes nothing before it has its snapshot.
pub struct FirstByte(Snapshot);

impl Observer for FirstByte {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        if !chunk.is_empty() {
            self.0.take();
        }
        Ok(())
    }
}

/// Now, in UTC to the millisecond.
pub fn instant() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn who_waits_goes_on_at_the_first_byte_or_when_there_is_none() {
        let snapshot = Snapshot::default();
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                snapshot.wait();
                snapshot.taken()
            });
            thread::sleep(Duration::from_millis(20));
            assert!(!waits.is_finished());
            snapshot.at_first_byte().feed(b"").unwrap();
            assert!(snapshot.taken().is_none());
            snapshot.at_first_byte().feed(b"-").unwrap();
            let taken = waits.join().unwrap().unwrap();
            snapshot.at_first_byte().feed(b"-").unwrap();
            assert_eq!(snapshot.taken(), Some(taken));
        });
        let never = BackupRun::alone(Stamp::now(), false).snapshot;
        never.wait();
        assert!(never.taken().is_none());
    }
}
