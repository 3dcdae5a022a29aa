//! Progress on a terminal: how much of each stream has passed, how fast, and how much longer it may take.
//!
//! The streams only count; a thread of its own prints, so that a terminal that is held up holds up no backup. Elsewhere
//! than on a terminal nothing is printed.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::Observer;
use crate::report::{log, units};

/// The streams that move.
static METERS: Mutex<Vec<Arc<Meter>>> = Mutex::new(Vec::new());
/// Whether the line is printed.
static ON: AtomicBool = AtomicBool::new(false);
/// Whether a progress line stands on the terminal.
static SHOWN: AtomicBool = AtomicBool::new(false);
/// How often the line is renewed.
const INTERVAL: Duration = Duration::from_millis(200);
/// Back to the line's beginning, and clear it.
const CLEAR: &str = "\r\x1b[K";

/// What is known of one stream.
#[derive(Debug)]
struct Meter {
    name: &'static str,
    since: Instant,
    bytes: AtomicU64,
    expected: Option<u64>,
}

/// Counts the bytes of a stream for the progress line, from its making to its end.
#[derive(Debug)]
pub struct Progress(Arc<Meter>);

impl Progress {
    /// Begins to count the stream called `name`. `expected` tells how many bytes it may have, and is asked only where
    /// progress is shown.
    pub fn new(name: &'static str, expected: impl FnOnce() -> Option<u64>) -> Self {
        let meter = Arc::new(Meter {
            name,
            since: Instant::now(),
            bytes: AtomicU64::new(0),
            expected: if ON.load(Ordering::Relaxed) { expected() } else { None },
        });
        METERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&meter));
        Self(meter)
    }
}

impl Observer for Progress {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.add(chunk.len());
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.remove();
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Progress {
    /// Counts more bytes.
    pub fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn remove(&self) {
        let mut meters = METERS.lock().unwrap_or_else(PoisonError::into_inner);
        meters.retain(|meter| !Arc::ptr_eq(meter, &self.0));
    }
}

/// Begins to print, to standard error, which is a terminal.
pub fn show() {
    ON.store(true, Ordering::Relaxed);
    log::begin_lines_with(clear);
    thread::spawn(|| loop {
        thread::sleep(INTERVAL);
        let line = {
            let meters = METERS.lock().unwrap_or_else(PoisonError::into_inner);
            let parts: Vec<String> = meters.iter().map(|meter| meter.text()).collect();
            parts.join("   ")
        };
        let text = if line.is_empty() {
            clear().to_owned()
        } else {
            format!("{CLEAR}{line}")
        };
        SHOWN.store(!line.is_empty(), Ordering::Relaxed);
        let mut out = io::stderr();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    });
}

/// What a log line must begin with, so that it does not stand behind a progress line.
fn clear() -> &'static str {
    if SHOWN.swap(false, Ordering::Relaxed) {
        CLEAR
    } else {
        ""
    }
}

impl Meter {
    fn text(&self) -> String {
        describe(
            self.name,
            self.bytes.load(Ordering::Relaxed),
            self.since.elapsed(),
            self.expected,
        )
    }
}

/// `postgres: 120MiB, 60MiB/s, 48%, 2 s left`; the last two only while they are known.
fn describe(name: &str, bytes: u64, elapsed: Duration, expected: Option<u64>) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = bytes as f64 / seconds;
    let mut text = format!("{name}: {}, {}/s", units::amount(bytes), units::amount(rate as u64));
    if let Some(expected) = expected.filter(|expected| bytes > 0 && bytes < *expected) {
        let left = (expected - bytes) as f64 / rate;
        text.push_str(&format!(", {}%, {} s left", bytes * 100 / expected, left.ceil() as u64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_described_as_far_as_it_is_known() {
        let two = Duration::from_secs(2);
        assert_eq!(describe("x", 4 << 20, two, None), "x: 4.0MiB, 2.0MiB/s");
        assert_eq!(
            describe("x", 4 << 20, two, Some(8 << 20)),
            "x: 4.0MiB, 2.0MiB/s, 50%, 2 s left"
        );
        assert_eq!(describe("x", 9 << 20, two, Some(8 << 20)), "x: 9.0MiB, 4.5MiB/s");
        assert_eq!(describe("x", 0, Duration::ZERO, Some(8)), "x: 0B, 0B/s");
    }

    #[test]
    fn a_stream_counts_while_it_lives() {
        let mut progress = Progress::new("unit test", || None);
        progress.feed(b"12345").unwrap();
        let here = || METERS.lock().unwrap().iter().any(|meter| meter.name == "unit test");
        assert!(here() && progress.0.bytes.load(Ordering::Relaxed) == 5);
        drop(progress);
        assert!(!here());
    }
}
