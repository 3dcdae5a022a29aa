//! Lines of a dump that are for psql itself: `\restrict` and `\unrestrict` are pg_dump's own, no other is.

use anyhow::{bail, Result};

use super::bytes::find;
use super::lexer::{Lexer, State};

impl Lexer {
    pub(super) fn meta(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        let end = find(b'\n', &chunk[at..]).map_or(chunk.len(), |n| at + n);
        self.extend_text(&chunk[at..end]);
        if end == chunk.len() && !(self.cut && self.strict) {
            return Ok(end);
        }
        self.end_meta()?;
        if end == chunk.len() {
            return Ok(end);
        }
        self.state = State::Sql;
        self.end_line(end + 1);
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
            let line = self.line();
            if self.strict {
                bail!("line {line}: a command of psql that pg_dump does not write; it is not run");
            }
            self.trailer = None;
            self.summary.creates_database |= text.starts_with(b"connect ");
            self.summary.command.get_or_insert(line);
        }
        Ok(())
    }
}
