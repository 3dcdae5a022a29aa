//! Recovery points: what one run has backed up, in `backups/sets/YYYYMMDD_HHMMSS.sha256`.
//!
//! The file is a list that `cd backups && sha256sum -c sets/...` checks. Its comment lines (`# name: value`) carry the
//! facts: versions, row counts, what failed, what has been proven since. Names and values are ASCII; whatever else a
//! table's name holds is escaped as in a Rust string.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{bail, Context, Result};
use chrono::DateTime;

use crate::formats::text::ascii;
use crate::store::atomic::{self, Access};
use crate::store::lock::{component_lock, InUse, Lock};
use crate::store::marks::{self, DrillOutcome, Mark, OffsiteCopy, Pin};
use crate::store::{is_there, make_dir, Kind, Stamp, Store, ENCRYPTED};

/// The first line, before the stamp.
const TITLE: &str = "# n8n-backup recovery point ";
/// A manifest is some kilobytes; so much is never read.
pub const LIMIT: u64 = 16 << 20;
/// A list of components that is empty.
pub const NONE: &str = "none";

/// When a point was fetched from off-site.
pub const FETCHED: &str = "fetched";

/// The kinds of backups that the stack had no use for, such as Redis without a queue.
pub const UNUSED: &str = "unused";

/// How long the last drill took to recover each component, in seconds: `postgres 12.3, redis 0.4`.
pub const DRILL_TOOK: &str = "drill.took";

/// The directories below `backups/` that were [`Away`](super::inventory::Away) when a point was made.
const AWAY: &str = "away";

/// One file of a recovery point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it holds.
    pub kind: Kind,
    /// Its path below `backups/`.
    pub name: String,
    /// The SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

/// A recovery point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name, the time at which the run began.
    pub stamp: Stamp,
    /// Its files, in the order of the components; at most one of each kind.
    pub members: Vec<Member>,
    facts: Vec<(String, String)>,
}

impl Point {
    /// An empty point.
    pub fn new(stamp: Stamp) -> Self {
        Self {
            stamp,
            members: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// The value of a fact.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether its file `name` came from off-site and was not encrypted there, so that its manifest says nothing of who
    /// made it.
    pub fn may_be_anybodys(&self, name: &str) -> bool {
        self.fact(FETCHED).is_some() && !name.ends_with(ENCRYPTED)
    }

    /// All facts whose names begin with `prefix`, without it.
    pub fn facts<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.facts
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }

    /// Sets a fact, in place of an earlier one of this name.
    pub fn set(&mut self, name: &str, value: &str) {
        let (name, value) = (ascii(name).replace(": ", ":\\u{20}"), ascii(value));
        match self.facts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.facts.push((name, value)),
        }
    }

    /// Takes a fact away.
    pub fn unset(&mut self, name: &str) {
        self.facts.retain(|(known, _)| known != name);
    }

    /// The words of a fact that lists components, such as `failed`; none when it says `none`.
    pub fn listed(&self, name: &str) -> Vec<&str> {
        let words = self.fact(name).unwrap_or_default().split_whitespace();
        words.filter(|word| *word != NONE).collect()
    }

    /// The length in bytes that the file of a kind had when it was made, where the manifest tells it.
    pub fn size(&self, kind: Kind) -> Option<u64> {
        self.fact(&format!("size.{}", kind.name()))?.parse().ok()
    }

    /// Takes out all facts whose names begin with `prefix`.
    pub fn unset_all(&mut self, prefix: &str) {
        self.facts.retain(|(name, _)| !name.starts_with(prefix));
    }

    /// The instant at which its run began. The name tells local time: of another zone where the host was moved, and of either
    /// hour where clocks were set back.
    pub fn time(&self) -> SystemTime {
        self.instant("begun").unwrap_or_else(|| self.stamp.time())
    }

    fn instant(&self, fact: &str) -> Option<SystemTime> {
        let instant = DateTime::parse_from_rfc3339(self.fact(fact)?).ok()?;
        Some(instant.into())
    }

    /// Whether it was made by then, as its beginning or its end tells: one that follows what a clock that ran fast has dated
    /// begins after that, and ends when it does.
    pub fn was_made_by(&self, time: SystemTime) -> bool {
        self.time() <= time || self.instant("finished").is_some_and(|ended| ended <= time)
    }

    /// Notes the directories below `backups/` that are away while it is made.
    pub fn set_away(&mut self, names: &[&str]) {
        self.unset(AWAY);
        if !names.is_empty() {
            self.set(AWAY, &names.join(" "));
        }
    }

    /// Notes one more such directory, as when a file of it is brought back meanwhile.
    pub fn add_away(&mut self, name: &str) {
        if !self.was_away(name) {
            let names = [self.listed(AWAY), vec![name]].concat().join(" ");
            self.set(AWAY, &names);
        }
    }

    /// Whether a directory below `backups/` was away when it was made ([`Away`](super::inventory::Away)).
    pub fn was_away(&self, dir: &str) -> bool {
        self.listed(AWAY).contains(&dir)
    }

    /// The member of a kind.
    pub fn member(&self, kind: Kind) -> Option<&Member> {
        self.members.iter().find(|member| member.kind == kind)
    }

    /// Sets a mark, in place of an earlier one of this name. That nothing is damaged is no mark.
    pub fn mark(&mut self, mark: &Mark) {
        match mark {
            Mark::Damaged(kinds) if kinds.is_empty() => self.unset(mark.name()),
            mark => self.set(mark.name(), &mark.to_string()),
        }
    }

    fn marked(&self, name: &str) -> Option<Mark> {
        Mark::parse(name, self.fact(name)?)
    }

    /// Whether every file was found to be as it was recorded, once.
    pub fn is_verified(&self) -> bool {
        self.marked(marks::VERIFIED).is_some()
    }

    /// The components whose files were found to be others than those that were recorded.
    pub fn damaged(&self) -> Vec<Kind> {
        match self.marked(marks::DAMAGED) {
            Some(Mark::Damaged(kinds)) => kinds,
            _ => Vec::new(),
        }
    }

    /// What the last drill has shown, part by part: `loaded`, `compared`, `key`, `opened`, ... and what of it, or of what and when.
    pub fn proofs(&self) -> Vec<(&'static str, String)> {
        let passed = self.drill().filter(DrillOutcome::passed);
        let recovered = passed.map(|drill| format!("{} {}", drill.parts, drill.at));
        let recovered = recovered
            .into_iter()
            .flat_map(|words| ["loaded", "compared"].map(|name| (name, words.clone())));
        let proofs = marks::PROOFS.iter().chain([&marks::REHEARSED]);
        let short = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
        let others = proofs.filter_map(|name| Some((short(name), self.fact(name)?.to_owned())));
        recovered.chain(others).collect()
    }

    /// What the last drill has shown.
    pub fn drill(&self) -> Option<DrillOutcome> {
        match self.marked(marks::DRILL) {
            Some(Mark::Drill(outcome)) => Some(outcome),
            _ => None,
        }
    }

    /// How long the recovery of these parts took in its last drill; none when that did not recover each of them.
    pub fn drill_took(&self, parts: &[Kind]) -> Option<Duration> {
        let known = self.fact(DRILL_TOOK)?;
        let seconds = |kind: Kind| -> Option<f64> {
            let mut words = known.split(", ").filter_map(|word| word.split_once(' '));
            let (_, seconds) = words.find(|(name, _)| *name == kind.name())?;
            seconds.parse().ok()
        };
        let used = parts.iter().filter(|kind| !self.is_unused(**kind));
        let total: f64 = used.map(|kind| seconds(*kind)).sum::<Option<f64>>()?;
        Duration::try_from_secs_f64(total).ok()
    }

    /// Where a copy of it is.
    pub fn offsite(&self) -> Option<OffsiteCopy> {
        match self.marked(marks::OFFSITE) {
            Some(Mark::Offsite(copy)) => Some(copy),
            _ => None,
        }
    }

    /// What was found wrong with that copy.
    pub fn copy_defect(&self) -> Option<&str> {
        self.fact(marks::OFFSITE).and(self.fact(marks::OFFSITE_DEFECT))
    }

    /// The mark of that copy, where it is whole as far as is known.
    pub fn whole_copy(&self) -> Option<&str> {
        self.fact(marks::OFFSITE).filter(|_| self.copy_defect().is_none())
    }

    /// Why it is restored by name only, if it is.
    pub fn excluded_from_latest(&self) -> Option<&str> {
        self.fact(marks::EXCLUDED)
    }

    /// That no retention deletes it, if it is so.
    pub fn pin(&self) -> Option<Pin> {
        match self.marked(marks::PINNED) {
            Some(Mark::Pinned(pin)) => Some(pin),
            _ => None,
        }
    }

    /// Which of `parts` it does not hold, or holds damaged, in words.
    pub fn missing_parts(&self, parts: &[Kind]) -> Option<String> {
        let damaged = self.damaged();
        let names = |chosen: &dyn Fn(Kind) -> bool| -> String {
            let chosen = parts.iter().filter(|kind| chosen(**kind));
            chosen.map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
        };
        let absent = names(&|kind| !self.has(kind));
        let broken = names(&|kind| self.member(kind).is_some() && damaged.contains(&kind));
        let missing: Vec<String> = [("it holds no", absent), ("damaged in it:", broken)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {names}"))
            .collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }

    /// Why it is not taken when the newest point with these parts is asked for; none when it is.
    pub fn why_not_latest(&self, parts: &[Kind]) -> Option<String> {
        let excluded = self.excluded_from_latest().map(str::to_owned);
        excluded.or_else(|| self.missing_parts(parts))
    }

    /// Whether every component is in it.
    pub fn is_complete(&self) -> bool {
        Kind::PARTS.iter().all(|kind| self.has(*kind))
    }

    /// Whether a kind is in it, or the stack had no use for that.
    pub fn has(&self, kind: Kind) -> bool {
        // Where there is no `.env`, the deployment is all that there is of its part.
        let also = kind == Kind::Env && self.member(Kind::Deployment).is_some();
        self.member(kind).is_some() || also || self.is_unused(kind)
    }

    /// Whether the stack had no use for backups of a kind.
    pub fn is_unused(&self, kind: Kind) -> bool {
        let said = self.listed(UNUSED);
        // A file without a manifest tells by itself which database it is of.
        let on_sqlite = self.member(Kind::Sqlite).is_some();
        let unused = |kind: &Kind| said.contains(&kind.name()) || (on_sqlite && *kind == Kind::Postgres);
        let unused: Vec<Kind> = Kind::PARTS.into_iter().filter(unused).collect();
        self.member(kind).is_none() && kind.is_unused(&unused)
    }

    /// Keeps the retention of another run from the point's files until what this gives is dropped. One that cannot be
    /// opened is for whoever reads it, and stands in no other's way.
    pub fn hold(&self, store: &Store) -> Result<Vec<InUse>> {
        let paths = self.members.iter().map(|member| store.root().join(&member.name));
        let paths: Vec<PathBuf> = paths.filter(|path| atomic::open(path).is_ok()).collect();
        InUse::hold(paths.iter().map(PathBuf::as_path))
    }

    /// Where the manifest lies.
    pub fn path(&self, store: &Store) -> PathBuf {
        store.set_path(self.stamp)
    }

    /// Writes the manifest of a new point: whole, or not at all. Another run that began in the same second may have taken
    /// the name; the point then gets that of a later second.
    pub fn write(&mut self, store: &Store) -> Result<PathBuf> {
        let _lock = lock(store)?;
        while self.path(store).symlink_metadata().is_ok() {
            self.stamp = self.stamp.next();
        }
        self.save(store)
    }

    /// Writes the manifest, under the lock: so one name is enough for what is not in place yet.
    fn save(&self, store: &Store) -> Result<PathBuf> {
        let path = self.path(store);
        // A mark that root sets takes the manifest from nobody.
        let access = Access::private_in(store.root());
        atomic::replace(&path, ".manifest.partial", self.text().as_bytes(), access)?;
        Ok(path)
    }

    /// The manifest's contents.
    pub fn text(&self) -> String {
        let mut text = format!("{TITLE}{}\n", self.stamp);
        for (name, value) in &self.facts {
            text.push_str(&format!("# {name}: {value}\n"));
        }
        for member in &self.members {
            text.push_str(&format!("{}  {}\n", member.sha256, member.name));
        }
        text
    }

    /// Reads a manifest.
    pub fn load(path: &Path) -> Result<Self> {
        let text = atomic::read_text(path, LIMIT).with_context(|| format!("Cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a recovery point", path.display()))
    }

    /// Reads the contents of a manifest.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let stamp = lines
            .next()
            .and_then(|line| line.strip_prefix(TITLE))
            .and_then(Stamp::parse);
        let mut point = Self::new(stamp.context("its first line does not say so")?);
        for line in lines {
            if let Some(fact) = line.strip_prefix("# ") {
                let (name, value) = fact
                    .split_once(": ")
                    .with_context(|| format!("not understood: {line}"))?;
                point.facts.push((name.to_owned(), value.to_owned()));
                continue;
            }
            let (sha256, name) = line
                .split_once("  ")
                .with_context(|| format!("not understood: {line}"))?;
            // A name leads to the component's directory and nowhere else, whoever wrote the manifest.
            let kind = Kind::of_path(Path::new(name))
                .filter(|kind| {
                    name.strip_prefix(kind.dir())
                        .and_then(|rest| rest.strip_prefix('/'))
                        .is_some_and(|file| !file.contains('/') && !file.starts_with('.'))
                })
                .with_context(|| format!("no backup file: {name}"))?;
            if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                bail!("no SHA-256: {sha256}");
            }
            if point.member(kind).is_some() {
                bail!("it names two files of {}", kind.name());
            }
            point.members.push(Member {
                kind,
                name: name.to_owned(),
                sha256: sha256.to_owned(),
            });
        }
        point.check_whole()?;
        Ok(point)
    }

    /// Refuses what is cut off at the end of a line. The files stand last, and the facts tell of each; of one that was deleted
    /// the size stays.
    fn check_whole(&self) -> Result<()> {
        let deleted = self.listed("deleted");
        for kind in Kind::ALL {
            let named = self.member(kind).is_some() || deleted.contains(&kind.name());
            if !named && self.fact(&format!("size.{}", kind.name())).is_some() {
                bail!("it is cut off: it tells the size of {} and not its name", kind.name());
            }
        }
        if self.members.is_empty() && deleted.is_empty() {
            bail!("it is cut off: it names no file");
        }
        Ok(())
    }

    /// Removes the manifest.
    pub fn remove(&self, store: &Store) -> Result<()> {
        let path = self.path(store);
        let _lock = lock(store)?;
        match fs::remove_file(&path) {
            // Another cleanup was as quick.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.with_context(|| format!("Failed to delete: {}", path.display())),
        }
    }
}

/// Changes the facts of a point, if it is still there: reads its manifest anew, applies `change`, writes it. Whoever
/// marks a point (as verified, drilled, copied off-site) does it this way, so that no mark is lost to another's.
pub fn update(store: &Store, stamp: Stamp, change: impl FnOnce(&mut Point)) -> Result<()> {
    let path = store.set_path(stamp);
    if !is_there(&path) {
        return Ok(());
    }
    let _lock = lock(store)?;
    if !is_there(&path) {
        return Ok(());
    }
    let mut point = Point::load(&path)?;
    change(&mut point);
    point.save(store).map(drop)
}

/// Holds the manifests. Another's change of one takes milliseconds.
pub(super) fn lock(store: &Store) -> Result<Lock> {
    let dir = store.sets_dir();
    make_dir(&dir)?;
    Lock::wait(&component_lock(&dir), Duration::from_secs(60), |_| Ok(()))
}

#[cfg(test)]
mod tests;
