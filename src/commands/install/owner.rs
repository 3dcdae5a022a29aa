//! Who installs: the caller, or the owner of the directory where root is the caller.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{bail, ensure, Context as _, Result};

use super::{print, PROGRAM};
use crate::cli::Call;
use crate::process;

/// Does the work on the directory that is the operand, and gives the exit code.
pub fn acting(call: &Call, work: fn(&Path) -> Result<Vec<String>>) -> Result<u8> {
    match act(call, work) {
        Ok(code) => Ok(code),
        Err(error) => {
            // As all that make says.
            let _ = writeln!(io::stderr().lock(), "Error: {error:#}");
            Ok(1)
        }
    }
}

fn act(call: &Call, work: fn(&Path) -> Result<Vec<String>>) -> Result<u8> {
    let dir = std::path::absolute(call.operand()).context("no directory was named")?;
    let meta = fs::metadata(&dir).with_context(|| format!("cannot find the directory {}", dir.display()))?;
    ensure!(meta.is_dir(), "it is not a directory: {}", dir.display());
    let (user, _) = ourselves()?;
    if user != 0 || meta.uid() == 0 {
        print(&work(&dir)?);
        return Ok(0);
    }
    // Supplementary groups go with the user.
    let mut owner = process::command(PROGRAM);
    owner.arg(call.row.name).arg("--").arg(&dir);
    owner.uid(meta.uid()).gid(meta.gid()).current_dir("/");
    let status = owner.status().with_context(|| {
        format!(
            "this program cannot be run as the owner of {} (user {})",
            dir.display(),
            meta.uid()
        )
    })?;
    if !status.success() {
        let mut stderr = io::stderr().lock();
        let _ = writeln!(
            stderr,
            "Note: this was tried as the owner of {}, user {}",
            dir.display(),
            meta.uid()
        );
    }
    Ok(u8::from(!status.success()))
}

/// The user and the group that we act as, without a system call of our own.
fn ourselves() -> Result<(u32, u32)> {
    let meta = fs::metadata("/proc/self").context("Cannot read /proc/self")?;
    Ok((meta.uid(), meta.gid()))
}

/// Refuses a directory that we cannot write to, and for root one that others may write to.
pub fn check_writable(dir: &Path) -> Result<()> {
    let (user, _) = ourselves()?;
    if user == 0 && !is_private(dir) {
        bail!(
            "others may write to {}: chmod go-w, or install as its owner",
            dir.display()
        );
    }
    check_can_write(dir)
}

/// Refuses a directory that we cannot write to.
pub fn check_can_write(dir: &Path) -> Result<()> {
    let (user, _) = ourselves()?;
    let probe = dir.join(format!(".n8n-backup-new.{}", std::process::id()));
    let _ = fs::remove_file(&probe);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .with_context(|| {
            format!(
                "not writable for user {user}: {} (as root, chown {user} gives it to that user)",
                dir.display()
            )
        })
}

/// Whether nobody but us and root can put anything into a directory.
pub fn is_private(dir: &Path) -> bool {
    let (Ok(meta), Ok((user, group))) = (fs::metadata(dir), ourselves()) else {
        return false;
    };
    let groups = [0, group];
    let others = meta.mode() & 0o002 != 0 || meta.mode() & 0o020 != 0 && !groups.contains(&meta.gid());
    [0, user].contains(&meta.uid()) && !others
}
