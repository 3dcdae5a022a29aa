//! Restore of the n8n volume. The archive is unpacked beside what the volume holds and read back from there; then the two
//! are exchanged by renaming, after a last backup of what was there.

use std::path::Path;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::helper_image;
use crate::app::App;
use crate::components::dirswap::{self, DirSwap, State};
use crate::components::{Around, N8n, RestorePlan};
use crate::engine::{Data, Docker, Exec, Guard, DATA_MOUNT};
use crate::formats::tar;
use crate::process::{Count, Input};
use crate::report::log::Journal;
use crate::report::units;
use crate::stack::LeftHalfDone;
use crate::store::space::available;
use crate::store::{make_dir, Kind};
use crate::stream::encrypt::Locked;
use crate::stream::read::{check_recorded, observe, read};

/// An archive that has been verified, and the volume that it is for.
pub struct Plan<'a> {
    app: &'a App,
    docker: Docker,
    journal: Journal,
    file: &'a Path,
    archive: tar::Summary,
}

/// Verifies the archive, looks the volume up and compares the room on the disks, unless an interrupted restore has left
/// something in the volume: [`Plan::run`] then compares it. Changes nothing.
///
/// # Errors
/// What is wrong with the file, that there is no volume, that it is in use by containers which would not be stopped, or that
/// a disk has too little room.
pub fn prepare<'a>(app: &'a App, file: &'a Path, journal: Journal) -> Result<Plan<'a>> {
    journal.info("Verifying backup file integrity...");
    let archive = check_recorded(&app.config, &app.store, file)
        .and_then(|()| observe(&app.config, file, tar::Scanner::new().listed())?.finish())
        .map_err(|error| match error.downcast_ref::<Locked>() {
            Some(_) => error,
            None => error.context("Backup file is corrupted or not a tar.gz archive"),
        })?;
    if let Some(name) = archive.unsafe_names.first() {
        bail!("The archive holds names that lead out of the volume ({name}): it is not unpacked");
    }
    journal.info("Backup file integrity verified");
    let docker = app.docker()?;
    let volume = &app.config.n8n_volume;
    ensure!(
        docker.volume_exists(volume)?,
        "Docker volume {volume} does not exist: make it (docker compose up --no-start), or set BACKUP_N8N_VOLUME in .env \
         if yours is called otherwise"
    );
    check_users(app, &docker)?;
    let plan = Plan {
        app,
        docker,
        journal,
        file,
        archive,
    };
    let helper = plan.helper()?;
    // What an interrupted restore has left takes room, which is there again once run has set it right.
    if DirSwap::new(&helper, DATA_MOUNT).state()? == State::None {
        plan.check_room(&helper)?;
    }
    Ok(plan)
}

/// Refuses a restore while containers use the volume that would not be stopped.
fn check_users(app: &App, docker: &Docker) -> Result<()> {
    let volume = &app.config.n8n_volume;
    let ours = |names: &String| {
        names
            .split(',')
            .any(|name| app.config.n8n_containers.iter().any(|n8n| n8n == name))
    };
    let mut others = docker.users(volume)?;
    others.retain(|names| !ours(names));
    ensure!(
        others.is_empty(),
        "Containers that are not known as n8n's use the volume {volume}: {}. Stop them, or add them to BACKUP_N8N_CONTAINERS \
         in .env, so that they are stopped meanwhile (it is: {})",
        others.join(" "),
        app.config.n8n_containers.join(" ")
    );
    Ok(())
}

/// What a member takes on a disk beside its bytes, on average: half a block.
const ROOM_OF_A_MEMBER: u64 = 2 << 10;

/// What a backup of `held` bytes will take, when it packs as well as the archive that packed `bytes` into `packed`.
fn packed_like(held: u64, packed: u64, bytes: u64) -> u64 {
    match u128::from(held) * u128::from(packed) / u128::from(bytes.max(1)) {
        0 => packed.min(held),
        estimate => u64::try_from(estimate).unwrap_or(u64::MAX).min(held),
    }
}

impl Plan<'_> {
    /// A container that shows the volume.
    fn helper(&self) -> Result<Guard> {
        let image = helper_image(self.app, &self.docker, self.journal)?;
        let data = Data::Volume(&self.app.config.n8n_volume);
        dirswap::helper_container(self.app, &self.docker, Kind::N8n, &image, data)
    }

    /// Refuses a restore that would fill the disk of the volume, or with the backup of what is there that of the backups. The
    /// engine's disk need not be one of this host, so it is asked in a container.
    fn check_room(&self, helper: &Guard) -> Result<()> {
        self.check_volume(helper)?;
        let du = self
            .docker
            .exec(helper.id(), Exec::default(), &["du", "-sk", DATA_MOUNT]);
        // Nothing is heard of it before its end, which the stall limit may cut short in a huge volume.
        let output = self.docker.answer("du", du, None).map(|output| output.text());
        let held = output
            .ok()
            .and_then(|output| output.split_whitespace().next()?.parse::<u64>().ok());
        let dir = self.app.store.dir(Kind::N8n);
        make_dir(&dir)?;
        let free = available(&dir, self.app.config.stall);
        let (Some(held), Ok(free)) = (held.and_then(|kb| kb.checked_mul(1024)), free) else {
            self.journal
                .warn("Could not determine the disk space for the backup of the volume that is made first");
            return Ok(());
        };
        let packed = self.file.metadata().map_or(0, |file| file.len());
        let needed = packed_like(held, packed, self.archive.bytes);
        ensure!(
            free >= needed,
            "Insufficient disk space in {}: {} available, about {} required for the backup of the volume as it is, which is made \
             first: make room there",
            dir.display(),
            units::available(free),
            units::amount(needed)
        );
        Ok(())
    }

    /// Refuses an archive that the volume has no room for, beside what it holds.
    fn check_volume(&self, helper: &Guard) -> Result<()> {
        let volume = &self.app.config.n8n_volume;
        let Some(free) = self.docker.free_space(helper.id(), DATA_MOUNT)? else {
            self.journal.warn(format_args!(
                "Could not determine the disk space that is free for the volume {volume}"
            ));
            return Ok(());
        };
        let members = self.archive.members.saturating_mul(ROOM_OF_A_MEMBER);
        let needed = self.archive.bytes.saturating_add(members);
        ensure!(
            free >= needed,
            "Insufficient disk space for the volume {volume} on Docker's disk: {} available, {} required, since the archive is \
             unpacked beside what is there: make room there (docker system df tells what takes it)",
            units::available(free),
            units::amount(needed)
        );
        Ok(())
    }

    /// Makes sure that nothing which may write to the volume runs.
    fn check_alone(&self, around: &dyn Around) -> Result<()> {
        around.check_stopped()?;
        check_users(self.app, &self.docker)
    }

    /// Puts back what was there before, once nothing goes on any more in the helper in which a step has failed.
    fn put_back(&self, failed: Guard) -> Result<()> {
        drop(failed);
        let helper = self.helper()?;
        DirSwap::new(&helper, DATA_MOUNT).roll_back()
    }

    /// Sets right what a killed restore has left. Whether there was something.
    fn recover(&self, exchange: &DirSwap<'_>) -> Result<bool> {
        match exchange.state()? {
            State::None => return Ok(false),
            State::Staged => exchange.roll_back()?,
            // Else n8n would be started on half of its data.
            State::Broken => exchange
                .roll_back()
                .map_err(|error| error.context(LeftHalfDone::rollback_failed()))?,
            State::Exchanged => exchange.finish(&[])?,
        }
        self.journal
            .warn("An interrupted restore of the volume had left its traces; they are set right");
        Ok(true)
    }

    /// Unpacks the archive and reads back what came of it.
    fn stage(&self, helper: &Guard, dir: &str) -> Result<()> {
        self.journal.info("Unpacking the archive beside the data...");
        let mut chain = self.app.chain();
        let contents = read(&self.app.config, &mut chain, self.file)?;
        let (stdin, stdout) = chain.stream("docker cp", helper.unpack(dir), Input::Piped)?;
        let stdin = stdin.context("docker cp has no input")?;
        chain.pump("unpacking", contents, stdin, Count::default());
        chain.collect("reading from docker cp", stdout, 64 << 10);
        chain.finish()?;

        self.journal.info("Verifying restore...");
        let mut chain = self.app.chain();
        let (_, stream) = chain.stream("docker cp", helper.pack(dir), Input::Null)?;
        let seen = chain.pump("reading back", stream, std::io::sink(), tar::Scanner::new().listed());
        let seen = seen.get(&chain.finish()?)?;
        let there = seen.finish().context("what was unpacked cannot be read back")?;
        // The directory itself is a member of what is read back, and not always of the archive.
        let members = |summary: &tar::Summary| summary.members - u64::from(summary.root.is_some());
        let counts = |summary: &tar::Summary| (members(summary), summary.files, summary.bytes);
        let (wanted, found) = (counts(&self.archive), counts(&there));
        if wanted != found {
            return Err(anyhow!(
                "the archive holds {} members, {} files and {} bytes, and the volume now {}, {} and {}",
                wanted.0,
                wanted.1,
                wanted.2,
                found.0,
                found.1,
                found.2
            ));
        }
        if let (Some(wanted), Some(found)) = (self.archive.listing, there.listing) {
            ensure!(
                wanted == found,
                "names, owners, modes, times or contents of what was unpacked are not those of the archive"
            );
        }
        self.journal
            .info(format_args!("Found {} files in the restored volume", there.files));
        Ok(())
    }
}

impl RestorePlan for Plan<'_> {
    fn warnings(&self) -> Vec<String> {
        vec![format!(
            "This will replace the contents of the volume {}, and stop n8n meanwhile",
            self.app.config.n8n_volume
        )]
    }

    fn n8n(&self) -> N8n {
        N8n::Stops
    }

    /// Unpacks the archive beside what is there and exchanges the two, with a backup of what was there right before.
    fn run(&self, around: &dyn Around) -> Result<()> {
        let helper = self.helper()?;
        let exchange = DirSwap::new(&helper, DATA_MOUNT);
        {
            let _lock = self.app.hold(Kind::N8n, self.journal)?;
            if self.recover(&exchange)? {
                self.check_room(&helper)?;
            }
        }
        // A backup like any other, which takes the lock itself.
        around
            .keep()
            .context("The volume was not touched, because what is in it could not be backed up first")?;
        // That backup may have taken it, where it lies on the same disk.
        self.check_volume(&helper)?;
        let _lock = self.app.hold(Kind::N8n, self.journal)?;
        let staged = exchange
            .begin(&[])
            .and_then(|_| self.stage(&helper, &exchange.new_dir()));
        if let Err(error) = staged {
            // What cannot be removed now is removed by the next restore.
            let _ = self.put_back(helper);
            return Err(error.context("n8n data restore failed"));
        }
        if let Err(error) = self.check_alone(around) {
            let _ = self.put_back(helper);
            return Err(error.context("n8n data restore failed"));
        }
        self.journal.info("Exchanging the contents of the volume...");
        // Once more before what was there is deleted: what somebody has written meanwhile is in it.
        if let Err(error) = exchange.exchange().and_then(|()| self.check_alone(around)) {
            self.journal.warn("Putting back what was there before");
            return Err(match self.put_back(helper) {
                Ok(()) => error.context("n8n data restore failed"),
                Err(worse) => error
                    .context(format!("{worse:#}"))
                    .context(LeftHalfDone::rollback_failed()),
            });
        }
        let root: Vec<String> = self.archive.root.iter().flat_map(properties).collect();
        let root: Vec<&str> = root.iter().map(String::as_str).collect();
        exchange
            .finish(&root)
            .context("The data are restored, and what was there before could not be removed from the volume")
    }
}

/// The properties of a directory as [`Exchange::finish`] takes them.
fn properties(root: &tar::Properties) -> [String; 4] {
    [
        root.uid.to_string(),
        root.gid.to_string(),
        format!("{:o}", root.mode),
        root.mtime.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backup_before_a_restore_is_taken_to_pack_as_the_archive_does() {
        assert_eq!(packed_like(100 << 20, 10 << 20, 40 << 20), 25 << 20);
        // Small ones do not pack to nothing, nor does anything grow.
        assert_eq!(packed_like(1, 200, 100_000), 1);
        assert_eq!(packed_like(1000, 200, 0), 1000);
        assert_eq!(packed_like(u64::MAX, u64::MAX, 1), u64::MAX);
    }
}
