//! What n8n mounts beside its home, below it and elsewhere: all of it is in the archive, and comes back.

use std::fs;

use crate::common::faults::Small;
use crate::common::{assert_same, sh, Sandbox};

const BUSYBOX: &str = "n8n-backup-test/busybox:1";
/// An image with GNU's tar.
const REDIS: &str = "n8n-backup-test/redis:1";

/// Starts `n8n-main` with these mounts, as docker's `--mount` takes them.
fn start_n8n(sandbox: &Sandbox, mounts: &[String]) {
    let name = sandbox.container("n8n-main");
    let labels = sandbox.labels();
    let mut args = vec!["run", "-d", "--name", &name, "--network", "none", "--stop-timeout", "1"];
    args.extend(labels.iter().map(String::as_str));
    for mount in mounts {
        args.extend(["--mount", mount]);
    }
    // It ends when it is told to.
    args.extend([BUSYBOX, "sh", "-c", "trap exit TERM; sleep 600 & wait"]);
    sandbox.docker(&args);
}

fn bind(source: &std::path::Path, target: &str) -> String {
    format!("type=bind,\"source={}\",target={target}", source.display())
}

/// Has the containers say where the home is.
fn name_no_volume(sandbox: &Sandbox) {
    let env = fs::read_to_string(sandbox.path(".env")).unwrap();
    let lines = env.lines().filter(|line| !line.starts_with("BACKUP_N8N_VOLUME"));
    sandbox.write(".env", lines.map(|line| format!("{line}\n")).collect::<String>());
}

fn members(sandbox: &Sandbox) -> String {
    let archive = sandbox.backups("n8n").pop().unwrap();
    sh("tar -tzf \"$1\"", &[archive.as_os_str()])
}

/// The contents of all directories, as the container sees them.
fn contents(sandbox: &Sandbox) -> String {
    let script = "cd /; find home/node/.n8n files data mnt/away ! -name .n8n -print | sort | while IFS= read -r f; do \
                  stat -c '%n %F %u %g %a' \"$f\"; [ ! -f \"$f\" ] || { stat -c %Y \"$f\"; cat \"$f\" | sha256sum; }; done";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", script])
}

#[test]
fn what_n8n_mounts_besides_is_backed_up_and_comes_back() {
    let sandbox = Sandbox::new("mounts").volume().seeded().build();
    let (nested, other) = (
        format!("{}_binary_data", sandbox.prefix()),
        format!("{}_other_data", sandbox.prefix()),
    );
    sandbox.make_volume(&nested);
    sandbox.make_volume(&other);
    let away = sandbox.aside("away");
    let left = sandbox.aside("left");
    for dir in [&sandbox.path("custom"), &sandbox.path("files"), &away, &left] {
        fs::create_dir(dir).unwrap();
    }
    fs::create_dir(sandbox.path("files/part")).unwrap();
    fs::write(sandbox.path("single"), "x").unwrap();
    let home = "/home/node/.n8n";
    start_n8n(
        &sandbox,
        &[
            format!("type=volume,source={},target={home}", sandbox.volume()),
            bind(&sandbox.path("custom"), "/home/node/.n8n/custom"),
            format!("type=volume,source={nested},target={home}/binaryData"),
            bind(&sandbox.path("files"), "/files"),
            bind(&sandbox.path("files/part"), "/part"),
            format!("type=volume,source={other},target=/data/other"),
            bind(&away, "/mnt/away"),
            bind(&left, "/mnt/left"),
            bind(&sandbox.path("single"), "/etc/single"),
            bind(&sandbox.path("backups"), "/backups"),
            bind(std::path::Path::new("/etc"), "/host-etc"),
        ],
    );
    let main = sandbox.container("n8n-main");
    let fill = "cd /home/node/.n8n && echo node >custom/node.js && chown 1000:1000 custom/node.js && mkdir -p \
                binaryData/workflows/w && echo b >binaryData/workflows/w/b && ln -s ../../x binaryData/link && echo f \
                >'/files/a b' && chmod 700 /files && echo o >/data/other/o && ln /data/other/o /data/other/hard && echo a \
                >/mnt/away/a && echo l >/mnt/left/l && echo p >/part/p";
    sandbox.docker(&["exec", &main, "sh", "-ec", fill]);
    sandbox.set("BACKUP_INCLUDE_MOUNTS", "/mnt/away /host-etc");
    // One file in two mounts.
    fs::write(sandbox.path("files/shared"), "s").unwrap();
    fs::hard_link(sandbox.path("files/shared"), away.join("shared")).unwrap();
    let saved = contents(&sandbox);
    // As killed runs leave it.
    let left_behind = [
        "custom/.n8n-backup-restore/new",
        "files/.n8n-backup-restore/new",
        "custom/.n8n-backup-sqlite-killed",
    ];
    for dir in left_behind.map(|dir| sandbox.path(dir)) {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("staged"), "x").unwrap();
    }
    sandbox.set("BACKUP_HELPER_IMAGE", REDIS);

    let doctor = sandbox.binary().arg("doctor").run();
    assert!(doctor.stdout.contains("not backed up: /mnt/left ("), "{doctor}");
    assert!(doctor.stdout.contains("BACKUP_INCLUDE_MOUNTS"), "{doctor}");
    let system = "not backed up: /host-etc (/etc): it is a directory of the system";
    assert!(doctor.stdout.contains(system), "{doctor}");
    assert!(
        doctor.stdout.contains("/files/part) is backed up as /files/part"),
        "{doctor}"
    );

    sandbox.run("backup-n8n", &[]).assert_success();
    let held = members(&sandbox);
    for name in [
        "./custom/node.js",
        "./binaryData/workflows/w/b",
        "./.n8n-backup-mounts/%2Ffiles/a b",
        "./.n8n-backup-mounts/%2Ffiles/part/p",
        "./.n8n-backup-mounts/%2Fdata%2Fother/o",
        "./.n8n-backup-mounts/%2Fmnt%2Faway/a",
    ] {
        assert!(held.lines().any(|member| member == name), "{name}: {held}");
    }
    for name in ["left", "etc%2Fsingle", "%2Fbackups", "host-etc", "staged", "%2Fpart"] {
        assert!(!held.contains(name), "{name}: {held}");
    }
    for dir in left_behind {
        assert!(!sandbox.path(dir).exists(), "{dir}");
    }
    sandbox.run("test-recovery", &["--n8n"]).assert_success();
    sandbox.set("BACKUP_HELPER_IMAGE", BUSYBOX);

    let file = sandbox.backup("n8n").display().to_string();
    let spoil =
        "cd /home/node/.n8n && rm -rf custom/* binaryData/* config /files/[!p]* /part/* /data/other/* && echo new \
                 >custom/new && echo y >/mnt/away/y && chmod 755 /files && echo 2 >/mnt/left/l";
    sandbox.docker(&["exec", &main, "sh", "-c", spoil]);
    let changed = contents(&sandbox);
    // A step that fails in one of them puts all back.
    for nth in [1, 3] {
        let docker = sandbox.failing_docker("*' exchange '*", nth);
        let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
        outcome.assert_error("n8n data restore failed");
        assert_same(&changed, &contents(&sandbox));
    }
    // Killed between two of them, the next run sets it right.
    for (pattern, wanted) in [("exchange", 3), ("finish", 2)] {
        let count = sandbox.aside(format!("count-{pattern}"));
        let docker = sandbox.stand_in_docker(&format!(
            "case \" $* \" in *' {pattern} '*) echo >>'{0}'; [ $(wc -l <'{0}') -lt {wanted} ] || {{ kill -KILL $PPID; exit 1; }} ;; \
             esac",
            count.display()
        ));
        let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
        assert_ne!(outcome.code, Some(0), "{outcome}");
        assert!(count.exists());
        sandbox.run("restore-n8n", &[&file]).assert_success();
        assert_same(&saved, &contents(&sandbox));
        sandbox.docker(&["exec", &main, "sh", "-c", spoil]);
    }

    // What is excluded is neither read nor replaced.
    sandbox.set("BACKUP_EXCLUDE_MOUNTS", "/files /home/node/.n8n/custom");
    let doctor = sandbox.binary().arg("doctor").run();
    assert!(!doctor.stdout.contains("not backed up: /files"), "{doctor}");
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_success();
    outcome.assert_log_has(
        "restore-n8n",
        "WARN The archive holds /files, which BACKUP_EXCLUDE_MOUNTS names: it is left out",
    );
    assert!(contents(&sandbox).contains("custom/new") && !contents(&sandbox).contains("files/a b"));
    assert!(contents(&sandbox).contains("data/other/hard"));

    // What lies within another directory now would be lost with what is there.
    sandbox.set("BACKUP_EXCLUDE_MOUNTS", "");
    sandbox.docker(&["rm", "-f", &main]);
    fs::create_dir_all(sandbox.path("all/files")).unwrap();
    fs::write(sandbox.path("all/files/live"), "x").unwrap();
    start_n8n(
        &sandbox,
        &[
            format!("type=volume,source={},target={home}", sandbox.volume()),
            bind(&sandbox.path("all"), "/all"),
            bind(&sandbox.path("all/files"), "/files"),
        ],
    );
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_error("The archive holds /files by itself, and {} lies within another directory of n8n's now, {}");
    assert!(sandbox.path("all/files/live").exists());
    sandbox.run("backup-n8n", &[]).assert_success();
    let file = sandbox.backups("n8n").pop().unwrap().display().to_string();
    fs::remove_file(sandbox.path("all/files/live")).unwrap();
    sandbox.run("restore-n8n", &[&file]).assert_success();
    assert!(sandbox.path("all/files/live").exists());
}

/// `./data:/data` beside `./data/n8n:/home/node/.n8n`.
#[test]
fn what_holds_the_home_comes_back_with_it() {
    let sandbox = Sandbox::new("holder").containers().build();
    name_no_volume(&sandbox);
    let (data, home) = (sandbox.path("data"), sandbox.path("data/n8n"));
    sandbox.set("BACKUP_HELPER_IMAGE", REDIS);
    fs::create_dir_all(data.join("reports/2026")).unwrap();
    fs::create_dir(&home).unwrap();
    fs::write(home.join("config"), "{\"encryptionKey\":\"k\"}").unwrap();
    fs::write(data.join("a"), "saved").unwrap();
    fs::write(data.join("reports/2026/r"), "saved").unwrap();
    start_n8n(&sandbox, &[bind(&home, "/home/node/.n8n"), bind(&data, "/data")]);
    let main = sandbox.container("n8n-main");
    sandbox.docker(&[
        "exec",
        &main,
        "sh",
        "-c",
        "chown 1000:1000 /data/a && chmod 710 /data/reports",
    ]);
    let contents = || {
        let script =
            "cd /data; find . | sort | while IFS= read -r f; do stat -c '%n %F %u %g %a' \"$f\"; [ ! -f \"$f\" ] || \
                      cat \"$f\"; done";
        sandbox.docker(&["exec", &main, "sh", "-c", script])
    };
    let saved = contents();
    sandbox.run("backup-n8n", &[]).assert_success();
    let held = members(&sandbox);
    assert!(held.contains("./.n8n-backup-mounts/%2Fdata/reports/2026/r\n"), "{held}");
    assert!(!held.contains("%2Fdata/n8n/config"), "{held}");
    sandbox.run("test-recovery", &["--n8n"]).assert_success();

    let spoil = "cd /data; echo spoilt >a; rm -r reports; mkdir new; echo spoilt >n8n/config; chmod 700 .";
    sandbox.docker(&["exec", &main, "sh", "-c", spoil]);
    let changed = contents();
    let file = sandbox.backup("n8n").display().to_string();
    for nth in [1, 2] {
        let docker = sandbox.failing_docker("*' exchange '*", nth);
        let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
        outcome.assert_error("n8n data restore failed");
        assert_same(&changed, &contents());
    }
    // Killed right after what holds the home was exchanged.
    let count = sandbox.aside("count");
    let docker = sandbox.stand_in_docker(&format!(
        "case \" $* \" in *' finish '*) echo >>'{0}'; [ $(wc -l <'{0}') -lt 2 ] || {{ kill -KILL $PPID; exit 1; }} ;; esac",
        count.display()
    ));
    let outcome = sandbox.call("restore-n8n").arg(&file).path_first(&docker).run();
    assert!(outcome.code != Some(0) && count.exists(), "{outcome}");
    sandbox.run("restore-n8n", &[&file]).assert_success();
    assert_same(&saved, &contents());
    // Of a time when the home was in a directory of its own.
    sandbox.docker(&["rm", "-f", &main]);
    fs::create_dir(sandbox.path("own")).unwrap();
    fs::write(sandbox.path("own/config"), "{\"encryptionKey\":\"k\"}").unwrap();
    start_n8n(
        &sandbox,
        &[bind(&sandbox.path("own"), "/home/node/.n8n"), bind(&data, "/data")],
    );
    sandbox.run("backup-n8n", &[]).assert_success();
    let file = sandbox.backups("n8n").pop().unwrap().display().to_string();
    sandbox.docker(&["rm", "-f", &main]);
    start_n8n(&sandbox, &[bind(&home, "/home/node/.n8n"), bind(&data, "/data")]);
    sandbox
        .run("restore-n8n", &[&file])
        .assert_error("The archive holds files at .n8n-backup-mounts/%2Fdata/n8n, which is n8n's home now {}");
    assert_same(&saved, &contents());
}

/// busybox's tar would pack the one as a link to the other, which is in another archive.
#[test]
fn a_hard_link_into_the_home_from_what_holds_it_comes_back_as_a_file() {
    let sandbox = Sandbox::new("holderlink").containers().build();
    name_no_volume(&sandbox);
    let (data, home) = (sandbox.path("data"), sandbox.path("data/n8n"));
    sandbox.set("BACKUP_HELPER_IMAGE", REDIS);
    fs::create_dir(&data).unwrap();
    let config = "{\"encryptionKey\":\"k\"}";
    fs::write(data.join("first"), config).unwrap();
    let link = |name: String| fs::hard_link(data.join("first"), data.join(name)).unwrap();
    // In whatever order a directory is read, one of them comes after the home.
    (0..100).for_each(|nth| link(format!("a{nth}")));
    fs::create_dir(&home).unwrap();
    fs::hard_link(data.join("first"), home.join("config")).unwrap();
    (0..100).for_each(|nth| link(format!("b{nth}")));
    start_n8n(&sandbox, &[bind(&home, "/home/node/.n8n"), bind(&data, "/data")]);
    sandbox.run("backup-n8n", &[]).assert_success();
    sandbox.run("test-recovery", &["--n8n"]).assert_success();
    let file = sandbox.backup("n8n").display().to_string();
    // All names of it.
    fs::write(data.join("first"), "spoilt").unwrap();
    sandbox.run("restore-n8n", &[&file]).assert_success();
    for name in ["first", "a0", "a99", "b0", "b99", "n8n/config"] {
        assert_eq!(fs::read_to_string(data.join(name)).unwrap(), config, "{name}");
    }
}

/// The engine leaves an empty `config` in the home then.
#[test]
fn a_config_that_is_mounted_as_a_file_fails_no_drill() {
    let sandbox = Sandbox::new("config").containers().build();
    name_no_volume(&sandbox);
    sandbox.set("BACKUP_HELPER_IMAGE", REDIS);
    let (home, config) = (sandbox.path("home"), sandbox.path("n8n-config.json"));
    fs::create_dir(&home).unwrap();
    fs::write(home.join("a"), "a").unwrap();
    fs::write(&config, "{\"encryptionKey\":\"k\"}").unwrap();
    start_n8n(
        &sandbox,
        &[bind(&home, "/home/node/.n8n"), bind(&config, "/home/node/.n8n/config")],
    );
    sandbox.run("backup-n8n", &[]).assert_success();
    assert!(members(&sandbox).contains("./config\n"));
    assert_eq!(fs::read(home.join("config")).unwrap(), b"");
    sandbox.run("test-recovery", &["--n8n"]).assert_success();
}

/// `./main:/home/node/.n8n` in the one, `./worker:/home/node/.n8n` in the other.
#[test]
fn a_home_that_a_worker_keeps_for_itself_is_told() {
    let sandbox = Sandbox::new("homes").containers().build();
    name_no_volume(&sandbox);
    let homes = ["main", "worker"].map(|name| {
        let dir = sandbox.path(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("config"), "{\"encryptionKey\":\"k\"}").unwrap();
        fs::write(dir.join(name), name).unwrap();
        dir
    });
    start_n8n(&sandbox, &[bind(&homes[0], "/home/node/.n8n")]);
    let worker = format!("{}:/home/node/.n8n", homes[1].display());
    sandbox.run_idle(&sandbox.container("n8n-worker"), &worker);
    let told = "Not backed up with n8n's data: /home/node/.n8n (";
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "backup-n8n",
        &format!("WARN {told}{{}}/worker): a home of n8n's beside the one that is backed up {{}}"),
    );
    let held = members(&sandbox);
    assert!(held.contains("./main\n") && !held.contains("./worker\n"), "{held}");
    let doctor = sandbox.binary().arg("doctor").run();
    assert!(doctor.stdout.contains("not backed up: /home/node/.n8n ("), "{doctor}");
    sandbox.set("BACKUP_EXCLUDE_MOUNTS", "/home/node/.n8n");
    sandbox.run("backup-n8n", &[]).assert_success().assert_never_says(told);
    // The worker's is left as it is.
    let file = sandbox.backups("n8n").pop().unwrap().display().to_string();
    sandbox.run("restore-n8n", &[&file]).assert_success();
    assert!(homes[1].join("worker").exists() && homes[0].join("main").exists());
}

/// `n8n_data:/data` in Redis, too.
#[test]
fn a_volume_that_redis_keeps_its_data_in_is_no_home() {
    let sandbox = Sandbox::new("shared-home").volume().build();
    let volume = sandbox.volume();
    start_n8n(
        &sandbox,
        &[format!("type=volume,source={volume},target=/home/node/.n8n")],
    );
    let fill = "echo '{\"encryptionKey\":\"k\"}' >/home/node/.n8n/config";
    sandbox.docker(&["exec", &sandbox.container("n8n-main"), "sh", "-c", fill]);
    sandbox.run_idle(&sandbox.container("redis"), &format!("{volume}:/data"));
    let why = format!("n8n's home {volume} cannot be replaced as a whole: it holds data of PostgreSQL or Redis");
    let doctor = sandbox.binary().arg("doctor").run();
    assert!(doctor.stdout.contains(&why), "{doctor}");
    let outcome = sandbox.run("backup-n8n", &[]);
    assert!(outcome.code == Some(1) && outcome.stdout.contains(&why), "{outcome}");
    assert!(sandbox.backups("n8n").is_empty());
}

/// What the engine shows of it has the name of the whole volume.
#[test]
fn a_part_of_a_volume_is_neither_backed_up_nor_replaced() {
    let sandbox = Sandbox::new("subpath").volume().build();
    let (volume, home) = (sandbox.volume(), "/home/node/.n8n");
    let all = format!("{volume}:/v");
    let fill = "mkdir -p /v/n8n && echo '{\"encryptionKey\":\"k\"}' | tee /v/config >/v/n8n/config";
    sandbox.docker(&["run", "--rm", "-v", &all, BUSYBOX, "sh", "-c", fill]);
    start_n8n(&sandbox, &[format!("type=volume,source={volume},target={home}")]);
    sandbox.run("backup-n8n", &[]).assert_success();
    let file = sandbox.backup("n8n").display().to_string();
    sandbox.docker(&["rm", "-f", &sandbox.container("n8n-main")]);
    let mut version = std::process::Command::new("docker");
    version.args(["version", "--format", "{{.Server.APIVersion}}"]);
    let version = String::from_utf8(crate::common::output(version).stdout).unwrap();
    let minor = version
        .trim()
        .strip_prefix("1.")
        .and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 45) {
        return crate::common::skip("a part of a volume", "the engine mounts none (API 1.45)");
    }
    start_n8n(
        &sandbox,
        &[format!("type=volume,source={volume},target={home},volume-subpath=n8n")],
    );
    let why = format!("{home} is a part of the volume {volume} (n8n)");
    let doctor = sandbox.binary().arg("doctor").run();
    assert!(doctor.stdout.contains(&why), "{doctor}");
    for outcome in [sandbox.run("backup-n8n", &[]), sandbox.run("restore-n8n", &[&file])] {
        assert!(outcome.code == Some(1) && outcome.stdout.contains(&why), "{outcome}");
    }
    assert_eq!(sandbox.backups("n8n").len(), 1);
    // Beside the home it is left out, with a warning.
    sandbox.docker(&["rm", "-f", &sandbox.container("n8n-main")]);
    let other = format!("{}_other_data", sandbox.prefix());
    sandbox.make_volume(&other);
    sandbox.docker(&["run", "--rm", "-v", &format!("{other}:/v"), BUSYBOX, "mkdir", "/v/part"]);
    let part = format!("type=volume,source={other},target=/files,volume-subpath=part");
    start_n8n(&sandbox, &[format!("type=volume,source={volume},target={home}"), part]);
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_success();
    let why = format!("Not backed up with n8n's data: /files is a part of the volume {other} (part)");
    assert!(outcome.stdout.contains(&why), "{outcome}");
    assert!(!members(&sandbox).contains("%2Ffiles"));
}

/// A home that is a directory of the host needs no volume.
#[test]
fn a_home_that_is_a_directory_is_backed_up_as_it_is() {
    let sandbox = Sandbox::new("bindhome").containers().build();
    let home = sandbox.path("n8n-data");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("config"), "{\"encryptionKey\":\"k\"}").unwrap();
    start_n8n(&sandbox, &[bind(&home, "/home/node/.n8n")]);
    name_no_volume(&sandbox);
    sandbox.run("backup-n8n", &[]).assert_success();
    assert_eq!(members(&sandbox), "./\n./config\n");
    fs::write(home.join("config"), "{}").unwrap();
    let file = sandbox.backup("n8n").display().to_string();
    sandbox.run("restore-n8n", &[&file]).assert_success();
    assert_eq!(
        fs::read_to_string(home.join("config")).unwrap(),
        "{\"encryptionKey\":\"k\"}"
    );
    let doctor = sandbox.binary().arg("doctor").run();
    assert!(doctor.stdout.contains("n8n's home is the directory "), "{doctor}");
    // What holds another file system is not moved. A directory that is missing is made again, but not by a rehearsal.
    if let Some(_disk) = Small::mount("mounts: a disk in n8n's home", &home.join("storage/nas"), "1M") {
        sandbox
            .run("restore-n8n", &[&file])
            .assert_error("{} cannot be replaced: another file system is mounted there, at storage/nas");
    }
    sandbox.docker(&["rm", "-f", &sandbox.container("n8n-main")]);
    fs::remove_dir_all(&home).unwrap();
    let labels = sandbox.labels();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let (main, mount) = (
        sandbox.container("n8n-main"),
        format!("{}:/home/node/.n8n", home.display()),
    );
    let create = ["create", "--name", &main, "--network", "none", "-v", &mount];
    sandbox.docker(&[&create[..], &labels, &[BUSYBOX]].concat());
    let rehearsal = sandbox.run("restore-all", &["--dry-run", "--only", "n8n"]);
    rehearsal.assert_success();
    assert!(!home.exists(), "{rehearsal}");
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_success();
    outcome.assert_log_has("restore-n8n", "WARN {}, which n8n mounts, is missing: it is made");
    assert!(home.join("config").exists());
    // The disk of one in another place of the host may not be mounted.
    let away = sandbox.aside("away");
    sandbox.docker(&["rm", "-f", &main]);
    let also = format!("{}:/mnt/away", away.display());
    sandbox.docker(&[&create[..], &["-v", &also], &labels, &[BUSYBOX]].concat());
    sandbox.set("BACKUP_INCLUDE_MOUNTS", "/mnt/away");
    fs::write(home.join("config"), "{}").unwrap();
    let outcome = sandbox.run("restore-n8n", &[&file]);
    outcome.assert_error("{}/away, which n8n mounts, is not there");
    let rehearsal = sandbox.run("restore-all", &["--dry-run", "--only", "n8n"]);
    assert!(
        rehearsal.code == Some(1) && rehearsal.stdout.contains("/away, which n8n mounts, is not there"),
        "{rehearsal}"
    );
    assert!(!away.exists() && fs::read_to_string(home.join("config")).unwrap() == "{}");
    sandbox.set("BACKUP_INCLUDE_MOUNTS", "");
    // One that holds more than n8n's data is no home that can be replaced; another mount of that kind is left out.
    let data = sandbox.path("data");
    fs::create_dir_all(data.join("redis")).unwrap();
    let (n8n, redis) = (sandbox.container("n8n-main"), sandbox.container("redis"));
    sandbox.docker(&["rm", "-f", &n8n, &redis]);
    sandbox.run_idle(&redis, &format!("{}:/data", data.join("redis").display()));
    let refused = |sandbox: &Sandbox, why: &str| {
        let doctor = sandbox.binary().arg("doctor").run();
        assert!(doctor.stdout.contains(why), "{why}: {doctor}");
        for outcome in [sandbox.run("backup-n8n", &[]), sandbox.run("restore-n8n", &[&file])] {
            assert!(
                outcome.code == Some(1) && outcome.stdout.contains(why),
                "{why}: {outcome}"
            );
        }
    };
    for (home, why) in [
        (sandbox.dir(), "it holds the backups"),
        (&data, "it holds data of PostgreSQL or Redis"),
    ] {
        start_n8n(&sandbox, &[bind(home, "/home/node/.n8n")]);
        refused(
            &sandbox,
            &format!("{} cannot be replaced as a whole: {why}", home.display()),
        );
        sandbox.docker(&["rm", "-f", &n8n]);
    }
    assert_eq!(sandbox.backups("n8n").len(), 3, "that of the restore is the last");
    start_n8n(&sandbox, &[bind(&home, "/home/node/.n8n"), bind(&data, "/data")]);
    let doctor = sandbox.binary().arg("doctor").run();
    let left = format!(
        "not backed up: /data ({}): it holds data of PostgreSQL or Redis",
        data.display()
    );
    assert!(doctor.stdout.contains(&left), "{doctor}");
}
