//! setup: shows what was found of the stack and where each value comes from, proves it, and offers to write it down.

use std::io::{self, IsTerminal, Write as _};
use std::path::Path;

use anyhow::{ensure, Context as _, Result};

use super::restore::agreed;
use super::shared::open_stack;
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Call, Flag, Row};
use crate::components::{COMPONENTS, YES};
use crate::config::MAX_BYTES;
use crate::report::finding::{Level, Report};
use crate::report::log::{ascii, Journal};
use crate::store::atomic::{self, Access};

const WRITE: Flag = Flag::new(
    "write",
    "write what was found into .env, so that it holds while n8n's containers are gone; asks first",
);

pub const COMMAND: Command = Command {
    row: &Row {
        name: "setup",
        summary: "show what was found of the stack, and prove that it can be backed up",
        details: "Nothing has to be set: n8n's own containers say what the stack consists of, at each run. With --write what\n\
                  was found is added to .env, no secret among it; the lines are shown first. Exits 1 when something does not\n\
                  work.",
        flags: &[WRITE, YES],
        ..Row::TELLS
    },
    run: Run::Project(run),
};

const JOURNAL: Journal = Journal::new("setup");
/// What our lines in `.env` begin and end with.
const BEGIN: &str = "# n8n-backup: what 'n8n-backup setup --write' found";
const END: &str = "# n8n-backup: end";

fn run(project: &Path, call: &Call) -> Result<u8> {
    let app = open_stack(project, call)?;
    let found = &app.config.found;
    let mut text = String::new();
    match found.is_told() {
        true => text.push_str(&format!("Told by {}:\n", found.told_by)),
        // What stands against it says more.
        false if !found.problems.is_empty() => {}
        false => text.push_str("No container of n8n was found; the settings and their defaults hold.\n"),
    }
    let wide = |of: fn(&crate::config::FoundRow) -> usize| found.rows.iter().map(of).max().unwrap_or_default();
    let (what, value) = (wide(|row| row.what.len()), wide(|row| row.value.chars().count()));
    for row in &found.rows {
        text.push_str(&format!("  {:what$}  {:value$}  {}\n", row.what, row.value, row.from));
    }
    if !found.deployment.is_empty() {
        let names: Vec<String> = found.deployment.iter().map(|file| file.display().to_string()).collect();
        text.push_str(&format!("  deployed from {}\n", names.join(" ")));
    }
    let report = prove(&app);
    for finding in &report.0 {
        let verdict = match finding.level {
            Level::Ok => "OK",
            Level::Warning => "WARN",
            Level::Critical => "FAIL",
        };
        text.push_str(&format!("{verdict:4} {}: {}\n", finding.check, finding.text));
    }
    let lines: Vec<String> = text.lines().map(ascii).collect();
    // Not before, since the log is written there too.
    let mut out = io::stdout().lock();
    writeln!(out, "{}", lines.join("\n")).context("Cannot write to standard output")?;
    drop(out);
    if call.has(&WRITE) {
        write(&app, call.has(&YES))?;
    }
    Ok(u8::from(
        report.0.iter().any(|finding| finding.level == Level::Critical),
    ))
}

/// Asks each part for what a backup and a restore of it need.
fn prove(app: &App) -> Report {
    let mut report = Report::default();
    let found = &app.config.found;
    for warning in found.warnings.iter().chain(&found.undeployed) {
        report.warn("stack", warning.clone());
    }
    let docker = match app.docker().and_then(|docker| docker.engine_version().map(|_| docker)) {
        Ok(docker) => Some(docker),
        Err(error) => {
            report.error("docker", &error);
            None
        }
    };
    for component in COMPONENTS {
        if !app.config.found.uses(component.kind()) {
            continue;
        }
        match app.config.found.check(component.kind()) {
            Ok(()) => component.probe(app, docker.as_ref(), &mut report),
            Err(error) => report.error(component.kind().name(), &error),
        }
    }
    report
}

/// The lines that say what was found, where it is not what holds without them.
fn lines(app: &App) -> Vec<String> {
    let config = &app.config;
    let uses = |kind| config.found.uses(kind) && config.found.check(kind).is_ok();
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| {
        let simple = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !value.is_empty() && simple && !config.is_set(name) {
            lines.push(format!("{name}={value}"));
        }
    };
    line("BACKUP_COMPOSE_PROJECT", &config.found.project);
    if uses(crate::store::Kind::Postgres) {
        line("BACKUP_POSTGRES_CONTAINER", &config.postgres_container);
        line("BACKUP_POSTGRES_USER", app.postgres_login().0);
        line("BACKUP_POSTGRES_DB", &config.postgres_db);
    }
    if uses(crate::store::Kind::Redis) {
        line("BACKUP_REDIS_CONTAINER", &config.redis_container);
        line("BACKUP_REDIS_PORT", &config.redis_port.to_string());
    }
    lines
}

/// Shows the lines and adds them to `.env`, in the place of those of an earlier run, once they are agreed to.
fn write(app: &App, yes: bool) -> Result<()> {
    let lines = lines(app);
    if !app.config.found.is_told() || lines.is_empty() {
        JOURNAL.info("There is nothing to write into .env");
        return Ok(());
    }
    let path = app.config.env_file();
    let path = path.canonicalize().unwrap_or(path);
    let old = text_of(&path)?;
    let (mut new, mut had) = part_block(&old);
    if !had.is_empty() && !had.ends_with('\n') {
        had.push('\n');
    }
    // What an earlier run has written is set, so `lines` leaves it out.
    let block = format!("{BEGIN}\n{had}{}\n{END}\n", lines.join("\n"));
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str(&block);
    let sign = |line: &str| if had.lines().any(|had| had == line) { ' ' } else { '+' };
    let added: Vec<String> = block.lines().map(|line| format!("{}{line}", sign(line))).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "--- {}\n{}", path.display(), added.join("\n")).context("Cannot write to standard output")?;
    drop(out);
    if !yes && !io::stdin().is_terminal() {
        JOURNAL.info("Nothing was written: nobody can be asked here, --yes agrees");
        return Ok(());
    }
    atomic::check_owner(&path, ".env.setup-")?;
    if !yes && !agreed("Write these lines into .env? (yes/no): ") {
        JOURNAL.info("Nothing was written");
        return Ok(());
    }
    replace(&path, &old, &new)?;
    JOURNAL.success(format_args!("Written: {}", path.display()));
    Ok(())
}

/// The contents of `.env`, which may be missing.
fn text_of(path: &Path) -> Result<String> {
    match atomic::read_text(path, MAX_BYTES) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("Cannot read {}", path.display())),
    }
}

/// Puts `new` in the place of `old`, unless somebody has written something else there while the question stood.
fn replace(path: &Path, old: &str, new: &str) -> Result<()> {
    ensure!(
        text_of(path)? == old,
        "{} has changed meanwhile, and was left alone: run setup --write again",
        path.display()
    );
    let access = match path.metadata() {
        Ok(meta) => Access {
            mode: std::os::unix::fs::MetadataExt::mode(&meta) & 0o777,
            owner: Some((
                std::os::unix::fs::MetadataExt::uid(&meta),
                std::os::unix::fs::MetadataExt::gid(&meta),
            )),
        },
        Err(_) => Access::private_in(path.parent().unwrap_or(path)),
    };
    atomic::replace(
        path,
        &format!(".env.setup-{}", std::process::id()),
        new.as_bytes(),
        access,
    )?;
    if let Some(lacks) = access.not_given(path) {
        JOURNAL.warn(lacks);
    }
    Ok(())
}

/// A text without the lines of an earlier run, and these.
fn part_block(text: &str) -> (String, String) {
    let mut within = false;
    let (mut kept, mut had) = (String::new(), String::new());
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            BEGIN => within = true,
            END if within => within = false,
            _ if !within => kept.push_str(line),
            _ => had.push_str(line),
        }
    }
    (kept, had)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn what_somebody_else_has_written_meanwhile_stays() {
        let dir = TempDir::new();
        let path = dir.path().join(".env");
        replace(&path, "", "A=1\n").unwrap();
        replace(&path, "A=1\n", "A=2\n").unwrap();
        fs::write(&path, "A=3\n").unwrap();
        let error = replace(&path, "A=2\n", "A=4\n").unwrap_err();
        assert!(error.to_string().contains("run setup --write again"), "{error:#}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "A=3\n");
    }

    #[test]
    fn the_lines_of_an_earlier_run_are_told_from_others() {
        let parts = |kept: &str, had: &str| (kept.to_owned(), had.to_owned());
        let text = format!("A=1\n{BEGIN}\nBACKUP_X=1\n{END}\nB=2");
        assert_eq!(part_block(&text), parts("A=1\nB=2", "BACKUP_X=1\n"));
        assert_eq!(part_block("A=1\n"), parts("A=1\n", ""));
        let open = format!("A=1\n{END}\n");
        assert_eq!(part_block(&open), parts(&open, ""));
    }
}
