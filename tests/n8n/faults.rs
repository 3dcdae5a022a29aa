//! Faults of SQLite, of every kind that the fault suite has (`tests/integration/faults`). They take n8n's image, which brings Node.js.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use crate::common::faults::{await_no_clients, case, few_or_many, kill_child, kill_reading_child, Small};
use crate::common::sqlite::{n8n_image, on_sqlite, write_stack, FILE, HOME};
use crate::common::{assert_same, await_true, name, sh, Call, Gate, Outcome, Sandbox};
use crate::database::{assert_clean, change, is_running};

const SIGNALS: [&str; 4] = ["KILL", "TERM", "INT", "HUP"];
/// The arguments of docker for the copy of a database, for its way out of the container, and for the exchange of one.
const COPIES: &str = "*' copy /home/'*";
const SENDS: &str = "*' cat /'*'/copy '*";
const EXCHANGES: &str = "*' exec '*' exchange '*";

/// A call of a script of a sandbox that has no `.env`.
fn call<'a>(sandbox: &'a Sandbox, name: &str) -> Call<'a> {
    sandbox.call(name).env("BACKUP_LOCK_FILE", sandbox.lock_file())
}

fn restore(sandbox: &Sandbox, file: &Path) -> Outcome {
    call(sandbox, "restore-sqlite").arg("--yes").arg(file).run()
}

/// More than what pipes and sockets hold.
fn enlarge(sandbox: &Sandbox) {
    sandbox.sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) \
         INSERT INTO execution_entity (bytes) SELECT randomblob(1000000) FROM n",
    );
}

/// A docker that holds the copy of a database in its middle until the gate is open.
fn held_copy(sandbox: &Sandbox) -> (PathBuf, Gate) {
    let gate = sandbox.gate();
    let script = format!(
        "case \" $* \" in {SENDS}) \"$real\" \"$@\" | {{ head -c 1M; {}; cat; }}; exit ${{PIPESTATUS[0]}} ;; esac",
        gate.wait()
    );
    (sandbox.stand_in_docker(&script), gate)
}

/// A backup outside of the project, of what is there now.
fn backup_of(sandbox: &Sandbox) -> PathBuf {
    sandbox.locked("backup-sqlite", &[]).assert_success();
    let made = sandbox.backup("sqlite");
    let kept = sandbox.aside(name(&made));
    fs::rename(&made, &kept).unwrap();
    clear(sandbox);
    kept
}

fn clear(sandbox: &Sandbox) {
    for kind in ["sqlite", "n8n", "env", "sets"] {
        for path in sandbox.backups(kind) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// No backup, nor anything of one.
#[track_caller]
fn assert_no_file(sandbox: &Sandbox, outcome: &Outcome) {
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stdout.contains("SQLite backup failed"), "{outcome}");
    assert!(sandbox.backups("sqlite").is_empty(), "{outcome}");
    assert_clean(sandbox);
}

/// The next backup is whole, and nothing is left of the run before.
#[track_caller]
fn assert_next_backup_is_whole(sandbox: &Sandbox) {
    sandbox.locked("backup-all", &[]).assert_success();
    assert_same(
        &sandbox.dump_sqlite(FILE),
        &sandbox.dump_backup(&sandbox.backups("sqlite").pop().unwrap()),
    );
    assert_clean(sandbox);
    clear(sandbox);
}

#[test]
fn a_backup_that_is_cut_off_stalls_or_is_ended_leaves_no_file() {
    let sandbox = on_sqlite("sqlite-cut", "A=1", HOME);
    enlarge(&sandbox);
    let cuts = [0, 1, 100, 4000, 1_000_000].map(|bytes| (SENDS, bytes));
    for (which, bytes) in [(COPIES, 0), (COPIES, 1), (COPIES, 100)].into_iter().chain(cuts) {
        case(&format!("{which} gives {bytes} bytes and exit code 0"), || {
            let docker = sandbox.stand_in_docker(&format!(
                "case \" $* \" in {which}) \"$real\" \"$@\" | head -c {bytes}; exit 0 ;; esac"
            ));
            assert_no_file(&sandbox, &call(&sandbox, "backup-sqlite").path_first(&docker).run());
        });
    }
    for which in [COPIES, SENDS] {
        case(&format!("{which} says all is well and then fails"), || {
            let docker =
                sandbox.stand_in_docker(&format!("case \" $* \" in {which}) \"$real\" \"$@\"; exit 7 ;; esac"));
            assert_no_file(&sandbox, &call(&sandbox, "backup-sqlite").path_first(&docker).run());
        });
    }
    case("a client that stands still in the middle of the copy", || {
        let docker = sandbox.stand_in_docker(&format!(
            "case \" $* \" in {SENDS}) \"$real\" \"$@\" | {{ head -c 300000; sleep 60; }}; exit 0 ;; esac"
        ));
        let backup = call(&sandbox, "backup-all")
            .path_first(&docker)
            .env("BACKUP_STALL_SECONDS", "4")
            .run();
        assert_no_file(&sandbox, &backup);
        assert!(
            backup.stdout.contains("nothing moved and nothing answered for 4 s"),
            "{backup}"
        );
        assert!(
            sandbox.backups("n8n").len() == 1 && backup.stdout.contains("3/4 succeeded"),
            "{backup}"
        );
        clear(&sandbox);
    });
    for (what, stop, go_on) in [("pause", "pause", "unpause"), ("kill", "kill", "start")] {
        case(&format!("docker {what} in the middle of a copy"), || {
            let (docker, gate) = held_copy(&sandbox);
            let mut running = call(&sandbox, "backup-sqlite")
                .path_first(docker)
                .env("BACKUP_STALL_SECONDS", "4")
                .spawn();
            running.await_that("the middle of the copy", |_| gate.is_reached());
            sandbox.docker(&[stop, &sandbox.n8n()]);
            gate.open();
            let outcome = running.wait();
            assert_eq!(outcome.code, Some(1), "{outcome}");
            assert!(
                sandbox.backups("sqlite").is_empty() && sandbox.leftovers("sqlite").is_empty(),
                "{outcome}"
            );
            if what == "kill" {
                sandbox.docker(&["wait", &sandbox.n8n()]);
            }
            sandbox.docker(&[go_on, &sandbox.n8n()]);
            sandbox.await_work();
            assert_next_backup_is_whole(&sandbox);
        });
    }
    for (number, child) in [" copy /home/", "dgst -sha256"].into_iter().enumerate() {
        for signal in SIGNALS.iter().cycle().skip(number).take(few_or_many(1, 4)) {
            case(
                &format!("SIG{signal} to the child '{}' of backup-sqlite", child.trim()),
                || {
                    let (docker, gate) = held_copy(&sandbox);
                    let mut running = call(&sandbox, "backup-sqlite").path_first(docker).spawn();
                    running.await_that("the middle of the copy", |_| gate.is_reached());
                    let hit = match number {
                        0 => kill_child(&running, child, signal),
                        _ => kill_reading_child(&running, child, signal),
                    };
                    assert!(hit, "no such child was seen");
                    gate.open();
                    assert_no_file(&sandbox, &running.wait());
                },
            );
        }
    }
    case("a run that was stopped, beside backup-all", || {
        let (docker, gate) = held_copy(&sandbox);
        let mut stopped = call(&sandbox, "backup-sqlite").path_first(docker).spawn();
        stopped.await_that("the middle of the copy", |_| gate.is_reached());
        stopped.signal("STOP");
        gate.open();
        let backup = call(&sandbox, "backup-all").env("BACKUP_STALL_SECONDS", "8").run();
        let waits = format!("Waiting for the run that works on sqlite (PID: {})", stopped.pid());
        assert!(backup.code == Some(1) && backup.stdout.contains(&waits), "{backup}");
        assert!(backup.stdout.contains("3/4 succeeded"), "{backup}");
        stopped.signal("CONT");
        stopped.wait();
        clear(&sandbox);
    });
    case("a full disk under backups/sqlite", || {
        let Some(_small) = Small::mount("faults: full disk", &sandbox.path("backups/sqlite"), "64k") else {
            return;
        };
        let backup = sandbox.locked("backup-all", &[]);
        assert_no_file(&sandbox, &backup);
        assert!(backup.stdout.contains("No space left on device"), "{backup}");
        assert!(backup.stdout.contains("3/4 succeeded"), "{backup}");
        clear(&sandbox);
    });
    assert_next_backup_is_whole(&sandbox);
}

#[test]
fn a_signal_at_any_point_leaves_whole_backups_and_the_old_or_the_new_database() {
    let sandbox = on_sqlite("sqlite-signals", "A=1", HOME);
    enlarge(&sandbox);
    let length = sandbox.locked("backup-sqlite", &[]).assert_success().took;
    clear(&sandbox);
    let points = few_or_many(3, 24);
    for point in 0..points {
        let signal = SIGNALS[point % SIGNALS.len()];
        case(&format!("SIG{signal} to backup-sqlite at {point}/{points}"), || {
            let running = call(&sandbox, "backup-sqlite").spawn();
            thread::sleep(length.mul_f64(point as f64 / points as f64));
            running.signal(signal);
            eprintln!("{}", running.wait());
            await_no_clients(&sandbox);
            for made in sandbox.backups("sqlite") {
                assert_same(&sandbox.dump_sqlite(FILE), &sandbox.dump_backup(&made));
            }
            await_true("the copy is left in n8n's container", || {
                sandbox
                    .in_n8n("find /tmp /home/node/.n8n -name '.n8n-backup*'")
                    .is_empty()
            });
            clear(&sandbox);
        });
    }
    assert_next_backup_is_whole(&sandbox);

    let file = backup_of(&sandbox);
    let saved = sandbox.dump_sqlite(FILE);
    let length = restore(&sandbox, &file).assert_success().took;
    let left = |sandbox: &Sandbox| sandbox.beside_n8n(&format!("test -e {FILE} || echo moved"));
    for point in 0..points {
        let signal = SIGNALS[point % SIGNALS.len()];
        case(&format!("SIG{signal} to restore-sqlite at {point}/{points}"), || {
            change(&sandbox);
            let changed = sandbox.dump_sqlite(FILE);
            let running = call(&sandbox, "restore-sqlite").arg("--yes").arg(&file).spawn();
            thread::sleep(length.mul_f64(point as f64 / points as f64));
            running.signal(signal);
            eprintln!("{}", running.wait());
            await_no_clients(&sandbox);
            if left(&sandbox).is_empty() {
                let found = sandbox.dump_sqlite(FILE);
                assert!(found == changed || found == saved, "neither the old nor the new");
            }
            restore(&sandbox, &file).assert_success();
            assert_same(&saved, &sandbox.dump_sqlite(FILE));
            sandbox.docker(&["start", &sandbox.n8n()]);
            sandbox.await_work();
            assert_clean(&sandbox);
        });
    }
}

#[test]
fn a_restore_that_fails_leaves_the_database_as_it_was() {
    let sandbox = on_sqlite("sqlite-undone", "A=1", HOME);
    let file = backup_of(&sandbox);
    change(&sandbox);
    let changed = sandbox.dump_sqlite(FILE);
    let is_left = |outcome: &Outcome, why: &str| {
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stdout.contains(why), "'{why}' expected: {outcome}");
        assert_same(&changed, &sandbox.dump_sqlite(FILE));
        assert!(is_running(&sandbox), "{outcome}");
        assert_clean(&sandbox);
    };
    let bytes = fs::read(&file).unwrap();
    let edited = sandbox.aside("n8n_20260101_000000.sqlite.gz");
    let parts = few_or_many(3, 16);
    for n in 0..parts {
        case(&format!("the packed file cut after {n}/{parts}"), || {
            fs::write(&edited, &bytes[..bytes.len() * n / parts]).unwrap();
            is_left(&restore(&sandbox, &edited), "corrupted or not a SQLite database");
        });
        case(&format!("a byte changed at {n}/{parts}"), || {
            let mut bytes = bytes.clone();
            let at = bytes.len() * n / parts + 20;
            bytes[at] ^= 0x10;
            fs::write(&edited, bytes).unwrap();
            is_left(&restore(&sandbox, &edited), "corrupted or not a SQLite database");
        });
    }
    for (what, pattern) in [
        ("before the exchange", "*' exec '*' begin '*"),
        ("right after it", EXCHANGES),
    ] {
        case(&format!("n8n is started {what}"), || {
            let mark = sandbox.aside(format!("started {what}"));
            let docker = sandbox.stand_in_docker(&format!(
                "case \" $* \" in {pattern}) \"$real\" \"$@\"; code=$?; \
                 [ -e '{0}' ] || {{ : >'{0}'; \"$real\" start '{1}' >/dev/null; }}; exit $code ;; esac",
                mark.display(),
                sandbox.n8n()
            ));
            let outcome = call(&sandbox, "restore-sqlite")
                .arg("--yes")
                .arg(&file)
                .path_first(&docker)
                .run();
            assert!(mark.exists(), "n8n was not started");
            let found = sandbox.dump_sqlite(FILE);
            assert_eq!(outcome.code, Some(1), "{outcome}");
            assert!(
                outcome
                    .stdout
                    .contains("was started while what it works on was being replaced"),
                "{outcome}"
            );
            // It is not to go on with a file that is gone.
            let stopped = outcome.stdout.contains("which was started meanwhile");
            assert_eq!(stopped, pattern == EXCHANGES, "{outcome}");
            assert_same(&changed, &found);
            sandbox.await_work();
            assert_clean(&sandbox);
        });
    }
    case("the step of the exchange fails", || {
        let docker = sandbox.failing_docker(EXCHANGES, 1);
        let outcome = call(&sandbox, "restore-sqlite")
            .arg("--yes")
            .arg(&file)
            .path_first(&docker)
            .run();
        is_left(&outcome, "SQLite restore failed");
    });
    case("a client that does not read what the restore writes", || {
        let docker = sandbox.stand_in_docker("case \" $* \" in *'wc -c'*) exec sleep 60 ;; esac");
        let stalled = call(&sandbox, "restore-sqlite")
            .arg("--yes")
            .arg(&file)
            .path_first(&docker);
        is_left(&stalled.env("BACKUP_STALL_SECONDS", "3").run(), "SQLite restore failed");
    });
    case("another program has the volume mounted", || {
        let other = sandbox.container("other");
        sandbox.run_idle(&other, &format!("{}:/data", sandbox.volume()));
        let outcome = restore(&sandbox, &file);
        sandbox.docker(&["rm", "-fv", &other]);
        is_left(&outcome, "Containers that are not known as n8n's use");
    });
    case("a recovery point whose file or manifest was changed", || {
        sandbox.locked("backup-all", &[]).assert_success();
        let (made, manifest) = (sandbox.backup("sqlite"), sandbox.backup("sets"));
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(
            &manifest,
            text.replace(
                "# sqlite.rows.credentials_entity: 0",
                "# sqlite.rows.credentials_entity: 1",
            ),
        )
        .unwrap();
        let drill = sandbox.locked("test-recovery", &["--sqlite"]);
        assert!(
            drill.code == Some(1) && drill.stdout.contains("credentials_entity is 0 instead of 1"),
            "{drill}"
        );
        is_left(&restore(&sandbox, &made), "credentials_entity is 0 instead of 1");
        fs::write(&manifest, text).unwrap();
        fs::write(&made, &bytes).unwrap();
        let verify = sandbox.binary().args(&["verify"]).run();
        assert_eq!(verify.code, Some(1), "{verify}");
        is_left(
            &sandbox.locked("restore-all", &["--yes", "latest"]),
            "damaged in it: sqlite",
        );
        clear(&sandbox);
    });
    restore(&sandbox, &file).assert_success();
    assert_ne!(sandbox.dump_sqlite(FILE), changed);
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_or_the_new() {
    let sandbox = on_sqlite("sqlite-kills", "A=1", HOME);
    let before = sandbox.dump_sqlite(FILE);
    sandbox.locked("backup-all", &[]).assert_success();
    let file = sandbox.backup("sqlite");
    for text in [
        "Stopping n8n",
        "Unpacking the database",
        "Verifying restore",
        "Replacing the database",
    ] {
        case(&format!("SIGKILL to restore-sqlite at '{text}'"), || {
            change(&sandbox);
            let changed = sandbox.dump_sqlite(FILE);
            let mut running = call(&sandbox, "restore-sqlite").arg("--yes").arg(&file).spawn();
            running.await_log(text);
            running.signal("KILL");
            eprintln!("{}", running.wait());
            await_no_clients(&sandbox);
            let found = sandbox.dump_sqlite(FILE);
            let is_moved = sandbox.beside_n8n(&format!("test -e {FILE} || echo moved"));
            assert!(
                found == changed || found == before || !is_moved.is_empty(),
                "{text}: neither the old nor the new"
            );
            sandbox.locked("restore-all", &["--yes", "latest"]).assert_success();
            assert_same(&before, &sandbox.dump_sqlite(FILE));
            assert!(is_running(&sandbox), "{text}");
            assert_clean(&sandbox);
            sandbox.await_work();
        });
    }
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_in_n8ns_container() {
    let sandbox = on_sqlite("sqlite-leash", "A=1", HOME);
    // Large enough to be seen at work.
    sandbox.sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) \
         INSERT INTO execution_entity (bytes) SELECT randomblob(1000000) FROM n",
    );
    case("SIGKILL to backup-sqlite while the copy is made", || {
        let mut running = call(&sandbox, "backup-sqlite").spawn();
        running.await_that("a copy is begun", |_| {
            !sandbox.in_n8n("find /tmp -path '*/.n8n-backup*/copy'").is_empty()
        });
        running.signal("KILL");
        running.wait();
        let begun = Instant::now();
        while !sandbox.in_n8n("find /tmp -name '.n8n-backup*'").is_empty() {
            assert!(begun.elapsed().as_secs() < 20, "the copy was left");
        }
        assert!(sandbox.backups("sqlite").is_empty());
    });
    sandbox.locked("backup-sqlite", &[]).assert_success();
    assert_same(
        &sandbox.dump_sqlite(FILE),
        &sandbox.dump_backup(&sandbox.backup("sqlite")),
    );
    assert_clean(&sandbox);
}

#[test]
fn what_is_no_sound_database_of_n8n_is_refused_and_leaves_no_file() {
    let sandbox = on_sqlite("sqlite-bad", "IDLE=1", HOME);
    let refused = |why: &str, stall: &str| {
        case(&format!("a database that {why}"), || {
            let outcome = sandbox
                .call("backup-sqlite")
                .env("BACKUP_LOCK_FILE", sandbox.lock_file())
                .env("BACKUP_STALL_SECONDS", stall)
                .run();
            assert_eq!(outcome.code, Some(1), "{outcome}");
            assert!(outcome.stdout.contains(why), "{why}: {outcome}");
            assert!(outcome.stdout.contains("Hint: "), "{outcome}");
            assert!(sandbox.backups("sqlite").is_empty() && sandbox.leftovers("sqlite").is_empty());
            assert_eq!(sandbox.in_n8n("find /tmp /home/node/.n8n -name '.n8n-backup*'"), "");
        });
    };
    refused("cannot be opened", "60");
    sandbox.in_n8n(&format!("head -c 100000 /dev/urandom >{FILE}"));
    refused("is damaged, or is no database", "60");
    sandbox.in_n8n(&format!(": >{FILE}"));
    refused("is damaged, or is no database", "60");
    sandbox.sql("create table t (a)");
    refused("is not n8n", "60");
    sandbox.sql("create table workflow_entity (a text); create index i on workflow_entity (a); \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000) insert into workflow_entity select hex(randomblob(20)) from n");
    sandbox.in_n8n(&format!(
        "cp {FILE} /tmp/good; dd if=/dev/urandom of={FILE} bs=4096 seek=30 count=2 conv=notrunc status=none"
    ));
    refused("is damaged", "60");
    sandbox.in_n8n(&format!("cat /tmp/good >{FILE}"));
    // What only the proof of the copy finds.
    sandbox.sql(
        "create table broken (a check (a > 0)); pragma ignore_check_constraints = on; insert into broken values (-1)",
    );
    refused("CHECK constraint failed in broken", "60");
    sandbox.sql("drop table broken");
    // Somebody writes and does not end; readers wait in this mode.
    sandbox.docker(&[
        "exec",
        "-d",
        &sandbox.n8n(),
        "node",
        "-e",
        &format!("const {{DatabaseSync}}=require('node:sqlite');const db=new DatabaseSync('{FILE}');db.exec('begin exclusive');require('fs').writeFileSync('/tmp/locked','');setTimeout(()=>{{}},60000)"),
    ]);
    crate::common::await_true("it is not locked", || {
        !sandbox.in_n8n("find /tmp -name locked").is_empty()
    });
    refused("stays locked", "4");
    sandbox.in_n8n(
        "for p in /proc/[0-9]*; do grep -qa 'begin [e]xclusive' $p/cmdline && kill -KILL ${p#/proc/}; done; true",
    );
    let outcome = sandbox.locked("backup-sqlite", &[]);
    outcome.assert_success();
    assert!(outcome.stdout.contains("in the journal mode delete"), "{outcome}");
}

/// What is in memory is not made use of for a copy.
#[test]
fn a_database_that_has_no_room_twice_is_neither_copied_nor_replaced() {
    let sandbox = Sandbox::new("sqlite-room").containers().no_env_file().build();
    let home = sandbox.aside("home");
    let Some(_disk) = Small::disk("faults: no room for a database", &home, "12M") else {
        return;
    };
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    write_stack(
        &sandbox,
        "A=1",
        &format!("'{}:/home/node/.n8n']\n    tmpfs: ['/tmp'", home.display()),
    );
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    let file = backup_of(&sandbox);
    let script = "gzip -dc \"$1\" >\"$2.db\"; docker run --rm -i --network none --entrypoint node \"$3\" -e \
        'const fs = require(\"fs\"), f = \"/tmp/d\"; fs.writeFileSync(f, fs.readFileSync(0)); const { DatabaseSync } = require(\"node:sqlite\"); \
         const db = new DatabaseSync(f); db.exec(\"insert into execution_entity (bytes) values (randomblob(12000000))\"); db.close(); \
         fs.writeFileSync(1, fs.readFileSync(f))' <\"$2.db\" | gzip -1 >\"$2\"; rm \"$2.db\"";
    let large = sandbox.aside("n8n_20260101_000000.sqlite.gz");
    sh(script, &[file.as_os_str(), large.as_os_str(), n8n_image().as_ref()]);
    let state = || {
        sandbox.docker(&[
            "inspect",
            "--format",
            "{{.State.StartedAt}} {{.State.Status}}",
            &sandbox.n8n(),
        ])
    };
    let before = state();
    case("a volume too small for two databases", || {
        let outcome = restore(&sandbox, &large);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        let why = "Insufficient disk space for /home/node/.n8n of ";
        assert!(outcome.stdout.contains(why), "{outcome}");
        assert_eq!(state(), before);
        assert_clean(&sandbox);
    });
    case("room for n8n's data, and none for the database", || {
        sandbox.locked("backup-n8n", &[]).assert_success();
        let made = sandbox.backup("n8n");
        let kept = sandbox.aside(name(&made));
        fs::rename(&made, &kept).unwrap();
        let dir = sandbox.path("backups/n8n");
        let Some(_small) = Small::mount("faults: room for n8n's data", &dir, "3m") else {
            return;
        };
        let kept = kept.display().to_string();
        sandbox.locked("restore-n8n", &["--yes", &kept]).assert_success();
    });
    case("a disk too small for the copy", || {
        sandbox.sql("INSERT INTO execution_entity (bytes) VALUES (randomblob(5000000))");
        let outcome = sandbox.locked("backup-sqlite", &[]);
        assert_no_file(&sandbox, &outcome);
        assert!(outcome.stdout.contains("has no room for a copy"), "{outcome}");
        assert!(
            outcome.stdout.contains("a copy takes 5") && !outcome.stdout.contains(" 0 are free"),
            "{outcome}"
        );
    });
    sandbox.compose(&["down"]);
}

/// What n8n mounts is replaced together: a restore of the database in the home must not take the home's exchange for its
/// own, and finish that while the others have not been exchanged.
#[test]
fn a_killed_restore_of_n8ns_data_is_set_right_as_a_whole_by_one_of_the_database() {
    let sandbox = on_sqlite("sqlite-half", "A=1", &format!("{HOME}, './files:/files'"));
    let fill = |text: &str| sandbox.beside_n8n(&format!("echo {text} | tee /home/node/.n8n/mark >/files/mark"));
    let marks = || sandbox.beside_n8n("cat /home/node/.n8n/mark /files/mark");
    let before = sandbox.dump_sqlite(FILE);
    fill("saved");
    sandbox.locked("backup-all", &[]).assert_success();
    let [database, home] = ["sqlite", "n8n"].map(|kind| sandbox.backup(kind));
    for name in ["restore-sqlite", "restore-all"] {
        case(
            &format!("SIGKILL to restore-n8n after its first exchange, then {name}"),
            || {
                sandbox.await_work();
                change(&sandbox);
                fill("changed");
                let docker = sandbox.stand_in_docker(&format!(
                    "case \" $* \" in {EXCHANGES}) \"$real\" \"$@\"; kill -KILL \"$PPID\"; sleep 1; exit 1 ;; esac"
                ));
                let killed = call(&sandbox, "restore-n8n")
                    .arg("--yes")
                    .arg(&home)
                    .path_first(&docker)
                    .run();
                assert_eq!(marks(), "saved\nchanged\n", "{killed}");
                if name == "restore-sqlite" {
                    let outcome = restore(&sandbox, &database);
                    outcome.assert_success();
                    assert_eq!(marks(), "changed\nchanged\n", "{outcome}");
                    assert_same(&before, &sandbox.dump_sqlite(FILE));
                    assert!(!is_running(&sandbox), "{outcome}");
                    call(&sandbox, "restore-n8n")
                        .arg("--yes")
                        .arg(&home)
                        .run()
                        .assert_success();
                } else {
                    sandbox.locked(name, &["--yes", "latest"]).assert_success();
                }
                assert_eq!(marks(), "saved\nsaved\n");
                assert_same(&before, &sandbox.dump_sqlite(FILE));
                assert!(is_running(&sandbox), "{name}");
                assert_clean(&sandbox);
            },
        );
    }
}
