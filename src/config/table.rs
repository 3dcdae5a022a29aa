//! The table of settings: a row is all there is to a setting. `docs/settings.md` and the manual page come from it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::source::Source;
use super::{Drill, Secret};

/// A setting, as people are told of it.
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// The value when it is not set or empty; an empty default stands for "none".
    pub default: &'static str,
    /// What it means.
    pub help: &'static str,
    /// The least and the most that a number may be.
    range: &'static [u64],
}

impl Setting {
    /// The numbers that it may be, where there is a choice: `1 to 16`.
    pub fn range(&self) -> Option<String> {
        match self.range {
            // A bound that only keeps sums from overflowing is not worth a word.
            [least, most] if *most <= u64::from(u32::MAX) => Some(format!("{least} to {most}")),
            _ => None,
        }
    }
}

/// The default of a setting; none where there is no such setting.
pub(super) fn default_of(name: &str) -> Option<&'static str> {
    let setting = SETTINGS.iter().find(|setting| setting.name == name)?;
    Some(setting.default)
}

/// Makes of each row a field, the way to read it, and what people are told. A row is
/// `field: type = parser(range), "NAME", "default", "help";`, the parser a method of [`Source`].
macro_rules! settings {
    ($($field:ident: $type:ty = $parser:ident($($range:expr),*), $name:literal, $default:literal, $help:literal;)*) => {
        /// Every setting that is read.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            default: $default,
            help: $help,
            range: &[$($range as u64),*],
        }),*];

        /// The values of the settings.
        #[derive(Clone, Debug)]
        pub struct Values {
            $(#[doc = concat!("`", $name, "`: ", $help)] pub $field: $type,)*
        }

        impl Values {
            pub(super) fn read(source: &Source<'_>) -> Result<Self> {
                Ok(Self { $($field: source.$parser($name $(, $range)*)?,)* })
            }
        }
    };
}

settings! {
    postgres_user: String = text(),
        "POSTGRES_USER", "n8n",
        "the database user that dumps and restores";
    postgres_db: String = text(),
        "POSTGRES_DB", "n8n",
        "the database";
    redis_port: u16 = number(1, u16::MAX),
        "REDIS_PORT", "6379",
        "the port that Redis listens on in its container";
    redis_username: String = text(),
        "REDIS_USERNAME", "",
        "the user of Redis whose password that is; none for the default user";
    redis_password: Option<Secret> = secret(),
        "REDIS_PASSWORD", "",
        "the password of Redis; handed over by a pipe only";
    redis_tls: bool = switch(),
        "BACKUP_REDIS_TLS", "false",
        "true: Redis takes TLS connections in its container; false: plain ones, whatever QUEUE_BULL_REDIS_TLS says";
    queue_prefix: String = text(),
        "QUEUE_BULL_PREFIX", "bull",
        "what n8n's queue keys in Redis begin with; restore-redis --empty-queue deletes those";
    queue_db: Option<u32> = database(),
        "QUEUE_BULL_REDIS_DB", "",
        "the database of Redis that n8n's queue is in, where n8n's containers do not tell; without it, all are looked at";
    compose_project: String = text(),
        "BACKUP_COMPOSE_PROJECT", "",
        "the Compose project of the stack, where it was started in another directory or more than one is in this one";
    own_postgres_user: Option<String> = maybe(),
        "BACKUP_POSTGRES_USER", "",
        "the database user that dumps and restores, whatever n8n's containers and POSTGRES_USER say";
    own_postgres_db: Option<String> = maybe(),
        "BACKUP_POSTGRES_DB", "",
        "the database, whatever n8n's containers and POSTGRES_DB say";
    postgres_password: Option<Secret> = secret(),
        "BACKUP_POSTGRES_PASSWORD", "",
        "the password of that user, where the server asks for one and neither its container nor n8n's has it";
    postgres_port: Option<u16> = port(),
        "BACKUP_POSTGRES_PORT", "",
        "the port of PostgreSQL in its container, where it is not PostgreSQL's default";
    own_redis_port: Option<u16> = port(),
        "BACKUP_REDIS_PORT", "",
        "the port that Redis listens on in its container, whatever n8n's containers and REDIS_PORT say";
    own_redis_user: Option<String> = maybe(),
        "BACKUP_REDIS_USER", "",
        "the user of Redis, whatever n8n's containers and REDIS_USERNAME say";
    own_redis_password: Option<Secret> = secret(),
        "BACKUP_REDIS_PASSWORD", "",
        "the password of Redis, whatever n8n's containers and REDIS_PASSWORD say";
    postgres_container: String = name(),
        "BACKUP_POSTGRES_CONTAINER", "n8n-postgres",
        "PostgreSQL's container";
    redis_container: String = name(),
        "BACKUP_REDIS_CONTAINER", "n8n-redis",
        "Redis's container";
    n8n_containers: Vec<String> = names(),
        "BACKUP_N8N_CONTAINERS", "n8n-main n8n-worker",
        "n8n's containers, blank-separated";
    n8n_volume: String = name(),
        "BACKUP_N8N_VOLUME", "n8n_n8n_data",
        "the volume with n8n's data";
    include_mounts: Vec<String> = places(),
        "BACKUP_INCLUDE_MOUNTS", "",
        "bind mounts of n8n's containers outside of this directory that are backed up too: paths in the container, blank-separated";
    exclude_mounts: Vec<String> = places(),
        "BACKUP_EXCLUDE_MOUNTS", "",
        "mounts of n8n's containers that are left out, in the same form; no warning names them, nor what else is named here";
    retention_days: u64 = number(0, 36_500),
        "BACKUP_RETENTION_DAYS", "7",
        "backups older than this number of whole days are deleted";
    keep_last: usize = number(0, 100_000),
        "BACKUP_KEEP_LAST", "3",
        "this number of the newest complete recovery points is kept, whatever their age, here and off-site";
    keep_daily: usize = number(0, 100_000),
        "BACKUP_KEEP_DAILY", "0",
        "the newest backup of a day is kept, for this number of days that have one";
    keep_weekly: usize = number(0, 100_000),
        "BACKUP_KEEP_WEEKLY", "0",
        "the same by weeks";
    keep_monthly: usize = number(0, 100_000),
        "BACKUP_KEEP_MONTHLY", "0",
        "the same by months";
    keep_yearly: usize = number(0, 100_000),
        "BACKUP_KEEP_YEARLY", "0",
        "the same by years";
    min_free_kb: u64 = number(0, u64::MAX / 1024),
        "BACKUP_MIN_FREE_KB", "1048576",
        "the least free space that a run begins with, in KiB";
    lock_file: PathBuf = file(),
        "BACKUP_LOCK_FILE", "/tmp/n8n-backup.lock",
        "the file that backup-all and restores hold beside backups/.lock, for scripts of earlier versions";
    helper_image: String = image(),
        "BACKUP_HELPER_IMAGE", "alpine:latest",
        "the image of the helper container; a local image of the stack where it is missing, never pulled";
    stall: Duration = seconds(1, 604_800),
        "BACKUP_STALL_SECONDS", "600",
        "a step that moves no byte and gives no answer for this long is ended and fails";
    compressor: String = text(),
        "BACKUP_COMPRESSOR", "auto",
        "auto, or a gzip program with arguments";
    drill: Drill = drill(),
        "BACKUP_DRILL", "off",
        "what backup-all tests at its end: off, postgres (the database, also one in SQLite) or full";
    drill_memory: String = memory(),
        "BACKUP_DRILL_MEMORY", "1g",
        "the memory that a scratch container of the recovery test may use";
    drill_cpus: String = cpus(),
        "BACKUP_DRILL_CPUS", "1",
        "the processors that a scratch container of the recovery test may use";
    drill_n8n_memory: String = memory(),
        "BACKUP_DRILL_N8N_MEMORY", "1536m",
        "the memory that n8n may use in the recovery test";
    drill_n8n: Duration = seconds(1, 86_400),
        "BACKUP_DRILL_N8N_SECONDS", "180",
        "how long n8n may take to start in the recovery test";
    dead_credentials: Vec<String> = words(),
        "BACKUP_DEAD_CREDENTIALS", "",
        "IDs of credentials that n8n itself cannot open, blank-separated: the recovery test warns of them only";
    jobs: usize = number(1, 16),
        "BACKUP_JOBS", "3",
        "how many components backup-all backs up at the same time";
    nice: u8 = number(0, 19),
        "BACKUP_NICE", "10",
        "the nice value of a backup's own processes (not of those in containers), and of their session where it has no terminal; 0 leaves it";
    gpg_passphrase: Option<Secret> = secret(),
        "BACKUP_GPG_PASSPHRASE", "",
        "encrypts every backup with this passphrase; keep a copy of it outside this host";
    gpg_recipient: String = text(),
        "BACKUP_GPG_RECIPIENT", "",
        "encrypts every backup to this public key: one of the keyring, or a file (a value with a slash)";
    executions: bool = switch(),
        "BACKUP_EXECUTIONS", "on",
        "off: the rows of n8n's executions, most of a grown database, are left out of dumps of PostgreSQL (docs/retention.md)";
    key: bool = switch(),
        "BACKUP_KEY", "on",
        "off: n8n's key is not put into recovery points that do not hold it otherwise";
    offsite: bool = switch(),
        "BACKUP_OFFSITE", "false",
        "true: backup-all copies its recovery point off-site at its end, as backup-offsite does";
    rclone_remote: String = remote(),
        "RCLONE_REMOTE", "n8n-backup",
        "the rclone remote that recovery points are copied to";
    rclone_bucket: String = bucket(),
        "RCLONE_BUCKET", "n8n-backups",
        "the bucket or directory there; on a disk or over SFTP, /PATH is absolute";
    rclone_config: Option<PathBuf> = path(),
        "RCLONE_CONFIG", "",
        "rclone's configuration file, where it is not rclone's default";
    encrypted_only: bool = switch(),
        "RCLONE_SYNC_ENCRYPTED_ONLY", "true",
        "only encrypted files leave this host; false sends them as they are";
    offsite_keep_days: u64 = number(0, 36_500),
        "BACKUP_OFFSITE_KEEP_DAYS", "0",
        "off-site recovery points older than the newest one there by this number of days are deleted; 0 keeps all";
    metrics_file: Option<PathBuf> = path(),
        "BACKUP_METRICS_FILE", "",
        "where backup-all leaves metrics for Prometheus' node_exporter (*.prom in its textfile directory)";
    status_page: Option<PathBuf> = path(),
        "BACKUP_STATUS_PAGE", "",
        "where backup-all leaves the page of n8n-backup status --html";
    ping_url: Option<Secret> = url(),
        "BACKUP_PING_URL", "",
        "an address that backup-all pings as healthchecks.io takes it: /start, success, /fail with the last log lines";
    notify_command: String = text(),
        "BACKUP_NOTIFY_COMMAND", "",
        "a program, with blank-separated arguments, that backup-all runs at its end";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const BEGIN: &str = "|---|---|---|\n";

    /// With UPDATE_DOCS=1 the page is written, not compared.
    #[test]
    fn the_settings_page_has_the_rows_of_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once("\n\n").unwrap();
        let rows: Vec<String> = SETTINGS
            .iter()
            .map(|setting| {
                let default = match setting.default {
                    "" => "none".to_owned(),
                    text => format!("`{text}`"),
                };
                let range = setting.range().map_or_else(String::new, |range| format!(" ({range})"));
                format!("| `{}` | {default} | {}{range} |", setting.name, setting.help)
            })
            .collect();
        let wanted = format!("{before}{BEGIN}{}\n\n{after}", rows.join("\n"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, wanted).unwrap();
        } else {
            assert!(
                page == wanted,
                "docs/settings.md differs from the table: UPDATE_DOCS=1 cargo test --bin n8n-backup settings_page"
            );
        }
    }
}
