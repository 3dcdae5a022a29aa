//! Cases of the fault suite, which are counted. Each that held appends a line to the file that `FAULTS_REPORT` names.

// A test that cannot go on is to panic.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{await_true, output, skip, Running, Sandbox};

/// Whether the suite runs in full.
pub fn all() -> bool {
    std::env::var_os("FAULTS").is_some_and(|value| value == "all")
}

/// `some` in the short form of the suite, `many` in the full one.
pub fn few_or_many(some: usize, many: usize) -> usize {
    if all() {
        many
    } else {
        some
    }
}

/// Runs one case; `name` goes into the report when it begins and when it held.
pub fn case<T>(name: &str, check: impl FnOnce() -> T) -> T {
    report("begin", name);
    eprintln!("case: {name}");
    let value = check();
    report("held", name);
    value
}

fn report(what: &str, name: &str) {
    if let Some(path) = std::env::var_os("FAULTS_REPORT") {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        // At once, since other tests write there, too.
        file.write_all(format!("{what} {name}\n").as_bytes()).unwrap();
    }
}

/// A child of `pid`, or a child's child, whose command line holds `what`.
pub fn child_of(pid: u32, what: &str) -> Option<u32> {
    let processes: Vec<(u32, u32, String)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|item| {
            let child: u32 = item.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(item.path().join("stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let parent: u32 = fields.nth(1)?.parse().ok()?;
            let line = fs::read(item.path().join("cmdline")).ok()?;
            Some((child, parent, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect();
    processes
        .iter()
        .find(|(_, parent, line)| *parent == pid && line.contains(what))
        .map(|(child, ..)| *child)
}

/// Sends a signal to a process by its number.
pub fn kill(signal: &str, pid: u32) {
    let mut command = Command::new("kill");
    command.args([format!("-{signal}"), pid.to_string()]);
    let _ = output(command);
}

/// Waits for a child whose command line holds `what`, sends it `signal`, and tells whether it was there in time.
pub fn kill_child(running: &Running<'_>, what: &str, signal: &str) -> bool {
    kill_child_that(running, what, signal, |_| true)
}

/// The same for one that reads something: a program of checksums is tried first, with nothing.
pub fn kill_reading_child(running: &Running<'_>, what: &str, signal: &str) -> bool {
    kill_child_that(running, what, signal, |child| {
        let input = fs::read_link(format!("/proc/{child}/fd/0"));
        input.is_ok_and(|input| input != Path::new("/dev/null"))
    })
}

fn kill_child_that(running: &Running<'_>, what: &str, signal: &str, is_it: impl Fn(u32) -> bool) -> bool {
    let start = Instant::now();
    // One that has ended and was not waited for yet has no program any more.
    let program = format!("/proc/{}/exe", running.pid());
    while start.elapsed() < Duration::from_secs(10) && fs::read_link(&program).is_ok() {
        if let Some(child) = child_of(running.pid(), what).filter(|child| is_it(*child)) {
            kill(signal, child);
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Waits until no docker client works on the sandbox any more. One that a killed run had just started goes on with what
/// it was given.
pub fn await_no_clients(sandbox: &Sandbox) {
    await_true("docker clients are left", || {
        let lines = fs::read_dir("/proc").unwrap().flatten();
        let lines = lines.filter_map(|item| fs::read(item.path().join("cmdline")).ok());
        !lines.into_iter().any(|line| {
            let line = String::from_utf8_lossy(&line).into_owned();
            line.split('\0')
                .next()
                .is_some_and(|program| program.ends_with("docker"))
                && line.contains(sandbox.prefix())
        })
    });
}

/// A small file system at a directory, gone when this is dropped.
pub struct Small(PathBuf);

impl Small {
    /// Mounts one of `size` (as tmpfs takes it); none where that is not allowed.
    pub fn mount(test: &str, dir: &Path, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
            .arg(dir);
        Self::by(mount, test, dir)
    }

    /// The same with a disk of its own, in a file beside it, for what makes no use of memory.
    pub fn disk(test: &str, dir: &Path, size: &str) -> Option<Self> {
        let make = "truncate -s \"$1\" \"$2.img\" && mkfs.ext4 -q -F \"$2.img\" && mount -o loop \"$2.img\" \"$2\"";
        let mut mount = Command::new("sh");
        mount.args(["-c", make, "sh", size]).arg(dir);
        Self::by(mount, test, dir)
    }

    fn by(mount: Command, test: &str, dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let said = output(mount);
        if said.status.success() {
            return Some(Self(dir.to_owned()));
        }
        skip(test, "mounting a small file system needs root");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.0);
        let _ = output(umount);
    }
}
