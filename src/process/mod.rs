//! Chains of child processes with one verdict.
//!
//! A [`Chain`] holds the processes and threads that a stream runs through. It drains every child's standard error,
//! keeps a stall clock that any moved byte winds up, and ends everything when one part fails, when nothing has moved
//! for too long, or when it is dropped. [`Chain::finish`] then tells the one cause, not its consequences.
//!
//! An exit status proves little (a docker client that is terminated leaves 0 behind), so the callers look for proof of
//! completion in the stream itself, as an [`Observer`].

mod capture;
mod chain;
mod child;
mod clock;
mod command;
mod error;
mod hint;
mod link;
mod observer;
mod output;
pub mod priority;

pub use capture::Tail;
pub use chain::{Chain, Finished, Input, Pending};
pub use clock::Clock;
pub use command::{
    command, command_as_called, command_keeping, find, find_on_path, is_cloud, is_executable, shell_quote,
};
pub use error::{is_broken_pipe, is_outside, is_stalled, Failed, Missing};
pub use hint::{explained, hint_of, hinted};
pub use link::{ChildInput, ChildOutput};
pub use observer::{Count, Observer};
pub use output::{output, output_of, Output};

/// How many bytes a pump moves at a time.
pub const BLOCK: usize = 256 * 1024;
