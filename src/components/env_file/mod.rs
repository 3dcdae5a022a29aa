//! The environment file: a copy of `.env`, which holds n8n's encryption key.

mod deployment;
mod probe;
mod restore;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::drill::{check_file, DrillEnv, Drilled, Stopwatch};
use super::{check_encrypted, About, Around, Backup, BackupRun, Component, N8n, RestoreOptions, RestorePlan};
use super::{ALLOW_PLAIN, REPLACE_DEPLOYMENT, YES};
use crate::app::App;
use crate::cli::Row;
use crate::components::credentials;
use crate::config::dotenv;
use crate::config::{Config, Encryption, Secret, MAX_BYTES};
use crate::engine::Docker;
use crate::process::hinted;
use crate::report::finding::Report;
use crate::report::log::Journal;
use crate::store::atomic;
use crate::store::identity::OF_ANOTHER;
use crate::store::inventory::{self, Inventory};
use crate::store::manifest::{Member, Point};
use crate::store::{is_there, Kind, Stamp, ENCRYPTED};
use crate::stream::publish::{publish, write};
use crate::stream::read::read;

/// It has no script of its own; it is a step of backup-all.
const JOURNAL: Journal = Journal::new("backup-all");

/// The longest environment file that is read.
const LIMIT: usize = 16 << 20;

const ABOUT: About = About {
    title: "Environment file",
    restored: ["Environment file", "environment file"],
    backup: None,
    step: "env file backup",
    restore: Row {
        name: "restore-env",
        summary: "replace .env by a .backup file",
        details: "Tells by name which settings differ. The present file is kept as .env.before-restore-YYYYMMDD_HHMMSS. Of the\n\
                  deployment's archive that was made with it (or is named instead), files that are missing are written.",
        operand: Some("FILE"),
        flags: &[YES, REPLACE_DEPLOYMENT, ALLOW_PLAIN],
        ..Row::ACTS
    },
    drill: None,
    kept: "the present .env stays beside the new one",
    key_place: Some("the env backup (N8N_ENCRYPTION_KEY)"),
};

/// The environment file.
pub struct EnvFile;

impl Component for EnvFile {
    fn kind(&self) -> Kind {
        Kind::Env
    }

    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn backup(&self, app: &App, run: &BackupRun) -> Result<Backup> {
        JOURNAL.info("Backing up environment file");
        let source = app.config.env_file();
        let is_there = source.is_file();
        if !is_there && (app.config.env_file_exists || app.config.found.deployment.is_empty()) {
            bail!(".env file not found at {}", source.display());
        }
        if let Some(lost) = lost(app) {
            // It would be the newest copy, and what latest means.
            let hint = anyhow!("{lost}: put it back by restore-env.sh, or write it anew");
            return Err(hint.context("Failed to backup environment file"));
        }
        let _lock = app
            .hold(Kind::Env, JOURNAL)
            .context("Failed to backup environment file")?;
        // Read once: an editor may write it meanwhile.
        let (mut backup, text) = match is_there {
            true => {
                let text = whole(app, &source).context("Failed to backup environment file")?;
                let backup = copy(app, run.stamp, text.clone()).context("Failed to backup environment file")?;
                (backup, text)
            }
            false => Default::default(),
        };
        let deployment = deployment::backup(app, run.stamp, &text).context("Failed to backup the deployment")?;
        if let Some((file, holds_key)) = deployment {
            backup.files.push(file);
            if holds_key {
                backup.facts = vec![("env.key".to_owned(), "in the deployment".to_owned())];
            }
        }
        ensure!(
            !backup.files.is_empty(),
            "Failed to backup environment file: there is no .env, and no file of the deployment can be read"
        );
        backup.report(JOURNAL, "Environment backup completed");
        Ok(backup)
    }

    fn member<'a>(&self, point: &'a Point) -> Option<&'a Member> {
        point.member(Kind::Env).or_else(|| point.member(Kind::Deployment))
    }

    fn holds(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Env | Kind::Deployment)
    }

    fn verify(&self, app: &App, file: &Path) -> Result<()> {
        if is_deployment(file) {
            return deployment::open(app, file).map(drop);
        }
        let text = text(app, file)?;
        parsed(file, &text).map(drop)
    }

    fn plan_restore<'a>(
        &self,
        app: &'a App,
        file: &'a Path,
        options: RestoreOptions,
    ) -> Result<Box<dyn RestorePlan + 'a>> {
        let journal = ABOUT.restore_journal();
        let deployment = |file: &Path| {
            check_encrypted(app, file, options)?;
            deployment::prepare(app, file, options, journal)
        };
        let (env, deployment) = match is_deployment(file) {
            true => (None, Some(deployment(file)?)),
            false => {
                let mut beside = deployment::beside(app, file);
                if let Some(file) = beside.as_ref().map(|file| deployment::may_be_anybodys(app, file)) {
                    if file? {
                        journal.warn(
                            "The deployment was fetched from off-site and is not encrypted, so that anybody may have written \
                             it: its files are left out",
                        );
                        beside = None;
                    }
                }
                let env = restore::prepare(app, file, journal)?;
                (Some(env), beside.map(|file| deployment(&file)).transpose()?)
            }
        };
        Ok(Box::new(Plan { env, deployment }))
    }

    fn settings(&self, app: &App, file: &Path) -> Result<Option<Config>> {
        if is_deployment(file) {
            return Ok(None);
        }
        restore::settings_of(app, file).map(Some)
    }

    fn drill<'a>(&self, env: &'a DrillEnv<'a>, file: &Path) -> Result<Drilled<'a>> {
        let watch = Stopwatch::start();
        let beside = env.point.member(Kind::Deployment);
        let deployed = beside.map(|member| {
            let path = env.path(member);
            check_file(env.app, &path, member)?;
            let files = deployment::open(env.app, &path)?.len();
            Ok::<_, anyhow::Error>((files, deployment::key(env.app, &path)?))
        });
        let deployed = deployed.transpose()?;
        let of_deployment = deployed
            .as_ref()
            .map(|(files, _)| format!("{files} files of the deployment"));
        let deployed_key = deployed.and_then(|(_, key)| key);
        if is_deployment(file) {
            return Ok(watch.drilled(of_deployment.unwrap_or_default()).with_key(deployed_key));
        }
        let text = text(env.app, file)?;
        let settings = credentials::count_settings(file, &text)?;
        let key = credentials::key_of_env(file, &text)?;
        let also = of_deployment.map_or_else(String::new, |files| format!(" and {files}"));
        Ok(watch
            .drilled(format!("{settings} settings{also}"))
            .with_key(key.or(deployed_key)))
    }

    fn key(&self, env: &DrillEnv<'_>, file: &Path) -> Result<Option<Secret>> {
        self.drill(env, file).map(|drilled| drilled.key.flatten())
    }

    fn probe(&self, app: &App, _docker: Option<&Docker>, report: &mut Report) {
        probe::probe(app, report);
    }
}

/// Whether a file is an archive of a deployment.
fn is_deployment(file: &Path) -> bool {
    Kind::of_name(file) == Some(Kind::Deployment)
}

/// The copy of `.env` and the deployment, either of which may be all that there is.
struct Plan<'a> {
    env: Option<restore::Plan<'a>>,
    deployment: Option<deployment::Plan<'a>>,
}

impl RestorePlan for Plan<'_> {
    fn warnings(&self) -> Vec<String> {
        let env = self.env.iter().flat_map(RestorePlan::warnings);
        env.chain(self.deployment.iter().flat_map(deployment::Plan::warnings))
            .collect()
    }

    fn n8n(&self) -> N8n {
        N8n::Unaffected
    }

    fn comes_first(&self) -> Option<String> {
        self.env.as_ref()?.comes_first()
    }

    fn run(&self, around: &dyn Around) -> Result<()> {
        if let Some(env) = &self.env {
            env.run(around)?;
        }
        self.deployment.as_ref().map_or(Ok(()), deployment::Plan::run)
    }

    fn afterwards(&self, journal: Journal) {
        if let Some(env) = &self.env {
            env.afterwards(journal);
        }
    }
}

/// Says so when `.env` is lost: it is gone, or sets nothing, and a copy of it does. What it has said, of the retention or
/// of encryption, is not known then.
pub fn lost(app: &App) -> Option<&'static str> {
    let lost = match &app.config {
        config if config.env_file_sets => return None,
        config if config.env_file_exists => ".env sets nothing, and copies of it do",
        _ => ".env is missing, and there are copies of it",
    };
    was_there(app).then_some(lost)
}

/// Refuses to follow encrypted backups of a kind by a plain one because the setting that says so is lost.
pub fn check_plain(app: &App, kind: Kind) -> Result<()> {
    if app.config.encryption.is_some() {
        return Ok(());
    }
    let Some(lost) = lost(app) else {
        return Ok(());
    };
    let inventory = Inventory::take(&app.store)?;
    let is_ours = |point: &Point| point.excluded_from_latest() != Some(OF_ANOTHER);
    let newest = inventory.newest_file(kind, SystemTime::now(), is_ours);
    ensure!(
        !newest.is_some_and(|entry| entry.path.to_string_lossy().ends_with(ENCRYPTED)),
        "{lost}: the newest backup of {} is encrypted, and none is made that is not. Put .env back by restore-env.sh, or write \
         it anew",
        kind.name()
    );
    Ok(())
}

/// Whether there was a `.env` that set something, as far as this stack's copies and points tell; in doubt there was.
fn was_there(app: &App) -> bool {
    let (Ok(copies), Ok(points)) = (app.store.list(Kind::Env), inventory::list(&app.store)) else {
        return true;
    };
    let points = points.into_iter().filter_map(|(_, point)| point.ok());
    let (others, own): (Vec<Point>, Vec<Point>) =
        points.partition(|point| point.excluded_from_latest() == Some(OF_ANOTHER));
    let copy_of = |point: &Point| Some(app.store.root().join(&point.member(Kind::Env)?.name));
    let not_ours: Vec<PathBuf> = others.iter().filter_map(copy_of).collect();
    let mut ours = copies.iter().rev().filter(|copy| !not_ours.contains(&copy.path));
    // Of a copy that is gone nobody knows what it said.
    own.iter().filter_map(copy_of).any(|copy| !is_there(&copy)) || ours.any(|copy| sets_something(app, &copy.path))
}

/// Whether a copy holds a setting; one that cannot be read may.
fn sets_something(app: &App, path: &Path) -> bool {
    if path.to_string_lossy().ends_with(ENCRYPTED) {
        return true;
    }
    let settings = text(app, path).and_then(|text| credentials::count_settings(path, &text));
    settings.map_or(true, |count| count > 0)
}

/// The contents of a copy.
fn text(app: &App, path: &Path) -> Result<Vec<u8>> {
    let mut chain = app.chain();
    let contents = read(&app.config, &mut chain, path)?;
    let text = chain.collect("reading the environment file", contents, LIMIT);
    text.get(&chain.finish()?)
}

/// What `.env` holds.
///
/// # Errors
/// When it is being written: it does not parse, or no longer sets anything.
fn whole(app: &App, source: &Path) -> Result<Vec<u8>> {
    let text = atomic::read(source, MAX_BYTES).with_context(|| format!("Cannot read {}", source.display()))?;
    let settings = parsed(source, &text)?;
    ensure!(
        !settings.is_empty() || !app.config.env_file_sets,
        hinted(
            format_args!(
                "{} set something when this run began, and sets nothing now",
                source.display()
            ),
            "write it again, or put it back by restore-env.sh"
        )
    );
    Ok(text)
}

/// The settings of an environment file. What it asks of the environment is there, whatever it is: only its form is
/// judged.
fn parsed(file: &Path, text: &[u8]) -> Result<BTreeMap<String, String>> {
    dotenv::parse(file, text, &|_| false, &|_| Some("set".to_owned()))
}

fn copy(app: &App, stamp: Stamp, text: Vec<u8>) -> Result<Backup> {
    if matches!(app.config.encryption, Some(Encryption::Passphrase(_))) && !has_encrypted(app)? {
        JOURNAL.warn(
            "The copy of .env is encrypted with the passphrase that stands in .env: keep BACKUP_GPG_PASSPHRASE in another \
             place too, or no backup can be read once .env is lost",
        );
    }
    let key = matches!(credentials::key_of_env(&app.config.env_file(), &text), Ok(Some(_)));
    let key = if key { "in .env" } else { "none in .env" };
    let partial = app.store.create(Kind::Env, stamp)?;
    let mut chain = app.chain();
    let written = write(&app.config, &mut chain, &partial, Cursor::new(text), ())?;
    let ((), bytes, sha256) = written.get(&chain.finish()?)?;
    let entry = publish(&app.config, partial, bytes)?;
    let facts = vec![("env.key".to_owned(), key.to_owned())];
    Ok(Backup::of(Kind::Env, entry, sha256, facts))
}

/// Whether there is an encrypted copy already; what is said of the first one need not be said each night.
fn has_encrypted(app: &App) -> Result<bool> {
    let copies = app.store.list(Kind::Env)?;
    Ok(copies
        .iter()
        .any(|copy| copy.path.to_string_lossy().ends_with(ENCRYPTED)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{executable, TempDir};

    #[test]
    fn a_file_that_is_being_written_is_not_copied() {
        let dir = TempDir::new();
        let path = dir.path().join(".env");
        let app = |text: &str| App::new(Config::of_text(dir.path(), &path, text.as_bytes()).unwrap());
        let whole = |app: &App, text: &str| {
            fs::write(&path, text).unwrap();
            whole(app, &path)
        };
        let set = app("A=1\n");
        assert_eq!(whole(&set, "B=2\n").unwrap(), b"B=2\n");
        for text in ["", "# A=1\n", "A='1", "A=1\n\0"] {
            assert!(whole(&set, text).is_err(), "{text:?}");
        }
        assert_eq!(whole(&app("# none\n"), "").unwrap(), b"");
    }

    #[test]
    fn a_file_without_a_setting_passes_as_it_is_backed_up() {
        let dir = TempDir::new();
        executable(&dir.path().join("docker"), "");
        let mut config = Config::without_env_file(dir.path()).unwrap();
        config.path = Some(dir.path().into());
        let (app, point) = (App::new(config), Point::new(Stamp::now()));
        let env = DrillEnv::beside(&app, &point).unwrap();
        let path = dir.path().join("env_20260102_030405.backup");
        for (text, what) in [("", "0 settings"), ("# none\n", "0 settings"), ("A=1\n", "1 settings")] {
            fs::write(&path, text).unwrap();
            let drilled = EnvFile.drill(&env, &path).unwrap();
            assert_eq!(drilled.what, what, "{text:?}");
            assert!(drilled.key == Some(None), "{text:?}");
        }
        fs::write(&path, "A='1").unwrap();
        assert!(EnvFile.drill(&env, &path).is_err());
    }
}
