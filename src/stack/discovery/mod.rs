//! What a stack consists of, as n8n's own containers say it. They are asked at each run, because replicas and scale change
//! names. Nothing is guessed: where two answers are possible, there is an error that names both.

mod configuration;
mod deployment;
mod home;
mod hosts;
mod n8n;
mod recall;
mod same;
mod values;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::interrupted::is_up;
use super::record;
use crate::app::App;
use crate::config::{Config, Found, Problem};
use crate::engine::describe::Described;
use crate::engine::{Container, Docker, Glance};
use crate::process::hinted;
use crate::store::Kind;

pub use n8n::is_n8n_image;
pub use recall::{composed, facts};

use n8n::{role, role_of_named, Role};

/// Compose's labels.
const PROJECT: &str = "com.docker.compose.project";
const DIRECTORY: &str = "com.docker.compose.project.working_dir";
const SERVICE: &str = "com.docker.compose.service";
const ONE_OFF: &str = "com.docker.compose.oneoff";
/// Docker Swarm's.
const SWARM: &str = "com.docker.swarm.service.name";

/// The names that Compose looks for in a directory.
const COMPOSE_FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// The settings that name containers and the volume.
const N8N_CONTAINERS: &str = "BACKUP_N8N_CONTAINERS";
const COMPOSE_PROJECT: &str = "BACKUP_COMPOSE_PROJECT";

/// What is backed up through the engine.
const OF_CONTAINERS: [Kind; 4] = [Kind::Postgres, Kind::Sqlite, Kind::Redis, Kind::N8n];

/// Whether a container is one of n8n's servers.
pub fn is_n8n(container: &Described) -> bool {
    role(container).is_some()
}

/// Has n8n's containers tell what the stack of the project consists of, and fills the settings with it that are not set.
/// An engine that does not answer tells nothing; whoever needs it next says so.
pub fn discover(app: &mut App) {
    fill(app, Docker::describe_all);
}

/// As [`discover`], for a run that reads: gives what there is, with the answer to whether the helper's image is here.
pub fn look(app: &mut App) -> Option<Glance> {
    let image = app.config.helper_image.clone();
    let mut is_here = true;
    let all = fill(app, |docker| {
        thread::scope(|scope| {
            let found = scope.spawn(|| docker.image(&image));
            let all = docker.describe_all();
            is_here = !matches!(found.join(), Ok(Ok(None)));
            all
        })
    })?;
    Some(Glance::new(all, (!is_here).then_some(image)))
}

/// Fills the settings with what all containers say, which `ask` gives.
fn fill(app: &mut App, ask: impl FnOnce(&Docker) -> Result<Vec<Described>>) -> Option<Vec<Described>> {
    let begun = Instant::now();
    let all = app.docker().and_then(|docker| Ok((ask(&docker)?, docker)));
    let (all, docker) = match all {
        Ok(found) => found,
        Err(error) => {
            log::trace!("the stack is not looked for: {error:#}");
            recall::recall(app, None);
            // Nobody is to wait for such an engine again.
            if begun.elapsed() >= app.config.stall {
                app.config.found.problems = refused(&Problem::of(&error)).problems;
            }
            return None;
        }
    };
    match Stack::find(app, &all) {
        Ok(Some(stack)) => values::fill(app, &docker, &all, &stack),
        Ok(None) => recall::recall(app, Some((&docker, &all))),
        Err(problem) => app.config.found = refused(&problem),
    }
    let owner = app.owner();
    app.config.found.ours = all.iter().any(|container| container.is_ours(&owner));
    app.config.found.server_volumes = server_volumes(app, &all);
    Some(all)
}

/// Whether a container is n8n's PostgreSQL or Redis.
fn is_server(config: &Config, found: &Found, container: &Described) -> bool {
    (container.name == config.postgres_container && found.uses(Kind::Postgres))
        || (container.name == config.redis_container && found.uses(Kind::Redis))
}

/// The volumes that PostgreSQL and Redis mount, with their paths there.
fn server_volumes(app: &App, all: &[Described]) -> Vec<(String, String)> {
    let servers = all.iter().filter(|one| is_server(&app.config, &app.config.found, one));
    let mounts = servers.flat_map(|server| &server.mounts);
    let volumes = mounts.filter(|mount| !mount.volume.is_empty());
    volumes
        .map(|mount| (mount.volume.clone(), mount.destination.clone()))
        .collect()
}

/// n8n's containers of the stack as they are now, which may be others than when the settings were filled, and the
/// [`strangers`].
pub fn servers(app: &App, docker: &Docker) -> Result<Vec<Container>> {
    let all = docker.describe_all()?;
    let stack = Stack::find(app, &all).map_err(|problem| hinted(problem.text, problem.hint))?;
    let Some(stack) = stack else { return Ok(Vec::new()) };
    let strangers = same::strangers(&app.config.n8n_containers, &all, &stack);
    let servers = stack.servers.iter().copied().chain(strangers);
    Ok(servers.map(|server| server.container.clone()).collect())
}

/// The containers of n8n that are none of the settings' and work on its database all the same; none where nothing
/// tells.
pub fn strangers(app: &App, docker: &Docker) -> Result<Vec<Container>> {
    let all = docker.describe_all()?;
    let Ok(Some(stack)) = Stack::find(app, &all) else {
        return Ok(Vec::new());
    };
    let strangers = same::strangers(&app.config.n8n_containers, &all, &stack);
    Ok(strangers.into_iter().map(|other| other.container.clone()).collect())
}

/// When each container that could be n8n's was started last, by its ID; [`servers`] gives no other.
pub fn last_starts(app: &App, docker: &Docker) -> Result<BTreeMap<String, String>> {
    let mut all = docker.describe_all()?;
    all.retain(|one| is_n8n(one) || app.config.n8n_containers.contains(&one.name));
    let each = all.into_iter().map(|one| (one.id, one.container.started_at));
    Ok(each.collect())
}

/// All containers of the Compose project that n8n's are of.
pub fn of_project(app: &App, docker: &Docker) -> Result<Vec<Described>> {
    let project = &app.config.found.project;
    let mut all = docker.describe_all()?;
    all.retain(|container| container.label(PROJECT) == project && !project.is_empty());
    Ok(all)
}

/// As [`discover`], by what the newest recovery point remembers: for commands that ask no engine.
pub fn recall(app: &mut App) {
    recall::recall(app, None);
}

/// A stack that nothing can be done with.
fn refused(problem: &Problem) -> Found {
    let mut found = Found::default();
    found.problems.extend(OF_CONTAINERS.map(|kind| (kind, problem.clone())));
    found
}

/// n8n's containers.
struct Stack<'a> {
    /// The one that tells the configuration, one that runs if there is one.
    main: &'a Described,
    /// All that serve, the main one first.
    servers: Vec<&'a Described>,
    /// The names of those that were left behind, as by a service of another name: main ones that do not work, beside
    /// one that does.
    left_behind: Vec<&'a str>,
}

impl<'a> Stack<'a> {
    /// Whether others than the main one serve, which needs a queue.
    fn has_workers(&self) -> bool {
        self.servers
            .iter()
            .any(|server| matches!(role(server), Some(Role::Worker | Role::Webhook)))
    }

    /// All that serve, but for those that were left behind.
    fn current(&self) -> impl Iterator<Item = &'a Described> + '_ {
        let servers = self.servers.iter().copied();
        servers.filter(|server| !self.left_behind.contains(&server.name.as_str()))
    }

    /// n8n's containers of the project; none where there are none that say anything.
    fn find(app: &App, all: &'a [Described]) -> Result<Option<Self>, Problem> {
        let config = &app.config;
        let with = |role: fn(&Described) -> Option<Role>, chosen: &dyn Fn(&Described) -> bool| {
            let mut found: Vec<_> = all
                .iter()
                .filter(|container| chosen(container) && container.label(ONE_OFF) != "True")
                .filter_map(|container| Some((role(container)?, container)))
                .collect();
            found.sort_by(|(role, one), (other_role, other)| (role, &one.name).cmp(&(other_role, &other.name)));
            put_first_what_works(app, all, &mut found);
            found
        };
        let servers = |chosen: &dyn Fn(&Described) -> bool| with(role, chosen);
        // Beside n8n's main container, what a script of its own starts is something else, unless it works on the same database.
        let of_project = |chosen: &dyn Fn(&Described) -> bool| {
            let mut found = servers(chosen);
            if let Some(&(Role::Main, main)) = found.first() {
                found.retain(|(role, one)| *role != Role::Presumed || same::share_server(all, main, one));
            }
            found
        };
        let is_named = |container: &Described| config.n8n_containers.contains(&container.name);
        // One that tells no database has none in SQLite where PostgreSQL's container is named.
        let is_told = |container: &Described| {
            let is_open = container.variable("DB_TYPE").is_none() && config.is_set("BACKUP_POSTGRES_CONTAINER");
            is_named(container) && !is_open
        };
        let found = if config.is_set(N8N_CONTAINERS) {
            match servers(&is_named) {
                found if found.iter().any(|(role, _)| is_main(*role)) => found,
                _ => with(role_of_named, &is_told),
            }
        } else if !config.compose_project.is_empty() {
            let found = of_project(&|container| container.label(PROJECT) == config.compose_project);
            if found.is_empty()
                && !all
                    .iter()
                    .any(|container| container.label(PROJECT) == config.compose_project)
            {
                log::trace!("there is no container of the project {}", config.compose_project);
            }
            found
        } else if has_stack(&config.project, all) {
            of_project(&|container| is_of(container, &config.project))
        } else {
            // What bears one of the contract's names and says nothing of n8n may be its main container.
            let is_silent = || {
                all.iter()
                    .any(|container| is_named(container) && role(container).is_none())
            };
            let every = servers(&|_| true);
            match complete(app, all, &every, servers(&is_named)) {
                found if found.iter().any(|(role, _)| is_main(*role)) => found,
                found if !found.is_empty() && is_silent() => found,
                _ => match recall::names(app) {
                    // What has been backed up so far is the stack; another n8n, were it alone here, is not.
                    Some(names) => {
                        let known = servers(&|container| is_named(container) || names.contains(&container.name));
                        complete(app, all, &every, known)
                    }
                    // The only n8n of the host, which nobody else's stack claims.
                    None => alone(servers(&|container| container.label(PROJECT).is_empty()))?,
                },
            }
        };
        if let Some((_, container)) = found.iter().find(|(_, container)| !container.label(SWARM).is_empty()) {
            return Err(Problem {
                text: format!(
                    "{} is a task of Docker Swarm, whose containers are not held or started here",
                    container.name
                ),
                hint: "back the stack up where it runs under Compose, or with docker run".to_owned(),
            });
        }
        // Names that the contract gives count for those that nobody else's project claims.
        if !config.is_set(N8N_CONTAINERS) && config.compose_project.is_empty() {
            if let Some((_, other)) = found
                .iter()
                .find(|(_, container)| is_foreign(container, &config.project))
            {
                return Err(foreign(other, N8N_CONTAINERS));
            }
        }
        let mut projects: Vec<&str> = found.iter().map(|(_, container)| container.label(PROJECT)).collect();
        projects.sort_unstable();
        projects.dedup();
        if projects.len() > 1 && !config.is_set(N8N_CONTAINERS) {
            return Err(Problem {
                text: format!(
                    "More than one Compose project of {} runs n8n: {}",
                    config.project.display(),
                    projects.join(" ")
                ),
                hint: format!("set {COMPOSE_PROJECT} in .env to one of them"),
            });
        }
        let to_run = record::to_run(app, all);
        let rests = |one: &Described| standing(&to_run, one) == Standing::Rests;
        let works = found.first().is_some_and(|(_, main)| !rests(main));
        let left = found.iter().filter(|(role, one)| works && is_main(*role) && rests(one));
        let left_behind = left.map(|(_, one)| one.name.as_str()).collect();
        let servers: Vec<&Described> = found.into_iter().map(|(_, container)| container).collect();
        Ok(servers.first().copied().map(|main| Self {
            main,
            servers,
            left_behind,
        }))
    }
}

/// Whether a container works.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Works,
    /// It would, had a restore not stopped it.
    IsHeld,
    Rests,
}

/// How it stands with a container, where a restore is to start those of `to_run`.
fn standing(to_run: &[String], container: &Described) -> Standing {
    match is_up(&container.container) {
        true => Standing::Works,
        false
            if [&container.name, &container.id]
                .into_iter()
                .any(|name| to_run.contains(name)) =>
        {
            Standing::IsHeld
        }
        false => Standing::Rests,
    }
}

/// Puts the main container first that works: one that was left behind tells what once was. Where none works, the order
/// is that of the newest recovery point.
fn put_first_what_works(app: &App, all: &[Described], found: &mut [(Role, &Described)]) {
    let mains = || found.iter().filter(|(role, _)| is_main(*role));
    if mains().nth(1).is_none() {
        return;
    }
    let to_run = record::to_run(app, all);
    let known = match mains().all(|(_, one)| standing(&to_run, one) == Standing::Rests) {
        true => recall::names(app).unwrap_or_default(),
        false => Vec::new(),
    };
    let place = |one: &Described| known.iter().position(|name| *name == one.name);
    found.sort_by_key(|(role, one)| match is_main(*role) {
        true => (*role, standing(&to_run, one), place(one).unwrap_or(known.len())),
        false => (*role, Standing::Works, 0),
    });
}

/// Whether it may be the only one.
fn is_main(role: Role) -> bool {
    matches!(role, Role::Main | Role::Presumed)
}

/// Adds what works on the same database as those that were found by their names, and is of the same project, if any: as a
/// worker of another name, or one that was added since.
fn complete<'a>(
    app: &App,
    all: &'a [Described],
    servers: &[(Role, &'a Described)],
    mut found: Vec<(Role, &'a Described)>,
) -> Vec<(Role, &'a Described)> {
    let Some(&(_, first)) = found.first() else {
        return found;
    };
    let is_known = |container: &Described| found.iter().any(|(_, known)| known.id == container.id);
    let belongs = |(_, container): &&(Role, &Described)| {
        let is_other = container.label(PROJECT) == first.label(PROJECT) && !is_known(container);
        is_other && same::share_server(all, first, container)
    };
    let more: Vec<_> = servers.iter().filter(belongs).copied().collect();
    found.extend(more);
    // Of two that are alike and work, the one that was known tells the configuration.
    found.sort_by_key(|(role, _)| *role);
    put_first_what_works(app, all, &mut found);
    found
}

/// Takes the one n8n that there is.
fn alone(found: Vec<(Role, &Described)>) -> Result<Vec<(Role, &Described)>, Problem> {
    let mains = found.iter().filter(|(role, _)| is_main(*role)).count();
    if mains <= 1 {
        return Ok(found);
    }
    let names: Vec<&str> = found.iter().map(|(_, container)| container.name.as_str()).collect();
    Err(Problem {
        text: format!("More than one n8n is on this host: {}", names.join(" ")),
        hint: format!("set {N8N_CONTAINERS} in .env to the names of yours"),
    })
}

/// Whether a directory has a stack of its own, be it down: a compose file, or containers.
fn has_stack(project: &Path, all: &[Described]) -> bool {
    has_compose_file(project) || all.iter().any(|container| is_of(container, project))
}

fn has_compose_file(project: &Path) -> bool {
    COMPOSE_FILES.iter().any(|name| project.join(name).exists())
}

/// Whether Compose made a container from the directory `project`, by whatever path it was reached.
fn is_of(container: &Described, project: &Path) -> bool {
    let directory = Path::new(container.label(DIRECTORY));
    directory.is_absolute()
        && (directory == project || directory.canonicalize().is_ok_and(|directory| directory == project))
}

/// Whether a container belongs to the stack of another directory.
fn is_foreign(container: &Described, project: &Path) -> bool {
    !container.label(DIRECTORY).is_empty() && !is_of(container, project)
}

fn foreign(container: &Described, setting: &str) -> Problem {
    Problem {
        text: format!(
            "{} belongs to the Compose project {} of the directory {}, not to this one",
            container.name,
            container.label(PROJECT),
            container.label(DIRECTORY)
        ),
        hint: format!(
            "if that is your stack, set {COMPOSE_PROJECT}={} in .env, or {setting} to the name of the container",
            container.label(PROJECT)
        ),
    }
}

#[cfg(test)]
mod tests;
