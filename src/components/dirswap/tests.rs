use super::*;
use crate::config::Config;
use crate::engine::Data;
use crate::testing::{executable, TempDir, STALL};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

/// Runs a step as the helper container does, with `tools` first on the PATH.
fn step(dir: &Path, verb: &str, tools: &Path) -> String {
    step_with(dir, verb, &[], tools)
}

fn step_with(dir: &Path, verb: &str, names: &[&str], tools: &Path) -> String {
    let path = std::env::var("PATH").unwrap();
    // A file, since what is killed leaves the program that says it is alive for a second more, with a pipe held open.
    let aside = TempDir::new();
    let output = aside.path().join("said");
    Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .arg(dir)
        .arg(verb)
        .args(names)
        .env("PATH", format!("{}:{path}", tools.display()))
        .stdout(fs::File::create(&output).unwrap())
        .status()
        .unwrap();
    fs::read_to_string(&output).unwrap().trim().to_owned()
}

/// A directory whose two files were exchanged for new ones.
fn exchanged() -> TempDir {
    let dir = TempDir::new();
    let write = |path: &str, text: &str| fs::write(dir.path().join(path), text).unwrap();
    write("a", "old");
    write("b", "old");
    step(dir.path(), "begin", Path::new("/nonexistent"));
    write(".n8n-backup-restore/new/a", "new");
    write(".n8n-backup-restore/new/b", "new");
    step(dir.path(), "exchange", Path::new("/nonexistent"));
    assert_eq!(step(dir.path(), "state", Path::new("/nonexistent")), "exchanged");
    dir
}

/// Has a step end at the `rm` that this stands in for, and the next run set right what is left. Gives what the files hold.
fn cut_short(verb: &str, rm: &str) -> Vec<String> {
    let (dir, tools) = (exchanged(), TempDir::new());
    let file = tools.path().join("rm");
    executable(&file, format!("#!/bin/sh\nPATH=${{PATH#*:}}\n{rm}\n"));
    step(dir.path(), verb, tools.path());
    let nothing = Path::new("/nonexistent");
    match step(dir.path(), "state", nothing).as_str() {
        "exchanged" => step(dir.path(), "finish", nothing),
        _ => step(dir.path(), "back", nothing),
    };
    assert_eq!(step(dir.path(), "state", nothing), "none");
    let read = |name| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    vec![read("a"), read("b")]
}

#[test]
fn a_step_that_is_cut_short_is_not_taken_for_another() {
    // Our directory goes entry by entry, and the marks need not go last.
    let part = "case $1 in -rf) rm -f .n8n-backup-restore/moved; kill -KILL $PPID ;; *) rm \"$@\" ;; esac";
    assert_eq!(cut_short("finish", part), ["new", "new"]);
    let first = "rm \"$@\"; kill -KILL $PPID";
    assert_eq!(cut_short("back", first), ["old", "old"]);
}

/// As with a shell that does not see an entry, since it cannot read its name.
#[test]
fn what_was_not_moved_is_never_removed() {
    let (dir, tools, nothing) = (TempDir::new(), TempDir::new(), Path::new("/nonexistent"));
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a"), "old").unwrap();
    step(dir.path(), "begin", nothing);
    for name in ["a", ".hidden"] {
        fs::write(at(".n8n-backup-restore/new").join(name), "new").unwrap();
    }
    let succeeds = |verb: &str, unseen: &str| {
        let mv = format!("#!/bin/sh\nPATH=${{PATH#*:}}\ncase \"$*\" in *'{unseen}'*) exit 0 ;; esac\nexec mv \"$@\"\n");
        executable(&tools.path().join("mv"), mv);
        let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
        let mut sh = Command::new("sh");
        sh.args(["-c", SCRIPT, "sh"])
            .arg(dir.path())
            .arg(verb)
            .env("PATH", path);
        sh.status().unwrap().success()
    };
    assert!(!succeeds("exchange", "/new/.hidden"));
    assert_eq!(step(dir.path(), "state", nothing), "broken");
    assert!(!succeeds("back", "/old/a"));
    assert_eq!(fs::read_to_string(at(".n8n-backup-restore/old/a")).unwrap(), "old");
    assert!(succeeds("back", "no such entry"));
    assert_eq!(fs::read_to_string(at("a")).unwrap(), "old");
    assert_eq!(step(dir.path(), "state", nothing), "none");
}

#[test]
fn directories_that_belong_together_are_all_old_or_all_new() {
    use State::{Broken, Exchanged, None, Staged};
    for (states, wanted) in [
        ([None, None], None),
        ([Staged, None], Staged),
        ([Staged, Staged], Staged),
        ([Broken, Staged], Broken),
        ([Exchanged, Staged], Broken),
        ([Exchanged, Broken], Broken),
        ([Exchanged, Exchanged], Exchanged),
        // Finishing, also where that was cut short; the second may have no part in it.
        ([None, Exchanged], Exchanged),
        ([Staged, Exchanged], Exchanged),
        ([None, Staged], Staged),
        ([Exchanged, None], Exchanged),
        // On the way back.
        ([Broken, Exchanged], Broken),
        ([Broken, Staged], Broken),
        ([Broken, None], Broken),
    ] {
        assert_eq!(combined(&states), wanted, "{states:?}");
    }
}

#[test]
fn a_database_stays_whatever_becomes_of_the_exchange() {
    let nothing = Path::new("/nonexistent");
    // Where a step ends: at its first moves, at the last ones, not at all.
    for (ends, wanted) in [(1, "old"), (3, "old"), (5, "old"), (7, "old"), (100, "new")] {
        let (dir, tools) = (TempDir::new(), TempDir::new());
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in [".n8n/db", ".n8n/db-wal", ".n8n/a", "b"] {
            write(name, "old");
        }
        step(dir.path(), "begin", nothing);
        step_with(dir.path(), "keep", &[".n8n/db", "none"], nothing);
        let begun = ".n8n/.n8n-backup-restore/begun";
        for name in [".n8n/db", ".n8n/db-shm", ".n8n/a", "b", "c", begun] {
            write(&format!(".n8n-backup-restore/new/{name}"), "new");
        }
        let mv = format!(
            "#!/bin/sh\nPATH=${{PATH#*:}}\necho >>{0}/count\n[ $(wc -l <{0}/count) -le {ends} ] || exec kill -KILL $PPID\nexec mv \"$@\"\n",
            tools.path().display()
        );
        let file = tools.path().join("mv");
        executable(&file, mv);
        step(dir.path(), "exchange", tools.path());
        match step(dir.path(), "state", nothing).as_str() {
            "exchanged" => step(dir.path(), "finish", nothing),
            _ => step(dir.path(), "back", nothing),
        };
        let read = |name| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let found = [".n8n/db", ".n8n/db-wal", ".n8n/db-shm", ".n8n/a", "b"].map(read);
        assert_eq!(found, ["old", "old", "", wanted, wanted], "{ends}");
        assert_eq!(read("c").is_empty(), wanted == "old", "{ends}");
        assert_eq!(read(begun), "", "{ends}");
        assert_eq!(step(dir.path(), "state", nothing), "none");
    }
}

#[test]
fn an_entry_that_has_no_part_in_it_stays_whatever_becomes_of_the_exchange() {
    let nothing = Path::new("/nonexistent");
    for (ends, wanted) in [(1, "old"), (2, "old"), (3, "old"), (100, "new")] {
        let (dir, tools) = (TempDir::new(), TempDir::new());
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap_or_default();
        for name in ["the home/config", "a", "b"] {
            write(name, "old");
        }
        step(dir.path(), "begin", nothing);
        step_with(dir.path(), "stay", &["the home"], nothing);
        for name in ["a", "b"] {
            write(&format!(".n8n-backup-restore/new/{name}"), "new");
        }
        let file = tools.path().join("mv");
        let count = tools.path().join("count").display().to_string();
        let mv = format!(
            "#!/bin/sh\nPATH=${{PATH#*:}}\necho >>{count}\nmv \"$@\" || exit\n\
             [ $(wc -l <{count}) -ne {ends} ] || kill -KILL $PPID\n"
        );
        executable(&file, mv);
        step(dir.path(), "exchange", tools.path());
        assert_eq!(read("the home/config"), "old", "{ends}");
        // As by n8n that somebody started on it meanwhile.
        write("the home/config", "live");
        match step(dir.path(), "state", nothing).as_str() {
            "exchanged" => step(dir.path(), "finish", nothing),
            _ => step(dir.path(), "back", nothing),
        };
        assert_eq!(read("the home/config"), "live", "{ends}");
        assert_eq!([read("a"), read("b")], [wanted; 2], "{ends}");
        assert_eq!(step(dir.path(), "state", nothing), "none");
    }
}

#[test]
fn a_database_that_is_to_be_kept_is_kept_by_the_run_that_finishes() {
    let nothing = Path::new("/nonexistent");
    for cut_short in [false, true] {
        let (dir, tools) = (TempDir::new(), TempDir::new());
        let write = |path: &str, text: &str| fs::write(dir.path().join(path), text).unwrap();
        write("db", "old");
        write("db-wal", "old");
        step_with(dir.path(), "begin", &["db", "db-wal", "db-shm"], nothing);
        step_with(dir.path(), "old_as", &["kept db"], nothing);
        write(".n8n-backup-restore/new/db", "new");
        step(dir.path(), "exchange", nothing);
        if cut_short {
            let file = tools.path().join("mv");
            executable(&file, "#!/bin/sh\nPATH=${PATH#*:}\nmv \"$@\"\nkill -KILL $PPID\n");
            step(dir.path(), "finish", tools.path());
        }
        assert_eq!(step(dir.path(), "state", nothing), "exchanged");
        step(dir.path(), "finish", nothing);
        let read = |name| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let found = ["db", "db-wal", "kept db", "kept db-wal"].map(read);
        assert_eq!(found, ["new", "", "old", "old"], "{cut_short}");
        assert_eq!(step(dir.path(), "state", nothing), "none");
    }
}

#[test]
fn what_was_made_in_a_half_exchanged_place_is_kept() {
    let nothing = Path::new("/nonexistent");
    let names = ["db", "db-wal", "db-shm", "db-journal"];
    // Before the mark that all is moved, and after it.
    for (moved, names) in [(false, &names[..]), (true, &names), (false, &[]), (true, &[])] {
        let dir = TempDir::new();
        let write = |path: &str, text: &str| fs::write(dir.path().join(path), text).unwrap();
        step_with(dir.path(), "begin", names, nothing);
        write(".n8n-backup-restore/begun", "");
        write(".n8n-backup-restore/new/db", "new");
        write(".n8n-backup-restore/old/db", "old");
        if moved {
            write(".n8n-backup-restore/moved", "");
        }
        for name in ["db", "db-wal", "db-shm"] {
            write(name, "made since");
        }
        assert_eq!(step(dir.path(), "state", nothing), "broken");
        let said = step(dir.path(), "back", nothing);
        let said: Vec<&str> = said.lines().collect();
        let kept = said.first().copied().unwrap_or_default();
        assert!(kept.starts_with("db.before-restore-2"), "{said:?}");
        assert_eq!(said, [kept, &format!("{kept}-shm"), &format!("{kept}-wal")]);
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        assert_eq!(
            [read("db"), read("db-wal"), read("db-shm")],
            ["old", "", ""],
            "{moved} {names:?}"
        );
        for name in said {
            assert_eq!(read(name), "made since", "{moved} {names:?}");
        }
        assert_eq!(step(dir.path(), "state", nothing), "none");
    }
}

#[test]
fn what_is_to_be_put_back_is_not_taken_for_exchanged() {
    let (dir, nothing) = (exchanged(), Path::new("/nonexistent"));
    step(dir.path(), "turn", nothing);
    assert_eq!(step(dir.path(), "state", nothing), "broken");
    step(dir.path(), "back", nothing);
    step(dir.path(), "turn", nothing);
    assert_eq!(step(dir.path(), "state", nothing), "none");
}

#[test]
fn what_was_written_to_what_is_new_is_kept() {
    let nothing = Path::new("/nonexistent");
    let dir = TempDir::new();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for name in ["a", "b", "storage/x"] {
        write(name, "old");
    }
    step(dir.path(), "begin", nothing);
    for name in ["a", "b", "storage/x", "db", "idle"] {
        write(&format!(".n8n-backup-restore/new/{name}"), "new");
    }
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    let idle = fs::File::open(dir.path().join(".n8n-backup-restore/new/idle")).unwrap();
    idle.set_modified(ahead).unwrap();
    step(dir.path(), "exchange", nothing);
    thread::sleep(Duration::from_millis(1100));
    for name in ["b", "storage/y", "db-wal", "made"] {
        write(name, "since");
    }
    let said = step(dir.path(), "back", nothing);
    let said: Vec<&str> = said.lines().collect();
    let stamp = said[0].strip_prefix("b.before-restore-").unwrap();
    let kept = |name: &str| format!("{name}.before-restore-{stamp}");
    assert_eq!(
        said,
        [
            kept("b"),
            kept("db"),
            kept("db") + "-wal",
            kept("made"),
            kept("storage")
        ]
    );
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    assert_eq!(
        ["a", "b", "storage/x", "db", "idle"].map(read),
        ["old", "old", "old", "", ""]
    );
    assert_eq!(read(&(kept("storage") + "/y")), "since");
    assert_eq!(step(dir.path(), "state", nothing), "none");
}

#[test]
fn what_is_no_directory_holds_no_exchange() {
    let dir = TempDir::new();
    let file = dir.path().join("redis.conf");
    fs::write(&file, "").unwrap();
    for place in [file, dir.path().join("gone")] {
        assert_eq!(step(&place, "state", dir.path()), "none");
        for verb in ["turn", "back"] {
            let mut sh = Command::new("sh");
            let done = sh.args(["-c", SCRIPT, "sh"]).arg(&place).arg(verb).status().unwrap();
            assert!(done.success(), "{verb} {}", place.display());
        }
    }
}

/// A restore of the database names what it exchanges in n8n's home; one of n8n's data is to be ended in all of them.
#[test]
fn an_exchange_of_a_whole_directory_is_told_from_one_of_names_in_it() {
    let nothing = Path::new("/nonexistent");
    let whole = |dir: &Path| {
        let output = Command::new("sh").args(["-c", WHOLE, "sh"]).arg(dir).output().unwrap();
        assert!(output.status.success());
        !output.stdout.is_empty()
    };
    let dir = TempDir::new();
    for (names, wanted) in [(&["a"][..], false), (&[], true)] {
        step_with(dir.path(), "begin", names, nothing);
        // What was not begun is nobody's.
        assert!(!whole(dir.path()));
        fs::write(dir.path().join(".n8n-backup-restore/new/a"), "new").unwrap();
        step(dir.path(), "exchange", nothing);
        assert_eq!(whole(dir.path()), wanted);
        step(dir.path(), "turn", nothing);
        assert_eq!(whole(dir.path()), wanted);
        step(dir.path(), "back", nothing);
        assert!(!whole(dir.path()));
    }
}

#[test]
fn a_dry_run_leaves_the_helper_of_a_restore_at_work_alone() {
    let dir = TempDir::new();
    let (program, log) = (dir.path().join("docker"), dir.path().join("log"));
    let script = format!("#!/bin/sh\necho \"$*\" >>'{}'\necho at-work\n", log.display());
    executable(&program, script);
    let app = App::new(Config::without_env_file(dir.path()).unwrap());
    let docker = Docker::locate(Some(dir.path().into()), STALL).unwrap();
    for (dry_run, sweeps) in [(true, false), (false, true)] {
        let _ = fs::remove_file(&log);
        let start = |labels: &[Label<'_>]| docker.helper_container(labels, "alpine", Data::Mounts(&[]));
        let guard = helper_container(&app, &docker, Kind::N8n, dry_run, start).unwrap();
        let log = fs::read_to_string(&log).unwrap();
        assert_eq!(log.contains("rm --force --volumes -- at-work"), sweeps, "{log}");
        // Nor does another run take it for a leftover of a restore.
        assert_eq!(log.contains("n8n-backup.restore="), !dry_run, "{log}");
        drop(guard);
    }
}
