//! Names of members: what makes no difference in them, and which belong to a part of an archive.

use std::borrow::Cow;
use std::collections::HashSet;

use super::listing::hash_of;

/// A name without what makes no difference: components that are `.` or empty. Empty for `.` itself.
pub(super) fn canonical(name: &[u8]) -> Cow<'_, [u8]> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let odd = |part: &[u8]| part.is_empty() || part == b".";
    if !name.split(|byte| *byte == b'/').any(odd) {
        return Cow::Borrowed(name);
    }
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|part| !odd(part)).collect();
    Cow::Owned(parts.join(&b'/'))
}

/// A set of names; it keeps a hash of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(HashSet<u64>);

impl Names {
    /// Adds a name.
    pub fn insert(&mut self, name: &[u8]) {
        self.0.insert(hash_of(&canonical(name)));
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &[u8]) {
        self.0.remove(&hash_of(&canonical(name)));
    }

    /// Whether a name is among them.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.0.contains(&hash_of(&canonical(name)))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a directory above a canonical name is among them.
    pub(super) fn hold_above(&self, name: &[u8]) -> bool {
        let ends = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        !self.0.is_empty() && ends.map(|(at, _)| &name[..at]).any(|above| self.contains(above))
    }
}

/// A part of an archive: what stands below a directory, without some others.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The directory; empty for the top.
    pub below: String,
    /// Directories of which only the directory itself belongs to the part.
    pub emptied: Vec<String>,
    /// What the names at the top begin with that do not belong to it.
    pub hidden: &'static str,
    /// What is called so in the directory does not belong to it; empty for none.
    pub without: String,
}

impl Part {
    /// The name of a member as seen from the directory of the part, empty for the directory itself; none when it does not
    /// belong to the part.
    pub fn relative<'n>(&self, name: &'n [u8]) -> Option<Cow<'n, [u8]>> {
        let name = canonical(name);
        let below = |dir: &str| {
            let rest = name.strip_prefix(dir.as_bytes())?;
            rest.strip_prefix(b"/")
        };
        if !self.hidden.is_empty() && self.below.is_empty() && name.starts_with(self.hidden.as_bytes()) {
            return None;
        }
        if self.emptied.iter().any(|dir| below(dir).is_some()) {
            return None;
        }
        if self.below.is_empty() {
            return Some(name);
        }
        if *name == *self.below.as_bytes() {
            return Some(Cow::Borrowed(b""));
        }
        let rest = below(&self.below)?;
        let first = rest.split(|byte| *byte == b'/').next();
        (self.without.is_empty() || first != Some(self.without.as_bytes())).then(|| Cow::Owned(rest.to_vec()))
    }

    /// How many components stand before the names of the part.
    pub fn depth(&self) -> usize {
        // `.` is one.
        1 + self.below.split('/').filter(|part| !part.is_empty()).count()
    }
}
