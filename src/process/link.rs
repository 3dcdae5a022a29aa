//! What a child and we are linked by: pipes, or sockets for streams of many bytes.
//!
//! A pipe holds 64 KB, and std offers no way to make it hold more; a socket holds three times as much
//! (`net.core.wmem_default`), so that two processes wait for each other less often. Passing 1 GB through a socket takes
//! about half the time (docs/performance.md). A few programs open `/dev/stdin` or `/dev/stdout` by name, which a socket
//! does not allow: the user's own may be such, so they get pipes.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// How a child is linked to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Pipe,
    Socket,
    /// Its output goes to /dev/null.
    Null,
}

/// Makes a socket for a child: our end and the child's.
pub(super) fn socket() -> io::Result<(UnixStream, Stdio)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours, Stdio::from(OwnedFd::from(theirs))))
}

/// Writes to a child's standard input, which ends when this is dropped.
#[derive(Debug)]
pub struct ChildInput(File);

impl From<ChildStdin> for ChildInput {
    fn from(pipe: ChildStdin) -> Self {
        Self(File::from(OwnedFd::from(pipe)))
    }
}

impl From<UnixStream> for ChildInput {
    fn from(socket: UnixStream) -> Self {
        Self(File::from(OwnedFd::from(socket)))
    }
}

impl Write for ChildInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| match error.kind() {
            // So a socket says that its reader went away with bytes unread.
            ErrorKind::ConnectionReset => io::Error::from(ErrorKind::BrokenPipe),
            _ => error,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a child's standard output.
#[derive(Debug)]
pub struct ChildOutput {
    from: File,
    /// The same, to be shut down before it is closed.
    socket: Option<UnixStream>,
    /// Set when this was dropped before its end was seen: what the child then says is a consequence of that.
    abandoned: Arc<AtomicBool>,
    ended: bool,
}

impl ChildOutput {
    pub(super) fn pipe(pipe: ChildStdout, abandoned: Arc<AtomicBool>) -> Self {
        Self {
            from: File::from(OwnedFd::from(pipe)),
            socket: None,
            abandoned,
            ended: false,
        }
    }

    pub(super) fn socket(socket: UnixStream, abandoned: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Self {
            from: File::from(OwnedFd::from(socket.try_clone()?)),
            socket: Some(socket),
            abandoned,
            ended: false,
        })
    }
}

impl Read for ChildOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

impl Drop for ChildOutput {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.abandoned.store(true, Ordering::Relaxed);
        if let Some(socket) = &self.socket {
            // A writer is told of a broken pipe, as by a pipe, and not of a reset connection, when nothing is left
            // unread.
            let _ = socket.shutdown(Shutdown::Read);
            let _ = io::copy(&mut self.from, &mut io::sink());
        }
    }
}
