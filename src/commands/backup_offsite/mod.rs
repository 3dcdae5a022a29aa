//! backup-offsite: recovery points to another place.
//!
//! Off-site, each stack has a directory, where files have the same paths as below `backups/`. A point's files are sent and
//! compared first, its manifest last: where the manifest is, the point is whole. Each run compares the names and lengths of
//! all points that are marked as copied, and the checksums of one in turn. Nothing is deleted there because it was deleted
//! here; age alone decides.

mod busy;
mod check;
mod clear;
mod here;
mod there;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{anyhow, bail, ensure, Context as _, Error, Result};

pub use self::busy::Busy;
use self::check::{check_in_turn, is_as_sent, CHECKED};
use self::clear::{clear, rules};
use self::here::{check_files, is_gone, is_here, length, Changed};
pub(super) use self::there::{read_manifest, Unread};
use self::there::{There, SENT};
use super::shared::{dry_run, open};
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::process::{hinted, shell_quote};
use crate::report::log::Journal;
use crate::report::units;
use crate::store::atomic::{self, Access};
use crate::store::identity::{self, Identity};
use crate::store::inventory;
use crate::store::lock::{offsite_lock, Attempt, Lock};
use crate::store::manifest::{self, Point};
use crate::store::marks::{self, Mark, OffsiteCopy};
use crate::store::offsite::{set_name, stack_dir};
use crate::store::remote::{Differs, Proof, Rclone, Resend};
use crate::store::{make_dir, total, ENCRYPTED, SET_SUFFIX};
use crate::stream::encrypt::Gpg;
use crate::stream::read::sha256;

const DRY_RUN: Flag = dry_run("only say what would be sent and deleted");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "backup-offsite",
        summary: "copy the recovery points that are not off-site yet to RCLONE_REMOTE:RCLONE_BUCKET",
        details:
            "By rclone, newest first; each is compared there and then marked. Those that are marked are looked at in\n\
                  each run, by names and lengths, and one in turn by checksums; what is missing there is sent again,\n\
                  unless nothing is left there, as of a disk that is not mounted.\n\
                  Only BACKUP_OFFSITE_KEEP_DAYS deletes anything there. Exits 0 when done, 1 on failure, 2 when there\n\
                  was nothing to send.",
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
/// Facts that hold names of tables and stay here, when only what is encrypted may leave.
const PRIVATE_FACTS: [&str; 3] = ["postgres.rows.", "postgres.sequence.", "sqlite.rows."];
/// The pin that was sent with the manifest.
const PIN_SENT: &str = "offsite.pinned";

/// Sends the recovery points that are not elsewhere yet, newest first, and applies the retention there. Gives the exit
/// code: 0, or 2 when there was nothing to send.
///
/// # Errors
/// When a point cannot be sent or proven there; it is not marked, the others are sent, and the next run completes it.
pub fn run(app: &App, dry_run: bool) -> Result<u8> {
    let remote = app.config.remote();
    JOURNAL.info(format_args!("Starting off-site copy to {remote}"));
    if dry_run {
        JOURNAL.info("Running in dry-run mode (nothing will be sent or deleted)");
    }
    let rclone = rclone(app)?;
    let _lock = if dry_run { None } else { Some(hold(app)?) };
    let now = SystemTime::now();
    let mut failed = Vec::new();
    let (points, stack) = points(app, now, dry_run, &mut failed)?;
    let rclone = rclone.of_stack(stack.clone());
    let there = There::look(&rclone, stack)?;
    check_there(app, &points, &there, &remote)?;
    let mut plan = plan(app, &points, &there, now, dry_run, &mut failed)?;
    if !dry_run {
        plan.extend(check_in_turn(app, &rclone, &points, &there, &remote, &mut failed)?);
    }

    let (mut sent, mut bytes) = (0_u64, 0_u64);
    for point in plan {
        let size = length(app, point);
        let step = if dry_run { would_send } else { send_and_mark };
        if let Err(error) = step(app, &rclone, point, size, &there) {
            if is_gone(app, point) {
                JOURNAL.info(format_args!(
                    "Recovery point {} is not sent: it has been deleted here since this run began",
                    point.stamp
                ));
                continue;
            }
            let error = error.context(not_sent(point, &remote));
            // The others may be whole; a place that gives no answer takes none of them.
            if rclone.list().is_err() {
                return Err(error);
            }
            failed.push(error);
            continue;
        }
        sent += 1;
        bytes = total([bytes, size]);
    }
    let pins = match dry_run {
        true => Ok(0),
        false => send_pins(app, &rclone, &there, &remote),
    };
    let pins = pins.unwrap_or_else(|error| {
        failed.push(error);
        0
    });
    failed.extend(clear(app, &rclone, &points, there, dry_run).err());
    let mut failed = failed.into_iter();
    if let Some(first) = failed.next() {
        failed.for_each(|error| JOURNAL.failure(&error));
        return Err(first);
    }
    if sent == 0 && pins > 0 {
        JOURNAL.success(format_args!("Off-site copy completed: {pins} manifest(s), to {remote}"));
        return Ok(0);
    }
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

fn would_send(app: &App, rclone: &Rclone, point: &Point, bytes: u64, there: &There) -> Result<()> {
    check_ours(app, rclone, point, there, &app.config.remote())?;
    JOURNAL.info(format_args!(
        "[DRY-RUN] Would send: recovery point {} ({})",
        point.stamp,
        units::amount(bytes)
    ));
    Ok(())
}

fn send_and_mark(app: &App, rclone: &Rclone, point: &Point, bytes: u64, there: &There) -> Result<()> {
    let remote = app.config.remote();
    JOURNAL.info(format_args!(
        "Sending recovery point {} ({})",
        point.stamp,
        units::amount(bytes)
    ));
    let (proof, manifest) = send(app, rclone, point, bytes, there)?;
    manifest::update(&app.store, point.stamp, |now| {
        now.mark(&Mark::Offsite(OffsiteCopy::now(&remote, Some(&proof.to_string()))));
        now.unset(CHECKED);
        now.unset(marks::OFFSITE_DEFECT);
        now.set(SENT, &manifest);
        note_pin(now, point);
    })?;
    JOURNAL.info(format_args!("Recovery point {} is at {remote}, {proof}", point.stamp));
    Ok(())
}

/// Remembers which pin is there with a point: the one that it had when it was sent.
pub(super) fn note_pin(point: &mut Point, sent: &Point) {
    match sent.fact(marks::PINNED) {
        Some(pin) => point.set(PIN_SENT, pin),
        None => point.unset(PIN_SENT),
    }
}

/// Sends the manifests again of points that were pinned or unpinned since they were sent: whoever takes over from this host
/// knows of pins by them. Gives how many there were.
fn send_pins(app: &App, rclone: &Rclone, there: &There, remote: &str) -> Result<u64> {
    let Some(stack) = &there.stack else { return Ok(0) };
    let own = rclone.within(&stack_dir(stack));
    let (points, _) = points(app, SystemTime::now(), true, &mut Vec::new())?;
    let mut sent = 0;
    for point in points {
        let is_there = is_marked(&point, remote) && there.own.set(point.stamp).is_some();
        if !is_there || point.fact(marks::PINNED) == point.fact(PIN_SENT) {
            continue;
        }
        JOURNAL.info(format_args!(
            "The manifest of recovery point {} is sent again: its pin has changed",
            point.stamp
        ));
        let manifest = send_manifest(app, &own, there, &point).with_context(|| not_sent(&point, remote))?;
        manifest::update(&app.store, point.stamp, |now| {
            now.set(SENT, &manifest);
            note_pin(now, &point);
        })?;
        sent += 1;
    }
    Ok(sent)
}

fn not_sent(point: &Point, remote: &str) -> String {
    format!("Recovery point {} could not be sent to {remote}", point.stamp)
}

/// The rclone of this host, with the remote of the settings.
pub(super) fn rclone(app: &App) -> Result<Rclone> {
    let config = &app.config;
    Rclone::locate(
        config.path.as_ref(),
        &config.project,
        config.rclone_config.clone(),
        config.remote(),
        config.stall,
    )
}

/// One copy at a time; a backup may run meanwhile.
fn hold(app: &App) -> Result<Lock> {
    make_dir(app.store.root())?;
    match Lock::attempt(&offsite_lock(app.store.root()))? {
        Attempt::Held(lock) => Ok(lock),
        Attempt::Busy(pid) => bail!(Busy(pid)),
    }
}

/// The points of this stack, newest first, and its identity. Where there is neither, there is nothing to send. That the
/// newest cannot be read is added to `failed`.
fn points(
    app: &App,
    now: SystemTime,
    dry_run: bool,
    failed: &mut Vec<Error>,
) -> Result<(Vec<Point>, Option<Identity>)> {
    let mut points = Vec::new();
    let mut has_newest = false;
    for (path, point) in inventory::latest_first(&app.store, now)? {
        has_newest |= point.as_ref().is_ok_and(|point| point.excluded_from_latest().is_none());
        match point {
            Ok(point) => points.push(point),
            Err(error) => {
                let error = error.context(format!("Not sent: {}", path.display()));
                match std::mem::replace(&mut has_newest, true) {
                    true => JOURNAL.warning(&error),
                    false => failed.push(error),
                }
            }
        }
    }
    let stack = match points.is_empty() || dry_run {
        true => Identity::known(&app.store)?,
        false => Some(Identity::of_project(&app.store)?),
    };
    let all = points.len();
    points.retain(|point| identity::of(point).is_none_or(|of| stack.as_ref() == Some(&of)));
    if points.len() < all {
        JOURNAL.info(format_args!(
            "{} recovery point(s) of another stack are not sent",
            all - points.len()
        ));
    }
    Ok((points, stack))
}

/// Whether the settings let a point leave this host.
fn may_leave(app: &App, point: &Point) -> bool {
    let has_plain = || point.members.iter().any(|member| !member.name.ends_with(ENCRYPTED));
    !app.config.encrypted_only || !has_plain()
}

fn is_marked(point: &Point, remote: &str) -> bool {
    point.offsite().is_some_and(|copy| copy.is_at(remote))
}

/// Refuses a place that holds nothing of what was sent there, as the mount point of a disk that is not mounted.
fn check_there(app: &App, points: &[Point], there: &There, remote: &str) -> Result<()> {
    let mut marked = points.iter().filter(|point| is_marked(point, remote)).peekable();
    ensure!(
        marked.peek().is_none() || marked.any(|point| there.has_any_of(point)),
        hinted(
            format_args!("{remote} holds nothing of the recovery points that were sent there"),
            format_args!(
                "is it a disk that is not mounted, or another place? On a remote of type local, a path without a slash at its \
                 beginning counts from {}. If all was deleted there on purpose, have it sent again: \
                 sed -i '/^# offsite: /d' {}/*{SET_SUFFIX}",
                app.config.project.display(),
                shell_quote(&app.store.sets_dir().to_string_lossy())
            )
        )
    );
    Ok(())
}

/// Which of the points are to be sent, or sent again. Says which ones cannot be, and why; of the newest that is a
/// failure.
fn plan<'a>(
    app: &App,
    points: &'a [Point],
    there: &There,
    now: SystemTime,
    dry_run: bool,
    failed: &mut Vec<Error>,
) -> Result<Vec<&'a Point>> {
    let remote = &app.config.remote();
    let newest = points.iter().find(|point| point.excluded_from_latest().is_none());
    let newest = newest.map(|point| point.stamp);
    let can_be_sent = |point: &Point| may_leave(app, point) && is_here(app, point);
    let outdated = match app.config.offsite_keep_days {
        0 => HashSet::new(),
        // What was sent once was let go there, or is missed.
        _ => there.outdated(points, |point| is_marked(point, remote), can_be_sent, now, &rules(app)),
    };
    let mut plan = Vec::new();
    let (mut plain, mut incomplete) = (0, 0);
    for point in points {
        let marked = is_marked(point, remote);
        let defect = there.defect(point);
        if marked && defect.is_none() {
            continue;
        }
        if outdated.contains(&point.stamp) {
            // As earlier versions left it when they had deleted the copy.
            if marked && !dry_run && there.set_path(point).is_none() {
                manifest::update(&app.store, point.stamp, |point| point.unset(marks::OFFSITE))?;
            }
            continue;
        }
        let here = is_here(app, point);
        if !here && may_leave(app, point) && newest == Some(point.stamp) {
            failed.push(anyhow!(hinted(
                format_args!(
                    "The newest recovery point ({}) lacks a file or holds one that has changed, and is not sent",
                    point.stamp
                ),
                format_args!("n8n-backup verify {} tells more", point.stamp),
            )));
        }
        if let Some(defect) = defect.filter(|_| marked) {
            let what = format!("The copy of recovery point {} is not whole: {defect}", point.stamp);
            if here {
                JOURNAL.warn(format_args!("{what}. It is sent again"));
                if !dry_run {
                    note_defect(app, point, &defect)?;
                }
            } else {
                JOURNAL.warn(format_args!(
                    "{what}. It cannot be sent again, since it is not whole here either"
                ));
                if !dry_run {
                    manifest::update(&app.store, point.stamp, |point| point.unset(marks::OFFSITE))?;
                }
                continue;
            }
        }
        if !may_leave(app, point) {
            ensure!(
                Some(point.stamp) != newest,
                hinted(
                    format_args!(
                        "The newest recovery point ({}) holds unencrypted files and is not sent",
                        point.stamp
                    ),
                    "set BACKUP_GPG_PASSPHRASE or BACKUP_GPG_RECIPIENT in .env, or RCLONE_SYNC_ENCRYPTED_ONLY=false to \
                     send them as they are"
                )
            );
            plain += 1;
        } else if !here {
            incomplete += usize::from(newest != Some(point.stamp));
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

/// Remembers what is wrong with the copy of a point before that is sent again: that may fail, or come to no end.
fn note_defect(app: &App, point: &Point, defect: &str) -> Result<()> {
    manifest::update(&app.store, point.stamp, |point| {
        point.set(marks::OFFSITE_DEFECT, defect)
    })
}

fn names_of(point: &Point) -> Vec<String> {
    point.members.iter().map(|member| member.name.clone()).collect()
}

/// Refuses a point where the copy of another one has its name: two hosts of one identity would each replace the other's.
fn check_ours(app: &App, rclone: &Rclone, point: &Point, there: &There, remote: &str) -> Result<()> {
    let Some(set) = there.own.set(point.stamp).filter(|_| !is_marked(point, remote)) else {
        return Ok(());
    };
    let (place, _) = there.place(rclone, point);
    // Ours was sent before, when it was marked or the remote had another name; its files may be lost there.
    if is_as_sent(app, &place, set, point)? == Some(true) {
        return Ok(());
    }
    match place.check(app.store.root(), &names_of(point), length(app, point)) {
        Err(error) if error.is::<Differs>() => Err(error.context(hinted(
            format_args!("{set} is there, and is that of another recovery point"),
            "give a host that was copied from this one an RCLONE_BUCKET of its own in .env, or remove that point there",
        ))),
        compared => compared.map(drop),
    }
}

/// Sends a point: its files, the proof, and the manifest. Gives the proof, and the length and SHA-256 of the manifest.
fn send(app: &App, rclone: &Rclone, point: &Point, bytes: u64, there: &There) -> Result<(Proof, String)> {
    let stack = there.stack.as_ref().context("this project has no identity")?;
    let names = names_of(point);
    let root = app.store.root();
    let _used = point.hold(&app.store)?;
    // What has rotted here must not take the place of a good copy.
    check_files(app, point)?;
    check_ours(app, rclone, point, there, &app.config.remote())?;
    let own = rclone.within(&stack_dir(stack));
    own.copy(root, &names, Resend::Changed)?;
    let proof = match own.check(root, &names, bytes) {
        // Where rclone can tell by the length alone what has changed, it passes over what has rotted.
        Err(error) if error.is::<Differs>() => {
            own.copy(root, &names, Resend::All)?;
            own.check(root, &names, bytes)?
        }
        compared => compared?,
    };
    Ok((proof, send_manifest(app, &own, there, point)?))
}

/// Sends the manifest of a point. Gives its length and SHA-256.
fn send_manifest(app: &App, own: &Rclone, there: &There, point: &Point) -> Result<String> {
    let mut public = point.clone();
    if let Some(stack) = &there.stack {
        stack.mark(&mut public);
    }
    public.unset(marks::OFFSITE);
    public.unset_all("offsite.");
    let text = match &app.config.encryption {
        Some(encryption) => {
            Gpg::locate(app.config.path.as_ref(), app.config.stall)?.encrypt_text(encryption, &public.text())?
        }
        None => {
            for facts in PRIVATE_FACTS.iter().filter(|_| app.config.encrypted_only) {
                public.unset_all(facts);
            }
            public.text().into_bytes()
        }
    };
    // Not called as an unfinished manifest is, which the next one that is written sweeps away.
    let temporary = Temporary::write(&app.store.sets_dir(), ".offsite.new", &text)?;
    let name = set_name(point.stamp, app.config.encryption.is_some());
    own.copy_one(&temporary.0, &name)?;
    let mut chain = own.chain();
    let stream = own.read(&mut chain, &name)?;
    let back = chain.collect("reading a manifest", stream, manifest::LIMIT as usize);
    ensure!(
        back.get(&chain.finish()?)? == text,
        "the manifest reads back as something else than was sent"
    );
    let sum = sha256(&app.config, &temporary.0)?;
    // Where encryption was switched on or off since, one of another name is there, too.
    let other = set_name(point.stamp, app.config.encryption.is_none());
    if there.own.has(&other) {
        if let Err(error) = own.delete(std::slice::from_ref(&other)) {
            JOURNAL.warning(&error.context(hinted(
                format_args!("An earlier manifest of recovery point {} stays there", point.stamp),
                format_args!("delete {}/{other}: a new host could take that one", own.place()),
            )));
        }
    }
    Ok(format!("{} {sum}", text.len()))
}

/// A file that goes when this is dropped.
pub(super) struct Temporary(pub(super) PathBuf);

impl Temporary {
    pub(super) fn write(dir: &Path, name: &str, text: &[u8]) -> Result<Self> {
        let temporary = Self(dir.join(name));
        // What a dead run, or somebody else, has left there is not written to.
        let _ = fs::remove_file(&temporary.0);
        atomic::create(&temporary.0, text, Access::PRIVATE)?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
