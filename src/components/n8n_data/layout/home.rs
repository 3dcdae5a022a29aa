//! Which of what n8n mounts is its home.

use super::{is_within, source_of, HOME};
use crate::config::Config;
use crate::engine::{Container, Docker, Mount};

/// n8n's directory where nothing tells of another user folder.
const USUAL_HOME: &str = "/home/node/.n8n";

/// The mount of the home, if there is one: what holds n8n's directory, whatever it is called; where several containers
/// have one, that of the first. The name decides where `BACKUP_N8N_VOLUME` is set, or no container says where n8n's
/// directory is.
pub(super) fn mount_of_home<'m>(config: &Config, docker: &Docker, containers: &[&'m Container]) -> Option<&'m Mount> {
    let volume = &config.n8n_volume;
    let directory = match config.found.home.as_str() {
        "" => USUAL_HOME,
        directory => directory,
    };
    let mounts = || containers.iter().flat_map(|container| &container.mounts);
    let holds = |mount: &&Mount| is_within(directory, &mount.destination) && source_of(mount).is_some();
    let holding = || {
        let mut each = containers.iter().map(|container| container.mounts.iter().filter(holds));
        each.find_map(|mounts| mounts.max_by_key(|mount| mount.destination.len()))
    };
    // One volume may be mounted twice, and the engine tells of mounts in no order.
    let best = |is_it: &dyn Fn(&Mount) -> bool| mounts().filter(|mount| is_it(mount)).min_by_key(|mount| !holds(mount));
    let named = || best(&|mount| mount.name == *volume);
    if config.is_set("BACKUP_N8N_VOLUME") {
        return named().or_else(|| {
            // A volume may stand for a directory that n8n mounts as such.
            let stands_for = match mounts().any(|mount| !mount.directory.is_empty()) {
                true => docker.volume_directory(volume).unwrap_or_default(),
                false => String::new(),
            };
            best(&|mount| !stands_for.is_empty() && mount.directory == stands_for)
        });
    }
    let home = match config.found.home.is_empty() {
        true => named().or_else(holding),
        false => holding().or_else(named),
    };
    home.or_else(|| mounts().find(|mount| mount.destination.ends_with(HOME)))
}
