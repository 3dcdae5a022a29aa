//! What is there of ours, and whether it is as it was sent.

use anyhow::{Context as _, Result};

use super::Temporary;
use crate::app::App;
use crate::store::identity::{self, Identity};
use crate::store::manifest::{self, Point};
use crate::store::offsite::{stack_dir, Expired, Place, Remote, RemoteFiles};
use crate::store::remote::Rclone;
use crate::store::{make_dir, Stamp, ENCRYPTED};
use crate::stream::read::read;

/// The fact with the length and SHA-256 of the manifest that was sent.
pub(super) const SENT: &str = "offsite.manifest";

/// What is there of ours.
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

    /// Where points of ours are.
    pub(super) fn places<'a>(&'a self, points: &'a [Point]) -> [Place<'a>; 2] {
        let known = |is_there: &dyn Fn(&Point) -> bool| {
            let points = points.iter().filter(|point| is_there(point));
            points.map(|point| (point.stamp, point)).collect()
        };
        [
            Place {
                prefix: self.dir().map_or_else(String::new, |dir| format!("{dir}/")),
                there: &self.own,
                known: known(&|point| self.own.set(point.stamp).is_some()),
            },
            Place {
                prefix: String::new(),
                there: &self.unnamed,
                known: known(&|point| self.is_unnamed(point)),
            },
        ]
    }

    /// The points of the stack that the retention would let go, and of which nothing but names is known.
    pub(super) fn unknown(&self, known: &[Point], expired: &Expired) -> Vec<Stamp> {
        let prefix = self.dir().unwrap_or_default();
        let goes = |stamp: &Stamp| {
            let set = self.own.set(*stamp).map(|set| format!("{prefix}/{set}"));
            set.is_some_and(|set| expired.sets.contains(&set))
        };
        let is_known = |stamp: &Stamp| known.iter().any(|point| point.stamp == *stamp);
        self.own
            .sets()
            .filter(|stamp| !is_known(stamp) && goes(stamp))
            .collect()
    }

    /// The directory of the stack.
    pub(super) fn own_of(&self, rclone: &Rclone) -> (Rclone, &RemoteFiles) {
        let dir = self.dir().unwrap_or_default();
        (rclone.within(&dir), &self.own)
    }

    /// What is wrong with the copy of a point, by names and lengths.
    pub(super) fn defect(&self, point: &Point) -> Option<String> {
        let files = if self.is_unnamed(point) {
            &self.unnamed
        } else {
            &self.own
        };
        let Some(set) = files.set(point.stamp) else {
            return Some("it is not there any more".to_owned());
        };
        let mut lacks = files.lacks(point);
        let known = sent_manifest(point).map(|(length, _)| length);
        if known
            .zip(files.length(set))
            .is_some_and(|(known, there)| known != there)
        {
            lacks.push(set.to_owned());
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
    let mut bytes = bytes.get(&chain.finish()?)?;
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
