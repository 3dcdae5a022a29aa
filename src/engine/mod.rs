//! The Docker CLI: the one place where a docker command line is built.
//!
//! Bytes travel over docker's own streams (`exec`, `cp`), never over a bind mount of this host, so that a remote engine
//! (`DOCKER_HOST`, contexts), rootless Docker and podman's docker-compatible command serve as they are.

mod compose;
mod container;
pub mod describe;
mod dialect;
mod exec;
mod glance;
mod inspect;
mod scratch;
mod volume;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::config::Secret;
use crate::process::{self, hinted, is_executable, Output};

use dialect::engine_error;
use volume::Volumes;

pub use compose::{ComposeProject, External};
pub use container::{Confined, ContainerSpec, Data, Guard, Label, Mounted, Source, DATA_MOUNT};
pub use dialect::{lacks_image, lacks_program, tells_ended_container, tells_lost_engine};
pub use exec::Exec;
pub use glance::Glance;
pub use inspect::{Container, Mount, Status};
pub use scratch::ScratchContainer;

/// Where Docker's packages put the command, for the bare PATH that cron gives.
const USUAL_PLACES: [&str; 7] = [
    "/usr/bin",
    "/usr/local/bin",
    "/bin",
    "/snap/bin",
    "/opt/bin",
    "/opt/homebrew/bin",
    "/usr/sbin",
];

/// A docker client.
#[derive(Clone, Debug)]
pub struct Docker {
    program: PathBuf,
    stall: Duration,
    login: Option<Login>,
    glance: Option<Glance>,
    volumes: Volumes,
}

/// A secret that programs in a container log in with.
#[derive(Clone, Debug)]
struct Login {
    container: String,
    variable: &'static str,
    secret: Secret,
}

impl Docker {
    /// Finds the docker command on `PATH`, else where Docker's packages put it, else podman in its place. No question
    /// is asked of the engine yet. Queries are given up after `stall` without an answer.
    pub fn locate(path: Option<OsString>, stall: Duration) -> Result<Self> {
        let path = path.unwrap_or_default();
        let places: Vec<PathBuf> = env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .chain(USUAL_PLACES.map(PathBuf::from))
            .collect();
        for name in ["docker", "podman"] {
            if let Some(program) = places.iter().map(|dir| dir.join(name)).find(|file| is_executable(file)) {
                return Ok(Self {
                    program,
                    stall,
                    login: None,
                    glance: None,
                    volumes: Volumes::default(),
                });
            }
        }
        bail!(hinted(
            "Docker command not found",
            "install Docker, or add the directory of the docker command to PATH"
        ))
    }

    /// Gives every program that is run in `container` a secret as the variable `variable`. It reaches the client by its
    /// environment, which only its user can read, and stands in no command line.
    pub fn with_login(self, container: &str, variable: &'static str, secret: &Secret) -> Self {
        let login = Some(Login {
            container: container.to_owned(),
            variable,
            secret: secret.clone(),
        });
        Self { login, ..self }
    }

    /// The same client with less patience, or more.
    pub fn with_stall(self, stall: Duration) -> Self {
        Self { stall, ..self }
    }

    /// The client's path, for messages.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `docker ARGS`.
    fn command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = process::command_keeping(&self.program, |name| name.starts_with("DOCKER_"));
        command.args(args);
        command
    }

    /// Runs a short docker command, whatever its exit code.
    fn query(&self, args: &[&str]) -> Result<Output> {
        self.answer("docker", self.command(args), None).context(hinted(
            "Docker engine does not answer",
            "see whether the daemon runs: systemctl status docker",
        ))
    }

    /// Runs a docker command with little output, called `name` in messages, whatever its exit code.
    pub fn answer(&self, name: &str, command: Command, input: Option<Vec<u8>>) -> Result<Output> {
        process::output(name, command, input, self.stall)
    }

    /// The engine's version.
    pub fn engine_version(&self) -> Result<String> {
        let output = self.query(&["version", "--format", "{{.Server.Version}}"])?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        Ok(output.text())
    }

    /// As [`Docker::engine_version`], in the environment that cron gives a command.
    pub fn engine_version_under_cron(&self) -> Result<String> {
        let mut command = self.command(["version", "--format", "{{.Server.Version}}"]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
        command.envs(
            ["HOME", "LOGNAME"]
                .into_iter()
                .filter_map(|name| Some((name, env::var_os(name)?))),
        );
        let output = self.answer("docker", command, None)?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        Ok(output.text())
    }
}
