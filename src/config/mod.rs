//! Settings: `.env` of the n8n project directory, then the process environment, then the default that stands here.

pub mod dotenv;
mod found;
mod project;
mod secret;
mod source;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::store::atomic;
use crate::store::retention::Rules;

pub use found::{Composed, Directory, Found, FoundRow, Problem, SqliteFile};
pub use project::find_project;
pub use secret::Secret;
use source::Source;
use table::Values;
pub use table::SETTINGS;

/// The setting that holds a passphrase.
pub const PASSPHRASE: &str = "BACKUP_GPG_PASSPHRASE";

/// The longest `.env` that is read.
pub const MAX_BYTES: u64 = 16 << 20;

/// How backups are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// With `BACKUP_GPG_PASSPHRASE`.
    Passphrase(Secret),
    /// To the public key that `BACKUP_GPG_RECIPIENT` names, so that this host cannot read them.
    Recipient(Recipient),
}

/// Whose public key encrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// A key of the user's keyring, by fingerprint, number or address.
    Key(String),
    /// The key in a file.
    File(PathBuf),
}

/// What backup-all tests at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// Nothing.
    Off,
    /// That the dump loads, and the key.
    Postgres,
    /// Everything.
    Full,
}

/// The settings of one n8n project directory.
#[derive(Clone, Debug)]
pub struct Config {
    /// The n8n project directory.
    pub project: PathBuf,
    /// Whether it has a `.env`.
    pub env_file_exists: bool,
    /// Whether that sets anything.
    pub env_file_sets: bool,
    /// The values of the table; they are read through [`std::ops::Deref`], as `config.jobs`.
    values: Values,
    /// The names of the settings that are set.
    set: BTreeSet<&'static str>,
    /// What n8n's containers tell of the stack.
    pub found: Found,
    /// `BACKUP_RETENTION_DAYS` and `BACKUP_KEEP_*`.
    pub retention: Rules,
    /// `BACKUP_GPG_PASSPHRASE` or `BACKUP_GPG_RECIPIENT`.
    pub encryption: Option<Encryption>,
    /// `PATH` of the process, where programs are looked for.
    pub path: Option<OsString>,
    /// What `.env` sets under a name like ours that is none of [`SETTINGS`].
    pub unknown: Vec<String>,
    /// The variables of `.env` that have another value than what is written there, as [`dotenv::parse_noting`] tells.
    pub rewritten: BTreeSet<String>,
}

impl Config {
    /// Reads the settings of the project in `project`.
    ///
    /// # Errors
    /// The message names the file, and the line or the setting.
    pub fn load(project: &Path) -> Result<Self> {
        Self::load_with(project, |file| match atomic::read(file, MAX_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => text.map(Some),
        })
    }

    /// As [`Self::load`], for what restores `.env`: what Docker has made in its place counts as none.
    pub fn load_to_restore(project: &Path) -> Result<Self> {
        Self::load_with(project, |file| atomic::read_if_there(file, MAX_BYTES))
    }

    fn load_with(project: &Path, read: fn(&Path) -> io::Result<Option<Vec<u8>>>) -> Result<Self> {
        let file = env_file(project);
        match read(&file).with_context(|| format!("Cannot read {}", file.display()))? {
            Some(text) => Self::of_text(project, &file, &text),
            None => Self::without_env_file(project).with_context(|| format!("Bad setting (see {})", file.display())),
        }
    }

    /// The settings as they are with this `text` in `.env`; in messages it is that of `file`.
    pub fn of_text(project: &Path, file: &Path, text: &[u8]) -> Result<Self> {
        let (values, rewritten) = dotenv::parse_noting(file, text, &is_setting, &process_variable)?;
        let config = Self::from_values(project, true, &values, &process_variable)
            .with_context(|| format!("Bad setting (see {})", file.display()))?;
        Ok(Self { rewritten, ..config })
    }

    /// The settings without those of `.env`.
    pub fn without_env_file(project: &Path) -> Result<Self> {
        Self::from_values(project, false, &BTreeMap::new(), &process_variable)
    }

    /// The settings of the channels that are told of a run, where the others cannot be read: of each what `.env` says
    /// where a run could read it, else the environment, unless that is no value for it.
    pub fn of_channels(project: &Path) -> Result<Self> {
        let file = env_file(project);
        let text = atomic::read(&file, MAX_BYTES).unwrap_or_default();
        Self::of_channels_in(project, &file, &text, &process_variable)
    }

    fn of_channels_in(
        project: &Path,
        file: &Path,
        text: &[u8],
        outer: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        const OF_CHANNELS: [&str; 4] = [
            "BACKUP_METRICS_FILE",
            "BACKUP_PING_URL",
            "BACKUP_NOTIFY_COMMAND",
            "BACKUP_STATUS_PAGE",
        ];
        let of_channels = |name: &str| outer(name).filter(|_| OF_CHANNELS.contains(&name));
        let mut values = BTreeMap::new();
        for (name, value) in dotenv::parse_what_can_be(file, text, &is_setting, outer) {
            if !OF_CHANNELS.contains(&name.as_str()) {
                continue;
            }
            let mut with = values.clone();
            with.insert(name, value);
            if Self::from_values(project, true, &with, &|_| None).is_ok() {
                values = with;
            }
        }
        Self::from_values(project, true, &values, &of_channels)
            .or_else(|_| Self::from_values(project, true, &values, &|_| None))
    }

    fn from_values(
        project: &Path,
        env_file_exists: bool,
        values: &BTreeMap<String, String>,
        outer: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let source = Source {
            project,
            values,
            outer,
            default_of: table::default_of,
        };
        let mut settings = Values::read(&source)?;
        settings.prefer_own();
        Ok(Self {
            project: project.to_owned(),
            env_file_exists,
            env_file_sets: !values.is_empty(),
            retention: Rules {
                days: settings.retention_days,
                last: settings.keep_last,
                daily: settings.keep_daily,
                weekly: settings.keep_weekly,
                monthly: settings.keep_monthly,
                yearly: settings.keep_yearly,
            },
            encryption: encryption(project, &settings)?,
            values: settings,
            set: SETTINGS
                .iter()
                .map(|setting| setting.name)
                .filter(|name| source.is_set(name))
                .collect(),
            found: Found::default(),
            path: env::var_os("PATH"),
            unknown: values
                .keys()
                .filter(|name| name.starts_with("BACKUP_") && !SETTINGS.iter().any(|known| known.name == name.as_str()))
                .cloned()
                .collect(),
            rewritten: BTreeSet::new(),
        })
    }

    /// Whether a setting is set, by `.env` or the environment.
    pub fn is_set(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    /// The project's `.env`.
    pub fn env_file(&self) -> PathBuf {
        env_file(&self.project)
    }

    /// The directory that recovery points are copied to, as rclone names it.
    pub fn remote(&self) -> String {
        format!("{}:{}", self.rclone_remote, self.rclone_bucket)
    }

    /// The project's `backups/`.
    pub fn backups(&self) -> PathBuf {
        self.project.join("backups")
    }
}

fn is_setting(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name)
}

fn env_file(project: &Path) -> PathBuf {
    project.join(".env")
}

/// A variable of the process; one that is not UTF-8 counts as not set.
fn process_variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

impl std::ops::Deref for Config {
    type Target = Values;

    fn deref(&self) -> &Values {
        &self.values
    }
}

impl std::ops::DerefMut for Config {
    fn deref_mut(&mut self) -> &mut Values {
        &mut self.values
    }
}

impl Values {
    /// Puts the settings of our own before those that `.env` shares with Compose.
    fn prefer_own(&mut self) {
        self.postgres_user = self
            .own_postgres_user
            .take()
            .unwrap_or_else(|| self.postgres_user.clone());
        self.postgres_db = self.own_postgres_db.take().unwrap_or_else(|| self.postgres_db.clone());
        self.redis_port = self.own_redis_port.take().unwrap_or(self.redis_port);
        self.redis_username = self
            .own_redis_user
            .take()
            .unwrap_or_else(|| self.redis_username.clone());
        self.redis_password = self.own_redis_password.take().or_else(|| self.redis_password.clone());
    }
}

/// The one means of encryption that is set.
fn encryption(project: &Path, settings: &Values) -> Result<Option<Encryption>> {
    const RECIPIENT: &str = "BACKUP_GPG_RECIPIENT";
    let recipient = settings.gpg_recipient.trim();
    match settings.gpg_passphrase.clone() {
        Some(_) if !recipient.is_empty() => bail!("{PASSPHRASE} and {RECIPIENT} are both set: keep one of them"),
        Some(passphrase) if passphrase.reveal().contains(['\n', '\r']) => {
            bail!("{PASSPHRASE} must be one line")
        }
        Some(passphrase) => Ok(Some(Encryption::Passphrase(passphrase))),
        None if recipient.is_empty() => Ok(None),
        None if recipient.contains('/') => Ok(Some(Encryption::Recipient(Recipient::File(project.join(recipient))))),
        None if recipient.contains(['\n', '\r']) => bail!("{RECIPIENT} must be one line"),
        None => Ok(Some(Encryption::Recipient(Recipient::Key(recipient.to_owned())))),
    }
}

#[cfg(test)]
mod tests;
