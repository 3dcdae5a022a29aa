//! What a run tells: the log, the progress line, and the channels to those who watch.

pub mod alarm;
pub mod channel;
pub mod channels;
pub mod finding;
mod hook;
pub mod log;
mod metrics;
pub mod panics;
mod ping;
pub mod progress;
pub mod run;
pub mod units;
