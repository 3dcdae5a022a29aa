//! What the engine says about containers and images, and their start and stop.

use std::fmt;

use anyhow::{anyhow, bail, ensure, Context, Error, Result};

use super::dialect::{absent, stop_limit};
use super::Docker;

use crate::process::hinted;

/// The label that tells the version of an image.
pub(super) const VERSION: &str = "org.opencontainers.image.version";

/// What the engine says about a container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name; where it was looked up by itself, as it was asked for.
    pub name: String,
    /// The engine's ID: one that is made in place of another has its own.
    pub id: String,
    /// The image it was made from, as an ID.
    pub image_id: String,
    /// The image's name, as it stood on the command line.
    pub image: String,
    /// Its state.
    pub status: Status,
    /// The version in the image's label `org.opencontainers.image.version`; empty when it has none.
    pub version: String,
    /// When it was started, as the engine writes it, without blanks.
    pub started_at: String,
    /// Its restart policy, as `docker update --restart` takes it: `no`, `always`, `on-failure:3`.
    pub restart: String,
    /// Whether it was made with `--rm`: the engine removes it as soon as it stops.
    pub auto_remove: bool,
    /// What it mounts.
    pub mounts: Vec<Mount>,
}

/// What the engine says about an image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its ID.
    pub id: String,
    /// Its name and digest in the registry that it came from.
    pub digest: Option<String>,
    /// The version in its label `org.opencontainers.image.version`.
    pub version: Option<String>,
}

/// The state of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has not run yet.
    Created,
    /// Its program runs.
    Running,
    /// Its program is frozen.
    Paused,
    /// Its program has ended, and the engine starts it again.
    Restarting,
    /// Its program is told to end.
    Stopping,
    /// Its program has ended.
    Exited,
    /// The engine removes it.
    Removing,
    /// The engine could not remove it.
    Dead,
    /// What the engine says, where it is none of these.
    Unknown(String),
}

impl Status {
    /// Reads what `docker inspect` prints; podman has more names.
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "created" | "configured" | "initialized" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "stopping" => Self::Stopping,
            "exited" | "stopped" => Self::Exited,
            "removing" => Self::Removing,
            "dead" => Self::Dead,
            other => Self::Unknown(other.to_owned()),
        }
    }

    /// Whether its program may write; one that is paused may at any moment.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Restarting | Self::Paused | Self::Stopping)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
            Self::Unknown(text) => text,
        })
    }
}

impl Container {
    /// Refuses one that is gone, with its settings and its anonymous volumes, once it is stopped.
    pub fn check_outlives_stop(&self) -> Result<()> {
        if !self.auto_remove {
            return Ok(());
        }
        Err(Error::new(hinted(
            format_args!(
                "{} was created with --rm: the engine removes it as soon as it is stopped",
                self.name
            ),
            "create it again without --rm, with --restart unless-stopped, before you restore anything",
        )))
    }

    /// Refuses one that is paused where it is to be started, which the engine refuses.
    pub fn check_not_paused(&self) -> Result<()> {
        let name = &self.name;
        ensure!(
            self.status != Status::Paused,
            hinted(
                format_args!("Container {name} is paused"),
                format_args!("run 'docker unpause {name}'")
            )
        );
        Ok(())
    }
}

/// A restart policy as `docker update --restart` takes it; that of a container without one is empty.
pub(super) fn restart_policy(name: &str, retries: &str) -> String {
    match (name, retries) {
        ("", _) => "no".to_owned(),
        ("on-failure", retries) if retries != "0" => format!("{name}:{retries}"),
        (name, _) => name.to_owned(),
    }
}

/// What a container mounts.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The volume's name; empty for what is no volume.
    pub name: String,
    /// The path in the volume, where no more of it is mounted.
    pub subpath: Option<String>,
    /// The directory of the engine's host that is mounted; empty for a volume.
    pub directory: String,
    /// Where the container sees it.
    pub destination: String,
    /// The container may not write there.
    pub read_only: bool,
}

impl Mount {
    /// Of these fields those count that fit the kind.
    pub(super) fn new(
        kind: &str,
        name: String,
        destination: String,
        source: String,
        subpath: Option<String>,
        read_only: bool,
    ) -> Self {
        let when = |is: bool, text: String| if is { text } else { String::new() };
        Self {
            name: when(kind == "volume", name),
            subpath,
            directory: when(kind == "bind", source),
            destination,
            read_only,
        }
    }
}

impl Docker {
    /// Looks a container up; `None` when there is no such one.
    pub fn container(&self, name: &str) -> Result<Option<Container>> {
        let found = self.containers(&[name])?.pop();
        // An engine also knows it by its ID.
        Ok(found.map(|container| Container {
            name: name.to_owned(),
            ..container
        }))
    }

    /// Looks containers up by one question; those that there are none of are left out.
    pub fn containers(&self, names: &[&str]) -> Result<Vec<Container>> {
        if let Some(found) = self.glance().and_then(|glance| glance.running(names)) {
            return Ok(found);
        }
        let found = self.describe(names)?;
        Ok(found.into_iter().map(|described| described.container).collect())
    }

    /// Whether a container of this name runs.
    pub fn is_running(&self, name: &str) -> Result<bool> {
        Ok(self
            .container(name)?
            .is_some_and(|found| found.status == Status::Running))
    }

    /// A container that is there, whatever its state.
    pub fn existing(&self, name: &str, setting: &str) -> Result<Container> {
        self.container(name)?.with_context(|| {
            hinted(
                format_args!("There is no container {name}"),
                format_args!(
                    "run 'docker compose up --no-start', which creates it, or set {setting} in .env to its name"
                ),
            )
        })
    }

    /// A container that runs. The error tells why it does not, and what to do.
    pub fn running(&self, name: &str, setting: &str) -> Result<Container> {
        let why = match self.container(name)? {
            None => Error::new(hinted(
                "there is no container of this name",
                format_args!("set {setting} in .env to the name of yours"),
            )),
            Some(container) if container.status == Status::Running => return Ok(container),
            Some(container) if container.status == Status::Paused => {
                Error::new(hinted("it is paused", format_args!("run 'docker unpause {name}'")))
            }
            Some(container) => {
                let state = &container.status;
                match self.last_failure(name) {
                    Some(failure) => anyhow!("its state is '{state}', and its last output is: {failure}"),
                    None => Error::new(hinted(
                        format_args!("its state is '{state}'"),
                        format_args!("run 'docker start {name}'"),
                    )),
                }
            }
        };
        Err(why.context(format!("Container {name} is not running")))
    }

    /// Why the program of a container ended by itself; none when its log tells of no failure.
    fn last_failure(&self, name: &str) -> Option<String> {
        let output = self.query(&["logs", "--tail", "6", "--", name]).ok()?;
        failure(output.stderr_lines()).or_else(|| failure(output.text().lines()))
    }

    /// Where a container mounts what it may write to and what outlives it: volumes, and directories or files of the
    /// host.
    pub fn mounts(&self, name: &str) -> Result<Vec<String>> {
        const FORMAT: &str =
            "{{range .Mounts}}{{if .RW}}{{if ne .Type \"tmpfs\"}}{{println .Destination}}{{end}}{{end}}{{end}}";
        self.list(name, FORMAT)
    }

    /// A container's program and its arguments.
    pub fn arguments(&self, name: &str) -> Result<Vec<String>> {
        self.list(name, "{{println .Path}}{{range .Args}}{{println .}}{{end}}")
    }

    /// The user of a container's program, as the engine takes it (`node`, `1000:1000`); empty for root.
    pub fn user(&self, name: &str) -> Result<String> {
        Ok(self.list(name, "{{.Config.User}}")?.pop().unwrap_or_default())
    }

    fn list(&self, name: &str, format: &str) -> Result<Vec<String>> {
        let output = self.query(&["inspect", "--type", "container", "--format", format, "--", name])?;
        if !output.success {
            bail!("docker inspect {name}: {}", output.stderr);
        }
        let lines = output.text();
        Ok(lines
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// What is known of an image that is on this host; `None` when it is not.
    pub fn describe_image(&self, name: &str) -> Result<Option<Image>> {
        const FORMAT: &str = "{{.Id}}|{{with .RepoDigests}}{{index . 0}}{{end}}|\
                              {{with .Config.Labels}}{{with index . \"org.opencontainers.image.version\"}}{{.}}{{end}}{{end}}";
        let output = self.query(&["image", "inspect", "--format", FORMAT, "--", name])?;
        if !output.success {
            return absent(output.stderr_lines()).map(|()| None);
        }
        let text = output.text();
        let mut fields = text.splitn(3, '|').map(str::to_owned);
        let mut next = || fields.next().filter(|field| !field.is_empty());
        Ok(Some(Image {
            id: next().unwrap_or_default(),
            digest: next(),
            version: next(),
        }))
    }

    /// The ID of an image that is on this host; `None` when it is not.
    pub fn image(&self, name: &str) -> Result<Option<String>> {
        let output = self.query(&["image", "inspect", "--format", "{{.Id}}", "--", name])?;
        if output.success {
            return Ok(Some(output.text()));
        }
        absent(output.stderr_lines()).map(|()| None)
    }

    /// The variables that an image sets, as `NAME=VALUE`.
    pub fn image_environment(&self, name: &str) -> Result<Vec<String>> {
        let output = self.query(&[
            "image",
            "inspect",
            "--format",
            "{{range .Config.Env}}{{println .}}{{end}}",
            "--",
            name,
        ])?;
        if !output.success {
            bail!("docker image inspect {name}: {}", output.stderr);
        }
        Ok(output.text().lines().map(str::to_owned).collect())
    }

    /// Fetches an image from its registry.
    pub fn pull(&self, name: &str) -> Result<()> {
        let output = self.query(&["pull", "--quiet", "--", name])?;
        if !output.success {
            bail!("docker pull {name}: {}", output.stderr);
        }
        Ok(())
    }

    /// Starts a container; one that runs is left as it is.
    pub fn start(&self, name: &str) -> Result<()> {
        self.drive("start", name)
    }

    /// Stops a container in good order, within the time that it was given when it was made.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.patiently("stop", name)
    }

    /// Ends a container at once, so that its program saves nothing; one that does not run is left as it is.
    pub fn kill(&self, name: &str) -> Result<()> {
        match self.drive("kill", name) {
            Err(_) if !self.is_running(name)? => Ok(()),
            done => done,
        }
    }

    /// Stops a container in good order and starts it again. The engine does both, also where nobody waits for it any more.
    pub fn restart(&self, name: &str) -> Result<()> {
        self.patiently("restart", name)
    }

    /// As [`Self::drive`], for what lets the container end by itself.
    fn patiently(&self, verb: &str, name: &str) -> Result<()> {
        let output = self.query(&[
            "inspect",
            "--type",
            "container",
            "--format",
            "{{.Config.StopTimeout}}",
            "--",
            name,
        ])?;
        let patient = Self {
            stall: self.stall.max(stop_limit(&output.text())),
            ..self.clone()
        };
        patient.drive(verb, name)
    }

    /// Lets a paused container go on; any other is left as it is.
    pub fn unpause(&self, name: &str) -> Result<()> {
        self.drive("unpause", name)
    }

    /// Sets the restart policy of a container.
    ///
    /// # Errors
    /// When the engine refuses, as podman before 5.1 does, which knows no such option.
    pub fn set_restart(&self, name: &str, policy: &str) -> Result<()> {
        let option = format!("--restart={policy}");
        let output = self.query(&["update", &option, "--", name])?;
        if !output.success {
            bail!("docker update {option} {name}: {}", output.stderr);
        }
        Ok(())
    }

    fn drive(&self, verb: &str, name: &str) -> Result<()> {
        let output = self.query(&[verb, "--", name])?;
        if !output.success {
            bail!("docker {verb} {name}: {}", output.stderr);
        }
        Ok(())
    }
}

/// The failure that the last lines of a server's log tell, with its details: of PostgreSQL, Redis and the like.
fn failure<'a>(lines: impl Iterator<Item = &'a str>) -> Option<String> {
    const SIGNS: [&str; 3] = ["FATAL:", "PANIC:", "Fatal error"];
    const DETAILS: [&str; 2] = ["DETAIL:", "HINT:"];
    let after = |line: &'a str, signs: &[&str]| signs.iter().find_map(|sign| line.find(sign)).map(|at| &line[at..]);
    let mut parts: Vec<&str> = Vec::new();
    for line in lines {
        if let Some(failure) = after(line, &SIGNS) {
            parts = vec![failure];
        } else if let Some(detail) = after(line, &DETAILS).filter(|_| !parts.is_empty()) {
            parts.push(detail);
        } else {
            parts.clear();
        }
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_what_a_server_said_last() {
        let failed =
            "LOG:  starting\nx UTC [1] FATAL:  database files are incompatible with server\nx UTC [1] DETAIL:  It \
                      is 99.";
        assert_eq!(
            failure(failed.lines()).as_deref(),
            Some("FATAL:  database files are incompatible with server DETAIL:  It is 99.")
        );
        let stopped = "FATAL:  terminating connection due to administrator command\nLOG:  database system is shut down";
        assert_eq!(failure(stopped.lines()), None);
        assert_eq!(failure("".lines()), None);
    }

    #[test]
    fn a_status_is_shown_as_it_was_read() {
        for text in [
            "created",
            "running",
            "paused",
            "restarting",
            "stopping",
            "exited",
            "removing",
            "dead",
        ] {
            let status = Status::parse(text);
            assert!(!matches!(status, Status::Unknown(_)), "{text}");
            assert_eq!(status.to_string(), text);
        }
        assert_eq!(Status::parse("initialized"), Status::Created);
        assert_eq!(Status::parse("stopped"), Status::Exited);
        assert_eq!(Status::parse("melting").to_string(), "melting");
    }
}
