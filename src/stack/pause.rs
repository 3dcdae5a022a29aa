//! n8n at rest while something under it is replaced: what runs is stopped, and that alone is started again. A record in
//! `backups/` keeps that through a crash, with the parts of a recovery point that are done.

mod part;
mod resume;

pub use part::{regardless, within};

use std::fs;
use std::thread;

use anyhow::{anyhow, ensure, Context as _, Result};

use super::discovery;
use super::interrupted::{is_history, is_up, let_go, names_of, running, settle, unfinished};
use super::record::{is_n8n, path, read, write, Entry, Record};
use super::LeftHalfDone;
use crate::app::App;
use crate::engine::{Container, Docker, Status};
use crate::process::hinted;
use crate::report::log::Journal;
use crate::store::Kind;

/// n8n's containers, stopped from [`Pause::begin`] on.
pub struct Pause<'a> {
    app: &'a App,
    docker: &'a Docker,
    journal: Journal,
    /// What an earlier restore that was interrupted has left.
    before: Option<Record>,
    record: Record,
    /// What was started for the restore.
    lent: Vec<String>,
    begun: bool,
}

/// Restores one part by itself, with n8n at rest meanwhile. For `others` see [`Pause::plan`]. While a restore-all is
/// unfinished, it is done as [`within`] that.
///
/// # Errors
/// As for [`Pause::begin`], those of the work, and as for [`Pause::end`].
pub fn with_n8n_stopped(
    app: &App,
    docker: &Docker,
    journal: Journal,
    kind: Kind,
    others: &[String],
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if let Some(Some(_)) = unfinished(app)? {
        return within(app, journal, kind, work);
    }
    let mut pause = Pause::plan(app, docker, journal, others)?;
    pause.begin()?;
    let done = pause.begin_part(kind).and_then(|()| work());
    pause.end_part(kind, done)
}

/// Refuses a stack of which a stop removes a container of n8n's that runs.
pub fn check_outlive_stop(app: &App, docker: &Docker) -> Result<()> {
    let containers = app.n8n_containers(docker)?;
    let mut running = containers.iter().filter(|container| is_up(container));
    running.try_for_each(Container::check_outlives_stop)
}

/// Refuses a stack that cannot be brought to rest: as for [`check_outlive_stop`], and where a container of n8n's that
/// is not stopped works on the same database: what that does meanwhile would be lost.
pub fn check_can_rest(app: &App, docker: &Docker) -> Result<()> {
    check_outlive_stop(app, docker)?;
    let mut strangers = discovery::strangers(app, docker)?;
    strangers.retain(is_up);
    let names: Vec<&str> = strangers.iter().map(|container| container.name.as_str()).collect();
    ensure!(
        names.is_empty(),
        hinted(
            format_args!(
                "Containers that are not known as n8n's work on n8n's database: {}",
                names.join(" ")
            ),
            format_args!(
                "stop them, or add them to BACKUP_N8N_CONTAINERS in .env, so that they are stopped meanwhile (it is: \
                 {})",
                app.config.n8n_containers.join(" ")
            )
        )
    );
    Ok(())
}

impl<'a> Pause<'a> {
    /// Looks at what there is. `others` are containers that are not stopped here, and may be started or stopped by the restore
    /// itself: at the end they are as they are now, or were before an earlier restore that was interrupted. Changes nothing.
    /// The main lock must be held.
    ///
    /// # Errors
    /// When the engine does not answer, or the record of an earlier restore cannot be read, and as for
    /// [`check_can_rest`].
    pub fn plan(app: &'a App, docker: &'a Docker, journal: Journal, others: &[String]) -> Result<Self> {
        check_can_rest(app, docker)?;
        let before = read(app)?;
        let mut record = Record::default();
        for name in others {
            if let Some(container) = docker.container(name)? {
                record.containers.insert(
                    name.clone(),
                    Entry {
                        runs: is_up(&container),
                        started: container.started_at,
                        id: container.id,
                        policy: None,
                    },
                );
            }
        }
        Ok(Self {
            app,
            docker,
            journal,
            before,
            record,
            lent: Vec::new(),
            begun: false,
        })
    }

    /// Starts one of the others, which does not run; as long as the restore has not begun, it is stopped again when this goes
    /// out of scope.
    pub fn start_temporarily(&mut self, name: &str) -> Result<()> {
        let mut record = self.before.clone().unwrap_or_default();
        for (name, entry) in &self.record.containers {
            record.containers.entry(name.clone()).or_insert_with(|| entry.clone());
        }
        write(self.app, &record)?;
        self.lent.push(name.to_owned());
        self.journal.info(format_args!("Starting {name}..."));
        self.docker.start(name)
    }

    /// Stops those of n8n's containers that run.
    ///
    /// # Errors
    /// When one cannot be stopped; those that were are started again. Where that fails, too, the record stays.
    pub fn begin(&mut self) -> Result<()> {
        let before = self.before.clone().unwrap_or_default();
        let mut record = Record::default();
        let mut running = Vec::new();
        let mut paused = Vec::new();
        for name in &self.app.config.n8n_containers {
            let Some(container) = self.docker.container(name)? else {
                continue;
            };
            let known = match before.is_replaced(self.docker, &container)? {
                true => None,
                false => before.of(&container),
            };
            let known = known.or_else(|| before.containers.get(name));
            let runs = is_up(&container);
            if container.status == Status::Paused {
                self.journal
                    .warn(format_args!("{name} is paused; it is stopped, and runs at the end"));
                paused.push(name.as_str());
            }
            if runs {
                running.push(name.as_str());
            }
            // What was changed by hand since is what holds.
            let policy = match container.restart.as_str() {
                "no" => before.of(&container).and_then(|known| known.policy.clone()),
                policy => Some(policy.to_owned()),
            };
            record.containers.insert(
                name.clone(),
                Entry {
                    runs: runs || known.is_some_and(|known| known.runs),
                    started: container.started_at,
                    id: container.id,
                    policy,
                },
            );
        }
        record.seen = discovery::last_starts(self.app, self.docker)?;
        if record.containers.is_empty() {
            self.journal.warn(format_args!(
                "None of n8n's containers is there, so none is stopped ({}): set BACKUP_N8N_CONTAINERS in .env if yours are \
                 called otherwise",
                self.app.config.n8n_containers.join(" ")
            ));
        }
        // Where n8n has worked since, it may have been given its servers back by hand: they are not taken from it. Nor
        // from one that is started at the end.
        let starts_n8n = record.containers.values().any(|entry| entry.runs);
        let history = is_history(self.app, self.docker, &before)?;
        for (name, entry) in &self.record.containers {
            // One that runs now may have been started by the restore that was interrupted.
            let known = before.with_id(&entry.id).or_else(|| before.containers.get(name));
            let runs = match known {
                _ if starts_n8n => true,
                Some(known) if history => known.runs || entry.runs,
                Some(known) => known.runs,
                None => entry.runs,
            };
            record.containers.insert(name.clone(), Entry { runs, ..entry.clone() });
        }
        // What was restored for a server that is gone is gone with it.
        let mut is_gone = false;
        for (name, entry) in &before.containers {
            // It may have another name by now.
            if record.containers.contains_key(name) || record.with_id(&entry.id).is_some() {
                continue;
            }
            let named = self.docker.container(name)?;
            is_gone |= named.is_none() && !is_n8n(self.app, name);
            let found = match named {
                None => self.docker.containers(&[entry.handle(name)])?.pop(),
                named => named,
            };
            if let Some(now) = found {
                let entry = Entry {
                    runs: entry.runs,
                    policy: before.of(&now).and_then(|known| known.policy.clone()),
                    // What it did before this restore is no sign of it.
                    started: now.started_at,
                    id: now.id,
                };
                record.containers.insert(now.name, entry);
            }
        }
        if !history {
            record.point = before.point;
            record.parts = before.parts;
            record.done = before.done;
            record.begun = before.begun;
            record.left_out = before.left_out;
            record.mixed = before.mixed;
            let is_other = |(name, now): (&String, &Entry)| {
                let known = before.containers.get(name);
                known.is_some_and(|known| known.id != now.id)
            };
            if is_gone || record.containers.iter().any(is_other) {
                record.forget_done(
                    self.journal,
                    &Kind::ALL,
                    "the containers were created again since the interrupted run",
                );
            }
        }
        if before.containers.values().any(|entry| entry.runs) {
            self.journal
                .warn("An earlier restore was interrupted; what it had stopped is started at the end");
        }
        self.record = record;
        self.write()?;
        // A failure ends the restore, so it comes before anything is held.
        for name in paused {
            self.docker.unpause(name)?;
        }
        self.hold();
        self.stop(&running)?;
        self.begun = true;
        // One that ends again and again may have been started since it was looked at.
        let now = match running.is_empty() {
            true => Vec::new(),
            false => self.docker.containers(&running).unwrap_or_default(),
        };
        let mut changed = false;
        for container in now {
            if let Some(entry) = self.record.containers.get_mut(&container.name) {
                changed |= entry.started != container.started_at;
                entry.started = container.started_at;
            }
        }
        if changed {
            // Else the next step writes it, which starts n8n again where that fails.
            let _ = self.write();
        }
        Ok(())
    }

    /// Keeps the engine from starting n8n's containers by itself, as it does with `restart: always` when it was restarted. The
    /// record, which is written, has the policies.
    fn hold(&mut self) {
        for (name, entry) in self.record.containers.clone() {
            if entry.policy.is_none() {
                continue;
            }
            if let Err(error) = self.docker.set_restart(entry.handle(&name), "no") {
                self.journal.warning(&error.context(format!(
                    "{name} cannot be kept from being started by the engine, so a start of it meanwhile makes the restore \
                     fail"
                )));
                if let Some(entry) = self.record.containers.get_mut(&name) {
                    entry.policy = None;
                }
            }
        }
    }

    fn let_go(&mut self) -> Result<()> {
        let app = self.app;
        let_go(self.docker, &mut self.record, |record| write(app, record))
    }

    /// Records that a part is being restored by itself.
    fn begin_part(&mut self, kind: Kind) -> Result<()> {
        if !self.record.parts.contains(&kind) {
            self.record.parts.push(kind);
        }
        self.record.begun.push(kind);
        self.write()
    }

    /// As [`Pause::end`], but n8n stays stopped and the record in place while another part is half restored, whose restore was
    /// interrupted.
    fn end_part(mut self, kind: Kind, done: Result<()>) -> Result<()> {
        let done = self.record.end_part(kind, done);
        if done.as_ref().is_err_and(|error| error.is::<LeftHalfDone>()) {
            return self.end(done, false);
        }
        self.record.parts.retain(|part| *part != kind);
        if self.record.parts.is_empty() {
            return self.end(done, false);
        }
        self.journal.warn(format_args!(
            "n8n stays stopped: the restore of {} was interrupted. Run it again, which sets that right and starts n8n",
            names_of(&self.record.parts)
        ));
        let kept = self.write().and_then(|()| self.leave());
        match (done, kept) {
            (Ok(()), kept) => kept,
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(worse)) => {
                self.journal.failure(&worse);
                Err(error)
            }
        }
    }

    fn stop(&mut self, names: &[&str]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        self.journal.info(format_args!("Stopping n8n: {}", names.join(" ")));
        let docker = self.docker;
        let failed = thread::scope(|scope| {
            let each: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(move || docker.stop(name)))
                .collect();
            each.into_iter()
                .filter_map(|one| one.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))).err())
                .next()
        });
        let Some(error) = failed else { return Ok(()) };
        let mut started = self.let_go();
        for name in names {
            started = started.and(docker.start(name));
        }
        // Else the record is all that knows what is to run.
        self.begun = started.is_err();
        started.context("n8n could not be stopped, nor all of it started again")?;
        Err(error.context("n8n could not be stopped, nothing was restored"))
    }

    /// Whether n8n will be started at the end.
    pub fn starts_n8n(&self) -> bool {
        self.n8n().any(|name| self.ran(name))
    }

    fn n8n(&self) -> impl Iterator<Item = &str> {
        let names = self.app.config.n8n_containers.iter().map(String::as_str);
        names.filter(|name| self.record.containers.contains_key(*name))
    }

    fn ran(&self, name: &str) -> bool {
        self.record.containers.get(name).is_some_and(|entry| entry.runs)
    }

    fn write(&self) -> Result<()> {
        write(self.app, &self.record)
    }

    /// Those that are not n8n's, and whether each is to run at the end.
    fn others(&self) -> impl Iterator<Item = (&str, bool)> {
        let each = self.record.containers.iter();
        each.filter(|(name, _)| !is_n8n(self.app, name))
            .map(|(name, entry)| (name.as_str(), entry.runs))
    }

    /// Leaves the record in place, with n8n stopped; what did not run before is stopped.
    fn leave(&self) -> Result<()> {
        let settled = settle(self.app, self.journal);
        self.stop_temporary().and(settled)
    }

    /// Stops what did not run before.
    fn stop_temporary(&self) -> Result<()> {
        let names = self.others().filter(|(_, runs)| !runs).map(|(name, _)| name);
        self.stop_again(&names.collect::<Vec<_>>())
    }

    /// Stops those that run and did not before, unless an n8n that somebody has started meanwhile works with them.
    fn stop_again(&self, names: &[&str]) -> Result<()> {
        let up = self.docker.containers(names)?;
        let up: Vec<String> = up.into_iter().filter(is_up).map(|now| now.name).collect();
        let n8n = match up.is_empty() {
            true => None,
            false => running(self.app),
        };
        let mut done = Ok(());
        for name in &up {
            if let Some(n8n) = &n8n {
                self.journal
                    .info(format_args!("{name} did not run before and goes on, as {n8n} does"));
                continue;
            }
            self.journal
                .info(format_args!("Stopping {name}, which did not run before"));
            done = done.and(self.docker.stop(name));
        }
        done
    }

    /// Leaves n8n stopped and the record in place, since only some of the recovery point's parts were brought back: what
    /// n8n would work on belongs to two times. `false`, and nothing is done, when none of them was, or all. What did not run
    /// before is stopped.
    pub fn stay_stopped(&self) -> bool {
        let parts = self.record.parts.iter().copied();
        let (done, mut left): (Vec<Kind>, Vec<Kind>) = parts.partition(|kind| self.record.done.contains(kind));
        // One that was begun by itself meanwhile, too.
        left.extend(
            self.record
                .begun
                .iter()
                .filter(|kind| !self.record.parts.contains(kind)),
        );
        if self.is_untouched() || left.is_empty() {
            return false;
        }
        let names = |kinds: &[Kind]| match kinds {
            [] => "nothing".to_owned(),
            kinds => names_of(kinds),
        };
        self.journal.warn(format_args!(
            "{}: restored from the recovery point: {}; as before: {}{}",
            if self.starts_n8n() {
                "n8n stays stopped"
            } else {
                "Half restored"
            },
            names(&done),
            names(&left),
            if self.record.mixed {
                ", some of it from another point or run"
            } else {
                ""
            }
        ));
        if let Err(error) = self.leave() {
            self.journal.failure(&error);
        }
        true
    }

    /// Starts what ran, or after work that is done everything with `all`, stops what did not run, and gives the verdict on
    /// `work`. After a failure that left something half restored nothing is started.
    pub fn end<T>(mut self, work: Result<T>, all: bool) -> Result<T> {
        let all = all && work.is_ok();
        if let Err(error) = &work {
            if error.is::<LeftHalfDone>() {
                if self.starts_n8n() {
                    self.journal.error("n8n stays stopped");
                }
                if let Err(worse) = self.leave() {
                    self.journal.failure(&worse);
                }
                return work;
            }
        }
        let mut started = self.let_go();
        for (name, _) in self.others().filter(|(_, runs)| all || *runs) {
            started = started.and(self.docker.start(name));
        }
        let names: Vec<&str> = self.n8n().filter(|name| all || self.ran(name)).collect();
        if !names.is_empty() {
            self.journal.info(format_args!("Starting n8n: {}", names.join(" ")));
            for name in &names {
                started = started.and(self.docker.start(name));
            }
        }
        if !all {
            started = started.and_then(|()| self.stop_temporary());
        }
        // Kept only when there is something left to do.
        if started.is_ok() {
            fs::remove_file(path(self.app)).context("Cannot remove the record of the restore")?;
        }
        match (work, started) {
            (Ok(value), started) => started
                .map(|()| value)
                .context("The restore is done, and n8n could not be started"),
            (Err(error), started) => {
                if let Err(worse) = started {
                    self.journal.failure(&worse);
                }
                Err(error)
            }
        }
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if self.begun {
            return;
        }
        // After a failure elsewhere, which is what is told, or a no.
        let lent: Vec<&str> = self.lent.iter().map(String::as_str).collect();
        if let Err(error) = self.stop_again(&lent) {
            self.journal.failure(&error);
        }
        let _ = match &self.before {
            Some(before) => write(self.app, before),
            None => fs::remove_file(path(self.app)).map_err(Into::into),
        };
    }
}
