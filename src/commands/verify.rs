//! verify: proves backup files at rest. It needs no docker and no running stack.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::shared::{now, open};
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::components::verify;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::manifest::{self, Member, Point};
use crate::store::{Kind, Stamp, SET_SUFFIX};
use crate::stream::encrypt::Locked;
use crate::stream::read::sha256;

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
    unchecked: usize,
}

impl Tally {
    /// # Errors
    /// That not all files are good.
    fn verdict(&self) -> Result<()> {
        let Self { files, bad, unchecked } = self;
        match (bad, unchecked) {
            (0, 0) => Ok(()),
            (_, 0) => bail!("Verification failed: {bad} of {files} file(s) are bad"),
            (0, _) => bail!("Verification failed: {unchecked} of {files} file(s) could not be checked"),
            _ => bail!("Verification failed: {bad} of {files} file(s) are bad, {unchecked} could not be checked"),
        }
    }
}

/// What is wrong with a file.
enum Fault {
    /// Its contents are not those that were recorded, or it is gone.
    Damaged(anyhow::Error),
    /// It cannot be proven whole.
    Unproven(anyhow::Error),
    /// It cannot be decrypted here, which says nothing about it; why.
    Unchecked(String),
}

/// Verifies what `operand` names: a file, a recovery point, or the newest point without it; or all there is.
///
/// # Errors
/// With the number of files that are bad or could not be checked, after a line on each; or that there is nothing to verify,
/// unless all there is was asked for.
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
            let newest = manifest::list(&app.store)?.pop();
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
        ensure!(path.exists(), "There is no recovery point {stamp}");
        return Ok(Some(path));
    }
    if text == "latest" {
        let newest = manifest::list(&app.store)?.pop();
        return Ok(Some(newest.context("There is no recovery point yet")?.0));
    }
    let path = Path::new(name);
    ensure!(path.exists(), "Backup file not found: {}", path.display());
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
    let mut recorded = HashSet::new();
    for (path, point) in manifest::list(&app.store)? {
        if let Ok(point) = &point {
            recorded.extend(point.members.iter().map(|member| app.store.root().join(&member.name)));
        }
        verify_set(app, &path, point, tally);
    }
    for kind in Kind::ALL {
        for entry in app.store.list(kind)? {
            if !recorded.contains(&entry.path) {
                judge(&entry.path, check(app, kind, &entry.path, None), tally);
            }
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
            tally.bad += 1;
            JOURNAL.error(format_args!("{}: {error:#}", path.display()));
            return;
        }
    };
    let _used = point.hold(&app.store);
    if !path.exists() {
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
    let (bad, unchecked) = (tally.bad, tally.unchecked);
    let mut damaged = Vec::new();
    for member in &point.members {
        let file = app.store.root().join(&member.name);
        if !judge(&file, check(app, member.kind, &file, Some(member)), tally) {
            damaged.push(member.kind);
        }
    }
    let well = tally.bad == bad && !point.members.is_empty();
    let all = tally.unchecked == unchecked;
    mark(app, point.stamp, |point| {
        if !well {
            point.unset("verified");
        } else if all {
            point.set("verified", &now());
        }
        set_damaged(point, |kind| damaged.contains(&kind));
    });
}

/// Verifies one file, against the manifest where it belongs to a point. It alone does not make the point verified.
fn verify_file(app: &App, path: &Path, tally: &mut Tally) -> Result<()> {
    let recorded = manifest::point_of(&app.store, path)?;
    let kind = match &recorded {
        Some((_, member)) => member.kind,
        None => Kind::of_name(path)
            .with_context(|| format!("{} has no name of a backup file (.sql.gz, .rdb, ...)", path.display()))?,
    };
    let member = recorded.as_ref().map(|(_, member)| member);
    let bad = tally.bad;
    let intact = judge(path, check(app, kind, path, member), tally);
    if let Some((point, _)) = &recorded {
        let well = tally.bad == bad;
        mark(app, point.stamp, |point| {
            if !well {
                point.unset("verified");
            }
            let before: Vec<String> = point.listed("damaged").into_iter().map(str::to_owned).collect();
            set_damaged(point, |known| {
                if known == kind {
                    !intact
                } else {
                    before.iter().any(|name| name == known.dir())
                }
            });
        });
    }
    Ok(())
}

/// Tells what is known of a file now. Gives whether its contents are those that were recorded, as far as is known.
fn judge(path: &Path, fault: Option<Fault>, tally: &mut Tally) -> bool {
    tally.files += 1;
    match fault {
        None => {
            let bytes = path.metadata().map_or(0, |meta| meta.len());
            JOURNAL.info(format_args!("Good: {} ({})", path.display(), units::amount(bytes)));
            true
        }
        Some(Fault::Unchecked(why)) => {
            tally.unchecked += 1;
            JOURNAL.error(format_args!("Not checked: {}: {why}", path.display()));
            true
        }
        Some(Fault::Unproven(error)) => {
            tally.bad += 1;
            JOURNAL.error(format_args!("Bad: {}: {error:#}", path.display()));
            true
        }
        Some(Fault::Damaged(error)) => {
            tally.bad += 1;
            JOURNAL.error(format_args!("Bad: {}: {error:#}", path.display()));
            false
        }
    }
}

/// Proves a file: its checksum and its form, both at once.
fn check(app: &App, kind: Kind, path: &Path, member: Option<&Member>) -> Option<Fault> {
    match path.symlink_metadata() {
        Err(error) => return Some(Fault::Damaged(anyhow::Error::new(error).context("it is missing"))),
        Ok(meta) if meta.len() == 0 && kind != Kind::Env => return Some(Fault::Damaged(anyhow!("it is empty"))),
        Ok(_) => {}
    }
    let (sum, form) = thread::scope(|scope| {
        let sum = member.map(|_| scope.spawn(|| sha256(&app.config, path)));
        let form = verify(app, kind, path);
        (sum.map(|sum| sum.join()), form)
    });
    if let (Some(member), Some(sum)) = (member, sum) {
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
            Err(error) => return Some(Fault::Unproven(error)),
        }
    }
    form.err().map(|error| match error.downcast_ref::<Locked>() {
        Some(locked) => Fault::Unchecked(locked.why.clone()),
        None => Fault::Unproven(error),
    })
}

/// Records the components whose contents are no longer those of the backup.
fn set_damaged(point: &mut Point, is: impl Fn(Kind) -> bool) {
    let names: Vec<&str> = Kind::ALL
        .iter()
        .filter(|kind| is(**kind))
        .map(|kind| kind.dir())
        .collect();
    if names.is_empty() {
        point.unset("damaged");
    } else {
        point.set("damaged", &names.join(" "));
    }
}

/// Changes a point's marks; a medium that cannot be written, which is good to verify, is no failure.
fn mark(app: &App, stamp: Stamp, change: impl FnOnce(&mut Point)) {
    if let Err(error) = manifest::update(&app.store, stamp, change) {
        JOURNAL.warn(format_args!("Recovery point {stamp} could not be marked: {error:#}"));
    }
}
