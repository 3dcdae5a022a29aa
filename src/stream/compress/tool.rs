//! A program that packs, and how it is run.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{self, Chain, ChildInput, ChildOutput, Count, Input};

/// A sample is in memory and goes to a local program, which has no reason to stop for long.
const STALL_OF_A_SAMPLE: Duration = Duration::from_secs(120);

/// A program that packs standard input to standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
}

/// A program for a part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) tool: Tool,
    /// One process of it keeps up with any stream, so that it takes part after part.
    pub(super) keeps_up: bool,
}

impl Tool {
    pub(super) fn new(program: PathBuf, args: &str) -> Self {
        Self {
            program,
            args: args.split_whitespace().map(str::to_owned).collect(),
        }
    }

    pub(super) fn label(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        [&[name.into_owned()], self.args.as_slice()].concat().join(" ")
    }

    pub(super) fn command(&self) -> Command {
        let mut command = process::command(&self.program);
        // Both would change what the program does.
        command.args(&self.args).arg("-c").env_remove("GZIP").env_remove("PIGZ");
        command
    }

    /// Starts it in `chain`.
    pub(super) fn start(&self, chain: &mut Chain) -> Result<(ChildInput, ChildOutput)> {
        // A program of the user's own may open /dev/stdin.
        let known = |name: &str| ["igzip", "libdeflate-gzip", "pigz", "gzip"].contains(&name);
        let name = self.program.file_name().and_then(|name| name.to_str());
        let (stdin, stdout) = if name.is_some_and(known) {
            chain.stream(self.label(), self.command(), Input::Piped)?
        } else {
            chain.spawn(self.label(), self.command(), Input::Piped)?
        };
        Ok((stdin.context("the compressor has no input")?, stdout))
    }

    /// How long `sample` is when packed.
    pub(super) fn try_on(&self, sample: &[u8]) -> Result<i64> {
        let mut chain = Chain::new(STALL_OF_A_SAMPLE);
        let (stdin, stdout) = self.start(&mut chain)?;
        chain.pump("trying a sample", io::Cursor::new(sample.to_vec()), stdin, ());
        let packed = chain.pump("reading a packed sample", stdout, io::sink(), Count::default());
        i64::try_from(packed.get(&chain.finish()?)?.0).context("a sample does not get so large")
    }
}
