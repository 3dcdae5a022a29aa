//! restore-env.

use std::fs;
use std::path::Path;

use crate::common::{mode, Sandbox};

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

/// It may be what the engine, or whoever restores the rest, waits for.
#[test]
fn the_environment_file_comes_back_whatever_an_earlier_restore_has_left() {
    let sandbox = Sandbox::new("envleft").build();
    let env = sandbox.path(".env");
    let file = sandbox.path("backups/env/env_20250101_000000.backup");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::copy(&env, &file).unwrap();
    let old = fs::read_to_string(&env).unwrap();
    let unfinished = format!(
        "container {} t runs\npoint 20250101_000000\npart redis\npart env\n",
        sandbox.container("n8n-main")
    );
    let docker = sandbox.stand_in_docker("echo 'Cannot connect to the Docker daemon' >&2; exit 1");
    for record in ["x\n", &unfinished] {
        sandbox.write("backups/.restore", record);
        sandbox.write(".env", format!("{old}MADE_SINCE=1\n"));
        let outcome = sandbox.call("restore-env").arg(&file).path_first(&docker).run();
        outcome.assert_success();
        outcome.assert_log_has(
            "restore-env",
            "WARN Whether a restore is unfinished could not be found out{}",
        );
        assert_eq!(fs::read_to_string(&env).unwrap(), old);
        assert!(sandbox.path("backups/.restore").exists());
    }
}

/// Docker makes one where a container mounts a file that is missing.
#[test]
fn an_empty_directory_in_the_place_of_the_environment_file_is_replaced() {
    let sandbox = Sandbox::new("envd").build();
    let env = sandbox.path(".env");
    let file = sandbox.path("backups/env/env_20250101_000000.backup");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::rename(&env, &file).unwrap();
    fs::create_dir_all(env.join("own")).unwrap();
    let outcome = sandbox.call("restore-env").envs(&sandbox.settings()).arg(&file).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    fs::remove_dir(env.join("own")).unwrap();
    sandbox
        .call("restore-env")
        .envs(&sandbox.settings())
        .arg(&file)
        .run()
        .assert_success();
    assert_eq!(fs::read(&env).unwrap(), fs::read(&file).unwrap());
    assert_eq!(mode(&env), 0o600);
}

/// The files that restores of `.env` kept.
fn kept(dir: &Path) -> Vec<std::path::PathBuf> {
    let items = fs::read_dir(dir).into_iter().flatten().flatten();
    items
        .map(|item| item.path())
        .filter(|path| crate::common::name(path).starts_with(".env.before-restore-"))
        .collect()
}
