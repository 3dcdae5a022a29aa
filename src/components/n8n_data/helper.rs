//! The helper container that shows n8n's data: from which image it is made, and that there is something to show.

use std::path::Path;

use anyhow::{ensure, Context as _, Error, Result};

use super::layout::{is_missing, is_of_project, source_of, Directory, Layout};
use crate::app::App;
use crate::engine::{
    lacks_image, lacks_program, Container, Data, Docker, Exec, Guard, Label, Mounted, Source, DATA_MOUNT,
};
use crate::process::hinted;
use crate::report::log::Journal;

/// Makes sure that the home is there.
pub(super) fn check_home(docker: &Docker, layout: &Layout) -> Result<()> {
    match &layout.home.source {
        Source::Volume(volume) if !docker.volume_exists(volume)? => Err(anyhow::Error::new(hinted(
            format_args!("Docker volume {volume} does not exist"),
            "set BACKUP_N8N_VOLUME in .env to the one that n8n mounts (docker volume ls shows them), or make it (docker compose up \
             --no-start)",
        ))),
        _ => Ok(()),
    }
}

/// Whether a directory that is missing may be made: one of the project. The disk of another one may not be mounted.
pub(super) fn may_be_made(app: &App, source: &Source) -> bool {
    matches!(source, Source::Directory(path) if is_of_project(app, path))
}

/// Refuses to go on without a directory that this host lacks, where the engine says that its host, which may be another
/// one, lacks it too.
pub(super) fn not_there(error: Error, source: &Source) -> Error {
    let text = format!("{error:#}");
    if !text.contains("bind source path does not exist") && !text.contains("no such file or directory") {
        return error;
    }
    Error::new(hinted(
        format_args!("{source}, which n8n mounts, is not there"),
        "mount the disk that it is on; where it is to be a new directory, make it (mkdir -p)",
    ))
}

/// Refuses a container that mounts a directory which is missing: whoever takes over its mounts has the engine make that.
pub fn check_mounted(app: &App, docker: &Docker, journal: Journal, container: &Container) -> Result<()> {
    let sources = container.mounts.iter().filter_map(source_of);
    let missing = sources.filter(|source| is_missing(source) && !may_be_made(app, source));
    for source in missing {
        let mount = Mounted {
            source: source.clone(),
            target: DATA_MOUNT.to_owned(),
            read_only: true,
            makes: false,
        };
        start_wanted(app, docker, journal, &[Label::Helper(&app.owner())], &[mount])
            .map_err(|error| not_there(error, &source))?;
    }
    Ok(())
}

/// Refuses directories that cannot be exchanged: what holds another file system is not moved, and what is in that would be
/// deleted with what was there.
pub(super) fn check_mounts<'a>(helper: &Guard, directories: impl Iterator<Item = &'a Directory>) -> Result<()> {
    let docker = helper.docker();
    let command = docker.exec(helper.id(), Exec::default(), &["cat", "/proc/self/mounts"]);
    let output = docker.answer("cat", command, None)?;
    ensure!(output.success, "{}", output.stderr);
    let mounts = output.text();
    for directory in directories {
        if let Some(why) = hindrance(&mounts, &directory.target, &directory.part.without) {
            let place = &directory.place;
            return Err(Error::new(hinted(
                format_args!("{} cannot be replaced: {why}", place.source),
                format_args!(
                    "mount that in another place of the host; or, where n8n's home is another directory, leave {} out of backups and \
                     restores by BACKUP_EXCLUDE_MOUNTS",
                    place.at
                ),
            )));
        }
    }
    Ok(())
}

/// Why a directory cannot be exchanged without what is called `stays` in there, as `/proc/self/mounts` tells it.
fn hindrance(mounts: &str, target: &str, stays: &str) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((plain(fields.nth(1)?), fields.nth(1)?))
    });
    let below = |at: &str| {
        at.strip_prefix(target)
            .and_then(|rest| rest.strip_prefix('/'))
            .map(str::to_owned)
    };
    let mut each = mounts.filter_map(|(at, options)| match below(&at) {
        Some(name) if !stays.is_empty() && Path::new(&name).starts_with(stays) => None,
        Some(name) => Some(format!("another file system is mounted there, at {name}")),
        None if at == target && options.split(',').any(|option| option == "ro") => {
            Some("its file system is read-only".to_owned())
        }
        None => None,
    });
    each.next()
}

/// A path of `/proc/self/mounts`, in which blanks and the like stand as `\040`.
fn plain(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => plain.extend([char::from(byte)].into_iter().chain(part[3..].chars())),
            None => plain.push_str(part),
        }
    }
    plain
}

/// The image of the helper: the one of the settings when it is on this host, else one that the stack runs.
pub(super) fn image(app: &App, docker: &Docker, journal: Journal) -> Result<String> {
    let wanted = &app.config.helper_image;
    if docker.image(wanted)?.is_some() {
        return Ok(wanted.clone());
    }
    other_image(app, docker, journal)
}

/// As [`image`], without a question where nothing is known of it.
pub(super) fn likely_image(app: &App, docker: &Docker, journal: Journal) -> Result<String> {
    let wanted = &app.config.helper_image;
    match docker.is_known_to_lack(wanted) {
        true => other_image(app, docker, journal),
        false => Ok(wanted.clone()),
    }
}

/// An image of the stack.
fn other_image(app: &App, docker: &Docker, journal: Journal) -> Result<String> {
    let wanted = &app.config.helper_image;
    let stack = of_stack(app, docker)?;
    let container = stack.first().with_context(|| {
        format!("No local image for the helper container: pull {wanted}, or set BACKUP_HELPER_IMAGE in .env")
    })?;
    journal.info(format_args!(
        "Image {wanted} is not on this host, using that of {}",
        container.name
    ));
    Ok(container.image_id.clone())
}

/// Containers whose images are on this host.
fn of_stack(app: &App, docker: &Docker) -> Result<Vec<Container>> {
    let config = &app.config;
    let mut found = app.n8n_containers(docker)?;
    found.extend(docker.containers(&[&config.postgres_container, &config.redis_container])?);
    Ok(found)
}

/// Starts a helper container from the image of the settings, or where that cannot be, from one of the stack.
pub(super) fn start_wanted(
    app: &App,
    docker: &Docker,
    journal: Journal,
    labels: &[Label<'_>],
    mounts: &[Mounted],
) -> Result<Guard> {
    let start = |image| start(app, docker, journal, image, labels, mounts);
    let likely = likely_image(app, docker, journal)?;
    if likely != app.config.helper_image {
        return start(likely);
    }
    let error = match docker.helper_container(labels, &likely, Data::Mounts(mounts)) {
        Err(error) => error,
        done => return done,
    };
    let text = format!("{error:#}");
    let image = match lacks_image(&text) {
        true => other_image(app, docker, journal)?,
        false => image(app, docker, journal)?,
    };
    // The image is here, and it is not for the image that it cannot be.
    if image == app.config.helper_image && !lacks_program(&text) {
        return Err(error);
    }
    start(image)
}

/// Starts a helper container from `image`, or else from one of the stack that has the programs for it.
pub(super) fn start(
    app: &App,
    docker: &Docker,
    journal: Journal,
    image: String,
    labels: &[Label<'_>],
    mounts: &[Mounted],
) -> Result<Guard> {
    let start = |image: &str| docker.helper_container(labels, image, Data::Mounts(mounts));
    let error = match start(&image) {
        Err(error) if lacks_program(&format!("{error:#}")) => error,
        done => return done,
    };
    let mut tried = vec![image];
    for container in of_stack(app, docker)? {
        if tried.contains(&container.image_id) {
            continue;
        }
        if let Ok(guard) = start(&container.image_id) {
            journal.info(format_args!(
                "Image {} has no program that reads a volume, using that of {}",
                tried[0], container.name
            ));
            return Ok(guard);
        }
        tried.push(container.image_id);
    }
    let hint = "set BACKUP_HELPER_IMAGE in .env to one that has a shell and tar, such as alpine, and pull it";
    Err(error.context(hinted("No local image has the programs that read a volume", hint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_holds_another_file_system_or_takes_nothing_is_told() {
        let mounts = "overlay / overlay ro,relatime 0 0\n/dev/a /n8n-backup-volume ext4 rw,ro_x 0 0\n\
                      /dev/b /m/%2Ffiles\\0401 ext4 rw 0 0\n/dev/c /m/%2Ffiles\\0401/na\\134s ext4 rw 0 0\n\
                      /dev/d /m/%2Fro squashfs ro,nosuid 0 0\n";
        let found = |target: &str| hindrance(mounts, target, "");
        assert_eq!((found("/n8n-backup-volume"), found("/m/%2Ffiles")), (None, None));
        assert_eq!(
            found("/m/%2Ffiles 1").as_deref(),
            Some("another file system is mounted there, at na\\s")
        );
        assert_eq!(found("/m/%2Fro").as_deref(), Some("its file system is read-only"));
        // What stays where it is may be one.
        assert_eq!(hindrance(mounts, "/m/%2Ffiles 1", "na\\s"), None);
        assert!(hindrance(mounts, "/m/%2Ffiles 1", "na").is_some());
    }
}
