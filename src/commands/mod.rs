//! The commands: a file each, with its row, its arguments and what it does. This is only their list.

mod backup;
mod backup_all;
mod backup_offsite;
mod cleanup;
mod completions;
mod credentials;
mod doctor;
mod fetch_offsite;
mod install;
mod list;
mod man;
mod pin;
mod rehearse_update;
mod restore;
mod restore_all;
mod setup;
mod shared;
mod status;
mod test_recovery;
mod verify;
mod workflows;

use std::path::Path;

use anyhow::{Error, Result};

pub use backup_all::report_lost;

use crate::cli::{Call, Row};
use crate::components::{Component, COMPONENTS};
use crate::config;

/// A command.
#[derive(Clone, Copy)]
pub struct Command {
    /// What the command line knows of it.
    pub row: &'static Row,
    /// What it does.
    pub run: Run,
}

/// What a command does. All give the exit code.
#[derive(Clone, Copy)]
pub enum Run {
    /// Makes a text, which is printed; no project is needed. An error is a usage error.
    Text(fn(&Call) -> Result<String>),
    /// Works on what its operand names; it has no project, and no log.
    Anywhere(fn(&Call) -> Result<u8>),
    /// Works in a project directory.
    Project(fn(&Path, &Call) -> Result<u8>),
    /// As `Project`; what goes wrong is told by a text on standard output, for a program that reads it.
    Plugin(fn(&Path, &Call) -> Result<u8>, fn(&Call, &Error) -> String),
    /// Backs one component up.
    Backup(&'static dyn Component),
    /// Restores one component.
    Restore(&'static dyn Component),
}

/// Every command, in the order of the help.
pub fn commands() -> Vec<Command> {
    let backups = COMPONENTS.iter().filter_map(|component| {
        let row = component.about().backup.as_ref()?;
        let run = Run::Backup(*component);
        Some(Command { row, run })
    });
    let restores = COMPONENTS.iter().map(|component| Command {
        row: &component.about().restore,
        run: Run::Restore(*component),
    });
    let mut all = vec![backup_all::COMMAND];
    all.extend(backups);
    all.push(cleanup::COMMAND);
    all.extend(restores);
    all.extend([
        restore_all::COMMAND,
        list::COMMAND,
        verify::COMMAND,
        pin::PIN,
        pin::UNPIN,
        test_recovery::command(),
        rehearse_update::COMMAND,
        backup_offsite::COMMAND,
        fetch_offsite::COMMAND,
        status::COMMAND,
        doctor::COMMAND,
        setup::COMMAND,
        workflows::COMMAND,
        workflows::export::COMMAND,
        workflows::diff::COMMAND,
        workflows::restore::COMMAND,
        credentials::COMMAND,
        credentials::restore::COMMAND,
        install::INSTALL,
        install::UNINSTALL,
        completions::COMMAND,
        man::COMMAND,
    ]);
    all
}

/// Ends a call that cannot begin, for its log or its arguments: who is told of how a run went is told of this one.
/// Gives the exit code; an error, where nobody is told, has not been logged.
pub fn not_begun(call: &Call, error: Error) -> Result<u8> {
    match config::find_project(call.project_dir()) {
        Ok(project) if call.row.name == backup_all::COMMAND.row.name => backup_all::report_not_begun(&project, error),
        _ => Err(error),
    }
}

/// The rows of all commands.
pub fn rows() -> Vec<&'static Row> {
    commands().iter().map(|command| command.row).collect()
}

impl Run {
    /// Runs the command in a project directory.
    pub fn in_project(self, project: &Path, call: &Call) -> Result<u8> {
        match self {
            Self::Text(_) => Ok(0),
            Self::Anywhere(run) => run(call),
            Self::Project(run) | Self::Plugin(run, _) => run(project, call),
            Self::Backup(component) => backup::run(project, call, component),
            Self::Restore(component) => restore::run(project, call, component),
        }
    }
}

#[cfg(test)]
mod tests;
