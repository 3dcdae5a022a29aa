//! Another user of the host: whatever they hold or plant, they neither stop a run nor have it write where they could not.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{chown, symlink, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{assert_lock_free, case, docker_stand_in};
use crate::common::{is_root, skip, Sandbox};

const STRANGER: u32 = 65534;

/// A command that another user runs.
fn as_stranger(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    let id = STRANGER.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", program]);
    command.stderr(Stdio::null());
    command
}

/// Has the stranger hold a file, as far as they can.
struct Holder(Child);

impl Holder {
    fn of(path: &Path) -> Self {
        let mut flock = as_stranger("flock");
        flock.arg("-n").arg(path).args(["-c", "echo; exec sleep 600"]);
        Self(flock.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Whether it holds the file.
    fn holds(&mut self) -> bool {
        use std::io::Read;
        let mut byte = [0];
        self.0.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

#[test]
fn another_user_holds_no_run() {
    if !is_root() {
        return skip("users::another_user_holds_no_run", "it needs root");
    }
    let sandbox = Sandbox::new("userlock").stack().build();
    let lock = sandbox.lock_file();
    // Whatever is on the way to it, as in /tmp.
    fs::set_permissions(lock.parent().unwrap(), Permissions::from_mode(0o1777)).unwrap();
    case("another user's file at the lock's path, held", || {
        fs::write(&lock, "theirs").unwrap();
        chown(&lock, Some(STRANGER), Some(STRANGER)).unwrap();
        let mut holder = Holder::of(&lock);
        assert!(holder.holds());
        let outcome = sandbox.run("backup-all", &[]);
        outcome.assert_success();
        outcome.assert_log_has(
            "backup-all",
            "WARN Lock file {} belongs to another user, and is left alone",
        );
        assert_eq!(fs::read_to_string(&lock).unwrap(), "theirs");
    });
    fs::remove_file(&lock).unwrap();
    case(
        "a lock that an earlier version left for everybody to open, held by another user",
        || {
            fs::write(&lock, "4194304\n").unwrap();
            fs::set_permissions(&lock, Permissions::from_mode(0o644)).unwrap();
            let mut holder = Holder::of(&lock);
            assert!(holder.holds());
            // Also in the next nights, when its mode lets nobody else open it any more.
            for _ in 0..2 {
                let outcome = sandbox.run("backup-all", &[]);
                outcome.assert_success();
                outcome.assert_log_has(
                    "backup-all",
                    "WARN Lock file {} is held, and not by a backup or restore: it is left alone",
                );
                assert_eq!(mode(&lock), 0o600);
            }
            let doctor = sandbox.binary().arg("doctor").run();
            assert!(doctor.stdout.contains("is held, and not by a backup"), "{doctor}");
        },
    );
    case("a link and a pipe of another user at the lock's path", || {
        for make in [["ln", "-s", "/etc/passwd"].as_slice(), &["mkfifo"]] {
            fs::remove_file(&lock).unwrap();
            let mut plant = as_stranger(make[0]);
            assert!(plant.args(&make[1..]).arg(&lock).status().unwrap().success());
            sandbox.run("backup-all", &[]).assert_success();
        }
    });
    fs::remove_file(&lock).unwrap();
    case("the locks of a project, which nobody else can open", || {
        sandbox.run("backup-all", &[]).assert_success();
        let dirs = ["", "postgres", "redis", "n8n", "env", "sets"];
        let mut locks: Vec<_> = dirs.map(|dir| sandbox.path("backups").join(dir).join(".lock")).into();
        locks.push(lock.clone());
        for path in locks {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            assert!(!Holder::of(&path).holds(), "{}", path.display());
        }
        for dir in dirs.map(|dir| sandbox.path("backups").join(dir)) {
            assert_eq!(mode(&dir), 0o700, "{}", dir.display());
        }
        assert_eq!(mode(&sandbox.path("logs")), 0o700);
        // Also when the shell of the crontab line appends to it.
        assert_eq!(mode(&sandbox.path("logs/backup.log")), 0o600);
    });
    assert_lock_free(&sandbox);
}

#[test]
fn a_planted_link_leads_no_run_astray() {
    if !is_root() {
        return skip("users::a_planted_link_leads_no_run_astray", "it needs root");
    }
    let sandbox = Sandbox::new("userlink").redis().build();
    sandbox.run("backup-all", &[]);
    let victim = sandbox.aside("victim");
    fs::write(&victim, "keep").unwrap();
    let plant = |path: &Path, target: &Path| {
        let _ = fs::remove_file(path);
        symlink(target, path).unwrap();
        std::os::unix::fs::lchown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    };
    let log = sandbox.path("logs/backup.log");
    case("a link of another user in the place of the log", || {
        for target in [victim.clone(), sandbox.aside("new")] {
            plant(&log, &target);
            let outcome = sandbox.run("backup-redis", &[]);
            assert_eq!(outcome.code, Some(1), "{outcome}");
            assert!(outcome.stdout.contains("it is a link of another user"), "{outcome}");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "keep");
            assert!(!sandbox.aside("new").exists());
        }
        fs::remove_file(&log).unwrap();
        // One of our own serves.
        symlink(sandbox.aside("our.log"), &log).unwrap();
        sandbox.run("backup-redis", &[]).assert_success();
        assert!(fs::read_to_string(sandbox.aside("our.log"))
            .unwrap()
            .contains("Backup completed"));
        fs::remove_file(&log).unwrap();
    });
    case("a link of another user in the place of .env", || {
        let copy = sandbox.backups("env").pop().unwrap();
        let env = sandbox.path(".env");
        sandbox.set("CHANGED", "since");
        let text = fs::read(&env).unwrap();
        fs::write(&victim, &text).unwrap();
        plant(&env, &victim);
        let outcome = sandbox.run("restore-env", &[&copy.to_string_lossy()]);
        outcome.assert_error("Cannot write {}.env");
        assert_eq!(fs::read(&victim).unwrap(), text);
        fs::remove_file(&env).unwrap();
        fs::write(&env, &text).unwrap();
        sandbox.run("restore-env", &[&copy.to_string_lossy()]).assert_success();
        assert_ne!(fs::read(&env).unwrap(), text);
    });
}

/// Root's runs leave nothing that stops those of the owner of the project.
#[test]
fn what_root_makes_belongs_to_the_owner_of_the_project() {
    if !is_root() {
        return skip("users::what_root_makes", "it needs root");
    }
    let sandbox = Sandbox::new("userroot").redis().build();
    case("a first run of root in a project of another user", || {
        for dir in ["backups", "logs"] {
            fs::remove_dir_all(sandbox.path(dir)).unwrap();
        }
        chown(sandbox.dir(), Some(STRANGER), Some(STRANGER)).unwrap();
        sandbox.run("backup-redis", &[]).assert_success();
        sandbox.run("backup-all", &[]);
        for name in [
            "backups",
            "backups/redis",
            "backups/sets",
            "logs",
            "backups/.lock",
            "backups/redis/.lock",
            "logs/backup.log",
        ] {
            assert_eq!(sandbox.path(name).metadata().unwrap().uid(), STRANGER, "{name}");
        }
        assert_eq!(sandbox.lock_file().metadata().unwrap().uid(), STRANGER);
    });
    case("marks that root sets", || {
        let set = sandbox.backups("sets").pop().unwrap();
        let stamp = set.file_stem().unwrap().to_string_lossy().into_owned();
        for command in ["verify", "pin"] {
            assert_eq!(set.metadata().unwrap().uid(), STRANGER);
            sandbox.binary().args(&[command, &stamp]).run().assert_success();
        }
        assert!(fs::read_to_string(&set).unwrap().contains("\n# pinned: "));
        assert_eq!(set.metadata().unwrap().uid(), STRANGER);
    });
}

/// As `sudo mkdir` and `sudo chown USER` make it, the directory is of root's group, which its user is not in.
#[test]
fn an_ordinary_user_gets_a_lost_file_back() {
    if !is_root() {
        return skip("users::an_ordinary_user_gets_a_lost_file_back", "it needs root");
    }
    let sandbox = Sandbox::new("userown").build();
    let (env, id) = (sandbox.path(".env"), STRANGER.to_string());
    let file = sandbox.path("backups/env/env_20250101_000000.backup");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::rename(&env, &file).unwrap();
    let mut give = Command::new("chown");
    give.args(["-R", &format!("{id}:0")]).arg(sandbox.dir());
    crate::common::done(give);
    fs::set_permissions(sandbox.lock_file().parent().unwrap(), Permissions::from_mode(0o1777)).unwrap();
    // The user may not use the engine here, and a restore of .env can do without it.
    let docker = sandbox.stand_in("docker", "#!/bin/sh\nexit 1\n");
    let restored = || {
        let call = sandbox
            .call("restore-env")
            .envs(&sandbox.settings())
            .arg(&file)
            .arg("--yes");
        let call = call.under(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        call.path_first(&docker).run()
    };
    let restore = || {
        let outcome = restored();
        outcome.assert_success().assert_never_says("only root can give it");
        assert_eq!(fs::read(&env).unwrap(), fs::read(&file).unwrap());
        assert_eq!((env.metadata().unwrap().uid(), mode(&env)), (STRANGER, 0o600));
    };
    case("a user restores a lost .env into a directory of root's group", restore);
    case("a user restores a .env that was root's", || {
        fs::write(&env, "CHANGED=since\n").unwrap();
        chown(&env, Some(0), Some(0)).unwrap();
        fs::set_permissions(&env, Permissions::from_mode(0o644)).unwrap();
        restore();
    });
    case("a user takes a .env from nobody else", || {
        const OWNER: u32 = 12345;
        let count = || {
            let names = fs::read_dir(sandbox.dir()).unwrap().flatten();
            names
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(".env"))
                .count()
        };
        let before = count();
        fs::write(&env, "CHANGED=since\n").unwrap();
        chown(&env, Some(OWNER), Some(OWNER)).unwrap();
        fs::set_permissions(&env, Permissions::from_mode(0o644)).unwrap();
        let outcome = restored();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(
            outcome.stdout.contains("only root can give it to user 12345"),
            "{outcome}"
        );
        assert_eq!(fs::read_to_string(&env).unwrap(), "CHANGED=since\n");
        assert_eq!((env.metadata().unwrap().uid(), mode(&env)), (OWNER, 0o644));
        assert_eq!(count(), before);
    });
}

/// A restore into a directory without `.env`, which knows no BACKUP_LOCK_FILE yet, and a backup that does know it.
#[test]
fn a_restore_without_settings_excludes_a_backup_with_them() {
    let sandbox = Sandbox::new("userenv").stack().seeded().build();
    sandbox.run("backup-all", &[]).assert_success();
    let env = sandbox.path(".env");
    let text = fs::read(&env).unwrap();
    case("backup-all while restore-all works that began without .env", || {
        fs::remove_file(&env).unwrap();
        let gate = sandbox.gate();
        let env_path = format!("'{}'", env.display());
        let script = format!("[[ ! -e {env_path} || $1 != exec ]] || {{ {}; }}", gate.wait());
        let slow = docker_stand_in(&sandbox, &script);
        let mut restore = sandbox
            .call("restore-all")
            .args(&["latest", "--yes"])
            .path_first(&slow)
            .spawn();
        restore.await_that("the end of what it does first", |_| gate.is_reached());
        // It has written the file that names another lock.
        assert_eq!(fs::read(&env).unwrap(), text);
        let outcome = sandbox.run("backup-all", &[]);
        outcome.assert_error("Backup already in progress (PID: {})");
        gate.open();
        restore.wait().assert_success();
        sandbox.run("backup-all", &[]).assert_success();
    });
}

/// A look changes nothing: no lock file, no mark of a dead run, and what a killed restore has left is told.
#[test]
fn the_doctor_leaves_the_locks_as_they_are() {
    let sandbox = Sandbox::new("userdoc").redis().build();
    let lock = sandbox.lock_file();
    let doctor = || sandbox.binary().arg("doctor").run();
    case("the doctor where no run has been yet", || {
        let _ = fs::remove_file(&lock);
        let listing = sandbox.listing();
        assert!(doctor().stdout.contains("OK   lock: "));
        assert!(!lock.exists() && !sandbox.path("backups/.lock").exists());
        assert_eq!(listing, sandbox.listing());
    });
    case("the doctor after a run that was killed", || {
        fs::write(&lock, "4194304\n").unwrap();
        assert!(doctor().stdout.contains("the last run that held it was killed"));
        assert_eq!(fs::read_to_string(&lock).unwrap(), "4194304\n");
        let pid = std::process::id();
        fs::write(&lock, format!("{pid}\n")).unwrap();
        let held = File::open(&lock).unwrap();
        held.lock().unwrap();
        assert!(doctor()
            .stdout
            .contains(&format!("WARN lock: a backup or restore runs (PID: {pid})")));
        drop(held);
    });
    case("the doctor where others may look into backups/", || {
        fs::set_permissions(sandbox.path("backups/redis"), Permissions::from_mode(0o755)).unwrap();
        let said = doctor();
        let line = said.stdout.lines().find(|line| line.contains("others may look into"));
        assert!(
            line.is_some_and(|line| line.starts_with("WARN directory: ") && line.contains("chmod 700")),
            "{said}"
        );
        sandbox.run("backup-redis", &[]).assert_success();
        assert_eq!(mode(&sandbox.path("backups/redis")), 0o755);
    });
}
