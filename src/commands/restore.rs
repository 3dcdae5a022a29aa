//! The restores of one component: what is asked, checked, locked and stopped around the component's own restore.

use std::ffi::OsStr;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, Result};

use super::shared::{backup_one, hold, open_to_restore};
use crate::app::App;
use crate::cli::Call;
use crate::components::{check_encrypted, Around, Component, N8n, RestoreOptions};
use crate::components::{RESTART_N8N, YES};
use crate::report::log::{self, Journal};
use crate::stack::{self, pause};
use crate::store::lock::InUse;
use crate::store::Kind;

/// Replaces what a component holds by the contents of a file.
///
/// # Errors
/// When the file is not whole, or cannot be restored here; what is there is then what was before, unless the error says
/// otherwise.
pub fn run(project: &Path, call: &Call, component: &dyn Component) -> Result<u8> {
    let app = open_to_restore(project, call, false)?;
    restore(
        &app,
        component,
        call.operand(),
        call.has(&YES),
        call.has(&RESTART_N8N),
        RestoreOptions::of(call),
    )
    .map(|()| 0)
}

fn restore(
    app: &App,
    component: &dyn Component,
    file: &OsStr,
    yes: bool,
    restart_n8n: bool,
    options: RestoreOptions,
) -> Result<()> {
    let (about, kind) = (component.about(), component.kind());
    let journal = about.restore_journal();
    let [first, within] = about.restored;
    journal.info(format_args!(
        "Starting {within} restore from: {}",
        Path::new(file).display()
    ));
    log::check_started()?;
    app.config.found.check(kind)?;
    component.check_settings(app)?;
    let path = backup_file(file, component)?;
    check_encrypted(app, path, options)?;
    let _lock = hold(app, journal)?;
    let _used = InUse::hold([path])?;
    let plan = component.plan_restore(app, path, options)?;
    let left = match plan.n8n() {
        N8n::MayRun(_) => stack::unfinished(app)?,
        N8n::Stops | N8n::Unaffected => None,
    };
    let at_rest = left.is_some() || matches!(plan.n8n(), N8n::Stops);
    if at_rest {
        pause::check_can_rest(app, &app.docker()?)?;
    } else if restart_n8n {
        pause::check_outlive_stop(app, &app.docker()?)?;
    }
    let warnings = plan.warnings();
    for warning in &warnings {
        journal.warn(warning);
    }
    if !warnings.is_empty() && !confirmed(journal, yes) {
        return Ok(());
    }
    let around = Surroundings {
        app,
        component,
        at_rest,
    };
    let work = || plan.run(&around);
    match plan.n8n() {
        N8n::Unaffected => pause::regardless(app, journal, kind, work)?,
        // Without n8n at work there is none to go on.
        N8n::MayRun(why) if !matches!(left, Some(None)) => {
            pause::within(app, journal, kind, work)?;
            match stack::running(app) {
                Some(names) if restart_n8n => {
                    let docker = app.docker()?;
                    let each = names.split_whitespace().map(|name| {
                        journal.info(format_args!("Restarting {name}"));
                        docker.restart(name)
                    });
                    // One that fails keeps no other from it.
                    each.fold(Ok(()), Result::and)?;
                }
                Some(names) => journal.warn(format_args!("{why}: docker restart {names}")),
                None => {}
            }
        }
        N8n::MayRun(_) | N8n::Stops => {
            let docker = app.docker()?;
            pause::with_n8n_stopped(app, &docker, journal, kind, &component.servers(app), work)?;
        }
    }
    journal.success(format_args!("{first} restore completed from: {}", path.display()));
    plan.afterwards(journal);
    Ok(())
}

/// What a restore needs of us.
pub struct Surroundings<'a> {
    pub app: &'a App,
    pub component: &'a dyn Component,
    /// Whether n8n was stopped by this run, or left stopped by an unfinished one; else it may run.
    pub at_rest: bool,
}

impl Around for Surroundings<'_> {
    fn keep(&self) -> Result<()> {
        backup_one(self.app, self.component, Some("made before a restore"))
    }

    fn check_stopped(&self) -> Result<()> {
        match self.at_rest {
            true => stack::check_stopped(self.app),
            false => Ok(()),
        }
    }

    fn undo_at_rest(&self, journal: Journal, undo: Box<dyn FnOnce() -> Result<()> + '_>) -> Result<()> {
        match self.at_rest {
            true => stack::undo_at_rest(self.app, journal, undo),
            false => undo(),
        }
    }
}

/// The operand, as a backup file of a kind.
fn backup_file<'a>(file: &'a OsStr, component: &dyn Component) -> Result<&'a Path> {
    let path = Path::new(file);
    if !path.exists() {
        bail!("Backup file not found: {}", path.display());
    }
    let kind = component.kind();
    let is_other = Kind::of_name(path).is_some_and(|of| component.holds(of));
    if !(kind.is_name(&path.to_string_lossy()) || is_other) || !path.is_file() {
        bail!("Backup file must be a {} file", kind.suffix());
    }
    Ok(path)
}

/// How long a question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(600);

/// Warns, and asks on a terminal; goes on where nobody can be asked. Says so when the answer is not `yes`, or none comes.
pub fn confirmed(journal: Journal, yes: bool) -> bool {
    journal.warn("All existing data will be replaced with backup data");
    goes_on(journal, yes)
}

/// As [`confirmed`], after a warning of the caller's own.
pub fn goes_on(journal: Journal, yes: bool) -> bool {
    if yes || !io::stdin().is_terminal() {
        journal.info("Running non-interactively, proceeding with restore");
        return true;
    }
    // The locks are held meanwhile: a question that nobody answers must not cost the nightly backup.
    let agreed = agreed("Are you sure you want to continue? (yes/no): ");
    if !agreed {
        journal.info("Restore cancelled by user");
    }
    agreed
}

/// Asks on the terminal; anything but `yes`, and no answer in time, is a no.
pub fn agreed(question: &str) -> bool {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{question}").and_then(|()| out.flush());
    drop(out);
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = io::stdin().lock().read_line(&mut line).map(|_| answer.send(line));
    });
    answered.recv_timeout(PATIENCE).is_ok_and(|line| line.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::components::COMPONENTS;
    use crate::config::Config;
    use crate::testing::{executable, TempDir};

    /// A project whose engine does not answer.
    fn app_without_engine(dir: &TempDir) -> App {
        executable(
            &dir.path().join("docker"),
            "#!/bin/sh\necho 'Cannot connect' >&2\nexit 1\n",
        );
        let mut app = App::new(Config::of_text(dir.path(), Path::new(".env"), b"").unwrap());
        app.config.path = Some(dir.path().into());
        fs::create_dir_all(app.store.root()).unwrap();
        app
    }

    #[test]
    fn what_n8n_does_not_work_on_is_restored_whatever_an_earlier_restore_has_left() {
        let dir = TempDir::new();
        let app = app_without_engine(&dir);
        let record = app.store.root().join(".restore");
        let base = "container n8n-main t runs\npoint 20260102_030405\npart postgres\npart env\ndone env\n";
        let again = "container n8n-main t runs\npoint 20260102_030405\npart postgres\npart env\nmixed\n";
        for (before, after) in [("x\n", "x\n"), (base, again)] {
            fs::write(&record, before).unwrap();
            let mut calls = 0;
            let mut work = || {
                calls += 1;
                Ok(())
            };
            let journal = Journal::new("test");
            assert!(pause::within(&app, journal, Kind::Env, &mut work).is_err());
            pause::regardless(&app, journal, Kind::Env, &mut work).unwrap();
            assert_eq!(calls, 1);
            assert_eq!(fs::read_to_string(&record).unwrap(), after);
        }
    }

    #[test]
    fn an_n8n_that_may_run_is_not_looked_at() {
        let dir = TempDir::new();
        let app = App::new(Config::of_text(dir.path(), Path::new(".env"), b"").unwrap());
        fs::create_dir_all(app.store.root()).unwrap();
        fs::write(app.store.root().join(".restore"), "of an earlier restore\n").unwrap();
        for at_rest in [true, false] {
            let component = COMPONENTS[0];
            let around = Surroundings {
                app: &app,
                component,
                at_rest,
            };
            assert_eq!(around.check_stopped().is_err(), at_rest);
            let mut undone = false;
            let undo = Box::new(|| {
                undone = true;
                Ok(())
            });
            let done = around.undo_at_rest(component.about().restore_journal(), undo);
            assert_eq!((done.is_ok(), undone), (!at_rest, !at_rest));
        }
    }
}
