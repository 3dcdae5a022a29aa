//! A host without the stack: it is created from what the recovery point says that it was deployed from.

use anyhow::{ensure, Context as _, Result};

use super::{Surroundings, JOURNAL};
use crate::app::App;
use crate::components::{component, RestoreOptions};
use crate::config::Config;
use crate::process::hinted;
use crate::stack::discovery;
use crate::store::manifest::Point;
use crate::store::Kind;

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
    let was = discovery::composed(point);
    JOURNAL.info("Creating the stack: docker compose up --no-start");
    docker
        .compose_create(
            &app.config.project,
            &app.config.found.project,
            &was.files,
            &was.env_files,
        )
        .with_context(|| images(point))
        .context("The stack could not be created")?;
    let mut app = App::new(Config::load(&app.config.project)?);
    discovery::discover(&mut app);
    ensure!(
        app.config.found.is_told(),
        hinted(
            "The stack was created, and no container of n8n is in it",
            "start n8n by hand, then run this again"
        )
    );
    let created = &app.config.found.compose.services;
    let missing: Vec<String> = was
        .services
        .into_iter()
        .filter(|name| !created.contains(name))
        .collect();
    ensure!(
        missing.is_empty(),
        hinted(
            format_args!(
                "The stack was created, and these services of n8n are not in it: {}",
                missing.join(" ")
            ),
            format_args!(
                "where they have a profile, have Compose create them (docker compose --profile NAME up --no-start); then \
                 restore-all --start {} restores everything",
                point.stamp
            )
        )
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
