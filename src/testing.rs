//! What the unit tests share.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longer than any step of a test takes.
pub const STALL: Duration = Duration::from_secs(10);

/// A script for a shell.
pub fn sh(script: &str) -> Command {
    let mut command = crate::process::command("sh");
    command.args(["-c", script]);
    command
}

/// Writes a program. Another process does: as long as a file is open for writing here, so may be a copy of that in what another
/// test starts at this moment, and then it cannot be run.
pub fn executable(path: &Path, text: impl AsRef<[u8]>) {
    let mut write = sh("cat >\"$1\" && chmod 755 \"$1\"");
    let mut write = write.arg("sh").arg(path).stdin(Stdio::piped()).spawn().unwrap();
    write.stdin.take().unwrap().write_all(text.as_ref()).unwrap();
    assert!(write.wait().unwrap().success());
}

/// A directory that is removed with its contents when this is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new, empty directory.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "n8n-backup-unit-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Tells the summary of `make test` that a test did not run, and why. The test returns after it.
pub fn skip(test: &str, reason: &str) {
    eprintln!("{test} did not run: {reason}");
    if let Some(file) = std::env::var_os("N8N_BACKUP_SKIPPED") {
        let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
}
