//! What the file system of a directory can do: tried, since names of file systems tell little.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::atomic::{is_ours, try_sync_dir};

/// What a place cannot do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A file cannot have two names.
    pub no_links: bool,
    /// The mode that others see, where it cannot be kept at 600.
    pub open_mode: Option<u32>,
    /// The user that files belong to, whoever makes them.
    pub owner: Option<u32>,
    /// A directory's names cannot be brought to disk.
    pub no_sync: bool,
}

/// Makes a file in `dir`, without a name that anything reads, and tries.
pub fn limits(dir: &Path) -> io::Result<Limits> {
    let probe = dir.join(format!(".doctor.{}", std::process::id()));
    let other = probe.with_extension("link");
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&probe)?;
    let tried = (|| {
        // A umask may take from what is asked for.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
        let meta = file.metadata()?;
        let mode = meta.mode() & 0o777;
        let linked = fs::hard_link(&probe, &other);
        if linked.is_ok() {
            fs::remove_file(&other)?;
        }
        Ok(Limits {
            no_links: linked.is_err(),
            open_mode: (mode & 0o077 != 0).then_some(mode),
            owner: (!is_ours(&meta)).then_some(meta.uid()),
            no_sync: try_sync_dir(dir).is_err(),
        })
    })();
    fs::remove_file(&probe)?;
    tried
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_usual_directory_has_no_limits_and_is_left_as_it_was() {
        let dir = TempDir::new();
        assert_eq!(limits(dir.path()).unwrap(), Limits::default());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(limits(&dir.path().join("none")).is_err());
    }
}
