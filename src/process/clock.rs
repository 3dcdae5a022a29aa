//! The clock by which a stall is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Tells when something moved last, and whether the chain has been ended.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    moved_at: AtomicU64,
    ended: AtomicBool,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            moved_at: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Something moved or answered just now.
    pub fn tick(&self) {
        self.moved_at
            .store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long nothing has moved.
    pub(super) fn idle(&self) -> Duration {
        self.start
            .elapsed()
            .saturating_sub(Duration::from_millis(self.moved_at.load(Ordering::Relaxed)))
    }

    /// The chain has been ended.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether the chain has been ended; a thread that waits for something should stop then.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
