//! Chains of child processes with one verdict.
//!
//! A [`Chain`] holds the processes and threads that a stream runs through. It drains every child's standard error, keeps
//! a stall clock that any moved byte winds up, and ends everything when one part fails, when nothing has moved for too
//! long, or when it is dropped. [`Chain::finish`] then tells the one cause, not its consequences.
//!
//! An exit status proves little (a docker client that is terminated leaves 0 behind), so the callers look for proof of
//! completion in the stream itself, as an [`Observer`].

mod link;
pub mod priority;

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Error, Result};

use crate::report::log;

use link::Link;
pub use link::{ChildInput, ChildOutput};

/// How many bytes a pump moves at a time.
pub const BLOCK: usize = 256 * 1024;
/// How much of a child's standard error is kept: its last lines.
const STDERR_LINES: usize = 8;
const STDERR_LINE_BYTES: usize = 400;
/// How long an ended or killed process may take to let go of its pipes.
const GRACE: Duration = Duration::from_secs(5);
/// Settings that no child inherits: what is secret goes to the one process that needs it, by a pipe.
const SECRETS: [&str; 6] = [
    "REDIS_PASSWORD",
    "REDISCLI_AUTH",
    "BACKUP_GPG_PASSPHRASE",
    "N8N_ENCRYPTION_KEY",
    "POSTGRES_PASSWORD",
    "BACKUP_PING_URL",
];

/// How the names begin under which rclone and its kin find the access to a cloud.
const CLOUD_PREFIXES: [&str; 6] = ["RCLONE_", "AWS_", "AZURE_", "GOOGLE_", "OS_", "OCI_"];
/// How names of secrets end.
const SECRET_SUFFIXES: [&str; 6] = ["_PASSWORD", "_PASSPHRASE", "_PASS", "_SECRET", "_TOKEN", "_KEY"];

/// A command for `program` in the C locale, in a process group of its own (a terminal's Ctrl-C ends us, and our end ends
/// the children in good order), without the secrets that our own environment may hold.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    command_keeping(program, |_| false)
}

/// As [`command`], but `program` gets those variables whose name `keeps` takes, too. [`SECRETS`] it never gets.
pub fn command_keeping(program: impl AsRef<OsStr>, keeps: impl Fn(&str) -> bool) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").process_group(0);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| is_secret(name) && !keeps(name)) {
            command.env_remove(name);
        }
    }
    for name in SECRETS {
        command.env_remove(name);
    }
    command
}

/// Whether a variable of this name may hold something that no other program needs to see.
fn is_secret(name: &str) -> bool {
    is_cloud(name) || SECRET_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a variable of this name is one of those by which rclone reaches a cloud.
pub fn is_cloud(name: &str) -> bool {
    CLOUD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Where programs are on every host.
const USUAL_PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];

/// Finds `name` (or a path to a program) on `path`, else in the directories that every host has.
pub fn find(name: &str, path: Option<&OsString>) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|file| is_executable(file));
    }
    path.and_then(|path| find_in(name, env::split_paths(path)))
        .or_else(|| find_in(name, USUAL_PLACES.map(PathBuf::from)))
}

/// Finds `name` on `path`; only where that is not set, in the directories that every host has. For a program that is one of
/// several, so that `path` decides.
pub fn find_on_path(name: &str, path: Option<&OsString>) -> Option<PathBuf> {
    match path {
        Some(path) => find_in(name, env::split_paths(path)),
        None => find_in(name, USUAL_PLACES.map(PathBuf::from)),
    }
}

fn find_in(name: &str, dirs: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    dirs.into_iter()
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// Whether `file` can be run by somebody.
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Looks at every byte that a pump moves.
pub trait Observer: Send + 'static {
    /// Takes the next bytes of the stream, cut anywhere.
    ///
    /// # Errors
    /// When the stream cannot be right any more; it ends the chain.
    fn feed(&mut self, chunk: &[u8]) -> Result<()>;

    /// Is told that the stream has ended.
    ///
    /// # Errors
    /// As for [`Observer::feed`].
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Observer for () {
    fn feed(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.0.feed(chunk)?;
        self.1.feed(chunk)
    }

    fn end(&mut self) -> Result<()> {
        self.0.end()?;
        self.1.end()
    }
}

/// Counts the bytes of a stream.
#[derive(Debug, Default)]
pub struct Count(pub u64);

impl Observer for Count {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.0 += chunk.len() as u64;
        Ok(())
    }
}

/// What a child reads.
pub enum Input {
    /// Nothing.
    Null,
    /// A file or another pipe.
    From(Stdio),
    /// What the caller writes.
    Piped,
    /// A pipe that the chain holds open for as long as it lives. A program in a container that is started under
    /// [`crate::engine::Docker::exec_leashed`] is ended when this pipe closes, so that it never outlives us.
    Leash,
}

/// Tells when bytes moved last, and how many have.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    moved_at: AtomicU64,
    ended: AtomicBool,
}

impl Clock {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            moved_at: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Says that something moved or answered just now.
    pub fn tick(&self) {
        self.moved_at
            .store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long nothing has moved.
    fn idle(&self) -> Duration {
        self.start
            .elapsed()
            .saturating_sub(Duration::from_millis(self.moved_at.load(Ordering::Relaxed)))
    }

    /// Whether the chain has been ended; a thread that waits for something should stop then.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// A started child.
struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    /// Set when we killed it, so that its status is a consequence and no cause.
    killed: bool,
    /// Set when we no longer read what it writes, with the same effect.
    abandoned: Arc<AtomicBool>,
    stderr: Arc<Mutex<Tail>>,
    stderr_closed: Receiver<()>,
    leash: Option<ChildStdin>,
}

/// The parts of a chain that its watchdog shares.
struct Shared {
    clock: Clock,
    processes: Mutex<Vec<Process>>,
    stalled: AtomicBool,
}

impl Shared {
    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills every process that still runs, with what it may have started.
    fn kill_all(&self) {
        self.clock.ended.store(true, Ordering::Relaxed);
        for process in self.processes().iter_mut() {
            if process.poll().is_none() {
                process.killed = true;
                let group = process.child.id();
                let _ = process.child.kill();
                kill_group(group);
            }
            process.leash = None;
        }
    }
}

impl Process {
    /// The exit status, when it has ended.
    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Whether it was ended for want of a reader.
    fn lost_its_reader(&self) -> bool {
        self.status.is_some_and(lost_its_reader) || self.abandoned.load(Ordering::Relaxed)
    }

    /// Whether it ended so because something else had failed.
    fn is_consequence(&self) -> bool {
        self.killed || self.lost_its_reader()
    }
}

/// Program and arguments as a shell would take them.
fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let quoted = words.map(|word| quoted(&word.to_string_lossy()));
    quoted.collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Ends what a killed child has left in its process group. std can signal a single process only, so this asks the
/// shell; a group that is gone already is no failure.
fn kill_group(group: u32) {
    let _ = command("sh")
        .args(["-c", "kill -s KILL -- \"-$1\"", "sh", &group.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// What is still to come from a thread of the chain.
#[derive(Debug)]
pub struct Pending<T>(Receiver<T>);

impl<T> Pending<T> {
    /// The thread's result. To be called after [`Chain::finish`] has found no fault.
    ///
    /// # Errors
    /// When the thread did not come to its end.
    pub fn get(self) -> Result<T> {
        self.0
            .try_recv()
            .map_err(|_| anyhow!("a step of the chain did not finish"))
    }
}

/// Processes and threads that one stream runs through.
pub struct Chain {
    shared: Arc<Shared>,
    stall: Duration,
    threads: Vec<(String, Receiver<Result<()>>)>,
    watchdog: Sender<()>,
}

impl Chain {
    /// An empty chain that is ended when nothing moves in it for `stall`.
    pub fn new(stall: Duration) -> Self {
        let shared = Arc::new(Shared {
            clock: Clock::new(),
            processes: Mutex::default(),
            stalled: AtomicBool::new(false),
        });
        let (watchdog, dismissed) = mpsc::channel();
        let watched = Arc::clone(&shared);
        thread::spawn(move || watch(&watched, stall, &dismissed));
        Self {
            shared,
            stall,
            threads: Vec::new(),
            watchdog,
        }
    }

    /// How long nothing may move.
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// Starts `command` as `name` (for messages). Standard output is handed back as a reader; standard input is handed
    /// back when it is [`Input::Piped`]. Both are pipes.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        command: Command,
        input: Input,
    ) -> Result<(Option<ChildInput>, ChildOutput)> {
        self.start(name.into(), command, input, Link::Pipe)
    }

    /// As [`Chain::spawn`], for many bytes: what is handed back are sockets, which carry them faster. Not for a program that
    /// may open `/dev/stdin`.
    ///
    /// # Errors
    /// As [`Chain::spawn`].
    pub fn stream(
        &mut self,
        name: impl Into<String>,
        command: Command,
        input: Input,
    ) -> Result<(Option<ChildInput>, ChildOutput)> {
        self.start(name.into(), command, input, Link::Socket)
    }

    fn start(
        &mut self,
        name: String,
        mut command: Command,
        input: Input,
        link: Link,
    ) -> Result<(Option<ChildInput>, ChildOutput)> {
        let leashed = matches!(input, Input::Leash);
        let abandoned = Arc::<AtomicBool>::default();
        let (mut to, mut from) = (None, None);
        command.stdin(match input {
            Input::Null => Stdio::null(),
            Input::From(from) => from,
            Input::Piped if link == Link::Socket => {
                let (ours, theirs) = link::socket()?;
                to = Some(ChildInput::from(ours));
                theirs
            }
            Input::Piped | Input::Leash => Stdio::piped(),
        });
        command.stdout(match link {
            Link::Pipe => Stdio::piped(),
            Link::Socket => {
                let (ours, theirs) = link::socket()?;
                from = Some(ChildOutput::socket(ours, Arc::clone(&abandoned))?);
                theirs
            }
        });
        log::trace(|| shown(&command));
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not execute {}", command.get_program().to_string_lossy()))?;
        // The command holds the child's ends of what it was given; a reader that waits for their end needs them gone.
        drop(command);
        let stdin = child.stdin.take();
        let piped = child
            .stdout
            .take()
            .map(|pipe| ChildOutput::pipe(pipe, Arc::clone(&abandoned)));
        let (Some(stdout), Some(stderr)) = (from.or(piped), child.stderr.take()) else {
            bail!("{name} was started without its pipes");
        };
        let tail = Arc::new(Mutex::new(Tail::default()));
        let (closed, stderr_closed) = mpsc::channel();
        let kept = Arc::clone(&tail);
        thread::spawn(move || {
            drain(stderr, &kept);
            let _ = closed.send(());
        });
        let (leash, stdin) = if leashed {
            (stdin, None)
        } else {
            (None, to.or(stdin.map(ChildInput::from)))
        };
        self.shared.processes().push(Process {
            name,
            child,
            status: None,
            killed: false,
            abandoned,
            stderr: tail,
            stderr_closed,
            leash,
        });
        Ok((stdin, stdout))
    }

    /// Has `alive` asked, when nothing has moved for half of the stall limit, whether the work goes on all the same (a
    /// server that builds an index moves no byte); its yes counts as movement.
    pub fn pulse(&self, alive: impl Fn() -> bool + Send + 'static) {
        let (shared, stall) = (Arc::downgrade(&self.shared), self.stall);
        thread::spawn(move || loop {
            thread::sleep((stall / 20).clamp(Duration::from_millis(10), Duration::from_secs(1)));
            let Some(shared) = shared.upgrade().filter(|shared| !shared.clock.ended()) else {
                return;
            };
            if shared.clock.idle() >= stall / 2 && alive() {
                shared.clock.tick();
            }
        });
    }

    /// Runs `work` in a thread of the chain. Its failure ends the chain.
    pub fn task<T: Send + 'static>(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce(&Clock) -> Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (result, pending) = mpsc::channel();
        let (verdict, outcome) = mpsc::channel();
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            let done = work(&shared.clock).map(|value| {
                let _ = result.send(value);
            });
            if done.as_ref().is_err_and(|error| !is_broken_pipe(error)) {
                shared.kill_all();
            }
            let _ = verdict.send(done);
        });
        self.threads.push((name.into(), outcome));
        Pending(pending)
    }

    /// Moves all of `from` to `to` in a thread of its own and drops both ends when done. `observer` sees what `to` has taken,
    /// and comes back when the stream has ended.
    pub fn pump<O: Observer>(
        &mut self,
        name: impl Into<String>,
        mut from: impl Read + Send + 'static,
        mut to: impl Write + Send + 'static,
        mut observer: O,
    ) -> Pending<O> {
        self.task(name, move |clock| {
            let mut block = vec![0; BLOCK];
            loop {
                let n = match from.read(&mut block) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error.into()),
                };
                clock.tick();
                to.write_all(&block[..n])?;
                clock.tick();
                observer.feed(&block[..n])?;
            }
            to.flush()?;
            observer.end()?;
            Ok(observer)
        })
    }

    /// Reads all of `from` in a thread, up to `limit` bytes; more is an error.
    pub fn collect(
        &mut self,
        name: impl Into<String>,
        mut from: impl Read + Send + 'static,
        limit: usize,
    ) -> Pending<Vec<u8>> {
        self.task(name, move |clock| {
            let mut all = Vec::new();
            let mut block = [0; 8192];
            loop {
                match from.read(&mut block) {
                    Ok(0) => return Ok(all),
                    Ok(n) if all.len() + n > limit => bail!("more than {limit} bytes of output"),
                    Ok(n) => all.extend_from_slice(&block[..n]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
                clock.tick();
            }
        })
    }

    /// Waits for everything, and gives one verdict.
    ///
    /// # Errors
    /// The cause, with the last lines of the children's standard error: that nothing moved for too long, else what
    /// failed in one of our own steps (a full disk, a stream that cannot be right), else the first child that failed.
    pub fn finish(mut self) -> Result<()> {
        let mut step = None;
        let mut broken_pipe = None;
        for (name, outcome) in std::mem::take(&mut self.threads) {
            match self.join(&outcome) {
                Ok(()) => {}
                Err(error) if is_broken_pipe(&error) => {
                    broken_pipe.get_or_insert(error.context(name));
                }
                Err(error) => {
                    step.get_or_insert(error.context(name));
                }
            }
        }
        if step.is_some() {
            self.shared.kill_all();
        }
        self.wait();
        if self.shared.stalled.load(Ordering::Relaxed) {
            return Err(self.with_stderr(Error::new(Stalled(self.stall))));
        }
        if let Some(error) = step {
            return Err(self.with_stderr(error));
        }
        let failed = |process: &&Process| process.status.is_none_or(|status| !status.success());
        let processes = self.shared.processes();
        if let Some(process) = processes
            .iter()
            .filter(failed)
            .min_by_key(|process| process.is_consequence())
        {
            let error = Error::new(Failed {
                status: process.status,
                lost_its_reader: process.lost_its_reader(),
            });
            let output = process.stderr.lock().unwrap_or_else(PoisonError::into_inner).text();
            return Err(match output.as_str() {
                "" => error.context(format!("{} failed", process.name)),
                output => error
                    .context(output.to_owned())
                    .context(format!("{} failed", process.name)),
            });
        }
        match broken_pipe {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Takes a thread's outcome; a thread that does not end though all processes are dead is given up.
    fn join(&self, outcome: &Receiver<Result<()>>) -> Result<()> {
        loop {
            match outcome.recv_timeout(Duration::from_millis(500)) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Disconnected) => bail!("a thread panicked"),
                Err(RecvTimeoutError::Timeout) if self.shared.clock.ended() => {
                    return outcome
                        .recv_timeout(GRACE)
                        .unwrap_or_else(|_| Err(anyhow!("did not end when told to")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits until every process has ended by itself or by the watchdog's hand, and its standard error is read.
    fn wait(&self) {
        let mut pause = Duration::from_micros(200);
        let mut deadline = None;
        loop {
            let running = self
                .shared
                .processes()
                .iter_mut()
                .filter_map(|p| p.poll().is_none().then_some(()))
                .count();
            if running == 0 {
                break;
            }
            if self.shared.clock.ended() {
                // What cannot be killed (a process in uninterruptible sleep) must not hold us.
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + GRACE);
                if Instant::now() > deadline {
                    break;
                }
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        for process in self.shared.processes().iter_mut() {
            process.leash = None;
            let _ = process.stderr_closed.recv_timeout(Duration::from_secs(1));
        }
    }

    /// Adds what the children said to an error that is not theirs.
    fn with_stderr(&self, error: Error) -> Error {
        let mut output = Vec::new();
        for process in self.shared.processes().iter() {
            let text = process.stderr.lock().unwrap_or_else(PoisonError::into_inner).text();
            if !text.is_empty() {
                output.push(format!("{}: {text}", process.name));
            }
        }
        if output.is_empty() {
            error
        } else {
            let text = format!("{error:#} ({})", output.join("; "));
            Error::new(Told { text, error })
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.watchdog.send(());
        let running = self
            .shared
            .processes()
            .iter_mut()
            .any(|process| process.poll().is_none());
        if running {
            self.shared.kill_all();
            self.wait();
        }
        // For the pulse, which may be asking just now.
        self.shared.clock.ended.store(true, Ordering::Relaxed);
    }
}

/// How a child ended that did not succeed.
#[derive(Debug)]
pub struct Failed {
    /// Its exit status; none when it could not even be killed.
    pub status: Option<ExitStatus>,
    /// What it wrote was no longer read.
    lost_its_reader: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            None => write!(f, "it did not end when it was killed"),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exit code {code}"),
                (None, Some(signal)) => write!(f, "killed by signal {signal}"),
                (None, None) => write!(f, "{status}"),
            },
        }
    }
}

impl std::error::Error for Failed {}

/// A program that is needed and is not on this host.
#[derive(Debug)]
pub struct Missing(pub &'static str);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Missing {}

/// The chain was ended, since nothing had moved in it for so long.
#[derive(Debug)]
struct Stalled(Duration);

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        write!(f, "nothing moved and nothing answered for {seconds} s, gave up")
    }
}

impl std::error::Error for Stalled {}

/// An error, in one text with what the children said.
#[derive(Debug)]
struct Told {
    text: String,
    error: Error,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Told {}

/// What a program said.
#[derive(Debug)]
pub struct Output {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Its exit code, when it was not killed.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The last lines of its standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as text, without the line end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout)
            .trim_end_matches(['\n', '\r'])
            .to_owned()
    }
}

/// Runs `command` to its end and gives what it said, whatever its exit code. `input` is written to its standard input.
///
/// # Errors
/// When it cannot be started, or gives no answer for `stall`.
pub fn output(name: &str, command: Command, input: Option<Vec<u8>>, stall: Duration) -> Result<Output> {
    output_of(Chain::new(stall), name, command, input)
}

/// As [`output`], in a chain that the caller has made, with a [`Chain::pulse`] perhaps.
///
/// # Errors
/// As [`output`].
pub fn output_of(mut chain: Chain, name: &str, command: Command, input: Option<Vec<u8>>) -> Result<Output> {
    const LIMIT: usize = 32 << 20;
    let stdin = if input.is_some() { Input::Piped } else { Input::Null };
    let (stdin, stdout) = chain.spawn(name, command, stdin)?;
    if let (Some(stdin), Some(input)) = (stdin, input) {
        chain.pump(format!("writing to {name}"), io::Cursor::new(input), stdin, ());
    }
    let stdout = chain.collect(format!("reading from {name}"), stdout, LIMIT);
    let shared = Arc::clone(&chain.shared);
    match chain.finish() {
        Err(error) if error.downcast_ref::<Failed>().is_none() && !is_broken_pipe(&error) => {
            Err(error.context(name.to_owned()))
        }
        _ => {
            let mut processes = shared.processes();
            let Some(process) = processes.first_mut() else {
                bail!("{name} was not started")
            };
            let stderr = process.stderr.lock().unwrap_or_else(PoisonError::into_inner).text();
            let status = process.poll();
            Ok(Output {
                success: status.is_some_and(|status| status.success()),
                code: status.and_then(|status| status.code()),
                stdout: stdout.get().unwrap_or_default(),
                stderr,
            })
        }
    }
}

/// Whether a child was ended by SIGPIPE, or, as a shell or docker tells it, one of its children was.
fn lost_its_reader(status: ExitStatus) -> bool {
    status.signal() == Some(13) || status.code() == Some(128 + 13)
}

/// Whether `error` only says that a reader went away, which is the consequence of another fault: to one of our threads, or
/// to the last child of a chain that feeds another.
pub fn is_broken_pipe(error: &Error) -> bool {
    // A context that is an error itself is found by this and not among the causes.
    let child = error.downcast_ref::<Failed>();
    child.is_some_and(|failed| failed.lost_its_reader)
        || error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// Whether `error`, of a chain that has read something, says nothing of what it read: that could not be read, a program is
/// missing, could not be started or was killed, or nothing moved.
pub fn is_outside(error: &Error) -> bool {
    if let Some(told) = error.downcast_ref::<Told>() {
        return is_outside(&told.error);
    }
    let killed = |failed: &Failed| failed.status.is_none_or(|status| status.code().is_none());
    error.is::<Stalled>()
        || error.is::<Missing>()
        || error.downcast_ref::<Failed>().is_some_and(killed)
        || error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|e| e.kind() != ErrorKind::BrokenPipe)
}

/// Ends the chain when nothing has moved for `stall`; returns when it is dismissed.
fn watch(shared: &Shared, stall: Duration, dismissed: &Receiver<()>) {
    let step = (stall / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
    while let Err(RecvTimeoutError::Timeout) = dismissed.recv_timeout(step) {
        if shared.clock.idle() >= stall && !shared.clock.ended() {
            shared.stalled.store(true, Ordering::Relaxed);
            shared.kill_all();
        }
    }
}

/// The last lines of a stream.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

impl Tail {
    fn feed(&mut self, chunk: &[u8]) {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            if !self.open {
                self.lines.push_back(Vec::new());
                if self.lines.len() > STDERR_LINES {
                    self.lines.pop_front();
                }
            }
            self.open = !part.ends_with(b"\n");
            if let Some(line) = self.lines.back_mut() {
                let room = STDERR_LINE_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&part[..part.len().min(room)]);
            }
        }
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self
            .lines
            .iter()
            .map(|line| String::from_utf8_lossy(line).trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        // One complaint for each command that was asked is still one.
        lines.dedup();
        lines.join(" / ")
    }
}

/// Reads a child's standard error to its end.
fn drain(mut from: impl Read, tail: &Mutex<Tail>) {
    let mut block = [0; 4096];
    loop {
        match from.read(&mut block) {
            Ok(0) => return,
            Ok(n) => tail.lock().unwrap_or_else(PoisonError::into_inner).feed(&block[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(10);

    fn sh(script: &str) -> Command {
        let mut command = command("sh");
        command.args(["-c", script]);
        command
    }

    /// By a socket as by a pipe: who loses its reader is no cause, and who loses its writer's other end is told so.
    #[test]
    fn either_link_ends_alike() {
        for link in [Link::Pipe, Link::Socket] {
            let mut chain = Chain::new(STALL);
            let (_, mut out) = chain.start("source".to_owned(), sh("yes"), Input::Null, link).unwrap();
            out.read_exact(&mut [0; 10]).unwrap();
            drop(out);
            let error = chain.finish().unwrap_err();
            assert!(is_broken_pipe(&error), "{link:?}: {error:#}");

            let mut chain = Chain::new(STALL);
            let (to, out) = chain
                .start("filter".to_owned(), sh("head -c 1; exit 3"), Input::Piped, link)
                .unwrap();
            chain.pump("filling", io::repeat(b'x'), to.unwrap(), ());
            let read = chain.collect("reading", out, 10);
            let error = chain.finish().unwrap_err();
            assert!(format!("{error:#}").contains("exit code 3"), "{link:?}: {error:#}");
            assert!(!is_broken_pipe(&error), "{link:?}: {error:#}");
            assert_eq!(read.get().unwrap(), b"x", "{link:?}");
        }
    }

    #[test]
    fn a_stream_runs_through_and_is_counted() {
        let mut chain = Chain::new(STALL);
        let (_, from) = chain
            .spawn("source", sh("head -c 3000000 /dev/zero"), Input::Null)
            .unwrap();
        let (to, out) = chain.spawn("filter", sh("cat"), Input::Piped).unwrap();
        let first = chain.pump("first", from, to.unwrap(), Count::default());
        let second = chain.pump("second", out, io::sink(), Count::default());
        chain.finish().unwrap();
        assert_eq!(
            (first.get().unwrap().0, second.get().unwrap().0),
            (3_000_000, 3_000_000)
        );
    }

    #[test]
    fn the_cause_is_told_not_its_consequences() {
        let mut chain = Chain::new(STALL);
        let (_, from) = chain.spawn("source", sh("cat /dev/zero"), Input::Null).unwrap();
        let (to, out) = chain
            .spawn("filter", sh("head -c 9 >&2; echo no room >&2; exit 3"), Input::Piped)
            .unwrap();
        chain.pump("copying", from, to.unwrap(), ());
        chain.pump("writing", out, io::sink(), ());
        let error = format!("{:#}", chain.finish().unwrap_err());
        assert!(
            error.starts_with("filter failed: ") && error.contains("no room: exit code 3"),
            "{error}"
        );
    }

    #[test]
    fn a_failed_step_ends_the_children() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let start = Instant::now();
        let mut chain = Chain::new(STALL);
        let (_, from) = chain.spawn("source", sh("echo x; sleep 60"), Input::Null).unwrap();
        chain.pump("writing a file", from, Full, ());
        let error = format!("{:#}", chain.finish().unwrap_err());
        assert_eq!(error, "writing a file: no storage space");
        assert!(start.elapsed() < STALL);
    }

    #[test]
    fn a_stall_ends_even_what_hides_behind_a_child() {
        let start = Instant::now();
        let mut chain = Chain::new(Duration::from_millis(300));
        let (_, from) = chain
            .spawn("source", sh("echo x; sleep 60 & wait"), Input::Null)
            .unwrap();
        chain.pump("reading", from, io::sink(), ());
        let error = format!("{:#}", chain.finish().unwrap_err());
        assert!(error.starts_with("nothing moved"), "{error}");
        assert!(start.elapsed() < GRACE, "{:?}", start.elapsed());
    }

    #[test]
    fn a_pulse_tells_slow_work_from_a_stall() {
        let run = |alive: bool| {
            let mut chain = Chain::new(Duration::from_millis(300));
            chain.pulse(move || alive);
            let (_, from) = chain.spawn("source", sh("sleep 1; echo x"), Input::Null).unwrap();
            chain.pump("reading", from, io::sink(), ());
            chain.finish()
        };
        run(true).unwrap();
        assert!(format!("{:#}", run(false).unwrap_err()).starts_with("nothing moved"));
    }

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        let mut command = command("/bin/echo");
        command.args(["--x=1", "a b", "", "it's $(x)"]);
        assert_eq!(shown(&command), r"/bin/echo --x=1 'a b' '' 'it'\''s $(x)'");
    }

    #[test]
    fn a_leash_closes_with_the_chain() {
        let mut chain = Chain::new(STALL);
        let (stdin, from) = chain.spawn("source", sh("cat; echo done"), Input::Leash).unwrap();
        assert!(stdin.is_none());
        chain.shared.processes()[0].leash = None;
        let output = chain.collect("reading", from, 100);
        chain.finish().unwrap();
        assert_eq!(output.get().unwrap(), b"done\n");
    }

    #[test]
    fn output_keeps_the_exit_code_and_the_last_words() {
        let done = output("sh", sh("cat; echo trouble >&2; exit 4"), Some(b"in".to_vec()), STALL).unwrap();
        assert_eq!(
            (done.code, done.text().as_str(), done.stderr.as_str()),
            (Some(4), "in", "trouble")
        );
        let missing = output("none", command("/nonexistent/program"), None, STALL).unwrap_err();
        assert!(format!("{missing:#}").contains("could not execute /nonexistent/program"));
    }

    #[test]
    fn secrets_are_not_inherited() {
        let removed: Vec<_> = command("true")
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        assert!(SECRETS.iter().all(|name| removed.iter().any(|gone| gone == name)));
        for name in [
            "RCLONE_CONFIG_PASS",
            "AWS_PROFILE",
            "SMTP_PASSWORD",
            "GH_TOKEN",
            "MY_SECRET",
            "API_KEY",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "DOCKER_HOST",
            "SSH_AUTH_SOCK",
            "GNUPGHOME",
            "KEYBOARD",
            "TOKENS",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_program_keeps_what_is_its_own() {
        // What cargo sets for a test stands for a secret here: nothing may change the environment of a running process.
        let gone = |command: Command| -> Vec<OsString> {
            let unset = command.get_envs().filter(|(_, value)| value.is_none());
            unset.map(|(name, _)| name.to_owned()).collect()
        };
        let script = r#"RCLONE_CONFIG_PASS=x AWS_PROFILE=y HOOK_TOKEN=z exec "$@""#;
        if env::var_os("HOOK_TOKEN").is_none() {
            let test = "process::tests::a_program_keeps_what_is_its_own";
            let mut again = sh(script);
            again.arg("sh").arg(env::current_exe().unwrap()).args(["--exact", test]);
            let output = output("test", again, None, STALL).unwrap();
            assert!(output.success && output.text().contains("1 passed"), "{output:?}");
            return;
        }
        for name in ["RCLONE_CONFIG_PASS", "AWS_PROFILE", "HOOK_TOKEN"] {
            assert!(gone(command("true")).iter().any(|one| one == name), "{name}");
        }
        let cloud = gone(command_keeping("rclone", is_cloud));
        assert!(!cloud
            .iter()
            .any(|one| one == "RCLONE_CONFIG_PASS" || one == "AWS_PROFILE"));
        assert!(cloud.iter().any(|one| one == "HOOK_TOKEN"));
        assert!(gone(command_keeping("hook", |_| true))
            .iter()
            .all(|one| one != "HOOK_TOKEN"));
        assert!(gone(command_keeping("hook", |_| true))
            .iter()
            .any(|one| one == "POSTGRES_PASSWORD"));
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail::default();
        for n in 0..1000 {
            tail.feed(format!("line {n}").as_bytes());
            tail.feed(b"\n");
        }
        assert!(tail.text().starts_with("line 992 / ") && tail.text().ends_with("line 999"));
    }
}
