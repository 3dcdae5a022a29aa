//! Which stack a recovery point is of: a random identity of the project, in `backups/.identity` and in each manifest. Off-site
//! it keeps stacks apart that share a place.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};

use anyhow::{bail, Context, Result};

use super::atomic::{self, Access};
use super::manifest::{self, Point, FETCHED};
use super::{disk, read_dir, Store};
use crate::process::hinted;

/// The fact of a manifest that has it.
const FACT: &str = "stack";
/// Why a point of another stack is restored by name only.
pub const OF_ANOTHER: &str = "of another stack";
/// Its length in hexadecimal digits.
const DIGITS: usize = 16;

/// The identity of a project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity(String);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Identity {
    /// Reads one, as people name it.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == DIGITS && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// That of a project, as far as it has one: as its file says, else as its newest recovery point does, of those that were
    /// made here if there are such, else as [`disk`] does.
    pub fn known(store: &Store) -> Result<Option<Self>> {
        let path = store.identity_path();
        match atomic::read_text(&path, 1024) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(Self::of_points(store)?.or_else(|| disk::identity(store)))
            }
            Err(error) => Err(error).with_context(|| format!("Cannot read {}", path.display())),
            Ok(text) => match Self::parse(text.trim()) {
                Some(known) => Ok(Some(known)),
                None => bail!(hinted(
                    format_args!("{} holds no identity", path.display()),
                    "remove it: the recovery points tell it, too"
                )),
            },
        }
    }

    fn of_points(store: &Store) -> Result<Option<Self>> {
        // One that was of another stack when it came still is.
        let points = points(store)?.filter(|point| point.fact(FETCHED).is_none_or(|fact| !fact.ends_with(OF_ANOTHER)));
        let told = points.filter_map(|point| Some((is_made_here(&point), point.time(), of(&point)?)));
        Ok(told.max().map(|(_, _, newest)| newest))
    }

    /// That of a project to which points come from elsewhere. None is told where it may take over theirs: where it knows none,
    /// and has made no point of its own.
    pub fn before_fetch(store: &Store) -> Result<Option<Self>> {
        match Self::known(store)? {
            None if !points(store)?.any(|point| is_made_here(&point)) => Ok(None),
            _ => Self::of_project(store).map(Some),
        }
    }

    /// That of a project, made when it has none.
    pub fn of_project(store: &Store) -> Result<Self> {
        let known = match Self::known(store)? {
            Some(known) if atomic::read_text(&store.identity_path(), 1024).is_ok() => return Ok(known),
            known => known,
        };
        let mut bytes = [0; DIGITS / 2];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut bytes))
            .context("Cannot read /dev/urandom")?;
        let random = Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        known.unwrap_or(random).adopt(store)
    }

    /// Makes it that of a project, unless that has got one meanwhile. Gives the one that it has.
    pub fn adopt(self, store: &Store) -> Result<Self> {
        let _lock = manifest::lock(store)?;
        if let Ok(text) = atomic::read_text(&store.identity_path(), 1024) {
            if let Some(known) = Self::parse(text.trim()) {
                return Ok(known);
            }
        }
        atomic::replace(
            &store.identity_path(),
            ".identity.partial",
            format!("{self}\n").as_bytes(),
            Access::private_in(store.root()),
        )?;
        Ok(self)
    }

    /// Says so in a recovery point.
    pub fn mark(&self, point: &mut Point) {
        point.set(FACT, &self.0);
    }
}

/// That of a recovery point; those of earlier versions have none.
pub fn of(point: &Point) -> Option<Identity> {
    Identity::parse(point.fact(FACT)?)
}

fn points(store: &Store) -> Result<impl Iterator<Item = Point> + '_> {
    let sets = read_dir(&store.sets_dir())?.into_iter().map(|item| item.path());
    Ok(sets.filter_map(|path| Point::load(&path).ok().filter(|point| point.path(store) == path)))
}

fn is_made_here(point: &Point) -> bool {
    point.fact(FETCHED).is_none()
}

/// Tells the points that are of another stack than this project's, such as those that were fetched from it. Where the identity file
/// is lost, the points tell whose they are; a project that never had one tells of none.
pub fn is_of_another(store: &Store) -> impl Fn(&Point) -> bool {
    let own = atomic::read_text(&store.identity_path(), 1024).ok();
    let own = own.and_then(|text| Identity::parse(text.trim()));
    let own = own.or_else(|| Identity::of_points(store).ok().flatten());
    move |point| own.is_some() && of(point).is_some_and(|of| Some(&of) != own.as_ref())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::store::inventory::list;
    use crate::store::Stamp;
    use crate::testing::TempDir;

    #[test]
    fn a_project_keeps_its_identity() {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        assert_eq!(Identity::known(&store).unwrap(), None);
        let first = Identity::of_project(&store).unwrap();
        assert_eq!(Identity::of_project(&store).unwrap(), first);
        let file = store.identity_path();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        // Two are not the same, and one that is there is not replaced.
        let other = Store::new(dir.path().join("other"));
        assert_ne!(Identity::of_project(&other).unwrap(), first);
        assert_eq!(
            Identity::parse("0123456789abcdef").unwrap().adopt(&store).unwrap(),
            first
        );
        for bad in [
            "",
            "0123456789abcde",
            "0123456789ABCDEF",
            "../456789abcdef0",
            "0123456789abcdef0",
        ] {
            assert_eq!(Identity::parse(bad), None, "{bad}");
        }
        fs::write(&file, "nothing").unwrap();
        assert!(Identity::of_project(&store).is_err());
    }

    #[test]
    fn a_lost_file_is_written_again_from_the_newest_point() {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        fs::create_dir_all(store.sets_dir()).unwrap();
        for (stamp, stack) in [
            ("20260101_020000", Some("00000000000000aa")),
            ("20260102_020000", Some("00000000000000bb")),
            ("20260103_020000", None),
            // Fetched from another stack.
            ("20260104_020000", Some("00000000000000cc")),
        ] {
            let mut point = Point::new(Stamp::parse(stamp).unwrap());
            point.set("deleted", "redis");
            if let Some(stack) = stack {
                Identity::parse(stack).unwrap().mark(&mut point);
            }
            if stack == Some("00000000000000cc") {
                point.set(FETCHED, "2026-01-05T00:00:00+00:00");
            }
            fs::write(point.path(&store), point.text()).unwrap();
        }
        // Also before that, the fetched one is of another.
        let listed = list(&store).unwrap().into_iter().map(|(_, point)| point.unwrap());
        let excluded = |point: &Point| point.excluded_from_latest() == Some(OF_ANOTHER);
        let excluded: Vec<bool> = listed.map(|point| excluded(&point)).collect();
        assert_eq!(excluded, [true, false, false, true]);
        assert!(!store.identity_path().exists());
        assert_eq!(Identity::of_project(&store).unwrap().to_string(), "00000000000000bb");
        assert!(store.identity_path().exists());
    }

    #[test]
    fn a_project_with_points_of_its_own_takes_over_no_identity() {
        let dir = TempDir::new();
        let store = Store::new(dir.path().join("backups"));
        fs::create_dir_all(store.sets_dir()).unwrap();
        assert_eq!(Identity::before_fetch(&store).unwrap(), None);
        let mut point = Point::new(Stamp::parse("20260101_020000").unwrap());
        point.set("deleted", "redis");
        point.set(FETCHED, "2026-01-05T00:00:00+00:00");
        fs::write(point.path(&store), point.text()).unwrap();
        assert_eq!(Identity::before_fetch(&store).unwrap(), None);
        let stack = Identity::parse("00000000000000aa");
        stack.clone().unwrap().mark(&mut point);
        for (fetched, known) in [("T", stack), ("T of another stack", None)] {
            point.set(FETCHED, fetched);
            fs::write(point.path(&store), point.text()).unwrap();
            assert_eq!(Identity::known(&store).unwrap(), known);
        }
        // As earlier versions have made it.
        point.unset(FACT);
        point.unset(FETCHED);
        fs::write(point.path(&store), point.text()).unwrap();
        let own = Identity::before_fetch(&store).unwrap();
        assert!(own.is_some() && own == Identity::known(&store).unwrap());
    }
}
