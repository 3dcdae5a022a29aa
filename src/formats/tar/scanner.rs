//! Reads an archive from header to header.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{bail, Result};

use super::capture::Capture;
use super::header::{checksum_is_right, header_name, number, until_nul};
use super::listing::{hash_of, Known, Listing};
use super::names::{canonical, Names};
use super::pax::{within, Extended, Records};
use super::{Part, Place, Properties, Summary, BLOCK, MAX_NAME};

/// How many unsafe names are kept.
pub(super) const MAX_UNSAFE: usize = 8;

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
    capture: Capture,
    notable: Vec<Vec<u8>>,
    summary: Summary,
    all_dot_slash: bool,
    listing: Option<Listing>,
    part: Part,
    apart: Vec<Part>,
    with_places: bool,
    with_names: bool,
    /// What the archive leaves out.
    left_out: Names,
    /// The symbolic links so far.
    links: Names,
    /// The name of the member that is being read; none while what is read says more of the next one.
    name: Option<Vec<u8>>,
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
            capture: Capture::default(),
            notable: Vec::new(),
            summary: Summary::default(),
            all_dot_slash: true,
            listing: None,
            part: Part::default(),
            apart: Vec::new(),
            with_places: false,
            with_names: false,
            left_out: Names::default(),
            links: Names::default(),
            name: None,
            offset: 0,
        }
    }

    /// Asks for the content of the file `name`, if it has at most `max` bytes. A `./` before the name makes no
    /// difference. Where it is a hard link, the other name has to be in the same directory, or to end as this one.
    #[must_use]
    pub fn capture(mut self, name: &str, max: usize) -> Self {
        self.capture = Capture::of(name, max);
        self
    }

    /// With another name for the file of [`Scanner::capture`], where there is none of the first.
    #[must_use]
    pub fn or_capture(mut self, name: &str) -> Self {
        self.capture = self.capture.or(name);
        self
    }

    /// Asks whether there is a member `name`, or another one that was asked for so. A `./` before the name makes no
    /// difference.
    #[must_use]
    pub fn notice(mut self, name: &str) -> Self {
        self.notable.push(canonical(name.as_bytes()).into_owned());
        self
    }

    /// Asks for [`Summary::listing`]. It takes about 40 bytes of memory for each member.
    #[must_use]
    pub fn listed(mut self) -> Self {
        self.listing = Some(Listing::default());
        self
    }

    /// Looks at the members of a part only, with names as seen from its directory. Names that are unsafe are told of all.
    #[must_use]
    pub fn part(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    /// Asks for [`Summary::crossing`] between these parts.
    #[must_use]
    pub fn apart(mut self, parts: Vec<Part>) -> Self {
        self.apart = parts;
        self
    }

    /// Asks for [`Summary::places`].
    #[must_use]
    pub fn with_places(mut self) -> Self {
        self.with_places = true;
        self
    }

    /// Asks for [`Summary::names`].
    #[must_use]
    pub fn with_names(mut self) -> Self {
        self.with_names = true;
        self
    }

    /// Asks which of these names are missing.
    #[must_use]
    pub fn expecting(mut self, names: Names) -> Self {
        self.summary.missing = names;
        self
    }

    /// Tells of files and directories that are there and that the archive leaves out.
    #[must_use]
    pub fn without<'n>(mut self, names: impl Iterator<Item = &'n String>) -> Self {
        names.for_each(|name| self.left_out.insert(name.as_bytes()));
        self
    }

    /// Whether the next byte is the first of a header, or of the end.
    pub(super) fn awaits_header(&self) -> bool {
        self.state == State::Header && self.block.is_empty()
    }

    /// The name of the member that was begun last; none where what was begun says more of the next one.
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
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

    /// How many whole blocks of the member that is being read come before the next header.
    pub(super) fn blocks_to_come(&self) -> u64 {
        match self.state {
            State::Content | State::Padding => (self.left + self.padding) / BLOCK as u64,
            _ => 0,
        }
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
            self.name = None;
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
            let part_of = |name: &[u8]| self.apart.iter().position(|part| part.relative(name).is_some());
            // What is in no part is not unpacked.
            if part_of(&name).is_some_and(|part| part_of(&link) != Some(part)) {
                self.summary.crossing = Some(String::from_utf8_lossy(&name).into_owned());
            }
            if self.lacks(&link) {
                let both = [&name[..], &link].map(|name| String::from_utf8_lossy(name).into_owned());
                self.summary.dangling = Some(both.into());
            }
        }
        if kind == b'2' || (kind == b'1' && self.links.contains(&link)) {
            self.links.insert(&name);
        }
        self.all_dot_slash &= name == b"." || name.starts_with(b"./");
        let in_part = self.part.relative(&name).map(Cow::into_owned);
        self.name = Some(name.clone());
        let Some(short) = in_part else {
            if let Some(listing) = &mut self.listing {
                listing.end_member();
            }
            return Ok(stored);
        };
        self.summary.members += 1;
        self.summary.missing.remove(&short);
        if self.with_names {
            self.summary.names.insert(&short);
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
            self.summary.noticed |= self.notable.iter().any(|name| **name == short[..]);
            if self.capture.begin(&short, sparse.is_none().then_some(stored)) {
                self.content = Content::Capture;
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
        let is_directory = !regular && matches!(kind, b'5' | b'0' | 0 | b'7');
        if self.with_places && !short.is_empty() && (kind == b'2' || is_directory) {
            self.summary.places.push(Place {
                name: short.clone(),
                is_link: kind == b'2',
                properties,
            });
        }
        let link = match kind {
            // What a symbolic link leads to is only a text.
            b'1' => self.part.relative(&link).map(Cow::into_owned).unwrap_or_default(),
            _ => link,
        };
        if kind == b'1' {
            self.capture.link(&short, &link);
        }
        self.list(&short, kind, &link, properties, regular, stored);
        Ok(stored)
    }

    fn list(&mut self, name: &[u8], kind: u8, link: &[u8], properties: Properties, regular: bool, size: u64) {
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
            listing.members.insert(hashed, Known::Link(hash_of(&link)));
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

    /// Whether a file is surely not among the members so far.
    fn lacks(&self, name: &[u8]) -> bool {
        self.summary.missing.contains(name)
            || self.left_out.contains(name)
            || self.left_out.hold_above(&canonical(name))
    }

    fn note_unsafe(&mut self, name: &[u8]) {
        let leads_out = name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..");
        // What is unpacked below a link of the archive's own lands wherever that leads to.
        let unsafe_name = leads_out || self.links.hold_above(&canonical(name));
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
            Content::Capture => self.capture.feed(bytes),
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
                self.summary.captured = self.capture.take();
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
