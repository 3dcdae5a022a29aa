//! The live Redis at rest while its files are exchanged. One that is started meanwhile goes on with what it has read by
//! then, and its next save takes the place of what was restored or put back.

use anyhow::Result;

use crate::engine::{Container, Docker, Status};
use crate::report::log::Journal;
use crate::stack::check_rests;

/// A Redis that was stopped.
pub(super) struct Rest<'a> {
    docker: &'a Docker,
    name: &'a str,
    /// When it had been started by then.
    started: String,
}

impl<'a> Rest<'a> {
    /// Stops it, but one that has never run.
    pub(super) fn begin(docker: &'a Docker, name: &'a str) -> Result<Self> {
        let mut now = look(docker, name)?;
        // podman tells of one that it is about to start again that it has ended.
        if now.status != Status::Created {
            docker.stop(name)?;
            now = look(docker, name)?;
        }
        Ok(Self {
            docker,
            name,
            started: now.started_at,
        })
    }

    /// Makes sure that it has not been started since.
    pub(super) fn check(&self) -> Result<()> {
        check_rests(&look(self.docker, self.name)?, &self.started)
    }

    /// Where it was started since, ends it before it can save what it has read, which may be what was taken back.
    pub(super) fn forget_what_was_read(&self, journal: Journal) -> Result<()> {
        if self.check().is_ok() {
            return Ok(());
        }
        journal.warn(format_args!("Ending {}, which was started meanwhile", self.name));
        self.docker.kill(self.name)?;
        // podman does not wait for its end.
        self.docker.stop(self.name)
    }
}

fn look(docker: &Docker, name: &str) -> Result<Container> {
    docker.existing(name, "BACKUP_REDIS_CONTAINER")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{executable, TempDir, STALL};

    #[test]
    fn a_redis_that_was_started_meanwhile_is_known_and_saves_nothing() {
        let dir = TempDir::new();
        let script = r#"#!/bin/sh
cd "${0%/*}"
case "$*" in
stop*|kill*) echo "$1" >>calls; echo exited >status ;;
*StopTimeout*) echo 1 ;;
*) printf '[{"Id": "1", "Name": "/redis", "State": {"Status": "%s", "StartedAt": "%s"}}]' "$(cat status)" "$(cat started)" ;;
esac
"#;
        executable(&dir.path().join("docker"), script);
        let docker = Docker::locate(Some(dir.path().into()), STALL).unwrap();
        let set = |status: &str, started: &str| {
            fs::write(dir.path().join("status"), status).unwrap();
            fs::write(dir.path().join("started"), started).unwrap();
        };
        let calls = || fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
        let journal = Journal::new("restore-redis");
        // Whether it runs by then, and when it was started; whether it has rested.
        for (status, started, rests) in [
            ("exited", "1", true),
            ("running", "2", false),
            ("restarting", "2", false),
            ("exited", "2", false),
        ] {
            let _ = fs::remove_file(dir.path().join("calls"));
            set("running", "1");
            let rest = Rest::begin(&docker, "redis").unwrap();
            assert_eq!(calls(), "stop\n");
            set(status, started);
            let checked = rest.check();
            assert_eq!(checked.is_ok(), rests, "{status} {started}");
            if let Err(error) = checked {
                assert!(error.to_string().starts_with("redis was started while"), "{error}");
            }
            rest.forget_what_was_read(journal).unwrap();
            let wanted = if rests { "stop\n" } else { "stop\nkill\nstop\n" };
            assert_eq!(calls(), wanted, "{status} {started}");
        }
        // One that has ended may be about to be started again; one that has never run is not.
        for (status, wanted) in [("exited", "stop\n"), ("created", "")] {
            let _ = fs::remove_file(dir.path().join("calls"));
            set(status, "1");
            Rest::begin(&docker, "redis").unwrap().check().unwrap();
            assert_eq!(calls(), wanted, "{status}");
        }
    }
}
