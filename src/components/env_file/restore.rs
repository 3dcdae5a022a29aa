//! Restore of `.env`, with the one that was there kept beside it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::text;
use crate::app::App;
use crate::components::{Around, N8n, RestorePlan};
use crate::config::{dotenv, Config, MAX_BYTES};
use crate::report::log::Journal;
use crate::store::atomic::{self, Access};
use crate::store::{Kind, Stamp};
use crate::stream::encrypt::Locked;
use crate::stream::read::check_recorded;

/// How the names of copies begin that are not in place yet.
const TEMPORARY: &str = ".env.restore-";

/// A copy of `.env` that has been verified, and how it differs from the one that is there.
pub struct Plan<'a> {
    app: &'a App,
    journal: Journal,
    new: Vec<u8>,
    old: Option<Vec<u8>>,
    changes: Vec<Change>,
}

/// A setting that differs. Only its name is ever shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The setting.
    pub name: String,
    /// What becomes of it.
    pub how: How,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Only the backup has it.
    Added,
    /// Only the file that is there has it.
    Removed,
    /// Both have it, with different values.
    Changed,
}

/// Verifies the copy and compares it with what is there. Changes nothing.
pub fn prepare<'a>(app: &'a App, file: &Path, journal: Journal) -> Result<Plan<'a>> {
    journal.info("Verifying backup file integrity...");
    let (new, after) = whole(app, file, |new| settings(file, new))?;
    journal.info("Backup file integrity verified");
    let path = app.config.env_file();
    let old = present(&path)?;
    let before = match &old {
        // One that cannot be understood is replaced all the same, and kept.
        Some(old) => settings(&path, old).unwrap_or_default(),
        None => BTreeMap::new(),
    };
    let plan = Plan {
        app,
        journal,
        changes: changes(&before, &after),
        new,
        old,
    };
    plan.report();
    if !plan.is_same() && !plan.is_missing() {
        atomic::check_owner(&path, TEMPORARY)?;
    }
    Ok(plan)
}

/// What the file at `path` holds, if there is one.
fn present(path: &Path) -> Result<Option<Vec<u8>>> {
    atomic::read_if_there(path, MAX_BYTES).with_context(|| format!("Cannot read {}", path.display()))
}

/// The settings that hold once the copy in `file` is the project's `.env`. Changes nothing.
pub fn settings_of(app: &App, file: &Path) -> Result<Config> {
    whole(app, file, |text| Config::of_text(&app.config.project, file, text)).map(|(_, config)| config)
}

/// The text of a copy that is whole, and what `read` makes of it.
fn whole<T>(app: &App, file: &Path, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<(Vec<u8>, T)> {
    check_recorded(&app.config, &app.store, file)
        .and_then(|()| {
            let text = text(app, file)?;
            let read = read(&text)?;
            Ok((text, read))
        })
        .map_err(|error| match error.downcast_ref::<Locked>() {
            Some(_) => error,
            None => error.context("Backup file is corrupted or not an environment file"),
        })
}

/// The settings of a file; what it asks of the environment is left empty.
fn settings(path: &Path, text: &[u8]) -> Result<BTreeMap<String, String>> {
    dotenv::parse(path, text, &|_| false, &|_| Some(String::new()))
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Change> {
    let mut changes: Vec<Change> = after
        .iter()
        .filter_map(|(name, value)| {
            let how = match before.get(name) {
                None => How::Added,
                Some(old) if old != value => How::Changed,
                Some(_) => return None,
            };
            Some(Change {
                name: name.clone(),
                how,
            })
        })
        .collect();
    changes.extend(
        before
            .keys()
            .filter(|name| !after.contains_key(*name))
            .map(|name| Change {
                name: name.clone(),
                how: How::Removed,
            }),
    );
    changes.sort_by(|a, b| a.name.cmp(&b.name));
    changes
}

impl Plan<'_> {
    /// Whether a setting gets another value, or none any more.
    fn changes(&self, name: &str) -> bool {
        self.changes.iter().any(|change| change.name == name)
    }

    /// Whether the file that is there is the very copy.
    fn is_same(&self) -> bool {
        self.old.as_ref() == Some(&self.new)
    }

    /// Whether there is no file yet.
    fn is_missing(&self) -> bool {
        self.old.is_none()
    }

    /// Tells by name which settings differ.
    fn report(&self) {
        if self.is_missing() {
            let count = self.changes.len();
            self.journal
                .info(format_args!("There is no .env; the backup has {count} settings"));
            return;
        }
        for (how, word) in [
            (How::Added, "only in the backup"),
            (How::Removed, "only in the present .env"),
            (How::Changed, "with another value"),
        ] {
            let names: Vec<&str> = self
                .changes
                .iter()
                .filter(|change| change.how == how)
                .map(|change| change.name.as_str())
                .collect();
            if !names.is_empty() {
                self.journal.info(format_args!("Settings {word}: {}", names.join(" ")));
            }
        }
        if self.changes.is_empty() {
            self.journal.info(if self.is_same() {
                "The present .env is the same"
            } else {
                "All settings are the same; comments or order differ"
            });
        }
        if self.changes("N8N_ENCRYPTION_KEY") {
            self.journal.warn(
                "N8N_ENCRYPTION_KEY differs: n8n can read only those credentials that were stored under the same key",
            );
        }
        if self.changes("POSTGRES_PASSWORD") {
            self.journal.warn(
                "POSTGRES_PASSWORD differs: the database server keeps the password that it has (ALTER ROLE ... PASSWORD changes it)",
            );
        }
    }

    /// Removes the copies that a killed restore has left beside `.env`: they hold the same secrets.
    fn sweep(&self) {
        let path = self.app.config.env_file();
        let path = path.canonicalize().unwrap_or(path);
        let Some(entries) = path.parent().and_then(|dir| fs::read_dir(dir).ok()) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(is_temporary) {
                let left = entry.path();
                match fs::remove_file(&left) {
                    Ok(()) => self.journal.warn(format_args!(
                        "Removed {}, which an interrupted restore had left",
                        left.display()
                    )),
                    Err(error) => self
                        .journal
                        .warn(format_args!("Cannot remove {}: {error}", left.display())),
                }
            }
        }
    }
}

impl RestorePlan for Plan<'_> {
    fn warnings(&self) -> Vec<String> {
        match self.is_same() || self.is_missing() {
            true => Vec::new(),
            false => vec![format!("This will replace {}", self.app.config.env_file().display())],
        }
    }

    fn n8n(&self) -> N8n {
        N8n::Unaffected
    }

    fn comes_first(&self) -> Option<String> {
        let path = self.app.config.env_file();
        self.is_missing()
            .then(|| format!("{} is not there: it is written first", path.display()))
    }

    /// Puts the copy in place: whole or not at all, mode 600, with the owner of the file that was there, which stays as
    /// `.env.before-restore-STAMP`. Where there was none, it is for the owner of the project, as far as it can be given
    /// to them; one of another user that could not be given back is left alone.
    fn run(&self, _around: &dyn Around) -> Result<()> {
        let _component = self.app.hold(Kind::Env, self.journal)?;
        self.sweep();
        if self.is_same() {
            self.journal
                .info("The environment file is the same already, nothing to do");
            return Ok(());
        }
        // A link may lead to where the file really is.
        let path = self.app.config.env_file();
        atomic::check_link(&path).with_context(|| format!("Cannot write {}", path.display()))?;
        let path = path.canonicalize().unwrap_or(path);
        if self.is_missing() {
            // The empty directory that Docker may have made in its place.
            let _ = fs::remove_dir(&path);
        }
        let owner = path
            .metadata()
            .or_else(|_| self.app.config.project.metadata())
            .map(|meta| (meta.uid(), meta.gid()))
            .with_context(|| format!("Cannot read {}", self.app.config.project.display()))?;
        let access = Access {
            mode: 0o600,
            owner: Some(owner),
        };
        // Not `self.old`: somebody may have written there while the question stood.
        if let Some(old) = present(&path)? {
            let kept = |stamp| path.with_file_name(format!(".env.before-restore-{stamp}"));
            let kept = atomic::create_dated(kept, &old, access)
                .with_context(|| format!("Cannot replace {}", path.display()))?;
            self.journal
                .info(format_args!("The present file is kept as {}", kept.display()));
        }
        let temporary = format!("{TEMPORARY}{}-{}", Stamp::now(), std::process::id());
        atomic::replace(&path, &temporary, &self.new, access)?;
        if let Some(lacks) = access.not_given(&path) {
            self.journal.warn(lacks);
        }
        Ok(())
    }

    fn afterwards(&self, journal: Journal) {
        if self.changes("N8N_ENCRYPTION_KEY") {
            journal.warn(
                "N8N_ENCRYPTION_KEY is another one now, and containers keep the value that they were created with: docker \
                 compose up -d creates them again",
            );
        } else if !self.is_same() {
            journal.info(
                "Containers keep the values that they were created with, until docker compose up -d creates them again",
            );
        }
    }
}

/// Whether a name is that of a copy which [`Plan::run`] had not put in place yet.
fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY)
        .and_then(|rest| rest.rsplit_once('-'))
        .is_some_and(|(stamp, pid)| Stamp::parse(stamp).is_some() && pid.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    struct Nothing;

    impl Around for Nothing {
        fn keep(&self) -> Result<()> {
            Ok(())
        }

        fn check_stopped(&self) -> Result<()> {
            Ok(())
        }

        fn undo_at_rest(&self, _: Journal, undo: Box<dyn FnOnce() -> Result<()> + '_>) -> Result<()> {
            undo()
        }
    }

    #[test]
    fn what_somebody_has_written_since_the_plan_is_kept() {
        let dir = TempDir::new();
        let app = App::new(Config::without_env_file(dir.path()).unwrap());
        let plan = Plan {
            app: &app,
            journal: Journal::new("test"),
            new: b"A=2\n".to_vec(),
            old: Some(b"A=1\n".to_vec()),
            changes: Vec::new(),
        };
        fs::write(app.config.env_file(), "A=3\n").unwrap();
        plan.run(&Nothing).unwrap();
        let texts = fs::read_dir(dir.path()).unwrap().flatten().filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            Some((
                name.split("-2").next()?.to_owned(),
                fs::read_to_string(file.path()).ok()?,
            ))
        });
        let texts: BTreeMap<String, String> = texts.collect();
        assert_eq!(texts[".env"], "A=2\n");
        assert_eq!(texts[".env.before-restore"], "A=3\n");
    }

    #[test]
    fn only_our_own_leavings_are_swept() {
        assert!(is_temporary(".env.restore-20260102_030405-4711"));
        for name in [
            ".env",
            ".env.before-restore-20260102_030405",
            ".env.restore-20260102_030405",
            ".env.restore-mine-1",
        ] {
            assert!(!is_temporary(name), "{name}");
        }
    }

    #[test]
    fn settings_are_compared_by_value() {
        let read = |text: &str| settings(Path::new(".env"), text.as_bytes()).unwrap();
        let found = changes(&read("A=1\nB=2\nC='x'\n"), &read("# new\nB=3\nC=x\nD=4\n"));
        let found: Vec<(&str, How)> = found.iter().map(|change| (change.name.as_str(), change.how)).collect();
        assert_eq!(found, [("A", How::Removed), ("B", How::Changed), ("D", How::Added)]);
    }
}
