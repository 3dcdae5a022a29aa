//! Text as it may stand in a log, a manifest and a table.

/// `text` as printable ASCII on one line; all else is escaped as in a Rust string (`\n`, `\u{e4}`).
pub fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ' ' || c.is_ascii_graphic() {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// The text that [`ascii`] has escaped, but for its tabs and ends of lines, which no name of ours has.
pub fn unascii(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escaped = part.split_once('}').and_then(|(digits, rest)| {
            let c = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
            Some((c, rest))
        });
        match escaped {
            Some((c, rest)) => {
                out.push(c);
                out.push_str(rest);
            }
            None => {
                out.push_str("\\u{");
                out.push_str(part);
            }
        }
    }
    out
}

/// The bytes that hexadecimal digits stand for; none where they are no such digits.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_escaped_is_read_back() {
        for text in [
            "",
            "n8n",
            "j\u{f6}rg",
            "\u{1f600}x\u{e4}",
            "u'ser \"x\" = \\",
            "\\u{",
            "\\u{x}",
            "\\u{110000}",
        ] {
            assert_eq!(unascii(&ascii(text)), text);
        }
        assert_eq!(unascii("a:\\u{20}b"), "a: b");
    }
}
