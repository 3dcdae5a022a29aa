use std::os::unix::fs::chown;

use super::*;
use crate::testing::{skip, TempDir};

#[test]
fn one_holder_at_a_time_and_a_trace_of_a_dead_one() {
    let dir = TempDir::new();
    let path = dir.path().join("lock");
    let Attempt::Held(held) = Lock::attempt(&path).unwrap() else {
        panic!("not free")
    };
    assert!(!held.was_stale());
    let Attempt::Busy(pid) = Lock::attempt(&path).unwrap() else {
        panic!("not busy")
    };
    assert_eq!(pid, std::process::id().to_string());
    drop(held);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    std::fs::write(&path, "1\n").unwrap();
    let Attempt::Held(held) = Lock::attempt(&path).unwrap() else {
        panic!("not free")
    };
    assert!(held.was_stale());
}

#[test]
fn the_pid_of_a_holder_that_has_just_begun_is_waited_for() {
    let dir = TempDir::new();
    let path = dir.path().join("lock");
    for left in ["", "4194304\n"] {
        std::fs::write(&path, left).unwrap();
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        thread::scope(|scope| {
            let told = scope.spawn(|| Lock::attempt(&path).unwrap());
            thread::sleep(Duration::from_millis(100));
            std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
            let Attempt::Busy(pid) = told.join().unwrap() else {
                panic!("not busy")
            };
            assert_eq!(pid, std::process::id().to_string(), "{left:?}");
        });
        held.unlock().unwrap();
    }
    // Nobody writes one, as a person does who holds it by hand.
    std::fs::write(&path, "").unwrap();
    let held = File::open(&path).unwrap();
    held.lock().unwrap();
    assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Busy(pid) if pid == "unknown"));
}

#[test]
fn a_file_in_use_is_not_deleted() {
    let dir = TempDir::new();
    let (path, missing) = (dir.path().join("backup"), dir.path().join("missing"));
    fs::write(&path, "data").unwrap();
    let held = InUse::hold([path.as_path(), &missing]).unwrap();
    assert_eq!(held.len(), 1);
    // Several may read it at once.
    let second = InUse::hold([path.as_path()]).unwrap();
    drop(held);
    assert!(!remove_unused(&path).unwrap() && path.exists());
    drop(second);
    assert!(remove_unused(&path).unwrap() && !path.exists());
    assert_eq!(remove_unused(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_planted_link_is_neither_followed_nor_written() {
    let dir = TempDir::new();
    let (target, path) = (dir.path().join("target"), dir.path().join("lock"));
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(Lock::attempt(&path).is_err());
    assert!(!target.exists());
    std::fs::write(&target, "keep").unwrap();
    assert!(Lock::attempt(&path)
        .unwrap_err()
        .to_string()
        .contains("not a regular file"));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");
}

#[test]
fn a_file_that_may_only_be_read_serves() {
    let dir = TempDir::new();
    let path = dir.path().join("lock");
    std::fs::write(&path, "1\n").unwrap();
    let mut lock = Lock {
        file: File::open(&path).unwrap(),
        stale: false,
    };
    lock.file.try_lock().unwrap();
    lock.write_pid().unwrap();
    assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Busy(_)));
}

#[test]
fn a_second_name_of_another_file_is_not_emptied() {
    let dir = TempDir::new();
    let (target, path) = (dir.path().join("target"), dir.path().join("lock"));
    std::fs::write(&target, "keep").unwrap();
    std::fs::hard_link(&target, &path).unwrap();
    assert!(Lock::attempt(&path).unwrap_err().to_string().contains("another name"));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");
}

#[test]
fn waiting_ends() {
    let dir = TempDir::new();
    let path = dir.path().join("lock");
    let Attempt::Held(_held) = Lock::attempt(&path).unwrap() else {
        panic!("not free")
    };
    let mut told = String::new();
    let wait = |told: &mut String| {
        Lock::wait(&path, Duration::from_millis(150), |pid| {
            pid.clone_into(told);
            Ok(())
        })
    };
    let error = wait(&mut told).unwrap_err();
    assert!(error.to_string().starts_with("Backup already in progress"));
    assert_eq!(told, std::process::id().to_string());
    assert!(state_of(&told).is_some() && state_of("unknown").is_none());
    let error = Lock::wait(&path, Duration::from_secs(60), |_| bail!("enough")).unwrap_err();
    assert_eq!(error.to_string(), "enough");
}

/// The lock of a project whose backups lie in `root`.
fn project(root: &Path, shared: &Path) -> ProjectLock {
    match ProjectLock::attempt(root, shared).unwrap() {
        Attempt::Held(lock) => lock,
        Attempt::Busy(pid) => panic!("held by {pid}"),
    }
}

#[test]
fn both_files_of_a_project_are_held_and_are_for_their_owner_alone() {
    let dir = TempDir::new();
    let (shared, deciding) = (dir.path().join("shared"), dir.path().join(".lock"));
    fs::write(&shared, "4194304\n").unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(look_at(&shared).unwrap(), Seen::Stale);
    let lock = project(dir.path(), &shared);
    assert!(lock.was_stale() && lock.warning().is_none());
    let us = std::process::id().to_string();
    for path in [&shared, &deciding] {
        assert_eq!(fs::read_to_string(path).unwrap(), format!("{us}\n"));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(look_at(path).unwrap(), Seen::Busy(us.clone()));
    }
    drop(lock);
    for path in [&shared, &deciding] {
        assert_eq!(look_at(path).unwrap(), Seen::Free);
    }
    // A run of an earlier version knows the one file alone.
    let Attempt::Held(earlier) = Lock::attempt(&shared).unwrap() else {
        panic!("not free")
    };
    assert!(matches!(ProjectLock::attempt(dir.path(), &shared).unwrap(), Attempt::Busy(pid) if pid == us));
    drop(earlier);
}

#[test]
fn the_file_that_decides_may_be_named_and_no_other_of_ours() {
    let dir = TempDir::new();
    let (root, away) = (dir.path().join("backups"), dir.path().join("away"));
    fs::create_dir_all(root.join("redis")).unwrap();
    std::os::unix::fs::symlink(&root, &away).unwrap();
    // The first run, and one after a run that was killed.
    for left in ["", "4194304\n"] {
        for shared in [root.join(".lock"), away.join(".lock"), root.join("redis/../.lock")] {
            fs::write(root.join(".lock"), left).unwrap();
            let lock = project(&root, &shared);
            assert!(lock.warning().is_none(), "{shared:?}");
            assert_eq!(lock.was_stale(), !left.is_empty(), "{shared:?}");
            assert!(
                matches!(ProjectLock::attempt(&root, &shared).unwrap(), Attempt::Busy(_)),
                "{shared:?}"
            );
        }
    }
    for name in [
        "redis/.lock",
        "postgres/.lock",
        "sets/.lock",
        "sets/.drill.lock",
        ".offsite.lock",
    ] {
        let error = ProjectLock::attempt(&root, &root.join(name)).unwrap_err().to_string();
        assert!(error.starts_with("BACKUP_LOCK_FILE names"), "{name}: {error}");
    }
    assert!(check_shared(&root, &away.join("redis/.lock")).is_err());
    for name in ["backup.lock", "redis/lock"] {
        assert!(project(&root, &root.join(name)).warning().is_none(), "{name}");
    }
}

#[test]
fn a_look_at_a_lock_leaves_no_trace() {
    let dir = TempDir::new();
    let path = dir.path().join("lock");
    assert_eq!(look_at(&path).unwrap(), Seen::Free);
    assert!(!path.exists());
    fs::write(&path, "1\n").unwrap();
    assert_eq!(look_at(&path).unwrap(), Seen::Stale);
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
}

#[test]
fn another_users_file_is_left_alone() {
    if atomic::own_user() != Some(0) {
        return skip("lock::another_users_file_is_left_alone", "it needs root");
    }
    let dir = TempDir::new();
    let shared = dir.path().join("shared");
    fs::write(&shared, "theirs").unwrap();
    chown(&shared, Some(65534), Some(65534)).unwrap();
    let held = File::open(&shared).unwrap();
    held.lock().unwrap();
    let lock = project(dir.path(), &shared);
    assert!(lock.warning().unwrap().to_string().contains("another user"));
    assert_eq!(fs::read_to_string(&shared).unwrap(), "theirs");
    drop(lock);
    // It is that of the owner of the backups, for whom root works; so is what root makes.
    let root = dir.path().join("backups");
    fs::create_dir(&root).unwrap();
    chown(&root, Some(65534), Some(65534)).unwrap();
    held.unlock().unwrap();
    assert!(project(&root, &shared).warning().is_none());
    assert_eq!(root.join(".lock").metadata().unwrap().uid(), 65534);
}

/// Whatever its mode is by now: another user may have opened it before.
#[test]
fn a_file_that_no_backup_holds_stops_no_run() {
    let dir = TempDir::new();
    let shared = dir.path().join("shared");
    fs::write(&shared, "4194304\n").unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o644)).unwrap();
    let held = File::open(&shared).unwrap();
    held.lock_shared().unwrap();
    for run in 1..=2 {
        let lock = project(dir.path(), &shared);
        assert!(lock.warning().unwrap().to_string().contains("is held"), "run {run}");
        assert_eq!(shared.metadata().unwrap().mode() & 0o777, 0o600);
    }
    // A run of an earlier version that holds it, and has just written its number, does.
    fs::write(&shared, format!("{}\n", std::process::id())).unwrap();
    assert!(matches!(
        ProjectLock::attempt(dir.path(), &shared).unwrap(),
        Attempt::Busy(_)
    ));
}
