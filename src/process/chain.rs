//! The processes and threads that one stream runs through, from their start to one verdict.

use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Error, Result};

use super::capture::{drain, Tail, SEPARATOR};
use super::child::{watch, Process, Shared};
use super::clock::Clock;
use super::command::shown;
use super::error::{is_broken_pipe, Failed, Stalled, Told};
use super::link::{self, ChildInput, ChildOutput, Link};
use super::observer::Observer;
use super::BLOCK;

/// How long an ended or killed process may take to let go of its pipes.
const GRACE: Duration = Duration::from_secs(5);
const WITHOUT_PIPES: &str = "a program was started without its pipes";

/// What a child reads.
pub enum Input {
    /// Nothing.
    Null,
    /// A file or another pipe.
    From(Stdio),
    /// What the caller writes.
    Piped,
    /// A pipe that the chain holds open for as long as it lives. It closes however we end, so that a program which
    /// watches it never outlives us.
    Leash,
}

/// What is still to come from a thread of a chain.
#[derive(Debug)]
pub struct Pending<T> {
    value: Receiver<T>,
    chain: Arc<Shared>,
}

impl<T> Pending<T> {
    /// The thread's result, of a chain that has come to its end without a fault.
    pub fn get(self, finished: &Finished) -> Result<T> {
        ensure!(Arc::ptr_eq(&self.chain, &finished.0), "this step is of another chain");
        self.value
            .try_recv()
            .map_err(|_| anyhow!("a step of the chain did not finish"))
    }

    /// The thread's result, of a chain that has failed, where the thread came to its end: it proves nothing, but may
    /// explain the failure.
    pub fn despite(self, _: &Error) -> Option<T> {
        self.value.try_recv().ok()
    }
}

/// A chain has come to its end, and no part of it has failed. Only with this its results can be asked for.
#[derive(Debug)]
pub struct Finished(Arc<Shared>);

impl Finished {
    /// The last lines that the program `name` wrote to standard error.
    pub fn last_lines(&self, name: &str) -> Vec<String> {
        let processes = self.0.processes();
        let found = processes.iter().find(|process| process.name == name);
        found.map_or_else(Vec::new, |process| {
            let tail = process.stderr.lock().unwrap_or_else(PoisonError::into_inner);
            tail.text().split(SEPARATOR).map(str::to_owned).collect()
        })
    }
}

/// Processes and threads that one stream runs through.
pub struct Chain {
    pub(super) shared: Arc<Shared>,
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
            first_failure: OnceLock::new(),
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
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        command: Command,
        input: Input,
    ) -> Result<(Option<ChildInput>, ChildOutput)> {
        self.start(name.into(), command, input, Link::Pipe)
            .and_then(with_output)
    }

    /// As [`Chain::spawn`], for many bytes: what is handed back are sockets, which carry them faster. Not for a program
    /// that may open `/dev/stdin`.
    pub fn stream(
        &mut self,
        name: impl Into<String>,
        command: Command,
        input: Input,
    ) -> Result<(Option<ChildInput>, ChildOutput)> {
        self.start(name.into(), command, input, Link::Socket)
            .and_then(with_output)
    }

    /// As [`Chain::spawn`], for a program whose standard output is of no interest. What it leaves running when it ends
    /// is not waited for.
    pub fn spawn_silent(
        &mut self,
        name: impl Into<String>,
        command: Command,
        input: Input,
    ) -> Result<Option<ChildInput>> {
        self.start(name.into(), command, input, Link::Null)
            .map(|(stdin, _)| stdin)
    }

    fn start(
        &mut self,
        name: String,
        mut command: Command,
        input: Input,
        link: Link,
    ) -> Result<(Option<ChildInput>, Option<ChildOutput>)> {
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
            Link::Null => Stdio::null(),
            Link::Socket => {
                let (ours, theirs) = link::socket()?;
                from = Some(ChildOutput::socket(ours, Arc::clone(&abandoned))?);
                theirs
            }
        });
        log::trace!("{}", shown(&command));
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
        let stderr = child.stderr.take().context(WITHOUT_PIPES)?;
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
        Ok((stdin, from.or(piped)))
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
        let number = self.threads.len();
        thread::spawn(move || {
            let done = work(&shared.clock).map(|value| {
                let _ = result.send(value);
            });
            if done.as_ref().is_err_and(|error| !is_broken_pipe(error)) {
                let _ = shared.first_failure.set(number);
                shared.kill_all();
            }
            let _ = verdict.send(done);
        });
        self.threads.push((name.into(), outcome));
        Pending {
            value: pending,
            chain: Arc::clone(&self.shared),
        }
    }

    /// Moves all of `from` to `to` in a thread of its own and drops both ends when done. `observer` sees what `to` has
    /// taken, and comes back when the stream has ended.
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
    pub fn finish(mut self) -> Result<Finished> {
        let mut step = None;
        let mut broken_pipe = None;
        for (number, (name, outcome)) in std::mem::take(&mut self.threads).into_iter().enumerate() {
            match self.join(&outcome) {
                Ok(()) => {}
                Err(error) if is_broken_pipe(&error) => {
                    broken_pipe.get_or_insert(error.context(name));
                }
                // What the others say may come of the end that the first one has made of all.
                Err(error) if step.is_none() || self.shared.first_failure.get() == Some(&number) => {
                    step = Some(error.context(name));
                }
                Err(_) => {}
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
            None => Ok(Finished(Arc::clone(&self.shared))),
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

    /// Adds the last lines of the children to an error that is not theirs.
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

/// The ends of a child that has an output.
fn with_output(
    (stdin, stdout): (Option<ChildInput>, Option<ChildOutput>),
) -> Result<(Option<ChildInput>, ChildOutput)> {
    Ok((stdin, stdout.context(WITHOUT_PIPES)?))
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
        self.shared.clock.end();
    }
}

#[cfg(test)]
mod tests;
