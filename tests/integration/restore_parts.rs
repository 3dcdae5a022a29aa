//! restore-redis, restore-n8n and restore-env on real containers.

use std::fs;
use std::path::Path;

use crate::common::{assert_same, mode, Sandbox, REDIS_PORT};

/// A state of a container that a restore must leave as it was: whether it runs.
fn runs(sandbox: &Sandbox, name: &str) -> bool {
    let format = ["inspect", "--format", "{{.State.Running}}"];
    sandbox
        .docker(&[&format[..], &[&sandbox.container(name)]].concat())
        .trim()
        == "true"
}

/// Waits until Redis answers.
pub fn await_redis(sandbox: &Sandbox) {
    let container = sandbox.container("redis");
    for _ in 0..400 {
        let mut ping = std::process::Command::new("docker");
        ping.args(["exec", &container, "redis-cli", "-p", REDIS_PORT, "ping"]);
        if ping.output().is_ok_and(|said| said.status.success()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("Redis does not answer: {}", sandbox.docker(&["logs", &container]));
}

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
    sandbox.docker(&["kill", &sandbox.container("redis")]);
    sandbox.docker(&["start", &sandbox.container("redis")]);
    await_redis(&sandbox);
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
    sandbox.docker(&["rm", &redis]);
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
    await_redis(&sandbox);
    assert_eq!(sandbox.redis(&["get", "since"]), "then");

    sandbox.run("restore-redis", &[&file]).assert_success();
    assert_same(&saved, &sandbox.fingerprint_redis());
    assert!(sandbox.redis(&["config", "get", "maxclients"]).ends_with("99"));
    assert_eq!(fs::read_to_string(sandbox.path("note")).unwrap(), "kept");
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
            await_redis(&sandbox);
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

/// A seeded volume with n8n's containers, an archive of it, and other contents since.
fn changed_volume(name: &'static str) -> (Sandbox, String, String, String) {
    let sandbox = Sandbox::new(name).n8n().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    let file = sandbox.backup("n8n").display().to_string();
    let saved = sandbox.fingerprint_volume();
    let spoil = "cd /home/node/.n8n && rm -rf odd config && echo new >config && mkdir -p binaryData/new && echo x >-x \
                 && chmod 700 . && touch -d '2001-01-01 00:00:00' .";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", spoil]);
    let changed = sandbox.fingerprint_volume();
    assert_ne!(saved, changed);
    (sandbox, file, saved, changed)
}

#[test]
fn every_file_of_the_volume_comes_back_and_what_was_there_is_kept() {
    let (sandbox, file, saved, changed) = changed_volume("vol");
    sandbox.docker(&["stop", "-t", "1", &sandbox.container("n8n-worker")]);
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_success().assert_logged_as_printed();
    outcome.assert_messages(
        "restore-n8n",
        &[
            "INFO Starting n8n data restore from: {}",
            "INFO Verifying backup file integrity...",
            "INFO Backup file integrity verified",
            "WARN This will replace the contents of the volume {}, and stop n8n meanwhile",
            "WARN All existing data will be replaced with backup data",
            "INFO Running non-interactively, proceeding with restore",
            "INFO Stopping n8n: {}-n8n-main",
            "INFO Unpacking the archive beside the data...",
            "INFO Verifying restore...",
            "INFO Exchanging the contents of the volume...",
            "INFO Starting n8n: {}-n8n-main",
            "SUCCESS n8n data restore completed from: {}",
        ],
    );
    assert_same(&saved, &sandbox.fingerprint_volume());
    assert!(runs(&sandbox, "n8n-main") && !runs(&sandbox, "n8n-worker"));
    // The archive of what was there leads back.
    let backups = sandbox.backups("n8n");
    assert_eq!(backups.len(), 2);
    let safety = backups.iter().find(|path| path.display().to_string() != file).unwrap();
    sandbox
        .run("restore-n8n", &[&safety.display().to_string()])
        .assert_success();
    assert_same(&changed, &sandbox.fingerprint_volume());
    // What was kept before a restore is not the latest point.
    let outcome = sandbox.run("restore-all", &["--only", "n8n", "latest"]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-all",
        "INFO Passing over the newer recovery point {}: made before a restore",
    );
    assert_same(&saved, &sandbox.fingerprint_volume());
    // Nor is one that a clock which ran ahead has dated.
    let newest = sandbox.backups("sets").pop().unwrap();
    let text = fs::read_to_string(&newest).unwrap();
    let stamp = newest.file_stem().unwrap().to_str().unwrap();
    let text = text
        .replace("aside:", "was-aside:")
        .replacen(stamp, "20990101_020000", 1);
    fs::write(newest.with_file_name("20990101_020000.sha256"), text).unwrap();
    let outcome = sandbox.run("restore-all", &["--only", "n8n", "latest"]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-all",
        "WARN Passing over recovery point 20990101_020000, which is dated in the future",
    );
    assert_same(&saved, &sandbox.fingerprint_volume());
}

#[test]
fn a_failed_volume_restore_puts_back_what_was_there() {
    let (sandbox, file, _, changed) = changed_volume("volback");
    // One that would go on working on the volume.
    let env = fs::read_to_string(sandbox.path(".env")).unwrap();
    let one = sandbox.container("n8n-main");
    sandbox.write(".env", format!("{env}\nBACKUP_N8N_CONTAINERS={one}\n"));
    sandbox.run("restore-n8n", &[&file]).assert_error(
        "Containers that are not known as n8n's use the volume {}: {}-n8n-worker. Stop them, or add them to {}",
    );
    assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"));
    sandbox.write(".env", &env);
    for (pattern, nth) in [
        ("*' run '*", 1),
        ("*' create '*", 1),
        ("*' begin '*", 1),
        ("*' cp -- - '*", 1),
        ("*' cp '*/new/.*", 1),
        ("*' exchange '*", 1),
        ("*' stop '*n8n-worker*", 1),
    ] {
        let docker = sandbox.failing_docker(pattern, nth);
        let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
        assert_eq!(outcome.code, Some(1), "{pattern}: {outcome}");
        assert_same(&changed, &sandbox.fingerprint_volume());
        assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"), "{pattern}");
        assert!(!sandbox.path("backups/.restore").exists(), "{pattern}");
    }
    // The client dies, and what it has started goes on.
    let docker = sandbox.stand_in_docker(
        "case \" $* \" in *' exchange '*) \"$real\" \"$@\" >/dev/null 2>&1 & sleep 0.1; exit 1 ;; esac",
    );
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    outcome.assert_error("n8n data restore failed");
    outcome.assert_log_has("restore-n8n", "WARN Putting back what was there before");
    assert_same(&changed, &sandbox.fingerprint_volume());
}

/// A volume may stand for a directory, and others may mount that directory itself.
#[test]
fn who_mounts_the_directory_of_a_volume_is_seen() {
    let sandbox = Sandbox::new("bound").redis().build();
    let (dir, volume) = (sandbox.aside("data"), format!("{}_dir", sandbox.prefix()));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config"), "{}").unwrap();
    let (dir, stranger) = (dir.display().to_string(), sandbox.container("webhook"));
    let labels = sandbox.labels();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let (device, mount) = (format!("device={dir}"), format!("{dir}:/files"));
    let create = [
        "volume",
        "create",
        "--opt",
        "type=none",
        "--opt",
        "o=bind",
        "--opt",
        &device,
    ];
    sandbox.docker(&[&create[..], &labels, &[&volume]].concat());
    sandbox.set("BACKUP_N8N_VOLUME", &volume);
    sandbox.run("backup-n8n", &[]).assert_success();
    let image = "n8n-backup-test/busybox:1";
    let run = ["run", "-d", "--name", &stranger, "--network", "none", "-v", &mount];
    sandbox.docker(&[&run[..], &labels, &[image, "sleep", "600"]].concat());
    let file = sandbox.backup("n8n").display().to_string();
    sandbox.run("restore-n8n", &[&file]).assert_error(
        "Containers that are not known as n8n's use the volume {}: {}-webhook. Stop them, or add them to {}",
    );
    sandbox.docker(&["rm", "-f", &stranger]);
    sandbox.run("restore-n8n", &[&file]).assert_success();
}

#[test]
fn a_volume_restore_that_is_killed_in_the_exchange_is_set_right_by_the_next() {
    let (sandbox, file, saved, changed) = changed_volume("volkill");
    // As it is when half of what was there has been moved aside.
    let half =
        "cd /home/node/.n8n && mkdir -p .n8n-backup-restore/new .n8n-backup-restore/old && cd .n8n-backup-restore \
                && echo '1000 1000 700 978307200' >root && : >begun && mv ../config ../-x old/";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", half]);
    // A backup of it is made, and is nothing to go back to unasked.
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "backup-n8n",
        "WARN The volume is in the middle of a restore that was interrupted: {}",
    );
    let newest = sandbox.backups("sets").last().unwrap().clone();
    let manifest = fs::read_to_string(&newest).unwrap();
    assert!(
        manifest.contains("aside: made while a restore of the volume"),
        "{manifest}"
    );
    for path in sandbox
        .backups("n8n")
        .iter()
        .filter(|path| path.display().to_string() != file)
    {
        fs::remove_file(path).unwrap();
    }
    // Where even that fails, n8n is not started on half of its data.
    let docker = sandbox.failing_docker("*' back '*", 1);
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has("restore-n8n", "ERROR What was there before could not be put back; {}");
    assert!(!runs(&sandbox, "n8n-main") && !runs(&sandbox, "n8n-worker"));
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-n8n",
        "WARN An interrupted restore of the volume had left its traces; {}",
    );
    assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"));
    assert_same(&saved, &sandbox.fingerprint_volume());
    let safety = sandbox
        .backups("n8n")
        .into_iter()
        .find(|path| path.display().to_string() != file)
        .unwrap();
    sandbox
        .run("restore-n8n", &[&safety.display().to_string()])
        .assert_success();
    assert_same(&changed, &sandbox.fingerprint_volume());
}

/// n8n must not be started on half a volume because something else was restored in between.
#[test]
fn a_restore_of_another_part_does_not_end_an_interrupted_one() {
    let sandbox = Sandbox::new("between").n8n().redis().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    sandbox.run("backup-redis", &[]).assert_success();
    let saved = sandbox.fingerprint_volume();
    let archive = sandbox.backup("n8n").display().to_string();
    let snapshot = sandbox.backup("redis").display().to_string();
    let half =
        "cd /home/node/.n8n && mkdir -p .n8n-backup-restore/new .n8n-backup-restore/old && cd .n8n-backup-restore \
                && echo '1000 1000 700 978307200' >root && : >begun && mv ../config old/";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", half]);
    let docker = sandbox.failing_docker("*' back '*", 1);
    let outcome = sandbox.call("restore-n8n").arg(&archive).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(!runs(&sandbox, "n8n-main"), "{outcome}");

    let outcome = sandbox.run("restore-redis", &[&snapshot]);
    outcome.assert_success().assert_log_has(
        "restore-redis",
        "WARN n8n stays stopped: the restore of n8n was interrupted. {}",
    );
    assert!(!runs(&sandbox, "n8n-main") && !runs(&sandbox, "n8n-worker"));
    assert!(sandbox.path("backups/.restore").exists());
    // Nor because the same failed once more.
    let docker = sandbox.failing_docker("*' back '*", 1);
    let outcome = sandbox.call("restore-n8n").arg(&archive).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(!runs(&sandbox, "n8n-main"), "{outcome}");

    sandbox.run("restore-n8n", &[&archive]).assert_success();
    assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"));
    assert!(!sandbox.path("backups/.restore").exists());
    assert_same(&saved, &sandbox.fingerprint_volume());
}

#[test]
fn archives_of_other_tools_are_taken_and_unsafe_ones_are_not() {
    let sandbox = Sandbox::new("tars").n8n().seeded().build();
    let saved = sandbox.fingerprint_volume();
    let tar = |name: &str, script: &str| {
        let path = sandbox.path(format!("backups/n8n/{name}"));
        let archive = crate::common::sh(
            "mkdir -p \"$(dirname \"$1\")\"; docker run --rm --network none -v \"$2:/v\" --entrypoint sh \
             n8n-backup-test/busybox:1 -c \"$3\" >\"$1\"",
            &[path.as_os_str(), sandbox.volume().as_ref(), script.as_ref()],
        );
        drop(archive);
        path.display().to_string()
    };
    // As the shell scripts did it.
    let plain = tar("n8n_data_20250101_000000.tar.gz", "tar -C /v -czf - .");
    sandbox.run("restore-n8n", &[&plain]).assert_success();
    assert_same(&saved, &sandbox.fingerprint_volume());
    let outside = sandbox.path("backups/n8n/n8n_data_20250101_000001.tar.gz");
    crate::common::sh(
        "cd \"$(dirname \"$1\")\" && echo x >evil && tar -czPf \"$1\" --transform 's,^,../../,' evil && rm evil",
        &[outside.as_os_str()],
    );
    let before = sandbox.backups("n8n").len();
    sandbox
        .run("restore-n8n", &[&outside.display().to_string()])
        .assert_error("The archive holds names that lead out of the volume ({}): it is not unpacked");
    assert_same(&saved, &sandbox.fingerprint_volume());
    assert_eq!(sandbox.backups("n8n").len(), before);
}

#[test]
fn the_environment_file_is_compared_by_name_and_kept() {
    let sandbox = Sandbox::new("envs")
        .env("SECRET_A", "hidden-a")
        .env("SECRET_B", "hidden-b")
        .build();
    let old = fs::read_to_string(sandbox.path(".env")).unwrap();
    let file = sandbox.path("backups/env/env_20250101_000000.backup");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let new = old.replace("hidden-a", "hidden-x").replace("SECRET_B", "SECRET_C");
    fs::write(&file, &new).unwrap();
    let left = sandbox.write(".env.restore-20250101_000000-4711", &new);
    let outcome = sandbox.run("restore-env", &[&file.display().to_string()]);
    assert!(!left.exists());
    outcome.assert_success().assert_logged_as_printed();
    for text in ["hidden-a", "hidden-b", "hidden-x"] {
        outcome.assert_never_says(text);
    }
    outcome.assert_messages(
        "restore-env",
        &[
            "INFO Starting environment file restore from: {}",
            "INFO Verifying backup file integrity...",
            "INFO Backup file integrity verified",
            "INFO Settings only in the backup: SECRET_C",
            "INFO Settings only in the present .env: SECRET_B",
            "INFO Settings with another value: SECRET_A",
            "WARN This will replace {}/.env",
            "WARN All existing data will be replaced with backup data",
            "INFO Running non-interactively, proceeding with restore",
            "INFO The present file is kept as {}/.env.before-restore-{}",
            "SUCCESS Environment file restore completed from: {}",
        ],
    );
    let path = sandbox.path(".env");
    assert_eq!(fs::read_to_string(&path).unwrap(), new);
    assert_eq!(mode(&path), 0o600);
    let kept = kept(sandbox.dir());
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read_to_string(&kept[0]).unwrap(), old);
    assert_eq!(mode(&kept[0]), 0o600);
    // Once more: it is the same already.
    let outcome = sandbox.run("restore-env", &[&file.display().to_string()]);
    outcome.assert_success();
    assert_eq!(self::kept(sandbox.dir()).len(), 1);
}

/// The files that restores of `.env` kept.
fn kept(dir: &Path) -> Vec<std::path::PathBuf> {
    let items = fs::read_dir(dir).into_iter().flatten().flatten();
    items
        .map(|item| item.path())
        .filter(|path| crate::common::name(path).starts_with(".env.before-restore-"))
        .collect()
}

#[test]
fn a_no_on_the_terminal_leaves_everything() {
    let sandbox = Sandbox::new("no").redis().n8n().build();
    sandbox.redis(&["set", "a", "b"]);
    sandbox.run("backup-redis", &[]).assert_success();
    sandbox.run("backup-n8n", &[]).assert_success();
    for kind in ["redis", "n8n"] {
        let file = sandbox.backup(kind);
        let outcome = sandbox
            .call(&format!("restore-{kind}"))
            .arg(&file)
            .terminal("no\n")
            .run();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        outcome.assert_log_has(&format!("restore-{kind}"), "INFO Restore cancelled by user");
        assert!(runs(&sandbox, "n8n-main"));
    }
}
