//! The role that loads a dump of unknown origin. It may fill the staged database and do nothing else: what the dump's
//! functions try on the server, its files, its roles or the live database is refused by the server itself.

use anyhow::{Context as _, Result};

use super::trust::TRUST_IT;
use super::{sql, Psql};
use crate::app::App;
use crate::config::Secret;
use crate::engine::Docker;
use crate::formats::n8n::Place;
use crate::process::hinted;

/// Such a role. It goes when what it has loaded is handed over, or with the staged database.
pub(super) struct Loader<'a> {
    app: &'a App,
    live: Psql<'a>,
    /// With the role's password.
    docker: Docker,
    name: String,
}

/// The role that owns n8n's tables in the live database, at `place` where that is known.
pub(super) fn owner_of_n8n(live: &Psql<'_>, place: Option<&Place>) -> Result<Option<String>> {
    let Some(place) = place else { return Ok(None) };
    let output = live.run(&live.app.config.postgres_db, "restore", sql::owner_of_n8n(place)?)?;
    output.lines().next().map(sql::unhex).transpose()
}

/// Lets n8n, which logs in as `login`, make tables in `schema` of the database `loaded`, which will be called `live`.
/// Who may do so in a new database goes by its owner and, before PostgreSQL 15, is everybody; no dump tells of either.
/// Gives the statements that this took, and those that a superuser has to run.
pub(super) fn let_migrate(
    psql: &Psql<'_>,
    [loaded, live]: [&str; 2],
    login: &str,
    schema: &str,
) -> Result<(Vec<String>, Vec<String>)> {
    let scripts = sql::let_migrate(login, schema, loaded, live)?;
    let [before, _, after] = psql.run_each(loaded, "restore", scripts)?;
    let (mut done, needed) = (sql::parse_names(&before)?, sql::parse_names(&after)?);
    done.retain(|statement| !needed.contains(statement));
    Ok((done, needed))
}

impl<'a> Loader<'a> {
    /// Makes a role that may fill the database `staged`.
    pub fn create(app: &'a App, live: Psql<'a>, maintenance: &'static str, stamp: &str, staged: &str) -> Result<Self> {
        let password = super::load::token()?;
        let name = sql::loader_name(stamp);
        let docker = live.docker.clone();
        let loader = Self {
            app,
            docker: docker.with_login(live.container, "PGPASSWORD", &Secret::new(&password)),
            live,
            name,
        };
        let role = sql::create_loader(&loader.name, &password, &app.config.postgres_db, staged)?;
        loader.live.run(maintenance, "restore", role)?;
        loader.live.run(staged, "restore", sql::admit_loader(&loader.name)?)?;
        // A server that asks the operating system who is there lets no role in that it does not know.
        let let_in = loader.psql().run(staged, "restore", sql::PSQL_VERSION.to_owned());
        let_in.context(hinted(
            "A role that loads a dump of unknown origin cannot log in",
            TRUST_IT,
        ))?;
        Ok(loader)
    }

    /// psql as this role.
    pub fn psql(&self) -> Psql<'_> {
        Psql {
            docker: &self.docker,
            app: self.app,
            container: self.live.container,
            user: &self.name,
            options: "",
        }
    }

    /// Gives all that was loaded to the role that owns n8n's tables in the live database, at `place` where that is
    /// known, or to the one that n8n logs in as, or to the owner of the staged database. Gives that role.
    pub fn hand_over(&self, staged: &str, place: Option<&Place>) -> Result<String> {
        let owner = owner_of_n8n(&self.live, place)?;
        let script = sql::hand_over(&self.name, owner.as_deref(), &self.app.config.found.login)?;
        let output = self.live.run_long(staged, "restore", script)?;
        sql::unhex(output.trim())
    }
}
