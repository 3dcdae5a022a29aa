//! Which backups the retention lets go: a pure function of what there is, a clock and the rules. The same decides here and
//! off-site.
//!
//! The files of one recovery point live and die together; a file that belongs to none stands for itself. Either is a
//! [`Unit`]. A unit stays when any rule wants it, for any of its files:
//!
//! - its age in whole days is not greater than the retention, as with `find -mtime +N`;
//! - it is a recovery point that is pinned, whatever has become of its files;
//! - it is among the newest complete recovery points, whatever the clock says: one that has jumped, a host that was off and
//!   backups that have failed for weeks all look alike, and in no case should the last points go;
//! - it holds the newest good backup of a component, or the best there is where none is known to be good;
//! - it is the newest of its day, week, month or year, as far as the settings ask for it;
//! - it is the newest verified one, or the newest of which a drill has proven a component;
//! - the newest backup has shrunk to less than half of it, which may mean that data were lost before they were saved.
//!
//! A file that belongs to no point stays for its age, or as the newest good or best one, and for nothing else.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use chrono::{Datelike, NaiveDateTime};

use super::inventory::{is_ahead, newest_first};
use super::Kind;

const DAY: u64 = 86_400;

/// What is known of a file as a backup, from the worst to the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// There is nothing in it.
    Empty,
    /// There is something in it, and it is not known to be whole.
    Unproven,
    /// It unpacks to its end, though what is in it is not what we write.
    Unpacks,
    /// It is taken for a whole, restorable backup.
    Good,
}

/// One backup file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub kind: Kind,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it is worth.
    pub grade: Grade,
}

/// What lives and dies together: the files of a recovery point, or one file that belongs to none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its files; at most one of each kind. None when all of a point's files are gone.
    pub files: Vec<File>,
    /// The instant by which it is older or newer than others.
    pub taken: SystemTime,
    /// The time that its name tells: where a file was copied without its time, that alone tells which is the newest.
    pub named: Option<SystemTime>,
    /// The time that its age is counted from.
    pub aged: SystemTime,
    /// Its time by the calendar on the wall, for the rules of days, weeks, months and years.
    pub local: NaiveDateTime,
    /// Whether it is a recovery point.
    pub recorded: bool,
    /// Whether somebody has said that it must stay.
    pub pinned: bool,
    /// Whether it holds every component, each of them good.
    pub complete: bool,
    /// Whether a file of it may be there and could not be looked at.
    pub unreadable: bool,
    /// Whether its files have been verified at rest.
    pub verified: bool,
    /// Those of its components that a drill has restored.
    pub proven: Vec<Kind>,
}

/// What is to be kept. A number of 0 keeps nothing by that rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Everything that is not older than so many whole days.
    pub days: u64,
    /// The newest so many complete recovery points.
    pub last: usize,
    /// The newest of each of the last so many days that have a backup.
    pub daily: usize,
    /// The same by ISO weeks.
    pub weekly: usize,
    /// The same by months.
    pub monthly: usize,
    /// The same by years.
    pub yearly: usize,
}

/// A stretch of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// A day.
    Day,
    /// A week, from Monday, as ISO 8601 counts them.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    /// What is equal for two times exactly when they lie in the same period.
    fn of(self, time: NaiveDateTime) -> (i32, u32) {
        match self {
            Self::Day => (time.year(), time.ordinal()),
            Self::Week => (time.iso_week().year(), time.iso_week().week()),
            Self::Month => (time.year(), time.month()),
            Self::Year => (time.year(), 0),
        }
    }

    fn wanted(self, rules: &Rules) -> usize {
        match self {
            Self::Day => rules.daily,
            Self::Week => rules.weekly,
            Self::Month => rules.monthly,
            Self::Year => rules.yearly,
        }
    }
}

/// Why a unit stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its age in days is not greater than the retention.
    Young(u64),
    /// It is pinned.
    Pinned,
    /// It is among the newest complete recovery points.
    Last,
    /// A file of it could not be looked at.
    Unreadable,
    /// It holds the newest good backup of a component.
    NewestGood(Kind),
    /// It holds the best backup of a component of which none is known to be good.
    Best(Kind),
    /// It is the newest of its period for a component.
    Periodic(Period, Kind),
    /// It is the newest verified one that holds a component.
    Verified(Kind),
    /// It is the newest proven one that holds a component.
    Proven(Kind),
    /// The newest backup of a component is less than half as large.
    Larger(Kind),
    /// A directory is away: whatever would go may be what should stay.
    Away,
    /// It may belong to a recovery point whose manifest cannot be read.
    Manifest,
    /// The rules that were set are not known.
    Rules,
    /// An unfinished restore goes on with it, or may.
    Restore,
}

impl Reason {
    /// The reason in words, and the component that it is about.
    fn words(self) -> (String, Option<Kind>) {
        let (words, kind) = match self {
            Self::Young(days) => return (format!("{days} day(s) old, which is not over the retention"), None),
            Self::Pinned => return ("pinned".to_owned(), None),
            Self::Last => return ("among the newest complete recovery points".to_owned(), None),
            Self::Unreadable => return ("a file of it cannot be looked at now".to_owned(), None),
            Self::Away => return ("a directory does not hold what it should".to_owned(), None),
            Self::Manifest => return ("it may belong to a recovery point that cannot be read".to_owned(), None),
            Self::Rules => return ("what is to be kept is not known".to_owned(), None),
            Self::Restore => return ("an unfinished restore may need it".to_owned(), None),
            Self::NewestGood(kind) => ("newest good backup of", kind),
            Self::Best(kind) => ("the best there is, though not known to be good, of", kind),
            Self::Periodic(Period::Day, kind) => ("daily backup of", kind),
            Self::Periodic(Period::Week, kind) => ("weekly backup of", kind),
            Self::Periodic(Period::Month, kind) => ("monthly backup of", kind),
            Self::Periodic(Period::Year, kind) => ("yearly backup of", kind),
            Self::Verified(kind) => ("newest verified backup of", kind),
            Self::Proven(kind) => ("newest backup that a drill has proven of", kind),
            Self::Larger(kind) => ("more than twice as large as the newest backup of", kind),
        };
        (words.to_owned(), Some(kind))
    }
}

/// What becomes of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its age in whole days.
    pub age: u64,
    /// Why it stays; nothing when it goes.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether it goes.
    pub fn is_deletion(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl fmt::Display for Verdict {
    /// Why the unit stays or goes; the components that share a reason stand together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_deletion() {
            return write!(f, "{} day(s) old, and no rule keeps it", self.age);
        }
        let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
        for (words, kind) in self.reasons.iter().map(|reason| reason.words()) {
            let kind = kind.map(Kind::name);
            match groups.iter_mut().find(|(known, _)| *known == words) {
                Some((_, kinds)) => kinds.extend(kind),
                None => groups.push((words, kind.into_iter().collect())),
            }
        }
        let groups: Vec<String> = groups
            .into_iter()
            .map(|(words, kinds)| {
                let of = kinds.join(", ");
                if of.is_empty() {
                    words
                } else {
                    format!("{words} {of}")
                }
            })
            .collect();
        f.write_str(&groups.join("; "))
    }
}

/// Decides what becomes of each of `units` at the time `now`. Gives one verdict per unit, in their order.
pub fn decide(units: &[Unit], now: SystemTime, rules: &Rules) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = units
        .iter()
        .map(|unit| {
            let age = age_in_days(unit.aged, now);
            let mut reasons = Vec::new();
            reasons.extend((age <= rules.days).then_some(Reason::Young(age)));
            reasons.extend(unit.pinned.then_some(Reason::Pinned));
            reasons.extend(unit.unreadable.then_some(Reason::Unreadable));
            Verdict { age, reasons }
        })
        .collect();
    let mut complete: Vec<usize> = (0..units.len()).filter(|index| units[*index].complete).collect();
    newest_first(&mut complete, now, |index| (units[*index].taken, name(&units[*index])));
    for index in complete.into_iter().take(rules.last) {
        verdicts[index].reasons.push(Reason::Last);
    }
    for kind in Kind::ALL {
        for (index, reason) in wanted(units, now, rules, kind) {
            verdicts[index].reasons.push(reason);
        }
    }
    verdicts
}

/// The units that the rules want for the sake of one component.
fn wanted(units: &[Unit], now: SystemTime, rules: &Rules, kind: Kind) -> Vec<(usize, Reason)> {
    let series = series(units, now, kind);
    let good: Vec<(usize, &File)> = series.iter().filter(|(_, file)| is_good(file)).copied().collect();
    let Some((newest, newest_file)) = good.first().copied() else {
        // The last of those that are equal is taken, hence from the oldest on.
        let best = series.iter().rev().max_by_key(|(_, file)| file.grade);
        return best
            .map(|(index, _)| (*index, Reason::Best(kind)))
            .into_iter()
            .collect();
    };
    let mut wanted = vec![(newest, Reason::NewestGood(kind))];
    let named = good
        .iter()
        .filter_map(|(index, file)| Some((units[*index].named?, &file.path, *index)));
    let named = named.filter(|(time, _, _)| !is_ahead(*time, now)).max();
    wanted.extend(
        named
            .filter(|(_, _, index)| *index != newest)
            .map(|(_, _, index)| (index, Reason::NewestGood(kind))),
    );
    let points: Vec<(usize, &File)> = good.into_iter().filter(|(index, _)| units[*index].recorded).collect();
    for period in Period::ALL {
        let mut seen = HashSet::new();
        for (index, _) in &points {
            if seen.len() == period.wanted(rules) {
                break;
            }
            if seen.insert(period.of(units[*index].local)) {
                wanted.push((*index, Reason::Periodic(period, kind)));
            }
        }
    }
    let first = |is: &dyn Fn(&Unit) -> bool| points.iter().find(|(index, _)| is(&units[*index]));
    wanted.extend(first(&|unit| unit.verified).map(|(index, _)| (*index, Reason::Verified(kind))));
    wanted.extend(first(&|unit| unit.proven.contains(&kind)).map(|(index, _)| (*index, Reason::Proven(kind))));
    // Only among files whose sizes were recorded when they were made; of others nobody knows what they were.
    if units[newest].recorded {
        let larger = points
            .iter()
            .find(|(_, file)| is_shrunk(kind, file.bytes, newest_file.bytes));
        wanted.extend(larger.map(|(index, _)| (*index, Reason::Larger(kind))));
    }
    wanted
}

fn is_good(file: &File) -> bool {
    file.grade == Grade::Good
}

/// The files of one kind with the index of their unit, newest first. File names carry the time of the backup, so that they
/// settle equal times (a copy without `-p`) and the order of a listing does not.
pub fn series(units: &[Unit], now: SystemTime, kind: Kind) -> Vec<(usize, &File)> {
    let mut series: Vec<(usize, &File)> = units
        .iter()
        .enumerate()
        .flat_map(|(index, unit)| unit.files.iter().map(move |file| (index, file)))
        .filter(|(_, file)| file.kind == kind)
        .collect();
    newest_first(&mut series, now, |(index, file)| {
        (units[*index].taken, file.path.clone())
    });
    series
}

fn name(unit: &Unit) -> Option<PathBuf> {
    unit.files.first().map(|file| file.path.clone())
}

/// A backup that is much smaller than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// What it holds.
    pub kind: Kind,
    /// The length in bytes of the newest good backup.
    pub newest: u64,
    /// The length in bytes of the good backup before it.
    pub before: u64,
}

/// The components whose newest good backup is less than half as large as the one before it.
pub fn shrunk(units: &[Unit], now: SystemTime) -> Vec<Shrunk> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let good = series(units, now, kind).into_iter().filter(|(_, file)| is_good(file));
        let mut good = good.map(|(index, file)| (is_ahead(units[index].taken, now), file.bytes));
        if let (Some((ahead, newest)), Some((also, before))) = (good.next(), good.next()) {
            // What is dated in the future stands behind the others, and is not what was before them.
            if ahead == also && is_shrunk(kind, before, newest) {
                found.push(Shrunk { kind, newest, before });
            }
        }
    }
    found
}

/// Whether a size is less than half of that before.
fn is_shrunk(kind: Kind, before: u64, newest: u64) -> bool {
    before > newest.saturating_mul(2).saturating_add(kind.slack())
}

/// Age in whole days, rounded down; 0 for what is from the future.
pub fn age_in_days(taken: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(taken).map_or(0, |age| age.as_secs() / DAY)
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
