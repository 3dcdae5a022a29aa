//! cleanup-backups: the retention applied to `backups/`.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{bail, Result};
use chrono::{DateTime, Local};

use super::shared::{dry_run, open};
use super::{Command, Run};
use crate::app::App;
use crate::cli::suggestion;
use crate::cli::{Flag, Row};
use crate::components;
use crate::config::SETTINGS;
use crate::process::Count;
use crate::report::log::{self, Journal};
use crate::report::units;
use crate::store::inventory::{self, PointOnDisk, State};
use crate::store::lock::remove_unused;
use crate::store::manifest;
use crate::store::retention::{self, File, Grade, Idle, Jump, Reason, Rules, Unit, Verdict};
use crate::store::{Entry, Kind, Store};
use crate::stream::encrypt::Locked;
use crate::stream::read;

const DRY_RUN: Flag = dry_run("only say what would be deleted");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "cleanup-backups",
        summary: "delete backups that are older than BACKUP_RETENTION_DAYS",
        details: "BACKUP_KEEP_LAST, _DAILY, _WEEKLY, _MONTHLY and _YEARLY keep more. The newest good backup of each component\n\
                  always stays, and so does what was verified or proven last; the files of a recovery point stay or go together.\n\
                  A stretch without backups that is longer than the retention counts as a third of it. --dry-run tells why each\n\
                  file stays or goes.",
        flags: &[DRY_RUN],
        ..Row::ACTS
    },
    run: Run::Project(|project, call| run(&open(project, call)?, call.has(&DRY_RUN)).map(|()| 0)),
};

const JOURNAL: Journal = Journal::new("cleanup-backups");

/// How far the time of a file may lie after the name of its recovery point: a run takes its time, and clocks change twice a
/// year.
const TOLERANCE: Duration = Duration::from_secs(86_400);
/// How many bytes of a component's files without a recovery point are read to find a good one; the rest is believed.
const READ_LIMIT: u64 = 1 << 30;

/// Deletes what the retention lets go, or says what it would delete, and why.
///
/// # Errors
/// When a directory cannot be read or a file not be deleted; the others are deleted all the same. When `.env` holds a
/// setting of the retention with a slip in its name; nothing is deleted then.
pub fn run(app: &App, dry_run: bool) -> Result<()> {
    if dry_run {
        JOURNAL.info("Running in dry-run mode (no files will be deleted)");
    }
    check_names(app)?;
    let rules = app.config.retention;
    JOURNAL.info(format_args!("Starting backup cleanup (retention: {} days)", rules.days));
    log::check_started()?;
    tell_rules(&rules);
    let mut failed = 0_u64;
    let mut listings = Vec::new();
    for kind in Kind::ALL {
        let dir = app.store.dir(kind);
        if dir.is_dir() {
            match app.store.list(kind) {
                Ok(entries) => listings.push((kind, entries)),
                Err(error) => {
                    JOURNAL.failure(&error);
                    failed += 1;
                }
            }
        }
    }
    let now = SystemTime::now();
    let mut plan = Plan::new(app, &listings)?;
    let lost = components::lost_env_file(app);
    match lost {
        Some(lost) => JOURNAL.warn(format_args!(
            "{lost}: what is to be kept is not known, and nothing is deleted. Put .env back by restore-env.sh, or write it anew"
        )),
        None => plan.judge_loose(app, now, &rules),
    }
    let verdicts = plan.decide(now, &rules, lost.is_some());
    plan.warn(now, &rules);
    let kept = plan.kept(&verdicts);
    let owners = plan.owners();

    let (mut deleted, mut freed) = (0_u64, 0_u64);
    for kind in Kind::ALL {
        let dir = app.store.dir(kind);
        if !dir.is_dir() {
            JOURNAL.info(format_args!("Directory does not exist, skipping: {}", dir.display()));
            continue;
        }
        JOURNAL.info(format_args!("Scanning {}...", dir.display()));
        let entries = listings
            .iter()
            .filter(|(listed, _)| *listed == kind)
            .flat_map(|(_, entries)| entries);
        for entry in entries {
            let (path, size) = (entry.path.display(), units::du(entry.disk));
            if dry_run {
                if !kept.contains(entry.path.as_path()) {
                    JOURNAL.info(format_args!("[DRY-RUN] Would delete: {path} ({size})"));
                }
                for index in owners.get(entry.path.as_path()).into_iter().flatten() {
                    plan.explain(entry, *index, &verdicts[*index]);
                }
                continue;
            }
            if kept.contains(entry.path.as_path()) {
                continue;
            }
            match remove_unused(&entry.path) {
                Ok(false) => JOURNAL.info(format_args!("Kept, because another command reads it now: {path}")),
                Ok(true) => {
                    JOURNAL.info(format_args!("Deleted: {path} ({size})"));
                    deleted += 1;
                    freed += entry.bytes;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    JOURNAL.failure(&anyhow::Error::new(error).context(format!("Failed to delete: {path}")));
                    failed += 1;
                }
            }
        }
    }
    failed += plan.forget(app, &verdicts, dry_run);
    if dry_run {
        JOURNAL.success("Dry-run completed");
    } else {
        JOURNAL.success(format_args!(
            "Cleanup completed: {deleted} files deleted, {} freed",
            units::amount(freed)
        ));
    }
    if failed > 0 {
        bail!("{failed} item(s) could not be cleaned up");
    }
    Ok(())
}

/// What is to be kept must not be deleted by the default because its name is mistyped.
fn check_names(app: &App) -> Result<()> {
    let rules = |name: &&str| name.starts_with("BACKUP_RETENTION_") || name.starts_with("BACKUP_KEEP_");
    for name in &app.config.unknown {
        let names = SETTINGS.iter().map(|setting| setting.name).filter(rules);
        let mut meant = suggestion(name, names.map(str::to_owned));
        if meant.is_empty() && rules(&name.as_str()) {
            meant = ".".to_owned();
        }
        if !meant.is_empty() {
            bail!("{name} in .env is no setting{meant} Nothing is deleted until the name is right or gone");
        }
    }
    Ok(())
}

/// The bytes on disk that the cleanup will free; none in a directory that cannot be read.
pub fn reclaimable(app: &App) -> u64 {
    if check_names(app).is_err() {
        return 0;
    }
    let listings = listings(app);
    let Ok(survey) = inventory::survey(&app.store, &listings) else {
        return 0;
    };
    let plan = Plan::from(app, survey);
    let lost = components::lost_env_file(app).is_some();
    let kept = plan.kept(&plan.decide(SystemTime::now(), &app.config.retention, lost));
    let entries = listings.iter().flat_map(|(_, entries)| entries);
    entries
        .filter(|entry| !kept.contains(&entry.path))
        .map(|entry| entry.disk)
        .sum()
}

/// Warns when the newest backup of a component is much smaller than the one before it.
pub fn warn_if_shrunk(app: &App, journal: Journal) {
    // What cannot be read has been told by the cleanup of the same run.
    if let Ok(survey) = inventory::survey(&app.store, &listings(app)) {
        for shrunk in retention::shrunk(&Plan::from(app, survey).units) {
            journal.warn(shrunk);
        }
    }
}

/// The files of each directory that can be read.
fn listings(app: &App) -> Vec<(Kind, Vec<Entry>)> {
    Kind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, app.store.list(kind).ok()?)))
        .collect()
}

fn tell_rules(rules: &Rules) {
    let counts = [
        (rules.last, "last"),
        (rules.daily, "daily"),
        (rules.weekly, "weekly"),
        (rules.monthly, "monthly"),
        (rules.yearly, "yearly"),
    ];
    let set: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if !set.is_empty() {
        JOURNAL.info(format_args!("Kept besides: {}", set.join(", ")));
    }
}

/// Names files that are no good backups: a few of them each with its fault, many by their number.
fn tell_bad(bad: &[(PathBuf, anyhow::Error)]) {
    const NAMED: usize = 3;
    if bad.len() <= NAMED {
        for (path, error) in bad {
            JOURNAL.warn(format_args!("Not a good backup: {}: {error:#}", path.display()));
        }
        return;
    }
    let first: Vec<String> = bad[..NAMED]
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    JOURNAL.warn(format_args!(
        "{} files are not good backups: {} and {} more; n8n-backup verify --all tells what is wrong with each",
        bad.len(),
        first.join(", "),
        bad.len() - NAMED
    ));
}

/// What there is, as the retention sees it.
struct Plan {
    units: Vec<Unit>,
    /// The point that each unit is; none for a file that belongs to none.
    points: Vec<Option<PointOnDisk>>,
}

impl Plan {
    fn new(app: &App, listings: &[(Kind, Vec<Entry>)]) -> Result<Self> {
        let survey = inventory::survey(&app.store, listings)?;
        for (path, error) in &survey.unreadable {
            JOURNAL.warn(format_args!("Recovery point left out: {}: {error:#}", path.display()));
        }
        Ok(Self::from(app, survey))
    }

    fn from(app: &App, survey: inventory::Inventory) -> Self {
        let mut plan = Self {
            units: Vec::new(),
            points: Vec::new(),
        };
        for held in survey.points {
            plan.units.push(recorded(&app.store, &held));
            plan.points.push(Some(held));
        }
        for (kind, entry) in &survey.loose {
            plan.units.push(loose(*kind, entry));
            plan.points.push(None);
        }
        plan
    }

    /// Reads files without a recovery point, newest first, until a good backup of the component is found: a dump that is
    /// cut off must not be the last one left. Nothing is read while nothing is old enough to go.
    fn judge_loose(&mut self, app: &App, now: SystemTime, rules: &Rules) {
        let mut bad: Vec<(PathBuf, anyhow::Error)> = Vec::new();
        for kind in Kind::ALL {
            let mut left = READ_LIMIT;
            let holds = |unit: &Unit| unit.files.iter().any(|file| file.kind == kind);
            let old = now - Duration::from_secs(rules.days * 86_400);
            if !self.units.iter().any(|unit| holds(unit) && unit.taken <= old) {
                continue;
            }
            // In the retention's own order: the one that it keeps must be the one that was read.
            let series = retention::series(&self.units, kind);
            let order: Vec<usize> = series.into_iter().map(|(index, _)| index).collect();
            for index in order {
                let unit = &mut self.units[index];
                let recorded = unit.recorded;
                let Some(file) = unit.files.iter_mut().find(|file| file.kind == kind) else {
                    continue;
                };
                if file.grade != Grade::Good {
                    continue;
                }
                if recorded || file.bytes > left {
                    break;
                }
                left -= file.bytes;
                match components::verify(app, kind, &file.path) {
                    Ok(()) => break,
                    // What cannot be read here cannot be judged either.
                    Err(error) if read::is_no_verdict(&error) => {
                        // That a host cannot decrypt what it writes may well be meant.
                        if !error.is::<Locked>() {
                            JOURNAL.warn(format_args!(
                                "Could not be judged, and is kept: {}: {error:#}",
                                file.path.display()
                            ));
                        }
                        break;
                    }
                    Err(error) => {
                        file.grade = lesser(app, &file.path);
                        bad.push((file.path.clone(), error));
                    }
                }
            }
        }
        tell_bad(&bad);
    }

    /// What becomes of each unit; everything stays where the rules are `lost`.
    fn decide(&self, now: SystemTime, rules: &Rules, lost: bool) -> Vec<Verdict> {
        let mut verdicts = retention::decide(&self.units, now, rules);
        if lost {
            for verdict in &mut verdicts {
                verdict.reasons.push(Reason::Rules);
            }
        }
        verdicts
    }

    /// Says what is odd about the whole.
    fn warn(&self, now: SystemTime, rules: &Rules) {
        match retention::clock(&self.units, now) {
            Some(Jump::Ahead(index)) => JOURNAL.warn(format_args!(
                "The clock cannot be right: {} is from the future. Nothing is deleted until the clock or the name is right",
                self.name(index)
            )),
            Some(Jump::LongAgo) => JOURNAL.warn(
                "The newest backup is more than a year old: the clock may have jumped, or no backup was made. \
                 Nothing is deleted before a new one is there",
            ),
            None => {
                if let Some((days, counts)) = Idle::of(&self.units, now, rules.days).until(now) {
                    JOURNAL.warn(format_args!(
                        "No recovery point was made for {days} days: the host was off, backups failed, or the clock has jumped. \
                         These days count as {counts}, so that older backups do not all go at once"
                    ));
                }
            }
        }
        for shrunk in retention::shrunk(&self.units) {
            JOURNAL.warn(shrunk);
        }
    }

    fn name(&self, index: usize) -> String {
        match (&self.points[index], self.units[index].files.first()) {
            (Some(held), _) => format!("recovery point {}", held.point.stamp),
            (None, Some(file)) => file.path.display().to_string(),
            (None, None) => String::new(),
        }
    }

    /// The files that stay.
    fn kept(&self, verdicts: &[Verdict]) -> HashSet<PathBuf> {
        self.units
            .iter()
            .zip(verdicts)
            .filter(|(_, verdict)| !verdict.is_deletion())
            .flat_map(|(unit, _)| unit.files.iter().map(|file| file.path.clone()))
            .collect()
    }

    /// The units that each file belongs to; more than one only where manifests were copied.
    fn owners(&self) -> HashMap<&Path, Vec<usize>> {
        let mut owners: HashMap<&Path, Vec<usize>> = HashMap::new();
        for (index, unit) in self.units.iter().enumerate() {
            for file in &unit.files {
                owners.entry(&file.path).or_default().push(index);
            }
        }
        owners
    }

    /// Says why a file stays or goes.
    fn explain(&self, entry: &Entry, index: usize, verdict: &Verdict) {
        let mut of = String::new();
        if let Some(held) = &self.points[index] {
            of = format!(", recovery point {}", held.point.stamp);
            if self.units[index].taken != held.point.stamp.time() {
                of.push_str(" (a file of it was written later than it says, and that time counts)");
            }
        }
        if verdict.is_deletion() {
            JOURNAL.info(format_args!("[DRY-RUN] Reason: {verdict}{of}"));
        } else {
            JOURNAL.info(format_args!(
                "[DRY-RUN] Would keep: {} ({}): {verdict}{of}",
                entry.path.display(),
                units::du(entry.disk)
            ));
        }
    }

    /// Brings the manifests of the points that went up to date. Gives how many could not be.
    fn forget(&self, app: &App, verdicts: &[Verdict], dry_run: bool) -> u64 {
        let mut failed = 0;
        for (held, verdict) in self.points.iter().zip(verdicts) {
            let Some(held) = held.as_ref().filter(|_| verdict.is_deletion()) else {
                continue;
            };
            let stamp = held.point.stamp;
            if dry_run {
                JOURNAL.info(format_args!("[DRY-RUN] Would remove recovery point: {stamp}"));
                continue;
            }
            if let Err(error) = forget(&app.store, held) {
                JOURNAL.failure(&error.context(format!("Cannot remove recovery point {stamp}")));
                failed += 1;
            }
        }
        failed
    }
}

/// Removes the manifest of a point whose files are gone; where some could not be deleted, it goes on to tell of those.
fn forget(store: &Store, held: &PointOnDisk) -> Result<()> {
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    // A directory that is not there (a medium that is not mounted) says nothing of its files.
    let unknown = |kind: Kind| !store.dir(kind).is_dir();
    let left = held
        .point
        .members
        .iter()
        .any(|member| unknown(member.kind) || is_there(&store.root().join(&member.name)));
    if !left {
        held.point.remove(store)?;
        JOURNAL.info(format_args!("Removed recovery point: {}", held.point.stamp));
        return Ok(());
    }
    manifest::update(store, held.point.stamp, |point| {
        // With those of an earlier cleanup: a file that is neither named nor said to be deleted is one that was cut off.
        let mut deleted: Vec<String> = point.listed("deleted").into_iter().map(str::to_owned).collect();
        for (member, entry) in &held.files {
            if entry.is_some() && !is_there(&store.root().join(&member.name)) {
                point.members.retain(|known| known.name != member.name);
                deleted.push(member.kind.dir().to_owned());
            }
        }
        if !deleted.is_empty() {
            point.set("deleted", &deleted.join(" "));
        }
    })
}

/// What a file is worth that is not what we write: something that unpacks may still be a backup of another's making.
fn lesser(app: &App, path: &Path) -> Grade {
    let packed = path
        .extension()
        .is_some_and(|extension| extension == "gz" || extension == "gpg");
    if packed && read::observe(&app.config, path, Count::default()).is_ok() {
        Grade::Unpacks
    } else {
        Grade::Unproven
    }
}

/// A recovery point as the retention sees it: its name tells its age, unless one of its files is younger.
fn recorded(store: &Store, held: &PointOnDisk) -> Unit {
    let point = &held.point;
    let named = point.stamp.time();
    let touched = held
        .files
        .iter()
        .filter_map(|(_, entry)| Some(entry.as_ref()?.modified))
        .max();
    let taken = touched.filter(|time| *time > named + TOLERANCE).unwrap_or(named);
    let files = held.files.iter().filter_map(|(member, entry)| {
        let entry = entry.as_ref()?;
        Some(File {
            path: store.root().join(&member.name),
            kind: member.kind,
            bytes: entry.bytes,
            grade: match held.state(member, Some(entry)) {
                _ if entry.bytes == 0 => Grade::Empty,
                State::Present if point.excluded_from_latest().is_none() => Grade::Good,
                _ => Grade::Unproven,
            },
        })
    });
    Unit {
        files: files.collect(),
        taken,
        local: point.stamp.local(),
        dated: Some(named),
        recorded: true,
        verified: point.is_verified(),
        proven: point.drill().is_some_and(|drill| drill.passed()),
    }
}

/// A file that belongs to no recovery point: the time at which it was written tells its age, as with find.
fn loose(kind: Kind, entry: &Entry) -> Unit {
    Unit {
        files: vec![File {
            path: entry.path.clone(),
            kind,
            bytes: entry.bytes,
            grade: if entry.bytes > 0 { Grade::Good } else { Grade::Empty },
        }],
        taken: entry.modified,
        local: DateTime::<Local>::from(entry.modified).naive_local(),
        // A file that was touched, or named by hand, is no witness; one whose name and time agree is.
        dated: entry.stamp.map(|stamp| stamp.time().min(entry.modified)),
        recorded: false,
        verified: false,
        proven: false,
    }
}
