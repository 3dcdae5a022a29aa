//! What doctor says of n8n's data: where it is, and who uses it.

use super::{helper, HOME};
use crate::app::App;
use crate::engine::{Docker, Source};
use crate::process;
use crate::report::finding::Report;
use crate::report::log::Journal;

/// The volume, its users, and what shows it.
pub fn probe(app: &App, docker: &Docker, report: &mut Report) {
    volume(app, docker, report);
    other_containers(app, docker, report);
    report.result(
        "helper",
        helper::image(app, docker, Journal::new("doctor")).map(|image| format!("local image {image} shows the volume")),
    );
}

/// The volume, and whether n8n keeps its data there.
fn volume(app: &App, docker: &Docker, report: &mut Report) {
    let volume = &app.config.n8n_volume;
    let mut exists = false;
    match docker.volume_exists(volume) {
        Ok(true) => {
            exists = true;
            report.ok("volume", format!("{volume} exists"));
        }
        Ok(false) => report.fail(
            "volume",
            format!("{volume} does not exist; set BACKUP_N8N_VOLUME in .env to the one that n8n mounts"),
        ),
        Err(error) => report.error("volume", &error),
    }
    // A volume may stand for a directory of the host that n8n mounts as such.
    let directory = docker.volume_directory(volume).unwrap_or_default();
    for name in &app.config.n8n_containers {
        let mounts = match docker.container(name) {
            Ok(Some(container)) => container.mounts,
            Ok(None) => {
                report.warn(
                    "n8n",
                    format!("there is no container {name}; name n8n's in BACKUP_N8N_CONTAINERS"),
                );
                continue;
            }
            Err(error) => {
                report.error("n8n", &error);
                continue;
            }
        };
        if let Some(mount) = mounts.iter().find(|mount| mount.name == *volume) {
            report.ok("n8n", format!("{name} mounts {volume} at {}", mount.destination));
            continue;
        }
        match mounts.iter().find(|mount| mount.destination.ends_with(HOME)) {
            Some(mount) if !directory.is_empty() && mount.directory == directory => {
                report.ok("n8n", format!("{name} mounts {directory}, which is {volume}"));
            }
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

/// Containers that mount the volume and are not known as n8n's: a worker that was added, say.
fn other_containers(app: &App, docker: &Docker, report: &mut Report) {
    let config = &app.config;
    let users = docker
        .users(&Source::Volume(config.n8n_volume.clone()))
        .unwrap_or_default();
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
                config.n8n_volume,
                others.join(" "),
                config.n8n_containers.join(" ")
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
        "{container} keeps its data in the directory {directory} of the host, not in {volume}. Make a volume that stands for it \
         (nothing is moved): docker volume create -o type=none -o o=bind -o {device} {new}{set}"
    )
}
