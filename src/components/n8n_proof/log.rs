//! What n8n prints while it starts.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{anyhow, bail, Error, Result};

use crate::process::{is_stalled, Observer, Tail};

/// How much of a line is looked at.
const LINE_BYTES: usize = 4096;
/// Lines that tell of a workflow, by its name, that could not be activated.
const FAILED: [&str; 2] = [
    "Issue on initial workflow activation try of ",
    "Activation of workflow ",
];

/// What n8n prints last when it starts.
const SETTLED: &str = "Editor is now accessible via";

/// What n8n prints when it cannot migrate. It may hang then, and does not recover.
const NOT_MIGRATED: &str = "There was an error running database migrations";

/// The last lines, and the workflows whose activation failed.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    tail: Tail,
    line: Vec<u8>,
    failed: Vec<String>,
    settled: bool,
}

impl Log {
    /// Whether n8n has tried to activate every workflow.
    pub fn is_settled(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).settled
    }

    /// The last lines in one.
    pub fn last_lines(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tail.text()
    }

    /// Adds the last lines to a failure, where there are any. An n8n that hangs has failed: what stalled is n8n itself,
    /// not the reading of a backup.
    pub fn explain(&self, error: Error) -> Error {
        let error = match is_stalled(&error) {
            true => anyhow!("{error:#}"),
            false => error,
        };
        match self.last_lines().as_str() {
            "" => error,
            last => error.context(last.to_owned()),
        }
    }

    /// The workflows that could not be activated.
    pub fn failed_activations(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }
}

impl Observer for Log {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.tail.push(chunk);
        let mut migrated = true;
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES.saturating_sub(seen.line.len());
            seen.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut seen.line);
                let line = String::from_utf8_lossy(&line);
                migrated &= !line.contains(NOT_MIGRATED);
                seen.settled |= line.contains(SETTLED);
                let workflow = failed_activation(&line).map(str::to_owned);
                if let Some(workflow) = workflow.filter(|workflow| !seen.failed.contains(workflow)) {
                    seen.failed.push(workflow);
                }
            }
        }
        if !migrated {
            bail!("its migration of the database failed");
        }
        Ok(())
    }
}

/// The name in quotation marks of a workflow whose activation failed, as a line tells it.
fn failed_activation(line: &str) -> Option<&str> {
    let [initial, again] = FAILED;
    let rest = match line.split_once(initial) {
        Some((_, rest)) => rest,
        None => {
            line.split_once(again)
                .filter(|(_, rest)| rest.contains(" did fail with error"))?
                .1
        }
    };
    // Its ID follows the name, which may hold anything.
    let end = rest.find("\" (").unwrap_or(rest.trim_end().len());
    Some(rest[..end].trim_start_matches('"')).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Chain, Input};
    use crate::stream::read::is_no_verdict;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn an_n8n_that_hangs_has_failed() {
        let mut log = Log::default();
        log.feed(b"the first line of n8n\n").unwrap();
        for script in ["exec sleep 60", "echo to stderr >&2; exec sleep 60"] {
            let mut chain = Chain::new(Duration::from_millis(200));
            let mut hangs = Command::new("sh");
            hangs.args(["-c", script]);
            let _pipes = chain.spawn("n8n", hangs, Input::Null).unwrap();
            let stalled = chain.finish().unwrap_err();
            assert!(is_no_verdict(&stalled), "{stalled:#}");
            let failed = log.explain(stalled).context("n8n did not open the credentials");
            assert!(!is_no_verdict(&failed), "{failed:#}");
            let text = format!("{failed:#}");
            assert!(text.contains("the first line of n8n: nothing moved"), "{text}");
        }
    }

    #[test]
    fn workflows_that_are_not_activated_are_named_once() {
        let mut log = Log::default();
        for piece in [
            "Start Active Workflows:\nIssue on initial workflow act",
            "ivation try of \"Tele \"gram\" (ID: a1) (startup)\n",
            "x Activation of workflow \"Tele \"gram\" (a1) did fail with error: \"getaddrinfo\" | retry in 1 seconds\n",
            "Activation of workflow \"Mail\" (b2) was successful!\nActivation of workflow \"IMAP\" (c3) did fail with error: \"x\"\n",
        ] {
            log.feed(piece.as_bytes()).unwrap();
        }
        assert_eq!(log.failed_activations(), ["Tele \"gram", "IMAP"]);
        assert!(log.last_lines().starts_with("Start Active Workflows: / Issue"));
    }

    #[test]
    fn a_failed_migration_is_an_error_at_once() {
        let mut log = Log::default();
        log.feed(b"Migration \"X\" failed, error: must be owner of table a\n")
            .unwrap();
        let error = log
            .feed(b"There was an error running database migrations\n")
            .unwrap_err();
        assert_eq!(error.to_string(), "its migration of the database failed");
        assert!(log.last_lines().contains("must be owner of table a"));
    }
}
