//! The statement that is being read.

use super::names::{name, word, Column, Token};

/// Tokens of one statement that are kept.
const MAX_TOKENS: usize = 64;
/// Columns of a table that are kept; PostgreSQL allows 1600.
const MAX_COLUMNS: usize = 2000;
/// The longest type of a column that is kept.
const MAX_TYPE: usize = 128;
/// The first words of statements of interest, and those of CREATE.
const OF_INTEREST: [&str; 11] = [
    "create", "copy", "select", "alter", "grant", "revoke", "set", "drop", "reassign", "comment", "security",
];
const CREATED: [&str; 7] = ["table", "unlogged", "extension", "event", "policy", "schema", "user"];

/// Its first tokens, and what must be known to see its end.
#[derive(Default)]
pub(super) struct Statement {
    /// The first tokens outside parentheses (in a SELECT also those in one pair), while they are of interest.
    pub(super) tokens: Vec<Token>,
    /// The columns of a COPY or CREATE TABLE, where they are collected.
    pub(super) columns: Option<Vec<Column>>,
    /// The next token begins a column.
    column_ends: bool,
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
        !self.understood && (self.parens <= u64::from(word(&self.tokens, 0) == "select") || self.in_columns())
    }

    /// Whether the next token belongs to a list of columns that is collected.
    fn in_columns(&self) -> bool {
        self.columns.is_some() && self.parens == 1 && matches!(word(&self.tokens, 0), "copy" | "create")
    }

    pub(super) fn push(&mut self, token: Token) {
        if self.in_columns() {
            return self.push_column(token);
        }
        self.tokens.push(token);
        let of_interest = match self.tokens.len() {
            1 => OF_INTEREST.contains(&word(&self.tokens, 0)),
            2 if word(&self.tokens, 0) == "create" => CREATED.contains(&word(&self.tokens, 1)),
            count => count < MAX_TOKENS,
        };
        self.understood = !of_interest;
    }

    /// Reads `name type ..., name type ...`. A constraint among them begins with a reserved word, which as a column's
    /// name would be quoted.
    fn push_column(&mut self, token: Token) {
        let Some(columns) = &mut self.columns else { return };
        if token == Token::Punct(b',') {
            self.column_ends = true;
        } else if std::mem::take(&mut self.column_ends) || columns.is_empty() {
            if columns.len() < MAX_COLUMNS {
                let constraint = token == Token::Word("constraint".to_owned());
                let name = name(&[token], 0).filter(|_| !constraint).unwrap_or_default().to_owned();
                let kind = String::new();
                columns.push(Column { name, kind });
            }
        } else if let (Some(column), Token::Word(word)) = (columns.last_mut(), token) {
            if column.kind.len() + word.len() < MAX_TYPE {
                column.kind.push_str(if column.kind.is_empty() { "" } else { " " });
                column.kind.push_str(&word);
            }
        }
    }
}
