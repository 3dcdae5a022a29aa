//! Unpacking, by the fastest program of this host, whatever packed the stream.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::process::{
    self, find, find_on_path, Chain, ChildInput, ChildOutput, Count, Input, Missing, Observer, Pending,
};

/// The programs that unpack, the fastest first.
const DECOMPRESSORS: [&str; 3] = ["igzip", "pigz", "gzip"];

/// Unpacks `file` by the fastest program on this host, whatever packed it.
pub fn decompress_file(chain: &mut Chain, file: File, path: Option<&OsString>) -> Result<ChildOutput> {
    Ok(spawn_decompressor(chain, Input::From(Stdio::from(file)), path)?.1)
}

/// As [`decompress_file`], for a stream.
pub fn decompress(chain: &mut Chain, from: impl Read + Send + 'static, path: Option<&OsString>) -> Result<ChildOutput> {
    let (to, unpacked) = spawn_decompressor(chain, Input::Piped, path)?;
    let to = to.context("the decompressor has no input")?;
    chain.pump("unpacking", from, Outlived { to, lost: None }, ());
    Ok(unpacked)
}

/// Takes bytes to their end even when their reader has gone, and reports that only then: a decompressor ends at the
/// first wrong byte, and the program before it (gpg, of a damaged message) tells what is wrong only at its own end.
struct Outlived<W> {
    to: W,
    lost: Option<io::Error>,
}

impl<W: Write> Write for Outlived<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lost.is_none() {
            match self.to.write(bytes) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.lost = Some(error),
                done => return done,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lost.take().map_or_else(|| self.to.flush(), Err)
    }
}

fn spawn_decompressor(
    chain: &mut Chain,
    input: Input,
    path: Option<&OsString>,
) -> Result<(Option<ChildInput>, ChildOutput)> {
    let program = DECOMPRESSORS.into_iter().find_map(|name| find_on_path(name, path));
    let program = program.or_else(|| find("gzip", path)).ok_or(Missing {
        what: "No gzip program found",
        hint: "install gzip",
    })?;
    let mut command = process::command(&program);
    command.arg("-dc").env_remove("GZIP").env_remove("PIGZ");
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    chain.stream(format!("{name} -dc"), command, input)
}

/// Unpacks a packed stream that passes by, so that its proof takes no time of its own: the program checks each member's
/// checksum and length, and the bytes that come out are counted.
pub struct Unpacking {
    to: Option<ChildInput>,
}

impl Unpacking {
    /// Starts the decompressor. What it unpacks is counted until the chain has finished.
    pub fn start(chain: &mut Chain, path: Option<&OsString>) -> Result<(Self, Pending<Count>)> {
        let (to, unpacked) = spawn_decompressor(chain, Input::Piped, path)?;
        let count = chain.pump("unpacking", unpacked, io::sink(), Count::default());
        Ok((Self { to }, count))
    }
}

impl Observer for Unpacking {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        match &mut self.to {
            Some(to) => Ok(to.write_all(chunk)?),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.to = None;
        Ok(())
    }
}
