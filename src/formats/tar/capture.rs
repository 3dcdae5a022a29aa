//! The content of a file that is asked for by its name.

use std::collections::BTreeMap;

use super::names::canonical;

/// What is asked for, and what was read of it.
#[derive(Default)]
pub(super) struct Capture {
    /// Canonical names, best first.
    wanted: Vec<Vec<u8>>,
    max: usize,
    /// Contents by their names.
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The name of the file that is being read.
    current: Vec<u8>,
}

impl Capture {
    /// Asks for a file of at most `max` bytes.
    pub fn of(name: &str, max: usize) -> Self {
        let capture = Self { max, ..Self::default() };
        capture.or(name)
    }

    /// Asks for another file where there is none of the names so far.
    pub fn or(mut self, name: &str) -> Self {
        self.wanted.push(canonical(name.as_bytes()).into_owned());
        self
    }

    /// Begins a regular file; none knows the size of one that has holes. Gives whether its content is to be fed.
    pub fn begin(&mut self, name: &[u8], size: Option<u64>) -> bool {
        if !self.wanted.iter().any(|wanted| *wanted == name) {
            return false;
        }
        // Of several with that name it is the last, as when the archive is unpacked.
        self.kept.remove(name);
        let keeps = size.is_some_and(|size| size <= self.max as u64);
        if keeps {
            self.kept.insert(name.to_vec(), Vec::new());
            self.current = name.to_vec();
        }
        keeps
    }

    /// Takes the next bytes of the file that was begun.
    pub fn feed(&mut self, bytes: &[u8]) {
        if let Some(content) = self.kept.get_mut(&self.current) {
            content.extend_from_slice(bytes);
        }
    }

    /// What was asked for.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.wanted.iter().find_map(|name| self.kept.remove(name))
    }
}
