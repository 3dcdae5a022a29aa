//! Throw-away containers: bounded, without network, with no volume of the stack, gone when we are.
//!
//! The engine removes such a container, with its anonymous volume, as soon as it ends (`--rm`). Ours ends when this process
//! does: a small `sh` in it waits for its standard input to close, which the kernel sees to even after a SIGKILL. What
//! never started, and what a reboot cut short, the next run sweeps.

use std::io::{self, Write};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Error, Result};

use super::dialect::{absent, engine_error};
use super::{Docker, Exec, HELPER_MOUNT};
use crate::process::{Chain, Input};
use crate::report::units;

/// The label that marks our helper containers; its value tells whose they are.
pub(super) const HELPER_LABEL: &str = "n8n-backup.helper";

/// The label that a [`Docker::workshop`] bears besides, so that those of all restores of a project are found at once.
const RESTORE_LABEL: &str = "n8n-backup.restore";

/// The label that marks them; its value tells whose they are.
const LABEL: &str = "n8n-backup.drill";

/// Ends the container's first process when standard input closes. Again and again, since the first process may be a
/// shell that takes no signal before it has become the server. SIGINT has PostgreSQL leave its clients alone.
const LEASH: &str = "read -r _; while kill -INT 1; do sleep 1; done";

/// The clients of a scratch container may be silent for as long as it lives. The chain needs a limit all the same.
const LIFE: Duration = Duration::from_secs(30 * 86_400);

/// How many bytes of what a container says on standard output are kept.
const KEPT: usize = 2048;

/// What a scratch container is made from.
#[derive(Clone, Copy, Debug)]
pub struct ContainerSpec<'a> {
    /// Whose it is, for [`Docker::sweep_scratch`].
    pub owner: &'a str,
    /// The image, by ID or name; it is never pulled.
    pub image: &'a str,
    /// The limit of its memory, as docker takes it (`1g`).
    pub memory: &'a str,
    /// The limit of its processors, as docker takes it (`1.5`).
    pub cpus: &'a str,
    /// Variables; they show in the engine's records, so never a secret.
    pub env: &'a [(&'a str, &'a str)],
    /// The command, as it would stand after the image's name.
    pub argv: &'a [&'a str],
}

/// A container that is removed, with its anonymous volumes, when this goes out of scope.
pub struct ScratchContainer {
    docker: Docker,
    id: String,
    life: Option<Life>,
}

/// The docker clients that hold on to a container that was started.
struct Life {
    chain: Chain,
    captured: Captured,
}

impl Docker {
    /// Makes a scratch container with a fresh anonymous volume; it does not run yet.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn create_scratch(&self, recipe: ContainerSpec<'_>) -> Result<ScratchContainer> {
        let args = create_args(recipe);
        let output = self.answer("docker create", self.command(&args), None)?;
        if !output.success {
            bail!(
                "could not make a scratch container from image {}: {}",
                recipe.image,
                output.stderr
            );
        }
        Ok(ScratchContainer {
            docker: self.clone(),
            id: output.text().lines().last().unwrap_or_default().trim().to_owned(),
            life: None,
        })
    }

    /// Removes the scratch containers that a run of `owner` which was killed has left. Gives how many there were.
    ///
    /// # Errors
    /// When the engine does not answer or refuses.
    pub fn sweep_scratch(&self, owner: &str) -> Result<usize> {
        self.sweep(LABEL, owner)
    }

    /// The free bytes where the engine keeps anonymous volumes, as `df` of `image` tells; none when it does not.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn free_on_engine(&self, owner: &str, image: &str) -> Result<Option<u64>> {
        let label = format!("{LABEL}={owner}");
        let output = self.query(&[
            "run",
            "--rm",
            "--pull",
            "never",
            "--network",
            "none",
            "--label",
            &label,
            "--entrypoint",
            "df",
            "-v",
            HELPER_MOUNT,
            "--",
            image,
            "-Pk",
            HELPER_MOUNT,
        ])?;
        Ok(units::free(&output.text()).filter(|_| output.success))
    }
}

/// The arguments of the `docker create` for a recipe.
fn create_args(recipe: ContainerSpec<'_>) -> Vec<String> {
    let mut args: Vec<String> = ["create", "--rm", "--pull", "never", "--network", "none"]
        .map(str::to_owned)
        .to_vec();
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
    option("--label", format!("{LABEL}={}", recipe.owner));
    option("--memory", recipe.memory.to_owned());
    // No swap on top, which would only drag the host down.
    option("--memory-swap", recipe.memory.to_owned());
    option("--cpus", recipe.cpus.to_owned());
    option("-v", HELPER_MOUNT.to_owned());
    for (name, value) in recipe.env {
        option("-e", format!("{name}={value}"));
    }
    option("--", recipe.image.to_owned());
    args.extend(recipe.argv.iter().map(|arg| (*arg).to_owned()));
    args
}

impl ScratchContainer {
    /// The container's ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the container sees its anonymous volume.
    pub const fn volume() -> &'static str {
        HELPER_MOUNT
    }

    /// `docker cp` of a tar stream on standard input into a directory of the container, owners as they are.
    pub fn unpack(&self, dir: &str) -> Command {
        self.docker.command(["cp", "-", &format!("{}:{dir}", self.id)])
    }

    /// `docker cp` of the whole volume to standard output; members are named `./...`.
    pub fn archive(&self) -> Command {
        self.docker.copy_out(&self.id, &format!("{HELPER_MOUNT}/."))
    }

    /// Starts it, and ties its life to ours.
    ///
    /// # Errors
    /// When the engine refuses or the container ends at once; with its last output.
    pub fn start(&mut self) -> Result<()> {
        let mut chain = Chain::new(LIFE);
        let captured = Captured::default();
        let start = self.docker.command(["start", "--attach", &self.id]);
        let (_, stdout) = chain.spawn("docker start", start, Input::Null)?;
        chain.pump("reading what the container says", stdout, captured.clone(), ());
        self.life = Some(Life { chain, captured });
        self.wait(Duration::from_millis(20), |container| {
            Ok(container.runs()?.then_some(()))
        })?;
        let how = Exec {
            interactive: true,
            ..Exec::default()
        };
        let leash = self.docker.exec(&self.id, how, &["sh", "-c", LEASH]);
        if let Some(life) = &mut self.life {
            let (_, stdout) = life.chain.spawn("the leash of a container", leash, Input::Leash)?;
            life.chain.pump("reading from a leash", stdout, io::sink(), ());
        }
        Ok(())
    }

    /// Whether it runs by now.
    ///
    /// # Errors
    /// When it has ended, with its last output.
    fn runs(&mut self) -> Result<bool> {
        match self.docker.container(&self.id)? {
            Some(container) if container.status == "running" => Ok(true),
            Some(container) if container.status == "created" => Ok(false),
            _ => Err(self.reason()),
        }
    }

    /// Asks `ready` every `pause` until it gives something. Each time but the last it looks whether the container still
    /// runs.
    ///
    /// # Errors
    /// Those of `ready`, that the container has ended, or that it was not ready within the stall limit.
    pub fn wait<T>(&mut self, pause: Duration, mut ready: impl FnMut(&mut Self) -> Result<Option<T>>) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(value) = ready(self)? {
                return Ok(value);
            }
            self.runs()?;
            if begun.elapsed() >= self.docker.stall {
                bail!("it was not ready after {} s", self.docker.stall.as_secs());
            }
            thread::sleep(pause);
        }
    }

    /// Why it has ended, by the last lines of its output.
    fn reason(&mut self) -> Error {
        let Some(Life { chain, captured }) = self.life.take() else {
            return anyhow!("the container has ended");
        };
        let error = match chain.finish() {
            Ok(()) => anyhow!("exit code 0"),
            Err(error) => error,
        };
        let output = captured.text();
        if output.is_empty() {
            error.context("the container has ended")
        } else {
            error.context(output).context("the container has ended")
        }
    }
}

impl Drop for ScratchContainer {
    fn drop(&mut self) {
        // Before its clients let go, so that it is not ended by them at the same time. What cannot be removed now is
        // swept by the next run.
        let _ = self.docker.remove(&[&self.id]);
    }
}

/// Keeps the end of a stream.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// The last lines, as one.
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join(" / ")
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a [`Docker::workshop`] shows.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// A volume.
    Volume(&'a str),
    /// All that another container has mounted.
    Of(&'a str),
}

impl Docker {
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
    pub(super) fn sweep(&self, label: &str, owner: &str) -> Result<usize> {
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
    pub(super) fn remove(&self, ids: &[&str]) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throw_away_container_is_bounded_and_alone() {
        let args = create_args(ContainerSpec {
            owner: "me",
            image: "sha256:0",
            memory: "1g",
            cpus: "0.5",
            env: &[("A", "b c")],
            argv: &["postgres", "-c", "fsync=off"],
        });
        let text = args.join(" ");
        for part in [
            "--network none",
            "--memory 1g --memory-swap 1g",
            "--cpus 0.5",
            "--pull never",
            "--rm",
            "--label n8n-backup.drill=me",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("-e A=b c -- sha256:0 postgres -c fsync=off"), "{text}");
        // The one volume is anonymous: no name, no path of this host.
        let mounts: Vec<&String> = args.iter().skip_while(|arg| *arg != "-v").skip(1).take(1).collect();
        assert_eq!(mounts, [HELPER_MOUNT]);
        assert_eq!(args.iter().filter(|arg| *arg == "-v").count(), 1);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut output = Captured::default();
        for n in 0..1000 {
            writeln!(output, "line {n}").unwrap();
        }
        assert_eq!(output.text(), "line 996 / line 997 / line 998 / line 999");
    }
}
