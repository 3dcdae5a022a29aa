//! The Docker CLI: the one place where a docker command line is built.
//!
//! Bytes travel over docker's own streams (`exec`, `cp`), never over a bind mount of this host, so that a remote engine
//! (`DOCKER_HOST`, contexts), rootless Docker and podman's docker-compatible command serve as they are.

mod container;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{anyhow, bail, Context, Result};

use crate::process::{self, is_executable, Output};
use crate::report::units;

pub use container::{ContainerSpec, ScratchContainer};

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

/// Runs a program in a container and ends it when standard input closes, so that it does not outlive the docker client
/// that started it: `docker exec` leaves it running, with its locks. The program itself reads nothing.
///
/// Where the image has GNU `stdbuf`, the program writes 64 KB at a time instead of 4: the engine carries each write by
/// itself, and a dump then costs it a tenth less (docs/performance.md).
///
/// Every child is waited for. A container's first process inherits what is left, and PostgreSQL as that process takes a
/// stranger that dies by a signal for a crashed backend and restarts the database.
const LEASH: &str = r#"exec 3<&0 </dev/null
if stdbuf -o64K true 2>/dev/null; then set -- stdbuf -o64K "$@"; fi
"$@" </dev/null 3<&- &
program=$!
(read -r _ <&3; kill -TERM "$program") >/dev/null 2>&1 &
leash=$!
wait "$program"
status=$?
kill "$leash" 2>/dev/null
wait "$leash" 2>/dev/null
exit "$status""#;

/// Runs a program in a container that reads much: 64 KB at a time instead of 4, where the image has GNU `stdbuf`. psql then
/// takes a sixth less time for a load (docs/performance.md).
const WIDE_INPUT: &str = r#"if stdbuf -i64K true </dev/null 2>/dev/null; then exec stdbuf -i64K "$@"; fi
exec "$@""#;

/// The label that marks our helper containers; its value tells whose they are.
const HELPER_LABEL: &str = "n8n-backup.helper";
/// The label that a [`Docker::workshop`] bears besides, so that those of all restores of a project are found at once.
const RESTORE_LABEL: &str = "n8n-backup.restore";
/// Where a helper container sees the volume. No image brings files there that a fresh volume would be filled with.
pub const HELPER_MOUNT: &str = "/n8n-backup-volume";

/// A docker client.
#[derive(Clone, Debug)]
pub struct Docker {
    program: PathBuf,
    stall: Duration,
}

/// What the engine says about a container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name; where it was looked up by itself, as it was asked for.
    pub name: String,
    /// The image it was made from, as an ID.
    pub image_id: String,
    /// The image's name, as it stood on the command line.
    pub image: String,
    /// `running`, `exited`, `paused`, ...
    pub status: String,
    /// The version in the image's label `org.opencontainers.image.version`; empty when it has none.
    pub version: String,
    /// When it was started, as the engine writes it, without blanks.
    pub started_at: String,
    /// Its restart policy, as `docker update --restart` takes it: `no`, `always`, `on-failure:3`.
    pub restart: String,
    /// What it mounts.
    pub mounts: Vec<Mount>,
}

impl Container {
    /// Reads `container|` and what [`Container::parse`] takes, a line for each, and behind each its `mount|` lines.
    fn parse_all(text: &str) -> Result<Vec<Self>> {
        let mut found: Vec<Self> = Vec::new();
        for line in text.lines() {
            match (line.split_once('|'), found.last_mut()) {
                (Some(("container", line)), _) => found.push(
                    Self::parse(line)
                        .with_context(|| format!("docker inspect gave an answer that is not understood: {line}"))?,
                ),
                (Some(("mount", line)), Some(container)) => container.mounts.extend(Mount::parse(line)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Reads `NAME|STATUS|IMAGE ID|IMAGE|STARTED AT|RESTART POLICY|RETRIES|VERSION`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(8, '|').map(str::to_owned);
        let name = fields.next()?;
        Some(Self {
            name: name.trim_start_matches('/').to_owned(),
            status: fields.next()?,
            image_id: fields.next()?,
            image: fields.next()?,
            // podman writes a date as people read it.
            started_at: fields.next()?.replace(' ', "_"),
            restart: restart_policy(&fields.next()?, &fields.next()?),
            version: fields.next()?,
            mounts: Vec::new(),
        })
    }
}

/// A restart policy as `docker update --restart` takes it; that of a container without one is empty.
fn restart_policy(name: &str, retries: &str) -> String {
    match (name, retries) {
        ("", _) => "no".to_owned(),
        ("on-failure", retries) if retries != "0" => format!("{name}:{retries}"),
        (name, _) => name.to_owned(),
    }
}

/// What a helper container shows.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// A volume.
    Volume(&'a str),
    /// All that another container has mounted.
    Of(&'a str),
}

/// What a container mounts.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The volume's name; empty for what is no volume.
    pub name: String,
    /// The directory of the engine's host that is mounted; empty for a volume.
    pub directory: String,
    /// Where the container sees it.
    pub destination: String,
}

impl Mount {
    /// Reads `TYPE|NAME|DESTINATION|SOURCE`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(4, '|');
        let (kind, name) = (fields.next()?, fields.next()?);
        let (destination, source) = (fields.next()?, fields.next()?);
        let when = |is: bool, text: &str| if is { text.to_owned() } else { String::new() };
        Some(Self {
            name: when(kind == "volume", name),
            directory: when(kind == "bind", source),
            destination: destination.to_owned(),
        })
    }
}

/// How [`Docker::exec`] runs a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exec<'a> {
    /// Keeps standard input open.
    pub interactive: bool,
    /// Returns at once, while the program runs on.
    pub detached: bool,
    /// Variables for the program; they show in the engine's records, so never a secret.
    pub env: &'a [(&'a str, &'a str)],
    /// The user to run as; the container's own when none.
    pub user: Option<&'a str>,
}

impl Docker {
    /// Finds the docker command on `PATH`, else where Docker's packages put it, else podman in its place. No question
    /// is asked of the engine yet. Queries are given up after `stall` without an answer.
    ///
    /// # Errors
    /// When no such program is on this host.
    pub fn locate(path: Option<OsString>, stall: Duration) -> Result<Self> {
        let path = path.unwrap_or_default();
        let places: Vec<PathBuf> = env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .chain(USUAL_PLACES.map(PathBuf::from))
            .collect();
        for name in ["docker", "podman"] {
            if let Some(program) = places.iter().map(|dir| dir.join(name)).find(|file| is_executable(file)) {
                return Ok(Self { program, stall });
            }
        }
        bail!("Docker command not found: install Docker, or add the directory of the docker command to PATH")
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

    /// Runs a short docker command and gives what it said, whatever its exit code.
    fn query(&self, args: &[&str]) -> Result<Output> {
        self.answer("docker", self.command(args), None)
            .context("Docker engine does not answer")
    }

    /// Runs a docker command with little output, called `name` in messages, and gives what it said, whatever its exit
    /// code.
    ///
    /// # Errors
    /// When the client cannot be started or nothing moves for the stall limit.
    pub fn answer(&self, name: &str, command: Command, input: Option<Vec<u8>>) -> Result<Output> {
        process::output(name, command, input, self.stall)
    }

    /// The engine's version.
    ///
    /// # Errors
    /// When no engine answers.
    pub fn engine_version(&self) -> Result<String> {
        let output = self.query(&["version", "--format", "{{.Server.Version}}"])?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        Ok(output.text())
    }

    /// As [`Docker::engine_version`], in the environment that cron gives a command.
    ///
    /// # Errors
    /// When no engine answers there.
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

    /// Looks a container up; `None` when there is no such one.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn container(&self, name: &str) -> Result<Option<Container>> {
        let found = self.containers(&[name])?.pop();
        // An engine also knows it by its ID.
        Ok(found.map(|container| Container {
            name: name.to_owned(),
            ..container
        }))
    }

    /// Looks containers up by one question; those that there are none of are left out.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn containers(&self, names: &[&str]) -> Result<Vec<Container>> {
        const FORMAT: &str = "container|{{.Name}}|{{.State.Status}}|{{.Image}}|{{.Config.Image}}|{{.State.StartedAt}}|\
                              {{.HostConfig.RestartPolicy.Name}}|{{.HostConfig.RestartPolicy.MaximumRetryCount}}|\
                              {{with .Config.Labels}}{{index . \"org.opencontainers.image.version\"}}{{end}}\
                              {{range .Mounts}}{{println}}mount|{{.Type}}|{{.Name}}|{{.Destination}}|{{.Source}}{{end}}";
        let question = ["inspect", "--type", "container", "--format", FORMAT, "--"];
        let output = self.query(&[&question, names].concat())?;
        if !output.success {
            // Each that is missing has a line of its own.
            output.stderr.split(" / ").try_for_each(absent)?;
        }
        let found = Container::parse_all(&output.text())?;
        if output.success && found.len() < names.len() {
            bail!(
                "docker inspect gave an answer that is not understood: {}",
                output.text()
            );
        }
        Ok(found)
    }

    /// A container that is there, whatever its state.
    ///
    /// # Errors
    /// That there is none; or that the engine does not answer.
    pub fn existing(&self, name: &str, setting: &str) -> Result<Container> {
        self.container(name)?.with_context(|| {
            format!(
                "There is no container {name}: make it (docker compose up --no-start), or set {setting} in .env if yours is \
                 called otherwise"
            )
        })
    }

    /// A container that runs.
    ///
    /// # Errors
    /// `Container {name} is not running`, with why and what to do; or that the engine does not answer.
    pub fn running(&self, name: &str, setting: &str) -> Result<Container> {
        let missing = || format!("Container {name} is not running");
        match self.container(name)? {
            None => Err(anyhow!(
                "there is no container of this name; set {setting} in .env if yours is called otherwise"
            ))
            .with_context(missing),
            Some(container) if container.status == "running" => Ok(container),
            Some(container) if container.status == "paused" => {
                Err(anyhow!("it is paused; try: docker unpause {name}")).with_context(missing)
            }
            Some(container) => {
                let state = &container.status;
                let why = match self.last_words(name) {
                    Some(words) => anyhow!("its state is '{state}', and the last that it said is: {words}"),
                    None => anyhow!("its state is '{state}'; try: docker start {name}"),
                };
                Err(why).with_context(missing)
            }
        }
    }

    /// Why the program of a container ended by itself; none when it does not tell of a failure.
    fn last_words(&self, name: &str) -> Option<String> {
        let output = self.query(&["logs", "--tail", "6", "--", name]).ok()?;
        failure(output.stderr.split(" / ")).or_else(|| failure(output.text().lines()))
    }

    /// `docker exec` of a program in a container.
    pub fn exec(&self, container: &str, how: Exec<'_>, argv: &[&str]) -> Command {
        let mut command = self.command(["exec"]);
        if how.interactive {
            command.arg("-i");
        }
        if how.detached {
            command.arg("-d");
        }
        if let Some(user) = how.user {
            command.args(["-u", user]);
        }
        for (name, value) in how.env {
            command.args(["-e", &format!("{name}={value}")]);
        }
        command.arg("--").arg(container).args(argv);
        command
    }

    /// `docker exec` of a program that reads nothing and is ended, in the container too, when the standard input of the
    /// docker client closes. To be started with [`process::Input::Leash`].
    pub fn exec_leashed(&self, container: &str, env: &[(&str, &str)], argv: &[&str]) -> Command {
        self.exec_under(LEASH, container, env, argv)
    }

    /// `docker exec` of a program that reads much from standard input.
    pub fn exec_wide(&self, container: &str, env: &[(&str, &str)], argv: &[&str]) -> Command {
        self.exec_under(WIDE_INPUT, container, env, argv)
    }

    /// `docker exec` of a shell script that gets a program and its arguments.
    fn exec_under(&self, script: &str, container: &str, env: &[(&str, &str)], argv: &[&str]) -> Command {
        let how = Exec {
            interactive: true,
            env,
            ..Exec::default()
        };
        self.exec(container, how, &[&["sh", "-c", script, "sh"], argv].concat())
    }

    /// The free bytes of the file system that holds `dir` in a container; `None` when it does not tell.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn free_space(&self, container: &str, dir: &str) -> Result<Option<u64>> {
        let df = self.exec(container, Exec::default(), &["df", "-Pk", "--", dir]);
        let output = self.answer("df", df, None)?;
        Ok(units::free(&output.text()).filter(|_| output.success))
    }

    /// Where a container mounts what it may write to and what outlives it: volumes, and directories or files of the host.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn mounts(&self, name: &str) -> Result<Vec<String>> {
        const FORMAT: &str =
            "{{range .Mounts}}{{if .RW}}{{if ne .Type \"tmpfs\"}}{{println .Destination}}{{end}}{{end}}{{end}}";
        self.list(name, FORMAT)
    }

    /// The arguments of a container's program.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn arguments(&self, name: &str) -> Result<Vec<String>> {
        self.list(name, "{{range .Args}}{{println .}}{{end}}")
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

    /// Starts a container; one that runs is left as it is.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn start(&self, name: &str) -> Result<()> {
        self.drive("start", name)
    }

    /// Stops a container in good order, within the time that it was given when it was made.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn stop(&self, name: &str) -> Result<()> {
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
        patient.drive("stop", name)
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

    /// The ID of an image that is on this host; `None` when it is not.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn image(&self, name: &str) -> Result<Option<String>> {
        let output = self.query(&["image", "inspect", "--format", "{{.Id}}", "--", name])?;
        if output.success {
            return Ok(Some(output.text()));
        }
        absent(&output.stderr).map(|()| None)
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

    /// Starts a container that does nothing but show data, writable, for programs that [`Docker::exec`] runs as root in it.
    /// `owner` marks it for [`Docker::sweep_helpers`], `project` for [`Docker::sweep_restore_helpers`]. It has no network. The image
    /// needs `sleep` and what is to be run; it is never pulled. A volume is seen at [`HELPER_MOUNT`], the data of another
    /// container where that one sees them.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn helper_container(&self, project: &str, owner: &str, image: &str, data: Data<'_>) -> Result<HelperContainer> {
        let label = format!("{HELPER_LABEL}={owner}");
        let restore = format!("{RESTORE_LABEL}={project}");
        let mut args: Vec<String> = [
            "run",
            "--detach",
            "--pull",
            "never",
            "--network",
            "none",
            "--no-healthcheck",
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(["--user", "0", "--label", &label, "--label", &restore].map(str::to_owned));
        args.extend(match data {
            Data::Volume(volume) => ["--volume".to_owned(), format!("{volume}:{HELPER_MOUNT}")],
            Data::Of(container) => ["--volumes-from".to_owned(), container.to_owned()],
        });
        // It ends by itself after a day, should nobody come to remove it.
        args.extend(["--entrypoint", "sleep", "--", image, "86400"].map(str::to_owned));
        let output = self.answer("docker run", self.command(&args), None)?;
        let id = output.text().lines().last().unwrap_or_default().trim().to_owned();
        if !output.success {
            if !id.is_empty() {
                // It was made, and could not be started.
                self.remove(&[&id])?;
            }
            bail!(
                "could not start the helper container from image {image}: {}",
                output.stderr
            );
        }
        Ok(HelperContainer {
            docker: self.clone(),
            id,
        })
    }

    /// Whether the client is podman, perhaps under docker's name. The engine is not asked.
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn is_podman(&self) -> Result<bool> {
        Ok(self.query(&["--version"])?.text().contains("podman"))
    }

    /// Removes the helper containers that a run of `owner` which was killed has left. Gives how many there were.
    ///
    /// # Errors
    /// When the engine does not answer or refuses.
    pub fn sweep_helpers(&self, owner: &str) -> Result<usize> {
        self.sweep(HELPER_LABEL, owner)
    }

    /// Removes every [`Docker::workshop`] of `project`. Gives how many there were.
    ///
    /// # Errors
    /// When the engine does not answer or refuses.
    pub fn sweep_restore_helpers(&self, project: &str) -> Result<usize> {
        self.sweep(RESTORE_LABEL, project)
    }

    /// Removes the containers that bear `label` with the value `owner`. Gives how many there were.
    fn sweep(&self, label: &str, owner: &str) -> Result<usize> {
        let filter = format!("label={label}={owner}");
        let output = self.query(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter])?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        let text = output.text();
        let ids: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        if !ids.is_empty() {
            self.remove(&ids)?;
        }
        Ok(ids.len())
    }

    /// Removes containers by force, with their anonymous volumes.
    fn remove(&self, ids: &[&str]) -> Result<()> {
        let output = self.answer(
            "docker rm",
            self.command(["rm", "--force", "--volumes", "--"].iter().chain(ids)),
            None,
        )?;
        // A container that ends just now removes itself.
        let going = output.stderr.contains("already in progress");
        if !output.success && !going && absent(&output.stderr).is_err() {
            bail!("could not remove container {}: {}", ids.join(" "), output.stderr);
        }
        Ok(())
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

/// A container of [`Docker::workshop`] that is removed when this goes out of scope.
#[derive(Debug)]
pub struct HelperContainer {
    docker: Docker,
    id: String,
}

impl HelperContainer {
    /// The container, for [`Docker::exec`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The client that made it.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// `docker cp` of a tar archive on standard input into a directory: owners, modes and times are those of the members.
    pub fn unpack(&self, dir: &str) -> Command {
        self.docker.command(["cp", "--", "-", &format!("{}:{dir}", self.id)])
    }

    /// `docker cp` of what a directory holds to standard output; members are named `./...`.
    pub fn pack(&self, dir: &str) -> Command {
        self.docker.copy_out(&self.id, &format!("{dir}/."))
    }
}

impl Drop for HelperContainer {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _ = self.docker.remove(&[&self.id]);
    }
}

/// How long `docker stop` may take at least, given the container's time to stop as the engine tells it: that time, the
/// engine's 10 seconds where none was set, and half a minute for the engine. A negative one has no end; an hour stands for it.
fn stop_limit(output: &str) -> Duration {
    let seconds = output.trim().parse::<i64>().unwrap_or(10);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(3600)).saturating_add(Duration::from_secs(30))
}

/// The failure that the last lines of a server's log tell, with its details: of PostgreSQL, Redis and the like.
fn failure<'a>(lines: impl Iterator<Item = &'a str>) -> Option<String> {
    const SIGNS: [&str; 3] = ["FATAL:", "PANIC:", "Fatal error"];
    const DETAILS: [&str; 2] = ["DETAIL:", "HINT:"];
    let after = |line: &'a str, signs: &[&str]| signs.iter().find_map(|sign| line.find(sign)).map(|at| &line[at..]);
    let mut words: Vec<&str> = Vec::new();
    for line in lines {
        if let Some(failure) = after(line, &SIGNS) {
            words = vec![failure];
        } else if let Some(detail) = after(line, &DETAILS).filter(|_| !words.is_empty()) {
            words.push(detail);
        } else {
            words.clear();
        }
    }
    (!words.is_empty()).then(|| words.join(" "))
}

/// Tells "there is no such object" (fine) from an engine that does not answer.
fn absent(stderr: &str) -> Result<()> {
    let output = stderr.to_ascii_lowercase();
    let has = |texts: &[&str]| texts.iter().any(|text| output.contains(text));
    // What is missing here is the way to the engine: a host, a socket, a context, a helper such as ssh.
    let astray = has(&[
        "no such host",
        "no such file or directory",
        "context not found",
        "command not found",
        "executable file not found",
    ]);
    if !astray && has(&["no such", "not found", "no container with name", "image not known"]) {
        Ok(())
    } else {
        Err(engine_error(stderr))
    }
}

/// A failure of the engine as a whole.
fn engine_error(stderr: &str) -> anyhow::Error {
    let what = if stderr.contains("permission denied") {
        "Docker engine refuses this user: run as a member of the group docker, or as root"
    } else {
        "Docker engine does not answer: is the daemon running?"
    };
    anyhow!("{}", if stderr.is_empty() { "no reason given" } else { stderr }).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker() -> Docker {
        Docker {
            program: PathBuf::from("/x/docker"),
            stall: Duration::from_secs(1),
        }
    }

    fn args(command: &Command) -> Vec<String> {
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_failure_is_what_a_server_said_last() {
        let failed = "LOG:  starting\nx UTC [1] FATAL:  database files are incompatible with server\nx UTC [1] DETAIL:  It is 99.";
        assert_eq!(
            failure(failed.lines()).as_deref(),
            Some("FATAL:  database files are incompatible with server DETAIL:  It is 99.")
        );
        let stopped = "FATAL:  terminating connection due to administrator command\nLOG:  database system is shut down";
        assert_eq!(failure(stopped.lines()), None);
        assert_eq!(failure("".lines()), None);
    }

    #[test]
    fn containers_are_read_with_what_they_mount() {
        let text = "container|/n8n|running|sha256:1|n8n:1|2026-01-02 03:04|on-failure|3|1.2|3\nmount|volume|n8n_data|/home/node/.n8n|/v\n\
                    mount|bind||/files|/srv\n\ncontainer|redis|exited|sha256:2|redis:7|2026||0|\n";
        let found = Container::parse_all(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("n8n", "1.2|3"));
        assert_eq!(
            (
                found[0].started_at.as_str(),
                found[0].restart.as_str(),
                found[1].restart.as_str()
            ),
            ("2026-01-02_03:04", "on-failure:3", "no")
        );
        assert_eq!(found[0].mounts[0].name, "n8n_data");
        assert_eq!(found[0].mounts[1].directory, "/srv");
        assert_eq!((found[1].status.as_str(), found[1].mounts.len()), ("exited", 0));
        assert!(Container::parse_all("container|x").is_err());
        assert!(Container::parse_all("").unwrap().is_empty());
    }

    #[test]
    fn a_stop_is_given_the_time_that_the_container_has() {
        assert_eq!(stop_limit("90"), Duration::from_secs(120));
        assert_eq!(stop_limit("<nil>"), Duration::from_secs(40));
        assert_eq!(stop_limit("0\n"), Duration::from_secs(30));
        assert_eq!(stop_limit("-1"), Duration::from_secs(3630));
    }

    #[test]
    fn exec_ends_docker_options_before_the_container() {
        let how = Exec {
            interactive: true,
            env: &[("A", "b c")],
            user: Some("999"),
            ..Exec::default()
        };
        let command = docker().exec("name", how, &["psql", "-c", "select 1; --"]);
        assert_eq!(
            args(&command),
            [
                "exec",
                "-i",
                "-u",
                "999",
                "-e",
                "A=b c",
                "--",
                "name",
                "psql",
                "-c",
                "select 1; --"
            ]
        );
    }

    #[test]
    fn a_leash_passes_arguments_as_they_are() {
        let command = docker().exec_leashed("name", &[], &["pg_dump", "--dbname=a'b \"c\"; $(x)"]);
        let args = args(&command);
        assert_eq!(args[..6], ["exec", "-i", "--", "name", "sh", "-c"]);
        assert_eq!(args[7..], ["sh", "pg_dump", "--dbname=a'b \"c\"; $(x)"]);
    }

    #[test]
    fn the_engines_silence_is_not_an_absent_container() {
        assert!(absent("Error: No such container: x").is_ok());
        assert!(absent("Error response from daemon: get x: no such volume").is_ok());
        assert!(absent("Error: inspecting object: alpine:latest: image not known").is_ok());
        let down = absent("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.").unwrap_err();
        assert!(down.to_string().contains("does not answer"));
        for astray in [
            "Failed to initialize: unable to resolve docker endpoint: context \"x\": context not found: open /m.json: no such file",
            "error during connect: Get \"http://h:2375/v1.41/containers/x/json\": dial tcp: lookup h: no such host",
            "Cannot connect: dial unix /x.sock: connect: no such file or directory",
            "error during connect: exec: \"ssh\": executable file not found in $PATH",
        ] {
            assert!(absent(astray).unwrap_err().to_string().contains("does not answer"), "{astray}");
        }
        let denied = absent("permission denied while trying to connect").unwrap_err();
        assert!(denied.to_string().contains("group docker"));
    }
}
