//! `BACKUP_NOTIFY_COMMAND`: a program of the user's own, which is told by its environment.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context as _, Result};

use super::channel::{body, Channel, Outcome};
use super::log;
use crate::config::Config;
use crate::process::{self, Chain, Failed, Input};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The program.
pub struct Hook;

impl Channel for Hook {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn is_on(&self, config: &Config) -> bool {
        !config.notify_command.is_empty()
    }

    fn probe(&self, config: &Config) -> Result<()> {
        let Some(name) = config.notify_command.split_whitespace().next() else {
            return Ok(());
        };
        let program = program(&config.project, name);
        let shown = program.to_string_lossy();
        if process::find(&shown, config.path.as_ref()).is_none() {
            bail!("BACKUP_NOTIFY_COMMAND: {shown} cannot be run");
        }
        Ok(())
    }

    fn end(&self, config: &Config, outcome: &Outcome) -> Result<()> {
        let variables = variables(&config.project, outcome);
        run(config, &variables, &log::recent()).context("BACKUP_NOTIFY_COMMAND failed")
    }
}

/// A program that is named with a slash is looked for in the project.
fn program(project: &Path, name: &str) -> OsString {
    match name.contains('/') {
        true => project.join(name).into_os_string(),
        false => OsString::from(name),
    }
}

/// What the program finds in its environment.
fn variables(project: &Path, outcome: &Outcome) -> Vec<(&'static str, OsString)> {
    let result = if outcome.success { "success" } else { "failure" };
    let point = outcome.point.map(|stamp| stamp.to_string());
    vec![
        ("N8N_BACKUP_RESULT", result.into()),
        ("N8N_BACKUP_SUMMARY", outcome.summary.clone().into()),
        ("N8N_BACKUP_FAILED", outcome.failed().into()),
        ("N8N_BACKUP_POINT", point.unwrap_or_default().into()),
        ("N8N_BACKUP_SECONDS", format!("{:.0}", outcome.seconds).into()),
        ("N8N_BACKUP_PROJECT", project.into()),
    ]
}

/// Runs the setting, a program and its arguments separated by blanks, with the last lines of the log on standard input.
/// No shell reads it.
fn run(config: &Config, variables: &[(&str, OsString)], lines: &[String]) -> Result<()> {
    let mut words = config.notify_command.split_whitespace();
    let name = words.next().context("no program is named")?;
    let program = program(&config.project, name);
    // Where `probe` has found it, which looks further than cron's PATH reaches.
    let found = process::find(&program.to_string_lossy(), config.path.as_ref());
    // It is the user's own, and may need a token of its own.
    let mut command = process::command_keeping(found.map_or(program, PathBuf::into_os_string), |_| true);
    command
        .args(words)
        .current_dir(&config.project)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    let mut chain = Chain::new(LIMIT);
    if let Some(stdin) = chain.spawn_silent(name, command, Input::Piped)? {
        let text = format!("{}\n", body(lines));
        chain.pump("writing the log", io::Cursor::new(text), stdin, ());
    }
    match chain.finish() {
        // It need not read what it is given.
        Err(error) if error.downcast_ref::<Failed>().is_some() || !process::is_broken_pipe(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::testing::{executable, sh, TempDir};

    #[test]
    fn a_program_is_told_by_its_environment_without_a_shell() {
        let dir = TempDir::new();
        let told = |setting: &str| {
            let mut config = Config::without_env_file(dir.path()).unwrap();
            config.notify_command = setting.to_owned();
            config.path = Some(dir.path().into());
            run(
                &config,
                &[("N8N_BACKUP_RESULT", OsString::from("failure"))],
                &["the last line".to_owned()],
            )
        };
        executable(
            &dir.path().join("hook"),
            "#!/bin/sh\necho \"$N8N_BACKUP_RESULT $# $1 $2\" >out; cat >>out\n",
        );
        told("./hook $(id) ;").unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("out")).unwrap(),
            "failure 2 $(id) ;\nthe last line\n"
        );
        // Also one that the PATH of the settings alone leads to.
        told("hook").unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("out")).unwrap(),
            "failure 0  \nthe last line\n"
        );
        told("true").unwrap();
        assert!(told("false").is_err());
        assert!(told("./none").is_err());
    }

    #[test]
    fn what_a_program_leaves_running_is_not_waited_for() {
        let dir = TempDir::new();
        let mut config = Config::without_env_file(dir.path()).unwrap();
        config.notify_command = "./hook".to_owned();
        executable(
            &dir.path().join("hook"),
            "#!/bin/sh\ncat >msg\n(sleep 20) &\necho $! >pid\necho said\n",
        );
        let started = Instant::now();
        run(&config, &[], &["the last line".to_owned()]).unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        let mut kill = sh("kill \"$1\"");
        assert!(kill.args(["sh", pid.trim()]).status().unwrap().success(), "it goes on");
    }
}
