//! One run at a time, by a lock that the kernel holds (`flock`): it goes with the process, whatever ends it.
//!
//! The file stays where it is. The process ID in it is for people; the file's existence means nothing. Whoever can open a
//! file can hold it, so a lock is for its owner alone.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Error, Result};

use crate::process::{hinted, shell_quote};
use crate::store::{atomic, Kind, SETS};

/// A lock that is ours until this is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    stale: bool,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum Attempt<T = Lock> {
    /// It is ours.
    Held(T),
    /// Another process holds it; its PID as the file tells it, `unknown` when it does not.
    Busy(String),
}

impl Lock {
    /// Tries to take the lock at `path`, made when it is missing. A link there, or no regular file, is refused: somebody may
    /// have planted it.
    pub fn attempt(path: &Path) -> Result<Attempt> {
        Self::attempt_for(path, path.parent().unwrap_or(path))
    }

    /// As [`Lock::attempt`]; where root makes the file, it belongs to the owner of `keeper`.
    fn attempt_for(path: &Path, keeper: &Path) -> Result<Attempt> {
        let file = open(path, keeper)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy(holder_of(&file))),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("Cannot lock {}", path.display()));
            }
        }
        let stale = file.metadata().is_ok_and(|meta| meta.len() > 0);
        let mut lock = Self { file, stale };
        lock.write_pid()
            .with_context(|| format!("Cannot write lock file {}", path.display()))?;
        Ok(Attempt::Held(lock))
    }

    /// Takes the lock at `path`, waiting for it up to `limit`; `waiting` is called with the holder's PID each time that it
    /// is not free.
    pub fn wait(path: &Path, limit: Duration, mut waiting: impl FnMut(&str) -> Result<()>) -> Result<Self> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(50);
        loop {
            match Self::attempt(path)? {
                Attempt::Held(lock) => return Ok(lock),
                Attempt::Busy(pid) if Instant::now() >= deadline => {
                    bail!("Backup already in progress (PID: {pid})")
                }
                Attempt::Busy(pid) => {
                    waiting(&pid)?;
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    /// Whether the last holder ended without giving the lock back.
    pub fn was_stale(&self) -> bool {
        self.stale
    }

    /// Another user's file can be locked and not written, and so can one on a full disk; the lock is as good without
    /// the number.
    fn write_pid(&mut self) -> io::Result<()> {
        let pid = format!("{}\n", std::process::id());
        match self.file.set_len(0).and_then(|()| self.file.write_all(pid.as_bytes())) {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => Ok(()),
            Err(error) if is_full(&error) => Ok(()),
            done => done,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An empty file tells the next holder that this one ended in good order.
        let _ = self.file.set_len(0);
        // A child that another thread has forked and that does not run its program yet has the descriptor too.
        let _ = self.file.unlock();
    }
}

/// The lock of a project that backup-all and the restores share: `backups/.lock`. Earlier versions, and the scripts before them,
/// know another file, which is taken and filled as well where it is ours; in a shared directory anybody can put one there.
/// The setting may name the one that decides, too.
#[derive(Debug)]
pub struct ProjectLock {
    deciding: Lock,
    shared: Result<Option<Lock>>,
}

impl ProjectLock {
    /// Tries to take the lock of the project whose backups lie in `root`, and `shared` with it.
    pub fn attempt(root: &Path, shared: &Path) -> Result<Attempt<Self>> {
        check_shared(root, shared)?;
        let path = component_lock(root);
        let deciding = match Lock::attempt(&path)? {
            Attempt::Held(lock) => lock,
            Attempt::Busy(pid) => return Ok(Attempt::Busy(pid)),
        };
        // A second lock on one file waits for the first, whoever holds that.
        if is_same(&path, shared) {
            let shared = Ok(None);
            return Ok(Attempt::Held(Self { deciding, shared }));
        }
        if is_strangers(shared, root) {
            let shared = Err(strangers(shared));
            return Ok(Attempt::Held(Self { deciding, shared }));
        }
        let shared = match Lock::attempt_for(shared, root) {
            Ok(Attempt::Held(lock)) => Ok(Some(lock)),
            // Earlier versions let everybody open it, and who has it open can hold it whatever its mode is now.
            Ok(Attempt::Busy(pid)) if !is_ours(&pid, root) => Err(held(shared)),
            Ok(Attempt::Busy(pid)) => return Ok(Attempt::Busy(pid)),
            // Others can fill a shared directory, too.
            Err(error) if error.downcast_ref().is_some_and(is_full) => Err(no_room(error)),
            Err(error) => return Err(error),
        };
        Ok(Attempt::Held(Self { deciding, shared }))
    }

    /// Whether the last holder ended without giving the lock back.
    pub fn was_stale(&self) -> bool {
        let mut all = self.shared.iter().flatten().chain([&self.deciding]);
        all.any(Lock::was_stale)
    }

    /// Why the file that earlier versions know is not held, if it is not.
    pub fn warning(&self) -> Option<&Error> {
        self.shared.as_ref().err()
    }
}

/// Whether two paths are of one file, also where that is not there yet. A link is one of its own.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let dir = path.parent()?.metadata().ok()?;
        Some((dir.dev(), dir.ino(), path.file_name()?.to_owned()))
    };
    one == other || place(one).is_some_and(|one| place(other) == Some(one))
}

/// Refuses a lock of one part of the project for all of it: a run would wait for itself.
pub fn check_shared(root: &Path, shared: &Path) -> Result<()> {
    let dirs = Kind::ALL.map(Kind::dir).into_iter().chain([SETS]);
    let parts = dirs.map(|dir| component_lock(&root.join(dir)));
    let mut parts = parts.chain([drill_lock(root), offsite_lock(root)]);
    if parts.any(|part| is_same(&part, shared)) {
        bail!(hinted(
            format_args!(
                "BACKUP_LOCK_FILE names {}, a lock of n8n-backup's own, for which each run would wait",
                shared.display()
            ),
            "set it in .env to a file outside of backups/, or leave it out"
        ));
    }
    Ok(())
}

fn strangers(path: &Path) -> Error {
    Error::new(hinted(
        format_args!(
            "Lock file {} belongs to another user, and is left alone",
            path.display()
        ),
        "have it removed, or set BACKUP_LOCK_FILE in .env to a file in a directory of yours",
    ))
}

fn held(path: &Path) -> Error {
    Error::new(hinted(
        format_args!(
            "Lock file {} is held, and not by a backup or restore: it is left alone",
            path.display()
        ),
        format_args!(
            "end what holds it (fuser -v {}), or set BACKUP_LOCK_FILE in .env to a file in a directory of yours",
            shell_quote(&path.to_string_lossy())
        ),
    ))
}

fn no_room(error: Error) -> Error {
    Error::new(hinted(
        format_args!("{error:#}: scripts of earlier versions do not see this run"),
        "make room on that disk, or set BACKUP_LOCK_FILE in .env to a file on another one",
    ))
}

/// Whether a disk has no room left, for bytes or for a file.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether what is at `path` is another user's: neither ours nor that of the owner of `keeper`.
pub fn is_strangers(path: &Path, keeper: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|meta| !atomic::is_trusted(meta.uid(), keeper))
}

/// Whether a process is one of ours, of root's or of the owner of `keeper`. A backup writes its PID, so that what it
/// does not hold is told by one that is not there.
pub fn is_ours(pid: &str, keeper: &Path) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == 0 || atomic::is_trusted(meta.uid(), keeper))
}

/// What a look at a lock shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nobody holds it.
    Free,
    /// Nobody holds it, and the last holder ended without giving it back.
    Stale,
    /// A process holds it; its PID.
    Busy(String),
}

/// Looks at a lock and changes nothing.
pub fn look_at(path: &Path) -> Result<Seen> {
    let context = || format!("Cannot open lock file {}", path.display());
    let Some(there) = regular(path)? else {
        return Ok(Seen::Free);
    };
    let file = File::open(path).with_context(context)?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Ok(Seen::Busy(holder_of(&file))),
        Err(TryLockError::Error(error)) => Err(error).with_context(context),
        Ok(()) if there.len() > 0 => Ok(Seen::Stale),
        Ok(()) => Ok(Seen::Free),
    }
}

/// What is at the path of a lock file; none when nothing is.
fn regular(path: &Path) -> Result<Option<fs::Metadata>> {
    match path.symlink_metadata() {
        Ok(there) if there.is_file() => Ok(Some(there)),
        Ok(_) => bail!(hinted(
            format_args!("Lock file {} is not a regular file", path.display()),
            "remove it, or set BACKUP_LOCK_FILE in .env"
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("Cannot open lock file {}", path.display())),
    }
}

/// Opens the lock file without following a link that somebody planted in a shared directory such as /tmp.
fn open(path: &Path, keeper: &Path) -> Result<File> {
    let context = || format!("Cannot open lock file {}", path.display());
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // What root makes must not stop the user's next run.
            atomic::give(&file, keeper).with_context(context)?;
            return Ok(file);
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(context),
    }
    let there = regular(path)?
        .ok_or_else(|| anyhow!("it is gone again"))
        .with_context(context)?;
    let file = match options.open(path) {
        // One of root's, as earlier versions left it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => File::open(path),
        other => other,
    };
    let file = file.with_context(context)?;
    let opened = file.metadata().with_context(context)?;
    if (opened.dev(), opened.ino()) != (there.dev(), there.ino()) {
        bail!("Lock file {} was replaced while it was opened", path.display());
    }
    // A second name may be that of a file which somebody wants to see emptied.
    if opened.nlink() != 1 {
        bail!(hinted(
            format_args!("Lock file {} has another name as well", path.display()),
            "remove it, or set BACKUP_LOCK_FILE in .env"
        ));
    }
    if opened.mode() & 0o077 != 0 {
        // Earlier versions let everybody open it. That of another user cannot be changed.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
    }
    Ok(file)
}

/// The PID in the file. A process that has just taken the lock has not written its own yet: the number there, if any, is of
/// one that ended.
fn holder_of(file: &File) -> String {
    let mut pid = None;
    for _ in 0..50 {
        pid = pid_in(file);
        if pid.as_deref().and_then(state_of).is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    pid.unwrap_or_else(|| "unknown".to_owned())
}

fn pid_in(file: &File) -> Option<String> {
    let mut bytes = [0; 32];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(&bytes[..length]).ok()?;
    text.trim().parse::<u32>().ok().map(|pid| pid.to_string())
}

/// The state of a process by its letter in /proc/PID/stat (proc(5): field 3; the name, field 2, may hold blanks and
/// parentheses); none when there is no such process here.
pub fn state_of(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.parse::<u32>().ok()?)).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// A backup file that is read for a while: the retention of another run leaves it until this is dropped. The lock is on the
/// file itself; where the file system has none, this does nothing.
#[derive(Debug)]
pub struct InUse {
    file: File,
}

impl InUse {
    /// Holds those of the files that are there.
    pub fn hold<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Vec<Self>> {
        paths
            .into_iter()
            .filter_map(|path| Self::one(path).transpose())
            .collect()
    }

    fn one(path: &Path) -> Result<Option<Self>> {
        let file = match atomic::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("Cannot read {}", path.display())),
        };
        if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            bail!("{} is just being deleted", path.display());
        }
        // Whether it was deleted before it was locked.
        Ok(path.exists().then_some(Self { file }))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // A child that is just being started has the file open, too.
        let _ = self.file.unlock();
    }
}

/// Deletes a file, unless it is [`InUse`]. Gives whether it is gone now.
pub fn remove_unused(path: &Path) -> io::Result<bool> {
    // On some network file systems an exclusive lock takes a file that is open for writing.
    let file = OpenOptions::new().read(true).write(true).open(path);
    let held = file.or_else(|_| File::open(path)).map(|file| (file.try_lock(), file));
    if matches!(held, Ok((Err(TryLockError::WouldBlock), _))) {
        return Ok(false);
    }
    fs::remove_file(path).map(|()| true)
}

/// The lock of one component's directory: two backups of the same component wait for each other.
pub fn component_lock(dir: &Path) -> PathBuf {
    dir.join(".lock")
}

/// The lock of the recovery tests of the project whose backups lie in `root`.
pub fn drill_lock(root: &Path) -> PathBuf {
    root.join(SETS).join(".drill.lock")
}

/// The lock of what is done at the off-site place.
pub fn offsite_lock(root: &Path) -> PathBuf {
    root.join(".offsite.lock")
}

#[cfg(test)]
mod tests;
