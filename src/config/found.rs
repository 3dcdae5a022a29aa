//! What n8n's containers tell of their stack. It goes before the names that `.env` shares with Compose, and yields to the
//! settings of our own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Error, Result};

use super::Secret;
use crate::process::{hint_of, hinted};
use crate::store::Kind;

/// What was found of a stack; empty where the settings alone say what it consists of.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The container of n8n that told it, or the recovery point that remembers it.
    pub told_by: String,
    /// The Compose project; empty without one.
    pub project: String,
    /// The Compose projects of the servers that belong to another one than n8n; empty for a server of no project.
    pub others: BTreeMap<Kind, String>,
    /// The kinds of backups that the stack has no use for.
    pub unused: Vec<Kind>,
    /// Where n8n keeps its data in its containers; empty when nothing tells.
    pub home: String,
    /// Where n8n is told to keep binary data, if it keeps them in the file system; empty where nothing tells.
    pub storage: String,
    /// What is mounted there, or above, by its path in n8n's containers; empty where nothing is.
    pub storage_mount: String,
    /// The schema of n8n's tables.
    pub schema: String,
    /// What the names of n8n's tables begin with.
    pub table_prefix: String,
    /// The role that n8n logs in to PostgreSQL as; the one that restores may be another. Empty when nothing tells.
    pub login: String,
    /// Its password, where n8n's container tells it and the one that restores is another role.
    pub login_password: Option<Secret>,
    /// That role is asked where the server lacks the superuser that its container names.
    pub second_login: bool,
    /// The volumes that PostgreSQL and Redis mount, each with its path in the container.
    pub server_volumes: Vec<(String, String)>,
    /// n8n's database, where that is in SQLite.
    pub sqlite: Option<SqliteFile>,
    /// What stands against backing up or restoring a kind.
    pub problems: BTreeMap<Kind, Problem>,
    /// The files that the stack is deployed from, relative to the project directory.
    pub deployment: Vec<PathBuf>,
    /// How Compose created n8n's containers.
    pub compose: Composed,
    /// The key that n8n's containers are given; none where it stands in n8n's home alone.
    pub key: Option<Secret>,
    /// Whether containers are there that runs of ours have left, or that work just now.
    pub ours: bool,
    /// What the deployment lacks, each with its warning.
    pub undeployed: Vec<String>,
    /// What is worth a warning.
    pub warnings: Vec<String>,
    /// Each value, for people.
    pub rows: Vec<FoundRow>,
}

/// How Compose was called for n8n's containers. The paths are relative to the project directory; none where Compose
/// worked outside of it, or with a file that lies outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composed {
    /// The directory that Compose worked in; empty for the project directory itself.
    pub directory: PathBuf,
    /// The compose files.
    pub files: Vec<PathBuf>,
    /// The files with variables.
    pub env_files: Vec<PathBuf>,
    /// The services that run n8n.
    pub services: Vec<String>,
    /// The directories of the project that containers mount, and those that hold files of the deployment.
    pub directories: Vec<Directory>,
}

/// A directory of the project, as it is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its path from the project directory.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// Its user and group, where they are not those of the project directory.
    pub owner: Option<(u32, u32)>,
}

/// n8n's database in SQLite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqliteFile {
    /// The container of n8n that works with it.
    pub container: String,
    /// Its path in there.
    pub path: String,
    /// Its path from where n8n's home is mounted; empty where it does not lie in there.
    pub in_home: String,
}

/// Why a kind can be neither backed up nor restored, and what to do.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub hint: String,
}

impl Problem {
    /// That something failed.
    pub fn of(error: &Error) -> Self {
        Self {
            text: format!("{error:#}"),
            hint: hint_of(error).unwrap_or_default().to_owned(),
        }
    }
}

/// Something that was found, for people.
#[derive(Clone, Debug)]
pub struct FoundRow {
    /// What it is.
    pub what: &'static str,
    /// Its value.
    pub value: String,
    /// Where that comes from.
    pub from: String,
}

impl Found {
    /// Whether n8n's containers, or a recovery point, told what there is.
    pub fn is_told(&self) -> bool {
        !self.told_by.is_empty()
    }

    /// Whether the stack has a use for backups of a kind.
    pub fn uses(&self, kind: Kind) -> bool {
        !kind.is_unused(&self.unused)
    }

    /// How many kinds the stack has a use for.
    pub fn used(&self) -> usize {
        Kind::PARTS.into_iter().filter(|kind| self.uses(*kind)).count()
    }

    /// The kind of n8n's database.
    pub fn database(&self) -> Kind {
        match self.uses(Kind::Sqlite) {
            true => Kind::Sqlite,
            false => Kind::Postgres,
        }
    }

    /// Refuses a kind that something stands against.
    pub fn check(&self, kind: Kind) -> Result<()> {
        if let Some(problem) = self.problems.get(&kind) {
            return Err(Error::new(hinted(&problem.text, &problem.hint)));
        }
        // Files can be written wherever there is a directory.
        if !self.uses(kind) && kind != Kind::Env {
            let hint = match self.is_told() {
                true => format!("{} tells what n8n uses; restore-all leaves the rest out", self.told_by),
                false => {
                    "n8n is taken to use PostgreSQL and Redis where none of its containers says otherwise".to_owned()
                }
            };
            return Err(Error::new(hinted(
                format_args!("This stack has no use for {}", kind.name()),
                hint,
            )));
        }
        Ok(())
    }
}
