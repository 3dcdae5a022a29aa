//! backup-n8n: the archive of the data volume, and the helper container that shows it.

use std::fs;
use std::process::Command;

use crate::common::{assert_same, sh, Outcome, Sandbox};

/// The label of helper containers.
const HELPER: &str = "n8n-backup.helper";

/// The helper containers that see the sandbox's volume.
fn helpers(sandbox: &Sandbox) -> usize {
    let volume = format!("volume={}", sandbox.volume());
    let label = format!("label={HELPER}");
    sandbox
        .docker(&["ps", "-aq", "--filter", &volume, "--filter", &label])
        .lines()
        .count()
}

#[track_caller]
fn assert_archived(outcome: &Outcome) {
    outcome.assert_success().assert_logged_as_printed();
    outcome.assert_messages(
        "backup-n8n",
        &[
            "INFO Starting n8n data backup",
            "INFO Creating archive {}/backups/n8n/n8n_data_{}.tar.gz",
            "SUCCESS Backup completed: {}/backups/n8n/n8n_data_{}.tar.gz ({})",
        ],
    );
}

#[test]
fn an_archive_unpacked_by_tar_is_the_volume() {
    let sandbox = Sandbox::new("tar").n8n().seeded().build();
    let before = sandbox.fingerprint_volume();
    let outcome = sandbox.run("backup-n8n", &[]);
    assert_archived(&outcome);
    assert_eq!(helpers(&sandbox), 0);
    assert_eq!(sandbox.fingerprint_volume(), before);

    let archive = sandbox.backup("n8n");
    let members = sh("tar -tzf \"$1\"", &[archive.as_os_str()]);
    assert!(members.lines().count() > 50);
    assert!(members.lines().all(|member| member.starts_with("./")), "{members}");
    // A whole gzip file, as gzip itself sees it.
    sh("gunzip -t -- \"$1\"", &[archive.as_os_str()]);

    // By the host's tar, into a fresh volume.
    let volume = format!("{}_restored_data", sandbox.prefix());
    sandbox.make_volume(&volume);
    let mountpoint = sandbox.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]);
    let mountpoint = mountpoint.trim();
    if fs::read_dir(mountpoint).is_err() {
        return crate::common::skip(
            "volume::an_archive_unpacked_by_tar_is_the_volume",
            "the engine's volumes are not to be reached from here (root, local engine)",
        );
    }
    sh(
        "tar -xzpf \"$1\" --same-owner --numeric-owner -C \"$2\"",
        &[archive.as_os_str(), mountpoint.as_ref()],
    );
    assert_same(&before, &sandbox.fingerprint_volume_named(&volume));
}

#[test]
fn a_missing_volume_is_an_error_and_is_not_made() {
    let sandbox = Sandbox::new("novolume").build();
    let before = sandbox.listing();
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_error(&format!("Docker volume {} does not exist", sandbox.volume()));
    let name = format!("name={}", sandbox.volume());
    assert_eq!(sandbox.docker(&["volume", "ls", "-q", "--filter", &name]), "");
    assert_eq!(sandbox.listing(), before);
}

/// A volume that exists and that n8n does not use: the archive is made, and nobody takes it for n8n's data.
#[test]
fn a_volume_that_n8n_does_not_use_is_warned_about() {
    let sandbox = Sandbox::new("elsewhere").n8n().seeded().build();
    let other = format!("{}_other_data", sandbox.prefix());
    sandbox.make_volume(&other);
    sandbox.set("BACKUP_N8N_VOLUME", &other);
    let warning = format!(
        "WARN {} keeps its data in {}, not in the volume {other} that is backed up: {{}}",
        sandbox.container("n8n-main"),
        sandbox.volume()
    );
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_success().assert_log_has("backup-n8n", &warning);
    sandbox.set("BACKUP_N8N_VOLUME", &sandbox.volume());
    let outcome = sandbox.run("backup-n8n", &[]);
    assert!(!outcome.assert_success().stdout.contains("[WARN]"), "{outcome}");
}

#[test]
fn an_archive_that_is_not_whole_is_none() {
    let sandbox = Sandbox::new("torn").n8n().seeded().build();
    let before = sandbox.listing();
    for (what, script) in [
        (
            "cut",
            r#"if [[ $1 == cp ]]; then "$real" "$@" | head -c 300000; exit 0; fi"#,
        ),
        (
            "without its end",
            r#"if [[ $1 == cp ]]; then "$real" "$@" | head -c -1024; exit 0; fi"#,
        ),
        (
            "with an error",
            r#"if [[ $1 == cp ]]; then "$real" "$@"; echo 'no luck' >&2; exit 1; fi"#,
        ),
        (
            "killed",
            r#"if [[ $1 == cp ]]; then "$real" "$@" | head -c 100000; kill -KILL $$; fi"#,
        ),
        (
            "turned about",
            r#"if [[ $1 == cp ]]; then "$real" "$@" | tr a b; exit 0; fi"#,
        ),
    ] {
        let stand_in = sandbox.stand_in_docker(script);
        let outcome = sandbox.call("backup-n8n").path_first(&stand_in).run();
        outcome.assert_error("tar backup failed");
        assert_eq!(sandbox.listing(), before, "{what}: {outcome}");
        assert_eq!(helpers(&sandbox), 0, "{what}");
    }
}

#[test]
fn helpers_go_and_are_swept_and_nothing_is_pulled() {
    let sandbox = Sandbox::new("helper")
        .n8n()
        .env("BACKUP_HELPER_IMAGE", "n8n-backup-test/no-such-image:1")
        .build();
    // A run that is killed while it copies leaves its helper; the next one removes it.
    let stuck = sandbox.stand_in_docker("[[ $1 != cp ]] || sleep 60");
    let mut killed = sandbox.call("backup-n8n").path_first(&stuck).spawn();
    killed.await_log("Creating archive");
    killed.await_that("the helper", |_| helpers(&sandbox) == 1);
    killed.signal("KILL");
    killed.wait();
    assert_eq!(helpers(&sandbox), 1);
    // A helper of another project is not ours.
    let labels = sandbox.labels();
    let mount = format!("{}:/volume:ro", sandbox.volume());
    let foreign = format!("{HELPER}=0123456789abcdef");
    let mut create = vec!["create", "-v", &mount, "--label", &foreign];
    create.extend(labels.iter().map(String::as_str));
    create.extend(["n8n-backup-test/busybox:1", "true"]);
    let foreign = sandbox.docker(&create);

    let record = sandbox.aside("record");
    let watch = sandbox.stand_in_docker(&format!("echo \"$*\" >>'{}'", record.display()));
    let outcome = sandbox.call("backup-n8n").path_first(&watch).run();
    assert_archived(&outcome);
    outcome.assert_log_has(
        "backup-n8n",
        "WARN Removed 1 helper container(s) that an interrupted run left",
    );
    outcome.assert_log_has(
        "backup-n8n",
        &format!(
            "INFO Image n8n-backup-test/no-such-image:1 is not on this host, using that of {}",
            sandbox.container("n8n-main")
        ),
    );
    assert_eq!(helpers(&sandbox), 1, "only the foreign one");
    sandbox.docker(&["rm", "-f", foreign.trim()]);
    assert!(sandbox.leftovers("n8n").is_empty());
    let calls = fs::read_to_string(&record).unwrap();
    let creates: Vec<&str> = calls.lines().filter(|call| call.starts_with("create ")).collect();
    assert_eq!(creates.len(), 1, "{calls}");
    assert!(
        creates[0].contains("--pull never") && creates[0].contains(":ro "),
        "{calls}"
    );
    assert!(
        !calls.lines().any(|call| ["run ", "pull ", "image pull"]
            .iter()
            .any(|word| call.starts_with(word))),
        "{calls}"
    );

    // Without any image at hand it is an error that says what to do, and nothing is fetched.
    for setting in [
        "BACKUP_N8N_CONTAINERS",
        "BACKUP_POSTGRES_CONTAINER",
        "BACKUP_REDIS_CONTAINER",
    ] {
        sandbox.set(setting, &format!("{}-none", sandbox.prefix()));
    }
    let before = sandbox.listing();
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_error("No local image for the helper container: {}BACKUP_HELPER_IMAGE in .env");
    assert_eq!(sandbox.listing(), before);
    let mut inspect = Command::new("docker");
    inspect.args(["image", "inspect", "n8n-backup-test/no-such-image:1"]);
    assert!(!crate::common::output(inspect).status.success());
}
