//! Which directory is the n8n project's.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

/// The n8n project directory, as an absolute path: the one that is `named`, else `N8N_DIR`, else the one that this
/// program is installed in, else the current one.
pub fn find_project(named: Option<PathBuf>) -> Result<PathBuf> {
    let named = named.or_else(|| env::var_os("N8N_DIR").map(PathBuf::from));
    let dir = match named.filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => dir,
        None => match env::current_exe().ok().as_deref().and_then(installed_in) {
            Some(dir) => dir,
            None => env::current_dir().context("Cannot tell the current directory")?,
        },
    };
    let missing = || format!("No n8n project directory at {}", dir.display());
    let found = dir.canonicalize().with_context(missing)?;
    ensure!(found.is_dir(), missing());
    Ok(found)
}

/// The project directory that holds `bin/n8n-backup`.
fn installed_in(program: &Path) -> Option<PathBuf> {
    let dir = program.parent()?.parent()?;
    dir.join("scripts").is_dir().then(|| dir.to_owned())
}
