//! Compression: which program packs and unpacks, and how. Whatever is chosen, the result is a standard .gz file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::pipeline::{self, find, Chain, Clock, Input, Observer, Pending};

/// How much of the stream one of the parallel gzip processes takes. Each makes a gzip member of its own; a file of
/// several members is a standard .gz file (RFC 1952, section 2.2).
const PART: usize = 4 << 20;

/// A program that packs standard input to standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressor {
    program: PathBuf,
    args: Vec<String>,
    /// How many processes share the work, each with a part of the stream; 1 for a program that does it alone.
    processes: usize,
}

impl Compressor {
    /// Chooses by the setting `BACKUP_COMPRESSOR`: `auto` (the fastest on this host), or a program, by name or path,
    /// with arguments. No shell reads it: blanks part the words.
    ///
    /// # Errors
    /// When the named program is not on this host, or there is none at all.
    pub fn choose(setting: &str, path: Option<&OsString>) -> Result<Self> {
        let mut words = setting.split_whitespace().map(str::to_owned);
        let name = words.next().unwrap_or_else(|| "auto".to_owned());
        let args: Vec<String> = words.collect();
        if name == "auto" {
            for name in ["igzip", "pigz", "gzip"] {
                if let Some(program) = find(name, path) {
                    return Ok(Self::of(program, Vec::new()));
                }
            }
            bail!("No gzip program found: install gzip, or name one as BACKUP_COMPRESSOR in .env");
        }
        match find(&name, path) {
            Some(program) => Ok(Self::of(program, args)),
            None => bail!("Compressor {name} not found: install it, or set BACKUP_COMPRESSOR=auto in .env"),
        }
    }

    /// `program` with its usual level unless the arguments name one.
    fn of(program: PathBuf, mut args: Vec<String>) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (level, processes) = match program.file_name().and_then(|name| name.to_str()) {
            Some("igzip") => ("-1", 1),
            Some("pigz") => ("-6", 1),
            Some("gzip") => ("-6", cores.clamp(1, 8)),
            _ => ("", 1),
        };
        if args.is_empty() && !level.is_empty() {
            args.push(level.to_owned());
        }
        Self {
            program,
            args,
            processes,
        }
    }

    /// What the log says is used: `igzip -1`, `gzip -6 in 2 processes`.
    pub fn label(&self) -> String {
        let mut label = self
            .program
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        for arg in &self.args {
            label.push(' ');
            label.push_str(arg);
        }
        if self.processes > 1 {
            label.push_str(&format!(" in {} processes", self.processes));
        }
        label
    }

    fn command(&self) -> std::process::Command {
        let mut command = pipeline::command(&self.program);
        // Both would change what the program does.
        command.args(&self.args).arg("-c").env_remove("GZIP").env_remove("PIGZ");
        command
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
        if self.processes > 1 {
            return Ok(self.compress_in_parts(chain, from, observer));
        }
        let (stdin, stdout) = chain.spawn(self.label(), self.command(), Input::Piped)?;
        let stdin = stdin.context("the compressor has no input")?;
        let observer = chain.pump("packing", from, stdin, observer);
        Ok((Box::new(stdout), observer))
    }

    /// Packs parts of the stream in processes side by side and joins the members in order. At most two parts for each
    /// process are held in memory.
    fn compress_in_parts<O: Observer>(
        &self,
        chain: &mut Chain,
        mut from: impl Read + Send + 'static,
        mut observer: O,
    ) -> (Box<dyn Read + Send>, Pending<O>) {
        let (parts, queue) = mpsc::sync_channel::<(u64, Vec<u8>)>(0);
        let queue = Arc::new(Mutex::new(queue));
        let (members, packed) = mpsc::sync_channel::<(u64, Vec<u8>)>(0);
        for _ in 0..self.processes {
            let (queue, members, compressor) = (Arc::clone(&queue), members.clone(), self.clone());
            chain.task("packing a part", move |clock| {
                compressor.pack_parts(clock, &queue, &members)
            });
        }
        let observer = chain.task("packing", move |clock| {
            let mut number = 0;
            loop {
                let part = read_part(&mut from, &mut observer, clock)?;
                // An empty stream still makes one (empty) member.
                if part.is_empty() && number > 0 {
                    observer.end()?;
                    return Ok(observer);
                }
                let last = part.len() < PART;
                if parts.send((number, part)).is_err() {
                    return Err(io::Error::from(ErrorKind::BrokenPipe).into());
                }
                if last {
                    observer.end()?;
                    return Ok(observer);
                }
                number += 1;
            }
        });
        let joined = Joined {
            packed,
            waiting: BTreeMap::new(),
            next: 0,
            current: io::Cursor::new(Vec::new()),
        };
        (Box::new(joined), observer)
    }

    /// Takes parts off the queue and packs each in a process of its own.
    fn pack_parts(
        &self,
        clock: &Clock,
        queue: &Mutex<Receiver<(u64, Vec<u8>)>>,
        members: &SyncSender<(u64, Vec<u8>)>,
    ) -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((number, part)) = next else { return Ok(()) };
            let mut chain = Chain::new(STALL_OF_A_PART);
            let (stdin, stdout) = chain.spawn(self.label(), self.command(), Input::Piped)?;
            let stdin = stdin.context("the compressor has no input")?;
            chain.pump("packing a part", io::Cursor::new(part), stdin, ());
            let member = chain.collect("reading a packed part", stdout, 2 * PART);
            chain.finish()?;
            clock.tick();
            if members.send((number, member.get()?)).is_err() {
                return Err(io::Error::from(ErrorKind::BrokenPipe).into());
            }
        }
    }
}

/// A part is in memory and goes to a local program, which has no reason to stop for long.
const STALL_OF_A_PART: Duration = Duration::from_secs(120);

/// Reads up to [`PART`] bytes; fewer only at the end of the stream.
fn read_part(from: &mut impl Read, observer: &mut impl Observer, clock: &Clock) -> Result<Vec<u8>> {
    let mut part = vec![0; PART];
    let mut filled = 0;
    while filled < PART {
        let end = PART.min(filled + pipeline::BLOCK);
        match from.read(&mut part[filled..end]) {
            Ok(0) => break,
            Ok(n) => {
                clock.tick();
                observer.feed(&part[filled..filled + n])?;
                filled += n;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    part.truncate(filled);
    Ok(part)
}

/// The packed members in the order of their parts.
struct Joined {
    packed: Receiver<(u64, Vec<u8>)>,
    waiting: BTreeMap<u64, Vec<u8>>,
    next: u64,
    current: io::Cursor<Vec<u8>>,
}

impl Read for Joined {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.current.read(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            if let Some(member) = self.waiting.remove(&self.next) {
                self.next += 1;
                self.current = io::Cursor::new(member);
                continue;
            }
            match self.packed.recv() {
                Ok((number, member)) => {
                    self.waiting.insert(number, member);
                }
                Err(_) if self.waiting.is_empty() => return Ok(0),
                // A worker died with its part; what follows it must not close the gap.
                Err(_) => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// Unpacks `from` (a file or a pipe) by the fastest program on this host, whatever packed it.
///
/// # Errors
/// When there is none.
pub fn decompress(
    chain: &mut Chain,
    from: impl Into<Stdio>,
    path: Option<&OsString>,
) -> Result<impl Read + Send + 'static> {
    let program = ["igzip", "pigz", "gzip"].into_iter().find_map(|name| find(name, path));
    let program = program.context("No gzip program found: install gzip")?;
    let mut command = pipeline::command(&program);
    command.arg("-dc").env_remove("GZIP").env_remove("PIGZ");
    let name = program
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let (_, stdout) = chain.spawn(format!("{name} -dc"), command, Input::From(from.into()))?;
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Count;

    const STALL: Duration = Duration::from_secs(20);

    fn gzip(processes: usize) -> Compressor {
        Compressor {
            program: PathBuf::from("/bin/gzip"),
            args: vec!["-1".to_owned()],
            processes,
        }
    }

    /// Bytes that pack neither well nor badly.
    fn sample(len: usize) -> Vec<u8> {
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
        let unpack = pipeline::output(
            "gzip",
            {
                let mut c = pipeline::command("gzip");
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
        for len in [0, 1, PART - 1, PART, PART + 1, 3 * PART + 17] {
            let data = sample(len);
            assert!(round_trip(&gzip(3), data.clone()) == data, "{len}");
        }
    }

    #[test]
    fn one_process_packs_alone() {
        let data = sample(1 << 20);
        assert!(round_trip(&gzip(1), data.clone()) == data);
    }

    #[test]
    fn a_compressor_that_fails_is_a_failure() {
        let bad = Compressor {
            args: vec!["--no-such-option".to_owned()],
            ..gzip(2)
        };
        let mut chain = Chain::new(STALL);
        let (packed, _) = bad.compress(&mut chain, io::Cursor::new(sample(3 * PART)), ()).unwrap();
        chain.pump("writing", packed, io::sink(), ());
        let error = format!("{:#}", chain.finish().unwrap_err());
        assert!(
            error.contains("no-such-option") || error.contains("unrecognized option"),
            "{error}"
        );
    }

    #[test]
    fn the_setting_names_a_program_with_arguments() {
        let chosen = Compressor::choose("gzip -3", None).unwrap();
        assert_eq!(chosen.args, ["-3"]);
        assert!(chosen.label().starts_with("gzip -3"));
        assert!(Compressor::choose("/bin/gzip", None).is_ok());
        let missing = Compressor::choose("no-such-program-here", None)
            .unwrap_err()
            .to_string();
        assert!(missing.contains("no-such-program-here not found"), "{missing}");
        assert!(!Compressor::choose("auto", None).unwrap().label().is_empty());
    }
}
