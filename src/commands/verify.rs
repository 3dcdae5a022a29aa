//! verify: proves backup files at rest. It needs no docker and no running stack.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use anyhow::{anyhow, bail, ensure, Context as _, Error, Result};

use super::shared::open;
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::components::verify;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::inventory::{self, Inventory, Listing};
use crate::store::manifest::{self, Member, Point};
use crate::store::marks::{self, Mark, Time};
use crate::store::{is_there, Kind, Stamp, SET_SUFFIX};
use crate::stream::encrypt::Locked;
use crate::stream::read::{is_no_verdict, sha256};

const ALL: Flag = Flag::new("all", "every recovery point and every file besides").short('a');

pub const COMMAND: Command = Command {
    row: &Row {
        name: "verify",
        summary: "prove that backup files are whole, without docker",
        details:
            "FILE is a backup file, SET a recovery point: its stamp (YYYYMMDD_HHMMSS), its manifest or 'latest'.\n\
                  Without either, it is the newest point. Each file is compared with the SHA-256 in the manifest and\n\
                  read to its end. Exits 1 when anything is wrong; a point that is well is marked as verified.",
        operand: Some("[FILE|SET]"),
        flags: &[ALL],
        ..Row::ACTS
    },
    run: Run::Project(|project, call| run(&open(project, call)?, call.operand.as_deref(), call.has(&ALL)).map(|()| 0)),
};

const JOURNAL: Journal = Journal::new("verify");

/// How many files were looked at, and how many of them are bad or could not be judged.
#[derive(Default)]
struct Tally {
    files: usize,
    bad: usize,
    missing: usize,
    unchecked: usize,
}

impl Tally {
    fn verdict(&self) -> Result<()> {
        let wrong = [
            (self.bad, "are bad"),
            (self.missing, "are missing"),
            (self.unchecked, "could not be checked"),
        ];
        let mut of = format!(" of {} file(s)", self.files);
        let wrong: Vec<String> = wrong
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count}{} {what}", std::mem::take(&mut of)))
            .collect();
        ensure!(wrong.is_empty(), "Verification failed: {}", wrong.join(", "));
        Ok(())
    }
}

/// What is wrong with a file.
#[derive(Debug)]
enum Fault {
    /// Its contents were read, or its length seen, and are not those that were recorded.
    Damaged(Error),
    /// It cannot be proven whole.
    Unproven(Error),
    /// It is not there now.
    Missing,
    /// It cannot be read or decrypted here, which says nothing about it; why.
    Unchecked(String),
}

/// Verifies what `operand` names: a file, a recovery point, or the newest point without it; or all there is. That there is
/// nothing to verify is an error unless all was asked for.
fn run(app: &App, operand: Option<&OsStr>, all: bool) -> Result<()> {
    JOURNAL.info("Starting verification");
    ensure!(
        !(all && operand.is_some()),
        "--all takes neither a file nor a recovery point"
    );
    let mut tally = Tally::default();
    match operand {
        Some(name) => match set(app, name)? {
            Some(path) => verify_set(app, &path, Point::load(&path), &mut tally),
            None => verify_file(app, Path::new(name), &mut tally)?,
        },
        None if all => verify_all(app, &mut tally)?,
        None => {
            let newest = inventory::newest(&app.store, SystemTime::now())?;
            let (path, point) = newest.context("There is no recovery point yet: name a file, or take --all")?;
            verify_set(app, &path, point, &mut tally);
        }
    }
    tally.verdict()?;
    ensure!(
        all || tally.files > 0,
        "There was no file to verify: those of the recovery point have been deleted"
    );
    JOURNAL.success(format_args!("Verification completed: {} file(s) are good", tally.files));
    Ok(())
}

/// The manifest that `name` stands for, unless it names a backup file.
fn set(app: &App, name: &OsStr) -> Result<Option<PathBuf>> {
    let text = name.to_string_lossy();
    if let Some(stamp) = Stamp::parse(&text) {
        let path = app.store.set_path(stamp);
        ensure!(is_there(&path), "There is no recovery point {stamp}");
        return Ok(Some(path));
    }
    if text == "latest" {
        return Ok(Some(
            inventory::newest(&app.store, SystemTime::now())?
                .context("There is no recovery point yet")?
                .0,
        ));
    }
    let path = Path::new(name);
    ensure!(is_there(path), "Backup file not found: {}", path.display());
    if !text.ends_with(SET_SUFFIX) {
        return Ok(None);
    }
    let canonical = path
        .canonicalize()
        .with_context(|| format!("Cannot read {}", path.display()))?;
    let ours = app.store.sets_dir().canonicalize().ok();
    ensure!(
        canonical.parent() == ours.as_deref(),
        "{} is not a manifest of this project: they lie in {}",
        path.display(),
        app.store.sets_dir().display()
    );
    Ok(Some(canonical))
}

fn verify_all(app: &App, tally: &mut Tally) -> Result<()> {
    let inventory = Inventory::take(&app.store)?;
    for away in &inventory.away {
        if away.is_missed_by_name() {
            JOURNAL.warn(format_args!("{away}: is a disk not mounted?"));
            continue;
        }
        // Without its points nothing tells what is missing, or is not what was backed up.
        tally.files += 1;
        tally.unchecked += 1;
        JOURNAL.error(format_args!(
            "Not checked: {away}: is a disk not mounted?{}",
            away.way_out()
        ));
    }
    for held in inventory.points {
        verify_set(app, &held.point.path(&app.store), Ok(held.point), tally);
    }
    for (path, error) in inventory.unreadable {
        verify_set(app, &path, Err(error), tally);
    }
    for (kind, entry) in &inventory.unrecorded {
        judge(&entry.path, check(app, *kind, &entry.path, None), tally);
    }
    for (_, listing) in inventory.listings {
        if let Listing::Failed(error) = listing {
            tally.files += 1;
            tally.unchecked += 1;
            JOURNAL.error(format_args!("Not checked: {error:#}"));
        }
    }
    if tally.files == 0 {
        JOURNAL.warn("There is no backup file yet");
    }
    Ok(())
}

/// Verifies the files of a point, and marks it.
fn verify_set(app: &App, path: &Path, point: Result<Point>, tally: &mut Tally) {
    let point = match point {
        Ok(point) => point,
        Err(error) => {
            tally.files += 1;
            match is_no_verdict(&error) {
                true => tally.unchecked += 1,
                false => tally.bad += 1,
            }
            JOURNAL.error(format_args!("{}: {error:#}", path.display()));
            return;
        }
    };
    let _used = point.hold(&app.store);
    if !is_there(path) {
        // The retention of another run has deleted it since it was listed.
        return;
    }
    JOURNAL.info(format_args!("Verifying recovery point {}", point.stamp));
    for component in point.listed("failed") {
        JOURNAL.warn(format_args!(
            "Recovery point {} holds no {component}: its backup failed",
            point.stamp
        ));
    }
    let seen: Vec<(Kind, Seen)> = point
        .members
        .iter()
        .map(|member| {
            let file = app.store.root().join(&member.name);
            let fault = check(app, member.kind, &file, Some((&point, member)));
            (member.kind, judge(&file, fault, tally))
        })
        .collect();
    mark(app, point.stamp, |point| {
        take_note(point, &seen);
        if !seen.is_empty() && seen.iter().all(|(_, seen)| *seen == Seen::Good) {
            point.mark(&Mark::Verified(Time::now()));
        }
    });
}

/// Verifies one file, against the manifest where it belongs to a point. It alone does not make the point verified.
fn verify_file(app: &App, path: &Path, tally: &mut Tally) -> Result<()> {
    let recorded = inventory::point_of(&app.store, path)?;
    let kind = match &recorded {
        Some((_, member)) => member.kind,
        None => Kind::of_name(path)
            .with_context(|| format!("{} has no name of a backup file (.sql.gz, .rdb, ...)", path.display()))?,
    };
    let known = recorded.as_ref().map(|(point, member)| (point, member));
    let seen = judge(path, check(app, kind, path, known), tally);
    if let Some((point, _)) = &recorded {
        mark(app, point.stamp, |point| take_note(point, &[(kind, seen)]));
    }
    Ok(())
}

/// What a look at a file has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It is what was recorded, and whole.
    Good,
    /// It is what was recorded, and is not whole.
    Unproven,
    /// It is not what was recorded.
    Damaged,
    /// Nothing: it is not there, or could not be read.
    Nothing,
}

/// Records what was seen. What was not seen stays as it was: an error and an absence are states of the moment.
fn take_note(point: &mut Point, seen: &[(Kind, Seen)]) {
    let before = point.damaged();
    let is_damaged = |kind: Kind| match seen.iter().find(|(of, _)| *of == kind) {
        Some((_, Seen::Damaged)) => true,
        Some((_, Seen::Good | Seen::Unproven)) => false,
        Some((_, Seen::Nothing)) | None => before.contains(&kind),
    };
    point.mark(&Mark::Damaged(
        Kind::ALL.into_iter().filter(|kind| is_damaged(*kind)).collect(),
    ));
    if seen
        .iter()
        .any(|(_, seen)| matches!(seen, Seen::Damaged | Seen::Unproven))
    {
        point.unset(marks::VERIFIED);
    }
}

/// Tells what was found of a file.
fn judge(path: &Path, fault: Option<Fault>, tally: &mut Tally) -> Seen {
    tally.files += 1;
    let path_ = path.display();
    match fault {
        None => {
            let bytes = path.metadata().map_or(0, |meta| meta.len());
            JOURNAL.info(format_args!("Good: {path_} ({})", units::amount(bytes)));
            Seen::Good
        }
        Some(Fault::Missing) => {
            tally.missing += 1;
            JOURNAL.error(format_args!("Not checked: {path_}: it is missing"));
            Seen::Nothing
        }
        Some(Fault::Unchecked(why)) => {
            tally.unchecked += 1;
            JOURNAL.error(format_args!("Not checked: {path_}: {why}"));
            Seen::Nothing
        }
        Some(Fault::Unproven(error)) => {
            tally.bad += 1;
            JOURNAL.error(format_args!("Bad: {path_}: {error:#}"));
            Seen::Unproven
        }
        Some(Fault::Damaged(error)) => {
            tally.bad += 1;
            JOURNAL.error(format_args!("Bad: {path_}: {error:#}"));
            Seen::Damaged
        }
    }
}

/// Proves a file: its length, its checksum and its form, the latter two at once.
fn check(app: &App, kind: Kind, path: &Path, recorded: Option<(&Point, &Member)>) -> Option<Fault> {
    let bytes = match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound && !is_there(path) => return Some(Fault::Missing),
        Err(error) => return Some(Fault::Unchecked(error.to_string())),
        Ok(meta) if !meta.is_file() => return Some(Fault::Unchecked("it is not a regular file".to_owned())),
        Ok(meta) => meta.len(),
    };
    match recorded.and_then(|(point, _)| point.size(kind)) {
        Some(length) if length != bytes => {
            return Some(Fault::Damaged(anyhow!(
                "it has {bytes} bytes, and {length} were recorded"
            )));
        }
        None if bytes == 0 && !kind.may_be_empty() => return Some(Fault::Unproven(anyhow!("it is empty"))),
        _ => {}
    }
    let (sum, form) = thread::scope(|scope| {
        let sum = recorded.map(|_| scope.spawn(|| sha256(&app.config, path)));
        let form = verify(app, kind, path);
        (sum.map(|sum| sum.join()), form)
    });
    if let (Some((_, member)), Some(sum)) = (recorded, sum) {
        match sum.unwrap_or_else(|_| bail!("its checksum could not be taken")) {
            Ok(sum) if sum == member.sha256 => {
                let locked = form.as_ref().err().and_then(|error| error.downcast_ref::<Locked>());
                if locked.is_some_and(|locked| locked.private_key) {
                    // The contents were proven while they were encrypted, and these are still the same bytes.
                    JOURNAL.info(format_args!(
                        "{} can be read with its private key only; its SHA-256 is the one that was recorded",
                        path.display()
                    ));
                    return None;
                }
            }
            Ok(sum) => {
                let mut what = format!("its SHA-256 is {sum}, but {} was recorded", member.sha256);
                if let Err(error) = form {
                    what.push_str(&format!("; {error:#}"));
                }
                return Some(Fault::Damaged(anyhow!(what)));
            }
            Err(error) => return Some(Fault::Unchecked(format!("{error:#}"))),
        }
    }
    form.err().map(|error| match error.downcast_ref::<Locked>() {
        Some(locked) => Fault::Unchecked(locked.why.clone()),
        None if is_no_verdict(&error) => Fault::Unchecked(format!("{error:#}")),
        None => Fault::Unproven(error),
    })
}

/// Records that a file was found to be another than the one that was recorded.
pub(super) fn note_damaged(app: &App, stamp: Stamp, kind: Kind) {
    mark(app, stamp, |point| take_note(point, &[(kind, Seen::Damaged)]));
}

/// Changes a point's marks; a medium that cannot be written, which is good to verify, is no failure.
fn mark(app: &App, stamp: Stamp, change: impl FnOnce(&mut Point)) {
    if let Err(error) = manifest::update(&app.store, stamp, change) {
        JOURNAL.warning(&error.context(format!("Recovery point {stamp} could not be marked")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::testing::TempDir;
    use std::fs;

    #[test]
    fn all_is_not_checked_while_the_points_are_away() {
        let project = TempDir::new();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        let verified = || {
            let mut tally = Tally::default();
            verify_all(&app, &mut tally).unwrap();
            [tally.files, tally.bad, tally.missing, tally.unchecked]
        };
        let stamp = Stamp::parse("20260102_030405").unwrap();
        app.store.make_dir(Kind::Env).unwrap();
        let file = app.store.path(Kind::Env, stamp);
        fs::write(&file, "A=1\n").unwrap();
        assert_eq!(verified(), [1, 0, 0, 0], "no point was ever made");
        let mut point = Point::new(stamp);
        point.members.push(Member {
            kind: Kind::Env,
            name: format!("env/{}", file.file_name().unwrap().display()),
            sha256: sha256(&app.config, &file).unwrap(),
        });
        point.write(&app.store).unwrap();
        assert_eq!(verified(), [1, 0, 0, 0]);
        let (sets, aside) = (app.store.sets_dir(), project.path().join("aside"));
        fs::rename(&sets, &aside).unwrap();
        fs::create_dir(&sets).unwrap();
        assert_eq!(verified(), [2, 0, 0, 1]);
        fs::remove_dir(&sets).unwrap();
        fs::rename(&aside, &sets).unwrap();
        // What a point names is missed by its name.
        fs::rename(app.store.dir(Kind::Env), &aside).unwrap();
        assert_eq!(verified(), [1, 0, 1, 0]);
        // Nothing is, where a disk that held all is not mounted.
        crate::store::disk::tests::lose(&app.store, "20260101_020000");
        fs::remove_dir_all(app.store.root()).unwrap();
        assert_eq!(verified(), [1, 0, 0, 1]);
    }

    #[test]
    fn what_was_not_seen_stays_as_it_was() {
        let noted = |damaged: &[Kind], seen: &[(Kind, Seen)]| {
            let mut point = Point::new(Stamp::parse("20260102_030405").unwrap());
            point.mark(&Mark::Verified(Time::now()));
            point.mark(&Mark::Damaged(damaged.to_vec()));
            take_note(&mut point, seen);
            (point.damaged(), point.is_verified())
        };
        use Kind::{Env, Redis};
        // An error and an absence prove nothing, neither way.
        assert_eq!(noted(&[], &[(Redis, Seen::Nothing), (Env, Seen::Good)]), (vec![], true));
        assert_eq!(noted(&[Redis], &[(Redis, Seen::Nothing)]), (vec![Redis], true));
        assert_eq!(noted(&[Redis], &[(Redis, Seen::Good)]), (vec![], true));
        assert_eq!(noted(&[Env], &[(Redis, Seen::Damaged)]), (vec![Redis, Env], false));
        assert_eq!(noted(&[], &[(Redis, Seen::Unproven)]), (vec![], false));
    }

    #[test]
    fn the_verdict_counts_by_what_is_wrong() {
        let said = |bad, missing, unchecked| {
            let files = 9;
            let tally = Tally {
                files,
                bad,
                missing,
                unchecked,
            };
            tally.verdict().map_err(|error| error.to_string())
        };
        assert_eq!(said(0, 0, 0), Ok(()));
        for (verdict, text) in [
            (said(1, 0, 0), "1 of 9 file(s) are bad"),
            (said(0, 2, 0), "2 of 9 file(s) are missing"),
            (said(0, 0, 3), "3 of 9 file(s) could not be checked"),
            (
                said(1, 2, 3),
                "1 of 9 file(s) are bad, 2 are missing, 3 could not be checked",
            ),
        ] {
            assert_eq!(verdict.unwrap_err(), format!("Verification failed: {text}"));
        }
    }
}
