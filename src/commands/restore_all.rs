//! restore-all: every part of one recovery point, in the order in which they need each other.
//!
//! First everything is verified, and nothing is touched before. Where there is no `.env`, the settings are those of the point's
//! own copy, which is written first; else it comes last, so that the containers that run now are reached by what is true of them now.
//! n8n is stopped before the first part and started after the last.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};

use super::hold;
use super::restore::{confirmed, keep_volume};
use crate::app::App;
use crate::components::{env_file, n8n_data, postgres, redis};
use crate::engine::Docker;
use crate::report::log::{self, Journal};
use crate::stack::pause::{self, Pause};
use crate::store::manifest::{self, Point};
use crate::store::{Kind, Stamp};

const JOURNAL: Journal = Journal::new("restore-all");
const RULE: &str = "==========================================";
const POSTGRES: Journal = Journal::new("restore-postgres");
const REDIS: Journal = Journal::new("restore-redis");
const N8N: Journal = Journal::new("restore-n8n");
const ENV: Journal = Journal::new("restore-env");

/// How a restore is to be done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Answers the question beforehand.
    pub yes: bool,
    /// The parts to restore, comma-separated; all without it.
    pub only: Option<String>,
    /// The parts to leave as they are.
    pub skip: Option<String>,
    /// Start the whole stack at the end, whatever ran before.
    pub start: bool,
    /// How Redis is restored.
    pub redis: redis::restore::Options,
    /// How the database is restored.
    pub postgres: postgres::restore::Options,
}

/// Restores the recovery point that `operand` names: its stamp, or `latest`, as without one.
///
/// # Errors
/// When the point is not whole, or a part cannot be restored; a part that fails holds what it held before, and those
/// after it are not begun. n8n then stays stopped where other parts were restored already. That nobody can be asked and
/// nothing was named.
pub fn run(app: &App, operand: Option<&OsStr>, options: &Options) -> Result<()> {
    JOURNAL.info(RULE);
    JOURNAL.info("Starting full restore");
    JOURNAL.info(RULE);
    log::check_started()?;
    let parts = parts(options)?;
    ensure!(
        operand.is_some() || options.yes || io::stdin().is_terminal(),
        "Nobody can be asked here: name a recovery point or 'latest', or add --yes"
    );
    let point = point(app, operand, &parts)?;
    JOURNAL.info(format_args!(
        "Recovery point {}: {}",
        point.stamp,
        parts.iter().map(|kind| kind.dir()).collect::<Vec<_>>().join(" ")
    ));
    for kind in Kind::ALL.iter().filter(|kind| !parts.contains(kind)) {
        JOURNAL.warn(format_args!("Left as it is: {}", kind.dir()));
    }
    let _lock = hold(app, JOURNAL)?;
    let _used = point.hold(&app.store)?;
    let file = |kind: Kind| point.member(kind).map(|member| app.store.root().join(&member.name));
    let env_file = file(Kind::Env).filter(|_| parts.contains(&Kind::Env));
    let mut times = Vec::new();
    let restored = if app.config.env_file_exists {
        restore(app, &point, &parts, env_file.as_deref(), options, &mut times)?
    } else {
        let Some(path) = env_file else {
            bail!(".env file not found")
        };
        // Everything else needs its settings.
        let config = env_file::restore::settings_of(app, &path)?;
        restore(&App::new(config), &point, &parts, Some(&path), options, &mut times)?
    };
    if !restored {
        return Ok(());
    }
    JOURNAL.info(RULE);
    let total: Duration = times.iter().map(|(_, took)| *took).sum();
    for (kind, took) in &times {
        JOURNAL.info(format_args!("{}: {:.1} s", kind.dir(), took.as_secs_f64()));
    }
    JOURNAL.success(format_args!(
        "Full restore completed from: {} ({}/{} parts in {:.1} s)",
        point.stamp,
        times.len(),
        parts.len(),
        total.as_secs_f64()
    ));
    Ok(())
}

/// The parts that are asked for.
fn parts(options: &Options) -> Result<Vec<Kind>> {
    let kinds = |list: &Option<String>| -> Result<Vec<Kind>> {
        list.as_deref()
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(|word| {
                Kind::ALL
                    .into_iter()
                    .find(|kind| kind.dir() == word)
                    .with_context(|| format!("There is no part '{word}': they are postgres, redis, n8n and env"))
            })
            .collect()
    };
    let (only, skip) = (kinds(&options.only)?, kinds(&options.skip)?);
    let parts: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| (options.only.is_none() || only.contains(kind)) && !skip.contains(kind))
        .collect();
    ensure!(!parts.is_empty(), "No part is left to restore");
    Ok(parts)
}

/// The point that is asked for, when it holds the parts, whole.
fn point(app: &App, operand: Option<&OsStr>, parts: &[Kind]) -> Result<Point> {
    let mut name = operand.map_or_else(|| "latest".into(), OsStr::to_string_lossy);
    let latest = name == "latest";
    let unfinished = if latest { pause::unfinished(app)? } else { None };
    if let Some(stamp) = unfinished.flatten() {
        JOURNAL.warn(format_args!(
            "Going on with recovery point {stamp}, whose restore was interrupted; name another one to restore that"
        ));
        name = stamp.to_string().into();
    }
    if name != "latest" {
        let name = Path::new(name.as_ref());
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let stamp = Stamp::parse(name.strip_suffix(crate::store::SET_SUFFIX).unwrap_or(&name))
            .with_context(|| format!("{name} is no recovery point: name one as YYYYMMDD_HHMMSS, or 'latest'"))?;
        let path = app.store.set_path(stamp);
        ensure!(path.exists(), "There is no recovery point {stamp}");
        let point = Point::load(&path)?;
        if let Some(missing) = point.missing_parts(parts) {
            bail!(
                "Recovery point {stamp} is not complete: {missing}. Restore what it has with --only or --skip, and the rest \
                 from another one"
            );
        }
        return Ok(point);
    }
    let now = Stamp::now();
    let mut ahead = None;
    for (path, point) in manifest::list(&app.store)?.into_iter().rev() {
        match point {
            Ok(point) => match point.why_not_latest(parts) {
                None if point.stamp.is_ahead(now) => {
                    JOURNAL.warn(format_args!(
                        "Passing over recovery point {}, which is dated in the future",
                        point.stamp
                    ));
                    ahead = ahead.or(Some(point));
                }
                None => return Ok(point),
                Some(why) => {
                    let why = format!("Passing over the newer recovery point {}: {why}", point.stamp);
                    // The backup of one component by itself is nothing unusual.
                    match point.members.len() == 1 && point.listed("damaged").is_empty() {
                        true => JOURNAL.info(why),
                        false => JOURNAL.warn(why),
                    }
                }
            },
            Err(error) => JOURNAL.warn(format_args!("Passing over {}: {error:#}", path.display())),
        }
    }
    // It may be today's clock that is wrong.
    ahead.context("There is no recovery point that holds all of these parts; name one, with --only or --skip")
}

/// What is kept of what the parts hold now.
fn keeps(parts: &[Kind]) -> String {
    let kept: Vec<&str> = parts
        .iter()
        .map(|kind| match kind {
            Kind::Postgres => {
                "the database is dropped once the new one is proven (restore-postgres --keep-old keeps it)"
            }
            Kind::Redis => "what Redis holds is dropped once the new is proven",
            Kind::N8n => "the n8n volume is archived first",
            Kind::Env => "the present .env stays beside the new one",
        })
        .collect();
    format!("Of what is there now: {}", kept.join("; "))
}

/// Restores all parts; `.env` first where there is none, else last. `false` when the answer was no, or an
/// interrupted restore is not yet finished by these parts.
fn restore(
    app: &App,
    point: &Point,
    parts: &[Kind],
    env_file: Option<&Path>,
    options: &Options,
    times: &mut Vec<(Kind, Duration)>,
) -> Result<bool> {
    let docker = app.docker()?;
    let file = |kind: Kind| -> Option<PathBuf> {
        let member = point.member(kind).filter(|_| parts.contains(&kind))?;
        Some(app.store.root().join(&member.name))
    };
    let (dump, snapshot, archive) = (file(Kind::Postgres), file(Kind::Redis), file(Kind::N8n));
    let redis = snapshot
        .as_deref()
        .map(|path| redis::restore::prepare(app, path, options.redis, REDIS))
        .transpose()?;
    let n8n = archive
        .as_deref()
        .map(|path| n8n_data::restore::prepare(app, path, N8N))
        .transpose()?;
    let env = env_file
        .map(|path| env_file::restore::prepare(app, path, ENV))
        .transpose()?;
    if let Some(env) = &env {
        env.report();
    }
    let mut others: Vec<&str> = redis.iter().map(redis::restore::Plan::target).collect();
    if dump.is_some() {
        others.push(&app.config.postgres_container);
    }
    let mut pause = Pause::plan(app, &docker, JOURNAL, &others)?;
    let postgres = match dump.as_deref() {
        Some(path) => {
            start_postgres(app, &docker, &mut pause)?;
            Some(postgres::restore::prepare(app, path, options.postgres, POSTGRES)?)
        }
        None => None,
    };
    JOURNAL.info("Everything is verified, no data were changed so far");
    JOURNAL.warn(format_args!(
        "This will replace {} by recovery point {}, and stop n8n meanwhile",
        parts.iter().map(|kind| kind.dir()).collect::<Vec<_>>().join(", "),
        point.stamp
    ));
    JOURNAL.info(keeps(parts));
    let (first, env) = match env {
        Some(env) if env.is_missing() => (Some(env), None),
        env => (None, env),
    };
    if let Some(env) = &first {
        JOURNAL.warn(format_args!(
            "{} is not there: it is written first",
            env.target().display()
        ));
    }
    if !confirmed(JOURNAL, options.yes) {
        return Ok(false);
    }

    if let Some(env) = first {
        let begun = Instant::now();
        let _component = app.hold(Kind::Env, ENV)?;
        env.run()?;
        times.push((Kind::Env, begun.elapsed()));
    }
    let planned = |kind: &Kind| match kind {
        Kind::Env => env.is_some(),
        _ => parts.contains(kind),
    };
    let to_do: Vec<Kind> = Kind::ALL.into_iter().filter(planned).collect();
    pause.begin()?;
    let new_key = env.as_ref().is_some_and(|env| env.changes("N8N_ENCRYPTION_KEY"));
    let done = (|| {
        let done = pause.resume(point.stamp, &to_do)?;
        let mut part = |kind: Kind, work: &dyn Fn() -> Result<()>| -> Result<()> {
            if done.contains(&kind) {
                JOURNAL.info(format_args!("Already restored by the interrupted run: {}", kind.dir()));
            } else {
                JOURNAL.info(format_args!("Restoring: {}", kind.dir()));
                let begun = Instant::now();
                let first = pause.is_untouched();
                work().with_context(|| match first {
                    true => format!("Full restore failed at {}; no other part was touched", kind.dir()),
                    false => format!("Full restore failed at {}; run it again to go on", kind.dir()),
                })?;
                pause.done(kind)?;
                times.push((kind, begun.elapsed()));
            }
            Ok(())
        };
        if let Some(plan) = &postgres {
            part(Kind::Postgres, &|| {
                let _component = app.hold(Kind::Postgres, POSTGRES)?;
                plan.run()
            })?;
        }
        if let Some(plan) = &redis {
            part(Kind::Redis, &|| {
                let _component = app.hold(Kind::Redis, REDIS)?;
                plan.run()
            })?;
        }
        if let Some(plan) = &n8n {
            part(Kind::N8n, &|| plan.run(|| keep_volume(app)))?;
        }
        if let Some(plan) = &env {
            part(Kind::Env, &|| {
                let _component = app.hold(Kind::Env, ENV)?;
                plan.run()
            })?;
        }
        Ok(())
    })();
    let runs_again = pause.starts_n8n();
    if pause.stay_stopped() {
        done?;
        JOURNAL.info(format_args!("restore-all.sh {} goes on with the rest", point.stamp));
        return Ok(false);
    }
    let done = done.and_then(|()| match options.start {
        true => docker.start(&app.config.redis_container),
        false => Ok(()),
    });
    if new_key && done.is_ok() {
        JOURNAL.warn(
            "N8N_ENCRYPTION_KEY is another one now, and containers keep the value that they were made with: \
             docker compose up -d makes them anew",
        );
    }
    pause.end(done, options.start)?;
    if !options.start && !runs_again {
        JOURNAL
            .info("n8n did not run before, so it was not started: docker compose up -d does it, or --start next time");
    }
    Ok(true)
}

/// Starts the database server when it does not run, and waits until it takes connections.
fn start_postgres(app: &App, docker: &Docker, pause: &mut Pause<'_>) -> Result<()> {
    let name = &app.config.postgres_container;
    let container = docker.existing(name, "BACKUP_POSTGRES_CONTAINER")?;
    if !matches!(container.status.as_str(), "created" | "exited") {
        return Ok(());
    }
    pause.start_temporarily(name)?;
    postgres::await_ready(app, docker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(only: Option<&str>, skip: Option<&str>) -> Result<Vec<Kind>> {
        parts(&Options {
            only: only.map(str::to_owned),
            skip: skip.map(str::to_owned),
            ..Options::default()
        })
    }

    #[test]
    fn what_is_kept_is_told_of_the_parts_alone() {
        let output = keeps(&[Kind::Redis, Kind::N8n]);
        assert!(
            output.contains("Redis") && output.contains("archived") && !output.contains("database"),
            "{output}"
        );
    }

    #[test]
    fn parts_are_chosen_by_name() {
        assert_eq!(asked(None, None).unwrap(), Kind::ALL);
        assert_eq!(asked(Some("redis, env"), None).unwrap(), [Kind::Redis, Kind::Env]);
        assert_eq!(
            asked(None, Some("env")).unwrap(),
            [Kind::Postgres, Kind::Redis, Kind::N8n]
        );
        assert!(asked(Some("everything"), None).is_err());
        assert!(asked(Some("env"), Some("env")).is_err());
        assert!(asked(Some(""), None).is_err());
    }
}
