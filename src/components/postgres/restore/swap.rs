//! The swap of the staged database with the live one.

use std::thread;

use anyhow::{ensure, Context as _, Result};

use super::{Plan, Staged};
use crate::components::postgres::sql::{self, Mark};
use crate::components::Around;
use crate::process::hinted;

/// How often the swap is tried when clients hinder it.
const SWAP_ATTEMPTS: u32 = 3;

impl Plan<'_> {
    /// Puts the staged database, which the server knows as `id`, in the live one's place.
    pub(super) fn swap(&self, staged: &mut Staged<'_>, id: u32, old: &str, around: &dyn Around) -> Result<()> {
        let live = self.live();
        let replaces = self.server.exists && !self.options.in_place;
        let mark = replaces.then_some(match self.options.keep_old {
            true => Mark::Kept,
            false => Mark::Replaced,
        });
        // A database that is gone already is not the reason to leave none.
        if replaces {
            around.check_stopped().context("Database restore failed")?;
        }
        self.journal.info("Terminating existing database connections...");
        let mut attempt = 1;
        while let Err(error) = self.try_swap(&staged.name, old, mark) {
            let is_created = format!("{error:#}").contains(sql::CREATED_MEANWHILE);
            // The answer may have been lost on its way; what the server says now is what counts.
            let now = self
                .psql()
                .run_each(self.maintenance, "restore", [sql::oid(live)?, sql::oid(&staged.name)?])
                .and_then(|[live, staged]| Ok((sql::parse_oid(&live)?, sql::parse_oid(&staged)?)));
            match now.context("Whether the databases were swapped could not be found out") {
                Ok((now_live, _)) if now_live == Some(id) => break,
                Ok(_) if is_created => return Err(self.created_meanwhile().context("Database restore failed")),
                Ok((_, now_staged)) if now_staged == Some(id) && attempt < SWAP_ATTEMPTS => {
                    self.journal
                        .warning(&error.context("The databases could not be swapped, trying again"));
                    attempt += 1;
                }
                Ok(_) => return Err(error.context("Database restore failed")),
                Err(unknown) => return Err(unknown.context("Database restore failed")),
            }
        }
        staged.keep = true;
        self.journal.success("Database restored successfully");
        if !replaces {
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
        if let Err(error) = around.check_stopped() {
            // What n8n has written to it in the last moment is nowhere else.
            self.psql()
                .run(self.maintenance, "restore", sql::keep_replaced(live, old)?)?;
            self.journal
                .warning(&error.context(format!("The replaced database is kept as {old}")));
            return Ok(());
        }
        self.journal.info("Dropping existing database...");
        if let Err(error) = self
            .psql()
            .run_long(self.maintenance, "restore", sql::drop_database(old)?)
        {
            self.journal
                .warning(&error.context(format!("The replaced database {old} could not be dropped")));
        }
        Ok(())
    }

    /// Somebody works with a database that nobody knew of when the restore began.
    fn created_meanwhile(&self) -> anyhow::Error {
        hinted(
            format_args!(
                "Database {} was created while it was being restored, and stays as it is",
                self.live()
            ),
            "stop n8n, and run the same restore again, which replaces that database",
        )
        .into()
    }

    /// Swaps once.
    fn try_swap(&self, staged: &str, old: &str, mark: Option<Mark>) -> Result<()> {
        let live = self.live();
        let swap = sql::swap(live, staged, old, mark)?;
        let terminate = sql::terminate(live, staged, &sql::application_name("swap", live))?;
        let output = thread::scope(|scope| {
            // Ends the sessions that the swap waits for, while its lock keeps new ones out.
            let helper = scope.spawn(|| self.psql().run(self.maintenance, "terminate", terminate));
            let output = self.psql().run(self.maintenance, "swap", swap);
            let _ = helper.join();
            output
        })?;
        ensure!(output.lines().any(|line| line == "swapped"), "the swap gave no answer");
        Ok(())
    }
}
