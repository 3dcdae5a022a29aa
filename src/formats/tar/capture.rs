//! The content of a file that is asked for by its name. An archive holds a file of several names (hard links) under the
//! first that is read, and says of the others that they are the same.

use std::collections::BTreeMap;

use super::names::canonical;

/// How much memory files may take that a hard link may give the name asked for.
const MAX_SPARE: usize = 4 << 20;
/// What keeping a file takes beside its name and content.
const COST: usize = 128;

/// What is asked for, and what was read of it.
#[derive(Default)]
pub(super) struct Capture {
    /// Canonical names, best first.
    wanted: Vec<Vec<u8>>,
    max: usize,
    /// Contents by their names.
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What those take that are not asked for.
    spare: usize,
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
        // Of several with one name it is the last, as when the archive is unpacked.
        self.kept.remove(name);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let Some(size) = size.filter(|size| *size <= self.max) else {
            return false;
        };
        if !self.wants(name) {
            let spare = self.spare + name.len() + size + COST;
            if spare > MAX_SPARE || !self.may_be_wanted(name) {
                return false;
            }
            self.spare = spare;
        }
        self.kept.insert(name.to_vec(), Vec::new());
        self.current = name.to_vec();
        true
    }

    /// Takes note of a hard link to a member that came before it.
    pub fn link(&mut self, name: &[u8], target: &[u8]) {
        if self.wants(name) {
            match self.kept.get(target).cloned() {
                Some(content) => self.kept.insert(name.to_vec(), content),
                None => self.kept.remove(name),
            };
        }
    }

    fn wants(&self, name: &[u8]) -> bool {
        self.wanted.iter().any(|wanted| *wanted == name)
    }

    /// Whether a file may well be the one that is asked for: it lies beside that, or is called so in another directory.
    fn may_be_wanted(&self, name: &[u8]) -> bool {
        let (dir, file) = split(name);
        let mut wanted = self.wanted.iter().map(|wanted| split(wanted));
        wanted.any(|(beside, called)| dir == beside || file == called)
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

/// The directory and the last component of a name.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (&[], name),
    }
}
