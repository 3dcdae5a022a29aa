//! A run that does not come to its end, whatever ends it, is reported to those who watch.

use std::fs::{self, File};
use std::process::Command;

use crate::common::servers::{next, serve};
use crate::common::{await_true, output, script, skip, Sandbox};

/// Every process that `pid` has started, and what those have started.
fn descendants(pid: u32) -> Vec<u32> {
    let parent = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let mut found = vec![pid];
    let mut known = 0;
    while known < found.len() {
        known = found.len();
        for item in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(child) = item.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let stat = fs::read_to_string(item.path().join("stat")).unwrap_or_default();
            if parent(&stat).is_some_and(|parent| found.contains(&parent)) && !found.contains(&child) {
                found.push(child);
            }
        }
    }
    found.split_off(1)
}

/// Some of them may have ended meanwhile.
fn kill(signal: &str, pids: &[u32]) {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal]).args(pids.iter().map(|pid| pid.to_string()));
    output(kill);
}

/// A project whose runs stand still before the first container is looked at, with every channel on.
fn watched(name: &'static str) -> Sandbox {
    let sandbox = Sandbox::new(name).build();
    sandbox.set("BACKUP_METRICS_FILE", "n8n.prom");
    sandbox.set("BACKUP_NOTIFY_COMMAND", "./hook");
    sandbox
}

/// A program that nohup has started hands that on to all that it starts.
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_run_that_is_killed_is_reported() {
    let sandbox = watched("alarm");
    for (signal, to_all) in [
        ("KILL", false),
        ("TERM", false),
        ("INT", false),
        ("HUP", false),
        // As a service manager does, and a host that shuts down.
        ("TERM", true),
        ("HUP", true),
    ] {
        let case = format!("SIG{signal}{}", if to_all { " to all" } else { "" });
        if signal == "HUP" && hangup_is_ignored() {
            skip(&format!("alarm: {case}"), "it is ignored here, as under nohup");
            continue;
        }
        let (run_gate, hook_gate) = (sandbox.gate(), sandbox.gate());
        let held = sandbox.stand_in_docker(&run_gate.wait());
        let hook = "#!/bin/sh\nenv | grep ^N8N_BACKUP_ >told\n";
        script(
            &sandbox.path("hook"),
            &format!("{hook}{}\ncat >>told\n", hook_gate.wait()),
        );
        let (address, requests) = serve(0);
        sandbox.set("BACKUP_PING_URL", &address);
        let _ = fs::remove_file(sandbox.path("told"));
        let mut run = sandbox.call("backup-all").path_first(&held).spawn();
        run.await_log("Disk space check passed");
        run.await_that("the engine to be asked", |_| run_gate.is_reached());
        assert_eq!(next(&requests).line, "POST /start", "{case}");
        let started = descendants(run.pid());
        assert!(!started.is_empty(), "{case}");
        if to_all {
            kill(signal, &[&[run.pid()], &started[..]].concat());
        } else {
            run.signal(signal);
        }
        let pid = run.pid();
        let outcome = run.wait();
        assert_eq!(outcome.code, None, "{case}: {outcome}");

        let fail = next(&requests);
        assert_eq!(fail.line, "POST /fail", "{case}");
        let lost = format!("[backup-all] The run with PID {pid} did not come to its end: it was killed, or it crashed");
        assert!(fail.body.ends_with(&lost), "{case}: {fail:?}");
        // The lines of this run, and of no earlier one.
        assert_eq!(
            fail.body.matches("Starting full backup process").count(),
            1,
            "{case}: {fail:?}"
        );
        assert_eq!(sandbox.log().matches(&lost).count(), 1, "{case}");
        let metrics = fs::read_to_string(sandbox.path("n8n.prom")).unwrap();
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with("n8n_backup_last_run_success{") && line.ends_with(" 0")),
            "{case}: {metrics}"
        );
        await_true("the hook is told", || sandbox.path("told").exists());
        // While the report goes on, the next run can begin.
        File::open(sandbox.lock_file()).unwrap().try_lock().unwrap();
        hook_gate.open();
        let told = || fs::read_to_string(sandbox.path("told")).unwrap();
        await_true("the hook has the log", || {
            told().contains("Starting full backup process")
        });
        for line in [
            "N8N_BACKUP_RESULT=failure",
            "N8N_BACKUP_POINT=",
            "N8N_BACKUP_FAILED=postgres redis n8n env",
        ] {
            assert!(
                told().lines().any(|there| there == line),
                "{case}: {line} in {}",
                told()
            );
        }
        run_gate.open();
        await_true("nothing is left of the run", || {
            started.iter().all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap())
        });
        assert!(requests.try_recv().is_err(), "{case}");
    }
}

#[test]
fn what_a_killed_run_has_recorded_is_reported() {
    let sandbox = watched("alarmp");
    script(
        &sandbox.path("hook"),
        "#!/bin/sh\nenv | grep ^N8N_BACKUP_ >told.new; mv told.new told\n",
    );
    sandbox.set("BACKUP_OFFSITE", "true");
    sandbox.set("RCLONE_SYNC_ENCRYPTED_ONLY", "false");
    let gate = sandbox.gate();
    let rclone = sandbox.stand_in("rclone", &format!("#!/bin/sh\n{}\n", gate.wait()));
    let mut run = sandbox.call("backup-all").path_first(&rclone).spawn();
    run.await_log("Running: backup-offsite.sh");
    run.signal("TERM");
    assert_eq!(run.wait().code, None);
    await_true("the hook is told", || sandbox.path("told").exists());
    gate.open();
    let told = fs::read_to_string(sandbox.path("told")).unwrap();
    let env = sandbox.backup("env");
    let stamp = env.file_stem().unwrap().to_string_lossy().replace("env_", "");
    for line in [
        format!("N8N_BACKUP_POINT={stamp}"),
        "N8N_BACKUP_FAILED=postgres redis n8n".to_owned(),
    ] {
        assert!(told.lines().any(|there| there == line), "{line} in {told}");
    }
}

/// What the stack has no use for has not failed either, though no backup was made and no engine asked.
#[test]
fn what_is_told_of_a_lost_run_is_of_this_stack() {
    let sandbox = watched("alarmof");
    script(
        &sandbox.path("hook"),
        "#!/bin/sh\nenv | grep ^N8N_BACKUP_ >told.new; mv told.new told\n",
    );
    fs::create_dir_all(sandbox.path("backups/sets")).unwrap();
    sandbox.write(
        "backups/sets/20260105_020000.sha256",
        "# n8n-backup recovery point 20260105_020000\n# unused: postgres redis\n# stack.n8n: n8n\n# deleted: env\n",
    );
    let assert_told = || {
        await_true("the hook is told", || sandbox.path("told").exists());
        let told = fs::read_to_string(sandbox.path("told")).unwrap();
        let failed = "N8N_BACKUP_FAILED=sqlite n8n env";
        assert!(told.lines().any(|line| line == failed), "{told}");
        let metrics = fs::read_to_string(sandbox.path("n8n.prom")).unwrap();
        assert!(
            metrics.contains("component=\"sqlite\"") && !metrics.contains("component=\"redis\""),
            "{metrics}"
        );
        fs::remove_file(sandbox.path("told")).unwrap();
    };
    let gate = sandbox.gate();
    let held = sandbox.stand_in_docker(&gate.wait());
    let mut run = sandbox.call("backup-all").path_first(&held).spawn();
    run.await_that("the engine to be asked", |_| gate.is_reached());
    run.signal("KILL");
    assert_eq!(run.wait().code, None);
    assert_told();
    gate.open();

    sandbox.set("BACKUP_JOBS", "many");
    sandbox.call("backup-all").run().assert_error("Bad setting ({}");
    assert_told();
}

/// Who is told of a run does not depend on what stands against it.
#[test]
fn a_run_that_cannot_begin_is_reported() {
    let sandbox = watched("notbegun");
    let hook = "#!/bin/sh\nenv | grep ^N8N_BACKUP_ >told\n";
    script(&sandbox.path("hook"), hook);
    let (address, requests) = serve(0);
    sandbox.set("BACKUP_PING_URL", &address);
    sandbox.set("BACKUP_STATUS_PAGE", "status.html");
    let env = fs::read_to_string(sandbox.path(".env")).unwrap();
    let reported_of = |args: &[&str], reason: &str| {
        let outcome = sandbox.call("backup-all").args(args).run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        let mut told = next(&requests);
        if told.line == "POST /start" {
            told = next(&requests);
        }
        assert_eq!(told.line, "POST /fail", "{reason}");
        assert!(told.body.contains(reason), "{told:?}");
        let said = fs::read_to_string(sandbox.path("told")).unwrap();
        assert!(said.contains(reason), "{said}");
        let metrics = fs::read_to_string(sandbox.path("n8n.prom")).unwrap();
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with("n8n_backup_last_run_success{") && line.ends_with(" 0")),
            "{metrics}"
        );
        let page = fs::read_to_string(sandbox.path("status.html")).unwrap();
        assert!(page.contains("the last run failed"), "{page}");
        for name in ["n8n.prom", "told", "status.html"] {
            fs::remove_file(sandbox.path(name)).unwrap();
        }
        outcome
    };
    let reported = |reason: &str| reported_of(&[], reason);
    for (line, reason) in [
        ("BACKUP_JOBS=many\n", "BACKUP_JOBS must be"),
        ("BACKUP_GPG_PASSPHRASE='not closed\n", "line "),
        (
            "BACKUP_METRICS_FILE=\nBACKUP_METRICS_FILE=n8n.prom\nBACKUP_JOBS=-1\n",
            "BACKUP_JOBS must be",
        ),
    ] {
        fs::write(sandbox.path(".env"), format!("{env}{line}")).unwrap();
        reported(reason);
    }
    fs::write(sandbox.path(".env"), &env).unwrap();
    fs::rename(sandbox.path("logs"), sandbox.aside("logs")).unwrap();
    fs::write(sandbox.path("logs"), "no directory").unwrap();
    reported("logs");
    fs::remove_file(sandbox.path("logs")).unwrap();
    fs::rename(sandbox.aside("logs"), sandbox.path("logs")).unwrap();
    for (arg, reason) in [
        ("--quite", "unknown option: --quite, did you mean --quiet?"),
        ("now", "unexpected argument: now"),
    ] {
        let outcome = reported_of(&[arg], reason);
        outcome.assert_log_has("backup-all", &format!("ERROR {reason}"));
        assert_eq!(outcome.log.matches(reason).count(), 1, "{outcome}");
        assert!(outcome.stderr.contains("Usage: n8n-backup backup-all"), "{outcome}");
        // Who types it reads it.
        let outcome = sandbox.call("backup-all").arg(arg).terminal("").run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stdout.contains(reason), "{outcome}");
        assert!(
            requests.try_recv().is_err() && !sandbox.path("told").exists(),
            "{outcome}"
        );
    }
}
