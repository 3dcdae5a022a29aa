//! Docker Compose: the plugin of the docker command, or the program of its own that it once was.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Result};

use super::Docker;
use crate::process::{self, hinted};

/// An image may have to come over a slow line; Compose says little meanwhile.
const LONGEST_SILENCE: Duration = Duration::from_secs(3600);

impl Docker {
    /// Has Compose create the containers, networks and volumes of the project `name` in `directory`, and start nothing. An
    /// empty name, or no files, leaves them to Compose; the paths are relative to the directory.
    pub fn compose_create(&self, directory: &Path, name: &str, files: &[PathBuf], env_files: &[PathBuf]) -> Result<()> {
        let mut command = self.compose()?;
        if !name.is_empty() {
            command.args(["--project-name", name]);
        }
        if !files.is_empty() {
            command.arg("--project-directory").arg(directory);
        }
        for (option, files) in [("--file", files), ("--env-file", env_files)] {
            for file in files {
                command.arg(option).arg(directory.join(file));
            }
        }
        command.args(["up", "--no-start"]).current_dir(directory);
        let patience = self.stall.max(LONGEST_SILENCE);
        let output = process::output("docker compose", command, None, patience)?;
        if !output.success {
            bail!("docker compose up --no-start: {}", output.stderr);
        }
        Ok(())
    }

    /// The beginning of a command line of Compose.
    fn compose(&self) -> Result<Command> {
        if self.query(&["compose", "version"])?.success {
            return Ok(self.command(["compose"]));
        }
        match process::find("docker-compose", None) {
            Some(program) => Ok(process::command_keeping(program, |name| name.starts_with("DOCKER_"))),
            None => bail!(hinted(
                "Docker Compose is not installed",
                "install its plugin (docker-compose-plugin, or docker-compose of Debian)"
            )),
        }
    }
}
