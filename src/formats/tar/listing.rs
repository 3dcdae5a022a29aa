//! A digest of what an archive holds, whatever the order of its members.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What is known of each member, by a hash of its name.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) members: HashMap<u64, Known>,
    pub(super) current: Option<(u64, DefaultHasher)>,
    pub(super) sparse: bool,
}

pub(super) enum Known {
    /// A digest of the member.
    Member(u64),
    /// A hard link: the hash of the name that it leads to.
    Link(u64),
}

impl Listing {
    /// Ends the member before the next one.
    pub(super) fn end_member(&mut self) {
        if let Some((name, hasher)) = self.current.take() {
            self.members.insert(name, Known::Member(hasher.finish()));
        }
    }

    /// The digest of all: a sum, so that the order makes no difference.
    pub(super) fn digest(mut self) -> Option<u64> {
        self.end_member();
        let resolved = |known: &Known| match known {
            Known::Member(digest) => *digest,
            Known::Link(target) => match self.members.get(target) {
                Some(Known::Member(digest)) => *digest,
                _ => 0,
            },
        };
        let sum = self.members.iter().fold(0_u64, |sum, (name, known)| {
            sum.wrapping_add(hash_of(&(name, resolved(known))))
        });
        (!self.sparse).then_some(sum)
    }
}

pub(super) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
