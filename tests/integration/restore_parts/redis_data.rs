//! restore-redis.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::runs;
use crate::common::{assert_same, Sandbox, REDIS_PORT};

/// What lies in Redis's data directory.
fn redis_files(sandbox: &Sandbox) -> String {
    sandbox.docker(&["exec", &sandbox.container("redis"), "ls", "-A", "/data"])
}

/// Redis with the seed, a snapshot of it, and other data since.
fn changed_redis(builder: crate::common::Builder) -> (Sandbox, String, String, String) {
    let sandbox = builder.redis().seeded().build();
    sandbox.run("backup-redis", &[]).assert_success();
    let file = sandbox.backup("redis").display().to_string();
    let saved = sandbox.fingerprint_redis();
    sandbox.redis(&["flushall"]);
    sandbox.redis(&["set", "since", "then"]);
    let changed = sandbox.fingerprint_redis();
    assert_ne!(saved, changed);
    (sandbox, file, saved, changed)
}

#[test]
fn a_snapshot_wins_over_the_append_only_file() {
    let builder = Sandbox::new("aof").redis_arg("--appendonly").redis_arg("yes").n8n();
    let (sandbox, file, saved, _) = changed_redis(builder);
    sandbox.docker(&["stop", &sandbox.container("n8n-worker")]);
    let outcome = sandbox.run("restore-redis", &[&file]);
    outcome.assert_success().assert_logged_as_printed();
    outcome.assert_messages(
        "restore-redis",
        &[
            "INFO Starting Redis restore from: {}",
            "INFO Verifying backup file integrity...",
            "INFO Backup file integrity verified",
            "WARN This will replace all that Redis in {} holds, and stop n8n meanwhile",
            "WARN All existing data will be replaced with backup data",
            "INFO Running non-interactively, proceeding with restore",
            "INFO Stopping n8n: {}-n8n-main",
            "INFO Found {} keys in the snapshot, {} of them with an expiry",
            "INFO Writing the append-only file from the snapshot...",
            "INFO Verifying restore...",
            "INFO Starting n8n: {}-n8n-main",
            "SUCCESS Redis restore completed from: {}",
        ],
    );
    assert_same(&saved, &sandbox.fingerprint_redis());
    assert_eq!(redis_files(&sandbox), "appendonlydir\ndump.rdb\n");
    assert!(runs(&sandbox, "n8n-main") && !runs(&sandbox, "n8n-worker"));
    // It is the append-only file that is kept from now on.
    assert!(sandbox.redis(&["info", "persistence"]).contains("aof_enabled:1"));
    sandbox.redis(&["set", "after", "restore"]);
    let after = sandbox.fingerprint_redis();
    for step in ["kill", "wait", "start"] {
        sandbox.docker(&[step, &sandbox.container("redis")]);
    }
    sandbox.await_redis();
    assert_same(&after, &sandbox.fingerprint_redis());
    assert!(!sandbox.path("backups/.restore").exists());
}

#[test]
fn redis_with_a_password_and_other_names_comes_back() {
    let password = r#"p w"d'$x\`;&|%*#"#;
    let mut builder = Sandbox::new("names").redis_password(password);
    for arg in [
        "--dbfilename",
        "n8n queue.rdb",
        "--databases",
        "20",
        "--appendonly",
        "no",
    ] {
        builder = builder.redis_arg(arg);
    }
    let (sandbox, file, saved, _) = changed_redis(builder);
    let outcome = sandbox.run("restore-redis", &["--yes", &file]);
    outcome.assert_success().assert_never_says(password);
    assert_same(&saved, &sandbox.fingerprint_redis());
    assert_eq!(redis_files(&sandbox), "n8n queue.rdb\n");
    let owner = sandbox.docker(&[
        "exec",
        &sandbox.container("redis"),
        "stat",
        "-c",
        "%u:%g",
        "/data/n8n queue.rdb",
        "/data",
    ]);
    assert_eq!(owner, "999:999\n999:999\n");
}

/// A configuration, the time zone or a secret is often mounted as a file; nothing of a restore can lie in one.
#[test]
fn files_that_redis_mounts_do_not_stop_its_restore() {
    let (sandbox, file, saved, _) = changed_redis(Sandbox::new("files"));
    let redis = sandbox.container("redis");
    let image = sandbox.docker(&["inspect", "--format", "{{.Config.Image}}", &redis]);
    sandbox.docker(&["stop", &redis]);
    sandbox.docker(&["rm", "-v", &redis]);
    let mounts = [
        format!("{}_redis_data:/data", sandbox.prefix()),
        format!(
            "{}:/usr/local/etc/redis/redis.conf:ro",
            sandbox.write("redis.conf", "maxclients 99\n").display()
        ),
        format!("{}:/etc/localtime:ro", sandbox.write("zone", "").display()),
        // One that could be written to.
        format!("{}:/etc/redis-note", sandbox.write("note", "kept").display()),
    ];
    let labels = sandbox.labels();
    let mut run = vec!["run", "-d", "--name", &redis];
    run.extend(["--network", "none", "--tmpfs", "/scratch"]);
    run.extend(labels.iter().map(String::as_str));
    run.extend(mounts.iter().flat_map(|mount| ["-v", mount]));
    run.extend([image.trim(), "redis-server", "/usr/local/etc/redis/redis.conf"]);
    run.extend(["--port", REDIS_PORT, "--dir", "/data"]);
    sandbox.docker(&run);
    sandbox.await_redis();
    assert_eq!(sandbox.redis(&["get", "since"]), "then");

    sandbox.run("restore-redis", &[&file]).assert_success();
    assert_same(&saved, &sandbox.fingerprint_redis());
    assert!(sandbox.redis(&["config", "get", "maxclients"]).ends_with("99"));
    assert_eq!(fs::read_to_string(sandbox.path("note")).unwrap(), "kept");
}

/// As Bitnami's image has it: the directory is root's, and Redis writes to it as another user.
#[test]
fn a_redis_that_does_not_own_its_directory_comes_back() {
    let (sandbox, file, saved, _) = changed_redis(Sandbox::new("user"));
    let redis = sandbox.container("redis");
    let image = sandbox.docker(&["inspect", "--format", "{{.Config.Image}}", &redis]);
    let mount = format!("{}_redis_data:/data", sandbox.prefix());
    let labels = sandbox.labels();
    let labels = || labels.iter().map(String::as_str);
    for append_only in ["no", "yes"] {
        sandbox.docker(&["rm", "-f", &redis]);
        // An empty volume would become what the image has there.
        let mut empty = vec!["run", "--rm", "--user", "0", "--entrypoint", "sh", "-v", &mount];
        empty.extend(labels());
        empty.extend([
            image.trim(),
            "-c",
            "rm -rf /data/*; : >/data/kept; chown 0:0 /data; chmod 777 /data",
        ]);
        sandbox.docker(&empty);
        let mut run = vec![
            "run",
            "-d",
            "--name",
            &redis,
            "--network",
            "none",
            "--user",
            "1234",
            "-v",
            &mount,
        ];
        run.extend(labels());
        run.extend([image.trim(), "redis-server", "--port", REDIS_PORT, "--dir", "/data"]);
        run.extend(["--appendonly", append_only]);
        sandbox.docker(&run);
        sandbox.await_redis();
        sandbox.run("restore-redis", &[&file]).assert_success();
        assert_same(&saved, &sandbox.fingerprint_redis());
        assert_eq!(sandbox.redis(&["save"]).trim(), "OK");
        let owner = sandbox.docker(&["exec", &redis, "stat", "-c", "%u", "/data/dump.rdb", "/data"]);
        assert_eq!(owner, "1234\n0\n");
        // It writes what comes.
        sandbox.redis(&["set", "after", "restore"]);
        let after = sandbox.fingerprint_redis();
        sandbox.docker(&["restart", &redis]);
        sandbox.await_redis();
        assert_same(&after, &sandbox.fingerprint_redis());
    }
}

#[test]
fn the_queue_can_be_left_out() {
    let sandbox = Sandbox::new("queue")
        .redis()
        .redis_arg("--appendonly")
        .redis_arg("yes")
        .build();
    sandbox.redis(&["rpush", "bull:jobs:wait", "1", "2", "3"]);
    sandbox.redis(&["rpush", "bull:jobs:active", "4"]);
    sandbox.redis(&["hset", "bull:jobs:1", "data", "{}"]);
    sandbox.redis(&["set", "bulletin", "stays"]);
    sandbox.redis(&["-n", "1", "set", "bull:jobs:id", "9"]);
    sandbox.run("backup-redis", &[]).assert_success();
    let file = sandbox.backup("redis").display().to_string();
    let outcome = sandbox.run("restore-redis", &[&file]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-redis",
        "WARN 4 job(s) of n8n's queue wait or were running in the snapshot{}",
    );
    let outcome = sandbox.run("restore-redis", &["--empty-queue", &file]);
    outcome.assert_success();
    outcome.assert_log_has("restore-redis", "INFO Deleted 4 keys of n8n's queue (bull:*)");
    assert_eq!(sandbox.redis(&["keys", "*"]).trim(), "bulletin");
    assert_eq!(sandbox.redis(&["-n", "1", "dbsize"]).trim(), "0");
    // Another program's database has keys of the same name.
    sandbox.set("QUEUE_BULL_REDIS_DB", "0");
    let outcome = sandbox.run("restore-redis", &["--empty-queue", &file]);
    outcome.assert_log_has("restore-redis", "INFO Deleted 3 keys of n8n's queue (bull:*)");
    assert_eq!(sandbox.redis(&["-n", "1", "keys", "*"]).trim(), "bull:jobs:id");
}

/// n8n's own keys live for seconds: some have run out before the restore, some run out between the load beside the live data and
/// the live one.
#[test]
fn keys_that_run_out_meanwhile_are_no_loss() {
    const LIFE: Duration = Duration::from_secs(15);
    for (append_only, name) in [("yes", "aofttl"), ("no", "rdbttl")] {
        let sandbox = Sandbox::new(name)
            .redis()
            .redis_arg("--appendonly")
            .redis_arg(append_only)
            .build();
        let begun = Instant::now();
        sandbox.redis(&["set", "lasting", "1"]);
        sandbox.redis(&["set", "gone", "1", "px", "1500"]);
        sandbox.redis(&["set", "going", "1", "px", &LIFE.as_millis().to_string()]);
        sandbox.run("backup-redis", &[]).assert_success();
        sandbox.redis(&["flushall"]);
        let file = sandbox.backup("redis").display().to_string();
        let gate = sandbox.gate();
        let docker = sandbox.stand_in_docker(&format!("case \" $* \" in *' stop '*-redis*) {} ;; esac", gate.wait()));
        let mut run = sandbox.call("restore-redis").arg(&file).path_first(&docker).spawn();
        run.await_that("the snapshot to be staged", |_| gate.is_reached());
        thread::sleep((LIFE + Duration::from_millis(200)).saturating_sub(begun.elapsed()));
        gate.open();
        run.wait().assert_success();
        assert_eq!(sandbox.redis(&["keys", "*"]).trim(), "lasting");
    }
}

#[test]
fn a_failed_redis_restore_puts_back_what_was_there() {
    for (append_only, name) in [("yes", "aofback"), ("no", "rdbback")] {
        let builder = Sandbox::new(name)
            .redis_arg("--appendonly")
            .redis_arg(append_only)
            .n8n();
        let (sandbox, file, _, changed) = changed_redis(builder);
        let files = || {
            let found = redis_files(&sandbox);
            // Redis itself saves when it is stopped.
            found
                .lines()
                .filter(|line| *line != "dump.rdb")
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let before = files();
        for (pattern, nth) in [
            ("*' run '*", 1),
            ("*' begin '*", 1),
            ("*' begin '*' redis-check-rdb '*|*' redis-check-rdb '*", 1),
            ("*' redis-server '*", 1),
            ("*' stop '*n8n-main*", 1),
            ("*' stop '*-redis*", 1),
            ("*' exchange '*", 1),
            // The first start is that of a server that runs already.
            ("*' start '*-redis*", 2),
        ] {
            let docker = sandbox.failing_docker(pattern, nth);
            let outcome = sandbox.call("restore-redis").arg(&file).path_first(&docker).run();
            assert_eq!(outcome.code, Some(1), "{pattern}: {outcome}");
            sandbox.await_redis();
            assert_same(&changed, &sandbox.fingerprint_redis());
            assert_eq!(files(), before, "{pattern}");
            assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"), "{pattern}");
            assert!(!sandbox.path("backups/.restore").exists(), "{pattern}");
        }
        let helpers = sandbox.docker(&[
            "ps",
            "-aq",
            "--filter",
            &format!("volume={}_redis_data", sandbox.prefix()),
        ]);
        assert_eq!(helpers.lines().count(), 1, "only Redis itself uses its volume");
    }
}

/// As a supervisor does: a Redis that comes up meanwhile holds the other data, which its next save would bring back.
#[test]
fn a_redis_that_somebody_starts_meanwhile_saves_nothing_over_its_restore() {
    for (append_only, name) in [("yes", "aofwatched"), ("no", "rdbwatched")] {
        let sandbox = Sandbox::new(name)
            .redis()
            .redis_arg("--appendonly")
            .redis_arg(append_only)
            .build();
        // As many keys as the snapshot has, so that their number tells nothing.
        sandbox.redis(&["set", "a", "of the snapshot"]);
        sandbox.run("backup-redis", &[]).assert_success();
        let file = sandbox.backup("redis").display().to_string();
        sandbox.redis(&["set", "a", "of today"]);
        let redis = sandbox.container("redis");
        let start = format!("\"$real\" start '{redis}' >/dev/null");
        let (then, first) = (
            format!("\"$real\" \"$@\"; {start}"),
            format!("{start}; sleep 1; \"$real\" \"$@\""),
        );
        let calls = sandbox.aside("starts");
        // The first start is that of a server that runs already; without the second one nothing is proven.
        let refused = format!(
            "*' start '*-redis*) echo >>'{0}'; [ $(wc -l <'{0}') != 2 ] || exit 1 ;;",
            calls.display()
        );
        for (when, refused, pattern, does) in [
            ("before the exchange", "", "*' stop '*-redis*", &then),
            ("while it begins", "", "*' exec '*' exchange '*", &first),
            ("while it is undone", &*refused, "*' exec '*' back '*", &first),
        ] {
            let mark = sandbox.aside(format!("started {when}"));
            let docker = sandbox.stand_in_docker(&format!(
                "case \" $* \" in {refused} {pattern}) [ -e '{0}' ] || {{ : >'{0}'; {does}; exit; }} ;; esac",
                mark.display()
            ));
            let outcome = sandbox.call("restore-redis").arg(&file).path_first(&docker).run();
            assert_eq!(outcome.code, Some(1), "{when}: {outcome}");
            let told = match refused {
                "" => "was started while what it works on was being replaced",
                _ => "which was started meanwhile",
            };
            assert!(outcome.log.contains(told), "{when}: {outcome}");
            // Also once it has saved what it holds, and read it again.
            for again in [false, true] {
                if again {
                    sandbox.docker(&["restart", &redis]);
                }
                sandbox.await_redis();
                assert_eq!(
                    sandbox.redis(&["get", "a"]).trim(),
                    "of today",
                    "{when} {again}: {outcome}"
                );
            }
            assert!(!sandbox.path("backups/.restore").exists(), "{when}");
        }
        sandbox.run("restore-redis", &[&file]).assert_success();
        sandbox.docker(&["restart", &redis]);
        sandbox.await_redis();
        assert_eq!(sandbox.redis(&["get", "a"]).trim(), "of the snapshot");
    }
}

/// All that is new was in place when the restore failed, and so did its undoing: what was there before must not go.
#[test]
fn what_could_not_be_put_back_is_put_back_by_the_next_run() {
    let builder = Sandbox::new("turned").redis_arg("--appendonly").redis_arg("yes").n8n();
    let (sandbox, file, saved, changed) = changed_redis(builder);
    let starts = sandbox.aside("starts");
    // The first start is that of a server that runs already.
    let docker = sandbox.stand_in_docker(&format!(
        "case \" $* \" in *' back '*) exit 1 ;; *' start '*-redis*) echo >>'{0}'; [ $(wc -l <'{0}') -lt 2 ] || exit 1 ;; esac",
        starts.display()
    ));
    let outcome = sandbox.call("restore-redis").arg(&file).path_first(&docker).run();
    outcome.assert_log_has("restore-redis", "ERROR What was there before could not be put back; {}");
    // The next run comes as far as that, and no further.
    let docker = sandbox.failing_docker("*' begin '*", 1);
    let outcome = sandbox.call("restore-redis").arg(&file).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    sandbox.await_redis();
    assert_same(&changed, &sandbox.fingerprint_redis());
    sandbox.run("restore-redis", &[&file]).assert_success();
    assert_same(&saved, &sandbox.fingerprint_redis());
}

#[test]
fn a_redis_that_did_not_run_does_not_run_after_a_failure() {
    let sandbox = Sandbox::new("rest")
        .redis()
        .seeded()
        .env("BACKUP_STALL_SECONDS", "2")
        .build();
    sandbox.run("backup-redis", &[]).assert_success();
    let file = sandbox.backup("redis");
    sandbox.docker(&["stop", &sandbox.container("redis")]);
    // It is started to be asked, and gives no answer; nor does the engine say with what arguments it was made.
    let docker = sandbox.stand_in_docker(
        "case \" $* \" in *' redis-cli '*|*'range .Args'*) echo 'stand-in: refused' >&2; exit 1 ;; esac",
    );
    let outcome = sandbox.call("restore-redis").arg(&file).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.log.contains("does not start with the data"), "{outcome}");
    assert!(!runs(&sandbox, "redis"), "{outcome}");
}

#[test]
fn a_killed_redis_restore_is_set_right_by_the_next() {
    let builder = Sandbox::new("kill").redis_arg("--appendonly").redis_arg("yes").n8n();
    let (sandbox, file, saved, _) = changed_redis(builder);
    let mut running = sandbox.spawn("restore-redis", &[&file]);
    running.await_log("Stopping ");
    running.await_log("-redis...");
    running.signal("KILL");
    running.wait();
    let outcome = sandbox.run("backup-redis", &[]);
    drop(outcome);
    let outcome = sandbox.run("restore-redis", &[&file]);
    outcome.assert_success();
    assert_same(&saved, &sandbox.fingerprint_redis());
    assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"));
}

/// It is a copy of all that the queue held, in the volume of the live server.
#[test]
fn what_a_killed_redis_restore_has_staged_goes_with_the_next_backup() {
    let builder = Sandbox::new("staged").redis_arg("--appendonly").redis_arg("yes").n8n();
    let (sandbox, file, _, changed) = changed_redis(builder);
    let before = redis_files(&sandbox);
    let mut running = sandbox.spawn("restore-redis", &[&file]);
    running.await_log("Loading the snapshot in a server of its own");
    running.signal("KILL");
    running.wait();
    assert!(redis_files(&sandbox).contains(".n8n-backup-restore"));
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_success();
    let told = "WARN Removed from Redis's volume what an interrupted restore had staged there";
    outcome.assert_log_has("backup-redis", told);
    assert_eq!(redis_files(&sandbox), before);
    assert_same(&changed, &sandbox.fingerprint_redis());
    let volume = format!("volume={}_redis_data", sandbox.prefix());
    let users = sandbox.docker(&["ps", "-aq", "--filter", &volume]);
    assert_eq!(users.lines().count(), 1, "only Redis itself uses its volume");

    // Of an exchange that was begun nothing is removed: what was there before may lie in there.
    let work = "/data/.n8n-backup-restore";
    let script = format!("mkdir -p {work}/old {work}/new && touch {work}/begun {work}/old/dump.rdb");
    sandbox.docker(&["exec", &sandbox.container("redis"), "sh", "-c", &script]);
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_success();
    let told = format!("An interrupted restore of Redis has left its traces, and what was there before, in {work}");
    outcome.assert_log_has("backup-redis", &format!("WARN {told}: {{}}"));
    let doctor = sandbox.binary().args(&["doctor"]).run();
    assert!(doctor.stdout.contains(&told), "{doctor}");
    assert!(redis_files(&sandbox).contains(".n8n-backup-restore"));
}

#[test]
fn what_is_no_snapshot_is_refused_before_anything_is_touched() {
    let sandbox = Sandbox::new("norestore").redis().build();
    sandbox.redis(&["set", "a", "b"]);
    let started = sandbox.docker(&[
        "inspect",
        "--format",
        "{{.State.StartedAt}}",
        &sandbox.container("redis"),
    ]);
    let bad = sandbox.write("bad.rdb", "REDIS0010 and no more");
    sandbox
        .run("restore-redis", &[&bad.display().to_string()])
        .assert_error("Backup file is corrupted or not a Redis snapshot");
    sandbox
        .run("restore-redis", &["/nonexistent.rdb"])
        .assert_error("Backup file not found: /nonexistent.rdb");
    let other = sandbox.write("x.sql.gz", "");
    sandbox
        .run("restore-redis", &[&other.display().to_string()])
        .assert_error("Backup file must be a .rdb file");
    let now = sandbox.docker(&[
        "inspect",
        "--format",
        "{{.State.StartedAt}}",
        &sandbox.container("redis"),
    ]);
    assert_eq!(started, now);
    assert_eq!(sandbox.redis(&["get", "a"]).trim(), "b");
}
