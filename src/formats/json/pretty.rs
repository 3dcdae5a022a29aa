//! JSON text for people and for `git diff`, as `JSON.stringify(value, null, 2)` writes it.
//!
//! The text is passed on as it is read, without a tree: a number keeps its digits, a member its place, and half of a
//! character its escape, which no Rust string could hold.

use std::fmt::Write;

use anyhow::{ensure, Context, Result};

use super::{code_unit, is_high, is_low, is_number, short_escape, MAX_DEPTH};

/// Writes the JSON `text` to `out`, indented by two blanks for each of `depth` levels around it.
pub fn reformat(text: &str, depth: usize, out: &mut String) -> Result<()> {
    let mut writer = Writer { rest: text, out };
    writer.value(depth, 0)?;
    writer.skip_blanks();
    ensure!(writer.rest.is_empty(), "text after the value");
    Ok(())
}

/// Writes `text` to `out` as a JSON string.
pub fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        out.push_str(&rest[..at]);
        character(rest[at..].chars().next().unwrap_or_default(), out);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Starts a line.
fn line(depth: usize, out: &mut String) {
    out.push('\n');
    const BLANKS: &str = "                                                                ";
    match BLANKS.get(..2 * depth) {
        Some(blanks) => out.push_str(blanks),
        None => (0..depth).for_each(|_| out.push_str("  ")),
    }
}

fn character(c: char, out: &mut String) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
        c => out.push(c),
    }
}

/// Where a string ends, an escape begins, or a control character stands.
fn find_special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let mut words = text.chunks_exact(8);
    for (at, word) in words.by_ref().enumerate() {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        // The high bit of the first byte that is below `least` is set, and of none before it.
        let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word & HIGH;
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = below(word, 0x20) | is(b'"') | is(b'\\');
        if found != 0 {
            return Some(8 * at + found.trailing_zeros() as usize / 8);
        }
    }
    let rest = words.remainder();
    let at = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..b' '))?;
    Some(text.len() - rest.len() + at)
}

struct Writer<'a, 'b> {
    rest: &'a str,
    out: &'b mut String,
}

impl Writer<'_, '_> {
    fn skip_blanks(&mut self) {
        let blanks = self
            .rest
            .bytes()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        self.rest = &self.rest[blanks.count()..];
    }

    /// Passes over blanks, then over `wanted` when it stands there.
    fn take(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: usize, nested: usize) -> Result<()> {
        ensure!(nested < MAX_DEPTH, "nested more than {MAX_DEPTH} times");
        for (open, close) in [('{', '}'), ('[', ']')] {
            if self.take(open) {
                return self.members(open, close, depth, nested);
            }
        }
        if self.rest.starts_with('"') {
            return self.string();
        }
        let mut bytes = self.rest.bytes();
        let end = bytes.position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        ensure!(matches!(word, "null" | "true" | "false") || is_number(word), "no value");
        self.out.push_str(word);
        self.rest = rest;
        Ok(())
    }

    fn members(&mut self, open: char, close: char, depth: usize, nested: usize) -> Result<()> {
        self.out.push(open);
        let mut first = true;
        while !self.take(close) {
            if !std::mem::take(&mut first) {
                ensure!(self.take(','), "no comma between values");
                self.out.push(',');
            }
            line(depth + 1, self.out);
            if open == '{' {
                self.skip_blanks();
                self.string()?;
                ensure!(self.take(':'), "no colon after a name");
                self.out.push_str(": ");
            }
            self.value(depth + 1, nested + 1)?;
        }
        if !first {
            line(depth, self.out);
        }
        self.out.push(close);
        Ok(())
    }

    fn string(&mut self) -> Result<()> {
        let mut rest = self.rest.strip_prefix('"').context("no string")?;
        self.out.push('"');
        loop {
            let end = find_special(rest.as_bytes()).context("a string without an end")?;
            self.out.push_str(&rest[..end]);
            let special = rest.as_bytes()[end];
            rest = &rest[end + 1..];
            match special {
                b'"' => break,
                b'\\' => rest = self.escape(rest)?,
                _ => anyhow::bail!("a control character"),
            }
        }
        self.out.push('"');
        self.rest = rest;
        Ok(())
    }

    /// Reads what follows a backslash; gives the text behind it.
    fn escape<'a>(&mut self, rest: &'a str) -> Result<&'a str> {
        let c = rest.chars().next().context("a cut escape")?;
        let rest = &rest[c.len_utf8()..];
        let plain = match c {
            'u' => {
                let (unit, rest) = code_unit(rest)?;
                let pair = rest.strip_prefix("\\u").map(code_unit).transpose()?;
                if let Some((low, behind)) = pair.filter(|(low, _)| is_high(unit) && is_low(*low)) {
                    self.out.push_str(&String::from_utf16_lossy(&[unit, low]));
                    return Ok(behind);
                }
                match char::from_u32(u32::from(unit)) {
                    Some(c) => character(c, self.out),
                    None => drop(write!(self.out, "\\u{unit:04x}")),
                }
                return Ok(rest);
            }
            c => short_escape(c).context("a wrong escape")?,
        };
        character(plain, self.out);
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pretty(text: &str) -> Result<String> {
        let mut out = String::new();
        reformat(text, 0, &mut out).map(|()| out)
    }

    #[test]
    fn text_is_written_as_javascript_indents_it() {
        let text =
            r#" {"n":[-1.50e+3,0 ,[] ],"e":{},"u":"\/\u00e9\ud83d\ude00\u0001\b\"\\","h":"\ud83d\u0041\uDC00"} "#;
        let wanted = "{\n  \"n\": [\n    -1.50e+3,\n    0,\n    []\n  ],\n  \"e\": {},\n  \
                      \"u\": \"/\u{e9}\u{1f600}\\u0001\\b\\\"\\\\\",\n  \"h\": \"\\ud83dA\\udc00\"\n}";
        assert_eq!(pretty(text).unwrap(), wanted);
        assert_eq!(pretty(wanted).unwrap(), wanted);
        let mut out = String::new();
        string("a\"\\\n\u{1}\u{e4}", &mut out);
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0001\u{e4}\"");
    }

    #[test]
    fn what_is_special_is_found_wherever_it_stands() {
        for special in [b'"', b'\\', 0, b'\n', 0x1f] {
            for at in 0..20 {
                let mut text = "a \u{7f}\u{e4}\u{2028}!#[]0~\u{1f600}bcdefgh".as_bytes().to_vec();
                assert_eq!(find_special(&text), None);
                text[at] = special;
                assert_eq!(find_special(&text), Some(at), "{special} at {at}");
            }
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "[1,]",
            "[1 2]",
            "{\"a\" 1}",
            "{,}",
            "01",
            "\"a",
            "\"\\q\"",
            "\"a\nb\"",
            "[1] 2",
            "{1:2}",
        ] {
            assert!(pretty(text).is_err(), "{text}");
        }
        assert!(pretty(&"[".repeat(100_000)).is_err());
    }
}
