//! The names that the packer prints before the archive.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;

use crate::formats::tar::{Names, Part};
use crate::process::Observer;

/// Names that are ended by NUL, as they come.
pub(super) struct List {
    pub(super) names: Names,
    name: Vec<u8>,
    home: Part,
    pub(super) holds_data: bool,
}

impl List {
    pub(super) fn of(home: Part) -> Self {
        Self {
            names: Names::default(),
            name: Vec::new(),
            home,
            holds_data: false,
        }
    }

    /// Takes the next bytes; gives what follows the list once that is at its end.
    pub(super) fn take<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == 0) {
            self.name.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            if self.name.is_empty() {
                return Some(rest);
            }
            self.names.insert(&self.name);
            if !self.holds_data {
                let name = self.home.relative(&self.name);
                self.holds_data = name.is_some_and(|name| {
                    let leads_to = |dir: &String| Path::new(dir).starts_with(OsStr::from_bytes(&name));
                    !name.is_empty() && !self.home.emptied.iter().any(leads_to)
                });
            }
            self.name.clear();
        }
        self.name.extend_from_slice(rest);
        None
    }
}

/// Finds names among those that are ended by NUL.
#[derive(Default)]
pub(super) struct Matching {
    wanted: Names,
    name: Vec<u8>,
    pub(super) found: Vec<String>,
}

impl Matching {
    pub(super) fn of(wanted: Names) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }
}

impl Observer for Matching {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        for byte in chunk {
            if *byte != 0 {
                self.name.push(*byte);
                continue;
            }
            if self.wanted.contains(&self.name) {
                self.found.push(String::from_utf8_lossy(&self.name).into_owned());
            }
            self.name.clear();
        }
        Ok(())
    }
}
