//! restore-n8n.

use std::fs;
use std::path::PathBuf;

use super::runs;
use crate::common::{assert_same, Sandbox};

/// A seeded volume with n8n's containers, an archive of it, and other contents since.
fn changed_volume(name: &'static str) -> (Sandbox, String, String, String) {
    let sandbox = Sandbox::new(name).n8n().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    let file = sandbox.backup("n8n").display().to_string();
    let saved = sandbox.fingerprint_volume();
    let spoil = "cd /home/node/.n8n && rm -rf odd config && echo new >config && mkdir -p binaryData/new && echo x >-x \
                 && chmod 700 . && touch -d '2001-01-01 00:00:00' .";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", spoil]);
    let changed = sandbox.fingerprint_volume();
    assert_ne!(saved, changed);
    (sandbox, file, saved, changed)
}

#[test]
fn every_file_of_the_volume_comes_back_and_what_was_there_is_kept() {
    let (sandbox, file, saved, changed) = changed_volume("vol");
    sandbox.docker(&["stop", "-t", "1", &sandbox.container("n8n-worker")]);
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_success().assert_logged_as_printed();
    outcome.assert_messages(
        "restore-n8n",
        &[
            "INFO Starting n8n data restore from: {}",
            "INFO Verifying backup file integrity...",
            "INFO Backup file integrity verified",
            "WARN This will replace the contents of the volume {}, and stop n8n meanwhile",
            "WARN All existing data will be replaced with backup data",
            "INFO Running non-interactively, proceeding with restore",
            "INFO Stopping n8n: {}-n8n-main",
            "INFO Unpacking the archive beside the data...",
            "INFO Verifying restore...",
            "INFO Exchanging the contents of the volume...",
            "INFO Starting n8n: {}-n8n-main",
            "SUCCESS n8n data restore completed from: {}",
        ],
    );
    assert_same(&saved, &sandbox.fingerprint_volume());
    assert!(runs(&sandbox, "n8n-main") && !runs(&sandbox, "n8n-worker"));
    // The archive of what was there leads back.
    let backups = sandbox.backups("n8n");
    assert_eq!(backups.len(), 2);
    let safety = backups.iter().find(|path| path.display().to_string() != file).unwrap();
    sandbox
        .run("restore-n8n", &[&safety.display().to_string()])
        .assert_success();
    assert_same(&changed, &sandbox.fingerprint_volume());
    // What was kept before a restore is not the latest point.
    let outcome = sandbox.run("restore-all", &["--only", "n8n", "latest"]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-all",
        "INFO Passing over the newer recovery point {}: made before a restore",
    );
    assert_same(&saved, &sandbox.fingerprint_volume());
    // Nor is one that a clock which ran ahead has dated.
    let newest = sandbox.backups("sets").pop().unwrap();
    let text = fs::read_to_string(&newest).unwrap();
    let stamp = newest.file_stem().unwrap().to_str().unwrap();
    let begun = text.lines().find(|line| line.starts_with("# begun: ")).unwrap();
    let text = text
        .replace("aside:", "was-aside:")
        .replace(begun, "# begun: 2099-01-01T02:00:00+00:00")
        .replacen(stamp, "20990101_020000", 1);
    fs::write(newest.with_file_name("20990101_020000.sha256"), text).unwrap();
    let outcome = sandbox.run("restore-all", &["--only", "n8n", "latest"]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-all",
        "WARN Passing over recovery point 20990101_020000, which is dated in the future",
    );
    assert_same(&saved, &sandbox.fingerprint_volume());
}

#[test]
fn a_failed_volume_restore_puts_back_what_was_there() {
    let (sandbox, file, _, changed) = changed_volume("volback");
    // One that would go on working on the volume.
    let env = fs::read_to_string(sandbox.path(".env")).unwrap();
    let one = sandbox.container("n8n-main");
    sandbox.write(".env", format!("{env}\nBACKUP_N8N_CONTAINERS={one}\n"));
    sandbox.run("restore-n8n", &[&file]).assert_error(
        "Containers that are not known as n8n's use the volume {}: {}-n8n-worker. Stop them, or add them to {}",
    );
    assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"));
    sandbox.write(".env", &env);
    for (pattern, nth) in [
        ("*' run '*", 1),
        // Those before are of an image that is not here, after which another is taken.
        ("*' run '*", 5),
        ("*' sh data '*", 1),
        ("*' begin '*", 1),
        ("*' sh /n8n-backup-volume/.n8n-backup-restore/new 0 '*", 1),
        ("*' sh all '*/new*", 1),
        ("*' exchange '*", 1),
        ("*' stop '*n8n-worker*", 1),
    ] {
        let docker = sandbox.failing_docker(pattern, nth);
        let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
        assert_eq!(outcome.code, Some(1), "{pattern}: {outcome}");
        assert_same(&changed, &sandbox.fingerprint_volume());
        assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"), "{pattern}");
        assert!(!sandbox.path("backups/.restore").exists(), "{pattern}");
    }
    // The client dies, and what it has started goes on.
    let docker = sandbox.stand_in_docker(
        "case \" $* \" in *' exchange '*) \"$real\" \"$@\" >/dev/null 2>&1 & sleep 0.1; exit 1 ;; esac",
    );
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    outcome.assert_error("n8n data restore failed");
    outcome.assert_log_has("restore-n8n", "WARN Putting back what was there before");
    assert_same(&changed, &sandbox.fingerprint_volume());
}

/// A volume may stand for a directory, and others may mount that directory itself.
#[test]
fn who_mounts_the_directory_of_a_volume_is_seen() {
    let sandbox = Sandbox::new("bound").redis().build();
    let (dir, volume) = (sandbox.aside("data"), format!("{}_dir", sandbox.prefix()));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config"), "{}").unwrap();
    let (dir, stranger) = (dir.display().to_string(), sandbox.container("webhook"));
    let labels = sandbox.labels();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let (device, mount) = (format!("device={dir}"), format!("{dir}:/files"));
    let create = [
        "volume",
        "create",
        "--opt",
        "type=none",
        "--opt",
        "o=bind",
        "--opt",
        &device,
    ];
    sandbox.docker(&[&create[..], &labels, &[&volume]].concat());
    sandbox.set("BACKUP_N8N_VOLUME", &volume);
    sandbox.run("backup-n8n", &[]).assert_success();
    let image = "n8n-backup-test/busybox:1";
    let run = ["run", "-d", "--name", &stranger, "--network", "none", "-v", &mount];
    sandbox.docker(&[&run[..], &labels, &[image, "sleep", "600"]].concat());
    let file = sandbox.backup("n8n").display().to_string();
    let assert_refused = || {
        sandbox.run("restore-n8n", &[&file]).assert_error(
            "Containers that are not known as n8n's use the volume {}: {}-webhook. Stop them, or add them to {}",
        );
    };
    assert_refused();
    sandbox.pause(&stranger);
    assert_refused();
    sandbox.docker(&["unpause", &stranger]);
    sandbox.docker(&["stop", "-t", "1", &stranger]);
    sandbox.run("restore-n8n", &[&file]).assert_success();
    sandbox.docker(&["rm", "-fv", &stranger]);

    // One that its stop would remove is not stopped.
    let options = ["--rm", "--env=N8N_USER_FOLDER=/files/below", "--env=DB_TYPE=postgresdb"];
    sandbox.docker(&[&run[..], &options, &labels, &[image, "sleep", "600"]].concat());
    sandbox.set("BACKUP_N8N_CONTAINERS", &stranger);
    sandbox
        .run("restore-n8n", &[&file])
        .assert_error("{}-webhook was created with --rm: the engine removes it as soon as it is stopped");
    assert!(runs(&sandbox, "webhook"));

    // The key is found, too, in a user folder below what is mounted.
    let home = sandbox.aside("data/below/.n8n");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("config"), r#"{"encryptionKey": "k"}"#).unwrap();
    sandbox.run("backup-n8n", &[]).assert_success();
    let manifest = fs::read_to_string(sandbox.backups("sets").last().unwrap()).unwrap();
    assert!(manifest.contains("n8n.key: in the volume\n"), "{manifest}");
    assert!(manifest.contains("n8n.home: below/.n8n\n"), "{manifest}");
    sandbox.run("test-recovery", &["--n8n"]).assert_success();
    sandbox.docker(&["rm", "-fv", &stranger]);
}

#[test]
fn a_volume_restore_that_is_killed_in_the_exchange_is_set_right_by_the_next() {
    let (sandbox, file, saved, changed) = changed_volume("volkill");
    // As it is when half of what was there has been moved aside.
    let half =
        "cd /home/node/.n8n && mkdir -p .n8n-backup-restore/new .n8n-backup-restore/old && cd .n8n-backup-restore \
                && echo '1000 1000 700 978307200' >root && : >begun && mv ../config ../-x old/";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", half]);
    // A backup of it is made, and is nothing to go back to unasked.
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "backup-n8n",
        "WARN The volume is in the middle of a restore that was interrupted: {}",
    );
    let newest = sandbox.backups("sets").last().unwrap().clone();
    let manifest = fs::read_to_string(&newest).unwrap();
    assert!(
        manifest.contains("aside: made while a restore of the volume"),
        "{manifest}"
    );
    for path in sandbox
        .backups("n8n")
        .iter()
        .filter(|path| path.display().to_string() != file)
    {
        fs::remove_file(path).unwrap();
    }
    // Where even that fails, n8n is not started on half of its data.
    let docker = sandbox.failing_docker("*' back '*", 1);
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has("restore-n8n", "ERROR What was there before could not be put back; {}");
    assert!(!runs(&sandbox, "n8n-main") && !runs(&sandbox, "n8n-worker"));
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-n8n",
        "WARN An interrupted restore of the volume had left its traces; {}",
    );
    assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"));
    assert_same(&saved, &sandbox.fingerprint_volume());
    let safety = sandbox
        .backups("n8n")
        .into_iter()
        .find(|path| path.display().to_string() != file)
        .unwrap();
    sandbox
        .run("restore-n8n", &[&safety.display().to_string()])
        .assert_success();
    assert_same(&changed, &sandbox.fingerprint_volume());
}

/// n8n must not be started on half a volume because something else was restored in between.
#[test]
fn a_restore_of_another_part_does_not_end_an_interrupted_one() {
    let sandbox = Sandbox::new("between").n8n().redis().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    sandbox.run("backup-redis", &[]).assert_success();
    let saved = sandbox.fingerprint_volume();
    let archive = sandbox.backup("n8n").display().to_string();
    let snapshot = sandbox.backup("redis").display().to_string();
    let half =
        "cd /home/node/.n8n && mkdir -p .n8n-backup-restore/new .n8n-backup-restore/old && cd .n8n-backup-restore \
                && echo '1000 1000 700 978307200' >root && : >begun && mv ../config old/";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", half]);
    let docker = sandbox.failing_docker("*' back '*", 1);
    let outcome = sandbox.call("restore-n8n").arg(&archive).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(!runs(&sandbox, "n8n-main"), "{outcome}");

    let outcome = sandbox.run("restore-redis", &[&snapshot]);
    outcome.assert_success().assert_log_has(
        "restore-redis",
        "WARN n8n stays stopped: the restore of n8n was interrupted. {}",
    );
    assert!(!runs(&sandbox, "n8n-main") && !runs(&sandbox, "n8n-worker"));
    assert!(sandbox.path("backups/.restore").exists());
    // Nor because the same failed once more.
    let docker = sandbox.failing_docker("*' back '*", 1);
    let outcome = sandbox.call("restore-n8n").arg(&archive).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(!runs(&sandbox, "n8n-main"), "{outcome}");

    sandbox.run("restore-n8n", &[&archive]).assert_success();
    assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"));
    assert!(!sandbox.path("backups/.restore").exists());
    assert_same(&saved, &sandbox.fingerprint_volume());
}

#[test]
fn archives_of_other_tools_are_taken_and_unsafe_ones_are_not() {
    let sandbox = Sandbox::new("tars").n8n().seeded().build();
    let saved = sandbox.fingerprint_volume();
    let tar = |name: &str, script: &str| {
        let path = sandbox.path(format!("backups/n8n/{name}"));
        let archive = crate::common::sh(
            "mkdir -p \"$(dirname \"$1\")\"; docker run --rm --network none -v \"$2:/v\" --entrypoint sh \
             n8n-backup-test/busybox:1 -c \"$3\" >\"$1\"",
            &[path.as_os_str(), sandbox.volume().as_ref(), script.as_ref()],
        );
        drop(archive);
        path.display().to_string()
    };
    // As the shell scripts did it.
    let plain = tar("n8n_data_20250101_000000.tar.gz", "tar -C /v -czf - .");
    sandbox.run("restore-n8n", &[&plain]).assert_success();
    assert_same(&saved, &sandbox.fingerprint_volume());
    let outside = sandbox.path("backups/n8n/n8n_data_20250101_000001.tar.gz");
    crate::common::sh(
        "cd \"$(dirname \"$1\")\" && echo x >evil && tar -czPf \"$1\" --transform 's,^,../../,' evil && rm evil",
        &[outside.as_os_str()],
    );
    let before = sandbox.backups("n8n").len();
    sandbox
        .run("restore-n8n", &[&outside.display().to_string()])
        .assert_error("The archive holds names that lead out of the volume ({}): it is not unpacked");
    assert_same(&saved, &sandbox.fingerprint_volume());
    assert_eq!(sandbox.backups("n8n").len(), before);
}

/// A container's restart policy.
fn policy(sandbox: &Sandbox, name: &str) -> String {
    let format = ["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}"];
    let text = sandbox.docker(&[&format[..], &[&sandbox.container(name)]].concat());
    text.trim().to_owned()
}

/// What n8n writes while its data are being replaced would be lost with them.
#[test]
fn an_n8n_that_somebody_starts_meanwhile_loses_nothing() {
    let (sandbox, file, _, changed) = changed_volume("started");
    let main = sandbox.container("n8n-main");
    sandbox.docker(&["update", "--restart=always", &main]);
    for (when, pattern) in [
        ("before the exchange", "*' exec '*' begin '*"),
        ("right after it", "*' exec '*' exchange '*"),
    ] {
        let mark = sandbox.aside(format!("started {when}"));
        let docker = sandbox.stand_in_docker(&format!(
            "case \" $* \" in {pattern}) \"$real\" \"$@\"; code=$?; \
             [ -e '{0}' ] || {{ : >'{0}'; \"$real\" start '{main}' >/dev/null; }}; exit $code ;; esac",
            mark.display()
        ));
        let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
        outcome.assert_error("n8n data restore failed");
        assert!(mark.exists(), "{when}: n8n was not started");
        outcome.assert_log_has(
            "restore-n8n",
            "ERROR Cause: {} was started while what it works on was being replaced: {}",
        );
        // It is not to go on with files that are gone.
        let stopped = outcome
            .log
            .contains(&format!("Stopping {main}, which was started meanwhile"));
        assert_eq!(stopped, when == "right after it", "{outcome}");
        assert_same(&changed, &sandbox.fingerprint_volume());
        assert!(runs(&sandbox, "n8n-main"), "{when}");
        assert_eq!(policy(&sandbox, "n8n-main"), "always", "{when}");
    }
}

/// A paused n8n goes on at any moment; a held one is not started by the engine, and is let go in the end.
#[test]
fn a_paused_n8n_is_stopped_and_a_held_one_is_let_go() {
    let (sandbox, file, saved, _) = changed_volume("held");
    let main = sandbox.container("n8n-main");
    sandbox.docker(&["update", "--restart=unless-stopped", &main]);
    sandbox.pause(&main);
    let docker = sandbox.failing_docker("*' unpause '*", 1);
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert_eq!(policy(&sandbox, "n8n-main"), "unless-stopped");
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_success();
    outcome.assert_log_has("restore-n8n", "WARN {} is paused; it is stopped, and runs at the end");
    assert_same(&saved, &sandbox.fingerprint_volume());
    assert!(runs(&sandbox, "n8n-main"));
    assert_eq!(policy(&sandbox, "n8n-main"), "unless-stopped");

    // Killed in the middle: any command that acts puts the policy back, and until then status says so.
    let docker =
        sandbox.stand_in_docker("case \" $* \" in *' exec '*' begin '*) kill -KILL \"$PPID\"; sleep 1; exit 1 ;; esac");
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    assert_ne!(outcome.code, Some(0));
    assert_eq!(policy(&sandbox, "n8n-main"), "no");
    let status = sandbox.binary().arg("status").run();
    assert_eq!(status.code, Some(2), "{status}");
    assert!(status.stdout.contains("without the restart policy: "), "{status}");
    let outcome = sandbox.run("cleanup-backups", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "cleanup-backups",
        "WARN An interrupted restore had held these containers; {}",
    );
    assert_eq!(policy(&sandbox, "n8n-main"), "unless-stopped");
    // The same restore goes on, and n8n runs.
    sandbox.run("restore-n8n", &[&file]).assert_success();
    assert_same(&saved, &sandbox.fingerprint_volume());
    assert!(runs(&sandbox, "n8n-main"));
}

/// A stand-in for docker that does `what` once, after the exchange of the volume has begun to be prepared.
fn meanwhile(sandbox: &Sandbox, mark: &str, what: &str) -> PathBuf {
    let mark = sandbox.aside(mark);
    sandbox.stand_in_docker(&format!(
        "case \" $* \" in *' exec '*' begin '*) \"$real\" \"$@\"; code=$?; \
         [ -e '{0}' ] || {{ : >'{0}'; {what}; }}; exit $code ;; esac",
        mark.display()
    ))
}

/// What is held is a container, and not a name.
#[test]
fn an_n8n_that_is_renamed_meanwhile_gets_its_policy_back() {
    let (sandbox, file, saved, _) = changed_volume("renamed");
    let main = sandbox.container("n8n-main");
    sandbox.docker(&["update", "--restart=always", &main]);
    let docker = meanwhile(&sandbox, "renamed", &format!("\"$real\" rename '{main}' '{main}-x'"));
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    outcome.assert_error("The restore is done, and n8n could not be started");
    assert_eq!(policy(&sandbox, "n8n-main-x"), "always");
    let status = sandbox.binary().arg("status").run();
    let left = format!("has left stopped: {main}. ");
    assert!(status.stdout.contains(&left), "{status}");
    sandbox.docker(&["rename", &format!("{main}-x"), &main]);
    sandbox.run("restore-n8n", &[&file]).assert_success();
    assert_same(&saved, &sandbox.fingerprint_volume());
    assert!(runs(&sandbox, "n8n-main"));
    assert_eq!(policy(&sandbox, "n8n-main"), "always");
    assert!(!sandbox.path("backups/.restore").exists());
}

/// As `docker compose up --no-start` creates a service again that was changed.
#[test]
fn an_n8n_that_is_created_again_meanwhile_and_not_started_has_not_worked() {
    let (sandbox, file, saved, _) = changed_volume("createdagain");
    let (main, volume, labels) = (
        sandbox.container("n8n-main"),
        sandbox.volume(),
        sandbox.labels().join(" "),
    );
    sandbox.docker(&["update", "--restart=always", &main]);
    let again = format!(
        "\"$real\" rm -f '{main}' >/dev/null; \"$real\" create --name '{main}' {labels} --network none \
         --restart=unless-stopped -v '{volume}:/home/node/.n8n' n8n-backup-test/busybox:1 \
         sh -c 'trap \"exit 0\" TERM INT; sleep 1000000 & wait' >/dev/null"
    );
    let docker = meanwhile(&sandbox, "created", &again);
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    outcome.assert_success();
    assert_same(&saved, &sandbox.fingerprint_volume());
    assert!(runs(&sandbox, "n8n-main") && runs(&sandbox, "n8n-worker"));
    // That of its own.
    assert_eq!(policy(&sandbox, "n8n-main"), "unless-stopped");
    assert!(!sandbox.path("backups/.restore").exists());
}

/// What an archive unpacks through its own link would land in what is live.
#[test]
fn an_archive_that_leads_through_its_own_link_is_refused() {
    let sandbox = Sandbox::new("through").n8n().seeded().build();
    let saved = sandbox.fingerprint_volume();
    let craft = "mkdir -p \"$(dirname \"$1\")\" && cd \"$(mktemp -d)\" && mkdir a && ln -s ../../.. a/out && \
                 tar -cf x.tar ./a && rm a/out && mkdir a/out && echo evil >a/out/config && tar -rf x.tar ./a/out/config \
                 && gzip -c x.tar >\"$1\"";
    let file = sandbox.path("backups/n8n/n8n_data_20250101_000000.tar.gz");
    crate::common::sh(craft, &[file.as_os_str()]);
    let file = file.display().to_string();
    sandbox
        .run("restore-n8n", &[&file])
        .assert_error("The archive holds names that lead out of the volume (./a/out/config): it is not unpacked");
    assert_same(&saved, &sandbox.fingerprint_volume());
    let outcome = sandbox.run("test-recovery", &["--n8n"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
}
