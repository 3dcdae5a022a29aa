//! One meaning of "newest": by the instant, for every command, wherever the host's clock was set to when it named things.

use std::fs;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};

use super::{fact, manifest, offline, point, point_at, points, stamp, whole, DAY};
use crate::common::{has_program, skip, Outcome, Sandbox};

/// What each command takes for the newest of the points that are here.
fn newest(sandbox: &Sandbox, zone: &str) -> Vec<(&'static str, String)> {
    let run = |args: &[&str]| {
        let call = sandbox.binary().args(args).env("TZ", zone);
        call.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").run()
    };
    let logged = |outcome: Outcome, before: &str| {
        let line = outcome.stdout.lines().find_map(|line| line.split_once(before));
        let (_, rest) = line.unwrap_or_else(|| panic!("no line with '{before}': {outcome}"));
        rest[..15].to_owned()
    };
    let status = run(&["status", "--json"]).stdout;
    let (_, name) = status
        .split_once("\"newest\": {\"name\": \"")
        .unwrap_or_else(|| panic!("{status}"));
    vec![
        ("status", name[..15].to_owned()),
        ("verify", logged(run(&["verify"]), "Verifying recovery point ")),
        (
            "restore-all",
            logged(
                run(&["restore-all", "latest", "--yes"]),
                "[restore-all] Recovery point ",
            ),
        ),
        (
            "test-recovery",
            logged(run(&["test-recovery", "--full"]), "[test-recovery] Recovery point: "),
        ),
    ]
}

fn assert_newest(sandbox: &Sandbox, expected: &str) {
    for zone in ["UTC0", "JST-9", "HST10"] {
        for (command, name) in newest(sandbox, zone) {
            assert_eq!(name, expected, "{command} in {zone}");
        }
    }
}

/// A complete point whose run began at an instant, as it is named in a zone.
fn in_zone(sandbox: &Sandbox, age: Duration, hours: i32) -> String {
    let time = SystemTime::now() - age;
    let local = DateTime::<Utc>::from(time).with_timezone(&FixedOffset::east_opt(hours * 3600).unwrap());
    let begun = format!("begun: {}", local.to_rfc3339_opts(SecondsFormat::Millis, false));
    point_at(
        sandbox,
        &local.format("%Y%m%d_%H%M%S").to_string(),
        time,
        &whole(10),
        &[&begun],
    )
}

#[test]
fn the_name_tells_the_time_of_a_place_and_the_manifest_the_instant() {
    let sandbox = Sandbox::new("zones").build();
    let hour = Duration::from_secs(3600);
    in_zone(&sandbox, 3 * hour, 9);
    let second = in_zone(&sandbox, 2 * hour, 0);
    assert!(second < points(&sandbox)[1], "its name is the earlier one");
    assert_newest(&sandbox, &second);
    // From either end of the world.
    let third = in_zone(&sandbox, hour, -12);
    in_zone(&sandbox, 4 * hour, 14);
    assert_newest(&sandbox, &third);
}

#[test]
fn the_hour_that_clocks_repeat_has_an_order() {
    let sandbox = Sandbox::new("repeated").build();
    let time = SystemTime::now() - Duration::from_secs(30 * DAY);
    let point = |name: &str, begun: &str| point_at(&sandbox, name, time, &whole(10), &[&format!("begun: {begun}")]);
    point("20251026_023000", "2025-10-26T02:30:00+02:00");
    point("20251026_025959", "2025-10-26T02:59:59+02:00");
    let later = point("20251026_021000", "2025-10-26T02:10:00+01:00");
    assert_newest(&sandbox, &later);
}

#[test]
fn a_point_of_the_future_hides_nothing() {
    let sandbox = Sandbox::new("ahead").build();
    let real = in_zone(&sandbox, Duration::from_secs(3 * DAY), 0);
    let ahead = point_at(
        &sandbox,
        &stamp(SystemTime::now() + Duration::from_secs(500 * DAY)),
        SystemTime::now(),
        &whole(10),
        &[],
    );
    assert_newest(&sandbox, &real);
    let status = offline(&sandbox, &["status"]);
    assert_eq!(status.code, Some(2), "{status}");
    for told in [
        format!("[CRITICAL] age: {real} is "),
        format!("[WARNING] clock: 1 recovery point(s) are dated in the future, such as {ahead}: "),
    ] {
        assert!(status.stdout.contains(&told), "{told}: {status}");
    }
    let outcome = offline(&sandbox, &["restore-all", "latest", "--yes"]);
    outcome.assert_log_has(
        "restore-all",
        &format!("WARN Passing over recovery point {ahead}, which is dated in the future"),
    );
    // Where there is no other it is taken, since it may be today's clock that is wrong; how old it is nobody knows.
    fs::remove_file(sandbox.path(format!("backups/sets/{real}.sha256"))).unwrap();
    let outcome = offline(&sandbox, &["restore-all", "latest", "--yes"]);
    outcome.assert_log_has("restore-all", &format!("INFO Recovery point {ahead}: {{}}"));
    let status = offline(&sandbox, &["status"]);
    let told = "[CRITICAL] age: no recovery point that is not dated in the future\n";
    assert!(status.code == Some(2) && status.stdout.contains(told), "{status}");
}

#[test]
fn the_newest_off_site_is_the_newest_too() {
    if !has_program("rclone") {
        return skip("points::newest::the_newest_off_site_is_the_newest_too", "no rclone");
    }
    let sandbox = Sandbox::new("offnewest")
        .env("RCLONE_SYNC_ENCRYPTED_ONLY", "false")
        .build();
    let conf = sandbox.aside("rclone.conf");
    fs::write(
        &conf,
        format!(
            "[n8n-backup]\ntype = alias\nremote = {}\n",
            sandbox.aside("there").display()
        ),
    )
    .unwrap();
    sandbox.set("RCLONE_CONFIG", &conf.to_string_lossy());
    let hour = Duration::from_secs(3600);
    in_zone(&sandbox, 30 * hour, 0);
    in_zone(&sandbox, 3 * hour, 9);
    let newest = in_zone(&sandbox, 2 * hour, 0);
    point_at(
        &sandbox,
        &stamp(SystemTime::now() + Duration::from_secs(500 * DAY)),
        SystemTime::now(),
        &whole(10),
        &[],
    );
    // Nor is one that clocks a few hours ahead have made, one of the state before a restore, or one that lacks a part.
    let made = |time: SystemTime, files: &[(&'static str, usize)], fact: &str| {
        let begun = DateTime::<Utc>::from(time).to_rfc3339();
        point_at(
            &sandbox,
            &stamp(time),
            SystemTime::now(),
            files,
            &[&format!("begun: {begun}"), fact],
        )
    };
    let now = SystemTime::now();
    made(now + 20 * hour, &whole(10), "failed: none");
    let before_restore = made(now - hour, &whole(10), "aside: made right before a restore");
    let partial = made(now - hour / 2, &whole(10)[1..], "failed: postgres");
    let damaged = in_zone(&sandbox, hour / 4, 9);
    sandbox.run("backup-offsite", &[]).assert_success();
    let identity = fs::read_to_string(sandbox.path("backups/.identity")).unwrap();
    let there = sandbox
        .aside("there/n8n-backups")
        .join(format!("stack-{}", identity.trim()));
    fs::write(there.join(format!("sets/{damaged}.sha256")), "no manifest").unwrap();
    let new_host = Sandbox::new("offnewesthost").build();
    new_host.set("RCLONE_CONFIG", &conf.to_string_lossy());
    // One that could not be read once is no reason to take an older one.
    let text = "#!/bin/sh\ncase \"$*\" in *cat*NEWEST*) exit 5 ;; esac\nPATH=${PATH#*:}\nexec rclone \"$@\"\n";
    let fails = new_host.stand_in("rclone", &text.replace("NEWEST", &newest));
    let refused = new_host.binary().arg("fetch-offsite").path_first(&fails).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(points(&new_host).is_empty(), "{refused}");
    let fetched = new_host.binary().arg("fetch-offsite").env("TZ", "JST-9").run();
    fetched.assert_success();
    for passed in [before_restore, partial, damaged] {
        let told = format!("WARN Passing over the newer recovery point {passed}: {{}}");
        fetched.assert_log_has("fetch-offsite", &told);
    }
    assert_eq!(points(&new_host), [newest]);
}

/// With real backups: what was written between the two is what comes back.
#[test]
fn latest_is_what_was_backed_up_last_wherever_the_clock_was_set_to() {
    let sandbox = Sandbox::new("tokyo").redis().build();
    for (value, zone) in [("1", "JST-9"), ("2", "UTC0")] {
        sandbox.redis(&["SET", "value", value]);
        sandbox.call("backup-redis").env("TZ", zone).run().assert_success();
    }
    let both = points(&sandbox);
    for zone in ["UTC0", "JST-9"] {
        sandbox.redis(&["SET", "value", "3"]);
        let restore = ["latest", "--only", "redis", "--yes"];
        let outcome = sandbox.call("restore-all").args(&restore).env("TZ", zone).run();
        outcome.assert_success();
        assert_eq!(sandbox.redis(&["GET", "value"]), "2", "{both:?} {outcome}");
    }
}

/// The clock ran fast, by less than what counts as the future, and was set right.
#[test]
fn what_is_made_after_the_clock_was_set_right_is_the_newest() {
    let sandbox = Sandbox::new("setright").redis().build();
    sandbox.redis(&["SET", "value", "1"]);
    sandbox.run("backup-redis", &[]).assert_success();
    let set = manifest(&sandbox);
    let text = fs::read_to_string(&set).unwrap();
    let begun = fact(&set, "begun").unwrap();
    let fast = DateTime::parse_from_rfc3339(&begun).unwrap() + Duration::from_secs(50 * 60);
    let fast = fast.to_rfc3339_opts(SecondsFormat::Millis, false);
    fs::write(
        &set,
        text.replace(&format!("# begun: {begun}"), &format!("# begun: {fast}")),
    )
    .unwrap();
    for value in ["2", "3"] {
        sandbox.redis(&["SET", "value", value]);
        sandbox.run("backup-redis", &[]).assert_success();
        sandbox.redis(&["SET", "value", "4"]);
        sandbox
            .run("restore-all", &["latest", "--only", "redis", "--yes"])
            .assert_success();
        assert_eq!(sandbox.redis(&["GET", "value"]), value);
    }
}

/// What it holds is newer, and nobody knows what that is.
#[test]
fn a_newest_point_that_cannot_be_read_is_not_passed_over() {
    let sandbox = Sandbox::new("unreadnewest").redis().build();
    for value in ["1", "2"] {
        sandbox.redis(&["SET", "value", value]);
        sandbox.run("backup-redis", &[]).assert_success();
    }
    sandbox.redis(&["SET", "value", "3"]);
    let all = points(&sandbox);
    let set = sandbox.path(format!("backups/sets/{}.sha256", all[1]));
    let text = fs::read_to_string(&set).unwrap();
    for cut in [None, Some(text.len() / 2)] {
        fs::remove_file(&set).unwrap();
        match cut {
            None => fs::create_dir(&set).unwrap(),
            Some(end) => fs::write(&set, &text[..end]).unwrap(),
        }
        for args in [
            &["latest", "--only", "redis", "--yes"][..],
            &["--only", "redis", "--dry-run"],
        ] {
            let outcome = sandbox.run("restore-all", args);
            outcome.assert_error(&format!(
                "{} cannot be read, and may be what latest means",
                set.display()
            ));
            outcome.assert_log_has("restore-all", "ERROR Hint: name another point by its stamp{}");
            assert_eq!(sandbox.redis(&["GET", "value"]), "3", "{outcome}");
        }
        // The other commands say so, too.
        for args in [&["pin", "latest"][..], &["workflows", "latest"]] {
            let outcome = offline(&sandbox, args);
            let said = [outcome.stdout.as_str(), &outcome.stderr, &outcome.log].concat();
            assert!(
                outcome.code == Some(1) && said.contains(&*set.to_string_lossy()),
                "{outcome}"
            );
        }
        let _ = fs::remove_dir(&set);
        fs::write(&set, "").unwrap();
    }
    sandbox
        .run("restore-all", &[&all[0], "--only", "redis", "--yes"])
        .assert_success();
    assert_eq!(sandbox.redis(&["GET", "value"]), "1");
    fs::write(&set, text).unwrap();
    sandbox
        .run("restore-all", &["latest", "--only", "redis", "--yes"])
        .assert_success();
    assert_eq!(sandbox.redis(&["GET", "value"]), "2");
}

/// Retention counts by the instant as well.
#[test]
fn the_newest_three_are_those_of_the_instants() {
    let sandbox = Sandbox::new("threezones").build();
    point(&sandbox, 40, &whole(10), &[]);
    let day = Duration::from_secs(DAY);
    let hour = Duration::from_secs(3600);
    let gone = in_zone(&sandbox, 20 * day + 4 * hour, 14);
    let kept = [3, 2, 1].map(|hours| in_zone(&sandbox, 20 * day + hours * hour, -11));
    assert!(kept.iter().all(|name| *name < gone));
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(points(&sandbox), kept);
}
