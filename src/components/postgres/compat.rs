//! Whether a dump fits the server, before anything is loaded.

use anyhow::{bail, ensure, Result};

use super::sql::Server;
use crate::components::RestoreOptions;
use crate::config::Config;
use crate::formats::pg_dump;
use crate::process::hinted;
use crate::report::log::Journal;

/// Refuses what stands against a restore, and warns of what stays with the database that is replaced: each by its kind and
/// name, as the server answers.
pub(super) fn check_extras(extras: &[(String, String)], config: &Config, journal: Journal) -> Result<()> {
    let live = &config.postgres_db;
    for (kind, name) in extras {
        match kind.as_str() {
            "prepared" => bail!(
                "Database {live} has a prepared transaction ({name}): end it with COMMIT PREPARED or ROLLBACK PREPARED"
            ),
            "extension" => bail!(
                "The dump needs the extension {name}, which the server in {} does not have: take an image that has it",
                config.postgres_container
            ),
            "rights" => bail!(hinted(
                format_args!(
                    "The dump needs the extension {name}, which only a superuser may create, and PostgreSQL user {} is none",
                    config.postgres_user
                ),
                "set BACKUP_POSTGRES_USER in .env to a superuser (on Supabase supabase_admin), and BACKUP_POSTGRES_PASSWORD"
            )),
            "bound" => bail!(
                "The dump needs the extension {name}, which can be created in database {live} alone, so that it cannot be loaded \
                 beside it: restore the dump by psql, into an empty database {live}"
            ),
            "slot" => journal.warn(format_args!(
                "The replication slot {name} goes with the database that is replaced"
            )),
            _ => journal.warn(format_args!(
                "The {kind} {name} stays with the database that is replaced, which cannot be dropped before it"
            )),
        }
    }
    Ok(())
}

/// Warns where the dump is of a newer server.
pub(super) fn check_versions(
    summary: &pg_dump::Summary,
    server: &Server,
    options: RestoreOptions,
    journal: Journal,
) -> Result<()> {
    if let Some(made) = summary.server_version.as_deref().and_then(major) {
        let there = server.version / 10_000;
        if made > there {
            ensure!(
                !options.in_place,
                "The dump was made from PostgreSQL {made} and the server is {there}: what it does not know would fail when the live \
                 database is gone already, so --in-place is not done"
            );
            journal.warn(format_args!(
                "The dump was made from PostgreSQL {made} and the server is {there}: what it does not know will fail, \
                 before the live database is touched"
            ));
        }
    }
    Ok(())
}

/// The major version at the start of a version's text.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
