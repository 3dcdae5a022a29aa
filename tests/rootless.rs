//! Backup and restore on a rootless Docker, which this test starts for itself: as a user that exists for it alone, in
//! namespaces of its own.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{assert_same, can_mount, done, has_program, repository, sh, skip, Sandbox};

const TEST: &str = "rootless::a_rootless_engine_serves";

/// Starts the engine in `$1`. The user and the range of numbers that it may hand out stand in an `/etc` over the real one.
const START: &str = r#"
mount -t tmpfs none "$1/etc"
mkdir "$1/etc/upper" "$1/etc/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc/upper,workdir=$1/etc/work" /etc
echo 'n8nbt:x:64999:64999::/nonexistent:/bin/sh' >>/etc/passwd
echo 'n8nbt:x:64999:' >>/etc/group
for file in subuid subgid; do echo 'n8nbt:100000:2000000000' >/etc/$file; done
chown 64999:64999 "$1/home" "$1/run"
chmod 700 "$1/run"
ip link set lo up || true
# Not by exec: this shell is what ends with the test, and the rest with it.
setpriv --reuid=64999 --regid=64999 --clear-groups env -i \
  HOME="$1/home" XDG_RUNTIME_DIR="$1/run" PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" \
  rootlesskit --net=host --copy-up=/etc --copy-up=/run --propagation=rslave sh -c '
    rm -f /run/docker /run/containerd /run/xtables.lock
    exec dockerd --iptables=false --ip6tables=false --bridge=none'
exit
"#;

/// A rootless engine; it ends, with all it has started, when this is dropped.
struct Engine {
    child: Child,
    dir: PathBuf,
}

impl Engine {
    /// Starts one; the reason, where it does not come up.
    fn start() -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("n8nbt-rootless-{}", std::process::id()));
        for name in ["etc", "home", "run"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let log = File::create(dir.join("log")).unwrap();
        let child = Command::new("unshare")
            .args([
                "-m",
                "-n",
                "-p",
                "-f",
                "--mount-proc",
                "--kill-child",
                "sh",
                "-ec",
                START,
                "sh",
            ])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut engine = Self { child, dir };
        let deadline = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(engine.socket()).is_err() {
            if Instant::now() > deadline || engine.child.try_wait().unwrap().is_some() {
                let log = fs::read_to_string(engine.dir.join("log")).unwrap_or_default();
                return Err(format!(
                    "it does not start here: {}",
                    log.lines().last().unwrap_or_default()
                ));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(engine)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("run/docker.sock")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Its first process takes all others with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("rm").arg("-rf").arg(&self.dir).status();
    }
}

#[test]
fn a_rootless_engine_serves_for_backup_drill_and_restore() {
    for program in ["rootlesskit", "newuidmap", "dockerd", "setpriv", "openssl"] {
        let anywhere = has_program(program)
            || ["/usr/sbin", "/sbin"]
                .iter()
                .any(|dir| PathBuf::from(dir).join(program).exists());
        if !anywhere {
            return skip(TEST, &format!("no {program} (Debian: rootlesskit, uidmap, docker.io)"));
        }
    }
    if !can_mount() {
        return skip(TEST, "needs to mount in a namespace of its own (root)");
    }
    let mut images = Command::new(repository().join("tests/stack/stack.sh"));
    images.arg("images");
    done(images);
    let engine = match Engine::start() {
        Ok(engine) => engine,
        Err(reason) => return skip(TEST, &reason),
    };
    let host = format!("unix://{}", engine.socket().display());
    sh(
        "docker save n8n-backup-test/busybox:1 n8n-backup-test/redis:1 n8n-backup-test/postgres:1 | docker -H \"$1\" load",
        &[host.as_ref()],
    );
    // The only test of this program, so that no other one sees it.
    std::env::set_var("DOCKER_HOST", &host);
    let sandbox = Sandbox::new("rootless")
        .kept()
        .stack()
        .n8n()
        .seeded()
        .env("BACKUP_DRILL", "full")
        .build();
    assert!(sandbox
        .docker(&["info", "--format", "{{.SecurityOptions}}"])
        .contains("rootless"));
    let fingerprint = || {
        [
            sandbox.fingerprint_postgres(),
            sandbox.fingerprint_redis(),
            sandbox.fingerprint_volume(),
        ]
        .concat()
    };
    let before = fingerprint();
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_success();
    outcome.assert_log_has("backup-all", "SUCCESS All backups completed successfully (6/6)");
    let doctor = sandbox.binary().arg("doctor").run();
    assert_eq!(doctor.code, Some(0), "{doctor}");

    sandbox.psql("drop table settings cascade");
    sandbox.redis(&["flushall"]);
    let script = "docker exec \"$1\" sh -c 'rm -rf /home/node/.n8n/* && echo x >/home/node/.n8n/stray'";
    sh(script, &[sandbox.container("n8n-main").as_ref()]);
    sandbox.run("restore-all", &["latest"]).assert_success();
    assert_same(&before, &fingerprint());
}
