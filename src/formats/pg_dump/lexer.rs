//! Cuts a dump into tokens and statements.

use anyhow::{bail, Result};

use super::bytes::{count_newlines, find};
use super::names::{Column, TableName, Token};
use super::statement::Statement;
use super::Summary;

/// The header must begin, and the trailer stand, within so many bytes of the start and the end of the dump.
pub(super) const EDGE: u64 = 4096;
/// The longest text of one token that is kept; a longer one is read on but not understood.
pub(super) const MAX_TEXT: usize = 1024;

/// Where [`Lexer::read`] stops, at the latest at the end of the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// There.
    End,
    /// Where a line begins between two statements.
    Line,
    /// Where COPY data begin.
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Between two tokens.
    Sql,
    Word,
    /// After `$`: the beginning of a dollar quote, or something else.
    Dollar,
    DollarBody,
    Ident,
    /// After a double quote that ends an identifier, unless another one follows.
    IdentEnd,
    Str,
    /// After a backslash in a string with escapes.
    StrEscape,
    /// After a quote that ends a string, unless another one follows.
    StrEnd,
    Dash,
    Slash,
    LineComment,
    /// A command of psql, up to the end of its line.
    Meta,
    /// After `COPY ... FROM stdin;` up to the end of its line.
    CopyTail,
    /// In a COPY line of which everything so far could be the end line.
    CopyMark,
    /// In a COPY line that is a row.
    CopyRow,
}

pub(super) struct Lexer {
    /// A command of psql that is none of pg_dump's is an error, not only noted.
    pub(super) strict: bool,
    pub(super) summary: Summary,
    pub(super) state: State,
    pub(super) statement: Statement,
    /// Text of the token, comment or command that is being read, as far as it is kept.
    pub(super) text: Vec<u8>,
    /// The text is kept.
    pub(super) keep: bool,
    /// The text was too long to be kept whole.
    pub(super) cut: bool,
    pub(super) token_line: u64,
    /// The string has backslash escapes.
    pub(super) escapes: bool,
    /// The delimiter of the dollar quote and how many bytes of it match so far.
    pub(super) tag: Vec<u8>,
    pub(super) matched: usize,
    /// The comment or command begins its line, between two statements.
    pub(super) at_line_start: bool,
    /// Offset of that comment or command.
    pub(super) mark_offset: u64,
    /// The table whose COPY data are being read, and how much of the end line matches.
    pub(super) copy: TableName,
    pub(super) rows: u64,
    pub(super) copy_line: u64,
    pub(super) end_mark: u8,
    /// The columns of COPY statements and of the tables that are created are collected.
    pub(super) collects: bool,
    /// COPY data begin here; the columns of the table.
    pub(super) copy_begins: bool,
    pub(super) columns: Vec<Column>,
    pub(super) created: Vec<(TableName, Vec<Column>)>,
    /// Offset of the trailer line if nothing of weight came after it.
    pub(super) trailer: Option<u64>,
    pub(super) restrict_token: Option<Vec<u8>>,
    pub(super) unrestricted: bool,
    /// Offset of the current chunk and of the current line.
    pub(super) base: u64,
    pub(super) line_offset: u64,
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_tag_byte(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit()
}

fn is_word_byte(byte: u8) -> bool {
    is_tag_byte(byte) || byte == b'$'
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

impl Lexer {
    pub(super) fn new(strict: bool) -> Self {
        Self {
            strict,
            summary: Summary::default(),
            state: State::Sql,
            statement: Statement::default(),
            text: Vec::new(),
            keep: false,
            cut: false,
            token_line: 0,
            escapes: false,
            tag: Vec::new(),
            matched: 0,
            at_line_start: false,
            mark_offset: 0,
            copy: TableName::default(),
            rows: 0,
            copy_line: 0,
            end_mark: 0,
            collects: false,
            copy_begins: false,
            columns: Vec::new(),
            created: Vec::new(),
            trailer: None,
            restrict_token: None,
            unrestricted: false,
            base: 0,
            line_offset: 0,
        }
    }

    /// Ends a line with the newline just before `end`.
    pub(super) fn end_line(&mut self, end: usize) {
        self.summary.lines += 1;
        self.line_offset = self.base + end as u64;
    }

    /// Counts the newlines inside a quote. The last one is looked for where there is one: that is the slower search.
    fn inner_lines(&mut self, chunk: &[u8], from: usize, to: usize) {
        let count = count_newlines(&chunk[from..to]);
        if count > 0 {
            let last = chunk[from..to].iter().rposition(|&b| b == b'\n').unwrap_or(0);
            self.end_line(from + last + 1);
            self.summary.lines += count - 1;
        }
    }

    /// The line that is being read, counted from 1.
    pub(super) fn line(&self) -> u64 {
        self.summary.lines + 1
    }

    /// Refuses a byte that no dump contains, in a chunk that is `ahead` bytes further than what was read.
    pub(super) fn refuse_nul(&self, chunk: &[u8], ahead: usize) -> Result<()> {
        if let Some(at) = find(0, chunk) {
            let offset = self.base + (ahead + at) as u64;
            bail!("byte {offset}: a NUL byte, which no SQL dump contains");
        }
        Ok(())
    }

    /// Whether a line begins `ahead` bytes further than what was read, between two statements.
    pub(super) fn begins_line(&self, ahead: usize) -> bool {
        self.state == State::Sql && !self.statement.begun && self.line_offset == self.base + ahead as u64
    }

    /// Reads a chunk, or as much of it as comes before `stop`. Gives the number of bytes read.
    pub(super) fn read(&mut self, chunk: &[u8], stop: Stop) -> Result<usize> {
        let mut at = 0;
        while at < chunk.len() {
            at = match self.state {
                State::Sql => self.between(chunk, at)?,
                State::Word => self.word(chunk, at),
                State::Dollar => self.dollar(chunk, at)?,
                State::DollarBody => self.dollar_body(chunk, at),
                State::Ident => self.identifier(chunk, at),
                State::IdentEnd => self.identifier_end(chunk, at),
                State::Str => self.string(chunk, at),
                State::StrEscape => self.string_escape(chunk, at),
                State::StrEnd => self.string_end(chunk, at),
                State::Dash => {
                    if chunk[at] == b'-' {
                        self.state = State::LineComment;
                        self.begin_text(self.at_line_start);
                        at + 1
                    } else {
                        self.punct(b'-');
                        self.state = State::Sql;
                        at
                    }
                }
                State::LineComment => self.line_comment(chunk, at),
                State::Slash => {
                    if chunk[at] == b'*' {
                        bail!("line {}: a block comment, which pg_dump does not write", self.line());
                    }
                    self.punct(b'/');
                    self.state = State::Sql;
                    at
                }
                State::Meta => self.meta(chunk, at)?,
                State::CopyTail => self.copy_tail(chunk, at)?,
                State::CopyMark | State::CopyRow => self.copy_data(chunk, at),
            };
            let stops = match stop {
                Stop::End => false,
                Stop::Line => self.begins_line(at),
                Stop::Copy => self.copy_begins,
            };
            if stops {
                break;
            }
        }
        self.base += at as u64;
        self.summary.bytes = self.base;
        Ok(at)
    }

    fn begin_text(&mut self, keep: bool) {
        self.text.clear();
        self.keep = keep;
        self.cut = !keep;
    }

    fn begin_token(&mut self, keep: bool) {
        self.begin_text(keep);
        self.token_line = self.line();
    }

    pub(super) fn extend_text(&mut self, bytes: &[u8]) {
        if self.keep && !self.cut {
            let room = MAX_TEXT - self.text.len();
            self.cut = bytes.len() > room;
            self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn push_text(&mut self, byte: u8) {
        self.extend_text(&[byte]);
    }

    /// The text as a token, or `Other` where it was not kept whole.
    fn take(&self, make: fn(String) -> Token) -> Token {
        if self.cut {
            Token::Other
        } else {
            make(String::from_utf8_lossy(&self.text).into_owned())
        }
    }

    /// Notes a token that began at `token_line`.
    fn note(&mut self, make: impl FnOnce(&Self) -> Token) {
        self.trailer = None;
        self.unrestricted = false;
        if !self.statement.begun {
            self.statement.begun = true;
            self.statement.line = self.token_line;
            self.statement.columns = self.collects.then(Vec::new);
        }
        if self.statement.wants() {
            let token = make(self);
            self.statement.push(token);
        }
    }

    fn end_word(&mut self) {
        self.text.make_ascii_lowercase();
        self.statement.count_word(&self.text);
        self.note(|lexer| lexer.take(Token::Word));
        self.state = State::Sql;
    }

    fn begin_string(&mut self, escapes: bool) {
        self.begin_token(self.statement.wants());
        self.escapes = escapes;
        self.state = State::Str;
    }

    fn punct(&mut self, byte: u8) {
        self.token_line = self.line();
        match byte {
            b'(' => {
                self.note(|_| Token::Punct(byte));
                self.statement.parens += 1;
            }
            b')' => {
                self.statement.parens = self.statement.parens.saturating_sub(1);
                self.note(|_| Token::Punct(byte));
            }
            b';' if self.statement.parens == 0 && self.statement.begins == 0 => self.end_statement(),
            _ => self.note(|_| Token::Punct(byte)),
        }
    }

    // The states. Each takes the chunk from a position on and gives the position where the next state goes on.

    fn between(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        let byte = chunk[at];
        match byte {
            b'\n' => self.end_line(at + 1),
            _ if is_space(byte) => {}
            b'\'' => self.begin_string(false),
            b'"' => {
                self.begin_token(self.statement.wants());
                self.state = State::Ident;
            }
            b'$' => {
                self.begin_token(true);
                self.state = State::Dollar;
            }
            b'/' => self.state = State::Slash,
            b'-' => {
                self.mark_offset = self.base + at as u64;
                self.at_line_start = self.mark_offset == self.line_offset && !self.statement.begun;
                self.state = State::Dash;
            }
            b'\\' => {
                self.mark_offset = self.base + at as u64;
                self.at_line_start = self.mark_offset == self.line_offset && !self.statement.begun;
                if self.strict && !self.at_line_start {
                    bail!(
                        "line {}: a command of psql within a line, which pg_dump does not write; it is not run",
                        self.line()
                    );
                }
                self.begin_text(true);
                self.state = State::Meta;
            }
            _ if is_tag_byte(byte) => {
                self.begin_token(true);
                self.state = State::Word;
                return Ok(at);
            }
            _ => self.punct(byte),
        }
        Ok(at + 1)
    }

    fn word(&mut self, chunk: &[u8], at: usize) -> usize {
        let rest = &chunk[at..];
        let length = rest.iter().position(|&b| !is_word_byte(b));
        self.extend_text(&rest[..length.unwrap_or(rest.len())]);
        let Some(length) = length else {
            return chunk.len();
        };
        // The prefix of E'...' is part of the string.
        if rest[length] == b'\'' && matches!(self.text.as_slice(), b"e" | b"E") {
            self.begin_string(true);
            return at + length + 1;
        }
        self.end_word();
        at + length
    }

    fn dollar(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        let byte = chunk[at];
        if byte == b'$' {
            if self.cut {
                bail!(
                    "line {}: a dollar quote with a tag of more than {MAX_TEXT} bytes",
                    self.line()
                );
            }
            self.tag.clear();
            self.tag.push(b'$');
            self.tag.extend_from_slice(&self.text);
            self.tag.push(b'$');
            self.matched = 0;
            self.state = State::DollarBody;
            return Ok(at + 1);
        }
        let first = self.text.is_empty();
        if is_word_start(byte) || (!first && byte.is_ascii_digit()) {
            self.push_text(byte);
            return Ok(at + 1);
        }
        // No quote: a lone dollar sign and, after it, a word, which the next byte ends.
        let word = std::mem::take(&mut self.text);
        self.punct(b'$');
        self.text = word;
        self.state = if first { State::Sql } else { State::Word };
        Ok(at)
    }

    fn dollar_body(&mut self, chunk: &[u8], start: usize) -> usize {
        let mut at = start;
        while at < chunk.len() {
            if self.matched == 0 {
                match find(b'$', &chunk[at..]) {
                    Some(found) => at += found + 1,
                    None => {
                        at = chunk.len();
                        break;
                    }
                }
                self.matched = 1;
                continue;
            }
            let byte = chunk[at];
            at += 1;
            if byte == self.tag[self.matched] {
                self.matched += 1;
                if self.matched == self.tag.len() {
                    self.inner_lines(chunk, start, at);
                    self.note(|_| Token::Other);
                    self.state = State::Sql;
                    return at;
                }
            } else {
                self.matched = usize::from(byte == b'$');
            }
        }
        self.inner_lines(chunk, start, at);
        at
    }

    fn identifier(&mut self, chunk: &[u8], at: usize) -> usize {
        let end = find(b'"', &chunk[at..]).map_or(chunk.len(), |n| at + n);
        self.extend_text(&chunk[at..end]);
        self.inner_lines(chunk, at, end);
        if end == chunk.len() {
            return end;
        }
        self.state = State::IdentEnd;
        end + 1
    }

    fn identifier_end(&mut self, chunk: &[u8], at: usize) -> usize {
        if chunk[at] == b'"' {
            self.push_text(b'"');
            self.state = State::Ident;
            return at + 1;
        }
        self.note(|lexer| lexer.take(Token::Ident));
        self.state = State::Sql;
        at
    }

    fn string(&mut self, chunk: &[u8], at: usize) -> usize {
        let mut end = find(b'\'', &chunk[at..]).map_or(chunk.len(), |n| at + n);
        if self.escapes {
            if let Some(escape) = find(b'\\', &chunk[at..end]) {
                end = at + escape;
            }
        }
        self.extend_text(&chunk[at..end]);
        self.inner_lines(chunk, at, end);
        if end == chunk.len() {
            return end;
        }
        self.state = if chunk[end] == b'\'' {
            State::StrEnd
        } else {
            State::StrEscape
        };
        end + 1
    }

    fn string_escape(&mut self, chunk: &[u8], at: usize) -> usize {
        match chunk[at] {
            byte @ (b'\\' | b'\'' | b'"') => self.push_text(byte),
            // Other escapes are of no use in a name.
            _ => self.cut = true,
        }
        self.inner_lines(chunk, at, at + 1);
        self.state = State::Str;
        at + 1
    }

    fn string_end(&mut self, chunk: &[u8], at: usize) -> usize {
        if chunk[at] == b'\'' {
            self.push_text(b'\'');
            self.state = State::Str;
            return at + 1;
        }
        self.note(|lexer| lexer.take(Token::Str));
        self.state = State::Sql;
        at
    }

    fn line_comment(&mut self, chunk: &[u8], at: usize) -> usize {
        let rest = &chunk[at..];
        // psql takes a carriage return for the end of the comment, too.
        let length = rest.iter().position(|&b| b == b'\n' || b == b'\r');
        self.extend_text(&rest[..length.unwrap_or(rest.len())]);
        let Some(length) = length else {
            return chunk.len();
        };
        if self.at_line_start && !self.cut {
            self.header_comment();
        }
        self.state = State::Sql;
        at + length
    }

    fn header_comment(&mut self) {
        let near_start = self.mark_offset < EDGE;
        match self.text.as_slice() {
            b" PostgreSQL database dump" if near_start => {
                self.summary.is_dump = !self.summary.is_cluster_dump;
            }
            b" PostgreSQL database cluster dump" if near_start => {
                self.summary.is_cluster_dump = !self.summary.is_dump;
            }
            b" PostgreSQL database dump complete" => self.trailer = Some(self.mark_offset),
            text => {
                let summary = &mut self.summary;
                for (prefix, version) in [
                    (&b" Dumped from database version "[..], &mut summary.server_version),
                    (b" Dumped by pg_dump version ", &mut summary.dump_version),
                ] {
                    if let Some(value) = text.strip_prefix(prefix) {
                        if version.is_none() {
                            *version = Some(String::from_utf8_lossy(value).into_owned());
                        }
                    }
                }
            }
        }
    }
}
