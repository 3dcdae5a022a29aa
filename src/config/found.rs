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
    /// The kinds of backups that the stack has no use for.
    pub unused: Vec<Kind>,
    /// Where n8n keeps its data in its containers; empty when nothing tells.
    pub home: String,
    /// The schema of n8n's tables.
    pub schema: String,
    /// What the names of n8n's tables begin with.
    pub table_prefix: String,
    /// What stands against backing up or restoring a kind.
    pub problems: BTreeMap<Kind, Problem>,
    /// The files that the stack is deployed from, relative to the project directory.
    pub deployment: Vec<PathBuf>,
    /// The key that n8n's containers are given; none where it stands in n8n's home alone.
    pub key: Option<Secret>,
    /// Whether containers are there that runs of ours have left, or that work just now.
    pub ours: bool,
    /// What is worth a warning.
    pub warnings: Vec<String>,
    /// Each value, for people.
    pub rows: Vec<FoundRow>,
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
        !self.unused.contains(&kind)
    }

    /// How many kinds the stack has a use for.
    pub fn used(&self) -> usize {
        Kind::PARTS.into_iter().filter(|kind| self.uses(*kind)).count()
    }

    /// Refuses a kind that something stands against.
    pub fn check(&self, kind: Kind) -> Result<()> {
        // Files can be written wherever there is a directory.
        if !self.uses(kind) && kind != Kind::Env {
            let hint = format!("{} tells what n8n uses; restore-all leaves the rest out", self.told_by);
            return Err(Error::new(hinted(
                format_args!("This stack has no use for {}", kind.name()),
                hint,
            )));
        }
        match self.problems.get(&kind) {
            Some(problem) => Err(Error::new(hinted(&problem.text, &problem.hint))),
            None => Ok(()),
        }
    }
}
