//! The directory `backups/`: names, publication, listing, and what dead runs left.
//!
//! A file has its final name only once it is whole, verified and on disk. Until then it is a [`Partial`], a dot-file in
//! the same directory, and only [`Partial::publish`] gives a final name.

pub mod atomic;
pub mod disk;
pub mod identity;
pub mod inventory;
mod kind;
pub mod lock;
pub mod manifest;
pub mod marks;
pub mod offsite;
mod partial;
pub mod place;
pub mod remote;
pub mod retention;
pub mod shim;
pub mod space;
mod stamp;

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{lchown, DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use chrono::TimeDelta;

pub use kind::{Kind, ENCRYPTED};
pub use partial::{Partial, Unfinished};
pub use stamp::Stamp;

/// How the name of a recovery point's manifest ends.
pub const SET_SUFFIX: &str = ".sha256";
/// The directory of the manifests, here and off-site.
pub const SETS: &str = "sets";

/// A backup file under its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let stamp = match self.newest_set() {
            Some(newest) if newest > now && newest.local() - now.local() <= TimeDelta::hours(1) => newest.next(),
            _ => now,
        };
        stamp.free(|stamp| {
            self.set_path(stamp).symlink_metadata().is_ok() || Kind::ALL.iter().any(|kind| self.is_taken(*kind, stamp))
        })
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
        self.root.join(SETS)
    }

    /// The file of the project's identity.
    pub fn identity_path(&self) -> PathBuf {
        self.root.join(".identity")
    }

    /// The manifest of a recovery point.
    pub fn set_path(&self, stamp: Stamp) -> PathBuf {
        self.sets_dir().join(format!("{stamp}{SET_SUFFIX}"))
    }

    /// The backups of one kind, oldest first. Other files are not in the list, nor is anything below the directory. A
    /// directory that does not exist is empty.
    pub fn list(&self, kind: Kind) -> Result<Vec<Entry>> {
        let dir = self.dir(kind);
        let mut entries = Vec::new();
        for item in read_dir(&dir)? {
            let name = item.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || !kind.is_name(&name) {
                continue;
            }
            match item.metadata() {
                Ok(meta) if meta.is_file() => entries.push(entry_of(kind, item.path(), &meta)),
                Ok(_) => {}
                // Another run may have removed it since.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("Cannot read {}", item.path().display())),
            }
        }
        entries.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        Ok(entries)
    }
}

/// Makes a directory and its parents when missing, for the owner alone: where root makes them, for that of the directory
/// that they are in.
pub fn make_dir(dir: &Path) -> Result<()> {
    make_dir_as(dir, 0o700)
}

/// As [`make_dir`], with this mode.
pub fn make_dir_as(dir: &Path, mode: u32) -> Result<()> {
    let context = || format!("Cannot create directory {}", dir.display());
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !is_there(dir)).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .with_context(context)?;
    let keeper = missing.last().and_then(|dir| dir.parent());
    if let Some((user, group)) = keeper.and_then(atomic::owner_for) {
        let ours = |dir: &&&Path| dir.symlink_metadata().is_ok_and(|meta| atomic::is_ours(&meta));
        for dir in missing.iter().filter(ours) {
            lchown(dir, Some(user), Some(group)).with_context(context)?;
        }
    }
    Ok(())
}

/// The items of a directory; none when it does not exist. A link that leads nowhere is an error.
fn read_dir(dir: &Path) -> Result<Vec<fs::DirEntry>> {
    let items = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound && !is_there(dir) => return Ok(Vec::new()),
        items => items.and_then(Iterator::collect),
    };
    items.with_context(|| format!("Cannot read {}", dir.display()))
}

/// Whether there is anything at a path. Only the answer that there is nothing says so; an error does not.
pub fn is_there(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound)
}

/// Whether a directory, of which not all need be there, lies in `project` with each link on the way followed.
pub fn lies_in(project: &Path, dir: &Path) -> bool {
    let there = dir.ancestors().find(|dir| is_there(dir));
    there
        .and_then(|dir| dir.canonicalize().ok())
        .is_some_and(|dir| dir.starts_with(project))
}

/// The nearest time from 1970 to 9999: what a file system may hold beyond those is no date.
fn in_calendar(time: SystemTime) -> SystemTime {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    time.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST)
}

/// The sum of sizes, none of which may be believed.
pub fn total(sizes: impl IntoIterator<Item = u64>) -> u64 {
    sizes.into_iter().fold(0, u64::saturating_add)
}

fn entry_of(kind: Kind, path: PathBuf, meta: &fs::Metadata) -> Entry {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Entry {
        stamp: kind.stamp_in(&name),
        modified: in_calendar(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)),
        bytes: meta.len(),
        disk: meta.blocks().saturating_mul(512),
        path,
    }
}

/// A name of a project on this host, which a copy of it has not that lies in another directory or on another host.
pub fn owner_of(project: &Path) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let project = project.as_os_str().as_encoded_bytes();
    // FNV-1a, 64 bits: a short name without any character that a label or filter gives a meaning.
    let bytes = host.trim().bytes().chain([0]).chain(project.iter().copied());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
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
