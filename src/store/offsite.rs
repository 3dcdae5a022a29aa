//! Recovery points at the place that they are copied to: what their names there tell, and how old they may grow.
//!
//! Off-site, files have the same paths as below `backups/`. Where the manifest is, the point is whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{bail, Context, Result};

use super::inventory::newest_first;
use super::manifest::{self, Point};
use super::remote::Rclone;
use super::retention::{decide, File, Grade, Rules, Unit};
use super::{Kind, Stamp, SET_SUFFIX};

/// The directory of the manifests, there as here.
const SETS: &str = "sets";
/// What one clock shows at the same moment in two time zones lies closer together than this.
const ZONES: Duration = Duration::from_secs(28 * 3600);

/// The path of a recovery point's manifest there.
pub fn set_name(stamp: Stamp) -> String {
    format!("{SETS}/{stamp}{SET_SUFFIX}")
}

/// The files that are there.
#[derive(Debug, Default)]
pub struct RemoteFiles {
    names: HashSet<String>,
    sets: BTreeSet<Stamp>,
}

impl RemoteFiles {
    /// What is there now.
    pub fn list(rclone: &Rclone) -> Result<Self> {
        Ok(rclone.list()?.into_iter().collect())
    }

    /// Whether a path is among them.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether a recovery point is there.
    pub fn has_set(&self, stamp: Stamp) -> bool {
        self.sets.contains(&stamp)
    }

    /// The recovery point whose name is the latest.
    pub fn last_set(&self) -> Option<Stamp> {
        self.sets.last().copied()
    }

    /// The recovery points whose runs may have made a file of this time.
    pub fn sets_near(&self, stamp: Stamp) -> impl Iterator<Item = Stamp> + '_ {
        let near = self
            .sets
            .range(stamp.later(-Stamp::SAME_RUN)..=stamp.later(Stamp::SAME_RUN));
        near.copied().filter(move |set| set.is_near(stamp))
    }

    /// The recovery point that a file belongs to: the last one that began before it, else the first one after, since the name
    /// of a manifest gives way to another one's.
    fn set_of(&self, stamp: Stamp) -> Option<Stamp> {
        let near: Vec<Stamp> = self.sets_near(stamp).collect();
        let before = near.iter().rev().find(|set| **set <= stamp);
        before.or(near.first()).copied()
    }
}

impl FromIterator<String> for RemoteFiles {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let names: HashSet<String> = names.into_iter().collect();
        Self {
            sets: names.iter().filter_map(|name| stamp_of_set(name)).collect(),
            names,
        }
    }
}

/// The newest recovery point there, with its manifest. A name tells local time; where several may be the newest one, their
/// manifests tell the instant.
pub fn newest_there(rclone: &Rclone, there: &RemoteFiles, now: SystemTime) -> Result<Option<(Stamp, String)>> {
    let mut stamps: Vec<Stamp> = there
        .sets
        .iter()
        .copied()
        .filter(|set| set.time() < now + ZONES)
        .collect();
    if stamps.is_empty() {
        stamps = there.sets.iter().copied().collect();
    }
    let Some(last) = stamps.iter().map(|stamp| stamp.time()).max() else {
        return Ok(None);
    };
    stamps.retain(|stamp| stamp.time() + ZONES > last);
    let mut candidates = Vec::new();
    for stamp in stamps {
        let text = fetch_manifest(rclone, stamp)?;
        // One that cannot be used is told when it is the one to fetch.
        let time = Point::parse(&text).map_or_else(|_| stamp.time(), |point| point.time());
        candidates.push((time, stamp, text));
    }
    newest_first(&mut candidates, now, |(time, stamp, _)| (*time, *stamp));
    Ok(candidates.into_iter().next().map(|(_, stamp, text)| (stamp, text)))
}

/// The text of the manifest of a recovery point there.
pub fn fetch_manifest(rclone: &Rclone, stamp: Stamp) -> Result<String> {
    let mut chain = rclone.chain();
    let stream = rclone.read(&mut chain, &set_name(stamp))?;
    let text = chain.collect("reading a manifest", stream, manifest::LIMIT as usize);
    String::from_utf8(text.get(&chain.finish()?)?).context("the manifest is no text")
}

/// The point that a manifest's path there stands for.
fn stamp_of_set(name: &str) -> Option<Stamp> {
    name.strip_prefix(SETS)?
        .strip_prefix('/')?
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
}

/// Applies the retention to what is there: the same rules as here, but for the age, which is counted from the newest point
/// there, so that a clock that jumps takes nothing away. `known` are the instants of the points that this host knows; of
/// others the names tell local time.
///
/// # Errors
/// When a directory there does not hold what it should: `named` are the kinds that the points hold which are there.
pub fn expired(
    there: &RemoteFiles,
    known: &HashMap<Stamp, SystemTime>,
    named: &BTreeSet<Kind>,
    now: SystemTime,
    rules: &Rules,
) -> Result<Expired> {
    let instant = |set: Stamp| known.get(&set).copied().unwrap_or_else(|| set.time());
    let mut sets: Vec<(Stamp, SystemTime)> = there.sets.iter().map(|set| (*set, instant(*set))).collect();
    newest_first(&mut sets, now, |(set, time)| (*time, *set));
    let Some(&(_, newest)) = sets.first() else {
        return Ok(Expired::default());
    };
    let mut points: BTreeMap<Stamp, Unit> = sets.iter().map(|(set, time)| (*set, unit(*set, *time, true))).collect();
    let mut others = Vec::new();
    let mut kinds = BTreeSet::new();
    for name in &there.names {
        let Some((kind, stamp)) = stamp_of_file(name) else {
            continue;
        };
        kinds.insert(kind);
        let point = there.set_of(stamp).and_then(|set| points.get_mut(&set));
        let mut file = File {
            path: PathBuf::from(name),
            kind,
            bytes: 0,
            grade: Grade::Good,
        };
        match point {
            Some(point) => point.files.push(file),
            None => {
                // What was sent in part is not relied on.
                file.grade = Grade::Unproven;
                let mut other = unit(stamp, stamp.time(), false);
                other.files.push(file);
                others.push(other);
            }
        }
    }
    if let Some(kind) = named.difference(&kinds).next() {
        bail!(
            "{}/ is empty there, though recovery points hold files of it",
            kind.name()
        );
    }
    let mut points: Vec<(Option<Stamp>, Unit)> = points.into_iter().map(|(set, unit)| (Some(set), unit)).collect();
    points.extend(others.into_iter().map(|unit| (None, unit)));
    for (_, unit) in &mut points {
        let holds = |kind: &Kind| unit.files.iter().any(|file| file.kind == *kind);
        unit.complete = unit.recorded && Kind::PARTS.iter().all(holds);
    }
    let (sets, units): (Vec<Option<Stamp>>, Vec<Unit>) = points.into_iter().unzip();
    let mut expired = Expired::default();
    for ((set, unit), verdict) in sets.into_iter().zip(&units).zip(decide(&units, newest, rules)) {
        if verdict.is_deletion() {
            expired.sets.extend(set.map(set_name));
            let names = unit.files.iter().map(|file| file.path.to_string_lossy().into_owned());
            expired.files.extend(names);
        }
    }
    expired.files.sort();
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
        complete: false,
        unreadable: false,
        verified: false,
        proven: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(text: &str) -> Stamp {
        Stamp::parse(text).unwrap()
    }

    /// Files there: `DAY KINDS`, for a point of that day of 2026 with these files, its manifest first unless there is a `-`.
    fn there(points: &[&str]) -> RemoteFiles {
        let mut names = Vec::new();
        for point in points {
            let (day, kinds) = point.split_once(' ').unwrap();
            if !kinds.contains('-') {
                names.push(format!("sets/2026{day}_020000.sha256"));
            }
            for (letter, name) in [
                ('p', "postgres/n8n_DAY_020001.sql.gz"),
                ('r', "redis/dump_DAY_020000.rdb.gpg"),
                ('n', "n8n/n8n_data_DAY_020003.tar.gz"),
                ('e', "env/env_DAY_020000.backup.gpg"),
            ] {
                if kinds.contains(letter) {
                    names.push(name.replace("DAY", &format!("2026{day}")));
                }
            }
        }
        names.extend(["env/mine.backup.gpg", "other/n8n_20200101_000000.sql.gz"].map(str::to_owned));
        names.into_iter().collect()
    }

    fn rules(days: u64, last: usize) -> Rules {
        Rules {
            days,
            last,
            ..Rules::default()
        }
    }

    /// The days of which the manifests go, and how many files do.
    fn gone(there: &RemoteFiles, rules: &Rules) -> (Vec<String>, usize) {
        let now = stamp("20261101_000000").time();
        let expired = expired(there, &HashMap::new(), &BTreeSet::new(), now, rules).unwrap();
        let days = expired.sets.iter().map(|name| name[9..13].to_owned());
        (days.collect(), expired.files.len())
    }

    #[test]
    fn age_there_counts_from_the_newest_point() {
        let files = there(&["0101 pe", "0109 e", "0131 pe"]);
        assert_eq!(gone(&files, &rules(29, 0)), (vec!["0101".to_owned()], 2));
        assert_eq!(
            gone(&files, &rules(1, 0)),
            (vec!["0101".to_owned(), "0109".to_owned()], 3)
        );
        assert_eq!(gone(&there(&["0101 -pe", "0109 -e"]), &rules(1, 0)), (vec![], 0));
    }

    #[test]
    fn the_last_of_each_component_stays_there() {
        // What was sent in part is not relied on.
        let mut points = vec!["0101 pe", "0102 e", "0103 -p", "0201 e", "0301 e"];
        assert_eq!(gone(&there(&points), &rules(30, 0)), (vec!["0102".to_owned()], 2));
        points.push("0302 p");
        assert_eq!(gone(&there(&points), &rules(30, 0)).1, 4);
    }

    #[test]
    fn the_newest_complete_points_stay_there() {
        let mut points = vec![
            "0101 prne",
            "0102 prne",
            "0103 prne",
            "0104 prne",
            "0105 pre",
            "0901 prne",
        ];
        // One run under a wrong clock, or after a long time.
        let expected = (vec!["0101".to_owned(), "0102".to_owned(), "0105".to_owned()], 11);
        assert_eq!(gone(&there(&points), &rules(30, 3)), expected);
        // One that is dated in the future neither counts nor makes the others old.
        points[5] = "1231 prne";
        assert_eq!(gone(&there(&points), &rules(30, 3)), (vec![], 0));
        assert_eq!(gone(&there(&points), &rules(0, 3)), (vec!["0101".to_owned()], 4));
    }

    #[test]
    fn a_directory_that_is_empty_there_tells_nothing() {
        let files = there(&["0101 re", "0901 re"]);
        let now = stamp("20261101_000000").time();
        let with = |named: &[Kind]| {
            let named = named.iter().copied().collect();
            expired(&files, &HashMap::new(), &named, now, &rules(30, 0))
        };
        assert_eq!(with(&[Kind::Redis, Kind::Env]).unwrap().sets.len(), 1);
        let error = with(&[Kind::Postgres, Kind::Env]).unwrap_err().to_string();
        assert!(error.starts_with("postgres/ is empty there"), "{error}");
    }

    #[test]
    fn what_this_host_knows_of_the_instant_counts() {
        let files = there(&["0101 prne", "0102 prne"]);
        let first = stamp("20260102_020000").time();
        let known = HashMap::from([
            (stamp("20260102_020000"), first),
            (stamp("20260101_020000"), first + Duration::from_secs(5 * 86_400)),
        ]);
        let now = first + Duration::from_secs(9 * 86_400);
        let expired = expired(&files, &known, &BTreeSet::new(), now, &rules(2, 1)).unwrap();
        assert_eq!(expired.sets, ["sets/20260102_020000.sha256"]);
    }
}
