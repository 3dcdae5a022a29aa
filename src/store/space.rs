//! Room on disks.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process;
use crate::report::units;

/// The bytes that are free for us on the disk of `dir`, as `df` tells.
///
/// # Errors
/// When it does not.
pub fn available(dir: &Path, stall: Duration) -> Result<u64> {
    let mut df = process::command("df");
    df.args(["-Pk", "--"]).arg(dir);
    let output = process::output("df", df, None, stall)?;
    units::free(&output.text()).context("df gave no number")
}
