//! What status looks at, and what it finds.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::app::App;
use crate::process::explained;
use crate::report::finding::{Finding, Level};
use crate::report::units;
use crate::stack;
use crate::store::identity::OF_ANOTHER;
use crate::store::inventory::State as FileState;
use crate::store::inventory::{is_ahead, Away, Inventory, Listing, PointOnDisk};
use crate::store::manifest::NONE;
use crate::store::marks::{self, DrillOutcome};
use crate::store::{total, Kind};

use super::disk::{Keep, Room};

/// So many seconds a point may wait for its copy off-site: it is made at the end of the run, and takes its time.
const SENT_WITHIN: i64 = 12 * 3600;
/// How many earlier points the newest one's size is compared with.
const COMPARED: usize = 5;
/// A recovery point as the checks see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) name: String,
    /// Its age in seconds; negative when it lies in the future.
    pub(super) age: i64,
    /// What its files held when they were made.
    pub(super) bytes: u64,
    /// The same of each file, with its kind.
    pub(super) sizes: Vec<(Kind, u64)>,
    /// What those of them hold that are there.
    pub(super) stored: u64,
    pub(super) complete: bool,
    /// Why `restore-all latest` passes it over.
    pub(super) why_not_latest: Option<String>,
    pub(super) failed: Option<String>,
    /// Files that are gone or have another size than when they were made.
    pub(super) broken: Vec<String>,
    /// Files of which nothing can be told.
    pub(super) unreadable: Vec<String>,
    /// Files in which a verification has found other contents.
    pub(super) damaged: Vec<String>,
    pub(super) verified: Option<String>,
    pub(super) drill: Option<DrillOutcome>,
    /// What the drill has shown, part by part.
    pub(super) proofs: Vec<(&'static str, String)>,
    /// Where a copy is that is whole, as far as is known.
    pub(super) offsite: Option<String>,
    /// What was found wrong with the copy.
    pub(super) copy_defect: Option<String>,
    /// What the key of the point opened in its drill.
    pub(super) key: Option<String>,
    /// Why it is pinned, if it is; empty where that was not said.
    pub(super) pinned: Option<String>,
    pub(super) executions_left_out: bool,
}

/// All that the verdict rests on.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Oldest first.
    pub(super) points: Vec<Seen>,
    /// Those that are dated in the future: they say nothing of how old the backups are.
    pub(super) ahead: Vec<Seen>,
    pub(super) unreadable: usize,
    /// Directories that cannot be read, or do not hold what they should.
    pub(super) away: Vec<String>,
    /// What a restore that was interrupted has left.
    pub(super) interrupted: Option<stack::Interrupted>,
    /// The disks of `backups/`, that of the directory itself first.
    pub(super) disks: Vec<Room>,
    pub(super) keep: Keep,
    pub(super) offsite_wanted: bool,
}

impl State {
    /// Looks at the recovery points, their files and the disks. Reads names and sizes only, no contents.
    pub fn gather(app: &App) -> Result<Self> {
        let config = &app.config;
        let mut state = Self {
            disks: Room::of(app),
            offsite_wanted: config.offsite,
            keep: Keep::of(&config.retention),
            ..Self::default()
        };
        state.interrupted = stack::interrupted(app);
        let now = SystemTime::now();
        let inventory = Inventory::take(&app.store)?;
        let is_ours = |held: &&PointOnDisk| held.point.excluded_from_latest() != Some(OF_ANOTHER);
        for held in inventory.points.iter().filter(is_ours) {
            match is_ahead(held.point.time(), now) {
                true => state.ahead.push(Seen::of(held, now)),
                false => state.points.push(Seen::of(held, now)),
            }
        }
        state.unreadable = inventory.unreadable.len();
        let missed = |away: &Away| format!("{away}: is a disk not mounted?{}", away.way_out());
        state.away = inventory.away.iter().map(missed).collect();
        let failed = inventory.listings.iter().filter_map(|(_, listing)| match listing {
            Listing::Failed(error) => Some(format!("{}: is a disk not mounted?", explained(error))),
            _ => None,
        });
        state.away.extend(failed);
        Ok(state)
    }

    /// The newest point that can be relied on: the one that `restore-all latest` takes, unless all are dated in the future.
    pub(super) fn newest(&self) -> Option<(usize, &Seen)> {
        self.points
            .iter()
            .enumerate()
            .rev()
            .find(|(_, point)| point.why_not_latest.is_none())
    }

    /// What is right and what is wrong.
    pub fn findings(&self, max_age: Duration) -> Vec<Finding> {
        let mut findings = match self.newest() {
            Some((index, newest)) => self.of_newest(index, newest, max_age),
            None => self.without_newest(),
        };
        findings.extend(self.of_disks());
        if let Some(last) = self.ahead.last() {
            let text = format!(
                "{} recovery point(s) are dated in the future, such as {}: is the clock right? They do not count here",
                self.ahead.len(),
                last.name
            );
            findings.push(Finding::new("clock", Level::Warning, text));
        }
        for away in &self.away {
            findings.push(Finding::new("directories", Level::Critical, away.as_str()));
        }
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

    fn without_newest(&self) -> Vec<Finding> {
        let text = match (self.points.last(), self.ahead.last()) {
            (Some(point), _) => format!(
                "no complete recovery point; the newest one, {}, cannot be relied on: {}",
                point.name,
                point.why_not_latest.as_deref().unwrap_or_default()
            ),
            (None, Some(_)) => "no recovery point that is not dated in the future".to_owned(),
            (None, None) => "no recovery point yet: run backup-all".to_owned(),
        };
        let files = files(&Seen::default(), &self.points);
        let mut findings = vec![Finding::new("age", Level::Critical, text)];
        findings.extend((files.level > Level::Ok).then_some(files));
        findings
    }

    fn of_newest(&self, index: usize, newest: &Seen, max_age: Duration) -> Vec<Finding> {
        let verified = newest.verified.as_deref();
        vec![
            age(newest, max_age),
            run_since(&self.points[index + 1..]),
            files(newest, &self.points[index..]),
            self.size(index, newest),
            Finding::new(
                "verified",
                Level::Ok,
                verified.unwrap_or("not yet: n8n-backup verify reads every byte again"),
            ),
            self.proven(),
            self.offsite(index, newest),
        ]
    }

    /// Whether the newest point has a copy, or its run is still at it.
    fn offsite(&self, index: usize, newest: &Seen) -> Finding {
        let mut earlier = self.points[..index].iter().rev();
        let before = earlier.find(|point| point.why_not_latest.is_none());
        if let Some(defect) = &newest.copy_defect {
            let text = format!(
                "the newest point's copy off-site is not whole ({defect}), and is to be sent again: where that fails, the \
                 log of backup-offsite says why"
            );
            return Finding::new("offsite", Level::Warning, text);
        }
        match (newest.offsite.as_deref(), before) {
            (Some(copy), _) => Finding::new("offsite", Level::Ok, copy),
            (None, _) if !self.offsite_wanted => Finding::new("offsite", Level::Ok, "no copy off-site"),
            (None, None) if newest.age < SENT_WITHIN => Finding::new("offsite", Level::Ok, "no copy off-site yet"),
            (None, Some(before)) if newest.age < SENT_WITHIN && before.offsite.is_some() => {
                let text = format!("the newest point has no copy off-site yet; {} has one", before.name);
                Finding::new("offsite", Level::Ok, text)
            }
            (None, _) => Finding::new("offsite", Level::Warning, "the newest point has no copy off-site"),
        }
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

    /// The newest point that failed its drill, unless that of a newer one has tested the same and passed.
    fn failed_drill(&self) -> Option<(&Seen, &DrillOutcome)> {
        // A full test goes without n8n's start where its image is not here.
        let started = |point: &Seen| point.proofs.iter().any(|(name, _)| marks::STARTED.ends_with(name));
        let mut passed: Vec<(&Seen, &DrillOutcome)> = Vec::new();
        for point in self.points.iter().rev() {
            let Some(drill) = &point.drill else { continue };
            let tested = |(newer, by): &(&Seen, &DrillOutcome)| {
                by.covers(drill) && (started(newer) || !drill.failed.iter().any(|name| name == marks::START))
            };
            match drill.passed() {
                true => passed.push((point, drill)),
                false if !passed.iter().any(tested) => return Some((point, drill)),
                false => {}
            }
        }
        None
    }

    /// When a drill last restored a point.
    fn proven(&self) -> Finding {
        if let Some((point, failed)) = self.failed_drill() {
            let text = format!("the drill of {}: {failed}", point.name);
            return Finding::new("proven", Level::Critical, text);
        }
        let mut proven = self.points.iter().rev().filter(|point| point.is_proven());
        let text = match proven.next() {
            Some(point) => {
                let proofs = point.proofs.iter().map(|(name, text)| format!("; {name}: {text}"));
                let proofs: String = proofs.collect();
                match point.only_proven() {
                    None => format!("{} was restored in a drill{proofs}", point.name),
                    Some(part) => {
                        let whole = proven.find(|point| point.only_proven().is_none());
                        let whole = whole.map_or_else(String::new, |point| format!("; all of {} was", point.name));
                        format!("of {} only {part} was restored in a drill{whole}{proofs}", point.name)
                    }
                }
            }
            None => "no drill yet: test-recovery.sh --full restores a point without touching the live stack".to_owned(),
        };
        Finding::new("proven", Level::Ok, text)
    }

    /// How many recovery points there are, and what their files hold in bytes.
    pub fn stored(&self) -> (u64, u64) {
        let all = self.points.iter().chain(&self.ahead);
        let count = self.points.len() + self.ahead.len();
        (count as u64, total(all.map(|point| point.stored)))
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

    /// Whether the drills say that recovery works; none before the first one.
    pub fn drill_success(&self) -> Option<bool> {
        match self.failed_drill() {
            Some(_) => Some(false),
            None => self.proven_age().map(|_| true),
        }
    }

    /// Each proof that a point has, with the age of the newest one that has it and what it says there.
    pub fn proofs(&self) -> Vec<(&'static str, i64, &str)> {
        let mut proofs: Vec<(&'static str, i64, &str)> = Vec::new();
        for point in self.points.iter().rev() {
            for (name, text) in &point.proofs {
                if proofs.iter().all(|(other, ..)| other != name) {
                    proofs.push((name, point.age, text));
                }
            }
        }
        proofs.sort_unstable_by_key(|(name, ..)| *name);
        proofs
    }
}

impl Seen {
    pub(super) fn is_proven(&self) -> bool {
        self.drill.as_ref().is_some_and(DrillOutcome::passed)
    }

    /// The component that alone its drill has tested; none where that was everything.
    fn only_proven(&self) -> Option<&str> {
        let parts = self.drill.as_ref().map(|drill| drill.parts.as_str());
        parts.filter(|parts| *parts != marks::FULL)
    }

    fn of(held: &PointOnDisk, now: SystemTime) -> Self {
        let point = &held.point;
        let mut seen = Self {
            name: point.stamp.to_string(),
            age: seconds(now).saturating_sub(seconds(point.time())),
            complete: point.is_complete(),
            why_not_latest: point.why_not_latest(&Kind::PARTS),
            failed: point.fact("failed").filter(|text| *text != NONE).map(str::to_owned),
            verified: point.fact(marks::VERIFIED).map(str::to_owned),
            drill: point.drill(),
            proofs: point.proofs(),
            offsite: point.whole_copy().map(str::to_owned),
            copy_defect: point.copy_defect().map(str::to_owned),
            key: point.fact("drill.key").map(str::to_owned),
            pinned: point.pin().map(|pin| pin.reason.unwrap_or_default()),
            executions_left_out: point.fact("postgres.executions").is_some(),
            ..Self::default()
        };
        let damaged = point.damaged();
        for file in &held.files {
            let there = file.entry.as_ref().map_or(0, |entry| entry.bytes);
            seen.stored = total([seen.stored, there]);
            let made = point.size(file.member.kind).unwrap_or(there);
            seen.bytes = total([seen.bytes, made]);
            seen.sizes.push((file.member.kind, made));
            let name = || file.member.name.clone();
            if damaged.contains(&file.member.kind) {
                seen.damaged.push(name());
            }
            match file.state {
                FileState::Missing | FileState::Changed => seen.broken.push(name()),
                FileState::Unreadable => seen.unreadable.push(name()),
                FileState::Present | FileState::Damaged => {}
            }
        }
        seen
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// How old the newest point is.
fn age(point: &Seen, max_age: Duration) -> Finding {
    let text = format!("{} is {} old", point.name, span(point.age));
    if point.age > i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX) {
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

/// Whether the files of the newest point are as they were, and whether any of `points` was found damaged.
fn files(newest: &Seen, points: &[Seen]) -> Finding {
    let damaged: Vec<String> = points.iter().flat_map(|point| point.damaged.clone()).collect();
    let told: Vec<String> = [
        ("missing or of another size", &newest.broken),
        ("cannot be looked at", &newest.unreadable),
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
