//! What docker and podman print that decisions rest on: the one place that matches their texts.

use anyhow::{anyhow, Result};

use super::Docker;

impl Docker {
    /// Whether the client is podman, perhaps under docker's name. The engine is not asked.
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn is_podman(&self) -> Result<bool> {
        Ok(self.query(&["--version"])?.text().contains("podman"))
    }
}

/// Tells "there is no such object" (fine) from an engine that does not answer.
pub(super) fn absent(stderr: &str) -> Result<()> {
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
pub(super) fn engine_error(stderr: &str) -> anyhow::Error {
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
