use std::os::unix::fs::{chown, MetadataExt};

use super::*;
use crate::store::inventory::list;
use crate::store::lock::remove_unused;
use crate::testing::{skip, TempDir};

fn sample() -> Point {
    let mut point = Point::new(Stamp::parse("20260102_030405").unwrap());
    point.set("tool", "n8n-backup 0");
    point.set("postgres.rows.public.odd: \n\u{e4}", "3");
    for kind in [Kind::Postgres, Kind::Env] {
        let name = format!("{}/x{}", kind.dir(), kind.suffix());
        point.members.push(Member {
            kind,
            name,
            sha256: "0".repeat(64),
        });
    }
    point
}

#[test]
fn what_is_written_is_read_again() {
    let dir = TempDir::new();
    let store = Store::new(dir.path().join("backups"));
    let mut point = sample();
    let path = point.write(&store).unwrap();
    assert_eq!(Point::load(&path).unwrap(), point);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.is_ascii());
    assert_eq!(list(&store).unwrap().len(), 1);
    assert!(!point.is_complete());
    point.remove(&store).unwrap();
    assert!(list(&store).unwrap().is_empty());
}

#[test]
fn what_is_away_is_noted_beside_what_was() {
    let mut point = sample();
    for (name, all) in [
        ("backups", "backups"),
        ("redis", "backups redis"),
        ("backups", "backups redis"),
    ] {
        point.add_away(name);
        assert_eq!(point.fact(AWAY), Some(all));
    }
    assert!(point.was_away("redis") && !point.was_away("postgres"));
}

#[test]
fn a_mark_that_root_sets_takes_the_manifest_from_nobody() {
    if atomic::own_user() != Some(0) {
        return skip("manifest::a_mark_that_root_sets", "it needs root");
    }
    let dir = TempDir::new();
    let store = Store::new(dir.path().join("backups"));
    fs::create_dir(store.root()).unwrap();
    chown(store.root(), Some(65534), Some(65534)).unwrap();
    let mut point = sample();
    let path = point.write(&store).unwrap();
    assert_eq!(path.metadata().unwrap().uid(), 65534);
    // One that an earlier version has left with root is given back.
    chown(&path, Some(0), Some(0)).unwrap();
    update(&store, point.stamp, |point| point.set(UNUSED, "redis")).unwrap();
    let meta = path.metadata().unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (65534, 0o600));
}

#[test]
fn a_point_never_takes_the_place_of_another() {
    let dir = TempDir::new();
    let store = Store::new(dir.path().join("backups"));
    let (mut first, mut second) = (sample(), sample());
    second.set("tool", "another run of the same second");
    let paths = [first.write(&store).unwrap(), second.write(&store).unwrap()];
    assert_ne!(first.stamp, second.stamp);
    assert_eq!(paths.map(|path| Point::load(&path).unwrap()), [first, second]);
}

#[test]
fn what_cannot_be_opened_keeps_no_other_file_from_being_held() {
    let dir = TempDir::new();
    let store = Store::new(dir.path().join("backups"));
    let point = sample();
    store.make_dir(Kind::Postgres).unwrap();
    let file = store.root().join(&point.members[0].name);
    fs::write(&file, "x").unwrap();
    // In the place of a directory.
    fs::write(store.dir(Kind::Env), "x").unwrap();
    let held = point.hold(&store).unwrap();
    assert!(held.len() == 1 && !remove_unused(&file).unwrap());
    drop(held);
    let deleting = fs::File::open(&file).unwrap();
    deleting.lock().unwrap();
    let error = point.hold(&store).unwrap_err().to_string();
    assert!(error.ends_with("is just being deleted"), "{error}");
}

#[test]
fn a_later_fact_takes_the_place_of_an_earlier_one() {
    let mut point = sample();
    point.set("drill", "failed");
    point.set("drill", "passed");
    assert_eq!(point.fact("drill"), Some("passed"));
    assert_eq!(point.facts("postgres.rows.").count(), 1);
}

#[test]
fn a_point_is_complete_with_the_one_database_that_its_stack_has() {
    let of = |kinds: &[Kind], unused: &str| {
        let mut point = Point::new(Stamp::parse("20260102_030405").unwrap());
        if !unused.is_empty() {
            point.set(UNUSED, unused);
        }
        for kind in kinds {
            point.members.push(Member {
                kind: *kind,
                name: format!("{}/x{}", kind.dir(), kind.suffix()),
                sha256: "0".repeat(64),
            });
        }
        point
    };
    use Kind::{Env, N8n, Postgres, Redis, Sqlite};
    // Also as earlier versions made them, which knew neither the fact nor SQLite.
    assert!(of(&[Postgres, Redis, N8n, Env], "").is_complete());
    assert!(of(&[Postgres, N8n, Env], "redis").is_complete());
    assert!(of(&[Sqlite, N8n], "redis env postgres").is_complete());
    for (kinds, unused) in [
        (&[Redis, N8n, Env][..], ""),
        (&[N8n, Env], "redis"),
        (&[N8n], "redis env postgres"),
        (&[Sqlite], "redis env postgres"),
    ] {
        assert!(!of(kinds, unused).is_complete(), "{kinds:?} {unused}");
    }
    let lacks = of(&[N8n], "redis env postgres").missing_parts(&Kind::PARTS);
    assert_eq!(lacks.as_deref(), Some("it holds no sqlite"));
    let lacks = of(&[N8n, Env], "redis").missing_parts(&Kind::PARTS);
    assert_eq!(lacks.as_deref(), Some("it holds no postgres"));
    // What only file names tell of.
    let bare = of(&[Sqlite], "");
    assert!(bare.is_unused(Postgres) && !bare.is_unused(Sqlite));
}

#[test]
fn what_is_not_a_manifest_is_refused() {
    for text in [
        "",
        "x",
        "# n8n-backup recovery point 2026",
        "# n8n-backup recovery point 20260102_030405\nx y",
    ] {
        assert!(Point::parse(text).is_err(), "{text}");
    }
    for name in [
        "/etc/postgres/x.sql.gz",
        "../postgres/x.sql.gz",
        "postgres/../../x.sql.gz",
        "postgres/a/x.sql.gz",
        "n8n/postgres/x.sql.gz",
        "postgres/.x.sql.gz",
        "postgres/x.rdb",
    ] {
        let text = format!("{TITLE}20260102_030405\n{}  {name}\n", "0".repeat(64));
        assert!(Point::parse(&text).is_err(), "{name}");
    }
}

#[test]
fn what_is_cut_off_is_refused() {
    let sum = "0".repeat(64);
    let head = format!("{TITLE}20260102_030405\n");
    let whole =
        format!("{head}# failed: redis\n# size.env: 3\n# size.n8n: 4\n{sum}  n8n/x.tar.gz\n{sum}  env/x.backup\n");
    let ends: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at + 1).collect();
    for end in &ends[..ends.len() - 1] {
        let error = Point::parse(&whole[..*end]).unwrap_err().to_string();
        assert!(error.starts_with("it is cut off: it "), "{end}: {error}");
    }
    Point::parse(&whole).unwrap();
    // What the retention leaves, and what was written when no sizes were.
    for good in [
        format!("{head}# size.env: 3\n# size.n8n: 4\n# deleted: n8n\n{sum}  env/x.backup\n"),
        format!("{head}# size.env: 3\n# deleted: env\n"),
        format!("{head}{sum}  env/x.backup\n"),
    ] {
        Point::parse(&good).unwrap();
    }
    let two = format!("{head}{sum}  env/x.backup\n{sum}  env/y.backup\n");
    let error = Point::parse(&two).unwrap_err().to_string();
    assert_eq!(error, "it names two files of env");
}

#[test]
fn marks_are_made_on_what_is_on_disk_now() {
    let dir = TempDir::new();
    let store = Store::new(dir.path().join("backups"));
    let mut point = sample();
    point.write(&store).unwrap();
    update(&store, point.stamp, |point| point.set("drill", "passed")).unwrap();
    update(&store, point.stamp, |point| point.set("verified", "now")).unwrap();
    update(&store, point.stamp, |point| point.unset("tool")).unwrap();
    let now = Point::load(&point.path(&store)).unwrap();
    assert_eq!(
        (now.fact("drill"), now.fact("verified"), now.fact("tool")),
        (Some("passed"), Some("now"), None)
    );
    now.remove(&store).unwrap();
    update(&store, point.stamp, |point| point.set("verified", "again")).unwrap();
    assert!(list(&store).unwrap().is_empty());
}

#[test]
fn a_manifest_under_another_points_name_is_not_taken_for_it() {
    let dir = TempDir::new();
    let store = Store::new(dir.path().join("backups"));
    let path = sample().write(&store).unwrap();
    fs::rename(path, store.set_path(Stamp::parse("20270102_030405").unwrap())).unwrap();
    assert!(list(&store).unwrap()[0].1.is_err());
}

#[test]
fn lists_of_components_are_read() {
    let mut point = sample();
    assert!(point.listed("failed").is_empty());
    point.set("failed", NONE);
    assert!(point.listed("failed").is_empty());
    point.set("failed", "redis env");
    assert_eq!(point.listed("failed"), ["redis", "env"]);
    point.set("size.env", "12");
    assert_eq!((point.size(Kind::Env), point.size(Kind::Redis)), (Some(12), None));
}
