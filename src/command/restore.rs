//! The restores: what is asked, checked and locked around a component's own restore.

use std::ffi::OsStr;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use anyhow::{bail, Result};

use super::hold;
use crate::component::postgres::restore::{prepare, Options};
use crate::component::Context;
use crate::logging::{self, Journal};
use crate::store::Kind;

const JOURNAL: Journal = Journal::new("restore-postgres");

/// Replaces the database by the contents of `file`. `yes` answers the question beforehand.
///
/// # Errors
/// When the file is not a whole dump, or the server cannot take it; the live database is then the one from before.
pub fn postgres(context: &Context, file: &OsStr, yes: bool, options: Options) -> Result<()> {
    let path = Path::new(file);
    JOURNAL.info(format_args!("Starting PostgreSQL restore from: {}", path.display()));
    logging::check_started()?;
    if !context.config.env_file_exists {
        bail!(".env file not found");
    }
    if !path.exists() {
        bail!("Backup file not found: {}", path.display());
    }
    if !Kind::Postgres.is_name(&path.to_string_lossy()) || !path.is_file() {
        bail!("Backup file must be a .sql.gz file");
    }
    let _lock = hold(context, JOURNAL)?;
    let _component = context.hold(Kind::Postgres, JOURNAL)?;
    let plan = prepare(context, path, options, JOURNAL)?;
    JOURNAL.warn(format_args!(
        "This will drop and recreate the database {}",
        context.config.postgres_db
    ));
    JOURNAL.warn("All existing data will be replaced with backup data");
    if !confirmed(yes) {
        JOURNAL.info("Restore cancelled by user");
        return Ok(());
    }
    plan.run()?;
    JOURNAL.success(format_args!("PostgreSQL restore completed from: {}", path.display()));
    Ok(())
}

/// Asks on a terminal; goes on where nobody can be asked.
fn confirmed(yes: bool) -> bool {
    if yes || !io::stdin().is_terminal() {
        JOURNAL.info("Running non-interactively, proceeding with restore");
        return true;
    }
    let mut out = io::stdout().lock();
    let _ = write!(out, "Are you sure you want to continue? (yes/no): ").and_then(|()| out.flush());
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
