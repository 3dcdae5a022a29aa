//! What killed restores have left on the server.

use anyhow::Result;

use super::sql::{self, Leftover, Mark};
use super::Psql;
use crate::app::App;
use crate::engine::Docker;
use crate::report::log::Journal;

/// Drops the staged and replaced databases that a restore which died has left.
pub(super) fn sweep(
    psql: &Psql<'_>,
    maintenance: &str,
    live: &str,
    except: Option<&str>,
    journal: Journal,
) -> Result<()> {
    let scripts = [
        sql::end_sessions(&sql::application_name("load", live))?,
        sql::sweep_list(live)?,
    ];
    let [_, list] = psql.run_each(maintenance, "restore", scripts)?;
    for Leftover { mark, name, .. } in sql::parse_leftovers(&list)? {
        if mark == Mark::Kept || except == Some(name.as_str()) {
            continue;
        }
        let kind = mark.kind();
        match psql.run_long(maintenance, "restore", sql::drop_database(&name)?) {
            Ok(_) => journal.warn(format_args!(
                "Dropped database {name} ({kind}) that an interrupted restore left"
            )),
            // A subscription in it, say.
            Err(error) => journal.warn(format_args!(
                "Database {name} ({kind}) that an earlier restore left could not be dropped: {error:#}. It takes room and hinders nothing: drop what \
                 holds it, and the next restore drops it"
            )),
        }
    }
    psql.run(maintenance, "restore", sql::sweep_loaders(live)?)?;
    Ok(())
}

/// Clears what restores that died have left, as `list` tells it ([`sql::sweep_list`]), while the live database is there: a
/// staged one may be all that is left of it. The caller holds the lock that restores hold.
pub fn clear(app: &App, docker: &Docker, list: &str, journal: Journal) {
    let swept = sql::parse_leftovers(list).and_then(|left| {
        let live = &app.config.postgres_db;
        match sql::maintenance_databases(live)?.first() {
            Some(maintenance) if left.iter().any(|leftover| leftover.mark != Mark::Kept) => {
                sweep(&Psql::live(app, docker), maintenance, live, None, journal)
            }
            _ => Ok(()),
        }
    });
    if let Err(error) = swept {
        journal.warning(&error.context("What an interrupted restore left could not be cleared"));
    }
}
