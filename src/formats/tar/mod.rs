//! Tar archives, read as a stream: the proof that one is whole, and what is in it.
//!
//! The format is that of "ustar Interchange Format" and "pax Interchange Format" in POSIX (the pax utility), with what
//! GNU tar documents in "Basic Tar Format": long names in members of type `L` and `K`, numbers in base 256 and sparse
//! files. An archive consists of blocks of 512 bytes: a header with a checksum for each member, then its content,
//! padded to a whole block; two blocks of zeros end it, and only zeros may follow.
//!
//! Memory: names of up to 64 KiB each, the content of the one file that is captured, and 4 MiB of those that may be it
//! by another name.
mod capture;
mod header;
mod listing;
mod names;
mod pax;
mod scanner;
mod select;
pub mod small;
#[cfg(test)]
mod tests;

pub use header::{end_of_file, file_header};
pub use names::{Names, Part};
pub use scanner::Scanner;
pub use select::Select;

const BLOCK: usize = 512;
/// The longest name, and the longest value of a pax record, that is kept.
const MAX_NAME: usize = 64 * 1024;

/// What is known of a whole archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Members of any kind: files, directories, links, devices.
    pub members: u64,
    /// Regular files. A hard link is a member and no file.
    pub files: u64,
    /// Sum of the regular files' sizes in bytes; of a sparse file the size that it has when unpacked.
    pub bytes: u64,
    /// There are members, and each name is `.` or begins with `./`.
    pub dot_slash: bool,
    /// The first 8 names that are absolute, have a component `..` or lead through a symbolic link of the archive, those
    /// that hard links lead to included.
    pub unsafe_names: Vec<String>,
    /// Content of the file that [`Scanner::capture`] asked for, by the first of the names that there is one of; none
    /// when there is no such file or when it is larger than asked for. Of several files with one name it is the last,
    /// as when the archive is unpacked.
    pub captured: Option<Vec<u8>>,
    /// A hard link that leads out of one of the parts of [`Scanner::apart`].
    pub crossing: Option<String>,
    /// A hard link to a file that the archive lacks, as [`Scanner::expecting`] and [`Scanner::without`] tell, and that
    /// file: it cannot be unpacked.
    pub dangling: Option<(String, String)>,
    /// Whether there is a member of the name that [`Scanner::notice`] asked for.
    pub noticed: bool,
    /// What the member `.` says of the directory that was archived.
    pub root: Option<Properties>,
    /// A digest of all members but `.`, where [`Scanner::listed`] asked for it: names, types, modes, owners, times in
    /// seconds, links and contents, in whatever order they stand. It is comparable within one process. None when there
    /// are sparse files, whose contents stand in the archive in another form.
    pub listing: Option<u64>,
    /// The directories and symbolic links, `.` left out, where [`Scanner::with_places`] asked for them.
    pub places: Vec<Place>,
    /// The names of all members, where [`Scanner::with_names`] asked for them.
    pub names: Names,
    /// Of the names that [`Scanner::expecting`] asked for, those that no member has.
    pub missing: Names,
}

/// A directory or a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name, without `./`.
    pub name: Vec<u8>,
    /// Whether it is a symbolic link.
    pub is_link: bool,
    /// What is known of it.
    pub properties: Properties,
}

/// Owner, mode and time of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Properties {
    /// Numeric owner.
    pub uid: u64,
    /// Numeric group.
    pub gid: u64,
    /// Permission bits, with set-user-ID and the like.
    pub mode: u64,
    /// Time of the last change, in seconds since 1970; 0 when it lies before.
    pub mtime: u64,
}
