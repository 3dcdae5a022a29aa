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
//! a line that is held back at most 2 KiB, and each list of the [`Summary`] has its own bound, which its field names.

mod bytes;
mod command;
mod copy;
mod facts;
mod filter;
mod lexer;
mod names;
mod rows;
mod statement;
mod summary;
#[cfg(test)]
mod tests;

use anyhow::Result;

pub use filter::{Filter, Strip};
use lexer::{Lexer, Stop};
pub use names::{Column, TableName};
pub use rows::{Rows, Sink};
pub use summary::Summary;

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
            lexer: Lexer::new(false),
        }
    }

    /// Reads the next bytes; where the stream is cut into chunks makes no difference.
    ///
    /// # Errors
    /// A NUL byte, a block comment, text after `COPY ... FROM stdin;` on its line, a dollar quote with an endless tag.
    /// Commands of psql are no error here, see [`Summary::command`].
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.lexer.refuse_nul(chunk, 0)?;
        self.lexer.read(chunk, Stop::End).map(drop)
    }

    /// Ends the dump. A dump that is cut off is no error: see [`Summary::incomplete`].
    pub fn finish(mut self) -> Result<Summary> {
        self.lexer.end()?;
        Ok(self.lexer.summary)
    }
}
