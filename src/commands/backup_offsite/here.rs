//! Whether the files of a recovery point are here, and are what was backed up.

use std::fmt;

use anyhow::{ensure, Result};

use crate::app::App;
use crate::store::inventory::Inventory;
use crate::store::manifest::{Member, Point};
use crate::store::{is_there, total, Kind};
use crate::stream::read::sha256;

/// Whether every file of a point is there, as long as it was, and none was found damaged.
pub(super) fn is_here(app: &App, point: &Point) -> bool {
    point.damaged().is_empty()
        && point.members.iter().all(|member| {
            let meta = app.store.root().join(&member.name).metadata();
            meta.is_ok_and(|meta| meta.is_file() && point.size(member.kind).is_none_or(|bytes| bytes == meta.len()))
        })
}

/// The file of this kind is not what was backed up.
#[derive(Debug)]
pub(super) struct Changed(pub(super) Kind, pub(super) String);

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for Changed {}

/// Refuses a point with a file that is not what was backed up, which is [`Changed`].
pub(super) fn check_files(app: &App, point: &Point) -> Result<()> {
    for member in &point.members {
        let sum = sha256(&app.config, &app.store.root().join(&member.name))?;
        let what = || format!("{} is not what was backed up: its SHA-256 is {sum}", member.name);
        ensure!(sum == member.sha256, Changed(member.kind, what()));
    }
    Ok(())
}

/// Whether a point that was whole here has been deleted since, or is being: while others are sent for hours or days, the
/// retention goes on, and deletes the files before the manifests. A disk that went away takes all of a directory.
pub(super) fn is_gone(app: &App, point: &Point) -> bool {
    let store = &app.store;
    let files = point.members.iter().map(|member| store.root().join(&member.name));
    let is_whole = files.chain([point.path(store)]).all(|path| is_there(&path));
    let is_away = || {
        let known = [store.identity_path(), store.sets_dir()];
        let inventory = Inventory::take(store);
        !known.iter().all(|path| is_there(path)) || !inventory.is_ok_and(|inventory| inventory.away.is_empty())
    };
    !is_whole && !is_away()
}

pub(super) fn length(app: &App, point: &Point) -> u64 {
    let file = |member: &Member| app.store.root().join(&member.name).metadata();
    let files = point.members.iter().filter_map(|member| file(member).ok());
    total(files.map(|meta| meta.len()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::testing::TempDir;

    const STAMPS: [&str; 2] = ["20260102_020000", "20260101_020000"];

    /// A project in `dir`, with these recovery points of a snapshot each.
    fn project(dir: &Path, stamps: [&str; 2]) -> (App, [Point; 2]) {
        let app = App::new(Config::of_text(dir, Path::new(".env"), b"").unwrap());
        let root = app.store.root();
        for dir in ["redis", "sets"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let points = stamps.map(|stamp| {
            let name = format!("redis/dump_{stamp}.rdb");
            fs::write(root.join(&name), "x").unwrap();
            let sum = "0".repeat(64);
            let text = format!("# n8n-backup recovery point {stamp}\n# size.redis: 1\n{sum}  {name}\n");
            let point = Point::parse(&text).unwrap();
            fs::write(point.path(&app.store), text).unwrap();
            point
        });
        (app, points)
    }

    #[test]
    fn a_file_that_a_link_leads_to_is_here() {
        let dir = TempDir::new();
        let (app, [point, _]) = project(dir.path(), STAMPS);
        let (file, moved) = (app.store.root().join(&point.members[0].name), dir.path().join("moved"));
        fs::rename(&file, &moved).unwrap();
        assert!(!is_here(&app, &point));
        symlink(&moved, &file).unwrap();
        assert!(is_here(&app, &point));
        fs::write(&moved, "xx").unwrap();
        assert!(!is_here(&app, &point));
        fs::remove_file(&moved).unwrap();
        assert!(!is_here(&app, &point));
    }

    #[test]
    fn what_goes_with_its_disk_was_not_deleted() {
        let dir = TempDir::new();
        let (app, points) = project(dir.path(), STAMPS);
        let (root, aside) = (app.store.root(), dir.path().join("aside"));
        fs::write(app.store.identity_path(), "").unwrap();
        let old = &points[1];
        assert!(!is_gone(&app, old));
        for disk in [root.to_owned(), root.join("redis"), root.join("sets")] {
            fs::rename(&disk, &aside).unwrap();
            fs::create_dir(&disk).unwrap();
            assert!(!is_gone(&app, old), "{}", disk.display());
            fs::remove_dir(&disk).unwrap();
            fs::rename(&aside, &disk).unwrap();
        }
        // The retention deletes the file first.
        fs::remove_file(root.join(&old.members[0].name)).unwrap();
        assert!(is_gone(&app, old));
        fs::remove_file(old.path(&app.store)).unwrap();
        assert!(is_gone(&app, old));
    }
}
