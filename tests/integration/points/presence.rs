//! An absence or an error is a state of the moment: never recorded as damage, never a reason to delete.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::{Path, PathBuf};

use super::{days_ago, fact, loose, manifest, offline, point, points, sha256sum_agrees, touch, whole, KINDS};
use crate::common::{can_mount, has_program, name, sh, skip, Outcome, Sandbox};

/// Every file below backups/ with its contents, but for marks in the manifests.
fn kept(sandbox: &Sandbox) -> Vec<String> {
    let listing = sandbox.listing();
    let backups = listing.into_iter().filter(|line| line.starts_with("\"backups/"));
    backups.filter(|line| !line.starts_with("\"backups/sets/")).collect()
}

fn move_away(sandbox: &Sandbox, kinds: &[&str]) {
    for kind in kinds {
        fs::rename(
            sandbox.path("backups").join(kind),
            sandbox.aside(format!("away-{kind}")),
        )
        .unwrap();
        fs::create_dir(sandbox.path("backups").join(kind)).unwrap();
    }
}

fn move_back(sandbox: &Sandbox, kinds: &[&str]) {
    for kind in kinds {
        let dir = sandbox.path("backups").join(kind);
        fs::remove_dir_all(&dir).unwrap();
        fs::rename(sandbox.aside(format!("away-{kind}")), dir).unwrap();
    }
}

const ALL: [&str; 4] = ["postgres", "redis", "n8n", "env"];

/// Seventeen points, of which the rules keep one a month and the newest three, once they are applied to the true state.
fn seventeen(name: &'static str) -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new(name).env("BACKUP_KEEP_MONTHLY", "12").build();
    let verified = ["verified: 2026-01-01T00:00:00+00:00"];
    let made = (0..17).map(|month| point(&sandbox, 3 + month * 20, &whole(100), &verified));
    let made = made.collect();
    (sandbox, made)
}

#[test]
fn a_disk_that_was_away_while_verify_ran_costs_nothing() {
    let (sandbox, all) = seventeen("verifyaway");
    let (reference, _) = seventeen("verifythere");
    move_away(&sandbox, &ALL);
    let outcome = offline(&sandbox, &["verify", "--all"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has("verify", "ERROR Verification failed: 68 of 68 file(s) are missing");
    outcome.assert_log_has(
        "verify",
        "WARN {}/backups/redis holds none of the 17 file(s) that recovery points name{}",
    );
    outcome.assert_never_says("Bad: ");
    let one = offline(&sandbox, &["verify", &all[3]]);
    assert_eq!(one.code, Some(1), "{one}");
    move_back(&sandbox, &ALL);
    for set in sandbox.backups("sets") {
        assert!(sha256sum_agrees(&sandbox, &set));
        assert_eq!((fact(&set, "damaged"), fact(&set, "verified").is_some()), (None, true));
    }
    for sandbox in [&sandbox, &reference] {
        sandbox.run("cleanup-backups", &[]).assert_success();
    }
    // It let go what it would have let go without the incident.
    assert!(points(&sandbox).len() >= 12, "{:?}", points(&sandbox));
    assert_eq!(points(&sandbox).len(), points(&reference).len());
    for kind in ALL {
        assert_eq!(sandbox.backups(kind).len(), points(&sandbox).len());
    }
}

/// A way for a directory to be away, and what says so.
type Absence = (&'static str, fn(&Path), i32, &'static str);

const ABSENCES: [Absence; 4] = [
    (
        "empty",
        |dir| fs::create_dir(dir).unwrap(),
        0,
        "WARN {} holds none of the 17 file(s) {}: is a disk not mounted?{}",
    ),
    ("gone", |_| {}, 0, "WARN {} holds none of the 17 file(s) {}"),
    (
        "a link that leads nowhere",
        |dir| symlink("/nonexistent/disk", dir).unwrap(),
        1,
        "ERROR Cannot read {}",
    ),
    ("a file", |dir| fs::write(dir, "x").unwrap(), 1, "ERROR Cannot read {}"),
];

#[test]
fn nothing_is_deleted_while_a_directory_is_away() {
    let (sandbox, _) = seventeen("cleanaway");
    let old = loose(&sandbox, "env", 300, 300, b"A=1");
    let before = sandbox.listing();
    for away in [&ALL[..], &["postgres"], &["env"], &["redis", "n8n"]] {
        for (what, make, code, told) in ABSENCES {
            for kind in away {
                let dir = sandbox.path("backups").join(kind);
                fs::rename(&dir, sandbox.aside(kind)).unwrap();
                make(&dir);
            }
            let dry = sandbox.run("cleanup-backups", &["--dry-run"]);
            dry.assert_never_says("Would delete");
            dry.assert_never_says("Would remove");
            let outcome = sandbox.run("cleanup-backups", &[]);
            assert_eq!(outcome.code, Some(code), "{what} {away:?}: {outcome}");
            outcome.assert_log_has("cleanup-backups", told);
            outcome.assert_log_has(
                "cleanup-backups",
                "SUCCESS Cleanup completed: 0 files deleted, 0B freed",
            );
            let status = offline(&sandbox, &["status", "--max-age", "30d"]);
            assert!(
                status.code == Some(2) && status.stdout.contains("[CRITICAL] directories: "),
                "{what}: {status}"
            );
            assert!(!status.stdout.contains("enough for 90 days"), "{what}: {status}");
            for kind in away {
                let dir = sandbox.path("backups").join(kind);
                let _ = fs::remove_file(&dir);
                let _ = fs::remove_dir(&dir);
                fs::rename(sandbox.aside(kind), &dir).unwrap();
            }
            assert_eq!(before, sandbox.listing(), "{what} {away:?}: {outcome}");
        }
    }
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert!(!old.exists() && sandbox.listing().len() < before.len());
}

#[test]
fn manifests_that_are_away_do_not_make_strangers_of_their_files() {
    let (sandbox, _) = seventeen("setsaway");
    // As the first of them has left it.
    fs::write(sandbox.path("backups/.identity"), "00000000000000aa\n").unwrap();
    let before = sandbox.listing();
    let sets = sandbox.path("backups/sets");
    let make: [fn(&Path); 4] = [
        |_| {},
        |sets| fs::create_dir(sets).unwrap(),
        |sets| {
            fs::create_dir(sets).unwrap();
            fs::create_dir(sets.join("lost+found")).unwrap();
        },
        |sets| {
            fs::create_dir(sets).unwrap();
            fs::write(sets.join("20200101_020000.sha256"), "").unwrap();
        },
    ];
    for make in make {
        fs::rename(&sets, sandbox.aside("sets")).unwrap();
        make(&sets);
        let outcome = sandbox.run("cleanup-backups", &[]);
        outcome.assert_log_has(
            "cleanup-backups",
            "WARN {}/backups/sets holds none of the recovery points that {}",
        );
        let status = offline(&sandbox, &["status"]);
        assert!(status.stdout.contains("[CRITICAL] directories: "), "{status}");
        let _ = fs::remove_dir_all(&sets);
        fs::rename(sandbox.aside("sets"), &sets).unwrap();
        assert_eq!(before, sandbox.listing(), "{outcome}");
    }
    move_away(&sandbox, &["sets"]);
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "cleanup-backups",
        "WARN {}/backups/sets holds none of the recovery points that {}",
    );
    let status = offline(&sandbox, &["status"]);
    assert!(status.stdout.contains("[CRITICAL] directories: "), "{status}");
    let verify = offline(&sandbox, &["verify", "--all"]);
    assert_eq!(verify.code, Some(1), "{verify}");
    let told = "ERROR Not checked: {}/backups/sets holds none of the recovery points that {}: is a disk not mounted?";
    verify.assert_log_has("verify", told);
    move_back(&sandbox, &["sets"]);
    assert_eq!(before, sandbox.listing());
    // Neither is a disk that a link leads to, and that is not there.
    fs::rename(sandbox.path("backups/sets"), sandbox.aside("sets")).unwrap();
    symlink("/nonexistent/disk", sandbox.path("backups/sets")).unwrap();
    sandbox
        .run("cleanup-backups", &[])
        .assert_error("Cannot read {}/backups/sets");
    fs::remove_file(sandbox.path("backups/sets")).unwrap();
    fs::rename(sandbox.aside("sets"), sandbox.path("backups/sets")).unwrap();
    assert_eq!(before, sandbox.listing());
}

/// What a run writes while the disk is away lies beneath it, and must not pass for what should be there.
#[test]
fn the_second_night_is_like_the_first() {
    for away in [&["redis"][..], &["sets"], &["redis", "sets"]] {
        let sandbox = Sandbox::new("secondnight")
            .redis()
            .env("BACKUP_KEEP_MONTHLY", "12")
            .build();
        for month in 0..6 {
            point(&sandbox, 3 + month * 31, &whole(100), &[]);
        }
        let before = kept(&sandbox);
        let sets = sandbox.backups("sets");
        move_away(&sandbox, away);
        for _ in 0..2 {
            sandbox.run("cleanup-backups", &[]).assert_success();
            sandbox.run("backup-redis", &[]).assert_success();
        }
        sandbox.run("cleanup-backups", &[]).assert_success();
        move_back(&sandbox, away);
        let after = kept(&sandbox);
        assert!(before.iter().all(|line| after.contains(line)), "{away:?}");
        assert!(sets.iter().all(|set| sha256sum_agrees(&sandbox, set)), "{away:?}");
        // Once all is back, it goes on as ever.
        let outcome = sandbox.run("cleanup-backups", &[]);
        outcome.assert_success().assert_never_says("is a disk not mounted");
        assert!(
            sets.iter().all(|set| sha256sum_agrees(&sandbox, set)),
            "{away:?}: {outcome}"
        );
    }
}

/// With `backups/` all is away that could tell of it, but for what lies beside it.
#[test]
fn a_disk_that_holds_all_backups_is_missed() {
    let test = "points::presence::a_disk_that_holds_all_backups_is_missed";
    if !can_mount() {
        return skip(test, "needs to mount in a namespace of its own (root)");
    }
    let sandbox = Sandbox::new("disk").redis().env("BACKUP_KEEP_LAST", "1").build();
    // What was there before the disk lies beneath it, if nobody has removed it.
    for age in [300, 310] {
        point(&sandbox, age, &whole(100), &[]);
    }
    // The disk goes with the program.
    let script = r#"mount -t tmpfs none "$1" && shift && exec "$@""#;
    let mut under = ["unshare", "-m", "sh", "-c", script, "sh"].map(OsString::from).to_vec();
    under.push(sandbox.path("backups").into());
    sandbox.call("backup-redis").under(&under).run().assert_success();
    assert_eq!(points(&sandbox).len(), 2);
    let trace = sandbox.path("logs/.identity");
    let told = fs::read_to_string(&trace).unwrap();
    let identity = told.split(' ').next().unwrap();
    for night in 1..3 {
        let status = offline(&sandbox, &["status"]);
        let told = "[CRITICAL] directories: ";
        assert!(status.code == Some(2) && status.stdout.contains(told), "{status}");
        assert!(status.stdout.contains("/backups is not the disk "), "{status}");
        sandbox.run("backup-redis", &[]).assert_success();
        let made = sandbox.backups("sets").pop().unwrap();
        assert_eq!(points(&sandbox).len(), 2 + night);
        assert_eq!(fact(&made, "away").as_deref(), Some("backups"));
        assert_eq!(fact(&made, "stack").as_deref(), Some(identity));
    }
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_log_has("cleanup-backups", "WARN {}/backups is not the disk {} say so: rm {}");
    assert_eq!(points(&sandbox).len(), 4, "{outcome}");
    // It is back.
    let status = sandbox.binary().args(&["status"]).under(&under).run();
    assert!(!status.stdout.contains("directories: "), "{status}");
    fs::remove_file(trace).unwrap();
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success().assert_never_says("is not the disk");
    assert_eq!(points(&sandbox).len(), 3, "{outcome}");
}

/// A directory that goes with its test.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The project is on one disk, the mount point on another, and the backups are on a third one.
#[test]
fn a_disk_that_a_link_leads_to_is_missed() {
    let test = "points::presence::a_disk_that_a_link_leads_to_is_missed";
    let sandbox = Sandbox::new("linkdisk").redis().build();
    let shared = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    if !can_mount() || device(shared).is_none() || device(shared) == device(&sandbox.path("")) {
        return skip(
            test,
            "needs to mount in a namespace of its own (root), and a /dev/shm that is a disk of its own",
        );
    }
    let outer = Removed(shared.join(format!("{}linkdisk", sandbox.prefix())));
    let place = outer.0.join("my disk");
    fs::create_dir_all(&place).unwrap();
    let _ = fs::remove_dir_all(sandbox.path("backups"));
    symlink(&place, sandbox.path("backups")).unwrap();
    // The disk goes with the program.
    let script = r#"mount -t tmpfs none "$1" && shift && exec "$@""#;
    let mut under = ["unshare", "-m", "sh", "-c", script, "sh"].map(OsString::from).to_vec();
    under.push(place.clone().into());
    sandbox.call("backup-redis").under(&under).run().assert_success();
    assert!(points(&sandbox).is_empty());
    let trace = sandbox.path("logs/.identity");
    let told = fs::read_to_string(&trace).unwrap();
    assert!(told.ends_with(&format!(" {}\n", place.display())), "{told}");
    for night in 1..3 {
        let status = offline(&sandbox, &["status"]);
        let critical = "[CRITICAL] directories: ";
        assert!(status.code == Some(2) && status.stdout.contains(critical), "{status}");
        sandbox.run("backup-redis", &[]).assert_success();
        let made = sandbox.backups("sets").pop().unwrap();
        assert_eq!(points(&sandbox).len(), night);
        assert_eq!(fact(&made, "away").as_deref(), Some("backups"));
        assert_eq!(fact(&made, "stack").as_deref(), told.split(' ').next());
        assert_eq!(fs::read_to_string(&trace).unwrap(), told);
    }
    // It is back, or the link leads to another disk.
    let status = sandbox.binary().args(&["status"]).under(&under).run();
    assert!(!status.stdout.contains("directories: "), "{status}");
    let moved = outer.0.join("moved");
    fs::create_dir(&moved).unwrap();
    fs::remove_file(sandbox.path("backups")).unwrap();
    symlink(&moved, sandbox.path("backups")).unwrap();
    let status = offline(&sandbox, &["status"]);
    assert!(!status.stdout.contains("directories: "), "{status}");
}

/// The way out that docs/retention.md names.
#[test]
fn what_is_lost_for_good_can_be_given_up() {
    let sandbox = Sandbox::new("lost").redis().build();
    let old = [3, 20, 40].map(|age| point(&sandbox, age, &whole(100), &[]));
    move_away(&sandbox, &["redis"]);
    sandbox.run("backup-redis", &[]).assert_success();
    let newest = sandbox.backups("sets").pop().unwrap();
    assert_eq!(fact(&newest, "away").as_deref(), Some("redis"));
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    assert_eq!(points(&sandbox).len(), 4, "{outcome}");
    sh(
        "sed -i '/^# away: /d' \"$1\"/backups/sets/*.sha256",
        &[sandbox.dir().as_os_str()],
    );
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success().assert_never_says("is a disk not mounted");
    assert_eq!(
        points(&sandbox),
        [&old[0], &name(&newest).replace(".sha256", "")].map(String::clone)
    );
}

/// As of a component that the stack does not use any more.
#[test]
fn what_was_deleted_on_purpose_is_not_waited_for() {
    let sandbox = Sandbox::new("emptied").build();
    let made = [3, 20, 40].map(|age| point(&sandbox, age, &whole(100), &[]));
    for file in sandbox.backups("redis") {
        fs::remove_file(file).unwrap();
    }
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success().assert_log_has(
        "cleanup-backups",
        "WARN {} is a disk not mounted? {} If the files were deleted on purpose, say so: mkdir -p {} && touch {}/backups/redis/.emptied{}",
    );
    assert_eq!(points(&sandbox).len(), 3);
    let status = offline(&sandbox, &["status", "--max-age", "30d"]);
    assert!(status.stdout.contains("/backups/redis/.emptied"), "{status}");
    sandbox.write("backups/redis/.emptied", "");
    let status = offline(&sandbox, &["status", "--max-age", "30d"]);
    assert!(!status.stdout.contains("directories: "), "{status}");
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success().assert_never_says("is a disk not mounted");
    assert_eq!(points(&sandbox), [made[0].clone()]);
}

#[test]
fn something_else_in_the_place_of_a_file_says_nothing_of_it() {
    let sandbox = Sandbox::new("instead").env("BACKUP_KEEP_LAST", "1").build();
    point(&sandbox, 1, &whole(100), &[]);
    let old = point(&sandbox, 20, &whole(100), &["verified: 2026-01-01T00:00:00+00:00"]);
    point(&sandbox, 30, &whole(100), &["verified: 2026-01-01T00:00:00+00:00"]);
    let set = sandbox.path(format!("backups/sets/{old}.sha256"));
    let file = sandbox.path(format!("backups/n8n/n8n_data_{old}.tar.gz"));
    fs::rename(&file, sandbox.aside("file")).unwrap();
    let instead: [fn(&Path); 2] = [
        |file| fs::create_dir(file).unwrap(),
        |file| symlink("/nonexistent/file", file).unwrap(),
    ];
    for make in instead {
        make(&file);
        for args in [
            &["verify", &old][..],
            &["verify", &file.to_string_lossy()],
            &["verify", "--all"],
        ] {
            let outcome = offline(&sandbox, args);
            assert_eq!(outcome.code, Some(1), "{outcome}");
            outcome.assert_log_has("verify", &format!("ERROR Not checked: {}: {{}}", file.display()));
            assert_eq!(fact(&set, "damaged"), None, "{outcome}");
        }
        let list = offline(&sandbox, &["list"]);
        assert!(list.stdout.contains(" unreadable "), "{list}");
        sandbox.run("cleanup-backups", &[]).assert_success();
        let left = points(&sandbox);
        assert!(left.contains(&old) && left.len() == 2, "{left:?}");
        assert!(sandbox.path(format!("backups/redis/dump_{old}.rdb")).exists());
        point(&sandbox, 30, &whole(100), &[]);
        let _ = fs::remove_dir(&file);
        let _ = fs::remove_file(&file);
    }
    fs::rename(sandbox.aside("file"), &file).unwrap();
    assert!(sha256sum_agrees(&sandbox, &set));
}

/// Runs a command where `file` is one that has 4096 bytes and gives an error when it is read.
fn unreadable(sandbox: &Sandbox, file: &Path, args: &[&str]) -> Outcome {
    let script = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;
    let mut under: Vec<OsString> = ["unshare", "-m", "sh", "-c", script, "sh", BROKEN]
        .map(OsString::from)
        .into();
    under.push(file.into());
    sandbox.binary().args(args).under(&under).run()
}

/// The kernel answers EIO here, since this device has no such delay.
const BROKEN: &str = "/sys/devices/platform/power/autosuspend_delay_ms";

fn can_be_broken() -> bool {
    let meta = fs::metadata(BROKEN);
    can_mount() && meta.is_ok_and(|meta| meta.is_file() && meta.len() == 4096) && fs::read(BROKEN).is_err()
}

#[test]
fn bytes_that_cannot_be_read_are_not_bad_ones() {
    let test = "points::presence::bytes_that_cannot_be_read_are_not_bad_ones";
    let broken =
        fs::metadata(BROKEN).is_ok_and(|meta| meta.is_file() && meta.len() == 4096) && fs::read(BROKEN).is_err();
    if !can_mount() || !broken {
        return skip(
            test,
            "needs to mount in a namespace of its own (root), and a file of sysfs that gives an error",
        );
    }
    let sandbox = Sandbox::new("eio").env("BACKUP_KEEP_LAST", "1").build();
    let old = point(&sandbox, 20, &whole(4096), &["verified: 2026-01-01T00:00:00+00:00"]);
    let set = manifest(&sandbox);
    for (kind, prefix, suffix) in KINDS {
        let file = sandbox.path(format!("backups/{kind}/{prefix}{old}{suffix}"));
        for args in [&["verify", &old][..], &["verify", &file.to_string_lossy()]] {
            let outcome = unreadable(&sandbox, &file, args);
            assert_eq!(outcome.code, Some(1), "{outcome}");
            outcome.assert_log_has("verify", &format!("ERROR Not checked: {}: {{}}", file.display()));
            assert_eq!(fact(&set, "damaged"), None, "{outcome}");
        }
    }
    // A manifest that cannot be read does not give its files away, and one that is half neither.
    point(&sandbox, 1, &whole(4096), &[]);
    let text = fs::read_to_string(&set).unwrap();
    let before = kept(&sandbox);
    let outcome = unreadable(&sandbox, &set, &["cleanup-backups"]);
    outcome.assert_success();
    outcome.assert_log_has("cleanup-backups", "WARN Recovery point left out: {}");
    assert_eq!(before, kept(&sandbox), "{outcome}");
    for end in [0, 20, text.len() / 2, text.len() - 2] {
        fs::write(&set, &text[..end]).unwrap();
        let outcome = sandbox.run("cleanup-backups", &[]);
        outcome.assert_success();
        assert_eq!(before, kept(&sandbox), "{end}: {outcome}");
    }
    fs::write(&set, text).unwrap();
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(points(&sandbox).len(), 1);
}

#[test]
fn a_directory_that_cannot_be_read_keeps_no_other_part_from_its_restore() {
    let sandbox = Sandbox::new("otherpart").redis().build();
    sandbox.redis(&["SET", "value", "1"]);
    sandbox.run("backup-redis", &[]).assert_success();
    let set = manifest(&sandbox);
    let archive = format!("{}  n8n/n8n_data_20260102_030405.tar.gz\n", "0".repeat(64));
    fs::write(&set, fs::read_to_string(&set).unwrap() + &archive).unwrap();
    let dir = sandbox.path("backups/n8n");
    let _ = fs::remove_dir_all(&dir);
    fs::write(&dir, "x").unwrap();
    offline(&sandbox, &["pin", "latest"]).assert_success();
    assert!(fact(&set, "pinned").is_some());
    sandbox.redis(&["SET", "value", "2"]);
    let stamp = name(&set).replace(".sha256", "");
    let outcome = sandbox.run("restore-all", &["--only", "redis", "--yes", &stamp]);
    outcome.assert_success();
    assert_eq!(sandbox.redis(&["GET", "value"]), "1", "{outcome}");
    // It is told where it is what is to be restored.
    let outcome = sandbox.run("restore-all", &["--only", "n8n", "--yes", &stamp]);
    outcome.assert_error("Cannot read {}/backups/n8n/{}");
}

/// Of the dumps that the scripts made the newest may be the one that cannot be read: then no other goes.
#[test]
fn a_dump_without_a_point_that_cannot_be_read_costs_no_other() {
    let test = "points::presence::a_dump_without_a_point_that_cannot_be_read_costs_no_other";
    if !can_be_broken() {
        return skip(
            test,
            "needs to mount in a namespace of its own (root), and a file of sysfs that gives an error",
        );
    }
    let sandbox = Sandbox::new("eioloose").build();
    let [old, newest] = [30, 20].map(|age| loose(&sandbox, "postgres", age, age, &[b'x'; 4096]));
    let outcome = unreadable(&sandbox, &newest, &["cleanup-backups"]);
    outcome.assert_success();
    assert!(old.exists() && newest.exists(), "{outcome}");
}

/// A remote that is a directory of this host. Gives the one that points are sent to.
fn to_directory(sandbox: &Sandbox) -> PathBuf {
    let (dir, conf) = (sandbox.aside("elsewhere"), sandbox.aside("rclone.conf"));
    let text = format!("[n8n-backup]\ntype = alias\nremote = {}\n", dir.display());
    fs::write(&conf, text).unwrap();
    sandbox.set("RCLONE_CONFIG", &conf.to_string_lossy());
    dir.join("n8n-backups")
}

/// What is fetched while the disk is away lies beneath it, too, also that of a point whose manifest is here.
#[test]
fn what_is_fetched_does_not_pass_for_what_should_be_there() {
    if !has_program("rclone") {
        return skip(
            "points::presence::what_is_fetched_does_not_pass_for_what_should_be_there",
            "no rclone",
        );
    }
    let sandbox = Sandbox::new("fetchaway")
        .env("RCLONE_SYNC_ENCRYPTED_ONLY", "false")
        .env("BACKUP_KEEP_LAST", "1")
        .build();
    to_directory(&sandbox);
    let made = [20, 21, 22].map(|age| point(&sandbox, age, &whole(100), &[]));
    sandbox.run("backup-offsite", &[]).assert_success();
    // A dump in clear gets its name last.
    for away in [&["postgres"][..], &["redis"], &["postgres", "redis"]] {
        move_away(&sandbox, away);
        offline(&sandbox, &["fetch-offsite", &made[0]]).assert_success();
        for kind in away {
            assert_eq!(sandbox.backups(kind).len(), 1, "{kind}");
        }
        let before = kept(&sandbox);
        let outcome = offline(&sandbox, &["cleanup-backups"]);
        for kind in away {
            let told = format!("WARN {{}}/{kind} holds none of the 2 file(s) {{}}: is a disk not mounted?{{}}");
            outcome.assert_log_has("cleanup-backups", &told);
        }
        assert_eq!((kept(&sandbox), points(&sandbox).len()), (before, 3), "{outcome}");
        move_back(&sandbox, away);
    }
    let set = sandbox.path(format!("backups/sets/{}.sha256", made[0]));
    assert_eq!(fact(&set, "away").as_deref(), Some("postgres redis"));
    assert!(sha256sum_agrees(&sandbox, &set));
    let outcome = offline(&sandbox, &["cleanup-backups"]);
    outcome.assert_success().assert_never_says("is a disk not mounted");
    assert_eq!(points(&sandbox), made[..1]);
}

#[test]
fn what_is_empty_off_site_lets_nothing_go_there() {
    if !has_program("rclone") {
        return skip(
            "points::presence::what_is_empty_off_site_lets_nothing_go_there",
            "no rclone",
        );
    }
    let sandbox = Sandbox::new("offaway")
        .env("RCLONE_SYNC_ENCRYPTED_ONLY", "false")
        .env("BACKUP_KEEP_LAST", "1")
        .build();
    let there = to_directory(&sandbox);
    for age in [1, 40, 80] {
        point(&sandbox, age, &whole(100), &[]);
    }
    sandbox.run("backup-offsite", &[]).assert_success();
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "30");
    let identity = fs::read_to_string(sandbox.path("backups/.identity")).unwrap();
    let there = there.join(format!("stack-{}", identity.trim()));
    let sets = || fs::read_dir(there.join("sets")).unwrap().count();
    assert_eq!(sets(), 3);
    fs::rename(there.join("postgres"), sandbox.aside("postgres")).unwrap();
    let outcome = sandbox.run("backup-offsite", &[]);
    outcome.assert_log_has(
        "backup-offsite",
        "WARN stack-{}/postgres/ is empty there, {}: nothing is deleted there",
    );
    assert_eq!(sets(), 3, "{outcome}");
    fs::remove_dir_all(there.join("postgres")).unwrap();
    fs::rename(sandbox.aside("postgres"), there.join("postgres")).unwrap();

    // Nor does anything go while it is here that a directory is empty, also of what is in no stack's directory there.
    let unnamed = there.parent().unwrap();
    for part in ["sets", "redis"] {
        fs::create_dir(unnamed.join(part)).unwrap();
    }
    for stamp in ["20200101_020000", "20200301_020000"] {
        let text = format!("# n8n-backup recovery point {stamp}\n# deleted: n8n\n");
        fs::write(unnamed.join(format!("sets/{stamp}.sha256")), text).unwrap();
        fs::write(unnamed.join(format!("redis/dump_{stamp}.rdb")), "x").unwrap();
    }
    for away in ["backups/postgres", "backups/sets", "backups"] {
        let dir = sandbox.path(away);
        fs::rename(&dir, sandbox.aside("here")).unwrap();
        fs::create_dir(&dir).unwrap();
        let outcome = sandbox.run("backup-offsite", &[]);
        outcome.assert_log_has(
            "backup-offsite",
            "WARN {} holds {}: is a disk not mounted? Nothing is deleted there",
        );
        fs::remove_dir_all(&dir).unwrap();
        fs::rename(sandbox.aside("here"), &dir).unwrap();
        assert_eq!(
            sets() + fs::read_dir(unnamed.join("sets")).unwrap().count(),
            5,
            "{outcome}"
        );
    }
    let outcome = sandbox.run("backup-offsite", &[]);
    outcome.assert_log_has("backup-offsite", "INFO Deleting there, older than 30 days: {}");
    assert_eq!(sets(), 1, "{outcome}");
}

/// A copy that is known not to be whole is none until it is, whatever keeps it from being sent again.
#[test]
fn a_copy_that_cannot_be_sent_again_is_no_copy() {
    if !has_program("rclone") {
        return skip(
            "points::presence::a_copy_that_cannot_be_sent_again_is_no_copy",
            "no rclone",
        );
    }
    let sandbox = Sandbox::new("offbroken")
        .env("RCLONE_SYNC_ENCRYPTED_ONLY", "false")
        .env("BACKUP_OFFSITE", "true")
        .build();
    let there = to_directory(&sandbox);
    let [_, newest] = [2, 1].map(|age| point(&sandbox, age, &whole(100), &[]));
    sandbox.run("backup-offsite", &[]).assert_success();
    let identity = fs::read_to_string(sandbox.path("backups/.identity")).unwrap();
    let dump = format!("stack-{}/redis/dump_{newest}.rdb", identity.trim());
    let dump = there.join(dump);
    let text = fs::read(&dump).unwrap();
    let set = sandbox.path(format!("backups/sets/{newest}.sha256"));
    // As of a remote that is full, or a key that may no longer write.
    let full = sandbox.stand_in(
        "rclone",
        "#!/bin/sh\ncase \" $* \" in *' copy '*) exit 5 ;; esac\nPATH=${PATH#*:}\nexec rclone \"$@\"\n",
    );
    let send_in_vain = || sandbox.call("backup-offsite").path_first(&full).run();
    let says = |level: &str| {
        let status = offline(&sandbox, &["status", "--max-age", "30d"]);
        let list = offline(&sandbox, &["list"]);
        let json = offline(&sandbox, &["list", "--json"]);
        let is_broken = level == "WARNING";
        assert!(status.stdout.contains(&format!("[{level}] offsite: ")), "{status}");
        assert_eq!(list.stdout.contains("off-site not whole"), is_broken, "{list}");
        assert_eq!(json.stdout.contains("\"offsite\": null"), is_broken, "{json}");
        assert_eq!(fact(&set, "offsite.defect").is_some(), is_broken);
        assert!(fact(&set, "offsite").is_some());
    };
    says("OK");
    let flipped = [&text[..99], b"y"].concat();
    for broken in [None, Some(flipped)] {
        match &broken {
            None => fs::remove_file(&dump).unwrap(),
            Some(other) => fs::write(&dump, other).unwrap(),
        }
        // The checksums of one point are compared in each run.
        assert!((0..3).any(|_| send_in_vain().code == Some(1)), "{}", sandbox.log());
        says("WARNING");
        assert_eq!(send_in_vain().code, Some(1));
        says("WARNING");
        sandbox.run("backup-offsite", &[]).assert_success();
        assert_eq!(fs::read(&dump).unwrap(), text);
        says("OK");
    }
    // Somebody has brought it back.
    fs::remove_file(&dump).unwrap();
    assert_eq!(send_in_vain().code, Some(1));
    says("WARNING");
    fs::write(&dump, &text).unwrap();
    assert_eq!(send_in_vain().code, Some(2));
    says("OK");
}

/// What is gone for good is so told by its neighbours, and its manifest goes in its time.
#[test]
fn a_file_that_is_gone_by_itself_does_not_hold_the_rest() {
    let sandbox = Sandbox::new("gone").env("BACKUP_KEEP_LAST", "1").build();
    let newest = point(&sandbox, 1, &whole(100), &[]);
    let old = point(&sandbox, 20, &whole(100), &[]);
    fs::remove_file(sandbox.path(format!("backups/postgres/n8n_{old}.sql.gz"))).unwrap();
    let copied = point(&sandbox, 25, &whole(100), &[]);
    touch(&sandbox.path(format!("backups/env/env_{copied}.backup")), days_ago(1));
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert_eq!(points(&sandbox), [copied, newest]);
}
