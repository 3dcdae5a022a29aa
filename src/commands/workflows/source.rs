//! Where workflows are read: a dump, of a recovery point or by itself, or the live database.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{bail, ensure, Context as _, Result};

use crate::app::App;
use crate::cli::suggestion;
use crate::components::{read_backup, read_tables, recorded_place, told_place};
use crate::formats::n8n::{Directory, Reader, Record, Table, Visitor};
use crate::process::hinted;
use crate::store::lock::InUse;
use crate::store::manifest::Point;
use crate::store::{inventory, is_there, Kind, Stamp, ENCRYPTED, SET_SUFFIX};

/// The two databases. Of a stack one is unused, which no point of it lacks.
const DATABASES: [Kind; 2] = [Kind::Postgres, Kind::Sqlite];

/// A backup of the database, held against the retention of other runs.
pub struct Dump {
    pub path: PathBuf,
    kind: Kind,
    /// The recovery point that it belongs to.
    pub point: Option<Point>,
    _used: Vec<InUse>,
}

/// The dump that is named: a stamp, a manifest, `latest` as without a name, or a file.
pub fn dump_of(app: &App, name: Option<&OsStr>) -> Result<Dump> {
    let Some(name) = name.filter(|name| *name != "latest") else {
        return of_point(app, &latest(app)?);
    };
    let text = name.to_string_lossy();
    if let Some(stamp) = Stamp::parse(&text) {
        return of_stamp(app, stamp);
    }
    let path = Path::new(name);
    if !is_there(path) {
        let parts = ["export", "diff", "restore"].map(str::to_owned).into_iter();
        bail!("Backup file not found: {}{}", path.display(), suggestion(&text, parts));
    }
    if text.ends_with(SET_SUFFIX) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let stamp = Stamp::parse(&stem).with_context(|| format!("{text} has no name of a manifest"))?;
        return of_stamp(app, stamp);
    }
    let plain = text.strip_suffix(ENCRYPTED).unwrap_or(&text);
    let ends = |name: &str| plain.strip_suffix(".gz").unwrap_or(plain).ends_with(name);
    let kinds = [(".sql", Kind::Postgres), (".sqlite", Kind::Sqlite)].into_iter();
    let kind = kinds.filter(|(name, _)| ends(name)).map(|(_, kind)| kind).next();
    let kind = kind.filter(|_| path.is_file()).with_context(|| {
        format!(
            "{} is no dump: its name must end with .sql.gz, or .sqlite.gz",
            path.display()
        )
    })?;
    Ok(Dump {
        path: path.to_owned(),
        kind,
        _used: InUse::hold([path])?,
        // The file can be read whatever has become of our own.
        point: inventory::point_of(&app.store, path)
            .ok()
            .flatten()
            .map(|(point, _)| point),
    })
}

fn of_stamp(app: &App, stamp: Stamp) -> Result<Dump> {
    let path = app.store.set_path(stamp);
    ensure!(is_there(&path), "There is no recovery point {stamp}");
    of_point(app, &Point::load(&path)?)
}

fn of_point(app: &App, point: &Point) -> Result<Dump> {
    let member = DATABASES.iter().find_map(|kind| point.member(*kind));
    let member = member.with_context(|| format!("Recovery point {} holds no dump of the database", point.stamp))?;
    Ok(Dump {
        _used: point.hold(&app.store)?,
        path: app.store.root().join(&member.name),
        kind: member.kind,
        point: Some(point.clone()),
    })
}

/// The newest point that has a dump.
fn latest(app: &App) -> Result<Point> {
    let points = inventory::latest_first(&app.store, SystemTime::now())?;
    inventory::latest(points, |point| point.why_not_latest(&DATABASES).is_none())?
        .context("There is no recovery point with a dump of the database yet: name a file")
}

/// Reads a dump.
pub fn read<V: Visitor>(app: &App, dump: &Dump, visitor: V) -> Result<(V, Directory)> {
    let names = Table::ALL.map(Table::name);
    let place = dump.point.as_ref().and_then(recorded_place);
    let rows = Reader::rows(visitor, place.or_else(|| told_place(app)));
    read_backup(app, dump.kind, dump.point.as_ref(), &dump.path, &names, rows)
        .and_then(Reader::finish)
        .with_context(|| format!("Cannot read the workflows of {}", dump.path.display()))
}

/// Reads the live database, and changes nothing in it.
pub fn read_live<V: Visitor>(app: &App, visitor: V) -> Result<(V, Directory)> {
    let names = Table::ALL.map(Table::name);
    read_tables(app, &names, Reader::rows(visitor, told_place(app)))
        .and_then(Reader::finish)
        .context("Cannot read the workflows of the live database")
}

/// Refuses to go on where a row is not as it was read: a question may have waited for its answer in between, and what
/// is saved first is what was read. What n8n itself notes in a workflow that runs makes no difference; a person's edit has
/// a version of its own.
pub fn check_unchanged(before: Option<&Record>, now: Option<&Record>) -> Result<()> {
    let values = |row: &Record| -> Vec<(String, Option<String>)> {
        const NOTED: [&str; 3] = ["staticData", "versionCounter", "triggerCount"];
        let fields = row
            .fields()
            .filter(|(column, _)| !NOTED.contains(&column.name.as_str()));
        fields
            .map(|(column, field)| (column.name.clone(), field.map(str::to_owned)))
            .collect()
    };
    ensure!(
        before.map(values) == now.map(values),
        hinted(
            "It has changed in n8n meanwhile, so nothing was done",
            "run the same command again"
        )
    );
    Ok(())
}

/// What n8n changes whenever it saves a row, and the value that was read.
pub fn as_read(row: &Record) -> Option<(&'static str, Option<&str>)> {
    let column = "updatedAt";
    row.has(column).then(|| (column, row.get(column)))
}

/// What may have been meant by an ID: those with a similar ID, or with it in their name.
pub fn similar<'a>(id: &str, known: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let wanted = id.to_lowercase();
    let (by_name, others): (Vec<_>, Vec<_>) = known.partition(|(_, name)| name.to_lowercase().contains(&wanted));
    if by_name.is_empty() {
        return suggestion(id, others.into_iter().map(|(id, _)| id.to_owned()));
    }
    let named: Vec<String> = by_name
        .iter()
        .take(5)
        .map(|(id, name)| format!("{id} ({})", crate::formats::text::ascii(name)))
        .collect();
    format!(", did you mean {}?", named.join(" or "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;
    use crate::store::manifest::{Member, UNUSED};
    use crate::store::marks::Mark;
    use crate::testing::TempDir;

    #[test]
    fn the_latest_point_is_one_with_a_whole_dump() {
        for (database, unused) in [(Kind::Sqlite, "postgres redis"), (Kind::Postgres, "redis")] {
            let project = TempDir::new();
            let app = App::new(Config::without_env_file(project.path()).unwrap());
            let write = |stamp: &str, kind: Kind, damaged: &[Kind]| {
                let mut point = Point::new(Stamp::parse(stamp).unwrap());
                let path = app.store.path(kind, point.stamp);
                let name = path.strip_prefix(app.store.root()).unwrap().display().to_string();
                let sha256 = "0".repeat(64);
                point.members.push(Member { kind, name, sha256 });
                point.set(UNUSED, unused);
                point.mark(&Mark::Damaged(damaged.to_vec()));
                point.write(&app.store).unwrap();
            };
            let found = || latest(&app).ok().map(|point| point.stamp.to_string());
            // A backup of the home by itself, and one that verify has found damaged.
            write("20260104_030405", Kind::N8n, &[]);
            write("20260103_030405", database, &[database]);
            assert_eq!(found(), None, "{database:?}");
            write("20260102_030405", database, &[]);
            write("20260101_030405", database, &[]);
            assert_eq!(found().as_deref(), Some("20260102_030405"), "{database:?}");
            // It may be the latest.
            let unreadable = app.store.set_path(Stamp::parse("20260105_030405").unwrap());
            fs::create_dir(&unreadable).unwrap();
            let told = format!("{:#}", latest(&app).unwrap_err());
            assert!(told.contains(&unreadable.display().to_string()), "{told}");
        }
    }
}
