//! restore-all on a real stack.

use std::fs;

use crate::common::{assert_same, Sandbox, REDIS_PORT};

const PARTS: [&str; 4] = ["postgres", "redis", "n8n-main", "n8n-worker"];

/// The state of a container, as docker tells it.
fn status(sandbox: &Sandbox, name: &str) -> String {
    let format = ["inspect", "--format", "{{.State.Status}}"];
    let said = sandbox.docker(&[&format[..], &[&sandbox.container(name)]].concat());
    said.trim().to_owned()
}

/// A stack for [`lose_everything`].
fn to_be_lost(name: &'static str) -> Sandbox {
    Sandbox::new(name)
        .kept()
        .stack()
        .n8n()
        .seeded()
        .redis_arg("--appendonly")
        .redis_arg("yes")
        .build()
}

/// Loses the containers and all they held, and creates them again without starting them, as `docker compose up --no-start`
/// does on a new host.
fn lose_everything(sandbox: &Sandbox) {
    let names = PARTS.map(|name| sandbox.container(name));
    sandbox.docker(&[&["rm", "-fv", "-v"], &names.each_ref().map(String::as_str)[..]].concat());
    for volume in ["postgres_data", "redis_data", "n8n_data"] {
        sandbox.docker(&["volume", "rm", &format!("{}_{volume}", sandbox.prefix())]);
        sandbox.make_volume(&format!("{}_{volume}", sandbox.prefix()));
    }
    for (name, options, image, command) in [
        (
            "postgres",
            &[
                "--stop-signal",
                "SIGINT",
                "-e",
                "POSTGRES_USER=n8n",
                "-e",
                "POSTGRES_DB=n8n",
                "-e",
                "POSTGRES_PASSWORD=x",
            ][..],
            "postgres",
            &[][..],
        ),
        (
            "redis",
            &[],
            "redis",
            &["redis-server", "--port", REDIS_PORT, "--appendonly", "yes"],
        ),
        ("n8n-main", &[], "busybox", &["sleep", "86400"]),
        ("n8n-worker", &[], "busybox", &["sleep", "86400"]),
    ] {
        let mount = match name {
            "postgres" => format!("{}_postgres_data:/var/lib/postgresql/data", sandbox.prefix()),
            "redis" => format!("{}_redis_data:/data", sandbox.prefix()),
            _ => format!("{}:/home/node/.n8n", sandbox.volume()),
        };
        let (own, labels) = (sandbox.container(name), sandbox.labels());
        let image = format!("n8n-backup-test/{image}:1");
        let mut args = vec![
            "create",
            "--name",
            &own,
            "--network",
            "none",
            "--stop-timeout",
            "1",
            "-v",
            &mount,
        ];
        args.extend(labels.iter().map(String::as_str));
        args.extend(options);
        args.push(&image);
        args.extend(command);
        sandbox.docker(&args);
    }
}

#[test]
fn a_stack_that_lost_everything_comes_back_in_one_command() {
    let sandbox = to_be_lost("lost");
    let before = sandbox.fingerprint();
    sandbox.run("backup-all", &[]).assert_success();
    let env = fs::read(sandbox.path(".env")).unwrap();

    lose_everything(&sandbox);
    fs::remove_file(sandbox.path(".env")).unwrap();
    let lock = sandbox.aside("lock-of-the-new-host");
    let outcome = sandbox
        .call("restore-all")
        .args(&["--start", "--create-roles", "latest"])
        .env("BACKUP_LOCK_FILE", &lock)
        .run();
    outcome.assert_success().assert_logged_as_printed();
    outcome.assert_messages(
        "restore-all",
        &[
            "INFO Starting full restore",
            "INFO Recovery point {}: postgres redis n8n env",
            "INFO Everything is verified, no data were changed so far",
            "WARN {}/.env is not there: it is written first",
            "WARN All existing data will be replaced with backup data",
            "INFO Restoring: postgres",
            "INFO Restoring: redis",
            "INFO Restoring: n8n",
            "SUCCESS Full restore completed from: {} (4/4 parts in {} s)",
        ],
    );
    assert_eq!(fs::read(sandbox.path(".env")).unwrap(), env);
    for name in PARTS {
        assert_eq!(status(&sandbox, name), "running", "{name}");
    }
    assert_same(&before, &sandbox.fingerprint());

    // Once more, where the containers were only made: what did not run does not run afterwards.
    lose_everything(&sandbox);
    let outcome = sandbox.run("restore-all", &["--create-roles", "--yes"]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "INFO n8n did not run before, so it was not started{}");
    for (name, wanted) in PARTS.into_iter().zip(["exited", "exited", "created", "created"]) {
        assert_eq!(status(&sandbox, name), wanted, "{name}");
    }
}

#[test]
fn what_an_interrupted_restore_has_done_holds_for_the_same_servers_and_options() {
    let sandbox = to_be_lost("again");
    let before = sandbox.fingerprint();
    sandbox.run("backup-all", &[]).assert_success();
    let set = sandbox.backup("sets");
    let point = set.file_name().unwrap().to_string_lossy().into_owned();
    let fails = || {
        let docker = sandbox.failing_docker("*' exchange '*", 1);
        let outcome = sandbox.call("restore-all").arg(&point).path_first(&docker).run();
        outcome.assert_error("Full restore failed at redis");
    };
    let once_more = |why: &str| format!("WARN To be restored again, since the {why}: postgres");

    fails();
    // One that was made since and never ran proves nothing.
    let worker = sandbox.container("n8n-worker");
    sandbox.docker(&["rm", "-f", &worker]);
    let (mount, labels) = (format!("{}:/home/node/.n8n", sandbox.volume()), sandbox.labels());
    let mut create = vec![
        "create",
        "--name",
        &worker,
        "--network",
        "none",
        "--stop-timeout",
        "1",
        "-v",
        &mount,
    ];
    create.extend(labels.iter().map(String::as_str));
    create.extend(["n8n-backup-test/busybox:1", "sleep", "86400"]);
    sandbox.docker(&create);
    sandbox
        .run("backup-all", &[])
        .assert_success()
        .assert_log_has(
            "backup-all",
            "WARN A restore was interrupted and has left stopped: {}; half restored: redis, n8n, env. Run the same restore again, {}",
        );
    // Whoever begins with other options has them for all parts.
    let outcome = sandbox.run("restore-all", &["--empty-queue", &point]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-all",
        &once_more("containers were created again since the interrupted run"),
    );
    outcome.assert_log_has("restore-all", "INFO Restoring: postgres");
    assert_eq!(status(&sandbox, "n8n-worker"), "running");

    fails();
    lose_everything(&sandbox);
    // A part that is to be restored again, and fails, leaves n8n stopped.
    let docker = sandbox.failing_docker("*n8n_restore_*", 1);
    let outcome = sandbox
        .call("restore-all")
        .args(&["--create-roles", "--start", &point])
        .path_first(&docker)
        .run();
    outcome.assert_error("Full restore failed at postgres");
    outcome.assert_log_has(
        "restore-all",
        &once_more("containers were created again since the interrupted run"),
    );
    outcome.assert_log_has(
        "restore-all",
        "WARN {}: restored from the recovery point: nothing; as before: {}",
    );
    assert_ne!(status(&sandbox, "n8n-main"), "running");
    let outcome = sandbox.run("restore-all", &["--create-roles", "--start", &point]);
    outcome.assert_success();
    assert_same(&before, &sandbox.fingerprint());

    fails();
    let outcome = sandbox.run("restore-all", &["--empty-queue", "--only", "redis", &point]);
    outcome.assert_error("The interrupted restore was to bring back postgres with other options ({}), which {}");
    assert_eq!(status(&sandbox, "n8n-main"), "exited");
    let outcome = sandbox.run("restore-all", &["--empty-queue", &point]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", &once_more("interrupted run had other options"));
    // Once all that was stopped runs again, it is history, and forgotten.
    fails();
    sandbox.docker(&["start", &sandbox.container("n8n-main")]);
    let said = sandbox.binary().arg("status").run();
    assert!(
        said.stdout
            .contains(&format!("left stopped: {worker}. n8n was started since: ")),
        "{said}"
    );
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert!(sandbox.path("backups/.restore").exists());
    sandbox.docker(&["start", &worker]);
    sandbox.run("cleanup-backups", &[]).assert_success();
    assert!(!sandbox.path("backups/.restore").exists());
}

#[test]
fn an_interrupted_restore_goes_on() {
    let sandbox = Sandbox::new("goeson").kept().stack().n8n().seeded().build();
    let before = sandbox.fingerprint();
    sandbox.run("backup-all", &[]).assert_success();
    sandbox.psql("drop table settings cascade");
    sandbox.redis(&["flushall"]);
    let mut running = sandbox.spawn("restore-all", &["latest"]);
    running.await_log("Restoring: redis");
    running.signal("KILL");
    running.wait();
    assert_eq!(status(&sandbox, "n8n-main"), "exited");

    // A backup of what is half restored is not what 'latest' means.
    sandbox
        .run("backup-all", &[])
        .assert_success()
        .assert_log_has(
            "backup-all",
            "WARN A restore was interrupted and has left stopped: {}; half restored: redis, n8n, env. Run the same restore again, {}",
        );
    assert_eq!(sandbox.backups("sets").len(), 2);
    let said = sandbox.binary().arg("status").run();
    assert!(
        said.stdout.contains("[WARNING] restore: A restore was interrupted"),
        "{said}"
    );
    let said = sandbox.binary().arg("doctor").run();
    assert!(
        said.stdout.contains("WARN restore: A restore was interrupted"),
        "{said}"
    );

    let outcome = sandbox.run("restore-all", &["latest"]);
    outcome.assert_success();
    outcome.assert_messages(
        "restore-all",
        &[
            "WARN Going on with recovery point {}, whose restore was interrupted; {}",
            "WARN An earlier restore was interrupted; what it had stopped is started at the end",
            "INFO Already restored by the interrupted run: postgres",
            "INFO Restoring: redis",
            "INFO Restoring: n8n",
            "INFO Starting n8n: {}-n8n-main {}-n8n-worker",
            "SUCCESS Full restore completed from: {} ({}/4 parts in {} s)",
        ],
    );
    assert_same(&before, &sandbox.fingerprint());
    for name in PARTS {
        assert_eq!(status(&sandbox, name), "running", "{name}");
    }
    assert!(!sandbox.path("backups/.restore").exists());

    // A point with one component is not restored as a whole, and not taken for the latest.
    sandbox.run("backup-redis", &[]).assert_success();
    let sets = sandbox.backups("sets");
    let newest = crate::common::name(sets.last().unwrap()).replace(".sha256", "");
    sandbox
        .run("restore-all", &[&newest])
        .assert_error("Recovery point {} is not complete: it holds no postgres, n8n, env{}");
    let outcome = sandbox.run("restore-all", &["--only", "redis", &newest]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "WARN Left as it is: postgres");
    let damaged = sandbox.backups("n8n").first().unwrap().clone();
    fs::write(&damaged, "no archive").unwrap();
    let point = crate::common::name(sets.first().unwrap()).replace(".sha256", "");
    let started = sandbox.docker(&[
        "inspect",
        "--format",
        "{{.State.StartedAt}}",
        &sandbox.container("n8n-main"),
    ]);
    sandbox
        .run("restore-all", &[&point])
        .assert_error("Backup file is corrupted or not a tar.gz archive");
    let now = sandbox.docker(&[
        "inspect",
        "--format",
        "{{.State.StartedAt}}",
        &sandbox.container("n8n-main"),
    ]);
    assert_eq!(started, now, "nothing was stopped for it");
    sandbox
        .run("restore-all", &["--only", "everything"])
        .assert_error("There is no part 'everything'{}");
}

/// The record of the interrupted restore stays, since its worker does not run.
#[test]
fn an_n8n_that_was_started_since_may_run_while_its_database_is_restored() {
    let sandbox = Sandbox::new("since").kept().stack().n8n().seeded().build();
    let before = sandbox.fingerprint_postgres();
    sandbox.run("backup-all", &[]).assert_success();
    let dump = sandbox.backup("postgres").display().to_string();
    let mut running = sandbox.spawn("restore-all", &["latest"]);
    running.await_log("Restoring: redis");
    running.signal("KILL");
    running.wait();
    sandbox.docker(&["start", &sandbox.container("n8n-main")]);
    sandbox.psql("drop table settings cascade");
    for _ in 0..2 {
        let outcome = sandbox.run("restore-postgres", &[&dump]);
        outcome.assert_success();
        outcome.assert_log_has("restore-postgres", "INFO Dropping existing database...");
        outcome.assert_log_has("restore-postgres", "WARN n8n ran while its database was replaced{}");
        assert!(!outcome.log.contains("was started"), "{outcome}");
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert_eq!(status(&sandbox, "n8n-main"), "running");
        assert_eq!(status(&sandbox, "n8n-worker"), "exited");
        assert!(sandbox.path("backups/.restore").exists());
    }
}

#[test]
fn a_table_comes_back_from_a_side_database_and_a_failed_part_holds_what_it_held() {
    let sandbox = Sandbox::new("side").stack().n8n().seeded().build();
    let before = sandbox.fingerprint();
    sandbox.run("backup-all", &[]).assert_success();
    // As docs/recovery.md has it.
    sandbox.psql("drop table settings");
    let steps = "set -euo pipefail
        docker exec \"$2\" createdb -U n8n side
        gunzip -c \"$1\" | docker exec -i \"$2\" psql -X -q -v ON_ERROR_STOP=1 -U n8n -d side
        docker exec \"$2\" pg_dump -U n8n -d side -t settings |
          docker exec -i \"$2\" psql -X -q -1 -v ON_ERROR_STOP=1 -U n8n -d n8n
        docker exec \"$2\" dropdb -U n8n side";
    let dump = sandbox.backup("postgres");
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", steps, "bash"])
        .arg(&dump)
        .arg(sandbox.container("postgres"));
    crate::common::done(bash);
    assert_same(&before, &sandbox.fingerprint());

    sandbox.psql("drop table settings");
    sandbox.redis(&["flushall"]);
    let emptied = sandbox.fingerprint_redis();
    let docker = sandbox.failing_docker("*' exchange '*", 1);
    let outcome = sandbox.call("restore-all").arg("latest").path_first(&docker).run();
    outcome.assert_error("Full restore failed at redis");
    outcome.assert_log_has(
        "restore-all",
        "WARN n8n stays stopped: restored from the recovery point: postgres; as before: redis, n8n, env",
    );
    sandbox.await_redis();
    assert_same(&emptied, &sandbox.fingerprint_redis());
    // A database of one time and a queue of another are nothing to work on.
    for (name, wanted) in PARTS.into_iter().zip(["running", "running", "exited", "exited"]) {
        assert_eq!(status(&sandbox, name), wanted, "{name}");
    }
    let outcome = sandbox.run("restore-all", &["latest"]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "INFO Already restored by the interrupted run: postgres");
    assert_same(&before, &sandbox.fingerprint());
    for name in PARTS {
        assert_eq!(status(&sandbox, name), "running", "{name}");
    }

    // Where nothing was replaced, all is as it was.
    let docker = sandbox.failing_docker("*' exchange '*", 1);
    let outcome = sandbox
        .call("restore-all")
        .args(&["--only", "redis", "latest"])
        .path_first(&docker)
        .run();
    outcome.assert_error("Full restore failed at redis; no other part was touched");
    assert_eq!(status(&sandbox, "n8n-main"), "running");
    assert!(!sandbox.path("backups/.restore").exists());
}

#[test]
fn a_paused_redis_is_told_before_anything_is_replaced() {
    let sandbox = Sandbox::new("pausedredis").stack().n8n().seeded().build();
    sandbox.run("backup-all", &[]).assert_success();
    sandbox.psql("CREATE TABLE made_since (id int)");
    let changed = sandbox.fingerprint_postgres();
    let redis = sandbox.container("redis");
    sandbox.pause(&redis);
    for args in [&["latest", "--yes"][..], &["latest", "--dry-run"]] {
        let outcome = sandbox.run("restore-all", args);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(
            outcome.log.contains(&format!("Container {redis} is paused")),
            "{outcome}"
        );
        assert!(outcome.log.contains(&format!("docker unpause {redis}")), "{outcome}");
    }
    for (name, wanted) in PARTS.into_iter().zip(["running", "paused", "running", "running"]) {
        assert_eq!(status(&sandbox, name), wanted, "{name}");
    }
    assert!(!sandbox.path("backups/.restore").exists());
    assert_same(&changed, &sandbox.fingerprint_postgres());
    sandbox.docker(&["unpause", &redis]);
    sandbox.run("restore-all", &["latest", "--yes"]).assert_success();
}

#[test]
fn a_part_that_is_skipped_by_name_holds_up_no_interrupted_restore() {
    let sandbox = Sandbox::new("skipped").stack().n8n().seeded().build();
    let before = [sandbox.fingerprint_postgres(), sandbox.fingerprint_volume()];
    sandbox.run("backup-all", &[]).assert_success();
    sandbox.psql("drop table settings");
    sandbox.redis(&["flushall"]);
    let emptied = sandbox.fingerprint_redis();
    let docker = sandbox.failing_docker("*' exchange '*", 1);
    let outcome = sandbox.call("restore-all").arg("latest").path_first(&docker).run();
    outcome.assert_error("Full restore failed at redis");
    assert_eq!(status(&sandbox, "n8n-main"), "exited");

    // One that was killed in its middle may be half exchanged.
    let record = fs::read_to_string(sandbox.path("backups/.restore")).unwrap();
    assert!(!record.contains("begun"), "{record}");
    fs::write(sandbox.path("backups/.restore"), format!("{record}begun redis\n")).unwrap();
    let outcome = sandbox.run("restore-all", &["--skip", "redis", "latest"]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-all",
        "WARN The restore of redis was killed and may have replaced half of it: n8n stays stopped until it is restored",
    );
    assert_eq!(status(&sandbox, "n8n-main"), "exited");
    // So may one of a part by itself, by an earlier version too, however often the others are restored.
    let record = fs::read_to_string(sandbox.path("backups/.restore")).unwrap();
    let of_containers = |line: &&str| line.starts_with("container ") || line.starts_with("policy ");
    let single: Vec<&str> = record.lines().filter(of_containers).chain(["part redis\n"]).collect();
    fs::write(sandbox.path("backups/.restore"), single.join("\n")).unwrap();
    for _ in 0..2 {
        let outcome = sandbox.run("restore-all", &["--skip", "redis", "latest"]);
        outcome.assert_success();
        assert_eq!(status(&sandbox, "n8n-main"), "exited");
    }
    fs::write(sandbox.path("backups/.restore"), record.replace("begun redis\n", "")).unwrap();

    let outcome = sandbox.run("restore-all", &["--skip", "redis", "latest"]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "INFO Already restored by the interrupted run: postgres");
    outcome.assert_log_has("restore-all", "WARN Left as it is: redis");
    assert!(outcome.log.contains("Full restore completed"), "{outcome}");
    for name in PARTS {
        assert_eq!(status(&sandbox, name), "running", "{name}");
    }
    assert_eq!([sandbox.fingerprint_postgres(), sandbox.fingerprint_volume()], before);
    assert_same(&emptied, &sandbox.fingerprint_redis());
    assert!(!sandbox.path("backups/.restore").exists());
}

#[test]
fn a_whole_restore_is_asked_for() {
    let sandbox = Sandbox::new("asked").n8n().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    let backups = sandbox.backups("n8n");
    // As a line in a crontab has it by mistake.
    sandbox
        .run("restore-all", &["--only", "n8n"])
        .assert_error("Nobody can be asked here: name a recovery point or 'latest', or add --yes");
    let outcome = sandbox
        .call("restore-all")
        .args(&["--only", "n8n"])
        .terminal("no\n")
        .run();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stdout.contains("the n8n volume is archived first"), "{outcome}");
    assert!(!outcome.stdout.contains("Full restore completed"), "{outcome}");
    assert_eq!(sandbox.backups("n8n"), backups);

    // Nor is .env written before the answer, and there is one question.
    sandbox.run("backup-all", &[]);
    fs::remove_file(sandbox.path(".env")).unwrap();
    let restore = |answer: &str| {
        sandbox
            .call("restore-all")
            .args(&["--only", "n8n,env"])
            .env("BACKUP_LOCK_FILE", sandbox.aside("lock"))
            .terminal(answer)
            .run()
    };
    let outcome = restore("no\n");
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stdout.contains("it is written first"), "{outcome}");
    assert!(!sandbox.path(".env").exists());
    let outcome = restore("yes\n");
    assert!(outcome.log.contains("Full restore completed"), "{outcome}");
    assert_eq!(outcome.stdout.matches("Are you sure").count(), 1, "{outcome}");
    assert!(sandbox.path(".env").exists());

    // Nor for a point that turns out not to be whole.
    fs::remove_file(sandbox.path(".env")).unwrap();
    fs::write(sandbox.backups("n8n").first().unwrap(), "no archive").unwrap();
    fs::write(&sandbox.backups("n8n")[1], "no archive").unwrap();
    let outcome = restore("yes\n");
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.log.contains("corrupted or not a tar.gz"), "{outcome}");
    assert!(!sandbox.path(".env").exists());
}

#[test]
fn a_part_by_itself_leaves_an_unfinished_restore_unfinished() {
    let sandbox = Sandbox::new("part").kept().stack().n8n().seeded().build();
    let before = sandbox.fingerprint();
    sandbox.run("backup-all", &[]).assert_success();
    let file = |kind: &str| sandbox.backups(kind)[0].display().to_string();
    let (dump, snapshot, archive) = (file("postgres"), file("redis"), file("n8n"));
    let point = crate::common::name(&sandbox.backups("sets")[0]).replace(".sha256", "");
    sandbox.psql("drop table settings cascade");
    sandbox.redis(&["flushall"]);
    sandbox.run("backup-redis", &[]).assert_success();
    let names = sandbox.backups("sets").into_iter();
    let mut other = names.map(|path| crate::common::name(&path).replace(".sha256", ""));
    let other = other.find(|name| *name != point).unwrap();
    let docker = sandbox.failing_docker("*' exchange '*", 1);
    let outcome = sandbox.call("restore-all").arg("latest").path_first(&docker).run();
    outcome.assert_error("Full restore failed at redis");

    for (name, file) in [
        ("restore-redis", &snapshot),
        ("restore-n8n", &archive),
        ("restore-postgres", &dump),
    ] {
        let outcome = sandbox.run(name, &[file]);
        outcome.assert_success();
        outcome.assert_log_has(
            name,
            "WARN restore-all of recovery point {} was interrupted and is unfinished, so n8n stays stopped: restore-all.sh {} \
             goes on with it, with the same options",
        );
        for n8n in ["n8n-main", "n8n-worker"] {
            assert_eq!(status(&sandbox, n8n), "exited", "{name}");
        }
        let record = fs::read_to_string(sandbox.path("backups/.restore")).unwrap();
        // What was loaded by hand may be of another time.
        assert_eq!(record.contains("done postgres"), name != "restore-postgres", "{record}");
        assert!(record.contains("point "), "{record}");
    }
    // Nor is it finished by a part of another point.
    let outcome = sandbox.run("restore-all", &["--only", "redis", &other]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-all",
        "WARN n8n stays stopped: restored from the recovery point: redis; as before: postgres, n8n, env, some of it \
         from another point or run",
    );
    assert_eq!(status(&sandbox, "n8n-main"), "exited");
    // Nor by a part of it.
    sandbox.psql("drop table settings cascade");
    let outcome = sandbox.run("restore-all", &["--only", "postgres", &point]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "INFO Restoring: postgres");
    outcome.assert_log_has(
        "restore-all",
        "WARN n8n stays stopped: restored from the recovery point: postgres; as before: redis, n8n, env{}",
    );
    outcome.assert_log_has("restore-all", "INFO restore-all.sh {} goes on with the rest");
    assert!(!outcome.log.contains("Full restore completed"), "{outcome}");
    let said = sandbox.binary().arg("status").run();
    let stopped = [PARTS[2], PARTS[3]].map(|name| sandbox.container(name)).join(" ");
    assert!(
        said.stdout
            .contains(&format!("left stopped: {stopped}; half restored: redis, n8n, env. Run")),
        "{said}"
    );
    let outcome = sandbox.run("restore-all", &["latest"]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "INFO Already restored by the interrupted run: postgres");
    assert_same(&before, &sandbox.fingerprint());
    for name in PARTS {
        assert_eq!(status(&sandbox, name), "running", "{name}");
    }
    assert!(!sandbox.path("backups/.restore").exists());
    // From then on n8n is started again after a part.
    sandbox.run("restore-redis", &[&snapshot]).assert_success();
    assert_eq!(status(&sandbox, "n8n-main"), "running");

    // A part that fails when it is in place already is of its own time, too.
    let docker = sandbox.failing_docker("*' exchange '*", 2);
    let outcome = sandbox.call("restore-all").arg(&point).path_first(&docker).run();
    outcome.assert_error("Full restore failed at n8n");
    let docker = sandbox.failing_docker("*' finish '*", 1);
    let outcome = sandbox.call("restore-redis").arg(&snapshot).path_first(&docker).run();
    outcome.assert_error("The data are restored, and what was there before could not be removed");
    let outcome = sandbox.run("restore-all", &[&point]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "INFO Already restored by the interrupted run: postgres");
    outcome.assert_log_has("restore-all", "INFO Restoring: redis");
}

#[test]
fn what_did_not_run_before_an_interrupted_restore_does_not_run_after_it() {
    let sandbox = Sandbox::new("norun").kept().stack().n8n().seeded().build();
    sandbox.run("backup-all", &[]).assert_success();
    for name in PARTS {
        sandbox.docker(&["stop", &sandbox.container(name)]);
    }
    let all = |outcome: &crate::common::Outcome, wanted: &str| {
        for name in PARTS {
            assert_eq!(status(&sandbox, name), wanted, "{name}: {outcome}");
        }
        assert!(!sandbox.path("backups/.restore").exists());
    };
    // In the middle of a part, and while the files were still verified.
    for moment in ["Restoring: redis", ""] {
        let mut running = sandbox.spawn("restore-all", &["latest"]);
        running.await_that("the moment", |running| {
            status(&sandbox, "postgres") == "running" && running.log().contains(moment)
        });
        running.signal("KILL");
        running.wait();
        let record = fs::read_to_string(sandbox.path("backups/.restore")).unwrap();
        assert_eq!(record.contains("begun redis\n"), !moment.is_empty(), "{record}");
        let said = sandbox.binary().arg("status").run();
        let wanted = format!(
            "running, though it did not run before: {}",
            sandbox.container("postgres")
        );
        assert!(said.stdout.contains(&wanted), "{said}");
        assert_eq!(status(&sandbox, "postgres"), "running");
        let outcome = sandbox.run("restore-all", &["latest"]);
        outcome.assert_success();
        all(&outcome, "exited");
    }
    // Nor after a no.
    let outcome = sandbox.call("restore-all").arg("latest").terminal("no\n").run();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    all(&outcome, "exited");
}

#[test]
fn an_n8n_that_runs_keeps_the_servers_that_were_started_for_a_restore() {
    let sandbox = Sandbox::new("keeps").kept().stack().n8n().seeded().build();
    sandbox.run("backup-all", &[]).assert_success();
    let snapshot = sandbox.backup("redis").display().to_string();
    let stop = |names: &[&str]| {
        for name in names {
            sandbox.docker(&["stop", &sandbox.container(name)]);
        }
    };
    let assert_all_run = |outcome: &crate::common::Outcome| {
        for name in PARTS {
            assert_eq!(status(&sandbox, name), "running", "{name}: {outcome}");
        }
        assert!(!sandbox.path("backups/.restore").exists());
    };
    // They had ended beside it.
    let servers = ["postgres", "redis"];
    for (name, file, ended) in [
        ("restore-all", "latest", &servers[..]),
        ("restore-all", "latest", &servers[..1]),
        ("restore-redis", &*snapshot, &servers[1..]),
    ] {
        stop(ended);
        let outcome = sandbox.run(name, &["--yes", file]);
        outcome.assert_success();
        assert_all_run(&outcome);
    }
    stop(&servers);
    let docker = sandbox.failing_docker("*' stop '*n8n-main*", 1);
    let outcome = sandbox.call("restore-all").arg("latest").path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    // Redis was not needed so far.
    assert_eq!(status(&sandbox, "postgres"), "running", "{outcome}");
    assert!(!sandbox.path("backups/.restore").exists());

    // Somebody starts it all once the servers run, before the answer or, which is a failure, after it.
    let started = PARTS.map(|name| format!("'{}'", sandbox.container(name))).join(" ");
    let starting = |when: &str| {
        sandbox.stand_in_docker(&format!(
            "case \" $* \" in {when}) \"$real\" \"$@\"; code=$?; \
             \"$real\" start {started} >/dev/null; exit $code ;; esac"
        ))
    };
    let at_the_question = starting("*' start '*postgres*");
    for answer in ["no\n", "yes\n"] {
        stop(&PARTS);
        let call = sandbox.call("restore-all").arg("latest").terminal(answer);
        let outcome = call.path_first(&at_the_question).run();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        assert_all_run(&outcome);
    }
    stop(&PARTS);
    let docker = starting("*n8n_restore_*");
    let outcome = sandbox.call("restore-all").arg("latest").path_first(&docker).run();
    outcome.assert_error("Full restore failed at postgres; no other part was touched");
    outcome.assert_log_has(
        "restore-all",
        "INFO {}-postgres did not run before and goes on, as {} does",
    );
    assert_all_run(&outcome);
}

#[test]
fn an_n8n_that_could_neither_be_stopped_nor_started_is_started_by_the_next_restore() {
    let sandbox = Sandbox::new("neither").redis().n8n().seeded().build();
    sandbox.run("backup-redis", &[]).assert_success();
    let file = sandbox.backup("redis");
    let docker = sandbox.stand_in_docker(
        "case \" $* \" in *' stop '*n8n-worker*|*' start '*n8n-main*) echo 'stand-in: refused' >&2; exit 1 ;; esac",
    );
    let outcome = sandbox.call("restore-redis").arg(&file).path_first(&docker).run();
    outcome.assert_error("n8n could not be stopped, nor all of it started again");
    assert_eq!(status(&sandbox, "n8n-main"), "exited");
    // One that cannot be read hides nothing.
    let record = fs::read_to_string(sandbox.path("backups/.restore")).unwrap();
    fs::write(sandbox.path("backups/.restore"), format!("{record}junk\n")).unwrap();
    let told = "what it has left is not known";
    let status_now = sandbox.binary().arg("status").run();
    assert!(
        status_now.code == Some(2) && status_now.stdout.contains(told),
        "{status_now}"
    );
    let doctor = sandbox.binary().arg("doctor").run();
    assert!(doctor.code == Some(1) && doctor.stdout.contains(told), "{doctor}");
    let night = sandbox.run("backup-redis", &[]);
    assert!(night.log.contains("is not understood"), "{night}");
    fs::write(sandbox.path("backups/.restore"), record).unwrap();
    sandbox.call("restore-redis").arg(&file).run().assert_success();
    for name in ["redis", "n8n-main", "n8n-worker"] {
        assert_eq!(status(&sandbox, name), "running", "{name}");
    }
    assert!(!sandbox.path("backups/.restore").exists());
}

#[test]
fn a_worker_that_is_gone_does_not_finish_a_restore() {
    let sandbox = Sandbox::new("gone").kept().stack().n8n().seeded().build();
    sandbox.run("backup-all", &[]).assert_success();
    let file = |kind: &str| sandbox.backups(kind)[0].display().to_string();
    let docker = sandbox.failing_docker("*' exchange '*", 1);
    let outcome = sandbox.call("restore-all").arg("latest").path_first(&docker).run();
    outcome.assert_error("Full restore failed at redis");
    sandbox.docker(&["rm", "-fv", &sandbox.container("n8n-worker")]);

    let (snapshot, dump) = (file("redis"), file("postgres"));
    sandbox.run("restore-redis", &[&snapshot]).assert_success();
    assert_eq!(status(&sandbox, "n8n-main"), "exited");
    assert!(sandbox.path("backups/.restore").exists());
    sandbox.run("restore-postgres", &[&dump]).assert_success();
    sandbox.run("backup-all", &[]);
    let newest = fs::read_to_string(sandbox.backups("sets").last().unwrap()).unwrap();
    assert!(
        newest.contains("aside: made while a restore was interrupted"),
        "{newest}"
    );
    let outcome = sandbox.run("restore-all", &["latest"]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "INFO Restoring: postgres");
    assert_eq!(status(&sandbox, "n8n-main"), "running");
    assert!(!sandbox.path("backups/.restore").exists());
}

/// A supervisor's start, which is taken back with the exchange, gives no restore up.
#[test]
fn an_n8n_that_is_started_and_stopped_again_meanwhile_leaves_a_restore_unfinished() {
    let sandbox = Sandbox::new("undone").kept().stack().n8n().seeded().build();
    let before = sandbox.fingerprint();
    sandbox.run("backup-all", &[]).assert_success();
    let point = crate::common::name(&sandbox.backups("sets")[0]).replace(".sha256", "");
    let databases = || [sandbox.fingerprint_postgres(), sandbox.fingerprint_redis()];
    let restored = databases();
    sandbox.psql("drop table settings cascade");
    sandbox.redis(&["flushall"]);
    sandbox.in_volume(&sandbox.volume(), "echo new >made-since");
    let volume = sandbox.fingerprint_volume();

    let main = sandbox.container("n8n-main");
    sandbox.docker(&["update", "--restart=always", &main]);
    let docker = sandbox.stand_in_docker(&format!(
        "case \" $* \" in *' exec '*'/n8n-backup-volume'*' exchange '*) \"$real\" \"$@\"; code=$?; \
         \"$real\" start '{main}' >/dev/null; exit $code ;; esac"
    ));
    let call = sandbox.call("restore-all").args(&["--yes", &point]);
    let outcome = call.path_first(&docker).run();
    outcome.assert_error("Full restore failed at n8n");
    outcome.assert_log_has(
        "restore-all",
        "WARN n8n stays stopped: restored from the recovery point: postgres, redis; as before: n8n, env",
    );
    outcome.assert_log_has(
        "restore-all",
        "WARN To be restored again, since n8n was started while it was being restored: postgres, redis",
    );
    assert_eq!(databases(), restored);
    assert_same(&volume, &sandbox.fingerprint_volume());
    assert_eq!(status(&sandbox, "n8n-main"), "exited");

    let night = sandbox.run("backup-all", &[]);
    night.assert_success().assert_log_has(
        "backup-all",
        "WARN An interrupted restore had held these containers; {}. With 'always' the engine starts n8n on {}",
    );
    let newest = fs::read_to_string(sandbox.backups("sets").last().unwrap()).unwrap();
    assert!(
        newest.contains("aside: made while a restore was interrupted"),
        "{newest}"
    );
    let said = sandbox.binary().arg("status").run();
    assert!(
        said.stdout
            .contains("half restored: postgres, redis, n8n, env. Run the same"),
        "{said}"
    );
    let outcome = sandbox.run("restore-all", &["latest"]);
    outcome.assert_success();
    outcome.assert_log_has("restore-all", "INFO Restoring: postgres");
    assert_same(&before, &sandbox.fingerprint());
    for name in PARTS {
        assert_eq!(status(&sandbox, name), "running", "{name}");
    }
    assert!(!sandbox.path("backups/.restore").exists());
}
