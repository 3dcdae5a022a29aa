//! Whether `backups/` was a disk of its own, which is not mounted now. With it all is away that could tell of it: so each
//! backup there leaves the project's identity, the time of its point, and where the disk was mounted, in `logs/.identity`.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::atomic::{self, Access};
use super::identity::Identity;
use super::inventory::ROOT;
use super::manifest::Point;
use super::{owner_of, Store};

/// The longest trace that is read.
const LIMIT: u64 = 8192;

/// What the last backup on the disk has left.
struct Trace {
    identity: Identity,
    newest: SystemTime,
    /// Where the disk was mounted; earlier versions did not tell.
    mount: Option<PathBuf>,
}

impl Trace {
    /// That of this project. One that was copied with the directory of another project tells nothing.
    fn of(store: &Store) -> Option<Self> {
        let text = atomic::read_text(&trace_path(store.root()), LIMIT).ok()?;
        let mut words = text.trim_end_matches('\n').splitn(4, ' ');
        let identity = Identity::parse(words.next()?)?;
        let owner = words.next()?;
        let newest = UNIX_EPOCH.checked_add(Duration::from_secs(words.next()?.parse().ok()?))?;
        let mount = words.next().map(PathBuf::from);
        (owner == owner_of(store.root().parent()?)).then_some(Self {
            identity,
            newest,
            mount,
        })
    }
}

/// Where the trace lies; `root` is `backups/`.
pub fn trace_path(root: &Path) -> PathBuf {
    root.with_file_name("logs").join(".identity")
}

/// Leaves a trace of a new point, where `backups/` is a disk of its own, and not in the place of one that is away. No backup
/// fails where that cannot be written.
pub fn leave_trace(store: &Store, identity: &Identity, point: &Point) {
    if is_own(store) == Some(true) && !point.was_away(ROOT) {
        let _ = write_trace(store, identity, point);
    }
}

fn write_trace(store: &Store, identity: &Identity, point: &Point) -> Option<()> {
    let owner = owner_of(store.root().parent()?);
    let seconds = point.time().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let mount = store.root().canonicalize().ok().and_then(|root| mount_of(&root));
    let mount = mount.and_then(|mount| mount.to_str().map(|mount| format!(" {mount}")));
    let mount = mount.filter(|mount| !mount.contains('\n')).unwrap_or_default();
    let (path, text) = (
        trace_path(store.root()),
        format!("{identity} {owner} {seconds}{mount}\n"),
    );
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

/// Where the file system of a directory begins: the topmost of those above it that are on the same device.
fn mount_of(dir: &Path) -> Option<PathBuf> {
    let device = dir.metadata().ok()?.dev();
    let is_same = |dir: &&Path| dir.metadata().is_ok_and(|meta| meta.dev() == device);
    dir.ancestors().take_while(is_same).last().map(Path::to_owned)
}

/// Whether `root` lies at the mount point of a disk that is not mounted: what it is on begins at `now`, above that. A link that
/// leads to another place by now tells nothing.
fn is_unmounted(root: &Path, mount: &Path, now: &Path) -> bool {
    root.starts_with(mount) && mount.starts_with(now) && mount != now
}

/// Whether `backups/` is a link to a mount point whose disk is not mounted. The project may be on a third one.
fn is_beneath(store: &Store, trace: &Trace) -> bool {
    let beneath = || {
        let root = store.root().canonicalize().ok()?;
        Some(is_unmounted(&root, trace.mount.as_ref()?, &mount_of(&root)?))
    };
    beneath().unwrap_or(false)
}

/// The project's identity, as the trace tells it.
pub fn identity(store: &Store) -> Option<Identity> {
    Trace::of(store).map(|trace| trace.identity)
}

/// Where `backups/` is not on the disk of its own that it was on: the time of the newest point there. What was moved here is as new.
pub fn lost(store: &Store) -> Option<SystemTime> {
    let trace = Trace::of(store)?;
    let is_lost = is_own(store) == Some(false) || is_beneath(store, &trace);
    is_lost.then_some(trace.newest)
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
    fn a_disk_that_a_link_leads_to_is_missed_at_its_mount_point() {
        let is_unmounted =
            |root: &str, mount: &str, now: &str| is_unmounted(Path::new(root), Path::new(mount), Path::new(now));
        for root in ["/mnt/usb", "/mnt/usb/n8n"] {
            assert!(is_unmounted(root, "/mnt/usb", "/"), "{root}");
            assert!(is_unmounted(root, "/mnt/usb", "/mnt"), "{root}");
            assert!(!is_unmounted(root, "/mnt/usb", "/mnt/usb"), "{root}");
        }
        // The disk is mounted below that, or the link leads to another place.
        assert!(!is_unmounted("/mnt/usb/n8n", "/mnt", "/mnt/usb"));
        assert!(!is_unmounted("/mnt/new/n8n", "/mnt/usb", "/"));
        assert!(!is_unmounted("/mnt/usb2", "/mnt/usb", "/"));
        // What the root of all is on is always there.
        assert!(!is_unmounted("/srv/n8n", "/", "/"));
        assert_eq!(mount_of(Path::new("/proc/self")).unwrap(), Path::new("/proc"));
    }

    #[test]
    fn a_trace_tells_where_the_disk_was_mounted_if_it_does() {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        fs::create_dir(store.root()).unwrap();
        lose(&store, "20260101_020000");
        let mount = |store: &Store| Trace::of(store).unwrap().mount;
        let root = store.root().canonicalize().unwrap();
        assert_eq!(mount(&store), mount_of(&root));
        assert!(root.starts_with(mount(&store).unwrap()));
        let path = trace_path(store.root());
        let text = fs::read_to_string(&path).unwrap();
        let words: Vec<&str> = text.trim_end().splitn(4, ' ').collect();
        // As earlier versions wrote it; and a name with a blank.
        fs::write(&path, format!("{}\n", words[..3].join(" "))).unwrap();
        assert!(mount(&store).is_none() && lost(&store).is_some());
        fs::write(&path, format!("{} /mnt/my disk\n", words[..3].join(" "))).unwrap();
        assert_eq!(mount(&store).unwrap(), Path::new("/mnt/my disk"));
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
