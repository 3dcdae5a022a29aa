//! One part that is restored by itself while the restore of a recovery point may be unfinished.

use anyhow::Result;

use crate::app::App;
use crate::report::log::Journal;
use crate::stack::discovery;
use crate::stack::interrupted::{settle, unfinished};
use crate::stack::record::{read, write, Record};
use crate::store::{Kind, Stamp};

/// Restores one part by itself. Where a restore-all is unfinished, n8n stays stopped as that has left it, and its record stays
/// but for this part, which it is to restore again: what comes now may be of another time.
///
/// # Errors
/// Those of the work, as for [`unfinished`], and that the record cannot be written.
pub fn within(app: &App, journal: Journal, kind: Kind, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let Some(Some(point)) = unfinished(app)? else {
        return work();
    };
    let mut record = read(app)?.unwrap_or_default();
    // What worked before this is no sign of it.
    record.seen = discovery::last_starts(app, &app.docker()?)?;
    let done = replace_part(app, journal, record, kind, Some(point), work);
    if let Err(error) = settle(app, journal) {
        journal.failure(&error);
    }
    done
}

/// As [`within`], for what n8n does not work on while it runs: neither an engine that does not answer nor a record that
/// cannot be read keeps it from being restored, since it may be what they wait for.
///
/// # Errors
/// Those of the work, and that the record cannot be written.
pub fn regardless(app: &App, journal: Journal, kind: Kind, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let point = match unfinished(app) {
        Ok(None | Some(None)) => return work(),
        Ok(Some(point)) => point,
        Err(error) => {
            journal.warning(&error.context("Whether a restore is unfinished could not be found out"));
            None
        }
    };
    match read(app) {
        // It is history, or a restore-all goes on with it and is not to take this for the point's.
        Ok(Some(record)) if record.point.is_some() => replace_part(app, journal, record, kind, point, work),
        _ => work(),
    }
}

/// Restores a part of a restore-all, which is to restore it again; where that is known to be unfinished, with its `point`.
fn replace_part(
    app: &App,
    journal: Journal,
    mut record: Record,
    kind: Kind,
    point: Option<Stamp>,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    record.done.retain(|done| *done != kind);
    record.mixed = true;
    record.begun.push(kind);
    write(app, &record)?;
    // After an error, too: it may have come when the part was replaced already, and to restore it once more does no harm.
    let done = record.end_part(kind, work()).and(write(app, &record));
    if let Some(point) = point {
        journal.warn(format_args!(
            "restore-all of recovery point {point} was interrupted and is unfinished, so n8n stays stopped: restore-all.sh \
             {point} goes on with it, with the same options"
        ));
    }
    done
}
