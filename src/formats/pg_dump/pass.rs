//! What a filter passes on, and the lines that it leaves out.

use std::io::Write;

use anyhow::{Context, Result};

use super::copy::count_newlines;
use super::lexer::{Lexer, MAX_HELD};

impl Lexer {
    /// Writes a part of the chunk, after what was held back before it.
    pub(super) fn pass(&mut self, part: &[u8], out: &mut impl Write) -> Result<()> {
        if !self.held.is_empty() {
            out.write_all(&self.held).context("the dump could not be passed on")?;
            self.held.clear();
        }
        out.write_all(part).context("the dump could not be passed on")
    }

    /// Where the current line begins in the chunk; 0 when it began before.
    pub(super) fn line_start(&self) -> usize {
        usize::try_from(self.line_offset.saturating_sub(self.base)).unwrap_or(usize::MAX)
    }

    /// Ends a line of SQL text with the newline just before `end`.
    pub(super) fn end_line(&mut self, chunk: &[u8], end: usize, out: &mut impl Write) -> Result<()> {
        if self.hold && self.drop {
            self.drop_line(chunk, out)?;
            out.write_all(b"\n").context("the dump could not be passed on")?;
            self.passed = end;
        }
        self.summary.lines += 1;
        self.line_offset = self.base + end as u64;
        self.hold = !self.statement.begun;
        self.drop = false;
        // A line that was held back and stays goes out in front of the next part.
        Ok(())
    }

    /// Passes on what stands before the current line and forgets the line.
    fn drop_line(&mut self, chunk: &[u8], out: &mut impl Write) -> Result<()> {
        if self.line_offset < self.base {
            self.held.clear();
            return Ok(());
        }
        let start = self.line_start();
        self.pass(&chunk[self.passed..start], out)
    }

    /// Counts the newlines inside a quote or comment. The line that they end is none to leave out.
    pub(super) fn inner_lines(&mut self, chunk: &[u8], from: usize, to: usize) {
        let count = count_newlines(&chunk[from..to]);
        if count > 0 {
            self.summary.lines += count;
            let last = chunk[from..to].iter().rposition(|&b| b == b'\n');
            self.line_offset = self.base + (from + last.unwrap_or(0) + 1) as u64;
            self.hold = false;
            self.drop = false;
        }
    }

    pub(super) fn end_chunk(&mut self, chunk: &[u8], out: &mut impl Write) -> Result<()> {
        if self.hold {
            let start = self.line_start();
            if self.held.len() + (chunk.len() - start) <= MAX_HELD {
                if self.line_offset >= self.base {
                    self.pass(&chunk[self.passed..start], out)?;
                }
                self.held.extend_from_slice(&chunk[start..]);
                return Ok(());
            }
            self.hold = false;
            self.drop = false;
        }
        self.pass(&chunk[self.passed..], out)
    }
}
