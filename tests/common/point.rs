//! The files and the manifest of a recovery point, and how to change them.

// A test that cannot go on is to panic.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{output, sh, Sandbox};

/// The manifest of the only recovery point.
pub fn manifest(sandbox: &Sandbox) -> PathBuf {
    let found = sandbox.backups("sets");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The value of a fact in the only manifest.
pub fn fact(sandbox: &Sandbox, name: &str) -> Option<String> {
    let text = fs::read_to_string(manifest(sandbox)).unwrap();
    let prefix = format!("# {name}: ");
    text.lines()
        .find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
}

/// Changes the text of the only manifest.
#[track_caller]
pub fn edit(sandbox: &Sandbox, change: impl FnOnce(&str) -> String) {
    let path = manifest(sandbox);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text, "nothing changed");
    fs::write(path, changed).unwrap();
}

/// Gives a backup file other contents, and the manifest the checksum of those: only what the contents mean can tell.
#[track_caller]
pub fn forge(sandbox: &Sandbox, file: &Path, contents: &[u8]) {
    let sum = |path: &Path| sh("sha256sum <\"$1\" | cut -c1-64", &[path.as_os_str()]);
    let before = sum(file);
    fs::write(file, contents).unwrap();
    let after = sum(file);
    if before == after {
        return;
    }
    edit(sandbox, |text| text.replace(before.trim(), after.trim()));
}

/// Packs as gzip does.
pub fn gzip(sandbox: &Sandbox, contents: &[u8]) -> Vec<u8> {
    let path = sandbox.aside("packed");
    fs::write(&path, contents).unwrap();
    sh("gzip -f -n -- \"$1\"", &[path.as_os_str()]);
    fs::read(path.with_extension("gz")).unwrap()
}

/// Unpacks as gzip does.
pub fn gunzip(file: &Path) -> Vec<u8> {
    let mut command = Command::new("gzip");
    command.arg("-dc").arg(file);
    output(command).stdout
}

/// Encrypts as n8n does.
pub fn encrypt(key: &str, plain: &str) -> String {
    let script = "printf '%s\\n%s' \"$1\" \"$2\" | openssl enc -aes-256-cbc -md md5 -a -A -pass stdin 2>/dev/null";
    sh(script, &[OsStr::new(key), OsStr::new(plain)])
}
