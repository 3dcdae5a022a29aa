//! Full disks: for the backups, for the log, in the server.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::{
    assert_backups_whole, assert_lock_free, assert_next_run_succeeds, before_end, case, dump_of, edited, restore,
    staged_databases, trusted_restore,
};
use crate::common::faults::Small;
use crate::common::{assert_same, repository, Sandbox};

/// One component's directory is full: an error that names it, no file, and the other components all the same.
#[test]
fn a_full_backup_directory_costs_its_component_only() {
    let sandbox = Sandbox::new("full").stack().seeded().build();
    for (kind, size, message) in [
        ("postgres", "64k", "pg_dump failed"),
        ("n8n", "64k", "tar backup failed"),
        ("redis", "16k", "Failed to copy RDB file from container"),
        ("env", "4k", "Failed to backup environment file"),
    ] {
        case(&format!("a full disk under backups/{kind}"), || {
            let dir = sandbox.path("backups").join(kind);
            let Some(_small) = Small::mount("faults: full disk", &dir, size) else {
                return;
            };
            if kind == "env" {
                fs::write(dir.join("other"), vec![b'x'; 4096]).unwrap();
            }
            let outcome = sandbox.call("backup-all").run();
            assert_eq!(outcome.code, Some(1), "{outcome}");
            assert_eq!(outcome.errors()[0], message, "{outcome}");
            assert!(outcome.log.contains("No space left on device"), "{outcome}");
            assert!(outcome.log.contains(&format!("backups/{kind}")), "{outcome}");
            outcome.assert_log_has(
                "backup-all",
                "ERROR Backup completed with errors: 4/5 succeeded, 1 failed",
            );
            let mut left = sandbox.backups(kind);
            left.retain(|path| path.file_name().is_some_and(|name| name != "other"));
            assert!(left.is_empty() && sandbox.leftovers(kind).is_empty(), "{left:?}");
            for other in ["postgres", "n8n", "redis", "env"] {
                assert!(other == kind || !sandbox.backups(other).is_empty(), "{other}");
            }
            assert_lock_free(&sandbox);
        });
    }
    for path in sandbox.backups("sets") {
        fs::remove_file(path).unwrap();
    }
    assert_backups_whole(&sandbox);
    assert_next_run_succeeds(&sandbox);
}

/// What keeps a point from being the latest is written with it, not after it: a disk that is full by then, like a run that
/// ends in between, would leave it as one of all the others.
#[test]
fn a_point_that_is_set_aside_is_so_from_its_first_write_on() {
    let sandbox = Sandbox::new("aside").stack().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    let archive = sandbox.backup("n8n");
    // Room for the lock and for one manifest, none for a second writing beside the first.
    let small = || Small::mount("faults: full sets", &sandbox.path("backups/sets"), "8k");
    let manifest = || fs::read_to_string(sandbox.backup("sets")).unwrap();
    case("the backup before a restore", || {
        let Some(_small) = small() else { return };
        let outcome = sandbox.call("restore-n8n").arg(&archive).run();
        outcome.assert_success();
        assert!(manifest().contains("\n# aside: made before a restore\n"), "{outcome}");
    });
    case("a backup while a restore is interrupted", || {
        let Some(_small) = small() else { return };
        sandbox.write("backups/.restore", "point 20260101_000000\npart n8n\n");
        let outcome = sandbox.run("backup-all", &[]);
        outcome.assert_success();
        let text = manifest();
        assert!(
            text.contains("\n# aside: made while a restore was interrupted\n"),
            "{text}"
        );
    });
}

/// Less room than the last backups took: said before anything is begun.
#[test]
fn a_run_that_would_not_fit_does_not_begin() {
    let sandbox = Sandbox::new("room").stack().build();
    case("less room than the last backups took", || {
        let Some(_small) = Small::mount("faults: no room", &sandbox.path("backups"), "8m") else {
            return;
        };
        sandbox.set("BACKUP_MIN_FREE_KB", "1");
        fs::create_dir_all(sandbox.path("backups/postgres")).unwrap();
        let last = sandbox.path("backups/postgres/n8n_20260101_000000.sql.gz");
        fs::write(&last, vec![b'x'; 5 << 20]).unwrap();
        let outcome = sandbox.run("backup-all", &[]);
        outcome.assert_error("Insufficient disk space: {}Mi available, {}MiB required");
        assert!(!sandbox.path("backups/env").exists());
        // What the cleanup is about to free counts.
        let older = sandbox.path("backups/postgres/n8n_20250101_000000.sql.gz");
        fs::rename(&last, &older).unwrap();
        fs::write(&last, vec![b'x'; 1 << 20]).unwrap();
        crate::common::sh("touch -d '30 days ago' \"$1\"", &[older.as_os_str()]);
        sandbox.run("backup-all", &[]).assert_success();
        assert!(!older.exists());
        // What was brought here since tells nothing of this stack: a file that was copied, and a point of another one.
        fs::write(&older, vec![b'x'; 4 << 20]).unwrap();
        sandbox.run("backup-all", &[]).assert_success();
        fs::remove_file(&older).unwrap();
        let foreign = "20260102_000000";
        let dump = format!("postgres/n8n_{foreign}.sql.gz");
        fs::write(sandbox.path("backups").join(&dump), vec![b'x'; 4 << 20]).unwrap();
        let text = format!(
            "# n8n-backup recovery point {foreign}\n# stack: 00000000000000bb\n# size.postgres: {}\n{}  {dump}\n",
            4 << 20,
            "0".repeat(64)
        );
        fs::write(sandbox.path(format!("backups/sets/{foreign}.sha256")), text).unwrap();
        sandbox.run("backup-all", &[]).assert_success();
    });
}

/// The file in /tmp tells people who holds the lock, and `backups/.lock` decides: where the one has no room for a
/// process ID, or for a file, the run goes on.
#[test]
fn a_shared_lock_file_on_a_full_disk_stops_no_run() {
    let sandbox = Sandbox::new("tlock").stack().build();
    let dir = sandbox.aside("shared");
    sandbox.set("BACKUP_LOCK_FILE", dir.join("n8n-backup.lock").to_str().unwrap());
    case("no room for the process ID", || {
        let Some(_small) = Small::mount("faults: full lock", &dir, "4k") else {
            return;
        };
        fs::write(dir.join("other"), vec![b'x'; 4096]).unwrap();
        let outcome = sandbox.run("backup-all", &[]);
        outcome.assert_success();
        assert!(!outcome.log.contains("lock file"), "{outcome}");
        assert!(dir.join("n8n-backup.lock").exists());
    });
    case("no room for the file", || {
        let Some(_small) = Small::mount("faults: full lock", &dir, "4k,nr_inodes=1") else {
            return;
        };
        let outcome = sandbox.run("backup-all", &[]);
        outcome.assert_success();
        outcome.assert_log_has("backup-all", "WARN Cannot open lock file {}: No space left on device{}");
    });
}

/// A restore of the volume compares the room on both disks before anything is stopped: the volume's own, by way of the
/// engine, and that of the backup which is made first.
#[test]
fn a_volume_restore_that_would_not_fit_does_not_begin() {
    let sandbox = Sandbox::new("vroom").volume().build();
    let (volume, n8n) = (format!("{}_small", sandbox.prefix()), sandbox.container("small"));
    let mut create = vec!["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs"];
    create.extend(["--opt", "o=size=8m"]);
    let labels = sandbox.labels();
    create.extend(labels.iter().map(String::as_str));
    create.push(&volume);
    sandbox.docker(&create);
    sandbox.run_idle(&n8n, &format!("{volume}:/home/node/.n8n"));
    sandbox.set("BACKUP_N8N_VOLUME", &volume);
    sandbox.set("BACKUP_N8N_CONTAINERS", &n8n);
    fs::create_dir_all(sandbox.path("backups/n8n")).unwrap();
    let archive = |stamp: &str, mb: u32| {
        let path = sandbox.path(format!("backups/n8n/n8n_data_{stamp}.tar.gz"));
        let script = "d=$(mktemp -d); head -c \"$2\"M /dev/zero >$d/big; tar -C $d -czf \"$1\" .; rm -r $d";
        crate::common::sh(script, &[path.as_os_str(), mb.to_string().as_ref()]);
        path
    };
    let (large, small) = (archive("20260101_000000", 12), archive("20260101_000001", 1));
    let state = || sandbox.docker(&["inspect", "--format", "{{.State.StartedAt}} {{.State.Status}}", &n8n]);
    let before = (state(), sandbox.backups("n8n"));
    case("a volume too small for the archive", || {
        let outcome = sandbox.call("restore-n8n").arg(&large).run();
        outcome.assert_error(
            "Insufficient disk space for the volume {}_small on Docker's disk: 8.0Mi available, 13MiB required{}",
        );
        assert_eq!((state(), sandbox.backups("n8n")), before);
    });
    case("no room for the backup of the volume", || {
        let fill = "head -c 3145728 /dev/urandom >/home/node/.n8n/held";
        sandbox.docker(&["exec", &n8n, "sh", "-c", fill]);
        // Zeros pack to nothing, so a file that does not is needed to tell how the volume's contents may.
        let script = "d=$(mktemp -d); head -c 1M /dev/urandom >$d/big; tar -C $d -czf \"$1\" .; rm -r $d";
        let full = sandbox.aside("n8n_data_20260101_000002.tar.gz");
        crate::common::sh(script, &[full.as_os_str()]);
        let Some(_small) = Small::mount("faults: no room", &sandbox.path("backups/n8n"), "1m") else {
            return;
        };
        let outcome = sandbox.call("restore-n8n").arg(&full).run();
        outcome.assert_error("Insufficient disk space in {}/backups/n8n: 1.0Mi available, about 3.{}MiB required{}");
        assert_eq!(state(), before.0);
    });
    case("room enough", || {
        sandbox.call("restore-n8n").arg(&small).run().assert_success();
    });
}

/// What an interrupted restore has left in the volume takes the room that the next one needs: it is set right first, and
/// the room compared after that.
#[test]
fn a_killed_volume_restore_is_set_right_where_its_leftovers_take_the_room() {
    let sandbox = Sandbox::new("vleft").volume().build();
    let disk = sandbox.aside("disk");
    let Some(_small) = Small::mount("faults: no room", &disk, "10m") else {
        return;
    };
    let (volume, n8n) = (format!("{}_small", sandbox.prefix()), sandbox.container("small"));
    // Not a tmpfs of the engine's own, which would be empty again once n8n is stopped.
    let device = format!("device={}", disk.display());
    let mut create = vec!["volume", "create", "--opt", "type=none", "--opt", "o=bind"];
    create.extend(["--opt", &device]);
    let labels = sandbox.labels();
    create.extend(labels.iter().map(String::as_str));
    create.push(&volume);
    sandbox.docker(&create);
    sandbox.run_idle(&n8n, &format!("{volume}:/home/node/.n8n"));
    sandbox.set("BACKUP_N8N_VOLUME", &volume);
    sandbox.set("BACKUP_N8N_CONTAINERS", &n8n);

    let fill = |name: &str, kb: u32| {
        let script = "head -c \"$2\"k /dev/urandom >\"$1\"";
        crate::common::sh(script, &[disk.join(name).as_os_str(), kb.to_string().as_ref()]);
    };
    fill("config", 1);
    fill("held", 3500);
    sandbox.run("backup-n8n", &[]).assert_success();
    let file = sandbox.backup("n8n");
    let contents = || sandbox.fingerprint_volume_named(&volume);
    let saved = contents();
    let is_running = || {
        sandbox
            .docker(&["inspect", "--format", "{{.State.Running}}", &n8n])
            .trim()
            == "true"
    };
    let work = disk.join(".n8n-backup-restore");
    let killer = sandbox.stand_in_docker("case \" $* \" in *' exchange '*) kill -9 $PPID; exit 1 ;; esac");
    let spoil_and_kill = || {
        fill("config", 2);
        fill("held", 3500);
        let changed = contents();
        let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&killer).run();
        assert_eq!(outcome.code, None, "{outcome}");
        assert!(work.join("new/held").exists() && !is_running(), "{outcome}");
        changed
    };
    let move_half_aside = || {
        fs::write(work.join("begun"), "").unwrap();
        fs::rename(disk.join("config"), work.join("old/config")).unwrap();
    };
    let set_right = "WARN An interrupted restore of the volume had left its traces; they are set right";
    for half in [false, true] {
        case(&format!("room once it is set right, half moved aside: {half}"), || {
            let changed = spoil_and_kill();
            if half {
                move_half_aside();
            }
            let before = sandbox.backups("n8n");
            let outcome = sandbox.call("restore-n8n").arg(&file).run();
            outcome.assert_success();
            outcome.assert_log_has("restore-n8n", set_right);
            assert_same(&saved, &contents());
            assert!(is_running() && !work.exists());
            // What was there was whole again when it was backed up.
            let mut safety = sandbox.backups("n8n");
            safety.retain(|path| !before.contains(path));
            sandbox.call("restore-n8n").arg(&safety[0]).run().assert_success();
            assert_same(&changed, &contents());
        });
    }
    case("no room even then", || {
        spoil_and_kill();
        // What was unpacked fitted, so less of it makes place for more of what was there.
        fs::write(work.join("new/held"), "").unwrap();
        fill("more", 4000);
        let read = |name: &str| fs::read(disk.join(name)).unwrap();
        let whole = ["config", "held", "more"].map(|name| (name, read(name)));
        move_half_aside();
        let backups = sandbox.backups("n8n");
        let outcome = sandbox.call("restore-n8n").arg(&file).run();
        outcome.assert_error("Insufficient disk space for the volume {}_small on Docker's disk: {}");
        outcome.assert_log_has("restore-n8n", set_right);
        for (name, bytes) in &whole {
            assert!(read(name) == *bytes, "{name}");
        }
        assert!(is_running() && !work.exists());
        assert_eq!(sandbox.backups("n8n"), backups);
    });
}

/// How much the volume holds is asked for the sake of a warning: no answer in time refuses no restore.
#[test]
fn a_volume_too_large_to_be_measured_in_time_is_restored() {
    let sandbox = Sandbox::new("vdu").n8n().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    let file = sandbox.backup("n8n");
    let saved = sandbox.fingerprint_volume();
    sandbox.set("BACKUP_STALL_SECONDS", "3");
    let slow = sandbox.stand_in_docker("case \" $* \" in *' du '*) exec sleep 60 ;; esac");
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&slow).run();
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-n8n",
        "WARN Could not determine the disk space for the backup of the volume that is made first",
    );
    assert_same(&saved, &sandbox.fingerprint_volume());
}

/// What makes room goes on where standard output has its lines, and the log has those again that there is room for.
#[test]
fn a_cleanup_makes_room_where_its_log_has_none() {
    let sandbox = Sandbox::new("fclean").build();
    let (logs, backups) = (sandbox.path("logs"), sandbox.path("backups"));
    case("a log that is full, beside old backups", || {
        let Some(_small) = Small::mount("faults: full log", &backups, "64k") else {
            return;
        };
        fs::remove_dir_all(&logs).unwrap();
        symlink("backups/logs", &logs).unwrap();
        for dir in ["logs", "env"] {
            fs::create_dir(backups.join(dir)).unwrap();
        }
        let [old, new] = ["env_20250101_020000.backup", "env_20260101_020000.backup"]
            .map(|name| sandbox.write(&format!("backups/env/{name}"), "A=1\n".repeat(4096)));
        crate::common::sh("touch -d '30 days ago' \"$1\"", &[old.as_os_str()]);
        crate::common::sh("yes '' >\"$1\" || true", &[logs.join("backup.log").as_os_str()]);
        let unheard = sandbox.call("cleanup-backups").into_log().run();
        assert!(unheard.code == Some(1) && old.exists(), "{unheard}");
        let dry = sandbox.run("cleanup-backups", &["--dry-run"]);
        assert!(dry.code == Some(1) && old.exists(), "{dry}");
        assert!(dry.stdout.contains("[DRY-RUN] Would delete: "), "{dry}");
        let outcome = sandbox.run("cleanup-backups", &[]);
        // Lines are missing from the log.
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stderr.contains("Cannot write log file"), "{outcome}");
        assert!(!old.exists() && new.exists(), "{outcome}");
        outcome.assert_log_has(
            "cleanup-backups",
            "SUCCESS Cleanup completed: 1 files deleted, {} freed",
        );
        sandbox.run("cleanup-backups", &[]).assert_success();
    });
}

/// The log's disk is full at the start: nothing is done. It becomes full later: the backups are made, and the run fails.
#[test]
fn a_full_log_is_told_and_costs_no_backup() {
    let sandbox = Sandbox::new("flog").stack().seeded().build();
    let logs = sandbox.path("logs");
    case("a log that is full at the start", || {
        let Some(_small) = Small::mount("faults: full log", &logs, "4k") else {
            return;
        };
        fs::write(logs.join("backup.log"), vec![b'x'; 4096]).unwrap();
        let outcome = sandbox.run("backup-all", &[]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stdout.contains("Cannot write log file"), "{outcome}");
        assert_eq!(outcome.stdout.matches("[ERROR]").count(), 1, "{outcome}");
        assert!(sandbox.backups("postgres").is_empty() && sandbox.backups("env").is_empty());
        assert_lock_free(&sandbox);
    });
    case("a log that becomes full", || {
        let Some(_small) = Small::mount("faults: full log", &logs, "8k") else {
            return;
        };
        fs::write(logs.join("backup.log"), vec![b'x'; 7500]).unwrap();
        let outcome = sandbox.run("backup-all", &[]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stderr.contains("Cannot write log file"), "{outcome}");
        for kind in ["postgres", "redis", "n8n", "env"] {
            assert_eq!(sandbox.backups(kind).len(), 1, "{kind}: {outcome}");
        }
        assert_backups_whole(&sandbox);
    });
}

/// The server's disk: a restore that will not fit is refused, one that fills it all the same leaves the live database as
/// it was, and `--in-place` makes room.
#[test]
fn a_full_disk_in_the_server_leaves_the_live_database() {
    let sandbox = Sandbox::new("fserv").volume().build();
    let volume = format!("{}_postgres_data", sandbox.prefix());
    let mut create: Vec<String> = [
        "volume",
        "create",
        "--opt",
        "type=tmpfs",
        "--opt",
        "device=tmpfs",
        "--opt",
        "o=size=220m",
    ]
    .map(str::to_owned)
    .to_vec();
    create.extend(sandbox.labels());
    create.push(volume);
    sandbox.docker(&create);
    let mut up = Command::new(repository().join("tests/stack/stack.sh"));
    up.args(["up", sandbox.prefix(), "--no-redis", "--no-n8n", "--seed"]);
    up.args([
        "--pg-arg",
        "-c",
        "--pg-arg",
        "max_wal_size=32MB",
        "--pg-arg",
        "-c",
        "--pg-arg",
        "min_wal_size=32MB",
    ]);
    crate::common::done(up);
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    case("a load that fills the server's disk", || {
        // Unlogged: a log that cannot grow stops the server itself, which is PostgreSQL's way with a full disk.
        let statement =
            "CREATE UNLOGGED TABLE public.filler AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 300000);";
        let path = edited(&sandbox, &dump, "filler.sql.gz", |text| before_end(&text, statement));
        let outcome = restore(&sandbox, &path);
        outcome.assert_error("Database restore failed");
        // 53100 is disk_full.
        let told = ["No space left on device", "ERROR 53100"];
        assert!(told.iter().any(|text| outcome.log.contains(text)), "{outcome}");
        assert_same(&before, &sandbox.fingerprint_postgres());
        sandbox.run("backup-postgres", &[]).assert_success();
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
    });
    // As large on the disk as in the dump, and nothing to sort for the fingerprint.
    let ballast = "CREATE TABLE ballast (n int, text text); ALTER TABLE ballast ALTER text SET STORAGE EXTERNAL; \
                   INSERT INTO ballast SELECT n, repeat(md5(n::text), 100) FROM generate_series(1, 12000) n";
    case(
        "a restore that will not fit is refused and --in-place is offered",
        || {
            sandbox.psql(ballast);
            sandbox.psql("CHECKPOINT");
            let big = dump_of(&sandbox);
            let now = sandbox.fingerprint_postgres();
            let outcome = restore(&sandbox, &big);
            outcome.assert_error("Insufficient disk space in container {}: {} available, {} required");
            assert!(outcome.log.contains("--in-place"), "{outcome}");
            assert_same(&now, &sandbox.fingerprint_postgres());
            let outcome = trusted_restore(&sandbox).arg("--in-place").arg(&big).run();
            outcome.assert_success();
            assert_same(&now, &sandbox.fingerprint_postgres());
            assert!(!sandbox.backups("postgres").is_empty(), "no safety dump");
            assert_backups_whole(&sandbox);
        },
    );
    case(
        "what a failed restore in place has left is room for the way back",
        || {
            let big = sandbox.aside("big.sql.gz");
            fs::rename(sandbox.backup("postgres"), &big).unwrap();
            super::clear_backups(&sandbox);
            let now = sandbox.fingerprint_postgres();
            let bad = edited(&sandbox, &big, "bad.sql.gz", |text| {
                before_end(&text, "SELECT no_such_thing;")
            });
            let outcome = trusted_restore(&sandbox).arg("--in-place").arg(&bad).run();
            outcome.assert_error("Database restore failed");
            assert_eq!(staged_databases(&sandbox).len(), 1);
            restore(&sandbox, &sandbox.backup("postgres")).assert_success();
            assert_same(&now, &sandbox.fingerprint_postgres());
            assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
        },
    );
}
