//! n8n's data: a tar archive of its home and of what it mounts besides, read in a helper container.

mod clear;
mod drill;
mod helper;
mod layout;
mod packer;
mod probe;
mod restore;

use std::mem;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{anyhow, bail, ensure, Context as _, Result};

pub use self::drill::unpack_home;
pub use self::helper::check_mounted;
pub use self::layout::holds_database;
use self::layout::{data_layout, Layout, HOME};
use self::packer::{Packer, Packing, Reading, Said, What};
pub use self::restore::recover;
use super::dirswap::begun;
use super::drill::{DrillEnv, Drilled};
use super::run::{instant, Snapshot};
use super::{check_plain, About, Backup, BackupRun, Component, RestoreOptions, RestorePlan};
use super::{ALLOW_PLAIN, YES};
use crate::app::App;
use crate::cli::Row;
use crate::components::{credentials, n8n_image};
use crate::config::Secret;
use crate::engine::{Container, ContainerSpec, Data, Docker, Guard, Label, DATA_MOUNT};
use crate::formats::tar;
use crate::process::{hinted, Chain, Failed};
use crate::report::finding::Report;
use crate::report::log::{self, Journal};
use crate::store::manifest::Point;
use crate::store::{inventory, marks, Kind, Partial};
use crate::stream::publish::{publish, Packed};
use crate::stream::read::observe;

const JOURNAL: Journal = Journal::new("backup-n8n");
/// A failure of the archive, as messages call it.
const FAILED: &str = "tar backup failed";

/// How often the data are read while something changes in them.
const ATTEMPTS: u32 = 3;
/// What took longer is not read again: something will have changed again.
const WORTH_ANOTHER: Duration = Duration::from_secs(120);

/// n8n's `config` is a small JSON file.
const MAX_CONFIG: usize = 64 << 10;

/// n8n's user folder at the time of a point, where what is mounted lies above n8n's directory in it.
pub fn user_folder(point: &Point) -> Option<String> {
    let home = format!("{}/{}", point.fact(AT_FACT)?, point.fact(HOME_FACT)?);
    home.strip_suffix(HOME).map(str::to_owned)
}

/// The fact of a recovery point that tells where n8n mounted what the archive holds.
pub const AT_FACT: &str = "n8n.at";
/// n8n's directory within the archive, where what is mounted lies above it.
const HOME_FACT: &str = "n8n.home";

const ABOUT: About = About {
    title: "n8n volume",
    restored: ["n8n data", "n8n data"],
    backup: Some(Row {
        name: "backup-n8n",
        summary: "archive the n8n volume to backups/n8n/n8n_data_YYYYMMDD_HHMMSS.tar.gz",
        in_background: true,
        ..Row::ACTS
    }),
    step: "backup-n8n.sh",
    restore: Row {
        name: "restore-n8n",
        summary: "replace the contents of the n8n volume by a .tar.gz file",
        details: "The file is verified, unpacked beside the data and read back first. n8n is stopped meanwhile, and what was there\n\
                  is backed up. The volume needs room for both.",
        operand: Some("FILE"),
        flags: &[YES, ALLOW_PLAIN],
        ..Row::ACTS
    },
    drill: Some("unpack the archive and compare its members"),
    kept: "the n8n volume is archived first",
    key_place: Some("the volume (config)"),
};

/// n8n's data volume.
pub struct N8nData;

impl Component for N8nData {
    fn kind(&self) -> Kind {
        Kind::N8n
    }

    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn backup(&self, app: &App, run: &BackupRun) -> Result<Backup> {
        backup(app, run)
    }

    fn verify(&self, app: &App, file: &Path) -> Result<()> {
        observe(&app.config, file, tar::Scanner::new())?.finish().map(drop)
    }

    fn plan_restore<'a>(
        &self,
        app: &'a App,
        file: &'a Path,
        options: RestoreOptions,
    ) -> Result<Box<dyn RestorePlan + 'a>> {
        let journal = ABOUT.restore_journal();
        Ok(Box::new(restore::prepare(app, file, options, journal)?))
    }

    fn drill<'a>(&self, env: &'a DrillEnv<'a>, file: &Path) -> Result<Drilled<'a>> {
        drill::drill(env, file)
    }

    fn key(&self, env: &DrillEnv<'_>, file: &Path) -> Result<Option<Secret>> {
        drill::key(env, file)
    }

    fn probe(&self, app: &App, docker: Option<&Docker>, report: &mut Report) {
        if let Some(docker) = docker {
            probe::probe(app, docker, report);
        }
    }
}

/// Archives the data.
///
/// # Errors
/// When there are none, no local image serves for the helper, something cannot be read, or the archive is not whole.
fn backup(app: &App, run: &BackupRun) -> Result<Backup> {
    JOURNAL.info("Starting n8n data backup");
    log::check_started()?;
    check_plain(app, Kind::N8n)?;
    let docker = app.docker()?;
    let containers = app.n8n_containers(&docker)?;
    let layout = data_layout(app, &docker, &containers)?;
    helper::check_home(&docker, &layout)?;
    let _lock = app.hold(Kind::N8n, JOURNAL)?;
    let owner = app.owner();
    let left = docker.sweep(Label::Helper(&owner))?;
    if left > 0 {
        JOURNAL.warn(format_args!(
            "Removed {left} helper container(s) that an interrupted run left"
        ));
    }
    about_home(&layout, &containers);
    for text in &layout.separate {
        JOURNAL.warn(format_args!(
            "Not backed up with n8n's data: {text} (BACKUP_EXCLUDE_MOUNTS ends this warning: name the path in the container)"
        ));
    }
    for text in &layout.ours {
        JOURNAL.warn(format_args!(
            "Not backed up with n8n's data: {text}; your own files in there are with the deployment, unless a warning says that \
             they are too many (BACKUP_EXCLUDE_MOUNTS ends both)"
        ));
    }
    let path = app.store.path(Kind::N8n, run.stamp);
    JOURNAL.info(format_args!("Creating archive {}", path.display()));
    // Each question takes the engine some time; none waits for another's answer.
    let (backup, images) = thread::scope(|scope| {
        let images = scope.spawn(|| n8n_image::facts(app, &docker, &containers));
        let reader = Reader {
            app,
            docker: &docker,
            layout: &layout,
            owner: &owner,
            tried_alone: false,
            guard: None,
        };
        let is_alone = scope.spawn(|| layout::check_volume(app, &docker, &layout));
        let check = || {
            is_alone
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the home was not looked at")))
        };
        let backup = archived(reader, run, check).map_err(packer::explained).context(FAILED);
        (backup, images.join().unwrap_or_default())
    });
    let mut backup = backup?;
    backup.facts.extend(images);
    if !layout.home.at.is_empty() {
        backup.facts.push((AT_FACT.to_owned(), layout.home.at.clone()));
    }
    let below = layout.home_below(&app.config.found.home);
    backup
        .facts
        .extend(below.map(|path| (HOME_FACT.to_owned(), path.to_owned())));
    backup.report(JOURNAL, "Backup completed");
    Ok(backup)
}

/// Warns when n8n keeps its data elsewhere, so that the archive holds none of them; a volume that n8n has left may all the
/// same be what is wanted.
fn about_home(layout: &Layout, containers: &[Container]) {
    if !layout.home.at.is_empty() {
        return;
    }
    let home = &layout.home.source;
    for container in containers {
        let data = container.mounts.iter().find(|mount| mount.destination.ends_with(HOME));
        let Some(data) = data else { continue };
        let place = match data.name.as_str() {
            "" => &data.directory,
            name => name,
        };
        JOURNAL.warn(format_args!(
            "{} keeps its data in {place}, not in the volume {home} that is backed up: n8n-backup doctor says what to do",
            container.name
        ));
    }
}

/// The archive is to be begun again: what was read has changed meanwhile.
#[derive(Debug)]
struct Changed(String);

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Changed {}

/// Reads the data. The first time in a container that goes with the packer; where that cannot be, or more is to be read, in one that
/// stays.
struct Reader<'a> {
    app: &'a App,
    docker: &'a Docker,
    layout: &'a Layout,
    owner: &'a str,
    tried_alone: bool,
    guard: Option<Guard>,
}

impl Reader<'_> {
    /// Begins to read once the snapshot is taken. Gives also when that was.
    fn begin(&mut self, chain: &mut Chain, what: What<'_>, snapshot: &Snapshot) -> Result<(String, Reading)> {
        let others = self.layout.stored();
        let packing = Packing {
            what,
            dir: DATA_MOUNT,
            others: &others,
            home: &self.layout.home_part(),
        };
        if !self.tried_alone {
            self.tried_alone = true;
            let mounts = self.layout.reading();
            let labels = [Label::Helper(self.owner)];
            let image = helper::likely_image(self.app, self.docker, JOURNAL)?;
            let spec = ContainerSpec::new(&labels, &image, Data::Mounts(&mounts));
            let waits = snapshot.clone();
            // A dump may wait for a lock for as long as it is let.
            chain.pulse(move || !waits.is_open());
            let mut at = None;
            let ready = || {
                snapshot.wait();
                at = Some(instant());
            };
            if let (Some(reading), Some(at)) = (packer::pack_alone(self.docker, chain, spec, packing, ready)?, at) {
                return Ok((at, reading));
            }
            let failed = mem::replace(chain, self.app.chain()).finish();
            let error = failed.map_or_else(|error| error, |_| anyhow!("tar did not come to its end"));
            if !is_refusal(&error) {
                return Err(error);
            }
        }
        let packer = self.packer()?;
        snapshot.wait();
        let at = instant();
        Ok((at, packer.pack(chain, packing)?))
    }

    /// The packer in a container that stays.
    fn packer(&mut self) -> Result<Packer<'_>> {
        let guard = match self.guard.take() {
            Some(guard) => guard,
            None => {
                let labels = [Label::Helper(self.owner)];
                helper::start_wanted(self.app, self.docker, JOURNAL, &labels, &self.layout.reading())?
            }
        };
        Ok(Packer {
            app: self.app,
            docker: self.docker,
            container: self.guard.insert(guard).id(),
        })
    }
}

/// Whether docker says by its exit code that it could not make the container, or run the program in it.
fn is_refusal(error: &anyhow::Error) -> bool {
    let failed = error.downcast_ref::<Failed>();
    let code = failed.and_then(|failed| failed.status?.code());
    matches!(code, Some(125..=127))
}

/// Reads everything, and again where it has changed meanwhile. What changes each time is in the archive as it was read.
/// `check` is asked before the archive is published.
fn archived(mut reader: Reader<'_>, run: &BackupRun, check: impl FnOnce() -> Result<()>) -> Result<Backup> {
    let mut attempt = 1;
    let read = loop {
        let begun = Instant::now();
        let last = attempt == ATTEMPTS;
        let error = match read(&mut reader, run, last) {
            Ok(read) if read.said.changed.0 == 0 || last || begun.elapsed() > WORTH_ANOTHER => break read,
            Ok(read) => Changed(read.said.changed.1.join("; ")).into(),
            Err(error) if !last && error.downcast_ref::<Changed>().is_some() => error,
            Err(error) => return Err(error),
        };
        attempt += 1;
        JOURNAL.warning(&error.context("The volume changed while it was read, trying again"));
    };
    check()?;
    if read.said.staged {
        clear::clear(&reader, JOURNAL)?;
    }
    read.finish(reader)
}

/// A volume that was read.
struct Read {
    partial: Partial,
    bytes: u64,
    sha256: String,
    summary: tar::Summary,
    said: Said,
    at: String,
}

fn read(reader: &mut Reader<'_>, run: &BackupRun, last: bool) -> Result<Read> {
    let (app, layout) = (reader.app, reader.layout);
    let mut chain = app.chain();
    let others = layout.stored();
    let database = app.config.found.sqlite.as_ref();
    let database = database.and_then(|file| {
        let within = layout.database(&file.path);
        within.or_else(|| layout.database_around(&file.path))
    });
    let mut left_out = database
        .map(|(directory, name)| directory.left_out(&name))
        .unwrap_or_default();
    let homes_around: Vec<String> = layout
        .around
        .iter()
        .map(|holder| format!("./{}", holder.home))
        .collect();
    left_out.contents.clone_from(&homes_around);
    let (at, reading) = reader.begin(&mut chain, What::Data(&left_out), &run.snapshot)?;
    let below = layout.home_below(&app.config.found.home);
    let parts = layout.directories().into_iter().map(|directory| directory.part);
    let parts: Vec<tar::Part> = parts.collect();
    let mut scanner = with_key(tar::Scanner::new(), below).expecting(reading.names);
    for dir in parts.iter().map(|part| &part.below).chain([&left_out.dir]) {
        scanner = scanner.notice(&begun(dir));
    }
    let scanner = scanner.apart(parts).without(left_out.files.iter().chain(&homes_around));
    // Several archives become one.
    let stream = tar::Select::new(reading.stream, tar::Part::default());
    let packed = Packed::start(&app.target(Kind::N8n, run.stamp), &mut chain, stream, scanner, JOURNAL)?;
    let finished = chain.finish()?;
    drop(reading.leash);
    let (partial, bytes, scanner, sha256) = packed.get(&finished)?;
    let said = packer::said(&finished)?;
    let summary = scanner
        .finish()
        .map_err(|error| error.context(Changed("the archive is not whole".to_owned())))?;
    // Between what a killed restore has moved away and what stayed, it goes with the rest of that.
    if let Some((name, target)) = summary.dangling.as_ref().filter(|_| !summary.noticed) {
        let error = anyhow::Error::new(hinted(
            format_args!("{name} is a hard link to a file that the archive lacks ({target}), and cannot be unpacked"),
            "remove that link, or set BACKUP_HELPER_IMAGE in .env to an image with GNU's tar (debian:stable-slim)",
        ));
        // It may be one with a file that was removed meanwhile.
        return Err(match said.changed.0 {
            0 => error,
            _ => error.context(Changed("a hard link leads to what is not there".to_owned())),
        });
    }
    if let Some(name) = summary.crossing.as_ref().filter(|_| !summary.noticed) {
        bail!(hinted(
            format_args!(
                "{name} and a file in another mount are one (hard links), and this tar cannot pack them apart"
            ),
            "set BACKUP_HELPER_IMAGE in .env to an image whose tar has --exclude, such as alpine:latest, and pull it"
        ));
    }
    if !summary.missing.is_empty() {
        let still = reader.packer()?.still_there(DATA_MOUNT, &others, &summary.missing)?;
        if !still.is_empty() {
            let text = format!(
                "{} of what the volume holds are missing from the archive: {}",
                still.len(),
                still.iter().take(3).cloned().collect::<Vec<_>>().join(", ")
            );
            ensure!(!last, text);
            return Err(Changed(text).into());
        }
    }
    // What is half restored may lack anything.
    if !run.before_restore && !summary.noticed {
        ensure!(
            reading.holds_data,
            hinted(
                format_args!("{} is empty: there is nothing of n8n's to back up", layout.home.source),
                "start n8n, which fills it, or set BACKUP_N8N_VOLUME in .env to the volume that n8n mounts"
            )
        );
        if !has_key(&summary) {
            check_no_key_lost(app, layout)?;
        }
    }
    Ok(Read {
        partial,
        bytes,
        sha256,
        summary,
        said,
        at,
    })
}

impl Read {
    fn finish(self, reader: Reader<'_>) -> Result<Backup> {
        let (partial, bytes) = (self.partial, self.bytes);
        let entry = thread::scope(|scope| {
            // The engine takes as long to remove it as the disk to take the file.
            scope.spawn(move || drop(reader.guard));
            publish(&reader.app.config, partial, bytes)
        })?;
        let mut facts = facts(&self.summary);
        facts.push(("n8n.read".to_owned(), self.at));
        let (changed, sockets) = (&self.said.changed, &self.said.sockets);
        if changed.0 > 0 {
            JOURNAL.warn(format_args!(
                "{} file(s) changed while they were read, and are in the archive as they were then: {}",
                changed.0,
                changed.1.join("; ")
            ));
        }
        if sockets.0 > 0 {
            JOURNAL.warn(format_args!(
                "{} socket(s) are not in the archive, since nothing can hold one: {}",
                sockets.0,
                sockets.1.join("; ")
            ));
        }
        if self.summary.noticed {
            JOURNAL.warn(
                "The volume is in the middle of a restore that was interrupted: this backup holds what is half restored, and is \
                 not taken for the latest. Run the same restore again, then the backup",
            );
            facts.push((
                marks::EXCLUDED.to_owned(),
                "made while a restore of the volume was interrupted".to_owned(),
            ));
        }
        Ok(Backup::of(Kind::N8n, entry, self.sha256, facts))
    }
}

/// Refuses a volume without n8n's key where the last recovery point has one from there: it is another volume by now, or a
/// damaged one.
fn check_no_key_lost(app: &App, layout: &Layout) -> Result<()> {
    let points = inventory::latest_first(&app.store, SystemTime::now())?;
    let last = points
        .into_iter()
        .filter_map(|(_, point)| point.ok())
        .find(|point| point.fact(KEY_FACT).is_some() && point.excluded_from_latest().is_none());
    match last {
        Some(point) if point.fact(KEY_FACT) == Some(KEY_IS_THERE) => Err(anyhow::Error::new(hinted(
            format_args!(
                "{} holds no encryption key of n8n any more (config); recovery point {} has it",
                layout.home.source, point.stamp
            ),
            "restore that, or set BACKUP_N8N_VOLUME in .env to the volume that n8n mounts; n8n writes the file when it starts",
        ))),
        _ => Ok(()),
    }
}

/// Has a scanner look for the file that may hold n8n's key: in the directory `below` what is mounted, where that is known.
/// Else the home may be mounted above n8n's directory. What another user folder has left in n8n's directory is called as
/// that would be, and yields to n8n's own.
fn with_key(scanner: tar::Scanner, below: Option<&str>) -> tar::Scanner {
    if let Some(path) = below {
        return scanner.capture(&format!("./{path}/config"), MAX_CONFIG);
    }
    scanner
        .capture("./config", MAX_CONFIG)
        .or_capture(&format!("./{}/config", HOME.trim_start_matches('/')))
}

const KEY_FACT: &str = "n8n.key";
const KEY_IS_THERE: &str = "in the volume";

/// Whether the home holds n8n's key.
fn has_key(summary: &tar::Summary) -> bool {
    summary
        .captured
        .as_deref()
        .is_some_and(|config| matches!(credentials::key_of_config(config), Ok(Some(_))))
}

/// What a recovery point's manifest says of an archive; among it, whether the volume itself holds n8n's key: without it,
/// or that of `.env`, the stored credentials are lost.
fn facts(summary: &tar::Summary) -> Vec<(String, String)> {
    let key = match has_key(summary) {
        true => KEY_IS_THERE,
        false => "none in the volume",
    };
    vec![
        (KEY_FACT.to_owned(), key.to_owned()),
        ("n8n.members".to_owned(), summary.members.to_string()),
        ("n8n.files".to_owned(), summary.files.to_string()),
        ("n8n.bytes".to_owned(), summary.bytes.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stamp;

    #[test]
    fn the_user_folder_is_what_holds_n8ns_directory() {
        let folder = |at: &str, home: &str| {
            let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
            point.set(AT_FACT, at);
            point.set(HOME_FACT, home);
            user_folder(&point)
        };
        assert_eq!(folder("/root", ".n8n").as_deref(), Some("/root"));
        assert_eq!(folder("/data", "deep/.n8n").as_deref(), Some("/data/deep"));
        assert_eq!(user_folder(&Point::new(Stamp::parse("20260101_000000").unwrap())), None);
    }
}
