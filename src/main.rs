//! n8n-backup: backs up and restores a self-hosted n8n stack (PostgreSQL, Redis, the n8n volume, `.env`) through the
//! Docker CLI. See `docs/architecture.md` for the rooms of this house.

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
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, Context as _, Result};

use app::App;
use cli::{Action, Invocation, Request, UsageError};
use commands::test_recovery::Parts;
use components::{component, RestoreOptions};
use config::Config;
use report::log::{self, Journal};
use store::Kind;

fn main() -> ExitCode {
    let code = match cli::parse(env::args_os().skip(1)) {
        Ok(Request::Show(text)) => return show(&text),
        Ok(Request::Run(invocation)) => run(&invocation),
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

/// Says what is wrong with the command line, in the log too where there is one, and how it is right. Gives the exit code.
fn refuse(error: UsageError) -> u8 {
    let journal = match &error.invocation {
        Some(invocation) => {
            // Without a log, standard output will do.
            let _ = open_log(invocation);
            Journal::new(invocation.command.name)
        }
        None => {
            let _ = log::init(&log::Options::default());
            Journal::new("n8n-backup")
        }
    };
    journal.error(&error.message);
    log::eprint_bounded(&error.usage);
    error
        .invocation
        .map_or(1, |invocation| invocation.command.action.failure_code())
}

/// Runs a command and gives its exit code; what goes wrong has been logged when this returns.
fn run(invocation: &Invocation) -> u8 {
    let journal = Journal::new(invocation.command.name);
    log::set_verbose(invocation.has("verbose"));
    if io::stderr().is_terminal() && !invocation.has("quiet") {
        report::progress::show();
    }
    let done = open_log(invocation).and_then(|project| dispatch(invocation, &project));
    match done {
        Ok(code) => code,
        Err(error) => {
            // Monitoring reads the first line, also when not even the settings could be read.
            match invocation.command.action {
                Action::Status => drop(io::stdout().write_all(commands::status::unknown(&error).as_bytes())),
                _ => journal.failure(&error),
            }
            invocation.command.action.failure_code()
        }
    }
}

/// Starts the log of a command and gives the project directory.
fn open_log(invocation: &Invocation) -> Result<PathBuf> {
    let project = project_dir(invocation);
    let file = match (&project, invocation.command.log) {
        (Ok(project), Some(name)) => Some(project.join("logs").join(name)),
        _ => None,
    };
    let quiet = invocation.has("quiet");
    if let Err(error) = log::init(&log::Options {
        file: file.as_deref(),
        quiet,
    }) {
        log::init(&log::Options::default())?;
        return Err(error);
    }
    project
}

/// The n8n project directory, as an absolute path.
fn project_dir(invocation: &Invocation) -> Result<PathBuf> {
    let named = invocation
        .project_dir()
        .or_else(|| env::var_os("N8N_DIR").map(PathBuf::from));
    let dir = match named.filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => dir,
        None => match env::current_exe().ok().as_deref().and_then(installed_in) {
            Some(dir) => dir,
            None => env::current_dir().context("Cannot tell the current directory")?,
        },
    };
    let dir = dir
        .canonicalize()
        .with_context(|| format!("No n8n project directory at {}", dir.display()))?;
    if !dir.is_dir() {
        bail!("No n8n project directory at {}", dir.display());
    }
    Ok(dir)
}

/// The project directory that holds `bin/n8n-backup`.
fn installed_in(program: &Path) -> Option<PathBuf> {
    let dir = program.parent()?.parent()?;
    dir.join("scripts").is_dir().then(|| dir.to_owned())
}

/// Runs a command and gives its exit code.
fn dispatch(invocation: &Invocation, project: &Path) -> Result<u8> {
    let config = match Config::load(project) {
        Err(error) if matches!(invocation.command.action, Action::Doctor) => {
            let app = App::new(Config::without_env_file(project)?);
            return doctor(&app, Some(&error), invocation);
        }
        config => config?,
    };
    let app = App::new(config);
    let journal = Journal::new(invocation.command.name);
    // A setting with a slip in its name must not pass for one that is not set.
    for name in app.config.unknown.iter().filter(|_| invocation.command.log.is_some()) {
        let meant = cli::suggestion(name, config::SETTINGS.iter().map(|known| known.name.to_owned()));
        if !meant.is_empty() {
            journal.warn(format_args!("{name} in .env is no setting{meant}"));
        }
    }
    if invocation.command.log.is_some() {
        if let Err(error) = stack::release(&app, journal) {
            journal.warn(format_args!(
                "The restart policies that an interrupted restore had changed could not be put back: {error:#}"
            ));
        }
    }
    if invocation.command.action.runs_beside_the_live_stack() {
        process::priority::lower(app.config.nice, app.config.path.as_ref());
    }
    let operand = invocation.operand.as_deref().unwrap_or_default();
    let yes = invocation.has("yes");
    let options = RestoreOptions {
        keep_old: invocation.has("keep-old"),
        create_roles: invocation.has("create-roles"),
        in_place: invocation.has("in-place"),
        empty_queue: invocation.has("empty-queue"),
    };
    let one = |kind| component(kind).and_then(|component| commands::backup_one(&app, component, None));
    let restore =
        |kind| component(kind).and_then(|component| commands::restore::run(&app, component, operand, yes, options));
    let done = match invocation.command.action {
        // Texts that the parser gives; it never asks to run these.
        Action::Man | Action::Completions => return Ok(0),
        Action::Doctor => return doctor(&app, None, invocation),
        Action::Status => {
            return commands::status::run(&app, invocation.value("max-age"), invocation.has("json"));
        }
        Action::BackupOffsite => return commands::backup_offsite::run(&app, invocation.has("dry-run")),
        Action::FetchOffsite => commands::backup_offsite::fetch(&app, invocation.operand.as_deref()),
        Action::BackupAll => return Ok(commands::watched::run(&app, journal, commands::backup_all::run)),
        Action::BackupPostgres => one(Kind::Postgres),
        Action::BackupRedis => one(Kind::Redis),
        Action::BackupN8n => one(Kind::N8n),
        Action::List => commands::list::run(&app, invocation.has("json"), invocation.has("all")),
        Action::TestRecovery => return test_recovery(&app, invocation),
        Action::Verify => commands::verify::run(&app, invocation.operand.as_deref(), invocation.has("all")),
        Action::Cleanup => commands::cleanup::run(&app, invocation.has("dry-run")),
        Action::RestorePostgres => restore(Kind::Postgres),
        Action::RestoreRedis => restore(Kind::Redis),
        Action::RestoreN8n => restore(Kind::N8n),
        Action::RestoreEnv => restore(Kind::Env),
        Action::RestoreAll => {
            let text = |name| {
                invocation
                    .value(name)
                    .map(|value: &std::ffi::OsStr| value.to_string_lossy().into_owned())
            };
            let options = commands::restore_all::Options {
                yes,
                only: text("only"),
                skip: text("skip"),
                start: invocation.has("start"),
                parts: options,
            };
            commands::restore_all::run(&app, invocation.operand.as_deref(), &options)
        }
    };
    done.map(|()| 0)
}

/// Gives 0, or 1 when a check has failed.
fn doctor(app: &App, unread: Option<&anyhow::Error>, invocation: &Invocation) -> Result<u8> {
    commands::doctor::run(app, unread, invocation.has("quiet")).map(|fine| u8::from(!fine))
}

/// Runs the test that the options name. Gives 0, or 1 when it has failed.
fn test_recovery(app: &App, invocation: &Invocation) -> Result<u8> {
    let choices = [
        ("postgres", Some(Parts::POSTGRES)),
        ("redis", Some(Parts::REDIS)),
        ("n8n", Some(Parts::N8N)),
        ("full", Some(Parts::FULL)),
        ("list", None),
    ];
    let chosen: Vec<Option<Parts>> = choices
        .into_iter()
        .filter_map(|(name, parts)| invocation.has(name).then_some(parts))
        .collect();
    match chosen[..] {
        [None] => commands::test_recovery::list(app).map(|()| 0),
        [Some(parts)] => commands::test_recovery::run(app, parts, invocation.operand.as_deref()).map(u8::from),
        _ => bail!("one of --postgres, --redis, --n8n, --full and --list has to be given"),
    }
}
