//! The last lines of an output.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::observer::Observer;

/// What stands between the lines of a [`Tail::text`].
pub(super) const SEPARATOR: &str = " / ";

/// How many lines a [`Tail`] keeps, and how much of each.
const LINES: usize = 8;
const LINE_BYTES: usize = 400;

/// The last lines of a stream.
#[derive(Debug, Default)]
pub struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

impl Tail {
    /// Takes the next bytes, cut anywhere.
    pub fn push(&mut self, chunk: &[u8]) {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            if !self.open {
                self.lines.push_back(Vec::new());
            }
            self.open = !part.ends_with(b"\n");
            if let Some(line) = self.lines.back_mut() {
                let room = LINE_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&part[..part.len().min(room)]);
                if !self.open && is_stack_frame(line) {
                    self.lines.pop_back();
                }
            }
            // An unfinished line may yet turn out to be of a stack trace.
            if self.lines.len() > LINES + usize::from(self.open) {
                self.lines.pop_front();
            }
        }
    }

    /// The lines that are not empty, joined to one.
    pub fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| String::from_utf8_lossy(line));
        let mut lines: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
        lines.retain(|line| !line.is_empty());
        // A program may complain once for each name that it is given.
        lines.dedup();
        lines.join(SEPARATOR)
    }
}

/// Whether a line is of a JavaScript stack trace, which would push out what went wrong.
fn is_stack_frame(line: &[u8]) -> bool {
    line.starts_with(b" ") && line.trim_ascii_start().starts_with(b"at ")
}

impl Observer for Tail {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.push(chunk);
        Ok(())
    }
}

/// Reads a child's standard error to its end.
pub(super) fn drain(mut from: impl Read, tail: &Mutex<Tail>) {
    let mut block = [0; 4096];
    loop {
        match from.read(&mut block) {
            Ok(0) => return,
            Ok(n) => tail.lock().unwrap_or_else(PoisonError::into_inner).push(&block[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail::default();
        for n in 0..1000 {
            tail.push(format!("line {n}").as_bytes());
            tail.push(b"\n");
        }
        assert!(tail.text().starts_with("line 992 / ") && tail.text().ends_with("line 999"));
        tail.push(b"\n\nthe end");
        tail.push(b" of it");
        assert!(tail.text().ends_with("line 999 / the end of it"));
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(&[b'x'; 4096]);
        }
        assert_eq!(tail.text().len(), LINE_BYTES);
    }

    #[test]
    fn a_stack_trace_pushes_nothing_out() {
        let mut tail = Tail::default();
        tail.push(b"must be owner of table a\n");
        for _ in 0..20 {
            tail.push(b"    at Parser.parse");
            tail.push(b"Message (/x.js:1:2)\n");
        }
        tail.push(b"at last\n");
        assert_eq!(tail.text(), "must be owner of table a / at last");
    }

    #[test]
    fn a_line_that_is_repeated_is_kept_once() {
        let mut tail = Tail::default();
        tail.push(b"refused\nrefused\nother\n");
        assert_eq!(tail.text(), "refused / other");
    }
}
