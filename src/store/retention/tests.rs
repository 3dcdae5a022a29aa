use std::time::Duration;

use chrono::DateTime;

use super::*;

/// Any fixed moment far enough from the epoch: 2023-11-14 22:13:20 UTC, a Tuesday.
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub(super) fn days(n: u64) -> u64 {
    n * DAY
}

fn local(time: SystemTime) -> NaiveDateTime {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    DateTime::from_timestamp(seconds as i64, 0).unwrap().naive_utc()
}

/// A file without a recovery point.
pub(super) fn loose(kind: Kind, age_seconds: u64, good: bool) -> Unit {
    let taken = now() - Duration::from_secs(age_seconds);
    Unit {
        files: vec![File {
            path: PathBuf::from(format!("{}/{:020}", kind.dir(), u64::MAX - age_seconds)),
            kind,
            bytes: 1000,
            grade: if good { Grade::Good } else { Grade::Unproven },
        }],
        taken,
        named: None,
        aged: taken,
        local: local(taken),
        recorded: false,
        pinned: false,
        complete: false,
        unreadable: false,
        verified: false,
        proven: Vec::new(),
    }
}

/// A recovery point with good files of these sizes.
fn point(age_seconds: u64, files: &[(Kind, u64)]) -> Unit {
    let mut unit = loose(Kind::Env, age_seconds, true);
    unit.recorded = true;
    unit.complete = Kind::ALL.iter().all(|kind| files.iter().any(|(of, _)| of == kind));
    unit.files = files
        .iter()
        .map(|(kind, bytes)| File {
            path: PathBuf::from(format!("{}/{:020}", kind.dir(), u64::MAX - age_seconds)),
            kind: *kind,
            bytes: *bytes,
            grade: Grade::Good,
        })
        .collect();
    unit
}

fn full(age_days: u64) -> Unit {
    point(days(age_days), &Kind::ALL.map(|kind| (kind, 1000)))
}

fn keep(days: u64) -> Rules {
    Rules {
        days,
        ..Rules::default()
    }
}

/// Which units go.
pub(super) fn gone(units: &[Unit], rules: &Rules) -> Vec<bool> {
    decide(units, now(), rules).iter().map(Verdict::is_deletion).collect()
}

#[test]
fn ages_count_in_whole_days() {
    // (age in seconds, retention in days, whether it goes); a fresh good file keeps the last-resort rule out of the way.
    let cases = [
        (0, 0, false),
        (days(1) - 1, 0, false),
        (days(1), 0, true),
        (days(7), 7, false),
        (days(8) - 1, 7, false),
        (days(8), 7, true),
        (days(9000), 7, true),
        (days(9000), u64::MAX, false),
        (days(9000), u64::MAX / DAY, false),
    ];
    for (age, retention, goes) in cases {
        let mut fresh = loose(Kind::Redis, 0, true);
        fresh.taken = now() + Duration::from_secs(5);
        let units = [loose(Kind::Redis, age, true), fresh];
        assert_eq!(
            gone(&units, &keep(retention)),
            [goes, false],
            "age {age}, retention {retention}"
        );
    }
}

#[test]
fn a_part_of_a_second_does_not_make_a_day() {
    let taken = now() - Duration::from_secs(days(8)) + Duration::from_nanos(1);
    assert_eq!(age_in_days(taken, now()), 7);
    assert_eq!(age_in_days(now() + Duration::from_secs(DAY), now()), 0);
}

#[test]
fn one_good_backup_of_each_component_stays() {
    let of = |list: &[(Kind, u64, bool)]| -> Vec<bool> {
        let units: Vec<Unit> = list
            .iter()
            .map(|(kind, age, good)| loose(*kind, days(*age), *good))
            .collect();
        gone(&units, &keep(7))
    };
    use Kind::{Postgres, Redis};
    assert_eq!(of(&[]), [false; 0]);
    assert_eq!(of(&[(Postgres, 99, true)]), [false]);
    assert_eq!(
        of(&[(Postgres, 30, true), (Postgres, 10, true), (Postgres, 20, true)]),
        [true, false, true]
    );
    assert_eq!(
        of(&[(Postgres, 10, false), (Postgres, 20, true), (Postgres, 30, true)]),
        [true, false, true],
        "a good one before a newer bad one"
    );
    assert_eq!(of(&[(Postgres, 0, false), (Postgres, 20, true)]), [false, false]);
    assert_eq!(
        of(&[
            (Postgres, 10, false),
            (Redis, 9, true),
            (Postgres, 20, false),
            (Redis, 0, true)
        ]),
        [false, true, true, false],
        "by component; the newest of all where none is good"
    );
}

#[test]
fn the_newest_complete_points_stay_whatever_the_clock_says() {
    let rules = Rules { last: 3, ..keep(7) };
    // A clock that jumped ahead, a host that was off, a run of failures: it cannot be told apart.
    let units: Vec<Unit> = (400..408).map(full).collect();
    assert_eq!(
        gone(&units, &rules),
        [false, false, false, true, true, true, true, true]
    );
    assert_eq!(
        decide(&units, now(), &rules)[2].to_string(),
        "among the newest complete recovery points"
    );
    // What lacks a component, or is no good, does not count as one of them.
    let mut units: Vec<Unit> = (8..16).map(full).collect();
    units[0] = point(days(8), &[(Kind::Env, 1000)]);
    for index in [1, 3] {
        units[index].complete = false;
    }
    assert_eq!(
        gone(&units, &rules),
        [false, false, false, true, false, false, true, true],
        "besides the newest good one of each"
    );
    assert_eq!(gone(&units, &keep(7)).iter().filter(|goes| **goes).count(), 6);
}

#[test]
fn what_is_dated_in_the_future_hides_nothing() {
    let rules = Rules { last: 3, ..keep(7) };
    let mut units: Vec<Unit> = (8..13).map(full).collect();
    let now_on = |mut unit: Unit| {
        unit.taken = now() + Duration::from_secs(days(300));
        unit.aged = unit.taken;
        unit
    };
    units.extend([0, 1, 2].map(full).map(now_on));
    assert_eq!(
        gone(&units, &rules),
        [false, false, false, true, true, false, false, false]
    );
    // Under a clock that was set back they are all that there is.
    assert_eq!(gone(&units[5..], &rules), [false; 3]);
    let found = shrunk(
        &[
            point(days(1), &[(Kind::N8n, 100)]),
            now_on(point(0, &[(Kind::N8n, 1000)])),
        ],
        now(),
    );
    assert_eq!(found, [], "an old one before one of the future is not what shrank");
}

#[test]
fn what_could_not_be_looked_at_stays() {
    let mut units = [full(1), full(20), full(30)];
    units[1].unreadable = true;
    assert_eq!(gone(&units, &keep(7)), [false, false, true]);
    units[1].files.clear();
    assert_eq!(gone(&units, &keep(7)), [false, false, true]);
}

#[test]
fn a_pinned_point_stays_whatever_has_become_of_it() {
    let mut units = [full(1), full(400), full(500)];
    units[1].pinned = true;
    units[1].complete = false;
    for file in &mut units[1].files {
        file.grade = Grade::Unproven;
    }
    assert_eq!(gone(&units, &keep(7)), [false, false, true]);
    assert_eq!(decide(&units, now(), &keep(7))[1].to_string(), "pinned");
    units[1].files.clear();
    assert_eq!(gone(&units, &keep(7)), [false, false, true]);
}

#[test]
fn files_without_a_point_follow_their_age_alone() {
    let rules = Rules {
        last: 3,
        daily: 9,
        monthly: 9,
        ..keep(7)
    };
    let units: Vec<Unit> = [7, 8, 40, 80].map(|age| loose(Kind::Redis, days(age), true)).into();
    assert_eq!(gone(&units, &rules), [false, true, true, true]);
    // Copied without their times, one after another: what the names say is the newest stays, too.
    let mut copied: Vec<Unit> = (0..4)
        .map(|second| loose(Kind::Redis, days(9) + second, true))
        .collect();
    for (unit, named) in copied.iter_mut().zip([30, 10, 20, 40]) {
        unit.named = Some(now() - Duration::from_secs(days(named)));
    }
    assert_eq!(gone(&copied, &rules), [false, false, true, true]);
    copied[1].named = Some(now() + Duration::from_secs(days(10)));
    assert_eq!(gone(&copied, &rules), [false, true, false, true]);
}

#[test]
fn where_none_is_good_the_best_stays() {
    let graded = |age: u64, grade: Grade| {
        let mut unit = loose(Kind::N8n, days(age), false);
        unit.files[0].grade = grade;
        unit
    };
    use Grade::{Empty, Unpacks, Unproven};
    let units = [graded(20, Empty), graded(30, Unproven), graded(40, Unproven)];
    assert_eq!(gone(&units, &keep(7)), [true, false, true]);
    let units = [graded(20, Unproven), graded(30, Unpacks), graded(40, Unpacks)];
    assert_eq!(gone(&units, &keep(7)), [true, false, true]);
}

#[test]
fn equal_times_keep_one_file_whatever_the_order_of_the_listing() {
    let named = |name: &str| {
        let mut unit = loose(Kind::Postgres, days(10), true);
        unit.files[0].path = PathBuf::from(name);
        unit
    };
    let (a, b) = (named("n8n_20240101_000000.sql.gz"), named("n8n_20240102_000000.sql.gz"));
    assert_eq!(gone(&[a.clone(), b.clone()], &keep(7)), [true, false]);
    assert_eq!(gone(&[b, a], &keep(7)), [false, true]);
}

#[test]
fn a_point_lives_and_dies_whole() {
    let mut partial = full(6);
    partial.files.retain(|file| file.kind != Kind::Redis);
    // The newest point has no Redis: the last one that has stays with all its files.
    assert_eq!(gone(&[full(12), full(11), partial], &keep(7)), [true, false, false]);
    // A point all of whose files are gone protects nothing.
    assert_eq!(
        gone(&[point(days(9), &[]), full(10), point(days(3), &[])], &keep(7)),
        [true, false, false]
    );
}

#[test]
fn the_calendar_rules_keep_the_newest_of_each_period() {
    let units: Vec<Unit> = (0..800).map(full).collect();
    let kept = |rules: Rules| -> Vec<usize> {
        let gone = gone(&units, &rules);
        (0..units.len()).filter(|index| !gone[*index]).collect()
    };
    let none = Rules::default();
    assert_eq!(kept(none), [0], "retention 0 keeps what is not a day old");
    assert_eq!(kept(Rules { last: 3, ..none }), [0, 1, 2]);
    assert_eq!(kept(Rules { daily: 3, ..none }), [0, 1, 2]);
    // Tuesday, then the Sundays before.
    assert_eq!(kept(Rules { weekly: 3, ..none }), [0, 2, 9]);
    // 14 November, 31 October, 30 September.
    assert_eq!(kept(Rules { monthly: 3, ..none }), [0, 14, 45]);
    // 2023, 31 December 2022, 2021.
    assert_eq!(kept(Rules { yearly: 3, ..none }), [0, 318, 683]);
    assert_eq!(
        kept(Rules {
            days: 2,
            weekly: 2,
            monthly: 2,
            ..none
        }),
        [0, 1, 2, 14]
    );
}

#[test]
fn periods_without_a_backup_do_not_count() {
    let units = [full(0), full(100), full(101), full(300)];
    let rules = Rules {
        daily: 3,
        ..Rules::default()
    };
    assert_eq!(gone(&units, &rules), [false, false, false, true]);
}

#[test]
fn what_was_verified_or_proven_last_stays() {
    let mut units = [full(1), full(8), full(15), full(22), full(29)];
    units[2].verified = true;
    units[3].verified = true;
    units[4].proven = Kind::ALL.to_vec();
    assert_eq!(gone(&units, &keep(7)), [false, true, false, true, false]);
    // The proof of one component is none of the others.
    units[1].proven = vec![Kind::Postgres];
    assert_eq!(gone(&units, &keep(7)), [false, false, false, true, false]);
    let reasons = &decide(&units, now(), &keep(7))[4].reasons;
    assert!(reasons.contains(&Reason::Proven(Kind::N8n)), "{reasons:?}");
    assert!(!reasons.contains(&Reason::Proven(Kind::Postgres)), "{reasons:?}");
}

#[test]
fn a_backup_that_shrank_protects_the_last_large_one() {
    let sized = |age: u64, bytes: u64| point(days(age), &[(Kind::Postgres, bytes)]);
    let units = [sized(2, 400), sized(9, 450), sized(10, 1000), sized(11, 1001)];
    assert_eq!(gone(&units, &keep(7)), [false, true, false, true]);
    assert_eq!(shrunk(&units, now()), [], "the one before is not larger");
    let units = [sized(0, 400), sized(1, 801)];
    let found = shrunk(&units, now());
    assert_eq!((found.len(), found[0].newest, found[0].before), (1, 400, 801));
    let units = [sized(1, 400), sized(8, 800)];
    assert_eq!(
        (gone(&units, &keep(7)), shrunk(&units, now()).len()),
        (vec![false, true], 0)
    );
    // Jobs that Redis is done with are no loss.
    let jobs = |age: u64, bytes: u64| point(days(age), &[(Kind::Redis, bytes)]);
    assert_eq!(gone(&[jobs(1, 100), jobs(8, 9000)], &keep(7)), [false, true]);
    assert_eq!(gone(&[jobs(1, 100), jobs(8, 900_000)], &keep(7)), [false, false]);
}

#[test]
fn verdicts_are_told_in_words() {
    let mut units = [full(2), full(9)];
    units[0].files.retain(|file| file.kind != Kind::N8n);
    let output: Vec<String> = decide(&units, now(), &keep(7))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        output,
        [
            "2 day(s) old, which is not over the retention; newest good backup of postgres, sqlite, redis, env, deployment",
            "newest good backup of n8n"
        ]
    );
    assert_eq!(
        decide(&[full(2), full(9)], now(), &keep(7))[1].to_string(),
        "9 day(s) old, and no rule keeps it"
    );
}
