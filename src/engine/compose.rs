//! Docker Compose: the plugin of the docker command, or the program of its own that it once was.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Result};

use super::dialect::absent;
use super::Docker;
use crate::process::{self, hinted, Output};

/// An image may have to come over a slow line; Compose says little meanwhile.
const LONGEST_SILENCE: Duration = Duration::from_secs(3600);

/// How Compose is called for a project. An empty name, or no files, leaves them to Compose; the paths are absolute.
#[derive(Clone, Copy, Debug)]
pub struct ComposeProject<'a> {
    /// Where it is called.
    pub directory: &'a Path,
    /// The project's name.
    pub name: &'a str,
    /// The compose files.
    pub files: &'a [PathBuf],
    /// The files of variables.
    pub env_files: &'a [PathBuf],
}

/// What a compose file takes for there already (`external`), as the docker command for it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// `volume` or `network`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// What must be there before a project can be created.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// The external volumes and networks that are missing.
    pub external: Vec<External>,
    /// The services whose networks others are in (`network_mode: service:NAME`). Compose 1 gives a container a network
    /// of its own where that service does not run yet.
    pub networks_of: Vec<String>,
    /// The paths of the host that services mount.
    pub binds: Vec<PathBuf>,
    /// There are variables that Compose finds no value for; it takes an empty one.
    pub lacks_value: bool,
}

impl Docker {
    /// Has Compose create the containers, networks and volumes of a project, and start nothing.
    pub fn compose_create(&self, project: ComposeProject<'_>) -> Result<()> {
        self.compose_up(project, &["up", "--no-start"])
    }

    /// Has Compose create these services alone, and start them.
    pub fn compose_start(&self, project: ComposeProject<'_>, services: &[String]) -> Result<()> {
        let services = services.iter().map(String::as_str);
        let args: Vec<&str> = ["up", "--detach", "--no-deps"].into_iter().chain(services).collect();
        self.compose_up(project, &args)
    }

    fn compose_up(&self, project: ComposeProject<'_>, args: &[&str]) -> Result<()> {
        let output = self.run_compose(project, args)?;
        if !output.success {
            bail!("docker compose {}: {}", args.join(" "), output.stderr);
        }
        Ok(())
    }

    /// What a project needs before it can be created; nothing where Compose does not understand the files, which it
    /// tells of when they are used.
    pub fn compose_needs(&self, project: ComposeProject<'_>) -> Result<Needs> {
        let output = self.run_compose(project, &["config"])?;
        if !output.success {
            return Ok(Needs::default());
        }
        let mut needs = needs(&output.text());
        needs.lacks_value = lacks_value(output.stderr_lines());
        let mut missing = Vec::new();
        for one in needs.external {
            let found = self.query(&[one.kind, "inspect", "--format", "{{.Name}}", "--", &one.name])?;
            if !found.success {
                absent(found.stderr_lines())?;
                missing.push(one);
            }
        }
        needs.external = missing;
        Ok(needs)
    }

    /// Creates an external volume or network, with the engine's defaults.
    pub fn create_external(&self, external: &External) -> Result<()> {
        let output = self.query(&[external.kind, "create", "--", &external.name])?;
        if !output.success {
            bail!("docker {} create {}: {}", external.kind, external.name, output.stderr);
        }
        Ok(())
    }

    fn run_compose(&self, project: ComposeProject<'_>, args: &[&str]) -> Result<Output> {
        let ComposeProject { directory, name, .. } = project;
        let mut command = self.compose()?;
        if !name.is_empty() {
            command.args(["--project-name", name]);
        }
        if !project.files.is_empty() {
            command.arg("--project-directory").arg(directory);
        }
        for (option, files) in [("--file", project.files), ("--env-file", project.env_files)] {
            for file in files {
                command.arg(option).arg(file);
            }
        }
        command.args(args).current_dir(directory);
        let patience = self.stall.max(LONGEST_SILENCE);
        process::output("docker compose", command, None, patience)
    }

    /// The beginning of a command line of Compose, which takes values for the compose files from the environment:
    /// secrets that somebody keeps out of `.env` are in that alone.
    fn compose(&self) -> Result<Command> {
        if self.query(&["compose", "version"])?.success {
            let mut command = process::command_as_called(&self.program);
            command.arg("compose");
            return Ok(command);
        }
        match process::find("docker-compose", None) {
            Some(program) => Ok(process::command_as_called(program)),
            None => bail!(hinted(
                "Docker Compose is not installed",
                "install its plugin (docker-compose-plugin, or docker-compose of Debian)"
            )),
        }
    }
}

/// Reads what `docker compose config` prints: YAML in a form of its own, with two blanks for each level.
fn needs(config: &str) -> Needs {
    let mut found = Needs::default();
    let mut kind = None;
    let mut entry: Option<External> = None;
    let mut is_external = false;
    // The end closes what stands last.
    for line in config.lines().chain(["end:"]) {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        let (key, value) = text.split_once(':').unwrap_or((text, ""));
        let value = unquoted(value);
        found.binds.extend(bind(text));
        if depth <= 2 {
            found.external.extend(entry.take().filter(|_| is_external));
            is_external = false;
        }
        match (depth, key) {
            (0, "volumes") => kind = Some("volume"),
            (0, "networks") => kind = Some("network"),
            (0, _) => kind = None,
            (2, _) => {
                let name = unquoted(key).to_owned();
                entry = kind.map(|kind| External { kind, name });
            }
            (4, "network_mode") => {
                let service = value.strip_prefix("service:").map(str::to_owned);
                found.networks_of.extend(service);
            }
            (4, "external") => is_external = value != "false",
            (_, "name") => {
                if let Some(entry) = entry.as_mut().filter(|_| depth == 4 || is_external) {
                    value.clone_into(&mut entry.name);
                }
            }
            _ => {}
        }
    }
    found.networks_of.sort_unstable();
    found.networks_of.dedup();
    found
}

/// Whether a line is as `The "NAME" variable is not set. Defaulting to a blank string.`, as any Compose words it. The name is
/// not told: it may be what follows a dollar sign in a password.
fn lacks_value<'a>(mut lines: impl Iterator<Item = &'a str>) -> bool {
    lines.any(|line| line.contains(" variable is not set"))
}

/// The path of the host in a line of a mount, of either form.
fn bind(text: &str) -> Option<PathBuf> {
    let item = text.strip_prefix("- ");
    let long = item.unwrap_or(text).strip_prefix("source:").map(unquoted);
    let short = || unquoted(item?).split_once(":/").map(|(source, _)| source);
    let source = long.or_else(short)?;
    source.starts_with('/').then(|| PathBuf::from(source))
}

/// A scalar without its quotes.
fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_project_needs_is_read() {
        let config = "name: x\nnetworks:\n  \"n\":\n    external: true\n    name: \"n\"\n  own:\n    name: x_own\n    labels:\n      \
                      name: y\nservices:\n  a:\n    external: true\n    network_mode: service:vpn\n    volumes:\n    - v:/v:rw\n    - /p/short:/x:rw\n    - type: bind\n      \
                      source: /p/long\n      target: /y\n    - type: volume\n      source: v\nvolumes:\n  v:\n    name: other\n    \
                      external: true\n  old:\n    external:\n      name: 'older'\n  no: {}\n  no2:\n    external: false\n  last:\n    external: \
                      true\n";
        let found = needs(config);
        assert_eq!(found.networks_of, ["vpn"]);
        let names = found.external.iter().map(|one| format!("{} {}", one.kind, one.name));
        let wanted = ["network n", "volume other", "volume older", "volume last"];
        assert_eq!(names.collect::<Vec<_>>(), wanted);
        assert_eq!(found.binds, ["/p/short", "/p/long"].map(PathBuf::from));
        assert!(needs("").external.is_empty());
    }

    #[test]
    fn variables_without_a_value_are_told() {
        let told = [
            r#"time="2026-11-29T18:00Z" level=warning msg="The \"SMTP_PASS\" variable is not set. Defaulting to ...""#,
            "WARNING: The API_KEY variable is not set. Defaulting to a blank string.",
            r#"WARN[0000] The "API_KEY" variable is not set. Defaulting to a blank string."#,
        ];
        assert!(told.into_iter().all(|line| lacks_value([line].into_iter())));
        assert!(!lacks_value(
            ["WARN[0000] /n8n/docker-compose.yml: `version` is obsolete"].into_iter()
        ));
    }
}
