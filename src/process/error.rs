//! How a chain fails, and what that tells of the stream.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Error;

/// How a child ended that did not succeed.
#[derive(Debug)]
pub struct Failed {
    /// Its exit status; none when it could not even be killed.
    pub status: Option<ExitStatus>,
    /// What it wrote was no longer read.
    pub(super) lost_its_reader: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            None => write!(f, "it did not end when it was killed"),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exit code {code}"),
                (None, Some(signal)) => write!(f, "killed by signal {signal}"),
                (None, None) => write!(f, "{status}"),
            },
        }
    }
}

impl std::error::Error for Failed {}

/// A program that is needed and is not on this host, and how it comes there.
#[derive(Debug)]
pub struct Missing {
    pub what: &'static str,
    pub hint: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for Missing {}

/// The chain was ended, since nothing had moved in it for so long.
#[derive(Debug)]
pub(super) struct Stalled(pub(super) Duration);

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        write!(f, "nothing moved and nothing answered for {seconds} s, gave up")
    }
}

impl std::error::Error for Stalled {}

/// An error, in one text with the last lines of the children.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) text: String,
    pub(super) error: Error,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Told {}

/// Whether a child was ended by SIGPIPE, or, as a shell or docker tells it, one of its children was.
pub(super) fn lost_its_reader(status: ExitStatus) -> bool {
    status.signal() == Some(13) || status.code() == Some(128 + 13)
}

/// Whether `error` only says that a reader went away, which is the consequence of another fault: to one of our threads,
/// or to the last child of a chain that feeds another.
pub fn is_broken_pipe(error: &Error) -> bool {
    // A context that is an error itself is found by this and not among the causes.
    let child = error.downcast_ref::<Failed>();
    child.is_some_and(|failed| failed.lost_its_reader)
        || error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// Whether a chain was ended since nothing moved in it.
pub fn is_stalled(error: &Error) -> bool {
    match error.downcast_ref::<Told>() {
        Some(told) => is_stalled(&told.error),
        None => error.is::<Stalled>(),
    }
}

/// Whether `error`, of a chain that has read something, says nothing of what it read: that could not be read, a program
/// is missing, could not be started or was killed, or nothing moved.
pub fn is_outside(error: &Error) -> bool {
    if let Some(told) = error.downcast_ref::<Told>() {
        return is_outside(&told.error);
    }
    let killed = |failed: &Failed| failed.status.is_none_or(|status| status.code().is_none());
    is_stalled(error)
        || error.is::<Missing>()
        || error.downcast_ref::<Failed>().is_some_and(killed)
        || error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|e| e.kind() != ErrorKind::BrokenPipe)
}
