//! What a recovery point remembers of the stack, for when n8n's containers are gone, or the engine is not asked.

use std::fs;
use std::path::{Component, PathBuf};

use super::values::check_defaults;
use super::{Problem, N8N_CONTAINERS, OF_CONTAINERS, PROJECT};
use crate::app::App;
use crate::config::{Composed, Found, SqliteFile};
use crate::engine::describe::Described;
use crate::store::manifest::{Point, UNUSED};
use crate::store::{Kind, Stamp, SET_SUFFIX};

/// The facts of a recovery point that tell of the stack begin so.
const PREFIX: &str = "stack.";
/// What a recovery point is to remember of the stack. No secret is among it.
pub fn facts(app: &App) -> Vec<(String, String)> {
    let config = &app.config;
    let found = &config.found;
    if !found.is_told() {
        return Vec::new();
    }
    let unused: Vec<&str> = found.unused.iter().map(|kind| kind.name()).collect();
    let port = config.postgres_port.map(|port| port.to_string());
    let sqlite = found.sqlite.clone().unwrap_or_default();
    [
        (UNUSED.to_owned(), unused.join(" ")),
        (format!("{PREFIX}project"), found.project.clone()),
        (format!("{PREFIX}n8n"), config.n8n_containers.join(" ")),
        (format!("{PREFIX}postgres"), config.postgres_container.clone()),
        (format!("{PREFIX}postgres.user"), config.postgres_user.clone()),
        (format!("{PREFIX}postgres.db"), config.postgres_db.clone()),
        (format!("{PREFIX}postgres.port"), port.unwrap_or_default()),
        (format!("{PREFIX}sqlite"), sqlite.path),
        (format!("{PREFIX}sqlite.home"), sqlite.in_home),
        (format!("{PREFIX}redis"), config.redis_container.clone()),
        (format!("{PREFIX}redis.port"), config.redis_port.to_string()),
        (format!("{PREFIX}volume"), config.n8n_volume.clone()),
        (format!("{PREFIX}schema"), found.schema.clone()),
        (format!("{PREFIX}prefix"), found.table_prefix.clone()),
        (format!("{PREFIX}compose.files"), listed(&found.compose.files)),
        (format!("{PREFIX}compose.env"), listed(&found.compose.env_files)),
        (format!("{PREFIX}services"), found.compose.services.join(" ")),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

/// Paths as Compose's labels list them.
fn listed(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    names.join(",")
}

/// How Compose created n8n's containers, as a point remembers it; no path leads out of the project directory.
pub fn composed(point: &Point) -> Composed {
    let fact = |name: &str| point.fact(&format!("{PREFIX}{name}")).unwrap_or_default();
    let files = |name: &str| -> Vec<PathBuf> {
        let names = fact(name).split(',').filter(|name| !name.is_empty()).map(PathBuf::from);
        let is_inside = |file: &PathBuf| file.components().all(|part| matches!(part, Component::Normal(_)));
        names.filter(is_inside).collect()
    };
    Composed {
        files: files("compose.files"),
        env_files: files("compose.env"),
        services: fact("services").split_whitespace().map(str::to_owned).collect(),
    }
}

/// The newest point, by the names alone: there may be thousands.
fn newest(app: &App) -> Option<Point> {
    let sets = fs::read_dir(app.store.sets_dir()).ok()?;
    let names = sets
        .flatten()
        .map(|item| item.file_name().to_string_lossy().into_owned());
    let mut stamps: Vec<Stamp> = names
        .filter_map(|name| Stamp::parse(name.strip_suffix(SET_SUFFIX)?))
        .collect();
    stamps.sort_unstable_by(|a, b| b.cmp(a));
    stamps
        .into_iter()
        .find_map(|stamp| Point::load(&app.store.set_path(stamp)).ok())
}

/// The names of n8n's containers that the newest point remembers, perhaps none; `None` where there is no point.
pub(super) fn names(app: &App) -> Option<Vec<String>> {
    let point = newest(app)?;
    let names = point.fact(&format!("{PREFIX}n8n")).unwrap_or_default();
    Some(names.split_whitespace().map(str::to_owned).collect())
}

/// Fills the settings that are not set with what the newest point remembers, if one does; else the defaults hold, as far as
/// they name nobody else's containers. `all` are those of the engine, if it was asked.
pub(super) fn recall(app: &mut App, all: Option<&[Described]>) {
    match newest(app).filter(|point| point.fact(&format!("{PREFIX}n8n")).is_some()) {
        Some(point) => fill(app, &point),
        None => {
            let project = app.config.compose_project.clone();
            let is_there = |all: &[Described]| all.iter().any(|container| container.label(PROJECT) == project);
            if let Some(all) = all {
                if !project.is_empty() && !is_there(all) {
                    let problem = Problem {
                        text: format!("There is no container of the Compose project {project}"),
                        hint: "start it (docker compose up -d), or set BACKUP_COMPOSE_PROJECT in .env to another one"
                            .to_owned(),
                    };
                    app.config
                        .found
                        .problems
                        .extend(OF_CONTAINERS.map(|kind| (kind, problem.clone())));
                }
            }
        }
    }
    if let Some(all) = all {
        check_defaults(app, all);
    }
}

fn fill(app: &mut App, point: &Point) {
    let fact = |name: &str| point.fact(&format!("{PREFIX}{name}")).map(str::to_owned);
    let config = &mut app.config;
    let known = config.clone();
    config.found = Found {
        told_by: format!("recovery point {}", point.stamp),
        project: fact("project").unwrap_or_default(),
        schema: fact("schema").unwrap_or_default(),
        table_prefix: fact("prefix").unwrap_or_default(),
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
    config.found.sqlite = fact("sqlite").map(|path| SqliteFile {
        container: config.n8n_containers.first().cloned().unwrap_or_default(),
        path,
        in_home: fact("sqlite.home").unwrap_or_default(),
    });
    config.postgres_port = config.postgres_port.or_else(|| fact("postgres.port")?.parse().ok());
}
