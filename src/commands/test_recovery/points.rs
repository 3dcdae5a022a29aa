//! The recovery points that can be tested.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use anyhow::{ensure, Context as _, Result};

use super::Parts;
use crate::app::App;
use crate::components::drill::{Inconclusive, JOURNAL};
use crate::components::{Component, COMPONENTS};
use crate::process::hinted;
use crate::report::log;
use crate::report::units;
use crate::store::inventory::{self, newest_first};
use crate::store::manifest::{Member, Point};
use crate::store::marks;
use crate::store::{Kind, Stamp};

/// Prints the recovery points, newest first: what could be tested, and what a test has shown. Files without a manifest, as
/// the shell scripts made them, stand by themselves.
pub(super) fn list(app: &App) -> Result<()> {
    let mut text = format!("{:<15}  {:<11}  {:<23}  LAST TEST\n", "RECOVERY POINT", "AGE", "HOLDS");
    let mut bare = String::new();
    for (stamp, point) in &newest_to_oldest(&points(app).context(Inconclusive)?) {
        let age = units::span(age(*stamp, point));
        let line = match point {
            Ok(point) => {
                let parts: Vec<&str> = point.members.iter().map(|member| member.kind.name()).collect();
                let parts = parts.join(" ");
                if has_no_manifest(point) {
                    bare.push_str(&format!("{stamp}  {age:<11}  {parts}\n"));
                    continue;
                }
                let last = point.fact(marks::DRILL).unwrap_or("never");
                format!("{stamp}  {age:<11}  {parts:<23}  {last}")
            }
            Err(error) => format!("{stamp}  {age:<11}  {}", log::ascii(&format!("{error:#}"))),
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if !bare.is_empty() {
        text.push_str(
            "\nFiles that belong to no recovery point, as the shell scripts made them. They can be tested under their stamp, but \
             not\ncompared with what was backed up, and the outcome is not kept:\n",
        );
        text.push_str(&bare);
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("Cannot write to standard output")
}

/// Every recovery point, also those that only the files' names tell of, since they are older than the manifests.
fn points(app: &App) -> Result<BTreeMap<Stamp, Result<Point>>> {
    let mut points = BTreeMap::new();
    for kind in Kind::ALL {
        for entry in app.store.list(kind)? {
            let Some(stamp) = entry.stamp else { continue };
            let name = entry.path.strip_prefix(app.store.root()).unwrap_or(&entry.path);
            if let Ok(point) = points.entry(stamp).or_insert_with(|| Ok(Point::new(stamp))) {
                point.members.push(Member {
                    kind,
                    name: name.display().to_string(),
                    sha256: String::new(),
                });
            }
        }
    }
    for (path, point) in inventory::list(&app.store)? {
        let stamp = path.file_stem().and_then(OsStr::to_str).and_then(Stamp::parse);
        if let Some(stamp) = stamp {
            points.insert(stamp, point);
        }
    }
    Ok(points)
}

/// Whether only the files' names tell of a point.
fn has_no_manifest(point: &Point) -> bool {
    point.members.iter().all(|member| member.sha256.is_empty()) && !point.members.is_empty()
}

/// How old a point is.
fn age(stamp: Stamp, point: &Result<Point>) -> Duration {
    time(stamp, point).elapsed().unwrap_or_default()
}

fn time(stamp: Stamp, point: &Result<Point>) -> SystemTime {
    point.as_ref().map_or_else(|_| stamp.time(), Point::time)
}

/// The points in the order in which the latest is looked for.
fn newest_to_oldest(points: &BTreeMap<Stamp, Result<Point>>) -> Vec<(Stamp, &Result<Point>)> {
    let mut order: Vec<_> = points.iter().map(|(stamp, point)| (*stamp, point)).collect();
    newest_first(&mut order, SystemTime::now(), |(stamp, point)| {
        (time(*stamp, point), *stamp)
    });
    order
}

/// The components to test, in the order in which they are backed up.
///
/// # Errors
/// When the point's stack had no use for any of them.
pub(super) fn used(point: &Point, parts: Parts) -> Result<Vec<&'static dyn Component>> {
    let all = COMPONENTS.iter().copied();
    let used = all.filter(|component| parts.holds(component.kind()) && !point.is_unused(component.kind()));
    let used: Vec<_> = used.collect();
    ensure!(
        !used.is_empty(),
        hinted(
            format_args!("Recovery point {} uses no {}", point.stamp, parts.word()),
            "test-recovery --list shows what each of them holds"
        )
    );
    Ok(used)
}

/// The point to test.
pub(super) fn choose(app: &App, parts: Parts, set: Option<&OsStr>) -> Result<Point> {
    let mut points = points(app).context(Inconclusive)?;
    if let Some(name) = set.filter(|name| *name != "latest") {
        let stamp = name.to_str().and_then(Stamp::parse);
        let point = stamp.and_then(|stamp| points.remove(&stamp));
        return point
            .with_context(|| {
                hinted(
                    format_args!("There is no recovery point {}", name.to_string_lossy()),
                    "test-recovery --list shows those that there are",
                )
            })
            .flatten()
            .context(Inconclusive);
    }
    let wanted = |point: &Result<Point>| match point {
        Ok(point) => {
            let holds = parts.0.iter().all(|kind| point.has(*kind)) && used(point, parts).is_ok();
            holds && point.excluded_from_latest().is_none()
        }
        // One that cannot be read must not be passed over.
        Err(_) => true,
    };
    let order = newest_to_oldest(&points);
    let found = order.iter().position(|(_, point)| wanted(point)).unwrap_or_default();
    let (stamp, _) = *order
        .get(found)
        .context("There is no backup to test yet")
        .context(Inconclusive)?;
    for (newer, point) in &order[..found] {
        let failed = point.as_ref().map(|point| point.listed("failed")).unwrap_or_default();
        if !failed.is_empty() {
            JOURNAL.warn(format_args!(
                "Recovery point {newer} is newer but incomplete: {} failed",
                failed.join(" ")
            ));
        }
    }
    let found = points.remove(&stamp).context("There is no backup to test yet");
    found.flatten().context(Inconclusive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::manifest::UNUSED;
    use crate::testing::TempDir;
    use std::fs;

    #[test]
    fn what_a_point_has_no_use_for_is_not_tested() {
        let mut point = Point::new(Stamp::parse("20260102_030405").unwrap());
        point.set(UNUSED, "redis postgres");
        let of = |point: &Point, parts| {
            let kinds = |used: Vec<&dyn Component>| used.iter().map(|component| component.kind()).collect::<Vec<_>>();
            used(point, parts).map(kinds).map_err(|error| error.to_string())
        };
        let kinds = of(&point, Parts::FULL).unwrap();
        assert!(
            kinds.contains(&Kind::Sqlite) && !kinds.contains(&Kind::Postgres),
            "{kinds:?}"
        );
        assert_eq!(of(&point, Parts::one(Kind::Sqlite)).unwrap(), [Kind::Sqlite]);
        for kind in [Kind::Postgres, Kind::Redis] {
            let told = of(&point, Parts::one(kind)).unwrap_err();
            let expected = format!("Recovery point 20260102_030405 uses no {}", kind.name());
            assert!(told.starts_with(&expected), "{told}");
        }
    }

    #[test]
    fn the_latest_point_is_one_that_uses_what_is_tested() {
        let project = TempDir::new();
        fs::create_dir_all(project.path().join("backups/sets")).unwrap();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        let write = |stamp: &str, kind, unused| {
            let mut point = Point::new(Stamp::parse(stamp).unwrap());
            let path = app.store.path(kind, point.stamp);
            let name = path.strip_prefix(app.store.root()).unwrap().display().to_string();
            let sha256 = "0".repeat(64);
            point.members.push(Member { kind, name, sha256 });
            point.set(UNUSED, unused);
            point.write(&app.store).unwrap();
        };
        let chosen = |kind| choose(&app, Parts::one(kind), None).unwrap().stamp.to_string();
        write("20260103_030405", Kind::Sqlite, "postgres redis");
        assert_eq!(chosen(Kind::Postgres), "20260103_030405");
        write("20260102_030405", Kind::Postgres, "redis");
        assert_eq!(chosen(Kind::Postgres), "20260102_030405");
        assert_eq!(chosen(Kind::Sqlite), "20260103_030405");
    }

    #[test]
    fn a_manifest_that_cannot_be_read_fails_no_test() {
        let project = TempDir::new();
        let name = "20260102_030405";
        fs::create_dir_all(project.path().join(format!("backups/sets/{name}.sha256"))).unwrap();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        for set in [None, Some(OsStr::new("latest")), Some(OsStr::new(name))] {
            let error = choose(&app, Parts::FULL, set).unwrap_err();
            assert!(error.downcast_ref::<Inconclusive>().is_some(), "{error:#}");
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }
}
