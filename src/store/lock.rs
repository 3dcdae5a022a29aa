//! One run at a time, by a lock that the kernel holds (`flock`): it goes with the process, whatever ends it.
//!
//! The file stays where it is. The process ID in it is for people; the file's existence means nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

use crate::process::hinted;
use crate::store::atomic;

/// A lock that is ours until this is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    stale: bool,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Held(Lock),
    /// Another process holds it; its PID as the file tells it, `unknown` when it does not.
    Busy(String),
}

impl Lock {
    /// Tries to take the lock at `path`, made when it is missing. A link there, or no regular file, is refused: somebody may
    /// have planted it.
    pub fn attempt(path: &Path) -> Result<Attempt> {
        let file = open(path)?;
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

    /// Another user's file can be locked and not written; the lock is as good without the number.
    fn write_pid(&mut self) -> std::io::Result<()> {
        match self.file.set_len(0) {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.file.write_all(format!("{}\n", std::process::id()).as_bytes()),
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

/// Opens the lock file without following a link that somebody planted in a shared directory such as /tmp.
fn open(path: &Path) -> Result<File> {
    let context = || format!("Cannot open lock file {}", path.display());
    let mut options = OpenOptions::new();
    // Others may read it, and so lock it: a file that root left must not stop the user's next run.
    options.read(true).write(true).mode(0o644);
    match options.clone().create_new(true).open(path) {
        Ok(file) => return Ok(file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(context),
    }
    let there = path.symlink_metadata().with_context(context)?;
    if !there.is_file() {
        bail!(hinted(
            format_args!("Lock file {} is not a regular file", path.display()),
            "remove it, or set BACKUP_LOCK_FILE in .env"
        ));
    }
    let file = match options.open(path) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn one_holder_at_a_time_and_a_trace_of_a_dead_one() {
        let dir = TempDir::new();
        let path = dir.path().join("lock");
        let Attempt::Held(held) = Lock::attempt(&path).unwrap() else {
            panic!("not free")
        };
        assert!(!held.was_stale());
        let Attempt::Busy(pid) = Lock::attempt(&path).unwrap() else {
            panic!("not busy")
        };
        assert_eq!(pid, std::process::id().to_string());
        drop(held);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        std::fs::write(&path, "1\n").unwrap();
        let Attempt::Held(held) = Lock::attempt(&path).unwrap() else {
            panic!("not free")
        };
        assert!(held.was_stale());
    }

    #[test]
    fn the_pid_of_a_holder_that_has_just_begun_is_waited_for() {
        let dir = TempDir::new();
        let path = dir.path().join("lock");
        for left in ["", "4194304\n"] {
            std::fs::write(&path, left).unwrap();
            let held = File::open(&path).unwrap();
            held.lock().unwrap();
            thread::scope(|scope| {
                let told = scope.spawn(|| Lock::attempt(&path).unwrap());
                thread::sleep(Duration::from_millis(100));
                std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
                let Attempt::Busy(pid) = told.join().unwrap() else {
                    panic!("not busy")
                };
                assert_eq!(pid, std::process::id().to_string(), "{left:?}");
            });
            held.unlock().unwrap();
        }
        // Nobody writes one, as a person does who holds it by hand.
        std::fs::write(&path, "").unwrap();
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Busy(pid) if pid == "unknown"));
    }

    #[test]
    fn a_file_in_use_is_not_deleted() {
        let dir = TempDir::new();
        let (path, missing) = (dir.path().join("backup"), dir.path().join("missing"));
        fs::write(&path, "data").unwrap();
        let held = InUse::hold([path.as_path(), &missing]).unwrap();
        assert_eq!(held.len(), 1);
        // Several may read it at once.
        let second = InUse::hold([path.as_path()]).unwrap();
        drop(held);
        assert!(!remove_unused(&path).unwrap() && path.exists());
        drop(second);
        assert!(remove_unused(&path).unwrap() && !path.exists());
        assert_eq!(remove_unused(&path).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_planted_link_is_neither_followed_nor_written() {
        let dir = TempDir::new();
        let (target, path) = (dir.path().join("target"), dir.path().join("lock"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(Lock::attempt(&path).is_err());
        assert!(!target.exists());
        std::fs::write(&target, "keep").unwrap();
        assert!(Lock::attempt(&path)
            .unwrap_err()
            .to_string()
            .contains("not a regular file"));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");
    }

    #[test]
    fn a_file_that_may_only_be_read_serves() {
        let dir = TempDir::new();
        let path = dir.path().join("lock");
        std::fs::write(&path, "1\n").unwrap();
        let mut lock = Lock {
            file: File::open(&path).unwrap(),
            stale: false,
        };
        lock.file.try_lock().unwrap();
        lock.write_pid().unwrap();
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Busy(_)));
    }

    #[test]
    fn a_second_name_of_another_file_is_not_emptied() {
        let dir = TempDir::new();
        let (target, path) = (dir.path().join("target"), dir.path().join("lock"));
        std::fs::write(&target, "keep").unwrap();
        std::fs::hard_link(&target, &path).unwrap();
        assert!(Lock::attempt(&path).unwrap_err().to_string().contains("another name"));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");
    }

    #[test]
    fn waiting_ends() {
        let dir = TempDir::new();
        let path = dir.path().join("lock");
        let Attempt::Held(_held) = Lock::attempt(&path).unwrap() else {
            panic!("not free")
        };
        let mut told = String::new();
        let wait = |told: &mut String| {
            Lock::wait(&path, Duration::from_millis(150), |pid| {
                pid.clone_into(told);
                Ok(())
            })
        };
        let error = wait(&mut told).unwrap_err();
        assert!(error.to_string().starts_with("Backup already in progress"));
        assert_eq!(told, std::process::id().to_string());
        assert!(state_of(&told).is_some() && state_of("unknown").is_none());
        let error = Lock::wait(&path, Duration::from_secs(60), |_| bail!("enough")).unwrap_err();
        assert_eq!(error.to_string(), "enough");
    }
}
