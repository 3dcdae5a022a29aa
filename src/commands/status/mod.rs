//! status: is the last backup young, whole, proven, elsewhere, and will the next one fit? Said once for people, programs
//! and monitoring: the exit codes and the first line are those of the Monitoring Plugins' development guidelines.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use anyhow::{bail, Context as _, Result};
use chrono::DateTime;

use super::shared::open;
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::report::finding::{Finding, Level};
use crate::report::json::Json;
use crate::report::log::ascii;
use crate::report::units;
use crate::stack;
use crate::store::manifest::{self, Point};
use crate::store::retention::Rules;
use crate::store::space::available;
use crate::store::Kind;

const JSON: Flag = Flag::new("json", "print JSON");
const MAX_AGE: Flag = Flag::new(
    "max-age",
    "the newest recovery point is critical when older, as in 26h (default), 90m, 2d",
)
.value("AGE");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "status",
        summary: "tell how old, whole, proven and safe the backups are",
        details: "Exit codes and first line are those of a monitoring plugin: 0 ok, 1 warning, 2 critical, 3 unknown.",
        flags: &[JSON, MAX_AGE],
        failure: UNKNOWN,
        ..Row::TELLS
    },
    run: Run::Plugin(
        |project, call| run(&open(project, call)?, call.value(&MAX_AGE), call.has(&JSON)),
        unknown,
    ),
};

const DAY: u64 = 86_400;
/// How old the newest recovery point may be when nothing else is said: a day and two hours for a nightly run.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(26 * 3600);
/// How many earlier points the newest one's size is compared with.
const COMPARED: usize = 5;
/// How far the disk forecast looks.
const HORIZON_DAYS: u64 = 90;
/// A disk that will be full within so many days is warned about.
const WARN_DAYS: u64 = 14;

/// The exit code when nothing can be told.
const UNKNOWN: u8 = 3;

/// A recovery point as the checks see it.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: String,
    /// Its age in seconds; negative when it lies in the future.
    age: i64,
    bytes: u64,
    complete: bool,
    /// Why `restore-all latest` passes it over.
    why_not_latest: Option<String>,
    failed: Option<String>,
    /// Files that are gone or have another size than when they were made.
    broken: Vec<String>,
    /// Files in which a verification has found other contents.
    damaged: Vec<String>,
    verified: Option<String>,
    drill: Option<String>,
    offsite: Option<String>,
}

/// All that the verdict rests on.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Oldest first.
    points: Vec<Seen>,
    unreadable: usize,
    /// What a restore that was interrupted has left.
    interrupted: Option<stack::Interrupted>,
    free: Option<u64>,
    reserve: u64,
    /// For how many days points are kept, as far as a number of days can tell.
    kept_days: u64,
    offsite_wanted: bool,
}

/// Reads a duration such as `26h`, `90m`, `2d`, `45s`.
///
/// # Errors
/// When it is none.
pub fn parse_age(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        _ => bail!("not an age such as 26h, 90m or 2d: '{text}'"),
    };
    number
        .parse::<u32>()
        .map(|number| Duration::from_secs(u64::from(number) * unit))
        .with_context(|| format!("not an age such as 26h, 90m or 2d: '{text}'"))
}

/// The line for monitoring when nothing can be told.
fn unknown(error: &anyhow::Error) -> String {
    format!("BACKUP UNKNOWN - {}\n", ascii(&format!("{error:#}")))
}

/// Prints the verdict and gives its exit code: 0 ok, 1 warning, 2 critical, 3 when nothing can be told.
///
/// # Errors
/// When standard output cannot be written.
fn run(app: &App, max_age: Option<&OsStr>, json: bool) -> Result<u8> {
    let (code, text) = match tell(app, max_age, json) {
        Ok((level, text)) => (level as u8, text),
        Err(error) => (UNKNOWN, unknown(&error)),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("Cannot write to standard output")?;
    Ok(code)
}

fn tell(app: &App, max_age: Option<&OsStr>, json: bool) -> Result<(Level, String)> {
    let max_age = match max_age {
        Some(text) => parse_age(&text.to_string_lossy()).context("Bad --max-age")?,
        None => DEFAULT_MAX_AGE,
    };
    let state = State::gather(app)?;
    let findings = state.findings(max_age);
    let level = worst(&findings);
    let text = if json {
        format!("{}\n", state.json(&findings))
    } else {
        state.report(&findings, max_age)
    };
    Ok((level, text))
}

fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
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
        for (_, point) in manifest::list(&app.store)? {
            let Ok(point) = point else {
                state.unreadable += 1;
                continue;
            };
            state.points.push(Seen::of(app, &point));
        }
        Ok(state)
    }

    /// The newest point that can be relied on: the one that `restore-all latest` takes.
    fn newest(&self) -> Option<(usize, &Seen)> {
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
        findings.push(mark(
            "verified",
            newest.verified.as_deref(),
            "not yet: n8n-backup verify reads every byte again",
        ));
        findings.push(self.proven(newest));
        findings.push(match newest.offsite.as_deref() {
            None if self.offsite_wanted => {
                Finding::new("offsite", Level::Warning, "the newest point has no copy elsewhere")
            }
            mark_ => mark("offsite", mark_, "no copy elsewhere"),
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
        if let Some(failed) = newest.drill.as_deref().filter(|mark| !is_good(mark)) {
            return Finding::new("proven", Level::Critical, format!("the drill: {failed}"));
        }
        let last = self
            .points
            .iter()
            .rev()
            .find(|p| p.drill.as_deref().is_some_and(is_good));
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
        let proven = self
            .points
            .iter()
            .rev()
            .find(|p| p.drill.as_deref().is_some_and(is_good));
        proven.map(|point| point.age)
    }

    fn report(&self, findings: &[Finding], max_age: Duration) -> String {
        let level = worst(findings);
        let headline = match (level, self.newest()) {
            (Level::Ok, Some((_, point))) => format!(
                "recovery point {}, {} old, {}",
                point.name,
                span(point.age),
                units::amount(point.bytes)
            ),
            _ => findings
                .iter()
                .filter(|finding| finding.level == level)
                .map(|finding| format!("{}: {}", finding.check, finding.text))
                .collect::<Vec<_>>()
                .join("; "),
        };
        let mut text = format!("BACKUP {} - {headline}", level.name());
        let mut performance = Vec::new();
        if let Some((_, point)) = self.newest() {
            performance.push(format!("age={}s;;{};0", point.age.max(0), max_age.as_secs()));
            performance.push(format!("size={}B;;;0", point.bytes));
        }
        performance.extend(self.free.map(|free| format!("free={free}B;;{}:;0", self.reserve)));
        performance.push(format!("points={};;;0", self.points.len()));
        text = format!("{} | {}\n", text.replace('|', "/"), performance.join(" "));
        for finding in findings {
            text.push_str(&format!(
                "[{}] {}: {}\n",
                finding.level.name(),
                finding.check,
                finding.text
            ));
        }
        text.lines().map(|line| format!("{}\n", ascii(line))).collect()
    }

    fn json(&self, findings: &[Finding]) -> Json {
        let level = worst(findings);
        let newest = self.newest().map_or(Json::Null, |(_, point)| {
            Json::Object(vec![
                ("name", Json::text(&point.name)),
                ("age_seconds", Json::Number(point.age)),
                ("bytes", Json::count(point.bytes)),
                ("verified", Json::maybe(point.verified.as_deref())),
                ("drill", Json::maybe(point.drill.as_deref())),
                ("offsite", Json::maybe(point.offsite.as_deref())),
            ])
        });
        let checks = findings.iter().map(|finding| {
            Json::Object(vec![
                ("check", Json::text(finding.check)),
                ("status", Json::text(finding.level.name().to_ascii_lowercase())),
                ("text", Json::text(&finding.text)),
            ])
        });
        Json::Object(vec![
            ("status", Json::text(level.name().to_ascii_lowercase())),
            ("code", Json::Number(level as i64)),
            ("newest", newest),
            ("points", Json::count(self.points.len() as u64)),
            ("stored_bytes", Json::count(self.stored().1)),
            ("free_bytes", self.free.map_or(Json::Null, Json::count)),
            (
                "days_until_full",
                self.days_until_full().map_or(Json::Null, Json::count),
            ),
            ("checks", Json::List(checks.collect())),
        ])
    }
}

impl Seen {
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
            drill: point.fact("drill").map(str::to_owned),
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

/// A mark that something else has set: `passed ...`, or what went wrong.
fn mark(check: &'static str, mark: Option<&str>, without: &str) -> Finding {
    match mark {
        None => Finding::new(check, Level::Ok, without),
        Some(text) if is_good(text) => Finding::new(check, Level::Ok, text),
        Some(text) => Finding::new(check, Level::Critical, text),
    }
}

/// Whether a mark tells of a success.
fn is_good(mark: &str) -> bool {
    !mark.to_ascii_lowercase().contains("fail")
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
fn forecast(points: &[(u64, u64)], room: u64, retention: u64) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn point(age_hours: i64, bytes: u64) -> Seen {
        Seen {
            name: format!("{age_hours}h"),
            age: age_hours * 3600,
            bytes,
            complete: true,
            ..Seen::default()
        }
    }

    fn state(points: Vec<Seen>) -> State {
        State {
            points,
            free: Some(100 * GIB),
            reserve: GIB,
            kept_days: 7,
            ..State::default()
        }
    }

    fn level(state: &State, check: &str) -> Level {
        let findings = state.findings(DEFAULT_MAX_AGE);
        findings.iter().find(|finding| finding.check == check).unwrap().level
    }

    #[test]
    fn ages_are_read() {
        for (text, seconds) in [("26h", 93_600), ("90m", 5400), ("2d", 172_800), ("0s", 0)] {
            assert_eq!(parse_age(text).unwrap().as_secs(), seconds);
        }
        for text in ["", "h", "26", "-1h", "1.5h", "26 h", "5\u{20ac}", "99999999999h"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_newest_complete_point_counts() {
        assert_eq!(worst(&state(vec![point(5, 9)]).findings(DEFAULT_MAX_AGE)), Level::Ok);
        assert_eq!(level(&state(vec![]), "age"), Level::Critical);
        assert_eq!(level(&state(vec![point(25, 9)]), "age"), Level::Ok);
        assert_eq!(level(&state(vec![point(27, 9)]), "age"), Level::Critical);
        assert_eq!(level(&state(vec![point(-2, 9)]), "age"), Level::Warning);
        let partial = Seen {
            complete: false,
            why_not_latest: Some("it holds no redis".to_owned()),
            failed: Some("redis".to_owned()),
            ..point(1, 5)
        };
        let single = Seen {
            failed: None,
            ..partial.clone()
        };
        assert_eq!(level(&state(vec![partial.clone()]), "age"), Level::Critical);
        assert_eq!(
            level(&state(vec![point(20, 9), partial.clone()]), "run"),
            Level::Warning
        );
        assert_eq!(level(&state(vec![partial, point(20, 9), single]), "run"), Level::Ok);
    }

    #[test]
    fn a_point_that_a_restore_would_pass_over_is_not_the_newest() {
        let aside = Seen {
            why_not_latest: Some("made while a restore was interrupted".to_owned()),
            ..point(1, 9)
        };
        let damaged = Seen {
            why_not_latest: Some("damaged in it: env".to_owned()),
            damaged: vec!["env/env_x.backup".to_owned()],
            ..point(1, 9)
        };
        let after = |later: &Seen| state(vec![point(20, 9), later.clone()]);
        for later in [&aside, &damaged] {
            assert_eq!(after(later).newest_age(), Some(20 * 3600));
            let alone = state(vec![later.clone()]);
            assert_eq!((alone.newest_age(), level(&alone, "age")), (None, Level::Critical));
        }
        assert_eq!(level(&after(&aside), "run"), Level::Warning);
        assert_eq!(level(&after(&aside), "files"), Level::Ok);
        // Damage is told whether or not there is anything else to fall back on.
        for state in [after(&damaged), state(vec![damaged])] {
            assert_eq!(level(&state, "files"), Level::Critical);
        }
    }

    #[test]
    fn a_shrunken_or_broken_point_is_noticed() {
        let before = || (2..6).rev().map(|day| point(day * 24, 1000));
        assert_eq!(
            level(&state(before().chain([point(1, 501)]).collect()), "size"),
            Level::Ok
        );
        assert_eq!(
            level(&state(before().chain([point(1, 499)]).collect()), "size"),
            Level::Warning
        );
        let broken = Seen {
            broken: vec!["redis/x.rdb".to_owned()],
            ..point(1, 9)
        };
        assert_eq!(level(&state(vec![broken]), "files"), Level::Critical);
        let drilled = |mark: &str| Seen {
            drill: Some(mark.to_owned()),
            ..point(1, 9)
        };
        assert_eq!(
            level(&state(vec![drilled("failed: 3 rows lost")]), "proven"),
            Level::Critical
        );
        assert_eq!(level(&state(vec![drilled("passed")]), "proven"), Level::Ok);
    }

    #[test]
    fn a_disk_that_will_be_full_is_foreseen() {
        let daily = |count: u64, bytes: u64| (0..count).rev().map(|day| (day * DAY, bytes)).collect::<Vec<_>>();
        // Eight points of a day each are kept: nothing is added to them.
        assert_eq!(forecast(&daily(9, GIB), 2 * GIB, 7), None);
        // The fourth of four more does not fit.
        assert_eq!(forecast(&daily(3, GIB), 3 * GIB + 1, 30), Some(3));
        assert_eq!(forecast(&daily(1, GIB), GIB - 1, 7), Some(0));
        assert_eq!(forecast(&[], 0, 7), None);
        // Growth by a tenth of a GiB a day fills the disk though their number stays.
        let growing: Vec<(u64, u64)> = (0..8).rev().map(|day| (day * DAY, (17 - day) * GIB / 10)).collect();
        let full = forecast(&growing, 20 * GIB, 7).unwrap();
        assert!((20..40).contains(&full), "{full}");
        let mut tight = state(vec![point(25, 60 * GIB), point(1, 60 * GIB)]);
        assert_eq!(level(&tight, "disk"), Level::Warning);
        tight.free = Some(GIB / 2);
        assert_eq!(level(&tight, "disk"), Level::Critical);
    }

    #[test]
    fn the_first_line_is_a_plugins() {
        let state = state(vec![point(5, 4096)]);
        let text = state.report(&state.findings(DEFAULT_MAX_AGE), DEFAULT_MAX_AGE);
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            format!(
                "BACKUP OK - recovery point 5h, 5 h old, 4.0KiB | age=18000s;;93600;0 size=4096B;;;0 \
                 free={}B;;{GIB}:;0 points=1;;;0",
                100 * GIB
            )
        );
    }
}
