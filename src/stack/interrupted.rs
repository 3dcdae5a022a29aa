//! What a restore that was killed has left: of n8n's containers, and of what they work on.

use std::fs;

use anyhow::{ensure, Context as _, Result};

use super::discovery;
use super::record::{is_n8n, path, read, write, Entry, Record};
use crate::app::App;
use crate::engine::{Container, Docker, Status};
use crate::report::log::Journal;
use crate::store::lock::Attempt;
use crate::store::{Kind, Stamp};

/// Whether n8n still rests as a restore that was killed has left it; with the recovery point that it was to bring back, if it
/// was a whole one. Once n8n has run again, that restore is history.
pub fn unfinished(app: &App) -> Result<Option<Option<Stamp>>> {
    let Some(record) = read(app)? else { return Ok(None) };
    let docker = app.docker()?;
    let replaced = record.point.is_some() || record.knows_n8n(app, &present(app, &docker)?);
    let history = !replaced || is_history(app, &docker, &record)?;
    Ok((!history).then_some(record.point))
}

/// What an unfinished restore goes on with, which must not be deleted until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Point(Stamp),
    /// Which backups is not known, and why.
    Any(String),
}

/// What an unfinished restore still needs of the backups.
pub fn needs(app: &App) -> Needs {
    match unfinished(app) {
        Ok(None) => Needs::Nothing,
        Ok(Some(Some(point))) => Needs::Point(point),
        Ok(Some(None)) => Needs::Any("it is not that of a recovery point".to_owned()),
        Err(error) => Needs::Any(format!("{error:#}")),
    }
}

impl Needs {
    /// Whether files of this point, or of none, may be needed.
    pub fn include(&self, point: Option<Stamp>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Point(needed) => point == Some(*needed),
            Self::Any(_) => true,
        }
    }

    /// Says what is therefore not deleted.
    pub fn tell(&self, journal: Journal) {
        match self {
            Self::Nothing => {}
            Self::Point(point) => {
                journal.info(format_args!(
                    "Recovery point {point} stays, because its restore is unfinished"
                ));
            }
            Self::Any(why) => journal.warn(format_args!(
                "A restore is unfinished, and what it needs is not known ({why}): nothing is deleted until it is done"
            )),
        }
    }
}

/// Whether n8n has worked since the record was written. A container that is gone does not count.
pub(super) fn is_history(app: &App, docker: &Docker, record: &Record) -> Result<bool> {
    let found = present(app, docker)?;
    let knows_n8n = record.knows_n8n(app, &found);
    Ok(found.iter().any(|now| {
        // One that was made since and never started has not worked.
        let rested = now.status == Status::Created || record.last_start(now) == Some(&now.started_at);
        // Where n8n was never stopped, only one that runs has worked.
        is_up(now) || (knows_n8n && !rested)
    }))
}

/// Those of n8n's containers that are there.
fn present(app: &App, docker: &Docker) -> Result<Vec<Container>> {
    let names = app.config.n8n_containers.iter();
    names.filter_map(|name| docker.container(name).transpose()).collect()
}

/// What has the name of a container that the record knows, or that container, which may have another name by now.
fn find(docker: &Docker, name: &str, entry: &Entry) -> Result<Option<Container>> {
    match docker.container(name)? {
        None => docker.container(entry.handle(name)),
        found => Ok(found),
    }
}

/// What a restore that was killed has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// As a sentence that says what to do.
    pub text: String,
    /// Containers have not the restart policy that they had.
    pub holds: bool,
}

/// What a restore that was killed has left, if anything is to be done about it.
pub fn interrupted(app: &App) -> Option<Interrupted> {
    let record = match read(app) {
        Ok(record) => record?,
        // It may hold anything.
        Err(error) => {
            return Some(Interrupted {
                text: format!(
                    "A restore was interrupted, and what it has left is not known: {error:#}. Run the same restore again as the user who \
                     ran it; or see that n8n runs, with its restart policy (docker inspect), and remove {}",
                    path(app).display()
                ),
                holds: true,
            });
        }
    };
    let docker = app.docker().ok();
    // n8n was started by hand since: that restore is history, and its servers are to run.
    let history = docker.as_ref().map(|docker| is_history(app, docker, &record));
    let history = history.is_some_and(|history| history.unwrap_or(false));
    let state = |name: &str, entry: &Entry| match docker.as_ref().map(|docker| find(docker, name, entry)) {
        Some(Ok(Some(now))) if is_up(&now) => Some(true),
        // One that is gone is not to be started.
        Some(Ok(None)) => None,
        _ => Some(false),
    };
    let mut left = Vec::new();
    let mut stopped = Vec::new();
    let mut started = Vec::new();
    for (name, entry) in &record.containers {
        match (entry.runs, state(name, entry)) {
            (true, Some(false)) => stopped.push(name.as_str()),
            (false, Some(true)) if !history && !is_n8n(app, name) => started.push(name.as_str()),
            _ => {}
        }
    }
    let held: Vec<String> = record
        .held()
        .map(|(name, policy)| format!("{name} ({policy})"))
        .collect();
    for (what, names) in [
        ("stopped", stopped.join(" ")),
        ("running, though it did not run before", started.join(" ")),
        ("without the restart policy", held.join(" ")),
    ] {
        if !names.is_empty() {
            left.push(format!("{what}: {names}"));
        }
    }
    let half = match history {
        // Whatever n8n has worked with since is what is there.
        true => Vec::new(),
        false => record.half_restored(),
    };
    if !half.is_empty() {
        left.push(format!("half restored: {}", names_of(&half)));
    }
    if left.is_empty() {
        if history || record.parts.is_empty() {
            return None;
        }
        let mut missing = record.parts.clone();
        missing.retain(|kind| !record.done.contains(kind));
        left.push(match missing.is_empty() {
            // Its containers are gone.
            true => "n8n not started".to_owned(),
            false => format!("to be restored: {}", names_of(&missing)),
        });
    }
    // The record is all that knows of a policy that is held: until that is given back it stays.
    let or_remove = match held.is_empty() {
        true => format!(", or remove {}", path(app).display()),
        false => String::new(),
    };
    let what = match (history, stopped.is_empty()) {
        // To restore again would replace what n8n has done since.
        (true, false) => format!(
            "n8n was started since: start the others, too (docker start), and the next backup sets the rest right{or_remove}"
        ),
        (true, true) => "n8n was started since: the next backup sets that right".to_owned(),
        // An n8n that is started on half of its data makes what it misses again, as its key.
        (false, _) if !half.is_empty() => {
            format!("Run the same restore again, which goes on and sets that right{or_remove}")
        }
        (false, _) => format!(
            "Run the same restore again, which goes on and sets that right; or start n8n by hand (docker compose up -d), and \
             the next backup sets the rest right{or_remove}"
        ),
    };
    Some(Interrupted {
        text: format!("A restore was interrupted and has left {}. {what}", left.join("; ")),
        holds: !held.is_empty(),
    })
}

/// Gives containers their restart policy back that a killed restore has held, and forgets that restore once all runs again that it
/// had stopped. Nothing while a restore is at work.
pub fn release(app: &App, journal: Journal) -> Result<()> {
    if read(app)?.is_none() {
        return Ok(());
    }
    let Attempt::Held(_lock) = app.lock()? else {
        return Ok(());
    };
    let Some(mut record) = read(app)? else { return Ok(()) };
    let docker = app.docker()?;
    let history = is_history(app, &docker, &record)?;
    let names: Vec<&str> = record.held().map(|(name, _)| name).collect();
    if !names.is_empty() {
        let always = record.held().any(|(_, policy)| policy == "always");
        journal.warn(format_args!(
            "An interrupted restore had held these containers; each has its restart policy again: {}{}",
            names.join(" "),
            match always && !history && !record.parts.is_empty() {
                true =>
                    ". With 'always' the engine starts n8n on what is half restored when it is restarted: run the restore \
                     again before that",
                false => "",
            }
        ));
        let_go(&docker, &mut record, |record| write(app, record))?;
    }
    if history && runs_again(&docker, &record)? {
        fs::remove_file(path(app)).context("Cannot remove the record of the restore")?;
    }
    Ok(())
}

/// Whether all that is to run does, as far as it is there.
fn runs_again(docker: &Docker, record: &Record) -> Result<bool> {
    for (name, entry) in record.containers.iter().filter(|(_, entry)| entry.runs) {
        if find(docker, name, entry)?.is_some_and(|now| !is_up(&now)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives the held containers their restart policy back, whatever they are called by now. One that is gone needs none, and
/// what was created in its place has its own.
pub(super) fn let_go(docker: &Docker, record: &mut Record, mut write: impl FnMut(&Record) -> Result<()>) -> Result<()> {
    for (name, entry) in record.containers.clone() {
        let Some(policy) = &entry.policy else { continue };
        let container = entry.handle(&name);
        if docker.container(container)?.is_some() {
            docker
                .set_restart(container, policy)
                .with_context(|| format!("{name} cannot be given its restart policy again ({policy})"))?;
        }
        if let Some(entry) = record.containers.get_mut(&name) {
            entry.policy = None;
        }
        write(record)?;
    }
    Ok(())
}

/// Makes sure that n8n has not worked since it was stopped for the restore under way: what it wrote would be lost. Nor may
/// a container of n8n's have worked that rested then, or was not there, such as one more worker.
///
/// # Errors
/// With what was started, or that the engine does not answer.
pub fn check_stopped(app: &App) -> Result<()> {
    let Some(record) = read(app)? else { return Ok(()) };
    for now in at_rest(app, &app.docker()?, &record)? {
        check(rests(&record, &now), &now)?;
    }
    Ok(())
}

/// Makes sure that a container does not run, nor has since it was stopped; `started` is when it had been started by then.
pub fn check_rests(now: &Container, started: &str) -> Result<()> {
    check(!is_up(now) && now.started_at == started, now)
}

fn check(rests: bool, now: &Container) -> Result<()> {
    ensure!(
        rests,
        "{} was started while what it works on was being replaced: find out what starts it (a supervisor, an autoscaler, \
         somebody), stop that, and run the restore again",
        now.name
    );
    Ok(())
}

/// Whether a container has not worked since it was looked at for the restore.
fn rests(record: &Record, now: &Container) -> bool {
    match record.last_start(now) {
        Some(started) => !is_up(now) && now.started_at == started,
        // It was created since.
        None => now.status == Status::Created,
    }
}

/// Undoes a step of the restore under way with n8n at rest: with its files exchanged under it, it would go on writing
/// to those that are gone. What was started meanwhile is stopped; the end of the restore starts what it had stopped,
/// and the rest is started here. That something cannot be stopped once it is undone is told, and no error.
///
/// # Errors
/// That a container cannot be stopped, and then nothing is undone; or those of `undo`, and then all stays stopped.
pub fn undo_at_rest(app: &App, journal: Journal, undo: impl FnOnce() -> Result<()>) -> Result<()> {
    let Some(record) = read(app)? else { return undo() };
    let docker = app.docker()?;
    let mut names = Vec::new();
    stop_started(app, &docker, &record, journal, &mut names)?;
    undo()?;
    // What came while it was undone has files open that are gone.
    if let Err(error) = stop_started(app, &docker, &record, journal, &mut names) {
        journal.failure(&error.context(
            "What was there before is put back; what was started meanwhile could not be stopped, and works on files \
             that are gone: restart it (docker restart)",
        ));
    }
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !record.containers.contains_key(name));
    for name in &names {
        if let Err(error) = docker.start(name) {
            journal.warning(&error);
        }
    }
    Ok(())
}

/// Stops what runs of the containers that are to rest, as far as that can be. Adds the names of those that it has
/// stopped.
fn stop_started(
    app: &App,
    docker: &Docker,
    record: &Record,
    journal: Journal,
    stopped: &mut Vec<String>,
) -> Result<()> {
    let mut names: Vec<String> = at_rest(app, docker, record)?
        .into_iter()
        .filter(is_up)
        .map(|now| now.name)
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut done = Ok(());
    for name in names {
        journal.warn(format_args!("Stopping {name}, which was started meanwhile"));
        match docker.stop(&name) {
            Ok(()) => stopped.push(name),
            Err(error) => done = done.and(Err(error)),
        }
    }
    done
}

/// Has the record of a restore that is left unfinished tell of n8n as it rests now: what was started until now, and
/// was stopped again, is no sign that somebody has given that restore up. As it has worked with what was in place by
/// then, that is restored again.
pub(super) fn settle(app: &App, journal: Journal) -> Result<()> {
    let Some(mut record) = read(app)? else { return Ok(()) };
    let docker = app.docker()?;
    let mut changed = false;
    for now in at_rest(app, &docker, &record)? {
        if !is_up(&now) && !rests(&record, &now) {
            record.note_start(&now);
            changed = true;
        }
    }
    if !changed {
        return Ok(());
    }
    record.forget_done(journal, &Kind::ALL, "n8n was started while it was being restored");
    write(app, &record)
}

/// The containers that are to rest during a restore, as they are now.
fn at_rest(app: &App, docker: &Docker, record: &Record) -> Result<Vec<Container>> {
    let mut found = app.n8n_containers(docker)?;
    found.retain(|now| record.containers.contains_key(&now.name));
    found.extend(discovery::servers(app, docker)?);
    Ok(found)
}

pub(super) fn names_of(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

/// The names of n8n's containers that run; none where none does, or the engine does not answer.
pub fn running(app: &App) -> Option<String> {
    let mut found = app.n8n_containers(&app.docker().ok()?).ok()?;
    found.retain(is_up);
    let names: Vec<String> = found.into_iter().map(|container| container.name).collect();
    (!names.is_empty()).then(|| names.join(" "))
}

/// Whether its program may write.
pub(super) fn is_up(container: &Container) -> bool {
    container.status.is_up()
}

#[cfg(test)]
mod tests;
