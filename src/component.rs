//! What the components share: the verbs `backup` and `verify`, and the way of a stream into a published file.

pub mod env;
pub mod n8n;
pub mod postgres;
pub mod redis;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ChildStdin;

use anyhow::{bail, Context as _, Result};

use crate::config::Config;
use crate::docker::Docker;
use crate::gzip::{self, Compressor};
use crate::lock::{component_lock, Lock};
use crate::logging::Journal;
use crate::pipeline::{self, Chain, Count, Input, Observer, Pending};
use crate::size;
use crate::store::{Entry, Kind, Partial, Stamp, Store};
use crate::{dump, manifest, rdb, tar};

/// What every command works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// The settings.
    pub config: Config,
    /// The project's `backups/`.
    pub store: Store,
}

impl Context {
    /// The context of a project.
    pub fn new(config: Config) -> Self {
        let store = Store::new(config.backups());
        Self { config, store }
    }

    /// The docker client.
    ///
    /// # Errors
    /// When there is none on this host.
    pub fn docker(&self) -> Result<Docker> {
        Docker::locate(self.config.path.clone(), self.config.stall)
    }

    /// A chain with the stall limit of the settings.
    pub fn chain(&self) -> Chain {
        Chain::new(self.config.stall)
    }

    /// Holds one component: waits for another run that works on it, then clears what a dead one left in its directory.
    ///
    /// # Errors
    /// When it is not free within the stall limit, or the directory cannot be used.
    pub fn hold(&self, kind: Kind, journal: Journal) -> Result<Lock> {
        let dir = self.store.make_dir(kind)?;
        let lock = Lock::wait(&component_lock(&dir), self.config.stall, |pid| {
            journal.info(format_args!(
                "Waiting for the run that works on {} (PID: {pid})",
                kind.dir()
            ));
        })?;
        let left = self.store.sweep(kind)?;
        if left > 0 {
            journal.warn(format_args!(
                "Removed {left} unfinished file(s) that an interrupted run left"
            ));
        }
        Ok(lock)
    }
}

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
        let size = size::du(self.entry.disk);
        journal.success(format_args!("Backup completed: {} ({size})", self.entry.path.display()));
    }
}

/// What has been seen of a file while it was written.
pub struct Written<O> {
    seen: Pending<(O, (Count, Digest))>,
    sha256: Pending<Vec<u8>>,
}

/// Leads `stream` into `partial`, past `observer`, and takes length and SHA-256 on the way.
///
/// # Errors
/// When the checksum program cannot be started.
pub fn write<O: Observer>(
    chain: &mut Chain,
    partial: &Partial,
    stream: impl Read + Send + 'static,
    observer: O,
) -> Result<Written<O>> {
    let (digest, sha256) = Digest::start(chain)?;
    let name = format!("writing to {}", partial.dir().display());
    let seen = chain.pump(name, stream, partial.writer()?, (observer, (Count::default(), digest)));
    Ok(Written { seen, sha256 })
}

impl<O> Written<O> {
    /// The observer, the file's length and its SHA-256; after [`Chain::finish`].
    ///
    /// # Errors
    /// When a step did not come to its end.
    pub fn get(self) -> Result<(O, u64, String)> {
        let (observer, (count, _)) = self.seen.get()?;
        Ok((observer, count.0, checksum(self.sha256.get()?)?))
    }
}

/// Feeds `sha256sum`.
struct Digest(Option<ChildStdin>);

impl Digest {
    fn start(chain: &mut Chain) -> Result<(Self, Pending<Vec<u8>>)> {
        let (stdin, stdout) = chain.spawn("sha256sum", pipeline::command("sha256sum"), Input::Piped)?;
        Ok((Self(stdin), chain.collect("reading a checksum", stdout, 1024)))
    }
}

impl Observer for Digest {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        match &mut self.0 {
            Some(stdin) => Ok(stdin.write_all(chunk)?),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.0 = None;
        Ok(())
    }
}

impl Observer for dump::Scanner {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        Self::feed(self, chunk)
    }
}

impl Observer for tar::Scanner {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        Self::feed(self, chunk)
    }
}

impl Observer for rdb::Scanner {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        Self::feed(self, chunk)
    }
}

/// Packs `stream` into a new backup file of `kind`, with `observer` looking at the unpacked bytes.
pub struct Packed<O> {
    partial: Partial,
    observer: Pending<(Count, O)>,
    written: Written<()>,
}

impl<O: Observer> Packed<O> {
    /// Builds the chain from `stream` to the file.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start(
        context: &Context,
        chain: &mut Chain,
        kind: Kind,
        stamp: Stamp,
        stream: impl Read + Send + 'static,
        observer: O,
        journal: Journal,
    ) -> Result<Self> {
        let compressor = Compressor::choose(&context.config.compressor, context.config.path.as_ref())?;
        journal.info(format_args!("Compressing with {}", compressor.label()));
        let partial = context.store.create(kind, stamp)?;
        let (packed, observer) = compressor.compress(chain, stream, (Count::default(), observer))?;
        let written = write(chain, &partial, packed, ())?;
        Ok(Self {
            partial,
            observer,
            written,
        })
    }

    /// Takes the results; after [`Chain::finish`].
    ///
    /// # Errors
    /// When a step did not come to its end.
    pub fn get(self) -> Result<(Partial, u64, O, String)> {
        let (count, observer) = self.observer.get()?;
        let ((), _, sha256) = self.written.get()?;
        Ok((self.partial, count.0, observer, sha256))
    }
}

/// The contents of a backup file as they were before it was packed: what its name says was done is undone.
///
/// # Errors
/// When the file cannot be opened or a program to unpack it is missing.
pub fn read(context: &Context, chain: &mut Chain, path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = File::open(path).with_context(|| format!("Cannot read {}", path.display()))?;
    if path.to_string_lossy().ends_with(".gz") {
        Ok(Box::new(gzip::decompress(chain, file, context.config.path.as_ref())?))
    } else {
        Ok(Box::new(file))
    }
}

/// Leads the contents of a backup file past `observer`, and gives it back.
///
/// # Errors
/// When the file cannot be read to its end.
pub fn observe<O: Observer>(context: &Context, path: &Path, observer: O) -> Result<O> {
    let mut chain = context.chain();
    let contents = read(context, &mut chain, path)?;
    let seen = chain.pump(format!("reading {}", path.display()), contents, io::sink(), observer);
    chain.finish()?;
    seen.get()
}

/// Proves that a backup file is whole, by what its kind of contents must be like from beginning to end.
///
/// # Errors
/// What is wrong with it.
pub fn verify(context: &Context, kind: Kind, path: &Path) -> Result<()> {
    match kind {
        Kind::Postgres => postgres::verify(context, path).map(drop),
        Kind::Redis => redis::verify(context, path).map(drop),
        Kind::N8n => n8n::verify(context, path).map(drop),
        Kind::Env => env::verify(context, path),
    }
}

/// The SHA-256 of a file as it lies on disk, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(context: &Context, path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("Cannot read {}", path.display()))?;
    let mut chain = context.chain();
    let (digest, sha256) = Digest::start(&mut chain)?;
    let seen = chain.pump(format!("reading {}", path.display()), file, io::sink(), digest);
    chain.finish()?;
    seen.get()?;
    checksum(sha256.get()?)
}

/// Compares a backup file with what the manifest of its recovery point says, when it belongs to one.
///
/// # Errors
/// When its contents are not those that were recorded.
pub fn check_recorded(context: &Context, path: &Path) -> Result<()> {
    let Some((point, member)) = manifest::point_of(&context.store, path)? else {
        return Ok(());
    };
    let sum = sha256(context, path)?;
    if sum != member.sha256 {
        bail!(
            "its SHA-256 is {sum}, but recovery point {} recorded {}",
            point.stamp,
            member.sha256
        );
    }
    Ok(())
}

/// What `sha256sum` says of its standard input.
fn checksum(said: Vec<u8>) -> Result<String> {
    let line = String::from_utf8(said).context("sha256sum gave no text")?;
    match line.split_whitespace().next() {
        Some(sum) if sum.len() == 64 => Ok(sum.to_owned()),
        _ => bail!("sha256sum gave no checksum"),
    }
}

/// Reads an unpublished file back from the start and proves that it unpacks to `bytes` bytes.
///
/// # Errors
/// When it does not.
fn read_back(context: &Context, partial: &Partial, bytes: u64) -> Result<()> {
    let mut chain = context.chain();
    let unpacked = gzip::decompress(&mut chain, partial.reader()?, context.config.path.as_ref())?;
    let count = chain.pump("reading back", unpacked, io::sink(), Count::default());
    chain.finish()?;
    let read = count.get()?.0;
    if read != bytes {
        bail!("the file unpacks to {read} bytes, and {bytes} were packed");
    }
    Ok(())
}
