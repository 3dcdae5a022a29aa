use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::config::Config;
use crate::testing::{TempDir, STALL};

/// What `ask` gives of the restore of a Redis that was seen as `before`, is `now`, and never answers; and the calls of docker.
fn silent<T>(
    before: Status,
    now: &str,
    arguments: &[&str],
    ask: impl Fn(&Plan<'_>) -> Result<T>,
) -> (Result<T>, String) {
    let dir = TempDir::new();
    let (program, log) = (dir.path().join("docker"), dir.path().join("log"));
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>'{}'\ncase \"$*\" in\n*'range .Args'*) printf '%s\\n' {} ;;\n\
         *'container|'*) echo 'container|/redis|{now}|sha256:1|redis:7|2026|no|0|false|' ;;\n*' cat {STATUS}') echo 127 ;;\nexec' -i '*) exit 1 ;;\n\
         exec*) ;;\n*) echo a-helper ;;\nesac\n",
        log.display(),
        arguments.join(" ")
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut app = App::new(Config::without_env_file(dir.path()).unwrap());
    app.config.stall = Duration::from_millis(1);
    let docker = Docker::locate(Some(dir.path().into()), STALL).unwrap();
    let container = Container {
        status: before,
        ..docker.container("redis").unwrap().unwrap()
    };
    let plan = Plan {
        app: &app,
        docker,
        journal: Journal::new("restore-redis"),
        file: dir.path(),
        container,
        options: RestoreOptions::default(),
    };
    let given = ask(&plan);
    (given, fs::read_to_string(log).unwrap())
}

#[test]
fn one_that_does_not_start_is_known_by_its_arguments_where_they_tell() {
    let layout = |before, now, arguments: &[&str]| silent(before, now, arguments, |plan| plan.layout()).0;
    let told = ["docker-entrypoint.sh", "redis-server", "--appendonly", "yes"];
    let by_file = ["docker-entrypoint.sh", "redis-server", "/etc/redis.conf"];
    for (before, now) in [
        (Status::Exited, "exited"),
        (Status::Exited, "running"),
        (Status::Restarting, "restarting"),
        // One that ends again and again may be seen while it runs.
        (Status::Running, "restarting"),
    ] {
        assert!(
            layout(before.clone(), now, &told).unwrap().append_only,
            "{before} {now}"
        );
        let error = format!("{:#}", layout(before, now, &by_file).unwrap_err());
        assert!(error.contains("arguments do not tell"), "{error}");
    }
    let error = format!("{:#}", layout(Status::Running, "running", &told).unwrap_err());
    assert!(error.contains("does not answer"), "{error}");
}

#[test]
fn the_snapshot_is_loaded_by_whatever_server_the_image_has() {
    let layout = Layout::new(|_| None);
    let (_, log) = silent(Status::Running, "running", &[], |plan| {
        let helper = plan.helper()?;
        plan.serve(&helper, "999:999", "/data/new", &layout).map(drop)
    });
    let call = log.split("exec -d ").nth(1).unwrap();
    assert!(
        call.contains("valkey-server") && call.contains("--dir /data/new"),
        "{log}"
    );
}
