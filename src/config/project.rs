//! Which directory is the n8n project's.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::process::hinted;
use crate::store::shim::is_shim;

/// The n8n project directory, as an absolute path: the one that is `named`, else `N8N_DIR`, else the one that this
/// program is installed in, else the current one.
///
/// # Errors
/// `N8N_DIR` names another directory than the one that the program is installed in: a variable that was exported for one
/// stack must not have the program of another restore over it.
pub fn find_project(named: Option<PathBuf>) -> Result<PathBuf> {
    let variable = env::var_os("N8N_DIR").map(PathBuf::from);
    let installed = env::current_exe().ok().as_deref().and_then(installed_in);
    let dir = match chosen(named, variable, installed)? {
        Some(dir) => dir,
        None => env::current_dir().context("Cannot tell the current directory")?,
    };
    let missing = || format!("No n8n project directory at {}", dir.display());
    let found = dir.canonicalize().with_context(missing)?;
    ensure!(found.is_dir(), missing());
    Ok(found)
}

fn chosen(named: Option<PathBuf>, variable: Option<PathBuf>, installed: Option<PathBuf>) -> Result<Option<PathBuf>> {
    let given = |dir: &PathBuf| !dir.as_os_str().is_empty();
    let (named, variable) = (named.filter(given), variable.filter(given));
    if let (None, Some(variable), Some(installed)) = (&named, &variable, &installed) {
        ensure!(
            variable.canonicalize().ok() == installed.canonicalize().ok() || !is_installed(installed),
            hinted(
                format!(
                    "N8N_DIR is {}, and this program is installed in {}",
                    variable.display(),
                    installed.display()
                ),
                "name the directory with --project-dir (-C), or unset N8N_DIR"
            )
        );
    }
    Ok(named.or(variable).or(installed))
}

/// The project directory that holds `bin/n8n-backup`.
fn installed_in(program: &Path) -> Option<PathBuf> {
    let dir = program.parent()?.parent()?;
    dir.join("scripts").is_dir().then(|| dir.to_owned())
}

/// Whether a program was installed in a directory, and does not merely lie beside somebody's scripts.
fn is_installed(dir: &Path) -> bool {
    // That of a checkout is built there.
    is_shim(&dir.join("scripts/backup-all.sh")) && !dir.join("Cargo.toml").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_variable_for_another_directory_is_refused_by_an_installed_program() {
        let dir = TempDir::new();
        let [a, b, checkout] = ["a", "b", "checkout"].map(|name| dir.path().join(name));
        for dir in [&a, &b, &checkout] {
            std::fs::create_dir(dir).unwrap();
        }
        std::fs::write(checkout.join("Cargo.toml"), "").unwrap();
        for dir in [&b, &checkout] {
            std::fs::create_dir(dir.join("scripts")).unwrap();
            let script = include_str!("../../scripts/backup-all.sh");
            std::fs::write(dir.join("scripts/backup-all.sh"), script).unwrap();
        }
        std::os::unix::fs::symlink(&b, dir.path().join("link")).unwrap();
        let some = |dir: &Path| Some(dir.to_owned());
        let refused = chosen(None, some(&a), some(&b)).unwrap_err().to_string();
        assert!(refused.contains("and this program is installed in"), "{refused}");
        for (named, variable, installed, wanted) in [
            (some(&a), some(&a), some(&b), some(&a)),
            (
                None,
                some(&dir.path().join("link")),
                some(&b),
                some(&dir.path().join("link")),
            ),
            (None, some(Path::new("")), some(&b), some(&b)),
            (None, some(&a), some(&checkout), some(&a)),
            (None, some(&a), None, some(&a)),
            // Where nothing of ours was installed.
            (None, some(&b), some(&a), some(&b)),
            (None, None, None, None),
        ] {
            assert_eq!(chosen(named, variable, installed).unwrap(), wanted);
        }
    }
}
