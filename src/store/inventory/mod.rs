//! Everything in `backups/`: the recovery points with their files, the files that belong to none, and what cannot be told.
//!
//! "Not there" is a state of the moment. A disk that is not mounted leaves an empty directory, and a stale handle or a right
//! that was lost leaves an error; neither says anything of the files. Where a directory holds nothing of what the recovery
//! points name, it is [`Away`], and nobody must conclude anything from it, the retention least of all.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{anyhow, bail, Error, Result};

use super::manifest::{Member, Point};
use super::marks::Mark;
use super::{disk, entry_of, identity, is_there, read_dir, Entry, Kind, Stamp, Store, SETS, SET_SUFFIX};
use crate::process::{hinted, shell_quote};

/// A time that lies further ahead than this was dated by a clock that is wrong, or today's is. An hour is what clocks are set
/// back in autumn, and a name without a manifest tells local time.
const SKEW: Duration = Duration::from_secs(65 * 60);
/// What one clock shows at the same moment in two time zones lies closer together than this.
const ZONES: Duration = Duration::from_secs(28 * 3600);

/// Whether something was dated in the future.
pub fn is_ahead(time: SystemTime, now: SystemTime) -> bool {
    time > now + SKEW
}

/// The order of whatever has a newest one: by the instant, and where that is the same, by name. What is dated in the future
/// comes after all that is not: it hides nothing, and is there where nothing else is.
pub fn newest_first<T, K: Ord>(items: &mut [T], now: SystemTime, key: impl Fn(&T) -> (SystemTime, K)) {
    items.sort_by_cached_key(|item| {
        let (time, name) = key(item);
        Reverse((!is_ahead(time, now), time, name))
    });
}

/// Points in the order of [`newest_first`], of which the names alone are known: `look` is asked for one's instant, and whether it
/// is one that is looked for, and gives nothing of what counts for nothing. Since names tell local time, those are looked at that
/// may be newer than the newest that is looked for, and no others.
pub fn look_newest_first<T: Copy, L>(
    sets: impl IntoIterator<Item = (Stamp, T)>,
    now: SystemTime,
    mut look: impl FnMut(Stamp, T) -> Result<Option<(SystemTime, bool, L)>>,
) -> Result<Vec<L>> {
    let mut sets: Vec<(Stamp, T)> = sets.into_iter().collect();
    // Ahead in each time zone.
    let ahead = now + ZONES;
    newest_first(&mut sets, ahead, |(stamp, _)| (stamp.time(), *stamp));
    let mut looked = Vec::new();
    let mut newest = None;
    for (stamp, place) in sets {
        let older = |newest| is_ahead(stamp.time(), ahead) || stamp.time() + ZONES <= newest;
        if newest.is_some_and(older) {
            break;
        }
        let Some((time, wanted, found)) = look(stamp, place)? else {
            continue;
        };
        if wanted && !is_ahead(time, now) {
            newest = newest.max(Some(time));
        }
        looked.push((time, stamp, found));
    }
    newest_first(&mut looked, now, |(time, stamp, _)| (*time, *stamp));
    Ok(looked.into_iter().map(|(_, _, found)| found).collect())
}

/// What has become of a file of a recovery point, as far as can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there, as long as it was.
    Present,
    /// It is not there now.
    Missing,
    /// Whether it is there cannot be told, or something else is in its place.
    Unreadable,
    /// Its length is not that of the backup.
    Changed,
    /// It is there, and a verification has found other contents than those of the backup.
    Damaged,
}

impl State {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Changed => "changed",
            Self::Damaged => "damaged",
        }
    }

    /// Whether the file was seen.
    fn is_seen(self) -> bool {
        !matches!(self, Self::Missing | Self::Unreadable)
    }
}

/// A file of a recovery point.
#[derive(Clone, Debug)]
pub struct MemberOnDisk {
    /// What the manifest says of it.
    pub member: Member,
    /// The file, where it was seen.
    pub entry: Option<Entry>,
    /// What has become of it.
    pub state: State,
}

/// A recovery point with its files.
#[derive(Clone, Debug)]
pub struct PointOnDisk {
    /// The point.
    pub point: Point,
    /// Its files.
    pub files: Vec<MemberOnDisk>,
}

impl PointOnDisk {
    /// Whether every component is in it, and every file as it was, as far as can be told without reading them.
    pub fn is_complete(&self) -> bool {
        self.point.is_complete() && self.is_sound()
    }

    /// Whether every file that was in it is as it was, as far as can be told without reading them.
    pub fn is_sound(&self) -> bool {
        self.point.listed("deleted").is_empty() && self.files.iter().all(|file| file.state == State::Present)
    }
}

/// A directory that does not hold what it should, so that nothing can be told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// Its name below `backups/`, or that of `backups/` itself.
    pub name: &'static str,
    /// The directory.
    pub dir: PathBuf,
    named: usize,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.dir.display();
        match self.name {
            SETS => write!(f, "{dir} holds none of the recovery points that the backups belong to"),
            ROOT => write!(f, "{dir} is not the disk of its own that held the recovery points"),
            _ => write!(
                f,
                "{dir} holds none of the {} file(s) that recovery points name",
                self.named
            ),
        }
    }
}

impl Away {
    /// Whether points name what it should hold, so that each of its files is missed by itself.
    pub fn is_missed_by_name(&self) -> bool {
        self.named > 0
    }

    /// How to say that its files were deleted on purpose, where that can be said.
    pub fn way_out(&self) -> String {
        match self.name {
            SETS => String::new(),
            ROOT => format!(
                ". If it was moved or emptied on purpose, say so: rm {}",
                shell_quote(&disk::trace_path(&self.dir).to_string_lossy())
            ),
            _ => format!(
                ". If the files were deleted on purpose, say so: mkdir -p {} && touch {}",
                shell_quote(&self.dir.to_string_lossy()),
                shell_quote(&self.dir.join(EMPTIED).to_string_lossy())
            ),
        }
    }
}

/// What there is in the directory of a kind.
#[derive(Debug)]
pub enum Listing {
    /// There is no such directory.
    Absent,
    /// Its backups, oldest first.
    Files(Vec<Entry>),
    /// It cannot be read.
    Failed(Error),
}

impl Listing {
    fn of(store: &Store, kind: Kind) -> Self {
        match store.list(kind) {
            Ok(entries) if entries.is_empty() && !is_there(&store.dir(kind)) => Self::Absent,
            Ok(entries) => Self::Files(entries),
            Err(error) => Self::Failed(error),
        }
    }

    /// Its backups, as far as they can be listed.
    pub fn files(&self) -> &[Entry] {
        match self {
            Self::Files(entries) => entries,
            Self::Absent | Self::Failed(_) => &[],
        }
    }
}

/// The name of the directory of all.
pub(super) const ROOT: &str = "backups";
/// A file by which somebody says that what was in its directory was deleted on purpose. With a disk it is away, too.
const EMPTIED: &str = ".emptied";

/// Everything in `backups/`.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The recovery points, oldest first.
    pub points: Vec<PointOnDisk>,
    /// The files that belong to none, by kind, oldest first.
    pub unrecorded: Vec<(Kind, Entry)>,
    /// Manifests that cannot be read.
    pub unreadable: Vec<(PathBuf, Error)>,
    /// The directories, in the order of the kinds.
    pub listings: Vec<(Kind, Listing)>,
    /// The directories of which nothing can be told.
    pub away: Vec<Away>,
}

impl Inventory {
    /// Looks at all directories. One that cannot be read comes with its error; that of the manifests must be read.
    pub fn take(store: &Store) -> Result<Self> {
        let listings: Vec<(Kind, Listing)> = Kind::ALL.map(|kind| (kind, Listing::of(store, kind))).into();
        let mut found = Self::default();
        let mut files = HashMap::new();
        for (kind, listing) in &listings {
            for entry in listing.files() {
                let name = entry.path.file_name().unwrap_or_default().to_owned();
                files.insert((*kind, name), (entry, false));
            }
        }
        for (path, point) in list(store)? {
            match point {
                Ok(point) => {
                    let members = point.members.iter();
                    let members = members.map(|member| look_at(store, &point, member, &listings, &mut files));
                    let files = members.collect();
                    found.points.push(PointOnDisk { point, files });
                }
                Err(error) => found.unreadable.push((path, error)),
            }
        }
        let unrecorded = files.into_iter().filter(|(_, (_, recorded))| !recorded);
        found.unrecorded = unrecorded
            .map(|((kind, _), (entry, _))| (kind, entry.clone()))
            .collect();
        found
            .unrecorded
            .sort_by(|(a, x), (b, y)| (a, x.modified, &x.path).cmp(&(b, y.modified, &y.path)));
        found.listings = listings;
        found.away = found.away(store)?;
        Ok(found)
    }

    /// Notes in a new point which directories are away meanwhile. Comes before the project gets an identity, which proves that
    /// there were points.
    pub fn note_away(store: &Store, new: &mut Point) {
        let away = Self::take(store).map(|inventory| inventory.away_for(new));
        new.set_away(&away.unwrap_or_default());
    }

    /// The names of the directories that are away for a point whose manifest is not written yet. Its own files, which lie there
    /// already, tell nothing of those that should be there.
    fn away_for(&self, new: &Point) -> Vec<&'static str> {
        let own = |entry: &Entry| new.members.iter().any(|member| entry.path.ends_with(&member.name));
        let others = self
            .unrecorded
            .iter()
            .any(|(_, entry)| entry.stamp.is_some() && !own(entry));
        let names = self.away.iter().map(|away| away.name);
        names.filter(|name| *name != SETS || others).collect()
    }

    /// The newest backup of a kind that is there: of the points that are meant, by their instants, else of the files that
    /// belong to none, by their names. What was fetched or copied here is as old as it was.
    pub fn newest_file(&self, kind: Kind, now: SystemTime, is_meant: impl Fn(&Point) -> bool) -> Option<&Entry> {
        let meant = self.points.iter().filter(|held| is_meant(&held.point));
        let held = meant.flat_map(|held| held.files.iter().map(|file| (held.point.time(), file)));
        let held = held.filter(|(_, file)| file.member.kind == kind);
        let mut files: Vec<(SystemTime, &Entry)> = held
            .filter_map(|(time, file)| Some((time, file.entry.as_ref()?)))
            .collect();
        if files.is_empty() {
            let loose = self.unrecorded.iter().filter(|(of, _)| *of == kind);
            files = loose
                .map(|(_, entry)| (entry.stamp.map_or(entry.modified, Stamp::time), entry))
                .collect();
        }
        newest_first(&mut files, now, |(time, entry)| (*time, entry.path.clone()));
        files.first().map(|(_, entry)| *entry)
    }

    /// Refuses to go on where a directory cannot be read.
    pub fn check_listed(&self) -> Result<()> {
        for (_, listing) in &self.listings {
            if let Listing::Failed(error) = listing {
                bail!("{error:#}");
            }
        }
        Ok(())
    }

    fn away(&self, store: &Store) -> Result<Vec<Away>> {
        let mut away = Vec::new();
        // Where it was moved on purpose, what was made there is here. Older points may have lain here before.
        let is_here = |newest| {
            let points = self.points.iter().map(|held| &held.point);
            points
                .filter(|point| !point.was_away(ROOT))
                .any(|point| point.time() >= newest)
        };
        if disk::lost(store).is_some_and(|newest| !is_here(newest)) {
            away.push(Away {
                name: ROOT,
                dir: store.root().to_owned(),
                named: 0,
            });
        }
        for kind in Kind::ALL {
            let emptied = fs::metadata(store.dir(kind).join(EMPTIED)).and_then(|meta| meta.modified());
            let is_given_up = |point: &Point| emptied.as_ref().is_ok_and(|time| point.was_made_by(*time));
            // What was made while the directory was away lies beside what should be there, and tells nothing of it.
            let tells = |point: &Point| !point.was_away(kind.name()) && !is_given_up(point);
            let points = self.points.iter().filter(|held| tells(&held.point));
            let files: Vec<&MemberOnDisk> = points
                .flat_map(|held| &held.files)
                .filter(|file| file.member.kind == kind)
                .collect();
            if !files.is_empty() && !files.iter().any(|file| file.state.is_seen()) {
                away.push(Away {
                    name: kind.name(),
                    dir: store.dir(kind),
                    named: files.len(),
                });
            }
        }
        if self.sets_are_away(store)? {
            away.push(Away {
                name: SETS,
                dir: store.sets_dir(),
                named: 0,
            });
        }
        Ok(away)
    }

    /// Whether the manifests are somewhere else: there are backups of ours, and where the manifests should be there are none,
    /// though not as where none was ever written; or those alone that were written since.
    fn sets_are_away(&self, store: &Store) -> Result<bool> {
        if !self.unrecorded.iter().any(|(_, entry)| entry.stamp.is_some()) {
            return Ok(false);
        }
        if !self.points.is_empty() {
            return Ok(self.points.iter().all(|held| held.point.was_away(SETS)));
        }
        let dir = store.sets_dir();
        // The installation makes it with a .gitkeep; the first manifest brings the lock, and the project's identity.
        Ok(is_there(&store.identity_path())
            || is_there(&dir) && (read_dir(&dir)?.is_empty() || is_there(&super::lock::component_lock(&dir))))
    }
}

/// Finds a member's file among those that were listed, or sees why it is not one of them.
fn look_at(
    store: &Store,
    point: &Point,
    member: &Member,
    listings: &[(Kind, Listing)],
    files: &mut HashMap<(Kind, OsString), (&Entry, bool)>,
) -> MemberOnDisk {
    let path = store.root().join(&member.name);
    let name = path.file_name().unwrap_or_default().to_owned();
    let failed = listings
        .iter()
        .any(|(kind, listing)| *kind == member.kind && matches!(listing, Listing::Failed(_)));
    let entry = match files.get_mut(&(member.kind, name)) {
        Some((entry, recorded)) => {
            *recorded = true;
            Some((*entry).clone())
        }
        None if failed => None,
        // A link to a file serves; the retention leaves it alone.
        None => fs::metadata(&path)
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|meta| entry_of(member.kind, path.clone(), &meta)),
    };
    let state = match &entry {
        None if failed => State::Unreadable,
        None => match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => State::Missing,
            _ => State::Unreadable,
        },
        Some(entry) if point.size(member.kind).is_some_and(|bytes| bytes != entry.bytes) => State::Changed,
        Some(_) if point.damaged().contains(&member.kind) => State::Damaged,
        Some(_) => State::Present,
    };
    MemberOnDisk {
        member: member.clone(),
        entry,
        state,
    }
}

/// Every recovery point, oldest first. What is not one, or cannot be read, comes with its error. A directory that does not
/// exist is empty. What is of another stack is excluded from the latest.
pub fn list(store: &Store) -> Result<Vec<(PathBuf, Result<Point>)>> {
    let dir = store.sets_dir();
    let mut points = Vec::new();
    for item in read_dir(&dir)? {
        let name = item.file_name();
        let text = name.to_string_lossy();
        if text.starts_with('.') || !text.ends_with(SET_SUFFIX) {
            continue;
        }
        let path = dir.join(&name);
        let point = match Point::load(&path) {
            // The retention of another run has removed it since.
            Err(_) if !is_there(&path) => continue,
            Ok(point) if point.path(store) != path => {
                Err(anyhow!("{} tells of another point, {}", path.display(), point.stamp))
            }
            point => point,
        };
        points.push((path, point));
    }
    points.sort_by_cached_key(|(path, point)| (time_of(path, point), path.clone()));
    let is_of_another = identity::is_of_another(store);
    let read = points.iter_mut().filter_map(|(_, point)| point.as_mut().ok());
    for point in read.filter(|point| is_of_another(point)) {
        // In memory alone.
        point.mark(&Mark::ExcludedFromLatest(identity::OF_ANOTHER.to_owned()));
    }
    Ok(points)
}

/// Every recovery point, in the order in which `latest` is looked for.
pub fn latest_first(store: &Store, now: SystemTime) -> Result<Vec<(PathBuf, Result<Point>)>> {
    let mut points = list(store)?;
    newest_first(&mut points, now, |(path, point)| (time_of(path, point), path.clone()));
    Ok(points)
}

/// The newest recovery point of those that are not restored by name only; one that cannot be read must not be passed over.
pub fn newest(store: &Store, now: SystemTime) -> Result<Option<(PathBuf, Result<Point>)>> {
    let is_one = |point: &Result<Point>| !point.as_ref().is_ok_and(|point| point.excluded_from_latest().is_some());
    Ok(latest_first(store, now)?.into_iter().find(|(_, point)| is_one(point)))
}

/// The first of the points, in the order of [`latest_first`], that is `wanted`. One that cannot be read is not passed over: it may
/// be the one, and what it holds is newer. A name that is none of ours tells of no time, and stands last.
///
/// # Errors
/// When a newer point, or one that there is besides, cannot be read.
pub fn latest(points: Vec<(PathBuf, Result<Point>)>, mut wanted: impl FnMut(&Point) -> bool) -> Result<Option<Point>> {
    for (path, point) in points {
        match point {
            Ok(point) if wanted(&point) => return Ok(Some(point)),
            Err(error) if stamp_of(&path).is_some() => {
                return Err(error.context(hinted(
                    format_args!("{} cannot be read, and may be what latest means", path.display()),
                    "name another point by its stamp, YYYYMMDD_HHMMSS: n8n-backup list shows them",
                )));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The point that a manifest's name stands for.
fn stamp_of(path: &Path) -> Option<Stamp> {
    path.file_stem()?.to_str().and_then(Stamp::parse)
}

/// The instant of a point; of one that cannot be read the name alone tells it.
fn time_of(path: &Path, point: &Result<Point>) -> SystemTime {
    match point {
        Ok(point) => point.time(),
        Err(_) => stamp_of(path).map_or(SystemTime::UNIX_EPOCH, Stamp::time),
    }
}

/// The point that a backup file belongs to, if any, by its path.
pub fn point_of(store: &Store, file: &Path) -> Result<Option<(Point, Member)>> {
    let Ok(file) = file.canonicalize() else { return Ok(None) };
    for point in list(store)?.into_iter().rev().filter_map(|(_, point)| point.ok()) {
        let found = point.members.iter().find(|member| {
            store
                .root()
                .join(&member.name)
                .canonicalize()
                .is_ok_and(|path| path == file)
        });
        if let Some(member) = found.cloned() {
            return Ok(Some((point, member)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
