//! What n8n's data consist of: its home, what is mounted below that, and the other directories that belong to it, as the
//! mounts of n8n's containers tell.

mod databases;
mod home;
mod sqlite;
mod system;
mod within;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Result};

pub(super) use self::databases::check_volume;
use self::databases::Databases;
use self::home::mount_of_home;
pub use self::sqlite::holds_database;
pub(super) use self::within::Holder;
use super::packer::LeftOut;
use crate::app::App;
use crate::engine::{Container, Docker, Mount, Mounted, Source, DATA_MOUNT};
use crate::formats::tar::Part;
use crate::process::hinted;
use crate::store::shim::holds_ours;

/// Where n8n keeps its data, below the home directory of its user.
pub(super) const HOME: &str = "/.n8n";
/// What the names of our own directories begin with, at the top of the home and of an archive.
pub(super) const RESERVED: &str = ".n8n-backup-";
/// Holds the other directories in an archive, and in a helper container.
pub(super) const MOUNTS: &str = ".n8n-backup-mounts";

const HOLDS_OURS: &str = "it holds n8n-backup's log, program or scripts";

/// A directory that belongs to n8n's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is mounted.
    pub source: Source,
    /// Where n8n's containers see it; empty when none does.
    pub at: String,
}

/// What n8n's data consist of.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The home.
    pub home: Place,
    /// What is mounted below the home, with the names there.
    pub nested: BTreeMap<String, Place>,
    /// The others.
    pub others: Vec<Place>,
    /// What n8n mounts that lies within one of these, and is a part of that, with its path there.
    pub within: Vec<(Place, String)>,
    /// What holds the home.
    pub around: Vec<Holder>,
    /// What n8n mounts besides, and why that is not backed up.
    pub left_out: Vec<String>,
    /// What a container of n8n keeps for itself in place of what is backed up.
    pub separate: Vec<String>,
    /// What of this is left out since it holds something of ours.
    pub ours: Vec<String>,
    /// What `BACKUP_EXCLUDE_MOUNTS` names of it.
    pub excluded: Vec<String>,
}

/// A directory as a helper container sees it, with its part of an archive.
#[derive(Clone, Debug)]
pub struct Directory {
    /// What it is.
    pub place: Place,
    /// Where a helper container that writes sees it.
    pub target: String,
    /// What an archive has of it.
    pub part: Part,
}

/// Finds what n8n's data consist of.
///
/// # Errors
/// When the home holds what a restore must not replace, such as the backups or PostgreSQL's data, or when the home or
/// what is mounted below it is a part of a volume.
pub fn data_layout(app: &App, docker: &Docker, containers: &[Container]) -> Result<Layout> {
    let config = &app.config;
    // What a worker mounts yields to what n8n's main container does.
    let mut by_rank: Vec<&Container> = containers.iter().collect();
    by_rank.sort_by_key(|container| container.name != config.found.told_by);
    let home = mount_of_home(config, docker, &by_rank);
    home.map_or(Ok(()), check_whole)?;
    let place = |mount: &Mount| {
        Some(Place {
            source: source_of(mount)?,
            at: mount.destination.clone(),
        })
    };
    let explicit = Source::Volume(config.n8n_volume.clone());
    let at = home.map_or_else(String::new, |mount| mount.destination.clone());
    let source = match (config.is_set("BACKUP_N8N_VOLUME"), home.and_then(source_of)) {
        (false, Some(source)) => source,
        _ => explicit,
    };
    let mut databases = Databases::new(app, docker, containers);
    if let Source::Directory(_) = &source {
        databases.check_home(&source, &source)?;
    }
    let mut layout = Layout::of(Place { source, at });
    let path_of = |source: &Source| match source {
        Source::Directory(path) => real(path),
        Source::Volume(name) => real(docker.volume_path(name).unwrap_or_default()),
    };
    for mount in by_rank.iter().flat_map(|container| &container.mounts) {
        let Some(place) = place(mount) else { continue };
        let at = &place.at;
        if layout.knows(&place) {
            continue;
        }
        if config.exclude_mounts.contains(at) {
            layout.excluded.push(format!("{at} ({})", place.source));
            continue;
        }
        let why = match () {
            () if *at == layout.home.at || at.ends_with(HOME) => {
                Some("a home of n8n's beside the one that is backed up")
            }
            () if layout.taken(at) => Some("another container of n8n mounts something else there"),
            () => None,
        };
        if let Some(why) = why {
            let text = format!("{at} ({}): {why}", place.source);
            // One that the engine made for a container goes with that.
            let lasts = !matches!(&place.source, Source::Volume(name) if is_anonymous(name));
            // Of a home that is not mounted something else is told.
            let is_told = layout.home.at.is_empty() || layout.separate.contains(&text);
            let is_in_home = || {
                let home = path_of(&layout.home.source);
                home.is_absolute() && path_of(&place.source).starts_with(home)
            };
            if lasts && !is_told && !is_in_home() {
                layout.separate.push(text);
            }
            continue;
        }
        let below = match layout.home.at.as_str() {
            "" => None,
            home => at.strip_prefix(home).and_then(|rest| rest.strip_prefix('/')),
        };
        let is_named = config.include_mounts.contains(at) || config.found.storage_mount == *at;
        let is_n8ns = is_named || below.is_some();
        // What n8n can only read there is the system's, wherever n8n sees it.
        let is_written = is_named || (is_n8ns && !mount.read_only);
        let why = match &place.source {
            // A single file, a socket, a device.
            Source::Directory(path) if is_no_directory(path) => continue,
            Source::Directory(path) if !is_written && system::holds(app, path) => continue,
            Source::Directory(path) if system::fills(app, path) => {
                Some("it is a directory of the system, which a restore must not replace")
            }
            Source::Directory(path) if what_of_project(app, path).is_some() => what_of_project(app, path),
            _ if is_n8ns => None,
            Source::Volume(name) if is_anonymous(name) => Some("its volume has no name"),
            Source::Directory(path) if !is_of_project(app, path) => {
                Some("it lies outside of this directory: BACKUP_INCLUDE_MOUNTS takes it in")
            }
            _ => None,
        };
        let why = match why {
            None => databases.what_is_in(&place.source)?,
            why => why,
        };
        if let Some(why) = why {
            let text = format!("{at} ({}): {why}", place.source);
            if why == HOLDS_OURS {
                layout.ours.push(text.clone());
            }
            layout.left_out.push(text);
            continue;
        }
        match below {
            Some(below) => {
                check_whole(mount)?;
                layout.nested.insert(below.to_owned(), place.clone());
            }
            None => match part_of_volume(mount) {
                // Several containers may mount it.
                Some(text) if layout.separate.contains(&text) => {}
                Some(text) => layout.separate.push(text),
                None => layout.others.push(place),
            },
        }
    }
    if layout.places().nth(1).is_some() {
        layout.take_once(path_of);
    }
    if let Some(file) = &config.found.sqlite {
        // A database in there would have to stay, too.
        if layout.database(&file.path).is_none() {
            let of_database = |holder: &&mut Holder| is_within(&file.path, &holder.place.at);
            layout
                .around
                .iter_mut()
                .filter(of_database)
                .for_each(|holder| holder.stays = None);
        }
    }
    Ok(layout)
}

impl Layout {
    /// A home with nothing besides.
    fn of(home: Place) -> Self {
        Self {
            home,
            nested: BTreeMap::new(),
            others: Vec::new(),
            within: Vec::new(),
            around: Vec::new(),
            left_out: Vec::new(),
            separate: Vec::new(),
            ours: Vec::new(),
            excluded: Vec::new(),
        }
    }

    /// Where n8n's directory is within the home, which is mounted above it.
    pub fn home_below<'a>(&self, directory: &'a str) -> Option<&'a str> {
        let path = directory.strip_prefix(self.home.at.trim_end_matches('/'))?;
        let path = path.strip_prefix('/')?;
        (!self.home.at.is_empty() && !path.is_empty()).then_some(path)
    }

    /// What an archive calls a path in n8n's containers.
    fn name_of(&self, path: &str) -> String {
        if path == self.home.at {
            return String::new();
        }
        if let Some(name) = self.home_below(path) {
            return name.to_owned();
        }
        let outer = self.others.iter().filter_map(|place| {
            let rest = Path::new(path).strip_prefix(&place.at).ok()?;
            Some((place.at.len(), Path::new(&stored(&place.at)).join(rest)))
        });
        let outer = outer.max_by_key(|(length, _)| *length);
        outer.map_or_else(|| stored(path), |(_, name)| name.display().to_string())
    }

    /// Everything, in two: what is in the home, and the others.
    pub fn by_home(&self) -> (Vec<&Place>, Vec<&Place>) {
        let within = self.within.iter().map(|(place, there)| (place, there));
        let around = self.replaced_around().map(|(place, _)| (place, &place.at));
        let all = self
            .places()
            .map(|place| (place, &place.at))
            .chain(within)
            .chain(around);
        let (home, others): (Vec<_>, Vec<_>) =
            all.partition(|(_, at)| **at == self.home.at || self.home_below(at).is_some());
        let places = |all: Vec<(_, _)>| all.into_iter().map(|(place, _)| place).collect();
        (places(home), places(others))
    }

    /// Whether another container mounts the same.
    fn knows(&self, place: &Place) -> bool {
        self.places().any(|known| known.source == place.source)
    }

    /// Where every directory is, the home first.
    fn places(&self) -> impl Iterator<Item = &Place> {
        [&self.home].into_iter().chain(self.nested.values()).chain(&self.others)
    }

    /// Whether something is mounted at this path.
    fn taken(&self, at: &str) -> bool {
        self.nested.values().chain(&self.others).any(|known| known.at == at)
    }

    /// Every directory, the home first.
    pub fn directories(&self) -> Vec<Directory> {
        let below = |dir: &str| -> Vec<String> {
            let names = self.nested.keys().filter(|name| is_within(name, dir) && *name != dir);
            names.cloned().collect()
        };
        let home = Directory {
            place: self.home.clone(),
            target: DATA_MOUNT.to_owned(),
            part: self.home_part(),
        };
        let nested = self.nested.iter().map(|(name, place)| Directory {
            place: place.clone(),
            target: format!("/{}", stored(&place.at)),
            part: Part {
                below: name.clone(),
                emptied: below(name),
                ..Part::default()
            },
        });
        let others = self.others.iter().map(apart_directory);
        let around = self.replaced_around().map(|(place, stays)| {
            let mut directory = apart_directory(place);
            directory.part.without.clone_from(stays);
            directory
        });
        std::iter::once(home)
            .chain(nested)
            .chain(others)
            .chain(around)
            .collect()
    }

    /// What an archive has of the home.
    pub fn home_part(&self) -> Part {
        Part {
            below: String::new(),
            emptied: self.nested.keys().cloned().collect(),
            hidden: RESERVED,
            ..Part::default()
        }
    }

    /// What a helper container mounts to read everything at its place.
    pub fn reading(&self) -> Vec<Mounted> {
        let mount = |place: &Place, target: String| Mounted {
            source: place.source.clone(),
            target,
            read_only: true,
            makes: false,
        };
        let home = Mounted {
            // Where n8n has never run, the engine makes the directories that the others are mounted at.
            read_only: self.nested.is_empty(),
            ..mount(&self.home, DATA_MOUNT.to_owned())
        };
        let nested = self
            .nested
            .iter()
            .map(|(name, place)| mount(place, format!("{DATA_MOUNT}/{name}")));
        let others = self
            .apart()
            .map(|place| mount(place, format!("/{}", stored(&place.at))));
        std::iter::once(home).chain(nested).chain(others).collect()
    }

    /// The other directories, as an archive names them.
    pub fn stored(&self) -> Vec<String> {
        self.apart().map(|place| format!("./{}", stored(&place.at))).collect()
    }

    /// What an archive holds beside the home.
    fn apart(&self) -> impl Iterator<Item = &Place> {
        self.others.iter().chain(self.around.iter().map(|holder| &holder.place))
    }

    /// Why a restore leaves out a directory that an archive has in place of `at`, if it does.
    pub fn why_left_out(&self, at: &str, excluded: &[String], mounted: bool) -> Option<&'static str> {
        let is_restored = |place: &Place| place.at == at;
        match () {
            () if self.others.iter().any(is_restored) => None,
            // The outer one brings it; else the archive is refused.
            () if self.within.iter().any(|(place, _)| is_restored(place)) => None,
            () if excluded.iter().any(|excluded| excluded == at) => Some("which BACKUP_EXCLUDE_MOUNTS names"),
            () if self.replaced_around().any(|(place, _)| is_restored(place)) => None,
            () if self.around.iter().any(|holder| is_restored(&holder.place)) => {
                Some("which holds n8n's home here and cannot be replaced: unpack that with tar, as docs/beyond.md says")
            }
            () if mounted => {
                Some("which is not replaced here, as doctor says: unpack that with tar, as docs/beyond.md says")
            }
            () => Some("which no container of n8n mounts"),
        }
    }

    /// What a helper container mounts to write: each directory by itself.
    pub fn writing(&self) -> Vec<Mounted> {
        let mounted = |directory: Directory| Mounted {
            source: directory.place.source,
            target: directory.target,
            read_only: false,
            makes: false,
        };
        self.directories().into_iter().map(mounted).collect()
    }
}

/// Whether it is a directory that this host surely lacks; the engine's may be another one.
pub(super) fn is_missing(source: &Source) -> bool {
    matches!(source, Source::Directory(path) if Path::new(path).try_exists().is_ok_and(|exists| !exists))
}

/// What SQLite keeps beside a database.
const BESIDE: [&str; 4] = ["", "-wal", "-shm", "-journal"];

impl Directory {
    /// What an archive leaves out for a database in SQLite that is called so in the directory.
    pub fn left_out(&self, within: &str) -> LeftOut {
        let below = match self.part.below.as_str() {
            "" => String::new(),
            below => format!("{below}/"),
        };
        let name = format!("./{below}{within}");
        LeftOut {
            files: BESIDE.iter().map(|end| format!("{name}{end}")).collect(),
            dir: name.rfind('/').map_or_else(String::new, |at| name[..at].to_owned()),
            contents: Vec::new(),
        }
    }
}

/// One that an archive holds beside the home.
fn apart_directory(place: &Place) -> Directory {
    Directory {
        place: place.clone(),
        target: format!("/{}", stored(&place.at)),
        part: Part {
            below: stored(&place.at),
            ..Part::default()
        },
    }
}

/// Where an archive holds another directory: its path in the container, as one name.
pub(super) fn stored(at: &str) -> String {
    let name = at.replace('%', "%25").replace('/', "%2F");
    format!("{MOUNTS}/{name}")
}

/// The path in the container of a member that is another directory in an archive, if the name is that of one.
pub(super) fn path_of_stored(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let rest = name.strip_prefix(MOUNTS)?.strip_prefix('/')?;
    (!rest.contains('/')).then(|| rest.replace("%2F", "/").replace("%25", "%"))
}

/// All other directories in an archive.
pub(super) fn stored_part() -> Part {
    Part {
        below: MOUNTS.to_owned(),
        ..Part::default()
    }
}

/// What a mount is, where it is a part of a volume: helper containers would show all of that, and a restore would
/// replace it.
fn part_of_volume(mount: &Mount) -> Option<String> {
    let subpath = mount.subpath.as_ref()?;
    let (at, volume) = (&mount.destination, &mount.name);
    let text = format!(
        "{at} is a part of the volume {volume} ({subpath}), which can be neither backed up nor restored by itself"
    );
    Some(text)
}

/// Refuses a part of a volume as n8n's home, or below that.
fn check_whole(mount: &Mount) -> Result<()> {
    match part_of_volume(mount) {
        None => Ok(()),
        Some(text) => bail!(hinted(
            text,
            "have n8n mount all of a volume there, without subpath; or, below n8n's home, leave it out by \
             BACKUP_EXCLUDE_MOUNTS"
        )),
    }
}

pub(super) fn source_of(mount: &Mount) -> Option<Source> {
    match (mount.name.as_str(), mount.directory.as_str()) {
        ("", "") => None,
        ("", directory) => Some(Source::Directory(directory.to_owned())),
        (name, _) => Some(Source::Volume(name.to_owned())),
    }
}

/// Whether a path is `dir`, or below it.
fn is_within(path: &str, dir: &str) -> bool {
    Path::new(path).starts_with(dir)
}

/// Whether this host knows it as something else than a directory. The engine's host may be another one.
fn is_no_directory(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_dir())
}

/// A path without links, as far as it is there.
fn real(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    fs::canonicalize(path).unwrap_or_else(|_| match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => real(above).join(name),
        _ => path.to_owned(),
    })
}

pub(super) fn is_of_project(app: &App, path: &str) -> bool {
    let path = real(path);
    path.starts_with(&app.config.project) && path != app.config.project
}

/// Why a directory is not to be replaced as a whole, where it is the project's.
fn what_of_project(app: &App, path: &str) -> Option<&'static str> {
    let (path, backups) = (real(path), app.store.root());
    let backups = fs::canonicalize(backups).unwrap_or_else(|_| backups.to_owned());
    match () {
        () if path.starts_with(&backups) || backups.starts_with(&path) => Some("it holds the backups"),
        () if app.config.project.starts_with(&path) => Some("it holds this directory"),
        () if holds_ours(&app.config.project, &path) => Some(HOLDS_OURS),
        () => None,
    }
}

/// Whether the engine has made the name up.
fn is_anonymous(volume: &str) -> bool {
    volume.len() == 64 && volume.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
