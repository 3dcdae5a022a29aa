//! A backup file on its way back: decrypted, decompressed, looked at.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{bail, ensure, Context as _, Result};

use super::checksum::Digest;
use super::compress;
use super::encrypt::{can_read, gpg, Locked};
use crate::config::Config;
use crate::process::{self, Chain, Count, Observer};
use crate::report::progress::Progress;
use crate::store::{atomic, inventory, Partial, Store, ENCRYPTED};

/// The contents of a backup file as they were before it was packed and encrypted: what its name says was done is undone.
///
/// # Errors
/// When the file cannot be opened, a program to unpack it is missing, or it cannot be decrypted ([`Locked`]).
pub fn read(config: &Config, chain: &mut Chain, path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = atomic::open(path).with_context(|| format!("Cannot read {}", path.display()))?;
    undo(config, chain, file, path)
}

/// Undoes what was done to a file that is called, or will be called, `name`.
fn undo(config: &Config, chain: &mut Chain, file: File, name: &Path) -> Result<Box<dyn Read + Send>> {
    let path = config.path.as_ref();
    let text = name.to_string_lossy();
    let Some(inner) = text.strip_suffix(ENCRYPTED) else {
        return Ok(match is_packed(&text) {
            true => Box::new(compress::decompress_file(chain, file, path)?),
            false => Box::new(file),
        });
    };
    let stream = gpg(config)?.decrypt(chain, config.encryption.as_ref(), file, name)?;
    Ok(match is_packed(inner) {
        true => Box::new(compress::decompress(chain, stream, path)?),
        false => Box::new(stream),
    })
}

fn is_packed(name: &str) -> bool {
    name.ends_with(".gz")
}

/// Leads the contents of a backup file past `observer`, and gives it back.
pub fn observe<O: Observer>(config: &Config, path: &Path, observer: O) -> Result<O> {
    let mut chain = Chain::new(config.stall);
    let contents = read(config, &mut chain, path)?;
    let observer = (observer, Progress::new("reading", || None));
    let seen = chain.pump(format!("reading {}", path.display()), contents, io::sink(), observer);
    Ok(seen.get(&chain.finish()?)?.0)
}

/// Whether an error of a proof says nothing of the file: it could not be opened, read or decrypted here.
pub fn is_no_verdict(error: &anyhow::Error) -> bool {
    error.is::<Locked>() || process::is_outside(error)
}

/// The SHA-256 of a file as it lies on disk, in hexadecimal.
pub fn sha256(config: &Config, path: &Path) -> Result<String> {
    let file = atomic::open(path).with_context(|| format!("Cannot read {}", path.display()))?;
    let mut chain = Chain::new(config.stall);
    let (digest, sha256) = Digest::start(&mut chain, config.path.as_ref())?;
    let seen = chain.pump(format!("reading {}", path.display()), file, io::sink(), digest);
    let finished = chain.finish()?;
    seen.get(&finished)?;
    sha256.get(&finished)
}

/// Compares a backup file with what the manifest of its recovery point says, when it belongs to one.
pub fn check_recorded(config: &Config, store: &Store, path: &Path) -> Result<()> {
    let Some((point, member)) = inventory::point_of(store, path)? else {
        return Ok(());
    };
    let sum = sha256(config, path)?;
    if sum != member.sha256 {
        bail!(
            "its SHA-256 is {sum}, but recovery point {} recorded {}",
            point.stamp,
            member.sha256
        );
    }
    Ok(())
}

/// Opens an unpublished file that was encrypted to a key that is here: it must give the `bytes` bytes that went in.
pub(super) fn prove_encryption(config: &Config, partial: &Partial, bytes: u64) -> Result<()> {
    if !config.encryption.as_ref().is_some_and(can_read) {
        return Ok(());
    }
    let mut chain = Chain::new(config.stall);
    let contents = undo(config, &mut chain, partial.reader()?, &partial.final_path())?;
    let count = chain.pump("reading back", contents, io::sink(), Count::default());
    let read = count.get(&chain.finish()?)?.0;
    ensure!(
        read == bytes,
        "the file unpacks to {read} bytes, and {bytes} were packed"
    );
    Ok(())
}
