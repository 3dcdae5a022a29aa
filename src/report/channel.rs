//! Who is told how a run of backup-all went. A channel is one file and one line in `channels.rs`.

use std::time::Duration;

use anyhow::{anyhow, Result};

use crate::config::Config;
use crate::store::{Kind, Stamp};

/// A way to tell others how a run went. It is bounded in time, and its failure is a warning, never that of the run.
pub trait Channel: Sync {
    /// A word for it, under which doctor lists it.
    fn name(&self) -> &'static str;

    /// Whether the settings ask for it.
    fn is_on(&self, config: &Config) -> bool;

    /// Looks whether it could do its work, without doing it.
    fn probe(&self, config: &Config) -> Result<()>;

    /// Tells that a run begins, while that goes on.
    fn begin(&self, _: &Config) -> Result<()> {
        Ok(())
    }

    /// Tells how the run ended.
    fn end(&self, config: &Config, outcome: &Outcome) -> Result<()>;
}

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// Whether all of it succeeded.
    pub success: bool,
    /// The outcome in a sentence.
    pub summary: String,
    /// How long the run took.
    pub seconds: f64,
    /// The recovery point that it has recorded.
    pub point: Option<Stamp>,
    /// Its components.
    pub parts: Vec<Part>,
    /// What there is now.
    pub measured: Result<Measured>,
}

/// What a run made of one component.
#[derive(Clone, Debug)]
pub struct Part {
    /// The component, by the name of its directory.
    pub name: &'static str,
    /// Whether it was backed up.
    pub backed_up: bool,
    /// What its file takes, where that is known.
    pub bytes: Option<u64>,
}

/// The backups as they are after a run. Times are seconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// When the newest recovery point was begun that a restore of the latest would take.
    pub newest: Option<i64>,
    /// Whether the drills say that recovery works.
    pub drill_success: Option<bool>,
    /// When the newest one was begun that a drill has restored.
    pub proven: Option<i64>,
    /// For each proof, when the newest one was begun that has it, and the n8n that it was made by, if one was.
    pub proofs: Vec<(&'static str, Option<String>, i64)>,
    /// How many are kept.
    pub points: u64,
    /// What their files take.
    pub stored_bytes: u64,
    /// Free space on their disk.
    pub free_bytes: Option<u64>,
    /// In how many days that of one of the disks will be used up, if it will be within the time that is looked ahead.
    pub days_until_full: Option<u64>,
}

impl Outcome {
    /// The outcome of a run of which no more is known than this: it has failed, and made nothing.
    pub fn new(duration: Duration, point: Option<Stamp>) -> Self {
        let part = |kind: Kind| Part {
            name: kind.name(),
            backed_up: false,
            bytes: None,
        };
        Self {
            success: false,
            summary: String::new(),
            seconds: duration.as_secs_f64(),
            point,
            parts: Kind::PARTS.map(part).to_vec(),
            measured: Err(anyhow!("nothing was measured")),
        }
    }

    /// The components that were not backed up, blank-separated.
    pub fn failed(&self) -> String {
        let failed = self.parts.iter().filter(|part| !part.backed_up);
        failed.map(|part| part.name).collect::<Vec<_>>().join(" ")
    }
}

/// How much of the log goes with a message.
pub(super) const BODY_BYTES: usize = 10_000;

/// The last of these lines that fit into a message.
pub(super) fn body(lines: &[String]) -> String {
    let mut room = BODY_BYTES;
    let fits = lines.iter().rev().take_while(|line| {
        let fits = line.len() < room;
        room = room.saturating_sub(line.len() + 1);
        fits
    });
    let mut kept: Vec<&str> = fits.map(String::as_str).collect();
    kept.reverse();
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_go_along() {
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n:04} {}", "x".repeat(90))).collect();
        let body = body(&lines);
        assert!(body.len() <= BODY_BYTES && body.len() > BODY_BYTES - 200);
        assert!(body.ends_with(&lines[999]) && body.starts_with("line "));
    }

    #[test]
    fn what_was_not_backed_up_has_failed() {
        let mut outcome = Outcome::new(Duration::ZERO, None);
        assert_eq!(outcome.failed(), Kind::PARTS.map(Kind::name).join(" "));
        for part in &mut outcome.parts {
            part.backed_up = part.name != "redis";
        }
        assert_eq!(outcome.failed(), "redis");
    }
}
