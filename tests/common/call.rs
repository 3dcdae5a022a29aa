//! A call of a script, and the process that comes of it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::tools::{append, kill, shell_quoted};
use super::{Outcome, Sandbox};

/// How long a script may take before the test fails.
const LIMIT: Duration = Duration::from_secs(120);
/// The PATH that cron gives.
const CRON_PATH: &str = "/usr/bin:/bin";

/// A call of a script, not yet run.
pub struct Call<'a> {
    sandbox: &'a Sandbox,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    path: OsString,
    cwd: PathBuf,
    under: Vec<OsString>,
    terminal: Option<String>,
    stdout: Option<Stdio>,
    into_log: bool,
    limit: Duration,
}

impl<'a> Call<'a> {
    /// A call of `program` as cron would make it.
    pub(super) fn new(sandbox: &'a Sandbox, program: PathBuf) -> Self {
        Self {
            sandbox,
            program,
            args: Vec::new(),
            env: Vec::new(),
            path: CRON_PATH.into(),
            cwd: "/".into(),
            under: Vec::new(),
            terminal: None,
            stdout: None,
            into_log: false,
            limit: LIMIT,
        }
    }

    /// An argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: &[S]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Another PATH.
    pub fn path(mut self, path: impl AsRef<OsStr>) -> Self {
        path.as_ref().clone_into(&mut self.path);
        self
    }

    /// Puts a directory before the PATH, for a stand-in of a program.
    pub fn path_first(mut self, dir: impl AsRef<OsStr>) -> Self {
        let mut path = dir.as_ref().to_owned();
        path.push(":");
        path.push(&self.path);
        self.path = path;
        self
    }

    /// Another working directory than `/`.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        dir.as_ref().clone_into(&mut self.cwd);
        self
    }

    /// Runs it by way of another command, such as `["sh", "-c", "exec \"$@\" >&-", "sh"]`, which gets the call's words as
    /// further arguments.
    pub fn under<S: AsRef<OsStr>>(mut self, words: &[S]) -> Self {
        self.under = words.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Variables of the environment.
    pub fn envs(mut self, variables: &[(&str, String)]) -> Self {
        self.env
            .extend(variables.iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Runs on a terminal, where `answer` is typed. Standard error is then part of standard output.
    pub fn terminal(mut self, answer: &str) -> Self {
        self.terminal = Some(answer.to_owned());
        self
    }

    /// Sends standard output there; the outcome does not have it then.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Sends standard output and standard error to `logs/backup.log`, as the crontab line does.
    pub fn into_log(mut self) -> Self {
        self.into_log = true;
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(mut self) -> Running<'a> {
        let sandbox = self.sandbox;
        // Tests make their own files, which are plain also where backups are encrypted.
        let restores = self
            .program
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("restore-"));
        if restores && std::env::var_os("TEST_PASSPHRASE").is_some() {
            self.args.push("--allow-plain".into());
        }
        let number = sandbox.calls.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] = ["out", "err"].map(|name| sandbox.aside(format!("{name}-{number}")));
        let words = self.under.iter().map(OsString::as_os_str);
        let words = words.chain([self.program.as_os_str()]);
        let mut words = words.chain(self.args.iter().map(OsString::as_os_str));
        let mut command = match &self.terminal {
            None => {
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words);
                command
            }
            Some(_) => {
                let words: Vec<String> = words.map(|word| shell_quoted(&word.to_string_lossy())).collect();
                let mut command = Command::new("script");
                command.args(["-q", "-e", "-f", "-c", &words.join(" "), "/dev/null"]);
                command
            }
        };
        command.env_clear().env("PATH", &self.path).current_dir(&self.cwd);
        // Where the engine is, on a machine where it is not in the usual place.
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let (log_start, started) = (sandbox.log_length(), Instant::now());
        if self.into_log {
            let log = sandbox.path("logs/backup.log");
            command.stdout(append(&log)).stderr(append(&log));
        } else {
            let stdout = self.stdout.unwrap_or_else(|| append(&stdout).into());
            command.stdout(stdout).stderr(append(&stderr));
        }
        command.stdin(if self.terminal.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        // A group of its own, so that the test can end it with all that it has started.
        command.process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        if let (Some(mut stdin), Some(answer)) = (child.stdin.take(), &self.terminal) {
            let _ = stdin.write_all(answer.as_bytes());
        }
        Running {
            sandbox,
            child,
            stdout,
            stderr,
            log_start,
            started,
            deadline: started + self.limit,
            peak_kib: 0,
            ended: false,
        }
    }
}

/// A script that runs. It is killed, with what it started, when this is dropped.
pub struct Running<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    log_start: u64,
    started: Instant,
    deadline: Instant,
    peak_kib: u64,
    ended: bool,
}

impl Running<'_> {
    /// The process; the script becomes the binary, so it is the binary's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `KILL`, to this process alone.
    pub fn signal(&self, name: &str) {
        kill(name, &self.pid().to_string());
    }

    /// The log lines so far.
    pub fn log(&self) -> String {
        self.sandbox.log_from(self.log_start)
    }

    /// Waits until a line with `text` is in the log.
    ///
    /// # Panics
    /// When the script ends or the time is over before.
    pub fn await_log(&mut self, text: &str) {
        self.await_that(text, |running| running.log().contains(text));
    }

    /// Waits until `reached`, called `what` in the failure.
    ///
    /// # Panics
    /// When the script ends or the time is over before.
    pub fn await_that(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended && reached(self) {
                return;
            }
            assert!(
                !ended && Instant::now() < self.deadline,
                "{} before: {what}\n{}",
                if ended { "ended" } else { "no time left" },
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the time is over before.
    pub fn wait(mut self) -> Outcome {
        let status = loop {
            self.note_peak();
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < self.deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) => panic!("no time left for the script:\n{}", self.log()),
                Err(error) => panic!("cannot wait: {error}"),
            }
        };
        self.ended = true;
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Outcome {
            code: status.code(),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            log: self.log(),
            took: self.started.elapsed(),
            peak_kib: self.peak_kib,
        }
    }

    /// Keeps the kernel's own record of the largest resident size so far.
    fn note_peak(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        // Before the shim becomes the binary, the record is the shell's.
        if !status.starts_with("Name:\tn8n-backup\n") {
            return;
        }
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = peak.and_then(|text| text.split_whitespace().next()?.parse().ok()) {
            self.peak_kib = self.peak_kib.max(kib);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            kill("KILL", &format!("-{}", self.pid()));
            let _ = self.child.wait();
        }
    }
}
