//! The data of PostgreSQL and Redis, which are not n8n's.

use std::collections::BTreeSet;

use anyhow::{bail, Result};

use super::{is_no_directory, is_within, real, source_of, what_of_project, Layout};
use crate::app::App;
use crate::engine::{Container, Docker, Source};
use crate::process::hinted;
use crate::store::Kind;

/// Of the containers of PostgreSQL and Redis: what is mounted there is configuration.
const CONFIGURATION: [&str; 3] = ["/docker-entrypoint-initdb.d", "/etc", "/usr"];

/// What PostgreSQL and Redis keep their data in, asked for once it is needed.
pub(super) struct Databases<'a> {
    app: &'a App,
    docker: &'a Docker,
    /// n8n's.
    containers: &'a [Container],
    sources: Option<Vec<Source>>,
}

impl<'a> Databases<'a> {
    pub(super) fn new(app: &'a App, docker: &'a Docker, containers: &'a [Container]) -> Self {
        Self {
            app,
            docker,
            containers,
            sources: None,
        }
    }

    /// Why what n8n mounts is not n8n's alone, if it is not.
    pub(super) fn what_is_in(&mut self, source: &Source) -> Result<Option<&'static str>> {
        let (app, docker) = (self.app, self.docker);
        let sources = match &mut self.sources {
            Some(sources) => sources,
            none => none.insert(sources_of_databases(app, docker, self.containers)?),
        };
        let of_project = match source {
            Source::Directory(path) => what_of_project(app, path),
            Source::Volume(_) => None,
        };
        Ok(of_project.or_else(|| {
            let held = sources.iter().any(|database| holds(source, database));
            held.then_some("it holds data of PostgreSQL or Redis")
        }))
    }

    /// Refuses a home that is not n8n's alone.
    pub(super) fn check_home(&mut self, home: &Source, stands_for: &Source) -> Result<()> {
        match self.what_is_in(stands_for)? {
            None => Ok(()),
            Some(what) => bail!(hinted(
                format_args!("n8n's home {home} cannot be replaced as a whole: {what}"),
                "move n8n's home to a volume or directory of its own, and mount that in n8n's containers",
            )),
        }
    }
}

/// Refuses a home in a volume, as [`super::data_layout`] refuses a directory. Asks the engine what directory it stands for;
/// of one that stands for none, what was known of PostgreSQL and Redis when the stack was looked for is enough.
pub(in super::super) fn check_volume(app: &App, docker: &Docker, layout: &Layout) -> Result<()> {
    let home = &layout.home.source;
    let Source::Volume(name) = home else { return Ok(()) };
    let mut databases = Databases::new(app, docker, &[]);
    let stands_for = match docker.volume_directory(name).unwrap_or_default() {
        directory if directory.is_empty() => {
            let known = app.config.found.server_volumes.iter();
            let known = known.filter(|(_, at)| is_data(at));
            databases.sources = Some(known.map(|(volume, _)| Source::Volume(volume.clone())).collect());
            home.clone()
        }
        directory => Source::Directory(directory),
    };
    databases.check_home(home, &stands_for)
}

/// Whether what a database's container mounts there is no configuration.
fn is_data(at: &str) -> bool {
    !CONFIGURATION.iter().any(|dir| is_within(at, dir))
}

/// What PostgreSQL and Redis mount, as volumes and as the directories that those stand for; their configuration left out.
fn sources_of_databases(app: &App, docker: &Docker, n8n: &[Container]) -> Result<Vec<Source>> {
    let config = &app.config;
    let servers = [
        (Kind::Postgres, &*config.postgres_container),
        (Kind::Redis, &*config.redis_container),
    ];
    let used = servers.iter().filter(|(kind, _)| config.found.uses(*kind));
    let found = docker.containers(&used.map(|(_, name)| *name).collect::<Vec<_>>())?;
    let mounts = found.iter().flat_map(|container| &container.mounts);
    let mut sources: Vec<Source> = mounts
        .filter(|mount| is_data(&mount.destination) && !is_no_directory(&mount.directory))
        .filter_map(source_of)
        .collect();
    let of_n8n = n8n.iter().flat_map(|container| &container.mounts).filter_map(source_of);
    let all: BTreeSet<Source> = of_n8n.chain(sources.iter().cloned()).collect();
    let volumes = all.iter().filter_map(|source| match source {
        Source::Volume(name) => Some(name.as_str()),
        Source::Directory(_) => None,
    });
    // One question for all that will be asked for. What is missing is told where it is needed.
    docker.learn_volumes(&volumes.collect::<Vec<_>>())?;
    let stand_for = sources.iter().filter_map(|source| match source {
        Source::Volume(name) => docker.volume_directory(name).ok().filter(|path| !path.is_empty()),
        Source::Directory(_) => None,
    });
    let directories: Vec<Source> = stand_for.map(Source::Directory).collect();
    sources.extend(directories);
    Ok(sources)
}

/// Whether one is the other, or a directory that holds it.
pub(super) fn holds(outer: &Source, inner: &Source) -> bool {
    match (outer, inner) {
        (Source::Directory(outer), Source::Directory(inner)) => real(inner).starts_with(real(outer)),
        _ => outer == inner,
    }
}
