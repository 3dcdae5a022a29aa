//! backup-all, backup-postgres and the copy of .env on a real stack.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use crate::common::{await_true, matches, mode, name, sh, Outcome, Sandbox};

const RULE: &str = "INFO ==========================================";
const KINDS: [&str; 4] = ["postgres", "redis", "n8n", "env"];

/// The contract's lines of a whole run, each command's in its order.
#[track_caller]
fn assert_whole_run(outcome: &Outcome) {
    outcome.assert_messages(
        "backup-all",
        &[
            RULE,
            "INFO Starting full backup process",
            RULE,
            "INFO Disk space check passed: {}i available",
            "INFO Running: cleanup-backups.sh",
            "INFO Running: backup-postgres.sh",
            "INFO Running: backup-redis.sh",
            "INFO Running: backup-n8n.sh",
            "INFO Running: env file backup",
            "INFO Backing up environment file",
            "SUCCESS Environment backup completed: {}/backups/env/env_{}.backup ({})",
            RULE,
            "SUCCESS All backups completed successfully (5/5)",
        ],
    );
    outcome.assert_messages(
        "cleanup-backups",
        &[
            "INFO Starting backup cleanup (retention: 7 days)",
            "SUCCESS Cleanup completed: 0 files deleted, 0B freed",
        ],
    );
    outcome.assert_messages(
        "backup-postgres",
        &[
            "INFO Starting PostgreSQL backup",
            "INFO Dumping database n8n to {}/backups/postgres/n8n_{}.sql.gz",
            "SUCCESS Backup completed: {}/backups/postgres/n8n_{}.sql.gz ({})",
        ],
    );
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
    outcome.assert_messages(
        "backup-n8n",
        &[
            "INFO Starting n8n data backup",
            "INFO Creating archive {}/backups/n8n/n8n_data_{}.tar.gz",
            "SUCCESS Backup completed: {}/backups/n8n/n8n_data_{}.tar.gz ({})",
        ],
    );
    let first = outcome.lines().into_iter().next().map(|line| line.command);
    assert_eq!(first.as_deref(), Some("backup-all"));
}

/// The sizes in the log are those that `du -h` prints.
#[track_caller]
fn assert_sizes(sandbox: &Sandbox, outcome: &Outcome) {
    for kind in KINDS {
        let file = sandbox.backup(kind);
        let du = sh("du -h -- \"$1\" | cut -f1", &[file.as_os_str()]);
        let line = format!("{} ({})", file.display(), du.trim());
        assert!(
            outcome.log.lines().any(|said| said.ends_with(&line)),
            "{line}\n{outcome}"
        );
    }
}

#[test]
fn a_whole_run_its_files_and_its_log() {
    let sandbox = Sandbox::new("all")
        .kept()
        .stack()
        .seeded()
        .env("WEIRD", "a\"b\\c$d #e\n'f'")
        .build();
    for kind in KINDS {
        // Directories that are missing are made.
        fs::remove_dir_all(sandbox.path("backups").join(kind)).unwrap();
    }
    let volume = sandbox.fingerprint_volume();

    // As from the crontab: standard output is the log.
    let outcome = sandbox.call("backup-all").into_log().run();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert_whole_run(&outcome);
    assert_sizes(&sandbox, &outcome);
    for kind in KINDS {
        let file = sandbox.backup(kind);
        assert_eq!(mode(&file), 0o600, "{kind}");
        assert!(sandbox.leftovers(kind).is_empty(), "{kind}");
        let shape: String = name(&file)
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        let expected = match kind {
            "postgres" => "n0n_00000000_000000.sql.gz",
            "redis" => "dump_00000000_000000.rdb",
            "n8n" => "n0n_data_00000000_000000.tar.gz",
            _ => "env_00000000_000000.backup",
        };
        assert_eq!(shape, expected);
    }
    let copy = sandbox.backup("env");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(sandbox.path(".env")).unwrap());
    let dump = sh(
        "gunzip -c -- \"$1\" | head -c 200; gunzip -c -- \"$1\" | tail -n 5",
        &[sandbox.backup("postgres").as_os_str()],
    );
    assert!(dump.contains("-- PostgreSQL database dump\n"), "{dump}");
    assert!(dump.contains("-- PostgreSQL database dump complete\n"), "{dump}");
    assert_eq!(fs::read(sandbox.backup("redis")).unwrap()[..5], *b"REDIS");
    assert_eq!(sandbox.fingerprint_volume(), volume, "the volume is read only");

    // Printed, and under the most open umask; each backup is a new file, and no component fails for the others' names.
    let outcome = sandbox
        .call("backup-all")
        .under(&["sh", "-c", "umask 000; exec \"$@\"", "sh"])
        .run();
    outcome.assert_success().assert_logged_as_printed();
    assert_whole_run(&outcome);
    for kind in KINDS {
        let found = sandbox.backups(kind);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|file| mode(file) == 0o600));
    }

    // A component that fails does not stop the others.
    for kind in KINDS {
        fs::remove_dir_all(sandbox.path("backups").join(kind)).unwrap();
    }
    sandbox.docker(&["stop", &sandbox.container("redis")]);
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_logged_as_printed();
    outcome.assert_messages(
        "backup-all",
        &[
            "INFO Running: backup-redis.sh",
            "ERROR backup-redis.sh failed with exit code 1",
            "SUCCESS Environment backup completed: {}",
            "ERROR Backup completed with errors: 4/5 succeeded, 1 failed",
        ],
    );
    outcome.assert_log_has(
        "backup-redis",
        &format!("ERROR Container {} is not running", sandbox.container("redis")),
    );
    assert_eq!(KINDS.map(|kind| sandbox.backups(kind).len()), [1, 0, 1, 1]);
    sandbox.docker(&["stop", &sandbox.container("postgres")]);
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_log_has("backup-all", "ERROR backup-postgres.sh failed with exit code 1");
    outcome.assert_log_has(
        "backup-all",
        "ERROR Backup completed with errors: 3/5 succeeded, 2 failed",
    );
    assert_eq!(KINDS.map(|kind| sandbox.backups(kind).len()), [1, 0, 2, 2]);
}

#[test]
fn of_four_starts_at_once_one_runs() {
    let sandbox = Sandbox::new("four").stack().build();
    // A stale file: its process is gone, and nobody holds the lock.
    fs::write(sandbox.lock_file(), "4194304\n").unwrap();
    // One holds it until the others have been refused.
    let gate = sandbox.gate();
    let slow = sandbox.stand_in_docker(&format!("[[ $1 != cp ]] || {}", gate.wait()));
    let running: Vec<_> = (0..4)
        .map(|_| sandbox.call("backup-all").path_first(&slow).spawn())
        .collect();
    await_true("three are not refused", || {
        sandbox.log().matches("Backup already in progress").count() == 3
    });
    gate.open();
    let pids: Vec<u32> = running.iter().map(crate::common::Running::pid).collect();
    let outcomes: Vec<Outcome> = running.into_iter().map(crate::common::Running::wait).collect();
    let winners: Vec<usize> = (0..4).filter(|i| outcomes[*i].code == Some(0)).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let holder = pids[winners[0]];
    for (i, outcome) in outcomes.iter().enumerate() {
        let stale = outcome.stdout.contains("[WARN]") && outcome.stdout.contains("Stale lock file found, removing");
        if i == winners[0] {
            assert!(stale, "{outcome}");
            continue;
        }
        assert_eq!(outcome.code, Some(1));
        let said: Vec<&str> = outcome.stdout.lines().collect();
        assert!(
            said.len() == 1
                && matches(
                    &format!("[ERROR] {{}} [backup-all] Backup already in progress (PID: {holder})"),
                    said[0]
                ),
            "{outcome}"
        );
    }
    assert_eq!(KINDS.map(|kind| sandbox.backups(kind).len()), [1; 4]);
    // The lock goes with a process that is killed; the file that it leaves is told of.
    let stuck = sandbox.stand_in_docker("[[ $1 != cp ]] || sleep 60");
    let mut killed = sandbox.call("backup-all").path_first(&stuck).spawn();
    killed.await_log("Creating archive");
    killed.signal("KILL");
    assert_eq!(killed.wait().code, None);
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_success();
    outcome.assert_log_has("backup-all", "WARN Stale lock file found, removing");
    let again = sandbox.run("backup-all", &[]);
    again.assert_success().assert_never_says("Stale");
}

#[test]
fn a_disk_that_is_nearly_full_is_told_before_anything_is_done() {
    let sandbox = Sandbox::new("disk").build();
    let df = |available: &str| {
        let script = format!(
            "#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\necho \"/dev/x y 9999999 1 {available} 1% /\" | sed 's/x y/x/'\n"
        );
        sandbox.stand_in("df", &script)
    };
    let before = sandbox.listing();
    let outcome = sandbox.call("backup-all").path_first(df("1048575")).run();
    outcome.assert_error("Insufficient disk space: {}i available, 1GiB required");
    assert_eq!(sandbox.listing(), before);
    outcome.assert_never_says("Running:");
    let outcome = sandbox.call("backup-all").path_first(df("80740352")).run();
    outcome.assert_log_has("backup-all", "INFO Disk space check passed: 77Gi available");
    let broken = sandbox.stand_in("df", "#!/bin/sh\nexit 1\n");
    let outcome = sandbox.call("backup-all").path_first(broken).run();
    outcome.assert_log_has("backup-all", "WARN Could not determine available disk space");
    outcome.assert_log_has("backup-all", "INFO Running: cleanup-backups.sh");
    sandbox.set("BACKUP_MIN_FREE_KB", "2097152");
    let outcome = sandbox.call("backup-all").path_first(df("1048576")).run();
    outcome.assert_error("Insufficient disk space: 1.0Gi available, {} required");
    // What the cleanup is about to free counts.
    sandbox.set("BACKUP_MIN_FREE_KB", "1048600");
    let old = sandbox.path("backups/postgres/n8n_20200101_020000.sql.gz");
    let packed = "{ echo x; head -c 200000 /dev/urandom; } | gzip >\"$1\" && touch -d '2020-01-01' \"$1\"";
    for name in [&old, &old.with_file_name("n8n_20200102_020000.sql.gz")] {
        sh(packed, &[name.as_os_str()]);
    }
    let outcome = sandbox.call("backup-all").path_first(df("1048550")).run();
    outcome.assert_log_has("backup-all", "INFO Disk space check passed: {} available");
    assert!(!old.exists(), "{outcome}");
    // A directory that is on another disk is asked for what goes there.
    sandbox.set("BACKUP_MIN_FREE_KB", "1");
    let elsewhere = sh("mktemp -d /dev/shm/n8nbt-disk-XXXXXX", &[]);
    let redis = sandbox.path("backups/redis");
    let _ = fs::remove_dir_all(&redis);
    std::os::unix::fs::symlink(elsewhere.trim(), &redis).unwrap();
    fs::write(redis.join("dump_20260101_020000.rdb"), vec![b'x'; 1 << 20]).unwrap();
    let other = "#!/bin/sh\necho head\ncase $* in *redis) echo / 9 1 200 1% / ;; *) echo / 9 1 80740352 1% / ;; esac\n";
    let outcome = sandbox
        .call("backup-all")
        .path_first(sandbox.stand_in("df", other))
        .run();
    fs::remove_dir_all(elsewhere.trim()).unwrap();
    outcome.assert_error("Insufficient disk space in {}/backups/redis: {}Ki available, 1.3MiB required");
}

#[test]
fn without_an_env_file_the_rest_is_backed_up() {
    let sandbox = Sandbox::new("bare").redis().no_env_file().build();
    let outcome = sandbox.call("backup-all").envs(&sandbox.settings()).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has("backup-postgres", "ERROR .env file not found");
    outcome.assert_log_has(
        "backup-all",
        &format!("ERROR .env file not found at {}", sandbox.path(".env").display()),
    );
    outcome.assert_log_has(
        "backup-all",
        "ERROR Backup completed with errors: 2/5 succeeded, 3 failed",
    );
    assert_eq!(KINDS.map(|kind| sandbox.backups(kind).len()), [0, 1, 0, 0]);
}

#[test]
fn an_env_file_that_is_not_utf_8_throughout_is_backed_up_and_comes_back() {
    let sandbox = Sandbox::new("latin").stack().build();
    let env = sandbox.path(".env");
    let mut text = fs::read(&env).unwrap();
    text.extend(b"# gr\xfc\xdfe\nGENERIC_NAME=caf\xe9\nSMTP_PASS='\xe4 $\xf6'\n");
    fs::write(&env, &text).unwrap();
    sandbox.run("backup-all", &[]).assert_success();
    let copy = sandbox.backup("env");
    assert_eq!(fs::read(&copy).unwrap(), text);
    let verified = sandbox.binary().args(&["verify", "--all"]).run();
    verified.assert_success();
    // It is told as one that differs, by its name.
    let changed: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == 0xe9 { 0xe8 } else { *byte })
        .collect();
    fs::write(&env, changed).unwrap();
    let outcome = sandbox.call("restore-env").arg(&copy).run();
    outcome.assert_success();
    assert!(
        outcome.stdout.contains("with another value: GENERIC_NAME\n"),
        "{outcome}"
    );
    assert_eq!(fs::read(&env).unwrap(), text);
}

#[test]
fn what_is_wrong_with_docker_is_told_apart() {
    let sandbox = Sandbox::new("docker").build();
    let name = format!("{}-stopped", sandbox.prefix());
    let labels = sandbox.labels();
    let mut create: Vec<&str> = vec!["create", "--name", &name];
    create.extend(labels.iter().map(String::as_str));
    create.extend(["--network", "none", "n8n-backup-test/busybox:1", "sleep", "1000"]);
    let gone = Removed(&name);
    sandbox.docker(&create);
    for setting in ["BACKUP_POSTGRES_CONTAINER", "BACKUP_REDIS_CONTAINER"] {
        sandbox.set(setting, &name);
    }
    let mut told = Vec::new();
    for script in ["backup-postgres", "backup-redis"] {
        let stopped = sandbox.run(script, &[]);
        stopped.assert_error(&format!("Container {name} is not running"));
        stopped.assert_log_has(script, &format!("ERROR Hint: run 'docker start {name}'"));
    }
    sandbox.docker(&["start", &name]);
    sandbox.pause(&name);
    let paused = sandbox.run("backup-redis", &[]);
    paused.assert_error(&format!("Container {name} is not running"));
    paused.assert_log_has("backup-redis", &format!("ERROR Hint: run 'docker unpause {name}'"));
    for (script, other) in [
        ("backup-postgres", "postgres"),
        ("backup-redis", "redis"),
        ("backup-n8n", "n8n"),
    ] {
        let silent = sandbox.call(script).env("DOCKER_HOST", "unix:///nonexistent").run();
        silent.assert_error("Docker engine does not answer");
        told.push(silent.errors());
        assert!(sandbox.backups(other).is_empty());
    }
    if !crate::common::can_mount() {
        return crate::common::skip(
            "backup::what_is_wrong_with_docker_is_told_apart (docker's absence)",
            "needs to mount in a namespace of its own (root)",
        );
    }
    let hide = r#"for dir in /usr/bin /usr/local/bin /bin /snap/bin /opt/bin /usr/sbin; do
        for program in docker podman; do
            [ ! -e "$dir/$program" ] || mount --bind /dev/null "$dir/$program"
        done
    done
    exec "$@""#;
    for script in ["backup-postgres", "backup-redis", "backup-n8n"] {
        let absent = sandbox
            .call(script)
            .under(&["unshare", "-m", "sh", "-c", hide, "sh"])
            .run();
        absent.assert_error("Docker command not found");
        absent.assert_log_has(script, "ERROR Hint: install Docker, or {}");
    }
    drop(gone);
}

/// A container that is removed at the end of a test.
struct Removed<'a>(&'a str);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker")
            .args(["rm", "-fv", self.0])
            .output();
    }
}

#[test]
fn a_dump_that_is_cut_off_is_none() {
    let sandbox = Sandbox::new("cut").postgres().seeded().build();
    let before = sandbox.listing();
    let is_dump = r#"for word; do [[ $word == pg_dump* ]] && dump=1; done"#;
    for (what, script, message) in [
        (
            "cut with exit code 0",
            r#"if [[ -n ${dump-} ]]; then "$real" "$@" | head -c 200000; exit 0; fi"#,
            "pg_dump failed",
        ),
        (
            "whole, with an error at the end",
            r#"if [[ -n ${dump-} ]]; then "$real" "$@"; echo "no such luck" >&2; exit 1; fi"#,
            "pg_dump failed",
        ),
        (
            "a client that is killed",
            r#"if [[ -n ${dump-} ]]; then echo "-- PostgreSQL database dump"; kill -KILL $$; fi"#,
            "pg_dump failed",
        ),
        ("nothing", r#"[[ -z ${dump-} ]] || exit 0"#, "Backup file is empty"),
    ] {
        let stand_in = sandbox.stand_in_docker(&format!("{is_dump}\n{script}"));
        let outcome = sandbox.call("backup-postgres").path_first(&stand_in).run();
        outcome.assert_error(message);
        assert_eq!(sandbox.listing(), before, "{what}: {outcome}");
        if what.starts_with("whole") {
            assert!(outcome.log.contains("no such luck"), "{outcome}");
        }
    }
    sandbox.set("POSTGRES_DB", "no such database");
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_error("pg_dump failed");
    assert!(
        outcome.log.contains("database \"no such database\" does not exist"),
        "{outcome}"
    );
    assert!(sandbox.backups("postgres").is_empty());
    sandbox.set("POSTGRES_DB", "n8n");

    // A dump that stands still is ended, in the container too.
    sandbox.set("BACKUP_STALL_SECONDS", "3");
    let lock = "BEGIN; LOCK TABLE workflow_entity; SELECT pg_sleep(1000)";
    let container = sandbox.container("postgres");
    sandbox.docker(&["exec", "-d", &container, "psql", "-U", "n8n", "-d", "n8n", "-c", lock]);
    let locked = "SELECT count(*) FROM pg_locks WHERE relation = 'workflow_entity'::regclass AND mode = 'AccessExclusiveLock' AND granted";
    await_true("the table is not locked", || sandbox.psql(locked).trim() == "1");
    let dumps = "SELECT count(*) FROM pg_stat_activity WHERE query ~* '^LOCK TABLE' AND pid <> pg_backend_pid()";
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_error("pg_dump failed");
    assert!(outcome.took < Duration::from_secs(10), "{outcome}");
    await_true("pg_dump is left", || sandbox.psql(dumps).trim() == "0");
    assert!(sandbox.backups("postgres").is_empty() && sandbox.leftovers("postgres").is_empty());

    // A run that is killed leaves an unfinished file at most, and nothing that holds locks; the next one clears it.
    sandbox.set("BACKUP_STALL_SECONDS", "60");
    let mut killed = sandbox.spawn("backup-postgres", &[]);
    killed.await_that("pg_dump waits for the lock", |_| sandbox.psql(dumps).trim() == "1");
    killed.signal("KILL");
    assert_eq!(killed.wait().code, None);
    await_true("pg_dump is left", || sandbox.psql(dumps).trim() == "0");
    assert!(sandbox.backups("postgres").is_empty());
    let left = sandbox.leftovers("postgres");
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(mode(&left[0]), 0o600);
    sandbox.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND pid <> pg_backend_pid()",
    );
    sandbox.run("backup-postgres", &[]).assert_success();
    assert!(sandbox.leftovers("postgres").is_empty());
    assert_eq!(sandbox.backups("postgres").len(), 1);
}

#[test]
fn servers_that_are_starting_are_waited_for() {
    let sandbox = Sandbox::new("starting")
        .kept()
        .stack()
        .pg_arg("-c")
        .pg_arg("restore_command=while [ -e /tmp/hold ]; do sleep 0.1; done; false")
        .redis_arg("--key-load-delay")
        .redis_arg("2000")
        .redis_arg("--loading-process-events-interval-bytes")
        .redis_arg("1024")
        .redis_arg("--rdbcompression")
        .redis_arg("no")
        .build();
    sandbox.psql("CREATE TABLE kept AS SELECT generate_series(1, 10) AS id");
    // Redis listens between one KiB of the file and the next, and its keys take 2 ms each.
    let fill = "for i = 1, 1000 do redis.call('SET', 'key' .. i, string.rep('x', 1024)) end";
    sandbox.redis(&["EVAL", fill, "0"]);
    let (postgres, redis) = (sandbox.container("postgres"), sandbox.container("redis"));
    // A server that looks for WAL in its archive is recovering until it is told that there is none.
    let recover = || {
        let signal = "touch /var/lib/postgresql/data/recovery.signal /tmp/hold";
        sandbox.docker(&["exec", "-u", "postgres", &postgres, "sh", "-c", signal]);
        sandbox.docker(&["restart", "-t", "5", &postgres]);
    };
    let waits = "PostgreSQL is starting, waiting for it";
    recover();
    let mut run = sandbox.spawn("backup-all", &[]);
    run.await_log(waits);
    sandbox.docker(&["exec", &postgres, "rm", "/tmp/hold"]);
    run.wait().assert_success();
    assert!(sh("gzip -dc -- \"$1\"", &[sandbox.backup("postgres").as_os_str()]).contains("\n10\n\\.\n"));

    sandbox.docker(&["restart", "-t", "5", &redis]);
    let outcome = sandbox.run("backup-redis", &[]);
    outcome.assert_success();
    outcome.assert_log_has("backup-redis", "INFO Redis is starting, waiting for it");
    sandbox.redis(&["FLUSHALL"]);
    let snapshot = sandbox.backups("redis").pop().unwrap();
    sandbox
        .run("restore-redis", &["--yes", snapshot.to_str().unwrap()])
        .assert_success();
    assert_eq!(sandbox.redis(&["DBSIZE"]).trim(), "1000");

    // One that ends meanwhile is not waited for.
    recover();
    let mut run = sandbox.spawn("backup-postgres", &[]);
    run.await_log(waits);
    sandbox.docker(&["kill", &postgres]);
    run.wait().assert_error(&format!("Container {postgres} is not running"));
}

#[test]
fn the_dump_is_what_psql_alone_restores() {
    let sandbox = Sandbox::new("drill").postgres().seeded().build();
    let before = sandbox.fingerprint_postgres_of("n8n");
    sandbox.run("backup-postgres", &[]).assert_success();
    sandbox.psql_in("postgres", "CREATE DATABASE drill TEMPLATE template0");
    let container = sandbox.container("postgres");
    let args = [sandbox.backup("postgres").into_os_string(), container.into()];
    let args: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
    sh(
        "gunzip -c -- \"$1\" | docker exec -i \"$2\" psql -q -v ON_ERROR_STOP=1 -U n8n -d drill >/dev/null",
        &args,
    );
    let contents = |text: &str| -> String {
        let kept = text.lines().filter(|line| !line.starts_with("database|"));
        kept.map(|line| format!("{line}\n")).collect()
    };
    crate::common::assert_same(&contents(&before), &contents(&sandbox.fingerprint_postgres_of("drill")));
}
