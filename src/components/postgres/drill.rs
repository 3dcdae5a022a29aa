//! The drill of a dump: it is loaded into a server of its own, as a restore does it, and compared.

use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Result};

use super::scratch::{self, psql, LOCALE_FACT, MAINTENANCE};
use super::sql::{self, CountKind};
use super::{executions, facts, load, recorded_roles, verify, Psql};
use crate::components::drill::{
    check_recorded, explain, Access, DrillEnv, Drilled, Migrations, RecoveredDatabase, Stopwatch, JOURNAL,
};
use crate::components::n8n_image::N8nImage;
use crate::engine::ScratchContainer;

/// Prints what n8n has encrypted.
const SEALED: &str = include_str!("sealed.sql");
/// The database that the dump is loaded into.
const DATABASE: &str = "n8n_backup_drill";
/// The fact of a point that tells the role that n8n logs in as.
const LOGIN_FACT: &str = "stack.postgres.user";
/// The superuser of a scratch server where the role that restores is none.
const SUPERUSER: &str = "n8n_backup_drill";
/// Tables and indexes take more room than the text of a dump; the log of the load comes on top.
const ROOM: u64 = 3;

/// A server that a dump was loaded into.
struct Loaded<'a> {
    env: &'a DrillEnv<'a>,
    server: ScratchContainer,
    superuser: String,
}

/// Loads the dump and compares tables, rows and sequences with the dump and the manifest.
///
/// # Errors
/// What differs or fails; with [`Inconclusive`](crate::components::drill::Inconclusive) when the test could not be made.
pub fn drill<'a>(env: &'a DrillEnv<'a>, file: &Path) -> Result<Drilled<'a>> {
    let context = env.app;
    let watch = Stopwatch::start();
    let summary = verify(context, file)?;
    ensure!(
        !summary.tables.is_empty(),
        "the dump holds no table: POSTGRES_DB is not the database of n8n, or that was empty"
    );
    let left_out = executions::are_left_out(&summary);
    if left_out {
        JOURNAL.warn(executions::WARNING);
    }
    load::check_statements(&summary)?;
    check_recorded(env.point, "postgres.", &["rows.", "sequence."], &facts(&summary))?;

    let image = match &env.postgres_image {
        Some(image) => image.clone(),
        None => env.image_of(&context.config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?,
    };
    env.check_room(&image, summary.bytes.saturating_mul(ROOM))?;
    let recorded = recorded_roles(env.point);
    let superuser = superuser(&context.config.postgres_user, &recorded).to_owned();
    let (server, version) = scratch::start(env, &image, &superuser, &summary.extensions)?;
    let psql = psql(env, &server, &superuser);
    let mut roles: Vec<String> = summary.roles.iter().cloned().collect();
    roles.extend(recorded.iter().map(|role| role.name.clone()));
    roles.push(context.config.postgres_user.clone());
    roles.sort();
    roles.dedup();
    let mut prepare = String::new();
    let scripts = [sql::missing_roles(&roles)?, sql::PSQL_VERSION.to_owned()];
    let [missing, psql_version] = psql.run_each(MAINTENANCE, "drill", scripts)?;
    for role in sql::parse_names(&missing)? {
        prepare.push_str(&format!("CREATE ROLE {} NOLOGIN;\n", sql::ident(&role)?));
    }
    psql.run(MAINTENANCE, "drill", prepare)?;
    // What such a database holds need not be text in any encoding.
    let plain = sql::Locale::plain(match summary.client_encoding.as_deref() {
        Some("sqlascii") => "SQL_ASCII",
        _ => "UTF8",
    });
    let create = |locale: &sql::Locale| psql.run(MAINTENANCE, "drill", locale.create_database(DATABASE)?);
    let live = env.point.fact(LOCALE_FACT).and_then(sql::Locale::parse);
    match live.as_ref().map(create) {
        Some(Ok(_)) => {}
        Some(Err(error)) => {
            let error = error.context(format!("Image {image} does not have the locale of the live database"));
            JOURNAL.warning(&error);
            create(&plain)?;
        }
        None => drop(create(&plain)?),
    }
    psql.run(MAINTENANCE, "drill", sql::grant_rights(&recorded, DATABASE)?)?;
    let counts = load::load(
        &psql,
        DATABASE,
        file,
        &summary,
        sql::knows_restrict(&psql_version),
        load::strip(version),
    )
    .and_then(|()| load::compare(&psql, DATABASE, &summary, JOURNAL))
    .map_err(|error| explain(error, "PostgreSQL", &context.config.drill_memory))?;

    let count = |wanted: &[CountKind]| counts.iter().filter(|count| wanted.contains(&count.kind)).count();
    let rows: i64 = counts
        .iter()
        .filter(|count| count.kind == CountKind::Table)
        .filter_map(|count| count.value)
        .fold(0, i64::saturating_add);
    let what = format!(
        "{} tables, {rows} rows, {} sequences{}",
        count(&[CountKind::Table, CountKind::Partitioned]),
        count(&[CountKind::Sequence]),
        if left_out { ", without executions" } else { "" }
    );
    Ok(watch
        .drilled(what)
        .with_database(Box::new(Loaded { env, server, superuser })))
}

/// The superuser of the scratch server: the role that restores, as on the live server, unless that is none there.
fn superuser<'a>(restorer: &'a str, recorded: &[sql::Role]) -> &'a str {
    match recorded.iter().find(|role| role.name == restorer) {
        Some(role) if !role.superuser => SUPERUSER,
        _ => restorer,
    }
}

impl Loaded<'_> {
    fn as_superuser(&self) -> Psql<'_> {
        psql(self.env, &self.server, &self.superuser)
    }
}

impl RecoveredDatabase for Loaded<'_> {
    fn sealed(&self) -> Result<(Command, &'static str)> {
        Ok((self.as_superuser().command(DATABASE, "drill")?, SEALED))
    }

    fn migrations(&self) -> Result<Option<Migrations>> {
        let output = self.as_superuser().run(DATABASE, "drill", sql::migrations())?;
        let found = sql::parse_migrations(&output)?;
        Ok(found.map(|(count, newest)| Migrations { count, newest }))
    }

    fn binary_files(&self) -> Result<Vec<String>> {
        let output = self.as_superuser().run(DATABASE, "drill", sql::binary_files())?;
        sql::parse_names(&output)
    }

    fn container(&self) -> &str {
        self.server.id()
    }

    fn let_in(&self, n8n: &N8nImage) -> Result<Access> {
        let psql = self.as_superuser();
        let restorer = &self.env.app.config.postgres_user;
        let live = n8n
            .variable("DB_POSTGRESDB_USER")
            .or_else(|| self.env.point.fact(LOGIN_FACT))
            .unwrap_or(restorer);
        let is_missing = !psql
            .run(MAINTENANCE, "drill", sql::missing_roles(&[live.to_owned()])?)?
            .is_empty();
        let role = if is_missing { restorer } else { live };
        psql.run(
            MAINTENANCE,
            "drill",
            format!("ALTER ROLE {} LOGIN;\n", sql::ident(role)?),
        )?;
        let variables = [
            ("DB_TYPE", "postgresdb"),
            ("DB_POSTGRESDB_HOST", "127.0.0.1"),
            ("DB_POSTGRESDB_PORT", "5432"),
            ("DB_POSTGRESDB_DATABASE", DATABASE),
            ("DB_POSTGRESDB_USER", role),
            ("DB_POSTGRESDB_PASSWORD", "none"),
        ];
        Ok(Access {
            variables: variables.map(|(name, value)| (name, value.to_owned())).into(),
            by_files: false,
        })
    }

    fn forget(&self, credentials: &[String]) -> Result<()> {
        let ids: Vec<String> = credentials
            .iter()
            .map(|id| format!("'{}'", id.replace('\'', "''").replace('\\', "")))
            .collect();
        let list = ids.join(", ");
        let script = format!(
            "SELECT format('DELETE FROM %s WHERE data = '''' OR id::text = ANY (%L)', c.oid::regclass, ARRAY[{list}]::text[])\n\
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace\n\
             WHERE c.relkind IN ('r', 'p') AND right(c.relname, 18) = 'credentials_entity' AND n.nspname !~ '^pg_' \\gexec\n"
        );
        self.as_superuser()
            .run(DATABASE, "drill", sql::script_of(&script))
            .map(drop)
    }

    fn busy(&self) -> Result<Box<dyn Fn() -> bool + Send>> {
        let psql = self.as_superuser();
        Ok(Box::new(psql.asks(DATABASE, sql::OTHERS_WORK.to_owned())))
    }

    fn scratch(&self, name: &str) -> Result<Command> {
        let psql = self.as_superuser();
        psql.run(MAINTENANCE, "drill", sql::scratch_database(name)?)?;
        psql.command(name, "drill")
    }
}
