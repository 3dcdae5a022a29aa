//! Parts of a stream that are packed side by side, and joined in order.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::choice::Chooser;
use super::tool::Tool;
use crate::process::{self, Chain, Clock, Observer, Pending};

/// What the parts of one stream may take in memory, so that it does not grow with the number of processors.
pub(super) const MEMORY: usize = 10 << 20;

/// The most and the least of the stream that one of the parallel processes takes. Each makes a gzip member of its own;
/// a file of several members is a standard .gz file (RFC 1952, section 2.2).
pub(super) const PART: (usize, usize) = (2 << 20, 256 << 10);
/// How much of a member is handed on at a time. Members are mostly small beside their parts, and of unknown length.
const PIECE: usize = 64 << 10;

/// How often the clock of a process is wound up that waits for its next part: what the source does is not its fault.
const WAIT_FOR_A_PART: Duration = Duration::from_secs(1);

/// How much of the stream each of `processes` takes at a time.
pub(super) fn part_size(processes: usize) -> usize {
    let (most, least) = PART;
    (MEMORY / (2 * processes + 6)).clamp(least, most)
}

/// How many processes share a stream.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from).clamp(1, 8)
}

/// Packs parts of the stream in several processes side by side and joins the members in order. In memory are at most,
/// for each process, a part, its member and the member before that waits for its turn, and besides the part that is
/// read and the member that is written.
pub(super) fn compress<O: Observer>(
    chain: &mut Chain,
    processes: usize,
    mut chooser: Chooser,
    mut from: impl Read + Send + 'static,
    mut observer: O,
) -> (Box<dyn Read + Send>, Pending<O>) {
    let (runs, queue) = mpsc::sync_channel::<Run>(0);
    let queue = Arc::new(Mutex::new(queue));
    let part = part_size(processes);
    let buffers = Buffers::default();
    for _ in 0..processes {
        let (queue, buffers) = (Arc::clone(&queue), buffers.clone());
        let stall = chain.stall();
        chain.task("packing a part", move |clock| pack_runs(clock, &queue, &buffers, stall));
    }
    // The members' places in the file, in order. The queue's length is what bounds the memory.
    let (places, members) = mpsc::sync_channel(processes);
    let spare = buffers.clone();
    let observer = chain.task("packing", move |clock| {
        let gone = || anyhow::Error::from(io::Error::from(ErrorKind::BrokenPipe));
        let mut run: Option<SyncSender<Vec<u8>>> = None;
        let mut first = true;
        loop {
            let data = read_part(&mut from, part, &mut observer, &spare, clock)?;
            let last = data.len() < part;
            // An empty stream still makes one (empty) member.
            if first || !data.is_empty() {
                let choice = chooser.choose(&data)?;
                let parts = match run.take().filter(|_| choice.goes_on) {
                    Some(parts) => parts,
                    None => {
                        // As long as a part, so that no process waits for its member's turn.
                        let (member, place) = mpsc::sync_channel(part / PIECE + 1);
                        let (parts, more) = mpsc::sync_channel(0);
                        places.send(place).map_err(|_| gone())?;
                        let tool = choice.tool;
                        runs.send(Run {
                            tool,
                            parts: more,
                            member,
                        })
                        .map_err(|_| gone())?;
                        parts
                    }
                };
                parts.send(data).map_err(|_| gone())?;
                // A process that does not keep up gets one part, so that the next part has another core.
                run = choice.keeps_up.then_some(parts);
            }
            if last {
                observer.end()?;
                return Ok(observer);
            }
            first = false;
        }
    });
    let joined = Joined {
        members,
        place: None,
        current: io::Cursor::new(Vec::new()),
        buffers,
    };
    (Box::new(joined), observer)
}

/// Buffers that are used again and again: what is allocated and freed in many threads is not given back to the system.
#[derive(Clone, Default)]
struct Buffers {
    parts: Spare,
    pieces: Spare,
}

/// Buffers of one size that nobody uses just now.
#[derive(Clone, Default)]
struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// A buffer, empty or with what was in it before.
    fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() > 0 {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// Parts that follow each other on their way to one process, and where its member is to go, in pieces.
struct Run {
    tool: Tool,
    parts: Receiver<Vec<u8>>,
    member: SyncSender<Vec<u8>>,
}

/// Takes runs off the queue and packs each in a process of its own.
fn pack_runs(clock: &Clock, queue: &Mutex<Receiver<Run>>, buffers: &Buffers, stall: Duration) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(run) = next else { return Ok(()) };
        let end = run.member.clone();
        run.pack(buffers, stall)?;
        clock.tick();
        // An empty piece says that the member is whole.
        end.send(Vec::new())
            .map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
    }
}

impl Run {
    fn pack(self, buffers: &Buffers, stall: Duration) -> Result<()> {
        let mut chain = Chain::new(stall);
        let (mut stdin, mut stdout) = self.tool.start(&mut chain)?;
        let (parts, spare) = (self.parts, buffers.clone());
        chain.task("packing a part", move |clock| loop {
            match parts.recv_timeout(WAIT_FOR_A_PART) {
                Ok(part) => {
                    for block in part.chunks(process::BLOCK) {
                        stdin.write_all(block)?;
                        clock.tick();
                    }
                    spare.parts.give(part);
                }
                Err(RecvTimeoutError::Timeout) => clock.tick(),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        });
        let (member, spare) = (self.member, buffers.clone());
        chain.task("reading a packed part", move |clock| loop {
            let mut piece = spare.pieces.take();
            fill(&mut piece, PIECE, &mut stdout, |_| {
                clock.tick();
                Ok(())
            })?;
            if piece.is_empty() {
                return Ok(());
            }
            member.send(piece).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
            clock.tick();
        });
        chain.finish().map(drop)
    }
}

/// Reads a part into one of `buffers`; it is shorter than `size` only at the end of the stream.
fn read_part(
    from: &mut impl Read,
    size: usize,
    observer: &mut impl Observer,
    buffers: &Buffers,
    clock: &Clock,
) -> Result<Vec<u8>> {
    let mut part = buffers.parts.take();
    fill(&mut part, size, from, |read| {
        clock.tick();
        observer.feed(read)
    })?;
    Ok(part)
}

/// Fills `buffer` with the next `size` bytes, or with all that are left, and shows `seen` each of the pieces that it
/// takes.
fn fill(
    buffer: &mut Vec<u8>,
    size: usize,
    from: &mut impl Read,
    mut seen: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    buffer.resize(size, 0);
    let mut filled = 0;
    while filled < size {
        let end = size.min(filled + process::BLOCK);
        match from.read(&mut buffer[filled..end]) {
            Ok(0) => break,
            Ok(n) => {
                seen(&buffer[filled..filled + n])?;
                filled += n;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// The packed members, in the order of their parts.
struct Joined {
    members: Receiver<Receiver<Vec<u8>>>,
    /// The pieces of the member that is being read.
    place: Option<Receiver<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
    buffers: Buffers,
}

impl Read for Joined {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.current.read(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            let place = match self.place.take() {
                Some(place) => place,
                None => match self.members.recv() {
                    Ok(place) => place,
                    Err(_) => return Ok(0),
                },
            };
            // A worker died with its part, and tells why; what follows it must not close the gap.
            let piece = place.recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
            if !piece.is_empty() {
                self.place = Some(place);
                let written = std::mem::replace(&mut self.current, io::Cursor::new(piece));
                self.buffers.pieces.give(written.into_inner());
            }
        }
    }
}
