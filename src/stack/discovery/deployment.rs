//! The files that a stack is deployed from: its compose files, and what they name in the project directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Stack, COMPOSE_FILES, DIRECTORY, SERVICE};
use crate::config::{Composed, Directory};
use crate::engine::describe::{Described, MountPoint};
use crate::store::shim::{holds_ours, is_shim};

/// The label with Compose's files, comma-separated.
const FILES: &str = "com.docker.compose.project.config_files";
/// The label with the files that Compose takes variables from.
const ENV_FILES: &str = "com.docker.compose.project.environment_file";
/// What is no part of a deployment, though a compose file may name it.
const OURS: [&str; 3] = ["backups", "logs", "bin/n8n-backup"];
/// Where containers have their configuration: a directory that is mounted there is part of the deployment.
const CONFIGURATION: [&str; 3] = ["/docker-entrypoint-initdb.d", "/etc", "/usr/local/etc"];
/// Each host has these of its own.
const SYSTEM: [&str; 18] = [
    "/etc/group",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/etc/ssl",
    "/etc/timezone",
    "/bin",
    "/dev",
    "/lib",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/run",
];
/// The most files, and bytes, that a directory of configuration holds.
const MAX_FILES: usize = 200;
const MAX_BYTES: u64 = 2 << 20;
/// The longest compose file that is read.
const MAX_COMPOSE: u64 = 1 << 20;

/// The files, relative to the project directory: regular ones within it alone. Compose's syntax is not read: whatever a
/// compose file names counts where there is such a file, be it in `env_file`, `configs`, `secrets`, `include`,
/// `extends` or as a mount, seen from the file's directory or the one that Compose works in. Of a build context it is
/// the Dockerfile, and the files that this copies. `.env` of the project directory is backed up by itself. `warnings`
/// gets what is left out, but for what is [`excluded`].
pub(super) fn files(
    project: &Path,
    containers: &[&Described],
    excluded: &[String],
    warnings: &mut Vec<String>,
) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut compose: Vec<PathBuf> = COMPOSE_FILES.iter().map(PathBuf::from).collect();
    let mut works_in = BTreeSet::new();
    for container in containers {
        compose.extend(
            [FILES, ENV_FILES]
                .iter()
                .flat_map(|label| called_with(project, container, label)),
        );
        if let Some(directory) = real_below(project, Path::new(container.label(DIRECTORY))) {
            // Compose reads it without being told.
            compose.push(directory.join(".env"));
            works_in.insert(directory);
        }
        found.extend(
            container
                .mounts
                .iter()
                .filter_map(|mount| within(project, Path::new(&mount.source))),
        );
    }
    let mut unread: Vec<PathBuf> = compose.iter().filter_map(|file| within(project, file)).collect();
    while let Some(file) = unread.pop() {
        if !found.insert(file.clone()) || !is_yaml(&file) {
            continue;
        }
        let path = project.join(&file);
        let is_short = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_COMPOSE);
        let text = if is_short {
            text_of(project, &file, excluded, warnings)
        } else {
            String::new()
        };
        let mut bases = works_in.clone();
        bases.insert(file.parent().unwrap_or(Path::new("")).to_owned());
        let from_each = |name: &str| -> Vec<PathBuf> { bases.iter().map(|base| base.join(name)).collect() };
        let contexts = contexts(&text).flat_map(from_each);
        for context in contexts.filter_map(|context| real_below(project, &context)) {
            for dockerfile in dockerfiles(&text).map(|name| context.join(name)) {
                let Some(dockerfile) = within(project, &dockerfile) else {
                    continue;
                };
                let text = text_of(project, &dockerfile, excluded, warnings);
                let mut left_out = add_context(project, &context, &dockerfile, &text, &mut found);
                let path = |name: &String| project.join(&context).join(name.trim_matches('/'));
                left_out.retain(|name| !is_excluded(&path(name), excluded));
                if !left_out.is_empty() {
                    let left_out = left_out.join(" ");
                    tell(
                        warnings,
                        format!("{} copies what is not backed up: {left_out}", dockerfile.display()),
                    );
                }
            }
        }
        for word in words(&text) {
            let paths = from_each(word);
            let inside: Vec<PathBuf> = paths.iter().filter_map(|path| within(project, path)).collect();
            for path in paths.iter().filter(|_| inside.is_empty()) {
                let warning = outside(project, path, excluded).or_else(|| hidden(project, path, excluded));
                warning.into_iter().for_each(|warning| tell(warnings, warning));
            }
            unread.extend(inside);
        }
    }
    found.into_iter().collect()
}

/// What no warning is to name, by its path on this host. A path that a setting lists is one in a container where a container
/// mounts something there, and nothing of the same name on this host is meant.
pub(super) fn excluded<'a>(named: &[String], containers: impl Iterator<Item = &'a Described>) -> Vec<String> {
    let mounts: Vec<&MountPoint> = containers.flat_map(|container| &container.mounts).collect();
    let here = |name: &String| {
        // A tmpfs has none, and every path begins with the empty one.
        let there = mounts
            .iter()
            .filter(|mount| mount.destination == *name && !mount.source.is_empty());
        let sources: Vec<String> = there.map(|mount| mount.source.clone()).collect();
        match sources.is_empty() {
            true => vec![name.clone()],
            false => sources,
        }
    };
    named.iter().flat_map(here).collect()
}

fn is_excluded(path: &Path, excluded: &[String]) -> bool {
    // It may be named with `..`, or by a link.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_it = |excluded: &String| {
        let there = fs::canonicalize(excluded).is_ok_and(|excluded| real.starts_with(excluded));
        path.starts_with(excluded) || there
    };
    excluded.iter().any(is_it)
}

/// Adds a warning of what is left out, once, with how to end it.
fn tell(warnings: &mut Vec<String>, what: String) {
    let warning = format!("{what} (its path on this host in BACKUP_EXCLUDE_MOUNTS ends this warning)");
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

/// The warning of a file that is named and not part of the deployment, as a secret in another place of the host.
fn outside(project: &Path, file: &Path, excluded: &[String]) -> Option<String> {
    let path = project.join(file);
    if is_excluded(&path, excluded) {
        return None;
    }
    let real = path.canonicalize().ok()?;
    let is_of_system = |path: &Path| SYSTEM.iter().any(|dir| path.starts_with(dir));
    let is_left = real.is_file() && below(project, file).is_none() && !is_of_system(&path) && !is_of_system(&real);
    is_left.then(|| not_below(&file.display().to_string(), "which the deployment names"))
}

/// The warning of what is named below the project directory, in a directory that may not be looked into.
fn hidden(project: &Path, file: &Path, excluded: &[String]) -> Option<String> {
    let path = project.join(file);
    let error = path.symlink_metadata().err()?;
    let is_told = path.starts_with(project) && !is_excluded(&path, excluded);
    let is_hidden = is_told && error.kind() == ErrorKind::PermissionDenied;
    is_hidden.then(|| {
        format!(
            "{}, which the deployment names, is not backed up with it: it cannot be looked at ({error})",
            file.display()
        )
    })
}

/// The text of a compose file or Dockerfile, which tells what else belongs to the deployment.
fn text_of(project: &Path, file: &Path, excluded: &[String], warnings: &mut Vec<String>) -> String {
    let path = project.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| {
        if !is_excluded(&path, excluded) {
            let what = format!(
                "What {} names is not backed up with the deployment: that file cannot be read ({error})",
                file.display()
            );
            tell(warnings, what);
        }
        String::new()
    })
}

fn not_below(file: &str, what: &str) -> String {
    format!(
        "{file}, {what}, is not backed up with the deployment: it is no regular file below this directory; put it there, or keep \
         a copy of it by other means"
    )
}

/// The files in the directories of configuration that other containers than n8n's mount, and the user's own in those of
/// ours that n8n mounts, which are not n8n's data. `warnings` gets which of the latter are left out, but for `excluded`
/// places.
pub(super) fn mounted_files(
    project: &Path,
    containers: &[&Described],
    stack: &Stack<'_>,
    excluded: &[String],
    warnings: &mut Vec<String>,
) -> Vec<PathBuf> {
    let is_n8n = |container: &Described| stack.servers.iter().any(|server| server.id == container.id);
    let others = containers.iter().filter(|container| !is_n8n(container));
    let mounts = others.flat_map(|container| &container.mounts);
    let mut found: Vec<PathBuf> = mounts.filter_map(|mount| small(project, mount)).flatten().collect();
    let mounts = stack.servers.iter().flat_map(|server| &server.mounts);
    let binds = mounts.filter(|mount| mount.volume.is_empty());
    let dirs: BTreeMap<PathBuf, bool> = binds
        .filter_map(|mount| {
            Some((
                directory(project, &mount.source)?,
                excluded.contains(&mount.destination),
            ))
        })
        .map(|(dir, is_excluded)| (PathBuf::from(dir), is_excluded))
        .filter(|(dir, _)| dir != Path::new("logs") && holds_ours(project, &project.join(dir)))
        .collect();
    for (dir, is_excluded) in dirs {
        match files_of(project, &dir) {
            Some(files) => found.extend(files),
            None if is_excluded => {}
            None => warnings.push(format!(
                "{} holds more files than are backed up with the deployment, and n8n's data leave it out, since n8n-backup is \
                 in there: have n8n mount a directory of its own",
                dir.display()
            )),
        }
    }
    found
}

/// The files of a directory of the project that a container mounts as configuration, unless they are too many or too
/// large.
fn small(project: &Path, mount: &MountPoint) -> Option<Vec<PathBuf>> {
    let is_configuration = CONFIGURATION
        .iter()
        .any(|dir| Path::new(&mount.destination).starts_with(dir));
    if !mount.volume.is_empty() || !is_configuration {
        return None;
    }
    files_of(project, directory(project, &mount.source)?.as_ref())
}

/// The files of a directory of the project that are the user's, unless they are too many or too large.
fn files_of(project: &Path, dir: &Path) -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut bytes = 0_u64;
    let mut unread = vec![project.join(dir)];
    while let Some(dir) = unread.pop() {
        let Ok(items) = fs::read_dir(&dir) else {
            // `readable` tells of it.
            files.extend(dir.strip_prefix(project).map(Path::to_owned));
            continue;
        };
        for item in items.flatten() {
            let meta = item.metadata().ok()?;
            if is_ours(project, &item.path()) {
                continue;
            }
            match within(project, &item.path()) {
                Some(file) => files.push(file),
                None if meta.is_dir() => unread.push(item.path()),
                None => {}
            }
            bytes = bytes.saturating_add(if meta.is_file() { meta.len() } else { 0 });
            if bytes > MAX_BYTES || files.len().max(unread.len()) > MAX_FILES {
                return None;
            }
        }
    }
    Some(files)
}

/// Those of the files that can be read; `warnings` gets the others, but for what is [`excluded`].
pub(super) fn readable(
    project: &Path,
    mut files: Vec<PathBuf>,
    excluded: &[String],
    warnings: &mut Vec<String>,
) -> Vec<PathBuf> {
    files.retain(|file| {
        let path = project.join(file);
        let error = fs::File::open(&path).err();
        if let Some(error) = error.as_ref().filter(|_| !is_excluded(&path, excluded)) {
            let what = format!(
                "{} is not backed up with the deployment: it cannot be read ({error})",
                file.display()
            );
            tell(warnings, what);
        }
        error.is_none()
    });
    files
}

/// What Compose was called with and [`files`] leaves out, each with a warning, but for what is [`excluded`]: without it the
/// stack cannot be deployed again.
pub(super) fn left_out(project: &Path, containers: &[&Described], excluded: &[String]) -> Vec<String> {
    let labels = containers
        .iter()
        .flat_map(|container| [FILES, ENV_FILES].map(|label| called_with(project, container, label)));
    let called: BTreeSet<PathBuf> = labels.flatten().collect();
    let left = called
        .into_iter()
        .filter(|file| below(project, file).is_none() && !is_excluded(&project.join(file), excluded));
    let called = left.map(|file| not_below(&file.display().to_string(), "with which Compose was called"));
    let mounts = containers.iter().flat_map(|container| &container.mounts);
    let files = mounts.filter(|mount| mount.volume.is_empty());
    let mounted: BTreeSet<String> = files
        .filter_map(|mount| outside(project, Path::new(&mount.source), excluded))
        .collect();
    let mut warnings = Vec::new();
    called.chain(mounted).for_each(|what| tell(&mut warnings, what));
    warnings
}

/// The build contexts in a compose file.
fn contexts(text: &str) -> impl Iterator<Item = &str> {
    values(text, &["build", "context"])
}

/// What may be the name of a Dockerfile of a compose file.
fn dockerfiles(text: &str) -> impl Iterator<Item = &str> {
    values(text, &["dockerfile"]).chain(["Dockerfile"])
}

/// The words that follow one of these keys.
fn values<'a>(text: &'a str, keys: &'static [&str]) -> impl Iterator<Item = &'a str> {
    let pairs = words(text).zip(words(text).skip(1));
    pairs.filter(|(key, _)| keys.contains(key)).map(|(_, value)| value)
}

/// Adds a Dockerfile, what goes with it, and the files of its context that it copies. Gives what else it copies.
fn add_context(
    project: &Path,
    context: &Path,
    dockerfile: &Path,
    text: &str,
    found: &mut BTreeSet<PathBuf>,
) -> Vec<String> {
    found.insert(dockerfile.to_owned());
    found.extend(within(project, &context.join(".dockerignore")));
    let text = text.replace("\\\n", " ");
    let mut left_out = Vec::new();
    for line in text.lines() {
        let mut words: Vec<&str> = line
            .split([' ', '\t', '"', ',', '[', ']'])
            .filter(|word| !word.is_empty())
            .collect();
        let copies = words
            .first()
            .is_some_and(|word| ["COPY", "ADD"].contains(&&*word.to_ascii_uppercase()));
        if !copies
            || words
                .iter()
                .any(|word| word.starts_with("--from=") || word.starts_with("<<"))
        {
            continue;
        }
        // The last one is where it goes.
        words.pop();
        let sources = words.into_iter().skip(1);
        for source in sources.filter(|word| !word.starts_with("--") && !word.contains("://")) {
            // A path of a context begins there in any case.
            match within(project, &context.join(source.trim_start_matches('/'))) {
                Some(file) => drop(found.insert(file)),
                None => left_out.push(source.to_owned()),
            }
        }
    }
    left_out
}

/// The path from the project directory of a directory below it, or of itself; an empty name is none.
fn real_below(project: &Path, directory: &Path) -> Option<PathBuf> {
    let path = project.join(directory).canonicalize().ok()?;
    let relative = path.strip_prefix(project).ok()?;
    (path.is_dir() && !directory.as_os_str().is_empty()).then(|| relative.to_owned())
}

/// The path from the project directory of a directory below it that a container mounts.
fn directory(project: &Path, source: &str) -> Option<String> {
    let relative = real_below(project, Path::new(source))?;
    (!relative.as_os_str().is_empty()).then(|| relative.display().to_string())
}

/// What a container of another program keeps in volumes, and in directories of the project, as far as it is not in the
/// deployment and n8n does not see it too.
pub(super) fn uncovered(other: &Described, stack: &Stack<'_>, project: &Path) -> Option<String> {
    let kept = mounted(other, stack, project, |_| true);
    (!kept.is_empty()).then(|| {
        let name = &other.name;
        format!("{name} is not n8n's, and its data are not backed up: {kept}")
    })
}

/// The directories of the project that a server of n8n's mounts besides its data, as far as they are not in the
/// deployment.
pub(super) fn beside_data(server: &Described, stack: &Stack<'_>, project: &Path) -> Option<String> {
    let is_data = |at: &str| {
        let data = server
            .variable("PGDATA")
            .is_some_and(|data| Path::new(data).starts_with(at));
        data || at.contains("data") || ["/var/lib", "/bitnami"].iter().any(|dir| at.starts_with(dir))
    };
    let kept = mounted(server, stack, project, |mount| {
        mount.volume.is_empty() && !is_data(&mount.destination)
    });
    (!kept.is_empty()).then(|| format!("{} mounts what is not backed up: {kept}", server.name))
}

/// The volumes, and the directories of the project, that a container mounts, as far as n8n does not see them too.
fn mounted(other: &Described, stack: &Stack<'_>, project: &Path, chosen: impl Fn(&MountPoint) -> bool) -> String {
    let seen = |mount: &MountPoint| {
        let mut mounts = stack.servers.iter().flat_map(|server| &server.mounts);
        mounts.any(|known| known.volume == mount.volume && known.source == mount.source)
    };
    let mounts = other.mounts.iter().filter(|mount| chosen(mount) && !seen(mount));
    let names = mounts.filter_map(|mount| match mount.volume.as_str() {
        "" => directory(project, &mount.source).filter(|_| small(project, mount).is_none()),
        volume => Some(volume.to_owned()),
    });
    names.collect::<Vec<_>>().join(" ")
}

/// The files that a label lists. Compose 1 names them as seen from where it was called: the project directory, or the
/// one that it works in.
fn called_with(project: &Path, container: &Described, label: &str) -> Vec<PathBuf> {
    let works_in = Path::new(container.label(DIRECTORY));
    let names = container.label(label).split(',').filter(|name| !name.is_empty());
    let file = |name: &str| match works_in.join(name) {
        file if below(project, Path::new(name)).is_none() && below(project, &file).is_some() => file,
        _ => PathBuf::from(name),
    };
    names.map(file).collect()
}

/// How Compose was called for n8n's containers, by their labels.
pub(super) fn composed(project: &Path, stack: &Stack<'_>) -> Composed {
    let mut services: Vec<String> = stack
        .current()
        .map(|server| server.label(SERVICE).to_owned())
        .filter(|service| !service.is_empty())
        .collect();
    services.sort_unstable();
    services.dedup();
    let files = |label: &str| -> Option<Vec<PathBuf>> {
        let files = called_with(project, stack.main, label).into_iter();
        files.map(|file| below(project, &file)).collect()
    };
    let directory = real_below(project, Path::new(stack.main.label(DIRECTORY)));
    let called = directory.and_then(|directory| Some((directory, files(FILES)?, files(ENV_FILES)?)));
    let (directory, files, env_files) = called.unwrap_or_default();
    Composed {
        directory,
        files,
        env_files,
        services,
        directories: Vec::new(),
    }
}

/// The directories of the project that containers mount, and those that hold the files, each after what it is in.
pub(super) fn directories(project: &Path, containers: &[&Described], files: &[PathBuf]) -> Vec<Directory> {
    let mounts = containers.iter().flat_map(|container| &container.mounts);
    let binds = mounts.filter(|mount| mount.volume.is_empty());
    let mounted: Vec<PathBuf> = binds
        .filter_map(|mount| directory(project, &mount.source))
        .map(PathBuf::from)
        .collect();
    let holders = files.iter().filter_map(|file| file.parent());
    let paths = mounted.iter().map(PathBuf::as_path).chain(holders);
    let paths: BTreeSet<&Path> = paths.flat_map(Path::ancestors).collect();
    let owner = |meta: &Metadata| (meta.uid(), meta.gid());
    let own = project.metadata().ok();
    let described = |path: &Path| {
        let meta = project.join(path).metadata().ok()?;
        Some(Directory {
            path: path.to_owned(),
            mode: meta.mode() & 0o777,
            owner: Some(owner(&meta)).filter(|found| own.as_ref().map(owner) != Some(*found)),
        })
    };
    paths
        .into_iter()
        .filter(|path| !path.as_os_str().is_empty())
        .filter_map(described)
        .collect()
}

/// What may be the name of a file in a compose file; of a mount, the part before the colon.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split([' ', '\t', '"', '\'', ',', '[', ']', '{', '}', '=']))
        .map(|word| word.split(':').next().unwrap_or_default())
        .filter(|word| !word.is_empty())
}

fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "yaml" || end == "yml")
}

/// A file of the deployment, as its path from the project directory.
fn within(project: &Path, file: &Path) -> Option<PathBuf> {
    let relative = below(project, file)?;
    (!is_ours(project, &project.join(&relative)) && relative != Path::new(".env")).then_some(relative)
}

/// Whether a path of the project is of the backups, the log, or what was installed.
fn is_ours(project: &Path, path: &Path) -> bool {
    let is_below = |ours: &str| path.starts_with(project.join(ours));
    OURS.iter().any(|ours| is_below(ours)) || (is_below("scripts") && is_shim(path))
}

/// A regular file below the project directory, as its path from there.
fn below(project: &Path, file: &Path) -> Option<PathBuf> {
    let path = project.join(file);
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return None;
    }
    // No link on the way leads out, and `..` is gone.
    let path = path.canonicalize().ok()?;
    path.strip_prefix(project).ok().map(Path::to_owned)
}

#[cfg(test)]
mod tests;
