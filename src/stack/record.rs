//! The record of a restore under way, in `backups/`: it outlives a crash.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{bail, Context as _, Result};

use super::interrupted::names_of;
use super::{LeftHalfDone, Unseen};
use crate::app::App;
use crate::engine::describe::Described;
use crate::engine::{Container, Docker};
use crate::report::log::Journal;
use crate::store::atomic::{self, Access};
use crate::store::{Kind, Stamp};

/// The record's name in `backups/`.
const RECORD: &str = ".restore";
/// It has a line for each container and part.
const LIMIT: u64 = 1 << 20;

/// What must outlive us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// What is known of each container.
    pub(super) containers: BTreeMap<String, Entry>,
    /// When each that could be n8n's was started last, by its ID, as the restore began: also of those that are not stopped
    /// for it.
    pub(super) seen: BTreeMap<String, String>,
    /// The recovery point that is being restored.
    pub(super) point: Option<Stamp>,
    /// The parts of it that are to be restored, by this run or the one that was interrupted; without a point, those that are
    /// being restored by themselves.
    pub(super) parts: Vec<Kind>,
    /// Its parts that are in place.
    pub(super) done: Vec<Kind>,
    /// What of the backups its restore leaves out.
    pub(super) left_out: String,
    /// Those that are being replaced: where a restore was killed, each may be half exchanged. The restore that tries again
    /// adds it once more.
    pub(super) begun: Vec<Kind>,
    /// Parts of another point are in place too, or of a run for other containers or with other options.
    pub(super) mixed: bool,
}

/// A container that a restore stops or starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// When it was started last.
    pub(super) started: String,
    /// The engine's ID; empty in records of earlier versions.
    pub(super) id: String,
    /// Whether it is to run at the end.
    pub(super) runs: bool,
    /// The restart policy that it had, while it is held.
    pub(super) policy: Option<String>,
}

impl Entry {
    /// What the engine is to be asked for, where it must be this very container, whatever it is called by now.
    pub(super) fn handle<'a>(&'a self, name: &'a str) -> &'a str {
        match self.id.as_str() {
            "" => name,
            id => id,
        }
    }
}

impl Record {
    /// What is known of this very container, and not of one that had its name before.
    pub(super) fn of(&self, container: &Container) -> Option<&Entry> {
        let by_name = || self.containers.get(&container.name);
        let of_early = || by_name().filter(|entry| entry.id.is_empty());
        self.with_id(&container.id).or_else(of_early)
    }

    /// What is known of the container with this ID, whatever it is called.
    pub(super) fn with_id(&self, id: &str) -> Option<&Entry> {
        let mut each = self.containers.values();
        each.find(|entry| entry.id == id && !id.is_empty())
    }

    /// Whether this very container was renamed since, and another one has the name under which it is known.
    pub(super) fn is_replaced(&self, docker: &Docker, container: &Container) -> Result<bool> {
        let mut each = self.containers.iter();
        let known = each.find(|(_, entry)| entry.id == container.id && !container.id.is_empty());
        match known {
            Some((name, _)) if *name != container.name => {
                Ok(docker.container(name)?.is_some_and(|now| now.id != container.id))
            }
            _ => Ok(false),
        }
    }

    /// When this very container was started last, as the restore began; none of one that was not there.
    pub(super) fn last_start(&self, container: &Container) -> Option<&str> {
        let known = self.of(container).map(|entry| &entry.started);
        known.or_else(|| self.seen.get(&container.id)).map(String::as_str)
    }

    /// Takes a container's last start for one that says nothing.
    pub(super) fn note_start(&mut self, container: &Container) {
        let is_this = |name: &str, entry: &Entry| match entry.id.as_str() {
            "" => name == container.name,
            id => id == container.id,
        };
        let started = container.started_at.clone();
        match self.containers.iter_mut().find(|(name, entry)| is_this(name, entry)) {
            Some((_, entry)) => entry.started = started,
            None => {
                self.seen.insert(container.id.clone(), started);
            }
        }
    }

    /// Has those of these parts that are in place restored once more.
    pub(super) fn forget_done(&mut self, journal: Journal, kinds: &[Kind], why: &str) {
        let (mut again, done): (Vec<Kind>, Vec<Kind>) = self.done.iter().partition(|kind| kinds.contains(kind));
        if again.is_empty() {
            return;
        }
        journal.warn(format_args!("To be restored again, since {why}: {}", names_of(&again)));
        // Until then each counts as half replaced, whoever skips it, and nothing as untouched, also where it fails.
        self.done = done;
        self.begun.append(&mut again);
        self.mixed = true;
    }

    /// After the work on a part: only one that was left half done is still begun, by this restore or by one before it that was
    /// interrupted and was not set right yet.
    pub(super) fn end_part(&mut self, kind: Kind, done: Result<()>) -> Result<()> {
        let begun_before = self.begun.iter().filter(|begun| **begun == kind).count() > 1;
        let done = done.map_err(|error| match begun_before && error.is::<Unseen>() {
            true => error.context(LeftHalfDone::new(
                "A restore of this was interrupted, and what it left could not be looked at: run the same restore again",
            )),
            false => error,
        });
        self.begun.retain(|begun| *begun != kind);
        if done.as_ref().is_err_and(|error| error.is::<LeftHalfDone>()) {
            self.begun.push(kind);
        }
        done
    }

    /// Whether no part of the point is in place yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.done.is_empty() && self.begun.is_empty() && !self.mixed
    }

    /// The parts that are missing or half exchanged, where others are in place: nothing that n8n may work with.
    pub(super) fn half_restored(&self) -> Vec<Kind> {
        let mut half: Vec<Kind> = self.parts.iter().chain(&self.begun).copied().collect();
        half.retain(|kind| !self.is_untouched() && !self.done.contains(kind));
        half.sort_unstable();
        half.dedup();
        half
    }

    /// The containers that are held, with the restart policy that each had.
    pub(super) fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        let each = self.containers.iter();
        each.filter_map(|(name, entry)| Some((name.as_str(), entry.policy.as_deref()?)))
    }

    /// Whether n8n was stopped for the restore, whose containers are `found`, some of them with other names by now.
    pub(super) fn knows_n8n(&self, app: &App, found: &[Container]) -> bool {
        let mut names = self.containers.keys();
        names.any(|name| is_n8n(app, name)) || found.iter().any(|now| self.of(now).is_some())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut record = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                // Records of earlier versions have podman's dates, with blanks.
                ["container", name, started @ .., state @ ("runs" | "rests")] if !started.is_empty() => {
                    let entry = Entry {
                        started: started.join("_"),
                        runs: *state == "runs",
                        ..Entry::default()
                    };
                    record.containers.insert((*name).to_owned(), entry);
                }
                ["id", name, id] => record.containers.get_mut(*name)?.id = (*id).to_owned(),
                ["policy", name, policy] => record.containers.get_mut(*name)?.policy = Some((*policy).to_owned()),
                ["seen", id, started] => {
                    record.seen.insert((*id).to_owned(), (*started).to_owned());
                }
                ["point", stamp] => record.point = Some(Stamp::parse(stamp)?),
                [list @ ("part" | "done" | "begun"), name] => {
                    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == *name)?;
                    match *list {
                        "part" => record.parts.push(kind),
                        "begun" => record.begun.push(kind),
                        _ => record.done.push(kind),
                    }
                }
                ["left-out", what @ ..] => record.left_out = what.join(" "),
                ["mixed"] => record.mixed = true,
                _ => return None,
            }
        }
        Some(record)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, entry) in &self.containers {
            let state = if entry.runs { "runs" } else { "rests" };
            text.push_str(&format!("container {name} {} {state}\n", entry.started));
            if !entry.id.is_empty() {
                text.push_str(&format!("id {name} {}\n", entry.id));
            }
            if let Some(policy) = &entry.policy {
                text.push_str(&format!("policy {name} {policy}\n"));
            }
        }
        for (id, started) in &self.seen {
            text.push_str(&format!("seen {id} {started}\n"));
        }
        if let Some(point) = self.point {
            text.push_str(&format!("point {point}\n"));
        }
        for (list, kinds) in [("part", &self.parts), ("done", &self.done), ("begun", &self.begun)] {
            for kind in kinds {
                text.push_str(&format!("{list} {}\n", kind.name()));
            }
        }
        if !self.left_out.is_empty() {
            text.push_str(&format!("left-out {}\n", self.left_out));
        }
        if self.mixed {
            text.push_str("mixed\n");
        }
        text
    }
}

pub(super) fn is_n8n(app: &App, name: &str) -> bool {
    app.config.n8n_containers.iter().any(|n8n| n8n == name)
}

/// What those of `all` containers are called that a restore under way, or an interrupted one, is to start at its end,
/// and their IDs, as they may be called something else by now, unless another one has taken the name; none where its
/// record cannot be read.
pub(super) fn to_run(app: &App, all: &[Described]) -> Vec<String> {
    let record = read(app).ok().flatten().unwrap_or_default();
    let entries = record.containers.into_iter().filter(|(_, entry)| entry.runs);
    let names = entries.flat_map(|(name, entry)| {
        let is_replaced = all.iter().any(|one| one.name == name && one.id != entry.id);
        let id = (!is_replaced && !entry.id.is_empty()).then_some(entry.id);
        [Some(name), id]
    });
    names.flatten().collect()
}

pub(super) fn path(app: &App) -> PathBuf {
    app.store.root().join(RECORD)
}

pub(super) fn read(app: &App) -> Result<Option<Record>> {
    let file = path(app);
    match atomic::read_text(&file, LIMIT) {
        Ok(text) => match Record::parse(&text) {
            Some(record) => Ok(Some(record)),
            None => bail!("{} is not understood", file.display()),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("Cannot read {}", file.display())),
    }
}

pub(super) fn write(app: &App, record: &Record) -> Result<()> {
    crate::store::make_dir(app.store.root())?;
    // Root may restore, and the project's user look after the rest.
    let access = Access::private_in(app.store.root());
    atomic::replace(&path(app), ".restore.new", record.text().as_bytes(), access)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Error;

    #[test]
    fn a_part_that_was_not_looked_at_is_as_the_restore_before_left_it() {
        let unseen = || Err(Error::msg("no helper").context(Unseen));
        let half = |done: Result<()>| done.unwrap_err().is::<LeftHalfDone>();
        let mut record = Record {
            begun: vec![Kind::N8n],
            ..Record::default()
        };
        assert!(!half(record.end_part(Kind::N8n, unseen())));
        assert_eq!(record.begun, []);
        for (done, left) in [
            (unseen(), &[Kind::N8n][..]),
            (Err(Error::msg("once it was set right")), &[]),
            (Ok(()), &[]),
        ] {
            record.begun = vec![Kind::N8n, Kind::N8n];
            let failed = done.is_err();
            let done = record.end_part(Kind::N8n, done);
            assert_eq!(record.begun, left);
            assert!(done.is_err() == failed && (!failed || half(done) != left.is_empty()));
        }
    }

    #[test]
    fn the_record_is_read_as_it_was_written() {
        let mut record = Record::default();
        for (name, started, runs, policy) in [
            ("n8n-main", "2026-01-02T03:04:05Z", true, Some("on-failure:3")),
            ("n8n-worker", "0001-01-01T00:00:00Z", false, None),
        ] {
            let entry = Entry {
                started: started.to_owned(),
                id: "0a".to_owned(),
                runs,
                policy: policy.map(str::to_owned),
            };
            record.containers.insert(name.to_owned(), entry);
        }
        record.seen.insert("0b".to_owned(), "2026-01-02T03:04:06Z".to_owned());
        record.point = Stamp::parse("20260102_030405");
        record.parts = Kind::ALL.to_vec();
        record.done = vec![Kind::Postgres, Kind::N8n];
        record.begun = vec![Kind::Redis];
        record.mixed = true;
        assert_eq!(Record::parse(&record.text()), Some(record));
        assert_eq!(Record::parse("done everything"), None);
        let podman = Record::parse("container n8n-main 2026-01-02 03:04:05.678 +0000 UTC runs\n").unwrap();
        assert_eq!(
            podman.containers["n8n-main"].started,
            "2026-01-02_03:04:05.678_+0000_UTC"
        );
    }
}
