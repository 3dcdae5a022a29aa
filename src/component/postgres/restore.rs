//! Restore of the database. The dump is verified whole, loaded into a staged database, compared with what the dump
//! holds, and only then swapped for the live one in one transaction. Until that commits, the live database serves.

use std::path::Path;
use std::thread;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::sql::{self, Mark, Server};
use super::{load, verify, Psql};
use crate::component::{check_recorded, Context};
use crate::docker::Docker;
use crate::dump;
use crate::logging::Journal;
use crate::store::Stamp;

/// How a restore is to be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keep the database that is replaced, under another name.
    pub keep_old: bool,
    /// Create the roles that the dump names and the server lacks, without login.
    pub create_roles: bool,
    /// Drop the live database first, where there is no room for two.
    pub in_place: bool,
}

/// A dump that has been verified, and the server that it fits.
pub struct Plan<'a> {
    context: &'a Context,
    docker: Docker,
    journal: Journal,
    file: &'a Path,
    summary: dump::Summary,
    server: Server,
    maintenance: &'static str,
    missing_roles: Vec<String>,
    options: Options,
}

/// Verifies the dump and asks the server whether it can take it. Changes nothing.
///
/// # Errors
/// What is wrong with the file, or why this server cannot take it.
pub fn prepare<'a>(context: &'a Context, file: &'a Path, options: Options, journal: Journal) -> Result<Plan<'a>> {
    let config = &context.config;
    journal.info("Verifying backup file integrity...");
    let summary = check_recorded(context, file)
        .and_then(|()| verify(context, file))
        .context("Backup file is corrupted or not a valid gzip file")?;
    load::check_statements(&summary)?;
    journal.info("Backup file integrity verified");

    let docker = context.docker()?;
    docker.running(&config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
    let psql = Psql::live(context, &docker);
    let live = &config.postgres_db;
    let maintenance = psql.reachable(sql::maintenance_databases(live)?)?;
    let server = sql::parse_server(&psql.run(maintenance, "restore", sql::server(live)?)?)?;
    ensure!(
        server.may_restore(),
        "PostgreSQL user {} may not restore: it must be a superuser, or own the database and have CREATEDB",
        config.postgres_user
    );
    let roles: Vec<String> = summary.roles.iter().cloned().collect();
    let missing_roles = sql::parse_names(&psql.run(maintenance, "restore", sql::missing_roles(&roles)?)?)?;
    if !missing_roles.is_empty() && !options.create_roles {
        bail!(
            "The dump names roles that the server does not have: {}. Create them first, or add --create-roles to have \
             them created without login",
            missing_roles.join(", ")
        );
    }
    for (kind, name) in sql::parse_named(&psql.run(maintenance, "restore", sql::blockers(live)?)?)? {
        match kind.as_str() {
            "prepared" => bail!(
                "Database {live} has a prepared transaction ({name}): end it with COMMIT PREPARED or ROLLBACK PREPARED"
            ),
            _ => journal.warn(format_args!(
                "The {kind} {name} stays with the database that is replaced"
            )),
        }
    }
    if let (Some(made), Some(there)) = (
        summary.server_version.as_deref().and_then(major),
        Some(server.version / 10_000),
    ) {
        if made > there {
            journal.warn(format_args!(
                "The dump was made from PostgreSQL {made} and the server is {there}: what it does not know will fail, \
                 before the live database is touched"
            ));
        }
    }
    Ok(Plan {
        context,
        docker,
        journal,
        file,
        summary,
        server,
        maintenance,
        missing_roles,
        options,
    })
}

/// The major version at the start of a version's text.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Plan<'_> {
    /// Loads the dump beside the live database and swaps the two.
    ///
    /// # Errors
    /// When a step fails; the live database is then the one from before.
    pub fn run(&self) -> Result<()> {
        self.create_roles()?;
        let stamp = Stamp::now().to_string();
        let staged = Staged {
            plan: self,
            name: sql::staged_name(&stamp),
            done: false,
        };
        // What a dead restore left is cleared only after this: it may be the one that knows what a lost database was like.
        let database = self.create(&staged.name)?;
        self.sweep(&staged.name)?;
        self.journal.info("Restoring database from backup...");
        load::load(
            &self.psql(),
            &staged.name,
            self.file,
            &self.summary,
            self.server.version,
        )?;
        self.journal.info("Verifying restore...");
        load::compare(&self.psql(), &staged.name, &self.summary, self.journal)?;
        self.psql()
            .run(&staged.name, "restore", "ANALYZE;\n".to_owned())
            .context("Database restore failed")?;
        self.psql()
            .run(self.maintenance, "restore", sql::script(&database.apply))
            .context("Database restore failed")?;
        self.swap(staged, &sql::old_name(&stamp))
    }

    fn psql(&self) -> Psql<'_> {
        Psql::live(self.context, &self.docker)
    }

    fn live(&self) -> &str {
        &self.context.config.postgres_db
    }

    /// Clears what a restore that died has left, and tells of what was kept.
    fn sweep(&self, except: &str) -> Result<()> {
        sweep(&self.psql(), self.maintenance, self.live(), Some(except), self.journal)
    }

    fn create_roles(&self) -> Result<()> {
        for role in &self.missing_roles {
            let statement = format!("CREATE ROLE {} NOLOGIN;\n", sql::ident(role)?);
            self.psql().run(self.maintenance, "restore", statement)?;
            self.journal.info(format_args!("Created role {role} without login"));
        }
        Ok(())
    }

    /// Makes the staged database like the live one.
    fn create(&self, staged: &str) -> Result<sql::Description> {
        self.journal.info("Creating fresh database...");
        let psql = self.psql();
        let database =
            sql::parse_describe(&psql.run(self.maintenance, "restore", sql::describe(self.live(), staged)?)?)?;
        psql.run(self.maintenance, "restore", sql::script(&database.create))
            .context("Database restore failed")?;
        Ok(database)
    }

    /// Puts the staged database in the live one's place.
    fn swap(&self, mut staged: Staged<'_>, old: &str) -> Result<()> {
        let live = self.live();
        let mark = if self.options.keep_old {
            Mark::Kept
        } else {
            Mark::Replaced
        };
        self.journal.info("Terminating existing database connections...");
        let swap = sql::swap(live, &staged.name, old, mark)?;
        let terminate = sql::terminate(live, &staged.name, &sql::application_name("swap", live))?;
        let swapped = thread::scope(|scope| {
            // Ends the sessions that the swap waits for, while its lock keeps new ones out.
            let helper = scope.spawn(|| self.psql().run(self.maintenance, "terminate", terminate));
            let swapped = self.psql().run(self.maintenance, "swap", swap);
            let _ = helper.join();
            swapped
        });
        match swapped {
            Ok(said) if said.lines().any(|line| line == "swapped") => staged.done = true,
            // The answer may have been lost on its way; what the server says now is what counts.
            other => match self.oid_of(&staged.name)? {
                None => staged.done = true,
                Some(_) => {
                    let reason = other.err().unwrap_or_else(|| anyhow!("the swap gave no answer"));
                    return Err(reason.context("Database restore failed"));
                }
            },
        }
        self.journal.success("Database restored successfully");
        if !self.server.exists {
            return Ok(());
        }
        if self.options.keep_old {
            self.journal.info(format_args!(
                "The replaced database is kept as {old}; drop it when it is no longer needed"
            ));
            self.journal.info(format_args!(
                "To go back: stop n8n, then ALTER DATABASE {} RENAME TO another name, and ALTER DATABASE {old} RENAME TO {}",
                sql::ident(live)?,
                sql::ident(live)?
            ));
            return Ok(());
        }
        self.journal.info("Dropping existing database...");
        if let Err(error) = self.psql().run(self.maintenance, "restore", sql::drop_database(old)?) {
            self.journal.warn(format_args!(
                "The replaced database {old} could not be dropped: {error:#}"
            ));
        }
        Ok(())
    }

    /// Whether a database is there.
    fn oid_of(&self, database: &str) -> Result<Option<String>> {
        let script = format!(
            "SELECT oid FROM pg_database WHERE datname = {};\n",
            sql::literal(database)?
        );
        let said = self.psql().run(self.maintenance, "restore", script)?;
        Ok(said.lines().next().map(str::to_owned))
    }
}

/// A staged database that goes when the restore fails.
struct Staged<'a> {
    plan: &'a Plan<'a>,
    name: String,
    done: bool,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be dropped now is swept by the next run.
            let _ = sql::drop_database(&self.name)
                .and_then(|script| self.plan.psql().run(self.plan.maintenance, "restore", script));
        }
    }
}

/// Drops the staged and replaced databases that a restore which died has left.
///
/// # Errors
/// When the server does not answer.
fn sweep(psql: &Psql<'_>, maintenance: &str, live: &str, except: Option<&str>, journal: Journal) -> Result<()> {
    psql.run(
        maintenance,
        "restore",
        sql::end_sessions(&sql::application_name("load", live))?,
    )?;
    for (kind, name) in sql::parse_named(&psql.run(maintenance, "restore", sql::sweep_list(live)?)?)? {
        if kind == "kept" || except == Some(name.as_str()) {
            continue;
        }
        psql.run(maintenance, "restore", sql::drop_database(&name)?)?;
        journal.warn(format_args!(
            "Dropped database {name} ({kind}) that an interrupted restore left"
        ));
    }
    Ok(())
}
