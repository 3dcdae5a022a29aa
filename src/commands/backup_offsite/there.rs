//! What is there of ours, and whether it is as it was sent.

use std::collections::HashSet;
use std::fmt;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use super::Temporary;
use crate::app::App;
use crate::store::identity::{self, Identity};
use crate::store::inventory::is_ahead;
use crate::store::manifest::{self, Point};
use crate::store::marks;
use crate::store::offsite::{expired, set_name, stack_dir, Expired, Place, Remote, RemoteFiles};
use crate::store::remote::Rclone;
use crate::store::retention::{age_in_days, Rules};
use crate::store::{make_dir, Stamp, ENCRYPTED};
use crate::stream::read::read;

/// The fact with the length and SHA-256 of the manifest that was sent.
pub(super) const SENT: &str = "offsite.manifest";

/// What is there of ours.
#[derive(Clone)]
pub(super) struct There {
    pub(super) stack: Option<Identity>,
    pub(super) own: RemoteFiles,
    /// What earlier versions have sent.
    unnamed: RemoteFiles,
}

impl There {
    pub(super) fn look(rclone: &Rclone, stack: Option<Identity>) -> Result<Self> {
        let mut remote = Remote::list(rclone)?;
        Ok(Self {
            own: remote.take(stack.as_ref()),
            unnamed: remote.unnamed,
            stack,
        })
    }

    fn dir(&self) -> Option<String> {
        self.stack.as_ref().map(stack_dir)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.sets().chain(self.unnamed.sets()).next().is_none()
    }

    /// Whether the copy of a point is where earlier versions have sent it.
    fn is_unnamed(&self, point: &Point) -> bool {
        self.own.set(point.stamp).is_none() && identity::of(point).is_none() && self.unnamed.set(point.stamp).is_some()
    }

    /// The directory where the copy of a point is, and the files there.
    pub(super) fn place(&self, rclone: &Rclone, point: &Point) -> (Rclone, &RemoteFiles) {
        match self.dir() {
            Some(dir) if !self.is_unnamed(point) => (rclone.within(&dir), &self.own),
            _ => (rclone.clone(), &self.unnamed),
        }
    }

    /// The files among which the copy of a point is.
    fn files(&self, point: &Point) -> &RemoteFiles {
        match self.is_unnamed(point) {
            true => &self.unnamed,
            false => &self.own,
        }
    }

    /// Whether anything of a point is there.
    pub(super) fn has_any_of(&self, point: &Point) -> bool {
        let files = self.files(point);
        files.set(point.stamp).is_some() || point.members.iter().any(|member| files.has(&member.name))
    }

    /// The path of the manifest of a point there.
    pub(super) fn set_path(&self, point: &Point) -> Option<String> {
        let set = self.files(point).set(point.stamp)?;
        Some(match self.dir() {
            Some(dir) if !self.is_unnamed(point) => format!("{dir}/{set}"),
            _ => set.to_owned(),
        })
    }

    /// The points that the retention there would let go at once, were all there that were sent or can be. Age alone tells of
    /// those that are neither, and of all that were not sent where nothing can be told of what is there.
    pub(super) fn outdated(
        &self,
        points: &[Point],
        was_sent: impl Fn(&Point) -> bool,
        can_be_sent: impl Fn(&Point) -> bool,
        now: SystemTime,
        rules: &Rules,
    ) -> HashSet<Stamp> {
        let mut all = self.clone();
        for point in points.iter().filter(|point| was_sent(point) || can_be_sent(point)) {
            if self.defect(point).is_some() {
                all.own.add_point(point);
            }
        }
        // Age is not counted from a point that is dated in the future, nor, as there, from one that is restored by name only.
        let from = points.iter().find(|point| point.excluded_from_latest().is_none());
        let from = from.map(Point::time).filter(|time| !is_ahead(*time, now));
        let is_old = |point: &Point| {
            point.pin().is_none() && from.is_some_and(|from| age_in_days(point.time(), from) > rules.days)
        };
        let mut sent = points.to_vec();
        for point in sent.iter_mut().filter(|point| can_be_sent(point)) {
            point.unset(marks::OFFSITE_DEFECT);
        }
        let expired = expired(&all.places(&sent, &[]), now, rules);
        let goes = |point: &&Point| match (&expired, all.set_path(point)) {
            (Ok(expired), Some(set)) => expired.sets.contains(&set),
            // What was sent is missed there.
            _ => !was_sent(point) && is_old(point),
        };
        points.iter().filter(goes).map(|point| point.stamp).collect()
    }

    /// Where points of ours are. Of those that are `locked` nothing but names is known.
    pub(super) fn places<'a>(&'a self, points: &'a [Point], locked: &'a [Stamp]) -> [Place<'a>; 2] {
        let known = |is_there: &dyn Fn(&Point) -> bool| {
            let points = points.iter().filter(|point| is_there(point));
            points.map(|point| (point.stamp, point)).collect()
        };
        [
            Place {
                prefix: self.dir().map_or_else(String::new, |dir| format!("{dir}/")),
                there: &self.own,
                known: known(&|point| self.own.set(point.stamp).is_some()),
                locked,
            },
            Place {
                prefix: String::new(),
                there: &self.unnamed,
                known: known(&|point| self.is_unnamed(point)),
                locked,
            },
        ]
    }

    /// The points, each with the path of its manifest, that the retention would let go, or relies on to let others go, and of
    /// which nothing but names is known: those tell neither the instant, nor a pin, nor that a point is restored by name only.
    /// Those that are `locked` could not be read.
    pub(super) fn unknown(&self, known: &[Point], locked: &[Stamp], expired: &Expired) -> Vec<(Stamp, String)> {
        if expired.sets.is_empty() && expired.files.is_empty() {
            return Vec::new();
        }
        let counts = |name: &String| expired.sets.contains(name) || expired.relied_on.contains(name);
        let is_known = |stamp: Stamp| locked.contains(&stamp) || known.iter().any(|point| point.stamp == stamp);
        let [own, unnamed] = self.places(&[], &[]);
        let path = |place: &Place<'_>, stamp| Some((stamp, format!("{}{}", place.prefix, place.there.set(stamp)?)));
        let unnamed = self.unnamed.sets().filter_map(|stamp| path(&unnamed, stamp));
        // One that is sent again to the stack's directory is known by that copy alone.
        let unnamed = unnamed.filter(|(stamp, _)| self.own.set(*stamp).is_none());
        let own = self.own.sets().filter_map(|stamp| path(&own, stamp));
        own.chain(unnamed)
            .filter(|(stamp, name)| !is_known(*stamp) && counts(name))
            .collect()
    }

    /// The name of the manifest of a point there. Where encryption was switched on or off there may be two, and the
    /// length tells which one was sent last.
    pub(super) fn set(&self, point: &Point) -> Option<String> {
        let files = self.files(point);
        let sent = sent_manifest(point).map(|(length, _)| length);
        let mut forms = [false, true]
            .map(|encrypted| set_name(point.stamp, encrypted))
            .into_iter();
        let last = forms.find(|name| sent.is_some() && files.length(name) == sent);
        last.or_else(|| files.set(point.stamp).map(str::to_owned))
    }

    /// What is wrong with the copy of a point, by names and lengths.
    pub(super) fn defect(&self, point: &Point) -> Option<String> {
        let files = self.files(point);
        let Some(set) = self.set(point) else {
            return Some("it is not there any more".to_owned());
        };
        let mut lacks = files.lacks(point);
        let known = sent_manifest(point).map(|(length, _)| length);
        if known
            .zip(files.length(&set))
            .is_some_and(|(known, there)| known != there)
        {
            lacks.push(set);
        }
        let text = format!("these are missing there or have another length: {}", lacks.join(", "));
        (!lacks.is_empty()).then_some(text)
    }
}

/// The length and the SHA-256 of the manifest that was sent.
pub(super) fn sent_manifest(point: &Point) -> Option<(u64, &str)> {
    let (length, sum) = point.fact(SENT)?.split_once(' ')?;
    Some((length.parse().ok()?, sum))
}

/// Marks an error of bringing a manifest here, which says nothing of the manifest.
#[derive(Debug)]
pub(in crate::commands) struct Unread;

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("A manifest could not be fetched")
    }
}

/// The text of the manifest `name` at `place`. `check` is given it as it lies there.
pub(in crate::commands) fn read_manifest(
    app: &App,
    place: &Rclone,
    name: &str,
    check: impl Fn(&[u8]) -> Result<()>,
) -> Result<String> {
    let limit = manifest::LIMIT as usize;
    let mut chain = place.chain();
    let stream = place.read(&mut chain, name)?;
    let bytes = chain.collect("reading a manifest", stream, limit);
    let mut bytes = bytes.get(&chain.finish().context(Unread)?)?;
    check(&bytes)?;
    if name.ends_with(ENCRYPTED) {
        let dir = app.store.sets_dir();
        make_dir(&dir)?;
        let sealed = Temporary::write(&dir, ".offsite.fetched.gpg", &bytes)?;
        let mut chain = app.chain();
        let unread = || format!("{name} cannot be read");
        let stream = read(&app.config, &mut chain, &sealed.0).with_context(unread)?;
        let text = chain.collect("reading a manifest", stream, limit);
        let finished = chain.finish();
        bytes = finished.and_then(|finished| text.get(&finished)).with_context(unread)?;
    }
    String::from_utf8(bytes).context("the manifest is no text")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What the retention decides by, it has read: here the newest by the names is the older one by the instant.
    #[test]
    fn points_that_are_known_by_names_alone_are_read_before_others_go() {
        let stack = Identity::parse("00000000000000aa").unwrap();
        let stamps = ["20260101_020000", "20260109_200000", "20260110_020000"];
        let names = stamps.iter().flat_map(|stamp| {
            let dir = stack_dir(&stack);
            let dump = if *stamp == stamps[0] {
                String::new()
            } else {
                format!("{dir}/")
            };
            [
                format!("{dump}sets/{stamp}.sha256"),
                format!("{dump}redis/dump_{stamp}.rdb"),
            ]
        });
        let mut remote: Remote = names.map(|name| (name, Some(1))).collect();
        let there = There {
            own: remote.take(Some(&stack)),
            unnamed: remote.unnamed,
            stack: Some(stack),
        };
        let known = |stamp: &str, begun: &str| {
            let sum = "0".repeat(64);
            let text = format!(
                "# n8n-backup recovery point {stamp}\n# begun: {begun}\n# size.redis: 1\n{sum}  redis/dump_{stamp}.rdb\n"
            );
            Point::parse(&text).unwrap()
        };
        let rules = |days| Rules {
            days,
            ..Rules::default()
        };
        let now = Stamp::parse("20260111_020000").unwrap().time();
        let decide = |known: &[Point], locked: &[Stamp], days| {
            let expired = expired(&there.places(known, locked), now, &rules(days)).unwrap();
            let unknown = there.unknown(known, locked, &expired);
            (
                expired.sets,
                unknown
                    .into_iter()
                    .map(|(stamp, _)| stamp.to_string())
                    .collect::<Vec<_>>(),
            )
        };
        // Where nothing goes, nothing is read.
        assert_eq!(decide(&[], &[], 30), (vec![], vec![]));
        let (sets, unknown) = decide(&[], &[], 5);
        assert_eq!(
            (sets.len(), unknown),
            (1, vec![stamps[2].to_owned(), stamps[0].to_owned()])
        );
        let begun = |hours: u64| {
            let time: chrono::DateTime<chrono::Utc> = (now - Duration::from_secs(hours * 3600)).into();
            time.to_rfc3339()
        };
        // The one that is relied on then is read as well.
        let mut points = vec![known(stamps[0], &begun(24 * 10)), known(stamps[2], &begun(40))];
        assert_eq!(decide(&points, &[], 5).1, [stamps[1]]);
        points.push(known(stamps[1], &begun(20)));
        assert_eq!(decide(&points, &[], 5).1, [""; 0]);
        // One that nobody here can read is not asked for again, and the next one is relied on.
        points.truncate(1);
        let locked = [Stamp::parse(stamps[1]).unwrap()];
        assert_eq!(decide(&points, &locked, 5).1, [stamps[2]]);
        points.push(known(stamps[2], &begun(40)));
        assert_eq!(
            decide(&points, &locked, 5),
            (vec![format!("sets/{}.sha256", stamps[0])], vec![])
        );
    }

    /// `DAY PARTS`, a point of that day of January with one file of each part.
    fn point(text: &str) -> Point {
        let (day, parts) = text.split_once(' ').unwrap();
        let stamp = format!("202601{day}_020000");
        let mut text = format!("# n8n-backup recovery point {stamp}\n");
        let names = parts.chars().map(|part| match part {
            'r' => format!("redis/dump_{stamp}.rdb"),
            'e' => format!("env/env_{stamp}.backup"),
            _ => format!("n8n/n8n_data_{stamp}.tar.gz"),
        });
        names.for_each(|name| text.push_str(&format!("{}  {name}\n", "0".repeat(64))));
        Point::parse(&text).unwrap()
    }

    #[test]
    fn of_two_manifests_the_one_that_was_sent_last_counts() {
        let stack = Identity::parse("00000000000000aa").unwrap();
        let mut point = point("31 r");
        let look = |lengths: [u64; 2]| {
            let names = [false, true].map(|encrypted| set_name(point.stamp, encrypted));
            let sets = names.into_iter().zip(lengths);
            let files = sets.chain([(point.members[0].name.clone(), 1)]);
            let files = files.map(|(name, length)| (format!("{}/{name}", stack_dir(&stack)), Some(length)));
            let mut remote: Remote = files.collect();
            There {
                own: remote.take(Some(&stack)),
                unnamed: remote.unnamed,
                stack: Some(stack.clone()),
            }
        };
        let (there, neither) = (look([300, 250]), look([301, 250]));
        assert!(there.set(&point).unwrap().ends_with(".gpg"));
        point.set(SENT, "300 0");
        assert!(there.set(&point).unwrap().ends_with(".sha256"));
        assert_eq!(there.defect(&point), None);
        assert!(neither.defect(&point).is_some());
    }

    #[test]
    fn what_the_retention_there_keeps_is_no_outdated_point() {
        let stack = Identity::parse("00000000000000aa").unwrap();
        let mut there = There {
            stack: Some(stack),
            own: RemoteFiles::default(),
            unnamed: RemoteFiles::default(),
        };
        let points = ["31 r", "30 r", "03 rn", "02 r", "01 n"].map(point);
        let now = Stamp::parse("20260131_030000").unwrap().time();
        let outdated = |there: &There, points: &[Point], can_be_sent: &dyn Fn(&Point) -> bool| {
            let rules = Rules {
                days: 10,
                ..Rules::default()
            };
            let stamps = there.outdated(points, |_| false, can_be_sent, now, &rules);
            let days = points.iter().filter(|point| stamps.contains(&point.stamp));
            days.map(|point| point.stamp.to_string()[6..8].to_owned())
                .collect::<Vec<_>>()
        };
        // The newest archive is old, and is sent all the same.
        assert_eq!(outdated(&there, &points, &|_| true), ["02", "01"]);
        // So it is again when its copy is lost, though all others are there.
        for point in points
            .iter()
            .filter(|point| !point.stamp.to_string().starts_with("20260103"))
        {
            there.own.add_point(point);
        }
        assert_eq!(outdated(&there, &points, &|_| true), ["02", "01"]);
        // What cannot be sent takes the place of nothing.
        let cannot = |point: &Point, day: &str| point.stamp.to_string()[6..8] == *day;
        assert_eq!(outdated(&there, &points, &|point| !cannot(point, "03")), ["03", "02"]);
        // What was found to differ counts as it will be when it is sent again.
        let mut differing = points.clone();
        differing[2].set("offsite", "2026-01-03T02:10:00Z there");
        differing[2].set(marks::OFFSITE_DEFECT, "it is not as it was sent");
        assert_eq!(outdated(&there, &differing, &|_| true), ["02", "01"]);
        // Nor does it hide what is outdated, where nothing else holds a file of its kind.
        let with_plain = [&points[..], &[point("04 e")]].concat();
        let can = |point: &Point| !cannot(point, "04");
        assert_eq!(outdated(&there, &with_plain, &can), ["02", "01", "04"]);
        // Where nothing can be told of what is there, nothing old is sent.
        there.own.add_point(&Point::new(with_plain[5].stamp));
        assert_eq!(outdated(&there, &with_plain, &can), ["03", "02", "01", "04"]);
    }
}
