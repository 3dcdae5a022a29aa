//! The shapes of stacks that people run: each is backed up, tested and brought back without a setting.

mod networks;
mod servers;

use std::fs;
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};

use crate::common::compose::{stand_in_image, strict_redis_image, N8N_IMAGE, STRICT_REDIS_IMAGE};
use crate::common::{assert_same, await_true, comes_true, done, is_root, output, sh, Outcome, Sandbox};

/// The key that the seed's credentials are encrypted with.
const KEY: &str = "tEst+K3y/n8n-backup-0123456789ab";

const POSTGRES: &str = "  database:
    image: n8n-backup-test/postgres:1
    container_name: {prefix}-postgres
    {labels}
    environment: {POSTGRES_USER: root, POSTGRES_DB: flows, SEED: '1', POSTGRES_PASSWORD: own}
    volumes: ['pg_data:/var/lib/postgresql/data']
    shm_size: 256m
    stop_signal: SIGINT
";
const REDIS: &str = "  cache:
    image: n8n-backup-test/redis:1
    container_name: {prefix}-redis
    {labels}
    command: ['redis-server', '--port', '6386', '--requirepass', 'let me in']
";

/// A service of n8n; `environment` is a list in YAML's flow style, without its brackets.
fn n8n(service: &str, command: &str, environment: &str, mounts: &str) -> String {
    format!(
        "  {service}:
    image: {N8N_IMAGE}
    {{labels}}
    command: {command}
    restart: unless-stopped
    environment: [{environment}]
    volumes: [{mounts}]
"
    )
}

const ON_POSTGRES: &str = "DB_TYPE=postgresdb, DB_POSTGRESDB_HOST=database, DB_POSTGRESDB_DATABASE=flows, \
                           DB_POSTGRESDB_USER=root, DB_POSTGRESDB_PASSWORD=own";
const QUEUE: &str = "EXECUTIONS_MODE=queue, QUEUE_BULL_REDIS_HOST=cache, QUEUE_BULL_REDIS_PORT=6386, \
                     'QUEUE_BULL_REDIS_PASSWORD=let me in'";
const HOME: &str = "'n8n_data:/home/node/.n8n'";

/// A sandbox without a setting, with the names that the fingerprints go by.
fn bare(name: &'static str) -> Sandbox {
    stand_in_image();
    Sandbox::new(name)
        .containers()
        .no_env_file()
        .postgres_user("root")
        .postgres_db("flows")
        .redis_password("let me in")
        .build()
}

/// Runs a script, under a lock of the sandbox's own.
fn run(sandbox: &Sandbox, name: &str, args: &[&str]) -> Outcome {
    sandbox
        .call(name)
        .args(args)
        .env("BACKUP_LOCK_FILE", sandbox.lock_file())
        .run()
}

/// Runs the binary, under a lock of the sandbox's own.
fn binary(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox
        .binary()
        .args(args)
        .env("BACKUP_LOCK_FILE", sandbox.lock_file())
        .run()
}

/// Runs a shell script that sees the volume with n8n's data at /volume.
fn in_volume(sandbox: &Sandbox, script: &str) {
    let mount = format!("{}:/volume", sandbox.volume());
    sandbox.docker(&[
        "run",
        "--rm",
        "-v",
        &mount,
        "n8n-backup-test/busybox:1",
        "sh",
        "-c",
        script,
    ]);
}

fn await_postgres(sandbox: &Sandbox) {
    let name = sandbox.container("postgres");
    let docker = |args: &[&str]| {
        let mut command = std::process::Command::new("docker");
        command.args(args);
        output(command)
    };
    let psql = ["exec", &name, "psql", "-XAtqU", "root", "-d", "flows", "-c", "SELECT 1"];
    if !comes_true(|| docker(&psql).stdout == b"1\n") {
        panic!(
            "PostgreSQL does not answer: {:?}\n{:?}\n{:?}",
            docker(&psql),
            docker(&["inspect", "--format", "{{json .State}} {{.Created}}", &name]),
            docker(&["logs", "--tail", "40", &name])
        );
    }
}

/// Backs up, tests, destroys and brings back. `parts` is what backup-all counts.
fn full_circle(sandbox: &Sandbox, parts: u32, fingerprint: &dyn Fn() -> String, destroy: &dyn Fn()) {
    let before = fingerprint();
    let backup = run(sandbox, "backup-all", &[]);
    backup.assert_success();
    assert!(backup.stdout.contains(&format!("({parts}/{parts})")), "{backup}");
    run(sandbox, "test-recovery", &["--full"]).assert_success();
    let status = binary(sandbox, &["status"]);
    assert!(status.stdout.starts_with("BACKUP OK"), "{status}");
    destroy();
    assert_ne!(fingerprint(), before, "nothing was destroyed");
    run(sandbox, "restore-all", &["--yes", "latest"]).assert_success();
    assert_same(&before, &fingerprint());
}

/// A fingerprint without the line on the database itself, whose settings a new one has from the server.
fn without_database(fingerprint: &str) -> String {
    let lines = fingerprint.split_inclusive('\n');
    lines.filter(|line| !line.starts_with("database|")).collect()
}

#[test]
fn a_queue_with_workers_is_found_by_its_containers() {
    let sandbox = bare("shape-queue");
    let environment = format!("{ON_POSTGRES}, {QUEUE}, N8N_ENCRYPTION_KEY={KEY}");
    sandbox.compose_file(&format!(
        "{POSTGRES}{REDIS}{}{}{}",
        n8n("editor", "start", &environment, HOME),
        n8n("worker", "worker", &environment, HOME),
        // A helper that changes the owner mounts the home, too, and is no n8n.
        n8n("owner", "'sh -c \"chown -R 1000 /home/node/.n8n\"'", "A=1", HOME).replace("unless-stopped", "'no'"),
    ));
    sandbox.compose(&["up", "-d", "--scale", "worker=2"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-redis", sandbox.prefix()]));
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    // What .env shares with Compose says something else.
    sandbox.write(".env", "POSTGRES_USER=nobody\nPOSTGRES_DB=other\nREDIS_PORT=16379\n");
    let setup = binary(&sandbox, &["setup", "--write"]);
    assert_eq!(setup.code, Some(0), "{setup}");
    for text in [
        "editor_1",
        "worker_2",
        "+BACKUP_POSTGRES_DB=flows",
        "nobody can be asked",
    ] {
        assert!(setup.stdout.contains(text), "{text}: {setup}");
    }
    assert!(
        !setup.stdout.contains("let me in") && !setup.stdout.contains(KEY),
        "{setup}"
    );
    full_circle(&sandbox, 5, &|| sandbox.fingerprint(), &|| {
        sandbox.psql("DROP TABLE credentials_entity CASCADE; DELETE FROM settings");
        sandbox.redis(&["flushall"]);
        in_volume(&sandbox, "rm -rf /volume/nodes /volume/config");
    });
    for service in ["editor_1", "worker_1", "worker_2"] {
        let name = format!("{}_{service}", sandbox.prefix());
        let status = sandbox.docker(&[
            "inspect",
            "--format",
            "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}",
            &name,
        ]);
        assert_eq!(status.trim(), "running unless-stopped", "{name}");
    }
}

#[test]
fn the_name_of_the_queue_is_known_when_n8n_is_gone() {
    let sandbox = bare("shape-prefix");
    let environment = format!("{ON_POSTGRES}, {QUEUE}, QUEUE_BULL_PREFIX=mine, N8N_ENCRYPTION_KEY={KEY}");
    sandbox.compose_file(&format!(
        "{POSTGRES}{REDIS}{}",
        n8n("editor", "start", &environment, HOME)
    ));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    sandbox.redis(&["rpush", "mine:jobs:wait", "1", "2"]);
    sandbox.redis(&["set", "bull:other", "stays"]);
    run(&sandbox, "backup-all", &[]).assert_success();
    sandbox.compose(&["rm", "--stop", "--force", "editor"]);
    let file = sandbox.backup("redis").display().to_string();
    // So is not its password, for which nobody waits.
    let refused = run(&sandbox, "restore-redis", &["--empty-queue", &file]);
    refused.assert_error("Redis in {} does not answer");
    refused.assert_log_has("restore-redis", "ERROR Hint: set REDIS_PASSWORD in .env, {}");
    sandbox.write(".env", "REDIS_PASSWORD='let me in'\n");
    let outcome = run(&sandbox, "restore-redis", &["--empty-queue", &file]);
    outcome.assert_success();
    outcome.assert_log_has("restore-redis", "INFO Deleted 1 keys of n8n's queue (mine:*)");
    assert_eq!(sandbox.redis(&["keys", "*"]).trim(), "bull:other");
}

/// The container of a service that was renamed stays where nobody removes it.
#[test]
fn a_main_container_that_was_left_behind_does_not_tell_the_configuration() {
    let sandbox = bare("shape-renamed");
    let environment = format!("{ON_POSTGRES}, {QUEUE}, N8N_ENCRYPTION_KEY={KEY}");
    let called = |service: &str, environment: &str| {
        let n8n = n8n(service, "start", environment, HOME);
        sandbox.compose_file(&format!("{POSTGRES}{REDIS}{n8n}"));
        sandbox.compose(&["up", "-d"]);
    };
    called("editor", &environment.replace("HOST=cache", "HOST=gone"));
    sandbox.compose(&["stop", "editor"]);
    called("web", &environment);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-redis", sandbox.prefix()]));
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    let told = format!("Told by {}_web_1", sandbox.prefix());
    let assert_told = || {
        let setup = binary(&sandbox, &["setup"]);
        assert!(setup.stdout.contains(&told), "{setup}");
    };
    assert_told();
    run(&sandbox, "backup-all", &[]).assert_success();
    // Both are stopped, by hand.
    sandbox.compose(&["stop", "web"]);
    assert_told();
    sandbox.redis(&["flushall"]);
    run(&sandbox, "restore-all", &["--yes", "latest"]).assert_success();
    assert_ne!(sandbox.redis(&["dbsize"]).trim(), "0");
}

/// A worker that an autoscaler starts during a restore is none of those that were stopped.
#[test]
fn a_worker_that_comes_during_a_restore_loses_nothing() {
    let sandbox = bare("shape-scaled");
    let environment = format!("{ON_POSTGRES}, {QUEUE}, N8N_ENCRYPTION_KEY={KEY}");
    sandbox.compose_file(&format!(
        "{POSTGRES}{REDIS}{}",
        n8n("editor", "start", &environment, HOME)
    ));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-redis", sandbox.prefix()]));
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    run(&sandbox, "backup-all", &[]).assert_success();
    sandbox.psql("CREATE TABLE made_since (id int)");
    sandbox.redis(&["set", "made-since", "1"]);
    let changed = || [sandbox.fingerprint_postgres(), sandbox.fingerprint_redis()].concat();
    let before = changed();

    let worker = sandbox.container("late-worker");
    let labels = sandbox.labels().join(" ");
    let of_stack = format!(
        "--label com.docker.compose.project={} --label 'com.docker.compose.project.working_dir={}'",
        sandbox.prefix(),
        sandbox.dir().display()
    );
    let restore = |part: &str, when: &str| {
        let docker = sandbox.stand_in_docker(&format!(
            "case \" $* \" in {when}) \"$real\" \"$@\"; code=$?; \
             \"$real\" run -d --name '{worker}' {labels} {of_stack} {N8N_IMAGE} worker >/dev/null 2>&1; exit $code ;; esac"
        ));
        let call = sandbox.call("restore-all").args(&["--yes", "--only", part, "latest"]);
        let outcome = call
            .path_first(&docker)
            .env("BACKUP_LOCK_FILE", sandbox.lock_file())
            .run();
        sandbox.docker(&["rm", "-f", &worker]);
        outcome
    };
    for (part, when) in [
        ("postgres", "*' stop '*editor*"),
        ("redis", "*' stop '*editor*"),
        ("redis", "*' exec '*' exchange '*"),
    ] {
        let outcome = restore(part, when);
        outcome.assert_error(&format!("Full restore failed at {part}; no other part was touched"));
        outcome.assert_log_has(
            "restore-all",
            &format!("ERROR Cause: {{}} restore failed: {worker} was started while what it works on was being replaced: {{}}"),
        );
        assert_same(&before, &changed());
    }
    // What it has written by the time of the swap stays in the replaced database.
    let outcome = restore("postgres", "*'n8n-backup swap '*");
    outcome.assert_success();
    outcome.assert_log_has("restore-postgres", "WARN The replaced database is kept as {}");
    let kept = sandbox.databases();
    let kept = kept.iter().find(|name| name.starts_with("n8n_old_"));
    sandbox.psql_in(kept.unwrap_or_else(|| panic!("{outcome}")), "SELECT FROM made_since");
}

/// What goes on taking jobs and writing to the database is none of the containers that a restore stops.
#[test]
fn another_worker_of_the_same_database_is_named_before_anything_is_stopped() {
    let sandbox = bare("shape-stranger");
    let environment = format!("{ON_POSTGRES}, {QUEUE}, N8N_ENCRYPTION_KEY={KEY}");
    sandbox.compose_file(&format!(
        "{POSTGRES}{REDIS}{}{}",
        n8n("editor", "start", &environment, HOME),
        n8n("worker", "worker", &environment, HOME)
    ));
    sandbox.compose(&["up", "-d", "--scale", "worker=2"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-redis", sandbox.prefix()]));
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    let of = |service: &str| format!("{}_{service}", sandbox.prefix());
    let named = format!("BACKUP_N8N_CONTAINERS='{} {}'\n", of("editor_1"), of("worker_1"));
    sandbox.write(".env", &named);
    run(&sandbox, "backup-all", &[]).assert_success();
    let snapshot = sandbox.backup("redis").display().to_string();
    let started = || {
        let format = "{{.State.Status}} {{.State.StartedAt}}";
        sandbox.docker(&["inspect", "--format", format, &of("editor_1"), &of("worker_1")])
    };
    let doctor = |stranger: &str| {
        let said = binary(&sandbox, &["doctor"]);
        said.stdout.contains(&format!("{stranger} works on n8n's database"))
    };
    let assert_refused = |stranger: &str| {
        let before = started();
        let error = format!("Containers that are not known as n8n's work on n8n's database: {stranger}");
        for (name, args) in [
            ("restore-redis", &["--yes", &*snapshot][..]),
            ("restore-all", &["--yes", "--only", "postgres", "latest"]),
        ] {
            run(&sandbox, name, args).assert_error(&error);
        }
        let rehearsed = run(&sandbox, "restore-all", &["--dry-run", "latest"]);
        assert_eq!(rehearsed.code, Some(1), "{rehearsed}");
        rehearsed.assert_log_has(
            "restore-all",
            &format!("ERROR [DRY-RUN] Would be refused: the restore: {error}"),
        );
        assert_eq!(started(), before, "something was stopped");
        assert!(doctor(stranger));
        // n8n may go on through this one.
        run(
            &sandbox,
            "restore-postgres",
            &["--yes", &sandbox.backup("postgres").display().to_string()],
        )
        .assert_success();
    };
    assert_refused(&of("worker_2"));
    sandbox.docker(&["stop", "-t", "1", &of("worker_2")]);
    assert!(!doctor(&of("worker_2")));
    run(&sandbox, "restore-redis", &["--yes", &snapshot]).assert_success();

    // One that works meanwhile and rests again when it is looked at.
    sandbox.redis(&["set", "made-since", "1"]);
    let changed = sandbox.fingerprint_redis();
    let (worker, editor) = (of("worker_2"), of("editor_1"));
    let docker = sandbox.stand_in_docker(&format!(
        "case \" $* \" in *' stop '*'{editor} '*) \"$real\" \"$@\"; code=$?; \"$real\" start '{worker}' >/dev/null; \
         \"$real\" stop -t 1 '{worker}' >/dev/null; exit $code ;; esac"
    ));
    let call = sandbox.call("restore-redis").args(&["--yes", &snapshot]);
    let outcome = call
        .path_first(&docker)
        .env("BACKUP_LOCK_FILE", sandbox.lock_file())
        .run();
    outcome.assert_error("Redis restore failed");
    let told = format!("{worker} was started while what it works on was being replaced");
    assert!(outcome.log.contains(&told), "{outcome}");
    assert_same(&changed, &sandbox.fingerprint_redis());
    run(&sandbox, "restore-redis", &["--yes", &snapshot]).assert_success();

    // One of another directory, in the same network.
    let other = sandbox.container("other-worker");
    let network = format!("{}-net", sandbox.prefix());
    let labels = sandbox.labels();
    let start = |database: &str| {
        let database = format!("DB_POSTGRESDB_DATABASE={database}");
        let labels = labels.iter().map(String::as_str);
        let words = ["run", "-d", "--name", &other, "--network", &network]
            .into_iter()
            .chain(labels);
        let words = words.chain(["--label", "com.docker.compose.project=other"]);
        let words = words.chain(["--label", "com.docker.compose.project.working_dir=/srv/other"]);
        let words = words.chain([
            "-e",
            "DB_TYPE=postgresdb",
            "-e",
            "DB_POSTGRESDB_HOST=database",
            "-e",
            &database,
        ]);
        sandbox.docker(&words.chain([N8N_IMAGE, "worker"]).collect::<Vec<_>>());
    };
    for env in [&*named, ""] {
        sandbox.write(".env", env);
        start("flows");
        assert_refused(&other);
        sandbox.docker(&["rm", "-f", &other]);
        start("another");
        assert!(!doctor(&other));
        run(&sandbox, "restore-redis", &["--yes", &snapshot]).assert_success();
        sandbox.docker(&["rm", "-f", &other]);
    }
}

#[test]
fn a_stack_without_a_queue_and_an_env_file_is_whole_without_them() {
    let sandbox = bare("shape-plain");
    sandbox.compose_file(&format!("{POSTGRES}{}", n8n("n8n", "start", ON_POSTGRES, HOME)));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    let fingerprint = || [sandbox.fingerprint_postgres(), sandbox.fingerprint_volume()].concat();
    let compose_file = fs::read(sandbox.path("docker-compose.yml")).unwrap();
    full_circle(&sandbox, 4, &|| without_database(&fingerprint()), &|| {
        sandbox.psql("DROP TABLE credentials_entity CASCADE");
        in_volume(&sandbox, "rm -rf /volume/nodes");
        fs::remove_file(sandbox.path("docker-compose.yml")).unwrap();
    });
    assert_eq!(fs::read(sandbox.path("docker-compose.yml")).unwrap(), compose_file);
    let refused = run(&sandbox, "backup-redis", &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("This stack has no use for redis"), "{refused}");
}

#[test]
fn secrets_in_files_another_port_and_a_role_that_is_no_superuser_are_taken_as_n8n_takes_them() {
    let sandbox = bare("shape-files");
    sandbox.write("db_name", "flows\n");
    let environment = "DB_TYPE=postgresdb, DB_POSTGRESDB_HOST=database, DB_POSTGRESDB_PORT=5544, \
                       DB_POSTGRESDB_DATABASE_FILE=/run/secrets/db_name";
    let postgres = POSTGRES.replace("    shm_size", "    command: ['postgres', '-p', '5544']\n    shm_size");
    let mounts = format!("{HOME}, './db_name:/run/secrets/db_name:ro'");
    sandbox.compose_file(&format!("{postgres}{}", n8n("n8n", "start", environment, &mounts)));
    sandbox.compose(&["up", "-d"]);
    await_true("PostgreSQL does not answer", || {
        let mut psql = std::process::Command::new("docker");
        psql.args([
            "exec",
            &sandbox.container("postgres"),
            "psql",
            "-p",
            "5544",
            "-XAtqU",
            "root",
            "-d",
            "flows",
            "-c",
            "SELECT 1",
        ]);
        psql.output().is_ok_and(|output| output.stdout == b"1\n")
    });
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    run(&sandbox, "backup-all", &[]).assert_success();
    run(&sandbox, "test-recovery", &["--full"]).assert_success();
    // The containers need not run for the file to be found.
    sandbox.compose(&["stop", "n8n"]);
    run(&sandbox, "backup-postgres", &[]).assert_success();
    // Once it is gone, no usual name is taken for what it held.
    let dumps = sandbox.backups("postgres");
    let dump = dumps[dumps.len() - 1].to_string_lossy();
    fs::remove_file(sandbox.path("db_name")).unwrap();
    let refused = run(&sandbox, "restore-postgres", &[&dump]);
    assert_eq!(refused.code, Some(1), "{refused}");
    for text in [
        "DB_POSTGRESDB_DATABASE_FILE of ",
        " cannot be read: /run/secrets/db_name",
        "set BACKUP_POSTGRES_DB in .env",
    ] {
        assert!(refused.stdout.contains(text), "{text}: {refused}");
    }
    assert!(!refused.stdout.contains("Creating fresh database"), "{refused}");
    sandbox.write(".env", "BACKUP_POSTGRES_DB=flows\n");
    run(&sandbox, "restore-postgres", &[&dump]).assert_success();
}

#[test]
fn binary_data_in_another_place_of_the_host_are_n8ns_data() {
    let sandbox = bare("shape-binary");
    let away = sandbox.aside("nas");
    fs::create_dir_all(&away).unwrap();
    fs::write(away.join("file-1"), "x").unwrap();
    let environment =
        format!("{ON_POSTGRES}, N8N_DEFAULT_BINARY_DATA_MODE=filesystem, N8N_BINARY_DATA_STORAGE_PATH=/data/binary");
    let mounts = format!("{HOME}, '{}:/data/binary'", away.display());
    sandbox.compose_file(&format!("{POSTGRES}{}", n8n("n8n", "start", &environment, &mounts)));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    run(&sandbox, "backup-n8n", &[]).assert_success();
    let archive = sandbox.backup("n8n");
    let members = sh("tar -tzf \"$1\"", &[archive.as_os_str()]);
    assert!(
        members.contains("./.n8n-backup-mounts/%2Fdata%2Fbinary/file-1"),
        "{members}"
    );
    fs::write(away.join("file-1"), "lost").unwrap();
    run(&sandbox, "restore-n8n", &[&archive.to_string_lossy()]).assert_success();
    assert_eq!(fs::read_to_string(away.join("file-1")).unwrap(), "x");
}

/// Its process is called as n8n's is, and works with root's home while the volume lies at that of the user node.
#[test]
fn an_n8n_that_leaves_its_volume_unused_as_root_is_no_backup() {
    let sandbox = bare("shape-root");
    let start = |before: &str| {
        let sleep = "trap exit TERM; sleep 1000000 & wait";
        sandbox.write("n8n", format!("#!/bin/bash\n{before}exec -a n8n bash -c '{sleep}'\n"));
        fs::set_permissions(sandbox.path("n8n"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let told = |environment: &str| {
        sandbox.compose_file(&format!(
            "{POSTGRES}  n8n:
    image: n8n-backup-test/postgres:1
    {{labels}}
    user: root
    entrypoint: ['/n8n', 'start']
    environment: [{environment}]
    volumes: ['n8n_data:/home/node/.n8n', './n8n:/n8n:ro']
    tmpfs: ['/var/lib/postgresql/data']
"
        ));
        sandbox.compose(&["up", "-d"]);
    };
    start("");
    told(ON_POSTGRES);
    await_postgres(&sandbox);
    let name = format!("{}_n8n_1", sandbox.prefix());
    let works = || {
        await_true("n8n does not start", || {
            sandbox
                .docker(&["exec", &name, "cat", "/proc/1/cmdline"])
                .starts_with("n8n\0")
        })
    };
    works();
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    let refused = run(&sandbox, "backup-n8n", &[]);
    assert_eq!(refused.code, Some(1), "{refused}");
    for text in [
        format!("n8n's home /root/.n8n is no volume of {name}"),
        "leaves what is mounted at /home/node/.n8n unused".to_owned(),
        format!("docker cp {name}:/root/.n8n"),
    ] {
        assert!(refused.stdout.contains(&text), "{text}: {refused}");
    }
    assert!(sandbox.backups("n8n").is_empty());
    run(&sandbox, "backup-postgres", &[]).assert_success();
    // A start script that has n8n work in the volume, as one that changes the user.
    start("export HOME=/home/node\n");
    sandbox.docker(&["restart", "-t", "1", &name]);
    works();
    run(&sandbox, "backup-n8n", &[]).assert_success();
    // With its key in the deployment a warning is enough.
    start("");
    told(&format!("{ON_POSTGRES}, N8N_ENCRYPTION_KEY={KEY}"));
    await_postgres(&sandbox);
    works();
    let backup = run(&sandbox, "backup-all", &[]);
    backup.assert_success();
    let warned = format!("n8n's home /root/.n8n is no volume of {name}, which runs as root");
    assert!(backup.stdout.contains(&warned), "{backup}");
    assert_eq!(sandbox.backups("n8n").len(), 2);
}

#[test]
fn a_superuser_that_was_renamed_in_the_compose_file_alone_is_not_needed() {
    let sandbox = bare("shape-renamed");
    let up = |postgres: &str| {
        sandbox.compose_file(&format!("{postgres}{}", n8n("n8n", "start", ON_POSTGRES, HOME)));
        sandbox.compose(&["up", "-d"]);
        await_postgres(&sandbox);
    };
    up(POSTGRES);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    up(&POSTGRES.replace("POSTGRES_USER: root", "POSTGRES_USER: renamed"));
    let held = || [sandbox.fingerprint_postgres(), sandbox.fingerprint_volume()].concat();
    let before = held();
    for (command, args) in [("backup-all", &[][..]), ("restore-all", &["--yes", "latest"])] {
        let outcome = run(&sandbox, command, args);
        outcome.assert_success();
        let told = "has no role renamed, which its container names, so n8n's role root is taken";
        assert!(outcome.stdout.contains(told), "{outcome}");
    }
    assert_same(&without_database(&before), &without_database(&held()));
    run(&sandbox, "test-recovery", &["--full"]).assert_success();
    let doctor = binary(&sandbox, &["doctor"]);
    assert!(doctor.stdout.contains("WARN postgres: The server in "), "{doctor}");
}

#[test]
fn a_stack_of_another_directory_is_never_touched() {
    let sandbox = bare("shape-foreign");
    sandbox.compose_file(&format!("{POSTGRES}{}", n8n("n8n", "start", ON_POSTGRES, HOME)));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    // A second directory, whose own stack is down, and to which names lead that are another's.
    let other = sandbox.aside("other");
    fs::create_dir_all(other.join("scripts")).unwrap();
    fs::write(other.join("docker-compose.yml"), "").unwrap();
    let outcome = binary(&sandbox, &["--project-dir", &other.to_string_lossy(), "backup-all"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    for dir in ["postgres", "redis", "n8n"] {
        let files = fs::read_dir(other.join("backups").join(dir)).map_or(0, |files| {
            files
                .flatten()
                .filter(|file| !file.file_name().to_string_lossy().starts_with('.'))
                .count()
        });
        assert_eq!(files, 0, "{dir}: {outcome}");
    }
    // A directory without a stack, as beside one that a web interface deploys, is told whose n8n there is.
    let without = sandbox.aside("without");
    fs::create_dir_all(&without).unwrap();
    let theirs = format!("{} of {}", sandbox.prefix(), sandbox.dir().display());
    for command in ["setup", "backup-postgres"] {
        let outcome = binary(&sandbox, &["--project-dir", &without.to_string_lossy(), command]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        let told = [&*outcome.stdout, &*outcome.stderr].concat();
        assert!(
            told.contains(&theirs) && told.contains("BACKUP_COMPOSE_PROJECT"),
            "{outcome}"
        );
        assert!(!told.contains("No container of n8n was found"), "{outcome}");
    }
    // Once it is named, it is wanted.
    sandbox.in_volume(&sandbox.volume(), "echo {} >config");
    fs::write(
        other.join(".env"),
        format!("BACKUP_COMPOSE_PROJECT={}\n", sandbox.prefix()),
    )
    .unwrap();
    let outcome = binary(&sandbox, &["--project-dir", &other.to_string_lossy(), "backup-all"]);
    outcome.assert_success();
}

#[test]
fn two_projects_of_one_directory_are_both_named() {
    let sandbox = bare("shape-two");
    sandbox.compose_file(&n8n("n8n", "start", ON_POSTGRES, "").replace("    volumes: []\n", ""));
    sandbox.compose(&["up", "-d"]);
    let second = format!("{}b", sandbox.prefix());
    sandbox.compose_as(&second, &["up", "-d"]);
    let outcome = run(&sandbox, "backup-postgres", &[]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("More than one Compose project"), "{outcome}");
    assert!(outcome.stdout.contains("BACKUP_COMPOSE_PROJECT"), "{outcome}");
}

#[test]
fn a_lost_host_comes_back_from_its_deployment() {
    let sandbox = bare("shape-lost");
    let environment = format!("{ON_POSTGRES}, N8N_ENCRYPTION_KEY={KEY}").replace("HOST=database", "HOST=vpn");
    let mounts = format!("{HOME}, './hook.js:/data/hook.js:ro'");
    sandbox.write("hook.js", "module.exports = {};\n");
    // A server in the network of another service, one that needs nothing of n8n's, and a one-shot.
    let other = |service: &str, more: &str| {
        format!(
            "  {service}:\n    image: n8n-backup-test/busybox:1\n    {{labels}}\n    command: ['sleep', '1000000']\n{more}"
        )
    };
    let services = [
        format!("{POSTGRES}    network_mode: 'service:vpn'\n").replace("SEED: '1', ", ""),
        n8n("n8n", "start", &environment, &mounts),
        other("vpn", ""),
        other(
            "proxy",
            "    restart: always\n    volumes: ['certs:/certs']\n    networks: [default, web]\n",
        ),
        other("once", ""),
    ];
    sandbox.compose_file(&services.concat());
    // What others than Compose are to create.
    let external = sandbox.container("external");
    let text = fs::read_to_string(sandbox.path("docker-compose.yml")).unwrap();
    let called = |section: &str, name: &str| format!("\n{section}:\n  {name}: {{external: true, name: {external}}}\n");
    let text = text.replace("\nvolumes:\n", &called("volumes", "certs"));
    sandbox.write(
        "docker-compose.yml",
        text.replace("\nnetworks:\n", &called("networks", "web")),
    );
    let create = |kind: &str| {
        let labels = sandbox.labels();
        let mut args = vec![kind, "create"];
        args.extend(labels.iter().map(String::as_str));
        sandbox.docker(&[&args[..], &[&external]].concat());
    };
    ["volume", "network"].into_iter().for_each(create);
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    // Without n8n's tables it is not n8n's database.
    let empty = run(&sandbox, "backup-postgres", &[]);
    assert_eq!(empty.code, Some(1));
    assert!(empty.stdout.contains("is not n8n's"), "{empty}");
    assert!(sandbox.backups("postgres").is_empty());
    sandbox.psql("CREATE TABLE workflow_entity (id text); INSERT INTO workflow_entity VALUES ('one'), ('two');");
    sandbox.psql(
        "CREATE TABLE migrations (id int); CREATE TABLE credentials_entity (id text, name text, type text, data text);",
    );
    let volume = sandbox.fingerprint_volume();
    run(&sandbox, "backup-all", &[]).assert_success();

    sandbox.compose(&["down", "-v"]);
    let remove = || {
        for kind in ["volume", "network"] {
            sandbox.docker(&[kind, "rm", &external]);
        }
    };
    remove();
    fs::remove_file(sandbox.path("docker-compose.yml")).unwrap();
    fs::remove_file(sandbox.path("hook.js")).unwrap();
    let refused = run(&sandbox, "restore-all", &["--yes", "latest"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("restore-all --create"), "{refused}");
    assert!(!sandbox.path("docker-compose.yml").exists(), "nothing is changed");

    run(&sandbox, "restore-all", &["--yes", "--create", "latest"]).assert_success();
    await_postgres(&sandbox);
    assert_eq!(
        sandbox
            .psql("SELECT string_agg(id, ' ' ORDER BY id) FROM workflow_entity")
            .trim(),
        "one two"
    );
    assert_same(&volume, &sandbox.fingerprint_volume());
    assert_eq!(
        fs::read_to_string(sandbox.path("hook.js")).unwrap(),
        "module.exports = {};\n"
    );
    for (service, status) in [
        ("n8n", "running"),
        ("vpn", "running"),
        ("proxy", "running"),
        ("once", "created"),
    ] {
        let name = format!("{}_{service}_1", sandbox.prefix());
        let found = sandbox.docker(&["inspect", "--format", "{{.State.Status}}", &name]);
        assert_eq!(found.trim(), status, "{service}");
    }
    sandbox.compose(&["down", "-v"]);
    remove();
}

#[test]
fn a_lost_host_comes_back_by_the_files_that_compose_was_called_with() {
    let sandbox = bare("shape-called");
    let postgres = POSTGRES
        .replace("SEED: '1', ", "")
        .replace("POSTGRES_DB: flows", "POSTGRES_DB: '${DATABASE}'");
    sandbox.compose_file(&format!("{postgres}{}", n8n("n8n", "start", "A=1", HOME)));
    fs::create_dir(sandbox.path("deploy")).unwrap();
    fs::rename(sandbox.path("docker-compose.yml"), sandbox.path("deploy/n8n.yml")).unwrap();
    // Compose works in the directory of the file then.
    sandbox.set("BACKUP_COMPOSE_PROJECT", sandbox.prefix());
    let variables = [
        ON_POSTGRES,
        "'N8N_ENCRYPTION_KEY=${KEY}'",
        "'SMTP=${OUTER_PASSWORD}', 'LEFT=${OUTER_TOKEN}'",
    ]
    .join(", ");
    let second =
        n8n("second", "start", &variables, &format!("'./hook.js:/hook.js', {HOME}")).replace("    {labels}\n", "");
    let production = format!("version: '3.7'\nservices:\n  n8n:\n    environment: [{variables}]\n");
    sandbox.write("deploy/hook.js", "module.exports = {};\n");
    sandbox.write("deploy/production.yml", format!("{production}{second}"));
    sandbox.write("deploy/production.env", format!("DATABASE=flows\nKEY={KEY}\n"));
    let called = ["deploy/n8n.yml", "deploy/production.yml", "deploy/production.env"];
    let called = ["-f", called[0], "-f", called[1], "--env-file", called[2]];
    sandbox.compose(&[&called[..], &["up", "-d"]].concat());
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    sandbox.psql(
        "CREATE TABLE workflow_entity AS SELECT 'one' AS id; CREATE TABLE migrations (id int); \
         CREATE TABLE credentials_entity (id text, name text, type text, data text);",
    );
    run(&sandbox, "backup-all", &[]).assert_success();

    let lose = || {
        sandbox.compose(&[&called[..], &["down", "-v"]].concat());
        fs::remove_dir_all(sandbox.path("deploy")).unwrap();
    };
    // A secret that is exported, and is in no file.
    let restore = |how: &[&str]| {
        let call = sandbox.call("restore-all");
        let call = call.args(&[&["--yes"], how, &["latest"]].concat());
        let call = call.env("BACKUP_LOCK_FILE", sandbox.lock_file());
        call.env("OUTER_PASSWORD", "of-the-shell").run()
    };
    lose();
    // A service is gone from a file that somebody has put there.
    fs::create_dir(sandbox.path("deploy")).unwrap();
    sandbox.write("deploy/production.yml", &production);
    let refused = restore(&["--create"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(
        refused.stdout.contains("these services of n8n are not in it: second"),
        "{refused}"
    );

    lose();
    restore(&["--create"]).assert_success().assert_log_has(
        "restore-all",
        "WARN Compose finds no value for some variables, and takes empty ones",
    );
    await_postgres(&sandbox);
    assert_eq!(sandbox.psql("SELECT id FROM workflow_entity").trim(), "one");
    for service in ["n8n", "second"] {
        let name = format!("{}_{service}_1", sandbox.prefix());
        let what = "{{.State.Status}} {{.Config.Env}}";
        let told = sandbox.docker(&["inspect", "--format", what, &name]);
        assert!(told.starts_with("running") && told.contains(KEY), "{told}");
        assert!(told.contains("SMTP=of-the-shell"), "{told}");
    }
    let second = format!("{}_second_1", sandbox.prefix());
    let hook = sandbox.docker(&["exec", &second, "cat", "/hook.js"]);
    assert_eq!(hook, "module.exports = {};\n");
}

#[test]
fn an_image_of_ones_own_is_built_again_on_a_new_host() {
    let sandbox = bare("shape-build");
    let image = format!("{}/n8n:1", sandbox.prefix());
    fs::create_dir_all(sandbox.path("own/nodes")).unwrap();
    fs::create_dir_all(sandbox.path("web/pages")).unwrap();
    let owner = if is_root() {
        1234
    } else {
        sandbox.dir().metadata().unwrap().uid()
    };
    chown(sandbox.path("web/pages"), Some(owner), None).unwrap();
    let recipe = format!("FROM {N8N_IMAGE}\nCOPY hook.js /hook.js\n");
    sandbox.write("own/Dockerfile", &recipe);
    sandbox.write("own/hook.js", "module.exports = {};\n");
    let environment = format!("{ON_POSTGRES}, N8N_ENCRYPTION_KEY={KEY}");
    let service = n8n("n8n", "start", &environment, HOME).replace(N8N_IMAGE, &format!("{image}\n    build: ./own"));
    let web = "  web:
    image: n8n-backup-test/busybox:1
    {labels}
    command: ['sleep', '1000000']
    volumes: ['./web/pages:/pages:ro']
";
    sandbox.compose_file(&format!("{POSTGRES}{service}{web}").replace("SEED: '1', ", ""));
    sandbox.compose(&["up", "-d", "--build"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    sandbox.psql(
        "CREATE TABLE workflow_entity AS SELECT 'one' AS id; CREATE TABLE migrations (id int); \
         CREATE TABLE credentials_entity (id text, name text, type text, data text); \
         CREATE SCHEMA billing; CREATE TABLE billing.bills (id int);",
    );
    // What is not in the backup is named, and what is not n8n's.
    sandbox.write("own/Dockerfile", format!("{recipe}COPY nodes /nodes\n"));
    let setup = binary(&sandbox, &["setup"]);
    for text in [
        "own/Dockerfile copies what is not backed up: nodes",
        "its data are not backed up: web/pages",
        "other schemas than n8n's, which a restore replaces, too: billing (1)\n",
    ] {
        assert!(setup.stdout.contains(text), "{text}: {setup}");
    }
    let copied = run(&sandbox, "backup-all", &[]);
    assert!(
        copied
            .log
            .contains("own/Dockerfile copies what is not backed up: nodes"),
        "{copied}"
    );
    sandbox.write("own/Dockerfile", &recipe);
    run(&sandbox, "backup-all", &[]).assert_success();

    run(&sandbox, "restore-all", &["--dry-run", "latest"]).assert_log_has(
        "restore-postgres",
        "WARN The database holds tables in other schemas than n8n's, which are replaced by what the dump has of them: billing (1)",
    );

    sandbox.compose(&["down", "-v", "--rmi", "local"]);
    sandbox.docker(&["image", "rm", "--force", &image]);
    for dir in ["own", "web"] {
        fs::remove_dir_all(sandbox.path(dir)).unwrap();
    }
    fs::remove_file(sandbox.path("docker-compose.yml")).unwrap();
    run(&sandbox, "restore-all", &["--yes", "--create", "latest"]).assert_success();
    let pages = sandbox.path("web/pages").metadata().unwrap();
    assert_eq!(pages.uid(), owner);
    let name = format!("{}_n8n_1", sandbox.prefix());
    assert_eq!(
        sandbox.docker(&["exec", &name, "cat", "/hook.js"]),
        "module.exports = {};\n"
    );
    sandbox.docker(&["rm", "--force", &name]);
    sandbox.docker(&["image", "rm", "--force", &image]);
}

#[test]
fn a_redis_with_few_capabilities_starts_after_a_restore() {
    strict_redis_image();
    let sandbox = bare("shape-caps");
    let redis = REDIS.replace("n8n-backup-test/redis:1", STRICT_REDIS_IMAGE).replace(
        "    command",
        "    cap_drop: [ALL]\n    cap_add: [SETUID, SETGID]\n    restart: unless-stopped\n    command",
    );
    sandbox.compose_file(&format!(
        "{POSTGRES}{redis}{}",
        n8n("n8n", "start", &format!("{ON_POSTGRES}, {QUEUE}"), HOME)
    ));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-redis", sandbox.prefix()]));
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    full_circle(&sandbox, 5, &|| sandbox.fingerprint(), &|| {
        sandbox.redis(&["flushall"]);
        in_volume(&sandbox, "rm -rf /volume/nodes");
    });
    // Nor does a restart trip over what was left.
    sandbox.docker(&["restart", &sandbox.container("redis")]);
    sandbox.await_redis();
}
