//! Recovery points at the place that they are copied to: what their names there tell, and how old they may grow.
//!
//! Off-site, files have the same paths as below `backups/`. Where the manifest is, the point is whole.

use anyhow::{Context, Result};
use chrono::TimeDelta;

use super::manifest;
use super::remote::Rclone;
use super::retention::Idle;
use super::{Kind, Stamp, SET_SUFFIX};

/// The directory of the manifests, there as here.
const SETS: &str = "sets";
/// The names of a point's manifest and files tell times that are closer than this.
const SAME_RUN: TimeDelta = TimeDelta::hours(1);

/// The path of a recovery point's manifest there.
pub fn set_name(stamp: Stamp) -> String {
    format!("{SETS}/{stamp}{SET_SUFFIX}")
}

/// The text of the manifest of a recovery point there.
pub fn fetch_manifest(rclone: &Rclone, stamp: Stamp) -> Result<String> {
    let mut chain = rclone.chain();
    let stream = rclone.read(&mut chain, &set_name(stamp))?;
    let text = chain.collect("reading a manifest", stream, manifest::LIMIT as usize);
    String::from_utf8(text.get(&chain.finish()?)?).context("the manifest is no text")
}

/// Whether `stamp` is more than `days` whole days older than the newest point; never with 0 days. Counted from the newest
/// point and not from now, so that a clock that jumps takes nothing away.
pub fn is_expired(stamp: Stamp, newest: Stamp, days: u64) -> bool {
    let limit = i64::try_from(days).unwrap_or(i64::MAX).saturating_add(1);
    days > 0 && newest.local() - stamp.local() >= TimeDelta::try_days(limit).unwrap_or(TimeDelta::MAX)
}

/// The newest of `stamps` that is not from the future by more than a day: the clock was wrong once, and age is not counted
/// from that.
pub fn newest_until(stamps: impl Iterator<Item = Stamp>, now: Stamp) -> Option<Stamp> {
    stamps.filter(|stamp| !stamp.is_ahead(now)).max()
}

/// The point that a manifest's path there stands for.
pub fn stamp_of_set(name: &str) -> Option<Stamp> {
    name.strip_prefix(SETS)?
        .strip_prefix('/')?
        .strip_suffix(SET_SUFFIX)
        .and_then(Stamp::parse)
}

/// The time of a backup file there, when it has the path that we give.
pub fn stamp_of_file(name: &str) -> Option<(Kind, Stamp)> {
    let (dir, file) = name.split_once('/')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.dir() == dir)?;
    Some((kind, kind.stamp_in(file)?))
}

/// What the retention there lets go: manifests, and files. The point with the newest file of a component stays, however
/// many newer points lack that component, and with it what is as old. A file is as old as its point, so that none goes before
/// its manifest.
pub fn expired(there: &[String], days: u64) -> (Vec<String>, Vec<String>) {
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
pub fn is_near(a: Stamp, b: Stamp) -> bool {
    (a.local() - b.local()).abs() < SAME_RUN
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
}
