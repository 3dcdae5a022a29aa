//! The drill of a dump: it is loaded into a server of its own, as a restore does it, and compared.

use std::path::Path;
use std::process::Command;

use anyhow::{anyhow, ensure, Context as _, Result};

use super::loader::let_migrate;
use super::probe::OF_N8N;
use super::scratch::{self, psql, LOCALE_FACT, MAINTENANCE};
use super::sql::{self, CountKind};
use super::{executions, facts, load, recorded_roles, verify, Psql};
use crate::components::drill::{
    check_recorded, Access, DrillEnv, Drilled, Inconclusive, Migrations, RecoveredDatabase, Stopwatch, JOURNAL,
};
use crate::components::n8n_image::N8nImage;
use crate::components::tables::told_place;
use crate::engine::ScratchContainer;
use crate::formats::n8n::{Place, Table};
use crate::formats::pg_dump::TableName;
use crate::formats::text::unascii;
use crate::process::hinted;

/// Prints what n8n has encrypted.
const SEALED: &str = include_str!("sealed.sql");
/// The database that the dump is loaded into.
const DATABASE: &str = "n8n_backup_drill";
/// The fact of a point that tells the role that n8n logs in as.
const LOGIN_FACT: &str = "stack.login";
/// The superuser of a scratch server where the role that restores is none.
const SUPERUSER: &str = "n8n_backup_drill";
/// Tables and indexes take more room than the text of a dump; the log of the load comes on top.
const ROOM: u64 = 3;

/// A server that a dump was loaded into.
struct Loaded<'a> {
    env: &'a DrillEnv<'a>,
    server: ScratchContainer,
    version: u32,
    superuser: String,
    /// Where n8n's tables are in it.
    place: Option<Place>,
}

/// Where n8n's tables are in the dump: where the point has `recorded` them, else where they stand together; of several
/// n8n, where n8n's containers have `told`, else where n8n has them by default.
///
/// # Errors
/// They are not where the point says; there are those of several n8n.
fn place(recorded: Option<&Place>, told: Option<&Place>, tables: &[TableName]) -> Result<Option<Place>> {
    let tables: Vec<&TableName> = tables.iter().collect();
    if let Some(recorded) = recorded {
        let names = tables.iter().filter_map(|table| {
            Some(Place {
                schema: table.schema.clone(),
                prefix: table.name.strip_suffix(OF_N8N[0])?.to_owned(),
            })
        });
        let mut places = names.filter(|place| OF_N8N.iter().all(|name| place.holds(name, &tables)));
        let place = places.find(|place| place == recorded).with_context(|| {
            let names = OF_N8N.map(|name| format!("{}.{}{name}", recorded.schema, recorded.prefix));
            format!(
                "the dump is not of n8n's database: it does not hold {}",
                names.join(" and ")
            )
        })?;
        return Ok(Some(place));
    }
    let mut found = Place::all(&tables);
    if let Some(told) = told.filter(|told| OF_N8N.iter().all(|name| told.holds(name, &tables))) {
        return Ok(Some(told.clone()));
    }
    if found.is_empty() {
        JOURNAL.warn("The dump holds no tables of n8n, so that nothing is known of n8n's data");
    }
    if found.len() > 1 {
        let name = |place: &Place| place.name_of(Table::Workflow).to_string();
        let names = found.iter().map(name).collect::<Vec<_>>().join(", ");
        // Where n8n keeps its tables unless it is told otherwise.
        let usual = |place: &Place| place.schema == "public" && place.prefix.is_empty();
        let Some(usual) = found.into_iter().find(usual) else {
            let error = hinted(
                format_args!("the dump holds the tables of more than one n8n: {names}"),
                "set BACKUP_N8N_CONTAINERS in .env to n8n's containers, which tell where its tables are, or drop the others",
            );
            return Err(anyhow!(error).context(Inconclusive));
        };
        JOURNAL.warn(format_args!(
            "The dump holds the tables of more than one n8n ({names}), and nothing tells which is this one \
             (BACKUP_N8N_CONTAINERS in .env would): taking {}",
            name(&usual)
        ));
        return Ok(Some(usual));
    }
    Ok(found.pop())
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
    let place = place(
        env.recorded_place().as_ref(),
        told_place(context).as_ref(),
        &summary.tables,
    )?;
    check_recorded(env.point, "postgres.", &["rows.", "sequence."], &facts(&summary))?;

    let image = match &env.postgres_image {
        Some(image) => image.clone(),
        None => env.image_of(&context.config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?,
    };
    env.check_room(&image, summary.bytes.saturating_mul(ROOM))?;
    let recorded = recorded_roles(env.point);
    let superuser = superuser(&context.config.postgres_user, &recorded).to_owned();
    let (server, version) = scratch::start(env, &image, &superuser, &summary.extensions)?;
    let psql = psql(env, &server, &superuser, version);
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
    psql.run(MAINTENANCE, "drill", sql::grant_rights(&recorded)?)?;
    let counts = load::load(
        &psql,
        DATABASE,
        file,
        &summary,
        sql::knows_restrict(&psql_version),
        load::strip(version),
    )
    .and_then(|_| load::compare(&psql, DATABASE, &summary, JOURNAL))?;

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
    Ok(watch.drilled(what).with_database(Box::new(Loaded {
        env,
        server,
        version,
        superuser,
        place,
    })))
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
        psql(self.env, &self.server, &self.superuser, self.version)
    }
}

impl RecoveredDatabase for Loaded<'_> {
    fn sealed(&self) -> Result<(Command, String)> {
        let (schema, prefix) = match &self.place {
            Some(place) => (place.schema.as_str(), place.prefix.as_str()),
            None => ("", ""),
        };
        let script = SEALED
            .replace("{schema}", &sql::literal(schema)?)
            .replace("{prefix}", &sql::literal(prefix)?);
        Ok((self.as_superuser().command(DATABASE, "drill")?, script))
    }

    fn migrations(&self) -> Result<Option<Migrations>> {
        let output = self
            .as_superuser()
            .run(DATABASE, "drill", sql::migrations(self.place.as_ref())?)?;
        let found = sql::parse_migrations(&output)?;
        Ok(found.map(|(count, newest)| Migrations { count, newest }))
    }

    fn binary_files(&self) -> Result<Vec<String>> {
        let output = self
            .as_superuser()
            .run(DATABASE, "drill", sql::binary_files(self.place.as_ref())?)?;
        sql::parse_names(&output)
    }

    fn container(&self) -> &str {
        self.server.id()
    }

    fn let_in(&self, n8n: &N8nImage) -> Result<Access> {
        let psql = self.as_superuser();
        let restorer = &self.env.app.config.postgres_user;
        // The point tells of its own time.
        let logins = [
            self.env.point.fact(LOGIN_FACT).map(unascii),
            n8n.variable("DB_POSTGRESDB_USER").map(str::to_owned),
            Some(self.env.app.config.found.login.clone()).filter(|login| !login.is_empty()),
        ];
        let logins: Vec<String> = logins.into_iter().flatten().collect();
        let missing = psql.run(MAINTENANCE, "drill", sql::missing_roles(&logins)?)?;
        let missing = sql::parse_names(&missing)?;
        let role = logins.iter().find(|login| !missing.contains(login)).unwrap_or(restorer);
        psql.run(
            MAINTENANCE,
            "drill",
            format!("ALTER ROLE {} LOGIN;\n", sql::ident(role)?),
        )?;
        if let Some(place) = &self.place {
            let_migrate(&psql, [DATABASE, DATABASE], role, &place.schema)?;
        }
        let place = self.place.iter().flat_map(|place| {
            [
                ("DB_POSTGRESDB_SCHEMA", place.schema.as_str()),
                ("DB_TABLE_PREFIX", place.prefix.as_str()),
            ]
        });
        let variables = [
            ("DB_TYPE", "postgresdb"),
            ("DB_POSTGRESDB_HOST", "127.0.0.1"),
            ("DB_POSTGRESDB_PORT", "5432"),
            ("DB_POSTGRESDB_DATABASE", DATABASE),
            ("DB_POSTGRESDB_USER", role),
            ("DB_POSTGRESDB_PASSWORD", "none"),
        ];
        Ok(Access {
            variables: variables
                .into_iter()
                .chain(place)
                .map(|(name, value)| (name, value.to_owned()))
                .collect(),
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
             WHERE c.relkind IN ('r', 'p') AND {} \\gexec\n",
            sql::is_n8ns(self.place.as_ref(), Table::Credential.name())?
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::hint_of;

    #[test]
    fn n8ns_tables_are_where_the_point_says_or_where_they_stand_together() {
        let place = |schema: &str, prefix: &str| Place {
            schema: schema.to_owned(),
            prefix: prefix.to_owned(),
        };
        let tables = |place: &Place, names: &[&str]| -> Vec<TableName> {
            let table = |name: &&str| TableName {
                schema: place.schema.clone(),
                name: format!("{}{name}", place.prefix),
            };
            names.iter().map(table).collect()
        };
        let own = place("n8n", "x_");
        let all = [
            "workflow_entity",
            "credentials_entity",
            "migrations",
            "settings",
            "user",
        ];
        let own_and = |other: &Place, names: &[&str]| [tables(other, names), tables(&own, &all)].concat();

        let old = place("n8n", "old_");
        let copies = own_and(&old, &all[..2]);
        assert_eq!(super::place(None, None, &copies).unwrap(), Some(own.clone()));
        assert_eq!(
            super::place(Some(&own), Some(&old), &copies).unwrap(),
            Some(own.clone())
        );
        // Two copies of two tables prove nothing of n8n's.
        let error = super::place(Some(&old), None, &copies).unwrap_err();
        assert!(!error.is::<Inconclusive>());
        assert!(
            error
                .to_string()
                .contains("n8n.old_workflow_entity and n8n.old_migrations"),
            "{error}"
        );

        let public = place("public", "");
        let error = super::place(None, None, &own_and(&place("copy", ""), &all)).unwrap_err();
        assert!(error.is::<Inconclusive>() && hint_of(&error).is_some());
        let two = own_and(&public, &all);
        assert_eq!(super::place(None, None, &two).unwrap(), Some(public.clone()));
        assert_eq!(super::place(None, Some(&public), &two).unwrap(), Some(public.clone()));
        assert_eq!(super::place(Some(&own), None, &two).unwrap(), Some(own));
        assert_eq!(
            super::place(None, Some(&public), &tables(&public, &["t"])).unwrap(),
            None
        );
        assert!(super::place(Some(&public), None, &tables(&public, &["t"])).is_err());
    }
}
