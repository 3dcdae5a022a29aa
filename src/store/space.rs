//! Room on disks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Kind, Store};
use crate::process;

/// A disk that backups are written to.
#[derive(Debug, PartialEq, Eq)]
pub struct Disk {
    /// A directory on it.
    pub dir: PathBuf,
    /// What is written to it.
    pub kinds: Vec<Kind>,
}

/// The disks of `backups/`, that of the directory itself first: one below it may be a link to another disk, or mounted.
pub fn disks(store: &Store) -> Vec<Disk> {
    let device = |dir: &Path| fs::metadata(dir).ok().map(|meta| meta.dev());
    let own = device(store.root());
    let mut disks = vec![(own, store.root().to_path_buf(), Vec::new())];
    for kind in Kind::ALL {
        let dir = store.dir(kind);
        // One that is missing is made where the others are.
        let device = device(&dir).or(own);
        match disks.iter_mut().find(|(of, ..)| *of == device) {
            Some((_, _, kinds)) => kinds.push(kind),
            None => disks.push((device, dir, vec![kind])),
        }
    }
    let disks = disks.into_iter();
    disks.map(|(_, dir, kinds)| Disk { dir, kinds }).collect()
}

/// The bytes that are free for us on the disk of `dir`, as `df` tells.
pub fn available(dir: &Path, stall: Duration) -> Result<u64> {
    let mut df = process::command("df");
    df.args(["-Pk", "--"]).arg(dir);
    let output = process::output("df", df, None, stall)?;
    free(&output.text()).context("df gave no number")
}

/// The free bytes that `df -Pk` tells of one file system: the field before the one with the percent sign, which no blank
/// in the device's name shifts.
pub fn free(df: &str) -> Option<u64> {
    let line = df.lines().nth(1)?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let used = fields.iter().position(|field| {
        field
            .strip_suffix('%')
            .is_some_and(|number| number.parse::<u8>().is_ok())
    })?;
    let kb: u64 = fields.get(used.checked_sub(1)?)?.parse().ok()?;
    kb.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_directory_may_be_on_a_disk_of_its_own() {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        for kind in [Kind::Postgres, Kind::N8n] {
            store.make_dir(kind).unwrap();
        }
        symlink("/proc", store.dir(Kind::Redis)).unwrap();
        let found = disks(&store);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].dir.as_path(), found[0].kinds.len()),
            (store.root(), Kind::ALL.len() - 1)
        );
        let other = Disk {
            dir: store.dir(Kind::Redis),
            kinds: vec![Kind::Redis],
        };
        assert_eq!(found[1], other);
    }

    #[test]
    fn df_is_read_by_its_percent_sign() {
        let head = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n";
        let root = format!("{head}/dev/vda         264212084 16142440  79143448      17% /\n");
        assert_eq!(free(&root), Some(79_143_448 * 1024));
        assert_eq!(
            free(&format!("{head}//nas/my files 10 5 3 63% /mnt/a 5% b\n")),
            Some(3072)
        );
        assert_eq!(free(&format!("{head}tmpfs 10 10 0 100% /x\n")), Some(0));
        for bad in ["", head, "a\nb", "a\n50%"] {
            assert_eq!(free(bad), None, "{bad}");
        }
    }
}
