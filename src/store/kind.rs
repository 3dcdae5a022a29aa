//! The kinds of backup files, and how their names tell them.

use std::path::Path;

use super::Stamp;

/// What an encrypted file's name ends with besides.
pub const ENCRYPTED: &str = ".gpg";

/// What a backup file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A plain SQL dump of the database, gzipped.
    Postgres,
    /// The database, where n8n keeps it in SQLite, gzipped.
    Sqlite,
    /// A Redis snapshot.
    Redis,
    /// A tar archive of the n8n data volume, gzipped.
    N8n,
    /// A copy of `.env`.
    Env,
    /// A tar archive of the files that the stack is deployed from, gzipped.
    Deployment,
}

/// What is known of a kind.
struct Row {
    name: &'static str,
    dir: &'static str,
    prefix: &'static str,
    suffix: &'static str,
    counted: Option<(&'static str, &'static str)>,
    may_be_empty: bool,
    slack: u64,
}

impl Kind {
    /// Every kind of file, in the order in which they are backed up.
    pub const ALL: [Self; 6] = [
        Self::Postgres,
        Self::Sqlite,
        Self::Redis,
        Self::N8n,
        Self::Env,
        Self::Deployment,
    ];

    /// The parts of a stack, each with the kind of file that a whole recovery point holds of it. Of the two databases a stack
    /// has one.
    pub const PARTS: [Self; 5] = [Self::Postgres, Self::Sqlite, Self::Redis, Self::N8n, Self::Env];

    /// All that differs between kinds, a row for each.
    const fn row(self) -> Row {
        match self {
            Self::Postgres => Row {
                name: "postgres",
                dir: "postgres",
                prefix: "n8n_",
                suffix: ".sql.gz",
                counted: Some(("ROWS", "postgres.rows")),
                may_be_empty: false,
                slack: 0,
            },
            Self::Sqlite => Row {
                name: "sqlite",
                dir: "sqlite",
                prefix: "n8n_",
                suffix: ".sqlite.gz",
                counted: Some(("ROWS", "sqlite.rows")),
                may_be_empty: false,
                slack: 0,
            },
            Self::Redis => Row {
                name: "redis",
                dir: "redis",
                prefix: "dump_",
                suffix: ".rdb",
                counted: Some(("KEYS", "redis.keys")),
                may_be_empty: false,
                // It holds jobs that come and go: a small queue tells nothing.
                slack: 64 << 10,
            },
            Self::N8n => Row {
                name: "n8n",
                dir: "n8n",
                prefix: "n8n_data_",
                suffix: ".tar.gz",
                counted: None,
                may_be_empty: false,
                slack: 0,
            },
            Self::Env => Row {
                name: "env",
                dir: "env",
                prefix: "env_",
                suffix: ".backup",
                counted: None,
                may_be_empty: true,
                slack: 0,
            },
            Self::Deployment => Row {
                name: "deployment",
                dir: "env",
                prefix: "deployment_",
                suffix: ".tar.gz",
                counted: None,
                may_be_empty: false,
                // Files that come and go with a change of the deployment.
                slack: 1 << 20,
            },
        }
    }

    /// Its name, in manifests and for people.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The directory below `backups/`.
    pub const fn dir(self) -> &'static str {
        self.row().dir
    }

    /// How a file name starts.
    pub(super) const fn prefix(self) -> &'static str {
        self.row().prefix
    }

    /// How a file name ends, before it is encrypted.
    pub const fn suffix(self) -> &'static str {
        self.row().suffix
    }

    /// What is counted in the file, as `list` heads it, and the fact of a recovery point that has the number.
    pub const fn counted(self) -> Option<(&'static str, &'static str)> {
        self.row().counted
    }

    /// Whether a file without a byte may be a good one.
    pub const fn may_be_empty(self) -> bool {
        self.row().may_be_empty
    }

    /// By how many bytes sizes may differ without a meaning.
    pub const fn slack(self) -> u64 {
        self.row().slack
    }

    /// Whether it is n8n's database.
    pub const fn is_database(self) -> bool {
        matches!(self, Self::Postgres | Self::Sqlite)
    }

    /// Whether a stack that has no use for the kinds `unused` has none for this one either: n8n keeps its data in SQLite
    /// exactly where PostgreSQL is unused.
    pub fn is_unused(self, unused: &[Self]) -> bool {
        match self {
            Self::Sqlite => !unused.contains(&Self::Postgres),
            kind => unused.contains(&kind),
        }
    }

    /// The kind of a backup file, by the directory it lies in and its name.
    pub fn of_path(path: &Path) -> Option<Self> {
        let dir = path.parent()?.file_name()?;
        let name = path.file_name()?.to_str()?;
        Self::ALL
            .into_iter()
            .find(|kind| dir == kind.dir() && kind.is_name(name))
    }

    /// The kind of a backup file by its name alone, wherever it lies: by the whole of it where it is as we write it, else by
    /// its end.
    pub fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let is_ours = |kind: &Self| kind.stamp_in(name).is_some();
        let ours = Self::ALL.into_iter().find(is_ours);
        ours.or_else(|| Self::ALL.into_iter().find(|kind| kind.is_name(name)))
    }

    /// Whether a file of this kind may be called so: plain or encrypted.
    pub fn is_name(self, name: &str) -> bool {
        name.strip_suffix(ENCRYPTED).unwrap_or(name).ends_with(self.suffix())
    }

    /// The time in a file's name, plain or encrypted; none when the name is not as we write it.
    pub fn stamp_in(self, name: &str) -> Option<Stamp> {
        name.strip_suffix(ENCRYPTED)
            .unwrap_or(name)
            .strip_suffix(self.suffix())?
            .strip_prefix(self.prefix())
            .and_then(Stamp::parse)
    }
}
