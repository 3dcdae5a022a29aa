//! backup-offsite and fetch-offsite: recovery points to a place elsewhere, and back.
//!
//! Elsewhere, files have the same paths as below `backups/`. A point's files are sent and compared first, its manifest
//! last: where the manifest is, the point is whole. Nothing is deleted there because it was deleted here; age alone
//! decides.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use anyhow::{bail, ensure, Context as _, Result};
use chrono::TimeDelta;

use super::shared::{dry_run, now, open};
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::process::Observer;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::atomic;
use crate::store::lock::{Attempt, Lock};
use crate::store::manifest::{self, Member, Point};
use crate::store::remote::{Proof, Rclone};
use crate::store::retention::Idle;
use crate::store::{make_dir, Kind, Stamp, ENCRYPTED, SET_SUFFIX};
use crate::stream::publish;
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
const FETCH: Journal = Journal::new("fetch-offsite");
/// The exit code when everything is there already.
const NOTHING_TO_SEND: u8 = 2;
/// The fact that marks a point: when, where to, how it was compared.
const MARK: &str = "offsite";
/// The directory of the manifests, there as here.
const SETS: &str = "sets";
/// The names of a point's manifest and files tell times that are closer than this.
const SAME_RUN: TimeDelta = TimeDelta::hours(1);
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
    let there = rclone.list()?;
    let mut points = Vec::new();
    for (path, point) in manifest::list(&app.store)? {
        match point {
            Ok(point) => points.push(point),
            Err(error) => JOURNAL.warn(format_args!("Not sent: {}: {error:#}", path.display())),
        }
    }
    let plan = plan(app, &points, &there, &remote)?;

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
                point.set(MARK, &format!("{} {remote} ({proof})", now()));
            })?;
            JOURNAL.info(format_args!("Recovery point {} is at {remote}, {proof}", point.stamp));
        }
        sent += 1;
        bytes += size;
    }
    clear(app, &rclone, dry_run)?;
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

fn rclone(app: &App) -> Result<Rclone> {
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

/// The points to send, newest first. Says which ones cannot be, and why.
fn plan<'a>(app: &App, points: &'a [Point], there: &[String], remote: &str) -> Result<Vec<&'a Point>> {
    let newest = points.last().map(|point| point.stamp);
    let present = newest_until(points.iter().map(|point| point.stamp), Stamp::now());
    let mut plan = Vec::new();
    let (mut plain, mut incomplete) = (0, 0);
    for point in points.iter().rev() {
        let marked = point.fact(MARK).is_some_and(|mark| is_mark_of(mark, remote));
        if marked && there.contains(&set_name(point.stamp)) {
            continue;
        }
        if present.is_some_and(|newest| is_expired(point.stamp, newest, app.config.offsite_keep_days)) {
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

/// Whether a mark tells of this remote.
fn is_mark_of(mark: &str, remote: &str) -> bool {
    mark.split_once(' ')
        .and_then(|(_, rest)| rest.strip_prefix(remote))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
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
    point
        .members
        .iter()
        .filter_map(|member| file(member).ok())
        .map(|meta| meta.len())
        .sum()
}

fn set_name(stamp: Stamp) -> String {
    format!("{SETS}/{stamp}{SET_SUFFIX}")
}

/// Refuses a point where another stack's backups lie under its names: two that send to one place would each replace the
/// other's. What an earlier send of ours has left is completed.
fn check_ours(app: &App, rclone: &Rclone, point: &Point, there: &[String]) -> Result<()> {
    let recorded = check_manifests(app, rclone, point, there)?;
    for member in &point.members {
        if there.contains(&member.name) && !recorded.contains(&member.name) {
            ensure!(!is_foreign(app, rclone, member)?, Foreign(member.name.clone()));
        }
    }
    Ok(())
}

/// Refuses a point where a manifest there tells of other files under its names. Gives those of ours that one tells of.
fn check_manifests(app: &App, rclone: &Rclone, point: &Point, there: &[String]) -> Result<Vec<String>> {
    let members = point.members.iter();
    let present: Vec<&Member> = members.filter(|member| there.contains(&member.name)).collect();
    let near = |set: Stamp| {
        let stamps = present.iter().filter_map(|member| stamp_of_file(&member.name));
        stamps.map(|(_, stamp)| stamp).any(|stamp| is_near(set, stamp))
    };
    let sets = there.iter().filter_map(|name| stamp_of_set(name));
    let mut recorded = Vec::new();
    for set in sets.filter(|set| *set == point.stamp || near(*set)) {
        let text = fetch_text(app, rclone, set)?;
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
fn send(app: &App, rclone: &Rclone, point: &Point, bytes: u64, there: &[String]) -> Result<Proof> {
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
    check_manifests(app, rclone, point, &rclone.list()?)?;
    let mut public = point.clone();
    public.unset(MARK);
    if app.config.encrypted_only {
        public.unset_all(PRIVATE_FACTS);
    }
    let text = public.text();
    let temporary = Temporary::write(&app.store.sets_dir(), &text)?;
    rclone.copy_one(&temporary.0, &set_name(point.stamp))?;
    let back = fetch_text(app, rclone, point.stamp)?;
    ensure!(back == text, "the manifest reads back as something else than was sent");
    Ok(proof)
}

/// A file that goes when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn write(dir: &Path, text: &str) -> Result<Self> {
        // Not called as an unfinished manifest is, which the next one that is written sweeps away.
        let path = dir.join(".offsite.new");
        let temporary = Self(path);
        // What a dead run, or somebody else, has left there is not written to.
        let _ = fs::remove_file(&temporary.0);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary.0)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("Cannot write {}", temporary.0.display()))?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether `stamp` is more than `days` whole days older than the newest point; never with 0 days. Counted from the newest
/// point and not from now, so that a clock that jumps takes nothing away.
fn is_expired(stamp: Stamp, newest: Stamp, days: u64) -> bool {
    let limit = i64::try_from(days).unwrap_or(i64::MAX).saturating_add(1);
    days > 0 && newest.local() - stamp.local() >= TimeDelta::try_days(limit).unwrap_or(TimeDelta::MAX)
}

/// The newest of `stamps` that is not from the future by more than a day: the clock was wrong once, and age is not counted
/// from that.
fn newest_until(stamps: impl Iterator<Item = Stamp>, now: Stamp) -> Option<Stamp> {
    stamps.filter(|stamp| !stamp.is_ahead(now)).max()
}

/// The point that a manifest's path there stands for.
fn stamp_of_set(name: &str) -> Option<Stamp> {
    name.strip_prefix(SETS)?
        .strip_prefix('/')?
        .strip_suffix(SET_SUFFIX)
        .and_then(Stamp::parse)
}

/// The time of a backup file there, when it has the path that we give.
fn stamp_of_file(name: &str) -> Option<(Kind, Stamp)> {
    let (dir, file) = name.split_once('/')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.dir() == dir)?;
    Some((kind, kind.stamp_in(file)?))
}

/// What the retention there lets go: manifests, and files. The point with the newest file of a component stays, however
/// many newer points lack that component, and with it what is as old. A file is as old as its point, so that none goes before
/// its manifest.
fn expired(there: &[String], days: u64) -> (Vec<String>, Vec<String>) {
    let sets: Vec<Stamp> = there.iter().filter_map(|name| stamp_of_set(name)).collect();
    let Some(newest) = sets.iter().copied().max() else {
        return (Vec::new(), Vec::new());
    };
    let last = Kind::ALL.map(|kind| {
        let files = there.iter().filter_map(|name| stamp_of_file(name));
        let whole = files.filter(|(of, stamp)| *of == kind && sets.iter().any(|set| is_near(*set, *stamp)));
        whole.map(|(_, stamp)| stamp).max()
    });
    let needed = |stamp: Stamp| last.iter().flatten().any(|last| is_near(*last, stamp));
    let idle = Idle::between(sets.iter().map(|set| set.time()), newest.time(), days);
    // A file is as old as its point, not as the moment in which it was begun.
    let point = |stamp: Stamp| {
        let of = sets.iter().filter(|set| **set <= stamp && is_near(**set, stamp)).max();
        of.copied().unwrap_or(stamp)
    };
    let expired = |stamp: Stamp| days > 0 && idle.age(point(stamp).time(), newest.time()) > days;
    let old = |stamp: Option<Stamp>| stamp.is_some_and(|stamp| expired(stamp) && !needed(stamp));
    let pick = |is: &dyn Fn(&str) -> bool| there.iter().filter(|name| is(name)).cloned().collect();
    (
        pick(&|name| old(stamp_of_set(name))),
        pick(&|name| old(stamp_of_file(name).map(|(_, stamp)| stamp))),
    )
}

/// Whether the names of a manifest and a file, or of two files, are so close that they may be of one run.
fn is_near(a: Stamp, b: Stamp) -> bool {
    (a.local() - b.local()).abs() < SAME_RUN
}

/// Applies `BACKUP_OFFSITE_KEEP_DAYS`.
fn clear(app: &App, rclone: &Rclone, dry_run: bool) -> Result<()> {
    let days = app.config.offsite_keep_days;
    if days == 0 {
        return Ok(());
    }
    let there = rclone.list()?;
    if let Some(ahead) = there
        .iter()
        .filter_map(|name| stamp_of_set(name))
        .find(|stamp| stamp.is_ahead(Stamp::now()))
    {
        JOURNAL.warn(format_args!(
            "The clock cannot be right: recovery point {ahead} there is from the future. Nothing is deleted there until the clock \
             is right or it is removed"
        ));
        return Ok(());
    }
    let (sets, files) = expired(&there, days);
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

/// Brings a recovery point back: the newest there, or the one that `operand` names by its stamp.
///
/// # Errors
/// When there is none, or a file is not the one that was backed up; what has been proven until then stays.
pub fn fetch(app: &App, operand: Option<&OsStr>) -> Result<()> {
    let remote = app.config.remote();
    FETCH.info(format_args!("Starting fetch from {remote}"));
    let wanted =
        match operand.map(|operand| operand.to_string_lossy()) {
            None => None,
            Some(name) if name == "latest" => None,
            Some(name) => {
                let stamp = Stamp::parse(&name);
                Some(stamp.with_context(|| {
                    format!("'{name}' is no recovery point: name one as YYYYMMDD_HHMMSS, or latest")
                })?)
            }
        };
    let rclone = rclone(app)?;
    let mut stamps: Vec<Stamp> = rclone.list()?.iter().filter_map(|name| stamp_of_set(name)).collect();
    stamps.sort();
    let newest = newest_until(stamps.iter().copied(), Stamp::now())
        .or_else(|| stamps.last().copied())
        .with_context(|| format!("There is no recovery point at {remote}"))?;
    let stamp = match wanted {
        None => newest,
        Some(stamp) => {
            ensure!(
                stamps.contains(&stamp),
                "There is no recovery point {stamp} at {remote}; the newest one is {newest}"
            );
            stamp
        }
    };
    let text = fetch_text(app, &rclone, stamp)?;
    let mut point = Point::parse(&text)
        .and_then(|point| check(&point, stamp).map(|()| point))
        .with_context(|| format!("The manifest of {stamp} at {remote} cannot be used"))?;
    FETCH.info(format_args!(
        "Fetching recovery point {stamp}, {} file(s)",
        point.members.len()
    ));
    for member in &point.members {
        fetch_file(app, &rclone, member).with_context(|| format!("{} could not be fetched", member.name))?;
    }
    if !app.store.set_path(stamp).exists() {
        point.set(MARK, &format!("{} {remote}", now()));
        point.write(&app.store)?;
    }
    FETCH.success(format_args!(
        "Recovery point {stamp} is in {}",
        app.store.root().display()
    ));
    Ok(())
}

/// Refuses a manifest of another point, of none that has files, or that names files where ours do not lie.
fn check(point: &Point, stamp: Stamp) -> Result<()> {
    ensure!(point.stamp == stamp, "it is that of {}", point.stamp);
    ensure!(!point.members.is_empty(), "it names no file");
    for member in &point.members {
        let known = stamp_of_file(&member.name);
        ensure!(
            known.is_some_and(|(kind, _)| kind == member.kind),
            "no backup file: {}",
            member.name
        );
    }
    Ok(())
}

fn fetch_text(app: &App, rclone: &Rclone, stamp: Stamp) -> Result<String> {
    let mut chain = app.chain();
    let stream = rclone.read(&mut chain, &set_name(stamp))?;
    let text = chain.collect("reading a manifest", stream, manifest::LIMIT as usize);
    String::from_utf8(text.get(&chain.finish()?)?).context("the manifest is no text")
}

/// Fetches a file, unless it is here, and gives it its name when its SHA-256 is the recorded one.
fn fetch_file(app: &App, rclone: &Rclone, member: &Member) -> Result<()> {
    let (kind, stamp) = stamp_of_file(&member.name).context("no backup file")?;
    let _lock = app.hold(kind, FETCH)?;
    let path = app.store.root().join(&member.name);
    if path.symlink_metadata().is_ok() {
        let sum = sha256(&app.config, &path)?;
        ensure!(
            sum == member.sha256,
            "{} is here with other contents: move it away first",
            path.display()
        );
        FETCH.info(format_args!("Already here: {}", path.display()));
        return Ok(());
    }
    let store = app.store.clone().with_encryption(member.name.ends_with(ENCRYPTED));
    ensure!(
        !store.is_taken(kind, stamp),
        "another backup of {stamp} is here: move it away first"
    );
    let partial = store.create(kind, stamp)?;
    let mut chain = app.chain();
    let stream: Box<dyn Read + Send> = Box::new(rclone.read(&mut chain, &member.name)?);
    let written = publish::write_as_is(&app.config, &mut chain, &partial, stream, ())?;
    let ((), bytes, sum) = written.get(&chain.finish()?)?;
    ensure!(
        sum == member.sha256,
        "the copy is damaged: its SHA-256 is {sum}, and {} was recorded",
        member.sha256
    );
    let entry = partial.publish()?;
    FETCH.info(format_args!(
        "Fetched: {} ({})",
        entry.path.display(),
        units::amount(bytes)
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(text: &str) -> Stamp {
        Stamp::parse(text).unwrap()
    }

    #[test]
    fn age_there_counts_from_the_newest_point() {
        let there: Vec<String> = [
            "sets/20260101_020000.sha256",
            "env/env_20260101_020000.backup.gpg",
            "postgres/n8n_20260101_020001.sql.gz.gpg",
            "sets/20260109_015959.sha256",
            "env/env_20260109_020000.backup.gpg",
            "sets/20260131_020000.sha256",
            "env/env_20260131_020000.backup.gpg",
            "postgres/n8n_20260131_020000.sql.gz.gpg",
            "env/mine.backup.gpg",
            "other/n8n_20200101_000000.sql.gz",
        ]
        .map(str::to_owned)
        .to_vec();
        let (sets, files) = expired(&there, 29);
        assert_eq!(sets, there[..1]);
        // One second younger than 30 days, and it goes with its point all the same.
        assert_eq!(files, there[1..3]);
        let (sets, files) = expired(&there, 1);
        assert_eq!((sets.len(), files.len()), (2, 3));
        assert_eq!(expired(&there, 0), (Vec::new(), Vec::new()));
        assert_eq!(expired(&there[8..], 1), (Vec::new(), Vec::new()));
    }

    #[test]
    fn the_last_of_each_component_stays_there() {
        let mut there = vec![
            "sets/20260101_020000.sha256".to_owned(),
            "postgres/n8n_20260101_020000.sql.gz".to_owned(),
            "env/env_20260101_020003.backup".to_owned(),
            "sets/20260102_020000.sha256".to_owned(),
            "env/env_20260102_020000.backup".to_owned(),
            // What was sent in part is not relied on.
            "postgres/n8n_20260103_020000.sql.gz".to_owned(),
            "sets/20260201_020000.sha256".to_owned(),
            "env/env_20260201_020000.backup".to_owned(),
            "sets/20260301_020000.sha256".to_owned(),
            "env/env_20260301_020000.backup".to_owned(),
        ];
        let (sets, files) = expired(&there, 30);
        assert_eq!((sets, files), (there[3..4].to_vec(), there[4..6].to_vec()));
        there.push("postgres/n8n_20260301_020000.sql.gz".to_owned());
        let (sets, files) = expired(&there, 30);
        assert_eq!((sets.len(), files.len()), (2, 4));
    }

    #[test]
    fn one_point_under_a_wrong_clock_does_not_empty_the_place() {
        let mut there: Vec<String> = (1..=28)
            .map(|day| format!("sets/202601{day:02}_020000.sha256"))
            .collect();
        there.push("sets/20260901_020000.sha256".to_owned());
        // The stretch counts as ten days of thirty.
        assert_eq!(expired(&there, 30).0, there[..7]);
    }

    #[test]
    fn age_is_not_counted_from_a_point_of_the_future() {
        let stamps = ["20260101_020000", "20260131_020000", "20300101_020000"].map(stamp);
        let newest = |now: &str| newest_until(stamps.into_iter(), stamp(now));
        assert_eq!(newest("20260131_030000"), Some(stamps[1]));
        assert_eq!(newest("20291231_030000"), Some(stamps[2]));
        assert_eq!(newest("20250101_000000"), None);
    }

    #[test]
    fn a_mark_is_that_of_one_remote() {
        let mark = "2026-01-02T03:04:05+00:00 nas:backups (compared by size)";
        assert!(is_mark_of(mark, "nas:backups"));
        assert!(is_mark_of("2026-01-02T03:04:05+00:00 nas:backups", "nas:backups"));
        for other in ["nas:backup", "nas:backups2", "nas:"] {
            assert!(!is_mark_of(mark, other), "{other}");
        }
    }

    #[test]
    fn a_manifest_from_elsewhere_is_not_trusted() {
        let point = |text: &str| {
            let text = format!("# n8n-backup recovery point 20260102_030405\n{text}");
            Point::parse(&text).and_then(|point| check(&point, stamp("20260102_030405")))
        };
        let sum = "0".repeat(64);
        let good = format!("# size.env: 3\n{sum}  env/env_20260102_030405.backup.gpg\n");
        point(&good).unwrap();
        for bad in [
            String::new(),
            "# size.env: 3\n".to_owned(),
            format!("# size.redis: 3\n{good}"),
            format!("{sum}  ../env/env_20260102_030405.backup\n"),
            format!("{sum}  /etc/env/env_20260102_030405.backup\n"),
            format!("{sum}  env/../../x.backup\n"),
            format!("{sum}  redis/env_20260102_030405.backup\n"),
        ] {
            assert!(point(&bad).is_err(), "{bad}");
        }
        let other = format!("# n8n-backup recovery point 20260102_030406\n{good}");
        assert!(check(&Point::parse(&other).unwrap(), stamp("20260102_030405")).is_err());
    }
}
