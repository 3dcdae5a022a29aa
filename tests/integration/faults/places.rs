//! Backups on file systems that lack what others have: hard links, modes, owners, directories that can be brought to disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{assert_backups_whole, assert_lock_free, case};
use crate::common::{assert_same, done, has_program, is_root, output, skip, Outcome, Sandbox};

/// A file system that is mounted at a directory until this is dropped, and its file.
struct Mounted(PathBuf, PathBuf);

impl Mounted {
    /// Mounts by the shell script `how`, which gets the directory and a path for a file of its own.
    fn by(how: &str, dir: &Path, file: &Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let mut mount = Command::new("sh");
        mount.args(["-euc", how, "sh"]).arg(dir).arg(file);
        output(mount)
            .status
            .success()
            .then(|| Self(dir.to_owned(), file.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.0);
        let _ = output(umount);
        let free = "losetup -j \"$1\" | cut -d: -f1 | xargs -r losetup -d";
        let mut losetup = Command::new("sh");
        losetup.args(["-c", free, "sh"]).arg(&self.1);
        let _ = output(losetup);
    }
}

/// No links, no modes, no owners, no names with a colon.
const FAT: [&str; 2] = [
    "truncate -s 64M \"$2\" && mkfs.vfat \"$2\" && mount -t vfat -o loop \"$2\" \"$1\"",
    // FAT of another kind, by a program: for kernels that know none.
    "truncate -s 64M \"$2\" && mkfs.exfat \"$2\" && mount.exfat-fuse \"$(losetup -f --show \"$2\")\" \"$1\"",
];
const SQUASHED: &str = "chown 65534:65534 \"$1\" && chmod 755 \"$1\" && \
    bindfs --create-for-user=65534 --create-for-group=65534 --chown-deny --chgrp-deny \"$1\" \"$1\"";

/// Backs everything up twice, tests it, and restores it.
fn serves(sandbox: &Sandbox, variables: &[(&str, String)]) -> Outcome {
    let before = (
        sandbox.fingerprint_postgres(),
        sandbox.fingerprint_redis(),
        sandbox.fingerprint_volume(),
    );
    let run = |name: &str, args: &[&str]| {
        let outcome = sandbox.call(name).args(args).envs(variables).run();
        outcome.assert_success();
        outcome
    };
    run("backup-all", &[]);
    run("backup-all", &[]);
    for kind in ["postgres", "redis", "n8n", "env", "sets"] {
        assert_eq!(sandbox.backups(kind).len(), 2, "{kind}");
        assert!(sandbox.leftovers(kind).is_empty(), "{kind}");
    }
    assert_backups_whole(sandbox);
    assert_lock_free(sandbox);
    let doctor = sandbox.binary().arg("doctor").envs(variables).run();
    run("test-recovery", &["--full"]);
    sandbox.psql("DROP TABLE workflow_entity CASCADE");
    run("restore-all", &["--yes", "latest"]);
    assert_same(&before.0, &sandbox.fingerprint_postgres());
    assert_same(&before.1, &sandbox.fingerprint_redis());
    assert_same(&before.2, &sandbox.fingerprint_volume());
    doctor
}

fn says(outcome: &Outcome, text: &str) {
    assert!(outcome.stdout.contains(text), "'{text}' is missing: {outcome}");
}

#[test]
fn file_systems_that_lack_something_serve() {
    const TEST: &str = "places::file_systems_that_lack_something_serve";
    if !is_root() {
        return skip(TEST, "mounting needs root");
    }
    let sandbox = Sandbox::new("places").stack().seeded().build();
    let backups = sandbox.path("backups");
    let begin = || {
        sandbox.set("BACKUP_MIN_FREE_KB", "1024");
        let _ = fs::remove_dir_all(&backups);
    };
    case("FAT: no links, no modes", || {
        begin();
        let image = sandbox.aside("fat");
        let mounted = FAT.iter().find_map(|how| Mounted::by(how, &backups, &image));
        let Some(_mounted) = mounted else {
            return skip(TEST, "no FAT: the kernel knows none, and exfat-fuse is not installed");
        };
        let doctor = serves(&sandbox, &[]);
        says(&doctor, "has no hard links: files get their final names by a rename");
        says(&doctor, "keeps no modes (files have 7");
        assert!(!doctor.stdout.contains("chmod 700 keeps them out"), "{doctor}");
    });
    case("a server that squashes root", || {
        if !has_program("bindfs") {
            return skip(TEST, "bindfs is not installed");
        }
        begin();
        let _mounted = Mounted::by(SQUASHED, &backups, Path::new("")).expect("bindfs mounts nothing");
        let doctor = serves(&sandbox, &[]);
        says(&doctor, "gives what we make to user 65534");
    });
    case("a directory that cannot be brought to disk", || {
        begin();
        let (source, shim) = (sandbox.aside("shim.c"), sandbox.aside("shim.so"));
        fs::write(&source, NO_SYNC).unwrap();
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-o"])
            .args([&shim, &source])
            .arg("-ldl");
        done(compile);
        let doctor = serves(&sandbox, &[("LD_PRELOAD", shim.to_string_lossy().into_owned())]);
        says(&doctor, "brings no names to disk when asked to");
    });
}

/// Has `fsync` of a directory answer EINVAL.
const NO_SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>

int fsync(int fd) {
  struct stat about;
  if (fstat(fd, &about) == 0 && S_ISDIR(about.st_mode)) {
    errno = EINVAL;
    return -1;
  }
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#;
