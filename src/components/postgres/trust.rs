//! Which dumps are taken as they are.
//!
//! A dump is a program for `psql` and the server. Files of our own are loaded with the rights of the user that
//! restores: those that a manifest records, and those that nobody but the caller or root could have written. What came
//! from off-site in clear is neither, though it lies there and a manifest came along with it. For any other file the
//! user has to vouch, by `--trust-dump`; else a role that may do nothing but fill the staged database loads it, and
//! only where `psql` knows `\restrict`, under which it runs no command of its own that a dump holds.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{ensure, Result};

use crate::app::App;
use crate::process::hinted;
use crate::store::manifest::Point;
use crate::store::{atomic, inventory, is_there, Kind, ENCRYPTED};
use crate::stream::read::sha256;

/// What to do about a dump of unknown origin that needs more rights.
pub(super) const TRUST_IT: &str = "add --trust-dump if you know where the file is from";

/// Whether a file may be loaded with the rights of the user that restores. One of unknown origin is refused where `psql`
/// cannot be restricted.
pub fn is_trusted(app: &App, file: &Path, restrict: bool, vouched_for: bool) -> Result<bool> {
    if vouched_for || is_ours(app, file) && !was_fetched_plain(app, file)? || is_recorded(app, file)? {
        return Ok(true);
    }
    ensure!(
        restrict,
        hinted(
            "The dump is of unknown origin: no recovery point that was made here or encrypted records it, it is not a file \
             in backups/postgres that only you can write, and the psql of this server cannot be kept from running \
             commands that a dump holds",
            "add --trust-dump if you know where the file is from, or let the container's image bring psql 15.14, 16.10, \
             17.6 or newer"
        )
    );
    Ok(false)
}

/// Whether a recovery point records a file of this very contents, wherever it lies now. One that was fetched knows who
/// made them only where they were encrypted.
fn is_recorded(app: &App, file: &Path) -> Result<bool> {
    let sum = sha256(&app.config, file)?;
    let mut points = inventory::list(&app.store)?
        .into_iter()
        .filter_map(|(_, point)| point.ok());
    Ok(points.any(|point| {
        let mut members = point.members.iter();
        members
            .any(|member| member.kind == Kind::Postgres && member.sha256 == sum && !point.may_be_anybodys(&member.name))
    }))
}

/// Whether it lies where fetch-offsite has put it, in clear. A manifest of its time that cannot be read may say so.
fn was_fetched_plain(app: &App, file: &Path) -> Result<bool> {
    if let Some((point, member)) = inventory::point_of(&app.store, file)? {
        return Ok(point.may_be_anybodys(&member.name));
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let set = Kind::Postgres.stamp_in(&name).map(|stamp| app.store.set_path(stamp));
    let is_unread = set.is_some_and(|set| is_there(&set) && Point::load(&set).is_err());
    Ok(is_unread && !name.ends_with(ENCRYPTED))
}

/// Whether a file lies in `backups/postgres`, and nobody but the caller and root can write to it or put it there.
fn is_ours(app: &App, file: &Path) -> bool {
    // The owner of our own process, without a system call of our own.
    let (Ok(us), Ok(real), Ok(dir)) = (
        atomic::own_user().ok_or(()),
        file.canonicalize(),
        // It may be a link to another disk.
        app.store.dir(Kind::Postgres).canonicalize(),
    ) else {
        return false;
    };
    let safe = |path: &Path| {
        path.metadata()
            .is_ok_and(|meta| (meta.uid() == us || meta.uid() == 0) && meta.mode() & 0o022 == 0)
    };
    real.parent() == Some(dir.as_path()) && !file.is_symlink() && safe(&real) && safe(&dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::manifest::{Member, FETCHED};
    use crate::store::Stamp;
    use crate::testing::TempDir;
    use std::fs;
    use std::os::unix::fs::{symlink, PermissionsExt};

    #[test]
    fn a_plain_file_from_off_site_is_not_ours() {
        let project = TempDir::new();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        let dir = app.store.make_dir(Kind::Postgres).unwrap();
        let record = |stamp: &str, end: &str, fetched: bool| {
            let file = dir.join(format!("n8n_{stamp}.sql.gz{end}"));
            fs::write(&file, stamp).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            let mut point = Point::new(Stamp::parse(stamp).unwrap());
            point.members.push(Member {
                kind: Kind::Postgres,
                name: format!("postgres/n8n_{stamp}.sql.gz{end}"),
                sha256: sha256(&app.config, &file).unwrap(),
            });
            if fetched {
                point.set(FETCHED, "2026-01-05T00:00:00+00:00");
            }
            point.write(&app.store).unwrap();
            file
        };
        for (file, ours) in [
            (record("20260102_030405", "", false), true),
            (record("20260103_030405", "", true), false),
            (record("20260104_030405", ".gpg", true), true),
        ] {
            let copy = project.path().join("copy.sql.gz");
            fs::copy(&file, &copy).unwrap();
            for file in [&file, &copy] {
                assert_eq!(is_trusted(&app, file, true, false).unwrap(), ours, "{}", file.display());
                assert_eq!(is_trusted(&app, file, false, false).is_ok(), ours);
                assert!(is_trusted(&app, file, false, true).unwrap());
            }
        }
    }

    #[test]
    fn a_file_whose_manifest_cannot_be_read_is_not_ours() {
        let project = TempDir::new();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        let dir = app.store.make_dir(Kind::Postgres).unwrap();
        fs::create_dir_all(app.store.sets_dir()).unwrap();
        fs::write(app.store.set_path(Stamp::parse("20260102_030405").unwrap()), "").unwrap();
        for (name, ours) in [
            ("n8n_20260102_030405.sql.gz", false),
            ("n8n_20260102_030405.sql.gz.gpg", true),
            ("n8n_20260102_030406.sql.gz", true),
        ] {
            let file = dir.join(name);
            fs::write(&file, "x").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(is_trusted(&app, &file, true, false).unwrap(), ours, "{name}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_not_ours() {
        let project = TempDir::new();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        let dir = app.store.make_dir(Kind::Postgres).unwrap();
        let file = dir.join("n8n_20260102_030405.sql.gz");
        fs::write(&file, "x").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(&dir, 0o755);
        for (bits, ours) in [(0o600, true), (0o644, true), (0o660, false), (0o602, false)] {
            mode(&file, bits);
            assert_eq!(is_ours(&app, &file), ours, "{bits:o}");
            assert_eq!(is_trusted(&app, &file, false, false).is_ok(), ours);
            assert_eq!(is_trusted(&app, &file, true, false).unwrap(), ours);
        }
        assert!(is_trusted(&app, &file, false, true).unwrap());
        mode(&file, 0o600);
        mode(&dir, 0o777);
        assert!(!is_ours(&app, &file));
        mode(&dir, 0o755);
        let other = project.path().join("n8n_20260102_030405.sql.gz");
        fs::copy(&file, &other).unwrap();
        assert!(!is_ours(&app, &other));
        let link = dir.join("n8n_20260102_030406.sql.gz");
        symlink(&other, &link).unwrap();
        assert!(!is_ours(&app, &link));
        let link = project.path().join("link.sql.gz");
        symlink(&file, &link).unwrap();
        assert!(!is_ours(&app, &link));
        // The directory itself may lie on another disk.
        let away = project.path().join("away");
        fs::rename(&dir, &away).unwrap();
        symlink(&away, &dir).unwrap();
        assert!(is_ours(&app, &file));
        mode(&away, 0o770);
        assert!(!is_ours(&app, &file));
    }
}
