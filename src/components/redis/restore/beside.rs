//! The server of our own that loads a snapshot beside the live one.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};

use super::super::layout::Layout;
use super::super::server::{Redis, START};
use super::Plan;
use crate::engine::{Exec, Guard};

/// Where the server of our own listens, logs and leaves its exit status.
const SOCKET: &str = "/tmp/n8n-backup.sock";
const LOG: &str = "/tmp/n8n-backup.log";
pub(super) const STATUS: &str = "/tmp/n8n-backup.status";

impl Plan<'_> {
    /// Starts a server on the staged snapshot and waits until it has loaded it.
    pub(super) fn serve<'a>(&'a self, helper: &'a Guard, owner: &str, dir: &str, layout: &Layout) -> Result<Redis<'a>> {
        const RUN: &str = "\"$@\"; echo $? >\"$0\"";
        let mut argv = vec![
            "sh",
            "-c",
            RUN,
            STATUS,
            "sh",
            "-c",
            START,
            "sh",
            "--port",
            "0",
            "--unixsocket",
            SOCKET,
        ];
        argv.extend([
            "--logfile",
            LOG,
            "--daemonize",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        argv.extend(["--databases", &layout.databases, "--dir", dir]);
        argv.extend([
            "--dbfilename",
            &layout.snapshot,
            "--appendfilename",
            &layout.append_file,
        ]);
        if let Some(name) = &layout.append_dir {
            argv.extend(["--appenddirname", name]);
        }
        // What they have stored, only they can load.
        for module in &layout.modules {
            argv.push("--loadmodule");
            argv.extend(module.iter().map(String::as_str));
        }
        let how = Exec {
            detached: true,
            user: Some(owner),
            ..Exec::default()
        };
        let output = self
            .docker
            .answer("docker exec", self.docker.exec(helper.id(), how, &argv), None)?;
        ensure!(output.success, "redis-server was not started: {}", output.stderr);
        let server = Redis {
            docker: &self.docker,
            container: helper.id(),
            at: vec!["-s".to_owned(), SOCKET.to_owned()],
            login: None,
            stall: self.app.config.stall,
        };
        server.loaded(server.stall, || match self.status(helper)? {
            None => Ok(()),
            Some(status) => bail!(
                "Redis does not load the snapshot (exit code {status}): {}",
                self.last_words(helper)?
            ),
        })?;
        Ok(server)
    }

    /// The exit status of the server of our own, when it has ended.
    fn status(&self, helper: &Guard) -> Result<Option<String>> {
        let call = self.docker.exec(helper.id(), Exec::default(), &["cat", STATUS]);
        let output = self.docker.answer("docker exec", call, None)?;
        Ok(output.success.then(|| output.text()).filter(|text| !text.is_empty()))
    }

    fn last_words(&self, helper: &Guard) -> Result<String> {
        let call = self
            .docker
            .exec(helper.id(), Exec::default(), &["tail", "-n", "3", LOG]);
        let output = self.docker.answer("docker exec", call, None)?.text();
        Ok(output.lines().collect::<Vec<_>>().join(" / "))
    }

    pub(super) fn ended(&self, helper: &Guard) -> Result<()> {
        let deadline = Instant::now() + self.app.config.stall;
        loop {
            match self.status(helper)?.as_deref() {
                Some("0") => return Ok(()),
                Some(status) => bail!(
                    "the server that loaded the snapshot ended with exit code {status}: {}",
                    self.last_words(helper)?
                ),
                None if Instant::now() >= deadline => bail!("the server that loaded the snapshot does not end"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}
