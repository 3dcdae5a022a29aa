use super::*;
use crate::store::manifest::Member;

/// The parts of a stack on PostgreSQL.
const PARTS: [Kind; 4] = [Kind::Postgres, Kind::Redis, Kind::N8n, Kind::Env];

fn stamp(text: &str) -> Stamp {
    Stamp::parse(text).unwrap()
}

/// Files there: `DAY KINDS`, for a point of that day of 2026 with these files, its manifest first unless there is a `-`.
fn there(points: &[&str]) -> Remote {
    let mut names = Vec::new();
    for point in points {
        let (day, kinds) = point.split_once(' ').unwrap();
        if !kinds.contains('-') {
            names.push(format!("sets/2026{day}_020000.sha256"));
        }
        for (letter, name) in [
            ('p', "postgres/n8n_DAY_020001.sql.gz"),
            ('r', "redis/dump_DAY_020000.rdb.gpg"),
            ('n', "n8n/n8n_data_DAY_020003.tar.gz"),
            ('e', "env/env_DAY_020000.backup.gpg"),
        ] {
            if kinds.contains(letter) {
                names.push(name.replace("DAY", &format!("2026{day}")));
            }
        }
    }
    names.extend(["env/mine.backup.gpg", "other/n8n_20200101_000000.sql.gz"].map(str::to_owned));
    names.into_iter().map(|name| (name, Some(1))).collect()
}

fn rules(days: u64, last: usize) -> Rules {
    Rules {
        days,
        last,
        ..Rules::default()
    }
}

/// The days of which the manifests go, and how many files do.
fn gone(there: &Remote, rules: &Rules) -> (Vec<String>, usize) {
    let now = stamp("20261101_000000").time();
    let expired = expired(&[place(there, &[])], now, rules).unwrap();
    let days = expired.sets.iter().map(|name| name[9..13].to_owned());
    (days.collect(), expired.files.len())
}

#[test]
fn age_there_counts_from_the_newest_point() {
    let files = there(&["0101 pe", "0109 e", "0131 pe"]);
    assert_eq!(gone(&files, &rules(29, 0)), (vec!["0101".to_owned()], 2));
    assert_eq!(
        gone(&files, &rules(1, 0)),
        (vec!["0101".to_owned(), "0109".to_owned()], 3)
    );
    assert_eq!(gone(&there(&["0101 -pe", "0109 -e"]), &rules(1, 0)), (vec![], 0));
}

#[test]
fn the_last_of_each_component_stays_there() {
    // What was sent in part is not relied on.
    let mut points = vec!["0101 pe", "0102 e", "0103 -p", "0201 e", "0301 e"];
    assert_eq!(gone(&there(&points), &rules(30, 0)), (vec!["0102".to_owned()], 2));
    points.push("0302 p");
    assert_eq!(gone(&there(&points), &rules(30, 0)).1, 4);
}

#[test]
fn the_newest_complete_points_stay_there() {
    let mut points = vec![
        "0101 prne",
        "0102 prne",
        "0103 prne",
        "0104 prne",
        "0105 pre",
        "0901 prne",
    ];
    // One run under a wrong clock, or after a long time.
    let expected = (vec!["0101".to_owned(), "0102".to_owned(), "0105".to_owned()], 11);
    assert_eq!(gone(&there(&points), &rules(30, 3)), expected);
    // One that is dated in the future neither counts nor makes the others old.
    points[5] = "1231 prne";
    assert_eq!(gone(&there(&points), &rules(30, 3)), (vec![], 0));
    assert_eq!(gone(&there(&points), &rules(0, 3)), (vec!["0101".to_owned()], 4));
}

/// A point that this host knows, with files of these kinds, of a byte each.
fn point(day: &str, kinds: &[Kind]) -> Point {
    let stamp = stamp(&format!("2026{day}_020000"));
    let mut point = Point::new(stamp);
    for kind in kinds {
        let end = if matches!(kind, Kind::Redis | Kind::Env) {
            ENCRYPTED
        } else {
            ""
        };
        let seconds = match kind {
            Kind::Postgres => 1,
            Kind::N8n => 3,
            _ => 0,
        };
        point.set(&format!("size.{}", kind.dir()), "1");
        point.members.push(Member {
            kind: *kind,
            name: format!(
                "{}/{}2026{day}_02000{seconds}{}{end}",
                kind.dir(),
                kind.prefix(),
                kind.suffix()
            ),
            sha256: "0".repeat(64),
        });
    }
    point
}

fn place<'a>(files: &'a Remote, points: &'a [Point]) -> Place<'a> {
    Place {
        prefix: String::new(),
        there: &files.unnamed,
        known: points.iter().map(|point| (point.stamp, point)).collect(),
        locked: &[],
    }
}

#[test]
fn a_directory_that_is_empty_there_tells_nothing() {
    let files = there(&["0101 re", "0901 re"]);
    let now = stamp("20261101_000000").time();
    let with = |kinds: &[Kind]| {
        let points = [point("0901", kinds)];
        expired(&[place(&files, &points)], now, &rules(30, 0))
    };
    assert_eq!(with(&[Kind::Redis, Kind::Env]).unwrap().sets.len(), 1);
    let error = with(&[Kind::Postgres, Kind::Env]).unwrap_err().to_string();
    assert!(error.starts_with("postgres/ is empty there"), "{error}");
}

#[test]
fn what_this_host_knows_of_the_instant_counts() {
    let files = there(&["0101 prne", "0102 prne"]);
    let mut points = [point("0101", &PARTS), point("0102", &PARTS)];
    points[0].set("begun", "2026-01-07T02:00:00+00:00");
    points[1].set("begun", "2026-01-02T02:00:00+00:00");
    let now = stamp("20260111_020000").time();
    let expired = expired(&[place(&files, &points)], now, &rules(2, 1)).unwrap();
    assert_eq!(expired.sets, ["sets/20260102_020000.sha256"]);
}

/// The crontab lines of single commands begin in the same second, and manifests give way to each other.
#[test]
fn files_of_one_second_stay_with_the_points_that_name_them() {
    let names = [
        "sets/20260101_020001.sha256",
        "sets/20260101_020002.sha256",
        "redis/dump_20260101_020001.rdb",
        "n8n/n8n_data_20260101_020001.tar.gz",
        "sets/20260901_020000.sha256",
        "redis/dump_20260901_020000.rdb.gpg",
    ];
    let there: Remote = names.iter().map(|name| ((*name).to_owned(), Some(1))).collect();
    let single = |set: &str, name: &str| {
        let sum = "0".repeat(64);
        Point::parse(&format!("# n8n-backup recovery point {set}\n{sum}  {name}\n")).unwrap()
    };
    let points = [
        single("20260101_020001", names[2]),
        single("20260101_020002", names[3]),
        point("0901", &[Kind::Redis]),
    ];
    let gone = |points: &[Point]| {
        let expired = expired(&[place(&there, points)], stamp("20261101_000000").time(), &rules(30, 0)).unwrap();
        (expired.sets, expired.files)
    };
    let [old, dump] = [names[0], names[2]].map(|name| vec![name.to_owned()]);
    assert_eq!(
        gone(&points),
        (old.clone(), dump.clone()),
        "the only archive stays with its manifest"
    );
    // What no point that is known names belongs to one that is not.
    assert_eq!(gone(&[points[0].clone(), points[2].clone()]), (old.clone(), dump));
    // Where there is none, it may be a part of what was sent: the older archive stays.
    let older = ["sets/20250101_020000.sha256", "n8n/n8n_data_20250101_020000.tar.gz"];
    let names = names.into_iter().filter(|name| *name != "sets/20260101_020002.sha256");
    let names = names.chain(older).map(|name| (name.to_owned(), Some(1)));
    let there: Remote = names.collect();
    let expired = expired(
        &[place(&there, &points)],
        stamp("20261101_000000").time(),
        &rules(30, 0),
    )
    .unwrap();
    assert_eq!((expired.sets, expired.files.len()), (old, 2));
}

/// As here: what a restore made of the state before it must not take the place of a good one.
#[test]
fn a_point_that_is_restored_by_name_only_is_relied_on_for_nothing() {
    let files = there(&["0101 prne", "0102 prne", "0103 prne", "0901 re"]);
    let days = ["0101", "0102", "0103"];
    let mut points = days.map(|day| point(day, &PARTS));
    points[2].set("aside", "made right before a restore");
    let now = stamp("20261101_000000").time();
    let expired = expired(&[place(&files, &points)], now, &rules(30, 1)).unwrap();
    let relied_on_the_second = ["sets/20260101_020000.sha256", "sets/20260103_020000.sha256"];
    assert_eq!(expired.sets, relied_on_the_second);
    // Nor must a copy that differs, of the same length, and could not be sent again.
    points[2] = point("0103", &PARTS);
    points[2].set("offsite", "2026-01-03T02:10:00Z there");
    points[2].set("offsite.defect", "it is not as it was sent");
    let again = super::expired(&[place(&files, &points)], now, &rules(30, 1)).unwrap();
    assert_eq!(again.sets, relied_on_the_second);
    points[2].unset("offsite.defect");
    let sent = super::expired(&[place(&files, &points)], now, &rules(30, 1)).unwrap();
    assert_eq!(sent.sets[1], "sets/20260102_020000.sha256");
}

#[test]
fn a_pinned_point_stays_there() {
    let files = there(&["0101 prne", "0102 re", "0103 prne", "0901 prne"]);
    let mut points = [point("0102", &[Kind::Redis, Kind::Env])];
    points[0].set("pinned", "2026-01-02T03:04:05+01:00 before the update");
    let now = stamp("20261101_000000").time();
    let expired = expired(&[place(&files, &points)], now, &rules(30, 1)).unwrap();
    assert_eq!(
        expired.sets,
        ["sets/20260101_020000.sha256", "sets/20260103_020000.sha256"]
    );
    assert_eq!(expired.files.len(), 8);
}

#[test]
fn a_point_that_is_not_whole_there_is_relied_on_for_nothing() {
    let all = ["0101 prne", "0102 prne", "0901 prne", "0902 prne"];
    let now = stamp("20261101_000000").time();
    let days = ["0101", "0102", "0901", "0902"];
    let points = days.map(|day| point(day, &PARTS));
    let gone = |files: &Remote| {
        let expired = expired(&[place(files, &points)], now, &rules(30, 3)).unwrap();
        expired
            .sets
            .iter()
            .map(|name| name[9..13].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(gone(&there(&all)), ["0101"]);
    // A file that is missing, empty or cut there: the point before it is the third whole one.
    let dump = "postgres/n8n_20260901_020001.sql.gz";
    for left in [None, Some(0), Some(9)] {
        let mut files = there(&all);
        match left {
            None => drop(files.unnamed.files.remove(dump)),
            Some(length) => drop(files.unnamed.files.insert(dump.to_owned(), Some(length))),
        }
        assert!(gone(&files).is_empty(), "{left:?}");
    }
    // A manifest without files does not make the others old.
    let alone = there(&["0101 e", "0102 e", "0801 -"]);
    let set = ("sets/20260801_020000.sha256".to_owned(), Some(9));
    let names: Vec<_> = alone.unnamed.files.into_iter().chain([set]).collect();
    let files: Remote = names.into_iter().collect();
    assert_eq!(
        expired(&[place(&files, &[])], now, &rules(30, 0)).unwrap().sets.len(),
        0
    );
}

#[test]
fn a_point_whose_manifest_cannot_be_read_stays_and_is_relied_on_for_nothing() {
    let gone = |points: &[&str], locked: &[&str], last| {
        let files = there(points);
        let locked: Vec<Stamp> = locked.iter().map(|day| stamp(&format!("2026{day}_020000"))).collect();
        let place = Place {
            locked: &locked,
            ..place(&files, &[])
        };
        let expired = expired(&[place], stamp("20261101_000000").time(), &rules(30, last)).unwrap();
        let days = expired.sets.iter().map(|name| name[9..13].to_owned());
        (days.collect::<Vec<_>>(), expired.files.len())
    };
    let points = ["0101 prne", "0102 prne", "0103 prne", "0901 prne", "0902 prne"];
    let none = (vec![], 0);
    assert_eq!(gone(&points, &[], 1).0, ["0101", "0102", "0103"]);
    // It stays, and the others go.
    assert_eq!(
        gone(&points, &["0102"], 1),
        (vec!["0101".to_owned(), "0103".to_owned()], 8)
    );
    // It is not among those that are kept as the newest.
    assert_eq!(
        gone(&points, &["0902"], 2),
        (vec!["0101".to_owned(), "0102".to_owned()], 8)
    );
    // Nor is age counted from it, or anything let go for its files.
    assert_eq!(gone(&points, &["0901", "0902"], 0), none);
    assert_eq!(gone(&["0101 p", "0901 e", "0902 prne"], &["0902"], 0), none);
}

#[test]
fn stacks_are_kept_apart() {
    let [ours, theirs] = ["00000000000000aa", "00000000000000bb"].map(|text| Identity::parse(text).unwrap());
    let names = [
        "stack-00000000000000aa/sets/20260101_020000.sha256.gpg",
        "stack-00000000000000aa/sets/20260101_020000.sha256",
        "stack-00000000000000aa/redis/dump_20260101_020000.rdb.gpg",
        "stack-00000000000000bb/sets/20260101_020000.sha256",
        "stack-x/sets/20260103_020000.sha256",
        "sets/20260102_020000.sha256",
    ];
    let mut remote: Remote = names.iter().map(|name| ((*name).to_owned(), None)).collect();
    assert_eq!(remote.unnamed.sets().collect::<Vec<_>>(), [stamp("20260102_020000")]);
    assert!(remote.stacks.contains_key(&theirs) && remote.stacks.len() == 2);
    let own = remote.take(Some(&ours));
    assert_eq!(
        own.set(stamp("20260101_020000")),
        Some("sets/20260101_020000.sha256.gpg")
    );
    assert!(own.has("redis/dump_20260101_020000.rdb.gpg"));
    assert_eq!(remote.take(None).sets().count(), 0);
    // A manifest without a byte is none.
    let empty: Remote = [("sets/20260102_020000.sha256".to_owned(), Some(0))]
        .into_iter()
        .collect();
    assert_eq!(empty.unnamed.sets().count(), 0);
}

#[test]
fn directories_of_ours_are_told_from_what_others_have_there() {
    let ours = Identity::parse("00000000000000aa");
    for path in [
        "stack-00000000000000aa",
        "sets",
        "env",
        "stack-00000000000000aa/sqlite",
        // In base32 and in base64, as a remote of type crypt has them.
        "p0gq7c4vhdn1u6rm2bsk5tj8ea",
        "fK3n-0Zq_xT9aBcDe1mN2w",
        "p0gq7c4vhdn1u6rm2bsk5tj8ea/fK3n-0Zq_xT9aBcDe1mN2w",
        "fK3n-0Zq_xT9aBcDe1mN2wfK3n-0Zq_xT9aBcDe1mN2",
    ] {
        assert!(is_our_dir(path, None) && is_our_dir(path, ours.as_ref()), "{path}");
    }
    // Another stack's is for that one, and for whoever looks for any.
    for path in ["stack-00000000000000bb", "stack-00000000000000bb/redis"] {
        assert!(is_our_dir(path, None) && !is_our_dir(path, ours.as_ref()), "{path}");
    }
    for path in [
        "stack-old",
        "stack-old/postgres",
        "notes",
        "notes/redis",
        "redis/old",
        "stack-00000000000000aa/old",
        "stack-00000000000000aa/redis/sets",
        "an-old-directory-of-me",
        "NOTES-OF-SOMEBODY-ELSE",
    ] {
        assert!(!is_our_dir(path, None) && !is_our_dir(path, ours.as_ref()), "{path}");
    }
}
