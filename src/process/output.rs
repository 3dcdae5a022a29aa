//! Programs with little output, run to their end.

use std::io;
use std::process::Command;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{bail, Result};

use super::capture::SEPARATOR;
use super::error::Failed;
use super::{is_broken_pipe, Chain, Input};

/// The outcome of a program.
#[derive(Debug)]
pub struct Output {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Its exit code, when it was not killed.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The last lines of its standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as text, without the line end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout)
            .trim_end_matches(['\n', '\r'])
            .to_owned()
    }

    /// The last lines of standard error, one by one.
    pub fn stderr_lines(&self) -> impl Iterator<Item = &str> + Clone {
        self.stderr.split(SEPARATOR)
    }
}

/// Runs `command` to its end, whatever its exit code, unless nothing moves for `stall`. `input` is written to its
/// standard input.
pub fn output(name: &str, command: Command, input: Option<Vec<u8>>, stall: Duration) -> Result<Output> {
    output_of(Chain::new(stall), name, command, input)
}

/// As [`output`], in a chain that the caller has made, with a [`Chain::pulse`] perhaps.
pub fn output_of(mut chain: Chain, name: &str, command: Command, input: Option<Vec<u8>>) -> Result<Output> {
    const LIMIT: usize = 32 << 20;
    let stdin = if input.is_some() { Input::Piped } else { Input::Null };
    let (stdin, stdout) = chain.spawn(name, command, stdin)?;
    if let (Some(stdin), Some(input)) = (stdin, input) {
        chain.pump(format!("writing to {name}"), io::Cursor::new(input), stdin, ());
    }
    let stdout = chain.collect(format!("reading from {name}"), stdout, LIMIT);
    let shared = Arc::clone(&chain.shared);
    match chain.finish() {
        Err(error) if error.downcast_ref::<Failed>().is_none() && !is_broken_pipe(&error) => {
            Err(error.context(name.to_owned()))
        }
        verdict => {
            let stdout = match &verdict {
                Ok(finished) => stdout.get(finished)?,
                Err(failure) => stdout.despite(failure).unwrap_or_default(),
            };
            let mut processes = shared.processes();
            let Some(process) = processes.first_mut() else {
                bail!("{name} was not started")
            };
            let stderr = process.stderr.lock().unwrap_or_else(PoisonError::into_inner).text();
            let status = process.poll();
            Ok(Output {
                success: status.is_some_and(|status| status.success()),
                code: status.and_then(|status| status.code()),
                stdout,
                stderr,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::command;
    use crate::testing::{sh, STALL};

    #[test]
    fn output_keeps_the_exit_code_and_the_last_lines() {
        let done = output("sh", sh("cat; echo trouble >&2; exit 4"), Some(b"in".to_vec()), STALL).unwrap();
        assert_eq!(
            (done.code, done.text().as_str(), done.stderr.as_str()),
            (Some(4), "in", "trouble")
        );
        let missing = output("none", command("/nonexistent/program"), None, STALL).unwrap_err();
        assert!(format!("{missing:#}").contains("could not execute /nonexistent/program"));
    }
}
