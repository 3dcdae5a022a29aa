//! Whether `backups/` was a disk of its own, which is not mounted now. With it all is away that could tell of it: so each
//! backup there leaves the project's identity, and the time of its point, in `logs/.identity`.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::atomic::{self, Access};
use super::identity::Identity;
use super::manifest::Point;
use super::{owner_of, Store};

/// What the last backup on the disk has left.
struct Trace {
    identity: Identity,
    newest: SystemTime,
}

impl Trace {
    /// That of this project. One that was copied with the directory of another project tells nothing.
    fn of(store: &Store) -> Option<Self> {
        let text = atomic::read_text(&trace_path(store.root()), 1024).ok()?;
        let mut words = text.split_whitespace();
        let identity = Identity::parse(words.next()?)?;
        let owner = words.next()?;
        let newest = UNIX_EPOCH.checked_add(Duration::from_secs(words.next()?.parse().ok()?))?;
        (owner == owner_of(store.root().parent()?)).then_some(Self { identity, newest })
    }
}

/// Where the trace lies; `root` is `backups/`.
pub fn trace_path(root: &Path) -> PathBuf {
    root.with_file_name("logs").join(".identity")
}

/// Leaves a trace of a new point, where `backups/` is a disk of its own. No backup fails where that cannot be written.
pub fn leave_trace(store: &Store, identity: &Identity, point: &Point) {
    if is_own(store) == Some(true) {
        let _ = write_trace(store, identity, point);
    }
}

fn write_trace(store: &Store, identity: &Identity, point: &Point) -> Option<()> {
    let owner = owner_of(store.root().parent()?);
    let seconds = point.time().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let (path, text) = (trace_path(store.root()), format!("{identity} {owner} {seconds}\n"));
    let access = Access::private_in(path.parent()?);
    atomic::replace(&path, ".identity.partial", text.as_bytes(), access).ok()
}

/// Whether `backups/` is on another disk than what it lies in; what is not there is not. Nothing where it cannot be told.
fn is_own(store: &Store) -> Option<bool> {
    let project = store.root().parent()?.metadata().ok()?;
    match store.root().metadata() {
        Ok(meta) => Some(meta.dev() != project.dev()),
        Err(error) => (error.kind() == ErrorKind::NotFound).then_some(false),
    }
}

/// The project's identity, as the trace tells it.
pub fn identity(store: &Store) -> Option<Identity> {
    Trace::of(store).map(|trace| trace.identity)
}

/// Where `backups/` is no disk of its own, but was: the time of the newest point there. What was moved here is as new.
pub fn lost(store: &Store) -> Option<SystemTime> {
    let is_lost = is_own(store) == Some(false);
    Trace::of(store).filter(|_| is_lost).map(|trace| trace.newest)
}

#[cfg(test)]
pub mod tests {
    use std::fs;

    use super::*;
    use crate::store::Stamp;
    use crate::testing::TempDir;

    /// Has the project of `store` lose a disk whose newest point was of this time.
    pub fn lose(store: &Store, stamp: &str) -> Identity {
        let identity = Identity::parse("00000000000000aa").unwrap();
        fs::create_dir_all(trace_path(store.root()).parent().unwrap()).unwrap();
        write_trace(store, &identity, &Point::new(Stamp::parse(stamp).unwrap())).unwrap();
        identity
    }

    #[test]
    fn a_disk_that_is_not_mounted_is_missed() {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        // On the project's disk there is nothing to miss.
        let other = Identity::of_project(&store).unwrap();
        leave_trace(&store, &other, &Point::new(Stamp::parse("20260101_020000").unwrap()));
        assert!(!trace_path(store.root()).exists() && lost(&store).is_none());
        fs::remove_dir_all(store.root()).unwrap();
        let own = lose(&store, "20260101_020000");
        assert!(Identity::known(&store).unwrap() == Some(own.clone()) && lost(&store).is_some());
        // The next night is another one of the same stack.
        assert_eq!(Identity::of_project(&store).unwrap(), own);
        assert!(lost(&store).is_some());
    }

    #[test]
    fn a_trace_that_was_copied_tells_nothing_of_the_copy() {
        let (dir, copy) = (TempDir::new(), TempDir::new());
        let [store, other] = [&dir, &copy].map(|dir| Store::new(dir.path().join("backups")));
        let own = lose(&store, "20260101_020000");
        fs::create_dir(copy.path().join("logs")).unwrap();
        fs::copy(trace_path(store.root()), trace_path(other.root())).unwrap();
        assert!(identity(&store) == Some(own) && lost(&store).is_some());
        assert!(identity(&other).is_none() && lost(&other).is_none());
    }
}
