//! n8n-backup: backs up and restores a self-hosted n8n stack (database, Redis, the n8n volume, `.env`) through the
//! Docker CLI. `docs/architecture.md` says where things are.

mod app;
mod cli;
mod commands;
mod components;
mod config;
mod engine;
mod formats;
mod process;
mod report;
mod stack;
mod store;
mod stream;
#[cfg(test)]
mod testing;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{anyhow, Result};

use cli::{Call, Request, UsageError, QUIET, VERBOSE};
use commands::{commands, rows, Run};
use process::priority;
use report::alarm::LostRun;
use report::log::{self, Journal};
use report::panics::{caught, log_panics};

fn main() -> ExitCode {
    log_panics("n8n-backup");
    caught(|| Ok(start())).unwrap_or(ExitCode::FAILURE)
}

fn start() -> ExitCode {
    if let Some(run) = LostRun::of_args(env::args_os().skip(1)) {
        return match commands::report_lost(&run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let code = match cli::parse(&rows(), env::args_os().skip(1)) {
        Ok(Request::Show(text)) => return show(&text),
        Ok(Request::Run(call)) => match commands().iter().find(|command| command.row.name == call.row.name) {
            Some(command) => match command.run {
                Run::Text(make) => match make(&call) {
                    Ok(text) => return show(&text),
                    Err(error) => refuse(UsageError::of(call, &error)),
                },
                work => run(work, &call),
            },
            None => 1,
        },
        Err(error) => refuse(error),
    };
    match code {
        0 if log::failure().is_some() => ExitCode::FAILURE,
        code => ExitCode::from(code),
    }
}

/// Prints a text that was asked for.
fn show(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says what is wrong with the command line, in the log too where there is one, and shows the usage. Who is told of how
/// a run went is told of this one. Gives the exit code.
fn refuse(error: UsageError) -> u8 {
    let journal = match &error.call {
        Some(call) => {
            // Without a log, standard output will do.
            let _ = open_log(call);
            Journal::new(call.row.name)
        }
        None => {
            let _ = log::init(&log::Options::default());
            Journal::new("n8n-backup")
        }
    };
    // Whoever types a slip at a terminal reads it there.
    let nobody_reads = !io::stderr().is_terminal();
    let told = error.call.as_ref().filter(|_| nobody_reads).is_some_and(|call| {
        let error = anyhow!(error.message.clone());
        commands::not_begun(call, error).is_ok()
    });
    if !told {
        journal.error(&error.message);
    }
    log::eprint_bounded(&error.usage);
    error.call.map_or(1, |call| call.row.failure)
}

/// Runs a command and gives its exit code; what goes wrong has been logged when this returns.
fn run(work: Run, call: &Call) -> u8 {
    log_panics(call.row.name);
    log::set_verbose(call.has(&VERBOSE));
    if io::stderr().is_terminal() && !call.has(&QUIET) {
        report::progress::show();
    }
    let project = match work {
        Run::Anywhere(_) => log::init(&log::Options::default()).map(|()| PathBuf::new()),
        _ => open_log(call),
    };
    let done = match project {
        Ok(project) => caught(|| work.in_project(&project, call)),
        Err(error) => commands::not_begun(call, error),
    };
    priority::put_back();
    match done {
        Ok(code) => code,
        Err(error) => {
            match work {
                Run::Plugin(_, tell) => drop(io::stdout().write_all(tell(call, &error).as_bytes())),
                _ => Journal::new(call.row.name).failure(&error),
            }
            call.row.failure
        }
    }
}

/// Starts the log of a command and gives the project directory.
fn open_log(call: &Call) -> Result<PathBuf> {
    let project = config::find_project(call.project_dir());
    let file = match (&project, call.row.log) {
        (Ok(project), Some(name)) => Some(project.join("logs").join(name)),
        _ => None,
    };
    let quiet = call.has(&QUIET);
    if let Err(error) = log::init(&log::Options {
        file: file.as_deref(),
        quiet,
    }) {
        log::init(&log::Options::default())?;
        return Err(error);
    }
    project
}
