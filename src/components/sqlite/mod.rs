//! n8n's database in SQLite: copied by SQLite itself while n8n works with it, and put back by one rename.

mod drill;
mod node;
mod restore;
pub mod tables;

use std::path::Path;

use anyhow::{ensure, Context as _, Result};

use self::node::{explained, Contents, Copying, Node};
use super::drill::{DrillEnv, Drilled};
use super::n8n_data::holds_database;
use super::{check_plain, About, Backup, BackupRun, Component, RestoreOptions, RestorePlan};
use super::{ALLOW_PLAIN, DEACTIVATE, KEEP_OLD, YES};
use crate::app::App;
use crate::cli::Row;
use crate::config::SqliteFile;
use crate::engine::{Container, Data, Docker, Guard, Label, Status};
use crate::formats::sqlite;
use crate::process::hinted;
use crate::report::finding::Report;
use crate::report::log::{self, Journal};
use crate::report::units;
use crate::store::Kind;
use crate::stream::publish::{publish, Packed};
use crate::stream::read::observe;

const JOURNAL: Journal = Journal::new("backup-sqlite");

/// The setting that names n8n's container.
const SETTING: &str = "BACKUP_N8N_CONTAINERS";

const ABOUT: About = About {
    title: "SQLite",
    restored: ["SQLite", "SQLite"],
    backup: Some(Row {
        name: "backup-sqlite",
        summary: "copy n8n's SQLite database to backups/sqlite/n8n_YYYYMMDD_HHMMSS.sqlite.gz",
        in_background: true,
        ..Row::ACTS
    }),
    step: "backup-sqlite.sh",
    restore: Row {
        name: "restore-sqlite",
        summary: "replace n8n's SQLite database by the one in a .sqlite.gz file",
        details: "The file is verified, unpacked beside the live database and proven there; then one rename puts it in its place.\n\
                  n8n is stopped meanwhile.",
        operand: Some("FILE"),
        flags: &[YES, KEEP_OLD, DEACTIVATE, ALLOW_PLAIN],
        ..Row::ACTS
    },
    drill: Some("unpack the database, prove it, and decrypt the credentials with the point's key"),
    kept: "the database is removed once the new one is proven (restore-sqlite --keep-old keeps it)",
    key_place: None,
};

/// The database.
pub struct Sqlite;

impl Component for Sqlite {
    fn kind(&self) -> Kind {
        Kind::Sqlite
    }

    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn backup(&self, app: &App, run: &BackupRun) -> Result<Backup> {
        backup(app, run)
    }

    fn verify(&self, app: &App, file: &Path) -> Result<()> {
        verify(app, file).map(drop)
    }

    fn plan_restore<'a>(
        &self,
        app: &'a App,
        file: &'a Path,
        options: RestoreOptions,
    ) -> Result<Box<dyn RestorePlan + 'a>> {
        Ok(Box::new(restore::prepare(app, file, options, ABOUT.restore_journal())?))
    }

    fn drill<'a>(&self, env: &'a DrillEnv<'a>, file: &Path) -> Result<Drilled<'a>> {
        drill::drill(env, file)
    }

    fn probe(&self, app: &App, docker: Option<&Docker>, report: &mut Report) {
        if let Some(docker) = docker {
            let found = probe(app, docker, report);
            report.result("sqlite", found);
        }
    }
}

/// Where n8n says that its database is.
fn database(app: &App) -> Result<&SqliteFile> {
    app.config.found.sqlite.as_ref().with_context(|| {
        hinted(
            "No container of n8n says where its SQLite database is",
            "start n8n, or set BACKUP_N8N_CONTAINERS in .env to the name of its container",
        )
    })
}

/// Why no restore can replace a database, and what to do, where it is mounted by itself: a mount cannot be renamed.
fn mounted_alone(container: &Container, file: &str) -> Option<(String, String)> {
    let file = Path::new(file);
    let mount = container
        .mounts
        .iter()
        .find(|mount| Path::new(&mount.destination) == file)?;
    let dir = file.parent().unwrap_or(file).display();
    Some((
        format!(
            "n8n's database {} is mounted in {} as a single file, which no restore can replace",
            file.display(),
            container.name
        ),
        format!(
            "stop n8n, put {} into what it mounts at {dir}, and leave out the mount of the file",
            mount.directory
        ),
    ))
}

/// The place of the mount that a database lies on; where there is none, the directory that it is in.
fn place<'a>(container: &'a Container, file: &'a str) -> &'a str {
    let places = container.mounts.iter().map(|mount| mount.destination.as_str());
    let above = places.filter(|at| Path::new(file).starts_with(at) && *at != file);
    let dir = file.rsplit_once('/').map_or("/", |(dir, _)| dir);
    above.max_by_key(|at| at.len()).unwrap_or(dir)
}

/// Why `restore-n8n` would not leave a database as it is, and what to do, where its path leads through a symbolic link
/// in what that replaces.
fn linked(app: &App, docker: &Docker, file: &str, link: &str) -> Option<String> {
    (!link.is_empty() && holds_database(app, docker)).then(|| {
        format!(
            "{file} lies behind a symbolic link, beside which restore-n8n replaces nothing: set DB_SQLITE_DATABASE of \
             n8n's containers to {link}"
        )
    })
}

/// Where the database can be read: in n8n's container, or while that does not run, in one of ours on the same volumes.
enum Reader {
    Live(String),
    Helper(Guard),
}

impl Reader {
    /// Bears `label`, where it is one of ours.
    fn of(docker: &Docker, container: &Container, label: Label<'_>) -> Result<Self> {
        if container.status == Status::Running {
            return Ok(Self::Live(container.name.clone()));
        }
        let helper = docker.helper_container(&[label], &container.image_id, Data::Of(&container.name))?;
        Ok(Self::Helper(helper))
    }

    fn container(&self) -> &str {
        match self {
            Self::Live(name) => name,
            Self::Helper(guard) => guard.id(),
        }
    }
}

/// Copies the database.
///
/// # Errors
/// When there is none, it is damaged or stays locked, there is no room for the copy, or that is not whole.
fn backup(app: &App, run: &BackupRun) -> Result<Backup> {
    JOURNAL.info("Starting SQLite backup");
    log::check_started()?;
    check_plain(app, Kind::Sqlite)?;
    let docker = app.docker()?;
    let database = database(app)?;
    let container = docker.existing(&database.container, SETTING)?;
    let _lock = app.hold(Kind::Sqlite, JOURNAL)?;
    let owner = format!("{}-sqlite", app.owner());
    let label = Label::Helper(&owner);
    docker.sweep(label)?;
    let reader = Reader::of(&docker, &container, label)?;
    let node = Node::new(app, &docker, reader.container());
    let path = app.store.path(Kind::Sqlite, run.stamp);
    if !app.config.executions {
        JOURNAL.warn("BACKUP_EXECUTIONS=off is for PostgreSQL: the copy of a database in SQLite holds all executions");
    }
    if let Some((why, hint)) = mounted_alone(&container, &database.path) {
        JOURNAL.warn(format_args!("{why}: {hint}"));
    }
    JOURNAL.info(format_args!("Copying database {} to {}", database.path, path.display()));
    let backup =
        copied(node, &database.path, place(&container, &database.path), run).context("SQLite backup failed")?;
    backup.report(JOURNAL, "Backup completed");
    Ok(backup)
}

fn copied(node: Node<'_>, file: &str, mount: &str, run: &BackupRun) -> Result<Backup> {
    let (app, docker) = (node.app, node.docker);
    let name = format!(".n8n-backup-sqlite-{}", app.owner());
    let Copying {
        mut chain,
        journal,
        owner,
        link,
        stream,
        contents,
    } = node.copy(app.chain(), file, mount, &name)?;
    // What is read from now on holds all that the copy names.
    run.snapshot.take();
    if let Some(text) = linked(app, docker, file, &link) {
        JOURNAL.warn(text);
    }
    if journal != "wal" {
        JOURNAL.warn(format_args!(
            "The database is in the journal mode {journal}: n8n cannot write while it is copied. n8n 2 uses WAL by itself; n8n 1 does with \
             DB_SQLITE_POOL_SIZE=2"
        ));
    }
    let target = app.target(Kind::Sqlite, run.stamp);
    let packed = Packed::start(&target, &mut chain, stream, sqlite::Scanner::default(), JOURNAL)?;
    let finished = chain.finish().map_err(|error| explained(error, file))?;
    let (partial, bytes, scanner, sha256) = packed.get(&finished)?;
    scanner.finish()?;
    let contents = contents.get(&finished)?;
    let table = format!("{}workflow_entity", app.config.found.table_prefix);
    ensure!(
        contents.tables.iter().any(|(name, _)| *name == table),
        hinted(
            format_args!("The database {file} is not n8n's: it holds no table {table}"),
            "n8n makes its tables when it starts; DB_SQLITE_DATABASE and N8N_USER_FOLDER of its container say where the database is"
        )
    );
    let entry = publish(&app.config, partial, bytes)?;
    let facts = facts(&contents, &journal, &owner);
    Ok(Backup {
        workflows: contents.workflows,
        ..Backup::of(Kind::Sqlite, entry, sha256, facts)
    })
}

/// What a recovery point's manifest says of a database.
fn facts(contents: &Contents, journal: &str, owner: &str) -> Vec<(String, String)> {
    let mut facts = vec![
        ("sqlite.version".to_owned(), contents.version.clone()),
        ("sqlite.journal".to_owned(), journal.to_owned()),
        (OWNER.to_owned(), owner.to_owned()),
        ("sqlite.bytes".to_owned(), contents.length.to_string()),
        ("sqlite.tables".to_owned(), contents.tables.len().to_string()),
        ("sqlite.rows".to_owned(), contents.rows().to_string()),
    ];
    facts.extend(rows(contents));
    facts
}

/// The rows of each table.
fn rows(contents: &Contents) -> impl Iterator<Item = (String, String)> + '_ {
    let each = contents.tables.iter();
    each.map(|(name, rows)| (format!("{ROWS}{name}"), rows.to_string()))
}

/// The fact that tells whose the live database was, and its mode: `UID:GID:MODE`.
const OWNER: &str = "sqlite.owner";

/// The facts with the rows of each table begin so.
const ROWS: &str = "sqlite.rows.";

/// Proves that a file holds a database that is as long as it says.
fn verify(app: &App, file: &Path) -> Result<sqlite::Summary> {
    observe(&app.config, file, sqlite::Scanner::default())?.finish()
}

/// Opens the live database. Warns where it cannot be restored as it is.
fn probe(app: &App, docker: &Docker, report: &mut Report) -> Result<String> {
    let database = database(app)?;
    let container = docker.existing(&database.container, SETTING)?;
    if let Some((why, hint)) = mounted_alone(&container, &database.path) {
        report.warn("sqlite", format!("{why}: {hint}"));
    }
    let (name, path) = (&container.name, &database.path);
    if container.status != Status::Running {
        return Ok(format!(
            "{name} does not run; {path} is read in a container from its image"
        ));
    }
    let node = Node::new(app, docker, name);
    let found = node.probe(path, place(&container, path))?;
    if let Some(text) = linked(app, docker, path, &found.link) {
        report.warn("sqlite", text);
    }
    ensure!(found.length > 0, "{path} in {name} is empty: n8n has not started yet");
    Ok(format!(
        "{path} in {name} holds {} in the journal mode {}",
        units::amount(found.length),
        found.journal
    ))
}
