//! The Debian package and the timer on a live systemd: the one of this host, started as the first process of a container over
//! this host's `/usr`, which stays as it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{done, has_program, output, repository, skip, Sandbox};

const TEST: &str = "systemd::the_package_and_the_timer_work_and_leave_nothing";
/// What the host lends for the system in the container, and the one program that is there before.
const START: &str = "/busybox mkdir -p /scratch/upper /scratch/work && \
    /busybox mount -t overlay overlay -o lowerdir=/host-usr,upperdir=/scratch/upper,workdir=/scratch/work /usr && \
    exec /usr/lib/systemd/systemd --log-target=console";

/// A root directory that has nothing of its own but a name service and what makes the first mount.
fn image(sandbox: &Sandbox) -> String {
    let root = sandbox.aside("root");
    for dir in [
        "etc", "var/lib", "run", "tmp", "proc", "sys", "dev", "root", "usr", "host-usr", "scratch", "srv",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for dir in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir)).unwrap();
    }
    fs::write(root.join("etc/machine-id"), "").unwrap();
    for file in ["passwd", "group"] {
        fs::copy(Path::new("/etc").join(file), root.join("etc").join(file)).unwrap();
    }
    // So that the package's dependencies are judged as they are on this host.
    for dir in ["info", "updates", "triggers"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(dir)).unwrap();
    }
    fs::copy("/var/lib/dpkg/status", root.join("var/lib/dpkg/status")).unwrap();
    let image = format!("{}:1", sandbox.prefix());
    crate::common::sh(
        "docker run --rm --network none n8n-backup-test/busybox:1 cat /bin/busybox >\"$1/busybox\"
         chmod 755 \"$1/busybox\"
         tar -C \"$1\" -c . | docker import - \"$2\"",
        &[root.as_os_str(), image.as_ref()],
    );
    image
}

/// Removes the image when the test is over, and the container first, which holds it.
struct Image {
    name: String,
    container: String,
}

impl Drop for Image {
    fn drop(&mut self) {
        for args in [["rm", "-fv", &self.container], ["rmi", "-f", &self.name]] {
            let _ = Command::new("docker").args(args).output();
        }
    }
}

/// Runs a shell command in the container.
fn inside(container: &str, script: &str) -> (bool, String) {
    let mut command = Command::new("docker");
    command.args(["exec", container, "bash", "-c", script]);
    let said = output(command);
    let text = [said.stdout, said.stderr].concat();
    (said.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[track_caller]
fn must(container: &str, script: &str) -> String {
    let (good, text) = inside(container, script);
    assert!(good, "{script}\n{text}");
    text
}

#[test]
fn the_package_and_the_timer_work_and_leave_nothing() {
    for (what, there) in [
        ("no systemd", Path::new("/usr/lib/systemd/systemd").exists()),
        (
            "no dpkg",
            has_program("dpkg-deb") && Path::new("/var/lib/dpkg/status").exists(),
        ),
        ("no local engine", UnixStream::connect("/var/run/docker.sock").is_ok()),
    ] {
        if !there {
            return skip(TEST, what);
        }
    }
    let sandbox = Sandbox::new("systemd")
        .stack()
        .env("BACKUP_LOCK_FILE", "logs/lock")
        .build();
    let container = sandbox.container("init");
    let image = Image {
        name: image(&sandbox),
        container: container.clone(),
    };
    let (project, docker) = (sandbox.aside(""), crate::common::sh("command -v docker", &[]));
    let mounts = [
        format!("{}:/srv", project.display()),
        "/usr:/host-usr:ro".to_owned(),
        "/sys/fs/cgroup:/sys/fs/cgroup".to_owned(),
        "/var/run/docker.sock:/run/docker.sock".to_owned(),
        format!("{}:/opt/docker:ro", docker.trim()),
    ];
    let labels = sandbox.labels();
    let mut args = vec![
        "run",
        "-d",
        "--name",
        &container,
        "--network",
        "none",
        "--cgroupns=host",
        "-e",
        "container=docker",
    ];
    args.extend(["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]);
    args.extend([
        "--security-opt",
        "apparmor=unconfined",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/scratch",
    ]);
    args.extend(labels.iter().map(String::as_str));
    args.extend(mounts.iter().flat_map(|mount| ["-v", mount]));
    args.extend(["-t", &image.name, "/busybox", "sh", "-c", START]);
    let mut run = Command::new("docker");
    run.args(&args);
    let said = output(run);
    if !said.status.success() {
        return skip(TEST, &String::from_utf8_lossy(&said.stderr));
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while !inside(&container, "systemctl is-system-running | grep -qE 'running|degraded'").0 {
        if Instant::now() > deadline {
            let log = sandbox.docker(&["logs", "--tail", "3", &container]);
            return skip(TEST, &format!("systemd does not start in a container here: {log}"));
        }
        sleep(Duration::from_millis(200));
    }

    // The package, from the program under test.
    let checkout = sandbox.aside("checkout");
    let mut copy = Command::new("cp");
    copy.arg("-R");
    copy.args(["README.md", "LICENSE", "CHANGELOG.md", "docs"].map(|name| repository().join(name)));
    copy.arg(&checkout);
    done(copy);
    // As the release is; packing what is for a debugger takes longer than all else.
    if has_program("strip") {
        let program = checkout.join("bin/n8n-backup");
        crate::common::sh(
            "strip -o \"$1.small\" \"$1\" && mv \"$1.small\" \"$1\"",
            &[program.as_os_str()],
        );
    }
    let built = done(Command::new(checkout.join("scripts/make/deb.sh")));
    let package = built.trim().strip_prefix("Built ").unwrap();
    must(&container, &format!("dpkg -i '/srv/checkout/{package}'"));
    must(
        &container,
        "cd / && n8n-backup --version && gzip -t /usr/share/man/man1/n8n-backup.1.gz",
    );
    // The program that is installed for the host works on a project that is named.
    let said = must(&container, "n8n-backup --project-dir '/srv/my n8n' list");
    assert!(said.contains("There is no recovery point yet"), "{said}");

    // The timer, on a project of its own.
    let timer = |what: &str| {
        must(
            &container,
            &format!("N8N_DIR='/srv/my n8n' /srv/checkout/scripts/make/timer.sh {what}"),
        )
    };
    timer("add");
    let timers = must(&container, "systemctl list-timers --all --no-legend 'n8n-backup*'");
    assert_eq!(timers.lines().count(), 1, "{timers}");
    assert!(timers.contains(" 02:00:00 "), "{timers}");
    let unit = must(
        &container,
        "ls /etc/systemd/system | sed -n 's/^\\(n8n-backup.*\\)\\.timer$/\\1/p'",
    );
    let unit = unit.trim();
    must(&container, &format!("systemctl start {unit}.service || {{ systemctl status {unit}; tail '/srv/my n8n/logs/backup.log'; false; }}"));
    assert_eq!(sandbox.backups("sets").len(), 1);
    assert!(sandbox.log().contains("All backups completed successfully (5/5)"));
    must(&container, &format!("systemctl is-enabled {unit}.timer"));
    // A run that fails is a unit that has failed, which is what monitors of systemd look at.
    sandbox.set("BACKUP_REDIS_CONTAINER", "n8nbt-no-such-container");
    assert!(!inside(&container, &format!("systemctl start {unit}.service")).0);
    must(&container, &format!("systemctl is-failed {unit}.service"));

    timer("add");
    timer("remove");
    for script in [
        "systemctl list-units --all --no-legend --plain 'n8n-backup*'",
        "systemctl list-unit-files --no-legend 'n8n-backup*'",
        "systemctl list-timers --all --no-legend 'n8n-backup*'",
        "find /etc/systemd /var/lib/systemd -name '*n8n-backup*'",
    ] {
        let left = must(&container, &format!("{script} || true"));
        assert_eq!(left, "", "{script}");
    }
    must(&container, "dpkg -P n8n-backup");
    let left = must(
        &container,
        "find /usr/bin /usr/share /etc /var/lib/dpkg/info -name '*n8n-backup*'",
    );
    assert_eq!(left, "");
}
