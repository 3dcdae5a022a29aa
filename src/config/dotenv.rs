//! Reads a `.env` file as data: nothing in it is ever executed.
//!
//! The format is the one that Docker Compose reads (package `dotenv` of compose-go, and "Syntax for
//! environment files in Docker Compose" in Docker's documentation), because the same file
//! configures the running stack. The usual forms give what a shell's `source .env` gave. Where the
//! two differ, Compose is followed:
//!
//! - Blanks around `=` are allowed, `KEY: value` is read, and an unquoted value runs to the end of
//!   the line.
//! - Only a `#` after a space ends an unquoted value, so that `KEY=a#b` and even `KEY= # x` have
//!   values with a `#`.
//! - Quotes count only at the start of a value: `KEY=a"b"` keeps them. A backslash is an escape
//!   only within quotes; before a quote of the enclosing kind it is one in single quotes, too.
//! - `$$` is a literal dollar sign (in a shell it is the process id); `$(command)` and backquotes
//!   are plain text.
//! - Within quotes, line ends stay as they are, CRLF included.
//!
//! This module differs from Compose, on purpose, where Compose guesses or where the environment
//! must not win:
//!
//! - A variable that the file has defined hides the process environment, as with `source`; Compose
//!   prefers the latter.
//! - Text after a closing quote is an error; Compose reads it as a further statement.
//! - A key without a name is an error, and a `KEY` alone on a last line without a line end is read
//!   like any other.
//!
//! Bytes that are not UTF-8 (a comment in Latin-1, say) are let pass, as by both, but in the values
//! that the caller names.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;

use anyhow::{bail, Result};

/// Nesting of `${A:-${B:-...}}` beyond which a value is refused, so that a broken file cannot
/// exhaust the stack.
const MAX_NESTING: usize = 32;

/// What a byte that is not UTF-8 is read as: a character of its own of a private plane, so that values
/// which differ stay different. No such byte is below 0x80.
const FOREIGN: u32 = 0x10_ff00;

/// Stands for a value that cannot be read. No setting takes it.
const UNREADABLE: &str = "\0";

/// Parses `text`, the bytes of the file at `path`, which is used in messages only.
///
/// `is_read` names the variables whose values the caller uses; a byte that is not UTF-8 is an error there, also one
/// that came by interpolation, and stands for itself in other values. `outer` looks up the process environment: for
/// `$VAR` that the file has not defined before, and for a `KEY` without a value. Gives the variables of the file; of
/// duplicated keys the last wins. A `KEY` without a value that the environment does not have either is left out.
///
/// # Errors
///
/// One line that names the file, the line (from 1; for a value over several lines the one where it
/// starts), what is wrong and what to do. It never shows a value, which may be a secret; only the
/// text of `${VAR:?text}` is shown, as it is meant to be.
pub fn parse(
    path: &Path,
    text: &[u8],
    is_read: &dyn Fn(&str) -> bool,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>> {
    parse_noting(path, text, is_read, outer).map(|(vars, _)| vars)
}

/// As [`parse`], with the names of the variables that have another value than what is written there: a `$` was
/// replaced, or the text cut at a ` #` that begins no word of its own. A value that is one
/// reference, to what has a value or with a default, is meant so.
pub fn parse_noting(
    path: &Path,
    text: &[u8],
    is_read: &dyn Fn(&str) -> bool,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<(BTreeMap<String, String>, BTreeSet<String>)> {
    check_bytes(path, text)?;
    let text = decode(text);
    let mut parser = Parser::new(path, &text, is_read, outer);
    while parser.skip_to_statement() {
        parser.statement()?;
    }
    Ok((parser.vars, parser.rewritten))
}

/// What a file holds beside that for which [`parse`] refuses it: of a statement that cannot be read, its first line is
/// passed over, and its variable is [`UNREADABLE`], so that what refers to it is no value either.
pub fn parse_what_can_be(
    path: &Path,
    text: &[u8],
    is_read: &dyn Fn(&str) -> bool,
    outer: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let text = decode(text);
    let mut parser = Parser::new(path, &text, is_read, outer);
    while parser.skip_to_statement() {
        let begin = parser.rest;
        if parser.statement().is_err() {
            parser.vars.insert(parser.key.to_owned(), UNREADABLE.to_owned());
            parser.rest = begin;
            parser.take_while(|c| c != '\n');
        }
    }
    parser.vars
}

fn fail<T>(path: &Path, line: usize, problem: impl Display) -> Result<T> {
    bail!("{}, line {line}: {problem}", path.display())
}

/// Refuses UTF-16 and NUL bytes.
fn check_bytes(path: &Path, text: &[u8]) -> Result<()> {
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return fail(path, 1, "the text is not UTF-8; save the file as UTF-8");
    }
    if let Some(offset) = text.iter().position(|byte| *byte == 0) {
        let line = 1 + text[..offset].iter().filter(|byte| **byte == b'\n').count();
        return fail(path, line, "there is a NUL byte; remove it or save the file as UTF-8");
    }
    Ok(())
}

/// The bytes as text.
fn decode(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(text) {
        return text.into();
    }
    let mut decoded = String::with_capacity(text.len() + text.len() / 8);
    for chunk in text.utf8_chunks() {
        decoded.push_str(chunk.valid());
        let foreign = chunk.invalid().iter();
        decoded.extend(foreign.filter_map(|byte| char::from_u32(FOREIGN + u32::from(*byte))));
    }
    decoded.into()
}

/// Whether a byte that is not UTF-8 is read as this character.
fn is_foreign(c: char) -> bool {
    u32::from(c) >= FOREIGN + 0x80
}

/// A cursor over the text: `rest` is what is still to be read, `line` the number of the line where
/// it begins.
struct Parser<'a> {
    path: &'a Path,
    rest: &'a str,
    line: usize,
    /// The variable of the last statement.
    key: &'a str,
    is_read: &'a dyn Fn(&str) -> bool,
    outer: &'a dyn Fn(&str) -> Option<String>,
    vars: BTreeMap<String, String>,
    /// Those of them that have another value than what is written there.
    rewritten: BTreeSet<String>,
}

impl<'a> Parser<'a> {
    fn new(
        path: &'a Path,
        text: &'a str,
        is_read: &'a dyn Fn(&str) -> bool,
        outer: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            path,
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
            line: 1,
            key: "",
            is_read,
            outer,
            vars: BTreeMap::new(),
            rewritten: BTreeSet::new(),
        }
    }

    fn fail<T>(&self, line: usize, problem: impl Display) -> Result<T> {
        fail(self.path, line, problem)
    }

    /// Moves over the first `bytes` of the rest, which it gives.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Moves over the leading characters that satisfy `belongs`, which it gives.
    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c));
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// Moves over blank and comment lines; false at the end of the text.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest.starts_with('#') {
                return !self.rest.is_empty();
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// Reads `KEY=value`, `KEY: value` or `KEY` alone, each with or without `export`, to the end of
    /// its last line.
    fn statement(&mut self) -> Result<()> {
        if let Some(after) = self.rest.strip_prefix("export") {
            if after.starts_with(is_blank) {
                self.take("export".len());
                self.take_while(is_blank);
            }
        }
        let line = self.line;
        let key = self.take_while(is_key_char);
        self.key = key;
        self.take_while(is_blank);
        let separator = self.rest.chars().next();
        // The text is not shown: a line that is no assignment may be a stray part of a secret.
        if key.is_empty() {
            return self.fail(
                line,
                "a variable name is expected; write KEY=value, or # before a comment",
            );
        }
        match separator {
            Some('=' | ':') => {
                self.take(1);
                self.take_while(is_blank);
                let start = self.line;
                let (value, rewritten) = self.value(key)?;
                if (self.is_read)(key) && value.contains(is_foreign) {
                    return self.fail(
                        start,
                        format_args!(
                            "the value of {} is not UTF-8; save the file as UTF-8",
                            key.escape_default()
                        ),
                    );
                }
                self.vars.insert(key.to_string(), value);
                match rewritten {
                    true => self.rewritten.insert(key.to_string()),
                    false => self.rewritten.remove(key),
                };
            }
            None | Some('\n') => {
                if let Some(value) = self.lookup(key) {
                    self.vars.insert(key.to_string(), value);
                }
            }
            Some(_) => {
                return self.fail(
                    line,
                    "the variable name is invalid or = is missing; write KEY=value, with letters, digits and _ in KEY",
                )
            }
        }
        Ok(())
    }

    /// Reads the value of `key`, to the end of its last line, and tells whether it is another than what is written
    /// there.
    fn value(&mut self, key: &str) -> Result<(String, bool)> {
        let line = self.line;
        let scope = Scope {
            parser: self,
            key,
            line,
        };
        match scope.parser.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let Some((inner, length)) = quoted(scope.parser.rest, quote) else {
                    return scope.fail(format_args!(
                        "the quote {quote} is not closed; close it, or write \\{quote} for a quote within the value"
                    ));
                };
                let (value, rewritten) = if quote == '"' {
                    let value = scope.interpolate(&scope.unescape(&inner)?, 0)?;
                    // An escaped dollar sign is meant as one.
                    let bare = inner.replace(r"\\", "-").replace(r"\$", "-");
                    let rewritten = scope.is_rewritten(&bare, &value) || value.contains(char::is_control);
                    (value, rewritten)
                } else {
                    (inner, false)
                };
                self.take(length);
                self.take_while(is_blank);
                match self.rest.chars().next() {
                    None | Some('\n') => {}
                    Some('#') => {
                        self.take_while(|c| c != '\n');
                    }
                    Some(_) => {
                        return self.fail(
                            self.line,
                            format_args!(
                            "there is text after the closing quote of {}; remove it, or write \\{quote} for a quote \
                                 within the value",
                            key.escape_default()
                        ),
                        )
                    }
                }
                Ok((value, rewritten))
            }
            _ => {
                let text = scope.parser.rest.split('\n').next().unwrap_or_default();
                let written = text.split(" #").next().unwrap_or_default().trim_end();
                let value = scope.interpolate(written, 0)?;
                // As a comment is written, it is one.
                let cut = text
                    .split_once(" #")
                    .is_some_and(|(_, rest)| !rest.starts_with([' ', '\t']));
                let rewritten = cut || scope.is_rewritten(written, &value);
                self.take(text.len());
                Ok((value, rewritten))
            }
        }
    }

    /// The value of a variable at this point of the file.
    fn lookup(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned().or_else(|| (self.outer)(name))
    }
}

/// The value that is being read: what its interpolation may refer to, and where its errors are.
struct Scope<'p, 'a> {
    parser: &'p Parser<'a>,
    key: &'p str,
    line: usize,
}

impl Scope<'_, '_> {
    fn fail<T>(&self, problem: impl Display) -> Result<T> {
        let key = self.key.escape_default();
        self.parser
            .fail(self.line, format_args!("in the value of {key}: {problem}"))
    }

    /// Replaces the escape sequences of a double-quoted value. `\$` becomes `$$`, which
    /// interpolation reads as a literal dollar sign; a backslash before any other character stays.
    fn unescape(&self, text: &str) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('\\') {
            out.push_str(before);
            let mut chars = after.chars();
            match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('a') => out.push('\x07'),
                Some('b') => out.push('\x08'),
                Some('f') => out.push('\x0c'),
                Some('v') => out.push('\x0b'),
                Some('$') => out.push_str("$$"),
                Some(c @ ('"' | '\\')) => out.push(c),
                Some('0') => match octal(chars.as_str()) {
                    Some('\0') => return self.fail("\\0000 is a NUL byte, which no variable can hold; remove it"),
                    Some(c) => {
                        out.push(c);
                        chars.nth(2);
                    }
                    None => out.push_str("\\0"),
                },
                Some(c) => out.extend(['\\', c]),
                None => out.push('\\'),
            }
            rest = chars.as_str();
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Whether [`Self::interpolate`] has made another `value` of the text, which was not meant by a single reference.
    fn is_rewritten(&self, text: &str, value: &str) -> bool {
        // Who writes two knows that they are one.
        let text = &text.replace("$$", "-");
        let replaced = |after: &str| after.starts_with(|c: char| c.is_ascii_alphabetic() || "_{".contains(c));
        // With a default, it may be meant to be empty.
        let default = |operation: &str| {
            let word = operation.strip_prefix(':').unwrap_or(operation).strip_prefix('-');
            word.is_some_and(|word| !self.is_rewritten(word, value))
        };
        let meant = |(name, operation): (&str, &str)| {
            (!value.is_empty() || default(operation)) && !self.parser.rewritten.contains(name)
        };
        text.match_indices('$').any(|(at, _)| replaced(&text[at + 1..])) && !sole_reference(text).is_some_and(meant)
    }

    /// Replaces `$$`, `$VAR` and `${...}`; a `$` before anything else is plain text.
    fn interpolate(&self, text: &str, depth: usize) -> Result<String> {
        if depth > MAX_NESTING {
            return self.fail("${ is nested too deeply; simplify the value");
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if after.starts_with('{') {
                let Some(end) = closing_brace(after) else {
                    return self.fail("${ is not closed; add the }, or write $${ for plain text");
                };
                out.push_str(&self.expand(&after[1..end], depth)?);
                rest = &after[end + 1..];
            } else {
                let (name, after) = split_name(after);
                if name.is_empty() {
                    out.push('$');
                } else {
                    // An unset variable is an empty text, in Compose as in a shell.
                    out.push_str(&self.parser.lookup(name).unwrap_or_default());
                }
                rest = after;
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What `${body}` stands for.
    fn expand(&self, body: &str, depth: usize) -> Result<String> {
        let (name, operation) = split_name(body);
        let value = self.parser.lookup(name);
        // With a colon, an empty variable counts as an unset one.
        let (present, operation) = match operation.strip_prefix(':') {
            Some(operation) => (value.as_ref().is_some_and(|v| !v.is_empty()), operation),
            None => (value.is_some(), operation),
        };
        let value = value.unwrap_or_default();
        let mut chars = operation.chars();
        match chars.next() {
            None if !name.is_empty() && body == name => Ok(value),
            // The word is read even where it is not used, so that a mistake in it does not wait for
            // a bad day.
            Some('-') if !name.is_empty() => {
                let word = self.interpolate(chars.as_str(), depth + 1)?;
                Ok(if present { value } else { word })
            }
            Some('+') if !name.is_empty() => {
                let word = self.interpolate(chars.as_str(), depth + 1)?;
                Ok(if present { word } else { String::new() })
            }
            Some('?') if !name.is_empty() => {
                if present {
                    return Ok(value);
                }
                let message = match chars.as_str() {
                    "" => String::new(),
                    message => format!(" ({})", message.escape_default()),
                };
                self.fail(format_args!(
                    "the required variable {name} has no value{message}; set it above this line or in the environment"
                ))
            }
            _ => self.fail(
                "${ is not followed by a name and one of } - :- + :+ ? :?; correct it, or write $${ for plain text",
            ),
        }
    }
}

/// The text within the quotes at the start of `text`, with `\` removed before quotes of that kind,
/// and the length in bytes of the whole with both quotes; none when the closing quote is missing.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((inner, at + 1));
        }
        if c != '\\' {
            inner.push(c);
            continue;
        }
        let (_, escaped) = chars.next()?;
        if escaped != quote {
            inner.push('\\');
        }
        inner.push(escaped);
    }
    None
}

/// The character up to U+00FF whose code is the three octal digits at the start of `text`.
fn octal(text: &str) -> Option<char> {
    let digits = text.get(..3)?;
    if !digits.starts_with(|c: char| c.is_digit(8)) {
        return None; // a sign, which the conversion would take
    }
    u8::from_str_radix(digits, 8).ok().map(char::from)
}

/// Offset of the brace that closes the one at the start of `text`; braces within count in pairs.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 1 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// The variable of a text that is one `$VAR` or `${...}` and nothing else, and what follows the name within the braces.
fn sole_reference(text: &str) -> Option<(&str, &str)> {
    let after = text.strip_prefix('$')?;
    let (name, operation) = match after.strip_prefix('{') {
        Some(body) if closing_brace(after) == Some(after.len() - 1) => split_name(&body[..body.len() - 1]),
        _ => (after, ""),
    };
    (!name.is_empty() && split_name(name).1.is_empty()).then_some((name, operation))
}

/// Splits off the variable name, which may be empty, at the start of `text`.
fn split_name(text: &str) -> (&str, &str) {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return ("", text);
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    text.split_at(end.unwrap_or(text.len()))
}

/// Blanks within a line, as Compose has them; a carriage return is one, so that CRLF ends a line
/// like LF.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c' | '\u{85}' | '\u{a0}')
}

/// Characters that Compose takes in a key; a shell takes fewer.
fn is_key_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')
}

#[cfg(test)]
mod tests;
