use std::os::unix::fs::symlink;

use super::*;
use crate::store::manifest;
use crate::testing::TempDir;

/// A store with a recovery point for each of the stamps, whose files hold ten bytes each.
fn store(stamps: &[&str]) -> (TempDir, Store) {
    let dir = TempDir::new();
    let store = Store::new(dir.path().join("backups"));
    for stamp in stamps {
        add(&store, stamp, None);
    }
    (dir, store)
}

fn add(store: &Store, stamp: &str, begun: Option<&str>) -> Point {
    let mut point = Point::new(Stamp::parse(stamp).unwrap());
    if let Some(begun) = begun {
        point.set("begun", begun);
    }
    for kind in Kind::ALL {
        let path = store.path(kind, point.stamp);
        fs::create_dir_all(store.dir(kind)).unwrap();
        fs::write(&path, "ten bytes.").unwrap();
        let name = path.strip_prefix(store.root()).unwrap().display().to_string();
        point.set(&format!("size.{}", kind.name()), "10");
        point.members.push(Member {
            kind,
            name,
            sha256: "0".repeat(64),
        });
    }
    Inventory::note_away(store, &mut point);
    point.write(store).unwrap();
    point
}

fn states(store: &Store, kind: Kind) -> Vec<State> {
    let inventory = Inventory::take(store).unwrap();
    let files = inventory.points.iter().flat_map(|held| &held.files);
    files
        .filter(|file| file.member.kind == kind)
        .map(|file| file.state)
        .collect()
}

fn away(store: &Store) -> Vec<&'static str> {
    let inventory = Inventory::take(store).unwrap();
    inventory.away.iter().map(|away| away.name).collect()
}

#[test]
fn files_are_found_with_their_points() {
    let (_dir, store) = store(&["20260102_020000", "20260101_020000"]);
    fs::write(store.dir(Kind::Env).join("mine.backup"), "x").unwrap();
    let inventory = Inventory::take(&store).unwrap();
    assert!(inventory.points.iter().all(PointOnDisk::is_complete));
    assert!(inventory.points[0].point.stamp < inventory.points[1].point.stamp);
    assert!(inventory.unrecorded[0].1.path.ends_with("env/mine.backup"));
    assert_eq!((inventory.unrecorded.len(), inventory.away.len()), (1, 0));
}

#[test]
fn a_state_is_what_can_be_told_without_reading() {
    let (_dir, store) = store(&["20260101_020000", "20260102_020000", "20260103_020000"]);
    let path = |stamp: &str| store.path(Kind::Redis, Stamp::parse(stamp).unwrap());
    let first = path("20260101_020000");
    let of_first = || states(&store, Kind::Redis)[0];
    fs::write(&first, "eleven bytes").unwrap();
    assert_eq!(of_first(), State::Changed);
    fs::remove_file(&first).unwrap();
    assert_eq!(of_first(), State::Missing);
    symlink("nowhere", &first).unwrap();
    assert_eq!(of_first(), State::Unreadable);
    fs::remove_file(&first).unwrap();
    fs::create_dir(&first).unwrap();
    assert_eq!(of_first(), State::Unreadable);
    fs::remove_dir(&first).unwrap();
    fs::rename(path("20260102_020000"), store.root().join("moved")).unwrap();
    symlink("../moved", path("20260102_020000")).unwrap();
    assert_eq!(
        states(&store, Kind::Redis),
        [State::Missing, State::Present, State::Present]
    );
    assert_eq!(
        Inventory::take(&store).unwrap().listings[2].1.files().len(),
        1,
        "a link is left alone"
    );
    super::super::manifest::update(&store, Stamp::parse("20260103_020000").unwrap(), |point| {
        point.set("damaged", "redis");
    })
    .unwrap();
    assert_eq!(states(&store, Kind::Redis)[2], State::Damaged);
}

#[test]
fn a_directory_without_what_is_named_is_away() {
    let (_dir, store) = store(&["20260101_020000", "20260102_020000"]);
    let (redis, elsewhere) = (store.dir(Kind::Redis), store.root().join("elsewhere"));
    fs::rename(&redis, &elsewhere).unwrap();
    assert_eq!(away(&store), ["redis"], "no directory");
    assert_eq!(states(&store, Kind::Redis), [State::Missing; 2]);
    fs::create_dir(&redis).unwrap();
    assert_eq!(away(&store), ["redis"], "an empty one");
    fs::write(redis.join("dump_20200101_000000.rdb"), "x").unwrap();
    assert_eq!(away(&store), ["redis"], "one with something else");
    fs::remove_dir_all(&redis).unwrap();
    symlink("/nonexistent/disk", &redis).unwrap();
    assert_eq!(
        (away(&store), states(&store, Kind::Redis)),
        (vec!["redis"], vec![State::Unreadable; 2])
    );
    fs::remove_file(&redis).unwrap();
    fs::write(&redis, "a file").unwrap();
    let inventory = Inventory::take(&store).unwrap();
    assert!(matches!(inventory.listings[2].1, Listing::Failed(_)) && inventory.check_listed().is_err());
    assert_eq!(away(&store), ["redis"], "no directory at all");
    fs::remove_file(&redis).unwrap();
    // One file that is there is evidence: the other is gone.
    fs::rename(&elsewhere, &redis).unwrap();
    fs::remove_file(store.path(Kind::Redis, Stamp::parse("20260102_020000").unwrap())).unwrap();
    assert!(away(&store).is_empty());
}

#[test]
fn what_is_made_meanwhile_does_not_pass_for_what_should_be_there() {
    let (_dir, store) = store(&["20260101_020000"]);
    fs::rename(store.dir(Kind::Postgres), store.root().join("elsewhere")).unwrap();
    let point = add(&store, "20260102_020000", None);
    assert_eq!(Point::load(&point.path(&store)).unwrap().fact("away"), Some("postgres"));
    assert_eq!(away(&store), ["postgres"], "in the second night, too");
    fs::remove_dir_all(store.dir(Kind::Postgres)).unwrap();
    fs::rename(store.root().join("elsewhere"), store.dir(Kind::Postgres)).unwrap();
    assert!(away(&store).is_empty());
    assert_eq!(states(&store, Kind::Postgres), [State::Present, State::Missing]);
    add(&store, "20260103_020000", None);
    assert!(Point::load(&store.set_path(Stamp::parse("20260103_020000").unwrap()))
        .unwrap()
        .fact("away")
        .is_none());
}

#[test]
fn what_was_deleted_on_purpose_is_not_missed() {
    let (_dir, store) = store(&["20260101_020000", "20260102_020000"]);
    let (redis, disk) = (store.dir(Kind::Redis), store.root().join("disk"));
    let empty = || {
        for entry in store.list(Kind::Redis).unwrap() {
            fs::remove_file(entry.path).unwrap();
        }
    };
    empty();
    assert_eq!(away(&store), ["redis"]);
    let told = Inventory::take(&store).unwrap().away[0].way_out();
    let emptied = redis.join(".emptied");
    let way = format!(": mkdir -p {} && touch {}", redis.display(), emptied.display());
    assert!(told.ends_with(&way), "{told}");
    let blank = Away {
        name: "redis",
        dir: PathBuf::from("/srv/my n8n/redis"),
        named: 1,
    };
    let told = blank.way_out();
    assert!(
        told.ends_with("mkdir -p '/srv/my n8n/redis' && touch '/srv/my n8n/redis/.emptied'"),
        "{told}"
    );
    let file = fs::File::create(&emptied).unwrap();
    file.set_modified(Stamp::parse("20260102_120000").unwrap().time())
        .unwrap();
    assert!(away(&store).is_empty());
    assert_eq!(states(&store, Kind::Redis), [State::Missing; 2]);
    // It says nothing of a disk that is away, nor of what was made since.
    fs::rename(&redis, &disk).unwrap();
    fs::create_dir(&redis).unwrap();
    assert_eq!(away(&store), ["redis"]);
    fs::remove_dir(&redis).unwrap();
    fs::rename(&disk, &redis).unwrap();
    assert_eq!(add(&store, "20260103_020000", None).fact("away"), None);
    assert!(away(&store).is_empty());
    empty();
    assert_eq!(away(&store), ["redis"]);
    // The instant of one may be ahead of its time.
    manifest::update(&store, Stamp::parse("20260103_020000").unwrap(), |point| {
        point.set("finished", "2026-01-02T11:00:00Z")
    })
    .unwrap();
    assert!(away(&store).is_empty());
}

#[test]
fn manifests_that_are_away_are_missed() {
    let (_dir, store) = store(&["20260101_020000", "20260102_020000"]);
    let (sets, elsewhere) = (store.sets_dir(), store.root().join("elsewhere"));
    fs::rename(&sets, &elsewhere).unwrap();
    fs::create_dir(&sets).unwrap();
    assert_eq!(
        away(&store),
        ["sets"],
        "an empty directory, as of a disk that is not mounted"
    );
    let point = add(&store, "20260103_020000", None);
    assert_eq!(point.fact("away"), Some("sets"));
    assert_eq!(away(&store), ["sets"], "in the second night, too");
    fs::remove_dir_all(&sets).unwrap();
    symlink("/nonexistent/disk", &sets).unwrap();
    assert!(Inventory::take(&store).is_err());
    fs::remove_file(&sets).unwrap();
    fs::rename(&elsewhere, &sets).unwrap();
    assert!(away(&store).is_empty());
    // Every manifest was removed, and the lock is left.
    for name in ["20260101_020000", "20260102_020000"] {
        fs::remove_file(store.set_path(Stamp::parse(name).unwrap())).unwrap();
    }
    assert_eq!(away(&store), ["sets"]);
}

#[test]
fn a_disk_of_its_own_that_is_not_mounted_is_missed() {
    // Made before there was a disk, and left beneath it.
    let (dir, store) = store(&["20250101_020000"]);
    disk::tests::lose(&store, "20260101_020000");
    let trace = dir.path().join("logs/.identity");
    assert_eq!(away(&store), ["backups"]);
    assert_eq!(add(&store, "20260102_020000", None).fact("away"), Some("backups"));
    assert_eq!(away(&store), ["backups"], "in the second night, too");
    let told = Inventory::take(&store).unwrap().away[0].way_out();
    assert!(told.ends_with(&format!("say so: rm {}", trace.display())), "{told}");
    fs::rename(&trace, dir.path().join("aside")).unwrap();
    assert!(away(&store).is_empty());
    // Where all was moved here, it is not missed.
    add(&store, "20260101_020000", None);
    fs::rename(dir.path().join("aside"), &trace).unwrap();
    assert!(away(&store).is_empty());
    fs::remove_dir_all(store.root()).unwrap();
    assert_eq!(away(&store), ["backups"], "no directory");
}

#[test]
fn where_no_manifest_ever_was_none_is_missed() {
    let dir = TempDir::new();
    let store = Store::new(dir.path().join("backups"));
    fs::create_dir_all(store.dir(Kind::Env)).unwrap();
    fs::write(
        store.dir(Kind::Env).join("env_20260101_020000.backup"),
        "of the scripts",
    )
    .unwrap();
    assert!(away(&store).is_empty());
    // As the installation leaves it.
    fs::create_dir(store.sets_dir()).unwrap();
    fs::write(store.sets_dir().join(".gitkeep"), "").unwrap();
    assert!(away(&store).is_empty());
    // The first point, in directories that were empty when it was made.
    assert_eq!(add(&store, "20260103_020000", None).fact("away"), None);
    assert!(away(&store).is_empty());
    // From then on the project has an identity, by which the manifests are missed however they went.
    fs::write(store.identity_path(), "00000000000000aa\n").unwrap();
    let (sets, elsewhere) = (store.sets_dir(), store.root().join("elsewhere"));
    fs::rename(&sets, &elsewhere).unwrap();
    assert_eq!(away(&store), ["sets"], "no directory");
    fs::create_dir(&sets).unwrap();
    fs::write(sets.join("lost+found"), "").unwrap();
    assert_eq!(away(&store), ["sets"], "one with something else");
    fs::write(sets.join("20200101_020000.sha256"), "").unwrap();
    assert_eq!(away(&store), ["sets"], "one with a manifest that is none");
    fs::remove_dir_all(&sets).unwrap();
    fs::rename(&elsewhere, &sets).unwrap();
    assert!(away(&store).is_empty());
}

#[test]
fn the_newest_file_is_not_the_one_that_was_written_last() {
    let (_dir, store) = store(&["20260103_020000", "20260101_020000"]);
    let newest = |is_meant: fn(&Point) -> bool| {
        let inventory = Inventory::take(&store).unwrap();
        let entry = inventory.newest_file(Kind::Redis, SystemTime::now(), is_meant);
        entry.map(|entry| entry.stamp.unwrap().to_string())
    };
    let ours = |point: &Point| point.excluded_from_latest().is_none();
    let loose = |stamp: &str| fs::write(store.path(Kind::Redis, Stamp::parse(stamp).unwrap()), "x").unwrap();
    loose("20250101_020000");
    assert_eq!(newest(ours).as_deref(), Some("20260103_020000"));
    // Newer, and set aside.
    let mut aside = add(&store, "20260104_020000", None);
    aside.mark(&Mark::ExcludedFromLatest("made before a restore".to_owned()));
    fs::write(aside.path(&store), aside.text()).unwrap();
    assert_eq!(newest(ours).as_deref(), Some("20260103_020000"));
    assert_eq!(newest(|_| true).as_deref(), Some("20260104_020000"));
    // Of the points whose file is there.
    fs::remove_file(store.path(Kind::Redis, Stamp::parse("20260103_020000").unwrap())).unwrap();
    assert_eq!(newest(ours).as_deref(), Some("20260101_020000"));
    // Where none is meant, the names of the others tell.
    loose("20240101_020000");
    assert_eq!(newest(|_| false).as_deref(), Some("20250101_020000"));
}

#[test]
fn the_order_is_that_of_the_instants() {
    let (_dir, store) = store(&[]);
    // Tokyo, then UTC; and either hour of the night in which clocks are set back.
    add(&store, "20260102_020000", Some("2026-01-02T02:00:00+09:00"));
    add(&store, "20260101_180000", Some("2026-01-01T18:00:00+00:00"));
    add(&store, "20261025_023000", Some("2026-10-25T02:30:00+02:00"));
    add(&store, "20261025_021000", Some("2026-10-25T02:10:00+01:00"));
    // The name tells it where the manifest does not.
    add(&store, "20270101_000000", None);
    let names = |points: Vec<(PathBuf, Result<Point>)>| -> Vec<String> {
        let stamps = points.into_iter().map(|(_, point)| point.unwrap().stamp);
        stamps.map(|stamp| stamp.to_string()).collect()
    };
    let expected = [
        "20260102_020000",
        "20260101_180000",
        "20261025_023000",
        "20261025_021000",
        "20270101_000000",
    ];
    assert_eq!(names(list(&store).unwrap()), expected);
    let latest = |now: &str| names(latest_first(&store, Stamp::parse(now).unwrap().time()).unwrap());
    assert_eq!(latest("20270101_003000")[0], expected[4]);
    let latest = latest("20261201_000000");
    assert_eq!(
        (latest[0].as_str(), latest[4].as_str()),
        (expected[3], expected[4]),
        "{latest:?}"
    );
}

/// The names that are looked at, and what is found to be the newest, of points that are told by `NAME INSTANT WANTED`.
#[test]
fn what_cannot_be_read_is_not_passed_over() {
    let (_dir, store) = store(&["20260101_020000", "20260103_020000"]);
    let latest = |wanted: &str| {
        let points = latest_first(&store, SystemTime::now()).unwrap();
        latest(points, |point| point.stamp.to_string() == wanted)
    };
    // What has no name of ours may lie there, and is never the newest.
    fs::create_dir(store.sets_dir().join("notes.sha256")).unwrap();
    assert!(latest("20260101_020000").unwrap().is_some());
    assert!(latest("20260104_020000").unwrap().is_none());
    let between = store.set_path(Stamp::parse("20260102_020000").unwrap());
    let make: [fn(&Path); 3] = [
        |path| fs::create_dir(path).unwrap(),
        |path| fs::write(path, "# n8n-backup recovery point 20260102_020000\n").unwrap(),
        |path| symlink(path.with_file_name("20260101_020000.sha256"), path).unwrap(),
    ];
    for make in make {
        make(&between);
        assert!(latest("20260103_020000").unwrap().is_some());
        let error = latest("20260101_020000").unwrap_err();
        let told = crate::process::explained(&error);
        assert!(
            told.contains(&between.display().to_string()) && told.contains("by its stamp"),
            "{told}"
        );
        let _ = fs::remove_file(&between);
        let _ = fs::remove_dir(&between);
    }
}

fn look(points: &[(&str, &str, bool)], now: &str) -> (Vec<String>, String) {
    let stamp = |text: &str| Stamp::parse(text).unwrap();
    let mut names = Vec::new();
    let sets = points.iter().map(|point| (stamp(point.0), *point));
    let found = look_newest_first(sets, stamp(now).time(), |stamp_of, (name, instant, wanted)| {
        assert_eq!(stamp_of, stamp(name));
        names.push(name.to_owned());
        Ok(Some((stamp(instant).time(), wanted, (name, wanted))))
    });
    let newest = found.unwrap().into_iter().find(|(_, wanted)| *wanted);
    (names, newest.map(|(name, _)| name.to_owned()).unwrap_or_default())
}

#[test]
fn names_alone_tell_which_manifests_may_be_the_newest() {
    let now = "20260110_120000";
    let mut points = vec![
        ("20260101_020000", "20260101_020000", true),
        ("20260108_020000", "20260108_020000", true),
        // Of a zone far behind, and one far ahead.
        ("20260109_230000", "20260110_100000", true),
        ("20260110_110000", "20260109_210000", true),
    ];
    let (looked, newest) = look(&points, now);
    assert_eq!(newest, "20260109_230000");
    assert_eq!(looked, ["20260110_110000", "20260109_230000"]);
    // What is not looked for, and what is dated in the future by less than the zones are apart, is not the newest.
    points[2].2 = false;
    points[3].2 = false;
    points.push(("20260111_080000", "20260111_080000", true));
    assert_eq!(look(&points, now).1, "20260108_020000");
    // It is where there is no other.
    assert_eq!(look(&points[4..], now).1, "20260111_080000");
    assert_eq!(look(&points[2..4], now).1, "");
}
