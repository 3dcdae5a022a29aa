//! From the configuration of n8n's containers to the settings.

use super::configuration::Configuration;
use super::home::{home, leave_out_database, storage};
use super::hosts::{inner_port, is_proxy, reached};
use super::same::{differ, strangers};
use super::{foreign, is_foreign, is_server, Stack, N8N_CONTAINERS};
use crate::app::App;
use crate::config::{Config, Found, FoundRow, Problem, Secret};
use crate::engine::describe::Described;
use crate::engine::{Docker, Status};
use crate::process::explained;
use crate::store::Kind;

/// Fills the settings that are not set with what the stack's configuration says.
pub(super) fn fill(app: &mut App, docker: &Docker, all: &[Described], stack: &Stack<'_>) {
    let main = Configuration::new(docker, stack.main);
    let mut found = Found {
        told_by: stack.main.name.clone(),
        project: stack.main.label(super::PROJECT).to_owned(),
        schema: "public".to_owned(),
        table_prefix: main.value("DB_TABLE_PREFIX").unwrap_or_default(),
        ..Found::default()
    };
    let names: Vec<String> = stack.current().map(|server| server.name.clone()).collect();
    found.row("n8n", names.join(" "), format!("image {}", stack.main.image));
    if let Some(other) = stack.servers.iter().find(|other| differ(all, stack.main, other)) {
        let problem = Problem {
            text: format!(
                "{} and {} are not configured to the same database",
                stack.main.name, other.name
            ),
            hint: format!("set {N8N_CONTAINERS} in .env to the containers that belong together"),
        };
        found
            .problems
            .extend(super::OF_CONTAINERS.map(|kind| (kind, problem.clone())));
        app.config.found = found;
        return;
    }
    if !app.config.is_set(N8N_CONTAINERS) {
        app.config.n8n_containers = names;
    }
    let of_project = |other: &&Described| !found.project.is_empty() && other.label(super::PROJECT) == found.project;
    let containers: Vec<&Described> = all.iter().filter(of_project).collect();
    let mounting = containers.iter().chain(&stack.servers).copied();
    let excluded = super::deployment::excluded(&app.config.exclude_mounts, mounting);
    found.undeployed = super::deployment::left_out(&app.config.project, &containers, &excluded);
    found.deployment = super::deployment::files(&app.config.project, &containers, &excluded, &mut found.undeployed);
    found.deployment.extend(super::deployment::mounted_files(
        &app.config.project,
        &containers,
        stack,
        &app.config.exclude_mounts,
        &mut found.undeployed,
    ));
    found.deployment.sort_unstable();
    found.deployment.dedup();
    found.compose = super::deployment::composed(&app.config.project, stack);
    found.compose.directories = super::deployment::directories(&app.config.project, &containers, &found.deployment);
    found.key = main.value("N8N_ENCRYPTION_KEY").map(|key| Secret::new(&key));
    database(app, docker, &mut found, all, &main);
    if found.uses(Kind::Sqlite) {
        leave_out_database(&mut found, &app.config.project, stack.main);
    }
    if !app.config.env_file_exists && found.deployment.is_empty() {
        found.unused.push(Kind::Env);
    }
    found.deployment =
        super::deployment::readable(&app.config.project, found.deployment, &excluded, &mut found.undeployed);
    queue(app, &mut found, all, &main, stack);
    refuse_unread(&app.config, &mut found, &main);
    home(app, docker, &mut found, stack, &main);
    storage(app, &mut found, stack.main);
    if let Some(place) = main
        .value("N8N_DEFAULT_BINARY_DATA_MODE")
        .filter(|mode| mode == "s3" || mode == "azure")
    {
        found
            .warnings
            .push(format!("n8n keeps binary data in {place}, which is not backed up"));
    }
    let config = &app.config;
    let others = containers
        .iter()
        .filter(|other| !config.n8n_containers.contains(&other.name));
    let others: Vec<String> = others
        .filter_map(|other| {
            let mut told = (*other).clone();
            told.mounts
                .retain(|mount| !config.exclude_mounts.contains(&mount.destination));
            match is_server(config, &found, other) {
                true => super::deployment::beside_data(&told, stack, &config.project),
                false => super::deployment::uncovered(&told, stack, &config.project),
            }
        })
        .collect();
    let hint = "what BACKUP_EXCLUDE_MOUNTS names by its path in the container is not told";
    found
        .warnings
        .extend(others.iter().map(|warning| format!("{warning} ({hint})")));
    let strangers = strangers(&app.config.n8n_containers, all, stack).into_iter();
    let running = strangers.filter(|other| other.status == Status::Running);
    let names: Vec<&str> = running.map(|other| other.name.as_str()).collect();
    if !names.is_empty() {
        found.warnings.push(format!(
            "{} works on n8n's database and is not known as n8n's: a restore is refused while it runs. \
             {N8N_CONTAINERS} in .env may name all of n8n's containers",
            names.join(" ")
        ));
    }
    // PostgreSQL is not stopped by a restore.
    let redis = Some(&config.redis_container).filter(|_| found.uses(Kind::Redis));
    let stopped = |name: &String| config.n8n_containers.contains(name) || Some(name) == redis;
    let removed = all
        .iter()
        .filter(|other| stopped(&other.name))
        .filter_map(|other| other.container.check_outlives_stop().err());
    found.warnings.extend(removed.map(|error| explained(&error)));
    app.config.found = found;
}

impl Found {
    pub(super) fn row(&mut self, what: &'static str, value: impl Into<String>, from: impl Into<String>) {
        let (value, from) = (value.into(), from.into());
        self.rows.push(FoundRow { what, value, from });
    }

    /// Notes the project of a server, where that is not n8n's.
    fn belongs(&mut self, kind: Kind, server: &Described) {
        let project = server.label(super::PROJECT);
        if project != self.project {
            self.others.insert(kind, project.to_owned());
        }
    }

    pub(super) fn problem(&mut self, kind: Kind, text: String, hint: &str) {
        let hint = hint.to_owned();
        self.problems.insert(kind, Problem { text, hint });
    }
}

/// The values without which a wrong server, database or table may be taken, each with the setting that goes before it.
const DECISIVE: [(&str, &str); 15] = [
    ("DB_TYPE", ""),
    ("DB_TABLE_PREFIX", ""),
    ("DB_POSTGRESDB_HOST", "BACKUP_POSTGRES_CONTAINER"),
    ("DB_POSTGRESDB_PORT", "BACKUP_POSTGRES_CONTAINER"),
    ("DB_POSTGRESDB_DATABASE", "BACKUP_POSTGRES_DB"),
    ("DB_POSTGRESDB_SCHEMA", ""),
    ("EXECUTIONS_MODE", "BACKUP_REDIS_CONTAINER"),
    ("N8N_CACHE_BACKEND", "BACKUP_REDIS_CONTAINER"),
    ("N8N_MULTI_MAIN_SETUP_ENABLED", "BACKUP_REDIS_CONTAINER"),
    ("QUEUE_BULL_REDIS_CLUSTER_NODES", "BACKUP_REDIS_CONTAINER"),
    ("QUEUE_BULL_REDIS_HOST", "BACKUP_REDIS_CONTAINER"),
    ("QUEUE_BULL_REDIS_PORT", "BACKUP_REDIS_CONTAINER"),
    ("QUEUE_BULL_REDIS_DB", "QUEUE_BULL_REDIS_DB"),
    ("QUEUE_BULL_REDIS_TLS", "BACKUP_REDIS_TLS"),
    ("QUEUE_BULL_PREFIX", "QUEUE_BULL_PREFIX"),
];

/// Refuses what depends on a value in a file that cannot be read.
fn refuse_unread(config: &Config, found: &mut Found, main: &Configuration<'_>) {
    for (variable, file) in main.unread() {
        let text = format!("{variable}_FILE of {} cannot be read: {file}", main.container.name);
        if variable == "N8N_ENCRYPTION_KEY" {
            let without = "n8n's key is backed up only where its home holds it";
            found.undeployed.push(format!("{text}; {without}"));
        }
        let Some((_, setting)) = DECISIVE.iter().find(|(decisive, _)| *decisive == variable) else {
            continue;
        };
        if config.is_set(setting) {
            continue;
        }
        let hint = match *setting {
            "" => format!("have n8n's container read it, or set {variable} in the container's environment"),
            setting => format!("have n8n's container read it, or set {setting} in .env"),
        };
        let kinds = match variable.as_str() {
            "DB_TYPE" => vec![Kind::Postgres, Kind::Sqlite],
            "DB_TABLE_PREFIX" => vec![found.database()],
            name if name.starts_with("DB_") => vec![Kind::Postgres],
            _ => vec![Kind::Redis],
        };
        // Whether there is a use for them is not known.
        found.unused.retain(|unused| !kinds.contains(unused));
        for kind in kinds {
            found.problem(kind, text.clone(), &hint);
        }
    }
}

/// Finds the database.
fn database(app: &mut App, docker: &Docker, found: &mut Found, all: &[Described], main: &Configuration<'_>) {
    let config = &mut app.config;
    let name = &main.container.name;
    let kind = main.value("DB_TYPE");
    match kind.as_deref() {
        Some("postgresdb") => {}
        None | Some("sqlite") => {
            if let Some(file) = kind.is_none().then(|| main.names_database()).flatten() {
                found.problem(
                    Kind::Sqlite,
                    format!(
                        "{file} (N8N_CONFIG_FILES of {name}) may name n8n's database, and DB_TYPE of {name} is not set"
                    ),
                    "set DB_TYPE in the container's environment: sqlite, or postgresdb with its DB_POSTGRESDB_ variables",
                );
            }
            if main.container.variable("DB_POSTGRESDB_HOST").is_some() {
                found.warnings.push(format!(
                    "DB_POSTGRESDB_HOST of {name} is set and DB_TYPE is not postgresdb: n8n uses SQLite, and that PostgreSQL \
                     is not backed up"
                ));
            }
            found.unused.push(Kind::Postgres);
            return;
        }
        Some(other) => {
            return found.problem(
                Kind::Postgres,
                format!("n8n uses a database of the type {other} (DB_TYPE of {name}), which is not backed up"),
                "move to PostgreSQL, which n8n supports",
            );
        }
    }
    if let Some(schema) = main.value("DB_POSTGRESDB_SCHEMA") {
        found.schema = schema;
    }
    let login = main.value("DB_POSTGRESDB_USER");
    let user = login.clone().unwrap_or_else(|| "postgres".to_owned());
    // A file that cannot be read tells none.
    let told = login.is_some() || main.container.variable("DB_POSTGRESDB_USER_FILE").is_none();
    found.login = if told { user.clone() } else { String::new() };
    let host = main
        .value("DB_POSTGRESDB_HOST")
        .unwrap_or_else(|| "localhost".to_owned());
    let port = main.number("DB_POSTGRESDB_PORT", 5432);
    let set = config.is_set("BACKUP_POSTGRES_CONTAINER");
    let server = match set {
        true => all
            .iter()
            .find(|other| other.name == config.postgres_container)
            .map(|server| (server, inner_port(server, main.container, &host, port, Kind::Postgres))),
        false => match reached(all, main.container, &host, port, Kind::Postgres).as_slice() {
            [(proxy, _)] if is_proxy(proxy) => {
                return behind(found, Kind::Postgres, proxy, "BACKUP_POSTGRES_CONTAINER")
            }
            [one] => Some(*one),
            [] => {
                let text =
                    format!("n8n's database is on {host} (DB_POSTGRESDB_HOST of {name}), which is no container here");
                return found.problem(
                    Kind::Postgres,
                    text,
                    "back it up where it runs; where it is a container after all, set BACKUP_POSTGRES_CONTAINER in .env to its name",
                );
            }
            several => {
                let text = format!("n8n's database is on {host}, which is the name of {}", names(several));
                return found.problem(
                    Kind::Postgres,
                    text,
                    "set BACKUP_POSTGRES_CONTAINER in .env to one of them",
                );
            }
        },
    };
    let by = format!("DB_POSTGRESDB_HOST of {name} is {host}");
    if let Some((server, inner)) = server {
        found.row(
            "PostgreSQL",
            &server.name,
            if set {
                "BACKUP_POSTGRES_CONTAINER".to_owned()
            } else {
                by
            },
        );
        config.postgres_container.clone_from(&server.name);
        found.belongs(Kind::Postgres, server);
        if config.postgres_port.is_none() && inner != 5432 {
            config.postgres_port = Some(inner);
        }
        let superuser = superuser(docker, server);
        let of_n8n = || Role {
            user: user.clone(),
            password: main.value(PASSWORD),
            from: format!("DB_POSTGRESDB_USER of {name}"),
        };
        let role = match config.is_set("BACKUP_POSTGRES_USER") {
            // `setup --write` writes the name down and no secret.
            true => {
                let set = &config.postgres_user;
                let n8n = (found.login == *set).then(of_n8n);
                superuser.filter(|role| role.user == *set).or(n8n)
            }
            false => {
                // The container's variables tell how the server was first started, and may have changed since.
                let is_another = superuser.as_ref().is_some_and(|role| role.user != found.login);
                found.second_login = is_another && !found.login.is_empty();
                let role = superuser.unwrap_or_else(of_n8n);
                found.row("database user", &role.user, &role.from);
                config.postgres_user.clone_from(&role.user);
                Some(role)
            }
        };
        if found.login != config.postgres_user {
            // Few commands want it, so a file that cannot be read is no error.
            let in_file = || main.file(main.container.variable(&format!("{PASSWORD}_FILE"))?);
            let password = main.container.variable(PASSWORD).map(str::to_owned).or_else(in_file);
            found.login_password = password.map(|password| Secret::new(&password));
        }
        let password = role.and_then(|role| role.password);
        let password = password.map(|password| Secret::new(&password));
        config.postgres_password = config.postgres_password.take().or(password);
    }
    if !config.is_set("BACKUP_POSTGRES_DB") {
        // From an empty file n8n takes an empty name, which PostgreSQL's client takes for the user's.
        let usual = match main.is_from_file("DB_POSTGRESDB_DATABASE") {
            true => user,
            false => "n8n".to_owned(),
        };
        config.postgres_db = main.value("DB_POSTGRESDB_DATABASE").unwrap_or(usual);
        found.row(
            "database",
            config.postgres_db.clone(),
            format!("DB_POSTGRESDB_DATABASE of {name}"),
        );
    }
}

/// The variable with the password of n8n's role.
const PASSWORD: &str = "DB_POSTGRESDB_PASSWORD";

/// Who dumps and restores.
struct Role {
    user: String,
    /// None where the container gives it to its own programs.
    password: Option<String>,
    from: String,
}

/// The superuser of a server, where its container tells one: as the official image, and Bitnami's, take it.
fn superuser(docker: &Docker, server: &Described) -> Option<Role> {
    let of = |variable: &str| format!("{variable} of {}", server.name);
    let own = Configuration::new(docker, server);
    let role = |user: &str, password: Option<String>, from: String| {
        let user = user.to_owned();
        Some(Role { user, password, from })
    };
    if let Some(user) = own.value("POSTGRES_USER") {
        return role(&user, None, of("POSTGRES_USER"));
    }
    let usual = format!("the usual user of the image of {}", server.name);
    if let Some(password) = own.value("POSTGRESQL_POSTGRES_PASSWORD") {
        return role("postgres", Some(password), usual);
    }
    if let Some(password) = own.value("POSTGRESQL_PASSWORD") {
        let user = server.variable("POSTGRESQL_USERNAME").unwrap_or("postgres");
        return role(user, Some(password), of("POSTGRESQL_USERNAME"));
    }
    server.variable("PG_MAJOR").and_then(|_| role("postgres", None, usual))
}

/// Takes the password of the role that a setting or a recovery point names, where the container of its server tells it.
pub(super) fn password_of_server(app: &mut App, docker: &Docker, all: &[Described]) {
    let config = &mut app.config;
    let server = all.iter().find(|other| other.name == config.postgres_container);
    let is_ours = config.found.uses(Kind::Postgres) && !config.found.problems.contains_key(&Kind::Postgres);
    let Some(server) = server.filter(|_| is_ours && config.postgres_password.is_none()) else {
        return;
    };
    let role = superuser(docker, server).filter(|role| role.user == config.postgres_user);
    let password = role.and_then(|role| role.password);
    config.postgres_password = password.map(|password| Secret::new(&password));
}

/// Refuses a server that is reached through something that does not tell where it is.
fn behind(found: &mut Found, kind: Kind, proxy: &Described, setting: &str) {
    let what = if kind == Kind::Redis { "Redis" } else { "database" };
    let text = format!(
        "n8n's {what} is behind {} (image {}), which does not tell where it is",
        proxy.name, proxy.image
    );
    let hint =
        format!("set {setting} in .env to the name of the container behind it; without one, back it up where it runs");
    found.problem(kind, text, &hint);
}

fn names(several: &[(&Described, u16)]) -> String {
    let names: Vec<&str> = several.iter().map(|(other, _)| other.name.as_str()).collect();
    names.join(" and ")
}

/// Finds Redis, where n8n has a use for it.
fn queue(app: &mut App, found: &mut Found, all: &[Described], main: &Configuration<'_>, stack: &Stack<'_>) {
    let config = &mut app.config;
    let name = &main.container.name;
    let set = config.is_set("BACKUP_REDIS_CONTAINER");
    let is_used = main.is("EXECUTIONS_MODE", "queue")
        || main.is("N8N_CACHE_BACKEND", "redis")
        || main.is("N8N_MULTI_MAIN_SETUP_ENABLED", "true")
        || stack.has_workers();
    if !is_used && !set {
        found.unused.insert(0, Kind::Redis);
        return found.row("Redis", "not used", format!("EXECUTIONS_MODE of {name} is not queue"));
    }
    if main.value("QUEUE_BULL_REDIS_CLUSTER_NODES").is_some() {
        let text =
            format!("n8n uses a Redis cluster (QUEUE_BULL_REDIS_CLUSTER_NODES of {name}), which is not backed up");
        return found.problem(Kind::Redis, text, "use one Redis server for n8n's queue");
    }
    let host = main
        .value("QUEUE_BULL_REDIS_HOST")
        .unwrap_or_else(|| "localhost".to_owned());
    let port = main.number("QUEUE_BULL_REDIS_PORT", 6379);
    let server = match set {
        true => all
            .iter()
            .find(|other| other.name == config.redis_container)
            .map(|server| (server, inner_port(server, main.container, &host, port, Kind::Redis))),
        false => match reached(all, main.container, &host, port, Kind::Redis).as_slice() {
            [(proxy, _)] if is_proxy(proxy) => return behind(found, Kind::Redis, proxy, "BACKUP_REDIS_CONTAINER"),
            [one] => Some(*one),
            [] => {
                let text =
                    format!("n8n's Redis is on {host} (QUEUE_BULL_REDIS_HOST of {name}), which is no container here");
                return found.problem(
                    Kind::Redis,
                    text,
                    "back it up where it runs; where it is a container after all, set BACKUP_REDIS_CONTAINER in .env to its name",
                );
            }
            several => {
                let text = format!("n8n's Redis is on {host}, which is the name of {}", names(several));
                return found.problem(Kind::Redis, text, "set BACKUP_REDIS_CONTAINER in .env to one of them");
            }
        },
    };
    if let Some((server, inner)) = server {
        let by = format!("QUEUE_BULL_REDIS_HOST of {name} is {host}");
        found.row(
            "Redis",
            &server.name,
            if set { "BACKUP_REDIS_CONTAINER".to_owned() } else { by },
        );
        config.redis_container.clone_from(&server.name);
        found.belongs(Kind::Redis, server);
        if server.image.contains("dragonfly") {
            let text = format!("{} is Dragonfly, whose snapshots are not Redis's", server.name);
            return found.problem(Kind::Redis, text, "use Redis or Valkey for n8n's queue");
        }
        if server.image.contains("keydb") {
            let text = format!(
                "{} is KeyDB, with which nothing was tried: run test-recovery",
                server.name
            );
            found.warnings.push(text);
        }
        if !config.is_set("BACKUP_REDIS_PORT") {
            config.redis_port = inner;
        }
    }
    if !config.is_set("BACKUP_REDIS_PASSWORD") {
        if let Some(password) = main.value("QUEUE_BULL_REDIS_PASSWORD") {
            config.redis_password = Some(Secret::new(&password));
        }
    }
    if !config.is_set("BACKUP_REDIS_USER") {
        if let Some(user) = main.value("QUEUE_BULL_REDIS_USERNAME") {
            config.redis_username = user;
        }
    }
    if let Some(prefix) = main.value("QUEUE_BULL_PREFIX") {
        config.queue_prefix = prefix;
    }
    config.queue_db = Some(main.number("QUEUE_BULL_REDIS_DB", config.queue_db.unwrap_or_default()));
    if !config.is_set("BACKUP_REDIS_TLS") {
        config.redis_tls = main.is("QUEUE_BULL_REDIS_TLS", "true");
    }
}

/// Looks at the containers that the settings' defaults name, where n8n's containers tell nothing: one of another stack is
/// never touched.
pub(super) fn check_defaults(app: &mut App, all: &[Described]) {
    let config = &mut app.config;
    let named = |name: &str| all.iter().find(|container| container.name == name);
    let has_own = super::has_stack(&config.project, all) || !config.compose_project.is_empty();
    let ours = |container: &Described| match config.compose_project.as_str() {
        "" if has_own => super::is_of(container, &config.project),
        "" => !is_foreign(container, &config.project),
        project => container.label(super::PROJECT) == project,
    };
    let problem = |container: &Described, setting: &str| {
        match is_foreign(container, &config.project) {
        true => foreign(container, setting),
        false => Problem {
            text: format!(
                "{} is no container of the stack of {}",
                container.name,
                config.project.display()
            ),
            hint: format!(
                "start the stack of this directory (docker compose up -d); if the container is part of it all the same, set \
                 {setting} in .env to its name"
            ),
        },
    }
    };
    let mut problems = Vec::new();
    for (kind, name, setting) in [
        (Kind::Postgres, &config.postgres_container, "BACKUP_POSTGRES_CONTAINER"),
        (Kind::Redis, &config.redis_container, "BACKUP_REDIS_CONTAINER"),
    ] {
        // A recovery point remembers that n8n's server is of another project.
        let told = config.found.others.get(&kind);
        let is_told = |container: &Described| told.is_some_and(|project| container.label(super::PROJECT) == project);
        let other = named(name).filter(|container| !config.is_set(setting) && !ours(container) && !is_told(container));
        problems.extend(other.map(|container| (kind, problem(container, setting))));
    }
    if !config.is_set(N8N_CONTAINERS) {
        let others = config
            .n8n_containers
            .iter()
            .filter_map(|name| named(name))
            .filter(|container| !ours(container));
        let others: Vec<&Described> = others.collect();
        if let Some(other) = others.first().filter(|_| !config.is_set("BACKUP_N8N_VOLUME")) {
            problems.push((Kind::N8n, problem(other, N8N_CONTAINERS)));
        }
        // A restore stops n8n's containers: not those of others.
        let names: Vec<String> = others.iter().map(|container| container.name.clone()).collect();
        config.n8n_containers.retain(|name| !names.contains(name));
    }
    config.found.problems.extend(problems);
}
