//! The parts of a stack that are backed up, each with the same verbs.

pub mod credentials;
pub mod dirswap;
pub mod drill;
pub mod env_file;
pub mod n8n_data;
pub mod postgres;
pub mod redis;

pub use env_file::{check_plain, lost as lost_env_file};

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::app::App;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::{Entry, Kind};

/// How long a server that was just started may take until it listens. What listens elsewhere is not told from it, and is not worth
/// a longer wait.
const LISTENS_AFTER: Duration = Duration::from_secs(10);

/// A finished backup of one component.
#[derive(Clone, Debug)]
pub struct Backup {
    /// What it holds.
    pub kind: Kind,
    /// The published file.
    pub entry: Entry,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// What else is worth knowing of it, as `name: value` lines of the recovery point's manifest.
    pub facts: Vec<(String, String)>,
}

impl Backup {
    /// The last line of a component's log.
    pub fn report(&self, journal: Journal) {
        let size = units::du(self.entry.disk);
        journal.success(format_args!("Backup completed: {} ({size})", self.entry.path.display()));
    }
}

/// Proves that a backup file is whole, by what its kind of contents must be like from beginning to end.
///
/// # Errors
/// What is wrong with it.
pub fn verify(app: &App, kind: Kind, path: &Path) -> Result<()> {
    match kind {
        Kind::Postgres => postgres::verify(app, path).map(drop),
        Kind::Redis => redis::verify(app, path).map(drop),
        Kind::N8n => n8n_data::verify(app, path).map(drop),
        Kind::Env => env_file::verify(app, path),
    }
}
