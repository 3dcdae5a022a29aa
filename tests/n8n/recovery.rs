//! Backup, drill, loss and restore of a stack with a real n8n.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::point::{edit, encrypt, fact, manifest};
use crate::common::{await_true, n8n, sh, Outcome, Sandbox};
use crate::stack::{self, answers, scratch, start, state};
use crate::workflows;

#[track_caller]
fn assert_says(outcome: &Outcome, text: &str) {
    assert!(outcome.stdout.contains(text), "'{text}' expected: {outcome}");
}

/// Runs a script that starts n8n, which takes minutes on a busy machine.
fn long(sandbox: &Sandbox, name: &str, args: &[&str]) -> Outcome {
    sandbox.call(name).args(args).limit(Duration::from_secs(900)).run()
}

#[test]
fn a_real_stack_is_drilled_lost_and_restored() {
    let sandbox = stack::created("nreal");
    start(&sandbox);
    sandbox.run("backup-all", &[]).assert_success();

    let migrations = || sandbox.psql("SELECT count(*), max(name) FROM migrations");
    let (before, seen) = (state(&sandbox), migrations());
    let drill = long(&sandbox, "test-recovery", &["--full"]);
    drill.assert_success();
    eprintln!("the drill took {:.1?}", drill.took);
    for text in [
        "SUCCESS] ",
        "Decrypted 4 of 4 credentials with the backed-up key",
        "n8n 2.40.7 opened 4 of 4 credentials",
        "n8n 2.40.7 started from the backup in ",
        "The recovered database had all 270 migrations of n8n 2.40.7",
        "Recovery test passed: full of recovery point",
    ] {
        assert_says(&drill, text);
    }
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("authenticated 4 of 4"));
    assert_eq!(fact(&sandbox, "drill.opened").as_deref(), Some("4 of 4 by n8n 2.40.7"));
    assert!(fact(&sandbox, "drill.started").unwrap().starts_with("n8n 2.40.7 in "));
    assert_eq!((state(&sandbox), migrations()), (before, seen));
    assert!(answers(&sandbox));

    // Its database is replaced while it works: it refuses for a while, and comes back by itself.
    sandbox.set("BACKUP_METRICS_FILE", "n8n.prom");
    let file = sandbox.backup("postgres").display().to_string();
    let refused = refused_while(&sandbox, || {
        sandbox.run("restore-postgres", &["--yes", &file]).assert_success();
    });
    eprintln!("n8n refused for {refused} ms while its database was replaced");
    assert!(refused < 60_000, "{refused}");
    let before = state(&sandbox);
    sandbox
        .run("restore-postgres", &["--yes", "--restart-n8n", &file])
        .assert_success();
    assert_ne!(before, state(&sandbox));
    start(&sandbox);
    sandbox.run("backup-all", &[]).assert_success();
    let metrics = fs::read_to_string(sandbox.path("n8n.prom")).unwrap();
    for proof in [
        "proof=\"loaded\"}",
        "proof=\"compared\"}",
        "proof=\"key\"}",
        "proof=\"opened\",n8n=\"2.40.7\"}",
        "proof=\"started\",n8n=\"2.40.7\"}",
    ] {
        assert!(metrics.contains(proof), "{proof}: {metrics}");
    }

    // Everything is lost but the backups.
    for name in ["n8n-main", "n8n-worker"] {
        sandbox.docker(&["stop", &sandbox.container(name)]);
    }
    sandbox.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    sandbox.redis(&["flushall"]);
    sandbox.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &format!("{}:/v", sandbox.volume()),
        "n8n-backup-test/busybox:1",
        "sh",
        "-c",
        "rm -rf /v/* /v/.[!.]*",
    ]);
    sandbox.run("restore-all", &["latest", "--yes"]).assert_success();
    start(&sandbox);
    workflows::come_back(&sandbox);
    workflows::start_none(&sandbox);
}

/// For how many milliseconds n8n refuses while `work` goes on.
fn refused_while(sandbox: &Sandbox, work: impl FnOnce()) -> u64 {
    const POLL: &str = "let refused = 0, ready = 0; (async () => {
      for (let then = Date.now(); ; ) {
        await new Promise((next) => setTimeout(next, 40));
        const ask = fetch('http://127.0.0.1:5999/healthz/readiness', { signal: AbortSignal.timeout(9000) });
        const status = await ask.then((answer) => answer.status, () => 0), now = Date.now();
        if (status === 200) { if (ended && now - ended > 5000 && ++ready > 5) break; } else { refused += now - then; ready = 0; }
        then = now;
      }
      console.log(refused); process.exit();
    })();
    let ended; process.stdin.on('end', () => { ended = Date.now(); }).resume();";
    let main = sandbox.container("n8n-main");
    let mut poll = Command::new("docker")
        .args(["exec", "-i", &main, "node", "-e", POLL])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(1));
    work();
    drop(poll.stdin.take());
    let output = poll.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

#[test]
fn an_older_n8n_is_not_given_newer_data() {
    let sandbox = stack::created("nolder");
    sandbox.run("backup-all", &[]).assert_success();
    edit(&sandbox, |text| {
        text.replace(
            &format!("# n8n.version.{}: 2.40.7", sandbox.container("n8n-main")),
            &format!("# n8n.version.{}: 2.41.0", sandbox.container("n8n-main")),
        )
    });
    assert!(fact(&sandbox, "n8n.migrations").unwrap().starts_with("270 "));
    let refused = sandbox.run("restore-all", &["latest", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert_says(&refused, "is n8n 2.40.7, and the recovery point was made by n8n 2.41.0");
    assert_says(&refused, "add --force");
    let older = "is n8n 2.40.7, and the recovery point was made by n8n 2.41.0";
    let rehearsal = sandbox.run("rehearse-update", &[stack::image()]);
    assert_eq!(rehearsal.code, Some(2), "{rehearsal}");
    assert_says(&rehearsal, older);
    let drill = long(&sandbox, "test-recovery", &["--full"]);
    drill.assert_success();
    assert_says(&drill, "n8n was not started from the backup");
    assert_says(&drill, older);
    assert_eq!(fact(&sandbox, "drill.started"), None);
    sandbox
        .run("restore-all", &["latest", "--yes", "--force"])
        .assert_success();
}

#[test]
fn a_migration_is_told_and_one_that_may_not_be_made_fails() {
    let sandbox = stack::created("nmigrates");
    // As the version before the newest migration left it, which makes an index.
    let index = sandbox.psql("SELECT indexname FROM pg_indexes WHERE tablename = 'instance_ai_threads' AND indexdef LIKE '%\"updatedAt\", id)'");
    sandbox.psql(&format!(
        "DROP INDEX \"{}\"; DELETE FROM migrations WHERE id = 270",
        index.trim()
    ));
    // One credential was lost long ago.
    let lost = encrypt("lost", "{}");
    sandbox.psql(&format!(
        "UPDATE credentials_entity SET data = '{lost}' WHERE name = 'Old basic'"
    ));
    sandbox.set("BACKUP_DEAD_CREDENTIALS", "JTiXbvzr5Qy3YACo");
    sandbox.run("backup-all", &[]).assert_success();

    let missing = sandbox.run("rehearse-update", &["nobody/n8n:0"]);
    assert_eq!(missing.code, Some(2), "{missing}");
    assert_says(&missing, "Image nobody/n8n:0 is not on this host");
    let rehearsal = long(
        &sandbox,
        "rehearse-update",
        &[stack::image(), "--postgres-image", "n8n-backup-test/postgres:1"],
    );
    rehearsal.assert_success();
    for text in [
        "Decrypted 3 of 4 credentials with the backed-up key",
        "n8n 2.40.7 opened 3 of 3 credentials",
        "n8n 2.40.7 migrated the recovered database from 269 to 270 migrations",
        "n8n 2.40.7 started from the backup in ",
    ] {
        assert_says(&rehearsal, text);
    }
    assert_eq!(fact(&sandbox, "drill"), None);
    assert!(fact(&sandbox, "drill.rehearsed").unwrap().starts_with(stack::image()));

    // n8n's role may use the tables, and does not own them.
    sandbox.psql(
        "CREATE ROLE app LOGIN; GRANT ALL ON DATABASE n8n TO app; GRANT ALL ON SCHEMA public TO app; \
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app",
    );
    recreate(&sandbox, stack::image(), &["-e", "DB_POSTGRESDB_USER=app"]);
    fs::remove_file(manifest(&sandbox)).unwrap();
    thread::sleep(Duration::from_secs(1));
    sandbox.run("backup-all", &[]).assert_success();
    // n8n tells of the failure, and goes on waiting for nothing.
    sandbox.set("BACKUP_DRILL_N8N_SECONDS", "60");
    let drill = long(&sandbox, "test-recovery", &["--full"]);
    assert_eq!(drill.code, Some(1), "{drill}");
    assert_says(&drill, "must be owner of table instance_ai_threads");
}

/// Removes n8n's containers, and their image.
fn remove_n8n(sandbox: &Sandbox, image: &str) {
    let names = ["n8n-main", "n8n-worker"].map(|name| sandbox.container(name));
    sandbox.docker(&["rm", "-fv", &names[0], &names[1]]);
    sandbox.docker(&["rmi", image]);
}

/// Makes n8n's containers again.
fn recreate(sandbox: &Sandbox, image: &str, options: &[&str]) {
    for name in ["n8n-main", "n8n-worker"] {
        sandbox.docker(&["rm", "-fv", &sandbox.container(name)]);
    }
    stack::create(sandbox, image, options);
}

/// In place of n8n: behaves as `MODE` says.
const STAND_IN: &str = r#"#!/bin/sh
[ -r "$HOME/.n8n/config" ] && [ ! -e "$HOME/.n8n/.n8n-backup-mounts" ] || { echo "not n8n's home alone"; exit 9; }
case $1 in
  export:credentials)
    echo "the first line of n8n"
    [ "$MODE" != dies ] || exit 7
    [ "$HEAP" != export ] || exit 134
    [ "$MODE" != hangs ] || exec sleep 3600
    for argument; do case $argument in --output=*) echo "[1, 2, 3$MORE]" >"${argument#--output=}" ;; esac; done
    ;;
  *)
    echo 'Activation of workflow "Bot" (x1) did fail with error: "getaddrinfo"'
    echo "the last line of n8n"
    [ "$MODE" != exits ] || exit 3
    [ "$HEAP" != serve ] || exit 134
    answer="(_, to) => { to.statusCode = $STATUS; to.end('{}'); $THEN }"
    [ -z "$STATUS" ] || exec node -e "require('http').createServer($answer).listen(5678, '127.0.0.1')"
    exec sleep 3600
    ;;
esac
"#;

/// Makes an image of the stand-in, which goes with the returned name.
fn stand_in(sandbox: &Sandbox) -> String {
    let (image, container) = (
        format!("{}/n8n", sandbox.prefix()),
        format!("{}-make", sandbox.prefix()),
    );
    let dir = sandbox.aside("image");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("n8n"), STAND_IN).unwrap();
    sh(
        "chmod 755 \"$1/n8n\" && docker create --name \"$2\" --network none \"$3\" >&2 && \
         tar -C \"$1\" --owner=0 --group=0 -c n8n | docker cp - \"$2:/usr/local/bin\" && docker commit \"$2\" \"$4\" && docker rm -v \"$2\"",
        &[dir.as_os_str(), container.as_ref(), stack::image().as_ref(), image.as_ref()],
    );
    image
}

#[test]
fn a_point_knows_its_n8n_when_its_containers_are_gone() {
    let sandbox = stack::created("ngone");
    // A home without n8n's file, as where the key has always been in `.env`; and little memory is free.
    sh(
        "docker run --rm --network none -v \"$1:/v\" n8n-backup-test/busybox:1 rm /v/config",
        &[sandbox.volume().as_ref()],
    );
    sandbox.set("N8N_ENCRYPTION_KEY", n8n::KEY);
    sandbox.run("backup-all", &[]).assert_success();
    for name in ["n8n-main", "n8n-worker"] {
        sandbox.docker(&["rm", "-fv", &sandbox.container(name)]);
    }
    let docker = sandbox
        .stand_in_docker("case \" $* \" in *' cat /proc/meminfo '*) echo 'MemAvailable: 500000 kB'; exit ;; esac");
    let drill = sandbox.call("test-recovery").arg("--full").path_first(&docker).run();
    drill.assert_success();
    assert_says(&drill, "WARN");
    assert_says(
        &drill,
        "n8n was not started from the backup: 489MiB of memory are free, and it needs 1.0GiB",
    );
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("authenticated 4 of 4"));
    assert_eq!(fact(&sandbox, "drill.started"), None);
    let rehearsal = sandbox
        .call("rehearse-update")
        .arg(stack::image())
        .path_first(&docker)
        .run();
    assert_eq!(rehearsal.code, Some(2), "{rehearsal}");

    let drill = long(&sandbox, "test-recovery", &["--full"]);
    drill.assert_success();
    assert_says(&drill, "n8n 2.40.7 opened 4 of 4 credentials");
    assert!(fact(&sandbox, "drill.started").unwrap().starts_with("n8n 2.40.7 in "));
}

#[test]
fn the_home_of_an_n8n_that_runs_as_another_user_is_read() {
    let sandbox = stack::created("nowner");
    let image = stand_in(&sandbox);
    let stands_in = [
        "-e",
        "N8N_USER_FOLDER=/home/node",
        "-e",
        "MORE=, 4",
        "-e",
        "STATUS=200",
        "-e",
        "THEN=console.log('Editor is now accessible via:')",
    ];
    for user in ["1026:100", "0:0"] {
        sandbox.in_volume(&sandbox.volume(), &format!("chown -R {user} . && chmod 600 config"));
        recreate(&sandbox, &image, &[&["--user", user][..], &stands_in].concat());
        thread::sleep(Duration::from_secs(1));
        sandbox.run("backup-all", &[]).assert_success();
        let drill = long(&sandbox, "test-recovery", &["--full"]);
        drill.assert_success();
        assert_says(&drill, "n8n 2.40.7 started from the backup in ");
    }
    remove_n8n(&sandbox, &image);
}

#[test]
fn an_n8n_that_does_not_open_or_start_fails_the_drill() {
    let sandbox = stack::created("nfails");
    let image = stand_in(&sandbox);
    sandbox.set("BACKUP_DRILL_N8N_SECONDS", "4");
    // What n8n mounts besides is in the archive.
    let files = format!("{}_files", sandbox.prefix());
    sandbox.make_volume(&files);
    sandbox.in_volume(&files, "echo something >file");
    recreate(&sandbox, &image, &["-v", &format!("{files}:/files")]);
    sandbox.run("backup-all", &[]).assert_success();
    let members = sh("tar -tzf \"$1\"", &[sandbox.backup("n8n").as_os_str()]);
    assert!(members.contains(".n8n-backup-mounts/"), "{members}");
    for (options, reasons) in [
        (&[][..], &["n8n 2.40.7 opened 3 of 4 credentials"][..]),
        (
            &["-e", "MODE=dies"],
            &[
                "n8n 2.40.7 did not open the credentials",
                "exit code 7",
                "the first line of n8n",
            ],
        ),
        (
            &["-e", "MODE=hangs"],
            &["n8n 2.40.7 did not open the credentials", "the first line of n8n"],
        ),
        (
            &["-e", "MORE=, 4"],
            &[
                "n8n 2.40.7 did not start from the backup",
                "it was not ready after 4 s",
                "the last line of n8n",
            ],
        ),
        (
            &["-e", "MORE=, 4", "-e", "MODE=exits"],
            &[
                "n8n 2.40.7 did not start from the backup",
                "exit code 3",
                "the last line of n8n",
            ],
        ),
    ] {
        recreate(&sandbox, &image, options);
        let drill = long(&sandbox, "test-recovery", &["--full"]);
        assert_eq!(drill.code, Some(1), "{drill}");
        reasons.iter().for_each(|reason| assert_says(&drill, reason));
        assert!(fact(&sandbox, "drill").unwrap().ends_with(": start"));
    }

    // It answers, and ends before it says that it has started.
    sandbox.set("BACKUP_DRILL_N8N_SECONDS", "120");
    let up = |status: &str, then: &str| {
        let (status, then) = (format!("STATUS={status}"), format!("THEN={then}"));
        recreate(&sandbox, &image, &["-e", "MORE=, 4", "-e", &status, "-e", &then]);
        long(&sandbox, "test-recovery", &["--full"])
    };
    let drill = up("200", "setTimeout(() => process.exit(3), 1000)");
    assert_eq!(drill.code, Some(1), "{drill}");
    assert_says(&drill, "n8n 2.40.7 did not start from the backup");
    assert_says(&drill, "exit code 3");
    // As an n8n that does not know the address it is asked for.
    let drill = up("404", "console.log('Editor is now accessible via:')");
    drill.assert_success();
    assert_says(&drill, "n8n 2.40.7 started from the backup in ");

    // As one that runs out of its memory: that says nothing of the backup, which has just passed.
    for mode in ["export", "serve"] {
        recreate(&sandbox, &image, &["-e", "MORE=, 4", "-e", &format!("HEAP={mode}")]);
        let drill = long(&sandbox, "test-recovery", &["--full"]);
        assert_eq!(drill.code, Some(2), "{drill}");
        assert_says(&drill, "give it more by BACKUP_DRILL_N8N_MEMORY");
        assert!(fact(&sandbox, "drill").unwrap().starts_with("passed full"));
    }

    // What is no n8n has rehearsed no update.
    let rehearsal = long(&sandbox, "rehearse-update", &["n8n-backup-test/postgres:1"]);
    assert_eq!(rehearsal.code, Some(2), "{rehearsal}");
    assert_says(&rehearsal, "image n8n-backup-test/postgres:1 holds no n8n");
    assert_eq!(fact(&sandbox, "drill.rehearsed"), None);

    // Ended at each step: nothing of it stays, at the latest once the engine is asked again.
    sandbox.set("BACKUP_DRILL_N8N_SECONDS", "600");
    recreate(&sandbox, &image, &["-e", "MORE=, 4"]);
    for (step, pattern, signal) in [
        ("n8n's container is made", "*' create '*'/.n8n '*", "KILL"),
        ("its home is unpacked", "*'/home/node/.n8n 0 '*", "INT"),
        ("it gets its environment", "*/environment*", "KILL"),
        ("it opens the credentials", "*export:credentials*", "INT"),
        ("it starts", "*'exec n8n'*", "KILL"),
    ] {
        let gate = sandbox.gate();
        let docker = sandbox.stand_in_docker(&format!("case \" $* \" in {pattern}) {}; exit 1 ;; esac", gate.wait()));
        let mut run = sandbox.call("test-recovery").arg("--full").path_first(&docker).spawn();
        run.await_that(step, |_| gate.is_reached());
        assert!(!scratch(&sandbox).is_empty(), "{step}");
        let volumes = sandbox.docker(&["volume", "ls", "-q", "--filter", "dangling=false"]);
        let of = |id: &str| sandbox.docker(&["inspect", "--format", "{{range .Mounts}}{{println .Name}}{{end}}", id]);
        let ours: Vec<String> = scratch(&sandbox).lines().map(of).collect();
        let ours: Vec<String> = ours.concat().split_whitespace().map(str::to_owned).collect();
        assert!(
            !ours.is_empty() && ours.iter().all(|name| volumes.contains(name)),
            "{step}"
        );
        run.signal(signal);
        let outcome = run.wait();
        gate.open();
        assert_ne!(outcome.code, Some(0), "{step}: {outcome}");
        sandbox.run("backup-redis", &[]).assert_success();
        await_true(&format!("containers stay when {step} ({signal})"), || {
            scratch(&sandbox).is_empty()
        });
        await_true(&format!("volumes stay when {step} ({signal})"), || {
            let there = sandbox.docker(&["volume", "ls", "-q"]);
            ours.iter().all(|name| !there.contains(name))
        });
    }
    remove_n8n(&sandbox, &image);
}
