//! Tables of a database as a dump of them, and rows that are put into the live one.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::node::Node;
use super::{database, verify, Reader, SETTING};
use crate::app::App;
use crate::components::drill::check_room;
use crate::components::n8n_image;
use crate::components::put::{lacking, Guard, How, Put, CHANGED, GONE, IN_USE};
use crate::engine::{ContainerSpec, Data, Label, DATA_MOUNT};
use crate::formats::json::Json;
use crate::process::{hinted, Observer};
use crate::store::manifest::Point;

/// Reads tables of the live database, in n8n's container or beside it.
pub fn read_live<O: Observer>(app: &App, names: &[&str], observer: O) -> Result<O> {
    let docker = app.docker()?;
    let database = database(app)?;
    let container = docker.existing(&database.container, SETTING)?;
    let reader = Reader::of(&docker, &container, Label::Look(&app.owner()))?;
    let node = Node::new(app, &docker, reader.container());
    node.rows(&database.path, names, observer)
}

/// Reads tables of a backup, unpacked in a scratch container from n8n's image.
pub fn read_backup<O: Observer>(app: &App, point: &Point, file: &Path, names: &[&str], observer: O) -> Result<O> {
    let docker = app.docker()?;
    let image = n8n_image::find(app, &docker, point)?;
    let image = image.with_context(|| {
        hinted(
            "n8n's image, whose Node.js reads a SQLite database, is not on this host",
            "pull it, or start n8n's container",
        )
    })?;
    // Not that of the drills, which clear what bears their label.
    let owner = format!("{}-look", app.owner());
    let labels = [Label::Drill(&owner)];
    let recorded = point.fact("sqlite.bytes").and_then(|bytes| bytes.parse().ok());
    let bytes = recorded.map_or_else(|| verify(app, file).map(|found| found.bytes), Ok)?;
    check_room(app, &docker, labels[0], &image.id, bytes)?;
    let mut container = docker.create_scratch(&ContainerSpec {
        limits: Some((&app.config.drill_memory, &app.config.drill_cpus)),
        user: Some("0"),
        entrypoint: Some("sh"),
        argv: &["-c", "trap exit INT; sleep 86400 & wait"],
        ..ContainerSpec::new(&labels, &image.id, Data::Fresh)
    })?;
    container.start()?;
    let node = Node::new(app, &docker, container.id());
    let database = format!("{DATA_MOUNT}/database.sqlite");
    node.copy_in(file, &database)?;
    node.rows(&database, names, observer)
}

/// Refuses to begin what `put_rows` could not end: only n8n's own container writes to its database.
pub fn check_put(app: &App) -> Result<()> {
    app.docker()?.running(&database(app)?.container, SETTING).map(drop)
}

/// Puts rows into the live database, all of them or none, while n8n works with it.
pub fn put_rows(app: &App, puts: &[Put], guard: Option<Guard<'_>>) -> Result<()> {
    let docker = app.docker()?;
    let database = database(app)?;
    docker.running(&database.container, SETTING)?;
    let node = Node::new(app, &docker, &database.container);
    let texts = |texts: &[String]| Json::List(texts.iter().map(Json::text).collect());
    let row = |row: &Vec<Option<String>>| Json::List(row.iter().map(|field| Json::maybe(field.as_ref())).collect());
    let puts = puts.iter().map(|put| {
        let how = match put.how {
            How::Insert => "insert",
            How::InsertMissing => "missing",
            How::Replace => "replace",
        };
        Json::object([
            ("table", Json::text(&put.table.name)),
            ("how", Json::text(how)),
            ("columns", texts(&put.columns)),
            ("rows", Json::List(put.rows.iter().map(row).collect())),
        ])
    });
    let guard = guard.map_or(Json::Null, |guard| {
        let refused = |column: &str, why| Json::object([("column", Json::text(column)), ("told", Json::text(why))]);
        let read = guard.read.map_or(Json::Null, |(column, value)| {
            let value = Json::maybe(value);
            Json::object([
                ("column", Json::text(column)),
                ("value", value),
                ("told", Json::text(CHANGED)),
            ])
        });
        Json::object([
            ("table", Json::text(&guard.table.name)),
            ("id", Json::text(guard.id)),
            (
                "off",
                Json::List(guard.off.iter().map(|column| refused(column, IN_USE)).collect()),
            ),
            ("read", read),
        ])
    });
    let request = Json::object([
        ("puts", Json::List(puts.collect())),
        ("guard", guard),
        ("gone", Json::text(GONE)),
    ]);
    lacking(&node.put(&database.path, &request)?)
}
