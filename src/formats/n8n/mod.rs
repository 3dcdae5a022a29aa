//! What n8n keeps in its database, read from a dump: workflows with their tags, projects, folders and versions, and
//! credentials.
//!
//! Columns are found by name, so that schemas of n8n from 1.0 on are read; those that are not known here are kept.

mod content;
mod diff;
mod digests;
mod directory;
mod listing;
mod name;
mod reader;
mod record;
mod tables;
#[cfg(test)]
mod tests;
mod text;

pub use content::{digest, Content, CONTENT};
pub use diff::{changes, Change};
pub use digests::Digests;
pub use directory::Directory;
pub use listing::{credentials_in, Credentials, Entry, Listing};
pub use name::file_name;
pub use reader::{Reader, Visitor};
pub use record::Record;
pub use tables::{Place, Table};
pub use text::{close, open, version, Spans, VERSIONED};
