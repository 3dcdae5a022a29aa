//! What a container is configured to: its variables, and the files that they name.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::engine::describe::Described;
use crate::engine::{Docker, Exec, Status};
use crate::formats::json::Json;
use crate::formats::tar::small;
use crate::store::atomic;

/// The longest file of a container that is read here.
const MAX_BYTES: u64 = 1 << 20;

/// What a container is configured to.
pub(super) struct Configuration<'a> {
    docker: &'a Docker,
    pub(super) container: &'a Described,
    unread: RefCell<Vec<(String, String)>>,
}

impl<'a> Configuration<'a> {
    pub(super) fn new(docker: &'a Docker, container: &'a Described) -> Self {
        Self {
            docker,
            container,
            unread: RefCell::default(),
        }
    }

    /// A variable, or the contents of the file that the variable of the same name with `_FILE` names; an empty one is
    /// none, and so is, for the time being, a file that cannot be read: see [`Self::unread`].
    pub(super) fn value(&self, name: &str) -> Option<String> {
        if let Some(value) = self.container.variable(name) {
            return Some(value.to_owned());
        }
        let path = self.container.variable(&format!("{name}_FILE"))?;
        let text = self.file(path);
        if text.is_none() {
            self.unread.borrow_mut().push((name.to_owned(), path.to_owned()));
        }
        text.filter(|text| !text.is_empty())
    }

    /// The values that were asked for and are in files that cannot be read, each with the file.
    pub(super) fn unread(&self) -> Vec<(String, String)> {
        self.unread.borrow().clone()
    }

    /// Whether a file is to hold a value.
    pub(super) fn is_from_file(&self, name: &str) -> bool {
        let variable = |name: &str| self.container.variable(name);
        variable(name).is_none() && variable(&format!("{name}_FILE")).is_some()
    }

    /// A file in the container: as its own user reads it; where it does not run, or has no program for that, copied out
    /// of it, or read where it is mounted from.
    pub(super) fn file(&self, path: &str) -> Option<String> {
        let text = self.shown(path).or_else(|| self.copied(path));
        let text = text.or_else(|| self.mounted(path))?;
        Some(text.trim_end_matches(['\n', '\r']).to_owned())
    }

    fn shown(&self, path: &str) -> Option<String> {
        if self.container.status != Status::Running {
            return None;
        }
        let cat = self
            .docker
            .exec(&self.container.id, Exec::default(), &["cat", "--", path]);
        let output = self.docker.answer("cat", cat, None).ok()?;
        output.success.then(|| output.text())
    }

    fn copied(&self, path: &str) -> Option<String> {
        // Podman follows links by itself, and knows no option for it.
        let mut archives = [false, true].into_iter().filter_map(|follow| {
            let archive = self.docker.file_in(&self.container.id, path, follow).ok()?;
            small::unpack(&archive).ok()?.pop()
        });
        String::from_utf8(archives.next()?.contents).ok()
    }

    fn mounted(&self, path: &str) -> Option<String> {
        let path = Path::new(path);
        let mounts = self.container.mounts.iter();
        let above = mounts.filter(|mount| path.starts_with(&mount.destination));
        let mount = above.max_by_key(|mount| mount.destination.len())?;
        let below = path.strip_prefix(&mount.destination).ok()?;
        // Where nothing is below it, a file is mounted.
        let source = match below.as_os_str().is_empty() {
            true => PathBuf::from(&mount.source),
            false => Path::new(&mount.source).join(below),
        };
        atomic::read_text(&source, MAX_BYTES).ok()
    }

    /// A number, or the usual one.
    pub(super) fn number<T: FromStr>(&self, name: &str, usual: T) -> T {
        let number = self.value(name).and_then(|number| number.trim().parse().ok());
        number.unwrap_or(usual)
    }

    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.value(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    /// The file of n8n's configuration that may name another database than SQLite.
    pub(super) fn names_database(&self) -> Option<&str> {
        let mut files = self.container.variable("N8N_CONFIG_FILES")?.split(',').map(str::trim);
        files.find(|file| {
            let json = self.file(file).and_then(|text| Json::parse(&text).ok());
            // What cannot be read may name any.
            json.is_none_or(|json| {
                let kind = json.get("database").and_then(|database| database.get("type"));
                kind.is_some_and(|kind| kind.as_str() != Some("sqlite"))
            })
        })
    }
}
