//! What is told of a dump.

use std::collections::BTreeSet;

use anyhow::{bail, Result};

use super::names::TableName;

/// The extension that can be created in one database of its server alone, by the name of that.
const PG_CRON: &str = "pg_cron";

/// What a dump holds. Names are unquoted and, when they were not quoted in the dump, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Length in bytes.
    pub bytes: u64,
    /// Number of newlines, those in COPY data included.
    pub lines: u64,
    /// The header of `pg_dump` stands in the first 4 KiB. False for the output of `pg_dumpall`.
    pub is_dump: bool,
    /// The header of `pg_dumpall` stands in the first 4 KiB.
    pub is_cluster_dump: bool,
    /// Why the dump is not whole: a sentence without any row data. A whole dump has the line
    /// `-- PostgreSQL database dump complete` in its last 4 KiB, followed by nothing but comments, blank lines and the
    /// `\unrestrict` line, which must be there when the dump began with `\restrict`. A cut that takes away only
    /// comments and blank lines after that line leaves a whole dump.
    pub incomplete: Option<String>,
    /// The server's version as the header gives it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: Option<String>,
    /// The version of `pg_dump` as the header gives it.
    pub dump_version: Option<String>,
    /// Tables, partitioned tables and partitions in order of their creation; no foreign tables. At most 16384.
    pub tables: Vec<TableName>,
    /// Tables with COPY data in order, with the number of rows. At most 16384.
    pub copies: Vec<(TableName, u64)>,
    /// Sequences with their last value and whether it was handed out already. At most 16384.
    pub sequences: Vec<(TableName, i64, bool)>,
    /// Number of `INSERT` statements, of which `pg_dump --inserts` makes the data.
    pub inserts: u64,
    /// Roles that own objects, or that something is granted to or revoked from. At most 1024.
    pub roles: BTreeSet<String>,
    /// Extensions that are created. At most 1024.
    pub extensions: Vec<String>,
    /// Event triggers that are created. At most 1024.
    pub event_triggers: Vec<String>,
    /// The line of the first command of psql other than proper `\restrict` and `\unrestrict` lines.
    pub command: Option<u64>,
    /// The line of the first statement that acts outside of the database that the dump is loaded into.
    pub outside: Option<u64>,
    /// The dump creates a database or connects to one, as with `pg_dump --create`.
    pub creates_database: bool,
    /// The dump sets `standard_conforming_strings` to off.
    pub standard_conforming_strings_off: bool,
    /// What the dump sets `client_encoding` to first: letters and digits, in lower case.
    pub client_encoding: Option<String>,
    /// The line of the first `DROP` before any table is created that needs what it names to be there, as
    /// `pg_dump --clean` writes them without `--if-exists`.
    pub drops: Option<u64>,
}

impl Summary {
    /// Whether the dump holds the extension pg_cron.
    pub fn has_pg_cron(&self) -> bool {
        self.extensions.iter().any(|extension| extension == PG_CRON)
    }

    /// What is left without that extension, its jobs and its sequences.
    pub fn without_pg_cron(&self) -> Self {
        let mut rest = self.clone();
        if !self.has_pg_cron() {
            return rest;
        }
        rest.extensions.retain(|extension| extension != PG_CRON);
        rest.copies.retain(|(table, _)| table.schema != "cron");
        rest.sequences.retain(|(sequence, ..)| sequence.schema != "cron");
        rest
    }

    /// Takes only a dump that pg_dump has brought to its end.
    pub fn whole(self) -> Result<Self> {
        if self.is_cluster_dump {
            bail!("this is a dump of a whole server (pg_dumpall), not of one database: restore it by psql alone");
        }
        if !self.is_dump {
            bail!("this is not a dump that pg_dump made");
        }
        if let Some(why) = &self.incomplete {
            bail!("the dump is cut off: {why}");
        }
        Ok(self)
    }
}
