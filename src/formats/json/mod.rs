//! JSON (RFC 8259): what other programs write is read, and what a command says to them is written.

mod pretty;

use std::fmt::{self, Display, Formatter, Write};

use anyhow::{bail, ensure, Context as _, Result};

pub use pretty::{reformat, string};

/// How deep lists and objects may stand in each other; n8n's do so less than ten times.
const MAX_DEPTH: usize = 500;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// Nothing known.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, as it is written: no digit is lost by reading and writing it.
    Number(String),
    /// A text.
    Text(String),
    /// Values in a row.
    List(Vec<Json>),
    /// Values by name, in the order given.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A text, or null when there is none.
    pub fn maybe(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Null, Self::text)
    }

    /// A whole number.
    pub fn number(number: impl Display) -> Self {
        Self::Number(number.to_string())
    }

    /// An object.
    pub fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    /// Reads a text that holds one value. A name that stands twice in an object counts by its last value, as in
    /// JavaScript. The error shows nothing of the text, which may be secret.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text, false)
    }

    /// As [`Json::parse`], with U+FFFD for each half of a character, which JavaScript allows in its strings.
    pub fn parse_lossy(text: &str) -> Result<Self> {
        Self::read(text, true)
    }

    fn read(text: &str, lossy: bool) -> Result<Self> {
        let mut reader = Reader { rest: text, lossy };
        let value = reader.value(0)?;
        reader.skip_blanks();
        ensure!(reader.rest.is_empty(), "text after the value");
        Ok(value)
    }

    /// The member `name` of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, of a text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The values of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }

    /// The members of an object; none of anything else.
    pub fn fields(&self) -> &[(String, Self)] {
        match self {
            Self::Object(fields) => fields,
            _ => &[],
        }
    }
}

impl Display for Json {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => f.write_str(value),
            Self::Text(text) => quoted(f, text),
            Self::List(values) => {
                f.write_char('[')?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_char(']')
            }
            Self::Object(fields) => {
                f.write_char('{')?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    quoted(f, name)?;
                    write!(f, ": {value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

/// A text in quotes, in ASCII: all else as `\u` escapes of UTF-16.
fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            ' '..='~' => f.write_char(c)?,
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(f, "\\u{unit:04x}")?;
                }
            }
        }
    }
    f.write_char('"')
}

/// The text that is still to be read.
struct Reader<'a> {
    rest: &'a str,
    /// Half of a character is U+FFFD.
    lossy: bool,
}

impl Reader<'_> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    /// Passes over blanks, then over `wanted` when it stands there.
    fn take(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Result<Json> {
        ensure!(depth < MAX_DEPTH, "nested more than {MAX_DEPTH} times");
        if self.take('{') {
            return self.object(depth);
        }
        if self.take('[') {
            let mut values = Vec::new();
            while !self.take(']') {
                ensure!(values.is_empty() || self.take(','), "no comma between values");
                values.push(self.value(depth + 1)?);
            }
            return Ok(Json::List(values));
        }
        if self.rest.starts_with('"') {
            return self.string().map(Json::Text);
        }
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match word {
            "null" => Ok(Json::Null),
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            _ if is_number(word) => Ok(Json::Number(word.to_owned())),
            _ => bail!("no value"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json> {
        let mut fields: Vec<(String, Json)> = Vec::new();
        while !self.take('}') {
            ensure!(fields.is_empty() || self.take(','), "no comma between members");
            self.skip_blanks();
            let name = self.string()?;
            ensure!(self.take(':'), "no colon after a name");
            let value = self.value(depth + 1)?;
            fields.push((name, value));
        }
        // Rare, so that it is looked for once and not at each name.
        let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            let mut single: Vec<(String, Json)> = Vec::new();
            for (name, value) in fields {
                match single.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = value,
                    None => single.push((name, value)),
                }
            }
            fields = single;
        }
        Ok(Json::Object(fields))
    }

    fn string(&mut self) -> Result<String> {
        let mut rest = self.rest.strip_prefix('"').context("no string")?;
        let mut text = String::new();
        loop {
            let end = rest
                .find(|c: char| c == '"' || c == '\\' || c < ' ')
                .context("a string without an end")?;
            text.push_str(&rest[..end]);
            let special = rest.as_bytes()[end];
            rest = &rest[end + 1..];
            match special {
                b'"' => {
                    self.rest = rest;
                    return Ok(text);
                }
                b'\\' => rest = escape(rest, &mut text, self.lossy)?,
                _ => bail!("a control character"),
            }
        }
    }
}

/// Reads what follows a backslash; gives the text behind it.
fn escape<'a>(rest: &'a str, text: &mut String, lossy: bool) -> Result<&'a str> {
    let c = rest.chars().next().context("a cut escape")?;
    let rest = &rest[c.len_utf8()..];
    text.push(match c {
        'u' => {
            let (unit, rest) = code_unit(rest)?;
            let pair = rest.strip_prefix("\\u").map(code_unit).transpose()?;
            let (units, behind) = match pair {
                Some((low, behind)) if is_high(unit) && (!lossy || is_low(low)) => (vec![unit, low], behind),
                _ => (vec![unit], rest),
            };
            match lossy {
                true => text.push_str(&String::from_utf16_lossy(&units)),
                false => text.push_str(&String::from_utf16(&units).context("half of a character")?),
            }
            return Ok(behind);
        }
        c => short_escape(c).context("a wrong escape")?,
    });
    Ok(rest)
}

/// What an escape of one letter stands for.
fn short_escape(c: char) -> Option<char> {
    Some(match c {
        '"' | '\\' | '/' => c,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        _ => return None,
    })
}

/// Reads the four digits of a `\u` escape.
fn code_unit(rest: &str) -> Result<(u16, &str)> {
    let digits = rest.get(..4).context("a cut escape")?;
    ensure!(digits.bytes().all(|b| b.is_ascii_hexdigit()), "a wrong escape");
    Ok((u16::from_str_radix(digits, 16)?, &rest[4..]))
}

fn is_high(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

fn is_low(unit: u16) -> bool {
    (0xdc00..0xe000).contains(&unit)
}

fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && digits(fraction) && digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_json() {
        let value = Json::object([
            ("a", Json::List(vec![Json::number(-1), Json::Null, Json::Bool(true)])),
            ("b", Json::text("q\" b\\ n\n \u{e4} \u{1f4e6}")),
            ("c", Json::maybe(None::<String>)),
        ]);
        let text = r#"{"a": [-1, null, true], "b": "q\" b\\ n\u000a \u00e4 \ud83d\udce6", "c": null}"#;
        assert_eq!(value.to_string(), text);
        assert_eq!(Json::parse(text).unwrap(), value);
    }

    #[test]
    fn values_are_read_as_javascript_reads_them() {
        let text = r#" {"n":[-1.50e+3,0,12345678901234567890.10],"e":{},"l":[],"s":"\/\b\u00e9\ud83d\ude00","n":1} "#;
        let value = Json::parse(text).unwrap();
        assert_eq!(value.get("n"), Some(&Json::number(1)));
        assert_eq!(value.get("s").and_then(Json::as_str), Some("/\u{8}\u{e9}\u{1f600}"));
        assert!(matches!(value, Json::Object(ref fields) if fields.len() == 4));
        let numbers = Json::parse("[12345678901234567890.10, -1.50e+3]").unwrap();
        assert_eq!(numbers.to_string(), "[12345678901234567890.10, -1.50e+3]");
        assert!(Json::parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn half_of_a_character_can_be_replaced() {
        let read = |text| Json::parse_lossy(text).unwrap();
        assert_eq!(read(r#""a\ud83db""#), Json::text("a\u{fffd}b"));
        assert_eq!(read(r#""\ud83d\u0041\udc00""#), Json::text("\u{fffd}A\u{fffd}"));
        assert_eq!(read(r#""\ud83d\ude00""#), Json::text("\u{1f600}"));
    }

    #[test]
    fn what_is_no_value_is_refused_without_showing_it() {
        for text in [
            "",
            "hunter2",
            "\"hunter2",
            "{\"a\" 1}",
            "[1,]",
            "[1 2]",
            "{,}",
            "{\"a\":}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "nul",
            "\"\\u12\"",
            "\"\\q\"",
            "\"\\ud83d\"",
            "\"\\ud83d\\u0041\"",
            "\"a\nb\"",
            "[1] hunter2",
            "\u{a0}1",
        ] {
            let error = format!("{:#}", Json::parse(text).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
