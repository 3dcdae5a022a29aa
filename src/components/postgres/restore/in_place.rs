//! A restore in place: the live database is dumped and dropped before the load, and nobody writes to it meanwhile.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};

use super::{Plan, Staged};
use crate::components::postgres::{dump, sql};
use crate::components::{Around, BackupRun};
use crate::process::hinted;

/// How long the sessions of a container that was stopped may still be seen.
const DISCONNECT_GRACE: Duration = Duration::from_secs(5);

impl Plan<'_> {
    /// Refuses to go on while another program than n8n, which is stopped, may write to what is dropped.
    pub(super) fn check_alone(&self) -> Result<()> {
        let deadline = Instant::now() + DISCONNECT_GRACE;
        loop {
            let output = self
                .psql()
                .run(self.maintenance, "restore", sql::other_sessions(self.live())?)?;
            let names: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
            if names.is_empty() {
                return Ok(());
            }
            // The server may not have noticed yet that a stopped container is gone.
            ensure!(
                Instant::now() < deadline,
                hinted(
                    format_args!(
                        "Database {} is used by others than n8n's containers ({}): what they write while it is dumped and \
                         dropped would be lost",
                        self.live(),
                        names.join(", ")
                    ),
                    "stop them, or add n8n's further containers to BACKUP_N8N_CONTAINERS in .env"
                )
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Refuses to drop what somebody has begun to use since the dump was begun.
    pub(super) fn check_unused(&self, around: &dyn Around) -> Result<()> {
        around.check_stopped()?;
        self.check_alone()
    }

    /// Dumps the live database before it is dropped.
    pub(super) fn safety_dump(&self) -> Result<PathBuf> {
        self.journal
            .info(format_args!("Dumping database {} before it is dropped", self.live()));
        let (file, ..) = dump(
            self.app,
            &self.docker,
            &BackupRun::alone(self.app.store.free_stamp(), true),
            None,
        )
        .context("The live database cannot be dumped, so it is not dropped")?;
        self.journal
            .info(format_args!("Safety dump completed: {}", file.entry.path.display()));
        Ok(file.entry.path)
    }

    /// Whether a limit of connections, which the staged database has before the load, holds for us.
    fn is_limited(&self, database: &sql::Description) -> bool {
        !self.server.superuser && !database.limits.is_empty()
    }

    /// Lets as many sessions into the staged database as the load takes. Whoever is killed before [`Plan::limit_again`]
    /// leaves it so.
    pub(super) fn lift_limit(&self, staged: &str, database: &sql::Description) -> Result<()> {
        if self.is_limited(database) {
            self.psql().run(self.maintenance, "restore", sql::lift_limit(staged)?)?;
        }
        Ok(())
    }

    /// Gives it the limit again, whether the load has succeeded or not: it may be all that knows of that.
    pub(super) fn limit_again(&self, staged: &str, database: &sql::Description) {
        if !self.is_limited(database) {
            return;
        }
        let script = sql::lenient_script(&database.limits);
        if let Err(error) = self.psql().run(self.maintenance, "restore", script) {
            self.journal
                .warning(&error.context(format!("The connection limit of {staged} could not be set again")));
        }
    }

    /// Drops the live database, in a restore that has no room for two. From then on the staged one is all that knows what it
    /// was like, so that one stays when the load fails.
    pub(super) fn drop_live(&self, staged: &mut Staged<'_>) -> Result<()> {
        self.journal.info("Terminating existing database connections...");
        self.journal.info("Dropping existing database...");
        staged.keep = true;
        let dropped = self
            .psql()
            .run_long(self.maintenance, "restore", sql::drop_database(self.live())?);
        let Err(error) = dropped else { return Ok(()) };
        // The answer may have been lost on its way; what the server says now is what counts.
        let there = self.psql().run(self.maintenance, "restore", sql::exists(self.live())?);
        match there.context("Whether the live database was dropped could not be found out") {
            Ok(there) if there.trim() == "f" => Ok(()),
            Ok(_) => {
                staged.keep = false;
                Err(error)
            }
            Err(unknown) => Err(unknown.context(format!("{error:#}"))),
        }
    }
}
