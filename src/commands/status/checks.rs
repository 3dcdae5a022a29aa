//! What status looks at, and what it finds.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use chrono::DateTime;

use crate::app::App;
use crate::report::finding::{Finding, Level};
use crate::report::units;
use crate::stack;
use crate::store::inventory;
use crate::store::manifest::Point;
use crate::store::marks::DrillOutcome;
use crate::store::retention::Rules;
use crate::store::space::available;
use crate::store::Kind;

use super::DAY;

/// How many earlier points the newest one's size is compared with.
const COMPARED: usize = 5;
/// How far the disk forecast looks.
const HORIZON_DAYS: u64 = 90;
/// A disk that will be full within so many days is warned about.
const WARN_DAYS: u64 = 14;

/// A recovery point as the checks see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) name: String,
    /// Its age in seconds; negative when it lies in the future.
    pub(super) age: i64,
    pub(super) bytes: u64,
    pub(super) complete: bool,
    /// Why `restore-all latest` passes it over.
    pub(super) why_not_latest: Option<String>,
    pub(super) failed: Option<String>,
    /// Files that are gone or have another size than when they were made.
    pub(super) broken: Vec<String>,
    /// Files in which a verification has found other contents.
    pub(super) damaged: Vec<String>,
    pub(super) verified: Option<String>,
    pub(super) drill: Option<DrillOutcome>,
    pub(super) offsite: Option<String>,
}

/// All that the verdict rests on.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Oldest first.
    pub(super) points: Vec<Seen>,
    pub(super) unreadable: usize,
    /// What a restore that was interrupted has left.
    pub(super) interrupted: Option<stack::Interrupted>,
    pub(super) free: Option<u64>,
    pub(super) reserve: u64,
    /// For how many days points are kept, as far as a number of days can tell.
    pub(super) kept_days: u64,
    pub(super) offsite_wanted: bool,
}

impl State {
    /// Looks at the recovery points, their files and the disk. Reads names and sizes only, no contents.
    ///
    /// # Errors
    /// When the recovery points cannot be listed.
    pub fn gather(app: &App) -> Result<Self> {
        let config = &app.config;
        let mut state = Self {
            free: available(&config.backups(), config.stall).ok(),
            reserve: config.min_free_kb * 1024,
            offsite_wanted: config.offsite,
            kept_days: kept_days(&config.retention),
            ..Self::default()
        };
        state.interrupted = stack::interrupted(app);
        for (_, point) in inventory::list(&app.store)? {
            let Ok(point) = point else {
                state.unreadable += 1;
                continue;
            };
            state.points.push(Seen::of(app, &point));
        }
        Ok(state)
    }

    /// The newest point that can be relied on: the one that `restore-all latest` takes.
    pub(super) fn newest(&self) -> Option<(usize, &Seen)> {
        self.points
            .iter()
            .enumerate()
            .rev()
            .find(|(_, point)| point.why_not_latest.is_none())
    }

    /// What is right and what is wrong.
    pub fn findings(&self, max_age: Duration) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some((index, newest)) = self.newest() else {
            let text = match self.points.last() {
                Some(point) => format!(
                    "no complete recovery point; the newest one, {}, cannot be relied on: {}",
                    point.name,
                    point.why_not_latest.as_deref().unwrap_or_default()
                ),
                None => "no recovery point yet: run backup-all".to_owned(),
            };
            findings.push(Finding::new("age", Level::Critical, text));
            let files = files(&[], &self.points);
            findings.extend((files.level > Level::Ok).then_some(files));
            return findings;
        };
        findings.push(age(newest, max_age));
        findings.push(run_since(&self.points[index + 1..]));
        findings.push(files(&newest.broken, &self.points[index..]));
        findings.push(self.size(index, newest));
        findings.push(Finding::new(
            "verified",
            Level::Ok,
            newest
                .verified
                .as_deref()
                .unwrap_or("not yet: n8n-backup verify reads every byte again"),
        ));
        findings.push(self.proven(newest));
        findings.push(match newest.offsite.as_deref() {
            None if self.offsite_wanted => {
                Finding::new("offsite", Level::Warning, "the newest point has no copy off-site")
            }
            copy => Finding::new("offsite", Level::Ok, copy.unwrap_or("no copy off-site")),
        });
        findings.push(self.disk());
        findings.extend(self.interrupted.iter().map(|left| {
            let level = if left.holds { Level::Critical } else { Level::Warning };
            Finding::new("restore", level, left.text.as_str())
        }));
        if self.unreadable > 0 {
            findings.push(Finding::new(
                "manifests",
                Level::Warning,
                format!("{} file(s) in backups/sets cannot be read", self.unreadable),
            ));
        }
        findings
    }

    /// The newest point's size against the median of those before it.
    fn size(&self, index: usize, newest: &Seen) -> Finding {
        let mut before: Vec<u64> = self.points[..index]
            .iter()
            .rev()
            .filter(|point| point.complete)
            .take(COMPARED)
            .map(|point| point.bytes)
            .collect();
        before.sort_unstable();
        let now = units::amount(newest.bytes);
        match before.get(before.len() / 2) {
            None => Finding::new("size", Level::Ok, format!("{now}, the first one")),
            Some(usual) if newest.bytes < usual / 2 => Finding::new(
                "size",
                Level::Warning,
                format!(
                    "{now}, less than half of the usual {}: is data missing?",
                    units::amount(*usual)
                ),
            ),
            Some(usual) => Finding::new("size", Level::Ok, format!("{now}, usual is {}", units::amount(*usual))),
        }
    }

    /// When a drill last restored a point.
    fn proven(&self, newest: &Seen) -> Finding {
        if let Some(failed) = newest.drill.as_ref().filter(|outcome| !outcome.passed()) {
            return Finding::new("proven", Level::Critical, format!("the drill: {failed}"));
        }
        let last = self.points.iter().rev().find(|point| point.is_proven());
        let text = match last {
            Some(point) => format!("{} was restored in a drill", point.name),
            None => "no drill yet: test-recovery.sh --full restores a point without touching the live stack".to_owned(),
        };
        Finding::new("proven", Level::Ok, text)
    }

    fn disk(&self) -> Finding {
        let Some(free) = self.free else {
            return Finding::new("disk", Level::Warning, "the free space cannot be told");
        };
        let text = format!("{} free", units::available(free));
        match self.days_until_full() {
            _ if free < self.reserve => Finding::new(
                "disk",
                Level::Critical,
                format!("{text}, and a run asks for {}", units::amount(self.reserve)),
            ),
            Some(0) => Finding::new("disk", Level::Critical, format!("{text}: the next run will not fit")),
            Some(days) if days < WARN_DAYS => {
                Finding::new("disk", Level::Warning, format!("{text}, full in about {days} days"))
            }
            Some(days) => Finding::new("disk", Level::Ok, format!("{text}, full in about {days} days")),
            None => Finding::new(
                "disk",
                Level::Ok,
                format!("{text}, enough for {HORIZON_DAYS} days and more"),
            ),
        }
    }

    /// In how many days the disk will be full, when points go on to be made, to grow and to be deleted as they were.
    /// `None`: not within the horizon, or nothing is known.
    pub fn days_until_full(&self) -> Option<u64> {
        let sizes: Vec<(u64, u64)> = self
            .points
            .iter()
            .filter(|point| point.complete)
            .map(|point| (u64::try_from(point.age).unwrap_or(0), point.bytes))
            .collect();
        forecast(&sizes, self.free?.saturating_sub(self.reserve), self.kept_days)
    }

    /// Free bytes on the disk of the backups.
    pub fn free(&self) -> Option<u64> {
        self.free
    }

    /// How many recovery points there are, and what their files hold in bytes.
    pub fn stored(&self) -> (u64, u64) {
        let bytes = self.points.iter().map(|point| point.bytes).sum();
        (self.points.len() as u64, bytes)
    }

    /// The age in seconds of the newest complete point.
    pub fn newest_age(&self) -> Option<i64> {
        self.newest().map(|(_, point)| point.age)
    }

    /// The age in seconds of the newest point that a drill restored.
    pub fn proven_age(&self) -> Option<i64> {
        let proven = self.points.iter().rev().find(|point| point.is_proven());
        proven.map(|point| point.age)
    }
}

impl Seen {
    fn is_proven(&self) -> bool {
        self.drill.as_ref().is_some_and(DrillOutcome::passed)
    }

    fn of(app: &App, point: &Point) -> Self {
        let begun = point
            .fact("begun")
            .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
            .map_or_else(|| seconds(point.stamp.time()), |time| time.timestamp());
        let mut seen = Self {
            name: point.stamp.to_string(),
            age: seconds(SystemTime::now()).saturating_sub(begun),
            complete: point.is_complete(),
            why_not_latest: point.why_not_latest(&Kind::ALL),
            failed: point.fact("failed").filter(|text| *text != "none").map(str::to_owned),
            verified: point.fact("verified").map(str::to_owned),
            drill: point.drill(),
            offsite: point.fact("offsite").map(str::to_owned),
            ..Self::default()
        };
        let damaged = point.listed("damaged");
        for member in &point.members {
            if damaged.contains(&member.kind.dir()) {
                seen.damaged.push(member.name.clone());
            }
            let bytes = fs::metadata(app.store.root().join(&member.name)).map(|meta| meta.len());
            let expected = point.size(member.kind);
            match bytes {
                Ok(bytes) if expected.is_none_or(|expected| expected == bytes) => seen.bytes += bytes,
                _ => seen.broken.push(member.name.clone()),
            }
        }
        seen
    }
}

/// The days that points are kept, those that the calendar's rules keep longer counted as one more each.
fn kept_days(rules: &Rules) -> u64 {
    let last = rules.days.max(rules.last as u64).max(rules.daily as u64);
    last.saturating_add((rules.weekly + rules.monthly + rules.yearly) as u64)
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// How old the newest point is.
fn age(point: &Seen, max_age: Duration) -> Finding {
    let text = format!("{} is {} old", point.name, span(point.age));
    // An hour is a clock that was set back in autumn, not one that jumped.
    if point.age < -3900 {
        let text = format!("{} lies in the future: is the clock right?", point.name);
        Finding::new("age", Level::Warning, text)
    } else if point.age > i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX) {
        let limit = span(i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX));
        Finding::new("age", Level::Critical, format!("{text}, more than {limit}"))
    } else {
        Finding::new("age", Level::Ok, text)
    }
}

/// What became of the runs after the newest point that can be relied on.
fn run_since(later: &[Seen]) -> Finding {
    let told = later
        .iter()
        .rev()
        .find_map(|point| match (&point.failed, &point.why_not_latest) {
            (Some(failed), _) => Some(format!("a later run, {}, failed in part: {failed}", point.name)),
            // The backup of one component by itself is nothing unusual, and damage is told of the files.
            (None, Some(why)) if point.complete && point.damaged.is_empty() => Some(format!(
                "a later run, {}, is not taken for the latest: {why}",
                point.name
            )),
            _ => None,
        });
    match told {
        Some(text) => Finding::new("run", Level::Warning, text),
        None => Finding::new("run", Level::Ok, "every component was backed up"),
    }
}

/// Whether files are `broken`, or were found damaged in any of `points`.
fn files(broken: &[String], points: &[Seen]) -> Finding {
    let damaged: Vec<String> = points.iter().flat_map(|point| point.damaged.clone()).collect();
    let told: Vec<String> = [
        ("missing or of another size", broken),
        ("found damaged by verify", &damaged),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{what}: {}", names.join(", ")))
    .collect();
    match told.is_empty() {
        true => Finding::new("files", Level::Ok, "all files are there, with their sizes"),
        false => Finding::new("files", Level::Critical, told.join("; ")),
    }
}

/// A time span as people say it: `45 s`, `12 min`, `26 h`, `3 days`.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// In how many days `room` bytes will be used up. `points` are (age in seconds, bytes), oldest first. Points are taken to
/// come as often as they did, to grow by as much a day as they did, and to go when older than `retention` days.
pub(super) fn forecast(points: &[(u64, u64)], room: u64, retention: u64) -> Option<u64> {
    let (&(oldest_age, oldest_bytes), &(newest_age, newest_bytes)) = (points.first()?, points.last()?);
    let days = oldest_age.saturating_sub(newest_age) as f64 / DAY as f64;
    // One point tells neither: once a day, and no growth, then.
    let (per_day, growth) = if points.len() > 1 && days >= 0.5 {
        (
            (points.len() - 1) as f64 / days,
            (newest_bytes as f64 - oldest_bytes as f64) / days,
        )
    } else {
        (1.0, 0.0)
    };
    let mut kept: Vec<(f64, f64)> = points
        .iter()
        .map(|&(age, bytes)| (-(age as f64) / DAY as f64, bytes as f64))
        .collect();
    let now: f64 = kept.iter().map(|(_, bytes)| bytes).sum();
    for day in 0..HORIZON_DAYS {
        let at = day as f64;
        kept.retain(|(born, _)| (at - born).floor() <= retention as f64);
        let next = (newest_bytes as f64 + growth * at).max(0.0);
        kept.push((at, next * per_day));
        if kept.iter().map(|(_, bytes)| bytes).sum::<f64>() - now > room as f64 {
            return Some(day);
        }
    }
    None
}
