//! Plain SQL dumps of `pg_dump`, read as a stream.
//!
//! [`Scanner`] proves that a dump is whole and collects what is in it; [`Filter`] does the same while it passes the
//! dump on to `psql`, without the lines that the `psql` or the server at hand does not know. Both use one lexer, which
//! follows the rules by which `psql` cuts its input into statements, because what counts is what `psql` would do with
//! the text: a line inside a string, a function body, a comment or COPY data is data, whatever it looks like, and an
//! unquoted backslash is a command of `psql` wherever it stands.
//!
//! Where the rules come from: "Lexical Structure" (strings, identifiers, dollar quoting, nested comments) and "COPY"
//! (text format, the end line `\.`) of the PostgreSQL documentation; the manual page of `psql` (meta-commands); the
//! output of `pg_dump` 12 to 18 (header, trailer, `\restrict`). As `psql` does, `;` inside parentheses or inside
//! `BEGIN ATOMIC ... END` of a `CREATE FUNCTION` does not end a statement.
//!
//! Memory is bounded whatever the input: a token keeps at most 1 KiB of its text and a statement at most 64 tokens,
//! a held-back line at most 64 KiB, and each list of the [`Summary`] has its own bound, which its field names.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};

use anyhow::{bail, Context, Result};

/// The header must begin, and the trailer stand, within so many bytes of the start and the end of the dump.
const EDGE: u64 = 4096;
/// The longest text of one token that is kept; a longer one is read on but not understood.
const MAX_TEXT: usize = 1024;
/// Tokens of one statement that are kept.
const MAX_TOKENS: usize = 64;
/// The longest beginning of a line that is held back.
const MAX_HELD: usize = 64 * 1024;
/// Bound of `tables`, `copies` and `sequences`.
const MAX_OBJECTS: usize = 16_384;
/// Bound of every other list of the summary.
const MAX_OTHERS: usize = 1024;

/// Client encodings in which the second byte of a character may be a backslash.
const UNSAFE_ENCODINGS: [&str; 10] = [
    "sjis",
    "mskanji",
    "shiftjis",
    "win932",
    "windows932",
    "shiftjis2004",
    "big5",
    "gbk",
    "uhc",
    "johab",
];

/// The meta-commands of `psql` that are named in messages; anything else might be data and is not quoted.
const META_COMMANDS: [&str; 96] = [
    "!",
    ".",
    ";",
    ":",
    "?",
    "a",
    "bind",
    "bind_named",
    "c",
    "C",
    "cd",
    "close",
    "close_prepared",
    "conninfo",
    "connect",
    "copy",
    "copyright",
    "crosstabview",
    "d",
    "da",
    "db",
    "dc",
    "dd",
    "des",
    "dew",
    "df",
    "dg",
    "di",
    "dl",
    "dm",
    "dn",
    "do",
    "dp",
    "ds",
    "dt",
    "du",
    "dv",
    "dx",
    "dy",
    "e",
    "echo",
    "ef",
    "elif",
    "else",
    "encoding",
    "endif",
    "endpipeline",
    "errverbose",
    "ev",
    "f",
    "flush",
    "flushrequest",
    "g",
    "gdesc",
    "getenv",
    "getresults",
    "gexec",
    "gset",
    "gx",
    "h",
    "help",
    "H",
    "html",
    "i",
    "if",
    "include",
    "include_relative",
    "ir",
    "l",
    "list",
    "lo_export",
    "lo_import",
    "lo_list",
    "lo_unlink",
    "o",
    "out",
    "p",
    "parse",
    "password",
    "prompt",
    "pset",
    "q",
    "quit",
    "qecho",
    "r",
    "reset",
    "restrict",
    "s",
    "set",
    "setenv",
    "startpipeline",
    "t",
    "timing",
    "unrestrict",
    "unset",
    "w",
];

/// The name of a table or sequence, without quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema; empty when the dump does not name one.
    pub schema: String,
    /// The name within the schema.
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.schema.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}

/// What a dump holds. Names are unquoted and, when they were not quoted in the dump, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Length in bytes.
    pub bytes: u64,
    /// Number of newlines, those in COPY data included.
    pub lines: u64,
    /// The header of `pg_dump` stands in the first 4 KiB. False for the output of `pg_dumpall`.
    pub is_dump: bool,
    /// The header of `pg_dumpall` stands in the first 4 KiB.
    pub is_cluster_dump: bool,
    /// The dump is whole: its last 4 KiB hold the line `-- PostgreSQL database dump complete`, followed by nothing but
    /// comments, blank lines and the `\unrestrict` line, which must be there when the dump began with `\restrict`.
    /// A cut that takes away only comments and blank lines after that line leaves a whole dump.
    pub complete: bool,
    /// Why the dump is not complete: a sentence without any row data.
    pub incomplete: Option<String>,
    /// The server's version as the header gives it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: Option<String>,
    /// The version of `pg_dump` as the header gives it.
    pub dump_version: Option<String>,
    /// Tables, partitioned tables and partitions in order of their creation; no foreign tables. At most 16384.
    pub tables: Vec<TableName>,
    /// Tables with COPY data in order, with the number of rows. At most 16384.
    pub copies: Vec<(TableName, u64)>,
    /// Sequences with their last value and whether it was handed out already. At most 16384.
    pub sequences: Vec<(TableName, i64, bool)>,
    /// Number of `INSERT` statements, of which `pg_dump --inserts` makes the data.
    pub inserts: u64,
    /// Roles that own objects, or that something is granted to or revoked from. At most 1024.
    pub roles: BTreeSet<String>,
    /// Parameters that are set by `SET name = value` outside functions, each with the line where it is set first.
    /// At most 1024.
    pub settings: Vec<(String, u64)>,
    /// Extensions that are created. At most 1024.
    pub extensions: Vec<String>,
    /// Meta-commands of `psql` other than proper `\restrict` and `\unrestrict` lines: the line and the command word,
    /// `(unknown)` for a word that is none of `psql`'s. At most 1024.
    pub meta: Vec<(u64, String)>,
    /// The dump has a `\restrict` line.
    pub restricted: bool,
    /// The dump holds large objects.
    pub has_large_objects: bool,
    /// The dump creates a database or connects to one, as with `pg_dump --create`.
    pub creates_database: bool,
    /// The dump sets `standard_conforming_strings` to off.
    pub standard_conforming_strings_off: bool,
    /// What the dump sets `client_encoding` to first: letters and digits, in lower case.
    pub client_encoding: Option<String>,
    /// The line of the first `DROP` before any table is created that needs what it names to be there, as `pg_dump --clean`
    /// writes them without `--if-exists`.
    pub drops: Option<u64>,
    /// A list was at its bound, and something was left out of it.
    pub truncated: bool,
}

/// Which lines a [`Filter`] leaves out.
#[derive(Debug, Clone, Default)]
pub struct Strip {
    /// The lines `\restrict TOKEN` and `\unrestrict TOKEN`, for a `psql` that does not know them.
    pub restrict: bool,
    /// One-line statements `SET name = value;` with one of these names (in lower case), for a server that does not
    /// know the parameter.
    pub settings: Vec<String>,
}

/// Reads a dump and tells what is in it.
pub struct Scanner {
    lexer: Lexer,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner at the beginning of a dump.
    pub fn new() -> Self {
        Self {
            lexer: Lexer::new(None),
        }
    }

    /// Reads the next bytes; where the stream is cut into chunks makes no difference.
    ///
    /// # Errors
    /// What `pg_dump` never writes and what makes it uncertain how `psql` would read on: a NUL byte, text after
    /// `COPY ... FROM stdin;` on its line, a number that runs into a quote, an encoding whose characters may contain
    /// the byte of a backslash, a change of `standard_conforming_strings` other than by `SET`. Meta-commands are no
    /// error here, see [`Summary::meta`].
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.lexer.feed(chunk, &mut io::sink())
    }

    /// Ends the dump. A dump that is cut off is no error: see [`Summary::complete`].
    ///
    /// # Errors
    /// As for [`Scanner::feed`].
    pub fn finish(self) -> Result<Summary> {
        self.lexer.finish(&mut io::sink())
    }
}

/// Passes a dump on, statement text unchanged, without the lines that psql or the server at hand does not know.
///
/// A line that is left out becomes an empty line, so that the line numbers in psql's messages are those of the dump.
/// At most the beginning of one line is held back between two calls, and at most 64 KiB of it; a longer line is
/// passed on as it comes and is not left out.
///
/// What is certain about meta-commands holds for a psql that stops at the first error (`ON_ERROR_STOP`): one that
/// goes on after a failed COPY would take the rows for commands.
pub struct Filter {
    lexer: Lexer,
}

impl Filter {
    /// A filter at the beginning of a dump.
    pub fn new(strip: Strip) -> Self {
        Self {
            lexer: Lexer::new(Some(strip)),
        }
    }

    /// Reads the next bytes and writes to `out` what can be passed on.
    ///
    /// # Errors
    /// The errors of [`Scanner::feed`]; any meta-command other than a proper `\restrict TOKEN` or `\unrestrict TOKEN`
    /// line, of which no byte has been written then; a failure to write. After an error the filter must not be used
    /// again.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl Write) -> Result<()> {
        self.lexer.feed(chunk, out)
    }

    /// Writes what was held back and ends the dump. A dump that is cut off is no error: see [`Summary::complete`].
    ///
    /// # Errors
    /// As for [`Filter::feed`].
    pub fn finish(self, out: &mut impl Write) -> Result<Summary> {
        self.lexer.finish(out)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between two tokens.
    Sql,
    Word,
    /// A number or a parameter such as `$1`.
    Number,
    /// After `$`: the beginning of a dollar quote, a parameter, or neither.
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
    /// After `:`, which may begin the name of a psql variable.
    Colon,
    /// In the name of a psql variable, which ends at `$`, as a word does not.
    Variable,
    Dash,
    LineComment,
    Slash,
    BlockComment,
    BlockStar,
    BlockSlash,
    /// A meta-command, up to the end of its line.
    Meta,
    /// After `COPY ... FROM stdin;` up to the end of its line.
    CopyTail,
    /// In a COPY line of which everything so far could be the end line.
    CopyMark,
    /// In a COPY line that is a row.
    CopyRow,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// An unquoted word, in lower case.
    Word(String),
    /// A quoted identifier, unquoted.
    Ident(String),
    /// A string constant, unquoted.
    Str(String),
    Number(String),
    Punct(u8),
    /// Something whose text is not known: a dollar quote, or a token that is too long.
    Other,
}

/// The statement that is being read.
#[derive(Default)]
struct Statement {
    /// The first tokens outside parentheses (in a SELECT also those in one pair), while they are of interest.
    tokens: Vec<Token>,
    /// Nothing but white space and comments so far if not set.
    begun: bool,
    /// More tokens are of interest.
    collect: bool,
    is_select: bool,
    is_insert: bool,
    line: u64,
    parens: u64,
    /// Words so far, up to 4, and what the first of them are: the first letters of CREATE OR REPLACE FUNCTION.
    words: usize,
    initials: [u8; 4],
    /// BEGIN and CASE that wait for their END, in the body of a function.
    begins: u64,
}

impl Statement {
    fn new() -> Self {
        Self {
            collect: true,
            ..Self::default()
        }
    }

    /// psql counts BEGIN and END only in a statement that begins with CREATE [OR REPLACE] FUNCTION or PROCEDURE.
    fn count_word(&mut self, word: &[u8]) {
        if self.words < self.initials.len() {
            let known = [&b"create"[..], b"or", b"replace", b"function", b"procedure"].contains(&word);
            self.initials[self.words] = if known { word[0] } else { 0 };
            self.words += 1;
        }
        let routine = matches!(self.initials, [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p']);
        if !routine || self.parens > 0 {
            return;
        }
        match word {
            b"begin" => self.begins += 1,
            b"case" if self.begins > 0 => self.begins += 1,
            b"end" => self.begins = self.begins.saturating_sub(1),
            _ => {}
        }
    }

    fn push(&mut self, token: Token) {
        if self.tokens.len() == MAX_TOKENS {
            self.collect = false;
            return;
        }
        self.tokens.push(token);
        match self.tokens.as_slice() {
            [Token::Word(first)] => {
                self.is_select = first == "select";
                self.is_insert = first == "insert";
                self.collect =
                    ["create", "copy", "select", "alter", "grant", "revoke", "set", "drop"].contains(&first.as_str());
            }
            [Token::Word(first), Token::Word(second)] if first == "create" => {
                self.collect = ["table", "unlogged", "extension", "database", "policy", "schema", "user"]
                    .contains(&second.as_str());
            }
            [_] => self.collect = false,
            _ => {}
        }
    }
}

struct Lexer {
    /// What to leave out; none for a scanner, which lets meta-commands pass.
    strip: Option<Strip>,
    summary: Summary,
    state: State,
    statement: Statement,
    /// Text of the token, comment or meta-command that is being read, as far as it is kept.
    text: Vec<u8>,
    /// The text is kept.
    keep: bool,
    /// The text was too long to be kept whole.
    cut: bool,
    token_line: u64,
    /// The string has backslash escapes.
    escapes: bool,
    /// 1 directly after the word `u`, 2 directly after `u&`: a quote then begins a string without escapes.
    unicode: u8,
    /// The delimiter of the dollar quote and how many bytes of it match so far.
    tag: Vec<u8>,
    matched: usize,
    /// Nesting of the block comment.
    comments: u64,
    /// The comment or meta-command begins its line, between two statements.
    at_line_start: bool,
    /// Offset of that comment or meta-command.
    mark_offset: u64,
    /// `standard_conforming_strings` for this line and from the next line on: psql looks at it once a line.
    standard_strings: bool,
    next_standard_strings: bool,
    /// The table whose COPY data are being read, and how much of the end line matches.
    copy: TableName,
    rows: u64,
    copy_line: u64,
    end_mark: u8,
    /// Offset of the trailer line if nothing of weight came after it.
    trailer: Option<u64>,
    restrict_token: Option<Vec<u8>>,
    unrestricted: bool,
    /// Offset of the current chunk, of the current line, and how much of the chunk has been passed on.
    base: u64,
    line_offset: u64,
    passed: usize,
    /// The current line may still have to be left out.
    hold: bool,
    /// The current line is to be left out if nothing else comes on it.
    drop: bool,
    /// The beginning of the current line, from earlier chunks.
    held: Vec<u8>,
}

/// Position of a byte. `skip_until` uses the C library's memchr, which is much faster than a loop.
fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    match rest.skip_until(byte) {
        Ok(read) if read > 0 && bytes[read - 1] == byte => Some(read - 1),
        _ => None,
    }
}

/// Number of newlines; sums of one byte let the compiler use vector instructions.
fn count_newlines(bytes: &[u8]) -> u64 {
    bytes
        .chunks(255)
        // Not `sum`: its check for an overflow, which cannot come here, would keep the compiler from that.
        .map(|part| {
            part.iter()
                .fold(0u8, |count, &b| count.wrapping_add(u8::from(b == b'\n')))
        })
        .map(u64::from)
        .sum()
}

/// Bytes that [`plain_rows`] looks at together: fewer than 256, so that a byte can count them.
const BLOCK: usize = 240;

/// Reads blocks of COPY data in which no line begins with a backslash. Gives the bytes read and their newlines.
/// Without branches (a check for an overflow is one) the compiler makes vector instructions of it, and short rows cost no
/// more than long ones.
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

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_tag_byte(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit()
}

fn is_word_byte(byte: u8) -> bool {
    is_tag_byte(byte) || byte == b'$'
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

impl Lexer {
    fn new(strip: Option<Strip>) -> Self {
        Self {
            strip,
            summary: Summary::default(),
            state: State::Sql,
            statement: Statement::new(),
            text: Vec::new(),
            keep: false,
            cut: false,
            token_line: 0,
            escapes: false,
            unicode: 0,
            tag: Vec::new(),
            matched: 0,
            comments: 0,
            at_line_start: false,
            mark_offset: 0,
            standard_strings: true,
            next_standard_strings: true,
            copy: TableName::default(),
            rows: 0,
            copy_line: 0,
            end_mark: 0,
            trailer: None,
            restrict_token: None,
            unrestricted: false,
            base: 0,
            line_offset: 0,
            passed: 0,
            hold: true,
            drop: false,
            held: Vec::new(),
        }
    }

    /// The line that is being read, counted from 1.
    fn line(&self) -> u64 {
        self.summary.lines + 1
    }

    fn feed(&mut self, chunk: &[u8], out: &mut impl Write) -> Result<()> {
        if let Some(at) = find(0, chunk) {
            bail!("byte {}: a NUL byte, which no SQL dump contains", self.base + at as u64);
        }
        self.passed = 0;
        let mut at = 0;
        while at < chunk.len() {
            at = match self.state {
                State::Sql => self.between(chunk, at, out)?,
                State::Word => self.word(chunk, at)?,
                State::Number => self.number(chunk, at)?,
                State::Dollar => self.dollar(chunk, at)?,
                State::DollarBody => self.dollar_body(chunk, at)?,
                State::Ident => self.identifier(chunk, at),
                State::IdentEnd => self.identifier_end(chunk, at)?,
                State::Str => self.string(chunk, at),
                State::StrEscape => self.string_escape(chunk, at),
                State::StrEnd => self.string_end(chunk, at)?,
                State::Colon | State::Variable => self.colon(chunk, at)?,
                State::Dash => {
                    if chunk[at] == b'-' {
                        self.state = State::LineComment;
                        self.begin_text(self.at_line_start);
                        at + 1
                    } else {
                        self.punct(b'-')?;
                        self.state = State::Sql;
                        at
                    }
                }
                State::LineComment => self.line_comment(chunk, at),
                State::Slash => {
                    if chunk[at] == b'*' {
                        self.state = State::BlockComment;
                        self.comments = 1;
                        at + 1
                    } else {
                        self.punct(b'/')?;
                        self.state = State::Sql;
                        at
                    }
                }
                State::BlockComment | State::BlockStar | State::BlockSlash => self.block_comment(chunk, at),
                State::Meta => self.meta(chunk, at, out)?,
                State::CopyTail => self.copy_tail(chunk, at, out)?,
                State::CopyMark | State::CopyRow => self.copy_data(chunk, at),
            };
        }
        self.end_chunk(chunk, out)?;
        self.base += chunk.len() as u64;
        self.summary.bytes = self.base;
        Ok(())
    }

    // What is passed on.

    /// Writes a part of the chunk, after what was held back before it.
    fn pass(&mut self, part: &[u8], out: &mut impl Write) -> Result<()> {
        if !self.held.is_empty() {
            out.write_all(&self.held).context("the dump could not be passed on")?;
            self.held.clear();
        }
        out.write_all(part).context("the dump could not be passed on")
    }

    /// Where the current line begins in the chunk; 0 when it began before.
    fn line_start(&self) -> usize {
        usize::try_from(self.line_offset.saturating_sub(self.base)).unwrap_or(usize::MAX)
    }

    /// Ends a line of SQL text with the newline just before `end`.
    fn end_line(&mut self, chunk: &[u8], end: usize, out: &mut impl Write) -> Result<()> {
        if self.hold && self.drop {
            self.drop_line(chunk, out)?;
            out.write_all(b"\n").context("the dump could not be passed on")?;
            self.passed = end;
        }
        self.summary.lines += 1;
        self.line_offset = self.base + end as u64;
        self.standard_strings = self.next_standard_strings;
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
    fn inner_lines(&mut self, chunk: &[u8], from: usize, to: usize) {
        let count = count_newlines(&chunk[from..to]);
        if count > 0 {
            self.summary.lines += count;
            let last = chunk[from..to].iter().rposition(|&b| b == b'\n');
            self.line_offset = self.base + (from + last.unwrap_or(0) + 1) as u64;
            self.standard_strings = self.next_standard_strings;
            self.hold = false;
            self.drop = false;
        }
    }

    fn end_chunk(&mut self, chunk: &[u8], out: &mut impl Write) -> Result<()> {
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

    // Tokens.

    fn begin_text(&mut self, keep: bool) {
        self.text.clear();
        self.keep = keep;
        self.cut = !keep;
    }

    fn begin_token(&mut self, keep: bool) {
        self.begin_text(keep);
        self.token_line = self.line();
    }

    /// The text of quoted tokens is kept only where a statement of interest may need it.
    fn keeps_quoted(&self) -> bool {
        self.statement.collect && self.statement.begun
    }

    fn extend_text(&mut self, bytes: &[u8]) {
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

    /// Notes a token that began at `token_line`. `depth` is the nesting of parentheses that it stands in.
    fn note(&mut self, make: impl FnOnce(&Self) -> Token) {
        self.trailer = None;
        self.unrestricted = false;
        if self.drop {
            self.drop = false;
            self.hold = false;
        }
        if !self.statement.begun {
            self.statement.begun = true;
            self.statement.line = self.token_line;
        }
        let deepest = u64::from(self.statement.is_select);
        if self.statement.collect && self.statement.parens <= deepest {
            let token = make(self);
            self.statement.push(token);
        }
        let set = matches!(self.statement.tokens.first(), Some(Token::Word(word)) if word == "set");
        self.hold = self.hold && set;
    }

    fn end_word(&mut self) {
        if !self.cut {
            self.text.make_ascii_lowercase();
            let word = std::mem::take(&mut self.text);
            self.statement.count_word(&word);
            self.unicode = u8::from(word == b"u");
            self.text = word;
        } else {
            self.statement.count_word(b"");
        }
        self.note(|lexer| lexer.take(Token::Word));
        self.state = State::Sql;
    }

    fn begin_string(&mut self, escapes: bool) {
        let keep = self.keeps_quoted();
        self.begin_token(keep);
        self.escapes = escapes;
        self.state = State::Str;
    }

    fn punct(&mut self, byte: u8) -> Result<()> {
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
            b';' if self.statement.parens == 0 && self.statement.begins == 0 => return self.end_statement(),
            _ => self.note(|_| Token::Punct(byte)),
        }
        Ok(())
    }

    // The states. Each takes the chunk from a position on and gives the position where the next state goes on.

    fn between(&mut self, chunk: &[u8], at: usize, out: &mut impl Write) -> Result<usize> {
        let byte = chunk[at];
        let unicode = std::mem::take(&mut self.unicode);
        match byte {
            b'\n' => self.end_line(chunk, at + 1, out)?,
            _ if is_space(byte) => {}
            b'\'' => self.begin_string(!self.standard_strings && unicode != 2),
            b'"' => {
                let keep = self.keeps_quoted();
                self.begin_token(keep);
                self.state = State::Ident;
            }
            b'$' => {
                self.begin_token(true);
                self.state = State::Dollar;
            }
            b':' => self.state = State::Colon,
            b'-' | b'/' => {
                self.mark_offset = self.base + at as u64;
                self.at_line_start = self.mark_offset == self.line_offset && !self.statement.begun;
                self.state = if byte == b'-' { State::Dash } else { State::Slash };
            }
            b'\\' => {
                self.mark_offset = self.base + at as u64;
                self.at_line_start = self.mark_offset == self.line_offset && !self.statement.begun;
                if self.strip.is_some() && !self.at_line_start {
                    bail!(
                        "line {}: a psql meta-command within a line, which no dump contains; it is not run",
                        self.line()
                    );
                }
                self.begin_text(true);
                self.state = State::Meta;
            }
            _ if is_word_start(byte) => {
                self.begin_token(true);
                self.state = State::Word;
                return Ok(at);
            }
            b'0'..=b'9' => {
                let keep = self.keeps_quoted();
                self.begin_token(keep);
                self.state = State::Number;
                return Ok(at);
            }
            _ => {
                self.punct(byte)?;
                if byte == b'&' && unicode == 1 {
                    self.unicode = 2;
                }
            }
        }
        Ok(at + 1)
    }

    fn word(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        let rest = &chunk[at..];
        let length = rest.iter().position(|&b| !is_word_byte(b));
        self.extend_text(&rest[..length.unwrap_or(rest.len())]);
        let Some(length) = length else {
            return Ok(chunk.len());
        };
        if rest[length] == b'\'' {
            // A prefix such as that of E'...' is part of the string.
            let escapes = match self.text.as_slice() {
                b"e" | b"E" => Some(true),
                b"n" | b"N" => Some(!self.standard_strings),
                b"b" | b"B" | b"x" | b"X" => Some(false),
                _ => None,
            };
            if let Some(escapes) = escapes {
                self.begin_string(escapes);
                return Ok(at + length + 1);
            }
        }
        self.end_word();
        Ok(at + length)
    }

    fn number(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        let rest = &chunk[at..];
        let length = rest.iter().position(|&b| !(is_tag_byte(b) || b == b'.'));
        self.extend_text(&rest[..length.unwrap_or(rest.len())]);
        let Some(length) = length else {
            return Ok(chunk.len());
        };
        if matches!(rest[length], b'\'' | b'$') {
            // Versions of psql differ in where the number ends and whether a quote begins.
            bail!(
                "line {}: a number runs into a quote, which no dump contains",
                self.line()
            );
        }
        self.note(|lexer| lexer.take(Token::Number));
        self.state = State::Sql;
        Ok(at + length)
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
        if first && byte.is_ascii_digit() {
            self.state = State::Number;
            return Ok(at);
        }
        if is_word_start(byte) || (!first && byte.is_ascii_digit()) {
            self.push_text(byte);
            return Ok(at + 1);
        }
        // No quote: a lone dollar sign and, after it, a word, which the next byte ends.
        let word = std::mem::take(&mut self.text);
        self.punct(b'$')?;
        self.text = word;
        self.state = if first { State::Sql } else { State::Word };
        Ok(at)
    }

    /// `:name` is one token for psql even when there is no such variable; `::` and `:=` are operators.
    fn colon(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        let byte = chunk[at];
        if is_tag_byte(byte) {
            self.state = State::Variable;
            return Ok(at + 1);
        }
        let operator = self.state == State::Colon && matches!(byte, b':' | b'=');
        self.punct(b':')?;
        self.state = State::Sql;
        Ok(at + usize::from(operator))
    }

    fn dollar_body(&mut self, chunk: &[u8], start: usize) -> Result<usize> {
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
                    return Ok(at);
                }
            } else {
                self.matched = usize::from(byte == b'$');
            }
        }
        self.inner_lines(chunk, start, at);
        Ok(at)
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

    fn identifier_end(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        if chunk[at] == b'"' {
            self.push_text(b'"');
            self.state = State::Ident;
            return Ok(at + 1);
        }
        self.note(|lexer| lexer.take(Token::Ident));
        self.state = State::Sql;
        Ok(at)
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

    fn string_end(&mut self, chunk: &[u8], at: usize) -> Result<usize> {
        if chunk[at] == b'\'' {
            self.push_text(b'\'');
            self.state = State::Str;
            return Ok(at + 1);
        }
        self.note(|lexer| lexer.take(Token::Str));
        self.state = State::Sql;
        Ok(at)
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

    fn block_comment(&mut self, chunk: &[u8], start: usize) -> usize {
        let mut at = start;
        while at < chunk.len() && self.comments > 0 {
            let byte = chunk[at];
            at += 1;
            self.state = match (self.state, byte) {
                (State::BlockStar, b'/') => {
                    self.comments -= 1;
                    State::BlockComment
                }
                (State::BlockSlash, b'*') => {
                    self.comments += 1;
                    State::BlockComment
                }
                (_, b'*') => State::BlockStar,
                (_, b'/') => State::BlockSlash,
                _ => State::BlockComment,
            };
        }
        self.inner_lines(chunk, start, at);
        if self.comments == 0 {
            self.state = State::Sql;
        }
        at
    }

    fn meta(&mut self, chunk: &[u8], at: usize, out: &mut impl Write) -> Result<usize> {
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

    /// Judges a meta-command whose whole line has been read.
    fn end_meta(&mut self) -> Result<()> {
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
            self.summary.restricted = true;
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
        let length = text.iter().position(|&b| is_space(b) || b == b'\\');
        let word = String::from_utf8_lossy(&text[..length.unwrap_or(text.len())]);
        let base = word.trim_end_matches(['+', 'S']);
        let word = match word.chars().next() {
            // Their arguments may follow without a blank.
            Some(first @ ('!' | ';' | ':')) => first.to_string(),
            _ if META_COMMANDS.contains(&base) => word.into_owned(),
            _ => "(unknown)".to_owned(),
        };
        let line = self.line();
        if self.strip.is_some() {
            bail!("line {line}: a psql meta-command (\\{word}) that no dump of one database contains; it is not run");
        }
        self.summary.creates_database |= word == "connect" || word == "c";
        bounded(
            &mut self.summary.meta,
            (line, word),
            MAX_OTHERS,
            &mut self.summary.truncated,
        );
        Ok(())
    }

    // COPY data.

    fn copy_tail(&mut self, chunk: &[u8], at: usize, out: &mut impl Write) -> Result<usize> {
        let byte = chunk[at];
        if byte == b'\n' {
            self.end_line(chunk, at + 1, out)?;
            self.hold = false;
            self.state = State::CopyMark;
            self.end_mark = 0;
            self.rows = 0;
        } else if !is_space(byte) {
            // psql would read it after the rows.
            bail!(
                "line {}: text after COPY ... FROM stdin; on the same line, which no dump contains",
                self.line()
            );
        }
        Ok(at + 1)
    }

    fn copy_data(&mut self, chunk: &[u8], start: usize) -> usize {
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
        bounded(&mut self.summary.copies, copy, MAX_OBJECTS, &mut self.summary.truncated);
        self.line_offset = end;
        self.standard_strings = self.next_standard_strings;
        self.state = State::Sql;
        self.hold = true;
        self.drop = false;
    }

    // Statements.

    fn end_statement(&mut self) -> Result<()> {
        self.state = State::Sql;
        self.trailer = None;
        let statement = std::mem::replace(&mut self.statement, Statement::new());
        let may_drop = self.hold && !self.drop && statement.begun;
        self.hold = false;
        self.drop = false;
        self.summary.inserts += u64::from(statement.is_insert);
        let tokens = &statement.tokens;
        match word(tokens, 0) {
            "copy" => {
                if let Some(table) = copied_table(tokens) {
                    self.copy = table;
                    self.copy_line = statement.line;
                    self.state = State::CopyTail;
                }
            }
            "create" => self.create(tokens),
            "select" => self.select(tokens, statement.line)?,
            "alter" => self.alter(tokens),
            "drop" => self.drop_statement(tokens, statement.line),
            "grant" => self.add_roles_after(tokens, "to"),
            "revoke" => self.add_roles_after(tokens, "from"),
            "set" => {
                if let Some(name) = self.set(tokens, statement.line)? {
                    let listed = self.strip.as_ref().is_some_and(|s| s.settings.contains(&name));
                    self.drop = may_drop && listed;
                    self.hold = self.drop;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn create(&mut self, tokens: &[Token]) {
        let truncated = &mut self.summary.truncated;
        let after_exists = |at: usize| {
            let exists = ["if", "not", "exists"].iter().enumerate();
            let skip = exists.clone().all(|(n, expected)| word(tokens, at + n) == *expected);
            if skip {
                at + 3
            } else {
                at
            }
        };
        match (word(tokens, 1), word(tokens, 2)) {
            ("table", _) | ("unlogged", "table") => {
                let at = after_exists(if word(tokens, 1) == "table" { 2 } else { 3 });
                if let Some((table, _)) = qualified_name(tokens, at) {
                    bounded(&mut self.summary.tables, table, MAX_OBJECTS, truncated);
                }
            }
            ("extension", _) => {
                if let Some(name) = name(tokens, after_exists(2)) {
                    bounded(&mut self.summary.extensions, name.to_owned(), MAX_OTHERS, truncated);
                }
            }
            ("database", _) => self.summary.creates_database = true,
            ("policy", _) => self.add_roles_after(tokens, "to"),
            ("schema", _) => self.add_roles_after(tokens, "authorization"),
            ("user", "mapping") => self.add_roles_after(tokens, "for"),
            _ => {}
        }
    }

    fn select(&mut self, tokens: &[Token], line: u64) -> Result<()> {
        let at = if word(tokens, 1) == "pg_catalog" { 3 } else { 1 };
        let Some(arguments) = tokens.get(at + 2..) else {
            return Ok(());
        };
        match (word(tokens, at), arguments) {
            ("setval", [Token::Str(sequence), Token::Punct(b','), rest @ ..]) => {
                let (sign, rest) = match rest {
                    [Token::Punct(b'-'), rest @ ..] => ("-", rest),
                    _ => ("", rest),
                };
                let [Token::Number(value), Token::Punct(b','), Token::Word(called), ..] = rest else {
                    return Ok(());
                };
                let value = format!("{sign}{value}").parse();
                if let (Some(sequence), Ok(value)) = (parse_qualified(sequence), value) {
                    bounded(
                        &mut self.summary.sequences,
                        (sequence, value, called == "true"),
                        MAX_OBJECTS,
                        &mut self.summary.truncated,
                    );
                }
            }
            ("lo_create" | "lo_open", _) => self.summary.has_large_objects = true,
            ("set_config", [Token::Str(name), ..]) if name.eq_ignore_ascii_case("standard_conforming_strings") => {
                bail!("line {line}: standard_conforming_strings is changed otherwise than by SET, which no dump does");
            }
            _ => {}
        }
        Ok(())
    }

    fn alter(&mut self, tokens: &[Token]) {
        match (word(tokens, 1), word(tokens, 2)) {
            ("default", "privileges") => {
                let begin = (3..tokens.len()).find(|&at| ["grant", "revoke"].contains(&word(tokens, at)));
                let (head, tail) = tokens.split_at(begin.unwrap_or(tokens.len()));
                if word(head, 3) == "for" {
                    self.add_roles(head, 5);
                }
                let preposition = if word(tail, 0) == "grant" { "to" } else { "from" };
                self.add_roles_after(tail, preposition);
            }
            ("large", "object") => self.summary.has_large_objects = true,
            _ => {}
        }
        let owner = (0..tokens.len()).find(|&at| word(tokens, at) == "owner" && word(tokens, at + 1) == "to");
        if let Some(owner) = owner {
            self.add_roles(tokens, owner + 2);
        }
    }

    /// Before anything is created, only `IF EXISTS` makes a `DROP` something else than an error.
    fn drop_statement(&mut self, tokens: &[Token], line: u64) {
        let lenient = (0..tokens.len()).any(|at| word(tokens, at) == "if" && word(tokens, at + 1) == "exists");
        if !lenient && self.summary.drops.is_none() && self.summary.tables.is_empty() {
            self.summary.drops = Some(line);
        }
    }

    /// Takes a `SET` statement apart and gives the name of the parameter.
    fn set(&mut self, tokens: &[Token], line: u64) -> Result<Option<String>> {
        if word(tokens, 1) == "session" && word(tokens, 2) == "authorization" {
            self.add_roles(tokens, 3);
            return Ok(None);
        }
        if word(tokens, 1) == "role" {
            self.add_roles(tokens, 2);
            return Ok(None);
        }
        let at = match (word(tokens, 1), word(tokens, 2)) {
            ("session" | "local", "to") => 1,
            ("session" | "local", second) if !second.is_empty() => 2,
            _ => 1,
        };
        let Some((parameter, at)) = qualified_name(tokens, at) else {
            return Ok(None);
        };
        if !(word(tokens, at) == "to" || tokens.get(at) == Some(&Token::Punct(b'='))) {
            return Ok(None);
        }
        let parameter = parameter.to_string().to_ascii_lowercase();
        let value = match tokens.get(at + 1) {
            Some(Token::Word(value) | Token::Ident(value) | Token::Str(value) | Token::Number(value)) => {
                value.to_ascii_lowercase()
            }
            _ => String::new(),
        };
        match parameter.as_str() {
            "standard_conforming_strings" => {
                let on = ["on", "true", "yes", "1", "default"].contains(&value.as_str());
                self.next_standard_strings = on;
                self.summary.standard_conforming_strings_off |= !on;
            }
            "client_encoding" => {
                let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
                self.summary.client_encoding.get_or_insert_with(|| plain.clone());
                if UNSAFE_ENCODINGS.contains(&plain.as_str()) || plain.starts_with("gb18030") {
                    bail!(
                        "line {line}: the dump is in the encoding {plain}, whose characters may contain the byte of a \
                         backslash; it cannot be checked"
                    );
                }
            }
            _ => {}
        }
        if !self.summary.settings.iter().any(|(known, _)| *known == parameter) {
            bounded(
                &mut self.summary.settings,
                (parameter.clone(), line),
                MAX_OTHERS,
                &mut self.summary.truncated,
            );
        }
        Ok(Some(parameter))
    }

    /// Adds the roles after the first such word, and the one after GRANTED BY.
    fn add_roles_after(&mut self, tokens: &[Token], preposition: &str) {
        if let Some(at) = (0..tokens.len()).find(|&at| word(tokens, at) == preposition) {
            self.add_roles(tokens, at + 1);
        }
        if let Some(at) = (0..tokens.len()).find(|&at| word(tokens, at) == "granted" && word(tokens, at + 1) == "by") {
            self.add_roles(tokens, at + 2);
        }
    }

    /// Adds a list of roles that are separated by commas.
    fn add_roles(&mut self, tokens: &[Token], start: usize) {
        let mut at = start;
        loop {
            if word(tokens, at) == "group" && name(tokens, at + 1).is_some() {
                at += 1;
            }
            let role = match tokens.get(at) {
                Some(Token::Word(role)) => {
                    let keyword = [
                        "public",
                        "current_user",
                        "current_role",
                        "session_user",
                        "default",
                        "none",
                    ];
                    (!keyword.contains(&role.as_str())).then_some(role)
                }
                Some(Token::Ident(role) | Token::Str(role)) => Some(role),
                _ => None,
            };
            if let Some(role) = role {
                if self.summary.roles.len() < MAX_OTHERS {
                    self.summary.roles.insert(role.clone());
                } else {
                    self.summary.truncated |= !self.summary.roles.contains(role);
                }
            }
            at += 1;
            if tokens.get(at) != Some(&Token::Punct(b',')) {
                return;
            }
            at += 1;
        }
    }

    // The end.

    fn finish(mut self, out: &mut impl Write) -> Result<Summary> {
        if self.state == State::Meta {
            self.end_meta()?;
            self.state = State::Sql;
        }
        let ended = matches!(self.state, State::Sql | State::LineComment) && !self.statement.begun;
        if self.hold && self.drop && ended {
            self.held.clear();
        }
        self.pass(&[], out)?;
        self.summary.incomplete = self.why_incomplete(ended);
        self.summary.complete = self.summary.incomplete.is_none();
        Ok(self.summary)
    }

    fn why_incomplete(&self, ended: bool) -> Option<String> {
        let line = self.line();
        let inside = match self.state {
            State::CopyTail | State::CopyMark | State::CopyRow => Some(format!(
                "the COPY data of {} that begin after line {}",
                self.copy, self.copy_line
            )),
            State::BlockComment | State::BlockStar | State::BlockSlash => Some("a comment".to_owned()),
            State::Ident | State::Str | State::StrEscape => Some("a quote".to_owned()),
            State::DollarBody => Some("a quoted body".to_owned()),
            _ if !ended => Some("a statement".to_owned()),
            _ => None,
        };
        let bytes = self.summary.bytes;
        if let Some(inside) = inside {
            Some(format!("the dump ends at line {line}, byte {bytes}, inside {inside}"))
        } else if bytes == 0 {
            Some("the dump is empty".to_owned())
        } else if self.trailer.is_none_or(|trailer| bytes - trailer > EDGE) {
            Some(format!(
                "the dump ends at line {line}, byte {bytes}, without the line \"PostgreSQL database dump complete\""
            ))
        } else if self.summary.restricted && !self.unrestricted {
            Some(format!(
                "the dump ends at line {line}, byte {bytes}, without the \\unrestrict line that belongs to its \\restrict line"
            ))
        } else {
            None
        }
    }
}

/// Adds to a list that has a bound.
fn bounded<T>(list: &mut Vec<T>, item: T, bound: usize, truncated: &mut bool) {
    if list.len() < bound {
        list.push(item);
    } else {
        *truncated = true;
    }
}

/// The unquoted word at a position, else an empty string.
fn word(tokens: &[Token], at: usize) -> &str {
    match tokens.get(at) {
        Some(Token::Word(word)) => word,
        _ => "",
    }
}

fn name(tokens: &[Token], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some(Token::Word(name) | Token::Ident(name)) => Some(name),
        _ => None,
    }
}

/// `name` or `schema.name`, and the position after it.
fn qualified_name(tokens: &[Token], at: usize) -> Option<(TableName, usize)> {
    let first = name(tokens, at)?.to_owned();
    if tokens.get(at + 1) == Some(&Token::Punct(b'.')) {
        let name = name(tokens, at + 2)?.to_owned();
        return Some((TableName { schema: first, name }, at + 3));
    }
    let schema = String::new();
    Some((TableName { schema, name: first }, at + 1))
}

/// The table of `COPY table [(columns)] FROM stdin ...`. In doubt it is none: what follows is then read as SQL, in
/// which the end line of the data is a meta-command.
fn copied_table(tokens: &[Token]) -> Option<TableName> {
    let (table, mut at) = qualified_name(tokens, 1)?;
    if let Some([Token::Punct(b'('), Token::Punct(b')')]) = tokens.get(at..at + 2) {
        at += 2;
    }
    (word(tokens, at) == "from" && word(tokens, at + 1) == "stdin").then_some(table)
}

/// Takes apart the text of a `regclass` constant, such as `public."Odd Name_id_seq"`.
fn parse_qualified(text: &str) -> Option<TableName> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let part = parts.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            _ if quoted => part.push(c),
            _ => part.push(c.to_ascii_lowercase()),
        }
    }
    let name = parts.pop()?;
    let schema = parts.pop().unwrap_or_default();
    (!quoted && parts.is_empty() && !name.is_empty()).then_some(TableName { schema, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc123XYZ\n\n\
        -- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)\n-- Dumped by pg_dump version 17.2\n\n\
        SET statement_timeout = 0;\nSET transaction_timeout = 0;\nSET client_encoding = 'UTF8';\n\
        SET standard_conforming_strings = on;\nSELECT pg_catalog.set_config('search_path', '', false);\n\n";
    const TAIL: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc123XYZ\n\n";
    const BODY: &str = r#"CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
CREATE FUNCTION public.nasty() RETURNS void
    LANGUAGE plpgsql
    AS $_$ begin /* ' " $$
COPY public.fake FROM stdin;
\.
\! rm
SET transaction_timeout = 0;
--
-- PostgreSQL database dump complete
--
$x$; $_ $_x end $_$;
CREATE FUNCTION public.atomic(a integer) RETURNS integer
    BEGIN ATOMIC
 SELECT 1; COPY public.fake FROM stdin;
 SELECT CASE WHEN (a > 1) THEN 2 ELSE 3 END;
END;
CREATE TABLE public.plain (
    id integer DEFAULT nextval('public.plain_id_seq'::regclass),
    "COPY x FROM stdin;" text DEFAULT E'\\! it\'s ''; \\'
);
ALTER TABLE public.plain OWNER TO "Odd Role";
CREATE UNLOGGED TABLE "My Schema"."Odd ""Name;" ();
CREATE TABLE public.part1 PARTITION OF public.part FOR VALUES IN (1);
CREATE FOREIGN TABLE public.ft (a integer) SERVER srv;
CREATE VIEW public.v AS
 SELECT '--'::text AS a, '/* ; */' b, 'C:\' c, 'COPY public.fake FROM stdin;
\.
' d, (1 OPERATOR(public.+/) 2) e, a$b$ FROM x;
CREATE RULE r AS ON INSERT TO public.plain DO ALSO (INSERT INTO x VALUES (1); COPY public.fake FROM stdin; );
/* nested /* comment ; */ COPY public.fake FROM stdin;
\! x
*/
COMMENT ON TABLE public.plain IS 'two
-- PostgreSQL database dump complete
lines';
SELECT pg_catalog.lo_create('16999');
ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA s GRANT SELECT ON TABLES  TO reader;
GRANT SELECT(id),UPDATE(id) ON TABLE public.plain TO PUBLIC, writer WITH GRANT OPTION GRANTED BY boss;
REVOKE ALL ON TABLE public.plain FROM gone;
CREATE POLICY p ON public.plain FOR SELECT TO polite, public USING ((id > 0));
SET default_tablespace = '';
COPY public.plain (id, "COPY x FROM stdin;") FROM stdin;
1	\\.
2	\N
\N	';$$ /* --
3	\\! rm
\\.	-- PostgreSQL database dump complete
\.x	COPY public.fake FROM stdin;
\.

copy "My Schema"."Odd ""Name;"  from STDIN;
\.

SELECT pg_catalog.setval('"My Schema"."it''s; ""seq"', 77, false);
SELECT pg_catalog.setval('public.neg', -6, true);
SET SESSION AUTHORIZATION 'owner';
"#;

    fn sample() -> String {
        format!("{HEAD}{BODY}{TAIL}")
    }

    fn table(schema: &str, name: &str) -> TableName {
        TableName {
            schema: schema.to_owned(),
            name: name.to_owned(),
        }
    }

    fn try_scan(text: &str) -> Result<Summary> {
        let mut scanner = Scanner::new();
        scanner.feed(text.as_bytes())?;
        scanner.finish()
    }

    fn scan(text: &str) -> Summary {
        try_scan(text).unwrap()
    }

    fn strip() -> Strip {
        Strip {
            restrict: true,
            settings: vec!["transaction_timeout".to_owned()],
        }
    }

    /// What the filter writes for these chunks, and how it ends.
    fn filter<'a>(strip: Strip, chunks: impl Iterator<Item = &'a [u8]>) -> (String, Result<Summary>) {
        let mut out = Vec::new();
        let mut filter = Filter::new(strip);
        for chunk in chunks {
            if let Err(error) = filter.feed(chunk, &mut out) {
                return (String::from_utf8(out).unwrap(), Err(error));
            }
        }
        let end = filter.finish(&mut out);
        (String::from_utf8(out).unwrap(), end)
    }

    fn filter_whole(strip: Strip, text: &str) -> (String, Result<Summary>) {
        filter(strip, std::iter::once(text.as_bytes()))
    }

    #[test]
    fn whole_dump() {
        let summary = scan(&sample());
        assert_eq!(summary.incomplete, None);
        assert!(summary.complete && summary.is_dump && summary.restricted && summary.has_large_objects);
        assert!(!summary.is_cluster_dump && !summary.creates_database && !summary.truncated);
        assert!(!summary.standard_conforming_strings_off);
        assert_eq!(
            summary.server_version.as_deref(),
            Some("15.18 (Debian 15.18-0+deb12u1)")
        );
        assert_eq!(summary.dump_version.as_deref(), Some("17.2"));
        assert_eq!(summary.meta, []);
        assert_eq!(
            summary.tables,
            [
                table("public", "plain"),
                table("My Schema", "Odd \"Name;"),
                table("public", "part1")
            ]
        );
        assert_eq!(
            summary.copies,
            [(table("public", "plain"), 6), (table("My Schema", "Odd \"Name;"), 0)]
        );
        assert_eq!(
            summary.sequences,
            [
                (table("My Schema", "it's; \"seq"), 77, false),
                (table("public", "neg"), -6, true)
            ]
        );
        let roles: Vec<&str> = summary.roles.iter().map(String::as_str).collect();
        assert_eq!(
            roles,
            ["Odd Role", "app", "boss", "gone", "owner", "polite", "reader", "writer"]
        );
        assert_eq!(summary.extensions, ["pg_trgm"]);
        let text = sample();
        let tablespace = text
            .lines()
            .position(|line| line == "SET default_tablespace = '';")
            .unwrap() as u64
            + 1;
        let settings: Vec<(&str, u64)> = summary
            .settings
            .iter()
            .map(|(name, line)| (name.as_str(), *line))
            .collect();
        assert_eq!(
            settings,
            [
                ("statement_timeout", 10),
                ("transaction_timeout", 11),
                ("client_encoding", 12),
                ("standard_conforming_strings", 13),
                ("default_tablespace", tablespace),
            ]
        );
        assert_eq!(summary.bytes, sample().len() as u64);
        assert_eq!(summary.lines, sample().lines().count() as u64);
    }

    #[test]
    fn chunks_make_no_difference() {
        let text = sample();
        let bytes = text.as_bytes();
        let summary = scan(&text);
        let (passed, _) = filter_whole(strip(), &text);
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            let (out, end) = filter(strip(), [head, tail].into_iter());
            assert_eq!(end.unwrap(), summary, "cut at {cut}");
            assert_eq!(out, passed, "cut at {cut}");
            let mut scanner = Scanner::new();
            scanner.feed(head).unwrap();
            scanner.feed(tail).unwrap();
            assert_eq!(scanner.finish().unwrap(), summary, "cut at {cut}");
        }
        for size in 1..400 {
            let (out, end) = filter(strip(), bytes.chunks(size));
            assert_eq!(end.unwrap(), summary, "chunks of {size}");
            assert_eq!(out, passed, "chunks of {size}");
        }
    }

    #[test]
    fn every_cut_is_found() {
        for text in [
            sample(),
            sample()
                .replace("\n\\unrestrict abc123XYZ\n\n", "")
                .replace("\\restrict abc123XYZ\n", ""),
        ] {
            // What may be missing is white space and comments.
            let content = if text.contains("unrestrict") {
                text.rfind("XYZ").unwrap() + 3
            } else {
                text.rfind("complete").unwrap() + "complete\n".len()
            };
            for length in 0..content {
                let summary = scan(&text[..length]);
                assert!(!summary.complete, "cut to {length} bytes");
                assert!(summary.incomplete.is_some());
            }
            assert!(scan(&text[..content]).complete);
            assert!(scan(&text).complete);
        }
    }

    #[test]
    fn reasons_name_the_place() {
        let why = |text: &str| scan(text).incomplete.unwrap();
        assert_eq!(why(""), "the dump is empty");
        assert_eq!(
            why("SELECT 1;\nCOPY public.t FROM stdin;\nsecret\n"),
            "the dump ends at line 4, byte 43, inside the COPY data of public.t that begin after line 2"
        );
        assert!(why("SELECT 'secret").ends_with("inside a quote"));
        assert!(why("SELECT 'secret'").ends_with("inside a statement"));
        assert!(why("DO $$ secret").ends_with("inside a quoted body"));
        assert!(why("/* secret").ends_with("inside a comment"));
        assert!(why("SELECT 1;\n").contains("without the line"));
        let cut = sample().replace("\\unrestrict abc123XYZ", "\\unrestrict other");
        assert!(why(&cut).contains("\\unrestrict line"));
    }

    #[test]
    fn trailer_must_be_the_end() {
        for more in [
            "SELECT 1;\n",
            "x",
            ";",
            "\\! x\n",
            "'",
            "COPY a FROM stdin;\n\\.\n",
            "/*",
        ] {
            assert!(!scan(&format!("{}{more}", sample())).complete, "{more}");
        }
        assert!(scan(&format!("{}-- more\n/* more */\n", sample())).complete);
        assert!(!scan(&format!("{}{}\n", sample(), "\n".repeat(5000))).complete);
        // Not the line itself.
        for line in [
            " -- PostgreSQL database dump complete",
            "-- PostgreSQL database dump complete.",
            "--PostgreSQL database dump complete",
            "-- PostgreSQL database cluster dump complete",
        ] {
            let text = format!("SELECT 1;\n{line}\n");
            assert!(!scan(&text).complete, "{line}");
        }
        let late = format!("{}{}", "-- filling\n".repeat(500), sample());
        assert!(!scan(&late).is_dump && scan(&late).complete);
    }

    #[test]
    fn dumps_with_carriage_returns() {
        let text = sample().replace("\n", "\r\n");
        let summary = scan(&text);
        assert!(summary.complete && summary.is_dump);
        assert_eq!(summary.copies[0].1, 6);
        let (out, end) = filter_whole(strip(), &text);
        assert!(end.is_ok() && !out.contains("restrict") && !out.contains("SET transaction_timeout = 0;\r\nSET"));
    }

    #[test]
    fn kinds_of_dumps() {
        let cluster = "--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE app;\n\\connect template1\n\
            --\n-- PostgreSQL database dump\n--\n-- PostgreSQL database dump complete\n--\n\n\
            --\n-- PostgreSQL database cluster dump complete\n--\n\n";
        let summary = scan(cluster);
        assert!(summary.is_cluster_dump && !summary.is_dump && summary.creates_database);
        assert_eq!(summary.meta, [(6, "connect".to_owned())]);
        let created = scan(&format!("{HEAD}CREATE DATABASE n8n WITH TEMPLATE = template0;\n{TAIL}"));
        assert!(created.creates_database && created.complete);
        let inserts = scan(&format!(
            "{HEAD}INSERT INTO public.t VALUES (1, 'a;\nINSERT INTO x');\nINSERT INTO public.t VALUES (1e-07, NULL);\n{TAIL}"
        ));
        assert_eq!((inserts.inserts, inserts.complete), (2, true));
    }

    #[test]
    fn meta_commands_are_found_wherever_they_stand() {
        for (text, line) in [
            ("\\! touch x\n", 1),
            ("\\!touch x\n", 1),
            ("SELECT 1 \\g /tmp/x\n", 1),
            ("SELECT 1\\gexec\n", 1),
            ("SELECT 'a'\\gset\n", 1),
            ("SELECT \"a\"\\gset\n", 1),
            ("SELECT $$a$$\\gset\n", 1),
            ("SELECT (1,\n2\\\\)", 2),
            ("/* x */\\! x\n", 1),
            ("-- x\r\\! x\n", 1),
            ("SELECT E'a'\n'\\' \\! x\n", 2),
            ("SELECT :a$b$\n\\! x\n$b$;\n", 0),
            ("SELECT a$b$\n\\! x\n", 2),
            ("SELECT 'it''s \\' \\! x\n", 1),
            ("SELECT U&'\\' \\! x\n", 1),
            ("COPY x FROM stdin;\n1\n\\.\n\\! x\n", 4),
            ("COPY x TO stdout;\n\\! x\n", 2),
            ("COPY x FROM 'stdin';\n\\! x\n", 2),
            ("(COPY x FROM stdin;\n\\! x\n", 2),
            ("\\restrict a; \\! x\n", 1),
            ("\\restrict \n", 1),
            (" \\restrict a\n", 1),
            ("SELECT 1\n\\restrict a\n", 2),
            ("\\unrestrict a b\n", 1),
            ("SET standard_conforming_strings = off;\nSELECT 'a\\'' \\! x\n", 2),
            ("SET standard_conforming_strings = off;\nSELECT U&'\\' \\! x\n", 2),
            ("\\! x", 1),
            ("\\.\n", 1),
        ] {
            let summary = scan(text);
            let lines: Vec<u64> = summary.meta.iter().map(|(line, _)| *line).collect();
            let expected: Vec<u64> = (line > 0).then_some(line).into_iter().collect();
            let summary_of_cut = |cut: usize| {
                let mut scanner = Scanner::new();
                scanner.feed(&text.as_bytes()[..cut]).unwrap();
                scanner.feed(&text.as_bytes()[cut..]).unwrap();
                scanner.finish().unwrap()
            };
            assert_eq!(lines.first(), expected.first(), "{text:?}");
            for cut in 0..=text.len() {
                assert_eq!(summary_of_cut(cut), summary, "{text:?} cut at {cut}");
                let chunks = [&text.as_bytes()[..cut], &text.as_bytes()[cut..]];
                let (out, end) = filter(strip(), chunks.into_iter());
                assert_eq!(end.is_err(), line > 0, "{text:?}");
                if line > 0 {
                    assert!(!out.contains("\\!") && !out.contains("\\g"), "{text:?}: {out:?}");
                    assert!(end.unwrap_err().to_string().starts_with(&format!("line {line}: ")));
                }
            }
        }
        let long = format!("\\{}\n", "x".repeat(100_000));
        let mut filter = Filter::new(strip());
        let mut out = Vec::new();
        assert!(long
            .as_bytes()
            .chunks(1000)
            .any(|chunk| filter.feed(chunk, &mut out).is_err()));
        assert!(out.is_empty());
    }

    #[test]
    fn words_of_meta_commands_quote_no_data() {
        let words = |text: &str| -> Vec<String> { scan(text).meta.into_iter().map(|(_, word)| word).collect() };
        assert_eq!(
            words("\\!rm\n\\connect x\n\\secret\n\\dt+ x\n"),
            ["!", "connect", "(unknown)", "dt+"]
        );
        assert!(scan("\\c x\n").creates_database);
    }

    #[test]
    fn filter_leaves_lines_out() {
        let (out, end) = filter_whole(strip(), &sample());
        assert!(end.unwrap().complete);
        let expected = sample()
            .replacen("\\restrict abc123XYZ\n", "\n", 1)
            .replacen("SET transaction_timeout = 0;\n", "\n", 1)
            .replacen("\\unrestrict abc123XYZ\n", "\n", 1);
        assert_eq!(out, expected);
        let (out, end) = filter_whole(Strip::default(), &sample());
        assert!(end.is_ok());
        assert_eq!(out, sample());
    }

    #[test]
    fn filter_leaves_out_whole_lines_only() {
        for (text, expected) in [
            ("  set TRANSACTION_TIMEOUT to 0; -- x\n", "\n"),
            ("SET SESSION transaction_timeout = '0';\n", "\n"),
            ("/* x */ SET transaction_timeout = 0;\n", "\n"),
            ("SET transaction_timeout = 0;", ""),
            ("\\restrict a\n\\unrestrict a", "\n"),
        ] {
            assert_eq!(filter_whole(strip(), text).0, expected, "{text:?}");
        }
        for text in [
            "SET transaction_timeout = 0; SELECT 1;\n",
            "SELECT 1; SET transaction_timeout = 0;\n",
            "SET a = 1; SET transaction_timeout = 0;\n",
            "SET transaction_timeout = 0; SET a = 1;\n",
            "SET\ntransaction_timeout = 0;\n",
            "SET transaction_timeout = '0\n';\n",
            "SET transaction_timeout = 0; /* x\n*/\n",
            "SET transaction_timeouts = 0;\n",
            "SET x.transaction_timeout = 0;\n",
            "SET transaction_timeout = 0",
            "SELECT 1\nSET transaction_timeout = 0;\n",
            "(SET transaction_timeout = 0;\n",
            "COPY x FROM stdin;\nSET transaction_timeout = 0;\n\\.\nSELECT 1;\n",
        ] {
            for cut in 0..=text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                let (out, end) = filter(strip(), [head, tail].into_iter());
                end.unwrap();
                assert_eq!(out, text);
            }
        }
    }

    #[test]
    fn filter_holds_back_little() {
        let mut filter = Filter::new(strip());
        let mut out = Vec::new();
        let begin = format!("SET transaction_timeout = '{}", "x".repeat(1000));
        filter.feed(begin.as_bytes(), &mut out).unwrap();
        assert!(out.is_empty());
        let mut length = begin.len();
        for _ in 0..200 {
            filter.feed(&[b'x'; 1000], &mut out).unwrap();
            length += 1000;
            assert!(length - out.len() <= MAX_HELD && filter.lexer.held.len() <= MAX_HELD);
        }
        filter.feed(b"';\n", &mut out).unwrap();
        filter.finish(&mut out).unwrap();
        assert_eq!(out.len(), length + 3);
        // A line that cannot be left out is not held back at all.
        let mut filter = Filter::new(strip());
        let mut out = Vec::new();
        filter.feed(b"SELECT 'x", &mut out).unwrap();
        assert_eq!(out, b"SELECT 'x");
    }

    #[test]
    fn uncertain_text_is_refused() {
        for (text, says) in [
            ("SELECT 1;\n\0", "byte 10: a NUL byte"),
            ("COPY x FROM stdin;\n1\0\n\\.\n", "byte 20: a NUL byte"),
            ("COPY x FROM stdin; SELECT 1;\n", "line 1: text after COPY"),
            ("SELECT 1a$b$;\n", "line 1: a number runs into a quote"),
            ("SELECT\n$1e'x';\n", "line 2: a number runs into a quote"),
            (
                "SET client_encoding = 'SJIS';\n",
                "line 1: the dump is in the encoding sjis",
            ),
            (
                "\nSET client_encoding TO GB18030;\n",
                "line 2: the dump is in the encoding gb18030",
            ),
            (
                "SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false);",
                "line 1: standard_conforming_strings",
            ),
        ] {
            for cut in 0..=text.len() {
                let mut scanner = Scanner::new();
                let (head, tail) = text.as_bytes().split_at(cut);
                let end = scanner.feed(head).and_then(|()| scanner.feed(tail));
                let error = end.unwrap_err().to_string();
                assert!(error.starts_with(says), "{text:?}: {error}");
            }
        }
        let tag = format!("DO ${}$", "a".repeat(2 * MAX_TEXT));
        assert!(try_scan(&tag).is_err());
    }

    #[test]
    fn strings_that_are_not_standard() {
        let summary = scan("SET standard_conforming_strings = off;\nSELECT 'it\\'s; COPY x FROM stdin;\n';\n");
        assert!(summary.standard_conforming_strings_off);
        assert_eq!(summary.meta, []);
        assert!(summary.incomplete.unwrap().contains("without the line"));
        // psql goes by the value that was valid when it read the line.
        let summary = scan("SET standard_conforming_strings = off; SELECT 'C:\\';\nSELECT 'x\\'';\n");
        assert_eq!(summary.meta, []);
    }

    #[test]
    fn copy_data_in_blocks() {
        for first in ["1", "\\N", "x\\.", "\\\\."] {
            for length in [0, 1, 2, 100, BLOCK - 3, BLOCK, 3 * BLOCK] {
                let row = format!("{first}{}\n", "y".repeat(length));
                let text = format!("COPY t FROM stdin;\n{}\\.\nSELECT 1;\n", row.repeat(50));
                let summary = scan(&text);
                assert_eq!(summary.copies, [(table("", "t"), 50)], "{first} {length}");
                assert_eq!((summary.lines, summary.meta.len()), (53, 0));
                let mut scanner = Scanner::new();
                for chunk in text.as_bytes().chunks(317) {
                    scanner.feed(chunk).unwrap();
                }
                assert_eq!(scanner.finish().unwrap(), summary);
            }
        }
    }

    #[test]
    fn lists_are_bounded() {
        let mut text = String::new();
        for n in 0..=MAX_OBJECTS {
            text.push_str(&format!(
                "CREATE TABLE s.t{n} ();\nGRANT ALL ON TABLE s.t TO r{n};\n\\! x\n"
            ));
        }
        let summary = scan(&text);
        assert!(summary.truncated);
        assert_eq!(
            (summary.tables.len(), summary.roles.len(), summary.meta.len()),
            (MAX_OBJECTS, MAX_OTHERS, MAX_OTHERS)
        );
        let long = format!("CREATE TABLE \"{}\" ();\nCREATE TABLE t ();\n", "x".repeat(100_000));
        assert_eq!(scan(&long).tables, [table("", "t")]);
        let columns: Vec<String> = (0..5000).map(|n| format!("\"column {n}\"")).collect();
        let wide = format!("COPY s.wide ({}) FROM stdin;\n1\n\\.\n", columns.join(", "));
        assert_eq!(scan(&wide).copies, [(table("s", "wide"), 1)]);
    }

    #[test]
    fn any_bytes_are_read_without_panic() {
        let pieces: [&[u8]; 24] = [
            b"'",
            b"''",
            b"\"",
            b"$$",
            b"$a$",
            b"$",
            b"--",
            b"/*",
            b"*/",
            b"(",
            b")",
            b";",
            b"E'",
            b"\\",
            b"\n",
            b"\r",
            b"COPY t FROM stdin;\n",
            b"\\.\n",
            b"SET transaction_timeout = 0;",
            b"\xff\xc3",
            b":",
            b"SELECT setval(",
            b"u&",
            b"GRANT a TO ,",
        ];
        let mut seed = 1u64;
        for _ in 0..3000 {
            let mut text = Vec::new();
            for _ in 0..20 {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.extend_from_slice(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            let mut whole = Scanner::new();
            let whole = whole.feed(&text).and_then(|()| whole.finish()).ok();
            let mut parts = Scanner::new();
            let end = text
                .chunks(1 + (seed >> 40) as usize % 7)
                .try_for_each(|chunk| parts.feed(chunk));
            let parts = end.and_then(|()| parts.finish()).ok();
            assert_eq!(whole, parts, "{:?}", String::from_utf8_lossy(&text));
        }
    }
}
