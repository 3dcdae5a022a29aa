//! Some of an archive's members, as an archive.

use std::io::{self, Read};

use super::scanner::Scanner;
use super::{Part, BLOCK};

/// Reads archives that follow one another, and gives the members that belong to a part as one archive. Names stay as
/// they are.
pub struct Select<R> {
    from: R,
    part: Part,
    scanner: Scanner,
    /// For what is read; at its beginning, what was not looked at yet, less than a block.
    buffer: Vec<u8>,
    held: usize,
    /// What says more of the next member, until it is known whether that belongs to the part.
    before: Vec<u8>,
    keeps: bool,
    /// Whether members came that no end has followed.
    open: bool,
    ready: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl<R: Read> Select<R> {
    /// The members of `part`.
    pub fn new(from: R, part: Part) -> Self {
        Self {
            from,
            part,
            scanner: Scanner::new(),
            buffer: vec![0; 128 * BLOCK],
            held: 0,
            before: Vec::new(),
            keeps: false,
            open: false,
            ready: io::Cursor::default(),
            ended: false,
        }
    }

    /// Takes whole blocks.
    fn take_all(&mut self, mut blocks: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        while !blocks.is_empty() {
            let to_come = usize::try_from(self.scanner.blocks_to_come()).unwrap_or(usize::MAX);
            let bytes = to_come.max(1).saturating_mul(BLOCK).min(blocks.len());
            let (these, rest) = blocks.split_at(bytes);
            self.take(these, out)?;
            blocks = rest;
        }
        Ok(())
    }

    /// Takes a block, or several of a member's content.
    fn take(&mut self, block: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        let is_header = self.scanner.awaits_header();
        if is_header && block.iter().all(|byte| *byte == 0) {
            // The end of an archive; another one may follow.
            self.scanner = Scanner::new();
            self.open = false;
            return Ok(());
        }
        self.scanner.feed(block)?;
        self.open = true;
        if is_header {
            match self.scanner.name() {
                Some(name) => {
                    self.keeps = self.part.relative(name).is_some();
                    let before = std::mem::take(&mut self.before);
                    if self.keeps {
                        out.extend(before);
                    }
                }
                None => self.keeps = false,
            }
        }
        if self.scanner.name().is_none() {
            self.before.extend_from_slice(block);
        } else if self.keeps {
            out.extend_from_slice(block);
        }
        Ok(())
    }
}

impl<R: Read> Read for Select<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.ready.read(into)?;
            if n > 0 || self.ended {
                return Ok(n);
            }
            let n = self.from.read(&mut self.buffer[self.held..])?;
            let mut out = std::mem::take(&mut self.ready).into_inner();
            out.clear();
            if n == 0 {
                self.ended = true;
                // What is cut off stays so.
                if self.held == 0 && !self.open && self.before.is_empty() {
                    out.resize(2 * BLOCK, 0);
                }
            } else {
                let mut buffer = std::mem::take(&mut self.buffer);
                let end = self.held + n;
                let whole = end - end % BLOCK;
                let taken = self.take_all(&buffer[..whole], &mut out);
                buffer.copy_within(whole..end, 0);
                self.held = end - whole;
                self.buffer = buffer;
                taken.map_err(io::Error::other)?;
            }
            self.ready = io::Cursor::new(out);
        }
    }
}
