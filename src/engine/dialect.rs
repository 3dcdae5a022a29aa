//! What docker and podman print that decisions rest on, and where they differ: the one place that matches their texts.
//! The texts are those of the engine of Docker 20.10, the client of Docker 28, and podman 4.3.

use std::time::Duration;

use anyhow::{anyhow, Error, Result};

use crate::process::hinted;

/// Whether `stderr` says that a container, volume or image is not there, and not that the engine cannot be reached.
pub(super) fn is_absent(stderr: &str) -> bool {
    let text = stderr.to_ascii_lowercase();
    let has = |texts: &[&str]| texts.iter().any(|part| text.contains(part));
    // What is missing here is the way to the engine: a host, a socket, a context, a helper such as ssh.
    let unreachable = has(&[
        "no such host",
        "no such file or directory",
        "context not found",
        "command not found",
        "executable file not found",
    ]);
    // Docker: `No such container: x`, `get x: no such volume`, `No such image: x`. podman: `no such container x`, `no
    // container with name or ID "x" found`, `x: image not known`.
    !unreachable && has(&["no such", "not found", "no container with name", "image not known"])
}

/// Tells "there is no such object" (fine) from an engine that does not answer, by what the client printed. Clients warn of much
/// besides, on each call: of their configuration, of a registry, of being podman.
pub(super) fn absent<'a>(stderr: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    let is_error = |line: &&str| {
        let line = line.to_ascii_lowercase();
        let starts = [
            "error",
            "cannot",
            "could not",
            "permission denied",
            "got permission denied",
            "failed",
            "unable",
        ];
        starts.iter().any(|start| line.starts_with(start))
    };
    // Each that is missing has a line of its own.
    let missing = stderr.clone().filter(|line| is_absent(line)).count();
    let told = |line: &&str| is_error(line) && !is_absent(line);
    match stderr.clone().find(told) {
        None if missing > 0 => Ok(()),
        Some(line) => Err(engine_error(line)),
        None => Err(engine_error(&stderr.collect::<Vec<_>>().join(" / "))),
    }
}

/// Whether a container could not be removed only because the engine removes it already, as one of `--rm` that ends.
/// Docker: `removal of container x is already in progress`.
pub(super) fn is_being_removed(stderr: &str) -> bool {
    stderr.contains("already in progress")
}

/// Whether the engine does not let this user in. It is the system's text for EACCES on the socket, passed on.
fn is_denied(stderr: &str) -> bool {
    stderr.contains("permission denied")
}

/// Whether a program in a container failed with `text` because the container has ended, or was ended by the kernel for
/// the memory that it took.
pub fn tells_ended_container(text: &str) -> bool {
    [
        // 128 + SIGKILL, of the container's first process.
        "exit code 137",
        // Docker: `Container x is not running`, `No such container: x` once it is removed.
        "is not running",
        "No such container",
        // podman, with the lower-case form of the latter.
        "can only create exec sessions on running containers",
        "no such container",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// Whether a program in a container failed with `text` because the engine was lost. Where that happens while the program
/// runs, Docker's client says nothing, and exits with -1.
pub fn tells_lost_engine(text: &str) -> bool {
    [
        "Cannot connect to the Docker daemon",
        "error during connect",
        "unable to connect to Podman",
        "exit code 255",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// Whether a container could not be made because its image is not on the host. Docker: `No such image: x`; podman: `x: image
/// not known`.
pub fn lacks_image(text: &str) -> bool {
    text.contains("o such image") || text.contains("image not known")
}

/// Whether a container could not be started because its image lacks the program. Docker: `exec: "sleep": executable file
/// not found in $PATH`; podman: ``executable file `sleep` not found``.
pub fn lacks_program(text: &str) -> bool {
    text.contains("executable file") && text.contains("not found") || text.contains("exec: \"sleep\"")
}

/// How long `docker stop` may take at least, given `{{.Config.StopTimeout}}`: that time, the engine's 10 seconds where
/// none was set (`<nil>`), and half a minute for the engine. A negative one has no end; an hour stands for it.
pub(super) fn stop_limit(text: &str) -> Duration {
    let seconds = text.trim().parse::<i64>().unwrap_or(10);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(3600)).saturating_add(Duration::from_secs(30))
}

/// A failure of the engine as a whole.
pub(super) fn engine_error(stderr: &str) -> Error {
    let what = if is_denied(stderr) {
        hinted(
            "Docker engine refuses this user",
            "run as a member of the group docker, or as root",
        )
    } else {
        hinted(
            "Docker engine does not answer",
            "see whether the daemon runs: systemctl status docker",
        )
    };
    anyhow!("{}", if stderr.is_empty() { "no reason given" } else { stderr }).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_silence_is_not_an_absent_container() {
        for gone in [
            "Error response from daemon: No such container: x",
            "Error response from daemon: get x: no such volume",
            "Error response from daemon: no such image: x: No such image: x:latest",
            "Error: inspecting object: no such container x",
            "Error: inspecting object: alpine:latest: image not known",
            "Error: no container with name or ID \"x\" found: no such container",
        ] {
            assert!(is_absent(gone) && absent(gone.lines()).is_ok(), "{gone}");
        }
        for unreachable in [
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "Failed to initialize: unable to resolve docker endpoint: context \"x\": context not found: open /m",
            "error during connect: Get \"http://h:2375/v1.41/containers/x/json\": dial tcp: lookup h: no such host",
            "Error: unable to connect to Podman socket: dial unix /x.sock: connect: no such file or directory",
            "error during connect: exec: \"ssh\": executable file not found in $PATH",
            "",
        ] {
            assert!(
                absent(unreachable.lines())
                    .unwrap_err()
                    .to_string()
                    .contains("does not answer"),
                "{unreachable}"
            );
        }
        let denied =
            absent("permission denied while trying to connect to the Docker daemon socket".lines()).unwrap_err();
        assert!(crate::process::hint_of(&denied).is_some_and(|hint| hint.contains("group docker")));
    }

    #[test]
    fn a_warning_of_the_client_is_no_silence() {
        const GONE: &str = "Error response from daemon: No such container: x";
        for warning in [
            "WARNING: Error loading config file: /root/.docker/config.json: permission denied",
            "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.",
            "time=\"2026-01-02\" level=warning msg=\"The cgroupv2 manager is set to systemd but there is no such session\"",
            "DEPRECATED: The legacy builder is deprecated",
        ] {
            assert!(absent([warning, GONE].into_iter()).is_ok(), "{warning}");
            assert!(absent([GONE, warning, GONE].into_iter()).is_ok(), "{warning}");
            assert!(absent([warning].into_iter()).is_err() || is_absent(warning), "{warning}");
            let silent = "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?";
            assert!(absent([warning, silent].into_iter()).is_err(), "{warning}");
        }
        // One is gone; of the other the engine does not know.
        assert!(absent([GONE, "Error response from daemon: driver failed"].into_iter()).is_err());
    }

    #[test]
    fn a_container_that_goes_by_itself_is_known() {
        assert!(is_being_removed(
            "Error response from daemon: removal of container x is already in progress"
        ));
        assert!(!is_being_removed("Error response from daemon: No such container: x"));
    }

    #[test]
    fn the_end_of_a_container_is_told_from_what_its_program_says() {
        for ended in [
            "docker start failed: exit code 137",
            "Error response from daemon: Container x is not running",
            "Error response from daemon: No such container: x",
            "Error: can only create exec sessions on running containers: container state improper",
        ] {
            assert!(tells_ended_container(ended), "{ended}");
        }
        assert!(!tells_ended_container("psql failed: duplicate key value: exit code 3"));
    }

    #[test]
    fn a_lost_engine_is_told_from_what_a_program_says() {
        for lost in [
            "tar failed: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?: exit code 1",
            "tar failed: exit code 255",
        ] {
            assert!(tells_lost_engine(lost), "{lost}");
        }
        assert!(!tells_lost_engine("tar failed: Unexpected EOF in archive: exit code 2"));
    }

    #[test]
    fn a_stop_is_given_the_time_that_the_container_has() {
        assert_eq!(stop_limit("90"), Duration::from_secs(120));
        assert_eq!(stop_limit("<nil>"), Duration::from_secs(40));
        assert_eq!(stop_limit("0\n"), Duration::from_secs(30));
        assert_eq!(stop_limit("-1"), Duration::from_secs(3630));
    }
}
