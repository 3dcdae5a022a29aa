//! backup-all: cleanup, then every component, then the environment file.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use anyhow::{anyhow, bail, Error, Result};
use chrono::Utc;

use super::shared::{begins, hold, open, record};
use super::status::{self, State};
use super::{backup_offsite, cleanup, test_recovery};
use super::{Command, Run};
use crate::app::App;
use crate::cli::Row;
use crate::components::{self, Backup, BackupRun, Component, COMPONENTS};
use crate::config::{Config, Drill};
use crate::formats::n8n::Digests;
use crate::report::alarm::LostRun;
use crate::report::channel::{Measured, Outcome};
use crate::report::log::{self, Journal};
use crate::report::panics::caught;
use crate::report::run::{report_lost_run, report_run, Running};
use crate::report::units;
use crate::stack::{self, discovery};
use crate::store::atomic::{self, Access};
use crate::store::inventory::Inventory;
use crate::store::manifest::Point;
use crate::store::space::{available, disks, Disk};
use crate::store::{total, Kind, Stamp};

pub const COMMAND: Command = Command {
    row: &Row {
        name: "backup-all",
        summary: "clean up, then back up n8n's database, Redis, the n8n volume and .env",
        details: "Goes on when one component fails, and exits 1 if any failed. Only one such run, or a restore, at a\n\
                  time. Settings add a test of the recovery point (BACKUP_DRILL), a copy of it off-site (BACKUP_OFFSITE)\n\
                  and a report of the run (BACKUP_PING_URL, BACKUP_METRICS_FILE, BACKUP_STATUS_PAGE,\n\
                  BACKUP_NOTIFY_COMMAND).",
        in_background: true,
        ..Row::ACTS
    },
    run: Run::Project(|project, call| match open(project, call) {
        Ok(app) => Ok(run(&app)),
        Err(error) => report_not_begun(project, error),
    }),
};

const JOURNAL: Journal = Journal::new("backup-all");
/// The workflows of the last run, below `backups/`.
const WORKFLOWS: &str = ".workflows";
/// The most that is read of them.
const MAX_WORKFLOWS: u64 = 64 << 20;
/// More workflows that are gone at once are a warning.
const MANY_DELETED: usize = 5;
const RULE: &str = "==========================================";

/// Runs everything, and tells the channels how it went. Gives the exit code.
fn run(app: &App) -> u8 {
    let code = report_run(
        &app.config,
        JOURNAL,
        |run| back_up(app, run),
        |outcome| look(app, outcome),
    );
    write_page(app, code == 0);
    code
}

/// No run fails for its page.
fn write_page(app: &App, succeeded: bool) {
    if let Err(error) = caught(|| status::write_page(app, succeeded)) {
        JOURNAL.warning(&error);
    }
}

/// Reports a run that could not begin, whose settings may be what stood against it. Gives the exit code.
pub fn report_not_begun(project: &Path, error: Error) -> Result<u8> {
    let app = remembered(Config::of_channels(project)?);
    let code = report_run(&app.config, JOURNAL, |_| Err(error), |outcome| look(&app, outcome));
    write_page(&app, false);
    Ok(code)
}

/// Reports a run that did not come to its end, in its log too.
pub fn report_lost(run: &LostRun) -> Result<()> {
    let file = run.log.as_ref();
    if let Some(place) = file {
        // The run may have been lost together with its log.
        let _ = log::recall(place);
    }
    log::init(&log::Options {
        file: file.map(|place| place.path.as_path()),
        quiet: true,
    })
    .or_else(|_| log::init(&log::Options::default()))?;
    let app = remembered(Config::load(&run.project).or_else(|_| Config::of_channels(&run.project))?);
    report_lost_run(&app.config, JOURNAL, run, |outcome| look(&app, outcome));
    write_page(&app, false);
    Ok(())
}

/// What is known without the engine, which the report of such a run asks nothing: the stack as the newest recovery
/// point remembers it.
fn remembered(config: Config) -> App {
    let mut app = App::new(config);
    let recalled = caught(|| {
        discovery::recall(&mut app);
        Ok(())
    });
    // Without it the report goes out all the same.
    if let Err(error) = recalled {
        JOURNAL.warning(&error);
    }
    app
}

/// Adds what the run made, and what there is now.
fn look(app: &App, outcome: &mut Outcome) {
    let point = outcome
        .point
        .and_then(|stamp| Point::load(&app.store.set_path(stamp)).ok());
    if let Some(point) = &point {
        for (part, kind) in outcome.parts.iter_mut().zip(Kind::PARTS) {
            part.backed_up = point.member(kind).is_some();
            part.bytes = point.size(kind);
        }
    }
    // What the stack has no use for has not failed.
    let uses = |kind: Kind| match &point {
        Some(point) => !point.is_unused(kind),
        None => app.config.found.uses(kind),
    };
    let used: Vec<&str> = Kind::PARTS
        .into_iter()
        .filter(|kind| uses(*kind))
        .map(Kind::name)
        .collect();
    outcome.parts.retain(|part| used.contains(&part.name));
    outcome.measured = State::gather(app).map(|state| {
        let now = Utc::now().timestamp();
        let (points, stored_bytes) = state.stored();
        Measured {
            newest: state.newest_age().map(|age| now.saturating_sub(age)),
            drill_success: state.drill_success(),
            proven: state.proven_age().map(|age| now.saturating_sub(age)),
            proofs: state
                .proofs()
                .into_iter()
                .map(|(name, age, text)| (name, n8n_in(text), now.saturating_sub(age)))
                .collect(),
            points,
            stored_bytes,
            free_bytes: state.free(),
            days_until_full: state.days_until_full(),
        }
    });
}

/// The version of n8n that a proof tells.
fn n8n_in(proof: &str) -> Option<String> {
    let (_, version) = proof.split_once("n8n ")?;
    version.split_whitespace().next().map(str::to_owned)
}

/// A component that fails does not stop the others.
fn back_up(app: &App, run: &Running) -> Result<()> {
    let lock = hold(app, JOURNAL)?;
    JOURNAL.info(RULE);
    JOURNAL.info("Starting full backup process");
    JOURNAL.info(RULE);
    log::check_started()?;
    app.check_encryption(JOURNAL)?;
    check_space(app)?;
    // Under the lock and after the first lines, since an engine may take its time.
    let mut app = app.clone();
    app.glance = discovery::look(&mut app);
    let app = &app;
    if let Some(left) = stack::interrupted(app) {
        JOURNAL.warn(left.text);
    }
    // When nothing tells, it is: a backup of what is half restored must not be what `latest` means.
    let unfinished = stack::unfinished(app).map_or_else(
        |error| {
            JOURNAL.warning(&error.context("Whether a restore is unfinished could not be found out"));
            true
        },
        |left| left.is_some(),
    );
    let excluded = unfinished.then_some("made while a restore was interrupted");

    let mut failed: usize = 0;
    JOURNAL.info("Running: cleanup-backups.sh");
    if let Err(error) = caught(|| cleanup::run(app, false)) {
        cleanup_failed(&error);
        failed += 1;
    }
    let stamp = app.store.free_stamp();
    let begun = begins(&app.store);
    let (together, last): (Vec<&dyn Component>, Vec<&dyn Component>) = COMPONENTS
        .iter()
        .filter(|component| app.config.found.uses(component.kind()))
        .partition(|component| component.about().backup.is_some());
    let (mut backups, mut missing) = side_by_side(app, &together, stamp);
    for component in last {
        JOURNAL.info(format_args!("Running: {}", component.about().step));
        match caught(|| component.backup(app, &BackupRun::alone(stamp, false))) {
            Ok(backup) => backups.push(backup),
            Err(error) => {
                JOURNAL.failure(&error);
                missing.push(component.kind().name());
            }
        }
    }
    failed += missing.len();
    let mut point = stamp;
    if !backups.is_empty() {
        match caught(|| record(app, JOURNAL, stamp, &begun, &backups, &missing, excluded)) {
            Ok(recorded) => {
                point = recorded;
                run.recorded(recorded);
            }
            Err(error) => {
                JOURNAL.failure(&error);
                failed += 1;
            }
        }
    }
    cleanup::warn_if_shrunk(app, JOURNAL);
    if let Some(workflows) = backups.iter().find_map(|backup| backup.workflows.as_ref()) {
        tell_workflows(app, workflows);
    }
    warn_if_no_key(&backups);
    let mut total = app.config.found.used() + 1;
    if app.config.drill != Drill::Off {
        total += 1;
        JOURNAL.info("Running: test-recovery.sh");
        if let Err(error) = caught(|| test_recovery::after_backup(app, point)) {
            components::drill::JOURNAL.failure(&error);
            JOURNAL.error("test-recovery.sh failed with exit code 1");
            failed += 1;
        }
    }

    if app.config.offsite {
        // The backups are whole and recorded; a slow way out must not keep a restore or the next run waiting.
        drop(lock);
        total += 1;
        failed += usize::from(!offsite_done(app));
    }
    JOURNAL.info(RULE);
    if failed == 0 {
        JOURNAL.success(format_args!("All backups completed successfully ({total}/{total})"));
        return Ok(());
    }
    bail!(
        "Backup completed with errors: {}/{total} succeeded, {failed} failed",
        total - failed
    )
}

/// Tells how the workflows differ from those of the last run.
fn tell_workflows(app: &App, now: &Digests) {
    let path = app.store.root().join(WORKFLOWS);
    let before = atomic::read_text(&path, MAX_WORKFLOWS).ok();
    if let Some(before) = before.and_then(|text| Digests::parse(&text)) {
        let since = now.since(&before);
        let text = format!("Since the last backup: {}", since.text(MANY_DELETED));
        match since.deleted.len() > MANY_DELETED {
            true => JOURNAL.warn(text),
            false => JOURNAL.info(text),
        }
    }
    let new = format!("{WORKFLOWS}.new");
    let access = Access::private_in(app.store.root());
    if let Err(error) = atomic::replace(&path, &new, now.text().as_bytes(), access) {
        JOURNAL.warning(&error.context("The next run cannot tell which workflows have changed"));
    }
}

/// Warns when neither `.env` nor the volume holds n8n's key, though both were backed up.
fn warn_if_no_key(backups: &[Backup]) {
    let facts: Vec<&str> = backups
        .iter()
        .flat_map(|backup| &backup.facts)
        .filter(|(name, _)| name == "env.key" || name == "n8n.key")
        .map(|(_, value)| value.as_str())
        .collect();
    if facts.len() == 2 && facts.iter().all(|value| value.starts_with("none")) {
        JOURNAL.warn(
            "The recovery point holds no encryption key: there is no N8N_ENCRYPTION_KEY in .env, and none in the volume's \
             config. Without n8n's key its stored credentials are lost",
        );
    }
}

/// Sends what there is to elsewhere. Gives whether that succeeded. A copy that has been on its way since the run before
/// is no failure, unless it has come to a halt: this point goes with the next one.
fn offsite_done(app: &App) -> bool {
    JOURNAL.info("Running: backup-offsite.sh");
    let Err(mut error) = caught(|| backup_offsite::run(app, false)) else {
        return true;
    };
    if let Some(busy) = error.downcast_ref::<backup_offsite::Busy>() {
        let Some(why) = busy.why_in_vain(app) else {
            backup_offsite::JOURNAL.warn(format_args!("{busy}; the next run sends what that one does not"));
            return true;
        };
        error = anyhow!(why).context(busy.to_string());
    }
    backup_offsite::JOURNAL.failure(&error);
    JOURNAL.error("backup-offsite.sh failed with exit code 1");
    false
}

fn cleanup_failed(error: &anyhow::Error) {
    Journal::new("cleanup-backups").failure(error);
    JOURNAL.error("cleanup-backups.sh failed with exit code 1");
}

/// Backs components up, as many at a time as the settings say. Gives the backups, and what failed.
fn side_by_side(app: &App, components: &[&dyn Component], stamp: Stamp) -> (Vec<Backup>, Vec<&'static str>) {
    let next = AtomicUsize::new(0);
    // What the database names must not be missing from what is read beside it.
    let run = match components.iter().any(|component| component.kind().is_database()) {
        true => BackupRun::with_dump(stamp),
        false => BackupRun::alone(stamp, false),
    };
    let done = Mutex::new((Vec::new(), Vec::new()));
    // The order in which components begin is that of their lines in the log.
    let begin = Mutex::new(());
    let work = || loop {
        let component = {
            let _turn = begin.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(component) = components.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            JOURNAL.info(format_args!("Running: {}", component.about().step));
            component
        };
        let result = caught(|| {
            app.config.found.check(component.kind())?;
            component.backup(app, &run)
        });
        if component.kind().is_database() {
            // Also where there is no dump.
            run.snapshot.open();
        }
        if let Err(error) = &result {
            let about = component.about();
            about.backup_journal().failure(error);
            JOURNAL.error(format_args!("{} failed with exit code 1", about.step));
        }
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(backup) => done.0.push(backup),
            Err(_) => done.1.push(component.kind().name()),
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            caught(|| {
                components::clear(app, JOURNAL);
                Ok(())
            })
        });
        for _ in 1..app.config.jobs.min(components.len()) {
            scope.spawn(work);
        }
        work();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses to begin on a disk that is nearly full, or where one has less room than the last backups took.
fn check_space(app: &App) -> Result<()> {
    crate::store::make_dir(app.store.root())?;
    // Where the manifests cannot be read, no backup is recorded, and that is told then.
    let inventory = Inventory::take(&app.store).unwrap_or_default();
    let reclaimable = cleanup::reclaimable(app, &inventory);
    disks(&app.store)
        .iter()
        .try_for_each(|disk| check_disk(app, disk, &reclaimable, expected(&inventory, &disk.kinds)))
}

fn check_disk(app: &App, disk: &Disk, reclaimable: &[(Kind, u64)], expected: u64) -> Result<()> {
    // What is asked for besides is on the disk of `backups/` itself; another one may be small.
    let (place, min_free_kb) = match disk.dir == app.store.root() {
        true => (String::new(), app.config.min_free_kb),
        false => (format!(" in {}", disk.dir.display()), 0),
    };
    let Ok(bytes) = available(&disk.dir, app.config.stall) else {
        JOURNAL.warn(format_args!("Could not determine available disk space{place}"));
        return Ok(());
    };
    let text = units::available(bytes);
    let freed = reclaimable.iter().filter(|(kind, _)| disk.kinds.contains(kind));
    let room = bytes.saturating_add(total(freed.map(|(_, bytes)| *bytes)));
    let required = match min_free_kb {
        kb if room >= kb * 1024 => (room < expected).then(|| units::amount(expected)),
        1_048_576 => Some("1GiB".to_owned()),
        kb => Some(units::amount(kb * 1024)),
    };
    if let Some(required) = required {
        bail!("Insufficient disk space{place}: {text} available, {required} required");
    }
    JOURNAL.info(format_args!("Disk space check passed: {text} available{place}"));
    Ok(())
}

/// What this run will take: the last backup of each kind, and a quarter more.
fn expected(inventory: &Inventory, kinds: &[Kind]) -> u64 {
    let now = SystemTime::now();
    let is_ours = |point: &Point| point.excluded_from_latest().is_none();
    let newest = |kind: &Kind| Some(inventory.newest_file(*kind, now, is_ours)?.disk);
    let sum = total(kinds.iter().filter_map(newest));
    sum.saturating_add(sum / 4)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_run_that_did_not_begin_is_one_of_the_stack_that_was_backed_up() {
        let dir = TempDir::new();
        fs::write(dir.path().join(".env"), "BACKUP_METRICS_FILE=m.prom\n").unwrap();
        let components = || {
            report_not_begun(dir.path(), anyhow!("no")).unwrap();
            let text = fs::read_to_string(dir.path().join("m.prom")).unwrap();
            let told = |kind: &Kind| text.contains(&format!("component=\"{}\"", kind.name()));
            Kind::PARTS.into_iter().filter(told).collect::<Vec<_>>()
        };
        assert_eq!(components(), [Kind::Postgres, Kind::Redis, Kind::N8n, Kind::Env]);
        let store = remembered(Config::of_channels(dir.path()).unwrap()).store;
        let mut point = Point::new(Stamp::parse("20260105_020000").unwrap());
        for (fact, value) in [("unused", "postgres redis"), ("stack.n8n", "n8n"), ("deleted", "env")] {
            point.set(fact, value);
        }
        point.write(&store).unwrap();
        assert_eq!(components(), [Kind::Sqlite, Kind::N8n, Kind::Env]);
    }
}
