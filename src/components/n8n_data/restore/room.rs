//! The room that a restore of n8n's data needs, disk by disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{ensure, Result};

use super::{is_missing, Plan};
use crate::engine::{Exec, Guard, Source};
use crate::report::units;
use crate::store::space::available;
use crate::store::{make_dir, Kind};

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
    /// Refuses a restore that would fill the disk of the volume, or with the backup of what is there that of the backups.
    /// The engine's disk need not be one of this host, so it is asked in a container.
    pub(super) fn check_room(&self, helper: &Guard) -> Result<()> {
        let disks = self.check_volume(helper)?;
        let targets = self.parts.iter().map(|(directory, _)| directory.target.clone());
        let directories = self.parts.iter().map(|(directory, _)| directory);
        let database = self.app.config.found.sqlite.as_ref().map(|file| &*file.path);
        let left_out = self.layout.left_out_of(directories, database);
        let all = self.kilobytes(helper, &targets.collect::<Vec<_>>());
        let held = all.zip(self.kilobytes(helper, &left_out));
        let held = held.map(|(all, left_out)| all.saturating_sub(left_out));
        let dir = self.app.store.dir(Kind::N8n);
        make_dir(&dir)?;
        let free = available(&dir, self.app.config.stall);
        let (Some(held), Ok(free)) = (held.and_then(|kb| kb.checked_mul(1024)), free) else {
            self.journal
                .warn("Could not determine the disk space for the backup of the volume that is made first");
            return Ok(());
        };
        let packed = self.file.metadata().map_or(0, |file| file.len());
        let bytes = self.parts.iter().map(|(_, archive)| archive.bytes).sum();
        let device = dir.metadata().map_or(0, |dir| dir.dev());
        let shared = disks
            .iter()
            .find(|disk| disk.is(device, free))
            .map_or(0, |disk| disk.needed);
        let needed = packed_like(held, packed, bytes).saturating_add(shared);
        ensure!(
            free >= needed,
            "Insufficient disk space in {}: {} available, about {} required for the backup of the volume as it is, which is made \
             first{}: make room there",
            dir.display(),
            units::available(free),
            units::amount(needed),
            if shared > 0 {
                ", and for the archive, which is unpacked on the same disk"
            } else {
                ""
            }
        );
        Ok(())
    }

    /// Refuses an archive that a disk has no room for, beside what it holds. Gives the disks.
    pub(super) fn check_volume(&self, helper: &Guard) -> Result<Vec<Disk>> {
        let targets = self.parts.iter().map(|(directory, _)| directory.target.as_str());
        let stat = "for dir; do stat -c %d -- \"$dir\" 2>/dev/null || echo; done";
        let argv: Vec<&str> = ["sh", "-c", stat, "sh"].into_iter().chain(targets).collect();
        let devices = self
            .docker
            .answer("stat", self.docker.exec(helper.id(), Exec::default(), &argv), None)?;
        let devices = devices.text();
        let mut devices = devices.lines().map(|device| device.parse().ok());
        let mut needs = Vec::new();
        for (directory, archive) in &self.parts {
            let volume = directory.place.source.to_string();
            let mut device = devices.next().flatten();
            let mut free = self.docker.free_space(helper.id(), &directory.target)?;
            if free.is_none() {
                (device, free) = self.to_be_made(&directory.place.source).unzip();
            }
            let Some(free) = free else {
                self.journal.warn(format_args!(
                    "Could not determine the disk space that is free for the volume {volume}"
                ));
                continue;
            };
            let members = archive.members.saturating_mul(ROOM_OF_A_MEMBER);
            needs.push(Disk {
                device,
                free,
                needed: archive.bytes.saturating_add(members),
                volumes: volume,
            });
        }
        let disks = by_disk(needs);
        for disk in &disks {
            ensure!(
                disk.free >= disk.needed,
                "Insufficient disk space for the volume {} on Docker's disk: {} available, {} required, since the archive is \
                 unpacked beside what is there: make room there (docker system df tells what takes it)",
                disk.volumes,
                units::available(disk.free),
                units::amount(disk.needed)
            );
        }
        Ok(disks)
    }

    /// The disk of this host, and what is free there, that a directory will be on which is missing yet.
    fn to_be_made(&self, source: &Source) -> Option<(u64, u64)> {
        let Source::Directory(path) = source else { return None };
        let above = Path::new(path).ancestors().find(|above| above.is_dir())?;
        let free = available(above, self.app.config.stall).ok()?;
        is_missing(source).then_some((above.metadata().ok()?.dev(), free))
    }

    /// What the helper shows of these takes, as far as they are there.
    fn kilobytes(&self, helper: &Guard, paths: &[String]) -> Option<u64> {
        let du = "for path; do du -sk -- \"$path\"; done";
        let paths = paths.iter().map(String::as_str);
        let argv: Vec<&str> = ["sh", "-c", du, "sh"].into_iter().chain(paths).collect();
        let du = self.docker.exec(helper.id(), Exec::default(), &argv);
        // Nothing is heard of it before its end, which the stall limit may cut short in a huge volume.
        let output = self.docker.answer("du", du, None).ok()?.text();
        let sizes = output
            .lines()
            .map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        sizes.sum()
    }
}

/// What directories need on the disk that they lie on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// As the engine's kernel knows it.
    device: Option<u64>,
    free: u64,
    needed: u64,
    /// The directories, as messages name them.
    volumes: String,
}

impl Disk {
    /// Whether it is a disk of this host. The engine's may be another one that has a disk of the same number.
    fn is(&self, device: u64, free: u64) -> bool {
        self.device == Some(device) && self.free.abs_diff(free) <= free / 64
    }
}

/// What needs room on one disk, as a sum.
fn by_disk(needs: Vec<Disk>) -> Vec<Disk> {
    let mut disks: Vec<Disk> = Vec::new();
    for need in needs {
        let same = |disk: &&mut Disk| disk.device.is_some() && disk.device == need.device;
        match disks.iter_mut().find(same) {
            Some(disk) => {
                disk.free = disk.free.min(need.free);
                disk.needed = disk.needed.saturating_add(need.needed);
                disk.volumes = format!("{}, {}", disk.volumes, need.volumes);
            }
            None => disks.push(need),
        }
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_one_disk_needs_the_sum_there() {
        let disk = |device, free, needed, volumes: &str| Disk {
            device,
            free,
            needed,
            volumes: volumes.to_owned(),
        };
        let needs = vec![
            disk(Some(1), 100, 60, "a"),
            disk(Some(2), 50, 40, "b"),
            disk(None, 10, 9, "c"),
            disk(Some(1), 99, 50, "d"),
            disk(None, 10, 9, "e"),
        ];
        let wanted = [
            disk(Some(1), 99, 110, "a, d"),
            disk(Some(2), 50, 40, "b"),
            disk(None, 10, 9, "c"),
            disk(None, 10, 9, "e"),
        ];
        assert_eq!(by_disk(needs), wanted);
        assert!(wanted[0].is(1, 100) && !wanted[0].is(2, 99) && !wanted[0].is(1, 50) && !wanted[2].is(0, 10));
    }

    #[test]
    fn the_backup_before_a_restore_is_taken_to_pack_as_the_archive_does() {
        assert_eq!(packed_like(100 << 20, 10 << 20, 40 << 20), 25 << 20);
        // Small ones do not pack to nothing, nor does anything grow.
        assert_eq!(packed_like(1, 200, 100_000), 1);
        assert_eq!(packed_like(1000, 200, 0), 1000);
        assert_eq!(packed_like(u64::MAX, u64::MAX, 1), u64::MAX);
    }
}
