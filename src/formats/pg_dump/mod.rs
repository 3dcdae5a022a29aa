//! Plain SQL dumps of `pg_dump`, read as a stream.
//!
//! [`Scanner`] proves that a dump is whole and collects what is in it; [`Filter`] does the same while it passes the
//! dump on to `psql`, without the lines that the `psql` or the server at hand does not know. Both use one lexer, which
//! reads what pg_dump 12 to 18 writes: statements, standard strings and `E''` strings, quoted identifiers, dollar
//! quotes, line comments, `BEGIN ATOMIC` bodies, and COPY data in text format, as the PostgreSQL documentation
//! describes them.
//!
//! It does not predict what `psql` makes of any other text. That a file runs no command of psql is ensured by
//! `\restrict`, or by taking only files of our own (`components/postgres/trust.rs`). Statements that act outside of the
//! database are noted as far as they show: what a function does is not looked at.
//!
//! Memory is bounded whatever the input: a token keeps at most 1 KiB of its text and a statement at most 64 tokens,
//! a held-back line at most 64 KiB, and each list of the [`Summary`] has its own bound, which its field names.

mod command;
mod copy;
mod facts;
mod lexer;
mod names;
mod pass;
mod statement;
mod summary;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use anyhow::Result;

use lexer::Lexer;
pub use names::TableName;
pub use summary::Summary;

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
    /// A NUL byte, a block comment, text after `COPY ... FROM stdin;` on its line, a dollar quote with an endless tag.
    /// Commands of psql are no error here, see [`Summary::command`].
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.lexer.feed(chunk, &mut io::sink())
    }

    /// Ends the dump. A dump that is cut off is no error: see [`Summary::incomplete`].
    pub fn finish(self) -> Result<Summary> {
        self.lexer.finish(&mut io::sink())
    }
}

/// Passes a dump on, statement text unchanged, without the lines that psql or the server at hand does not know.
///
/// A line that is left out becomes an empty line, so that the line numbers in psql's messages are those of the dump.
/// At most the beginning of one line is held back between two calls, and at most 64 KiB of it; a longer line is
/// passed on as it comes and is not left out.
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
    /// The errors of [`Scanner::feed`]; any command of psql other than a proper `\restrict TOKEN` or
    /// `\unrestrict TOKEN` line, of which no byte has been written then; a failure to write. After an error the filter
    /// must not be used again.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl Write) -> Result<()> {
        self.lexer.feed(chunk, out)
    }

    /// Writes what was held back and ends the dump. A dump that is cut off is no error: see [`Summary::incomplete`].
    pub fn finish(self, out: &mut impl Write) -> Result<Summary> {
        self.lexer.finish(out)
    }
}
