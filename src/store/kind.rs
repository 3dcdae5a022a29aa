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
    /// A Redis snapshot.
    Redis,
    /// A tar archive of the n8n data volume, gzipped.
    N8n,
    /// A copy of `.env`.
    Env,
}

impl Kind {
    /// Every kind, in the order in which they are backed up.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Redis, Self::N8n, Self::Env];

    /// The directory below `backups/`, which is also the component's name.
    pub const fn dir(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::N8n => "n8n",
            Self::Env => "env",
        }
    }

    /// How a file name starts.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Postgres => "n8n_",
            Self::Redis => "dump_",
            Self::N8n => "n8n_data_",
            Self::Env => "env_",
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

    /// The kind of a backup file by the end of its name alone, wherever it lies.
    pub fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        Self::ALL.into_iter().find(|kind| kind.is_name(name))
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

    /// How a file name ends, before it is encrypted.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Postgres => ".sql.gz",
            Self::Redis => ".rdb",
            Self::N8n => ".tar.gz",
            Self::Env => ".backup",
        }
    }
}
