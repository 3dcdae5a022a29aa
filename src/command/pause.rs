//! n8n at rest while something under it is replaced: what runs is stopped, and that alone is started again. A record in
//! `backups/` keeps that through a crash, with the parts of a recovery point that are done.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::thread;

use anyhow::{anyhow, Context as _, Result};

use crate::component::exchange::NotPutBack;
use crate::component::Context;
use crate::docker::Docker;
use crate::logging::Journal;
use crate::store::{sync_dir, Kind, Stamp};

/// The record's name in `backups/`.
const RECORD: &str = ".restore";

/// n8n's containers, stopped.
pub struct Pause<'a> {
    context: &'a Context,
    docker: &'a Docker,
    journal: Journal,
    record: Record,
    resumed: bool,
}

/// What must outlive us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    /// Each container: when it was started last, and whether it is to run at the end.
    containers: BTreeMap<String, (String, bool)>,
    /// The recovery point that is being restored.
    point: Option<Stamp>,
    /// Its parts that are in place.
    done: Vec<Kind>,
    /// Parts of another point are in place too.
    mixed: bool,
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let mut record = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["container", name, started, state @ ("runs" | "rests")] => {
                    let entry = ((*started).to_owned(), *state == "runs");
                    record.containers.insert((*name).to_owned(), entry);
                }
                ["point", stamp] => record.point = Some(Stamp::parse(stamp)?),
                ["done", name] => record
                    .done
                    .push(Kind::ALL.into_iter().find(|kind| kind.dir() == *name)?),
                ["mixed"] => record.mixed = true,
                _ => return None,
            }
        }
        Some(record)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, (started, runs)) in &self.containers {
            let state = if *runs { "runs" } else { "rests" };
            text.push_str(&format!("container {name} {started} {state}\n"));
        }
        if let Some(point) = self.point {
            text.push_str(&format!("point {point}\n"));
        }
        for kind in &self.done {
            text.push_str(&format!("done {}\n", kind.dir()));
        }
        if self.mixed {
            text.push_str("mixed\n");
        }
        text
    }
}

fn path(context: &Context) -> PathBuf {
    context.store.root().join(RECORD)
}

fn left(context: &Context) -> Option<Record> {
    Record::parse(&fs::read_to_string(path(context)).ok()?)
}

/// Whether n8n still rests as a restore that was killed has left it; with the recovery point that it was to bring back, if it
/// was a whole one. Once n8n has run again, that restore is history.
pub fn unfinished(context: &Context) -> Option<Option<Stamp>> {
    let record = left(context)?;
    let docker = context.docker().ok()?;
    let mut n8n = record
        .containers
        .iter()
        .filter(|(name, _)| context.config.n8n_containers.contains(name))
        .peekable();
    n8n.peek()?;
    n8n.all(|(name, (started, _))| {
        let now = docker.container(name).ok().flatten();
        now.is_some_and(|now| now.status != "running" && now.started_at == *started)
    })
    .then_some(record.point)
}

/// What a restore that was killed has left stopped, as a sentence that says what to do; none when there is no such.
pub fn interrupted(context: &Context) -> Option<String> {
    let record = left(context)?;
    let names: Vec<&str> = record
        .containers
        .iter()
        .filter(|(_, (_, runs))| *runs)
        .map(|(name, _)| name.as_str())
        .collect();
    let names = if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(" ")
    };
    Some(format!(
        "A restore was interrupted and has left stopped: {names}. Run the same restore again, which goes on and starts \
         them; or start them and remove {}",
        path(context).display()
    ))
}

impl<'a> Pause<'a> {
    /// Stops those of n8n's containers that run. `others` are not stopped here, and may be by the restore itself: one that
    /// runs now runs at the end. The main lock must be held.
    ///
    /// # Errors
    /// When one cannot be stopped; those that were are started again.
    pub fn begin(context: &'a Context, docker: &'a Docker, journal: Journal, others: &[&str]) -> Result<Self> {
        let file = path(context);
        let before = match fs::read_to_string(&file) {
            Ok(text) => Some(Record::parse(&text).with_context(|| format!("{} is not understood", file.display()))?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("Cannot read {}", file.display())),
        };
        let resumed = before.is_some();
        let before = before.unwrap_or_default();
        let mut record = Record::default();
        let mut running = Vec::new();
        // As long as n8n has not worked since, what is done is done.
        let mut untouched = true;
        let n8n = context.config.n8n_containers.iter().map(|name| (name.as_str(), true));
        for (name, is_n8n) in n8n.chain(others.iter().map(|name| (*name, false))) {
            let Some(container) = docker.container(name)? else {
                continue;
            };
            let known = before.containers.get(name);
            let runs = container.status == "running" || container.status == "restarting";
            let again = runs || known.is_some_and(|(_, runs)| *runs);
            if is_n8n {
                untouched &= !runs && known.is_some_and(|(started, _)| *started == container.started_at);
                if runs {
                    running.push(name);
                }
            }
            record.containers.insert(name.to_owned(), (container.started_at, again));
        }
        if !record
            .containers
            .keys()
            .any(|name| context.config.n8n_containers.contains(name))
        {
            journal.warn(format_args!(
                "None of n8n's containers is there, so none is stopped ({}): set BACKUP_N8N_CONTAINERS in .env if yours are \
                 called otherwise",
                context.config.n8n_containers.join(" ")
            ));
        }
        if resumed && untouched {
            record.point = before.point;
            record.done = before.done;
            record.mixed = before.mixed;
        }
        let pause = Self {
            context,
            docker,
            journal,
            record,
            resumed,
        };
        if resumed {
            journal.warn("An earlier restore was interrupted; what it had stopped is started at the end");
        }
        pause.write()?;
        pause.stop(&running)?;
        Ok(pause)
    }

    fn stop(&self, names: &[&str]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        self.journal.info(format_args!("Stopping n8n: {}", names.join(" ")));
        let failed = thread::scope(|scope| {
            let each: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(move || self.docker.stop(name)))
                .collect();
            each.into_iter()
                .filter_map(|one| one.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))).err())
                .next()
        });
        let Some(error) = failed else { return Ok(()) };
        let mut started = Ok(());
        for name in names {
            started = started.and(self.docker.start(name));
        }
        started.context("n8n could not be stopped, nor all of it started again")?;
        if !self.resumed {
            let _ = fs::remove_file(path(self.context));
        }
        Err(error.context("n8n could not be stopped, nothing was restored"))
    }

    /// The parts of a point that an interrupted restore of it has brought in place. From now on this point is what the
    /// record tells of.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn resume(&mut self, point: Stamp) -> Result<Vec<Kind>> {
        if self.record.point != Some(point) {
            self.record.point = Some(point);
            self.record.mixed |= !self.record.done.is_empty();
            self.record.done.clear();
        }
        self.write()?;
        Ok(self.record.done.clone())
    }

    /// Records that a part is in place.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn done(&mut self, kind: Kind) -> Result<()> {
        self.record.done.push(kind);
        self.write()
    }

    /// Whether no part of the point is in place yet.
    pub fn is_untouched(&self) -> bool {
        self.record.done.is_empty() && !self.record.mixed
    }

    /// Whether n8n will be started at the end.
    pub fn starts_n8n(&self) -> bool {
        self.n8n().any(|name| self.ran(name))
    }

    fn n8n(&self) -> impl Iterator<Item = &str> {
        let names = self.context.config.n8n_containers.iter().map(String::as_str);
        names.filter(|name| self.record.containers.contains_key(*name))
    }

    fn ran(&self, name: &str) -> bool {
        self.record.containers.get(name).is_some_and(|(_, runs)| *runs)
    }

    fn write(&self) -> Result<()> {
        let file = path(self.context);
        crate::store::make_dir(self.context.store.root())?;
        let temporary = file.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut out = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            out.write_all(self.record.text().as_bytes())?;
            out.sync_all()?;
            fs::rename(&temporary, &file)
        };
        write().with_context(|| format!("Cannot write {}", file.display()))?;
        sync_dir(self.context.store.root())
    }

    /// Leaves n8n stopped and the record in place, since only some of the recovery point's `parts` were brought back: what
    /// n8n would work on belongs to two times. `false`, and nothing is done, when none of them was, or all.
    pub fn keep(&self, parts: &[Kind]) -> bool {
        let (done, left): (Vec<&Kind>, Vec<&Kind>) = parts.iter().partition(|kind| self.record.done.contains(kind));
        if self.is_untouched() || left.is_empty() {
            return false;
        }
        let names = |kinds: &[&Kind]| match kinds {
            [] => "nothing".to_owned(),
            kinds => kinds.iter().map(|kind| kind.dir()).collect::<Vec<_>>().join(", "),
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
                ", some of it from another point"
            } else {
                ""
            }
        ));
        true
    }

    /// Starts what ran, all of n8n's containers with `all`, and gives the verdict on `work`. After a failure that left
    /// something half restored nothing is started.
    ///
    /// # Errors
    /// That of the work, else of the start.
    pub fn end<T>(self, work: Result<T>, all: bool) -> Result<T> {
        if let Err(error) = &work {
            if error.downcast_ref::<NotPutBack>().is_some() {
                if self.starts_n8n() {
                    self.journal.error("n8n stays stopped");
                }
                return work;
            }
        }
        let mut started = Ok(());
        let is_n8n = |name: &String| self.context.config.n8n_containers.contains(name);
        for name in self.record.containers.keys().filter(|name| !is_n8n(name)) {
            if self.ran(name) {
                started = started.and(self.docker.start(name));
            }
        }
        let names: Vec<&str> = self.n8n().filter(|name| all || self.ran(name)).collect();
        if !names.is_empty() {
            self.journal.info(format_args!("Starting n8n: {}", names.join(" ")));
            for name in &names {
                started = started.and(self.docker.start(name));
            }
        }
        // Kept only when there is something left to do.
        if started.is_ok() {
            fs::remove_file(path(self.context)).context("Cannot remove the record of the restore")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_read_as_it_was_written() {
        let mut record = Record::default();
        record
            .containers
            .insert("n8n-main".to_owned(), ("2026-01-02T03:04:05Z".to_owned(), true));
        record
            .containers
            .insert("n8n-worker".to_owned(), ("0001-01-01T00:00:00Z".to_owned(), false));
        record.point = Stamp::parse("20260102_030405");
        record.done = vec![Kind::Postgres, Kind::N8n];
        record.mixed = true;
        assert_eq!(Record::parse(&record.text()), Some(record));
        assert_eq!(Record::parse("done everything"), None);
    }
}
