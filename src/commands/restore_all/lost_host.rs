//! A host without the stack: it is created from what the recovery point says that it was deployed from.

use std::fs::{self, Permissions};
use std::os::unix::fs::{lchown, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{bail, ensure, Context as _, Result};

use super::{Surroundings, JOURNAL};
use crate::app::App;
use crate::components::{component, n8n_image, RestoreOptions};
use crate::config::{Config, Directory};
use crate::engine::describe::Described;
use crate::engine::{ComposeProject, External, Status};
use crate::process::hinted;
use crate::stack::discovery;
use crate::store::atomic::own_user;
use crate::store::manifest::Point;
use crate::store::{is_there, lies_in, make_dir_as, Kind};

/// Writes what the stack is deployed from and has Compose create it. Gives what is to be restored into.
pub(super) fn create(app: &App, point: &Point, options: RestoreOptions) -> Result<App> {
    let docker = app.docker()?;
    let component = component(Kind::Env)?;
    let member = component
        .member(point)
        .context("There is nothing to create the stack from")?;
    let file = app.store.root().join(&member.name);
    let was = discovery::composed(point);
    make_directories(&app.config.project, &was.directories)?;
    JOURNAL.info("Writing the files that the stack is deployed from");
    component.plan_restore(app, &file, options)?.run(&Surroundings {
        app,
        component,
        at_rest: false,
    })?;
    let here = |files: &[PathBuf]| -> Vec<PathBuf> { files.iter().map(|file| app.config.project.join(file)).collect() };
    let (directory, files, env_files) = (
        app.config.project.join(&was.directory),
        here(&was.files),
        here(&was.env_files),
    );
    make_dir_as(&directory, 0o755)?;
    let project = ComposeProject {
        directory: &directory,
        name: &app.config.found.project,
        files: &files,
        env_files: &env_files,
    };
    let needs = docker.compose_needs(project)?;
    if needs.lacks_value {
        let warning = hinted(
            "Compose finds no value for some variables, and takes empty ones",
            "'docker compose config' names them: export them in the shell that calls this, or set them in .env, where a dollar \
             sign in a value is doubled, and have Compose create the containers again (docker compose up -d)",
        );
        JOURNAL.warning(&warning.into());
    }
    // Compose takes no network for its own that another has made.
    let of_project = |external: &&External| external.kind == "network" && external.name.ends_with("_default");
    if let Some(External { name, .. }) = needs.external.iter().find(of_project) {
        bail!(hinted(
            format_args!("The network {name} is missing, which another Compose project makes"),
            format_args!(
                "start that project, or create it by hand (docker network create {name}); then run this again"
            )
        ));
    }
    for external in needs.external {
        let External { kind, name } = &external;
        JOURNAL.info(format_args!(
            "Creating the {kind} {name}, which the compose file takes for there already: docker {kind} create {name}"
        ));
        docker.create_external(&external)?;
    }
    make_directories(&app.config.project, &unrecorded(&app.config.project, &needs.binds))?;
    // n8n itself is not started before its data are there.
    let mut networks_of = needs.networks_of;
    networks_of.retain(|service| !was.services.contains(service));
    if !networks_of.is_empty() {
        let names = networks_of.join(" ");
        JOURNAL.info(format_args!(
            "Starting the services whose networks others are in: {names}"
        ));
        docker
            .compose_start(project, &networks_of)
            .context("The stack could not be created")?;
    }
    JOURNAL.info("Creating the stack: docker compose up --no-start");
    docker
        .compose_create(project)
        .with_context(|| images(point))
        .context("The stack could not be created")?;
    let mut app = App::new(Config::load_to_restore(&app.config.project)?);
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

/// Makes the directories that are missing, which the engine would make as root's, or Compose refuse to mount.
fn make_directories(project: &Path, directories: &[Directory]) -> Result<()> {
    for Directory { path, mode, owner } in directories {
        let dir = project.join(path);
        // No link on the way leads out of the project.
        if is_there(&dir) || !lies_in(project, &dir) {
            continue;
        }
        JOURNAL.info(format_args!("Making the directory {}", path.display()));
        make_dir_as(&dir, 0o755)?;
        let context = || format!("Cannot create directory {}", dir.display());
        match owner {
            Some((user, group)) if own_user() == Some(0) => {
                lchown(&dir, Some(*user), Some(*group)).with_context(context)?;
            }
            Some((user, group)) => JOURNAL.warn(format_args!(
                "{} belonged to {user}:{group}, and only root can give it back to that user",
                path.display()
            )),
            None => {}
        }
        fs::set_permissions(&dir, Permissions::from_mode(*mode)).with_context(context)?;
    }
    Ok(())
}

/// Those of the mounted paths that may be directories of the project, of which a point of an earlier version tells
/// nothing. A name with a dot is rather that of a file.
fn unrecorded(project: &Path, binds: &[PathBuf]) -> Vec<Directory> {
    let below = binds.iter().filter_map(|path| path.strip_prefix(project).ok());
    let is_inside = |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    let named = below
        .filter(is_inside)
        .filter(|path| path.file_name().is_some() && path.extension().is_none());
    let directory = |path: &Path| Directory {
        path: path.to_owned(),
        mode: 0o755,
        owner: None,
    };
    named.map(directory).collect()
}

/// Starts what else was created and is to run, by its restart policy: a proxy, task runners. What has none may be a
/// one-shot.
pub(super) fn start_rest(app: &App) -> Result<()> {
    let docker = app.docker()?;
    let all = discovery::of_project(app, &docker)?;
    let created = all.iter().filter(|container| container.status == Status::Created);
    let (left, rest): (Vec<_>, Vec<_>) = created.partition(|container| {
        let policy = container.container.restart.as_str();
        policy == "no" || policy.starts_with("on-failure")
    });
    let names = |containers: &[&Described]| {
        let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
        names.join(" ")
    };
    if !rest.is_empty() {
        JOURNAL.info(format_args!("Starting the rest of the stack: {}", names(&rest)));
    }
    let mut failed = Ok(());
    for container in rest {
        failed = failed.and(docker.start(&container.name));
    }
    if !left.is_empty() {
        JOURNAL.warn(format_args!(
            "Created and not started, having no restart policy that goes on: {} (docker compose up -d starts everything)",
            names(&left)
        ));
    }
    failed.context("The restore is done, and not all of the stack could be started")
}

/// The images that a point remembers.
fn images(point: &Point) -> String {
    let images = n8n_image::named(point);
    match images.is_empty() {
        true => "Compose has failed".to_owned(),
        false => format!("n8n ran as {}", images.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{symlink, MetadataExt};

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn missing_directories_come_back_with_their_owner_and_mode() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let directory = |path: &str, mode, owner| Directory {
            path: PathBuf::from(path),
            mode,
            owner,
        };
        let far = TempDir::new();
        symlink(far.path(), project.join("link")).unwrap();
        fs::create_dir(project.join("there")).unwrap();
        let mode = |path: &str| project.join(path).metadata().unwrap().mode() & 0o777;
        let before = mode("there");
        let all = [
            directory("data", 0o750, None),
            directory("data/pg", 0o700, Some((999, 998))),
            directory("there", 0o700, None),
            directory("link/out", 0o755, None),
        ];
        make_directories(&project, &all).unwrap();
        assert_eq!((mode("data"), mode("data/pg"), mode("there")), (0o750, 0o700, before));
        assert!(!far.path().join("out").exists());
        if own_user() == Some(0) {
            let pg = project.join("data/pg").metadata().unwrap();
            assert_eq!((pg.uid(), pg.gid()), (999, 998));
        }
        let binds = ["web/pages", "hook.js", "../out"].map(|path| project.join(path));
        let names: Vec<PathBuf> = unrecorded(&project, &binds)
            .into_iter()
            .map(|found| found.path)
            .collect();
        assert_eq!(names, [PathBuf::from("web/pages")]);
    }
}
