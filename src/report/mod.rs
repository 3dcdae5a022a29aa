//! What a run tells: the log, the progress line, monitors.

pub mod channel;
pub mod finding;
pub mod json;
pub mod log;
pub mod metrics;
pub mod progress;
pub mod units;
