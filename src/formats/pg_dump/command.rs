//! Lines of a dump that are for psql itself: `\restrict` and `\unrestrict` are pg_dump's own, no other is.

use std::io::Write;

use anyhow::{bail, Result};

use super::copy::find;
use super::lexer::{Lexer, State};

impl Lexer {
    pub(super) fn meta(&mut self, chunk: &[u8], at: usize, out: &mut impl Write) -> Result<usize> {
        let end = find(b'\n', &chunk[at..]).map_or(chunk.len(), |n| at + n);
        self.extend_text(&chunk[at..end]);
        if end == chunk.len() && !(self.cut && self.strip.is_some()) {
            return Ok(end);
        }
        self.end_meta()?;
        if end == chunk.len() {
            return Ok(end);
        }
        self.state = State::Sql;
        self.end_line(chunk, end + 1, out)?;
        Ok(end + 1)
    }

    /// Judges a command of psql whose whole line has been read.
    pub(super) fn end_meta(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        let text = text.strip_suffix(b"\r").unwrap_or(&text);
        let token = |prefix: &[u8]| {
            let token = text.strip_prefix(prefix)?;
            let fine = !token.is_empty() && token.iter().all(u8::is_ascii_alphanumeric);
            (self.at_line_start && !self.cut && fine).then(|| token.to_vec())
        };
        if let Some(token) = token(b"restrict ") {
            self.trailer = None;
            self.unrestricted = false;
            self.restrict_token = Some(token);
        } else if let Some(token) = token(b"unrestrict ") {
            self.unrestricted = self.restrict_token.as_ref() == Some(&token);
        } else {
            self.trailer = None;
            return self.foreign_meta(text);
        }
        self.drop = self.strip.as_ref().is_some_and(|strip| strip.restrict);
        Ok(())
    }

    fn foreign_meta(&mut self, text: &[u8]) -> Result<()> {
        let line = self.line();
        if self.strip.is_some() {
            bail!("line {line}: a command of psql that pg_dump does not write; it is not run");
        }
        self.summary.creates_database |= text.starts_with(b"connect ");
        self.summary.command.get_or_insert(line);
        Ok(())
    }
}
