//! The room that a restore of n8n's data needs, disk by disk.

/// What a member takes on a disk beside its bytes, on average: half a block.
pub const ROOM_OF_A_MEMBER: u64 = 2 << 10;

/// What a backup of `held` bytes will take, when it packs as well as the archive that packed `bytes` into `packed`.
pub fn packed_like(held: u64, packed: u64, bytes: u64) -> u64 {
    match u128::from(held) * u128::from(packed) / u128::from(bytes.max(1)) {
        0 => packed.min(held),
        estimate => u64::try_from(estimate).unwrap_or(u64::MAX).min(held),
    }
}

/// What directories need on the disk that they lie on.
#[derive(Debug, PartialEq, Eq)]
pub struct Disk {
    /// As the engine's kernel knows it.
    pub device: Option<u64>,
    pub free: u64,
    pub needed: u64,
    /// The directories, as messages name them.
    pub volumes: String,
}

impl Disk {
    /// Whether it is a disk of this host. The engine's may be another one that has a disk of the same number.
    pub fn is(&self, device: u64, free: u64) -> bool {
        self.device == Some(device) && self.free.abs_diff(free) <= free / 64
    }
}

/// What needs room on one disk, as a sum.
pub fn by_disk(needs: Vec<Disk>) -> Vec<Disk> {
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
