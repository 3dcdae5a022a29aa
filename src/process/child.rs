//! The started children of a chain, shared with its watchdog.

use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::capture::Tail;
use super::clock::Clock;
use super::command::command;
use super::error::lost_its_reader;

/// A started child.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) child: Child,
    pub(super) status: Option<ExitStatus>,
    /// Set when we killed it, so that its status is a consequence and no cause.
    pub(super) killed: bool,
    /// Set when we no longer read what it writes, with the same effect.
    pub(super) abandoned: Arc<AtomicBool>,
    pub(super) stderr: Arc<Mutex<Tail>>,
    pub(super) stderr_closed: Receiver<()>,
    pub(super) leash: Option<ChildStdin>,
}

/// The parts of a chain that its watchdog shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) processes: Mutex<Vec<Process>>,
    pub(super) stalled: AtomicBool,
    /// The number of the thread that failed first, and not in consequence of another fault.
    pub(super) first_failure: OnceLock<usize>,
}

impl Shared {
    pub(super) fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills every process that still runs, with what it may have started.
    pub(super) fn kill_all(&self) {
        self.clock.end();
        for process in self.processes().iter_mut() {
            if process.poll().is_none() {
                process.killed = true;
                let group = process.child.id();
                let _ = process.child.kill();
                kill_group(group);
            }
            process.leash = None;
        }
    }
}

impl Process {
    /// The exit status, when it has ended.
    pub(super) fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Whether it was ended because nobody read what it wrote.
    pub(super) fn lost_its_reader(&self) -> bool {
        self.status.is_some_and(lost_its_reader) || self.abandoned.load(Ordering::Relaxed)
    }

    /// Whether it ended so because something else had failed.
    pub(super) fn is_consequence(&self) -> bool {
        self.killed || self.lost_its_reader()
    }
}

/// Ends what a killed child has left in its process group. std can signal a single process only, so this asks the
/// shell; a group that is gone already is no failure.
fn kill_group(group: u32) {
    let _ = command("sh")
        .args(["-c", "kill -s KILL -- \"-$1\"", "sh", &group.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Ends the chain when nothing has moved for `stall`; returns when it is dismissed.
pub(super) fn watch(shared: &Shared, stall: Duration, dismissed: &Receiver<()>) {
    let step = (stall / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
    while let Err(RecvTimeoutError::Timeout) = dismissed.recv_timeout(step) {
        if shared.clock.idle() >= stall && !shared.clock.ended() {
            shared.stalled.store(true, Ordering::Relaxed);
            shared.kill_all();
        }
    }
}
