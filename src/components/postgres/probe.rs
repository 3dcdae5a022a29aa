//! Whether the database is n8n's, and what the server says of itself.

use anyhow::{ensure, Result};

use super::psql::warning;
use super::{sql, Psql};
use crate::app::App;
use crate::engine::Docker;
use crate::formats::pg_dump;
use crate::process::hinted;
use crate::report::finding::Report;

/// The tables without which no n8n has ever worked, without the prefix of their names.
pub(super) const OF_N8N: [&str; 2] = ["workflow_entity", "migrations"];

/// Makes sure that a dump is of n8n's database, where n8n's containers tell what that is; else
/// it may be what the settings say, and is told.
pub(super) fn check_is_n8ns(app: &App, summary: &pg_dump::Summary) -> Result<()> {
    let (config, found) = (&app.config, &app.config.found);
    let schema = Some(found.schema.as_str()).filter(|schema| !schema.is_empty());
    let is_there = |name: &&str| {
        let wanted = format!("{}{name}", found.table_prefix);
        let is_it = |table: &pg_dump::TableName| {
            table.name == wanted && (table.schema == schema.unwrap_or("public") || !found.is_told())
        };
        summary.tables.iter().any(is_it)
    };
    if summary.tables.is_empty() || OF_N8N.iter().all(is_there) {
        // A database without any table was warned about already.
        ensure!(!summary.tables.is_empty() || !found.is_told(), not_n8ns(app));
        return Ok(());
    }
    ensure!(!found.is_told(), not_n8ns(app));
    super::JOURNAL.info(format_args!(
        "Database {} does not hold n8n's tables ({}): set POSTGRES_DB in .env to the database of n8n",
        config.postgres_db,
        OF_N8N.join(", ")
    ));
    Ok(())
}

fn not_n8ns(app: &App) -> anyhow::Error {
    let (config, found) = (&app.config, &app.config.found);
    let names = OF_N8N.map(|name| format!("{}.{}{name}", found.schema, found.table_prefix));
    hinted(
        format_args!(
            "Database {} in {} is not n8n's: it does not hold {}",
            config.postgres_db,
            config.postgres_container,
            names.join(" and ")
        ),
        "start n8n once, which makes them; n8n-backup setup shows what was found, and where it comes from",
    )
    .into()
}

/// What a server says of itself.
pub(super) struct Probed {
    version: String,
    size: String,
    /// Whether n8n's tables are there.
    is_n8ns: bool,
    /// The schemas beside n8n's own that hold tables of other programs, each with the number of these.
    schemas: String,
    /// The other databases that it holds, with their sizes.
    others: Vec<String>,
}

impl Probed {
    pub(super) fn report(&self, app: &App, report: &mut Report) {
        let config = &app.config;
        let database = &config.postgres_db;
        report.ok(
            "postgres",
            format!("PostgreSQL {}, database {database} takes {}", self.version, self.size),
        );
        if let Some(warning) = warning(app) {
            report.warn("postgres", warning);
        }
        if !self.is_n8ns {
            let error = not_n8ns(app);
            match config.found.is_told() {
                true => report.error("postgres", &error),
                false => report.warn("postgres", format!("database {database} does not hold n8n's tables")),
            }
        }
        if !self.schemas.is_empty() {
            report.warn(
                "postgres",
                format!(
                    "database {database} holds tables in other schemas than n8n's, which a restore replaces, too: {}",
                    self.schemas
                ),
            );
        }
        if !self.others.is_empty() {
            report.warn(
                "postgres",
                format!(
                    "other databases of this server are not backed up: {}",
                    self.others.join(", ")
                ),
            );
        }
    }
}

/// Asks the server about itself, and whether the database is n8n's.
pub(super) fn probe(app: &App, docker: &Docker) -> Result<Probed> {
    let found = &app.config.found;
    let named = |name: &&str| sql::literal(&format!("{}{name}", found.table_prefix));
    let tables = OF_N8N.iter().map(named).collect::<Result<Vec<_>>>()?.join(", ");
    let schema = match found.schema.as_str() {
        "" => String::new(),
        schema => format!(" AND schemaname = {}", sql::literal(schema)?),
    };
    let schemas = sql::other_schemas(&found.schema)?;
    let output = Psql::live(app, docker).run(
        &app.config.postgres_db,
        "doctor",
        sql::script_of(&format!(
            "SHOW server_version;\nSELECT pg_size_pretty(pg_database_size(current_database()));\n\
             SELECT count(DISTINCT tablename) FROM pg_catalog.pg_tables WHERE tablename IN ({tables}){schema};\n\
             {schemas}\
             SELECT datname || ' (' || pg_size_pretty(pg_database_size(oid)) || ')' FROM pg_catalog.pg_database \
             WHERE NOT datistemplate AND datname NOT IN ('postgres', current_database()) \
             AND datconnlimit <> {invalid} AND has_database_privilege(oid, 'CONNECT') ORDER BY 1;\n",
            invalid = sql::INVALID
        )),
    )?;
    let mut lines = output.lines().map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    Ok(Probed {
        version: next(),
        size: next(),
        is_n8ns: next() == OF_N8N.len().to_string(),
        schemas: next(),
        others: lines.collect(),
    })
}
