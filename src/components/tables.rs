//! n8n's tables, wherever they are, as a dump of them, and rows that are put into the live ones.

use std::path::Path;

use anyhow::Result;

use super::put::{Guard, Put};
use super::{postgres, sqlite};
use crate::app::App;
use crate::formats::n8n::Place;
use crate::formats::text::unascii;
use crate::process::Observer;
use crate::store::manifest::Point;
use crate::store::{Kind, Stamp};
use crate::stream::read::observe;

/// Where n8n's tables are, as its containers say, or the recovery point that remembers them.
pub fn told_place(app: &App) -> Option<Place> {
    let found = &app.config.found;
    let place = Place {
        schema: found.schema.clone(),
        prefix: found.table_prefix.clone(),
    };
    (found.is_told() && !place.schema.is_empty()).then_some(place)
}

/// Where n8n's tables were, as a recovery point remembers.
pub fn recorded_place(point: &Point) -> Option<Place> {
    let fact = |name| point.fact(name).map(unascii);
    Some(Place {
        schema: fact("stack.schema")?,
        prefix: fact("stack.prefix").unwrap_or_default(),
    })
}

/// Leads a backup of the database past `observer`, and gives it back: a dump as it is, of another kind the tables whose names
/// end with one of `names`.
pub fn read_backup<O: Observer>(
    app: &App,
    kind: Kind,
    point: Option<&Point>,
    file: &Path,
    names: &[&str],
    observer: O,
) -> Result<O> {
    match kind {
        Kind::Sqlite => match point {
            Some(point) => sqlite::tables::read_backup(app, point, file, names, observer),
            None => sqlite::tables::read_backup(app, &Point::new(Stamp::now()), file, names, observer),
        },
        _ => observe(&app.config, file, observer),
    }
}

/// Leads the tables of the live database whose names end with one of `names` past `observer`, and gives it back. Nothing is
/// changed, and what is read is of one moment.
pub fn read_tables<O: Observer>(app: &App, names: &[&str], observer: O) -> Result<O> {
    match app.config.found.database() {
        Kind::Sqlite => sqlite::tables::read_live(app, names, observer),
        _ => postgres::read_tables(app, names, observer),
    }
}

/// Refuses to begin where `put_rows` could do nothing, which reading does not tell: SQLite is read beside a stopped n8n,
/// too.
pub fn check_put(app: &App) -> Result<()> {
    match app.config.found.database() {
        Kind::Sqlite => sqlite::tables::check_put(app),
        _ => postgres::check_put(app),
    }
}

/// Puts rows into the live database in one transaction, in which nothing is deleted; none where a guard does not hold
/// by then.
pub fn put_rows(app: &App, puts: &[Put], guard: Option<Guard<'_>>) -> Result<()> {
    match app.config.found.database() {
        Kind::Sqlite => sqlite::tables::put_rows(app, puts, guard),
        _ => postgres::put_rows(app, puts, guard),
    }
}
