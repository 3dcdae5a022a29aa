//! What the components share: the verbs `backup` and `verify`, and the way of a stream into a published file.

pub mod credentials;
pub mod dirswap;
pub mod drill;
pub mod env_file;
pub mod n8n_data;
pub mod postgres;
pub mod redis;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use crate::config::{Config, Encryption};
use crate::engine::Docker;
use crate::formats::pg_dump;
use crate::formats::rdb;
use crate::formats::tar;
use crate::process::{self, Chain, Count, Observer, Pending};
use crate::report::log::Journal;
use crate::report::progress::Progress;
use crate::report::units;
use crate::store::atomic;
use crate::store::lock::{component_lock, state_of, Lock};
use crate::store::manifest;
use crate::store::{Entry, Kind, Partial, Stamp, Store, Unfinished, ENCRYPTED};
use crate::stream::checksum::{Digest, Sum};
use crate::stream::compress::{self, Compressor, Unpacking};
use crate::stream::encrypt::{self, Gpg};

/// Shorter passphrases are warned about: what lies off-site can be guessed at for years.
const SHORTEST_PASSPHRASE: usize = 12;
/// How long another run may work on a component before we give up waiting for it. The lock goes with its holder, which
/// ends itself when nothing moves for the stall limit: so one that holds it for long has much to do, and the wait ends
/// with it, or with [`LockWait`]. A day is the bound for a holder of which nothing is known.
const LONGEST_LOCK_WAIT: Duration = Duration::from_secs(24 * 3600);
/// How long a server that was just started may take until it listens. What listens elsewhere is not told from it, and is not worth
/// a longer wait.
const LISTENS_AFTER: Duration = Duration::from_secs(10);
/// How long a living process may at least be held by the kernel, as while a large file goes to a slow disk.
const LONGEST_WRITE: Duration = Duration::from_secs(600);

/// The bytes that are free for us on the disk of `dir`, as `df` tells.
///
/// # Errors
/// When it does not.
pub fn available(dir: &Path, stall: Duration) -> Result<u64> {
    let mut df = process::command("df");
    df.args(["-Pk", "--"]).arg(dir);
    let output = process::output("df", df, None, stall)?;
    units::free(&output.text()).context("df gave no number")
}

/// What every command works with.
#[derive(Clone, Debug)]
pub struct App {
    /// The settings.
    pub config: Config,
    /// The project's `backups/`.
    pub store: Store,
}

impl App {
    /// The context of a project.
    pub fn new(config: Config) -> Self {
        let store = Store::new(config.backups()).with_encryption(config.encryption.is_some());
        Self { config, store }
    }

    /// The docker client.
    ///
    /// # Errors
    /// When there is none on this host.
    pub fn docker(&self) -> Result<Docker> {
        Docker::locate(self.config.path.clone(), self.config.stall)
    }

    /// The gpg of this host.
    ///
    /// # Errors
    /// When there is none.
    fn gpg(&self) -> Result<Gpg> {
        Gpg::locate(self.config.path.as_ref(), self.config.stall)
    }

    /// Makes sure that what is to be encrypted can be, before anything begins.
    ///
    /// # Errors
    /// When there is no gpg, or the recipient's key cannot be used.
    pub fn check_encryption(&self, journal: Journal) -> Result<()> {
        let Some(encryption) = &self.config.encryption else {
            return Ok(());
        };
        self.gpg()?.check(encryption)?;
        if let Encryption::Passphrase(passphrase) = encryption {
            let length = passphrase.reveal().chars().count();
            if length < SHORTEST_PASSPHRASE {
                journal.warn(format_args!(
                    "BACKUP_GPG_PASSPHRASE is short ({length} characters): take {SHORTEST_PASSPHRASE} or more"
                ));
            }
        }
        Ok(())
    }

    /// Says so when `.env` is lost: it is gone, or sets nothing, and a copy of it does. What it has said, of the retention or
    /// of encryption, is not known then.
    pub fn lost_env_file(&self) -> Option<&'static str> {
        let lost = match &self.config {
            config if config.env_file_sets => return None,
            config if config.env_file_exists => ".env sets nothing, and copies of it do",
            _ => ".env is missing, and there are copies of it",
        };
        env_file::was_there(self).then_some(lost)
    }

    /// Refuses to follow encrypted backups of a kind by a plain one because the setting that says so is lost.
    ///
    /// # Errors
    /// When `.env` is lost and the newest backup of the kind is encrypted.
    pub fn check_plain(&self, kind: Kind) -> Result<()> {
        if self.config.encryption.is_some() {
            return Ok(());
        }
        let Some(lost) = self.lost_env_file() else {
            return Ok(());
        };
        let newest = self.store.list(kind)?.pop();
        ensure!(
            !newest.is_some_and(|entry| entry.path.to_string_lossy().ends_with(ENCRYPTED)),
            "{lost}: the newest backup of {} is encrypted, and none is made that is not. Put .env back by restore-env.sh, or write \
             it anew",
            kind.dir()
        );
        Ok(())
    }

    /// A chain with the stall limit of the settings.
    pub fn chain(&self) -> Chain {
        Chain::new(self.config.stall)
    }

    /// Holds one component: waits for another run that works on it, then clears what a dead one left in its directory.
    ///
    /// # Errors
    /// When that run cannot go on by itself, or not within a day, or the directory cannot be used.
    pub fn hold(&self, kind: Kind, journal: Journal) -> Result<Lock> {
        let dir = self.store.make_dir(kind)?;
        let mut turn = LockWait::new(self, kind);
        let mut told = false;
        let lock = Lock::wait(&component_lock(&dir), LONGEST_LOCK_WAIT, |pid| {
            if !std::mem::replace(&mut told, true) {
                journal.info(format_args!(
                    "Waiting for the run that works on {} (PID: {pid})",
                    kind.dir()
                ));
            }
            turn.look_at(pid)
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

/// The wait for another run. One that works gets its time, also where it writes nothing, as a restore does that loads; one
/// that cannot go on by itself, and has not for the stall limit, is given up, so that it costs its own component only.
struct LockWait<'a> {
    app: &'a App,
    kind: Kind,
    unfinished: Vec<Unfinished>,
    moved: Instant,
}

impl<'a> LockWait<'a> {
    fn new(app: &'a App, kind: Kind) -> Self {
        Self {
            app,
            kind,
            unfinished: Vec::new(),
            moved: Instant::now(),
        }
    }

    /// Looks whether the run of the process `pid` goes on.
    fn look_at(&mut self, pid: &str) -> Result<()> {
        let stall = self.app.config.stall;
        let halted = match state_of(pid) {
            Some('T' | 't') => Some((
                stall,
                format!("that process is stopped: kill -CONT {pid} has it go on, kill -KILL {pid} ends it"),
            )),
            // A dead process keeps the lock as long as a part of it waits so.
            Some('D' | 'Z') => Some((
                stall.max(LONGEST_WRITE),
                "that process waits for a disk, or a file system of the network, that does not answer".to_owned(),
            )),
            _ => None,
        };
        let unfinished = self.app.store.unfinished(self.kind);
        let Some((patience, why)) = halted.filter(|_| unfinished == self.unfinished) else {
            self.unfinished = unfinished;
            self.moved = Instant::now();
            return Ok(());
        };
        if self.moved.elapsed() < patience {
            return Ok(());
        }
        Err(anyhow!(why).context(format!("Backup already in progress (PID: {pid})")))
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
        let size = units::du(self.entry.disk);
        journal.success(format_args!("Backup completed: {} ({size})", self.entry.path.display()));
    }
}

/// What has been seen of a file while it was written.
pub struct Written<O> {
    seen: Seen<O>,
    sha256: Sum,
}

/// Where the stream and the file were looked at: in one pump, or before and after encryption.
enum Seen<O> {
    Plain(Pending<ReadBack<((O, Count), Digest)>>),
    Encrypted(Pending<(O, Count)>, Pending<ReadBack<Digest>>),
}

/// Leads `stream` into `partial`, past `observer`, encrypted when the settings say so. Takes the stream's length and the
/// file's SHA-256 on the way.
///
/// # Errors
/// When the checksum program or gpg cannot be started.
pub fn write<O: Observer>(
    app: &App,
    chain: &mut Chain,
    partial: &Partial,
    stream: impl Read + Send + 'static,
    observer: O,
) -> Result<Written<O>> {
    let Some(encryption) = &app.config.encryption else {
        return write_as_is(app, chain, partial, stream, observer);
    };
    let (digest, sha256) = Digest::start(chain, app.config.path.as_ref())?;
    let observer = (observer, Count::default());
    let (stream, seen) = app.gpg()?.encrypt(chain, encryption, stream, observer)?;
    let digest = ReadBack::start(partial, digest)?;
    let stored = chain.pump(writing(partial), stream, partial.writer()?, digest);
    Ok(Written {
        seen: Seen::Encrypted(seen, stored),
        sha256,
    })
}

/// As [`write`], whatever the settings say of encryption.
///
/// # Errors
/// When the checksum program cannot be started.
pub fn write_as_is<O: Observer>(
    app: &App,
    chain: &mut Chain,
    partial: &Partial,
    stream: impl Read + Send + 'static,
    observer: O,
) -> Result<Written<O>> {
    let (digest, sha256) = Digest::start(chain, app.config.path.as_ref())?;
    let observer = ReadBack::start(partial, ((observer, Count::default()), digest))?;
    let seen = chain.pump(writing(partial), stream, partial.writer()?, observer);
    Ok(Written {
        seen: Seen::Plain(seen),
        sha256,
    })
}

fn writing(partial: &Partial) -> String {
    format!("writing to {}", partial.dir().display())
}

impl<O> Written<O> {
    /// The observer, the stream's length and the file's SHA-256; after [`Chain::finish`].
    ///
    /// # Errors
    /// When a step did not come to its end.
    pub fn get(self) -> Result<(O, u64, String)> {
        let (observer, count) = match self.seen {
            Seen::Plain(seen) => seen.get()?.observer.0,
            Seen::Encrypted(seen, stored) => {
                stored.get()?;
                seen.get()?
            }
        };
        Ok((observer, count.0, self.sha256.get()?))
    }
}

/// Reads what has been written back from the file, compares it, and has `observer` see that: what is proven is what the file
/// holds. Has the file brought to disk meanwhile, so that little is left to wait for at its end.
struct ReadBack<O> {
    file: File,
    offset: u64,
    block: Vec<u8>,
    /// Wakes the thread that brings the file to disk.
    sync: Option<SyncSender<()>>,
    observer: O,
}

/// So many bytes are brought to disk at a time.
const SYNC_BYTES: u64 = 32 << 20;

impl<O: Observer> ReadBack<O> {
    fn start(partial: &Partial, observer: O) -> Result<Self> {
        let (sync, wanted) = mpsc::sync_channel(1);
        // Opened anew: a failure of the disk is told once to each open file, and must reach the sync before publication.
        let file = partial.reader()?;
        // Nobody waits for this thread, so that a slow disk is no stall.
        thread::spawn(move || {
            while wanted.recv().is_ok() {
                let _ = file.sync_data();
            }
        });
        Ok(Self {
            file: partial.reader()?,
            offset: 0,
            block: Vec::new(),
            sync: Some(sync),
            observer,
        })
    }
}

impl<O: Observer> Observer for ReadBack<O> {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.block.resize(chunk.len(), 0);
        let read = self.file.read_exact_at(&mut self.block, self.offset);
        read.context("what was written cannot be read back")?;
        ensure!(
            self.block == chunk,
            "the file reads back as something else than was written"
        );
        let before = self.offset / SYNC_BYTES;
        self.offset += chunk.len() as u64;
        if let Some(sync) = self.sync.as_ref().filter(|_| self.offset / SYNC_BYTES > before) {
            // When the disk is behind, the next call takes this part along.
            let _ = sync.try_send(());
        }
        self.observer.feed(&self.block)
    }

    fn end(&mut self) -> Result<()> {
        self.sync = None;
        self.observer.end()
    }
}

impl Observer for pg_dump::Scanner {
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
    observer: Pending<((Count, Progress), O)>,
    unpacked: Pending<Count>,
    written: Written<Unpacking>,
}

impl<O: Observer> Packed<O> {
    /// Builds the chain from `stream` to the file.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start(
        app: &App,
        chain: &mut Chain,
        kind: Kind,
        stamp: Stamp,
        stream: impl Read + Send + 'static,
        observer: O,
        journal: Journal,
    ) -> Result<Self> {
        let compressor = Compressor::choose(&app.config.compressor, app.config.path.as_ref())?;
        journal.info(format_args!("Compressing with {}", compressor.label()));
        let partial = app.store.create(kind, stamp)?;
        let progress = Progress::new(kind.dir(), || last_length(app, kind));
        let observer = ((Count::default(), progress), observer);
        let (packed, observer) = compressor.compress(chain, stream, observer)?;
        let (unpacking, unpacked) = Unpacking::start(chain, app.config.path.as_ref())?;
        let written = write(app, chain, &partial, packed, unpacking)?;
        Ok(Self {
            partial,
            observer,
            unpacked,
            written,
        })
    }

    /// Takes the results; after [`Chain::finish`].
    ///
    /// # Errors
    /// When a step did not come to its end, or the packed stream does not unpack to as many bytes as were packed.
    pub fn get(self) -> Result<(Partial, u64, O, String)> {
        let ((count, _), observer) = self.observer.get()?;
        let (_, _, sha256) = self.written.get()?;
        let unpacked = self.unpacked.get()?.0;
        if unpacked != count.0 {
            bail!("the file unpacks to {unpacked} bytes, and {} were packed", count.0);
        }
        Ok((self.partial, count.0, observer, sha256))
    }
}

/// How long the unpacked stream of a component was at its last backup, as far as that was recorded.
fn last_length(app: &App, kind: Kind) -> Option<u64> {
    let points = manifest::list(&app.store).ok()?;
    let fact = format!("{}.bytes", kind.dir());
    points
        .into_iter()
        .rev()
        .find_map(|(_, point)| point.ok()?.fact(&fact)?.parse().ok())
}

/// The contents of a backup file as they were before it was packed and encrypted: what its name says was done is undone.
///
/// # Errors
/// When the file cannot be opened, a program to unpack it is missing, or it cannot be decrypted ([`encrypt::Locked`]).
pub fn read(app: &App, chain: &mut Chain, path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = atomic::open(path).with_context(|| format!("Cannot read {}", path.display()))?;
    undo(app, chain, file, path)
}

/// Undoes what was done to a file that is called, or will be called, `name`.
fn undo(app: &App, chain: &mut Chain, file: File, name: &Path) -> Result<Box<dyn Read + Send>> {
    let path = app.config.path.as_ref();
    let text = name.to_string_lossy();
    let Some(inner) = text.strip_suffix(ENCRYPTED) else {
        return Ok(match is_packed(&text) {
            true => Box::new(compress::decompress_file(chain, file, path)?),
            false => Box::new(file),
        });
    };
    let stream = app.gpg()?.decrypt(chain, app.config.encryption.as_ref(), file, name)?;
    Ok(match is_packed(inner) {
        true => Box::new(compress::decompress(chain, stream, path)?),
        false => Box::new(stream),
    })
}

fn is_packed(name: &str) -> bool {
    name.ends_with(".gz")
}

/// Leads the contents of a backup file past `observer`, and gives it back.
///
/// # Errors
/// When the file cannot be read to its end.
pub fn observe<O: Observer>(app: &App, path: &Path, observer: O) -> Result<O> {
    let mut chain = app.chain();
    let contents = read(app, &mut chain, path)?;
    let observer = (observer, Progress::new("reading", || None));
    let seen = chain.pump(format!("reading {}", path.display()), contents, io::sink(), observer);
    chain.finish()?;
    Ok(seen.get()?.0)
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

/// Whether an error of [`verify`] says nothing of the file: it could not be opened, read or decrypted here.
pub fn is_no_verdict(error: &anyhow::Error) -> bool {
    error.is::<encrypt::Locked>() || process::is_outside(error)
}

/// The SHA-256 of a file as it lies on disk, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(app: &App, path: &Path) -> Result<String> {
    let file = atomic::open(path).with_context(|| format!("Cannot read {}", path.display()))?;
    let mut chain = app.chain();
    let (digest, sha256) = Digest::start(&mut chain, app.config.path.as_ref())?;
    let seen = chain.pump(format!("reading {}", path.display()), file, io::sink(), digest);
    chain.finish()?;
    seen.get()?;
    sha256.get()
}

/// Compares a backup file with what the manifest of its recovery point says, when it belongs to one.
///
/// # Errors
/// When its contents are not those that were recorded.
pub fn check_recorded(app: &App, path: &Path) -> Result<()> {
    let Some((point, member)) = manifest::point_of(&app.store, path)? else {
        return Ok(());
    };
    let sum = sha256(app, path)?;
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
///
/// # Errors
/// When it does not.
fn prove_encryption(app: &App, partial: &Partial, bytes: u64) -> Result<()> {
    if !app.config.encryption.as_ref().is_some_and(encrypt::can_read) {
        return Ok(());
    }
    let mut chain = app.chain();
    let contents = undo(app, &mut chain, partial.reader()?, &partial.final_path())?;
    let count = chain.pump("reading back", contents, io::sink(), Count::default());
    chain.finish()?;
    let read = count.get()?.0;
    ensure!(
        read == bytes,
        "the file unpacks to {read} bytes, and {bytes} were packed"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::testing::TempDir;

    /// What the disk makes of a block is what counts.
    #[test]
    fn what_is_not_as_it_was_written_is_a_failure() {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        for (there, whole) in [(&b"written"[..], true), (b"wriTten", false), (b"writ", false)] {
            let partial = store.create(Kind::Redis, Stamp::now()).unwrap();
            partial.writer().unwrap().write_all(there).unwrap();
            let mut back = ReadBack::start(&partial, Count::default()).unwrap();
            let fed = back.feed(b"written").and_then(|()| back.end());
            assert_eq!(fed.is_ok(), whole);
            assert_eq!(back.observer.0, if whole { 7 } else { 0 });
        }
    }
}
