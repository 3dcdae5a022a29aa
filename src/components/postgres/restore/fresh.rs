//! The staged database before the load: the roles that it needs, and the properties of the live one.

use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result};

use super::Plan;
use crate::components::postgres::{recorded_roles, sql};
use crate::process::hinted;
use crate::store::inventory::point_of;

impl Plan<'_> {
    pub(super) fn create_roles(&self) -> Result<()> {
        for role in &self.missing_roles {
            let statement = format!("CREATE ROLE {} NOLOGIN;\n", sql::ident(role)?);
            self.psql().run(self.maintenance, "restore", statement)?;
            self.journal.info(format_args!("Created role {role} without login"));
            if *role == self.app.config.found.login {
                self.journal.warn(format_args!(
                    "n8n logs in as {role}: have a superuser run {}",
                    sql::let_log_in(&self.recorded(role))?
                ));
            }
        }
        Ok(())
    }

    /// A role as the recovery point of the dump tells it; of a stranger's, its name alone.
    fn recorded(&self, role: &str) -> sql::Role {
        let point = point_of(&self.app.store, self.file).ok().flatten();
        let roles = point.filter(|_| self.trusted).map(|(point, _)| recorded_roles(&point));
        let known = roles.into_iter().flatten().find(|known| known.name == role);
        known.unwrap_or_else(|| sql::Role {
            name: role.to_owned(),
            ..sql::Role::default()
        })
    }

    /// Makes the staged database like the live one, and connects to it: all before that goes to another one, and a
    /// restore in place drops the live database next.
    pub(super) fn create(&self, staged: &str) -> Result<sql::Description> {
        self.journal.info("Creating fresh database...");
        let psql = self.psql();
        let database =
            sql::parse_describe(&psql.run(self.maintenance, "restore", sql::describe(self.live(), staged)?)?)?;
        let scripts = [sql::script(&database.create), sql::lenient_script(&database.settings)];
        psql.run_each(self.maintenance, "restore", scripts)
            .context("Database restore failed")?;
        let by_tcp = self.app.postgres_by_tcp.load(Ordering::Relaxed);
        let entered = psql.run(staged, "restore", "SELECT 1;\n".to_owned());
        if let Err(error) = entered {
            // Those that can be connected to are asked as before, to drop this one.
            self.app.postgres_by_tcp.store(by_tcp, Ordering::Relaxed);
            let user = self.app.postgres_login().0;
            let hint = format!(
                "where pg_hba.conf names databases, have it let {user} into all (a line `local all {user} ...`), and run SELECT \
                 pg_reload_conf()"
            );
            return Err(error
                .context(hinted(
                    format_args!("PostgreSQL does not let {user} into the new database {staged}"),
                    hint,
                ))
                .context("Database restore failed"));
        }
        Ok(database)
    }

    /// Gives the staged database the properties of the live one that a load could stumble over, and looks whether it has
    /// them all. Gives the number by which the server knows it.
    pub(super) fn limit(&self, staged: &str, database: &sql::Description) -> Result<u32> {
        let psql = self.psql();
        let scripts = [
            sql::lenient_script(&database.limits),
            sql::differences(self.live(), staged)?,
            sql::oid(staged)?,
        ];
        let [_, differences, oid] = psql
            .run_each(self.maintenance, "restore", scripts)
            .context("Database restore failed")?;
        if self.server.exists && !differences.is_empty() {
            let names: Vec<&str> = differences.lines().collect();
            self.journal.warn(format_args!(
                "The restored database will differ from the replaced one in: {}",
                names.join(", ")
            ));
        }
        sql::parse_oid(&oid)?.with_context(|| format!("Database restore failed: the staged database {staged} is gone"))
    }
}
