//! Restore of the database. The dump is verified whole, loaded into a staged database, compared with what the dump
//! holds, and only then swapped for the live one in one transaction. Until that commits, the live database serves.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::thread;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::sql::{self, CountKind, Mark, Server};
use super::{verify, Psql};
use crate::component::{read, Context};
use crate::docker::Docker;
use crate::dump::{self, Filter, Strip, TableName};
use crate::logging::Journal;
use crate::pipeline::{Input, Observer, BLOCK};
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
    let summary = verify(context, file).context("Backup file is corrupted or not a valid gzip file")?;
    check_statements(&summary)?;
    journal.info("Backup file integrity verified");

    let docker = context.docker()?;
    docker.running(&config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
    let psql = Psql {
        docker: &docker,
        context,
    };
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

/// Refuses what must not reach psql.
fn check_statements(summary: &dump::Summary) -> Result<()> {
    if let Some((line, command)) = summary.meta.first() {
        bail!(
            "The dump holds a psql command that pg_dump does not write (\\{command} in line {line}): it is not run. A dump \
             made with --create is restored by psql alone"
        );
    }
    if summary.creates_database {
        bail!("The dump creates or connects to a database by itself (pg_dump --create): restore it by psql alone");
    }
    if summary.standard_conforming_strings_off {
        bail!("The dump turns standard_conforming_strings off: restore it by psql alone, after a look at it");
    }
    Ok(())
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
        self.load(&staged.name)?;
        self.journal.info("Verifying restore...");
        self.compare(&staged.name)?;
        self.psql()
            .run(&staged.name, "restore", "ANALYZE;\n".to_owned())
            .context("Database restore failed")?;
        self.psql()
            .run(self.maintenance, "restore", sql::script(&database.apply))
            .context("Database restore failed")?;
        self.swap(staged, &sql::old_name(&stamp))
    }

    fn psql(&self) -> Psql<'_> {
        Psql {
            docker: &self.docker,
            context: self.context,
        }
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

    /// Streams the dump into the staged database.
    fn load(&self, staged: &str) -> Result<()> {
        self.journal.info("Restoring database from backup...");
        let marker = format!("n8n-backup-loaded-{}-{}", std::process::id(), Stamp::now());
        let mut chain = self.context.chain();
        let contents = read(self.context, &mut chain, self.file)?;
        let (stdin, stdout) = chain.spawn("psql", self.psql().command(staged, "load")?, Input::Piped)?;
        let stdin = stdin.context("psql has no input")?;
        let strip = Strip {
            restrict: true,
            settings: unknown_settings(self.server.version),
        };
        let epilogue = sql::load_epilogue(&marker)?;
        let loaded = chain.task("loading", move |clock| {
            let mut to = stdin;
            to.write_all(sql::load_prelude().as_bytes())?;
            let summary = feed(contents, Filter::new(strip), &mut to, || clock.tick())?;
            to.write_all(epilogue.as_bytes())?;
            Ok(summary)
        });
        let said = chain.pump("reading from psql", stdout, io::sink(), LastBytes::default());
        chain.finish().context("Database restore failed")?;
        let loaded = loaded.get().context("Database restore failed")?;
        if !said.get()?.has_line(&marker) {
            bail!("Database restore failed: psql ended before the last line of the dump");
        }
        if loaded != self.summary {
            bail!("Database restore failed: the file changed while it was loaded");
        }
        Ok(())
    }

    /// Compares tables, rows and sequences of the staged database with the dump.
    fn compare(&self, staged: &str) -> Result<()> {
        let counts = sql::parse_counts(&self.psql().run(staged, "restore", sql::table_counts())?)
            .context("Database restore failed")?;
        let tables = counts
            .iter()
            .filter(|count| matches!(count.kind, CountKind::Table | CountKind::Partitioned));
        self.journal
            .info(format_args!("Found {} tables in restored database", tables.count()));
        let differences = differences(&self.summary, &counts);
        if differences.is_empty() {
            return Ok(());
        }
        let first: Vec<&str> = differences.iter().take(5).map(String::as_str).collect();
        Err(anyhow!(
            "the loaded database differs from the dump in {} point(s): {}",
            differences.len(),
            first.join("; ")
        ))
        .context("Database restore failed")
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

/// Settings that newer versions of pg_dump write and a server of `version` does not know.
fn unknown_settings(version: u32) -> Vec<String> {
    if version < 170_000 {
        vec!["transaction_timeout".to_owned()]
    } else {
        Vec::new()
    }
}

/// Passes a dump through the filter.
fn feed(mut from: impl Read, mut filter: Filter, to: &mut impl Write, tick: impl Fn()) -> Result<dump::Summary> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => break,
            Ok(n) => {
                tick();
                filter.feed(&block[..n], to)?;
                tick();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let summary = filter.finish(to)?;
    to.flush()?;
    Ok(summary)
}

/// Where the loaded database is not what the dump holds.
fn differences(summary: &dump::Summary, counts: &[sql::Count]) -> Vec<String> {
    let name = |count: &sql::Count| TableName {
        schema: count.schema.clone(),
        name: count.name.clone(),
    };
    let mut rows = BTreeMap::new();
    let mut sequences = BTreeMap::new();
    for count in counts {
        if count.kind == CountKind::Sequence {
            sequences.insert(name(count), (count.value, count.called));
        } else {
            rows.insert(name(count), (count.kind, count.value));
        }
    }
    let mut found = Vec::new();
    for table in &summary.tables {
        if !rows.contains_key(table) {
            found.push(format!("table {table} is missing"));
        }
    }
    let mut copied: BTreeMap<&TableName, u64> = BTreeMap::new();
    for (table, count) in &summary.copies {
        *copied.entry(table).or_default() += count;
    }
    for (table, expected) in copied {
        match rows.get(table) {
            None => found.push(format!("table {table} is missing")),
            // Of an extension's table, the dump holds a part of the rows.
            Some((CountKind::Extension | CountKind::Partitioned, _)) | Some((_, None)) => {}
            Some((_, Some(there))) if u64::try_from(*there) == Ok(expected) => {}
            Some((_, Some(there))) => found.push(format!("table {table} has {there} rows instead of {expected}")),
        }
    }
    for (sequence, value, called) in &summary.sequences {
        match sequences.get(sequence) {
            None => found.push(format!("sequence {sequence} is missing")),
            Some((Some(there), there_called)) if (there, there_called) != (value, called) => {
                found.push(format!("sequence {sequence} is at {there} instead of {value}"));
            }
            Some(_) => {}
        }
    }
    found
}

/// Keeps the end of what psql says.
#[derive(Default)]
struct LastBytes(Vec<u8>);

impl LastBytes {
    fn has_line(&self, line: &str) -> bool {
        self.0
            .split(|byte| *byte == b'\n')
            .any(|there| there == line.as_bytes())
    }
}

impl Observer for LastBytes {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        const KEPT: usize = 4096;
        self.0.extend_from_slice(&chunk[chunk.len().saturating_sub(KEPT)..]);
        let excess = self.0.len().saturating_sub(KEPT);
        self.0.drain(..excess);
        Ok(())
    }
}
