//! The statement that is being read.

use super::names::{word, Token};

/// Tokens of one statement that are kept.
const MAX_TOKENS: usize = 64;
/// The first words of statements of interest, and those of CREATE.
const OF_INTEREST: [&str; 9] = [
    "create", "copy", "select", "alter", "grant", "revoke", "set", "drop", "reassign",
];
const CREATED: [&str; 6] = ["table", "unlogged", "extension", "policy", "schema", "user"];

/// Its first tokens, and what must be known to see its end.
#[derive(Default)]
pub(super) struct Statement {
    /// The first tokens outside parentheses (in a SELECT also those in one pair), while they are of interest.
    pub(super) tokens: Vec<Token>,
    /// No more tokens are of interest.
    pub(super) understood: bool,
    /// Nothing but white space and comments so far if not set.
    pub(super) begun: bool,
    pub(super) line: u64,
    pub(super) parens: u64,
    /// The last word was BEGIN: an ATOMIC may follow.
    after_begin: bool,
    /// BEGIN ATOMIC and CASE that wait for their END, in the body of a function.
    pub(super) begins: u64,
}

impl Statement {
    /// A `;` within `BEGIN ATOMIC ... END` does not end the statement.
    pub(super) fn count_word(&mut self, word: &[u8]) {
        match word {
            b"atomic" if self.after_begin => self.begins += 1,
            b"case" if self.begins > 0 => self.begins += 1,
            b"end" => self.begins = self.begins.saturating_sub(1),
            _ => {}
        }
        self.after_begin = word == b"begin";
    }

    /// Whether the next token is to be kept.
    pub(super) fn wants(&self) -> bool {
        !self.understood && self.parens <= u64::from(word(&self.tokens, 0) == "select")
    }

    pub(super) fn push(&mut self, token: Token) {
        self.tokens.push(token);
        let of_interest = match self.tokens.len() {
            1 => OF_INTEREST.contains(&word(&self.tokens, 0)),
            2 if word(&self.tokens, 0) == "create" => CREATED.contains(&word(&self.tokens, 1)),
            count => count < MAX_TOKENS,
        };
        self.understood = !of_interest;
    }
}
