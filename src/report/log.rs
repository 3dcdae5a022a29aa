//! The log line: `[LEVEL] YYYY-MM-DD HH:MM:SS [command] message`, to standard output and, appended, to the log file.
//!
//! Each event is one line of ASCII. A line is written once even when standard output is the log file already, as it is
//! under the crontab line `... >> logs/backup.log 2>&1`.

use std::collections::VecDeque;
use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use log::Level;

use crate::process::hint_of;
use crate::store::{atomic, make_dir};

pub use crate::formats::text::ascii;

/// Marks a record of level INFO as SUCCESS, a level that the `log` crate does not have. It stands before the tag in the
/// record's target.
const SUCCESS: &str = "success:";

/// What failed beside the work itself since the log was opened, for [`failure`].
static FAILURE: Mutex<Option<String>> = Mutex::new(None);
/// Set once the first line has gone out: from then on a broken standard output no longer stops a run.
static STARTED: AtomicBool = AtomicBool::new(false);
/// Set when a line was lost to the file or to standard output, and the latter has not taken it.
static UNHEARD: AtomicBool = AtomicBool::new(false);
/// The last lines, for [`recent`].
static RECENT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
/// How many lines [`recent`] gives.
const RECENT_LINES: usize = 100;
/// How much of a log [`recall`] reads.
const RECALLED_BYTES: u64 = 64 * 1024;
/// Set by [`set_verbose`].
static VERBOSE: AtomicBool = AtomicBool::new(false);
/// How a line begins that is for `-v` alone.
const TRACE: &str = "+ ";
/// Where the lines of this run are, for [`place`].
static PLACE: OnceLock<Place> = OnceLock::new();
/// Set by [`begin_lines_with`].
static LINE_START: OnceLock<fn() -> &'static str> = OnceLock::new();

/// Writes the events of one command, tagged with its name.
#[derive(Clone, Copy, Debug)]
pub struct Journal {
    tag: &'static str,
}

impl Journal {
    /// A journal for the command `tag`, such as `backup-postgres`.
    pub const fn new(tag: &'static str) -> Self {
        Self { tag }
    }

    /// Logs a step.
    pub fn info(&self, message: impl Display) {
        log::info!(target: self.tag, "{message}");
    }

    /// Logs that the work is done and proven.
    pub fn success(&self, message: impl Display) {
        log::info!(target: &format!("{SUCCESS}{}", self.tag), "{message}");
    }

    /// Logs what needs attention and does not stop the work.
    pub fn warn(&self, message: impl Display) {
        log::warn!(target: self.tag, "{message}");
    }

    /// Logs a failure.
    pub fn error(&self, message: impl Display) {
        log::error!(target: self.tag, "{message}");
    }

    /// Logs a failure: the outermost message on a line of its own, the causes on the next, then what to do.
    pub fn failure(&self, error: &anyhow::Error) {
        self.error(error);
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        if !causes.is_empty() {
            self.error(format_args!("Cause: {}", causes.join(": ")));
        }
        if let Some(hint) = hint_of(error) {
            self.error(format_args!("Hint: {hint}"));
        }
    }

    /// Logs an error that does not stop the work, and what to do.
    pub fn warning(&self, error: &anyhow::Error) {
        self.warn(format_args!("{error:#}"));
        if let Some(hint) = hint_of(error) {
            self.warn(format_args!("Hint: {hint}"));
        }
    }
}

/// Where the lines go.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// The file that lines are appended to; made, mode 600, with its directory, when it is missing.
    pub file: Option<&'a Path>,
    /// Keeps INFO and SUCCESS lines off standard output; the file gets them all.
    pub quiet: bool,
}

/// Where the lines of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The log file.
    pub path: PathBuf,
    /// How long it was before the first of them.
    pub from: u64,
}

/// Opens the log. To be called once, before the first line.
pub fn init(options: &Options<'_>) -> Result<()> {
    let file = options.file.map(open_append).transpose()?.flatten();
    let stdout = !file.as_ref().is_some_and(|file| is_stdout(file.metadata()));
    if let (Some(path), Some(file)) = (options.file, &file) {
        let from = file.metadata().map_or(0, |meta| meta.len());
        let _ = PLACE.set(Place {
            path: path.to_owned(),
            from,
        });
    }
    env_logger::Builder::new()
        .filter_level(match VERBOSE.load(Ordering::Relaxed) {
            true => log::LevelFilter::Trace,
            false => log::LevelFilter::Info,
        })
        .format(|out, record| {
            if record.level() == Level::Trace {
                return writeln!(out, "{TRACE}{}", ascii(&record.args().to_string()));
            }
            let (level, tag) = match record.target().strip_prefix(SUCCESS) {
                Some(tag) => ("SUCCESS", tag),
                None => (name(record.level()), record.target()),
            };
            let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S");
            writeln!(out, "[{level}] {now} [{tag}] {}", ascii(&record.args().to_string()))
        })
        .target(env_logger::Target::Pipe(Box::new(Sink {
            stdout: stdout.then(|| Printer::start(io::stdout(), PATIENCE)),
            quiet: options.quiet,
            file: file.map(|file| (file, options.file.unwrap_or(Path::new("")).display().to_string())),
        })))
        .try_init()
        .context("could not start the log")
}

/// The first write that failed since [`init`], or an internal error, as a sentence, if there was one. It is a failure of
/// the run, though not of its backups.
pub fn failure() -> Option<String> {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Checks that the first lines arrived: a standard output that is closed, or a log on a full disk, is told before work
/// begins. Only the first call checks; what fails later must not cost a backup.
pub fn check_started() -> Result<()> {
    if STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    match failure() {
        Some(what) => bail!("{what}"),
        None => Ok(()),
    }
}

/// As [`check_started`], but a log file that takes nothing will do where standard output has taken the lines: for what
/// makes room on a full disk. That the file lacks them is a [`failure`] of the run all the same.
pub fn check_heard() -> Result<()> {
    if UNHEARD.load(Ordering::Relaxed) {
        return check_started();
    }
    STARTED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Logs an internal error, which fails the run wherever it happened.
pub fn internal_error(tag: &str, what: &str) {
    if log::log_enabled!(target: tag, Level::Error) {
        log::error!(target: tag, "{what}");
    } else {
        eprint_bounded(&format!("[ERROR] [{tag}] {}\n", ascii(what)));
    }
    let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    failure.get_or_insert_with(|| what.to_owned());
}

/// Where the lines of this run are, when they go to a file.
pub fn place() -> Option<&'static Place> {
    PLACE.get()
}

/// Takes the lines at `place`, which another process has logged, for [`recent`].
pub fn recall(place: &Place) -> io::Result<()> {
    let mut file = atomic::open(&place.path)?;
    let length = file.metadata()?.len();
    // A file that has become shorter has been rotated.
    let from = if length < place.from { 0 } else { place.from };
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(RECALLED_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(RECALLED_BYTES).read_to_end(&mut bytes)?;
    for line in String::from_utf8_lossy(&bytes).lines() {
        remember(line);
    }
    Ok(())
}

/// Keeps a line for [`recent`].
fn remember(line: &str) {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() == RECENT_LINES {
        recent.pop_front();
    }
    recent.push_back(line.trim_end().to_owned());
}

/// The last lines that were logged, oldest first.
pub fn recent() -> Vec<String> {
    let recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.iter().cloned().collect()
}

/// Has each line on standard output begin with what `start` gives then: what shares the terminal with the log clears
/// its own line so.
pub fn begin_lines_with(start: fn() -> &'static str) {
    let _ = LINE_START.set(start);
}

/// Has [`init`] let records of level TRACE through, which go to standard error and not to the log.
pub fn set_verbose(on: bool) {
    VERBOSE.store(on, Ordering::Relaxed);
}

/// Opens `path` for appending; directory and file are made when missing. None where it leads to the pipe that standard output
/// is: the lines are written there once.
fn open_append(path: &Path) -> Result<Option<File>> {
    let dir = path.parent().unwrap_or(Path::new("."));
    make_dir(dir).with_context(|| format!("Cannot create log directory {}", dir.display()))?;
    let context = || format!("Cannot write log file {}", path.display());
    // A device such as /dev/null does as a log; a pipe that nobody reads would hold the run.
    let serves = |meta: &Metadata| meta.is_file() || meta.file_type().is_char_device();
    let there = path.metadata();
    if there.as_ref().is_ok_and(|meta| meta.file_type().is_fifo()) && is_stdout(path.metadata()) {
        return Ok(None);
    }
    atomic::check(!there.as_ref().is_ok_and(|meta| !serves(meta))).with_context(context)?;
    let device = there.is_ok_and(|meta| !meta.is_file());
    let mut options = OpenOptions::new();
    options
        .append(true)
        .mode(0o600)
        .custom_flags(if device { 0 } else { atomic::NONBLOCK });
    let file = match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // What root makes must not stop the user's next run.
            atomic::give(&file, dir).with_context(context)?;
            file
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            atomic::check_link(path).with_context(context)?;
            options.create(path.is_symlink()).open(path).with_context(context)?
        }
        Err(error) => return Err(error).with_context(context),
    };
    atomic::check(serves(&file.metadata().with_context(context)?)).with_context(context)?;
    Ok(Some(file))
}

/// Whether standard output is this very file.
fn is_stdout(file: io::Result<Metadata>) -> bool {
    let id = |meta: Metadata| (meta.dev(), meta.ino());
    let stdout = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|stdout| File::from(stdout).metadata());
    matches!((stdout.map(id), file.map(id)), (Ok(a), Ok(b)) if a == b)
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        _ => "INFO",
    }
}

/// `text` with each of its lines as [`ascii`] makes it.
pub fn ascii_lines(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => ascii(line) + "\n",
            None => ascii(line),
        })
        .collect()
}

/// How long standard output may take a line: a pipe that is full and that nobody reads must not hold a run and its lock.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for standard error, where nothing is said that the log does not hold.
const PATIENCE_WITH_STDERR: Duration = Duration::from_secs(3);

/// Writes to standard output, or standard error, in a thread of its own, which alone stands still with it.
struct Printer {
    lines: Sender<Vec<u8>>,
    written: Receiver<io::Result<()>>,
    patience: Duration,
}

impl Printer {
    fn start(mut to: impl Write + Send + 'static, patience: Duration) -> Self {
        let (lines, queue) = mpsc::channel::<Vec<u8>>();
        let (outcome, written) = mpsc::channel();
        thread::spawn(move || {
            for line in queue {
                let done = to.write_all(&line).and_then(|()| to.flush());
                if outcome.send(done).is_err() {
                    return;
                }
            }
        });
        Self {
            lines,
            written,
            patience,
        }
    }

    fn print(&self, line: &[u8]) -> io::Result<()> {
        let _ = self.lines.send(line.to_owned());
        self.written.recv_timeout(self.patience).unwrap_or_else(|_| {
            let what = format!("nobody took a line for {} s", self.patience.as_secs());
            Err(io::Error::new(ErrorKind::TimedOut, what))
        })
    }
}

/// What is known of standard error.
enum Stderr {
    Unused,
    Open(Printer),
    /// Nobody took a line.
    GivenUp,
}

static STDERR: Mutex<Stderr> = Mutex::new(Stderr::Unused);

/// Writes whole lines to standard error, until once nobody takes them.
pub fn eprint_bounded(lines: &str) {
    let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*stderr, Stderr::Unused) {
        *stderr = Stderr::Open(Printer::start(io::stderr(), PATIENCE_WITH_STDERR));
    }
    let Stderr::Open(printer) = &*stderr else { return };
    let done = printer.print(lines.as_bytes());
    if done.is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
        *stderr = Stderr::GivenUp;
    }
}

/// Takes whole lines from env_logger and passes them on.
struct Sink {
    stdout: Option<Printer>,
    quiet: bool,
    file: Option<(File, String)>,
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.starts_with(TRACE.as_bytes()) {
            eprint_bounded(&String::from_utf8_lossy(line));
            return Ok(line.len());
        }
        let chatter = line.starts_with(b"[INFO]") || line.starts_with(b"[SUCCESS]");
        remember(&String::from_utf8_lossy(line));
        let (mut printed, mut stdout_failed) = (false, None);
        if let Some(printer) = self.stdout.as_ref().filter(|_| !(self.quiet && chatter)) {
            let start = LINE_START.get().map_or("", |start| start());
            match printer.print(&[start.as_bytes(), line].concat()) {
                Ok(()) => printed = true,
                Err(error) => {
                    stdout_failed = Some(format!("Cannot write to standard output: {error}"));
                    if error.kind() == ErrorKind::TimedOut {
                        self.stdout = None;
                    }
                }
            }
        }
        if let Some((file, path)) = &mut self.file {
            if let Err(error) = file.write_all(line) {
                UNHEARD.fetch_or(!printed, Ordering::Relaxed);
                record_failure(format!("Cannot write log file {path}: {error}"));
            }
        }
        // A reader that goes away later must not cost a backup that is under way.
        if let Some(what) = stdout_failed {
            if !STARTED.load(Ordering::Relaxed) || self.file.is_none() {
                UNHEARD.store(true, Ordering::Relaxed);
                record_failure(what);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps the first failure, and says it where it may still be read.
fn record_failure(what: String) {
    let line = format!("[ERROR] {}\n", ascii(&what));
    {
        let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            return;
        }
        *failure = Some(what);
    }
    eprint_bounded(&line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn the_lines_of_another_process_are_recalled() {
        let dir = TempDir::new();
        let place = |from| Place {
            path: dir.path().join("log"),
            from,
        };
        std::fs::write(dir.path().join("log"), "older\nfirst\nsecond\n").unwrap();
        recall(&place(6)).unwrap();
        assert_eq!(recent(), ["first", "second"]);
        // Rotated meanwhile.
        recall(&place(600)).unwrap();
        assert_eq!(recent(), ["first", "second", "older", "first", "second"]);
        std::fs::write(dir.path().join("log"), "x".repeat(99) + "\n").unwrap();
        for _ in 0..=RECENT_LINES {
            recall(&place(0)).unwrap();
        }
        assert_eq!(recent().len(), RECENT_LINES);
    }

    #[test]
    fn a_message_is_one_line_of_ascii() {
        assert_eq!(ascii("a b"), "a b");
        assert_eq!(ascii("a\nb\r\u{1b}[31m\u{e4}"), "a\\nb\\r\\u{1b}[31m\\u{e4}");
    }
}
