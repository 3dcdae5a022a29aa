//! Compression: which program packs and unpacks, and how. Whatever is chosen, the result is a standard .gz file.

mod choice;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use self::choice::Chooser;
use crate::process::{
    self, find, find_on_path, Chain, ChildInput, ChildOutput, Clock, Count, Input, Missing, Observer, Pending,
};

/// What the parts of one stream may take in memory, so that it does not grow with the number of processors.
const MEMORY: usize = 10 << 20;
/// The most and the least of the stream that one of the parallel processes takes. Each makes a gzip member of its own; a
/// file of several members is a standard .gz file (RFC 1952, section 2.2).
const PART: (usize, usize) = (2 << 20, 256 << 10);
/// How much of a member is handed on at a time. Members are mostly small beside their parts, and of unknown length.
const PIECE: usize = 64 << 10;
/// The programs that unpack, the fastest first.
const DECOMPRESSORS: [&str; 3] = ["igzip", "pigz", "gzip"];

/// A program that packs standard input to standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tool {
    program: PathBuf,
    args: Vec<String>,
}

/// A program for a part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    tool: Tool,
    /// One process of it keeps up with any stream, so that it takes part after part.
    keeps_up: bool,
}

/// How streams are packed on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressor {
    /// The program. Those before it are faster, the fastest first, and take its place for the parts that they pack well
    /// enough.
    candidates: Vec<Candidate>,
    /// What "well enough" is measured by: `gzip -6`, as the old scripts used it.
    measure: Option<Tool>,
    /// How many processes share the work, each with a part of the stream; 0 for a program that does it alone, as one
    /// stream.
    processes: usize,
}

impl Compressor {
    /// Chooses by the setting `BACKUP_COMPRESSOR`: `auto` (the fastest programs on this host that make archives about as
    /// small as `gzip -6` does), or a program, by name or path, with arguments. No shell reads it: blanks part the words.
    ///
    /// # Errors
    /// When the named program is not on this host, or there is none at all.
    pub fn choose(setting: &str, path: Option<&OsString>) -> Result<Self> {
        let mut words = setting.split_whitespace().map(str::to_owned);
        let name = words.next().unwrap_or_else(|| "auto".to_owned());
        let args: Vec<String> = words.collect();
        if name == "auto" {
            return Self::auto(&|name| find_on_path(name, path))
                .context("No gzip program found: install gzip, or name one as BACKUP_COMPRESSOR in .env");
        }
        match find(&name, path) {
            Some(program) => Ok(Self::named(program, args)),
            None => bail!("Compressor {name} not found: install it, or set BACKUP_COMPRESSOR=auto in .env"),
        }
    }

    /// The best of what `find` finds. Levels are those that docs/performance.md has measured: the last ones all come
    /// within half a percent of `gzip -6`.
    fn auto(find: &dyn Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let programs: [(&str, &[&str]); 4] = [
            ("igzip", &["-1"]),
            ("libdeflate-gzip", &["-1", "-3", "-6"]),
            ("pigz", &["-1 -p 1", "-4 -p 1", "-5 -p 1", "-6 -p 1"]),
            ("gzip", &["-1", "-4", "-5", "-6"]),
        ];
        let mut candidates = Vec::new();
        for (name, levels) in programs {
            let Some(program) = find(name) else { continue };
            candidates.extend(levels.iter().map(|args| Candidate {
                tool: Tool::new(program.clone(), args),
                keeps_up: name == "igzip",
            }));
            // Whatever else is there is slower and packs no better.
            if name != "igzip" {
                break;
            }
        }
        let alone = candidates.len() < 2;
        (!candidates.is_empty()).then(|| Self {
            candidates,
            measure: find("gzip")
                .or_else(|| find("pigz"))
                .map(|program| Tool::new(program, "-6")),
            processes: if alone { 0 } else { cores() },
        })
    }

    /// `program`, with its usual level unless the arguments name one.
    fn named(program: PathBuf, mut args: Vec<String>) -> Self {
        let (level, processes) = match program.file_name().and_then(|name| name.to_str()) {
            Some("igzip") => ("-1", 0),
            Some("pigz") => ("-6", 0),
            // The second holds its whole input in memory, so that it must never see a whole stream.
            Some("gzip" | "libdeflate-gzip") => ("-6", cores()),
            _ => ("", 0),
        };
        if args.is_empty() && !level.is_empty() {
            args.push(level.to_owned());
        }
        Self {
            candidates: vec![Candidate {
                tool: Tool { program, args },
                keeps_up: false,
            }],
            measure: None,
            processes,
        }
    }

    /// The program that packs best.
    fn thorough(&self) -> Result<&Tool> {
        let last = self.candidates.last().context("no compressor has been chosen")?;
        Ok(&last.tool)
    }

    /// What the log says is used: `igzip -1`, `gzip -6 in 2 processes (gzip -1 for what it packs as well)`.
    pub fn label(&self) -> String {
        let labels: Vec<String> = self.candidates.iter().map(|candidate| candidate.tool.label()).collect();
        let Some((thorough, faster)) = labels.split_last() else {
            return String::new();
        };
        let mut label = thorough.clone();
        if self.processes > 1 {
            label.push_str(&format!(" in {} processes", self.processes));
        }
        match faster {
            [] => {}
            [faster] => label.push_str(&format!(" ({faster} for what it packs as well)")),
            faster => label.push_str(&format!(" ({} for what they pack as well)", faster.join(", "))),
        }
        label
    }

    /// Packs `from`, which passes `observer` on its way. Gives the packed stream, and the observer when all is done.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn compress<O: Observer>(
        &self,
        chain: &mut Chain,
        from: impl Read + Send + 'static,
        observer: O,
    ) -> Result<(Box<dyn Read + Send>, Pending<O>)> {
        if self.processes > 0 {
            return Ok(self.compress_in_parts(chain, from, observer));
        }
        let (stdin, stdout) = self.thorough()?.start(chain)?;
        let observer = chain.pump("packing", from, stdin, observer);
        Ok((Box::new(stdout), observer))
    }

    /// Packs parts of the stream in processes side by side and joins the members in order. In memory are at most, for each
    /// process, a part, its member and the member before that waits for its turn, and besides the part that is read and the
    /// member that is written.
    fn compress_in_parts<O: Observer>(
        &self,
        chain: &mut Chain,
        mut from: impl Read + Send + 'static,
        mut observer: O,
    ) -> (Box<dyn Read + Send>, Pending<O>) {
        let (runs, queue) = mpsc::sync_channel::<Run>(0);
        let queue = Arc::new(Mutex::new(queue));
        let part = part_size(self.processes);
        let buffers = Buffers::default();
        for _ in 0..self.processes {
            let (queue, buffers) = (Arc::clone(&queue), buffers.clone());
            let stall = chain.stall();
            chain.task("packing a part", move |clock| pack_runs(clock, &queue, &buffers, stall));
        }
        // The members' places in the file, in order. The queue's length is what bounds the memory.
        let (places, members) = mpsc::sync_channel(self.processes);
        let mut chooser = Chooser::new(self.candidates.clone(), self.measure.clone());
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
}

/// How much of the stream each of so many processes takes at a time.
fn part_size(processes: usize) -> usize {
    let (most, least) = PART;
    (MEMORY / (2 * processes + 6)).clamp(least, most)
}

/// How many processes share a stream.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from).clamp(1, 8)
}

impl Tool {
    fn new(program: PathBuf, args: &str) -> Self {
        Self {
            program,
            args: args.split_whitespace().map(str::to_owned).collect(),
        }
    }

    fn label(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        [&[name.into_owned()], self.args.as_slice()].concat().join(" ")
    }

    fn command(&self) -> Command {
        let mut command = process::command(&self.program);
        // Both would change what the program does.
        command.args(&self.args).arg("-c").env_remove("GZIP").env_remove("PIGZ");
        command
    }

    /// Starts it in `chain`.
    fn start(&self, chain: &mut Chain) -> Result<(ChildInput, ChildOutput)> {
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
    fn try_on(&self, sample: &[u8]) -> Result<i64> {
        let mut chain = Chain::new(STALL_OF_A_SAMPLE);
        let (stdin, stdout) = self.start(&mut chain)?;
        chain.pump("trying a sample", io::Cursor::new(sample.to_vec()), stdin, ());
        let packed = chain.pump("reading a packed sample", stdout, io::sink(), Count::default());
        chain.finish()?;
        i64::try_from(packed.get()?.0).context("a sample does not get so large")
    }
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

/// A sample is in memory and goes to a local program, which has no reason to stop for long.
const STALL_OF_A_SAMPLE: Duration = Duration::from_secs(120);
/// How often the clock of a process is wound up that waits for its next part: what the source does is not its fault.
const WAIT_FOR_A_PART: Duration = Duration::from_secs(1);

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
        chain.finish()
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

/// Fills `buffer` with the next `size` bytes, or with all that are left, and shows `seen` each of the pieces that it takes.
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
    /// Where the pieces of the member that is read come from.
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
            // A worker died with its part; what follows it must not close the gap.
            let piece = place.recv().map_err(|_| io::Error::from(ErrorKind::UnexpectedEof))?;
            if !piece.is_empty() {
                self.place = Some(place);
                let written = std::mem::replace(&mut self.current, io::Cursor::new(piece));
                self.buffers.pieces.give(written.into_inner());
            }
        }
    }
}

/// Unpacks `file` by the fastest program on this host, whatever packed it.
///
/// # Errors
/// When there is none.
pub fn decompress_file(chain: &mut Chain, file: File, path: Option<&OsString>) -> Result<ChildOutput> {
    Ok(spawn_decompressor(chain, Input::From(Stdio::from(file)), path)?.1)
}

/// As [`decompress_file`], for a stream.
///
/// # Errors
/// As [`decompress_file`].
pub fn decompress(chain: &mut Chain, from: impl Read + Send + 'static, path: Option<&OsString>) -> Result<ChildOutput> {
    let (to, unpacked) = spawn_decompressor(chain, Input::Piped, path)?;
    let to = to.context("the decompressor has no input")?;
    chain.pump("unpacking", from, Outlived { to, lost: None }, ());
    Ok(unpacked)
}

/// Takes bytes to their end also when their reader has gone before, and tells that then: a decompressor ends at the first byte
/// that is wrong, and who gave it that byte (gpg, of a damaged message) says what is wrong at its own end only.
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
    let program = program
        .or_else(|| find("gzip", path))
        .ok_or(Missing("No gzip program found: install gzip"))?;
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
    ///
    /// # Errors
    /// When there is none.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    const STALL: Duration = Duration::from_secs(20);

    fn tool(name: &str, args: &str) -> Tool {
        Tool::new(PathBuf::from("/bin").join(name), args)
    }

    fn candidate(args: &str) -> Candidate {
        Candidate {
            tool: tool("gzip", args),
            keeps_up: false,
        }
    }

    fn gzip(processes: usize) -> Compressor {
        Compressor {
            candidates: vec![candidate("-1")],
            measure: None,
            processes,
        }
    }

    /// Bytes that pack neither well nor badly.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
                b'a' + (state >> 27) as u8
            })
            .collect()
    }

    fn round_trip(compressor: &Compressor, data: Vec<u8>) -> Vec<u8> {
        let len = data.len() as u64;
        let mut chain = Chain::new(STALL);
        let (packed, count) = compressor
            .compress(&mut chain, io::Cursor::new(data), Count::default())
            .unwrap();
        let packed = chain.collect("collecting", packed, 64 << 20);
        chain.finish().unwrap();
        assert_eq!(count.get().unwrap().0, len);
        let unpack = process::output(
            "gzip",
            {
                let mut c = process::command("gzip");
                c.arg("-dc");
                c
            },
            Some(packed.get().unwrap()),
            STALL,
        );
        let unpacked = unpack.unwrap();
        assert!(unpacked.success, "{}", unpacked.stderr);
        unpacked.stdout
    }

    #[test]
    fn parts_come_back_in_order() {
        for processes in [1, 3] {
            let part = part_size(processes);
            for len in [0, 1, part - 1, part, part + 1, 3 * part + 17] {
                let data = noise(len);
                assert!(round_trip(&gzip(processes), data.clone()) == data, "{len} {processes}");
            }
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_processors() {
        for processes in 1..=8 {
            let part = part_size(processes);
            assert!((2 * processes + 6) * part <= MEMORY, "{processes}");
            assert!(choice::sample(&vec![0; part]).is_some(), "{processes}");
        }
    }

    #[test]
    fn one_process_packs_alone() {
        let data = noise(1 << 20);
        assert!(round_trip(&gzip(0), data.clone()) == data);
    }

    #[test]
    fn a_compressor_that_fails_is_a_failure() {
        let bad = Compressor {
            candidates: vec![candidate("--no-such-option")],
            ..gzip(2)
        };
        let mut chain = Chain::new(STALL);
        let (packed, _) = bad
            .compress(&mut chain, io::Cursor::new(noise(3 * PART.0)), ())
            .unwrap();
        chain.pump("writing", packed, io::sink(), ());
        let error = format!("{:#}", chain.finish().unwrap_err());
        assert!(
            error.contains("no-such-option") || error.contains("unrecognized option"),
            "{error}"
        );
    }

    /// What takes the archive fails while parts are packed: that is told, not what it does to the compressors.
    #[test]
    fn a_full_disk_is_the_cause_and_not_what_follows_from_it() {
        for _ in 0..10 {
            let mut chain = Chain::new(STALL);
            let data = io::Cursor::new(noise(8 * PART.0));
            let (packed, _) = gzip(2).compress(&mut chain, data, ()).unwrap();
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            chain.pump("writing", packed, full, ());
            let error = format!("{:#}", chain.finish().unwrap_err());
            assert!(error.contains("No space left on device"), "{error}");
        }
    }

    #[test]
    fn the_setting_names_a_program_with_arguments() {
        let chosen = Compressor::choose("gzip -3", None).unwrap();
        assert_eq!(chosen.thorough().unwrap().args, ["-3"]);
        assert!(chosen.label().starts_with("gzip -3"));
        assert!(Compressor::choose("/bin/gzip", None).is_ok());
        let missing = Compressor::choose("no-such-program-here", None)
            .unwrap_err()
            .to_string();
        assert!(missing.contains("no-such-program-here not found"), "{missing}");
        assert!(!Compressor::choose("auto", None).unwrap().label().is_empty());
    }

    #[test]
    fn auto_takes_the_best_of_what_is_there() {
        let auto = |there: &[&str]| {
            let find = |name: &str| there.contains(&name).then(|| PathBuf::from("/x").join(name));
            Compressor::auto(&find).map(|chosen| {
                Compressor {
                    processes: chosen.processes.min(1),
                    ..chosen
                }
                .label()
            })
        };
        assert_eq!(
            auto(&["gzip"]).unwrap(),
            "gzip -6 (gzip -1, gzip -4, gzip -5 for what they pack as well)"
        );
        assert_eq!(
            auto(&["gzip", "pigz"]).unwrap(),
            "pigz -6 -p 1 (pigz -1 -p 1, pigz -4 -p 1, pigz -5 -p 1 for what they pack as well)"
        );
        assert_eq!(
            auto(&["gzip", "igzip"]).unwrap(),
            "gzip -6 (igzip -1, gzip -1, gzip -4, gzip -5 for what they pack as well)"
        );
        assert_eq!(
            auto(&["gzip", "pigz", "igzip", "libdeflate-gzip"]).unwrap(),
            "libdeflate-gzip -6 (igzip -1, libdeflate-gzip -1, libdeflate-gzip -3 for what they pack as well)"
        );
        assert_eq!(auto(&["igzip"]).unwrap(), "igzip -1");
        assert_eq!(auto(&[]), None);
    }

    #[test]
    fn path_decides_among_the_programs() {
        let dir = TempDir::new();
        std::os::unix::fs::symlink("/bin/gzip", dir.path().join("gzip")).unwrap();
        let path = dir.path().as_os_str().to_owned();
        let chosen = Compressor::choose("auto", Some(&path)).unwrap();
        assert_eq!(chosen.thorough().unwrap().program, dir.path().join("gzip"));
        let programs = chosen
            .candidates
            .iter()
            .map(|candidate| &candidate.tool)
            .chain(&chosen.measure);
        assert!(programs.into_iter().all(|tool| tool.program.starts_with(dir.path())));
    }

    #[test]
    fn parts_that_different_programs_have_packed_make_one_file() {
        let both = Compressor {
            candidates: vec![
                Candidate {
                    keeps_up: true,
                    ..candidate("-1")
                },
                candidate("-9"),
            ],
            measure: Some(tool("gzip", "-9")),
            processes: 2,
        };
        let part = part_size(both.processes);
        let letters = noise(12 * part);
        let text: Vec<u8> = (0..2 * part as u32)
            .flat_map(|n| (n / 7).to_string().into_bytes())
            .collect();
        let data = [&letters[..], &text[..3 * part], &letters[..part], &text[..7]].concat();
        assert!(round_trip(&both, data.clone()) == data);
    }

    /// Words of a vocabulary, the first ones far more often than the last.
    fn prose(len: usize) -> Vec<u8> {
        let letters = noise(40_000);
        let vocabulary: Vec<&[u8]> = letters
            .chunks(8)
            .map(|word| &word[..2 + word[0] as usize % 7])
            .collect();
        let mut state = 7_u64;
        let mut text = Vec::with_capacity(len + 8);
        while text.len() < len {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let chance = (state >> 33) as f64 / f64::from(1_u32 << 31);
            text.extend(vocabulary[(chance.powi(3) * vocabulary.len() as f64) as usize]);
            text.push(b' ');
        }
        text.truncate(len);
        text
    }

    /// Whatever programs this host has.
    #[test]
    fn an_archive_is_about_as_small_as_the_measure_makes_it() {
        let auto = Compressor::choose("auto", None).unwrap();
        let part = part_size(auto.processes.max(1));
        let (letters, text) = (noise(16 * part), prose(16 * part));
        let turns: Vec<u8> = letters
            .chunks(5 * part / 4)
            .zip(text.chunks(5 * part / 4))
            .flat_map(|(a, b)| [a, b].concat())
            .collect();
        for (what, data) in [
            ("letters, then text", [&letters[..], &text].concat()),
            ("text, then letters", [&text[..], &letters].concat()),
            ("by turns", turns),
        ] {
            let packed = |compressor: &Compressor| {
                let mut chain = Chain::new(STALL);
                let (packed, _) = compressor
                    .compress(&mut chain, io::Cursor::new(data.clone()), ())
                    .unwrap();
                let count = chain.pump("counting", packed, io::sink(), Count::default());
                chain.finish().unwrap();
                count.get().unwrap().0
            };
            let alone = Compressor {
                candidates: vec![candidate("-6")],
                measure: None,
                processes: 0,
            };
            let (ours, least) = (packed(&auto), packed(&alone));
            assert!(
                ours * 100 <= least * 102,
                "{what}: {ours} bytes, by gzip -6 alone {least}"
            );
        }
    }

    #[test]
    fn what_passes_by_is_unpacked_and_a_damaged_stream_is_a_failure() {
        let packed = process::output("gzip", Tool::command(&tool("gzip", "-1")), Some(noise(100_000)), STALL).unwrap();
        for (stream, whole) in [
            (packed.stdout.clone(), true),
            (packed.stdout[..packed.stdout.len() - 1].to_vec(), false),
            ([packed.stdout.as_slice(), packed.stdout.as_slice()].concat(), true),
        ] {
            let mut chain = Chain::new(STALL);
            let times = stream.len() / packed.stdout.len();
            let (unpacking, count) = Unpacking::start(&mut chain, None).unwrap();
            chain.pump("writing", io::Cursor::new(stream), io::sink(), unpacking);
            assert_eq!(chain.finish().is_ok(), whole);
            if whole {
                assert_eq!(count.get().unwrap().0, 100_000 * times as u64);
            }
        }
    }
}
