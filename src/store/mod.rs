//! The directory `backups/`: names, publication, listing, and what dead runs left.
//!
//! A file has its final name only once it is whole, verified and on disk. Until then it is a [`Partial`], a dot-file in
//! the same directory, and only [`Partial::publish`] gives a final name.

pub mod atomic;
pub mod lock;
pub mod manifest;
pub mod remote;
pub mod retention;
pub mod space;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{bail, Context, Result};
use chrono::{Local, NaiveDateTime, TimeDelta, TimeZone};

/// What a backup file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A plain SQL dump of the database, gzipped.
    Postgres,
    /// A Redis snapshot.
    Redis,
    /// A tar archive of the n8n data volume, gzipped.
    N8n,
    /// A copy of `.env`.
    Env,
}

impl Kind {
    /// Every kind, in the order in which they are backed up.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Redis, Self::N8n, Self::Env];

    /// The directory below `backups/`, which is also the component's name.
    pub const fn dir(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::N8n => "n8n",
            Self::Env => "env",
        }
    }

    /// How a file name starts.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Postgres => "n8n_",
            Self::Redis => "dump_",
            Self::N8n => "n8n_data_",
            Self::Env => "env_",
        }
    }

    /// The kind of a backup file, by the directory it lies in and its name.
    pub fn of_path(path: &Path) -> Option<Self> {
        let dir = path.parent()?.file_name()?;
        let name = path.file_name()?.to_str()?;
        Self::ALL
            .into_iter()
            .find(|kind| dir == kind.dir() && kind.is_name(name))
    }

    /// The kind of a backup file by the end of its name alone, wherever it lies.
    pub fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        Self::ALL.into_iter().find(|kind| kind.is_name(name))
    }

    /// Whether a file of this kind may be called so: plain or encrypted.
    pub fn is_name(self, name: &str) -> bool {
        name.strip_suffix(ENCRYPTED).unwrap_or(name).ends_with(self.suffix())
    }

    /// The time in a file's name, plain or encrypted; none when the name is not as we write it.
    pub fn stamp_in(self, name: &str) -> Option<Stamp> {
        name.strip_suffix(ENCRYPTED)
            .unwrap_or(name)
            .strip_suffix(self.suffix())?
            .strip_prefix(self.prefix())
            .and_then(Stamp::parse)
    }

    /// How a file name ends, before it is encrypted.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Postgres => ".sql.gz",
            Self::Redis => ".rdb",
            Self::N8n => ".tar.gz",
            Self::Env => ".backup",
        }
    }
}

/// The local time in a file name, `YYYYMMDD_HHMMSS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(NaiveDateTime);

impl Stamp {
    const FORMAT: &'static str = "%Y%m%d_%H%M%S";

    /// The time now.
    pub fn now() -> Self {
        Self(Local::now().naive_local())
    }

    /// Reads a stamp as it stands in a file name.
    pub fn parse(text: &str) -> Option<Self> {
        // chrono alone would also take fewer digits.
        (text.len() == 15)
            .then(|| NaiveDateTime::parse_from_str(text, Self::FORMAT).ok().map(Self))
            .flatten()
    }

    /// The moment that it stands for; the later one of two where clocks were set back.
    pub fn time(self) -> SystemTime {
        // Where clocks were set forward, the time that they would have shown.
        let skipped = || Local.from_local_datetime(&(self.0 + TimeDelta::hours(1))).latest();
        match Local.from_local_datetime(&self.0).latest().or_else(skipped) {
            Some(time) => time.into(),
            None => self.0.and_utc().into(),
        }
    }

    /// The date and time itself.
    pub fn local(self) -> NaiveDateTime {
        self.0
    }

    /// Whether it lies more than a day after `now`: the clock was wrong once, or is.
    pub fn is_ahead(self, now: Self) -> bool {
        self.0 - now.0 > TimeDelta::days(1)
    }

    /// One second later.
    pub fn next(self) -> Self {
        Self(self.0.checked_add_signed(TimeDelta::seconds(1)).unwrap_or(self.0))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format(Self::FORMAT))
    }
}

/// A backup file under its final name.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// The time in its name, when that can be read.
    pub stamp: Option<Stamp>,
    /// When it was last written.
    pub modified: SystemTime,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it occupies on disk, in bytes.
    pub disk: u64,
}

/// The directory `backups/` of a project.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    encrypted: bool,
}

impl Store {
    /// The store at `root`; nothing is made yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, encrypted: false }
    }

    /// The same store, where what is written from now on has the name of an encrypted file, or has not. Both forms are
    /// found and listed.
    pub fn with_encryption(self, encrypted: bool) -> Self {
        Self { encrypted, ..self }
    }

    /// `backups/` itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one kind.
    pub fn dir(&self, kind: Kind) -> PathBuf {
        self.root.join(kind.dir())
    }

    /// Makes the directory of one kind when it is missing, for its owner alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_dir(&self, kind: Kind) -> Result<PathBuf> {
        let dir = self.dir(kind);
        make_dir(&dir)?;
        Ok(dir)
    }

    /// The final path of a backup that is written now.
    pub fn path(&self, kind: Kind, stamp: Stamp) -> PathBuf {
        self.path_as(kind, stamp, self.encrypted)
    }

    fn path_as(&self, kind: Kind, stamp: Stamp, encrypted: bool) -> PathBuf {
        let end = if encrypted { ENCRYPTED } else { "" };
        self.dir(kind)
            .join(format!("{}{stamp}{}{end}", kind.prefix(), kind.suffix()))
    }

    /// Whether there is a backup of this time, plain or encrypted.
    pub fn is_taken(&self, kind: Kind, stamp: Stamp) -> bool {
        [false, true]
            .into_iter()
            .any(|encrypted| self.path_as(kind, stamp, encrypted).symlink_metadata().is_ok())
    }

    /// The time now, or the first second after it whose names are all free. Where clocks were set back by an hour or less, as
    /// once a year, it is the second after the newest recovery point, so that the order of the names is that of the runs.
    pub fn free_stamp(&self) -> Stamp {
        let now = Stamp::now();
        let mut stamp = match self.newest_set() {
            Some(newest) if newest > now && newest.0 - now.0 <= TimeDelta::hours(1) => newest.next(),
            _ => now,
        };
        while self.set_path(stamp).symlink_metadata().is_ok()
            || Kind::ALL.iter().any(|kind| self.is_taken(*kind, stamp))
        {
            stamp = stamp.next();
        }
        stamp
    }

    /// The newest recovery point, by the names alone.
    fn newest_set(&self) -> Option<Stamp> {
        let sets = fs::read_dir(self.sets_dir()).ok()?;
        let names = sets.flatten().map(|item| item.file_name());
        names
            .filter_map(|name| Stamp::parse(name.to_str()?.strip_suffix(SET_SUFFIX)?))
            .max()
    }

    /// Where the recovery points lie.
    pub fn sets_dir(&self) -> PathBuf {
        self.root.join("sets")
    }

    /// The manifest of a recovery point.
    pub fn set_path(&self, stamp: Stamp) -> PathBuf {
        self.sets_dir().join(format!("{stamp}{SET_SUFFIX}"))
    }

    /// Opens a new file that is not yet a backup.
    ///
    /// # Errors
    /// When it cannot be made.
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

    /// The backups of one kind, oldest first. Other files are not in the list, nor is anything below the directory.
    ///
    /// # Errors
    /// When the directory cannot be read; one that does not exist is empty.
    pub fn list(&self, kind: Kind) -> Result<Vec<Entry>> {
        let dir = self.dir(kind);
        let mut entries = Vec::new();
        for item in read_dir(&dir)? {
            let item = item.with_context(|| format!("Cannot read {}", dir.display()))?;
            let name = item.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || !kind.is_name(&name) {
                continue;
            }
            let meta = match item.metadata() {
                Ok(meta) if meta.is_file() => meta,
                Ok(_) => continue,
                // Another run may have removed it since.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("Cannot read {}", item.path().display())),
            };
            entries.push(Entry {
                path: item.path(),
                stamp: kind.stamp_in(&name),
                modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                bytes: meta.len(),
                disk: meta.blocks() * 512,
            });
        }
        entries.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        Ok(entries)
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
    ///
    /// # Errors
    /// When the directory cannot be read or a file not be removed.
    pub fn sweep(&self, kind: Kind) -> Result<usize> {
        let dir = self.dir(kind);
        let mut removed = 0;
        for item in read_dir(&dir)? {
            let item = item.with_context(|| format!("Cannot read {}", dir.display()))?;
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

/// How the name of a recovery point's manifest ends.
pub const SET_SUFFIX: &str = ".sha256";
/// What an encrypted file's name ends with besides.
pub const ENCRYPTED: &str = ".gpg";
/// How the name of an unfinished file ends.
const PARTIAL: &str = ".partial";

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
    ///
    /// # Errors
    /// When no further handle is to be had.
    pub fn writer(&self) -> Result<File> {
        Ok(self.file.try_clone()?)
    }

    /// Opens the file anew, to read back what was written.
    ///
    /// # Errors
    /// When that fails.
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
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self) -> Result<()> {
        self.file
            .flush()
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("Cannot write to {}", self.dir().display()))
    }

    /// Gives the file its final name, which becomes a later second's when the name is taken. The contents must have
    /// been proven whole. Never replaces a file.
    ///
    /// # Errors
    /// When the file cannot be brought to disk or named.
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

/// Makes a directory and its parents when missing, for the owner alone.
pub fn make_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("Cannot create directory {}", dir.display()))
}

/// Brings a directory's entries to disk.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .with_context(|| format!("Cannot write directory {} to disk", dir.display()))
}

/// The items of a directory; none when it does not exist.
fn read_dir(dir: &Path) -> Result<Vec<std::io::Result<fs::DirEntry>>> {
    match fs::read_dir(dir) {
        Ok(items) => Ok(items.collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("Cannot read {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::TempDir;

    fn store() -> (TempDir, Store) {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        (dir, store)
    }

    #[test]
    fn only_publication_gives_a_final_name() {
        let (_dir, store) = store();
        let stamp = Stamp::parse("20260102_030405").unwrap();
        let partial = store.create(Kind::Postgres, stamp).unwrap();
        partial.writer().unwrap().write_all(b"whole").unwrap();
        assert!(store.list(Kind::Postgres).unwrap().is_empty());
        let entry = partial.publish().unwrap();
        assert_eq!(entry.path, store.dir(Kind::Postgres).join("n8n_20260102_030405.sql.gz"));
        assert_eq!(fs::read(&entry.path).unwrap(), b"whole");
        let mode = fs::metadata(&entry.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(store.dir(Kind::Postgres)).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_file_goes_at_once_and_a_dead_runs_at_the_next_sweep() {
        let (_dir, store) = store();
        let stamp = Stamp::now();
        drop(store.create(Kind::Redis, stamp).unwrap());
        assert_eq!(fs::read_dir(store.dir(Kind::Redis)).unwrap().count(), 0);
        std::mem::forget(store.create(Kind::Redis, stamp).unwrap());
        fs::write(store.dir(Kind::Redis).join(".gitkeep"), "").unwrap();
        assert_eq!(store.sweep(Kind::Redis).unwrap(), 1);
        assert!(store.dir(Kind::Redis).join(".gitkeep").exists());
    }

    #[test]
    fn a_name_that_is_taken_is_never_overwritten() {
        let (_dir, store) = store();
        let stamp = Stamp::parse("20261231_235959").unwrap();
        for text in ["first", "second"] {
            let partial = store.create(Kind::Env, stamp).unwrap();
            partial.writer().unwrap().write_all(text.as_bytes()).unwrap();
            partial.publish().unwrap();
        }
        assert_eq!(fs::read(store.path(Kind::Env, stamp)).unwrap(), b"first");
        assert_eq!(
            fs::read(store.dir(Kind::Env).join("env_20270101_000000.backup")).unwrap(),
            b"second"
        );
    }

    #[test]
    fn the_list_holds_backups_only() {
        let (_dir, store) = store();
        let dir = store.make_dir(Kind::N8n).unwrap();
        for name in [
            ".gitkeep",
            ".n8n_data_20260101_000000.tar.gz",
            "other.txt",
            "mine.tar.gz",
        ] {
            fs::write(dir.join(name), "x").unwrap();
        }
        fs::create_dir(dir.join("below.tar.gz")).unwrap();
        let list = store.list(Kind::N8n).unwrap();
        assert_eq!(list.len(), 1);
        assert!(list[0].path.ends_with("mine.tar.gz") && list[0].stamp.is_none());
    }

    #[test]
    fn both_forms_of_a_backup_are_one_kind() {
        let (_dir, store) = store();
        let stamp = Stamp::parse("20260102_030405").unwrap();
        let names: Vec<PathBuf> = [false, true]
            .into_iter()
            .map(|encrypted| {
                let partial = store
                    .clone()
                    .with_encryption(encrypted)
                    .create(Kind::Redis, stamp)
                    .unwrap();
                partial.publish().unwrap().path
            })
            .collect();
        assert!(names[0].ends_with("redis/dump_20260102_030405.rdb"));
        assert!(names[1].ends_with("redis/dump_20260102_030406.rdb.gpg"));
        for name in &names {
            assert_eq!(Kind::of_path(name), Some(Kind::Redis));
        }
        let list = store.list(Kind::Redis).unwrap();
        assert_eq!(list.iter().filter(|entry| entry.stamp.is_some()).count(), 2);
        assert!(!Kind::Redis.is_name("dump_20260102_030405.gpg") && !Kind::Redis.is_name("x.rdb.gpg.gpg"));
    }

    #[test]
    fn stamps_are_read_strictly() {
        assert!(Stamp::parse("20260229_000000").is_none());
        assert!(Stamp::parse("2026010_0000000").is_none());
        assert_eq!(Stamp::parse("20240229_235959").unwrap().to_string(), "20240229_235959");
    }
}
