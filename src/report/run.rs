//! A run that others watch: it is announced, and the channels are told how it ended. None of them can spoil it.

use std::cell::Cell;
use std::thread;
use std::time::Instant;

use anyhow::{Error, Result};

use super::channel::{channels, Channel, Outcome};
use super::log::{self, ascii, Journal};
use crate::config::Config;
use crate::store::Stamp;

/// A run that goes on.
#[derive(Debug, Default)]
pub struct Running {
    point: Cell<Option<Stamp>>,
}

impl Running {
    /// Notes that the run has recorded this recovery point; to look for the newest one would be to trust the clock.
    pub fn recorded(&self, point: Stamp) {
        self.point.set(Some(point));
    }
}

/// Runs `work` as the command of `journal` and tells the channels. `look` adds to the outcome what there is to see
/// afterwards. Gives the exit code; a failure has been logged by then, because its lines go to the channels.
pub fn report_run(
    config: &Config,
    journal: Journal,
    work: impl FnOnce(&Running) -> Result<()>,
    look: impl FnOnce(&mut Outcome),
) -> u8 {
    let begun = Instant::now();
    let run = Running::default();
    // The backup does not wait for a monitor that is slow.
    let done = thread::scope(|scope| {
        scope.spawn(|| tell(config, journal, |channel| channel.begin(config)));
        let done = work(&run);
        if let Err(error) = &done {
            journal.failure(error);
        }
        done
    });
    if channels(config).next().is_some() {
        let failure = done
            .as_ref()
            .err()
            .map(|error: &Error| ascii(&format!("{error:#}")))
            .or_else(log::failure);
        let mut outcome = Outcome::failure(failure.clone().unwrap_or_default(), begun.elapsed().as_secs_f64());
        if failure.is_none() {
            outcome.success = true;
            outcome.summary = "All backups completed successfully".to_owned();
        }
        outcome.point = run.point.get();
        look(&mut outcome);
        tell_end(config, journal, &outcome);
    }
    u8::from(done.is_err())
}

/// Tells the channels how a run ended.
fn tell_end(config: &Config, journal: Journal, outcome: &Outcome) {
    tell(config, journal, |channel| channel.end(config, outcome));
}

/// Tells each channel something; what does not arrive is a warning.
fn tell(config: &Config, journal: Journal, what: impl Fn(&dyn Channel) -> Result<()>) {
    for channel in channels(config) {
        if let Err(error) = what(channel) {
            journal.warn(format_args!("{error:#}"));
        }
    }
}
