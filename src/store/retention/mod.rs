//! Which backups the retention lets go: a pure function of what there is, a clock and the rules.
//!
//! The files of one recovery point live and die together; a file that belongs to none stands for itself. Either is a
//! [`Unit`]. A unit stays when any rule wants it, for any of its files:
//!
//! - its age in whole days is not greater than the retention, as with `find -mtime +N`;
//! - it holds the newest good backup of a component, or the best there is where none is known to be good, so that
//!   backups that have failed for weeks do not end with nothing to restore from;
//! - it is among the last, or the newest of its day, week, month or year, as far as the settings ask for it;
//! - it is the newest verified one, or the newest that a drill has proven;
//! - the newest backup has shrunk to less than half of it, which may mean that data were lost before they were saved.
//!
//! Age is that of the clock, but for long stretches without a recovery point ([`Idle`]): there no backup was made, or the
//! clock jumped over them. A clock that cannot be right lets nothing go.

use std::cmp::Reverse;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use chrono::{Datelike, NaiveDateTime};

use crate::report::units;
use crate::store::Kind;

const DAY: Duration = Duration::from_secs(86_400);
/// A newest recovery point that is older than this says that the clock has jumped ahead, or that nothing was backed up for a
/// year; in either case old backups are what one wants to have.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

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
    /// The time that its age is counted from.
    pub taken: SystemTime,
    /// That time by the calendar on the wall, for the rules of days, weeks, months and years.
    pub local: NaiveDateTime,
    /// The time that its name vouches for, where it does: the clock stood there once.
    pub dated: Option<SystemTime>,
    /// Whether it is a recovery point.
    pub recorded: bool,
    /// Whether its files have been verified at rest.
    pub verified: bool,
    /// Whether a drill has restored it.
    pub proven: bool,
}

/// What is to be kept. A number of 0 keeps nothing by that rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Everything that is not older than so many whole days.
    pub days: u64,
    /// The last so many of each component.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Its age in days is greater than that, but not without what counts for less.
    Idle(u64),
    /// It holds the newest good backup of a component.
    NewestGood(Kind),
    /// It holds the best backup of a component of which none is known to be good.
    Best(Kind),
    /// It is among the last of a component.
    Last(Kind),
    /// It is the newest of its period for a component.
    Periodic(Period, Kind),
    /// It is the newest verified one that holds a component.
    Verified(Kind),
    /// It is the newest proven one that holds a component.
    Proven(Kind),
    /// The newest backup of a component is less than half as large.
    Larger(Kind),
    /// The clock cannot be right.
    Clock,
    /// The rules that were set are not known.
    Rules,
}

impl Reason {
    /// The reason in words, and the component that it is about.
    fn words(self) -> (String, Option<Kind>) {
        let (words, kind) = match self {
            Self::Young(days) => return (format!("{days} day(s) old, which is not over the retention"), None),
            Self::Idle(days) => {
                return (
                    format!("{days} day(s) old, but for a part of them no backup was made, and that counts for less"),
                    None,
                )
            }
            Self::Clock => return ("the clock cannot be right".to_owned(), None),
            Self::Rules => return ("what is to be kept is not known".to_owned(), None),
            Self::NewestGood(kind) => ("newest good backup of", kind),
            Self::Best(kind) => ("the best there is, though not known to be good, of", kind),
            Self::Last(kind) => ("among the last backups of", kind),
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

/// What is wrong with the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// The unit at this index is from the future, by more than a day.
    Ahead(usize),
    /// The newest backup is older than a year.
    LongAgo,
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
            let kind = kind.map(Kind::dir);
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
    let mistrusted = clock(units, now).is_some();
    let idle = Idle::of(units, now, rules.days);
    let mut verdicts: Vec<Verdict> = units
        .iter()
        .map(|unit| {
            let age = age_in_days(unit.taken, now);
            let mut reasons = Vec::new();
            if mistrusted {
                reasons.push(Reason::Clock);
            }
            if age <= rules.days {
                reasons.push(Reason::Young(age));
            } else if idle.age(unit.taken, now) <= rules.days {
                reasons.push(Reason::Idle(age));
            }
            Verdict { age, reasons }
        })
        .collect();
    for kind in Kind::ALL {
        for (index, reason) in wanted(units, rules, kind) {
            verdicts[index].reasons.push(reason);
        }
    }
    verdicts
}

/// The units that the rules want for the sake of one component.
fn wanted(units: &[Unit], rules: &Rules, kind: Kind) -> Vec<(usize, Reason)> {
    let series = series(units, kind);
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
    wanted.extend(
        good.iter()
            .take(rules.last)
            .map(|(index, _)| (*index, Reason::Last(kind))),
    );
    for period in Period::ALL {
        let mut seen = Vec::new();
        for (index, _) in &good {
            if seen.len() == period.wanted(rules) {
                break;
            }
            let key = period.of(units[*index].local);
            if seen.last() != Some(&key) && !seen.contains(&key) {
                seen.push(key);
                wanted.push((*index, Reason::Periodic(period, kind)));
            }
        }
    }
    let first = |is: &dyn Fn(&Unit) -> bool| good.iter().find(|(index, _)| is(&units[*index]));
    wanted.extend(first(&|unit| unit.verified).map(|(index, _)| (*index, Reason::Verified(kind))));
    wanted.extend(first(&|unit| unit.proven).map(|(index, _)| (*index, Reason::Proven(kind))));
    // Only among files whose sizes were recorded when they were made; of others nobody knows what they were.
    if units[newest].recorded {
        let larger = good
            .iter()
            .find(|(index, file)| units[*index].recorded && is_shrunk(kind, file.bytes, newest_file.bytes));
        wanted.extend(larger.map(|(index, _)| (*index, Reason::Larger(kind))));
    }
    wanted
}

fn is_good(file: &File) -> bool {
    file.grade == Grade::Good
}

/// The files of one kind with the index of their unit, newest first. File names carry the time of the backup, so that they
/// settle equal times (a copy without `-p`) and the order of a listing does not.
pub fn series(units: &[Unit], kind: Kind) -> Vec<(usize, &File)> {
    let mut series: Vec<(usize, &File)> = units
        .iter()
        .enumerate()
        .flat_map(|(index, unit)| unit.files.iter().map(move |file| (index, file)))
        .filter(|(_, file)| file.kind == kind)
        .collect();
    series.sort_by_key(|(index, file)| Reverse((units[*index].taken, &file.path)));
    series
}

/// What is wrong with a clock that says `now`, judged by the backups that it has dated before.
pub fn clock(units: &[Unit], now: SystemTime) -> Option<Jump> {
    let ahead = units
        .iter()
        .enumerate()
        .filter(|(_, unit)| unit.dated.is_some_and(|dated| dated > now + DAY))
        .max_by_key(|(_, unit)| unit.dated);
    if let Some((index, _)) = ahead {
        return Some(Jump::Ahead(index));
    }
    // Files of other programs may well be of another age.
    let recorded = units.iter().any(|unit| unit.recorded);
    let newest = units.iter().map(|unit| unit.taken).max()?;
    (recorded && newest + YEAR < now).then_some(Jump::LongAgo)
}

/// The stretches without a recovery point that are longer than the retention. Each counts as a third of it.
///
/// The clock may have jumped over such a stretch, the host been off, or every backup have failed; in all three cases
/// what is there must not go at one stroke. Each backup that is made afterwards lets time pass as usual, so that what is old
/// goes in the end, and whoever backs up more rarely than the retention keeps three or four points instead of one. What goes
/// makes two stretches into one, which never counts for more than the two: a second cleanup finds nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Where each begins, its length, and how much of that counts.
    stretches: Vec<(SystemTime, Duration, Duration)>,
}

impl Idle {
    /// The least that a stretch counts: more than a day, or nothing would ever go under a retention of none.
    const LEAST: Duration = Duration::from_secs(2 * DAY.as_secs());

    /// The stretches between recovery points of these times, and from the last one until `now`.
    pub fn between(points: impl Iterator<Item = SystemTime>, now: SystemTime, days: u64) -> Self {
        let mut times: Vec<SystemTime> = points.filter(|time| *time < now).chain([now]).collect();
        times.sort();
        let third = Duration::from_secs(days.saturating_mul(DAY.as_secs()) / 3);
        let stretches = times.windows(2).filter_map(|pair| {
            let length = pair[1].duration_since(pair[0]).ok()?;
            let counts = length.min(third.max(Self::LEAST));
            (age_in_days(pair[0], pair[1]) > days).then_some((pair[0], length, counts))
        });
        Self {
            stretches: stretches.collect(),
        }
    }

    /// The same for the recovery points among `units`.
    pub fn of(units: &[Unit], now: SystemTime, days: u64) -> Self {
        let points = units.iter().filter(|unit| unit.recorded);
        // Of a copy without its times the age is that of the copy, and its name tells that a backup was made then.
        let times = points.flat_map(|unit| unit.dated.into_iter().chain([unit.taken]));
        Self::between(times, now, days)
    }

    /// The age in whole days of what was taken at that time, by what counts.
    pub fn age(&self, taken: SystemTime, now: SystemTime) -> u64 {
        let since = self.stretches.iter().filter(|(begin, _, _)| *begin >= taken);
        let uncounted: Duration = since.map(|(_, length, counts)| *length - *counts).sum();
        age_in_days(taken + uncounted, now)
    }

    /// The length in days of the stretch that lasts until `now`, and how many of them count.
    pub fn until(&self, now: SystemTime) -> Option<(u64, u64)> {
        let (begin, length, counts) = self.stretches.last()?;
        let days = |time: Duration| time.as_secs() / DAY.as_secs();
        (*begin + *length == now).then(|| (days(*length), days(*counts)))
    }
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

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "The newest backup of {} is much smaller than the one before it ({} after {}): see whether something is missing",
            self.kind.dir(),
            units::amount(self.newest),
            units::amount(self.before)
        )
    }
}

/// The components whose newest good backup is less than half as large as the one before it.
pub fn shrunk(units: &[Unit]) -> Vec<Shrunk> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let mut good = series(units, kind)
            .into_iter()
            .filter(|(_, file)| is_good(file))
            .map(|(_, file)| file.bytes);
        if let (Some(newest), Some(before)) = (good.next(), good.next()) {
            if is_shrunk(kind, before, newest) {
                found.push(Shrunk { kind, newest, before });
            }
        }
    }
    found
}

/// Whether a size is less than half of that before. Redis holds jobs that come and go: a small queue tells nothing.
fn is_shrunk(kind: Kind, before: u64, newest: u64) -> bool {
    let slack = match kind {
        Kind::Redis => 64 << 10,
        _ => 0,
    };
    before > newest.saturating_mul(2).saturating_add(slack)
}

/// Age in whole days, rounded down; 0 for what is from the future.
fn age_in_days(taken: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(taken).map_or(0, |age| age.as_secs() / DAY.as_secs())
}

#[cfg(test)]
mod tests;
