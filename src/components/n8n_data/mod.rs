//! The n8n data volume: a tar archive of it, read through a helper container that never runs.

mod drill;
mod probe;
mod restore;

use std::path::Path;
use std::thread;

use anyhow::{anyhow, Context as _, Result};

use super::dirswap::BEGUN;
use super::drill::{DrillEnv, Drilled};
use super::YES;
use super::{check_plain, About, Backup, Component, RestoreOptions, RestorePlan};
use crate::app::App;
use crate::cli::Row;
use crate::components::credentials;
use crate::config::Secret;
use crate::engine::{Docker, Label};
use crate::formats::tar;
use crate::process::Input;
use crate::report::finding::Report;
use crate::report::log::{self, Journal};
use crate::store::marks;
use crate::store::{Kind, Stamp};
use crate::stream::publish::{publish, Packed};
use crate::stream::read::observe;

const JOURNAL: Journal = Journal::new("backup-n8n");

/// How often the archive is begun anew when a file vanished at the moment it was read.
const ATTEMPTS: u32 = 3;

/// Where n8n keeps its data, below the home directory of its user.
const HOME: &str = "/.n8n";

/// n8n's `config` is a small JSON file.
const MAX_CONFIG: usize = 64 << 10;

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
        flags: &[YES],
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

    fn backup(&self, app: &App, stamp: Stamp) -> Result<Backup> {
        backup(app, stamp)
    }

    fn verify(&self, app: &App, file: &Path) -> Result<()> {
        observe(&app.config, file, tar::Scanner::new())?.finish().map(drop)
    }

    fn plan_restore<'a>(
        &self,
        app: &'a App,
        file: &'a Path,
        _options: RestoreOptions,
    ) -> Result<Box<dyn RestorePlan + 'a>> {
        Ok(Box::new(restore::prepare(app, file, ABOUT.restore_journal())?))
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

/// Archives the volume.
///
/// # Errors
/// When it does not exist, no local image serves for the helper, or the archive is not whole.
fn backup(app: &App, stamp: Stamp) -> Result<Backup> {
    JOURNAL.info("Starting n8n data backup");
    log::check_started()?;
    check_plain(app, Kind::N8n)?;
    let docker = app.docker()?;
    let volume = &app.config.n8n_volume;
    if !docker.volume_exists(volume)? {
        let hint = anyhow!(
            "set BACKUP_N8N_VOLUME in .env to the one that n8n mounts (docker volume ls shows them); n8n-backup doctor says what \
             to do where n8n keeps its data in a directory"
        );
        return Err(hint.context(format!("Docker volume {volume} does not exist")));
    }
    let _lock = app.hold(Kind::N8n, JOURNAL)?;
    let owner = app.owner();
    // Each question takes the engine some time; none waits for another's answer.
    let (left, image, versions, is_podman) = thread::scope(|scope| {
        let left = scope.spawn(|| docker.sweep(Label::Helper(&owner)));
        let versions = scope.spawn(|| about_n8n(app, &docker));
        let is_podman = scope.spawn(|| docker.is_podman());
        let image = helper_image(app, &docker, JOURNAL);
        (left.join(), image, versions.join(), is_podman.join())
    });
    let left = left.map_err(|_| anyhow!("a thread panicked"))??;
    if left > 0 {
        JOURNAL.warn(format_args!(
            "Removed {left} helper container(s) that an interrupted run left"
        ));
    }
    let image = image?;
    let is_podman = is_podman.map_err(|_| anyhow!("a thread panicked"))??;
    let path = app.store.path(Kind::N8n, stamp);
    JOURNAL.info(format_args!("Creating archive {}", path.display()));
    let mut attempt = 1;
    let mut backup = loop {
        match archive(app, &docker, &owner, &image, is_podman, stamp) {
            Ok(backup) => break backup,
            // The engine goes on past a file that vanishes while it is read, and spoils the archive.
            Err(error) if attempt < ATTEMPTS && error.downcast_ref::<Spoilt>().is_some() => {
                attempt += 1;
                JOURNAL.warning(&error.context("The volume changed while it was read, trying again"));
            }
            Err(error) => return Err(error.context("tar backup failed")),
        }
    };
    backup.facts.extend(versions.unwrap_or_default());
    backup.report(JOURNAL, "Backup completed");
    Ok(backup)
}

/// The images that n8n's containers were made from. What the engine does not tell is left out.
///
/// Warns when n8n keeps its data elsewhere, so that the archive holds none of them; a volume that n8n has left may all the
/// same be what is wanted.
fn about_n8n(app: &App, docker: &Docker) -> Vec<(String, String)> {
    let volume = &app.config.n8n_volume;
    let mut facts = Vec::new();
    for container in app.n8n_containers(docker).unwrap_or_default() {
        let name = &container.name;
        let image = format!("{} {}", container.image, container.image_id);
        facts.push((format!("n8n.image.{name}"), image));
        let digest = docker.describe_image(&container.image_id).ok().flatten();
        facts.extend(digest.and_then(|image| Some((format!("n8n.digest.{name}"), image.digest?))));
        if !container.version.is_empty() {
            facts.push((format!("n8n.version.{name}"), container.version));
        }
        let data = container.mounts.iter().find(|mount| mount.destination.ends_with(HOME));
        let Some(data) = data.filter(|data| data.name != *volume) else {
            continue;
        };
        let place = match data.name.as_str() {
            // A volume may stand for a directory.
            "" if docker
                .volume_directory(volume)
                .is_ok_and(|there| there == data.directory) =>
            {
                continue
            }
            "" => &data.directory,
            name => name,
        };
        JOURNAL.warn(format_args!(
            "{name} keeps its data in {place}, not in the volume {volume} that is backed up: n8n-backup doctor says what to do"
        ));
    }
    facts
}

/// The stream came to an end that is none.
#[derive(Debug)]
struct Spoilt;

impl std::fmt::Display for Spoilt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the archive is not whole")
    }
}

fn archive(app: &App, docker: &Docker, owner: &str, image: &str, is_podman: bool, stamp: Stamp) -> Result<Backup> {
    let volume = &app.config.n8n_volume;
    let helper = match is_podman {
        true => docker.volume_export(volume),
        false => docker.volume_reader(Label::Helper(owner), image, volume)?,
    };
    let mut chain = app.chain();
    let (_, stream) = match helper.opens_its_output() {
        true => chain.spawn("podman volume export", helper.archive(), Input::Null)?,
        false => chain.stream("docker cp", helper.archive(), Input::Null)?,
    };
    let scanner = tar::Scanner::new().capture("./config", MAX_CONFIG).notice(BEGUN);
    let packed = Packed::start(&app.target(Kind::N8n, stamp), &mut chain, stream, scanner, JOURNAL)?;
    let (partial, bytes, scanner, sha256) = packed.get(&chain.finish()?)?;
    let summary = scanner.finish().context(Spoilt)?;
    let entry = thread::scope(|scope| {
        // The engine takes as long to remove it as the disk to take the file.
        scope.spawn(move || drop(helper));
        publish(&app.config, partial, bytes)
    })?;
    let mut facts = facts(&summary);
    if summary.noticed {
        JOURNAL.warn(
            "The volume is in the middle of a restore that was interrupted: this backup holds what is half restored, and is \
             not taken for the latest. Run the same restore again, then the backup",
        );
        facts.push((
            marks::EXCLUDED.to_owned(),
            "made while a restore of the volume was interrupted".to_owned(),
        ));
    }
    Ok(Backup::of(Kind::N8n, entry, sha256, facts))
}

/// What a recovery point's manifest says of an archive; among it, whether the volume itself holds n8n's key: without it,
/// or that of `.env`, the stored credentials are lost.
fn facts(summary: &tar::Summary) -> Vec<(String, String)> {
    let key = summary
        .captured
        .as_deref()
        .is_some_and(|config| matches!(credentials::key_of_config(config), Ok(Some(_))));
    vec![
        (
            "n8n.key".to_owned(),
            if key { "in the volume" } else { "none in the volume" }.to_owned(),
        ),
        ("n8n.members".to_owned(), summary.members.to_string()),
        ("n8n.files".to_owned(), summary.files.to_string()),
        ("n8n.bytes".to_owned(), summary.bytes.to_string()),
    ]
}

/// The image of the helper: the one of the settings when it is on this host, else one that the stack runs.
fn helper_image(app: &App, docker: &Docker, journal: Journal) -> Result<String> {
    let config = &app.config;
    let wanted = &config.helper_image;
    if docker.image(wanted)?.is_some() {
        return Ok(wanted.clone());
    }
    let mut stack = app.n8n_containers(docker)?;
    if stack.is_empty() {
        stack = docker.containers(&[&config.postgres_container, &config.redis_container])?;
    }
    let container = stack.first().with_context(|| {
        format!("No local image for the helper container: pull {wanted}, or set BACKUP_HELPER_IMAGE in .env")
    })?;
    journal.info(format_args!(
        "Image {wanted} is not on this host, using that of {}",
        container.name
    ));
    Ok(container.image_id.clone())
}
