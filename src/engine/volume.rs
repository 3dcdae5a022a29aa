//! Volumes: what they are, who uses them, and how they are read.

use std::process::Command;

use anyhow::{bail, Result};

use super::container::HELPER_LABEL;
use super::dialect::{absent, engine_error};
use super::Docker;

/// Where a helper container sees the volume. No image brings files there that a fresh volume would be filled with.
pub const HELPER_MOUNT: &str = "/n8n-backup-volume";

impl Docker {
    /// Whether a volume of this name exists.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn volume_exists(&self, name: &str) -> Result<bool> {
        let output = self.query(&["volume", "inspect", "--format", "{{.Name}}", "--", name])?;
        if output.success {
            return Ok(true);
        }
        absent(&output.stderr).map(|()| false)
    }

    /// The directory of the engine's host that a volume stands for, where it was made to stand for one; empty otherwise.
    ///
    /// # Errors
    /// When there is no such volume, or the engine does not answer.
    pub fn volume_directory(&self, name: &str) -> Result<String> {
        const FORMAT: &str = "{{with .Options}}{{with index . \"device\"}}{{.}}{{end}}{{end}}";
        let output = self.query(&["volume", "inspect", "--format", FORMAT, "--", name])?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        Ok(output.text())
    }

    /// The names of the containers that run, or are paused, and mount a volume, or the directory that it stands for; helper
    /// containers of ours left out.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn users(&self, volume: &str) -> Result<Vec<String>> {
        let directory = self.volume_directory(volume)?;
        let mut names = self.users_of(volume)?;
        if !directory.is_empty() {
            names.extend(self.users_of(&directory)?);
            names.sort();
            names.dedup();
        }
        Ok(names)
    }

    /// As [`Docker::users`], of a volume or a directory alone.
    fn users_of(&self, source: &str) -> Result<Vec<String>> {
        let filter = format!("volume={source}");
        let list = |more: &[&str]| -> Result<Vec<String>> {
            let args = ["ps", "--no-trunc", "--format", "{{.Names}}", "--filter", &filter];
            let output = self.query(&[&args[..], more].concat())?;
            if !output.success {
                return Err(engine_error(&output.stderr));
            }
            Ok(output.text().lines().map(str::to_owned).collect())
        };
        let mut names = list(&[])?;
        let ours = list(&["--filter", &format!("label={HELPER_LABEL}")])?;
        names.retain(|name| !name.is_empty() && !ours.contains(name));
        Ok(names)
    }

    /// Makes a container that never runs and only shows `volume`, read-only, so that [`Docker::copy_out`] can read it.
    /// Any image serves, since nothing of it is run; it is never pulled. `owner` marks it for [`Docker::sweep_helpers`].
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn volume_helper(&self, owner: &str, image: &str, volume: &str) -> Result<Helper> {
        let mount = format!("{volume}:{HELPER_MOUNT}:ro");
        let label = format!("{HELPER_LABEL}={owner}");
        let output = self.query(&[
            "create",
            "--pull",
            "never",
            "--network",
            "none",
            "--label",
            &label,
            "-v",
            &mount,
            "--",
            image,
            "true",
        ])?;
        if !output.success {
            bail!(
                "could not make the helper container from image {image}: {}",
                output.stderr
            );
        }
        let id = output.text().lines().last().unwrap_or_default().trim().to_owned();
        Ok(Helper {
            docker: self.clone(),
            source: Source::Container(id),
        })
    }

    /// The volume itself, for podman, which gives all that it copies out of a container to root.
    pub fn volume_itself(&self, volume: &str) -> Helper {
        Helper {
            docker: self.clone(),
            source: Source::Volume(volume.to_owned()),
        }
    }

    /// `docker cp` of a path in a container to standard output, as a tar stream.
    pub fn copy_out(&self, container: &str, path: &str) -> Command {
        self.command(["cp", "--", &format!("{container}:{path}"), "-"])
    }
}

/// What reads a volume. A container of ours is removed when this goes out of scope.
#[derive(Debug)]
pub struct Helper {
    docker: Docker,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// A container that shows the volume, by its ID.
    Container(String),
    /// The volume itself, by its name.
    Volume(String),
}

impl Helper {
    /// Whether [`Helper::archive`] opens `/dev/stdout` by that name, as podman does, which a socket does not allow.
    pub fn opens_its_output(&self) -> bool {
        matches!(self.source, Source::Volume(_))
    }

    /// The whole volume to standard output, as a tar stream. Members are named `./...`, by podman without the dot.
    pub fn archive(&self) -> Command {
        match &self.source {
            Source::Container(id) => self.docker.copy_out(id, &format!("{HELPER_MOUNT}/.")),
            Source::Volume(name) => self.docker.command(["volume", "export", "--", name]),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Source::Container(id) = &self.source {
            // What cannot be removed now is swept by the next run.
            let _ = self.docker.remove(&[id]);
        }
    }
}
