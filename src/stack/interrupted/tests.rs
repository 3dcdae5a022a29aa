use std::path::Path;

use super::*;
use crate::config::Config;
use crate::stack::pause::Pause;
use crate::stack::record::Entry;
use crate::testing::{executable, TempDir};

#[test]
fn what_is_started_while_a_step_is_undone_is_stopped_too() {
    let dir = TempDir::new();
    let script = r#"#!/bin/sh
cd "${0%/*}"
case "$*" in
stop*) echo "$1" >>calls; [ ! -e stays ] || exit 1; echo exited >status ;;
*StopTimeout*) echo 1 ;;
ps*) ;;
*) printf '[{"Id": "1", "Name": "/n8n-main", "State": {"Status": "%s", "StartedAt": "1"}}]' "$(cat status)" ;;
esac
"#;
    executable(&dir.path().join("docker"), script);
    let mut app = App::new(Config::of_text(dir.path(), Path::new(".env"), b"").unwrap());
    app.config.path = Some(dir.path().into());
    app.config.n8n_containers = vec!["n8n-main".to_owned()];
    fs::create_dir_all(app.store.root()).unwrap();
    let mut record = Record::default();
    let entry = Entry {
        started: "1".to_owned(),
        ..Entry::default()
    };
    record.containers.insert("n8n-main".to_owned(), entry);
    write(&app, &record).unwrap();
    let set = |status: &str| fs::write(dir.path().join("status"), status).unwrap();
    let calls = || fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
    for (before, meanwhile, wanted) in [
        ("exited", "exited", ""),
        ("running", "exited", "stop\n"),
        ("exited", "running", "stop\n"),
        ("running", "running", "stop\nstop\n"),
    ] {
        let _ = fs::remove_file(dir.path().join("calls"));
        set(before);
        let undo = || {
            set(meanwhile);
            Ok(())
        };
        undo_at_rest(&app, Journal::new("restore-n8n"), undo).unwrap();
        assert_eq!(calls(), wanted, "{before} {meanwhile}");
    }
    // What is put back is whole, also where what came meanwhile goes on.
    let stays = dir.path().join("stays");
    set("exited");
    let undo = || {
        set("running");
        fs::write(&stays, "").map_err(Into::into)
    };
    undo_at_rest(&app, Journal::new("restore-n8n"), undo).unwrap();
    let mut undone = false;
    let undo = || {
        undone = true;
        Ok(())
    };
    assert!(undo_at_rest(&app, Journal::new("restore-n8n"), undo).is_err() && !undone);
}

/// An engine that has the containers whose answers lie in files of their names and IDs, and notes what it is told to do.
const ENGINE: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit\necho \"$*\" >>calls\n\
    [ \"$1\" = inspect ] || exit 0\nwhile [ \"$1\" != -- ]; do shift; done\nshift\ncode=0 found=\n\
    for name; do if [ -e \"$name\" ]; then found=\"$found${found:+,}$(cat \"$name\")\"; \
    else echo \"Error: No such container: $name\" >&2; code=1; fi; done\necho \"[$found]\"; exit $code\n";

/// A project whose record is this one, and the directory of its engine.
fn app_with(dir: &Path, record: &str) -> App {
    executable(&dir.join("docker"), ENGINE);
    let mut app = App::new(Config::of_text(dir, Path::new(".env"), b"").unwrap());
    app.config.path = Some(dir.into());
    fs::create_dir_all(app.store.root()).unwrap();
    fs::write(path(&app), record).unwrap();
    app
}

/// A container that is there from now on, or is now called so.
fn add(dir: &Path, name: &str, id: &str, status: &str, started: &str) {
    let text = format!(
        r#"{{"Id": "{id}", "Name": "/{name}", "State": {{"Status": "{status}", "StartedAt": "{started}"}},
            "HostConfig": {{"RestartPolicy": {{"Name": "no"}}}}}}"#
    );
    [name, id]
        .iter()
        .for_each(|file| fs::write(dir.join(file), &text).unwrap());
}

#[test]
fn a_policy_is_given_back_to_the_very_container_that_was_held() {
    let dir = TempDir::new();
    let held = |name: &str, id: &str| format!("container {name} t runs\nid {name} {id}\npolicy {name} always\n");
    let earlier = "container n8n-early t runs\npolicy n8n-early always\n";
    let record = [held("n8n-main", "id-a"), held("n8n-worker", "id-b"), earlier.to_owned()].concat();
    let app = app_with(dir.path(), &record);
    add(dir.path(), "n8n-renamed", "id-a", "exited", "t");
    add(dir.path(), "n8n-worker", "id-new", "created", "0");
    add(dir.path(), "n8n-early", "id-c", "exited", "t");
    let mut record = read(&app).unwrap().unwrap();
    let mut left = Vec::new();
    let count = |record: &Record| {
        left.push(record.held().count());
        Ok(())
    };
    let_go(&app.docker().unwrap(), &mut record, count).unwrap();
    assert_eq!(left, [2, 1, 0]);
    let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
    let updates: Vec<&str> = calls.lines().filter(|call| call.starts_with("update")).collect();
    assert_eq!(
        updates,
        [
            "update --restart=always -- n8n-early",
            "update --restart=always -- id-a"
        ]
    );
}

#[test]
fn what_was_created_since_and_never_started_has_not_worked() {
    let record = "container n8n-main t runs\nid n8n-main id-a\ncontainer n8n-early t runs\nseen id-w t\n";
    let dir = TempDir::new();
    let app = app_with(dir.path(), record);
    let (record, docker) = (read(&app).unwrap().unwrap(), app.docker().unwrap());
    let rests = |name: &str, id: &str, status: &str, started: &str| {
        add(dir.path(), name, id, status, started);
        rests(&record, &docker.containers(&[id]).unwrap()[0])
    };
    assert!(rests("n8n-main", "id-a", "exited", "t") && !rests("n8n-main", "id-a", "exited", "u"));
    assert!(!rests("n8n-main", "id-a", "paused", "t"));
    // As Compose renames it while it creates another one.
    assert!(rests("0a_n8n-main", "id-a", "exited", "t") && !rests("0a_n8n-main", "id-a", "exited", "u"));
    assert!(rests("n8n-main", "id-b", "created", "0"));
    assert!(!rests("n8n-main", "id-b", "exited", "u") && !rests("n8n-main", "id-b", "running", "u"));
    // One that is none of those that were stopped.
    assert!(rests("n8n-other", "id-w", "exited", "t") && !rests("n8n-other", "id-w", "exited", "u"));
    assert!(rests("n8n-new", "id-x", "created", "0") && !rests("n8n-new", "id-x", "exited", "u"));
    // By a record of an earlier version.
    assert!(rests("n8n-early", "id-c", "exited", "t") && !rests("n8n-early", "id-c", "exited", "u"));
}

#[test]
fn an_n8n_that_has_not_worked_since_is_no_history_whatever_it_is_called() {
    let record = "container n8n-main t runs\nid n8n-main id-a\ncontainer n8n-worker t runs\nid n8n-worker id-b\n\
        seen id-a t\nseen id-b t\nseen id-w t\n";
    let dir = TempDir::new();
    let mut app = app_with(dir.path(), record);
    let record = read(&app).unwrap().unwrap();
    add(dir.path(), "n8n-main", "id-a", "exited", "t");
    let mut worked = |name: &str, id: &str, status: &str, started: &str| {
        add(dir.path(), name, id, status, started);
        app.config.n8n_containers = vec!["n8n-main".to_owned(), name.to_owned()];
        is_history(&app, &app.docker().unwrap(), &record).unwrap()
    };
    // One that is renamed, and one that rested all along and counts as n8n's since.
    for (name, id) in [("n8n-worker", "id-b"), ("n8n-w2", "id-b"), ("n8n-more", "id-w")] {
        assert!(!worked(name, id, "exited", "t"), "{name}");
        assert!(
            worked(name, id, "exited", "u") && worked(name, id, "running", "u"),
            "{name}"
        );
    }
    // One that is none of those.
    assert!(!worked("n8n-worker", "id-new", "created", "0") && worked("n8n-worker", "id-new", "exited", "t"));
}

#[test]
fn an_n8n_that_was_renamed_is_the_one_that_was_stopped() {
    let alone = "container n8n-main t runs\nid n8n-main id-a\npart redis\nbegun redis\n";
    let dir = TempDir::new();
    let mut app = app_with(dir.path(), alone);
    app.config.n8n_containers = vec!["n8n-old".to_owned()];
    add(dir.path(), "n8n-old", "id-a", "exited", "t");
    assert_eq!(unfinished(&app).unwrap(), Some(None));
    add(dir.path(), "n8n-old", "id-a", "exited", "u");
    assert_eq!(unfinished(&app).unwrap(), None);
    // One that nothing is known of has not worked while it rests.
    add(dir.path(), "n8n-old", "id-b", "exited", "u");
    assert_eq!(unfinished(&app).unwrap(), None);
    let record = read(&app).unwrap().unwrap();
    assert!(!is_history(&app, &app.docker().unwrap(), &record).unwrap());

    // As long as a worker rests, the restore is not forgotten.
    let queue = "container n8n-main t runs\nid n8n-main id-m\ncontainer n8n-worker t runs\nid n8n-worker id-w\n";
    fs::write(path(&app), queue).unwrap();
    app.config.n8n_containers = vec!["n8n-main".to_owned(), "n8n-w2".to_owned()];
    add(dir.path(), "n8n-main", "id-m", "running", "u");
    add(dir.path(), "n8n-w2", "id-w", "exited", "t");
    release(&app, Journal::new("backup-all")).unwrap();
    let text = interrupted(&app).unwrap().text;
    assert!(
        text.contains("has left stopped: n8n-worker. n8n was started since: "),
        "{text}"
    );
    add(dir.path(), "n8n-w2", "id-w", "running", "u");
    release(&app, Journal::new("backup-all")).unwrap();
    assert!(!path(&app).exists());
}

#[test]
fn what_is_restored_is_not_to_be_restored() {
    let dir = TempDir::new();
    let base = "container n8n-main t runs\nid n8n-main id-a\npoint 20260102_030405\npart postgres\npart redis\n";
    let app = app_with(dir.path(), base);
    let told = || interrupted(&app).map(|left| left.text).unwrap_or_default();
    assert!(
        told().contains("has left to be restored: postgres, redis. "),
        "{}",
        told()
    );
    fs::write(path(&app), [base, "done postgres\ndone redis\n"].concat()).unwrap();
    assert!(told().contains("has left n8n not started. "), "{}", told());
    // By whatever name.
    add(dir.path(), "n8n-renamed", "id-a", "exited", "t");
    assert!(told().contains("has left stopped: n8n-main. "), "{}", told());
}

#[test]
fn a_container_that_was_renamed_since_is_gone_on_with() {
    let dir = TempDir::new();
    for runs in [true, false] {
        let state = if runs { "runs" } else { "rests" };
        let base = format!(
            "container n8n-main t {state}\nid n8n-main id-a\npolicy n8n-main always\n\
             container redis t rests\nid redis id-r\npoint 20260102_030405\npart redis\npart n8n\ndone redis\n"
        );
        let mut app = app_with(dir.path(), &base);
        add(dir.path(), "n8n-old", "id-a", "exited", "t");
        add(dir.path(), "redis-old", "id-r", "running", "u");
        app.config.n8n_containers = vec!["n8n-old".to_owned()];
        let docker = app.docker().unwrap();
        let servers = ["redis-old".to_owned()];
        let mut pause = Pause::plan(&app, &docker, Journal::new("restore-all"), &servers).unwrap();
        pause.begin().unwrap();
        assert_eq!(pause.starts_n8n(), runs);
        let record = read(&app).unwrap().unwrap();
        let told = |name: &str| {
            record
                .containers
                .get(name)
                .map(|entry| (entry.runs, entry.policy.as_deref()))
        };
        assert_eq!(told("n8n-old"), Some((runs, Some("always"))));
        // The interrupted restore had started it, and an n8n that is started needs it.
        assert_eq!(told("redis-old"), Some((runs, None)));
        assert_eq!((record.containers.len(), record.done), (2, vec![Kind::Redis]));
    }
}

#[test]
fn what_was_started_for_a_restore_is_stopped_unless_n8n_runs() {
    let dir = TempDir::new();
    let calls = || fs::read_to_string(dir.path().join("calls")).unwrap();
    for (before, now, [stopped, runs]) in [
        ("exited", "exited", [true, false]),
        ("exited", "running", [false, true]),
        ("running", "running", [false, true]),
    ] {
        let mut app = app_with(dir.path(), "");
        fs::remove_file(path(&app)).unwrap();
        app.config.n8n_containers = vec!["n8n-main".to_owned()];
        add(dir.path(), "n8n-main", "id-a", before, "t");
        add(dir.path(), "redis", "id-r", "exited", "t");
        let docker = app.docker().unwrap();
        let servers = ["redis".to_owned()];
        let plan = || Pause::plan(&app, &docker, Journal::new("restore-all"), &servers).unwrap();
        let start = |pause: &mut Pause| {
            pause.start_temporarily("redis").unwrap();
            add(dir.path(), "redis", "id-r", "running", "u");
            add(dir.path(), "n8n-main", "id-a", now, "t");
        };
        // After a no, and while it goes on.
        let mut pause = plan();
        start(&mut pause);
        drop(pause);
        assert_eq!(calls().contains("stop"), stopped, "{before} {now}: {}", calls());
        add(dir.path(), "redis", "id-r", "exited", "t");
        let mut pause = plan();
        start(&mut pause);
        pause.begin().unwrap();
        assert_eq!(
            read(&app).unwrap().unwrap().containers["redis"].runs,
            runs,
            "{before} {now}"
        );
        fs::remove_file(dir.path().join("calls")).unwrap();
    }
}

#[test]
fn a_container_that_was_renamed_and_is_named_nowhere_keeps_its_policy() {
    let dir = TempDir::new();
    let base = "container n8n-main t runs\nid n8n-main id-a\npolicy n8n-main always\n";
    let mut app = app_with(dir.path(), base);
    add(dir.path(), "n8n-old", "id-a", "exited", "t");
    app.config.n8n_containers = vec!["n8n-main".to_owned()];
    let docker = app.docker().unwrap();
    let mut pause = Pause::plan(&app, &docker, Journal::new("restore-all"), &[]).unwrap();
    pause.begin().unwrap();
    let record = read(&app).unwrap().unwrap();
    assert_eq!(record.held().collect::<Vec<_>>(), [("n8n-old", "always")]);
    assert!(record.containers["n8n-old"].runs);
}

#[test]
fn a_container_whose_place_another_one_has_taken_is_not_started() {
    let dir = TempDir::new();
    let base = "container n8n-main t runs\nid n8n-main id-a\ncontainer redis t rests\nid redis id-r\n\
        point 20260102_030405\npart redis\n";
    let mut app = app_with(dir.path(), base);
    add(dir.path(), "n8n-old", "id-a", "exited", "t");
    add(dir.path(), "n8n-main", "id-new", "exited", "u");
    app.config.n8n_containers = vec!["n8n-main".to_owned(), "n8n-old".to_owned()];
    let docker = app.docker().unwrap();
    let mut pause = Pause::plan(&app, &docker, Journal::new("restore-all"), &[]).unwrap();
    pause.begin().unwrap();
    let record = read(&app).unwrap().unwrap();
    let runs = |name: &str| record.containers[name].runs;
    assert!(runs("n8n-main") && !runs("n8n-old"));
}

#[test]
fn an_n8n_that_was_started_and_stopped_again_during_a_restore_ends_none() {
    let point = Stamp::parse("20260102_030405");
    let dir = TempDir::new();
    for (started, half, done) in [
        ("t", "half restored: n8n. ", &[Kind::Redis][..]),
        ("u", "half restored: redis, n8n. ", &[]),
    ] {
        let mut app = app_with(dir.path(), "");
        fs::remove_file(path(&app)).unwrap();
        app.config.n8n_containers = vec!["n8n-main".to_owned()];
        add(dir.path(), "n8n-main", "id-a", "running", "t");
        let docker = app.docker().unwrap();
        let mut pause = Pause::plan(&app, &docker, Journal::new("restore-all"), &[]).unwrap();
        pause.begin().unwrap();
        let rest = |started: &str| add(dir.path(), "n8n-main", "id-a", "exited", started);
        rest("t");
        pause
            .resume(point.unwrap(), &[Kind::Redis, Kind::N8n], &[], "")
            .unwrap();
        pause.restore_part(Kind::Redis, || Ok(())).unwrap();
        let undone = pause.restore_part(Kind::N8n, || {
            rest(started);
            anyhow::bail!("n8n-main was started")
        });
        assert!(undone.is_err() && pause.stay_stopped());
        let assert_unfinished = || {
            assert_eq!(unfinished(&app).unwrap(), Some(point), "{started}");
            let text = interrupted(&app).unwrap().text;
            assert!(text.contains(half), "{text}");
            assert_eq!(read(&app).unwrap().unwrap().done, done);
        };
        assert_unfinished();
        // Nor during one of a part by itself.
        if started == "u" {
            let work = || {
                rest("v");
                Ok(())
            };
            crate::stack::pause::within(&app, Journal::new("restore-redis"), Kind::Redis, work).unwrap();
            assert_unfinished();
        }
        // Whoever starts it afterwards has given that up.
        rest("w");
        assert_eq!(unfinished(&app).unwrap(), None);
    }
}
