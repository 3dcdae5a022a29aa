//! Small files: reading what must be a file, and writing one whole or not at all.
//!
//! What stands in the place of a file (a named pipe, a device, a link to one) is an error: to open or read it could take for
//! ever, with a lock held.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Stamp;
use crate::process::hinted;

/// `O_NONBLOCK` of Linux. It is there for what takes the place of the file while that is opened; on the few processors where
/// Linux has another number for it (MIPS, SPARC), this one changes nothing.
pub const NONBLOCK: i32 = 0o4000;

/// Opens a regular file, or a link to one, for reading.
pub fn open(path: &Path) -> io::Result<File> {
    check(path.metadata()?.is_file())?;
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    check(file.metadata()?.is_file())?;
    Ok(file)
}

/// What a regular file of at most `limit` bytes holds.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut contents)?;
    if contents.len() as u64 > limit {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it is longer than {limit} bytes"),
        ));
    }
    Ok(contents)
}

/// The text of a regular file of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// As [`read`]; none where there is no file. The empty directory that Docker makes in the place of a missing file,
/// which a container mounts, is none.
pub fn read_if_there(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let is_empty = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    match read(path, limit) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(_) if !path.is_symlink() && is_empty(path) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says what is wrong where something is not of the kind that it must be.
pub fn check(is_right: bool) -> io::Result<()> {
    match is_right {
        true => Ok(()),
        false => Err(io::Error::new(
            ErrorKind::InvalidInput,
            hinted("it is not a regular file", "remove it"),
        )),
    }
}

/// The user that this process runs as, without a system call of our own.
pub fn own_user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}

/// The user and group that a new file is to have: those of `keeper`, a directory, where root makes it for another user.
pub fn owner_for(keeper: &Path) -> Option<(u32, u32)> {
    let owner = fs::metadata(keeper).ok().map(|meta| (meta.uid(), meta.gid()))?;
    (own_user() == Some(0) && owner.0 != 0).then_some(owner)
}

/// Gives a file that root made for another user to that user. Where the file system has said whose it is (NFS that squashes root,
/// FAT), it stays so.
pub fn give(file: &File, keeper: &Path) -> io::Result<()> {
    match owner_for(keeper) {
        Some((user, group)) if is_ours(&file.metadata()?) => fchown(file, Some(user), Some(group)),
        _ => Ok(()),
    }
}

/// Whether a file belongs to the user that this process runs as.
pub fn is_ours(meta: &Metadata) -> bool {
    own_user() == Some(meta.uid())
}

/// Whether a user is ours, or the owner of `keeper`: whoever owns the backups may do with them what we do.
pub fn is_trusted(user: u32, keeper: &Path) -> bool {
    own_user() == Some(user) || fs::metadata(keeper).is_ok_and(|meta| meta.uid() == user)
}

/// Refuses to follow a symbolic link that another user may have planted: one that is neither ours nor root's must lead to a
/// file of its own owner.
pub fn check_link(path: &Path) -> io::Result<()> {
    let Ok(link) = path.symlink_metadata() else {
        return Ok(());
    };
    let safe = !link.is_symlink()
        || link.uid() == 0
        || own_user() == Some(link.uid())
        || path.metadata().is_ok_and(|target| target.uid() == link.uid());
    match safe {
        true => Ok(()),
        false => Err(io::Error::new(
            ErrorKind::PermissionDenied,
            hinted("it is a link of another user", "remove it"),
        )),
    }
}

/// Who may do what with a new file.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Its mode, also where a umask would take from it.
    pub mode: u32,
    /// Its user and group, where they are not to be those of this process, as far as this process may give them: only
    /// root may give a file away, and others only to a group of theirs. A group that does not get it may do no
    /// more with it than others.
    pub owner: Option<(u32, u32)>,
}

impl Access {
    /// For our user alone.
    pub const PRIVATE: Self = Self {
        mode: 0o600,
        owner: None,
    };

    /// For the owner of `keeper`, a directory, alone, where root works for that user; else for ours.
    pub fn private_in(keeper: &Path) -> Self {
        Self {
            owner: owner_for(keeper),
            ..Self::PRIVATE
        }
    }

    /// The mode without what the group may do and others may not.
    fn without_group(self) -> u32 {
        self.mode & (0o7707 | ((self.mode & 0o007) << 3))
    }

    /// Whether a file that was made with this access is ours, and not that of the user whom it is for. Root may do what
    /// it likes with it, whosever it is.
    fn lacks_user(self, made: &Metadata) -> bool {
        self.owner
            .is_some_and(|(user, _)| user != 0 && user != made.uid() && is_ours(made))
    }

    /// Refuses a file of ours that is to stand for one of another user, who would lose the right to it. Root, which can
    /// give it away but in some namespaces, may go on.
    fn check_given(self, file: &File) -> io::Result<()> {
        match self.owner {
            Some((user, _)) if self.lacks_user(&file.metadata()?) && own_user() != Some(0) => Err(io::Error::new(
                ErrorKind::PermissionDenied,
                hinted(
                    format_args!("only root can give it to user {user}, whose file it stands for"),
                    "run this as root, or as that user",
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Says so where a file that was made with this access could not be given to whom it is for, who so lacks a right
    /// to it.
    pub fn not_given(self, path: &Path) -> Option<String> {
        let (owner, made) = (self.owner?, path.metadata().ok()?);
        let lacks_group = owner.1 != made.gid() && is_ours(&made) && self.without_group() != self.mode;
        (self.lacks_user(&made) || lacks_group).then(|| {
            format!(
                "{} belongs to {}:{}, and only root can give it to {}:{}",
                path.display(),
                made.uid(),
                made.gid(),
                owner.0,
                owner.1
            )
        })
    }
}

/// Writes a file that is not there yet, and brings it to disk. Where a link is planted in its place, this fails.
pub fn create(path: &Path, contents: &[u8], access: Access) -> Result<()> {
    create_file(path, contents, access)
        .map(drop)
        .with_context(|| format!("Cannot write {}", path.display()))
}

/// Writes a new file that is named by the time, and brings it to disk. Where its name is taken, by a link too, the name is that
/// of a later second. One that is for another user, as the copy of a file of theirs, is theirs or not made. Gives its
/// path.
pub fn create_dated(name: impl Fn(Stamp) -> PathBuf, contents: &[u8], access: Access) -> Result<PathBuf> {
    let mut stamp = Stamp::now();
    loop {
        let path = name(stamp);
        let made = create_file(&path, contents, access)
            .and_then(|file| access.check_given(&file).inspect_err(|_| drop(fs::remove_file(&path))));
        match made {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => stamp = stamp.next(),
            Err(error) => return Err(error).with_context(|| format!("Cannot write {}", path.display())),
        }
    }
}

/// Refuses to take a file from another user: what replaces it could not be given to them. Whether it could is tried out
/// beside it, under a name that begins with `temporary`, since some file systems say by themselves whose a file is.
pub fn check_owner(path: &Path, temporary: &str) -> Result<()> {
    let Ok(old) = path.metadata() else { return Ok(()) };
    if old.uid() == 0 || is_ours(&old) || own_user() == Some(0) {
        return Ok(());
    }
    let access = Access {
        mode: 0o600,
        owner: Some((old.uid(), old.gid())),
    };
    let context = || format!("Cannot replace {}", path.display());
    check_link(path).with_context(context)?;
    let path = path.canonicalize().with_context(context)?;
    let name = |stamp| path.with_file_name(format!("{temporary}{stamp}-{}", std::process::id()));
    let made = create_dated(name, b"", access).with_context(context)?;
    fs::remove_file(made).with_context(context)
}

/// Puts a file in the place of the one at `path`, if there is one: whole, and on disk, or not at all. It is `temporary`, a
/// name in the same directory, until then; what a run that was killed has left there is removed. A link in either place is
/// replaced and not followed.
pub fn replace(path: &Path, temporary: &str, contents: &[u8], access: Access) -> Result<()> {
    let temporary = path.with_file_name(temporary);
    let written = (|| {
        if let Err(error) = fs::remove_file(&temporary) {
            if error.kind() != ErrorKind::NotFound {
                return Err(error);
            }
        }
        let file = create_file(&temporary, contents, access)?;
        let (ours, there) = (file.metadata()?, temporary.symlink_metadata()?);
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(io::Error::other("another process writes it, too"));
        }
        fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))
    })();
    written.with_context(|| format!("Cannot write {}", path.display()))?;
    sync_dir(&dir_of(path))
}

fn create_file(path: &Path, contents: &[u8], access: Access) -> io::Result<File> {
    // A group gets its rights with the file, and not before.
    let at_first = access.owner.map_or(access.mode, |_| access.without_group());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(at_first)
        .open(path)?;
    let written = (|| {
        file.write_all(contents)?;
        let made = file.metadata()?;
        let other = |owner: &(u32, u32)| *owner != (made.uid(), made.gid()) && is_ours(&made);
        let mode = match access.owner.filter(other) {
            Some(owner) if !give_to(&file, owner, made.gid())? => access.without_group(),
            _ => access.mode,
        };
        // A umask takes rights away. What gives more, as a file system without modes does, cannot be helped.
        if made.mode() & mode != mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.sync_all()
    })();
    match written {
        Ok(()) => Ok(file),
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Gives a file of the group `made` to a user and a group, or to the group alone where we may not do more. Gives
/// whether the group has it.
fn give_to(file: &File, (user, group): (u32, u32), made: u32) -> io::Result<bool> {
    // The latter is of a user whom a namespace does not know.
    let may_not = |error: &io::Error| matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput);
    match fchown(file, Some(user), Some(group)) {
        Err(error) if may_not(&error) => Ok(group == made || fchown(file, None, Some(group)).is_ok()),
        given => given.map(|()| true),
    }
}

/// Brings a directory's entries to disk, where the file system can be told to: some network file systems and FUSE cannot, and
/// bring them there by themselves.
pub fn sync_dir(dir: &Path) -> Result<()> {
    match try_sync_dir(dir) {
        Err(error) if !cannot(&error) => {
            Err(error).with_context(|| format!("Cannot write directory {} to disk", dir.display()))
        }
        _ => Ok(()),
    }
}

/// As [`sync_dir`], with an error where the file system cannot.
pub fn try_sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether a file system says that it has no such operation: `EINVAL`, `EOPNOTSUPP` or `ENOSYS`.
fn cannot(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// The directory that a path leads to.
fn dir_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{chown, symlink};
    use std::process::Command;

    use super::*;
    use crate::testing::{skip, TempDir};

    #[test]
    fn what_is_no_file_is_an_error_and_not_waited_for() {
        let dir = TempDir::new();
        let at = |name: &str| dir.path().join(name);
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        symlink("pipe", at("to-pipe")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        for name in ["pipe", "to-pipe", "zero", "."] {
            let error = open(&at(name)).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{name}: {error}");
        }
        assert_eq!(open(&at("missing")).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(at("file"), "12345").unwrap();
        symlink("file", at("link")).unwrap();
        assert_eq!(read_text(&at("link"), 5).unwrap(), "12345");
        assert_eq!(read_text(&at("file"), 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        fs::create_dir(at("made")).unwrap();
        for (name, there) in [("missing", false), ("made", false), ("link", true)] {
            assert_eq!(read_if_there(&at(name), 5).unwrap().is_some(), there, "{name}");
        }
        for name in ["pipe", "to-pipe", "zero", "."] {
            assert!(read_if_there(&at(name), 5).is_err(), "{name}");
        }
    }

    #[test]
    fn two_files_of_one_second_have_names_of_their_own() {
        let dir = TempDir::new();
        let path = |stamp| dir.path().join(format!("kept_{stamp}"));
        let made: Vec<PathBuf> = ["first", "second", "third"]
            .into_iter()
            .map(|text| create_dated(path, text.as_bytes(), Access::PRIVATE).unwrap())
            .collect();
        let texts: Vec<String> = made.iter().map(|path| read_text(path, 9).unwrap()).collect();
        assert_eq!(texts, ["first", "second", "third"]);
    }

    #[test]
    fn a_file_is_replaced_whole_and_with_its_mode() {
        let dir = TempDir::new();
        let path = dir.path().join("state");
        for (text, mode) in [("first", 0o600), ("second", 0o644)] {
            replace(&path, ".state.new", text.as_bytes(), Access { mode, owner: None }).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        // What a killed run has left is no obstacle, and nothing else is left.
        fs::write(dir.path().join(".state.new"), "half").unwrap();
        replace(&path, ".state.new", b"third", Access::PRIVATE).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("none/state"), ".state.new", b"", Access::PRIVATE).is_err());
    }

    /// An ordinary user writes files that were root's, or another group's, in a directory of theirs.
    #[test]
    fn an_owner_that_cannot_be_kept_stops_no_write() {
        let dir = TempDir::new();
        if own_user() == Some(0) {
            // The same as another user, by a copy of this program that they can run.
            let program = dir.path().join("tests");
            fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
            let mut again = Command::new("setpriv");
            again.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            again.arg(&program).args([
                "--exact",
                "store::atomic::tests::an_owner_that_cannot_be_kept_stops_no_write",
            ]);
            let output = again.current_dir("/").output().unwrap();
            assert!(
                String::from_utf8_lossy(&output.stdout).contains("1 passed"),
                "{output:?}"
            );
            return;
        }
        let ours = dir.path().metadata().unwrap();
        let (user, group) = (ours.uid(), ours.gid());
        let path = dir.path().join("state");
        for (owner, mode, becomes, is_told) in [
            ((user, group), 0o640, 0o640, false),
            ((0, group), 0o640, 0o640, false),
            ((0, 0), 0o600, 0o600, false),
            ((0, 0), 0o644, 0o644, false),
            ((0, 0), 0o640, 0o600, true),
            ((user, 0), 0o664, 0o644, true),
            ((user, 0), 0o600, 0o600, false),
            // That of a directory in which a lost file was.
            ((user + 1, group), 0o600, 0o600, true),
        ] {
            let access = Access {
                mode,
                owner: Some(owner),
            };
            replace(&path, ".state.new", b"text", access).unwrap();
            let made = path.metadata().unwrap();
            assert_eq!(
                (made.uid(), made.gid(), made.mode() & 0o777),
                (user, group, becomes),
                "{access:?}"
            );
            assert_eq!(access.not_given(&path).is_some(), is_told, "{access:?}");
        }
    }

    #[test]
    fn a_file_is_not_taken_from_its_owner() {
        let name = "store::atomic::tests::a_file_is_not_taken_from_its_owner";
        let place = "N8N_BACKUP_TEST_PLACE";
        if own_user() == Some(0) {
            let dir = TempDir::new();
            let (program, place_dir) = (dir.path().join("tests"), dir.path().join("place"));
            fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
            fs::create_dir(&place_dir).unwrap();
            for (file, owner) in [("theirs", 12345), ("roots", 0)] {
                fs::write(place_dir.join(file), "old").unwrap();
                chown(place_dir.join(file), Some(owner), Some(owner)).unwrap();
            }
            chown(&place_dir, Some(65534), Some(65534)).unwrap();
            let mut again = Command::new("setpriv");
            again.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            again.arg(&program).args(["--exact", name]).env(place, &place_dir);
            let output = again.current_dir("/").output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(told.contains("1 passed"), "{output:?}");
            return;
        }
        let Some(place) = std::env::var_os(place).map(PathBuf::from) else {
            return skip(name, "it needs root");
        };
        let access = |user| Access {
            mode: 0o600,
            owner: Some((user, user)),
        };
        let count = || fs::read_dir(&place).unwrap().count();
        let path = place.join("theirs");
        let kept = |stamp| place.join(format!("kept-{stamp}"));
        let error = check_owner(&path, ".new-").unwrap_err();
        assert!(
            format!("{error:#}").contains("only root can give it to user 12345"),
            "{error:#}"
        );
        assert!(create_dated(kept, b"old", access(12345)).is_err());
        assert_eq!((fs::read(&path).unwrap(), count()), (b"old".to_vec(), 2));
        // Root has all its rights to one that is ours, and one that is not there is taken from nobody.
        for (file, owner) in [("roots", 0), ("missing", 12345)] {
            check_owner(&place.join(file), ".new-").unwrap();
            replace(&place.join(file), ".new", b"new", access(owner)).unwrap();
        }
        create_dated(kept, b"old", access(0)).unwrap();
        assert_eq!(count(), 4);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = TempDir::new();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        for planted in ["state", ".state.new"] {
            symlink("victim", at(planted)).unwrap();
            assert!(create(&at(planted), b"x", Access::PRIVATE).is_err());
            replace(&at("state"), ".state.new", b"ours", Access::PRIVATE).unwrap();
            assert!(at("state").symlink_metadata().unwrap().is_file());
            assert_eq!(fs::read_to_string(at("victim")).unwrap(), "precious");
            fs::remove_file(at("state")).unwrap();
        }
        // A directory there is an error, and stays.
        fs::create_dir(at(".state.new")).unwrap();
        assert!(replace(&at("state"), ".state.new", b"", Access::PRIVATE).is_err());
        assert!(at(".state.new").is_dir());
    }
}
