//! What a recovery point remembers of the stack, for when n8n's containers are gone, or the engine is not asked.

use std::fs;
use std::path::{Component, PathBuf};
use std::time::SystemTime;

use super::values::{check_defaults, password_of_server};
use super::{
    has_compose_file, is_n8n, is_of, Problem, COMPOSE_PROJECT, DIRECTORY, N8N_CONTAINERS, OF_CONTAINERS, PROJECT,
};
use crate::app::App;
use crate::config::{Composed, Directory, Found, SqliteFile};
use crate::engine::describe::Described;
use crate::engine::Docker;
use crate::formats::text::unascii;
use crate::store::identity::is_of_another;
use crate::store::inventory::look_newest_first;
use crate::store::manifest::{Point, UNUSED};
use crate::store::{Kind, Stamp, SET_SUFFIX};

/// The facts of a recovery point that tell of the stack begin so.
const PREFIX: &str = "stack.";
/// Stands for no Compose project.
const NONE: &str = "-";
/// The facts of the projects of servers that are not of n8n's.
const PROJECTS: [(Kind, &str); 2] = [(Kind::Postgres, "postgres.project"), (Kind::Redis, "redis.project")];

/// What a recovery point is to remember of the stack. No secret is among it.
pub fn facts(app: &App) -> Vec<(String, String)> {
    let config = &app.config;
    let found = &config.found;
    if !found.is_told() {
        return Vec::new();
    }
    let unused: Vec<&str> = found.unused.iter().map(|kind| kind.name()).collect();
    let port = config.postgres_port.map(|port| port.to_string());
    let queue_db = config.queue_db.map(|database| database.to_string());
    let sqlite = found.sqlite.clone().unwrap_or_default();
    let projects = PROJECTS.iter().filter_map(|(kind, name)| {
        let project = found.others.get(kind)?;
        let project = if project.is_empty() { NONE } else { project };
        Some((format!("{PREFIX}{name}"), project.to_owned()))
    });
    [
        (UNUSED.to_owned(), unused.join(" ")),
        (format!("{PREFIX}project"), found.project.clone()),
        (format!("{PREFIX}n8n"), config.n8n_containers.join(" ")),
        (format!("{PREFIX}postgres"), config.postgres_container.clone()),
        (format!("{PREFIX}postgres.user"), app.postgres_login().0.to_owned()),
        (format!("{PREFIX}login"), found.login.clone()),
        (format!("{PREFIX}postgres.db"), config.postgres_db.clone()),
        (format!("{PREFIX}postgres.port"), port.unwrap_or_default()),
        (format!("{PREFIX}sqlite"), sqlite.path),
        (format!("{PREFIX}sqlite.home"), sqlite.in_home),
        (format!("{PREFIX}redis"), config.redis_container.clone()),
        (format!("{PREFIX}redis.port"), config.redis_port.to_string()),
        (format!("{PREFIX}redis.db"), queue_db.unwrap_or_default()),
        (format!("{PREFIX}redis.prefix"), config.queue_prefix.clone()),
        (format!("{PREFIX}redis.tls"), config.redis_tls.to_string()),
        (format!("{PREFIX}volume"), config.n8n_volume.clone()),
        (format!("{PREFIX}home"), found.home.clone()),
        (format!("{PREFIX}storage"), found.storage.clone()),
        (format!("{PREFIX}schema"), found.schema.clone()),
        (format!("{PREFIX}prefix"), found.table_prefix.clone()),
        (
            format!("{PREFIX}compose.directory"),
            found.compose.directory.display().to_string(),
        ),
        (format!("{PREFIX}compose.files"), listed(&found.compose.files)),
        (format!("{PREFIX}compose.env"), listed(&found.compose.env_files)),
        (format!("{PREFIX}services"), found.compose.services.join(" ")),
        (format!("{PREFIX}directories"), described(&found.compose.directories)),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .chain(projects)
    .collect()
}

/// Paths as Compose's labels list them.
fn listed(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    names.join(",")
}

/// Directories with what is known of them, as [`directory_in`] reads each.
fn described(directories: &[Directory]) -> String {
    let each = directories.iter().filter_map(|directory| {
        let path = directory.path.to_str()?;
        let owner = directory
            .owner
            .map_or(NONE.to_owned(), |(user, group)| format!("{user}:{group}"));
        let fits = !path.contains([',', '\n', '\r']);
        fits.then(|| format!("{:o} {owner} {path}", directory.mode))
    });
    each.collect::<Vec<_>>().join(",")
}

fn directory_in(text: &str) -> Option<Directory> {
    let (mode, rest) = text.split_once(' ')?;
    let (owner, path) = rest.split_once(' ')?;
    let owner = match owner {
        NONE => None,
        owner => {
            let (user, group) = owner.split_once(':')?;
            Some((user.parse().ok()?, group.parse().ok()?))
        }
    };
    Some(Directory {
        path: PathBuf::from(path),
        mode: u32::from_str_radix(mode, 8).ok()? & 0o777,
        owner,
    })
}

/// How Compose created n8n's containers, as a point remembers it; no path leads out of the project directory.
pub fn composed(point: &Point) -> Composed {
    let fact = |name: &str| point.fact(&format!("{PREFIX}{name}")).map_or_else(String::new, unascii);
    let is_inside = |path: &PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
    let files = |name: &str| -> Vec<PathBuf> {
        let names = fact(name);
        let names = names.split(',').filter(|name| !name.is_empty()).map(PathBuf::from);
        names.filter(is_inside).collect()
    };
    let directory = Some(PathBuf::from(fact("compose.directory"))).filter(is_inside);
    Composed {
        directory: directory.unwrap_or_default(),
        files: files("compose.files"),
        env_files: files("compose.env"),
        services: fact("services").split_whitespace().map(str::to_owned).collect(),
        directories: fact("directories")
            .split(',')
            .filter_map(directory_in)
            .filter(|directory| is_inside(&directory.path))
            .collect(),
    }
}

/// The newest point of this stack. There may be thousands: those alone are read whose names let them be the newest one.
fn newest(app: &App) -> Option<Point> {
    let sets = fs::read_dir(app.store.sets_dir()).ok()?;
    let names = sets
        .flatten()
        .map(|item| item.file_name().to_string_lossy().into_owned());
    let stamps = names.filter_map(|name| Stamp::parse(name.strip_suffix(SET_SUFFIX)?));
    let is_of_another = is_of_another(&app.store);
    let look = |stamp, ()| {
        let point = Point::load(&app.store.set_path(stamp)).ok();
        let point = point.filter(|point| !is_of_another(point));
        Ok(point.map(|point| (point.time(), true, point)))
    };
    let newest = look_newest_first(stamps.map(|stamp| (stamp, ())), SystemTime::now(), look);
    newest.ok()?.into_iter().next()
}

/// The names of n8n's containers that the newest point remembers, perhaps none; `None` where there is no point.
pub(super) fn names(app: &App) -> Option<Vec<String>> {
    let point = newest(app)?;
    let names = point.fact(&format!("{PREFIX}n8n")).unwrap_or_default();
    Some(names.split_whitespace().map(str::to_owned).collect())
}

/// Fills the settings that are not set with what the newest point remembers, if one does; else the defaults hold, as far as
/// they name nobody else's containers. `engine` is the one that was asked, if any was, with its containers.
pub(super) fn recall(app: &mut App, engine: Option<(&Docker, &[Described])>) {
    match newest(app).filter(|point| point.fact(&format!("{PREFIX}n8n")).is_some()) {
        Some(point) => fill(app, &point),
        None => {
            if let Some((_, all)) = engine {
                match app.config.compose_project.is_empty() {
                    true => elsewhere(app, all),
                    false => gone(app, all),
                }
            }
        }
    }
    if let Some((docker, all)) = engine {
        check_defaults(app, all);
        password_of_server(app, docker, all);
    }
}

/// Where the Compose project that a setting names has no container: nothing can be done.
fn gone(app: &mut App, all: &[Described]) {
    let config = &mut app.config;
    let project = &config.compose_project;
    if all.iter().any(|container| container.label(PROJECT) == project) {
        return;
    }
    let problem = Problem {
        text: format!("There is no container of the Compose project {project}"),
        hint: "start it (docker compose up -d), or set BACKUP_COMPOSE_PROJECT in .env to another one".to_owned(),
    };
    let problems = OF_CONTAINERS.map(|kind| (kind, problem.clone()));
    config.found.problems.extend(problems);
}

/// Names the Compose projects of other directories that run n8n, where no container is of this one, and what would be
/// backed up is neither named nor there. A compose file that lies here may be a copy of what runs as another project.
fn elsewhere(app: &mut App, all: &[Described]) {
    let config = &mut app.config;
    let mut projects: Vec<[&str; 2]> = all
        .iter()
        .filter(|container| is_n8n(container) && !container.label(PROJECT).is_empty())
        .map(|container| [PROJECT, DIRECTORY].map(|label| container.label(label)))
        .collect();
    projects.sort_unstable();
    projects.dedup();
    let has_own = all.iter().any(|container| is_of(container, &config.project));
    let Some([first, _]) = projects.first().filter(|_| !has_own) else {
        return;
    };
    let named: Vec<String> = projects.iter().map(|[name, of]| format!("{name} of {of}")).collect();
    let named = named.join(", ");
    let hint = match projects.len() {
        1 => {
            format!("n8n runs in the Compose project {named}: if that is yours, set {COMPOSE_PROJECT}={first} in .env")
        }
        _ => format!("n8n runs in the Compose projects {named}: set {COMPOSE_PROJECT} in .env to yours"),
    };
    let is_down = has_compose_file(&config.project);
    let hint = match is_down {
        true => format!("start the stack of this directory (docker compose up -d); {hint}"),
        false => hint,
    };
    let text = format!("No container of n8n belongs to {}", config.project.display());
    let not_running = |name: &str| format!("Container {name} is not running");
    let is_there = |name: &str| all.iter().any(|container| container.name == name);
    let others = all.iter().filter(|container| is_n8n(container));
    let mut mounts = others.flat_map(|container| &container.mounts);
    let is_mounted = mounts.any(|mount| mount.volume == config.n8n_volume);
    let missing = [
        (
            Kind::Postgres,
            "BACKUP_POSTGRES_CONTAINER",
            is_there(&config.postgres_container),
        ),
        (Kind::Redis, "BACKUP_REDIS_CONTAINER", is_there(&config.redis_container)),
        // What a stack that is down has left can be backed up and restored: a volume that no other n8n mounts.
        (Kind::N8n, "BACKUP_N8N_VOLUME", is_down && !is_mounted),
    ];
    for (kind, setting, is_there) in missing {
        if is_there || config.is_set(setting) || config.is_set(N8N_CONTAINERS) {
            continue;
        }
        let text = match kind {
            // As the contract has it.
            Kind::Postgres if !config.env_file_exists => ".env file not found".to_owned(),
            Kind::Postgres if is_down => not_running(&config.postgres_container),
            Kind::Redis if is_down => not_running(&config.redis_container),
            _ => text.clone(),
        };
        let hint = hint.clone();
        config.found.problems.insert(kind, Problem { text, hint });
    }
}

fn fill(app: &mut App, point: &Point) {
    let fact = |name: &str| point.fact(&format!("{PREFIX}{name}")).map(unascii);
    let config = &mut app.config;
    let known = config.clone();
    config.found = Found {
        told_by: format!("recovery point {}", point.stamp),
        project: fact("project").unwrap_or_default(),
        home: fact("home").unwrap_or_default(),
        storage: fact("storage").unwrap_or_default(),
        schema: fact("schema").unwrap_or_default(),
        table_prefix: fact("prefix").unwrap_or_default(),
        login: fact("login").unwrap_or_default(),
        others: PROJECTS
            .iter()
            .filter_map(|(kind, name)| Some((*kind, fact(name)?.trim_start_matches(NONE).to_owned())))
            .collect(),
        unused: Kind::PARTS.into_iter().filter(|kind| point.is_unused(*kind)).collect(),
        ..Found::default()
    };
    // Borrowed once, so that each field is one of its own.
    let fields = &mut **config;
    let values = [
        ("BACKUP_POSTGRES_CONTAINER", "postgres", &mut fields.postgres_container),
        ("BACKUP_POSTGRES_USER", "postgres.user", &mut fields.postgres_user),
        ("BACKUP_POSTGRES_DB", "postgres.db", &mut fields.postgres_db),
        ("BACKUP_REDIS_CONTAINER", "redis", &mut fields.redis_container),
        ("QUEUE_BULL_PREFIX", "redis.prefix", &mut fields.queue_prefix),
        ("BACKUP_N8N_VOLUME", "volume", &mut fields.n8n_volume),
    ];
    for (setting, name, value) in values {
        if let Some(told) = fact(name).filter(|_| !known.is_set(setting)) {
            *value = told;
        }
    }
    if let Some(names) = fact("n8n").filter(|_| !known.is_set(N8N_CONTAINERS)) {
        config.n8n_containers = names.split_whitespace().map(str::to_owned).collect();
    }
    if let Some(port) = fact("redis.port").and_then(|port| port.parse().ok()) {
        if !known.is_set("BACKUP_REDIS_PORT") {
            config.redis_port = port;
        }
    }
    config.queue_db = config.queue_db.or_else(|| fact("redis.db")?.parse().ok());
    if let Some(tls) = fact("redis.tls").and_then(|tls| tls.parse().ok()) {
        if !known.is_set("BACKUP_REDIS_TLS") {
            config.redis_tls = tls;
        }
    }
    config.found.sqlite = fact("sqlite").map(|path| SqliteFile {
        container: config.n8n_containers.first().cloned().unwrap_or_default(),
        path,
        in_home: fact("sqlite.home").unwrap_or_default(),
    });
    config.postgres_port = config.postgres_port.or_else(|| fact("postgres.port")?.parse().ok());
}

#[cfg(test)]
mod tests {
    use super::super::tests::{app_of, found, stack};
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_server_of_another_project_is_n8ns_also_when_n8n_is_gone() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        std::fs::write(project.join("compose.yaml"), "").unwrap();
        for other in ["shared", ""] {
            let mut all = stack("mine", &project);
            for server in &mut all[..2] {
                server.networks.insert("mine".to_owned(), Vec::new());
                server.labels.clear();
                if !other.is_empty() {
                    server.labels.insert(PROJECT.to_owned(), other.to_owned());
                    server.labels.insert(DIRECTORY.to_owned(), "/srv/shared".to_owned());
                }
            }
            for n8n in &mut all[2..] {
                n8n.env.insert("QUEUE_BULL_REDIS_DB".to_owned(), "3".to_owned());
                n8n.env.insert("DB_POSTGRESDB_HOST".to_owned(), "mine-db-1".to_owned());
                n8n.env
                    .insert("QUEUE_BULL_REDIS_HOST".to_owned(), "mine-cache-1".to_owned());
            }
            let mut app = app_of(&project, "");
            found(&mut app, &all).unwrap();
            let remember = |app: &App, with: &str| {
                let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
                point.set("deleted", "env");
                let facts = facts(app).into_iter().filter(|(name, _)| !name.ends_with(with));
                facts.for_each(|(name, value)| point.set(&name, &value));
                let path = point.path(&app.store);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, point.text()).unwrap();
            };
            let recalled = |all: &[Described]| {
                let mut app = app_of(&project, "");
                found(&mut app, all).unwrap();
                (app.config.found.clone(), app.config.queue_db)
            };
            remember(&app, "none");
            let (told, queue_db) = recalled(&all[..2]);
            assert_eq!(queue_db, Some(3));
            assert!(told.problems.is_empty(), "{:?}", told.problems);
            assert_eq!(told.others, app.config.found.others);
            // One of the same name in yet another project is not meant, nor is it by a point that does not tell.
            let mut third = all[..2].to_vec();
            for server in &mut third {
                server.labels.insert(PROJECT.to_owned(), "third".to_owned());
                server.labels.insert(DIRECTORY.to_owned(), "/srv/third".to_owned());
            }
            assert_eq!(recalled(&third).0.problems.len(), 2);
            remember(&app, ".project");
            assert_eq!(recalled(&all[..2]).0.problems.len(), 2);
        }
    }

    #[test]
    fn what_n8n_is_told_is_remembered_when_it_is_gone() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let mut all = stack("mine", &project);
        for n8n in &mut all[2..] {
            for (name, value) in [
                ("QUEUE_BULL_PREFIX", "my \u{e4}"),
                ("QUEUE_BULL_REDIS_TLS", "true"),
                ("N8N_USER_FOLDER", "/home/node/.n8n/mine"),
                ("N8N_DEFAULT_BINARY_DATA_MODE", "filesystem"),
                ("N8N_STORAGE_PATH", "/home/node/.n8n/files"),
            ] {
                n8n.env.insert(name.to_owned(), value.to_owned());
            }
        }
        let with = |settings: &str, all: &[Described]| {
            let mut app = app_of(&project, settings);
            found(&mut app, all).unwrap();
            let config = &app.config;
            let redis = (config.queue_prefix.clone(), config.redis_tls, config.redis_port);
            let n8n = (config.found.home.clone(), config.found.storage.clone());
            ((redis, n8n), facts(&app))
        };
        let remember = |facts: &[(String, String)]| {
            let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
            point.set("deleted", "env");
            facts.iter().for_each(|(name, value)| point.set(name, value));
            point.write(&app_of(&project, "").store).unwrap();
        };
        let (told, mut facts) = with("", &all);
        assert_eq!(told.0, ("my \u{e4}".to_owned(), true, 6380));
        assert_eq!(told.1 .0, "/home/node/.n8n/mine/.n8n");
        remember(&facts);
        assert_eq!(with("", &all[..2]).0, told);
        let own = "QUEUE_BULL_PREFIX=own\nBACKUP_REDIS_TLS=false\n";
        assert_eq!(with(own, &all[..2]).0 .0, ("own".to_owned(), false, 6380));
        // A point of an earlier version.
        facts.retain(|(name, _)| !name.ends_with(".prefix") && !name.ends_with(".tls"));
        remember(&facts);
        assert_eq!(with("", &all[..2]).0 .0, ("bull".to_owned(), false, 6380));
    }

    #[test]
    fn the_newest_point_is_told_by_its_instant_and_not_by_its_name() {
        let dir = TempDir::new();
        let app = app_of(dir.path(), "");
        for (stamp, begun) in [
            ("20260301_120000", "2026-03-01T12:00:00+00:00"),
            // The clock was put back, or its time zone changed.
            ("20260302_033000", "2026-03-02T01:30:00+00:00"),
            ("20260302_023000", "2026-03-02T02:30:00+00:00"),
            ("29990101_000000", "2999-01-01T00:00:00+00:00"),
        ] {
            let mut point = Point::new(Stamp::parse(stamp).unwrap());
            point.set("begun", begun);
            point.set("deleted", "env");
            point.write(&app.store).unwrap();
        }
        assert_eq!(newest(&app).unwrap().stamp.to_string(), "20260302_023000");
    }
}
