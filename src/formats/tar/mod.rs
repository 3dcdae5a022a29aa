//! Tar archives, read as a stream: the proof that one is whole, and what is in it.
//!
//! The format is that of "ustar Interchange Format" and "pax Interchange Format" in POSIX (the pax utility), with what
//! GNU tar documents in "Basic Tar Format": long names in members of type `L` and `K`, numbers in base 256 and sparse
//! files. An archive consists of blocks of 512 bytes: a header with a checksum for each member, then its content,
//! padded to a whole block; two blocks of zeros end it, and only zeros may follow.
//!
//! Memory: names of up to 64 KiB each, and the content of the one file that is captured.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{bail, Result};

const BLOCK: usize = 512;
/// The longest name, and the longest value of a pax record, that is kept.
const MAX_NAME: usize = 64 * 1024;
/// The longest keyword of a pax record.
const MAX_KEYWORD: usize = 256;
/// How many unsafe names are kept.
const MAX_UNSAFE: usize = 8;

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
    /// The first 8 names that are absolute or have a component `..`, those that hard links lead to included.
    pub unsafe_names: Vec<String>,
    /// Content of the file that [`Scanner::capture`] asked for; none when there is no such regular file or when it is
    /// larger than asked for. Of several files with that name it is the last, as when the archive is unpacked.
    pub captured: Option<Vec<u8>>,
    /// Whether there is a member of the name that [`Scanner::notice`] asked for.
    pub noticed: bool,
    /// What the member `.` says of the directory that was archived.
    pub root: Option<Properties>,
    /// A digest of all members but `.`, where [`Scanner::listed`] asked for it: names, types, modes, owners, times in
    /// seconds, links and contents, in whatever order they stand. It is comparable within one process. None when there
    /// are sparse files, whose contents stand in the archive in another form.
    pub listing: Option<u64>,
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

/// What is known of each member, by a hash of its name.
#[derive(Default)]
struct Listing {
    members: HashMap<u64, Known>,
    current: Option<(u64, DefaultHasher)>,
    sparse: bool,
}

enum Known {
    /// A digest of the member.
    Member(u64),
    /// A hard link: the hash of the name that it leads to.
    Link(u64),
}

impl Listing {
    /// Ends the member before the next one.
    fn end_member(&mut self) {
        if let Some((name, hasher)) = self.current.take() {
            self.members.insert(name, Known::Member(hasher.finish()));
        }
    }

    /// The digest of all: a sum, so that the order makes no difference.
    fn digest(mut self) -> Option<u64> {
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

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The header of a regular file of `bytes` bytes, owned by root, with the permissions `mode`, as POSIX (ustar) has it. A size
/// from 8 GiB on, for which that has too few digits, stands as GNU tar writes it: in binary, marked by the highest bit.
///
/// # Errors
/// When the name is longer than 100 bytes.
pub fn file_header(name: &str, bytes: u64, mode: u32) -> Result<Vec<u8>> {
    let mut block = vec![0_u8; BLOCK];
    let size = format!("{bytes:011o}");
    if name.len() > 100 {
        bail!("{name} is too long a name for a tar header");
    }
    let large = size.len() > 11;
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    if !large {
        put(124, &size);
    }
    put(136, "00000000000");
    // The checksum is taken with blanks in its place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    if large {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&bytes.to_be_bytes());
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// What follows the contents of the last file, `bytes` long: padding and the two blocks of zeros that end an archive.
pub fn end_of_file(bytes: u64) -> Vec<u8> {
    let padding = (BLOCK as u64 - bytes % BLOCK as u64) % BLOCK as u64;
    vec![0; padding as usize + 2 * BLOCK]
}

/// What the bytes of the current member are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing that is of interest.
    Skip,
    Capture,
    /// Name of the next member (GNU `L`), or what it links to (GNU `K`).
    LongName,
    LongLink,
    /// Records for the next member, and for all that follow.
    Pax,
    GlobalPax,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    /// Further headers of an old GNU sparse file.
    SparseHeader,
    Content,
    Padding,
    /// After the first block of zeros.
    Zeros,
    End,
}

/// What pax records and GNU's long names say about the next member.
#[derive(Debug, Clone, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
}

/// Reads pax records, `LENGTH KEYWORD=VALUE\n`, as they come.
#[derive(Debug, Default)]
struct Records {
    step: Step,
    /// Bytes of the record that are still to come.
    left: u64,
    digits: usize,
    length: u64,
    keyword: Vec<u8>,
    value: Vec<u8>,
    too_long: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    Length,
    Keyword,
    Value,
}

/// Reads an archive and proves that it is whole.
pub struct Scanner {
    state: State,
    /// The header block that is being read.
    block: Vec<u8>,
    /// Bytes of content and of padding that are still to come.
    left: u64,
    padding: u64,
    content: Content,
    long: Vec<u8>,
    records: Records,
    next: Extended,
    global: Extended,
    wanted: Option<Vec<u8>>,
    max: usize,
    notable: Option<Vec<u8>>,
    summary: Summary,
    all_dot_slash: bool,
    listing: Option<Listing>,
    /// Bytes read so far.
    offset: u64,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner at the beginning of an archive.
    pub fn new() -> Self {
        Self {
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            left: 0,
            padding: 0,
            content: Content::Skip,
            long: Vec::new(),
            records: Records::default(),
            next: Extended::default(),
            global: Extended::default(),
            wanted: None,
            max: 0,
            notable: None,
            summary: Summary::default(),
            all_dot_slash: true,
            listing: None,
            offset: 0,
        }
    }

    /// Asks for the content of the regular file `name`, if it has at most `max` bytes. A `./` before the name makes
    /// no difference.
    #[must_use]
    pub fn capture(mut self, name: &str, max: usize) -> Self {
        self.wanted = Some(plain(name.as_bytes()).to_vec());
        self.max = max;
        self
    }

    /// Asks whether there is a member `name`. A `./` before the name makes no difference.
    #[must_use]
    pub fn notice(mut self, name: &str) -> Self {
        self.notable = Some(plain(name.as_bytes()).to_vec());
        self
    }

    /// Asks for [`Summary::listing`]. It takes about 40 bytes of memory for each member.
    #[must_use]
    pub fn listed(mut self) -> Self {
        self.listing = Some(Listing::default());
        self
    }

    /// Reads the next bytes; where the stream is cut into chunks makes no difference.
    ///
    /// # Errors
    /// What is no archive: a header with a wrong checksum or an impossible size, a single block of zeros, records
    /// that cannot be read, anything but zeros after the end.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let used = match self.state {
                State::Header | State::SparseHeader | State::Zeros => {
                    let used = rest.len().min(BLOCK - self.block.len());
                    self.block.extend_from_slice(&rest[..used]);
                    used
                }
                State::Content => {
                    let used = within(rest.len(), self.left);
                    self.content(&rest[..used])?;
                    self.left -= used as u64;
                    used
                }
                State::Padding => {
                    let used = within(rest.len(), self.padding);
                    self.padding -= used as u64;
                    used
                }
                State::End => {
                    if rest.iter().fold(0, |all, byte| all | byte) != 0 {
                        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
                        bail!("byte {}: data after the end of the archive", self.offset + zeros as u64);
                    }
                    rest.len()
                }
            };
            self.offset += used as u64;
            rest = &rest[used..];
            if self.block.len() == BLOCK {
                let block = std::mem::take(&mut self.block);
                self.whole_block(&block)?;
                self.block = block;
                self.block.clear();
            }
            self.leave_finished()?;
        }
        Ok(())
    }

    /// Goes from content to padding to the next header, over each that is at its end.
    fn leave_finished(&mut self) -> Result<()> {
        if self.state == State::Content && self.left == 0 {
            self.end_content()?;
            self.state = State::Padding;
        }
        if self.state == State::Padding && self.padding == 0 {
            self.state = State::Header;
        }
        Ok(())
    }

    fn whole_block(&mut self, block: &[u8]) -> Result<()> {
        let start = self.offset - BLOCK as u64;
        let zeros = block.iter().all(|byte| *byte == 0);
        match (self.state, zeros) {
            (State::SparseHeader, _) => {
                if block[504] == 0 {
                    self.state = State::Content;
                }
                Ok(())
            }
            (State::Zeros, true) => {
                self.state = State::End;
                Ok(())
            }
            (State::Zeros, false) => bail!(
                "byte {}: a block of zeros with data after it, where two end an archive; it is damaged",
                start - BLOCK as u64
            ),
            (_, true) => {
                if self.awaits_member() {
                    bail!("byte {start}: the archive ends after a long name or pax records, without their member");
                }
                self.state = State::Zeros;
                Ok(())
            }
            (_, false) => self.header(block, start),
        }
    }

    fn awaits_member(&self) -> bool {
        let next = &self.next;
        next.path.is_some() || next.link.is_some() || next.size.is_some() || next.sparse_name.is_some()
    }

    fn header(&mut self, block: &[u8], start: u64) -> Result<()> {
        if !checksum_is_right(block) {
            bail!("byte {start}: a header whose checksum is wrong; this is no tar archive, or it is damaged");
        }
        let Some(mut size) = number(&block[124..136]) else {
            bail!("byte {start}: a header whose size cannot be read; the archive is damaged");
        };
        let kind = block[156];
        self.content = match kind {
            b'L' => Content::LongName,
            b'K' => Content::LongLink,
            b'x' | b'X' => Content::Pax,
            b'g' => Content::GlobalPax,
            _ => Content::Skip,
        };
        if self.content == Content::Skip {
            size = self.member(block, kind, size, start)?;
        } else {
            self.long.clear();
            self.records = Records::default();
        }
        if size > i64::MAX as u64 {
            bail!("byte {start}: a header with an impossible size; the archive is damaged");
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        self.state = if kind == b'S' && block[482] != 0 {
            State::SparseHeader
        } else {
            State::Content
        };
        Ok(())
    }

    /// Counts a member and gives the size of its content in the archive.
    fn member(&mut self, block: &[u8], kind: u8, size: u64, start: u64) -> Result<u64> {
        let next = std::mem::take(&mut self.next);
        let global = &self.global;
        let name = next
            .sparse_name
            .or(next.path)
            .or_else(|| global.path.clone())
            .unwrap_or_else(|| header_name(block));
        let stored = match kind {
            // Links, devices and directories have no content, whatever their size says.
            b'1'..=b'6' => 0,
            _ => next.size.or(global.size).unwrap_or(size),
        };
        self.summary.members += 1;
        self.all_dot_slash &= name == b"." || name.starts_with(b"./");
        let link = match kind {
            b'1' | b'2' => next
                .link
                .or_else(|| global.link.clone())
                .unwrap_or_else(|| until_nul(&block[157..257]).to_vec()),
            _ => Vec::new(),
        };
        let properties = Properties {
            uid: next.uid.or(global.uid).or(number(&block[108..116])).unwrap_or_default(),
            gid: next.gid.or(global.gid).or(number(&block[116..124])).unwrap_or_default(),
            mode: number(&block[100..108]).unwrap_or_default() & 0o7777,
            mtime: next
                .mtime
                .or(global.mtime)
                .or(number(&block[136..148]))
                .unwrap_or_default(),
        };
        self.note_unsafe(&name);
        if kind == b'1' {
            self.note_unsafe(&link);
        }
        // Before POSIX a directory was a file whose name ends with a slash.
        let regular = matches!(kind, b'0' | 0 | b'7' | b'S') && !(kind != b'S' && name.ends_with(b"/"));
        if regular {
            let sparse = if kind == b'S' {
                number(&block[483..495])
            } else {
                next.sparse_size
            };
            let real = sparse.unwrap_or(stored);
            let Some(bytes) = self.summary.bytes.checked_add(real) else {
                bail!("byte {start}: a header with an impossible size; the archive is damaged");
            };
            self.summary.files += 1;
            self.summary.bytes = bytes;
            self.summary.noticed |= self.notable.as_deref() == Some(plain(&name));
            if self.wanted.as_deref() == Some(plain(&name)) {
                self.summary.captured = None;
                if sparse.is_none() && stored <= self.max as u64 {
                    self.content = Content::Capture;
                    self.summary.captured = Some(Vec::new());
                }
            }
            if let Some(listing) = &mut self.listing {
                listing.sparse |= sparse.is_some();
            }
        }
        // Nobody keeps the same bits for the members that have no permissions of their own.
        let properties = match kind {
            b'2' => Properties {
                mode: 0o777,
                ..properties
            },
            _ => properties,
        };
        self.list(&name, kind, &link, properties, regular, stored);
        Ok(stored)
    }

    fn list(&mut self, name: &[u8], kind: u8, link: &[u8], properties: Properties, regular: bool, size: u64) {
        let name = bare(name);
        if name.is_empty() {
            self.summary.root = Some(properties);
        }
        let Some(listing) = &mut self.listing else { return };
        listing.end_member();
        if name.is_empty() {
            return;
        }
        let hashed = hash_of(&name);
        if kind == b'1' {
            listing.members.insert(hashed, Known::Link(hash_of(&bare(link))));
            return;
        }
        let mut hasher = DefaultHasher::new();
        let kind = match kind {
            _ if regular => b'0',
            0 | b'0' | b'7' => b'5',
            kind => kind,
        };
        (kind, link, properties, if regular { size } else { 0 }).hash(&mut hasher);
        listing.current = Some((hashed, hasher));
    }

    fn note_unsafe(&mut self, name: &[u8]) {
        let unsafe_name = name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..");
        if unsafe_name && self.summary.unsafe_names.len() < MAX_UNSAFE {
            let shown = &name[..name.len().min(BLOCK)];
            self.summary
                .unsafe_names
                .push(String::from_utf8_lossy(shown).into_owned());
        }
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        if let (Content::Skip | Content::Capture, Some(listing)) = (self.content, &mut self.listing) {
            if let Some((_, hasher)) = &mut listing.current {
                hasher.write(bytes);
            }
        }
        match self.content {
            Content::Skip => {}
            Content::Capture => {
                if let Some(captured) = &mut self.summary.captured {
                    captured.extend_from_slice(bytes);
                }
            }
            Content::LongName | Content::LongLink => {
                if self.long.len() + bytes.len() > MAX_NAME {
                    bail!("byte {}: a name of more than {MAX_NAME} bytes", self.offset);
                }
                self.long.extend_from_slice(bytes);
            }
            Content::Pax => self.records.feed(bytes, &mut self.next, self.offset)?,
            Content::GlobalPax => self.records.feed(bytes, &mut self.global, self.offset)?,
        }
        Ok(())
    }

    fn end_content(&mut self) -> Result<()> {
        match self.content {
            Content::LongName => self.next.path = Some(until_nul(&self.long).to_vec()),
            Content::LongLink => self.next.link = Some(until_nul(&self.long).to_vec()),
            Content::Pax | Content::GlobalPax if !self.records.at_start() => {
                bail!("byte {}: pax records that end within a record", self.offset);
            }
            _ => {}
        }
        self.content = Content::Skip;
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// The archive is empty or cut off.
    pub fn finish(mut self) -> Result<Summary> {
        let offset = self.offset;
        let inside = match self.state {
            State::End => {
                self.summary.dot_slash = self.all_dot_slash && self.summary.members > 0;
                self.summary.listing = self.listing.take().and_then(Listing::digest);
                return Ok(self.summary);
            }
            _ if offset == 0 => bail!("the archive is empty"),
            State::Header if self.block.is_empty() => "after a member, without the two blocks of zeros that end it",
            State::Header | State::SparseHeader => "inside a header",
            State::Content => "inside the content of a member",
            State::Padding => "inside the padding of a member",
            State::Zeros => "inside the two blocks of zeros that end it",
        };
        bail!("the archive is cut off: it ends at byte {offset}, {inside}");
    }
}

impl Records {
    fn at_start(&self) -> bool {
        self.step == Step::Length && self.digits == 0
    }

    fn feed(&mut self, bytes: &[u8], into: &mut Extended, offset: u64) -> Result<()> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.step {
                Step::Length => {
                    match byte {
                        b'0'..=b'9' if self.digits < 18 => {
                            self.length = self.length * 10 + u64::from(byte - b'0');
                            self.digits += 1;
                        }
                        // A record has at least `LENGTH`, a blank, a keyword of one letter, `=` and a newline.
                        b' ' if self.digits > 0 && self.length >= self.digits as u64 + 4 => {
                            self.left = self.length - self.digits as u64 - 1;
                            self.step = Step::Keyword;
                            self.keyword.clear();
                            self.value.clear();
                            self.too_long = false;
                        }
                        _ => bail!("byte {offset}: pax records that cannot be read; the archive is damaged"),
                    }
                    rest = after;
                }
                Step::Keyword => {
                    self.left -= 1;
                    if byte == b'=' && self.left > 0 {
                        self.step = Step::Value;
                    } else if self.left <= 1 || self.keyword.len() == MAX_KEYWORD {
                        bail!("byte {offset}: pax records that cannot be read; the archive is damaged");
                    } else {
                        self.keyword.push(byte);
                    }
                    rest = after;
                }
                Step::Value => {
                    let (value, after) = rest.split_at(within(rest.len(), self.left));
                    self.left -= value.len() as u64;
                    if self.is_of_interest() && !self.too_long {
                        self.too_long = self.value.len() + value.len() > MAX_NAME + 1;
                        if !self.too_long {
                            self.value.extend_from_slice(value);
                        }
                    }
                    if self.left == 0 {
                        if value.last() != Some(&b'\n') {
                            bail!("byte {offset}: a pax record without its newline; the archive is damaged");
                        }
                        self.end_record(into, offset)?;
                    }
                    rest = after;
                }
            }
        }
        Ok(())
    }

    fn is_of_interest(&self) -> bool {
        matches!(
            self.keyword.as_slice(),
            b"path"
                | b"linkpath"
                | b"size"
                | b"uid"
                | b"gid"
                | b"mtime"
                | b"GNU.sparse.name"
                | b"GNU.sparse.realsize"
                | b"GNU.sparse.size"
        )
    }

    fn end_record(&mut self, into: &mut Extended, offset: u64) -> Result<()> {
        self.step = Step::Length;
        self.digits = 0;
        self.length = 0;
        if self.too_long {
            bail!("byte {offset}: a pax record with a value of more than {MAX_NAME} bytes");
        }
        self.value.pop();
        let value = std::mem::take(&mut self.value);
        // An empty value takes back what was said before.
        let text = (!value.is_empty()).then_some(value);
        let number = || -> Result<Option<u64>> {
            let Some(text) = &text else { return Ok(None) };
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            match number {
                Some(_) => Ok(number),
                None => bail!("byte {offset}: a pax record with a number that cannot be read; the archive is damaged"),
            }
        };
        match self.keyword.as_slice() {
            b"size" => into.size = number()?,
            b"uid" => into.uid = number()?,
            b"gid" => into.gid = number()?,
            // With a fraction, or before 1970; only whole seconds are kept.
            b"mtime" => {
                into.mtime = text
                    .as_deref()
                    .and_then(|text| std::str::from_utf8(text).ok())
                    .map(|text| text.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0));
            }
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => into.sparse_size = number()?,
            b"path" => into.path = text,
            b"linkpath" => into.link = text,
            b"GNU.sparse.name" => into.sparse_name = text,
            _ => {}
        }
        Ok(())
    }
}

/// The smaller of a length and what is left.
fn within(length: usize, left: u64) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}

fn plain(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"./").unwrap_or(name)
}

/// A name without what makes no difference: `./` before it and a slash after it. Empty for `.` itself.
fn bare(name: &[u8]) -> &[u8] {
    let name = plain(name);
    let name = name.strip_suffix(b"/").unwrap_or(name);
    if name == b"." {
        b""
    } else {
        name
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The name in a header. Only POSIX's own headers have a prefix; GNU's keep other things there.
fn header_name(block: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    if &block[257..263] == b"ustar\0" {
        let prefix = until_nul(&block[345..500]);
        if !prefix.is_empty() {
            name.extend_from_slice(prefix);
            name.push(b'/');
        }
    }
    name.extend_from_slice(until_nul(&block[..100]));
    name
}

/// A number in octal digits, or in base 256 when the first bit is set. None when it is neither, negative or too large.
fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let mut value = u64::from(first & 0x7f);
        if first & 0x40 != 0 {
            return None;
        }
        for byte in rest {
            value = value.checked_mul(256)? | u64::from(*byte);
        }
        return Some(value);
    }
    let digits = until_nul(field).trim_ascii();
    if digits.iter().any(|digit| !(b'0'..=b'7').contains(digit)) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        Some(value.checked_mul(8)? | u64::from(digit - b'0'))
    })
}

/// The checksum is the sum of the header's bytes, its own field taken for blanks; some old programs added up signed
/// bytes.
fn checksum_is_right(block: &[u8]) -> bool {
    let Some(expected) = number(&block[148..156]).and_then(|sum| i64::try_from(sum).ok()) else {
        return false;
    };
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || expected == signed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octal(block: &mut [u8], from: usize, width: usize, value: u64) {
        let text = format!("{value:0w$o}\0", w = width - 1);
        block[from..from + width].copy_from_slice(text.as_bytes());
    }

    fn seal(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        octal(&mut block, 100, 8, 0o644);
        octal(&mut block, 124, 12, size);
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut block);
        block
    }

    fn padded(content: &[u8]) -> Vec<u8> {
        let mut bytes = content.to_vec();
        bytes.resize(content.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        [header(name, kind, content.len() as u64), padded(content)].concat()
    }

    fn end() -> Vec<u8> {
        vec![0; 2 * BLOCK]
    }

    fn scan_in(bytes: &[u8], size: usize) -> Result<Summary> {
        let mut scanner = Scanner::new().capture("./config", 64);
        for chunk in bytes.chunks(size.max(1)) {
            scanner.feed(chunk)?;
        }
        scanner.finish()
    }

    fn scan(bytes: &[u8]) -> Result<Summary> {
        scan_in(bytes, bytes.len())
    }

    fn record(text: &str) -> String {
        let mut length = text.len() + 2;
        while format!("{length} {text}\n").len() != length {
            length += 1;
        }
        format!("{length} {text}\n")
    }

    fn sample() -> Vec<u8> {
        let long = format!("./{}", "d/".repeat(100));
        [
            member("./", b'5', b""),
            member("./config", b'0', b"{\"encryptionKey\":\"k\"}"),
            member("ignored", b'L', format!("{long}gnu\0").as_bytes()),
            member("./cut", b'0', &[7; 513]),
            member(
                "ignored",
                b'x',
                [record(&format!("path={long}pax")), record("mtime=1.5")]
                    .concat()
                    .as_bytes(),
            ),
            member("./cut", b'0', &[1; 512]),
            member("./link", b'2', b""),
            member("./old/", 0, b""),
            end(),
        ]
        .concat()
    }

    #[test]
    fn whole_archive() {
        let summary = scan(&sample()).unwrap();
        assert_eq!(
            summary,
            Summary {
                members: 6,
                files: 3,
                bytes: 21 + 513 + 512,
                dot_slash: true,
                unsafe_names: Vec::new(),
                captured: Some(b"{\"encryptionKey\":\"k\"}".to_vec()),
                noticed: false,
                root: Some(Properties {
                    mode: 0o644,
                    ..Properties::default()
                }),
                listing: None,
            }
        );
    }

    #[test]
    fn a_listing_tells_archives_apart_but_not_by_their_order() {
        let list = |members: &[Vec<u8>]| {
            let mut scanner = Scanner::new().listed();
            scanner.feed(&[members.concat(), end()].concat()).unwrap();
            scanner.finish().unwrap().listing.unwrap()
        };
        let link = |name: &str, target: &str| {
            let mut block = header(name, b'1', 0);
            block[157..157 + target.len()].copy_from_slice(target.as_bytes());
            seal(&mut block);
            block
        };
        let (root, a, b) = (
            member("./", b'5', b""),
            member("./a", b'0', b"1"),
            member("./b", b'0', b"2"),
        );
        let plain = list(&[root, a.clone(), b.clone()]);
        assert_eq!(plain, list(&[b.clone(), a.clone()]));
        assert_eq!(plain, list(&[member("a", b'0', b"1"), b.clone()]));
        for other in [
            vec![a.clone()],
            vec![a.clone(), member("./b", b'0', b"3")],
            vec![a.clone(), member("./c", b'0', b"2")],
            vec![a.clone(), member("./b", b'5', b"")],
            vec![a.clone(), link("./b", "./a")],
        ] {
            assert_ne!(plain, list(&other));
        }
        // Which of two names of a file comes first makes no difference.
        let x = |name| member(name, b'0', b"x");
        assert_eq!(
            list(&[x("./a"), link("./b", "./a")]),
            list(&[link("./a", "./b"), x("./b")])
        );
    }

    #[test]
    fn chunks_make_no_difference() {
        let bytes = sample();
        let whole = scan(&bytes).unwrap();
        for cut in 0..=bytes.len() {
            let mut scanner = Scanner::new().capture("config", 64);
            scanner.feed(&bytes[..cut]).unwrap();
            scanner.feed(&bytes[cut..]).unwrap();
            assert_eq!(scanner.finish().unwrap(), whole, "cut at {cut}");
        }
        for size in 1..600 {
            assert_eq!(scan_in(&bytes, size).unwrap(), whole, "chunks of {size}");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(scan(&bytes[..length]).is_err(), "cut to {length} bytes");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let bytes = sample();
        for at in 0..BLOCK {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // What stays is another way to write the same checksum.
                let sum = number(&bytes[148..156]);
                if !(148..156).contains(&at) || number(&flipped[148..156]) != sum {
                    assert!(scan(&flipped).is_err(), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn only_zeros_may_follow_the_end() {
        let mut bytes = sample();
        let length = bytes.len();
        bytes.resize(length + 9000, 0);
        scan(&bytes).unwrap();
        bytes[length + 700] = 1;
        let error = scan(&bytes).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("byte {}: data after the end of the archive", length + 700)
        );
        let lone = [
            member("./a", b'0', b"a"),
            vec![0; BLOCK],
            member("./b", b'0', b"b"),
            end(),
        ]
        .concat();
        assert!(scan(&lone)
            .unwrap_err()
            .to_string()
            .starts_with("byte 1024: a block of zeros"));
    }

    #[test]
    fn empty_streams_and_other_files() {
        assert_eq!(scan(b"").unwrap_err().to_string(), "the archive is empty");
        let summary = scan(&end()).unwrap();
        assert_eq!((summary.members, summary.dot_slash), (0, false));
        assert!(scan(&[b'x'; 2 * BLOCK]).is_err());
    }

    #[test]
    fn unsafe_names() {
        let bytes = [
            member("/etc/passwd", b'0', b"x"),
            member("./a/../../b", b'0', b"x"),
            member("..", b'5', b""),
            member("./a..b/..c", b'0', b"x"),
            member("l", b'K', b"../../target\0"),
            member("./hard", b'1', b""),
            member("l", b'K', b"/anywhere\0"),
            member("./soft", b'2', b""),
            end(),
        ]
        .concat();
        let summary = scan(&bytes).unwrap();
        assert_eq!(
            summary.unsafe_names,
            ["/etc/passwd", "./a/../../b", "..", "../../target"]
        );
        assert!(!summary.dot_slash);
        let many = [member("/x", b'0', b"").repeat(20), end()].concat();
        assert_eq!(scan(&many).unwrap().unsafe_names.len(), MAX_UNSAFE);
    }

    #[test]
    fn names_of_prefix_and_long_links() {
        let mut block = header("config", b'0', 3);
        block[345] = b'.';
        seal(&mut block);
        let bytes = [
            block,
            padded(b"abc"),
            member("l", b'K', &[b'y'; 300]),
            member("./s", b'2', b""),
            end(),
        ]
        .concat();
        let summary = scan(&bytes).unwrap();
        assert_eq!(summary.captured.as_deref(), Some(&b"abc"[..]));
        assert!(summary.dot_slash);
    }

    #[test]
    fn sizes_in_base_256_and_in_pax_records() {
        let mut block = header("./config", b'0', 0);
        block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
        seal(&mut block);
        let bytes = [
            block,
            padded(b"12345"),
            member("p", b'x', record("size=600").as_bytes()),
            header("./b", b'0', 1),
            vec![1; 1024],
            end(),
        ]
        .concat();
        let summary = scan(&bytes).unwrap();
        assert_eq!((summary.files, summary.bytes), (2, 605));
        assert_eq!(summary.captured.as_deref(), Some(&b"12345"[..]));
        let mut huge = header("./x", b'0', 0);
        huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        seal(&mut huge);
        assert!(scan(&[huge, end()].concat())
            .unwrap_err()
            .to_string()
            .contains("impossible size"));
        let mut negative = header("./x", b'0', 0);
        negative[124..136].fill(0xff);
        seal(&mut negative);
        assert!(scan(&[negative, end()].concat()).is_err());
    }

    #[test]
    fn sparse_files_count_with_their_real_size() {
        let mut old = header("./sparse", b'S', 512);
        old[257..265].copy_from_slice(b"ustar  \0");
        old[482] = 1;
        octal(&mut old, 483, 12, 1 << 20);
        seal(&mut old);
        let mut more = vec![0; BLOCK];
        more[0] = b'1';
        let pax = [record("GNU.sparse.name=./config"), record("GNU.sparse.realsize=1000")].concat();
        let bytes = [
            old,
            more,
            vec![9; 512],
            member("p", b'x', pax.as_bytes()),
            member("./GNUSparseFile.1/config", b'0', b"data"),
            end(),
        ]
        .concat();
        let summary = scan(&bytes).unwrap();
        assert_eq!(
            (summary.members, summary.files, summary.bytes),
            (2, 2, (1 << 20) + 1000)
        );
        assert_eq!(summary.captured, None);
    }

    #[test]
    fn capture_is_bounded_and_takes_the_last() {
        let bytes = [member("./config", b'0', &[b'x'; 65]), end()].concat();
        assert_eq!(scan(&bytes).unwrap().captured, None);
        let bytes = [member("./config", b'0', b"1"), member("config", b'0', b"2"), end()].concat();
        assert_eq!(scan(&bytes).unwrap().captured.as_deref(), Some(&b"2"[..]));
        let bytes = [member("./config", b'0', b""), end()].concat();
        assert_eq!(scan(&bytes).unwrap().captured.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn damaged_records_are_errors() {
        for records in [
            "x path=a\n",
            "5 a=\n",
            "99 path=a\n",
            "9 path=ab",
            "3 a\n",
            "999999999999999999999 path=a\n",
            "12 size=abc\n\n",
            "11 size=-1\n",
        ] {
            let bytes = [member("p", b'x', records.as_bytes()), member("./a", b'0', b""), end()].concat();
            let good = records == "5 a=\n";
            assert_eq!(scan(&bytes).is_ok(), good, "{records:?}");
        }
        let dangling = [member("p", b'x', record("path=./a").as_bytes()), end()].concat();
        assert!(scan(&dangling).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        for len in [0, 1, 511, 512, 513] {
            let mut archive = file_header("a name", len as u64, 0o644).unwrap();
            archive.extend(vec![b'x'; len]);
            archive.extend(end_of_file(len as u64));
            assert_eq!(archive.len() % BLOCK, 0);
            let mut scanner = Scanner::new().capture("a name", 1000);
            scanner.feed(&archive).unwrap();
            let summary = scanner.finish().unwrap();
            assert_eq!((summary.members, summary.files, summary.bytes), (1, 1, len as u64));
            assert_eq!(summary.captured.unwrap().len(), len);
        }
        assert!(file_header(&"n".repeat(101), 1, 0o644).is_err());
        for size in [8 << 30, (8 << 30) - 1, 40_u64 << 40, u64::from(u32::MAX) << 20] {
            let header = file_header("n", size, 0o644).unwrap();
            assert_eq!(number(&header[124..136]), Some(size));
            assert!(checksum_is_right(&header), "{size}");
            assert_eq!(header[124] == 0x80, size >= 8 << 30, "{size}");
        }
    }

    #[test]
    fn long_values_of_other_records_are_skipped() {
        let pax = [
            record(&format!("SCHILY.xattr.user.x={}", "=\n".repeat(200_000))),
            record("path=./config"),
        ]
        .concat();
        let bytes = [member("p", b'x', pax.as_bytes()), member("cut", b'0', b"abc"), end()].concat();
        assert_eq!(scan(&bytes).unwrap().captured.as_deref(), Some(&b"abc"[..]));
        let long = [member("p", b'L', &vec![b'a'; MAX_NAME + 1]), end()].concat();
        assert!(scan(&long).is_err());
    }
}
