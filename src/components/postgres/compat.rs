//! Whether a dump fits the server, before anything is loaded.

use std::path::Path;

use anyhow::{bail, ensure, Result};

use super::loader::owner_of_n8n;
use super::sql::{self, Server};
use super::trust::TRUST_IT;
use super::Psql;
use crate::app::App;
use crate::components::RestoreOptions;
use crate::config::Config;
use crate::formats::n8n::Place;
use crate::formats::pg_dump;
use crate::process::hinted;
use crate::report::log::Journal;

/// What helps where rights are missing.
pub(super) const BE_SUPERUSER: &str =
    "set BACKUP_POSTGRES_USER in .env to a superuser (on Supabase supabase_admin), and BACKUP_POSTGRES_PASSWORD";

/// Refuses what stands against a restore, and warns of what stays with the database that is replaced: each by its kind and
/// name, as the server answers.
pub(super) fn check_extras(
    extras: &[(String, String)],
    event_triggers: &[String],
    trusted: bool,
    app: &App,
    journal: Journal,
) -> Result<()> {
    let config = &app.config;
    let (live, user) = (&config.postgres_db, app.postgres_login().0);
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
                    "The dump needs the extension {name}, which only a superuser may create, and PostgreSQL user {user} is none"
                ),
                BE_SUPERUSER
            )),
            "trigger" => ensure!(
                event_triggers.is_empty(),
                hinted(
                    format_args!(
                        "The dump holds event triggers ({}), which only a superuser may create, and PostgreSQL user {user} is none",
                        event_triggers.join(", ")
                    ),
                    BE_SUPERUSER
                )
            ),
            // Nobody has lent them to the role that loads the dump of a stranger.
            "lent_rights" => ensure!(
                trusted,
                hinted(
                    format_args!(
                        "The dump is of unknown origin, and needs the extension {name}, which only a superuser may create"
                    ),
                    TRUST_IT
                )
            ),
            "lent_trigger" => ensure!(
                trusted || event_triggers.is_empty(),
                hinted(
                    format_args!(
                        "The dump is of unknown origin, and holds event triggers ({}), which only a superuser may create",
                        event_triggers.join(", ")
                    ),
                    TRUST_IT
                )
            ),
            "session" => bail!(hinted(
                format_args!(
                    "{name} is connected to {live}, and PostgreSQL user {user} may not end that session, so the database cannot be \
                     replaced"
                ),
                format_args!("end it, or {BE_SUPERUSER}")
            )),
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

/// Refuses a dump whose owners and privileges are left out where n8n's role could not work with what its loader then owns.
/// That role is the one that n8n logs in as, else the owner of its tables in the live database, at `place` where these are.
pub(super) fn check_usable(psql: &Psql<'_>, maintenance: &'static str, place: Option<&Place>) -> Result<()> {
    let config = &psql.app.config;
    let role = match config.found.login.as_str() {
        // A live database that is broken tells nothing.
        "" => owner_of_n8n(psql, place).unwrap_or_default(),
        login => Some(login.to_owned()),
    };
    let Some(role) = role else { return Ok(()) };
    let shares = psql.run(maintenance, "restore", sql::has_our_rights(&role)?)?;
    ensure!(
        shares.trim() == "t",
        hinted(
            format_args!(
                "The dump is of unknown origin, so all that it holds would belong to PostgreSQL user {}, whose rights n8n's role \
                 {role} does not have",
                psql.app.postgres_login().0
            ),
            format_args!("{TRUST_IT}; else {BE_SUPERUSER}")
        )
    );
    Ok(())
}

/// Names what a restore takes back, or away, beside n8n's data. The live database may be what is broken: then it tells nothing.
pub(super) fn warn_of_others(psql: &Psql<'_>, journal: Journal) {
    let config = &psql.app.config;
    let schemas =
        sql::other_schemas(&config.found.schema).and_then(|script| psql.run(&config.postgres_db, "restore", script));
    if let Some(schemas) = schemas
        .ok()
        .map(|told| told.trim().to_owned())
        .filter(|told| !told.is_empty())
    {
        journal.warn(format_args!(
            "The database holds tables in other schemas than n8n's, which are replaced by what the dump has of them: {schemas}"
        ));
    }
}

/// Says how what a restore leaves out of a dump with pg_cron comes back.
pub(super) fn warn_of_pg_cron(config: &Config, file: &Path, journal: Journal) {
    let live = &config.postgres_db;
    journal.warn(format_args!(
        "pg_cron and its jobs are left out, since it can be created in a database called {live} alone: afterwards create the \
         extension there, and schedule the jobs again, which stand after COPY cron.job in {}",
        file.display()
    ));
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
