//! Everything in `backups/`: the recovery points with their files, and the files that belong to none.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use super::manifest::{Member, Point};
use super::{Entry, Kind, Store, SET_SUFFIX};

/// What has become of a file of a recovery point, as far as can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there, as long as it was.
    Present,
    /// It is gone.
    Missing,
    /// Its length is not that of the backup.
    Changed,
    /// It is there, and a verification has found other contents than those of the backup.
    Damaged,
}

impl State {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Damaged => "damaged",
        }
    }
}

/// A recovery point with its files.
#[derive(Clone, Debug)]
pub struct PointOnDisk {
    /// The point.
    pub point: Point,
    /// Its members, and the file of each that is there.
    pub files: Vec<(Member, Option<Entry>)>,
}

impl PointOnDisk {
    /// What has become of a member's file.
    pub fn state(&self, member: &Member, entry: Option<&Entry>) -> State {
        let Some(entry) = entry else { return State::Missing };
        let recorded = self.point.size(member.kind).unwrap_or(entry.bytes);
        if recorded != entry.bytes {
            State::Changed
        } else if self.point.damaged().contains(&member.kind) {
            State::Damaged
        } else {
            State::Present
        }
    }

    /// Whether every component is in it, and every file as it was, as far as can be told without reading them.
    pub fn is_complete(&self) -> bool {
        self.point.is_complete() && self.is_sound()
    }

    /// Whether every file that was in it is as it was, as far as can be told without reading them.
    pub fn is_sound(&self) -> bool {
        self.point.listed("deleted").is_empty()
            && self
                .files
                .iter()
                .all(|(member, entry)| self.state(member, entry.as_ref()) == State::Present)
    }
}

/// Everything in `backups/`.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The recovery points, oldest first.
    pub points: Vec<PointOnDisk>,
    /// The files that belong to none, by kind, oldest first.
    pub loose: Vec<(Kind, Entry)>,
    /// Manifests that cannot be read.
    pub unreadable: Vec<(PathBuf, anyhow::Error)>,
}

/// Sees what there is, given the listings of the directories.
///
/// # Errors
/// When the manifests cannot be listed.
pub fn survey(store: &Store, listings: &[(Kind, Vec<Entry>)]) -> Result<Inventory> {
    let mut survey = Inventory::default();
    let mut files: BTreeMap<PathBuf, (Kind, Entry, bool)> = listings
        .iter()
        .flat_map(|(kind, entries)| entries.iter().map(|entry| (*kind, entry)))
        .map(|(kind, entry)| (entry.path.clone(), (kind, entry.clone(), false)))
        .collect();
    for (path, point) in list(store)? {
        let point = match point {
            Ok(point) => point,
            Err(error) => {
                survey.unreadable.push((path, error));
                continue;
            }
        };
        let held = point.members.iter().map(|member| {
            let entry = files.get_mut(&store.root().join(&member.name)).map(|found| {
                found.2 = true;
                found.1.clone()
            });
            (member.clone(), entry)
        });
        let held = held.collect();
        survey.points.push(PointOnDisk { point, files: held });
    }
    survey.loose = files
        .into_values()
        .filter(|(_, _, recorded)| !recorded)
        .map(|(kind, entry, _)| (kind, entry))
        .collect();
    survey
        .loose
        .sort_by(|(a, x), (b, y)| (a, x.modified, &x.path).cmp(&(b, y.modified, &y.path)));
    Ok(survey)
}

/// Every recovery point, oldest first. What is not one, or cannot be read, comes with its error.
///
/// # Errors
/// When the directory cannot be read; one that does not exist is empty.
pub fn list(store: &Store) -> Result<Vec<(PathBuf, Result<Point>)>> {
    let dir = store.sets_dir();
    let items = match fs::read_dir(&dir) {
        Ok(items) => items,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("Cannot read {}", dir.display())),
    };
    let mut paths = Vec::new();
    for item in items {
        let name = item
            .with_context(|| format!("Cannot read {}", dir.display()))?
            .file_name();
        let text = name.to_string_lossy();
        if !text.starts_with('.') && text.ends_with(SET_SUFFIX) {
            paths.push(dir.join(name));
        }
    }
    paths.sort();
    Ok(paths
        .into_iter()
        .map(|path| {
            let point = Point::load(&path).and_then(|point| {
                if point.path(store) != path {
                    bail!("{} tells of another point, {}", path.display(), point.stamp);
                }
                Ok(point)
            });
            (path, point)
        })
        .collect())
}

/// The point that a backup file belongs to, if any, by its path.
///
/// # Errors
/// When the manifests cannot be listed.
pub fn point_of(store: &Store, file: &Path) -> Result<Option<(Point, Member)>> {
    let Ok(file) = file.canonicalize() else { return Ok(None) };
    for point in list(store)?.into_iter().rev().filter_map(|(_, point)| point.ok()) {
        let found = point.members.iter().find(|member| {
            store
                .root()
                .join(&member.name)
                .canonicalize()
                .is_ok_and(|path| path == file)
        });
        if let Some(member) = found.cloned() {
            return Ok(Some((point, member)));
        }
    }
    Ok(None)
}
