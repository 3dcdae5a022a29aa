//! COPY data: rows are counted, not read.

use anyhow::{bail, Result};

use super::bytes::find;
use super::lexer::{is_space, Lexer, State};
use super::names::{bounded, MAX_OBJECTS};

/// Bytes that [`plain_rows`] looks at together: fewer than 256, so that a byte can count them.
pub(super) const BLOCK: usize = 240;

/// Reads blocks of COPY data in which no line begins with a backslash. Gives the bytes read and their newlines.
/// Without branches (a check for an overflow is one) the compiler makes vector instructions of it, and short rows cost
/// no more than long ones.
fn plain_rows(bytes: &[u8]) -> (usize, u64) {
    let (mut read, mut newlines) = (0, 0);
    while let Some(block) = bytes.get(read..=read + BLOCK) {
        let (mut count, mut marks) = (0u8, 0u8);
        for (&byte, &next) in block[..BLOCK].iter().zip(&block[1..]) {
            let newline = u8::from(byte == b'\n');
            count = count.wrapping_add(newline);
            marks |= newline & u8::from(next == b'\\');
        }
        if marks != 0 {
            break;
        }
        read += BLOCK;
        newlines += u64::from(count);
    }
    (read, newlines)
}

impl Lexer {
    pub(super) fn copy_tail(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        let byte = chunk[at];
        if byte == b'\n' {
            self.end_line(at + 1);
            self.state = State::CopyMark;
            self.end_mark = 0;
            self.rows = 0;
            self.copy_begins = true;
        } else if !is_space(byte) {
            // psql would read it after the rows.
            bail!(
                "line {}: text after COPY ... FROM stdin; on the same line, which no dump contains",
                self.line()
            );
        }
        Ok(at + 1)
    }

    pub(super) fn copy_data(&mut self, chunk: &[u8], start: usize) -> usize {
        let mut at = start;
        let mut rows = 0;
        let mut line_by_line = start;
        while at < chunk.len() {
            let in_row = self.state == State::CopyRow || (self.end_mark == 0 && chunk[at] != b'\\');
            if in_row && at >= line_by_line {
                let (read, newlines) = plain_rows(&chunk[at..]);
                if read > 0 {
                    at += read;
                    rows += newlines;
                    self.end_mark = 0;
                    self.state = if chunk[at - 1] == b'\n' {
                        State::CopyMark
                    } else {
                        State::CopyRow
                    };
                    continue;
                }
                line_by_line = at + BLOCK;
            }
            if self.state == State::CopyMark {
                let (expected, next) = match (self.end_mark, chunk[at]) {
                    (0, b'\\') => (true, 1),
                    (1, b'.') => (true, 2),
                    (2, b'\r') => (true, 3),
                    (2 | 3, b'\n') => (true, 4),
                    _ => (false, 0),
                };
                self.end_mark = next;
                if next == 4 {
                    at += 1;
                    self.end_copy(rows, self.base + at as u64);
                    return at;
                }
                if expected {
                    at += 1;
                    continue;
                }
                self.state = State::CopyRow;
            }
            match find(b'\n', &chunk[at..]) {
                Some(length) => {
                    at += length + 1;
                    rows += 1;
                    self.state = State::CopyMark;
                    self.end_mark = 0;
                }
                None => at = chunk.len(),
            }
        }
        self.rows += rows;
        self.summary.lines += rows;
        at
    }

    fn end_copy(&mut self, rows: u64, end: u64) {
        self.summary.lines += rows + 1;
        let copy = (std::mem::take(&mut self.copy), self.rows + rows);
        bounded(&mut self.summary.copies, copy, MAX_OBJECTS);
        self.line_offset = end;
        self.state = State::Sql;
    }
}
