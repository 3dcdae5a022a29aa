//! What doctor says of n8n's data: where it is, and who uses it.

use super::helper;
use super::layout::{check_volume, data_layout, Holder, Layout, HOME};
use crate::app::App;
use crate::engine::{Container, Docker, Exec, Mount, Source, Status};
use crate::process;
use crate::report::finding::Report;
use crate::report::log::Journal;
use crate::store::Kind;

/// The home and what belongs to it, its users, and what reads them.
pub fn probe(app: &App, docker: &Docker, report: &mut Report) {
    let containers = app.n8n_containers(docker);
    let found = containers.and_then(|containers| {
        let layout = data_layout(app, docker, &containers)?;
        check_volume(app, docker, &layout)?;
        Ok((containers, layout))
    });
    match found {
        Ok((containers, layout)) => {
            home(app, docker, &containers, &layout, report);
            for place in layout.nested.values().chain(&layout.others) {
                report.ok(
                    "mounts",
                    format!("{} ({}) is backed up with the home", place.at, place.source),
                );
            }
            for (place, there) in &layout.within {
                report.ok(
                    "mounts",
                    format!("{} ({}) is backed up as {there}", place.at, place.source),
                );
            }
            for Holder { place, stays, .. } in &layout.around {
                let how = match stays {
                    Some(_) => "",
                    None => ", and a restore leaves it as it is",
                };
                report.ok(
                    "mounts",
                    format!(
                        "{} ({}) is backed up without n8n's home in it{how}",
                        place.at, place.source
                    ),
                );
            }
            for text in layout.left_out.iter().chain(&layout.separate) {
                report.warn("mounts", format!("not backed up: {text}"));
            }
            for text in &layout.excluded {
                report.ok("mounts", format!("{text} is left out, as BACKUP_EXCLUDE_MOUNTS says"));
            }
            other_containers(app, docker, &layout, report);
            unused_database(app, docker, &containers, report);
        }
        Err(error) => report.error("n8n", &error),
    }
    report.result(
        "helper",
        helper::image(app, docker, Journal::new("doctor")).map(|image| format!("local image {image} shows the volume")),
    );
}

/// The home, and whether n8n keeps its data there.
fn home(app: &App, docker: &Docker, containers: &[Container], layout: &Layout, report: &mut Report) {
    let volume = &app.config.n8n_volume;
    let mut exists = false;
    match &layout.home.source {
        Source::Directory(path) => report.ok("volume", format!("n8n's home is the directory {path} of the host")),
        Source::Volume(volume) => match docker.volume_exists(volume) {
            Ok(true) => {
                exists = true;
                report.ok("volume", format!("{volume} exists"));
            }
            Ok(false) => report.fail(
                "volume",
                format!("{volume} does not exist; set BACKUP_N8N_VOLUME in .env to the one that n8n mounts"),
            ),
            Err(error) => report.error("volume", &error),
        },
    }
    for name in &app.config.n8n_containers {
        let Some(container) = containers.iter().find(|container| container.name == *name) else {
            report.warn(
                "n8n",
                format!("there is no container {name}; name n8n's in BACKUP_N8N_CONTAINERS"),
            );
            continue;
        };
        let mounts = &container.mounts;
        let is_home = |mount: &&Mount| match &layout.home.source {
            _ if !layout.home.at.is_empty() && mount.destination == layout.home.at => true,
            Source::Volume(volume) => mount.name == *volume,
            Source::Directory(path) => mount.directory == *path,
        };
        if let Some(mount) = mounts.iter().find(is_home) {
            let text = match mount.directory.as_str() {
                "" => format!("{name} mounts {} at {}", mount.name, mount.destination),
                directory if exists => format!("{name} mounts {directory}, which is {volume}"),
                directory => format!("{name} mounts {directory} at {}", mount.destination),
            };
            report.ok("n8n", text);
            continue;
        }
        match mounts.iter().find(|mount| mount.destination.ends_with(HOME)) {
            Some(mount) if mount.name.is_empty() => {
                report.fail("n8n", in_a_directory(name, volume, exists, &mount.directory));
            }
            Some(mount) => report.fail(
                "n8n",
                format!(
                    "{name} keeps its data in the volume {0}, not in {volume}: set BACKUP_N8N_VOLUME={0}",
                    mount.name
                ),
            ),
            None => report.warn("n8n", format!("{name} does not mount {volume}")),
        }
    }
}

/// Containers that mount the home and are not known as n8n's: a worker that was added, say.
fn other_containers(app: &App, docker: &Docker, layout: &Layout, report: &mut Report) {
    let config = &app.config;
    let users = docker.users(&layout.home.source).unwrap_or_default();
    let others: Vec<&str> = users
        .iter()
        .filter(|name| !config.n8n_containers.contains(name))
        .map(String::as_str)
        .collect();
    if !others.is_empty() {
        report.warn(
            "n8n",
            format!(
                "{} is mounted by {}, too, and a restore refuses while what it does not stop runs: set \
                 BACKUP_N8N_CONTAINERS=\"{} {1}\" in .env",
                layout.home.source,
                others.join(" "),
                config.n8n_containers.join(" ")
            ),
        );
    }
}

/// A database in SQLite that an n8n has left which works with PostgreSQL by now.
fn unused_database(app: &App, docker: &Docker, containers: &[Container], report: &mut Report) {
    let found = &app.config.found;
    let runs = |container: &&Container| container.status == Status::Running;
    let Some(container) = containers
        .iter()
        .find(runs)
        .filter(|_| found.database() == Kind::Postgres)
    else {
        return;
    };
    let file = format!("{}/database.sqlite", found.home);
    let look = docker.exec(&container.name, Exec::default(), &["test", "-s", &file]);
    if !found.home.is_empty() && docker.answer("test", look, None).is_ok_and(|output| output.success) {
        report.warn(
            "sqlite",
            format!(
                "{} uses PostgreSQL, and {file} is left of an n8n that used SQLite: every backup of n8n's data holds it. Remove it \
                 (and {file}-wal, {file}-shm) once you miss nothing",
                container.name
            ),
        );
    }
}

/// What to do where n8n keeps its data in a directory of the host.
fn in_a_directory(container: &str, volume: &str, exists: bool, directory: &str) -> String {
    // Another volume of that name may hold data.
    let new = if exists { "n8n_data_directory" } else { volume };
    let set = match new == volume {
        true => String::new(),
        false => format!(", and set BACKUP_N8N_VOLUME={new} in .env"),
    };
    let device = process::shell_quote(&format!("device={directory}"));
    format!(
        "{container} keeps its data in the directory {directory} of the host, not in {volume}. Leave BACKUP_N8N_VOLUME out of .env, \
         or make a volume that stands for it (nothing is moved): docker volume create -o type=none -o o=bind -o {device} {new}{set}"
    )
}
