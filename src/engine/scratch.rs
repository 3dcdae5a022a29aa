//! Scratch containers: bounded, without network, with no volume of the stack, gone when we are.
//!
//! The engine removes such a container, with its anonymous volume, as soon as it ends (`--rm`). Ours ends when this
//! process does: a small `sh` in it waits for its standard input to close, which the kernel sees to even after a
//! SIGKILL. What never started, and what a reboot cut short, the next run sweeps.

use std::io;
use std::process::Command;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Error, Result};

use super::container::{ContainerSpec, Data, Guard, Label, DATA_MOUNT};
use super::{Docker, Exec, Status};
use crate::process::{Chain, Input, Pending, Tail};
use crate::store::space;

/// Ends the container's first process when standard input closes. Again and again, since the first process may be a
/// shell that takes no signal before it has become the server. SIGINT has PostgreSQL leave its clients alone.
const LEASH: &str = "read -r _; while kill -INT 1; do sleep 1; done";

/// The clients of a scratch container may be silent for as long as it lives. The chain needs a limit all the same.
const LIFE: Duration = Duration::from_secs(30 * 86_400);

/// A container of [`Docker::create_scratch`].
pub struct ScratchContainer {
    // The first to go, so that it is not ended by its clients at the same time.
    guard: Guard,
    life: Option<Life>,
}

/// The docker clients that hold on to a container that was started, and its output.
struct Life {
    chain: Chain,
    output: Pending<Tail>,
}

impl Docker {
    /// Makes a scratch container; it does not run yet.
    pub fn create_scratch(&self, spec: &ContainerSpec<'_>) -> Result<ScratchContainer> {
        Ok(ScratchContainer {
            guard: self.create(spec)?,
            life: None,
        })
    }

    /// `docker run` of a scratch container: it ends when its standard input does, or the program.
    pub fn run_scratch(&self, spec: &ContainerSpec<'_>) -> Command {
        self.command(spec.args(&["run", "--interactive"]))
    }

    /// The free bytes where the engine keeps anonymous volumes, as `df` of `image` tells; none when it does not.
    pub fn free_on_engine(&self, label: Label<'_>, image: &str) -> Result<Option<u64>> {
        let spec = ContainerSpec {
            entrypoint: Some("df"),
            argv: &["-Pk", DATA_MOUNT],
            ..ContainerSpec::new(slice::from_ref(&label), image, Data::Fresh)
        };
        let output = self.answer("docker run", self.command(spec.args(&["run"])), None)?;
        Ok(space::free(&output.text()).filter(|_| output.success))
    }
}

impl ScratchContainer {
    /// The container, for [`Docker::exec`].
    pub fn id(&self) -> &str {
        self.guard.id()
    }

    /// As of its [`Guard`].
    pub fn unpack(&self, dir: &str) -> Command {
        self.guard.unpack(dir)
    }

    /// Starts it, and ties its life to ours.
    pub fn start(&mut self) -> Result<()> {
        let mut chain = Chain::new(LIFE);
        let start = self.guard.docker().command(["start", "--attach", self.id()]);
        let (_, stdout) = chain.spawn("docker start", start, Input::Null)?;
        let output = chain.pump(
            "reading the output of the container",
            stdout,
            io::sink(),
            Tail::default(),
        );
        self.life = Some(Life { chain, output });
        self.wait(Duration::from_millis(20), |container| {
            Ok(container.runs()?.then_some(()))
        })?;
        let how = Exec {
            interactive: true,
            ..Exec::default()
        };
        let leash = self.guard.docker().exec(self.id(), how, &["sh", "-c", LEASH]);
        if let Some(life) = &mut self.life {
            let (_, stdout) = life.chain.spawn("the leash of a container", leash, Input::Leash)?;
            life.chain.pump("reading from a leash", stdout, io::sink(), ());
        }
        Ok(())
    }

    /// Whether it runs by now.
    fn runs(&mut self) -> Result<bool> {
        match self
            .guard
            .docker()
            .container(self.id())?
            .map(|container| container.status)
        {
            Some(Status::Running) => Ok(true),
            Some(Status::Created) => Ok(false),
            _ => Err(self.reason()),
        }
    }

    /// Asks `ready` every `pause` until it gives something. Each time but the last it looks whether the container still
    /// runs.
    pub fn wait<T>(&mut self, pause: Duration, mut ready: impl FnMut(&mut Self) -> Result<Option<T>>) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(value) = ready(self)? {
                return Ok(value);
            }
            self.runs()?;
            if begun.elapsed() >= self.guard.docker().stall {
                bail!("it was not ready after {} s", self.guard.docker().stall.as_secs());
            }
            thread::sleep(pause);
        }
    }

    /// Why it has ended, by the last lines of its output.
    fn reason(&mut self) -> Error {
        let Some(Life { chain, output }) = self.life.take() else {
            return anyhow!("the container has ended");
        };
        let error = match chain.finish() {
            Ok(_) => anyhow!("exit code 0"),
            Err(error) => error,
        };
        let last = output.despite(&error).map_or_else(String::new, |tail| tail.text());
        match last.as_str() {
            "" => error.context("the container has ended"),
            last => error.context(last.to_owned()).context("the container has ended"),
        }
    }
}
