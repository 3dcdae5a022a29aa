//! A stream on its way into a published file: compressed, encrypted, written, and read back from there.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use anyhow::{bail, ensure, Context as _, Result};

use super::checksum::{Digest, Sum};
use super::compress::{Compressor, Unpacking};
use super::encrypt::gpg;
use super::read::prove_encryption;
use crate::config::Config;
use crate::process::{Chain, Count, Finished, Observer, Pending};
use crate::report::log::Journal;
use crate::report::progress::Progress;
use crate::store::atomic::{self, Access};
use crate::store::{inventory, make_dir, Entry, Kind, Partial, Stamp, Store, ENCRYPTED};

/// Where a backup file goes.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The settings.
    pub config: &'a Config,
    /// The backups.
    pub store: &'a Store,
    /// What the file holds.
    pub kind: Kind,
    /// The run that it belongs to.
    pub stamp: Stamp,
}

impl Target<'_> {
    /// The file, without its final name yet.
    pub fn create(&self) -> Result<Partial> {
        self.store.create(self.kind, self.stamp)
    }

    /// How long the unpacked stream was at the last backup, as far as that was recorded.
    fn last_length(&self) -> Option<u64> {
        let points = inventory::list(self.store).ok()?;
        let fact = format!("{}.bytes", self.kind.name());
        points
            .into_iter()
            .rev()
            .find_map(|(_, point)| point.ok()?.fact(&fact)?.parse().ok())
    }
}

/// Publishes a file that is whole: on disk, and where it is encrypted to a key that is here, opened again to give the `bytes`
/// bytes that went in.
pub fn publish(config: &Config, mut partial: Partial, bytes: u64) -> Result<Entry> {
    partial.sync()?;
    prove_encryption(config, &partial, bytes)?;
    partial.publish()
}

/// Writes a short text for our user alone to a new file in `dir`, `name` with the time; encrypted when the settings say so.
/// Gives its path.
pub fn keep_text(config: &Config, dir: &Path, name: &str, text: String) -> Result<PathBuf> {
    make_dir(dir)?;
    let Some(encryption) = &config.encryption else {
        let path = |stamp| dir.join(format!("{name}_{stamp}.json"));
        return atomic::create_dated(path, text.as_bytes(), Access::PRIVATE);
    };
    let mut chain = Chain::new(config.stall);
    let (stream, _) = gpg(config)?.encrypt(&mut chain, encryption, Cursor::new(text.into_bytes()), ())?;
    let sealed = chain.pump("encrypting", stream, io::sink(), Vec::new());
    let sealed = sealed.get(&chain.finish()?)?;
    let path = |stamp| dir.join(format!("{name}_{stamp}.json{ENCRYPTED}"));
    atomic::create_dated(path, &sealed, Access::PRIVATE)
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
pub fn write<O: Observer>(
    config: &Config,
    chain: &mut Chain,
    partial: &Partial,
    stream: impl Read + Send + 'static,
    observer: O,
) -> Result<Written<O>> {
    let Some(encryption) = &config.encryption else {
        return write_as_is(config, chain, partial, stream, observer);
    };
    let (digest, sha256) = Digest::start(chain, config.path.as_ref())?;
    let observer = (observer, Count::default());
    let (stream, seen) = gpg(config)?.encrypt(chain, encryption, stream, observer)?;
    let digest = ReadBack::start(partial, digest)?;
    let stored = chain.pump(writing(partial), stream, partial.writer()?, digest);
    Ok(Written {
        seen: Seen::Encrypted(seen, stored),
        sha256,
    })
}

/// As [`write`], whatever the settings say of encryption.
pub fn write_as_is<O: Observer>(
    config: &Config,
    chain: &mut Chain,
    partial: &Partial,
    stream: impl Read + Send + 'static,
    observer: O,
) -> Result<Written<O>> {
    let (digest, sha256) = Digest::start(chain, config.path.as_ref())?;
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
    /// The observer, the stream's length and the file's SHA-256.
    pub fn get(self, finished: &Finished) -> Result<(O, u64, String)> {
        let (observer, count) = match self.seen {
            Seen::Plain(seen) => seen.get(finished)?.observer.0,
            Seen::Encrypted(seen, stored) => {
                stored.get(finished)?;
                seen.get(finished)?
            }
        };
        Ok((observer, count.0, self.sha256.get(finished)?))
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
        // The rest goes to disk while the processes of the chain end.
        if let Some(sync) = self.sync.take() {
            let _ = sync.try_send(());
        }
        self.observer.end()
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
    pub fn start(
        target: &Target<'_>,
        chain: &mut Chain,
        stream: impl Read + Send + 'static,
        observer: O,
        journal: Journal,
    ) -> Result<Self> {
        let config = target.config;
        let compressor = Compressor::choose(&config.compressor, config.path.as_ref())?;
        journal.info(format_args!("Compressing with {}", compressor.label()));
        let partial = target.create()?;
        let progress = Progress::new(target.kind.name(), || target.last_length());
        let observer = ((Count::default(), progress), observer);
        let (packed, observer) = compressor.compress(chain, stream, observer)?;
        let (unpacking, unpacked) = Unpacking::start(chain, config.path.as_ref())?;
        let written = write(config, chain, &partial, packed, unpacking)?;
        Ok(Self {
            partial,
            observer,
            unpacked,
            written,
        })
    }

    /// Takes the results, once the packed stream has unpacked to as many bytes as were packed.
    pub fn get(self, finished: &Finished) -> Result<(Partial, u64, O, String)> {
        let ((count, _), observer) = self.observer.get(finished)?;
        let (_, _, sha256) = self.written.get(finished)?;
        let unpacked = self.unpacked.get(finished)?.0;
        if unpacked != count.0 {
            bail!("the file unpacks to {unpacked} bytes, and {} were packed", count.0);
        }
        Ok((self.partial, count.0, observer, sha256))
    }
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
