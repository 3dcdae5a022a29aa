//! A run that others watch: it is announced, and the channels are told how it ended, however it ends. None of them can
//! spoil it.

use std::cell::{Cell, RefCell};
use std::thread;
use std::time::{Instant, SystemTime};

use anyhow::{Error, Result};

use super::alarm::{Alarm, LostRun};
use super::channel::{Channel, Outcome};
use super::channels::channels;
use super::log::{self, ascii, Journal};
use super::panics::caught;
use crate::config::Config;
use crate::store::Stamp;

/// A run that goes on.
#[derive(Debug)]
pub struct Running {
    alarm: RefCell<Option<Alarm>>,
    point: Cell<Option<Stamp>>,
}

impl Running {
    /// Notes that the run has recorded this recovery point; to look for the newest one would be to trust the clock.
    pub fn recorded(&self, point: Stamp) {
        self.point.set(Some(point));
        if let Some(alarm) = self.alarm.borrow_mut().as_mut() {
            alarm.note(point);
        }
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
    let watched = channels(config).next().is_some();
    let alarm = watched.then(|| Alarm::set(config)).transpose().unwrap_or_else(|error| {
        journal.warning(&error.context("A run that is killed will not be reported"));
        None
    });
    let run = Running {
        alarm: RefCell::new(alarm),
        point: Cell::new(None),
    };
    // The backup does not wait for a monitor that is slow.
    let done = thread::scope(|scope| {
        scope.spawn(|| tell(config, journal, |channel| channel.begin(config)));
        let done = caught(|| work(&run));
        if let Err(error) = &done {
            journal.failure(error);
        }
        done
    });
    if watched {
        let failure = done.as_ref().err().map(|error: &Error| format!("{error:#}"));
        let failure = failure.or_else(log::failure);
        let mut outcome = Outcome::new(begun.elapsed(), run.point.get());
        outcome.success = failure.is_none();
        outcome.summary = failure.map_or_else(|| "All backups completed successfully".to_owned(), |text| ascii(&text));
        tell_end(config, journal, outcome, look);
    }
    if let Some(alarm) = run.alarm.into_inner() {
        alarm.dismiss();
    }
    // As `main` counts it: the page is written by this.
    u8::from(done.is_err() || log::failure().is_some())
}

/// Reports a run that has left no more than what the alarm knows.
pub fn report_lost_run(config: &Config, journal: Journal, run: &LostRun, look: impl FnOnce(&mut Outcome)) {
    let seconds = SystemTime::now().duration_since(run.begun).unwrap_or_default();
    let mut outcome = Outcome::new(seconds, run.point);
    outcome.summary = format!(
        "The run with PID {} did not come to its end: it was killed, or it crashed",
        run.pid
    );
    journal.error(&outcome.summary);
    tell_end(config, journal, outcome, look);
}

/// Tells the channels how a run ended.
fn tell_end(config: &Config, journal: Journal, mut outcome: Outcome, look: impl FnOnce(&mut Outcome)) {
    let looked = caught(|| {
        look(&mut outcome);
        Ok(())
    });
    if let Err(error) = looked {
        outcome.success = false;
        outcome.summary = error.to_string();
    }
    tell(config, journal, |channel| channel.end(config, &outcome));
}

/// Tells each channel something; what does not arrive is a warning.
fn tell(config: &Config, journal: Journal, what: impl Fn(&dyn Channel) -> Result<()>) {
    for channel in channels(config) {
        if let Err(error) = caught(|| what(channel)) {
            journal.warning(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::testing::TempDir;

    const JOURNAL: Journal = Journal::new("test");

    /// Runs `work` in a project that asks for metrics, and gives the exit code and what they tell of the success.
    fn reported(work: impl FnOnce(&Running) -> Result<()>, look: impl FnOnce(&mut Outcome)) -> (u8, Option<bool>) {
        let dir = TempDir::new();
        let settings = b"BACKUP_METRICS_FILE=m.prom\nBACKUP_NOTIFY_COMMAND=./none\n";
        let config = Config::of_text(dir.path(), Path::new(".env"), settings).unwrap();
        let code = report_run(&config, JOURNAL, work, look);
        let metrics = std::fs::read_to_string(dir.path().join("m.prom")).unwrap_or_default();
        let success = metrics
            .lines()
            .find(|line| line.starts_with("n8n_backup_last_run_success{"));
        (code, success.map(|line| line.ends_with(" 1")))
    }

    fn measured(outcome: &mut Outcome) {
        outcome.measured = Ok(crate::report::channel::Measured::default());
    }

    #[test]
    fn a_run_is_reported_as_it_went() {
        assert_eq!(reported(|_| Ok(()), measured), (0, Some(true)));
        assert_eq!(reported(|_| anyhow::bail!("no"), measured), (1, Some(false)));
        // That nothing can be measured costs no run, and hides none that has failed.
        assert_eq!(reported(|_| Ok(()), |_| {}), (0, Some(true)));
        assert_eq!(reported(|_| anyhow::bail!("no"), |_| {}), (1, Some(false)));
    }

    #[test]
    fn a_log_that_was_not_written_is_a_failed_run() {
        const CHILD: &str = "RUN_CHILD";
        if env::var_os(CHILD).is_some() {
            log::internal_error("test", "the log could not be written");
            assert_eq!(reported(|_| Ok(()), measured), (1, Some(false)));
            return;
        }
        // What has failed is kept for the whole process.
        let test = "report::run::tests::a_log_that_was_not_written_is_a_failed_run";
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", test])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    fn a_panic_anywhere_is_a_failed_run_that_is_reported() {
        assert_eq!(reported(|_| panic!("in the work"), measured), (1, Some(false)));
        let in_a_thread = |_: &Running| {
            thread::scope(|scope| drop(scope.spawn(|| panic!("in a thread"))));
            Ok(())
        };
        assert_eq!(reported(in_a_thread, measured), (1, Some(false)));
        let while_looking = |outcome: &mut Outcome| {
            measured(outcome);
            panic!("while looking")
        };
        assert_eq!(reported(|_| Ok(()), while_looking).1, Some(false));
    }
}
