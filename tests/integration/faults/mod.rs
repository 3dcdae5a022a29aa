//! The fault suite: each fault is produced for real and judged by what is left. `docs/reliability.md` says which promise
//! each test stands for.
//!
//! `FAULTS=all` runs it in full, with signals at many points of a run; otherwise at a few. Faults of SQLite, which take n8n's image,
//! are in `tests/n8n/faults.rs`. With `TEST_PASSPHRASE`, every sandbox encrypts its backups with it;
//! with `TEST_COMPRESSOR`, it packs them by that program.

mod disks;
mod dumps;
mod engine;
mod kills;
mod locks;
mod output;
mod places;
mod restores;
mod strangers;
mod users;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{await_true, name, output as run_command, plain, Call, Gate, Outcome, Sandbox};

pub use crate::common::faults::{await_no_clients, case, few_or_many, kill, kill_child};

/// Every file under a final name must be whole, by other programs than the one under test.
#[track_caller]
pub fn assert_backups_whole(sandbox: &Sandbox) {
    // Unpacked once: these are checked after every one of many faults.
    let unpacked = sandbox.aside("unpacked");
    for path in sandbox.backups("postgres") {
        let script =
            "gzip -dc -- \"$1\" >\"$2\"; tail -c 4096 -- \"$2\" | grep -q '^-- PostgreSQL database dump complete$'";
        shell(script, &plain(sandbox, &path), &unpacked);
    }
    for path in sandbox.backups("n8n") {
        let script = "gzip -dc -- \"$1\" >\"$2\"; tar -tf \"$2\" >/dev/null; tail -c 1024 -- \"$2\" | tr -d '\\0' | wc -c | grep -qx 0";
        shell(script, &plain(sandbox, &path), &unpacked);
    }
    for path in sandbox.backups("redis") {
        let bytes = fs::read(plain(sandbox, &path)).unwrap();
        // The opcode of the end stands before a checksum of 8 bytes.
        assert!(
            bytes.starts_with(b"REDIS") && bytes.len() > 18 && bytes[bytes.len() - 9] == 0xff,
            "{} is not whole",
            path.display()
        );
    }
    let settings = fs::read(sandbox.path(".env")).unwrap();
    for path in sandbox.backups("env") {
        // Made by this run, or by one with another stall limit at its end.
        let copy = fs::read(plain(sandbox, &path)).unwrap();
        assert!(copy.starts_with(&settings), "{} is not whole", path.display());
    }
    for path in sandbox.backups("sets") {
        let mut check = Command::new("sha256sum");
        check
            .args(["--quiet", "-c", "--"])
            .arg(&path)
            .current_dir(sandbox.path("backups"));
        let said = run_command(check);
        assert!(said.status.success(), "{path:?}: {said:?}");
    }
}

/// Runs a check of `path`, with a place for its contents, that fails when any of its commands does.
#[track_caller]
fn shell(script: &str, path: &Path, unpacked: &Path) {
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", script, "bash"])
        .args([path, unpacked]);
    let said = run_command(command);
    assert!(said.status.success(), "{}: {script}: {said:?}", path.display());
}

/// Nobody holds the lock of backup-all and the restores.
#[track_caller]
pub fn assert_lock_free(sandbox: &Sandbox) {
    for lock in [sandbox.lock_file(), sandbox.path("backups/.lock")] {
        if lock.exists() {
            let mut flock = Command::new("flock");
            // A child that was being started when we died holds it until its own program begins.
            flock.args(["-w", "2"]).arg(&lock).arg("true");
            assert!(run_command(flock).status.success(), "{} is held", lock.display());
        }
    }
}

/// Before long, no program of ours works in the database, nor will one that somebody who was killed has just started.
#[track_caller]
pub fn assert_no_sessions(sandbox: &Sandbox) {
    await_no_clients(sandbox);
    let ask = "SELECT pid, application_name, state FROM pg_stat_activity WHERE application_name LIKE 'n8n-backup%'";
    await_true("sessions are left", || {
        sandbox.psql_in("postgres", ask).trim().is_empty()
    });
    // The shell that becomes such a program, or waits for it, has the name of its session among its arguments, too.
    let ps = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; done | grep -c '[n]8n-backup' || true";
    await_true("programs are left in the container", || {
        sandbox
            .docker(&["exec", &sandbox.container("postgres"), "sh", "-c", ps])
            .trim()
            == "0"
    });
}

/// The next run succeeds, and then nothing is left of the one that died.
#[track_caller]
pub fn assert_next_run_succeeds(sandbox: &Sandbox) -> Outcome {
    // A test's own stall limit may be too short for a whole run on a busy machine.
    let settings = fs::read(sandbox.path(".env")).unwrap();
    sandbox.set("BACKUP_STALL_SECONDS", "60");
    let next = sandbox.run("backup-all", &[]);
    let copies = sandbox.backups("env");
    let whole = fs::read(sandbox.path(".env")).unwrap();
    sandbox.write(".env", &settings);
    for copy in copies {
        let copy = fs::read(plain(sandbox, &copy)).unwrap();
        assert!(copy == whole || copy == settings, "a copy of .env is not whole");
    }
    next.assert_success();
    for kind in ["postgres", "redis", "n8n", "env", "sets"] {
        assert!(
            sandbox.leftovers(kind).is_empty(),
            "{kind}: {:?}",
            sandbox.leftovers(kind)
        );
    }
    assert_backups_whole(sandbox);
    assert_no_helpers(sandbox);
    next
}

/// No helper container holds a volume.
#[track_caller]
pub fn assert_no_helpers(sandbox: &Sandbox) {
    assert_eq!(helpers(sandbox), Vec::<String>::new(), "helper containers are left");
}

/// Whose the helper containers are that hold a volume of the sandbox.
#[track_caller]
pub fn helpers(sandbox: &Sandbox) -> Vec<String> {
    let label = "n8n-backup.helper";
    let (having, format) = (format!("label={label}"), format!("{{{{.Label \"{label}\"}}}}"));
    let volumes = [sandbox.volume(), format!("{}_redis_data", sandbox.prefix())];
    let of = |volume: String| {
        let volume = format!("volume={volume}");
        sandbox.docker(&[
            "ps", "-a", "--format", &format, "--filter", &volume, "--filter", &having,
        ])
    };
    let all = volumes.map(of).concat();
    all.lines().map(str::to_owned).collect()
}

/// Removes what the last runs have published, so that the next judgement is about the next run.
pub fn clear_backups(sandbox: &Sandbox) {
    for kind in ["postgres", "redis", "n8n", "env", "sets"] {
        for path in sandbox.backups(kind) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Databases that a restore makes.
pub fn staged_databases(sandbox: &Sandbox) -> Vec<String> {
    let mut names = sandbox.databases();
    names.retain(|name| name.starts_with("n8n_restore_") || name.starts_with("n8n_old_"));
    names
}

/// A dump of the sandbox's database in a directory beside the project.
pub fn dump_of(sandbox: &Sandbox) -> PathBuf {
    sandbox.run("backup-postgres", &[]).assert_success();
    let made = sandbox.backups("postgres").pop().unwrap();
    let kept = sandbox.aside(name(&made));
    fs::rename(&made, &kept).unwrap();
    clear_backups(sandbox);
    kept
}

/// Unpacks a dump, has `edit` change it, and packs it as `name` beside the project.
pub fn edited(sandbox: &Sandbox, dump: &Path, name: &str, edit: impl FnOnce(String) -> String) -> PathBuf {
    let mut unpack = Command::new("gzip");
    unpack.arg("-dc").arg(plain(sandbox, dump));
    let text = String::from_utf8(run_command(unpack).stdout).unwrap();
    pack(sandbox, name, edit(text).as_bytes())
}

/// Packs `text` as `name` beside the project.
pub fn pack(sandbox: &Sandbox, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let plain = sandbox.aside("plain");
    fs::write(&plain, text).unwrap();
    let packed = sandbox.aside(name);
    let mut gzip = Command::new("gzip");
    gzip.args(["-1", "-c"]).arg(&plain);
    fs::write(&packed, run_command(gzip).stdout).unwrap();
    packed
}

/// A restore of a dump that the tests have made, with all rights.
pub fn trusted_restore(sandbox: &Sandbox) -> Call<'_> {
    sandbox.call("restore-postgres").arg("--trust-dump")
}

/// Restores a dump that the tests have made, with all rights.
pub fn restore(sandbox: &Sandbox, file: &Path) -> Outcome {
    trusted_restore(sandbox).arg(file).run()
}

/// Before the last line that pg_dump writes, where a statement of a test can stand.
pub fn before_end(text: &str, statement: &str) -> String {
    // The seed holds such a line as data, too.
    let end = text.rfind("--\n-- PostgreSQL database dump complete").unwrap();
    format!("{}{statement}\n\n{}", &text[..end], &text[end..])
}

/// Starts the sandbox's PostgreSQL again and waits for it.
pub fn start_postgres(sandbox: &Sandbox) {
    // One that was killed still runs as far as the engine knows, until it has seen the end.
    sandbox.docker(&["wait", &sandbox.container("postgres")]);
    sandbox.docker(&["start", &sandbox.container("postgres")]);
    await_true("the server does not start", || {
        let mut docker = Command::new("docker");
        docker.args(["exec", &sandbox.container("postgres"), "pg_isready", "-q"]);
        run_command(docker).status.success()
    });
}

/// Where the real docker command is.
pub fn real_docker() -> String {
    crate::common::sh("command -v docker", &[]).trim().to_owned()
}

/// A stand-in for docker: `script` sees the arguments and may pass them on to `$docker`.
pub fn docker_stand_in(sandbox: &Sandbox, script: &str) -> PathBuf {
    let text = format!(
        "#!/bin/bash\ndocker={}\n{script}\nexec \"$docker\" \"$@\"\n",
        real_docker()
    );
    sandbox.stand_in("docker", &text)
}

/// A stand-in for docker that holds a dump in its middle until the gate is open.
pub fn held_dump(sandbox: &Sandbox) -> (PathBuf, Gate) {
    let gate = sandbox.gate();
    let script = format!(
        "case \" $* \" in *' pg_dump '*) \"$docker\" \"$@\" | {{ head -c 8M; {}; cat; }}; exit ${{PIPESTATUS[0]}} ;; esac",
        gate.wait()
    );
    (docker_stand_in(sandbox, &script), gate)
}
