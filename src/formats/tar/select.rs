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
    /// What was read and not looked at yet, less than a block.
    rest: Vec<u8>,
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
            rest: Vec::new(),
            before: Vec::new(),
            keeps: false,
            open: false,
            ready: io::Cursor::default(),
            ended: false,
        }
    }

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
            let mut chunk = vec![0; 128 * BLOCK];
            let n = self.from.read(&mut chunk)?;
            let mut out = Vec::with_capacity(n);
            if n == 0 {
                self.ended = true;
                // What is cut off stays so.
                if self.rest.is_empty() && !self.open && self.before.is_empty() {
                    out = vec![0; 2 * BLOCK];
                }
            } else {
                let mut bytes = std::mem::take(&mut self.rest);
                bytes.extend_from_slice(&chunk[..n]);
                let mut blocks = bytes.chunks_exact(BLOCK);
                for block in &mut blocks {
                    self.take(block, &mut out).map_err(io::Error::other)?;
                }
                self.rest = blocks.remainder().to_vec();
            }
            self.ready = io::Cursor::new(out);
        }
    }
}
