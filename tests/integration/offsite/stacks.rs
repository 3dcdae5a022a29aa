//! Copies that are looked at again, and stacks that share a place.

use std::fs;
use std::path::Path;

use super::{files, forget_copies, identity, lacks_programs, send, stack_dir, to_directory};
use crate::common::{assert_same, name, sh, Sandbox};

/// A recovery point made by hand, of a snapshot with these contents.
pub fn point(sandbox: &Sandbox, stamp: &str, snapshot: &str, contents: &str) {
    let name = format!("redis/dump_{snapshot}.rdb");
    let file = sandbox.write(&format!("backups/{name}"), contents);
    let sum = sh("sha256sum <\"$1\" | cut -c -64", &[file.as_os_str()]);
    let text = format!(
        "# n8n-backup recovery point {stamp}\n# failed: postgres n8n env\n# size.redis: {}\n{}  {name}\n",
        contents.len(),
        sum.trim()
    );
    fs::create_dir_all(sandbox.path("backups/sets")).unwrap();
    sandbox.write(&format!("backups/sets/{stamp}.sha256"), text);
}

/// The files of one stack there, with their contents.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let names = files(dir).into_iter();
    names
        .map(|name| (name.clone(), fs::read(dir.join(name)).unwrap()))
        .collect()
}

pub fn plain(name: &'static str) -> Sandbox {
    Sandbox::new(name).env("RCLONE_SYNC_ENCRYPTED_ONLY", "false").build()
}

pub const POINTS: [&str; 3] = ["20260102_020000", "20260103_020000", "20260104_020000"];

#[test]
fn what_goes_missing_there_is_sent_again() {
    if lacks_programs("offsite::stacks::what_goes_missing_there") {
        return;
    }
    let sandbox = plain("offagain");
    let there = to_directory(&sandbox);
    for stamp in POINTS {
        point(&sandbox, stamp, stamp, &format!("the snapshot of {stamp}").repeat(100));
    }
    send(&sandbox).assert_success();
    let stack = stack_dir(&there);
    let before = contents(&stack);
    let [dump, set] = [
        format!("redis/dump_{}.rdb", POINTS[0]),
        format!("sets/{}.sha256", POINTS[1]),
    ];
    let (dump, set) = (stack.join(dump), stack.join(set));
    let whole = fs::read(&dump).unwrap();
    for (what, break_it) in [
        (
            "a file that is gone",
            (&|| fs::remove_file(&dump).unwrap()) as &dyn Fn(),
        ),
        ("an empty file", &|| fs::write(&dump, "").unwrap()),
        ("a file that is cut", &|| fs::write(&dump, &whole[1..]).unwrap()),
        ("a manifest that is gone", &|| fs::remove_file(&set).unwrap()),
        ("a manifest that is cut", &|| fs::write(&set, "# n8n-backup").unwrap()),
        ("an empty manifest", &|| fs::write(&set, "").unwrap()),
    ] {
        break_it();
        let outcome = send(&sandbox);
        outcome.assert_success();
        outcome.assert_log_has(
            "backup-offsite",
            "WARN The copy of recovery point {} is not whole: {} It is sent again",
        );
        assert_eq!(contents(&stack), before, "{what}: {outcome}");
        assert_eq!(send(&sandbox).code, Some(2), "{what}");
    }
    // Of the same length: the checksums of one point are compared in each run, and all have their turn.
    for path in [&dump, &set] {
        let mut bytes = fs::read(path).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(path, bytes).unwrap();
        let found = (0..POINTS.len()).any(|_| {
            let outcome = send(&sandbox);
            assert!(matches!(outcome.code, Some(0 | 2)), "{outcome}");
            outcome.code == Some(0)
        });
        assert!(found, "{}: {}", path.display(), sandbox.log());
        assert_eq!(contents(&stack), before);
    }
}

#[test]
fn what_is_lost_on_both_sides_is_not_called_copied() {
    if lacks_programs("offsite::stacks::what_is_lost_on_both_sides") {
        return;
    }
    let sandbox = plain("offboth");
    let there = to_directory(&sandbox);
    for stamp in POINTS {
        point(&sandbox, stamp, stamp, stamp);
    }
    send(&sandbox).assert_success();
    let newest = sandbox.backups("redis").pop().unwrap();
    let set = sandbox.backups("sets").pop().unwrap();
    fs::remove_file(&newest).unwrap();
    fs::remove_file(stack_dir(&there).join("redis").join(name(&newest))).unwrap();
    let dry = sandbox.run("backup-offsite", &["--dry-run"]);
    dry.assert_log_has(
        "backup-offsite",
        "WARN {} It cannot be sent again, since it is not whole here either",
    );
    assert!(fs::read_to_string(&set).unwrap().contains("# offsite: "));
    let outcome = send(&sandbox);
    outcome.assert_log_has(
        "backup-offsite",
        "WARN {} It cannot be sent again, since it is not whole here either",
    );
    assert!(!fs::read_to_string(&set).unwrap().contains("# offsite: "), "{outcome}");
}

/// The disk that copies go to is not mounted one night, and the mount point is of another disk.
#[test]
fn a_place_that_has_lost_all_gets_nothing() {
    if lacks_programs("offsite::stacks::a_place_that_has_lost_all") {
        return;
    }
    let [sandbox, other] = ["offmount", "offbeside"].map(plain);
    let there = to_directory(&sandbox);
    other.set("RCLONE_CONFIG", &sandbox.aside("rclone.conf").to_string_lossy());
    for stamp in &POINTS[..2] {
        point(&sandbox, stamp, stamp, stamp);
    }
    send(&sandbox).assert_success();
    let before = contents(&there);
    let disk = there.with_file_name("disk");
    fs::rename(&there, &disk).unwrap();
    point(&sandbox, POINTS[2], POINTS[2], POINTS[2]);
    // Before and after another stack has sent its first point there.
    for _ in 0..2 {
        let listing = sandbox.listing();
        let beneath = contents(&there);
        for args in [&[][..], &["--dry-run"]] {
            let outcome = sandbox.run("backup-offsite", args);
            outcome.assert_error("{} holds nothing of the recovery points that were sent there");
            outcome.assert_log_has("backup-offsite", "ERROR Hint: is it a disk that is not mounted, {}");
        }
        assert_eq!((listing, beneath), (sandbox.listing(), contents(&there)));
        point(&other, POINTS[0], POINTS[0], "of another stack");
        send(&other);
    }
    fs::remove_dir_all(&there).unwrap();
    fs::rename(&disk, &there).unwrap();
    send(&sandbox).assert_success();
    let after = contents(&there);
    assert!(before.iter().all(|file| after.contains(file)) && after.len() == before.len() + 2);
}

#[test]
fn stacks_that_share_a_place_leave_each_other_alone() {
    if lacks_programs("offsite::stacks::stacks_that_share_a_place") {
        return;
    }
    let [first, second, host] = ["offone", "offtwo", "offthree"].map(plain);
    let there = to_directory(&first);
    for other in [&second, &host] {
        other.set("RCLONE_CONFIG", &first.aside("rclone.conf").to_string_lossy());
    }
    // The very same names, as of two crontabs at 02:00.
    for stamp in ["20250101_020000", "20260102_020000"] {
        point(&first, stamp, stamp, "of the first");
    }
    send(&first).assert_success();
    let of_first = there.join(format!("stack-{}", identity(&first)));
    let before = contents(&of_first);
    for stamp in ["20250101_020000", "20260102_020000", "20260203_020000"] {
        point(&second, stamp, stamp, "of the second stack");
    }
    send(&second).assert_success();
    second.set("BACKUP_OFFSITE_KEEP_DAYS", "30");
    second.set("BACKUP_KEEP_LAST", "0");
    let outcome = send(&second);
    outcome.assert_log_has("backup-offsite", "INFO Deleting there, older than 30 days: {}");
    assert_ne!(identity(&first), identity(&second));
    assert_eq!(contents(&of_first), before, "{outcome}");
    let of_second = there.join(format!("stack-{}", identity(&second)));
    assert!(!of_second.join("sets/20250101_020000.sha256").exists(), "{outcome}");

    // A host without an identity asks which.
    let fetch = |sandbox: &Sandbox, args: &[&str]| sandbox.binary().arg("fetch-offsite").args(args).run();
    let asked = fetch(&host, &["latest"]);
    asked.assert_error("There are recovery points of several stacks at {}");
    for sandbox in [&first, &second] {
        assert!(asked.stdout.contains(&identity(sandbox)), "{asked}");
    }
    asked.assert_log_has("fetch-offsite", "ERROR Hint: add --stack ID");
    assert!(!host.path("backups/.identity").exists() && host.backups("sets").is_empty());
    for bad in ["0000000000000000", "../..", "x"] {
        fetch(&host, &["--stack", bad]).assert_error("There is no stack '{}' at {}; there are: {}");
    }
    fetch(&host, &["--stack", &identity(&first), "latest"]).assert_success();
    assert_eq!(identity(&host), identity(&first));
    assert_eq!(fs::read_to_string(host.backup("redis")).unwrap(), "of the first");
    // It knows now.
    fetch(&host, &["20250101_020000"]).assert_success();
    // The second one's points are its own business, though they can be had by name.
    fs::remove_file(host.path("backups/redis/dump_20260102_020000.rdb")).unwrap();
    fs::remove_file(host.path("backups/sets/20260102_020000.sha256")).unwrap();
    let fetched = fetch(&host, &["--stack", &identity(&second), "20260203_020000"]);
    fetched.assert_success().assert_log_has(
        "fetch-offsite",
        "INFO It is of another stack: it is restored by name only, {}",
    );
    assert_eq!(identity(&host), identity(&first));
    // Also where the file is lost, and what earlier versions have sent is not the other stack's.
    fs::remove_file(host.path("backups/.identity")).unwrap();
    for part in ["sets/20260302_020000.sha256", "redis/dump_20260302_020000.rdb"] {
        let copy = there.join(part);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, "of nobody").unwrap();
    }
    let again = fetch(&host, &["--stack", &identity(&second), "latest"]);
    again
        .assert_success()
        .assert_log_has("fetch-offsite", "SUCCESS Recovery point 20260203_020000 is in {}");
    assert_eq!(identity(&host), identity(&first), "{again}");
    let before = contents(&there);
    let outcome = send(&host);
    outcome.assert_log_has(
        "backup-offsite",
        "INFO 1 recovery point(s) of another stack are not sent",
    );
    assert_eq!(contents(&there), before, "{outcome}");
}

/// A point that was fetched from another stack is newer than any of this one, and says nothing of it.
#[test]
fn a_point_of_another_stack_is_never_the_latest() {
    let sandbox = Sandbox::new("offother").stack().seeded().build();
    sandbox.run("backup-all", &[]).assert_success();
    let own = manifest_name(&sandbox);
    let before = sandbox.fingerprint();
    sandbox.psql("CREATE TABLE of_the_other_stack (id int)");
    let file = sandbox.path("backups/.identity");
    let identity = fs::read_to_string(&file).unwrap();
    fs::write(&file, "00000000000000bb\n").unwrap();
    let other = sandbox.run("backup-all", &[]);
    other.assert_success();
    fs::write(&file, identity).unwrap();
    let other = manifest_name(&sandbox);
    assert_ne!(own, other);

    let list = binary(&sandbox, &["list"]);
    let states: Vec<&str> = list
        .stdout
        .lines()
        .filter(|line| line.contains("of another stack"))
        .collect();
    assert!(states.len() == 1 && states[0].starts_with(&other), "{list}");
    let status = binary(&sandbox, &["status", "--json"]);
    assert!(
        status.stdout.contains(&format!("\"newest\": {{\"name\": \"{own}\"")),
        "{status}"
    );
    assert!(!status.stdout.contains(&other), "{status}");
    assert_eq!(binary(&sandbox, &["status"]).code, Some(0));
    binary(&sandbox, &["verify"]).assert_log_has("verify", &format!("INFO Verifying recovery point {own}"));
    binary(&sandbox, &["pin", "latest"]).assert_log_has("pin", &format!("SUCCESS Recovery point {own} {{}}"));
    sandbox.set("BACKUP_KEEP_LAST", "1");
    binary(&sandbox, &["unpin", &own]).assert_success();
    sandbox.set("BACKUP_RETENTION_DAYS", "0");
    let cleanup = sandbox.run("cleanup-backups", &["--dry-run"]);
    cleanup.assert_log_has(
        "cleanup-backups",
        &format!("INFO [DRY-RUN] Would keep: {{}}, recovery point {own}"),
    );

    let outcome = sandbox.run("restore-all", &["latest", "--yes"]);
    outcome.assert_success().assert_log_has(
        "restore-all",
        &format!("WARN Passing over the newer recovery point {other}: of another stack"),
    );
    assert_same(&before, &sandbox.fingerprint());
    sandbox.run("restore-all", &[&other, "--yes"]).assert_success();
    sandbox.psql("SELECT FROM of_the_other_stack");
}

/// The stamp of the newest manifest.
fn manifest_name(sandbox: &Sandbox) -> String {
    let newest = sandbox.backups("sets").pop().unwrap();
    name(&newest).trim_end_matches(".sha256").to_owned()
}

/// A host that was copied has the identity of the other one.
#[test]
fn a_copied_host_does_not_replace_the_copies_of_the_other() {
    if lacks_programs("offsite::stacks::a_copied_host") {
        return;
    }
    let [first, copy] = ["offorig", "offcopy"].map(plain);
    let there = to_directory(&first);
    copy.set("RCLONE_CONFIG", &first.aside("rclone.conf").to_string_lossy());
    point(&first, POINTS[0], POINTS[0], "of the first");
    send(&first).assert_success();
    let before = contents(&there);
    copy.write("backups/.identity", identity(&first));
    point(&copy, POINTS[0], POINTS[0], "of the copied host");
    let outcome = send(&copy);
    outcome.assert_error("Recovery point {} could not be sent to {}");
    outcome.assert_log_has(
        "backup-offsite",
        "ERROR Hint: give a host that was copied from this one an RCLONE_BUCKET {}",
    );
    assert_eq!(contents(&there), before);
    let dry = copy.run("backup-offsite", &["--dry-run"]);
    assert_eq!(dry.code, Some(1), "{dry}");
}

/// A point that has lost its mark, as by another name of the remote, and whose manifest there is the one that was sent.
#[test]
fn an_unmarked_point_is_completed_there() {
    if lacks_programs("offsite::stacks::an_unmarked_point_is_completed_there") {
        return;
    }
    let sandbox = plain("offunmarked");
    let there = to_directory(&sandbox);
    for stamp in &POINTS[..2] {
        point(&sandbox, stamp, stamp, &format!("the snapshot of {stamp}"));
    }
    send(&sandbox).assert_success();
    let stack = stack_dir(&there);
    let before = files(&stack);
    for cut in [None, Some("the snap")] {
        forget_copies(&sandbox);
        let copy = stack.join(format!("redis/dump_{}.rdb", POINTS[0]));
        match cut {
            None => fs::remove_file(&copy).unwrap(),
            Some(text) => fs::write(&copy, text).unwrap(),
        }
        send(&sandbox).assert_success();
        assert_eq!(files(&stack), before);
        assert_eq!(
            fs::read_to_string(&copy).unwrap(),
            format!("the snapshot of {}", POINTS[0])
        );
        assert_eq!(send(&sandbox).code, Some(2));
    }
}

/// Points that earlier versions have sent, without an identity, in the place itself.
#[test]
fn what_earlier_versions_have_sent_counts() {
    if lacks_programs("offsite::stacks::what_earlier_versions_have_sent") {
        return;
    }
    let sandbox = plain("offearlier");
    let there = to_directory(&sandbox);
    for stamp in POINTS {
        point(&sandbox, stamp, stamp, &format!("the snapshot of {stamp}"));
    }
    let sent = || {
        for name in files(&sandbox.path("backups")) {
            if name.contains("/20") || name.contains("/dump_") {
                let copy = there.join(&name);
                fs::create_dir_all(copy.parent().unwrap()).unwrap();
                fs::copy(sandbox.path("backups").join(&name), copy).unwrap();
            }
        }
    };
    sent();
    let before = contents(&there);
    for set in sandbox.backups("sets") {
        let text = fs::read_to_string(&set).unwrap();
        let mark = "# offsite: 2026-01-05T00:00:00+00:00 n8n-backup:n8n-backups (compared by checksum)\n# size";
        fs::write(&set, text.replacen("# size", mark, 1)).unwrap();
    }
    let outcome = send(&sandbox);
    assert_eq!(outcome.code, Some(2), "{outcome}");
    outcome.assert_log_has(
        "backup-offsite",
        "INFO The copy of recovery point {} is as it was sent, {}",
    );
    assert_eq!(contents(&there), before);
    // One that is missing there goes to the stack's directory.
    fs::remove_file(there.join(format!("redis/dump_{}.rdb", POINTS[1]))).unwrap();
    send(&sandbox).assert_success();
    assert_eq!(send(&sandbox).code, Some(2));
    assert_eq!(files(&stack_dir(&there)).len(), 2);
    assert!(manifest_of(&sandbox, POINTS[1]).contains("# offsite: "));

    let host = plain("offearlierhost");
    host.set("RCLONE_CONFIG", &sandbox.aside("rclone.conf").to_string_lossy());
    let fetch = |stamp: &str| host.binary().arg("fetch-offsite").arg(stamp).run();
    fetch(POINTS[2]).assert_success();
    // Whose that one is nobody knows, nor is a host any stack's before it has a point of that.
    let copy = stack_dir(&there).join(format!("redis/dump_{}.rdb", POINTS[1]));
    let whole = fs::read(&copy).unwrap();
    fs::write(&copy, "spoiled").unwrap();
    fetch(POINTS[1]).assert_error("redis/{} could not be fetched");
    assert!(!host.path("backups/.identity").exists());
    fs::write(&copy, whole).unwrap();
    for stamp in [POINTS[1], "latest"] {
        fetch(stamp).assert_success();
    }
    assert_eq!(identity(&host), identity(&sandbox));
    assert_eq!(host.backups("sets").len(), 2);
    // They are let go with the others.
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "1");
    sandbox.set("BACKUP_KEEP_LAST", "0");
    send(&sandbox).assert_log_has(
        "backup-offsite",
        &format!("INFO Deleting there, older than 1 days: sets/{}.sha256", POINTS[0]),
    );
    assert!(!there.join(format!("sets/{}.sha256", POINTS[0])).exists());
    assert!(there.join(format!("sets/{}.sha256", POINTS[2])).exists());
    // What was let go there is not called copied, nor sent again.
    assert_eq!(send(&sandbox).code, Some(2));
    let marked = POINTS.map(|stamp| manifest_of(&sandbox, stamp).contains("# offsite: "));
    assert_eq!(marked, [false, true, true]);
}

/// What is fetched can be restored, whatever has become of the point here.
#[test]
fn a_point_that_is_here_in_part_is_made_whole() {
    if lacks_programs("offsite::stacks::a_point_that_is_here_in_part") {
        return;
    }
    let sandbox = plain("offpart");
    to_directory(&sandbox);
    point(&sandbox, POINTS[0], POINTS[0], "the snapshot");
    send(&sandbox).assert_success();
    let (file, set) = (sandbox.backup("redis"), sandbox.backup("sets"));
    let fetch = || sandbox.binary().args(&["fetch-offsite", POINTS[0]]).run();
    let is_whole = || assert_eq!(fs::read_to_string(&file).unwrap(), "the snapshot");
    let whole = fs::read_to_string(&set).unwrap();
    fs::write(&file, "the sn4pshot").unwrap();
    assert_eq!(binary(&sandbox, &["verify", POINTS[0]]).code, Some(1));
    assert!(manifest_of(&sandbox, POINTS[0]).contains("# damaged: redis"));
    fetch().assert_error("{} could not be fetched");
    fs::remove_file(&file).unwrap();
    fetch().assert_success();
    assert!(!manifest_of(&sandbox, POINTS[0]).contains("# damaged"));
    is_whole();
    // As the retention leaves one whose file it let go.
    let member = whole.lines().find(|line| line.ends_with(".rdb")).unwrap();
    let rest = whole
        .replace(&format!("{member}\n"), "")
        .replacen("# size", "# deleted: redis\n# size", 1);
    fs::write(&set, rest).unwrap();
    fs::remove_file(&file).unwrap();
    fetch().assert_success();
    let now = manifest_of(&sandbox, POINTS[0]);
    assert!(now.contains(member) && !now.contains("# deleted"), "{now}");
    is_whole();
    for spoiled in [String::new(), whole.replace(&member[..8], "00000000")] {
        fs::write(&set, &spoiled).unwrap();
        let outcome = fetch();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.log.contains("move it away first"), "{outcome}");
        assert_eq!(manifest_of(&sandbox, POINTS[0]), spoiled);
    }
}

/// In `backups/postgres` a dump counts as one of ours unless a manifest says that it was fetched.
#[test]
fn a_dump_in_clear_has_no_name_before_its_manifest() {
    if lacks_programs("offsite::stacks::a_dump_in_clear_has_no_name") {
        return;
    }
    let sandbox = plain("offclear");
    let there = to_directory(&sandbox);
    for part in ["postgres", "sets"] {
        fs::create_dir_all(there.join(part)).unwrap();
    }
    let file = format!("postgres/n8n_{}.sql.gz", POINTS[0]);
    fs::write(there.join(&file), "a dump").unwrap();
    let sum = crate::common::sh("sha256sum <\"$1\" | cut -c -64", &[there.join(&file).as_os_str()]);
    let text = format!(
        "# n8n-backup recovery point {}\n# failed: none\n# size.postgres: 6\n{}  {file}\n",
        POINTS[0],
        sum.trim()
    );
    fs::write(there.join(format!("sets/{}.sha256", POINTS[0])), text).unwrap();
    // The manifest cannot be written.
    let spoiled = sandbox.path("backups/sets/.manifest.partial");
    fs::create_dir_all(&spoiled).unwrap();
    let outcome = binary(&sandbox, &["fetch-offsite", POINTS[0]]);
    outcome.assert_error("{} could not be fetched");
    assert!(sandbox.backups("postgres").is_empty() && sandbox.leftovers("postgres").is_empty());
    fs::remove_dir(&spoiled).unwrap();
    binary(&sandbox, &["fetch-offsite", POINTS[0]]).assert_success();
    assert!(manifest_of(&sandbox, POINTS[0]).contains("# fetched: "));
    assert_eq!(fs::read_to_string(sandbox.backup("postgres")).unwrap(), "a dump");
    // Killed between the two: what is missing is fetched, and stays a stranger's.
    fs::remove_file(sandbox.backup("postgres")).unwrap();
    binary(&sandbox, &["fetch-offsite", POINTS[0]]).assert_success();
    assert!(manifest_of(&sandbox, POINTS[0]).contains("# fetched: "));
    assert_eq!(fs::read_to_string(sandbox.backup("postgres")).unwrap(), "a dump");
}

pub fn manifest_of(sandbox: &Sandbox, stamp: &str) -> String {
    fs::read_to_string(sandbox.path(format!("backups/sets/{stamp}.sha256"))).unwrap()
}

pub fn binary(sandbox: &Sandbox, args: &[&str]) -> crate::common::Outcome {
    sandbox.binary().args(args).run()
}

/// A pin goes along with the point, also one that was set after the point was sent: a host that takes over lets nothing go that
/// the lost one had pinned.
#[test]
fn a_pin_outlives_the_host() {
    if lacks_programs("offsite::stacks::a_pin_outlives_the_host") {
        return;
    }
    let sandbox = Sandbox::new("offpin")
        .env("BACKUP_GPG_PASSPHRASE", super::PASSPHRASE)
        .env("RCLONE_SYNC_ENCRYPTED_ONLY", "false")
        .build();
    let there = to_directory(&sandbox);
    for stamp in POINTS {
        point(&sandbox, stamp, stamp, &format!("the snapshot of {stamp}"));
    }
    send(&sandbox).assert_success();
    binary(&sandbox, &["pin", POINTS[0], "--reason", "before 3.0"]).assert_success();
    let again = send(&sandbox);
    again.assert_success().assert_log_has(
        "backup-offsite",
        &format!(
            "INFO The manifest of recovery point {} is sent again: its pin has changed",
            POINTS[0]
        ),
    );
    assert_eq!(send(&sandbox).code, Some(2));

    // The host is lost; what is taken over lets the retention work.
    fs::remove_dir_all(sandbox.path("backups")).unwrap();
    sandbox
        .call("fetch-offsite")
        .args(&["--allow-plain", "latest"])
        .run()
        .assert_success();
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "1");
    sandbox.set("BACKUP_KEEP_LAST", "0");
    let kept = send(&sandbox);
    let sets = || {
        files(&stack_dir(&there))
            .into_iter()
            .filter(|name| name.starts_with("sets/"))
            .collect::<Vec<_>>()
    };
    let names = |stamps: &[&str]| {
        stamps
            .iter()
            .map(|stamp| format!("sets/{stamp}.sha256.gpg"))
            .collect::<Vec<_>>()
    };
    assert_eq!(sets(), names(&[POINTS[0], POINTS[1], POINTS[2]]), "{kept}");
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "0");
    let fetched = sandbox.call("fetch-offsite").args(&["--allow-plain", POINTS[0]]).run();
    fetched.assert_success();
    assert!(manifest_of(&sandbox, POINTS[0]).contains("\n# pinned: "), "{fetched}");
    let list = binary(&sandbox, &["list"]);
    assert!(list.stdout.contains("before 3.0"), "{list}");

    // And unpinned, it goes.
    binary(&sandbox, &["unpin", POINTS[0]]).assert_success();
    send(&sandbox).assert_success();
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "1");
    send(&sandbox);
    assert_eq!(sets(), names(&[POINTS[1], POINTS[2]]));
}

/// The facts on rows and sequences have the names of tables.
#[test]
fn names_of_tables_stay_here() {
    if lacks_programs("offsite::stacks::names_of_tables") {
        return;
    }
    // Encryption was on when the point was made, and is off now.
    let sandbox = Sandbox::new("offnames").build();
    let there = to_directory(&sandbox);
    let stamp = POINTS[0];
    point(&sandbox, stamp, stamp, "sealed");
    let [from, to] = ["rdb", "rdb.gpg"].map(|end| sandbox.path(format!("backups/redis/dump_{stamp}.{end}")));
    fs::rename(from, to).unwrap();
    let set = sandbox.path(format!("backups/sets/{stamp}.sha256"));
    let text = fs::read_to_string(&set).unwrap().replace(".rdb", ".rdb.gpg");
    let facts = "# postgres.rows.public.secret_table: 3\n# postgres.sequence.public.secret_sequence: 7 used\n\
                 # sqlite.rows: 5\n# sqlite.rows.secret_table: 5\n# size";
    fs::write(&set, text.replacen("# size", facts, 1)).unwrap();
    send(&sandbox).assert_success();
    let sent = fs::read_to_string(stack_dir(&there).join(format!("sets/{stamp}.sha256"))).unwrap();
    assert!(!sent.contains("secret"), "{sent}");
    assert!(
        sent.contains("# size.redis") && sent.contains("# sqlite.rows: 5"),
        "{sent}"
    );
}
