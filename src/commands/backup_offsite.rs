//! backup-offsite: recovery points to another place.
//!
//! Off-site, files have the same paths as below `backups/`. A point's files are sent and compared first, its manifest
//! last: where the manifest is, the point is whole. Nothing is deleted there because it was deleted here; age alone
//! decides.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{bail, ensure, Context as _, Result};

use super::shared::{dry_run, open};
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::process::Observer;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::atomic::{self, Access};
use crate::store::inventory::{self, is_ahead};
use crate::store::lock::{Attempt, Lock};
use crate::store::manifest::{self, Member, Point};
use crate::store::marks::{self, Mark, OffsiteCopy};
use crate::store::offsite::{expired, fetch_manifest, set_name, stamp_of_file, Expired, RemoteFiles};
use crate::store::remote::{Proof, Rclone};
use crate::store::retention::{age_in_days, Rules};
use crate::store::{make_dir, total, Stamp, ENCRYPTED};
use crate::stream::read::sha256;

const DRY_RUN: Flag = dry_run("only say what would be sent and deleted");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "backup-offsite",
        summary: "copy the recovery points that are not off-site yet to RCLONE_REMOTE:RCLONE_BUCKET",
        details:
            "By rclone, newest first; each is compared there and then marked. Only BACKUP_OFFSITE_KEEP_DAYS deletes\n\
                  anything there. Exits 0 when done, 1 on failure, 2 when there was nothing to send.",
        flags: &[DRY_RUN],
        in_background: true,
        ..Row::ACTS
    },
    run: Run::Project(|project, call| run(&open(project, call)?, call.has(&DRY_RUN))),
};

/// The journal of the copy to elsewhere, for those who run it as a step of theirs.
pub const JOURNAL: Journal = Journal::new("backup-offsite");
/// The exit code when everything is there already.
const NOTHING_TO_SEND: u8 = 2;
/// Files that begin with so many equal bytes are the same one.
const COMPARED: u64 = 64 << 20;
/// Facts that hold names of tables and stay here, when only what is encrypted may leave.
const PRIVATE_FACTS: &str = "postgres.rows.";

/// Sends the recovery points that are not elsewhere yet, newest first, and applies the retention there. Gives the exit
/// code: 0, or 2 when there was nothing to send.
///
/// # Errors
/// When a point cannot be sent or proven there; it is not marked, and the next run completes it.
pub fn run(app: &App, dry_run: bool) -> Result<u8> {
    let remote = app.config.remote();
    JOURNAL.info(format_args!("Starting off-site copy to {remote}"));
    if dry_run {
        JOURNAL.info("Running in dry-run mode (nothing will be sent or deleted)");
    }
    let rclone = rclone(app)?;
    let _lock = if dry_run { None } else { Some(hold(app)?) };
    let there = RemoteFiles::list(&rclone)?;
    let now = SystemTime::now();
    let mut points = Vec::new();
    for (path, point) in inventory::latest_first(&app.store, now)? {
        match point {
            Ok(point) => points.push(point),
            Err(error) => JOURNAL.warning(&error.context(format!("Not sent: {}", path.display()))),
        }
    }
    let plan = plan(app, &points, &there, &remote, now)?;

    let (mut sent, mut bytes) = (0_u64, 0_u64);
    for point in plan {
        let size = length(app, point);
        if dry_run {
            check_ours(app, &rclone, point, &there).with_context(|| not_sent(point, &remote))?;
            JOURNAL.info(format_args!(
                "[DRY-RUN] Would send: recovery point {} ({})",
                point.stamp,
                units::amount(size)
            ));
        } else {
            JOURNAL.info(format_args!(
                "Sending recovery point {} ({})",
                point.stamp,
                units::amount(size)
            ));
            let proof = send(app, &rclone, point, size, &there).with_context(|| not_sent(point, &remote))?;
            manifest::update(&app.store, point.stamp, |point| {
                point.mark(&Mark::Offsite(OffsiteCopy::now(&remote, Some(&proof.to_string()))));
            })?;
            JOURNAL.info(format_args!("Recovery point {} is at {remote}, {proof}", point.stamp));
        }
        sent += 1;
        bytes = total([bytes, size]);
    }
    clear(app, &rclone, &points, dry_run)?;
    if sent == 0 {
        JOURNAL.info(format_args!("Nothing to send to {remote}"));
        return Ok(NOTHING_TO_SEND);
    }
    JOURNAL.success(match dry_run {
        true => "Dry-run completed".to_owned(),
        false => format!(
            "Off-site copy completed: {sent} recovery point(s), {}, to {remote}",
            units::amount(bytes)
        ),
    });
    Ok(0)
}

fn not_sent(point: &Point, remote: &str) -> String {
    format!("Recovery point {} could not be sent to {remote}", point.stamp)
}

/// The rclone of this host, with the remote of the settings.
pub(super) fn rclone(app: &App) -> Result<Rclone> {
    let config = &app.config;
    Rclone::locate(
        config.path.as_ref(),
        config.rclone_config.clone(),
        config.remote(),
        config.stall,
    )
}

/// One copy at a time; a backup may run meanwhile.
fn hold(app: &App) -> Result<Lock> {
    make_dir(app.store.root())?;
    match Lock::attempt(&app.store.root().join(".offsite.lock"))? {
        Attempt::Held(lock) => Ok(lock),
        Attempt::Busy(pid) => bail!(Busy { pid }),
    }
}

/// Another off-site copy is under way.
#[derive(Debug)]
pub struct Busy {
    pid: String,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "An off-site copy is already in progress (PID: {})", self.pid)
    }
}

impl std::error::Error for Busy {}

/// Which of the points are to be sent. Says which ones cannot be, and why.
fn plan<'a>(
    app: &App,
    points: &'a [Point],
    there: &RemoteFiles,
    remote: &str,
    now: SystemTime,
) -> Result<Vec<&'a Point>> {
    let newest = points.first().map(|point| point.stamp);
    let days = app.config.offsite_keep_days;
    // Age is not counted from a point that is dated in the future.
    let from = points.first().map(Point::time).filter(|time| !is_ahead(*time, now));
    let expired = |point: &Point| from.is_some_and(|from| days > 0 && age_in_days(point.time(), from) > days);
    let mut plan = Vec::new();
    let (mut plain, mut incomplete) = (0, 0);
    for point in points {
        let marked = point.offsite().is_some_and(|copy| copy.is_at(remote));
        if marked && there.has_set(point.stamp) || expired(point) {
            continue;
        }
        if app.config.encrypted_only && point.members.iter().any(|member| !member.name.ends_with(ENCRYPTED)) {
            ensure!(
                Some(point.stamp) != newest,
                "The newest recovery point ({}) holds unencrypted files and is not sent: set BACKUP_GPG_PASSPHRASE or \
                 BACKUP_GPG_RECIPIENT in .env, or RCLONE_SYNC_ENCRYPTED_ONLY=false to send them as they are",
                point.stamp
            );
            plain += 1;
        } else if !is_here(app, point) {
            incomplete += 1;
        } else {
            plan.push(point);
        }
    }
    if plain > 0 {
        JOURNAL.info(format_args!(
            "{plain} older recovery point(s) hold unencrypted files and are not sent (RCLONE_SYNC_ENCRYPTED_ONLY)"
        ));
    }
    if incomplete > 0 {
        JOURNAL.warn(format_args!(
            "{incomplete} recovery point(s) lack a file or hold one that has changed, and are not sent: n8n-backup verify --all \
             tells more"
        ));
    }
    Ok(plan)
}

/// Whether every file of a point is there and as long as it was.
fn is_here(app: &App, point: &Point) -> bool {
    point.members.iter().all(|member| {
        let meta = app.store.root().join(&member.name).symlink_metadata();
        meta.is_ok_and(|meta| meta.is_file() && point.size(member.kind).is_none_or(|bytes| bytes == meta.len()))
    })
}

fn length(app: &App, point: &Point) -> u64 {
    let file = |member: &Member| app.store.root().join(&member.name).metadata();
    let files = point.members.iter().filter_map(|member| file(member).ok());
    total(files.map(|meta| meta.len()))
}

/// Refuses a point where another stack's backups lie under its names: two that send to one place would each replace the
/// other's. What an earlier send of ours has left is completed.
fn check_ours(app: &App, rclone: &Rclone, point: &Point, there: &RemoteFiles) -> Result<()> {
    let recorded = check_manifests(rclone, point, there)?;
    for member in &point.members {
        if there.has(&member.name) && !recorded.contains(&member.name) {
            ensure!(!is_foreign(app, rclone, member)?, Foreign(member.name.clone()));
        }
    }
    Ok(())
}

/// Refuses a point where a manifest there tells of other files under its names. Gives those of ours that one tells of.
fn check_manifests(rclone: &Rclone, point: &Point, there: &RemoteFiles) -> Result<Vec<String>> {
    let members = point.members.iter();
    let present: Vec<&Member> = members.filter(|member| there.has(&member.name)).collect();
    let own = Some(point.stamp).filter(|stamp| there.has_set(*stamp));
    let stamps = present.iter().filter_map(|member| stamp_of_file(&member.name));
    let near = stamps.flat_map(|(_, stamp)| there.sets_near(stamp));
    let sets: BTreeSet<Stamp> = near.chain(own).collect();
    let mut recorded = Vec::new();
    for set in sets {
        let text = fetch_manifest(rclone, set)?;
        // The last line of one that was cut off tells nothing.
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let lines = lines.filter_map(|line| line.split_once("  "));
        let lines: Vec<(&str, &str)> = lines.filter(|(sum, _)| sum.len() == 64).collect();
        let is_line_of = |member: &Member| lines.contains(&(member.sha256.as_str(), member.name.as_str()));
        let same = point.members.iter().any(is_line_of);
        let other = point
            .members
            .iter()
            .any(|member| !is_line_of(member) && lines.iter().any(|(_, name)| *name == member.name));
        // Under the very name of our manifest lies a point that has none of our files.
        let instead = set == point.stamp && !same && !lines.is_empty();
        ensure!(!other && !instead, Foreign(set_name(set)));
        let known = present.iter().filter(|member| is_line_of(member));
        recorded.extend(known.map(|member| member.name.clone()));
    }
    Ok(recorded)
}

/// What lies there under a name of ours, and is another's.
#[derive(Debug)]
struct Foreign(String);

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is there and is not ours: give each stack an RCLONE_BUCKET of its own in .env, or remove it there",
            self.0
        )
    }
}

impl std::error::Error for Foreign {}

/// Whether a file there that no manifest tells of is not the beginning of ours, as a send that was interrupted leaves it.
fn is_foreign(app: &App, rclone: &Rclone, member: &Member) -> Result<bool> {
    let path = app.store.root().join(&member.name);
    let file = atomic::open(&path).with_context(|| format!("Cannot read {}", path.display()))?;
    let differs = Arc::new(AtomicBool::new(false));
    let mut chain = app.chain();
    let stream = rclone.read(&mut chain, &member.name)?;
    let compared = Compared {
        file,
        offset: 0,
        differs: Arc::clone(&differs),
    };
    chain.pump(format!("comparing {}", member.name), stream, io::sink(), compared);
    // A remote that encrypts may not give what was cut off; whether it answers at all is told by the copy.
    let _ = chain.finish();
    Ok(differs.load(Ordering::Relaxed))
}

/// Compares what passes by with a file, from its beginning.
struct Compared {
    file: File,
    offset: u64,
    differs: Arc<AtomicBool>,
}

impl Observer for Compared {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        let mut block = vec![0; chunk.len()];
        let read = self.file.read_exact_at(&mut block, self.offset);
        // A copy in several streams leaves holes when it is interrupted.
        let same = read.is_ok()
            && block
                .iter()
                .zip(chunk)
                .all(|(ours, there)| ours == there || *there == 0);
        self.differs.store(!same, Ordering::Relaxed);
        ensure!(same, "it differs");
        self.offset += chunk.len() as u64;
        ensure!(self.offset < COMPARED, "that is enough");
        Ok(())
    }
}

/// Sends a point: its files, the proof, and the manifest.
fn send(app: &App, rclone: &Rclone, point: &Point, bytes: u64, there: &RemoteFiles) -> Result<Proof> {
    let names: Vec<String> = point.members.iter().map(|member| member.name.clone()).collect();
    let root = app.store.root();
    let _used = point.hold(&app.store)?;
    for member in &point.members {
        // What has rotted here must not take the place of a good copy.
        let sum = sha256(&app.config, &root.join(&member.name))?;
        ensure!(
            sum == member.sha256,
            "{} is not what was backed up: its SHA-256 is {sum}",
            member.name
        );
    }
    check_ours(app, rclone, point, there)?;
    rclone.copy(root, &names)?;
    let proof = rclone.check(root, &names, bytes)?;
    // Another stack may have sent its own meanwhile.
    check_manifests(rclone, point, &RemoteFiles::list(rclone)?)?;
    let mut public = point.clone();
    public.unset(marks::OFFSITE);
    if app.config.encrypted_only {
        public.unset_all(PRIVATE_FACTS);
    }
    let text = public.text();
    let temporary = Temporary::write(&app.store.sets_dir(), &text)?;
    rclone.copy_one(&temporary.0, &set_name(point.stamp))?;
    let back = fetch_manifest(rclone, point.stamp)?;
    ensure!(back == text, "the manifest reads back as something else than was sent");
    Ok(proof)
}

/// A file that goes when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn write(dir: &Path, text: &str) -> Result<Self> {
        // Not called as an unfinished manifest is, which the next one that is written sweeps away.
        let temporary = Self(dir.join(".offsite.new"));
        // What a dead run, or somebody else, has left there is not written to.
        let _ = fs::remove_file(&temporary.0);
        atomic::create(&temporary.0, text.as_bytes(), Access::PRIVATE)?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Applies `BACKUP_OFFSITE_KEEP_DAYS`.
fn clear(app: &App, rclone: &Rclone, points: &[Point], dry_run: bool) -> Result<()> {
    let days = app.config.offsite_keep_days;
    if days == 0 {
        return Ok(());
    }
    let there = RemoteFiles::list(rclone)?;
    let rules = Rules {
        days,
        last: app.config.retention.last,
        ..Rules::default()
    };
    let known = points.iter().map(|point| (point.stamp, point.time())).collect();
    let sent = points.iter().filter(|point| there.has_set(point.stamp));
    let named = sent
        .flat_map(|point| &point.members)
        .map(|member| member.kind)
        .collect();
    let Expired { sets, files } = match expired(&there, &known, &named, SystemTime::now(), &rules) {
        Ok(expired) => expired,
        Err(error) => {
            JOURNAL.warn(format_args!("{error:#}: nothing is deleted there"));
            return Ok(());
        }
    };
    for name in sets.iter().chain(&files) {
        let what = if dry_run { "[DRY-RUN] Would delete" } else { "Deleting" };
        JOURNAL.info(format_args!("{what} there, older than {days} days: {name}"));
    }
    // The manifests first: a point without one is not taken for whole.
    for names in [sets, files] {
        if !dry_run && !names.is_empty() {
            rclone.delete(&names)?;
        }
    }
    Ok(())
}
