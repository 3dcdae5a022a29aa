//! What of n8n's data lies within something else of them on the engine's host, and what holds the home.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{apart_directory, stored, Directory, Layout, Place, BESIDE};
use crate::engine::Source;
use crate::formats::tar::Part;

/// What holds the home: it is backed up without that, which stays where it is when the rest is replaced.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The directory.
    pub place: Place,
    /// The home in an archive, of which that has no more there than the directory.
    pub home: String,
    /// What it is called in the directory, where a restore can replace the rest.
    pub stays: Option<String>,
}

impl Layout {
    /// Takes what lies within another directory of the engine's host as a part of that. By itself it would be packed twice, and
    /// restored into what the restore of the other one moves away. What holds the home goes without that.
    pub(super) fn take_once(&mut self, path_of: impl Fn(&Source) -> PathBuf) {
        let all = self.places().map(|place| (place.clone(), path_of(&place.source)));
        let mut all: Vec<(Place, PathBuf)> = all.collect();
        let home = all[0].1.clone();
        let holds_home = |path: &PathBuf| path.is_absolute() && home != *path && home.starts_with(path);
        for (place, path) in all.iter().filter(|(_, path)| holds_home(path)) {
            let rest = home.strip_prefix(path).unwrap_or(&home);
            let is_within = |(_, other): &&(Place, PathBuf)| other.starts_with(path) && !other.starts_with(&home);
            // What else lies within it would be replaced twice.
            let is_alone = all.iter().filter(is_within).count() == 1;
            let stays = rest.to_str().filter(|name| is_alone && !name.contains(['/', '\n']));
            self.around.push(Holder {
                place: place.clone(),
                home: format!("{}/{}", stored(&place.at), rest.display()),
                stays: stays.map(str::to_owned),
            });
        }
        all.retain(|(_, path)| !holds_home(path));
        let shows = |(outer, top): &(Place, PathBuf), path: &Path| {
            // A volume does not show what the host mounts in its directory.
            let shows_all = matches!(outer.source, Source::Directory(_));
            top.is_absolute() && path.starts_with(top) && (shows_all || !are_apart(top, path))
        };
        // From the outermost on; of the same ones the first, as the home is.
        all.sort_by_key(|(_, path)| path.components().count());
        let mut kept: Vec<&(Place, PathBuf)> = Vec::new();
        for found in &all {
            let (place, path) = found;
            let Some((outer, top)) = kept.iter().find(|outer| shows(outer, path)) else {
                kept.push(found);
                continue;
            };
            let rest = path.strip_prefix(top).unwrap_or(path);
            let there: PathBuf = Path::new(&outer.at).join(rest).components().collect();
            self.within.push((place.clone(), there.display().to_string()));
        }
        let stays = |place: &Place| kept.iter().any(|(kept, _)| kept == place);
        self.nested.retain(|_, place| stays(place));
        self.others.retain(stays);
    }

    /// What lies within another directory, each with the parts that an archive has of it by itself and in there, where
    /// those are two.
    pub fn inner(&self) -> Vec<(&Place, [Part; 2])> {
        let part = |below: String| Part {
            below,
            ..Part::default()
        };
        let inner = self.within.iter().map(|(place, there)| {
            let names = [&place.at, there].map(|path| part(self.name_of(path)));
            (place, names)
        });
        inner.filter(|(_, [apart, there])| apart.below != there.below).collect()
    }

    /// What an archive leaves out of these directories, where a helper container that writes sees it: n8n's database in
    /// SQLite, and in what holds the home the home.
    pub fn left_out_of<'d>(
        &self,
        directories: impl Iterator<Item = &'d Directory>,
        database: Option<&str>,
    ) -> Vec<String> {
        let database = database.and_then(|file| self.database(file));
        let mut left_out = Vec::new();
        for Directory { target, part, .. } in directories {
            if !part.without.is_empty() {
                left_out.push(format!("{target}/{}", part.without));
            }
            if let Some((_, name)) = database.as_ref().filter(|(directory, _)| directory.target == *target) {
                left_out.extend(BESIDE.map(|end| format!("{target}/{name}{end}")));
            }
        }
        left_out
    }

    /// As [`Self::database`], for one in what holds the home, which is no directory of its own.
    pub fn database_around(&self, file: &str) -> Option<(Directory, String)> {
        self.around.iter().find_map(|Holder { place, .. }| {
            let within = Path::new(file).strip_prefix(&place.at).ok()?;
            Some((apart_directory(place), within.display().to_string()))
        })
    }

    /// What holds the home, and is replaced without what is called so in there.
    pub(super) fn replaced_around(&self) -> impl Iterator<Item = (&Place, &String)> {
        let around = self.around.iter();
        around.filter_map(|holder| Some((&holder.place, holder.stays.as_ref()?)))
    }

    /// The place of the home in what is replaced around it: an archive that has more there is of another layout.
    pub fn homes_around(&self) -> Vec<(&Place, Part)> {
        let around = self.around.iter().filter(|holder| holder.stays.is_some());
        let of_home = around.map(|holder| {
            let part = Part {
                below: holder.home.clone(),
                ..Part::default()
            };
            (&holder.place, part)
        });
        of_home.collect()
    }
}

/// Whether this host knows two paths to be of two file systems.
fn are_apart(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    device(one).zip(device(other)).is_some_and(|(one, other)| one != other)
}
