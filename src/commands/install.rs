//! install and uninstall: this program, the scripts and the missing directories in an n8n project directory, and their end.
//!
//! Everything is checked before anything is changed. Where root works on a directory of another user, that user does it: what
//! has been planted there leads nowhere that its owner could not go.

mod owner;

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{symlink, DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context as _, Result};

use super::{rows, Command, Run};
use crate::cli::Row;
use crate::store::atomic::{self, Access};
use crate::store::shim::is_shim;
use crate::store::Kind;

pub const INSTALL: Command = Command {
    row: &Row {
        name: "install",
        summary: "install this program and its scripts into an n8n directory",
        details: "DIR is the directory of docker-compose.yml and .env. It gets bin/n8n-backup, scripts/*.sh, and what is missing\n\
                  of backups/ and logs/. A script that is replaced is kept as scripts/NAME.sh.orig. Again, it upgrades.\n\
                  .env, and the files in backups/ and logs/, are not touched.",
        operand: Some("DIR"),
        ..Row::TELLS
    },
    run: Run::Anywhere(|call| owner::acting(call, install)),
};

pub const UNINSTALL: Command = Command {
    row: &Row {
        name: "uninstall",
        summary: "remove what install has put into an n8n directory",
        details: "Puts back the scripts that install had kept. Backups, logs and .env stay.",
        operand: Some("DIR"),
        ..Row::TELLS
    },
    run: Run::Anywhere(|call| owner::acting(call, uninstall)),
};

/// What every script of ours holds; it runs the command that the file is named after.
const SHIM: &str = include_str!("../../scripts/backup-all.sh");
/// What they share.
const SHARED: &str = include_str!("../../scripts/lib/shim.sh");

/// The directories of a project that what is in them makes private.
fn private() -> Vec<PathBuf> {
    let below = Kind::ALL.iter().map(|kind| kind.dir()).chain(["sets"]);
    let mut found: Vec<PathBuf> = ["logs", "backups"].map(PathBuf::from).into();
    found.extend(below.map(|name| Path::new("backups").join(name)));
    found.dedup();
    found
}

/// This program, wherever its file is now.
const PROGRAM: &str = "/proc/self/exe";

/// The paths of the scripts below the project directory, the part that they share first, since they need it.
fn scripts() -> Vec<(PathBuf, &'static str, u32)> {
    let named = rows().into_iter().filter(|row| row.has_script());
    let named = named.map(|row| (PathBuf::from(format!("scripts/{}.sh", row.name)), SHIM, 0o755));
    let shared = (PathBuf::from("scripts/lib/shim.sh"), SHARED, 0o644);
    std::iter::once(shared).chain(named).collect()
}

fn install(dir: &Path) -> Result<Vec<String>> {
    let scripts = scripts();
    for part in ["bin", "scripts", "scripts/lib"] {
        let path = dir.join(part);
        ensure!(path.is_dir() || !exists(&path), "not a directory: {}", path.display());
    }
    for part in ["", "bin", "scripts", "scripts/lib"] {
        let path = dir.join(part);
        if path.is_dir() {
            owner::check_writable(&path)?;
        }
    }
    let private = private();
    for part in &private {
        // As where another user's crontab has made them.
        let (path, above) = (dir.join(part), dir.join(part.parent().unwrap_or(part)));
        if !exists(&path) && above.is_dir() {
            owner::check_can_write(&above)?;
        }
    }
    for (script, _, _) in &scripts {
        let script = dir.join(script);
        ensure!(!script.is_dir(), "a directory is in the way: {}", script.display());
        let kept = original(&script);
        if kept.exists() && script.exists() && !is_shim(&script) && !is_same(&script, &kept)? {
            bail!(
                "{} and {} are two different scripts of yours: move one away and install again",
                script.display(),
                kept.display()
            );
        }
    }
    let program = fs::read(PROGRAM).context("This program cannot read its own file")?;
    let make = |part: &Path, mode: u32| match DirBuilder::new().mode(mode).create(dir.join(part)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.join(part).is_dir() => Ok(()),
        done => done.with_context(|| format!("Cannot make {}", dir.join(part).display())),
    };
    for part in ["bin", "scripts", "scripts/lib"] {
        make(Path::new(part), 0o777)?;
    }
    for part in &private {
        make(part, 0o700)?;
    }
    for part in private.iter().filter(|part| *part != Path::new("backups")) {
        add(&dir.join(part).join(".gitkeep"));
    }

    place(&dir.join("bin/n8n-backup"), &program, 0o755)?;
    let mut kept = 0;
    for (script, _, _) in &scripts {
        let script = dir.join(script);
        if exists(&script) && !is_shim(&script) {
            keep(&script, &original(&script))?;
            kept += 1;
        }
    }
    for (script, text, mode) in &scripts {
        place(&dir.join(script), text.as_bytes(), *mode)?;
    }
    let mut said = vec![format!(
        "Installed n8n-backup {} and {} scripts in {}",
        env!("CARGO_PKG_VERSION"),
        scripts.len() - 1,
        dir.display()
    )];
    if kept > 0 {
        said.push(format!(
            "Kept {kept} existing scripts as scripts/NAME.sh.orig (uninstall restores them)"
        ));
    }
    said.push(format!(
        "Next: {}/bin/n8n-backup setup shows what was found of the stack, and proves that it can be backed up",
        dir.display()
    ));
    Ok(said)
}

fn uninstall(dir: &Path) -> Result<Vec<String>> {
    for part in ["", "scripts", "scripts/lib"] {
        let path = dir.join(part);
        if path.is_dir() {
            owner::check_writable(&path)?;
        }
    }
    let shared = dir.join("scripts/lib/shim.sh");
    // All of ours, also of other versions; their shared part last, so that each works until it is gone.
    let mut ours = own_scripts(&dir.join("scripts"))?;
    ours.extend(is_shim(&shared).then_some(shared));
    let (mut restored, mut removed) = (0, 0);
    for script in ours {
        let kept = original(&script);
        match exists(&kept) {
            true => {
                fs::rename(&kept, &script).with_context(|| format!("Cannot put back {}", script.display()))?;
                restored += 1;
            }
            false => {
                fs::remove_file(&script).with_context(|| format!("Cannot delete {}", script.display()))?;
                removed += 1;
            }
        }
    }
    let mut said = Vec::new();
    // Originals whose script of ours is already gone.
    for (script, _, _) in scripts() {
        let script = dir.join(script);
        let kept = original(&script);
        match (exists(&kept), exists(&script)) {
            (false, _) => {}
            (true, true) => said.push(format!(
                "Not restored: {} is not ours, so {} stays",
                script.display(),
                kept.display()
            )),
            (true, false) => {
                fs::rename(&kept, &script).with_context(|| format!("Cannot put back {}", script.display()))?;
                restored += 1;
            }
        }
    }
    let program = dir.join("bin/n8n-backup");
    match fs::remove_file(&program) {
        Err(error) if error.kind() != ErrorKind::NotFound && error.kind() != ErrorKind::NotADirectory => {
            return Err(error).with_context(|| format!("Cannot delete {}", program.display()));
        }
        _ => {}
    }
    for part in ["scripts/lib", "bin"] {
        // One that holds something, or is a link, stays.
        let _ = fs::remove_dir(dir.join(part));
    }
    said.push(format!(
        "Uninstalled from {}: restored {restored} originals, deleted {removed} files; backups, logs and .env are untouched",
        dir.display()
    ));
    if !exists(&dir.join("scripts/backup-all.sh")) {
        said.push("A crontab line or timer that runs backup-all.sh there fails from now on: remove it, too".to_owned());
    }
    Ok(said)
}

/// The scripts of ours in a directory, of any version, by name.
fn own_scripts(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("Cannot read {}", dir.display())),
    };
    let paths = entries
        .collect::<io::Result<Vec<_>>>()
        .with_context(|| format!("Cannot read {}", dir.display()))?;
    let paths = paths.into_iter().map(|entry| entry.path());
    let named = |path: &PathBuf| path.extension() == Some(OsStr::new("sh")) && is_shim(path);
    let mut found: Vec<PathBuf> = paths.filter(named).collect();
    found.sort();
    Ok(found)
}

/// Where a script that was replaced is kept.
fn original(script: &Path) -> PathBuf {
    let mut name = OsString::from(script);
    name.push(".orig");
    PathBuf::from(name)
}

/// Whether something is there, a link that leads nowhere included.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn is_same(a: &Path, b: &Path) -> Result<bool> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("Cannot read {}", path.display()));
    Ok(read(a)? == read(b)?)
}

/// Keeps a script that is going to be replaced. It is linked, not moved, so that the path in the crontab always exists.
fn keep(script: &Path, kept: &Path) -> Result<()> {
    if exists(kept) || fs::hard_link(script, kept).is_ok() {
        return Ok(());
    }
    match fs::read_link(script) {
        Ok(target) => symlink(target, kept),
        Err(_) => fs::copy(script, kept).map(drop),
    }
    .with_context(|| format!("Cannot keep {} as {}", script.display(), kept.display()))
}

fn place(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let temporary = format!(".n8n-backup-new.{}", std::process::id());
    atomic::replace(path, &temporary, contents, Access { mode, owner: None })
}

/// Makes an empty file for its owner alone, unless there is something of its name, or others may write beside it.
fn add(path: &Path) {
    if path.parent().is_some_and(owner::is_private) {
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    }
}

/// Prints lines; a reader that has gone has seen enough.
fn print(lines: &[String]) {
    let mut out = io::stdout().lock();
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    let _ = out.flush();
}
