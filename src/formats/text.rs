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
