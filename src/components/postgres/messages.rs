//! What psql says of a failure, without what it shows of rows: that goes into logs, pings and mails.

use anyhow::Result;

use crate::process::Observer;

/// Has psql give the SQLSTATE of each message, by which those are known that quote data.
pub const FLAGS: [&str; 2] = ["-v", "VERBOSITY=verbose"];
/// The exit code of psql when a statement fails.
pub const SCRIPT_FAILED: i32 = 3;
/// How much of a line is looked at.
const LINE_BYTES: usize = 4096;

/// What may be shown of the messages of a psql that ends at the first error. Details, contexts and the further lines of a
/// message are dropped: only its first line bears psql's own name.
#[derive(Debug, Default)]
pub struct Messages {
    /// What psql says by itself, as that there is no connection.
    own: Option<String>,
    /// The last error of the server.
    error: Option<String>,
    place: Option<String>,
    /// The server has left out privileges, with no more than a warning.
    lacks_privileges: bool,
}

impl Messages {
    /// Takes a line.
    pub fn take(&mut self, line: &str) {
        if line.contains(":  exec_stmt_raise, ") {
            // A function of the database chose the text, whatever its SQLSTATE.
            self.error = self
                .error
                .take()
                .map(|error| error.split(' ').take(2).collect::<Vec<_>>().join(" "));
        } else if let Some(place) = copy_place(line) {
            self.place = Some(place);
        } else if let Some(message) = line.strip_prefix("psql:").or_else(|| line.strip_prefix("sh: ")) {
            let message = message
                .strip_prefix("<stdin>:")
                .and_then(|rest| Some(rest.split_once(": ")?.1))
                .unwrap_or(message)
                .trim();
            match of_server(message) {
                None => self.own = Some(message.to_owned()),
                // A notice or a warning. These say that none was revoked, or granted, by who may not.
                Some((_, code, _)) if ["00", "01", "02"].contains(&&code[..2]) => {
                    self.lacks_privileges |= ["01006", "01007"].contains(&code);
                }
                Some((severity, code, text)) => {
                    // Unlike that of a name, the quotation mark in a value is not doubled: where it ends is not known.
                    let text = match &code[..2] {
                        "22" => until_value(text),
                        _ if code == "42601" => until_value(text),
                        _ => text,
                    };
                    self.error = Some(format!("{severity} {code} {text}").trim_end().to_owned());
                }
            }
        }
    }

    /// Whether the server has left out privileges that it was told to grant or to revoke.
    pub fn lacks_privileges(&self) -> bool {
        self.lacks_privileges
    }

    /// All of them in one line.
    pub fn text(&self) -> String {
        let all = [&self.own, &self.error, &self.place];
        all.into_iter().flatten().cloned().collect::<Vec<_>>().join(", ")
    }
}

/// The severity, SQLSTATE and text of a message of the server: `ERROR:  23505: duplicate key ...`.
fn of_server(message: &str) -> Option<(&str, &str, &str)> {
    let (severity, rest) = message.split_once(":  ")?;
    let (code, text) = rest.split_once(": ")?;
    let is_code = code.len() == 5 && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    (is_code && !severity.contains(' ')).then_some((severity, code, text))
}

/// A text up to the first quotation mark or colon, in any language.
fn until_value(text: &str) -> &str {
    let marks = [
        '"', '\'', ':', '\u{ab}', '\u{bb}', '\u{2018}', '\u{201c}', '\u{201e}', '\u{300c}',
    ];
    text.split(marks).next().unwrap_or_default().trim_end()
}

/// The table and the line of a `COPY` that failed, in a line of a message's context: `COPY odd, line 3, column v: "..."`.
fn copy_place(line: &str) -> Option<String> {
    // The first of them begins with a word, such as `CONTEXT:`.
    let (word, rest) = line.split_once(":  ").unwrap_or(("", line));
    let (table, rest) = rest.strip_prefix("COPY ")?.split_once(", line ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let is_place = !word.contains([' ', '"']) && digits > 0;
    is_place.then(|| format!("COPY {table}, line {}", &rest[..digits]))
}

/// What psql printed on either output while it was fed: whether the marker came, and the last messages.
pub struct Printed {
    marker: String,
    reached: bool,
    line: Vec<u8>,
    messages: Messages,
}

impl Printed {
    /// Nothing yet; `marker` will be the last line.
    pub fn new(marker: &str) -> Self {
        Self {
            marker: marker.to_owned(),
            reached: false,
            line: Vec::new(),
            messages: Messages::default(),
        }
    }

    /// Whether the marker came.
    pub fn reached(&self) -> bool {
        self.reached
    }

    /// What psql said.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }
}

impl Observer for Printed {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (part, ended) = match part.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (part, false),
            };
            let room = LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if ended {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                self.reached |= line == self.marker;
                self.messages.take(&line);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &[&str]) -> String {
        let mut messages = Messages::default();
        for line in lines {
            messages.take(line);
        }
        messages.text()
    }

    #[test]
    fn a_message_keeps_names_and_loses_values() {
        for (line, text) in [
            (
                "psql:<stdin>:12: ERROR:  22P02: invalid input syntax for type integer: \"secret\"",
                "ERROR 22P02 invalid input syntax for type integer",
            ),
            (
                "psql:<stdin>:12: FEHLER:  22P02: ung\u{fc}ltige Eingabesyntax f\u{fc}r Typ integer: \u{bb}secret\u{ab}",
                "FEHLER 22P02 ung\u{fc}ltige Eingabesyntax f\u{fc}r Typ integer",
            ),
            (
                "psql:<stdin>:12: ERROR:  22003: value \"secret\" is out of range for type integer",
                "ERROR 22003 value",
            ),
            ("psql:<stdin>:1: ERROR:  22003: \"secret\" is out of range", "ERROR 22003"),
            (
                "psql:<stdin>:1: ERROR:  42601: syntax error at or near \"secret\"",
                "ERROR 42601 syntax error at or near",
            ),
            (
                "psql:<stdin>:1: ERROR:  23505: duplicate key value violates unique constraint \"users_email_key\"",
                "ERROR 23505 duplicate key value violates unique constraint \"users_email_key\"",
            ),
            ("psql:<stdin>:1: WARNING:  01000: secret", ""),
            (
                "psql:<stdin>:1: ERROR:  0A000: extension \"x\" is not available",
                "ERROR 0A000 extension \"x\" is not available",
            ),
            ("DETAIL:  Key (email)=(secret) already exists.", ""),
            ("CONTEXT:  COPY public.users, line 3: \"secret\"", "COPY public.users, line 3"),
            ("KONTEXT:  COPY users, line 3, column id: \"secret\"", "COPY users, line 3"),
            ("COPY users, line 3: \"secret\"", "COPY users, line 3"),
            ("SQL statement \"secret\"", ""),
            ("the second line of a secret", ""),
            (
                "psql: error: connection to server failed: FATAL:  role \"n8n\" does not exist",
                "error: connection to server failed: FATAL:  role \"n8n\" does not exist",
            ),
            (
                "psql:<stdin>:3: error: backslash commands are restricted",
                "error: backslash commands are restricted",
            ),
            ("sh: psql: not found", "psql: not found"),
        ] {
            assert_eq!(shown(&[line]), text, "{line}");
        }
    }

    #[test]
    fn privileges_that_the_server_leaves_out_are_noticed() {
        for (line, noticed) in [
            (
                "psql:<stdin>:9: WARNING:  01006: no privileges could be revoked for \"public\"",
                true,
            ),
            (
                "psql:<stdin>:9: WARNUNG:  01007: es wurden keine Privilegien gew\u{e4}hrt",
                true,
            ),
            (
                "psql:<stdin>:9: WARNING:  01000: no privileges were granted for \"public\"",
                false,
            ),
            ("WARNING:  01007: in the text of another message", false),
        ] {
            let mut messages = Messages::default();
            messages.take(line);
            assert_eq!(messages.lacks_privileges(), noticed, "{line}");
            assert_eq!(messages.text(), "");
        }
    }

    #[test]
    fn a_text_that_a_function_chose_is_not_shown() {
        let raised = [
            "psql:<stdin>:1: ERROR:  23514: it is secret",
            "CONTEXT:  PL/pgSQL function public.ok(text) line 1 at RAISE",
            "COPY t, line 1: \"secret\"",
            "LOCATION:  exec_stmt_raise, pl_exec.c:3911",
        ];
        assert_eq!(shown(&raised), "ERROR 23514, COPY t, line 1");
        let found = [raised[0], "LOCATION:  ExecConstraints, execMain.c:2054"];
        assert_eq!(shown(&found), "ERROR 23514 it is secret");
    }

    #[test]
    fn what_is_printed_is_read_in_pieces() {
        let mut printed = Printed::new("the marker");
        for piece in [
            "12\nthe mar",
            "ker\n",
            "psql:<stdin>:1: ERROR:  22000: a\nsecret\nCONTEXT:  COPY t, line 1",
            ": \"s",
        ] {
            printed.feed(piece.as_bytes()).unwrap();
        }
        assert!(printed.reached());
        assert_eq!(printed.messages().text(), "ERROR 22000 a");
        printed.feed(b"ecret\"\n").unwrap();
        assert_eq!(printed.messages().text(), "ERROR 22000 a, COPY t, line 1");
        let mut printed = Printed::new("the marker");
        printed.feed(b"the marker").unwrap();
        assert!(!printed.reached());
    }
}
