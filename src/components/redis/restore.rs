//! Restore of Redis. The snapshot is loaded by a server of its own, beside the live one and with the live one's image and
//! volume; that server also writes the append-only file anew where Redis keeps one, because Redis ignores a snapshot that
//! stands beside such a file. Only what it has proven takes the place of the live data, by renaming, while Redis is down.

mod beside;
mod rest;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{bail, ensure, Context as _, Result};

use super::layout::{check_kept, modules_of, Layout};
use super::replies::{checked_keys, modules, queue_script, value_of, Keys, CHECKER};
use super::server::Redis;
use super::verify;
use crate::app::App;
use crate::components::dirswap::{self, DirSwap, State};
use crate::components::{Around, N8n, RestoreOptions, RestorePlan};
use crate::engine::{Container, Data, Docker, Exec, Guard, Status};
use crate::process::{hinted, Input};
use crate::report::log::Journal;
use crate::stack::{LeftHalfDone, Unseen};
use crate::store::Kind;
use crate::stream::encrypt::Locked;
use crate::stream::read::{check_recorded, read};
use rest::Rest;

/// Gives what is staged to whoever the live server runs as.
const OWN: &str = include_str!("restore/own.sh");

/// A snapshot that has been verified, and the container that it is for.
pub struct Plan<'a> {
    app: &'a App,
    docker: Docker,
    journal: Journal,
    file: &'a Path,
    container: Container,
    options: RestoreOptions,
}

/// Verifies the snapshot and looks the container up. Changes nothing.
pub fn prepare<'a>(app: &'a App, file: &'a Path, options: RestoreOptions, journal: Journal) -> Result<Plan<'a>> {
    journal.info("Verifying backup file integrity...");
    check_recorded(&app.config, &app.store, file)
        .and_then(|()| verify(app, file).map(drop))
        .map_err(|error| match error.downcast_ref::<Locked>() {
            Some(_) => error,
            None => error.context("Backup file is corrupted or not a Redis snapshot"),
        })?;
    journal.info("Backup file integrity verified");
    let docker = app.docker()?;
    let container = docker.existing(&app.config.redis_container, "BACKUP_REDIS_CONTAINER")?;
    container.check_outlives_stop()?;
    container.check_not_paused()?;
    if container.status == Status::Running {
        // One that does not answer says nothing yet.
        let told = Redis::live(app, &docker).state().ok().and_then(|state| state.dir);
        told.map_or(Ok(()), |dir| check_kept(&docker, &container.name, &dir))?;
    }
    Ok(Plan {
        app,
        docker,
        journal,
        file,
        container,
        options,
    })
}

impl RestorePlan for Plan<'_> {
    fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![format!(
            "This will replace all that Redis in {} holds, and stop n8n meanwhile",
            self.container.name
        )];
        if !self.options.empty_queue {
            warnings.push(
                "Jobs of n8n's queue that wait in the snapshot may run again; --empty-queue leaves them out".to_owned(),
            );
        }
        warnings
    }

    fn n8n(&self) -> N8n {
        N8n::Stops
    }

    /// Loads the snapshot beside the live data and exchanges the two. The container runs afterwards if it ran before, whatever
    /// the outcome.
    fn run(&self, around: &dyn Around) -> Result<()> {
        let _component = self.app.hold(Kind::Redis, self.journal).context(Unseen)?;
        let name = &self.container.name;
        let done = self.exchange(around);
        let left = match &done {
            _ if self.container.status != Status::Running => self.rest(),
            Err(error) if error.downcast_ref::<LeftHalfDone>().is_none() => self.docker.start(name),
            _ => Ok(()),
        };
        match (done, left) {
            (Err(error), Err(worse)) => {
                self.journal.failure(&worse);
                Err(error)
            }
            (done, left) => done.and(left),
        }
    }
}

impl Plan<'_> {
    /// Stops the container if it runs.
    fn rest(&self) -> Result<()> {
        let name = &self.container.name;
        match self.docker.is_running(name)? {
            true => self.docker.stop(name),
            false => Ok(()),
        }
    }

    fn exchange(&self, around: &dyn Around) -> Result<()> {
        let name = &self.container.name;
        let helper = self.helper().context(Unseen)?;
        let mounts = self.docker.mounts(name).context(Unseen)?;
        for dir in &mounts {
            self.recover(&DirSwap::new(&helper, dir)).map_err(Unseen::mark)?;
        }
        let layout = self.layout()?;
        self.replace(helper, &layout, around)
    }

    /// A container that sees what the live one has mounted.
    fn helper(&self) -> Result<Guard> {
        let data = Data::Of(&self.container.name);
        dirswap::helper_container(self.app, &self.docker, Kind::Redis, false, |labels| {
            self.docker.helper_container(labels, &self.container.image_id, data)
        })
    }

    /// Puts back what was there before, once nothing goes on any more in the helper in which a step has failed.
    fn put_back(&self, failed: Guard, layout: &Layout) -> Result<()> {
        drop(failed);
        let helper = self.helper()?;
        DirSwap::new(&helper, &layout.dir).roll_back(self.journal)
    }

    /// Puts back what was there before, with Redis at rest.
    fn undo(&self, exchange: &DirSwap<'_>, rest: &Rest<'_>) -> Result<()> {
        let is_begun = exchange.state()? != State::Staged;
        exchange.roll_back(self.journal)?;
        match is_begun {
            true => rest.forget_what_was_read(self.journal),
            false => Ok(()),
        }
    }

    fn replace(&self, helper: Guard, layout: &Layout, around: &dyn Around) -> Result<()> {
        check_kept(&self.docker, &self.container.name, &layout.dir)?;
        let exchange = DirSwap::new(&helper, &layout.dir);
        self.recover(&exchange)?;
        let keys = match self.stage(&helper, &exchange, layout) {
            Ok(keys) => keys,
            Err(error) => {
                // What cannot be removed now is removed by the next restore.
                let _ = self.put_back(helper, layout);
                return Err(error.context("Redis restore failed"));
            }
        };
        let name = &self.container.name;
        if !layout.append_only {
            self.save()?;
        }
        self.journal.info(format_args!("Stopping {name}..."));
        let exchanged = Rest::begin(&self.docker, name)
            .and_then(|rest| {
                around.check_stopped()?;
                rest.check()?;
                exchange.exchange()?;
                rest.check()
            })
            .and_then(|()| self.prove(layout, keys))
            .and_then(|()| around.check_stopped());
        if let Err(error) = exchanged {
            self.journal.warn("Putting back what was there before");
            exchange.turn();
            let back = Rest::begin(&self.docker, name).and_then(|rest| {
                drop(helper);
                let helper = self.helper()?;
                self.undo(&DirSwap::new(&helper, &layout.dir), &rest)
            });
            return Err(match back {
                Ok(()) => error.context("Redis restore failed"),
                Err(worse) => error
                    .context(format!("{worse:#}"))
                    .context(LeftHalfDone::rollback_failed()),
            });
        }
        exchange
            .finish(&[])
            .context("The data are restored, and what was there before could not be removed")
    }

    /// Has the live Redis save what it holds: the engine kills a save on the way down that takes longer than the container's
    /// time to stop, and what is put back after a failure would be the snapshot before.
    fn save(&self) -> Result<()> {
        let name = &self.container.name;
        if !self.docker.is_running(name)? {
            return Ok(());
        }
        let live = Redis::live(self.app, &self.docker);
        if let Err(error) = live.begin_save().and_then(|begun| live.save(begun, self.journal)) {
            self.journal.warning(&error.context(format!(
                "Redis in {name} cannot save what it holds, which is about to be replaced"
            )));
        }
        Ok(())
    }

    /// Sets right what a killed restore has left.
    fn recover(&self, exchange: &DirSwap<'_>) -> Result<()> {
        match exchange.state()? {
            State::None => return Ok(()),
            State::Staged => exchange.roll_back(self.journal)?,
            State::Exchanged => exchange.finish(&[])?,
            State::Broken => {
                let running = self.docker.is_running(&self.container.name)?;
                let rest = Rest::begin(&self.docker, &self.container.name)?;
                self.undo(exchange, &rest).context(LeftHalfDone::rollback_failed())?;
                if running {
                    self.docker.start(&self.container.name)?;
                }
            }
        }
        self.journal
            .warn("An interrupted restore of Redis had left its traces; they are set right");
        Ok(())
    }

    /// How the live Redis keeps its data. It is started when it does not run.
    fn layout(&self) -> Result<Layout> {
        let live = Redis::live(self.app, &self.docker);
        let name = &self.container.name;
        self.docker.start(name)?;
        let ended = Cell::new(false);
        if let Err(error) = live.loaded(live.stall, || {
            ended.set(!self.docker.is_running(name)?);
            ensure!(!ended.get(), "it ended again");
            Ok(())
        }) {
            // One that ends again and again may have been seen while it ran.
            if self.container.status == Status::Running && !ended.get() {
                return Err(error.context(format!("Redis in {name} does not answer")));
            }
            self.journal
                .warning(&error.context(format!("Redis in {name} does not start with the data that are there")));
            return Layout::of_arguments(&self.docker.arguments(name)?).with_context(|| {
                hinted(
                    format_args!("Redis in {name} cannot be asked where it keeps its data"),
                    "move the data that it does not start with out of its volume, start it, and restore again",
                )
            });
        }
        let names = [
            "dir",
            "dbfilename",
            "appendonly",
            "appendfilename",
            "appenddirname",
            "databases",
        ];
        let commands = names.map(|name| format!("CONFIG GET {name}"));
        let mut commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        commands.push("MODULE LIST");
        let replies = live.ask(&commands)?;
        let values: BTreeMap<&str, String> = names
            .into_iter()
            .zip(&replies)
            .filter_map(|(name, reply)| Some((name, value_of(reply, name)?.to_owned())))
            .collect();
        let arguments = self.docker.arguments(name)?;
        if values.contains_key("dir") {
            let listed = modules(replies.last().map_or("", String::as_str));
            let modules = listed.unwrap_or_else(|| modules_of(&arguments));
            let layout = Layout::new(|name| values.get(name).cloned());
            return Ok(Layout { modules, ..layout });
        }
        Layout::of_arguments(&arguments).with_context(|| {
            hinted(
                format_args!("Redis in {name} does not say where it keeps its data (CONFIG GET is denied)"),
                "allow CONFIG GET for the restore",
            )
        })
    }

    /// Has a server of our own load the snapshot and write what the live one is to start from. Gives the keys in it.
    fn stage(&self, helper: &Guard, exchange: &DirSwap<'_>, layout: &Layout) -> Result<Keys> {
        let owner = exchange.begin(&layout.names())?;
        let dir = exchange.new_dir();
        let snapshot = format!("{dir}/{}", layout.snapshot);
        self.copy_in(helper, &owner, &snapshot)?;
        let proven = self.check(helper, &snapshot)?;

        self.journal.info("Loading the snapshot in a server of its own...");
        let server = self.serve(helper, &owner, &dir, layout)?;
        let mut keys = server.count()?;
        if let Some(proven) = proven {
            ensure!(
                keys.lasting() == proven.lasting() && keys.expiring <= proven.expiring,
                "the snapshot holds {} keys, {} of them without expiry, and Redis loaded {} and {}",
                proven.total,
                proven.lasting(),
                keys.total,
                keys.lasting()
            );
        }
        self.journal.info(format_args!(
            "Found {} keys in the snapshot, {} of them with an expiry",
            keys.total, keys.expiring
        ));
        let prefix = &self.app.config.queue_prefix;
        if self.options.empty_queue {
            let deleted = server.sum(&queue_script("DELETE"), &self.app.config)?;
            self.journal
                .info(format_args!("Deleted {deleted} keys of n8n's queue ({prefix}:*)"));
            server.expect("SAVE", "OK")?;
            keys = server.count()?;
        } else {
            let waiting = server.sum(&queue_script("COUNT"), &self.app.config)?;
            if waiting > 0 {
                self.journal.warn(format_args!(
                    "{waiting} job(s) of n8n's queue wait or were running in the snapshot: they may run again. \
                     --empty-queue leaves them out"
                ));
            }
        }
        if layout.append_only {
            self.journal.info("Writing the append-only file from the snapshot...");
            server.expect("CONFIG SET appendonly yes", "OK")?;
            server.rewritten()?;
        }
        // It ends without an answer.
        let _ = server.ask(&["SHUTDOWN NOSAVE"]);
        self.ended(helper)?;
        self.own(helper, &dir, layout)?;
        Ok(keys)
    }

    /// Runs [`OWN`].
    fn own(&self, helper: &Guard, new: &str, layout: &Layout) -> Result<()> {
        let user = self.docker.user(&self.container.name)?;
        let argv = [&["sh", "-c", OWN, "sh", &layout.dir, new, &user], &layout.names()[..]].concat();
        let call = self.docker.exec(helper.id(), Exec::default(), &argv);
        let output = self.docker.answer("sh", call, None)?;
        ensure!(
            output.success,
            "the restored data cannot be given to Redis: {}",
            output.stderr
        );
        Ok(())
    }

    /// Writes the snapshot as the owner of the directory.
    fn copy_in(&self, helper: &Guard, owner: &str, path: &str) -> Result<()> {
        const COPY: &str = "umask 077; cat >\"$1\"; sync \"$1\" 2>/dev/null || sync; wc -c <\"$1\"";
        let mut chain = self.app.chain();
        let contents = read(&self.app.config, &mut chain, self.file)?;
        let how = Exec {
            interactive: true,
            user: Some(owner),
            ..Exec::default()
        };
        let command = self.docker.exec(helper.id(), how, &["sh", "-c", COPY, "sh", path]);
        let (stdin, stdout) = chain.stream("docker exec", command, Input::Piped)?;
        let stdin = stdin.context("docker exec has no input")?;
        let count = chain.pump(
            "copying the snapshot",
            contents,
            stdin,
            crate::process::Count::default(),
        );
        let output = chain.collect("reading from docker exec", stdout, 1024);
        let finished = chain.finish()?;
        let sent = count.get(&finished)?.0;
        let arrived = String::from_utf8_lossy(&output.get(&finished)?).trim().to_owned();
        ensure!(
            arrived == sent.to_string(),
            "{sent} bytes of the snapshot were sent and {arrived} arrived"
        );
        Ok(())
    }

    /// What redis-check-rdb counts in the snapshot; none where the image does not have it.
    fn check(&self, helper: &Guard, snapshot: &str) -> Result<Option<Keys>> {
        let call = self
            .docker
            .exec(helper.id(), Exec::default(), &[&CHECKER[..], &[snapshot]].concat());
        let output = self.docker.answer("redis-check-rdb", call, None)?;
        if matches!(output.code, Some(126 | 127)) {
            return Ok(None);
        }
        let text = output.text();
        ensure!(
            output.success,
            "redis-check-rdb: {}",
            text.lines().last().unwrap_or("failed")
        );
        Ok(checked_keys(&text))
    }

    /// Starts the live server and compares what it has loaded.
    fn prove(&self, layout: &Layout, keys: Keys) -> Result<()> {
        let name = &self.container.name;
        self.journal.info(format_args!("Starting {name}..."));
        self.docker.start(name)?;
        let live = Redis::live(self.app, &self.docker);
        let info = live.loaded(live.stall, || match self.docker.is_running(name)? {
            true => Ok(()),
            false => bail!(hinted(
                "Redis does not start with the restored data",
                format_args!("docker logs {name} says why")
            )),
        })?;
        self.journal.info("Verifying restore...");
        let now = live.count()?;
        let number = |field: &str| info.get(field).and_then(|value| value.parse::<u64>().ok());
        let loaded = number("rdb_last_load_keys_loaded").zip(number("rdb_last_load_keys_expired"));
        // What Redis says that it loaded is what counts. Keys whose time had run out are left out of an append-only file. Versions
        // that do not say it can be asked for no more than what they hold, which clients may have changed since.
        let complete = match loaded {
            // One that ran out while it was staged may be in the file, and counts as expired here alone.
            Some((loaded, expired)) => loaded.saturating_add(expired) >= keys.lasting() && loaded <= keys.total,
            None => now.lasting() >= keys.lasting(),
        };
        ensure!(
            complete,
            "Redis loaded {} keys, has {} without expiry, and the snapshot holds {} and {}",
            loaded.map_or_else(|| "an unknown number of".to_owned(), |(loaded, _)| loaded.to_string()),
            now.lasting(),
            keys.total,
            keys.lasting()
        );
        ensure!(
            !layout.append_only || info.get("aof_enabled").is_some_and(|on| on == "1"),
            "Redis no longer keeps its append-only file"
        );
        self.journal
            .info(format_args!("Found {} keys in the restored Redis", now.total));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
