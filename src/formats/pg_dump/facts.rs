//! What statements tell: tables, sequences, roles, settings; and the end of a dump.

use anyhow::Result;

use super::lexer::{Lexer, State, EDGE};
use super::names::{
    bounded, copied_table, describes_database, name, outside, parse_qualified, qualified_name, word, Token,
    MAX_OBJECTS, MAX_OTHERS,
};

impl Lexer {
    pub(super) fn end_statement(&mut self) {
        self.state = State::Sql;
        self.trailer = None;
        let statement = std::mem::take(&mut self.statement);
        let tokens = &statement.tokens;
        match word(tokens, 0) {
            "insert" => self.summary.inserts += 1,
            "copy" => match copied_table(tokens) {
                Some(table) => {
                    self.copy = table;
                    self.columns = statement.columns.unwrap_or_default();
                    self.copy_line = statement.line;
                    self.state = State::CopyTail;
                }
                None => self.acts_outside(statement.line),
            },
            "create" => {
                self.create(tokens);
                let table = self.summary.tables.last();
                if let (Some(columns), Some(table), "table" | "unlogged") = (statement.columns, table, word(tokens, 1))
                {
                    bounded(&mut self.created, (table.clone(), columns), MAX_OBJECTS);
                }
            }
            "select" => self.select(tokens),
            "alter" => self.alter(tokens),
            "drop" => self.drop_statement(tokens, statement.line),
            "grant" => self.add_roles_after(tokens, "to"),
            "revoke" => self.add_roles_after(tokens, "from"),
            "set" => self.set(tokens),
            _ => {}
        }
        if outside(tokens) && !(self.is_before_11() && describes_database(tokens)) {
            self.acts_outside(statement.line);
        }
    }

    /// Whether a pg_dump before version 11 made the dump.
    fn is_before_11(&self) -> bool {
        let version = self.summary.dump_version.as_deref().unwrap_or_default();
        let major = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        major.parse::<u32>().is_ok_and(|major| major < 11)
    }

    fn acts_outside(&mut self, line: u64) {
        self.summary.outside.get_or_insert(line);
    }

    fn create(&mut self, tokens: &[Token]) {
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
                    bounded(&mut self.summary.tables, table, MAX_OBJECTS);
                }
            }
            ("extension", _) => {
                if let Some(name) = name(tokens, after_exists(2)) {
                    bounded(&mut self.summary.extensions, name.to_owned(), MAX_OTHERS);
                }
            }
            ("event", "trigger") => {
                if let Some(name) = name(tokens, 3) {
                    bounded(&mut self.summary.event_triggers, name.to_owned(), MAX_OTHERS);
                }
            }
            ("database", _) => self.summary.creates_database = true,
            ("policy", _) => self.add_roles_after(tokens, "to"),
            ("schema", _) => self.add_roles_after(tokens, "authorization"),
            ("user", "mapping") => self.add_roles_after(tokens, "for"),
            _ => {}
        }
    }

    /// `SELECT pg_catalog.setval('SEQUENCE', VALUE, CALLED)`.
    fn select(&mut self, tokens: &[Token]) {
        let at = if word(tokens, 1) == "pg_catalog" { 3 } else { 1 };
        let Some([Token::Str(sequence), Token::Punct(b','), rest @ ..]) = tokens.get(at + 2..) else {
            return;
        };
        let (sign, rest) = match rest {
            [Token::Punct(b'-'), rest @ ..] => ("-", rest),
            _ => ("", rest),
        };
        let [Token::Word(value), Token::Punct(b','), Token::Word(called), ..] = rest else {
            return;
        };
        let value = format!("{sign}{value}").parse();
        if let ("setval", Some(sequence), Ok(value)) = (word(tokens, at), parse_qualified(sequence), value) {
            let state = (sequence, value, called == "true");
            bounded(&mut self.summary.sequences, state, MAX_OBJECTS);
        }
    }

    fn alter(&mut self, tokens: &[Token]) {
        if (word(tokens, 1), word(tokens, 2)) == ("default", "privileges") {
            let begin = (3..tokens.len()).find(|&at| ["grant", "revoke"].contains(&word(tokens, at)));
            let (head, tail) = tokens.split_at(begin.unwrap_or(tokens.len()));
            if word(head, 3) == "for" {
                self.add_roles(head, 5);
            }
            let preposition = if word(tail, 0) == "grant" { "to" } else { "from" };
            self.add_roles_after(tail, preposition);
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

    /// `SET name = value`, or `SET SESSION AUTHORIZATION role`.
    fn set(&mut self, tokens: &[Token]) {
        let value = match tokens.get(3) {
            Some(Token::Word(value) | Token::Ident(value) | Token::Str(value)) => value.to_ascii_lowercase(),
            _ => String::new(),
        };
        match (word(tokens, 1), word(tokens, 2)) {
            ("session", "authorization") => self.add_roles(tokens, 3),
            ("standard_conforming_strings", _) => {
                self.summary.standard_conforming_strings_off |= !["on", "true", "yes", "1"].contains(&value.as_str());
            }
            ("client_encoding", _) => {
                let plain = value.chars().filter(char::is_ascii_alphanumeric).collect();
                self.summary.client_encoding.get_or_insert(plain);
            }
            _ => {}
        }
    }

    /// Adds the roles after the first such word.
    fn add_roles_after(&mut self, tokens: &[Token], preposition: &str) {
        if let Some(at) = (0..tokens.len()).find(|&at| word(tokens, at) == preposition) {
            self.add_roles(tokens, at + 1);
        }
    }

    /// Adds a list of roles that are separated by commas.
    fn add_roles(&mut self, tokens: &[Token], start: usize) {
        const KEYWORDS: [&str; 4] = ["public", "current_user", "current_role", "session_user"];
        for at in (start..tokens.len()).step_by(2) {
            let role = match &tokens[at] {
                Token::Word(role) if !KEYWORDS.contains(&role.as_str()) => Some(role),
                Token::Ident(role) | Token::Str(role) => Some(role),
                _ => None,
            };
            if let Some(role) = role.filter(|_| self.summary.roles.len() < MAX_OTHERS) {
                self.summary.roles.insert(role.clone());
            }
            if tokens.get(at + 1) != Some(&Token::Punct(b',')) {
                break;
            }
        }
    }

    /// Ends the dump.
    pub(super) fn end(&mut self) -> Result<()> {
        if self.state == State::Meta {
            self.end_meta()?;
            self.state = State::Sql;
        }
        self.summary.incomplete = self.why_incomplete();
        Ok(())
    }

    fn why_incomplete(&self) -> Option<String> {
        let ended = matches!(self.state, State::Sql | State::LineComment) && !self.statement.begun;
        let line = self.line();
        let inside = match self.state {
            State::CopyTail | State::CopyMark | State::CopyRow => Some(format!(
                "the COPY data of {} that begin after line {}",
                self.copy, self.copy_line
            )),
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
        } else if self.restrict_token.is_some() && !self.unrestricted {
            Some(format!(
                "the dump ends at line {line}, byte {bytes}, without the \\unrestrict line that belongs to its \
                 \\restrict line"
            ))
        } else {
            None
        }
    }
}
