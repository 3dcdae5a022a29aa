//! The environment file: a copy of `.env`, which holds n8n's encryption key.

use std::fs::File;
use std::path::Path;

use anyhow::{bail, Context as _, Result};

use super::{read, write, Backup, Context};
use crate::dotenv;
use crate::logging::Journal;
use crate::size;
use crate::store::{Kind, Stamp};

/// It has no script of its own; it is a step of backup-all.
const JOURNAL: Journal = Journal::new("backup-all");

/// The longest environment file that is read.
const LIMIT: usize = 16 << 20;

/// Copies `.env`.
///
/// # Errors
/// When it is missing or cannot be copied.
pub fn backup(context: &Context, stamp: Stamp) -> Result<Backup> {
    JOURNAL.info("Backing up environment file");
    let source = context.config.env_file();
    if !source.is_file() {
        bail!(".env file not found at {}", source.display());
    }
    let backup = copy(context, stamp).context("Failed to backup environment file")?;
    let size = size::du(backup.entry.disk);
    JOURNAL.success(format_args!(
        "Environment backup completed: {} ({size})",
        backup.entry.path.display()
    ));
    Ok(backup)
}

/// Proves that a copy can be read as an environment file.
///
/// # Errors
/// What is wrong with it.
pub fn verify(context: &Context, path: &Path) -> Result<()> {
    let mut chain = context.chain();
    let contents = read(context, &mut chain, path)?;
    let text = chain.collect("reading the environment file", contents, LIMIT);
    chain.finish()?;
    // What the file asks of the environment is there, whatever it is: only its form is judged.
    dotenv::parse(path, &text.get()?, &|_| Some("set".to_owned())).map(drop)
}

fn copy(context: &Context, stamp: Stamp) -> Result<Backup> {
    let _lock = context.hold(Kind::Env, JOURNAL)?;
    let source = context.config.env_file();
    let file = File::open(&source).with_context(|| format!("Cannot read {}", source.display()))?;
    let partial = context.store.create(Kind::Env, stamp)?;
    let mut chain = context.chain();
    let written = write(&mut chain, &partial, file, ())?;
    chain.finish()?;
    let ((), _, sha256) = written.get()?;
    let entry = partial.publish()?;
    Ok(Backup {
        kind: Kind::Env,
        entry,
        sha256,
        facts: Vec::new(),
    })
}
