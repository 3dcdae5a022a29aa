//! list: the recovery points, for a person who has to choose one, or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Local, SecondsFormat};

use super::shared::open;
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::formats::json::Json;
use crate::report::log;
use crate::report::units;
use crate::store::inventory::{Inventory, PointOnDisk, State};
use crate::store::marks;
use crate::store::{total, Entry, Kind};

const JSON: Flag = Flag::new("json", "as JSON, for other programs");
const ALL: Flag = Flag::new(
    "all",
    "name each file that belongs to no recovery point, not only their number",
);

pub const COMMAND: Command = Command {
    row: &Row {
        name: "list",
        summary: "list the recovery points, oldest first",
        details: "For each: age, size of each component, rows and keys, whether it is complete, when it was\n\
                  verified, proven by a drill and copied off-site, and whether it is pinned; then the files that belong to no recovery point.\n\
                  Reads no backup and needs no docker.",
        flags: &[ALL, JSON],
        ..Row::TELLS
    },
    run: Run::Project(|project, call| list(&open(project, call)?, call.has(&JSON), call.has(&ALL)).map(|()| 0)),
};

/// Prints what there is to standard output, oldest first. `all` names each file that belongs to no recovery point; else the
/// table counts them.
fn list(app: &App, json: bool, all: bool) -> Result<()> {
    let inventory = Inventory::take(&app.store)?;
    inventory.check_listed()?;
    let now = SystemTime::now();
    let text = if json {
        as_json(app, &inventory, now)
    } else {
        as_table(app, &inventory, now, all)
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("Cannot print the list")
}

/// The table, its columns as wide as what stands in them.
fn as_table(app: &App, inventory: &Inventory, now: SystemTime, all: bool) -> String {
    let mut text = String::new();
    if inventory.points.is_empty() {
        text.push_str("There is no recovery point yet.\n");
    } else {
        let mut head = vec!["POINT".to_owned(), "AGE".to_owned()];
        let kinds = columns(inventory);
        for kind in &kinds {
            head.push(kind.name().to_ascii_uppercase());
            head.extend(kind.counted().map(|(what, _)| what.to_owned()));
        }
        head.push("STATE".to_owned());
        let mut rows = vec![head];
        rows.extend(inventory.points.iter().map(|held| row(held, &kinds, now)));
        table(&mut text, &rows);
    }
    if !inventory.unrecorded.is_empty() {
        let (of, rows) = match all {
            true => (" (below backups/)", named(app.store.root(), &inventory.unrecorded, now)),
            false => (" (list --all names each)", counted(&inventory.unrecorded, now)),
        };
        let _ = writeln!(text, "\nFiles that belong to no recovery point{of}:");
        table(&mut text, &rows);
    }
    for away in &inventory.away {
        let _ = writeln!(text, "\nNot there now: {away}");
    }
    for (path, error) in &inventory.unreadable {
        let _ = writeln!(text, "\nCannot be read: {}: {error:#}", path.display());
    }
    log::ascii_lines(&text)
}

/// The cells of each file, its path as it is below `root`.
fn named(root: &Path, unrecorded: &[(Kind, Entry)], now: SystemTime) -> Vec<Vec<String>> {
    let cells = |entry: &Entry| {
        let path = entry.path.strip_prefix(root).unwrap_or(&entry.path);
        vec![
            path.display().to_string(),
            units::du(entry.bytes),
            age(entry.modified, now),
        ]
    };
    unrecorded.iter().map(|(_, entry)| cells(entry)).collect()
}

/// The cells of each kind that has files: how many, their size, the age of the newest.
fn counted(unrecorded: &[(Kind, Entry)], now: SystemTime) -> Vec<Vec<String>> {
    let cells = |kind: Kind| {
        let files: Vec<&Entry> = unrecorded
            .iter()
            .filter(|(k, _)| *k == kind)
            .map(|(_, entry)| entry)
            .collect();
        let newest = files.iter().map(|entry| entry.modified).max()?;
        Some(vec![
            kind.name().to_owned(),
            format!("{} file(s)", files.len()),
            units::du(total(files.iter().map(|entry| entry.bytes))),
            format!("newest {}", age(newest, now)),
        ])
    };
    Kind::ALL.into_iter().filter_map(cells).collect()
}

/// The parts that have columns: of the two databases, those that some point is of.
fn columns(inventory: &Inventory) -> Vec<Kind> {
    let is_shown =
        |kind: &Kind| !kind.is_database() || inventory.points.iter().any(|held| !held.point.is_unused(*kind));
    Kind::PARTS.into_iter().filter(is_shown).collect()
}

/// The cells of a point.
fn row(held: &PointOnDisk, kinds: &[Kind], now: SystemTime) -> Vec<String> {
    let mut cells = vec![held.point.stamp.to_string(), age(held.point.time(), now)];
    let failed = held.point.listed("failed");
    for kind in kinds.iter().copied() {
        let file = held.files.iter().find(|file| file.member.kind == kind);
        cells.push(match file {
            Some(file) => match (file.state, &file.entry) {
                (State::Present, Some(entry)) => units::du(entry.bytes),
                (state, _) => state.name().to_owned(),
            },
            None if failed.contains(&kind.name()) => "failed".to_owned(),
            None => "-".to_owned(),
        });
        if let Some((_, fact)) = kind.counted() {
            cells.push(held.point.fact(fact).unwrap_or("-").to_owned());
        }
    }
    let mut state = vec![completeness(held)];
    state.extend(held.point.excluded_from_latest().map(str::to_owned));
    if held.point.fact("postgres.executions").is_some() {
        state.push("without executions".to_owned());
    }
    if let Some(time) = held.point.fact("verified") {
        state.push(format!("verified {}", date(time)));
    }
    if let Some(drill) = held.point.fact("drill") {
        let words: Vec<&str> = drill.split(' ').map(date).collect();
        state.push(format!("drill {}", words.join(" ")));
    }
    match held.point.whole_copy() {
        Some(offsite) => state.push(format!("off-site {}", date(offsite))),
        None => state.extend(held.point.copy_defect().map(|_| "off-site not whole".to_owned())),
    }
    if let Some(pin) = held.point.pin() {
        state.push(match pin.reason {
            Some(reason) => format!("pinned ({reason})"),
            None => "pinned".to_owned(),
        });
    }
    cells.push(state.join(", "));
    cells
}

/// Whether a point is whole; one that was meant to hold less, from a single command, says what.
fn completeness(held: &PointOnDisk) -> String {
    let kinds: Vec<&str> = held.point.members.iter().map(|member| member.kind.name()).collect();
    if held.is_complete() {
        "complete".to_owned()
    } else if held.is_sound() && !kinds.is_empty() && held.point.listed("failed").is_empty() {
        format!("{} only", kinds.join(", "))
    } else {
        "partial".to_owned()
    }
}

/// The date of a time in a manifest.
fn date(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

pub fn table(text: &mut String, rows: &[Vec<String>]) {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(row.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// How long ago something was, in the largest unit of which it is two or more.
fn age(time: SystemTime, now: SystemTime) -> String {
    let Ok(age) = now.duration_since(time) else {
        return "in the future".to_owned();
    };
    let seconds = age.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3600), ("min", 60)] {
        if seconds >= 2 * length {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} s")
}

fn as_json(app: &App, inventory: &Inventory, now: SystemTime) -> String {
    let unrecorded = inventory.unrecorded.iter().map(|(kind, entry)| {
        Json::object([
            ("component", Json::text(kind.name())),
            ("path", path(&entry.path)),
            ("bytes", Json::number(entry.bytes)),
            ("modified", Json::text(rfc3339(entry.modified))),
        ])
    });
    let unreadable = inventory
        .unreadable
        .iter()
        .map(|(at, error)| Json::object([("path", path(at)), ("error", Json::text(format!("{error:#}")))]));
    let away = inventory
        .away
        .iter()
        .map(|away| Json::object([("directory", path(&away.dir)), ("text", Json::text(away.to_string()))]));
    let points = inventory.points.iter().map(|held| point(app, held, now));
    let all = Json::object([
        ("points", Json::List(points.collect())),
        ("loose", Json::List(unrecorded.collect())),
        ("unreadable", Json::List(unreadable.collect())),
        ("away", Json::List(away.collect())),
    ]);
    format!("{all}\n")
}

fn point(app: &App, held: &PointOnDisk, now: SystemTime) -> Json {
    let point = &held.point;
    let fact = |name: &str| Json::maybe(point.fact(name));
    let number = |name: &str| {
        let value = point.fact(name).and_then(|value| value.parse::<u64>().ok());
        value.map_or(Json::Null, Json::number)
    };
    let image = point.facts("n8n.image.").next();
    let image = Json::maybe(image.map(|(_, image)| image.split(' ').next().unwrap_or(image)));
    let files = held.files.iter().map(|file| {
        let bytes = file.entry.as_ref().map(|entry| Json::number(entry.bytes));
        Json::object([
            ("component", Json::text(file.member.kind.name())),
            ("path", path(&app.store.root().join(&file.member.name))),
            ("bytes", bytes.unwrap_or(Json::Null)),
            ("sha256", Json::text(&file.member.sha256)),
            ("state", Json::text(file.state.name())),
        ])
    });
    Json::object([
        ("stamp", Json::text(point.stamp.to_string())),
        ("time", Json::text(rfc3339(point.time()))),
        ("age_seconds", Json::number(seconds(point.time(), now))),
        ("manifest", path(&app.store.set_path(point.stamp))),
        ("complete", Json::Bool(held.is_complete())),
        ("by_name_only", Json::maybe(point.excluded_from_latest())),
        (
            "failed",
            Json::List(point.listed("failed").into_iter().map(Json::text).collect()),
        ),
        ("postgres_version", fact("postgres.version")),
        ("postgres_rows", number("postgres.rows")),
        ("sqlite_rows", number("sqlite.rows")),
        ("postgres_executions", fact("postgres.executions")),
        ("redis_version", fact("redis.version")),
        ("redis_keys", number("redis.keys")),
        ("n8n_files", number("n8n.files")),
        ("n8n_image", image),
        ("verified", fact("verified")),
        ("drill", fact("drill")),
        (
            "proofs",
            Json::Object(
                point
                    .proofs()
                    .into_iter()
                    .map(|(name, text)| (name.to_owned(), Json::text(&text)))
                    .collect(),
            ),
        ),
        ("offsite", Json::maybe(point.whole_copy())),
        ("offsite_defect", Json::maybe(point.copy_defect())),
        ("pinned", fact(marks::PINNED)),
        ("files", Json::List(files.collect())),
    ])
}

/// A path; what is not UTF-8 in it is replaced.
fn path(path: &Path) -> Json {
    Json::text(path.to_string_lossy())
}

/// The age of a point in seconds; negative when it is from the future.
fn seconds(time: SystemTime, now: SystemTime) -> i64 {
    let whole = |age: Duration| i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    match now.duration_since(time) {
        Ok(age) => whole(age),
        Err(ahead) => -whole(ahead.duration()),
    }
}

fn rfc3339(time: SystemTime) -> String {
    DateTime::<Local>::from(time).to_rfc3339_opts(SecondsFormat::Secs, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::{manifest::Point, Stamp};
    use crate::testing::TempDir;

    #[test]
    fn ages_are_told_in_the_unit_that_fits() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(age(now - Duration::from_secs(seconds), now), text);
        }
        assert_eq!(age(now + Duration::from_secs(1), now), "in the future");
    }

    #[test]
    fn a_directory_that_is_away_is_told_as_json_too() {
        let project = TempDir::new();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        let told = || as_json(&app, &Inventory::take(&app.store).unwrap(), SystemTime::now());
        assert!(told().ends_with(", \"away\": []}\n"), "{}", told());
        let stamp = Stamp::parse("20260102_030405").unwrap();
        let text = format!("{}  redis/dump_{stamp}.rdb\n", "0".repeat(64));
        let mut point = Point::parse(&format!("# n8n-backup recovery point {stamp}\n{text}")).unwrap();
        point.write(&app.store).unwrap();
        let dir = app.store.dir(Kind::Redis).display().to_string();
        let expected = format!(
            "\"away\": [{{\"directory\": \"{dir}\", \"text\": \"{dir} holds none of the 1 file(s) that recovery points \
             name\"}}]}}\n"
        );
        assert!(told().ends_with(&expected), "{}", told());
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut text = String::new();
        let rows = [["A", "B"], ["long", "x"]].map(|row| row.map(str::to_owned).to_vec());
        table(&mut text, &rows);
        assert_eq!(text, "A     B\nlong  x\n");
    }
}
