//! A run that others watch: it is announced, and its outcome goes to a monitor, a program, a file of metrics. None of
//! these can spoil the run.

use std::ffi::OsString;
use std::thread;
use std::time::{Instant, SystemTime};

use anyhow::Result;

use super::status::State;
use crate::app::App;
use crate::report::channel::{self, Signal};
use crate::report::log::{self, Journal};
use crate::report::metrics::Metrics;
use crate::store::manifest::Point;
use crate::store::{Kind, Stamp};

/// Runs `work` as the command of `journal`, and tells those who watch. `work` notes the stamp of the recovery point that
/// it has recorded; to look for the newest one would be to trust the clock. Gives the exit code; a failure has been logged
/// by then, because its lines go to the watchers.
pub fn run(app: &App, journal: Journal, work: impl FnOnce(&App, &mut Option<Stamp>) -> Result<()>) -> u8 {
    let config = &app.config;
    let begun = Instant::now();
    let ping = |signal: Signal| {
        if let Some(url) = &config.ping_url {
            let lines = if signal == Signal::Start {
                Vec::new()
            } else {
                log::recent()
            };
            if let Err(error) = channel::ping(url, signal, &lines) {
                journal.warn(format_args!("BACKUP_PING_URL was not reached: {error:#}"));
            }
        }
    };
    // The backup does not wait for a monitor that is slow.
    let mut made = None;
    let done = thread::scope(|scope| {
        scope.spawn(|| ping(Signal::Start));
        let done = work(app, &mut made);
        if let Err(error) = &done {
            journal.failure(error);
        }
        done
    });
    let point = made.and_then(|stamp| Point::load(&app.store.set_path(stamp)).ok());
    let outcome = Outcome {
        success: done.is_ok() && log::failure().is_none(),
        summary: match &done {
            Ok(()) => "All backups completed successfully".to_owned(),
            Err(error) => format!("{error:#}"),
        },
        seconds: begun.elapsed().as_secs_f64(),
        point,
    };
    if let Some(path) = &config.metrics_file {
        let written = outcome.metrics(app).and_then(|metrics| metrics.write(path));
        if let Err(error) = written {
            journal.warn(format_args!("BACKUP_METRICS_FILE was not written: {error:#}"));
        }
    }
    ping(if outcome.success { Signal::Success } else { Signal::Fail });
    if !config.notify_command.is_empty() {
        let told = channel::command(
            &config.notify_command,
            &config.project,
            &outcome.variables(app),
            &log::recent(),
        );
        if let Err(error) = told {
            journal.warn(format_args!("BACKUP_NOTIFY_COMMAND failed: {error:#}"));
        }
    }
    u8::from(done.is_err())
}

/// How a run went.
struct Outcome {
    success: bool,
    summary: String,
    seconds: f64,
    /// What it has made, if anything.
    point: Option<Point>,
}

impl Outcome {
    /// The components that were not backed up, blank-separated.
    fn failed(&self) -> String {
        match &self.point {
            Some(point) => {
                let missing = Kind::ALL.iter().filter(|kind| point.member(**kind).is_none());
                missing.map(|kind| kind.dir()).collect::<Vec<_>>().join(" ")
            }
            None => Kind::ALL.map(Kind::dir).join(" "),
        }
    }

    /// What the notify command finds in its environment.
    fn variables(&self, app: &App) -> Vec<(&'static str, OsString)> {
        let result = if self.success { "success" } else { "failure" };
        let point = self.point.as_ref().map(|point| point.stamp.to_string());
        vec![
            ("N8N_BACKUP_RESULT", result.into()),
            ("N8N_BACKUP_SUMMARY", self.summary.clone().into()),
            ("N8N_BACKUP_FAILED", self.failed().into()),
            ("N8N_BACKUP_POINT", point.unwrap_or_default().into()),
            ("N8N_BACKUP_SECONDS", format!("{:.0}", self.seconds).into()),
            ("N8N_BACKUP_PROJECT", app.config.project.clone().into()),
        ]
    }

    fn metrics(&self, app: &App) -> Result<Metrics> {
        let state = State::gather(app)?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let past = |age: i64| i64::try_from(now).unwrap_or(i64::MAX) - age;
        let mut metrics = Metrics::new(&app.config.project.to_string_lossy());
        let m = &mut metrics;
        m.add(
            "n8n_backup_info",
            "The version of n8n-backup.",
            Some(("version", env!("CARGO_PKG_VERSION"))),
            1,
        );
        m.add(
            "n8n_backup_last_run_timestamp_seconds",
            "When backup-all ended last.",
            None,
            now,
        );
        m.add(
            "n8n_backup_last_run_success",
            "Whether that run succeeded.",
            None,
            u8::from(self.success),
        );
        m.add(
            "n8n_backup_last_run_duration_seconds",
            "How long it took.",
            None,
            format!("{:.3}", self.seconds),
        );
        for kind in Kind::ALL {
            let member = self.point.as_ref().and_then(|point| point.member(kind));
            m.add(
                "n8n_backup_component_success",
                "Whether that run backed the component up.",
                Some(("component", kind.dir())),
                u8::from(member.is_some()),
            );
        }
        for kind in Kind::ALL {
            let size = self
                .point
                .as_ref()
                .and_then(|p| p.fact(&format!("size.{}", kind.dir())));
            if let Some(size) = size {
                m.add(
                    "n8n_backup_component_size_bytes",
                    "What the component's file takes.",
                    Some(("component", kind.dir())),
                    size,
                );
            }
        }
        if let Some(age) = state.newest_age() {
            m.add(
                "n8n_backup_newest_timestamp_seconds",
                "When the newest recovery point was begun that a restore of the latest would take.",
                None,
                past(age),
            );
        }
        if let Some(age) = state.proven_age() {
            m.add(
                "n8n_backup_proven_timestamp_seconds",
                "When the newest recovery point that a drill has restored was begun.",
                None,
                past(age),
            );
        }
        let (points, bytes) = state.stored();
        m.add("n8n_backup_points", "Recovery points that are kept.", None, points);
        m.add("n8n_backup_stored_bytes", "What their files take.", None, bytes);
        if let Some(free) = state.free() {
            m.add(
                "n8n_backup_free_bytes",
                "Free space on the disk of the backups.",
                None,
                free,
            );
        }
        Ok(metrics)
    }
}
