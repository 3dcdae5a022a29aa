//! Whether a recovery point fits the stack that is here.

use anyhow::Result;

use super::JOURNAL;
use crate::app::App;
use crate::components::n8n_image;
use crate::engine::Docker;
use crate::store::manifest::Point;
use crate::store::Kind;

/// Whether none of the containers that a point remembers is on this host, and it holds what they are made from. Servers
/// that are not of n8n's own Compose project are made by others.
pub fn is_gone(app: &App, point: &Point) -> Result<bool> {
    if point.member(Kind::Deployment).is_none() || !app.config.found.problems.is_empty() {
        return Ok(false);
    }
    let config = &app.config;
    let mut names: Vec<&str> = config.n8n_containers.iter().map(String::as_str).collect();
    for (kind, name) in [
        (Kind::Postgres, &config.postgres_container),
        (Kind::Redis, &config.redis_container),
    ] {
        let is_own = config.found.uses(kind) && !config.found.others.contains_key(&kind);
        names.extend(is_own.then_some(name.as_str()));
    }
    Ok(app.docker()?.containers(&names)?.is_empty())
}

/// Refuses the data of a newer n8n than the one that runs here, unless that is wanted.
pub fn check_n8n(app: &App, docker: &Docker, point: &Point, force: bool) -> Result<()> {
    match n8n_image::check_version(app, docker, point) {
        Ok(warning) => warning.into_iter().for_each(|warning| JOURNAL.warn(warning)),
        Err(error) if force => JOURNAL.warning(&error),
        Err(error) => return Err(error),
    }
    Ok(())
}
