//! Where n8n keeps its home, and its database in SQLite.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::configuration::Configuration;
use super::Stack;
use crate::app::App;
use crate::config::{Config, Found, Secret, SqliteFile};
use crate::engine::describe::{Described, MountPoint};
use crate::engine::{Docker, Exec, Status};
use crate::formats::json::Json;
use crate::store::Kind;

/// n8n's homes of the users root and node, where nothing else tells.
const OF_ROOT: &str = "/root/.n8n";
const OF_NODE: &str = "/home/node/.n8n";

/// Prints the user folder of each process of n8n's that the directory `$1` tells of, as /proc does: of one that runs as
/// another user nobody may read it. Where links make the homes `$2` and `$3` one, no folder tells which it is.
const FOLDERS: &str = r#"[ "$(readlink -f "$2" 2>/dev/null)" != "$(readlink -f "$3" 2>/dev/null)" ] || echo unknown
for process in "$1"/[0-9]*; do
  tr '\0' '\n' <"$process/cmdline" | {
    read -r program
    read -r script
    case "${program##*/} ${script##*/}" in
      'node n8n' | 'n8n '*) tr '\0' '\n' <"$process/environ" | grep -E '^(HOME|N8N_USER_FOLDER)=' || echo unknown ;;
    esac
  }
done 2>/dev/null"#;

/// The mount that a path of a container lies on.
pub(super) fn mount_of<'a>(container: &'a Described, path: &str) -> Option<&'a MountPoint> {
    let above = |mount: &&MountPoint| Path::new(path).starts_with(&mount.destination);
    let mounts = container.mounts.iter().filter(above);
    mounts.max_by_key(|mount| mount.destination.len())
}

/// Where n8n, with this home, keeps its database in SQLite.
fn database_of(main: &Described, home: &str) -> PathBuf {
    let file = main.variable("DB_SQLITE_DATABASE").unwrap_or("database.sqlite");
    // As n8n resolves it.
    let mut path = PathBuf::new();
    for part in Path::new(home).join(file).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// Leaves a database in SQLite that is mounted as a file out of the deployment. It is backed up by itself: n8n writes
/// to it while the deployment is read.
pub(super) fn leave_out_database(found: &mut Found, project: &Path, main: &Described) {
    let path = database_of(main, &home_of(main));
    let holder = path.to_str().and_then(|path| mount_of(main, path));
    if let Some(file) = holder.filter(|holder| Path::new(&holder.destination) == path) {
        let source = fs::canonicalize(&file.source).unwrap_or_default();
        found.deployment.retain(|name| project.join(name) != source);
    }
}

/// Finds the database in n8n's home, or where n8n is told that it is; `mount` is that of the home, and `hint` says what
/// to do where there is none.
fn sqlite(found: &mut Found, main: &Described, home: &str, mount: Option<&MountPoint>, hint: &str) {
    let path = database_of(main, home).display().to_string();
    let by = match main.variable("DB_SQLITE_DATABASE") {
        Some(_) => format!("DB_SQLITE_DATABASE of {}", main.name),
        None => format!("DB_TYPE of {} is not set", main.name),
    };
    found.row("SQLite", &path, by);
    let holder = mount_of(main, &path);
    if holder.is_none() {
        let text = format!(
            "n8n's database {path} is on no volume of {}: it is lost when the container is removed",
            main.name
        );
        found.problem(Kind::Sqlite, text, hint);
    }
    let within = mount.filter(|mount| holder == Some(*mount));
    let in_home = within.and_then(|mount| Path::new(&path).strip_prefix(&mount.destination).ok());
    found.sqlite = Some(SqliteFile {
        container: main.name.clone(),
        in_home: in_home.map(|path| path.display().to_string()).unwrap_or_default(),
        path,
    });
}

/// Where a container of n8n keeps its home. Root's is its own, and an image that names no user runs as root, unless its
/// start script changes to the user node, as earlier ones do: what is mounted tells.
pub(super) fn home_of(container: &Described) -> String {
    let homes = match folder_of(container) {
        Some(folder) => vec![format!("{}/.n8n", folder.trim_end_matches('/'))],
        None if starts_as_root(container) => vec![OF_ROOT.to_owned(), OF_NODE.to_owned()],
        None => vec![OF_NODE.to_owned()],
    };
    let mounted = homes.iter().find(|home| mount_of(container, home).is_some());
    mounted.or(homes.last()).cloned().unwrap_or_default()
}

/// The user folder that a container is told.
fn folder_of(container: &Described) -> Option<&str> {
    let of_n8n = container.variable("N8N_USER_FOLDER");
    of_n8n.or_else(|| container.variable("HOME"))
}

fn starts_as_root(container: &Described) -> bool {
    let user = container.user.split(':').next().unwrap_or_default();
    matches!(user, "" | "root" | "0")
}

/// Whether n8n leaves what is mounted at the home of the user node, or in it, unused, since no start script has changed
/// to that user: its process tells. What does not run tells nothing.
fn passes_over(docker: &Docker, container: &Described, home: &str) -> bool {
    let is_doubtful = folder_of(container).is_none() && starts_as_root(container) && home == OF_NODE;
    if !is_doubtful || container.status != Status::Running {
        return false;
    }
    let words = ["sh", "-c", FOLDERS, "sh", "/proc", OF_ROOT, OF_NODE];
    let ask = docker.exec(&container.id, Exec::default(), &words);
    docker
        .answer("sh", ask, None)
        .is_ok_and(|output| are_of_root(&output.text()))
}

/// Whether all user folders are root's.
fn are_of_root(folders: &str) -> bool {
    !folders.is_empty() && folders.lines().all(|folder| folder == "HOME=/root")
}

/// n8n's key in its `config`, where that is a file of the host which is mounted by itself: no volume holds it. One that
/// cannot be read is told in `warnings`.
fn mounted_key(main: &Configuration<'_>, warnings: &mut Vec<String>) -> Option<Secret> {
    let config = format!("{}/config", home_of(main.container));
    let mount = mount_of(main.container, &config);
    let mount = mount.filter(|mount| mount.destination == config && mount.volume.is_empty())?;
    // What is no file may be a pipe that nobody writes to. A file may be another user's, or on another host.
    if fs::metadata(&mount.source).is_ok_and(|meta| !meta.is_file()) {
        return None;
    }
    let text = main.file(&config);
    if text.is_none() {
        warnings.push(format!(
            "{config} of {}, which is mounted as a file, cannot be read: n8n's key is not backed up with the \
             deployment",
            main.container.name
        ));
    }
    let key = Json::parse(&text?).ok()?.get("encryptionKey")?.as_str()?.to_owned();
    Some(Secret::new(&key)).filter(|_| !key.is_empty())
}

/// Whether n8n's database is in PostgreSQL, and its key is backed up with the deployment.
fn needs_no_home(found: &Found) -> bool {
    found.key.is_some() && !found.uses(Kind::Sqlite) && found.uses(Kind::Env)
}

/// Whether nothing that n8n keeps needs a volume.
fn is_stateless(found: &Found, stack: &Stack<'_>) -> bool {
    let is_file = |mount: &MountPoint| {
        mount.volume.is_empty() && fs::metadata(&mount.source).is_ok_and(|source| !source.is_dir())
    };
    let mut mounts = stack.current().flat_map(|server| &server.mounts);
    needs_no_home(found) && mounts.all(is_file)
}

/// Warns of a home that is no volume, for the reason `why`: the log of a backup says what the deployment lacks.
fn warn_of_home(config: &Config, found: &mut Found, main: &Described, home: &str, why: &str) {
    if config.exclude_mounts.iter().any(|excluded| excluded == home) {
        return;
    }
    found.undeployed.push(format!(
        "n8n's home {home} is no volume of {}{why}: what n8n keeps there goes with the container, as community nodes \
         and binary data in the file system (BACKUP_EXCLUDE_MOUNTS={home} ends this warning)",
        main.name
    ));
}

/// Finds n8n's home, and its key there where nothing else has told it.
pub(super) fn home(app: &mut App, docker: &Docker, found: &mut Found, stack: &Stack<'_>, main: &Configuration<'_>) {
    let config = &mut app.config;
    let mut home = home_of(stack.main);
    let mut hint = "mount a volume there, as n8n's documentation says".to_owned();
    let is_named = config.is_set("BACKUP_N8N_VOLUME");
    let key = match found.key {
        None => mounted_key(main, &mut found.undeployed),
        Some(_) => None,
    };
    let is_asked = key.is_some() || (!is_named && mount_of(stack.main, &home).is_some());
    let passes_over = is_asked && passes_over(docker, stack.main, &home);
    // n8n has made itself another key than one that it passes over.
    if let Some(key) = key.filter(|_| !passes_over) {
        found.key = Some(key);
    }
    if passes_over && !is_named {
        if needs_no_home(found) {
            // A restore can do without root's home. What is mounted may be wanted all the same, with what is beside it.
            let why = format!(", which runs as root and leaves what is mounted at {home} unused");
            warn_of_home(config, found, stack.main, OF_ROOT, &why);
        } else {
            hint = format!(
                "n8n runs as root, and leaves what is mounted at {home} unused: stop it, copy its files out \
                 (docker cp {}:{OF_ROOT} .), have it run as the user node (no 'user: root'), and put them into {home}",
                stack.main.name
            );
            OF_ROOT.clone_into(&mut home);
        }
    }
    found.home.clone_from(&home);
    let mount = mount_of(stack.main, &home);
    if found.uses(Kind::Sqlite) {
        sqlite(found, stack.main, &home, mount, &hint);
    }
    if config.is_set("BACKUP_N8N_VOLUME") {
        return found.row("n8n's data", config.n8n_volume.clone(), "BACKUP_N8N_VOLUME");
    }
    if mount.is_none() && is_stateless(found, stack) {
        found.unused.push(Kind::N8n);
        warn_of_home(config, found, stack.main, &home, "");
        let by = format!("no mount of {}, which is given its key", stack.main.name);
        return found.row("n8n's data", "not kept", by);
    }
    let Some(mount) = mount else {
        return found.problem(
            Kind::N8n,
            format!(
                "n8n's home {home} is no volume of {}: it is lost when the container is removed",
                stack.main.name
            ),
            &hint,
        );
    };
    let by = format!("mount of {} at {}", stack.main.name, mount.destination);
    match mount.volume.as_str() {
        "" => found.row("n8n's data", &mount.source, by),
        volume => {
            found.row("n8n's data", volume, by);
            volume.clone_into(&mut config.n8n_volume);
        }
    }
}

/// Finds where n8n keeps binary data, where it keeps them in the file system and not in its home by itself.
pub(super) fn storage(app: &App, found: &mut Found, main: &Described) {
    let is = |name: &str, value: &str| main.variable(name) == Some(value);
    // n8n 1 keeps them in the database or the memory unless it is told, as n8n 2 does with a queue.
    let is_usual = main.variable("N8N_DEFAULT_BINARY_DATA_MODE").is_none()
        && !is("EXECUTIONS_MODE", "queue")
        && !["0.", "1."].iter().any(|old| main.container.version.starts_with(old));
    let modes = ["N8N_DEFAULT_BINARY_DATA_MODE", "N8N_EXECUTION_DATA_STORAGE_MODE"];
    let told = ["N8N_BINARY_DATA_STORAGE_PATH", "N8N_STORAGE_PATH"]
        .iter()
        .find_map(|name| Some((name, main.variable(name)?)));
    let Some((variable, path)) = told.filter(|_| is_usual || modes.iter().any(|mode| is(mode, "filesystem"))) else {
        return;
    };
    path.clone_into(&mut found.storage);
    match mount_of(main, path) {
        Some(mount) if holds_more(app, found, main, mount) => {
            let at = &mount.destination;
            let is_told = !app
                .config
                .exclude_mounts
                .iter()
                .any(|excluded| excluded == at || excluded == path);
            if is_told {
                found.undeployed.push(format!(
                    "n8n keeps binary data in {path} ({variable} of {}), which is not backed up, since {} at {at} may \
                     hold more, all of which a restore would replace: mount a directory of its own at {path}, or list \
                     {at} in BACKUP_INCLUDE_MOUNTS (BACKUP_EXCLUDE_MOUNTS={at} ends this warning)",
                    main.name, mount.source
                ));
            }
        }
        Some(mount) => found.storage_mount.clone_from(&mount.destination),
        None if app.config.exclude_mounts.iter().any(|excluded| excluded == path) => {}
        None if !path.starts_with('/') || Path::new(path).starts_with(&found.home) => {}
        None => found.undeployed.push(format!(
            "n8n keeps binary data in {path} ({variable} of {}), which is no volume: they go with the container \
             (BACKUP_EXCLUDE_MOUNTS={path} ends this warning)",
            main.name
        )),
    }
}

/// Whether more than binary data may lie in what they are mounted from, and that is backed up for no other reason: it
/// is a directory of the host outside of the project, neither n8n's home nor below that, which no setting takes in.
fn holds_more(app: &App, found: &Found, main: &Described, mount: &MountPoint) -> bool {
    let source = fs::canonicalize(&mount.source).unwrap_or_else(|_| PathBuf::from(&mount.source));
    let is_of_home =
        mount_of(main, &found.home) == Some(mount) || Path::new(&mount.destination).starts_with(&found.home);
    mount.volume.is_empty()
        && Path::new(&mount.destination) != Path::new(&found.storage)
        && !source.starts_with(&app.config.project)
        && !is_of_home
        && !app.config.include_mounts.contains(&mount.destination)
}

#[cfg(test)]
mod tests;
