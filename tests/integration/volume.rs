//! backup-n8n: the archive of the data volume, and the helper container that reads it.

use std::fs;
use std::process::Command;

use crate::common::{assert_same, await_true, sh, Outcome, Sandbox};

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
    sandbox.in_volume(&other, "echo {} >config");
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
            r#"if [[ " $* " == *" sh data "* ]]; then "$real" "$@" | head -c 300000; exit 0; fi"#,
        ),
        (
            "without its end",
            r#"if [[ " $* " == *" sh data "* ]]; then "$real" "$@" | head -c -1024; exit 0; fi"#,
        ),
        (
            "with an error",
            r#"if [[ " $* " == *" sh data "* ]]; then "$real" "$@"; echo 'no luck' >&2; exit 1; fi"#,
        ),
        (
            "killed",
            r#"if [[ " $* " == *" sh data "* ]]; then "$real" "$@" | head -c 100000; kill -KILL $$; fi"#,
        ),
        (
            "turned about",
            r#"if [[ " $* " == *" sh data "* ]]; then "$real" "$@" | tr a b; exit 0; fi"#,
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
    // The image is not here, so another's container stays for the run. One that is killed leaves it; the next run removes it.
    let stuck = sandbox.stand_in_docker("[[ $1 != exec || \" $* \" != *\" sh data \"* ]] || sleep 60");
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
    let runs: Vec<&str> = calls.lines().filter(|call| call.starts_with("run ")).collect();
    // The one of the settings for the packer alone, and to stay, and that of the stack.
    assert_eq!(runs.len(), 3, "{calls}");
    for run in runs {
        assert!(
            run.contains("--pull never") && run.contains(":ro ") && run.contains("--network none"),
            "{calls}"
        );
    }
    assert!(
        !calls.lines().any(|call| ["create ", "pull ", "image pull"]
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
    outcome.assert_error("tar backup failed");
    outcome.assert_log_has(
        "backup-n8n",
        "ERROR Cause: No local image for the helper container: {}BACKUP_HELPER_IMAGE in .env",
    );
    assert_eq!(sandbox.listing(), before);
    let mut inspect = Command::new("docker");
    inspect.args(["image", "inspect", "n8n-backup-test/no-such-image:1"]);
    assert!(!crate::common::output(inspect).status.success());
}

/// Takes the place of the image that backups of the sandbox are made with.
fn with_image(sandbox: &Sandbox, image: &str) {
    sandbox.set("BACKUP_HELPER_IMAGE", image);
}

/// GNU's tar, and busybox's.
const IMAGES: [&str; 2] = ["n8n-backup-test/redis:1", "n8n-backup-test/busybox:1"];

/// What one tar has packed, the other unpacks, with what `docker cp` refuses or loses.
#[test]
fn what_is_packed_comes_back_with_either_tar() {
    let sandbox = Sandbox::new("tars2").n8n().seeded().build();
    let odd = "mkdir npm && ln -s ../../../usr/lib/x npm/out && ln -s /etc/passwd absolute && mkfifo fifo && \
               chmod 4711 odd/links/hard-1 && mkdir late && touch -h -d '2001-02-03 04:05:06' npm/out late && \
               chown 5:6 late && chown -h 7:8 npm/out && echo x >\"$(printf '.latin1-\\351')\"";
    sandbox.in_volume(&sandbox.volume(), odd);
    let saved = sandbox.fingerprint_volume();
    for (packs, unpacks) in [(0, 1), (1, 0), (1, 1)] {
        with_image(&sandbox, IMAGES[packs]);
        sandbox.run("backup-n8n", &[]).assert_success();
        let file = sandbox.backups("n8n").pop().unwrap().display().to_string();
        sandbox.in_volume(&sandbox.volume(), "rm -rf npm late odd; echo x >stray");
        with_image(&sandbox, IMAGES[unpacks]);
        sandbox.run("test-recovery", &["--n8n"]).assert_success();
        sandbox.run("restore-n8n", &[&file]).assert_success();
        assert_same(&saved, &sandbox.fingerprint_volume());
    }
}

/// A tar that skips something, a file that changes, a socket: what is not in the archive is told, or there is none.
#[test]
fn what_cannot_be_read_is_no_backup() {
    for image in IMAGES {
        let sandbox = Sandbox::new("unread")
            .n8n()
            .seeded()
            .env("BACKUP_HELPER_IMAGE", image)
            .build();
        let before = sandbox.listing();
        // Without the rights of root, as where the engine maps users, a closed directory cannot be read.
        let unprivileged =
            sandbox.stand_in_docker("if [[ $1 == run ]]; then shift; exec \"$real\" run --cap-drop ALL \"$@\"; fi");
        let outcome = sandbox.call("backup-n8n").path_first(&unprivileged).run();
        outcome.assert_error("tar backup failed");
        outcome.assert_log_has(
            "backup-n8n",
            "ERROR Cause: {} of what it holds cannot be read, and would be missing: {}",
        );
        assert_eq!(sandbox.listing(), before, "{outcome}");

        // It exits well, and something is missing.
        let skips = sandbox.stand_in_docker(
            "if [[ \" $* \" == *' sh data '* ]]; then exec \"$real\" \"${@//-cf - ?\\$part?/-cf - .\\/odd .\\/config}\"; fi",
        );
        let outcome = sandbox.call("backup-n8n").path_first(&skips).run();
        outcome.assert_error("tar backup failed");
        outcome.assert_log_has(
            "backup-n8n",
            "ERROR Cause: {} of what the volume holds are missing from the archive: {}",
        );
        assert_eq!(sandbox.listing(), before, "{outcome}");
        assert_eq!(helpers(&sandbox), 0);
    }
}

/// A directory whose block is gone on the disk.
#[test]
fn a_directory_that_the_disk_has_lost_is_no_empty_one() {
    const TEST: &str = "volume::a_directory_that_the_disk_has_lost_is_no_empty_one";
    let sandbox = Sandbox::new("lostdir").n8n().build();
    let mount = sandbox.aside("disk");
    let image = sandbox.aside("disk.img");
    fs::create_dir(&mount).unwrap();
    let make = "dd if=/dev/zero of=\"$1\" bs=1M count=16 2>/dev/null && mkfs.ext4 -q -O ^metadata_csum \"$1\" && \
                mount -o loop \"$1\" \"$2\" && mkdir -p \"$2/good\" \"$2/bad\" && echo '{}' >\"$2/config\" && \
                echo x >\"$2/bad/x\" && inode=$(stat -c %i \"$2/bad\") && umount \"$2\" && \
                debugfs -w -R \"sif <$inode> block[0] 0\" \"$1\" 2>/dev/null && mount -o loop \"$1\" \"$2\"";
    let mut command = Command::new("sh");
    command.args(["-ec", make, "sh"]).arg(&image).arg(&mount);
    if !crate::common::output(command).status.success() {
        return crate::common::skip(TEST, "needs loop devices, mkfs.ext4 and debugfs (root)");
    }
    let volume = format!("{}_disk_data", sandbox.prefix());
    let device = format!("device={}", mount.display());
    let labels = sandbox.labels();
    let mut create = vec!["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device];
    create.extend(labels.iter().map(String::as_str));
    create.push(&volume);
    sandbox.docker(&create);
    sandbox.set("BACKUP_N8N_VOLUME", &volume);
    let outcomes = IMAGES.map(|image| {
        with_image(&sandbox, image);
        sandbox.run("backup-n8n", &[])
    });
    sandbox.docker(&["volume", "rm", &volume]);
    sh("umount \"$1\"", &[mount.as_os_str()]);
    for outcome in outcomes {
        outcome.assert_error("tar backup failed");
        outcome.assert_log_has(
            "backup-n8n",
            "ERROR Cause: 1 of what it holds cannot be read, and would be missing: {}bad{}",
        );
    }
    assert!(sandbox.backups("n8n").is_empty());
}

#[test]
fn an_empty_volume_or_one_without_its_key_is_no_backup() {
    let sandbox = Sandbox::new("hollow").n8n().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    let saved = sandbox.fingerprint_volume();
    let before = sandbox.listing();
    sandbox.in_volume(&sandbox.volume(), "mv config elsewhere");
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_error("tar backup failed");
    outcome.assert_log_has(
        "backup-n8n",
        "ERROR Cause: {} holds no encryption key of n8n any more (config); recovery point {} has it",
    );
    sandbox.in_volume(&sandbox.volume(), "rm -rf ./* ./.[!.]*");
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_error("tar backup failed");
    outcome.assert_log_has(
        "backup-n8n",
        "ERROR Cause: {} is empty: there is nothing of n8n's to back up",
    );
    assert_eq!(sandbox.listing(), before);
    // A restore into it is what it needs.
    let file = sandbox.backup("n8n").display().to_string();
    sandbox.run("restore-n8n", &[&file]).assert_success();
    assert_same(&saved, &sandbox.fingerprint_volume());
}

#[test]
fn a_key_is_found_whatever_other_names_its_file_has() {
    let sandbox = Sandbox::new("manynames").n8n().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    // tar packs the one that it meets first, and the others as links to that.
    let links =
        "mv config config.0 && ln config.0 config && for i in $(seq 50); do ln config.0 config.$i || exit; done";
    sandbox.in_volume(&sandbox.volume(), links);
    sandbox.run("backup-n8n", &[]).assert_success();
    let manifest = fs::read_to_string(sandbox.backups("sets").last().unwrap()).unwrap();
    assert!(manifest.contains("n8n.key: in the volume\n"), "{manifest}");
    sandbox.run("test-recovery", &["--n8n"]).assert_success();
}

#[test]
fn sockets_are_told_and_our_own_directory_is_left_out() {
    for image in IMAGES {
        let sandbox = Sandbox::new("left")
            .n8n()
            .seeded()
            .env("BACKUP_HELPER_IMAGE", image)
            .build();
        let saved = sandbox.fingerprint_volume();
        // As a killed restore leaves it, before the exchange.
        sandbox.in_volume(
            &sandbox.volume(),
            "d=$(stat -c %Y .); mkdir -p .n8n-backup-restore/new .n8n-backup-restore/old; echo '1000 1000 755 1' \
             >.n8n-backup-restore/root; echo secret >.n8n-backup-restore/new/config; touch -d @$d .",
        );
        let mountpoint = sandbox.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &sandbox.volume()]);
        let socket = std::path::Path::new(mountpoint.trim()).join("odd/so\ncket");
        let bound = std::os::unix::net::UnixListener::bind(&socket);
        if image == IMAGES[0] {
            // A restore of the database, which works in that directory, too, must not lose it.
            let lock = sandbox.path("backups/sqlite/.lock");
            fs::create_dir_all(lock.parent().unwrap()).unwrap();
            let lock = fs::File::create(lock).unwrap();
            lock.try_lock().unwrap();
            sandbox.run("backup-n8n", &[]).assert_success();
            let staged = sandbox.in_volume(&sandbox.volume(), "cat .n8n-backup-restore/new/config");
            assert_eq!(staged.trim(), "secret");
            fs::remove_file(sandbox.backup("n8n")).unwrap();
        }
        let outcome = sandbox.run("backup-n8n", &[]);
        outcome.assert_success();
        if bound.is_ok() {
            outcome.assert_log_has(
                "backup-n8n",
                "WARN 1 socket(s) are not in the archive, since nothing can hold one: {}",
            );
            fs::remove_file(&socket).unwrap();
        }
        let archive = sandbox.backup("n8n");
        let members = sh("tar -tzf \"$1\"", &[archive.as_os_str()]);
        assert!(!members.contains(".n8n-backup-"), "{image}: {members}");
        assert!(members.starts_with("./\n") && members.lines().count() > 50, "{image}");
        let file = archive.display().to_string();
        sandbox.run("restore-n8n", &[&file]).assert_success();
        let lines = |text: &str| {
            text.lines()
                .filter(|line| !line.ends_with(" ./odd") && !line.ends_with(" ."))
                .count()
        };
        assert_eq!(lines(&saved), lines(&sandbox.fingerprint_volume()));
    }
}

/// A file that the dump names and the archive lacks would be lost: the dump's moment comes first.
#[test]
fn the_data_are_read_after_the_snapshot_of_the_dump() {
    let sandbox = Sandbox::new("moment").stack().seeded().build();
    // n8n writes right before the snapshot, long after the container of the packer runs.
    let docker = sandbox.stand_in_docker(&format!(
        "case \" $* \" in *' pg_dump '*) sleep 2; \"$real\" run --rm --network none -v {}:/volume {} touch /volume/late ;; esac",
        sandbox.volume(),
        "n8n-backup-test/busybox:1"
    ));
    let outcome = sandbox.call("backup-all").path_first(&docker).run();
    outcome.assert_success();
    let archive = sandbox.backup("n8n");
    let members = sh("tar -tzf \"$1\"", &[archive.as_os_str()]);
    assert!(members.lines().any(|name| name == "./late"), "{members}");
    let manifest = fs::read_to_string(sandbox.backup("sets")).unwrap();
    let instant = |name: &str| {
        let line = manifest
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# {name}: ")));
        line.unwrap_or_else(|| panic!("no {name}: {manifest}")).to_owned()
    };
    let (snapshot, read) = (instant("postgres.snapshot"), instant("n8n.read"));
    assert!(
        snapshot <= read && snapshot.ends_with('Z') && snapshot.len() == 24,
        "{snapshot} {read}"
    );

    // A dump that fails keeps nobody waiting, nor does one job at a time.
    let failing = sandbox.stand_in_docker("case \" $* \" in *' pg_dump '*) exit 1 ;; esac");
    let outcome = sandbox.call("backup-all").path_first(&failing).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert_eq!(sandbox.backups("n8n").len(), 2, "{outcome}");
    sandbox.set("BACKUP_JOBS", "1");
    sandbox.run("backup-all", &[]).assert_success();

    // Who is killed while the packer waits leaves no container.
    let held = sandbox.stand_in_docker("case \" $* \" in *' pg_dump '*) exec sleep 60 ;; esac");
    sandbox.set("BACKUP_JOBS", "3");
    let mut killed = sandbox.call("backup-all").path_first(&held).spawn();
    killed.await_that("the packer's container", |_| helpers(&sandbox) == 1);
    killed.signal("KILL");
    killed.wait();
    await_true("the container to go", || helpers(&sandbox) == 0);
}

/// What executions name and the archive lacks is counted.
#[test]
fn a_test_tells_binary_data_that_are_missing() {
    let sandbox = Sandbox::new("binary").stack().seeded().build();
    sandbox.psql(
        r#"UPDATE execution_data SET data = data || '{"binary":{"a":{"id":"filesystem-v2:workflows/wf1/executions/1/binary_data/file-1"}}}'
             || '["filesystem-v2:workflows/wf1/executions/1/binary_data/gone"]' WHERE "executionId" = 1"#,
    );
    sandbox.run("backup-all", &[]).assert_success();
    let outcome = sandbox.run("test-recovery", &["--full"]);
    outcome.assert_success();
    assert!(
        outcome.stdout.contains(
            "1 of 2 files of binary data that executions name are not in the archive of n8n's data, such as \
             workflows/wf1/executions/1/binary_data/gone"
        ),
        "{outcome}"
    );
}
