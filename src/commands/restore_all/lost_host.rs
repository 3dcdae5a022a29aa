//! A host without the stack: it is created from what the recovery point says that it was deployed from.

use anyhow::{ensure, Context as _, Result};

use super::{Surroundings, JOURNAL};
use crate::app::App;
use crate::components::{component, RestoreOptions};
use crate::config::Config;
use crate::stack::discovery;
use crate::store::manifest::Point;
use crate::store::Kind;

/// Whether none of the containers that a point remembers is on this host, and it holds what they are made from.
pub(super) fn is_gone(app: &App, point: &Point) -> Result<bool> {
    if point.member(Kind::Deployment).is_none() || !app.config.found.problems.is_empty() {
        return Ok(false);
    }
    let config = &app.config;
    let mut names: Vec<&str> = config.n8n_containers.iter().map(String::as_str).collect();
    for (kind, name) in [
        (Kind::Postgres, &config.postgres_container),
        (Kind::Redis, &config.redis_container),
    ] {
        names.extend(config.found.uses(kind).then_some(name.as_str()));
    }
    Ok(app.docker()?.containers(&names)?.is_empty())
}

/// Writes what the stack is deployed from and has Compose create it. Gives what is to be restored into.
pub(super) fn create(app: &App, point: &Point, options: RestoreOptions) -> Result<App> {
    let docker = app.docker()?;
    let component = component(Kind::Env)?;
    let member = component
        .member(point)
        .context("There is nothing to create the stack from")?;
    let file = app.store.root().join(&member.name);
    JOURNAL.info("Writing the files that the stack is deployed from");
    component
        .plan_restore(app, &file, options)?
        .run(&Surroundings { app, component })?;
    JOURNAL.info("Creating the stack: docker compose up --no-start");
    docker
        .compose_create(&app.config.project, &app.config.found.project)
        .with_context(|| images(point))
        .context("The stack could not be created")?;
    let mut app = App::new(Config::load(&app.config.project)?);
    discovery::discover(&mut app);
    ensure!(
        app.config.found.is_told(),
        "The stack was created, and no container of n8n is in it: start n8n by hand, then run this again"
    );
    Ok(app)
}

/// The images that a point remembers.
fn images(point: &Point) -> String {
    let images: Vec<&str> = point.facts("n8n.image.").map(|(_, image)| image).collect();
    match images.is_empty() {
        true => "Compose has failed".to_owned(),
        false => format!("n8n ran as {}", images.join(", ")),
    }
}
