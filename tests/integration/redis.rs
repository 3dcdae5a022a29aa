//! backup-redis: the save that is followed, and the snapshot that is copied.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::common::{assert_same, name, Sandbox};

/// Puts a snapshot into the data directory of a sandbox's Redis and restarts it.
fn load(sandbox: &Sandbox, snapshot: &Path) {
    let container = sandbox.container("redis");
    sandbox.docker(&["stop", "-t", "5", &container]);
    let target = format!("{container}:/data/dump.rdb");
    sandbox.docker(&["cp".as_ref(), snapshot.as_os_str(), target.as_ref()]);
    sandbox.docker(&["start", &container]);
    sandbox.await_redis();
}

#[test]
fn a_snapshot_loads_into_a_fresh_redis() {
    let password = &format!("{}\u{e9}-", r#"p w"d'$x\`;&|%*#="#);
    let sandbox = Sandbox::new("rdb")
        .redis()
        .seeded()
        .redis_password(password)
        .redis_arg("--dir")
        .redis_arg("/tmp")
        .redis_arg("--dbfilename")
        .redis_arg("odd name;$(x).rdb")
        .build();
    let before = sandbox.fingerprint_redis();
    // What docker is given, by arguments and environment.
    let record = sandbox.aside("record");
    let shown = record.display();
    let watch = sandbox.stand_in_docker(&format!("{{ printf '<%s>\\n' \"$@\"; env; }} >>'{shown}'"));
    let outcome = sandbox.call("backup-redis").path_first(&watch).run();
    outcome.assert_success().assert_logged_as_printed();
    outcome.assert_messages(
        "backup-redis",
        &[
            "INFO Starting Redis backup",
            "INFO Current LASTSAVE: {}",
            "INFO Triggering BGSAVE",
            "INFO Waiting for BGSAVE to complete...",
            "INFO BGSAVE completed. New LASTSAVE: {}",
            "INFO Copying RDB file to {}/backups/redis/dump_{}.rdb",
            "SUCCESS Backup completed: {}/backups/redis/dump_{}.rdb ({})",
        ],
    );
    outcome.assert_never_says(password);
    let record = fs::read_to_string(&record).unwrap();
    assert!(record.contains("client=redis-cli"), "{record}");
    assert!(!record.contains(r#"p w"d"#) && !record.contains("REDIS"), "{record}");

    let fresh = Sandbox::new("fresh").redis().build();
    load(&fresh, &sandbox.backup("redis"));
    assert_same(&before, &fresh.fingerprint_redis());
    // The directory by its own name, not that of the image.
    assert!(!sandbox
        .docker(&["exec", &sandbox.container("redis"), "ls", "/data"])
        .contains("rdb"));

    for (setting, value, said) in [
        ("REDIS_PASSWORD", "wrong; password", "set REDIS_PASSWORD in .env"),
        ("REDIS_PASSWORD", "", "set REDIS_PASSWORD in .env"),
        ("REDIS_PORT", "6387", "Connection refused"),
    ] {
        sandbox.set("REDIS_PASSWORD", password);
        sandbox.set(setting, value);
        let outcome = sandbox.run("backup-redis", &[]);
        outcome.assert_error("Failed to get LASTSAVE from Redis (port {})");
        assert!(outcome.log.contains(said), "{outcome}");
        outcome.assert_never_says("wrong; password");
        outcome.assert_never_says(password);
    }
    assert_eq!(sandbox.backups("redis").len(), 1);

    // A user of its own, while the default one is let in nowhere.
    sandbox.set("REDIS_PORT", crate::common::REDIS_PORT);
    sandbox.set("REDIS_USERNAME", "n8n user");
    sandbox.set("REDIS_PASSWORD", "its own");
    sandbox.redis(&["ACL", "SETUSER", "n8n-user", "on", ">its own", "~*", "&*", "+@all"]);
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_error("Failed to get LASTSAVE from Redis (port {})");
    assert!(outcome.log.contains("WRONGPASS"), "{outcome}");
    sandbox.set("REDIS_USERNAME", "n8n-user");
    sandbox.run("backup-redis", &[]).assert_success();
    assert_eq!(sandbox.backups("redis").len(), 2);
}

/// Where CONFIG is out of reach, the snapshot is taken to lie where the official image has it; an old one there is not the one
/// that was just made.
#[test]
fn an_older_snapshot_in_the_usual_place_is_no_backup() {
    let sandbox = Sandbox::new("stale")
        .redis()
        .redis_arg("--rename-command")
        .redis_arg("CONFIG")
        .redis_arg("NOT-FOR-YOU")
        .redis_arg("--dir")
        .redis_arg("/var/tmp")
        .build();
    let container = sandbox.container("redis");
    sandbox.redis(&["SET", "key", "old"]);
    sandbox.redis(&["SAVE"]);
    sandbox.docker(&["exec", &container, "cp", "/var/tmp/dump.rdb", "/data/dump.rdb"]);
    thread::sleep(Duration::from_millis(1100));
    sandbox.redis(&["SET", "key", "new"]);
    sandbox.redis(&["SAVE"]);
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_error("Failed to copy RDB file from container");
    assert!(
        outcome.log.contains("/data/dump.rdb is older than the save"),
        "{outcome}"
    );
    assert!(sandbox.backups("redis").is_empty());
    assert!(sandbox.leftovers("redis").is_empty());

    // Where it does lie there, the backup is as any other.
    sandbox.docker(&["exec", &container, "ln", "-sf", "/var/tmp/dump.rdb", "/data/dump.rdb"]);
    sandbox.run("backup-redis", &[]).assert_success();
}

/// Without INFO, nobody knows when the save is over: the snapshot before it is not taken for it.
#[test]
fn a_user_who_may_not_ask_makes_no_backup() {
    let sandbox = Sandbox::new("noinfo").redis().build();
    sandbox.redis(&["SET", "key", "old"]);
    sandbox.redis(&["SAVE"]);
    sandbox.redis(&["ACL", "SETUSER", "default", "-info"]);
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_error("Failed to get LASTSAVE from Redis (port {})");
    assert!(outcome.log.contains("INFO persistence: NOPERM"), "{outcome}");
    assert!(outcome.log.contains("ACL SETUSER"), "{outcome}");
    assert!(sandbox.backups("redis").is_empty());
    sandbox.redis(&["ACL", "SETUSER", "default", "+info"]);
    sandbox.run("backup-redis", &[]).assert_success();
}

#[test]
fn runs_within_one_second_all_have_their_snapshot() {
    let sandbox = Sandbox::new("second").redis().build();
    sandbox.redis(&["SET", "key", "value"]);
    let running: Vec<_> = (0..3).map(|_| sandbox.spawn("backup-redis", &[])).collect();
    for one in running {
        let outcome = one.wait();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        assert!(outcome.took < Duration::from_secs(20), "{outcome}");
    }
    let found = sandbox.backups("redis");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(sandbox.leftovers("redis").is_empty());
    // The runs that begin within a second have a recovery point each.
    assert_eq!(sandbox.backups("sets").len(), 3);
    for file in &found {
        assert!(
            fs::read(file).unwrap().windows(5).any(|bytes| bytes == b"value"),
            "{}",
            name(file)
        );
    }
}

#[test]
fn a_save_in_progress_is_waited_for_and_then_ours_is_made() {
    let sandbox = Sandbox::new("busy").redis().build();
    sandbox.redis(&["EVAL", "for i = 1, 3000 do redis.call('SET', 'key:' .. i, i) end", "0"]);
    sandbox.redis(&["CONFIG", "SET", "rdb-key-save-delay", "1000"]);
    sandbox.redis(&["BGSAVE"]);
    // Not in the save that runs, so in the backup only when a further one was made.
    sandbox.redis(&["SET", "late", "too-late-for-the-first"]);
    assert!(sandbox
        .redis(&["INFO", "persistence"])
        .contains("rdb_bgsave_in_progress:1"));
    let mut running = sandbox.spawn("backup-redis", &[]);
    running.await_log("Another save or rewrite is in progress");
    // Of the next ones only.
    sandbox.redis(&["CONFIG", "SET", "rdb-key-save-delay", "400"]);
    let outcome = running.wait();
    outcome.assert_success().assert_messages(
        "backup-redis",
        &[
            "INFO Current LASTSAVE: {}",
            "INFO Another save or rewrite is in progress, waiting for it first",
            "INFO Triggering BGSAVE",
            "INFO Waiting for BGSAVE to complete...",
            "INFO BGSAVE completed. New LASTSAVE: {}",
        ],
    );
    let bytes = fs::read(sandbox.backup("redis")).unwrap();
    assert!(bytes.windows(22).any(|window| window == b"too-late-for-the-first"));

    // Behind a rewrite of the append-only file, the server makes one save by itself, which is ours.
    let saves = || {
        let info = sandbox.redis(&["INFO", "persistence"]);
        let count = info.lines().find_map(|line| line.strip_prefix("rdb_saves:"));
        count.map(|count| count.trim().parse::<u64>().unwrap()).unwrap()
    };
    let before = saves();
    sandbox.redis(&["SET", "later", "too-late-for-the-second"]);
    sandbox.redis(&["BGREWRITEAOF"]);
    assert!(sandbox
        .redis(&["INFO", "persistence"])
        .contains("aof_rewrite_in_progress:1"));
    sandbox.run("backup-redis", &[]).assert_success();
    assert_eq!(saves(), before + 1);
    let newest = sandbox.backups("redis").pop().unwrap();
    assert!(fs::read(newest)
        .unwrap()
        .windows(23)
        .any(|window| window == b"too-late-for-the-second"));

    // A save that writes nothing for the stall limit is given up.
    sandbox.redis(&["CONFIG", "SET", "rdb-key-save-delay", "60000000"]);
    sandbox.set("BACKUP_STALL_SECONDS", "3");
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_error("BGSAVE timeout after 3 seconds");
    assert!(outcome.took < Duration::from_secs(15), "{outcome}");
    assert_eq!(sandbox.backups("redis").len(), 2);
}

#[test]
fn a_save_that_fails_is_an_error_at_once() {
    let sandbox = Sandbox::new("fail")
        .redis()
        .redis_arg("--dir")
        .redis_arg("/tmp")
        .build();
    sandbox.redis(&["SET", "key", "value"]);
    sandbox.run("backup-redis", &[]).assert_success();
    let before = sandbox.listing();
    let container = sandbox.container("redis");
    // Redis runs as a user of its own; what it may not write to, it cannot save to.
    sandbox.docker(&["exec", "-u", "0", &container, "chmod", "755", "/tmp"]);
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_error("BGSAVE failed: {}");
    // Far below the limit of a save that stands still, which is what it would wait for.
    assert!(outcome.took < Duration::from_secs(15), "{outcome}");
    assert_eq!(sandbox.listing(), before);
    // And once more, now that the last save is known to have failed.
    sandbox.run("backup-redis", &[]).assert_error("BGSAVE failed: {}");
    sandbox.docker(&["exec", "-u", "0", &container, "chmod", "1777", "/tmp"]);
    sandbox.run("backup-redis", &[]).assert_success();
    assert_eq!(sandbox.backups("redis").len(), 2);

    // A command that is refused.
    sandbox.redis(&["ACL", "SETUSER", "default", "-bgsave"]);
    sandbox.run("backup-redis", &[]).assert_error("BGSAVE failed: NOPERM{}");
    sandbox.redis(&["ACL", "SETUSER", "default", "+bgsave"]);

    // A copy that is not whole.
    let listing = sandbox.listing();
    for script in [
        r#"if [[ " $* " == *" cat "* ]]; then "$real" "$@" | head -c 60; exit 0; fi"#,
        r#"if [[ " $* " == *" cat "* ]]; then "$real" "$@"; exit 1; fi"#,
        // A byte of the snapshot, which comes after what Redis has replied.
        r#"if [[ " $* " == *" cat "* ]]; then "$real" "$@" | sed 's/redis-ver/redis-wer/'; exit 0; fi"#,
    ] {
        let stand_in = sandbox.stand_in_docker(script);
        let outcome = sandbox.call("backup-redis").path_first(&stand_in).run();
        outcome.assert_error("Failed to copy RDB file from container");
        assert_eq!(sandbox.listing(), listing, "{script}");
    }
    let stand_in = sandbox.stand_in_docker(r#"[[ " $* " != *" cat "* ]] || exit 0"#);
    let outcome = sandbox.call("backup-redis").path_first(&stand_in).run();
    outcome.assert_error("Backup file is empty");
    assert_eq!(sandbox.listing(), listing);
}
