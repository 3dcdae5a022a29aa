//! Where n8n keeps its home, and its database in SQLite.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::Stack;
use crate::app::App;
use crate::config::{Found, Secret, SqliteFile};
use crate::engine::describe::{Described, MountPoint};
use crate::engine::{Docker, Exec, Status};
use crate::formats::json::Json;
use crate::store::Kind;

/// n8n's homes of the users root and node, where nothing else tells.
const OF_ROOT: &str = "/root/.n8n";
const OF_NODE: &str = "/home/node/.n8n";

/// n8n's `config` is a small JSON file.
const MAX_CONFIG: u64 = 64 << 10;

/// Prints the user folder of each process of n8n's that the directory `$1` tells of, as /proc does: of one that runs as
/// another user nobody may read it.
const FOLDERS: &str = r#"for process in "$1"/[0-9]*; do
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

/// Finds the database in n8n's home, or where n8n is told that it is; `mount` is that of the home, and `hint` says what
/// to do where there is none.
fn sqlite(found: &mut Found, project: &Path, main: &Described, home: &str, mount: Option<&MountPoint>, hint: &str) {
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
    let path = path.display().to_string();
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
    if let Some(file) = holder.filter(|holder| Path::new(&holder.destination) == Path::new(&path)) {
        // It is backed up by itself: n8n writes to it while the deployment is read.
        let source = fs::canonicalize(&file.source).unwrap_or_default();
        found.deployment.retain(|name| project.join(name) != source);
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

/// Whether n8n leaves what is mounted at the home of the user node unused, since no start script has changed to that
/// user: its process tells. What does not run tells nothing.
fn passes_over_volume(docker: &Docker, container: &Described, home: &str) -> bool {
    let is_doubtful = folder_of(container).is_none() && starts_as_root(container) && home == OF_NODE;
    if !is_doubtful || mount_of(container, home).is_none() || container.status != Status::Running {
        return false;
    }
    let ask = docker.exec(&container.id, Exec::default(), &["sh", "-c", FOLDERS, "sh", "/proc"]);
    docker
        .answer("sh", ask, None)
        .is_ok_and(|output| are_of_root(&output.text()))
}

/// Whether all user folders are root's.
fn are_of_root(folders: &str) -> bool {
    !folders.is_empty() && folders.lines().all(|folder| folder == "HOME=/root")
}

/// n8n's key in its `config`, where that is a file of this host which is mounted by itself: no volume holds it.
pub(super) fn mounted_key(main: &Described) -> Option<Secret> {
    let config = format!("{}/config", home_of(main));
    let mount = mount_of(main, &config).filter(|mount| mount.destination == config && mount.volume.is_empty())?;
    // What is no file may be a pipe that nobody writes to.
    fs::metadata(&mount.source)
        .ok()
        .filter(|meta| meta.is_file() && meta.len() <= MAX_CONFIG)?;
    let text = fs::read_to_string(&mount.source).ok()?;
    let key = Json::parse(&text).ok()?.get("encryptionKey")?.as_str()?.to_owned();
    Some(Secret::new(&key)).filter(|_| !key.is_empty())
}

/// Whether everything that n8n keeps is in PostgreSQL, and its key is backed up with the deployment.
fn is_stateless(found: &Found, stack: &Stack<'_>) -> bool {
    let is_file = |mount: &MountPoint| {
        mount.volume.is_empty() && fs::metadata(&mount.source).is_ok_and(|source| !source.is_dir())
    };
    let mut mounts = stack.current().flat_map(|server| &server.mounts);
    found.key.is_some() && !found.uses(Kind::Sqlite) && found.uses(Kind::Env) && mounts.all(is_file)
}

/// Finds n8n's home.
pub(super) fn home(app: &mut App, docker: &Docker, found: &mut Found, stack: &Stack<'_>) {
    let config = &mut app.config;
    let mut home = home_of(stack.main);
    let mut hint = "mount a volume there, as n8n's documentation says".to_owned();
    if !config.is_set("BACKUP_N8N_VOLUME") && passes_over_volume(docker, stack.main, &home) {
        hint = format!(
            "n8n runs as root, and leaves what is mounted at {home} unused: stop it, copy its files out \
             (docker cp {}:{OF_ROOT} .), have it run as the user node (no 'user: root'), and put them into {home}",
            stack.main.name
        );
        OF_ROOT.clone_into(&mut home);
    }
    found.home.clone_from(&home);
    let mount = mount_of(stack.main, &home);
    if found.uses(Kind::Sqlite) {
        sqlite(found, &config.project, stack.main, &home, mount, &hint);
    }
    if config.is_set("BACKUP_N8N_VOLUME") {
        return found.row("n8n's data", config.n8n_volume.clone(), "BACKUP_N8N_VOLUME");
    }
    if mount.is_none() && is_stateless(found, stack) {
        found.unused.push(Kind::N8n);
        // The log of a backup says what the deployment lacks.
        if !config.exclude_mounts.contains(&home) {
            found.undeployed.push(format!(
                "n8n's home {home} is no volume of {}: what n8n keeps there goes with the container, as community nodes \
                 and binary data in the file system (BACKUP_EXCLUDE_MOUNTS={home} ends this warning)",
                stack.main.name
            ));
        }
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
mod tests {
    use super::super::tests::{app_of, container, found};
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn two_homes_with_sqlite_are_two_databases() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let of = |service| Some(("mine", project.as_path(), service));
        let mut all = vec![
            container("mine-n8n-1", "n8nio/n8n", &[], &[], of("n8n")),
            container("mine-dev-1", "n8nio/n8n", &[], &[], of("dev")),
        ];
        all[1].mounts[0].source = "/other".to_owned();
        let mut app = app_of(&project, "");
        found(&mut app, &all).unwrap();
        let problem = &app.config.found.problems[&Kind::Sqlite];
        assert!(
            problem.text.contains("not configured to the same database"),
            "{problem:?}"
        );
        let mut app = app_of(&project, "BACKUP_N8N_CONTAINERS=mine-n8n-1\n");
        found(&mut app, &all).unwrap();
        assert!(app.config.found.problems.is_empty());
    }

    #[test]
    fn a_script_of_ones_own_is_n8n_where_no_other_container_surely_is() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let of = |service| Some(("mine", project.as_path(), service));
        let mut all = vec![
            container("mine-helper-1", "n8nio/n8n", &[], &[], of("helper")),
            container("mine-n8n-1", "n8nio/n8n", &[], &[], of("n8n")),
        ];
        all[0].entry_point = vec!["/scripts/run".to_owned()];
        all[0].container.restart = "always".to_owned();
        let names = |settings: &str, all: &[Described]| {
            let mut app = app_of(&project, settings);
            found(&mut app, all).unwrap();
            app.config.n8n_containers.join(" ")
        };
        assert_eq!(names("", &all), "mine-n8n-1");
        assert_eq!(names("", &all[..1]), "mine-helper-1");
        let named = "mine-helper-1 mine-n8n-1";
        assert_eq!(names(&format!("BACKUP_N8N_CONTAINERS=\"{named}\"\n"), &all), named);
        // Its environment tells that it is of this n8n.
        let env = ["DB_TYPE=postgresdb", "DB_POSTGRESDB_HOST=db"];
        let told = |env: &[&str]| container("x", "n8nio/n8n", env, &[], None).env;
        (all[0].env, all[1].env) = (told(&env), told(&env));
        assert_eq!(names("", &all), "mine-n8n-1 mine-helper-1");
        all[0].env = told(&[env[0], "DB_POSTGRESDB_HOST=other"]);
        assert_eq!(names("", &all), "mine-n8n-1");
        // Where nothing tells whose they are, either may be the one that is wanted.
        all.iter_mut().for_each(|one| one.labels.clear());
        let problem = found(&mut app_of(&project, ""), &all).unwrap_err();
        assert!(problem.text.contains("More than one n8n"), "{problem:?}");
    }

    #[test]
    fn the_home_is_where_the_user_has_it() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let home = |user: &str, env: &[&str], at: &str| {
            let mut n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
            n8n.user = user.to_owned();
            n8n.mounts[0].destination = at.to_owned();
            let mut app = app_of(&project, "");
            found(&mut app, &[n8n]).unwrap();
            (app.config.found.home, app.config.found.problems.is_empty())
        };
        let good = |home: &str| (home.to_owned(), true);
        assert_eq!(home("node", &[], "/home/node/.n8n"), good("/home/node/.n8n"));
        for user in ["root", "0", "0:0", ""] {
            assert_eq!(home(user, &[], "/root/.n8n"), good("/root/.n8n"));
            // The start script of earlier images changes the user.
            assert_eq!(home(user, &[], "/home/node/.n8n"), good("/home/node/.n8n"));
        }
        assert_eq!(home("1000", &["HOME=/data"], "/data"), good("/data/.n8n"));
        assert_eq!(
            home("root", &["HOME=/data", "N8N_USER_FOLDER=/f"], "/f"),
            good("/f/.n8n")
        );
        assert!(!home("1000", &["HOME=/data"], "/home/node/.n8n").1);
    }

    /// As /proc tells of them: their words, and what they are told, unless they run as another user.
    #[test]
    fn a_process_of_n8ns_tells_whether_it_works_as_root() {
        let is_root = |processes: &[(&str, Option<&str>)]| {
            let dir = TempDir::new();
            for (number, (words, environment)) in processes.iter().enumerate() {
                let process = dir.path().join((number + 1).to_string());
                fs::create_dir(&process).unwrap();
                fs::write(process.join("cmdline"), words.replace(' ', "\0") + "\0").unwrap();
                if let Some(environment) = environment {
                    fs::write(process.join("environ"), environment.replace(' ', "\0") + "\0").unwrap();
                }
            }
            let sh = std::process::Command::new("sh")
                .args(["-c", FOLDERS, "sh"])
                .arg(dir.path())
                .output()
                .unwrap();
            are_of_root(&String::from_utf8(sh.stdout).unwrap())
        };
        let n8n = "node /usr/local/bin/n8n worker";
        let starter = ("tini -- /docker-entrypoint.sh", Some("HOME=/root A=b"));
        for words in [n8n, "n8n", "/usr/local/bin/node /opt/n8n/bin/n8n"] {
            assert!(
                is_root(&[starter, (words, Some("A=HOME=/x HOME=/root B=c"))]),
                "{words}"
            );
        }
        for environment in [
            None,
            Some("HOME=/home/node"),
            Some("HOME=/root N8N_USER_FOLDER=/data"),
            Some("A=b"),
        ] {
            assert!(!is_root(&[starter, (n8n, environment)]), "{environment:?}");
            // Somebody calls n8n as root beside one that is not.
            let call = ("node /usr/local/bin/n8n export:workflow", Some("HOME=/root"));
            assert!(!is_root(&[starter, (n8n, environment), call]), "{environment:?}");
        }
        // It is about to start, or is something else.
        for words in [
            "su-exec node n8n",
            "chown -R node /home/node/.n8n",
            "node /app/server.js",
            "su node -c n8n",
        ] {
            assert!(!is_root(&[starter, (words, Some("HOME=/root"))]), "{words}");
        }
        assert!(!is_root(&[]));
    }

    #[test]
    fn binary_data_are_where_n8n_is_told_to_keep_them() {
        let dir = TempDir::new();
        let told = |settings: &str, version: &str, env: &[&str]| {
            let mut n8n = container("n8n", "n8nio/n8n", env, &[], None);
            n8n.container.version = version.to_owned();
            let mount = n8n.mounts[0].clone();
            let destination = "/data".to_owned();
            n8n.mounts.push(MountPoint { destination, ..mount });
            let mut app = app_of(dir.path(), settings);
            found(&mut app, &[n8n]).unwrap();
            let found = app.config.found;
            (found.storage_mount, found.undeployed.len())
        };
        let (files, queue) = ("N8N_DEFAULT_BINARY_DATA_MODE=filesystem", "EXECUTIONS_MODE=queue");
        let mounted = ("/data".to_owned(), 0);
        let none = (String::new(), 0);
        for variable in ["N8N_STORAGE_PATH", "N8N_BINARY_DATA_STORAGE_PATH"] {
            let at = |path: &str| format!("{variable}={path}");
            assert_eq!(told("", "1.120.0", &[files, &at("/data/binary")]), mounted);
            assert_eq!(told("", "2.1.0", &[&at("/data")]), mounted);
            assert_eq!(told("", "2.1.0", &[queue, files, &at("/data")]), mounted);
            let lost = at("/lost");
            assert_eq!(told("", "2.1.0", &[&lost]), (String::new(), 1));
            assert_eq!(told("BACKUP_EXCLUDE_MOUNTS=/lost\n", "2.1.0", &[&lost]), none);
            // It keeps them in the database, or in the memory.
            assert_eq!(told("", "2.1.0", &[queue, &lost]), none);
            assert_eq!(told("", "1.120.0", &[&lost]), none);
            assert_eq!(
                told("", "2.1.0", &["N8N_DEFAULT_BINARY_DATA_MODE=database", &lost]),
                none
            );
            let home = ("/home/node/.n8n".to_owned(), 0);
            assert_eq!(told("", "2.1.0", &[&at("/home/node/.n8n/files")]), home);
        }
    }

    #[test]
    fn binary_data_take_in_no_directory_that_may_hold_more() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let told = |settings: &str, source: &Path, at: &str, path: &str| {
            let env = [
                "N8N_DEFAULT_BINARY_DATA_MODE=filesystem",
                &format!("N8N_STORAGE_PATH={path}"),
            ];
            let mut n8n = container("n8n", "n8nio/n8n", &env, &[], None);
            n8n.mounts.push(MountPoint {
                volume: String::new(),
                source: source.display().to_string(),
                destination: at.to_owned(),
            });
            let mut app = app_of(&project, settings);
            found(&mut app, &[n8n]).unwrap();
            let found = app.config.found;
            (!found.storage_mount.is_empty(), found.undeployed.len())
        };
        let (away, path) = (Path::new("/mnt/nas"), "/data/n8n/bin");
        assert_eq!(told("", away, "/data", path), (false, 1));
        assert_eq!(told("BACKUP_EXCLUDE_MOUNTS=/data\n", away, "/data", path), (false, 0));
        assert_eq!(told("BACKUP_INCLUDE_MOUNTS=/data\n", away, "/data", path), (true, 0));
        assert_eq!(told("", away, path, "/data/n8n/bin/"), (true, 0));
        assert_eq!(told("", &project.join("data"), "/data", path), (true, 0));
        let below = "/home/node/.n8n/x";
        assert_eq!(told("", away, below, "/home/node/.n8n/x/bin"), (true, 0));
    }

    #[test]
    fn a_database_that_is_mounted_as_a_file_is_no_file_of_the_deployment() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        std::fs::create_dir(project.join("db")).unwrap();
        for name in ["database.sqlite", "hooks.js"] {
            std::fs::write(project.join("db").join(name), "x").unwrap();
        }
        let mounted = |name: &str| MountPoint {
            volume: String::new(),
            source: project.join("db").join(name).display().to_string(),
            destination: format!("/home/node/.n8n/{name}"),
        };
        let told = |env: &[&str]| {
            let mut n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
            n8n.mounts.extend(["database.sqlite", "hooks.js"].map(mounted));
            let mut app = app_of(&project, "");
            found(&mut app, &[n8n]).unwrap();
            app.config.found.deployment
        };
        assert_eq!(told(&[]), [Path::new("db/hooks.js")]);
        // What is left of an n8n that used SQLite is a file like any other.
        assert_eq!(told(&["DB_TYPE=postgresdb", "DB_POSTGRESDB_HOST=n8n-db"]).len(), 2);
    }

    #[test]
    fn the_key_is_found_in_a_config_that_is_mounted_as_a_file() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let file = project.join("n8n-config.json");
        std::fs::write(&file, r#"{"encryptionKey":"mounted"}"#).unwrap();
        let key = |env: &[&str], source: &Path, at: &str| {
            let mut n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
            n8n.mounts.push(MountPoint {
                volume: String::new(),
                source: source.display().to_string(),
                destination: at.to_owned(),
            });
            let mut app = app_of(&project, "");
            found(&mut app, &[n8n]).unwrap();
            app.config.found.key.map(|key| key.reveal().to_owned())
        };
        let at = "/home/node/.n8n/config";
        assert_eq!(key(&[], &file, at).as_deref(), Some("mounted"));
        assert_eq!(key(&["N8N_ENCRYPTION_KEY=k"], &file, at).as_deref(), Some("k"));
        for (source, at) in [(&file, "/config"), (&project, at), (&project.join("none"), at)] {
            assert_eq!(key(&[], source, at), None);
        }
    }

    #[test]
    fn n8n_that_keeps_nothing_but_its_key_needs_no_volume() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        std::fs::write(project.join(".env"), "A=1\n").unwrap();
        let pg = [
            "DB_TYPE=postgresdb",
            "DB_POSTGRESDB_HOST=n8n-db",
            "N8N_ENCRYPTION_KEY=k",
        ];
        let with = |settings: &str, env: &[&str], mounts: &[&Path]| {
            let n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
            let mounted = mounts.iter().map(|source| MountPoint {
                volume: String::new(),
                source: source.display().to_string(),
                destination: "/there".to_owned(),
            });
            let mut app = app_of(&project, settings);
            app.config.env_file_exists = true;
            let mounts = mounted.collect();
            found(&mut app, &[Described { mounts, ..n8n }]).unwrap();
            app.config.found
        };
        let of = |env: &[&str], mounts: &[&Path]| with("", env, mounts);
        let told = of(&pg, &[&project.join(".env")]);
        assert!(!told.uses(Kind::N8n) && !told.problems.contains_key(&Kind::N8n));
        assert!(
            told.undeployed[0].contains("/home/node/.n8n is no volume of mine-n8n-1"),
            "{:?}",
            told.undeployed
        );
        let told = with("BACKUP_EXCLUDE_MOUNTS=/home/node/.n8n\n", &pg, &[&project.join(".env")]);
        assert!(told.undeployed.is_empty(), "{:?}", told.undeployed);
        for told in [
            of(&pg[..2], &[]),
            of(&pg, &[&project]),
            of(&pg, &[Path::new("/no/where")]),
            of(&["N8N_ENCRYPTION_KEY=k"], &[]),
        ] {
            assert!(told.uses(Kind::N8n) && told.problems.contains_key(&Kind::N8n));
        }
    }
}
