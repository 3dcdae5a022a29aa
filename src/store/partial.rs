//! A file that is not yet a backup.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{bail, Context, Result};

use super::atomic::sync_dir;
use super::{read_dir, Entry, Kind, Stamp, Store};

/// How the name of an unfinished file ends.
const PARTIAL: &str = ".partial";

impl Store {
    /// Opens a new file that is not yet a backup.
    pub fn create(&self, kind: Kind, stamp: Stamp) -> Result<Partial> {
        let dir = self.make_dir(kind)?;
        let temporary = dir.join(format!(".{}{stamp}.{}{PARTIAL}", kind.prefix(), std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(|| format!("Cannot create {}", temporary.display()))?;
        Ok(Partial {
            store: self.clone(),
            kind,
            stamp,
            temporary,
            file,
        })
    }

    /// The files of one kind that are being written, or were when their run died; none where that cannot be told.
    pub fn unfinished(&self, kind: Kind) -> Vec<Unfinished> {
        let items = fs::read_dir(self.dir(kind)).into_iter().flatten().flatten();
        let mut found: Vec<Unfinished> = items
            .filter(|item| is_partial(kind, &item.file_name().to_string_lossy()))
            .filter_map(|item| {
                let meta = item.metadata().ok()?;
                Some(Unfinished {
                    path: item.path(),
                    modified: meta.modified().ok()?,
                    bytes: meta.len(),
                })
            })
            .collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Removes what dead runs left in the directory of one kind; the caller holds its lock. Gives how many there were.
    pub fn sweep(&self, kind: Kind) -> Result<usize> {
        let dir = self.dir(kind);
        let mut removed = 0;
        for item in read_dir(&dir)? {
            let name = item.file_name();
            let name = name.to_string_lossy();
            if is_partial(kind, &name) {
                fs::remove_file(item.path()).with_context(|| format!("Cannot remove {}", item.path().display()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A file without a final name, as it is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
}

/// Whether a name is that of an unfinished file of a kind.
fn is_partial(kind: Kind, name: &str) -> bool {
    name.starts_with(&format!(".{}", kind.prefix())) && name.ends_with(PARTIAL)
}

/// A file that is not yet a backup. It is removed when this is dropped without being published.
#[derive(Debug)]
pub struct Partial {
    store: Store,
    kind: Kind,
    stamp: Stamp,
    temporary: PathBuf,
    file: File,
}

impl Partial {
    /// What writes to the file.
    pub fn writer(&self) -> Result<File> {
        Ok(self.file.try_clone()?)
    }

    /// Opens the file anew, to read back what was written.
    pub fn reader(&self) -> Result<File> {
        File::open(&self.temporary).with_context(|| format!("Cannot read {}", self.temporary.display()))
    }

    /// The name that it is to have, which tells what is in it.
    pub fn final_path(&self) -> PathBuf {
        self.store.path(self.kind, self.stamp)
    }

    /// A name for messages: the directory that it is written in.
    pub fn dir(&self) -> PathBuf {
        self.store.dir(self.kind)
    }

    /// Waits until the contents are on disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file
            .flush()
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("Cannot write to {}", self.dir().display()))
    }

    /// Gives the file its final name, which becomes a later second's when the name is taken. The contents must have
    /// been proven whole. Never replaces a file.
    pub fn publish(mut self) -> Result<Entry> {
        self.sync()?;
        let dir = self.dir();
        let (path, stamp) = self
            .link()
            .with_context(|| format!("Cannot name the backup in {}", dir.display()))?;
        // A rename took the temporary name with it; a link did not.
        let _ = fs::remove_file(&self.temporary);
        sync_dir(&dir)?;
        let meta = self.file.metadata()?;
        Ok(Entry {
            path,
            stamp: Some(stamp),
            modified: meta.modified()?,
            bytes: meta.len(),
            disk: meta.blocks() * 512,
        })
    }

    fn link(&self) -> Result<(PathBuf, Stamp)> {
        let mut stamp = self.stamp;
        for _ in 0..3600 {
            let path = self.store.path(self.kind, stamp);
            // The other form of the same name would be taken for the same backup.
            if self.store.is_taken(self.kind, stamp) {
                stamp = stamp.next();
                continue;
            }
            match fs::hard_link(&self.temporary, &path) {
                Ok(()) => return Ok((path, stamp)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => stamp = stamp.next(),
                // A file system without hard links; the component's lock keeps other runs of ours away.
                Err(_) if path.symlink_metadata().is_err() => {
                    fs::rename(&self.temporary, &path)?;
                    return Ok((path, stamp));
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("no free name")
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}
