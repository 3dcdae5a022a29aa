//! The environment file: a copy of `.env`, which holds n8n's encryption key.

use std::fs::File;
use std::path::Path;

use anyhow::{bail, Context as _, Result};

use super::{read, read_back, write, Backup, Context};
use crate::config::Encryption;
use crate::dotenv;
use crate::logging::Journal;
use crate::size;
use crate::store::{Kind, Stamp, ENCRYPTED};

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
    if matches!(context.config.encryption, Some(Encryption::Passphrase(_))) && !has_encrypted(context)? {
        JOURNAL.warn(
            "The copy of .env is encrypted with the passphrase that stands in .env: keep BACKUP_GPG_PASSPHRASE in another \
             place too, or no backup can be read once .env is lost",
        );
    }
    let source = context.config.env_file();
    let file = File::open(&source).with_context(|| format!("Cannot read {}", source.display()))?;
    let mut partial = context.store.create(Kind::Env, stamp)?;
    let mut chain = context.chain();
    let written = write(context, &mut chain, &partial, file, ())?;
    chain.finish()?;
    let ((), bytes, sha256) = written.get()?;
    partial.sync()?;
    read_back(context, &partial, bytes, &sha256)?;
    let entry = partial.publish()?;
    Ok(Backup {
        kind: Kind::Env,
        entry,
        sha256,
        facts: Vec::new(),
    })
}

/// Whether there is an encrypted copy already; what is said of the first one need not be said each night.
fn has_encrypted(context: &Context) -> Result<bool> {
    let copies = context.store.list(Kind::Env)?;
    Ok(copies
        .iter()
        .any(|copy| copy.path.to_string_lossy().ends_with(ENCRYPTED)))
}
