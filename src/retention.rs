//! Which backup files retention lets go: a pure function of a listing and a clock.
//!
//! A file goes when its age in whole days is greater than the retention, as with `find -mtime +N`.
//! One file of every component always stays, so that a backup that has failed for weeks does not
//! end with nothing to restore from.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

const SECONDS_PER_DAY: u64 = 86_400;

/// One backup file as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where the file is.
    pub path: PathBuf,
    /// Index of the component that the file belongs to.
    pub component: usize,
    /// When the backup was taken: the modification time of the file.
    pub taken: SystemTime,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Whether the file is known to be a whole, restorable backup.
    pub good: bool,
}

/// What becomes of a file, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Older than the retention, and not the last resort of its component.
    Delete,
    /// Not older than the retention.
    KeepYoung,
    /// Older than the retention, but the newest good backup of its component; where no backup of
    /// the component is known to be good, the newest of them.
    KeepNewestGood,
}

/// Decides what becomes of each of `files` at the time `now`, when backups are kept for `days`
/// days.
///
/// Gives one verdict per file, in the order of `files`.
pub fn decide(files: &[Candidate], now: SystemTime, days: u64) -> Vec<Verdict> {
    let mut last_resort: BTreeMap<usize, &Candidate> = BTreeMap::new();
    for file in files {
        last_resort
            .entry(file.component)
            .and_modify(|best| {
                if preference(file, best) == Ordering::Greater {
                    *best = file;
                }
            })
            .or_insert(file);
    }
    files
        .iter()
        .map(|file| {
            if age_in_days(file.taken, now) <= days {
                Verdict::KeepYoung
            } else if last_resort
                .get(&file.component)
                .is_some_and(|best| std::ptr::eq(*best, file))
            {
                Verdict::KeepNewestGood
            } else {
                Verdict::Delete
            }
        })
        .collect()
}

/// Which of two backups of one component is the better last resort: a good one, then the newer one.
/// File names carry the time of the backup, so that they settle equal times (a copy without `-p`)
/// and the order of a listing does not.
fn preference(a: &Candidate, b: &Candidate) -> Ordering {
    (a.good, a.taken, &a.path).cmp(&(b.good, b.taken, &b.path))
}

/// Age in whole days, rounded down; 0 for a file from the future, which a clock that was set back
/// leaves behind.
fn age_in_days(taken: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(taken)
        .map_or(0, |age| age.as_secs() / SECONDS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Delete, KeepNewestGood, KeepYoung};
    use super::*;
    use std::time::Duration;

    /// Any fixed moment far enough from the epoch.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn file(component: usize, age_seconds: u64, good: bool) -> Candidate {
        Candidate {
            path: PathBuf::from(format!("{component}/{age_seconds}")),
            component,
            taken: now() - Duration::from_secs(age_seconds),
            bytes: 1,
            good,
        }
    }

    fn days(n: u64) -> u64 {
        n * SECONDS_PER_DAY
    }

    #[test]
    fn ages_count_in_whole_days() {
        // (age in seconds, retention in days, verdict); a fresh good file keeps the last-resort
        // rule out of the way.
        let cases = [
            (0, 0, KeepYoung),
            (days(1) - 1, 0, KeepYoung),
            (days(1), 0, Delete),
            (days(7), 7, KeepYoung),
            (days(8) - 1, 7, KeepYoung),
            (days(8), 7, Delete),
            (days(9000), 7, Delete),
            (days(9000), u64::MAX, KeepYoung),
            (days(9000), u64::MAX / SECONDS_PER_DAY, KeepYoung),
        ];
        for (age, retention, verdict) in cases {
            let files = [
                file(0, age, true),
                Candidate {
                    taken: now() + Duration::from_secs(5),
                    ..file(0, 0, true)
                },
            ];
            assert_eq!(
                decide(&files, now(), retention),
                [verdict, KeepYoung],
                "age {age}, retention {retention}"
            );
        }
    }

    #[test]
    fn a_part_of_a_second_does_not_make_a_day() {
        let taken = now() - Duration::from_secs(days(8)) + Duration::from_nanos(1);
        assert_eq!(age_in_days(taken, now()), 7);
    }

    #[test]
    fn a_file_from_the_future_is_young() {
        let future = Candidate {
            taken: now() + Duration::from_secs(days(100)),
            ..file(0, 0, false)
        };
        assert_eq!(
            decide(&[future, file(0, days(20), true)], now(), 0),
            [KeepYoung, KeepNewestGood]
        );
    }

    #[test]
    fn the_newest_good_backup_of_each_component_stays() {
        let cases: [(&str, Vec<Candidate>, Vec<Verdict>); 6] = [
            ("nothing", vec![], vec![]),
            ("a single old one", vec![file(0, days(99), true)], vec![KeepNewestGood]),
            (
                "the newest of several good ones",
                vec![
                    file(0, days(30), true),
                    file(0, days(10), true),
                    file(0, days(20), true),
                ],
                vec![Delete, KeepNewestGood, Delete],
            ),
            (
                "a good one before a newer bad one",
                vec![
                    file(0, days(10), false),
                    file(0, days(20), true),
                    file(0, days(30), true),
                ],
                vec![Delete, KeepNewestGood, Delete],
            ),
            (
                "young bad ones do not replace the old good one",
                vec![file(0, 0, false), file(0, days(20), true)],
                vec![KeepYoung, KeepNewestGood],
            ),
            (
                "the newest of all where none is good, by component",
                vec![
                    file(0, days(10), false),
                    file(1, days(9), true),
                    file(0, days(20), false),
                    file(1, 0, true),
                ],
                vec![KeepNewestGood, Delete, Delete, KeepYoung],
            ),
        ];
        for (name, files, verdicts) in cases {
            assert_eq!(decide(&files, now(), 7), verdicts, "{name}");
        }
    }

    #[test]
    fn equal_times_keep_one_file_whatever_the_order_of_the_listing() {
        let a = Candidate {
            path: PathBuf::from("n8n_20240101_000000.sql.gz"),
            ..file(0, days(10), true)
        };
        let b = Candidate {
            path: PathBuf::from("n8n_20240102_000000.sql.gz"),
            ..file(0, days(10), true)
        };
        assert_eq!(decide(&[a.clone(), b.clone()], now(), 7), [Delete, KeepNewestGood]);
        assert_eq!(decide(&[b, a], now(), 7), [KeepNewestGood, Delete]);
    }

    /// Linear congruential generator (constants of Knuth's MMIX), seeded, so that a failure
    /// repeats.
    struct Lcg(u64);

    impl Lcg {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    #[test]
    fn random_listings_lose_neither_a_young_nor_a_newest_good_file() {
        let mut random = Lcg(20_240_229);
        let (mut deleted, mut rescued) = (0, 0);
        for round in 0..2_000 {
            let retention = random.below(12);
            let files: Vec<Candidate> = (0..random.below(14))
                .map(|i| Candidate {
                    path: PathBuf::from(format!("{i}")),
                    component: random.below(4) as usize,
                    taken: now() + Duration::from_secs(days(1)) - Duration::from_secs(random.below(days(20))),
                    bytes: random.below(1000),
                    good: random.below(3) == 0,
                })
                .collect();
            let verdicts = decide(&files, now(), retention);
            assert_eq!(verdicts.len(), files.len());

            for (file, verdict) in files.iter().zip(&verdicts) {
                // Stated without division: older than the retention means at least retention + 1
                // full days old.
                let old = file.taken + Duration::from_secs(days(retention + 1)) <= now();
                assert_eq!(*verdict == KeepYoung, !old, "round {round}: {file:?}");
                deleted += usize::from(*verdict == Delete);
                rescued += usize::from(*verdict == KeepNewestGood);
            }
            for component in 0..4 {
                let of_component = || files.iter().zip(&verdicts).filter(|(f, _)| f.component == component);
                let any_good = of_component().any(|(f, _)| f.good);
                let newest = of_component()
                    .filter(|(f, _)| f.good || !any_good)
                    .map(|(f, _)| f.taken)
                    .max();
                if let Some(newest) = newest {
                    let kept = of_component().any(|(f, v)| f.taken == newest && (f.good || !any_good) && *v != Delete);
                    assert!(
                        kept,
                        "round {round}: component {component} lost its newest good backup: {files:?}"
                    );
                }
                let rescues = of_component().filter(|(_, v)| **v == KeepNewestGood).count();
                assert!(
                    rescues <= 1,
                    "round {round}: component {component} kept {rescues} last resorts"
                );
            }
        }
        assert!(
            deleted > 1_000 && rescued > 100,
            "the listings exercise both: {deleted} deleted, {rescued} rescued"
        );
    }
}
