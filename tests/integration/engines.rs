//! Other engines than the local Docker: one that is reached over TCP, podman under docker's name, and several stacks on
//! one host.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;

use crate::common::{assert_same, done, has_program, name, output, repository, skip, Sandbox};

/// Passes TCP connections on to the engine's socket. `budget` bytes may come from the engine over any one connection;
/// then it breaks.
fn proxy(budget: u64) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let served = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&served);
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let engine = UnixStream::connect("/var/run/docker.sock").unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let (mut from_client, mut to_engine) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_engine);
                let _ = to_engine.shutdown(Shutdown::Write);
            });
            thread::spawn(move || back(engine, client, budget));
        }
    });
    (address, served)
}

fn back(mut engine: UnixStream, mut client: TcpStream, budget: u64) {
    let (mut block, mut passed) = (vec![0; 65_536], 0);
    while let Ok(n) = engine.read(&mut block) {
        passed += n as u64;
        if n == 0 || passed > budget || client.write_all(&block[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(if passed > budget {
        Shutdown::Both
    } else {
        Shutdown::Write
    });
    if passed > budget {
        let _ = engine.shutdown(Shutdown::Both);
    }
}

/// Whether the local engine listens where the proxy looks for it.
fn local_engine(test: &str) -> bool {
    let there = UnixStream::connect("/var/run/docker.sock").is_ok();
    if !there {
        skip(test, "no engine listens at /var/run/docker.sock");
    }
    there
}

#[test]
fn an_engine_over_tcp_serves_for_backup_and_restore() {
    if !local_engine("an_engine_over_tcp_serves_for_backup_and_restore") {
        return;
    }
    let sandbox = Sandbox::new("tcp").stack().seeded().build();
    let (address, served) = proxy(u64::MAX);
    sandbox
        .call("backup-all")
        .env("DOCKER_HOST", &address)
        .run()
        .assert_success();
    assert!(served.load(Ordering::Relaxed) > 5);

    let before = sandbox.fingerprint_postgres();
    sandbox.psql("DROP TABLE workflow_entity CASCADE");
    let dump = sandbox.backup("postgres");
    let restored = sandbox
        .call("restore-postgres")
        .arg(&dump)
        .env("DOCKER_HOST", &address)
        .run();
    restored.assert_success();
    assert_same(&before, &sandbox.fingerprint_postgres());

    // The same engine by a context of the docker client.
    let config = sandbox.aside("docker-config");
    std::fs::create_dir(&config).unwrap();
    let mut create = Command::new("docker");
    create.env("DOCKER_CONFIG", &config).env_remove("DOCKER_HOST");
    create.args(["context", "create", "away", "--docker", &format!("host={address}")]);
    done(create);
    let so_far = served.load(Ordering::Relaxed);
    let run = sandbox
        .call("backup-redis")
        .env("DOCKER_CONFIG", &config)
        .env("DOCKER_CONTEXT", "away");
    run.run().assert_success();
    assert!(served.load(Ordering::Relaxed) > so_far);
}

#[test]
fn a_connection_that_breaks_leaves_no_backup() {
    if !local_engine("a_connection_that_breaks_leaves_no_backup") {
        return;
    }
    let sandbox = Sandbox::new("tcpcut").stack().seeded().build();
    // Enough for every question, not for the streams.
    let (address, _) = proxy(100_000);
    for (command, kind) in [("backup-postgres", "postgres"), ("backup-n8n", "n8n")] {
        let outcome = sandbox.call(command).env("DOCKER_HOST", &address).run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(sandbox.backups(kind).is_empty(), "{outcome}");
        assert!(sandbox.leftovers(kind).is_empty(), "{outcome}");
    }
    let (closed, _) = ("tcp://127.0.0.1:1", ());
    let outcome = sandbox.call("backup-redis").env("DOCKER_HOST", closed).run();
    outcome.assert_error("Docker engine does not answer");
}

#[test]
fn two_stacks_on_one_host_do_not_meet() {
    let build = || Sandbox::new("two").stack().seeded().build();
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(build);
        let other = build();
        (one.join().unwrap(), other)
    });
    let running = [one.spawn("backup-all", &[]), other.spawn("backup-all", &[])];
    let [first, second] = running.map(crate::common::Running::wait);
    first.assert_success().assert_never_says(other.prefix());
    second.assert_success().assert_never_says(one.prefix());
    for kind in ["postgres", "redis", "n8n", "env"] {
        assert_ne!(std::fs::read(one.backup(kind)).unwrap(), b"");
        assert_eq!(other.backups(kind).len(), 1);
    }

    // A lock that they share makes the second one say so, and change nothing.
    let shared = one.aside("shared-lock");
    for sandbox in [&one, &other] {
        sandbox.set("BACKUP_LOCK_FILE", &shared.to_string_lossy());
    }
    // As the other's run would hold it.
    std::fs::write(&shared, format!("{}\n", std::process::id())).unwrap();
    let held = std::fs::File::open(&shared).unwrap();
    held.lock().unwrap();
    let refused = other.run("backup-all", &[]);
    refused.assert_error("Backup already in progress (PID: {})");
    assert_eq!(other.backups("env").len(), 1);
}

/// A stack that podman runs.
struct Podman {
    prefix: String,
    /// Has a `docker` that is podman, with limits as low as an engine may set them that is itself confined.
    path: PathBuf,
}

impl Podman {
    fn stack(&self, args: &[&str]) -> Command {
        let mut command = Command::new(repository().join("tests/stack/stack.sh"));
        let path = format!("{}:{}", self.path.display(), std::env::var("PATH").unwrap_or_default());
        command.args(args).env("PATH", path).env("STACK_PULL", "0");
        command
    }

    fn call(&self, args: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.arg("60").arg(self.path.join("docker")).args(args);
        done(command)
    }

    /// Everything in a volume or directory, as text, the top itself left out.
    fn fingerprint(&self, volume: &str) -> String {
        let script = repository().join("tests/stack/volume-fingerprint.sh");
        let mount = format!("{volume}:/volume");
        let program = format!("{}:/fingerprint:ro", script.display());
        let said = self.call(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            &mount,
            "-v",
            &program,
            BUSYBOX,
            "sh",
            "/fingerprint",
        ]);
        said.lines()
            .filter(|line| !line.ends_with(" ."))
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.stack(&["down", &self.prefix]).output();
    }
}

const BUSYBOX: &str = "n8n-backup-test/busybox:1";

/// Gives podman the images of the test stack, from Docker.
fn copy_images() -> bool {
    let script = "for name in busybox redis postgres; do \
        image=n8n-backup-test/$name:1; id=$(docker image inspect --format '{{.Id}}' $image) || exit 1; \
        [ \"sha256:$(podman image inspect --format '{{.Id}}' $image 2>/dev/null)\" = \"$id\" ] || \
        { docker save $image | timeout 120 podman load -q >/dev/null; } || exit 1; done";
    output({
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    })
    .status
    .success()
}

#[test]
fn podman_serves_under_dockers_name() {
    const TEST: &str = "podman_serves_under_dockers_name";
    if !has_program("podman") {
        return skip(TEST, "podman is not installed");
    }
    let sandbox = Sandbox::new("podman").build();
    done({
        let mut images = Command::new(repository().join("tests/stack/stack.sh"));
        images.arg("images");
        images
    });
    if !copy_images() {
        return skip(TEST, "podman does not take Docker's images here");
    }
    let podman = Podman {
        prefix: sandbox.prefix().to_owned(),
        path: sandbox.stand_in(
            "docker",
            "#!/bin/sh\ncase $1 in run | create) verb=$1; shift; \
             exec podman $verb --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \"$@\" ;; esac\nexec podman \"$@\"\n",
        ),
    };
    let up = output(podman.stack(&["up", &podman.prefix, "--seed"]));
    if !up.status.success() {
        return skip(
            TEST,
            &format!(
                "podman starts no container here: {}",
                String::from_utf8_lossy(&up.stderr)
            ),
        );
    }
    let seed = repository().join("tests/stack/volume-seed.sh");
    let (volume, program) = (sandbox.volume(), format!("{}:/seed:ro", seed.display()));
    podman.call(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &format!("{volume}:/volume"),
        "-v",
        &program,
        BUSYBOX,
        "sh",
        "/seed",
        "key",
    ]);
    let docker = podman.path.clone();

    let outcome = sandbox.call("backup-all").path_first(&docker).run();
    outcome.assert_success();

    // The archive holds all that the volume holds, with its owners.
    let unpacked = sandbox.aside("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    unpack(&sandbox.backup("n8n"), &unpacked);
    assert_same(
        &podman.fingerprint(&volume),
        &podman.fingerprint(&unpacked.to_string_lossy()),
    );

    // The volume comes back, with owners, modes, times and links, and so it does in a test.
    let before = podman.fingerprint(&volume);
    let drill = sandbox.call("test-recovery").arg("--n8n").path_first(&docker).run();
    drill.assert_success();
    let main = sandbox.container("n8n-main");
    let spoil = "rm -rf /home/node/.n8n/* && echo x >/home/node/.n8n/stray";
    podman.call(&["exec", &main, "sh", "-c", spoil]);
    let restored = sandbox
        .call("restore-n8n")
        .arg(sandbox.backup("n8n"))
        .path_first(&docker)
        .run();
    restored.assert_success();
    assert_same(&before, &podman.fingerprint(&volume));

    // The database comes back.
    let database = podman.stack(&["fingerprint-postgres", &podman.prefix]);
    let before = done(database);
    let container = sandbox.container("postgres");
    podman.call(&[
        "exec",
        &container,
        "psql",
        "-qU",
        "n8n",
        "-d",
        "n8n",
        "-c",
        "DROP TABLE workflow_entity CASCADE",
    ]);
    let restored = sandbox
        .call("restore-postgres")
        .arg(sandbox.backup("postgres"))
        .path_first(&docker)
        .run();
    restored.assert_success();
    assert_same(&before, &done(podman.stack(&["fingerprint-postgres", &podman.prefix])));

    // What is not there is told from what does not answer.
    sandbox.set("BACKUP_N8N_VOLUME", "n8nbt-no-such-volume");
    sandbox.set("BACKUP_REDIS_CONTAINER", "n8nbt-no-such-container");
    let missing = sandbox.call("backup-n8n").path_first(&docker).run();
    missing.assert_error("Docker volume n8nbt-no-such-volume does not exist");
    let missing = sandbox.call("backup-redis").path_first(&docker).run();
    missing.assert_error("Container n8nbt-no-such-container is not running");
    assert_eq!(sandbox.backups("redis").len(), 1, "{}", name(&sandbox.backup("redis")));
}

fn unpack(archive: &Path, into: &Path) {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "-xpzf"]).arg(archive).arg("-C").arg(into);
    done(tar);
}
