//! Recovery points at the place that they are copied to: what their names there tell, and how old they may grow.
//!
//! Off-site, each stack has a directory, `stack-IDENTITY`, where files have the same paths as below `backups/`. Earlier
//! versions sent to the place itself: what is there counts as ours. Where a manifest is, its point is whole, or was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{bail, Result};

use super::identity::Identity;
use super::inventory::newest_first;
use super::manifest::Point;
use super::remote::Rclone;
use super::retention::{decide, File, Grade, Reason, Rules, Unit};
use super::{Kind, Stamp, ENCRYPTED, SETS, SET_SUFFIX};

/// How the name of a stack's directory begins.
const STACK: &str = "stack-";

/// The path of a recovery point's manifest there.
pub fn set_name(stamp: Stamp, encrypted: bool) -> String {
    let end = if encrypted { ENCRYPTED } else { "" };
    format!("{SETS}/{stamp}{SET_SUFFIX}{end}")
}

/// What is ours at the top of the place, as a pattern of rclone's: that of one stack, or of all.
pub(super) fn our_names(stack: Option<&Identity>) -> String {
    let stack = stack.map_or_else(|| format!("{STACK}*"), stack_dir);
    format!("{{{stack},{SETS},{}}}", Kind::ALL.map(Kind::dir).join(","))
}

/// Whether a path there is that of a directory of ours: of the stack, or of any where none is told, or one of files, in
/// a stack's or at the top. What a remote of type crypt encrypts may be one.
pub(super) fn is_our_dir(path: &str, stack: Option<&Identity>) -> bool {
    let is_ours = |found: &Identity| stack.is_none_or(|stack| stack == found);
    let named = |name: &str| name.strip_prefix(STACK).and_then(Identity::parse);
    let is_stack = |name: &str| is_encrypted(name) || named(name).as_ref().is_some_and(is_ours);
    let has_files = |name: &str| is_encrypted(name) || name == SETS || Kind::ALL.iter().any(|kind| kind.dir() == name);
    match path.split_once('/') {
        Some((stack, dir)) => is_stack(stack) && has_files(dir),
        None => is_stack(path) || has_files(path),
    }
}

/// Whether a name may be what a remote of type crypt makes of one of ours: rclone's errors call it as it lies there, in
/// base32 or base64, 16 bytes or some more of them. In base64 such a name all but never has capitals alone, or none.
fn is_encrypted(name: &str) -> bool {
    let all = |is: fn(&u8) -> bool| name.as_bytes().iter().all(is);
    let any = |is: fn(&u8) -> bool| name.as_bytes().iter().any(is);
    match name.len() {
        26 | 52 => all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'v')),
        22 | 43 => {
            let in_base64 = all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            in_base64 && any(u8::is_ascii_uppercase) && any(u8::is_ascii_lowercase)
        }
        _ => false,
    }
}

/// The directory of a stack there.
pub fn stack_dir(stack: &Identity) -> String {
    format!("{STACK}{stack}")
}

/// The files of one stack that are there, with their lengths as far as those are known.
#[derive(Clone, Debug, Default)]
pub struct RemoteFiles {
    files: HashMap<String, Option<u64>>,
    /// The points, with the names of their manifests.
    sets: BTreeMap<Stamp, String>,
}

/// Everything that is there.
#[derive(Debug, Default)]
pub struct Remote {
    /// What earlier versions have sent.
    pub unnamed: RemoteFiles,
    /// What is in the directories of the stacks.
    pub stacks: BTreeMap<Identity, RemoteFiles>,
}

impl Remote {
    /// What is there now.
    pub fn list(rclone: &Rclone) -> Result<Self> {
        Ok(rclone.list()?.into_iter().collect())
    }

    /// Takes the files of one stack.
    pub fn take(&mut self, stack: Option<&Identity>) -> RemoteFiles {
        stack.and_then(|stack| self.stacks.remove(stack)).unwrap_or_default()
    }
}

impl FromIterator<(String, Option<u64>)> for Remote {
    fn from_iter<I: IntoIterator<Item = (String, Option<u64>)>>(names: I) -> Self {
        let mut remote = Self::default();
        for (name, length) in names {
            let in_stack = name.strip_prefix(STACK).and_then(|rest| {
                let (stack, name) = rest.split_once('/')?;
                Some((Identity::parse(stack)?, name.to_owned()))
            });
            match in_stack {
                Some((stack, name)) => remote.stacks.entry(stack).or_default().add(name, length),
                None => remote.unnamed.add(name, length),
            }
        }
        // A directory that holds no point is nobody's yet.
        remote.stacks.retain(|_, files| !files.files.is_empty());
        remote
    }
}

impl RemoteFiles {
    fn add(&mut self, name: String, length: Option<u64>) {
        // One that is empty tells nothing.
        if let Some(stamp) = stamp_of_set(&name).filter(|_| length != Some(0)) {
            let known = self.sets.entry(stamp).or_default();
            // That which is encrypted counts.
            if known.len() < name.len() {
                known.clone_from(&name);
            }
        }
        self.files.insert(name, length);
    }

    /// Adds a point as it is there once it is sent.
    pub fn add_point(&mut self, point: &Point) {
        self.add(set_name(point.stamp, false), None);
        for member in &point.members {
            self.add(member.name.clone(), point.size(member.kind));
        }
    }

    /// Whether a path is among them.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The length of a file, where it is known.
    pub fn length(&self, name: &str) -> Option<u64> {
        *self.files.get(name)?
    }

    /// The name of the manifest of a recovery point that is there.
    pub fn set(&self, stamp: Stamp) -> Option<&str> {
        self.sets.get(&stamp).map(String::as_str)
    }

    /// The recovery points.
    pub fn sets(&self) -> impl Iterator<Item = Stamp> + '_ {
        self.sets.keys().copied()
    }

    /// What a recovery point lacks there: the files that are missing, or have another length than they had.
    pub fn lacks(&self, point: &Point) -> Vec<String> {
        let members = point.members.iter();
        let differs = members.filter(|member| {
            let (known, there) = (point.size(member.kind), self.length(&member.name));
            !self.has(&member.name) || known.zip(there).is_some_and(|(known, there)| known != there)
        });
        differs.map(|member| member.name.clone()).collect()
    }

    /// The recovery points whose runs may have made a file of this time.
    fn sets_near(&self, stamp: Stamp) -> impl Iterator<Item = Stamp> + '_ {
        let near = self
            .sets
            .range(stamp.later(-Stamp::SAME_RUN)..=stamp.later(Stamp::SAME_RUN));
        near.map(|(set, _)| *set).filter(move |set| set.is_near(stamp))
    }

    /// The recovery point, of those that are meant, to which a file belongs by its name: the last one that began before
    /// it, else the first one after, since the name of a manifest gives way to another one's.
    fn set_of(&self, stamp: Stamp, is_meant: impl Fn(&Stamp) -> bool) -> Option<Stamp> {
        let near: Vec<Stamp> = self.sets_near(stamp).filter(is_meant).collect();
        let before = near.iter().rev().find(|set| **set <= stamp);
        before.or(near.first()).copied()
    }
}

/// The point that a manifest's path there stands for.
fn stamp_of_set(name: &str) -> Option<Stamp> {
    let name = name.strip_prefix(SETS)?.strip_prefix('/')?;
    name.strip_suffix(ENCRYPTED)
        .unwrap_or(name)
        .strip_suffix(SET_SUFFIX)
        .and_then(Stamp::parse)
}

/// The time of a backup file there, when it has the path that we give.
pub fn stamp_of_file(name: &str) -> Option<(Kind, Stamp)> {
    let (dir, file) = name.split_once('/')?;
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.dir() == dir && kind.is_name(file))?;
    Some((kind, kind.stamp_in(file)?))
}

/// What the retention lets go there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Manifests.
    pub sets: Vec<String>,
    /// Files, of their points or of none.
    pub files: Vec<String>,
    /// Manifests of the points that stay for what they hold, in whose favour others go.
    pub relied_on: Vec<String>,
}

/// A directory there.
pub struct Place<'a> {
    /// What stands before the names of its files.
    pub prefix: String,
    /// Its files.
    pub there: &'a RemoteFiles,
    /// Of its points those that this host knows; of others the names tell local time.
    pub known: HashMap<Stamp, &'a Point>,
    /// Those whose manifests cannot be read here: they may be pinned, and may be good for nothing.
    pub locked: &'a [Stamp],
}

/// Applies the retention to what is there: the same rules as here, but for the age, which is counted from the newest point
/// there, so that a clock that jumps takes nothing away. `places` are the directories whose points are ours. A point that lacks a
/// file there, holds one that is not as it was, was found to differ, or is restored by name only, is relied on for nothing; so is
/// one whose manifest cannot be read, which stays.
///
/// # Errors
/// When a directory there does not hold what it should, as the points tell that this host knows.
pub fn expired(places: &[Place<'_>], now: SystemTime, rules: &Rules) -> Result<Expired> {
    let mut names: Vec<Vec<String>> = Vec::new();
    let mut units = Vec::new();
    for Place {
        prefix,
        there,
        known,
        locked,
    } in places
    {
        let instant = |set: Stamp| known.get(&set).map_or_else(|| set.time(), |point| point.time());
        let mut points: BTreeMap<Stamp, Unit> = there.sets().map(|set| (set, unit(set, instant(set), true))).collect();
        // A name does not tell which of the runs that began in the same second has made the file.
        let mut owners: HashMap<&str, Stamp> = HashMap::new();
        for (set, point) in known.iter().filter(|(set, _)| points.contains_key(set)) {
            owners.extend(point.members.iter().map(|member| (member.name.as_str(), *set)));
        }
        let mut kinds = BTreeSet::new();
        for name in there.files.keys() {
            let Some((kind, stamp)) = stamp_of_file(name) else {
                continue;
            };
            kinds.insert(kind);
            let owner = owners.get(name.as_str()).copied();
            let unknown = || there.set_of(stamp, |set| !known.contains_key(set));
            let set = owner.or_else(unknown).or_else(|| there.set_of(stamp, |_| true));
            let is_locked = set.is_some_and(|set| locked.contains(&set));
            let point = set.and_then(|set| known.get(&set));
            let size = point.filter(|_| owner.is_some()).and_then(|point| point.size(kind));
            let differs = size.zip(there.length(name)).is_some_and(|(size, there)| size != there);
            let file = |grade| File {
                path: PathBuf::from(format!("{prefix}{name}")),
                kind,
                bytes: 0,
                grade,
            };
            match set.and_then(|set| points.get_mut(&set)) {
                Some(unit) if differs || is_locked || there.length(name) == Some(0) => {
                    unit.files.push(file(Grade::Empty))
                }
                // A point that is known and does not name it vouches for nothing.
                Some(unit)
                    if point.is_some_and(|point| {
                        owner.is_none() || point.excluded_from_latest().is_some() || point.copy_defect().is_some()
                    }) =>
                {
                    unit.files.push(file(Grade::Unproven));
                }
                Some(unit) => unit.files.push(file(Grade::Good)),
                None => {
                    // What was sent in part is not relied on.
                    let mut other = unit(stamp, stamp.time(), false);
                    other.files.push(file(Grade::Unproven));
                    names.push(Vec::new());
                    units.push(other);
                }
            }
        }
        let held = points.keys().filter_map(|set| known.get(set));
        let mut wanted = held.flat_map(|point| &point.members).map(|member| member.kind);
        if let Some(kind) = wanted.find(|kind| !kinds.contains(kind)) {
            bail!(
                "{prefix}{}/ is empty there, though recovery points hold files of it",
                kind.name()
            );
        }
        for (set, mut unit) in points {
            let good = |kind: &Kind| {
                unit.files
                    .iter()
                    .any(|file| file.kind == *kind && file.grade == Grade::Good)
            };
            unit.pinned = known.get(&set).is_some_and(|point| point.pin().is_some());
            unit.unreadable = locked.contains(&set);
            unit.complete = match known.get(&set) {
                Some(point) => {
                    let is_meant = point.excluded_from_latest().is_none() && point.copy_defect().is_none();
                    is_meant && point.is_complete() && there.lacks(point).is_empty()
                }
                // Which parts a stack has no use for is not told by names: with SQLite, n8n needs neither a queue nor `.env`.
                None if good(&Kind::Sqlite) => good(&Kind::N8n),
                None => [Kind::Postgres, Kind::Redis, Kind::N8n, Kind::Env].iter().all(good),
            };
            let plain = [false, true].map(|encrypted| set_name(set, encrypted));
            let here = plain.into_iter().filter(|name| there.has(name));
            names.push(here.map(|name| format!("{prefix}{name}")).collect());
            units.push(unit);
        }
    }
    // Age is counted from a point that holds something.
    let held = |unit: &&Unit| unit.recorded && unit.files.iter().any(|file| file.grade == Grade::Good);
    let mut times: Vec<SystemTime> = units.iter().filter(held).map(|unit| unit.taken).collect();
    newest_first(&mut times, now, |time| (*time, ()));
    let Some(newest) = times.first().copied() else {
        return Ok(Expired::default());
    };
    let mut expired = Expired::default();
    for ((sets, unit), verdict) in names.into_iter().zip(&units).zip(decide(&units, newest, rules)) {
        if verdict.is_deletion() {
            expired.sets.extend(sets);
            let names = unit.files.iter().map(|file| file.path.to_string_lossy().into_owned());
            expired.files.extend(names);
        } else if verdict
            .reasons
            .iter()
            .any(|reason| !matches!(reason, Reason::Young(_) | Reason::Pinned))
        {
            expired.relied_on.extend(sets);
        }
    }
    expired.files.sort();
    expired.sets.sort();
    Ok(expired)
}

/// A point, or a file that belongs to none, as the retention sees it.
fn unit(stamp: Stamp, time: SystemTime, recorded: bool) -> Unit {
    Unit {
        files: Vec::new(),
        taken: time,
        named: Some(time),
        aged: time,
        local: stamp.local(),
        recorded,
        pinned: false,
        complete: false,
        unreadable: false,
        verified: false,
        proven: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
