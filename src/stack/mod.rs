//! Who n8n's containers are, and how they are held while something under them is replaced.

pub mod discovery;
mod interrupted;
pub mod pause;
mod record;

pub use interrupted::{
    check_rests, check_stopped, interrupted, needs, release, running, undo_at_rest, unfinished, Interrupted, Needs,
};

use std::fmt;

use anyhow::Error;

/// A failed restore that has left something which n8n must not be started on; with what to do about it.
#[derive(Debug)]
pub struct LeftHalfDone(String);

impl LeftHalfDone {
    /// Of which the user is told `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What was there before could not be put back either.
    pub fn rollback_failed() -> Self {
        Self::new("What was there before could not be put back; run the same restore again, which does it first")
    }
}

/// Marks an error of a restore as one from before it could see whether an interrupted one has left the part half exchanged.
#[derive(Debug)]
pub struct Unseen;

impl Unseen {
    /// An error of looking at it; one of putting it right has seen it.
    pub fn mark(error: Error) -> Error {
        if error.is::<LeftHalfDone>() {
            error
        } else {
            error.context(Self)
        }
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("The restore could not begin")
    }
}

impl fmt::Display for LeftHalfDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
