use std::fs;
use std::os::unix::fs::{chown, MetadataExt as _, PermissionsExt as _};

use std::time::Duration;

use super::beside::STATUS;
use super::*;
use crate::config::Config;
use crate::testing::{executable, sh, skip, TempDir, STALL};

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
         'inspect --type container -- '*) echo '[{{\"Id\": \"1\", \"Name\": \"/redis\", \"State\": {{\"Status\": \"{now}\"}}}}]' ;;\n\
         *' cat {STATUS}') echo 127 ;;\nexec' -i '*) exit 1 ;;\n\
         exec*) ;;\n*) echo a-helper ;;\nesac\n",
        log.display(),
        arguments.join(" ")
    );
    executable(&program, script);
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

/// Else restore-all would have replaced the database by then.
#[test]
fn a_paused_redis_is_refused_while_the_restore_is_planned() {
    let dir = TempDir::new();
    let file = dir.path().join("dump.rdb");
    fs::write(&file, b"REDIS0009\xff\0\0\0\0\0\0\0\0").unwrap();
    let mut app = App::new(Config::without_env_file(dir.path()).unwrap());
    app.config.path = Some(dir.path().into());
    let plan = |status: &str| {
        let seen = format!(r#"[{{"Id": "1", "Name": "/n8n-redis", "State": {{"Status": "{status}"}}}}]"#);
        executable(&dir.path().join("docker"), format!("#!/bin/sh\necho '{seen}'\n"));
        prepare(&app, &file, RestoreOptions::default(), Journal::new("restore-redis")).map(drop)
    };
    let error = plan("paused").unwrap_err();
    assert_eq!(error.to_string(), "Container n8n-redis is paused");
    let hint = crate::process::hint_of(&error);
    assert_eq!(hint, Some("run 'docker unpause n8n-redis'"));
    for status in ["exited", "restarting", "created"] {
        plan(status).unwrap();
    }
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

/// As Bitnami's image and `user: 1000` have it, the directory may be another user's than Redis's.
#[test]
fn what_is_restored_belongs_to_whoever_redis_runs_as() {
    if crate::store::atomic::own_user() != Some(0) {
        return skip(
            "redis::what_is_restored_belongs_to_whoever_redis_runs_as",
            "it needs root",
        );
    }
    let layout = Layout::new(|_| None);
    // Owner and mode of the live snapshot, the directory's owner, the container's user; what the new snapshot gets.
    for (live, of_dir, user, wanted) in [
        (Some((1001, 0o640)), 0, "1001", (1001, 0o640)),
        (Some((1001, 0o644)), 999, "", (1001, 0o644)),
        (Some((0, 0o600)), 0, "1001", (1001, 0o600)),
        (None, 0, "1000:1000", (1000, 0o600)),
        (None, 999, "", (999, 0o600)),
        (None, 999, "root", (999, 0o600)),
        (Some((0, 0o644)), 999, "", (999, 0o644)),
    ] {
        let dir = TempDir::new();
        let (dir, new) = (dir.path(), dir.path().join("new"));
        chown(dir, Some(of_dir), Some(of_dir)).unwrap();
        fs::create_dir_all(new.join("appendonlydir")).unwrap();
        for file in ["dump.rdb", "appendonlydir/a.aof"] {
            fs::write(new.join(file), "").unwrap();
            fs::set_permissions(new.join(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        if let Some((owner, mode)) = live {
            fs::write(dir.join("dump.rdb"), "").unwrap();
            fs::set_permissions(dir.join("dump.rdb"), fs::Permissions::from_mode(mode)).unwrap();
            chown(dir.join("dump.rdb"), Some(owner), Some(owner)).unwrap();
        }
        let mut run = sh(OWN);
        run.arg("sh").args([dir, &new]).arg(user).args(layout.names());
        assert!(run.status().unwrap().success());
        let meta = new.join("dump.rdb").metadata().unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), wanted, "{live:?} {of_dir} {user}");
        let appended = new.join("appendonlydir/a.aof").metadata().unwrap();
        assert_eq!(appended.uid(), wanted.0);
    }
}
