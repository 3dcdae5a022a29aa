//! The last lines of what a child says.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::sync::{Mutex, PoisonError};

/// How much of a child's standard error is kept: its last lines.
const STDERR_LINES: usize = 8;
const STDERR_LINE_BYTES: usize = 400;

/// The last lines of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

impl Tail {
    fn feed(&mut self, chunk: &[u8]) {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            if !self.open {
                self.lines.push_back(Vec::new());
                if self.lines.len() > STDERR_LINES {
                    self.lines.pop_front();
                }
            }
            self.open = !part.ends_with(b"\n");
            if let Some(line) = self.lines.back_mut() {
                let room = STDERR_LINE_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&part[..part.len().min(room)]);
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> = self
            .lines
            .iter()
            .map(|line| String::from_utf8_lossy(line).trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        // One complaint for each command that was asked is still one.
        lines.dedup();
        lines.join(" / ")
    }
}

/// Reads a child's standard error to its end.
pub(super) fn drain(mut from: impl Read, tail: &Mutex<Tail>) {
    let mut block = [0; 4096];
    loop {
        match from.read(&mut block) {
            Ok(0) => return,
            Ok(n) => tail.lock().unwrap_or_else(PoisonError::into_inner).feed(&block[..n]),
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
            tail.feed(format!("line {n}").as_bytes());
            tail.feed(b"\n");
        }
        assert!(tail.text().starts_with("line 992 / ") && tail.text().ends_with("line 999"));
    }
}
