use super::checks::Seen;
use super::disk::{forecast, Keep, Room};
use super::*;
use crate::cli::{parse, Request};
use crate::store::marks::DrillOutcome;
use crate::store::Kind;

const GIB: u64 = 1 << 30;
const WEEK: Keep = Keep { days: 7, longer: 0 };

fn point(age_hours: i64, bytes: u64) -> Seen {
    Seen {
        name: format!("{age_hours}h"),
        age: age_hours * 3600,
        bytes,
        sizes: vec![(Kind::Env, 0), (Kind::N8n, bytes)],
        complete: true,
        ..Seen::default()
    }
}

fn room(dir: Option<&str>, kinds: &[Kind], free: u64) -> Room {
    Room {
        dir: dir.map(Into::into),
        kinds: kinds.to_vec(),
        free: Some(free),
        reserve: if dir.is_none() { GIB } else { 0 },
    }
}

fn state(points: Vec<Seen>) -> State {
    State {
        points,
        disks: vec![room(None, &Kind::ALL, 100 * GIB)],
        keep: WEEK,
        ..State::default()
    }
}

fn level(state: &State, check: &str) -> Level {
    let findings = state.findings(DEFAULT_MAX_AGE);
    findings.iter().find(|finding| finding.check == check).unwrap().level
}

#[test]
fn ages_are_read() {
    for (text, seconds) in [("26h", 93_600), ("90m", 5400), ("2d", 172_800), ("0s", 0)] {
        assert_eq!(parse_age(text).unwrap().as_secs(), seconds);
    }
    for text in ["", "h", "26", "-1h", "1.5h", "26 h", "5\u{20ac}", "99999999999h"] {
        assert!(parse_age(text).is_err(), "{text}");
    }
}

#[test]
fn the_newest_complete_point_counts() {
    assert_eq!(worst(&state(vec![point(5, 9)]).findings(DEFAULT_MAX_AGE)), Level::Ok);
    assert_eq!(level(&state(vec![]), "age"), Level::Critical);
    assert_eq!(level(&state(vec![point(25, 9)]), "age"), Level::Ok);
    assert_eq!(level(&state(vec![point(27, 9)]), "age"), Level::Critical);
    let partial = Seen {
        complete: false,
        why_not_latest: Some("it holds no redis".to_owned()),
        failed: Some("redis".to_owned()),
        ..point(1, 5)
    };
    let single = Seen {
        failed: None,
        ..partial.clone()
    };
    assert_eq!(level(&state(vec![partial.clone()]), "age"), Level::Critical);
    assert_eq!(
        level(&state(vec![point(20, 9), partial.clone()]), "run"),
        Level::Warning
    );
    assert_eq!(level(&state(vec![partial, point(20, 9), single]), "run"), Level::Ok);
}

#[test]
fn what_is_dated_in_the_future_hides_nothing() {
    let ahead = State {
        ahead: vec![point(-24 * 365, 9)],
        ..state(vec![point(72, 9)])
    };
    assert_eq!(
        (level(&ahead, "age"), level(&ahead, "clock")),
        (Level::Critical, Level::Warning)
    );
    assert_eq!((ahead.newest_age(), ahead.stored().0), (Some(72 * 3600), 2));
    let young = State {
        points: vec![point(2, 9)],
        ..ahead.clone()
    };
    assert_eq!(worst(&young.findings(DEFAULT_MAX_AGE)), Level::Warning);
    let alone = State {
        points: Vec::new(),
        ..ahead
    };
    assert_eq!((level(&alone, "age"), alone.newest_age()), (Level::Critical, None));
}

#[test]
fn a_disk_that_is_away_is_critical_and_foresees_nothing() {
    let mut away = state(vec![point(20, 60 * GIB), point(2, 60 * GIB)]);
    assert!(away.days_until_full().is_some());
    away.away = vec!["/n8n/backups/redis holds none of the 2 file(s) that recovery points name".to_owned()];
    assert_eq!((away.days_until_full(), level(&away, "disk")), (None, Level::Warning));
    assert_eq!(level(&away, "directories"), Level::Critical);
    // Whatever else is wrong is told beside it.
    away.points.clear();
    assert_eq!(
        (level(&away, "age"), level(&away, "directories")),
        (Level::Critical, Level::Critical)
    );
}

#[test]
fn a_point_that_a_restore_would_pass_over_is_not_the_newest() {
    let aside = Seen {
        why_not_latest: Some("made while a restore was interrupted".to_owned()),
        ..point(1, 9)
    };
    let damaged = Seen {
        why_not_latest: Some("damaged in it: env".to_owned()),
        damaged: vec!["env/env_x.backup".to_owned()],
        ..point(1, 9)
    };
    let after = |later: &Seen| state(vec![point(20, 9), later.clone()]);
    for later in [&aside, &damaged] {
        assert_eq!(after(later).newest_age(), Some(20 * 3600));
        let alone = state(vec![later.clone()]);
        assert_eq!((alone.newest_age(), level(&alone, "age")), (None, Level::Critical));
    }
    assert_eq!(level(&after(&aside), "run"), Level::Warning);
    assert_eq!(level(&after(&aside), "files"), Level::Ok);
    // Damage is told whether or not there is anything else to fall back on.
    for state in [after(&damaged), state(vec![damaged])] {
        assert_eq!(level(&state, "files"), Level::Critical);
    }
}

#[test]
fn a_shrunken_or_broken_point_is_noticed() {
    let before = || (2..6).rev().map(|day| point(day * 24, 1000));
    assert_eq!(
        level(&state(before().chain([point(1, 501)]).collect()), "size"),
        Level::Ok
    );
    assert_eq!(
        level(&state(before().chain([point(1, 499)]).collect()), "size"),
        Level::Warning
    );
    let broken = Seen {
        broken: vec!["redis/x.rdb".to_owned()],
        ..point(1, 9)
    };
    assert_eq!(level(&state(vec![broken]), "files"), Level::Critical);
    let drilled = |mark: &str| Seen {
        drill: DrillOutcome::parse(mark),
        ..point(1, 9)
    };
    assert_eq!(
        level(&state(vec![drilled("failed: 3 rows lost")]), "proven"),
        Level::Critical
    );
    assert_eq!(level(&state(vec![drilled("passed")]), "proven"), Level::Ok);
    // What has failed once is not well again because a backup was made since, or another part tested.
    let failed = Seen {
        name: "weekly".to_owned(),
        ..drilled("failed full 2026-01-02T03:04:05+00:00: redis key")
    };
    for (after, wanted) in [
        (point(1, 9), Level::Critical),
        (drilled("passed postgres 2026-01-03T03:04:05+00:00"), Level::Critical),
        (drilled("passed full 2026-01-03T03:04:05+00:00"), Level::Ok),
    ] {
        let now = state(vec![drilled("passed"), failed.clone(), after]);
        assert_eq!(level(&now, "proven"), wanted, "{now:?}");
        assert_eq!(now.drill_success(), Some(wanted == Level::Ok));
        let text = now.report(&now.findings(DEFAULT_MAX_AGE), DEFAULT_MAX_AGE);
        assert_eq!(text.contains("the drill of weekly: failed full "), wanted != Level::Ok);
    }
    let key = drilled("failed full 2026-01-02T03:04:05+00:00: key");
    let after = drilled("passed postgres 2026-01-03T03:04:05+00:00");
    assert_eq!(level(&state(vec![key, after]), "proven"), Level::Ok);
    assert_eq!(state(vec![point(1, 9)]).drill_success(), None);
    // A drill of the database says nothing of the rest, and is what some ask for.
    let told = |points: Vec<Seen>| {
        let findings = state(points).findings(DEFAULT_MAX_AGE);
        let finding = findings.into_iter().find(|finding| finding.check == "proven").unwrap();
        assert_eq!(finding.level, Level::Ok);
        finding.text
    };
    let database = drilled("passed postgres 2026-01-03T03:04:05+00:00");
    let whole = Seen {
        name: "weekly".to_owned(),
        ..drilled("passed full 2026-01-02T03:04:05+00:00")
    };
    assert_eq!(
        told(vec![database.clone()]),
        "of 1h only postgres was restored in a drill"
    );
    let both = told(vec![whole.clone(), database.clone()]);
    assert_eq!(both, "of 1h only postgres was restored in a drill; all of weekly was");
    assert_eq!(told(vec![database, whole]), "weekly was restored in a drill");
    // A full test does not start n8n where its image is not here.
    let start = drilled("failed full 2026-01-02T03:04:05+00:00: start");
    let full = drilled("passed full 2026-01-03T03:04:05+00:00");
    let started = Seen {
        proofs: vec![("started", "n8n 2.1".to_owned())],
        ..full.clone()
    };
    for (after, wanted) in [(full, Level::Critical), (started, Level::Ok)] {
        assert_eq!(level(&state(vec![start.clone(), after]), "proven"), wanted);
    }
    // What a remote is called is not how the copy went.
    let failover = Seen {
        offsite: Some("2026-01-02T03:04:05+00:00 nas:failover".to_owned()),
        ..point(1, 9)
    };
    assert_eq!(level(&state(vec![failover]), "offsite"), Level::Ok);
}

#[test]
fn a_disk_that_will_be_full_is_foreseen() {
    let daily = |count: u64, bytes: u64| (0..count).rev().map(|day| (day * DAY, bytes)).collect::<Vec<_>>();
    // Eight points of a day each are kept: nothing is added to them.
    assert_eq!(forecast(&daily(9, GIB), 2 * GIB, WEEK), None);
    // The fourth of four more does not fit.
    assert_eq!(
        forecast(&daily(3, GIB), 3 * GIB + 1, Keep { days: 30, longer: 0 }),
        Some(3)
    );
    assert_eq!(forecast(&daily(1, GIB), GIB - 1, WEEK), Some(0));
    assert_eq!(forecast(&[], 0, WEEK), None);
    // Growth by a tenth of a GiB a day fills the disk though their number stays.
    let growing: Vec<(u64, u64)> = (0..8).rev().map(|day| (day * DAY, (17 - day) * GIB / 10)).collect();
    let full = forecast(&growing, 20 * GIB, WEEK).unwrap();
    assert!((20..40).contains(&full), "{full}");
    let mut tight = state(vec![point(25, 60 * GIB), point(1, 60 * GIB)]);
    assert_eq!(level(&tight, "disk"), Level::Warning);
    tight.disks[0].free = Some(GIB / 2);
    assert_eq!(level(&tight, "disk"), Level::Critical);
}

#[test]
fn each_disk_has_room_of_its_own() {
    let points = || vec![point(26, 8 * GIB), point(2, 8 * GIB)];
    let disks = |first: u64, second: u64| State {
        disks: vec![
            room(None, &[Kind::Env], first),
            room(Some("/n8n/backups/n8n"), &[Kind::N8n], second),
        ],
        ..state(points())
    };
    let of = |state: &State| {
        let findings = state.findings(DEFAULT_MAX_AGE);
        let disks = findings.into_iter().filter(|finding| finding.check == "disk");
        disks.map(|finding| (finding.level, finding.text)).collect::<Vec<_>>()
    };
    // What is written to the other disk asks for nothing of the first.
    let large = disks(5 * GIB, 900 * GIB);
    assert_eq!(
        of(&large),
        [
            (Level::Ok, "5.0Gi free, enough for 90 days and more".to_owned()),
            (
                Level::Ok,
                "900Gi free in /n8n/backups/n8n, enough for 90 days and more".to_owned()
            )
        ]
    );
    assert_eq!((large.free(), large.days_until_full()), (Some(5 * GIB), None));
    let full = disks(900 * GIB, GIB);
    assert_eq!(of(&full)[0].0, Level::Ok);
    let text = "1.0Gi free in /n8n/backups/n8n: the next run will not fit".to_owned();
    assert_eq!(of(&full)[1], (Level::Critical, text));
    assert_eq!((full.free(), full.days_until_full()), (Some(GIB), Some(0)));
    let report = full.report(&full.findings(DEFAULT_MAX_AGE), DEFAULT_MAX_AGE);
    assert!(report.contains(&format!("free={GIB}B;;0:;0")), "{report}");
    // A run asks for more on the first one, whatever is written there.
    let low = disks(GIB - 1, 900 * GIB);
    assert_eq!(of(&low)[0].0, Level::Critical);
    assert_eq!((low.free(), low.days_until_full()), (Some(GIB - 1), Some(0)));
}

#[test]
fn points_that_are_kept_for_longer_hide_no_full_disk() {
    let daily = |count: u64, growth: u64| (0..count).rev().map(move |day| (day * DAY, 10 * GIB - day * growth));
    let after = |old: Vec<(u64, u64)>, growth| old.into_iter().chain(daily(8, growth)).collect::<Vec<_>>();
    let old = |count: u64| {
        (1..=count)
            .rev()
            .map(|month| (month * 30 * DAY, 10 * GIB))
            .collect::<Vec<_>>()
    };
    let few: Vec<(u64, u64)> = daily(3, 0).collect();
    assert_eq!(forecast(&few, 12 * GIB, WEEK), Some(1));
    // One is pinned.
    let pinned: Vec<(u64, u64)> = [(60 * DAY, 10 * GIB)].into_iter().chain(few).collect();
    assert_eq!(forecast(&pinned, 12 * GIB, WEEK), Some(1));
    // After one night alone, that is how often they come; the next one has to fit all the same.
    assert_eq!(forecast(&pinned[..2], 9 * GIB, WEEK), Some(0));
    let yearly = Keep { days: 7, longer: 12 };
    assert_eq!(forecast(&after(old(12), GIB / 2), 2 * GIB, yearly), Some(0));
    // The year is full: a point that comes lets another one go.
    assert_eq!(forecast(&after(old(12), 0), 12 * GIB, yearly), None);
    assert_eq!(forecast(&after(old(2), 0), 100 * GIB, yearly), Some(10));
}

#[test]
fn how_often_points_come_is_told_by_days_and_not_by_their_number() {
    const HOUR: u64 = DAY / 24;
    let every = |gap: u64, count: u64| (0..count).rev().map(move |n| (n * gap, GIB)).collect::<Vec<_>>();
    for gap in [15 * 60, HOUR, 2 * HOUR] {
        // Two days of a week that is to come.
        let count = 2 * DAY / gap;
        let full = forecast(&every(gap, count), (3 * count / 2 + 6) * GIB, WEEK);
        assert_eq!(full, Some(3), "{gap}");
        // The week is full.
        assert_eq!(forecast(&every(gap, 9 * DAY / gap), 2 * DAY / gap * GIB, WEEK), None);
    }
    // An afternoon of runs by hand does not repeat itself each day.
    for nights in [0, 1, 3] {
        let by_hand = (0..5).rev().map(|n| (nights * DAY + (8 + n) * HOUR, GIB));
        let mut points: Vec<(u64, u64)> = every(DAY, 9).into_iter().chain(by_hand).collect();
        points.sort_unstable_by_key(|(age, _)| std::cmp::Reverse(*age));
        assert_eq!(forecast(&points, 4 * GIB, WEEK), None, "{nights}");
    }
    // A week between them is one, with some points kept longer and a run by hand.
    let mut weekly = every(7 * DAY, 8);
    weekly.insert(7, (DAY, GIB));
    assert_eq!(forecast(&weekly, 2 * GIB, WEEK), None);
}

#[test]
fn a_copy_that_is_under_way_is_no_fault() {
    let sent = |age_hours: i64, is_sent: bool| Seen {
        offsite: is_sent.then(|| "2026-01-02T03:04:05+00:00 nas:b".to_owned()),
        ..point(age_hours, 9)
    };
    let level_of = |points: Vec<Seen>| {
        let wanted = State {
            offsite_wanted: true,
            ..state(points)
        };
        level(&wanted, "offsite")
    };
    assert_eq!(level_of(vec![sent(20, true), sent(0, false)]), Level::Ok);
    assert_eq!(level_of(vec![sent(0, false)]), Level::Ok);
    // The run is long over, or the one before did not send its point either.
    for late in [
        vec![sent(37, true), sent(13, false)],
        vec![sent(24, false), sent(0, false)],
    ] {
        assert_eq!(level_of(late), Level::Warning);
    }
    // One that no restore would take counts neither way.
    let partial = Seen {
        why_not_latest: Some("it holds no redis".to_owned()),
        ..sent(2, false)
    };
    assert_eq!(level_of(vec![sent(20, true), partial, sent(1, false)]), Level::Ok);
    assert_eq!(level(&state(vec![sent(20, false)]), "offsite"), Level::Ok);
    // One that was found broken is none, also where nobody asks for copies.
    let broken = |age_hours: i64| Seen {
        copy_defect: Some("it is not there any more".to_owned()),
        ..sent(age_hours, false)
    };
    assert_eq!(level_of(vec![broken(20), sent(0, false)]), Level::Warning);
    assert_eq!(level_of(vec![broken(20), sent(0, true)]), Level::Ok);
    assert_eq!(level(&state(vec![broken(20)]), "offsite"), Level::Warning);
}

#[test]
fn programs_get_json_when_nothing_can_be_told_too() {
    let told = |args: &[&str]| match parse(&[COMMAND.row], args.iter().map(Into::into)) {
        Ok(Request::Run(call)) => unknown(&call, &anyhow::anyhow!("no \"sets\"")),
        _ => panic!("{args:?}"),
    };
    assert_eq!(told(&["status"]), "BACKUP UNKNOWN - no \"sets\"\n");
    let json = Json::parse(&told(&["status", "--json"])).unwrap();
    assert_eq!(json.get("error").and_then(Json::as_str), Some("no \"sets\""));
}

#[test]
fn the_first_line_is_a_plugins() {
    let state = state(vec![point(5, 4096)]);
    let text = state.report(&state.findings(DEFAULT_MAX_AGE), DEFAULT_MAX_AGE);
    let first = text.lines().next().unwrap();
    assert_eq!(
        first,
        format!(
            "BACKUP OK - recovery point 5h, 5 h old, 4.0KiB | age=18000s;;93600;0 size=4096B;;;0 \
             free={}B;;{GIB}:;0 points=1;;;0",
            100 * GIB
        )
    );
}
