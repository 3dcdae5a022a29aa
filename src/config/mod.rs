//! Settings: `.env` of the n8n project directory, then the process environment, then the default that stands here.

pub mod dotenv;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::store::retention::Rules;

/// One setting: its name, its default as text, and what it means. The table in the docs is checked against this one.
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// The value when it is not set or empty; an empty default stands for "none".
    pub default: &'static str,
    /// What it means.
    pub help: &'static str,
}

/// Every setting that is read.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "POSTGRES_USER",
        default: "n8n",
        help: "the database user that dumps and restores",
    },
    Setting {
        name: "POSTGRES_DB",
        default: "n8n",
        help: "the database",
    },
    Setting {
        name: "REDIS_PORT",
        default: "6379",
        help: "the port that Redis listens on in its container",
    },
    Setting {
        name: "REDIS_USERNAME",
        default: "",
        help: "the user of Redis whose password that is; none for the default user",
    },
    Setting {
        name: "REDIS_PASSWORD",
        default: "",
        help: "the password of Redis; handed over by a pipe only",
    },
    Setting {
        name: "QUEUE_BULL_PREFIX",
        default: "bull",
        help: "what n8n's queue keys in Redis begin with; restore-redis --empty-queue deletes those",
    },
    Setting {
        name: "BACKUP_POSTGRES_CONTAINER",
        default: "n8n-postgres",
        help: "PostgreSQL's container",
    },
    Setting {
        name: "BACKUP_REDIS_CONTAINER",
        default: "n8n-redis",
        help: "Redis's container",
    },
    Setting {
        name: "BACKUP_N8N_CONTAINERS",
        default: "n8n-main n8n-worker",
        help: "n8n's containers, blank-separated",
    },
    Setting {
        name: "BACKUP_N8N_VOLUME",
        default: "n8n_n8n_data",
        help: "the volume with n8n's data",
    },
    Setting {
        name: "BACKUP_RETENTION_DAYS",
        default: "7",
        help: "backups older than so many whole days are deleted",
    },
    Setting {
        name: "BACKUP_KEEP_LAST",
        default: "3",
        help: "the newest so many complete recovery points are kept, whatever their age, here and off-site",
    },
    Setting {
        name: "BACKUP_KEEP_DAILY",
        default: "0",
        help: "the newest backup of each of the last so many days that have one is kept",
    },
    Setting {
        name: "BACKUP_KEEP_WEEKLY",
        default: "0",
        help: "the same by weeks",
    },
    Setting {
        name: "BACKUP_KEEP_MONTHLY",
        default: "0",
        help: "the same by months",
    },
    Setting {
        name: "BACKUP_KEEP_YEARLY",
        default: "0",
        help: "the same by years",
    },
    Setting {
        name: "BACKUP_MIN_FREE_KB",
        default: "1048576",
        help: "free space that a run asks for at least, in KiB",
    },
    Setting {
        name: "BACKUP_LOCK_FILE",
        default: "/tmp/n8n-backup.lock",
        help: "the lock that backup-all and restores hold",
    },
    Setting {
        name: "BACKUP_HELPER_IMAGE",
        default: "alpine:latest",
        help: "the image of the helper container; a local image of the stack where it is missing, never pulled",
    },
    Setting {
        name: "BACKUP_STALL_SECONDS",
        default: "600",
        help: "a step that moves no byte and gives no answer for so long is ended and fails",
    },
    Setting {
        name: "BACKUP_COMPRESSOR",
        default: "auto",
        help: "auto, or a gzip program with arguments",
    },
    Setting {
        name: "BACKUP_DRILL",
        default: "off",
        help: "what backup-all tests at its end: off, postgres or full",
    },
    Setting {
        name: "BACKUP_DRILL_MEMORY",
        default: "1g",
        help: "the memory that a scratch container of the recovery test may use",
    },
    Setting {
        name: "BACKUP_DRILL_CPUS",
        default: "1",
        help: "the processors that a scratch container of the recovery test may use",
    },
    Setting {
        name: "BACKUP_JOBS",
        default: "3",
        help: "how many components backup-all backs up at the same time",
    },
    Setting {
        name: "BACKUP_NICE",
        default: "10",
        help: "the nice value of a backup's own processes (not of those in containers); 0 leaves it",
    },
    Setting {
        name: "BACKUP_GPG_PASSPHRASE",
        default: "",
        help: "encrypts every backup with this passphrase; keep it elsewhere too",
    },
    Setting {
        name: "BACKUP_GPG_RECIPIENT",
        default: "",
        help: "encrypts every backup to this public key: one of the keyring, or a file (a value with a slash)",
    },
    Setting {
        name: "BACKUP_OFFSITE",
        default: "false",
        help: "true: backup-all sends its recovery point elsewhere at its end, as backup-offsite does",
    },
    Setting {
        name: "RCLONE_REMOTE",
        default: "n8n-backup",
        help: "the remote of rclone that recovery points are sent to",
    },
    Setting {
        name: "RCLONE_BUCKET",
        default: "n8n-backups",
        help: "the bucket or directory there",
    },
    Setting {
        name: "RCLONE_CONFIG",
        default: "",
        help: "rclone's configuration file, where it is not in rclone's own place",
    },
    Setting {
        name: "RCLONE_SYNC_ENCRYPTED_ONLY",
        default: "true",
        help: "only encrypted files leave this host; false sends them as they are",
    },
    Setting {
        name: "BACKUP_OFFSITE_KEEP_DAYS",
        default: "0",
        help: "recovery points so many whole days older than the newest one there are deleted there; 0 keeps all",
    },
    Setting {
        name: "BACKUP_METRICS_FILE",
        default: "",
        help: "where backup-all leaves metrics for Prometheus' node_exporter (*.prom in its textfile directory)",
    },
    Setting {
        name: "BACKUP_PING_URL",
        default: "",
        help: "an address that backup-all pings as healthchecks.io takes it: /start, success, /fail with the last log lines",
    },
    Setting {
        name: "BACKUP_NOTIFY_COMMAND",
        default: "",
        help: "a program, with arguments parted by blanks, that backup-all runs at its end",
    },
];

/// A value that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The value, for the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

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
    /// `POSTGRES_USER`
    pub postgres_user: String,
    /// `POSTGRES_DB`
    pub postgres_db: String,
    /// `BACKUP_POSTGRES_CONTAINER`
    pub postgres_container: String,
    /// `BACKUP_REDIS_CONTAINER`
    pub redis_container: String,
    /// `REDIS_PORT`
    pub redis_port: u16,
    /// `REDIS_USERNAME`; empty for the default user
    pub redis_username: String,
    /// `REDIS_PASSWORD`
    pub redis_password: Option<Secret>,
    /// `QUEUE_BULL_PREFIX`
    pub queue_prefix: String,
    /// `BACKUP_N8N_CONTAINERS`
    pub n8n_containers: Vec<String>,
    /// `BACKUP_N8N_VOLUME`
    pub n8n_volume: String,
    /// `BACKUP_RETENTION_DAYS` and `BACKUP_KEEP_*`
    pub retention: Rules,
    /// `BACKUP_MIN_FREE_KB`
    pub min_free_kb: u64,
    /// `BACKUP_LOCK_FILE`
    pub lock_file: PathBuf,
    /// `BACKUP_HELPER_IMAGE`
    pub helper_image: String,
    /// `BACKUP_STALL_SECONDS`
    pub stall: Duration,
    /// `BACKUP_COMPRESSOR`
    pub compressor: String,
    /// `BACKUP_DRILL`
    pub drill: Drill,
    /// `BACKUP_DRILL_MEMORY`, as docker takes it
    pub drill_memory: String,
    /// `BACKUP_DRILL_CPUS`, as docker takes it
    pub drill_cpus: String,
    /// `BACKUP_JOBS`
    pub jobs: usize,
    /// `BACKUP_NICE`
    pub nice: u8,
    /// `BACKUP_OFFSITE`
    pub offsite: bool,
    /// `RCLONE_REMOTE`
    pub rclone_remote: String,
    /// `RCLONE_BUCKET`
    pub rclone_bucket: String,
    /// `RCLONE_CONFIG`
    pub rclone_config: Option<PathBuf>,
    /// `RCLONE_SYNC_ENCRYPTED_ONLY`
    pub encrypted_only: bool,
    /// `BACKUP_OFFSITE_KEEP_DAYS`; 0 keeps all.
    pub offsite_keep_days: u64,
    /// `BACKUP_GPG_PASSPHRASE` or `BACKUP_GPG_RECIPIENT`
    pub encryption: Option<Encryption>,
    /// `BACKUP_METRICS_FILE`
    pub metrics_file: Option<PathBuf>,
    /// `BACKUP_PING_URL`
    pub ping_url: Option<Secret>,
    /// `BACKUP_NOTIFY_COMMAND`; empty for none.
    pub notify_command: String,
    /// `PATH` of the process, where programs are looked for.
    pub path: Option<OsString>,
    /// What `.env` sets under a name like ours that is none of [`SETTINGS`].
    pub unknown: Vec<String>,
}

impl Config {
    /// Reads the settings of the project in `project`.
    ///
    /// # Errors
    /// When `.env` cannot be read or understood, or a value cannot be what its setting is; the message names the file,
    /// the line or the setting.
    pub fn load(project: &Path) -> Result<Self> {
        let file = env_file(project);
        match fs::read(&file) {
            Ok(text) => Self::of_text(project, &file, &text),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Self::without_env_file(project).with_context(|| format!("Bad setting (see {})", file.display()))
            }
            Err(error) => Err(error).with_context(|| format!("Cannot read {}", file.display())),
        }
    }

    /// The settings as they are with this `text` in `.env`; in messages it is that of `file`.
    ///
    /// # Errors
    /// When it cannot be understood, or a value cannot be what its setting is.
    pub fn of_text(project: &Path, file: &Path, text: &[u8]) -> Result<Self> {
        let is_read = |name: &str| SETTINGS.iter().any(|setting| setting.name == name);
        let values = dotenv::parse(file, text, &is_read, &process_variable)?;
        Self::from_values(project, true, &values, &process_variable)
            .with_context(|| format!("Bad setting (see {})", file.display()))
    }

    /// The settings without those of `.env`.
    ///
    /// # Errors
    /// When a value in the environment cannot be what its setting is.
    pub fn without_env_file(project: &Path) -> Result<Self> {
        Self::from_values(project, false, &BTreeMap::new(), &process_variable)
    }

    fn from_values(
        project: &Path,
        env_file_exists: bool,
        values: &BTreeMap<String, String>,
        outer: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let source = Source { values, outer };
        Ok(Self {
            project: project.to_owned(),
            env_file_exists,
            env_file_sets: !values.is_empty(),
            postgres_user: source.text("POSTGRES_USER")?,
            postgres_db: source.text("POSTGRES_DB")?,
            postgres_container: source.name("BACKUP_POSTGRES_CONTAINER")?,
            redis_container: source.name("BACKUP_REDIS_CONTAINER")?,
            redis_port: source.number("REDIS_PORT", 1, u16::MAX)?,
            redis_username: source.text("REDIS_USERNAME")?,
            redis_password: source.secret("REDIS_PASSWORD")?,
            queue_prefix: source.text("QUEUE_BULL_PREFIX")?,
            n8n_containers: source.names("BACKUP_N8N_CONTAINERS")?,
            n8n_volume: source.name("BACKUP_N8N_VOLUME")?,
            retention: Rules {
                days: source.number("BACKUP_RETENTION_DAYS", 0, 36_500)?,
                last: source.number("BACKUP_KEEP_LAST", 0, 100_000)?,
                daily: source.number("BACKUP_KEEP_DAILY", 0, 100_000)?,
                weekly: source.number("BACKUP_KEEP_WEEKLY", 0, 100_000)?,
                monthly: source.number("BACKUP_KEEP_MONTHLY", 0, 100_000)?,
                yearly: source.number("BACKUP_KEEP_YEARLY", 0, 100_000)?,
            },
            min_free_kb: source.number("BACKUP_MIN_FREE_KB", 0, u64::MAX / 1024)?,
            lock_file: project.join(source.text("BACKUP_LOCK_FILE")?),
            helper_image: source.image("BACKUP_HELPER_IMAGE")?,
            stall: Duration::from_secs(source.number("BACKUP_STALL_SECONDS", 1, 7 * 86_400)?),
            compressor: source.text("BACKUP_COMPRESSOR")?,
            drill: source.drill("BACKUP_DRILL")?,
            drill_memory: source.memory("BACKUP_DRILL_MEMORY")?,
            drill_cpus: source.cpus("BACKUP_DRILL_CPUS")?,
            jobs: source.number("BACKUP_JOBS", 1, 16)?,
            nice: source.number("BACKUP_NICE", 0, 19)?,
            offsite: source.switch("BACKUP_OFFSITE")?,
            rclone_remote: source.remote("RCLONE_REMOTE")?,
            rclone_bucket: source.text("RCLONE_BUCKET")?.trim_matches('/').to_owned(),
            rclone_config: source.path("RCLONE_CONFIG")?.map(|path| project.join(path)),
            encrypted_only: source.switch("RCLONE_SYNC_ENCRYPTED_ONLY")?,
            offsite_keep_days: source.number("BACKUP_OFFSITE_KEEP_DAYS", 0, 36_500)?,
            encryption: source.encryption(project)?,
            metrics_file: source.path("BACKUP_METRICS_FILE")?.map(|path| project.join(path)),
            ping_url: source.url("BACKUP_PING_URL")?,
            notify_command: source.text("BACKUP_NOTIFY_COMMAND")?,
            path: env::var_os("PATH"),
            unknown: values
                .keys()
                .filter(|name| name.starts_with("BACKUP_") && !SETTINGS.iter().any(|known| known.name == name.as_str()))
                .cloned()
                .collect(),
        })
    }

    /// The project's `.env`.
    pub fn env_file(&self) -> PathBuf {
        env_file(&self.project)
    }

    /// The directory elsewhere that recovery points are sent to, as rclone names it.
    pub fn remote(&self) -> String {
        format!("{}:{}", self.rclone_remote, self.rclone_bucket)
    }

    /// The project's `backups/`.
    pub fn backups(&self) -> PathBuf {
        self.project.join("backups")
    }
}

fn env_file(project: &Path) -> PathBuf {
    project.join(".env")
}

/// A variable of the process; one that is not UTF-8 counts as not set.
fn process_variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Where values come from.
struct Source<'a> {
    values: &'a BTreeMap<String, String>,
    outer: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    /// A value as text: from `.env`, else from the process, else the default. An empty value is no value.
    fn text(&self, name: &str) -> Result<String> {
        let set = self
            .values
            .get(name)
            .cloned()
            .or_else(|| (self.outer)(name))
            .filter(|value| !value.is_empty());
        let value = match set {
            Some(value) => value,
            None => SETTINGS
                .iter()
                .find(|setting| setting.name == name)
                .map(|setting| setting.default.to_owned())
                .with_context(|| format!("{name} is not in the table of settings"))?,
        };
        if value.contains('\0') {
            bail!("{name} holds a NUL byte");
        }
        Ok(value)
    }

    fn secret(&self, name: &str) -> Result<Option<Secret>> {
        Ok(Some(self.text(name)?).filter(|value| !value.is_empty()).map(Secret))
    }

    fn switch(&self, name: &str) -> Result<bool> {
        let text = self.text(name)?;
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => bail!("{name} must be true or false, not '{text}'"),
        }
    }

    /// A remote's name, by rclone's rule for names; so it is never read as an option or a path.
    fn remote(&self, name: &str) -> Result<String> {
        let text = self.text(name)?;
        let remote = text.trim().trim_end_matches(':');
        let known = |c: char| c.is_alphanumeric() || "_-.+@ ".contains(c);
        if remote.is_empty() || remote.starts_with(['-', ' ']) || !remote.chars().all(known) {
            bail!("{name} must be the name of a remote of rclone, not '{text}'");
        }
        Ok(remote.to_owned())
    }

    fn encryption(&self, project: &Path) -> Result<Option<Encryption>> {
        const PASSPHRASE: &str = "BACKUP_GPG_PASSPHRASE";
        const RECIPIENT: &str = "BACKUP_GPG_RECIPIENT";
        let passphrase = self.secret(PASSPHRASE)?;
        let recipient = self.text(RECIPIENT)?;
        let recipient = recipient.trim();
        match passphrase {
            Some(_) if !recipient.is_empty() => bail!("{PASSPHRASE} and {RECIPIENT} are both set: keep one of them"),
            Some(passphrase) if passphrase.reveal().contains(['\n', '\r']) => {
                bail!("{PASSPHRASE} must be one line")
            }
            Some(passphrase) => Ok(Some(Encryption::Passphrase(passphrase))),
            None if recipient.is_empty() => Ok(None),
            None if recipient.contains('/') => {
                Ok(Some(Encryption::Recipient(Recipient::File(project.join(recipient)))))
            }
            None if recipient.contains(['\n', '\r']) => bail!("{RECIPIENT} must be one line"),
            None => Ok(Some(Encryption::Recipient(Recipient::Key(recipient.to_owned())))),
        }
    }

    fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(Some(self.text(name)?)
            .filter(|text| !text.is_empty())
            .map(PathBuf::from))
    }

    /// An address, which may hold a secret, so no message shows it.
    fn url(&self, name: &str) -> Result<Option<Secret>> {
        let url = self.secret(name)?;
        let known = |url: &Secret| {
            let text = url.reveal();
            (text.starts_with("http://") || text.starts_with("https://")) && text.chars().all(|c| c.is_ascii_graphic())
        };
        if url.as_ref().is_some_and(|url| !known(url)) {
            bail!("{name} must be an address that begins with http:// or https://");
        }
        Ok(url)
    }

    fn number<T: FromStr + PartialOrd + fmt::Display>(&self, name: &str, least: T, most: T) -> Result<T> {
        let text = self.text(name)?;
        match text.trim().parse() {
            Ok(number) if number >= least && number <= most => Ok(number),
            _ => bail!("{name} must be a whole number from {least} to {most}, not '{text}'"),
        }
    }

    /// A name of a container or volume, by Docker's rule for names; so it is never read as an option.
    fn name(&self, name: &str) -> Result<String> {
        let text = self.text(name)?.trim().to_owned();
        check_name(name, &text)?;
        Ok(text)
    }

    fn names(&self, name: &str) -> Result<Vec<String>> {
        let names: Vec<String> = self.text(name)?.split_whitespace().map(str::to_owned).collect();
        for one in &names {
            check_name(name, one)?;
        }
        Ok(names)
    }

    fn drill(&self, name: &str) -> Result<Drill> {
        match self.text(name)?.trim() {
            "off" => Ok(Drill::Off),
            "postgres" => Ok(Drill::Postgres),
            "full" => Ok(Drill::Full),
            other => bail!("{name} must be off, postgres or full, not '{other}'"),
        }
    }

    /// An amount of memory as docker takes it: a number with a unit, or of bytes.
    fn memory(&self, name: &str) -> Result<String> {
        let text = self.text(name)?.trim().to_ascii_lowercase();
        let number = text.strip_suffix(['b', 'k', 'm', 'g']).unwrap_or(&text);
        if !number.bytes().all(|b| b.is_ascii_digit())
            || number.parse::<u64>().is_ok_and(|n| n == 0)
            || number.is_empty()
        {
            bail!("{name} must be an amount of memory such as 512m or 2g, not '{text}'");
        }
        Ok(text)
    }

    /// A number of processors as docker takes it.
    fn cpus(&self, name: &str) -> Result<String> {
        let text = self.text(name)?.trim().to_owned();
        let known = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !known || !text.parse::<f64>().is_ok_and(|n| n >= 0.01) {
            bail!("{name} must be a number of processors such as 1 or 0.5, not '{text}'");
        }
        Ok(text)
    }

    fn image(&self, name: &str) -> Result<String> {
        let text = self.text(name)?.trim().to_owned();
        let known = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(known) {
            bail!("{name} must be the name of an image, not '{text}'");
        }
        Ok(text)
    }
}

fn check_name(setting: &str, text: &str) -> Result<()> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(known) {
        bail!("{setting} must be a name of letters, digits, '_', '.' and '-', not '{text}'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(values: &[(&str, &str)], outer: &[(&str, &str)]) -> Result<Config> {
        let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let outer = owned(outer);
        Config::from_values(Path::new("/p"), true, &owned(values), &|name| outer.get(name).cloned())
    }

    #[test]
    fn a_name_like_ours_that_is_not_ours_is_kept_for_a_warning() {
        let config = load(
            &[("BACKUP_RETENTON_DAYS", "30"), ("BACKUP_JOBS", "2"), ("MY_BACKUP", "x")],
            &[],
        )
        .unwrap();
        assert_eq!(config.unknown, ["BACKUP_RETENTON_DAYS"]);
        assert_eq!(load(&[], &[("BACKUP_OTHER", "1")]).unwrap().unknown, [""; 0]);
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = load(&[], &[]).unwrap();
        assert_eq!(config.postgres_container, "n8n-postgres");
        assert_eq!(config.n8n_containers, ["n8n-main", "n8n-worker"]);
        assert_eq!(
            (config.redis_port, config.retention.days, config.min_free_kb),
            (6379, 7, 1_048_576)
        );
        assert_eq!(config.lock_file, Path::new("/tmp/n8n-backup.lock"));
        assert!(config.redis_password.is_none());
    }

    #[test]
    fn the_file_wins_over_the_environment_and_empty_is_not_set() {
        let config = load(
            &[("POSTGRES_DB", "file"), ("REDIS_PORT", "")],
            &[("POSTGRES_DB", "outer"), ("POSTGRES_USER", "me")],
        );
        let config = config.unwrap();
        assert_eq!(
            (config.postgres_db.as_str(), config.postgres_user.as_str()),
            ("file", "me")
        );
        assert_eq!(config.redis_port, 6379);
    }

    #[test]
    fn bad_values_are_named_and_secrets_are_not_shown() {
        for (name, value) in [
            ("BACKUP_RETENTION_DAYS", "-1"),
            ("BACKUP_RETENTION_DAYS", "7 days"),
            ("BACKUP_KEEP_YEARLY", "all"),
            ("REDIS_PORT", "65536"),
            ("BACKUP_STALL_SECONDS", "0"),
            ("BACKUP_N8N_VOLUME", "-v"),
            ("BACKUP_N8N_VOLUME", "/etc"),
            ("BACKUP_POSTGRES_CONTAINER", "a b"),
            ("BACKUP_HELPER_IMAGE", "--privileged"),
            ("BACKUP_DRILL", "yes"),
            ("BACKUP_DRILL_MEMORY", "1 g"),
            ("BACKUP_DRILL_MEMORY", "0g"),
            ("BACKUP_DRILL_MEMORY", "lots"),
            ("BACKUP_DRILL_CPUS", "0"),
            ("BACKUP_DRILL_CPUS", "1e3"),
            ("RCLONE_REMOTE", "--dump"),
            ("RCLONE_REMOTE", ":local"),
            ("RCLONE_SYNC_ENCRYPTED_ONLY", "flase"),
        ] {
            let error = load(&[(name, value)], &[]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        let config = load(&[("REDIS_PASSWORD", "hunter2")], &[]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn encryption_is_by_one_means() {
        let read = |values| load(values, &[]).map(|config| config.encryption);
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(
            read(&[("BACKUP_GPG_PASSPHRASE", " a b ")]).unwrap(),
            Some(Encryption::Passphrase(Secret::new(" a b ")))
        );
        assert_eq!(
            read(&[("BACKUP_GPG_RECIPIENT", "keys/me.asc")]).unwrap(),
            Some(Encryption::Recipient(Recipient::File(PathBuf::from("/p/keys/me.asc"))))
        );
        assert_eq!(
            read(&[("BACKUP_GPG_RECIPIENT", "me@example.org")]).unwrap(),
            Some(Encryption::Recipient(Recipient::Key("me@example.org".to_owned())))
        );
        assert!(read(&[("BACKUP_GPG_PASSPHRASE", "a\nb")]).is_err());
        assert!(read(&[("BACKUP_GPG_PASSPHRASE", "a"), ("BACKUP_GPG_RECIPIENT", "b")]).is_err());
    }

    #[test]
    fn what_is_read_is_what_the_table_has() {
        let asked = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let outer = |name: &str| {
            asked.borrow_mut().insert(name.to_owned());
            None
        };
        Config::from_values(Path::new("/p"), true, &BTreeMap::new(), &outer).unwrap();
        let known = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
        assert_eq!(asked.into_inner(), known);
    }

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let docs = include_str!("../../docs/settings.md");
        for setting in SETTINGS {
            let default = match setting.default {
                "" => "none".to_owned(),
                text => format!("`{text}`"),
            };
            let row = format!("| `{}` | {default} | {} |", setting.name, setting.help);
            assert!(
                docs.lines().any(|line| line == row),
                "docs/settings.md lacks this row: {row}"
            );
        }
        let (_, table) = docs.split_once("|---|---|---|\n").unwrap();
        let rows = table.split("\n\n").next().unwrap().lines().count();
        assert_eq!(
            rows,
            SETTINGS.len(),
            "docs/settings.md has a row for a setting that there is none of"
        );
    }
}
