//! cleanup-backups: the retention applied to `backups/`.

mod unit;

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{bail, Result};

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
use crate::stack::{self, Needs};
use crate::store::inventory::{Inventory, Listing, MemberOnDisk, PointOnDisk, State};
use crate::store::lock::remove_unused;
use crate::store::manifest::{self, Point};
use crate::store::retention::{self, File, Grade, Reason, Rules, Shrunk, Unit, Verdict};
use crate::store::{total, Entry, Kind, Stamp, Store};
use crate::stream::encrypt::Locked;
use crate::stream::read;

const DRY_RUN: Flag = dry_run("only say what would be deleted");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "cleanup-backups",
        summary: "delete backups that are older than BACKUP_RETENTION_DAYS",
        details: "The newest complete recovery points (BACKUP_KEEP_LAST, 3) and the newest good backup of each component always\n\
                  stay, and so does what is pinned, and what was verified or proven last. BACKUP_KEEP_DAILY, _WEEKLY,\n\
                  _MONTHLY and _YEARLY keep more. The files of a recovery point stay or go together. Where a directory does\n\
                  not hold what it should, nothing is deleted. --dry-run tells why each file stays or goes.",
        flags: &[DRY_RUN],
        ..Row::ACTS
    },
    run: Run::Project(|project, call| {
        let dry_run = call.has(&DRY_RUN);
        if dry_run {
            // Before all others, also what the settings are warned about.
            JOURNAL.info("Running in dry-run mode (no files will be deleted)");
        }
        run(&open(project, call)?, dry_run).map(|()| 0)
    }),
};

const JOURNAL: Journal = Journal::new("cleanup-backups");

/// How many bytes of a component's files without a recovery point are read to find a good one; the rest is believed.
const READ_LIMIT: u64 = 1 << 30;

/// Deletes what the retention lets go, or says what it would delete, and why.
///
/// # Errors
/// When a directory cannot be read or a file not be deleted; the others are deleted all the same. When `.env` holds a
/// setting of the retention with a slip in its name; nothing is deleted then.
pub fn run(app: &App, dry_run: bool) -> Result<()> {
    check_names(app)?;
    let rules = app.config.retention;
    JOURNAL.info(format_args!("Starting backup cleanup (retention: {} days)", rules.days));
    // On a full disk its own lines must not stop it.
    log::check_heard()?;
    tell_rules(&rules);
    let now = SystemTime::now();
    let inventory = Inventory::take(&app.store)?;
    let mut failed = tell_unreadable(&inventory);
    let lost = components::lost_env_file(app);
    let needs = stack::needs(app);
    needs.tell(JOURNAL);
    let mut plan = Plan::new(&inventory, lost.is_some(), needs);
    if let Some(lost) = lost {
        JOURNAL.warn(format_args!(
            "{lost}: what is to be kept is not known, and nothing is deleted. Put .env back by restore-env.sh, or write it anew"
        ));
    }
    plan.judge_unrecorded(app, now, &rules);
    let verdicts = plan.decide(now, &rules);
    for shrunk in retention::shrunk(&plan.units, now) {
        JOURNAL.warn(in_words(&shrunk));
    }
    let kept = plan.kept(&verdicts);
    let owners = plan.owners();

    let mut removed = HashSet::new();
    let mut freed = 0_u64;
    let mut last = None;
    for (kind, listing) in &inventory.listings {
        let dir = app.store.dir(*kind);
        // Two kinds may share one.
        let is_new = last.replace(kind.dir()) != Some(kind.dir());
        if let Listing::Absent = listing {
            if is_new {
                JOURNAL.info(format_args!("Directory does not exist, skipping: {}", dir.display()));
            }
            continue;
        }
        if is_new {
            JOURNAL.info(format_args!("Scanning {}...", dir.display()));
        }
        for entry in listing.files() {
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
            if plan.is_pinned_now(app, &owners, &entry.path) {
                JOURNAL.info(format_args!(
                    "Kept, because its recovery point has just been pinned: {path}"
                ));
                continue;
            }
            match remove_unused(&entry.path) {
                Ok(false) => JOURNAL.info(format_args!("Kept, because another command reads it now: {path}")),
                Ok(true) => {
                    JOURNAL.info(format_args!("Deleted: {path} ({size})"));
                    removed.insert(entry.path.as_path());
                    freed = total([freed, entry.bytes]);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    JOURNAL.failure(&anyhow::Error::new(error).context(format!("Failed to delete: {path}")));
                    failed += 1;
                }
            }
        }
    }
    failed += plan.forget(app, &verdicts, &removed, dry_run);
    if dry_run {
        JOURNAL.success("Dry-run completed");
    } else {
        JOURNAL.success(format_args!(
            "Cleanup completed: {} files deleted, {} freed",
            removed.len(),
            units::amount(freed)
        ));
    }
    if failed > 0 {
        bail!("{failed} item(s) could not be cleaned up");
    }
    Ok(())
}

/// Says what there is that cannot be read, and what does not hold what it should. Gives how many errors that were.
fn tell_unreadable(inventory: &Inventory) -> u64 {
    let mut failed = 0;
    for (_, listing) in &inventory.listings {
        if let Listing::Failed(error) = listing {
            JOURNAL.error(format_args!("{error:#}"));
            failed += 1;
        }
    }
    for (path, error) in &inventory.unreadable {
        JOURNAL.warn(format_args!("Recovery point left out: {}: {error:#}", path.display()));
    }
    if !inventory.unreadable.is_empty() {
        JOURNAL.warn(
            "Files of those runs are kept until their manifests can be read, or are removed: what belongs to them is not \
             known",
        );
    }
    for away in &inventory.away {
        JOURNAL.warn(format_args!(
            "{away}: is a disk not mounted? Nothing is deleted until they are back, or known to be lost (docs/retention.md){}",
            away.way_out()
        ));
    }
    failed
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

/// The bytes on disk that the cleanup will free of each kind; none in a directory that cannot be read.
pub fn reclaimable(app: &App, inventory: &Inventory) -> Vec<(Kind, u64)> {
    if check_names(app).is_err() {
        return Vec::new();
    }
    let plan = Plan::new(inventory, components::lost_env_file(app).is_some(), stack::needs(app));
    let kept = plan.kept(&plan.decide(SystemTime::now(), &app.config.retention));
    let of = |listing: &Listing| {
        let gone = listing.files().iter().filter(|entry| !kept.contains(&entry.path));
        total(gone.map(|entry| entry.disk))
    };
    let listings = inventory.listings.iter();
    listings.map(|(kind, listing)| (*kind, of(listing))).collect()
}

/// Warns when the newest backup of a component is much smaller than the one before it.
pub fn warn_if_shrunk(app: &App, journal: Journal) {
    // What cannot be read has been told by the cleanup of the same run.
    if let Ok(inventory) = Inventory::take(&app.store) {
        for shrunk in retention::shrunk(&Plan::new(&inventory, false, Needs::Nothing).units, SystemTime::now()) {
            journal.warn(in_words(&shrunk));
        }
    }
}

fn in_words(shrunk: &Shrunk) -> String {
    format!(
        "The newest backup of {} is much smaller than the one before it ({} after {}): see whether something is missing",
        shrunk.kind.name(),
        units::amount(shrunk.newest),
        units::amount(shrunk.before)
    )
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
struct Plan<'a> {
    units: Vec<Unit>,
    /// The point that each unit is; none for a file that belongs to none.
    points: Vec<Option<&'a PointOnDisk>>,
    /// Why everything stays, whatever the rules say.
    hold: Vec<Reason>,
    /// The runs whose manifests cannot be read: their files may look as though they belonged to none.
    unknown: Vec<Stamp>,
    needs: Needs,
}

impl<'a> Plan<'a> {
    fn new(inventory: &'a Inventory, rules_are_lost: bool, needs: Needs) -> Self {
        let recorded = inventory.points.iter().map(|held| (unit::recorded(held), Some(held)));
        let unrecorded = inventory.unrecorded.iter();
        let unrecorded = unrecorded.map(|(kind, entry)| (unit::unrecorded(*kind, entry), None));
        let (units, points) = recorded.chain(unrecorded).unzip();
        let mut hold = Vec::new();
        hold.extend(rules_are_lost.then_some(Reason::Rules));
        hold.extend((!inventory.away.is_empty()).then_some(Reason::Away));
        let stamps = inventory.unreadable.iter();
        let stamps = stamps.filter_map(|(path, _)| Stamp::parse(path.file_stem()?.to_str()?));
        Self {
            units,
            points,
            hold,
            unknown: stamps.collect(),
            needs,
        }
    }

    /// Reads files without a recovery point, newest first, until a good backup of the component is found: a dump that is
    /// cut off must not be the last one left. Nothing is read while nothing is old enough to go.
    fn judge_unrecorded(&mut self, app: &App, now: SystemTime, rules: &Rules) {
        if !self.hold.is_empty() {
            return;
        }
        let mut bad: Vec<(PathBuf, anyhow::Error)> = Vec::new();
        for kind in Kind::ALL {
            let holds = |unit: &Unit| unit.files.iter().any(|file| file.kind == kind);
            let old = now - Duration::from_secs(rules.days * 86_400);
            if self.units.iter().any(|unit| holds(unit) && unit.aged <= old) {
                self.judge_kind(app, now, kind, &mut bad);
            }
        }
        tell_bad(&bad);
    }

    fn judge_kind(&mut self, app: &App, now: SystemTime, kind: Kind, bad: &mut Vec<(PathBuf, anyhow::Error)>) {
        let mut left = READ_LIMIT;
        // In the retention's own order: the one that it keeps must be the one that was read.
        let series = retention::series(&self.units, now, kind);
        let mut order = series
            .into_iter()
            .map(|(index, _)| index)
            .collect::<Vec<_>>()
            .into_iter();
        while let Some(index) = order.next() {
            let unit = &mut self.units[index];
            let recorded = unit.recorded;
            let Some(file) = unit.files.iter_mut().find(|file| file.kind == kind) else {
                continue;
            };
            if file.grade != Grade::Good {
                continue;
            }
            if recorded || file.bytes > left {
                return;
            }
            left -= file.bytes;
            let Err(error) = components::verify(app, kind, &file.path) else {
                return;
            };
            // That a host cannot decrypt what it writes may well be meant.
            if error.is::<Locked>() {
                return;
            }
            // A program that fails on a file may have lacked its bytes.
            if read::is_no_verdict(&error) || read::sha256(&app.config, &file.path).is_err() {
                JOURNAL.warning(&error.context(format!("Could not be judged, and is kept: {}", file.path.display())));
                // Nor can those before it go: one of them may be the last good one.
                for index in std::iter::once(index).chain(order) {
                    self.units[index].unreadable |= !self.units[index].recorded;
                }
                return;
            }
            file.grade = lesser(app, &file.path);
            bad.push((file.path.clone(), error));
        }
    }

    /// What becomes of each unit.
    fn decide(&self, now: SystemTime, rules: &Rules) -> Vec<Verdict> {
        let mut verdicts = retention::decide(&self.units, now, rules);
        for ((unit, held), verdict) in self.units.iter().zip(&self.points).zip(&mut verdicts) {
            let needed = self.needs.include(held.map(|held| held.point.stamp));
            let reasons = &mut verdict.reasons;
            reasons.extend(&self.hold);
            reasons.extend(self.is_unknown(unit).then_some(Reason::Manifest));
            reasons.extend(needed.then_some(Reason::Restore));
        }
        verdicts
    }

    /// Whether a file without a recovery point may be of a run whose manifest cannot be read.
    fn is_unknown(&self, unit: &Unit) -> bool {
        let stamp = |file: &File| file.kind.stamp_in(file.path.file_name()?.to_str()?);
        let near = |stamp: Stamp| self.unknown.iter().any(|of| of.is_near(stamp));
        !unit.recorded && unit.files.iter().filter_map(stamp).any(near)
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

    /// Whether somebody has pinned the point of a file since the inventory was taken.
    fn is_pinned_now(&self, app: &App, owners: &HashMap<&Path, Vec<usize>>, path: &Path) -> bool {
        let owners = owners.get(path).into_iter().flatten();
        let mut points = owners.filter_map(|index| self.points[*index]);
        points.any(|held| Point::load(&held.point.path(&app.store)).is_ok_and(|point| point.pin().is_some()))
    }

    /// Says why a file stays or goes.
    fn explain(&self, entry: &Entry, index: usize, verdict: &Verdict) {
        let mut of = String::new();
        if let Some(held) = &self.points[index] {
            of = format!(", recovery point {}", held.point.stamp);
            if self.units[index].aged != self.units[index].taken {
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
    fn forget(&self, app: &App, verdicts: &[Verdict], removed: &HashSet<&Path>, dry_run: bool) -> u64 {
        let mut failed = 0;
        for (held, verdict) in self.points.iter().zip(verdicts) {
            let Some(held) = held.filter(|_| verdict.is_deletion()) else {
                continue;
            };
            let stamp = held.point.stamp;
            if dry_run {
                JOURNAL.info(format_args!("[DRY-RUN] Would remove recovery point: {stamp}"));
                continue;
            }
            if let Err(error) = forget(&app.store, held, removed) {
                JOURNAL.failure(&error.context(format!("Cannot remove recovery point {stamp}")));
                failed += 1;
            }
        }
        failed
    }
}

/// Removes the manifest of a point all of whose files went, now or before; where some did not, it goes on to tell of those.
fn forget(store: &Store, held: &PointOnDisk, removed: &HashSet<&Path>) -> Result<()> {
    let went = |file: &MemberOnDisk| removed.contains(store.root().join(&file.member.name).as_path());
    if held.files.iter().all(|file| went(file) || file.state == State::Missing) {
        held.point.remove(store)?;
        JOURNAL.info(format_args!("Removed recovery point: {}", held.point.stamp));
        return Ok(());
    }
    manifest::update(store, held.point.stamp, |point| {
        // With those of an earlier cleanup: a file that is neither named nor said to be deleted is one that was cut off.
        let mut deleted: Vec<String> = point.listed("deleted").into_iter().map(str::to_owned).collect();
        for file in held.files.iter().filter(|file| went(file)) {
            point.members.retain(|known| known.name != file.member.name);
            deleted.push(file.member.kind.name().to_owned());
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
