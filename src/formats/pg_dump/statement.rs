//! The statement that is being read.

use super::names::Token;

/// Tokens of one statement that are kept.
const MAX_TOKENS: usize = 64;

/// Its first tokens, and what must be known to see its end.
#[derive(Default)]
pub(super) struct Statement {
    /// The first tokens outside parentheses (in a SELECT also those in one pair), while they are of interest.
    pub(super) tokens: Vec<Token>,
    /// Nothing but white space and comments so far if not set.
    pub(super) begun: bool,
    /// More tokens are of interest.
    pub(super) collect: bool,
    pub(super) is_select: bool,
    pub(super) is_insert: bool,
    pub(super) line: u64,
    pub(super) parens: u64,
    /// Words so far, up to 4, and what the first of them are: the first letters of CREATE OR REPLACE FUNCTION.
    words: usize,
    initials: [u8; 4],
    /// BEGIN and CASE that wait for their END, in the body of a function.
    pub(super) begins: u64,
}

impl Statement {
    pub(super) fn new() -> Self {
        Self {
            collect: true,
            ..Self::default()
        }
    }

    /// psql counts BEGIN and END only in a statement that begins with CREATE [OR REPLACE] FUNCTION or PROCEDURE.
    pub(super) fn count_word(&mut self, word: &[u8]) {
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

    pub(super) fn push(&mut self, token: Token) {
        if self.tokens.len() == MAX_TOKENS {
            self.collect = false;
            return;
        }
        self.tokens.push(token);
        match self.tokens.as_slice() {
            [Token::Word(first)] => {
                self.is_select = first == "select";
                self.is_insert = first == "insert";
                self.collect = [
                    "create", "copy", "select", "alter", "grant", "revoke", "set", "drop", "reassign",
                ]
                .contains(&first.as_str());
            }
            [Token::Word(first), Token::Word(second)] if first == "create" => {
                self.collect =
                    ["table", "unlogged", "extension", "policy", "schema", "user"].contains(&second.as_str());
            }
            [_] => self.collect = false,
            _ => {}
        }
    }
}
