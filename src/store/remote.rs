//! Copies elsewhere: the one place that knows how rclone is called.
//!
//! rclone names files by their path below a directory, here and there alike, and takes lists of them on standard input.
//! Its exit code 3 means that there is no such directory.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::process::{self, find, hinted, Chain, ChildOutput, Clock, Input, Output, Tail};
use crate::store::identity::Identity;
use crate::store::offsite::{is_our_dir, our_names};

/// The slowest that a remote may take its checksums before it counts as stalled, in bytes a second.
const SLOWEST_SUMS: u64 = 5 << 20;
/// rclone's exit code for a directory that does not exist.
const NO_DIRECTORY: i32 = 3;
/// Has rclone send to a bucket without making it first, which a key may lack the right to.
const BUCKET_IS_THERE: &str = "RCLONE_S3_NO_CHECK_BUCKET";
/// Has rclone take what a link leads to: a directory of `backups/`, or a file, may lie on another disk.
const LINKS: &str = "--copy-links";
/// How rclone begins to say what the system refuses of a path of this host.
const LOCAL_ERRORS: [&str; 2] = ["stat /", "open /"];
/// What rclone says of a link that it does not follow.
const PASSED_OVER: &str = "Can't follow symlink";
/// How S3 words it that a key may not do something.
const DENIED: &str = "AccessDenied";

/// What is there is not what was sent. Any other error of a comparison says nothing of the copies.
#[derive(Debug)]
pub struct Differs(pub String);

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Differs {}

/// How a copy was compared with its original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By checksums that the remote gave.
    Hash,
    /// By checksums of the encrypted form, on a remote of type crypt.
    Crypt,
    /// By size alone: this kind of remote has no checksums.
    Size,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash => "compared by checksum",
            Self::Crypt => "compared by checksum of the encrypted form",
            Self::Size => "compared by size",
        })
    }
}

/// What of that which is there already is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    /// What differs by checksum, or by length where the remote has no checksum in common with us, as one of type crypt.
    Changed,
    /// All.
    All,
}

impl Resend {
    fn flag(self) -> &'static str {
        match self {
            Self::Changed => "--checksum",
            Self::All => "--ignore-times",
        }
    }
}

/// The rclone of this host, and the directory elsewhere that it works on.
#[derive(Clone, Debug)]
pub struct Rclone {
    program: PathBuf,
    dir: PathBuf,
    config: Option<PathBuf>,
    remote: String,
    stall: Duration,
    /// The stack whose files are wanted; none for those of all.
    stack: Option<Identity>,
    /// Whether the place, with its bucket, was seen.
    is_there: Arc<AtomicBool>,
}

impl Rclone {
    /// Looks for rclone on `path`. `dir` is where a relative path counts from, `remote` a directory as `NAME:PATH`,
    /// `config` rclone's configuration file when it is not in rclone's own place, `stall` how long nothing may move.
    pub fn locate(
        path: Option<&OsString>,
        dir: &Path,
        config: Option<PathBuf>,
        remote: String,
        stall: Duration,
    ) -> Result<Self> {
        let program = find("rclone", path).context(hinted(
            "rclone not found",
            "install rclone, which makes the off-site copies",
        ))?;
        Ok(Self {
            program,
            dir: dir.to_owned(),
            config,
            remote,
            stall,
            stack: None,
            is_there: Arc::default(),
        })
    }

    /// The same, for the files of one stack: what keeps those of others from the list is no error.
    pub fn of_stack(self, stack: Option<Identity>) -> Self {
        Self { stack, ..self }
    }

    /// The same, of a directory there.
    pub fn within(&self, dir: &str) -> Self {
        Self {
            remote: self.at(dir),
            ..self.clone()
        }
    }

    /// The directory there, as rclone names it.
    pub fn place(&self) -> &str {
        &self.remote
    }

    /// A chain with the stall limit of this remote.
    pub fn chain(&self) -> Chain {
        Chain::new(self.stall)
    }

    /// The files there, by their paths, with their lengths where the remote tells them; none when the directory does not exist.
    pub fn list(&self) -> Result<Vec<(String, Option<u64>)>> {
        let stack = self.stack.as_ref();
        let ours = our_names(stack);
        let ask = |links: &[&str]| {
            let mut command = self.command("lsf");
            command
                .args(["--recursive", "--max-depth=3", "--files-only"])
                .args(["--format=sp", "--separator= "])
                // Beside them may be what we may not read, as lost+found on a disk of its own.
                .args([format!("--include=/{ours}"), format!("--include=/{ours}/**")])
                .args(links)
                .arg(&self.remote);
            self.answer(&mut command, None, self.stall)
        };
        let mut output = ask(&[LINKS])?;
        let mut is_whole = output.success || has_broken_links_only(&output.stderr, stack);
        // A link that may not be followed, whoever's it is, keeps all beside it from the list. Without links that is whole,
        // unless one of ours is passed over.
        if !is_whole && LOCAL_ERRORS.iter().any(|error| output.stderr.contains(error)) {
            let plain = ask(&[])?;
            is_whole = plain.success && !plain.stderr.contains(PASSED_OVER);
            if is_whole {
                output = plain;
            }
        }
        self.is_there.store(is_whole, Ordering::Relaxed);
        match output.code {
            // The length, -1 where it is not known, and the path.
            _ if is_whole => Ok(output
                .text()
                .lines()
                .filter_map(|line| line.split_once(' '))
                .map(|(length, path)| (path.to_owned(), length.parse().ok()))
                .collect()),
            Some(NO_DIRECTORY) => Ok(Vec::new()),
            _ => {
                let message = format!("{} cannot be listed: {}", self.remote, output.stderr);
                // As rclone words it where its configuration lacks the remote.
                match output.stderr.contains("didn't find section in config file") {
                    true => bail!(hinted(
                        message,
                        "make the remote with 'rclone config', or set RCLONE_REMOTE and RCLONE_CONFIG in .env"
                    )),
                    false => bail!(message),
                }
            }
        }
    }

    /// Copies the files `names` below `from` to the same paths there.
    pub fn copy(&self, from: &Path, names: &[String], resend: Resend) -> Result<()> {
        // What rclone reports goes to standard output, so that a transfer that stands still can be told from one that moves.
        let mut command = process::command_keeping("sh", process::is_cloud);
        command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(&self.program);
        let mut copy = self.command("copy");
        copy.args(["--files-from-raw=-", LINKS, resend.flag(), "--no-traverse"])
            .args(["--stats=5s", "--stats-one-line", "--stats-log-level=NOTICE"])
            .arg(from)
            .arg(&self.remote);
        command.args(copy.get_args()).current_dir(&self.dir);
        command.envs(copy.get_envs().filter_map(|(name, value)| Some((name, value?))));

        let mut chain = Chain::new(self.stall);
        let (stdin, stdout) = chain.spawn("rclone copy", command, Input::Piped)?;
        let stdin = stdin.context("rclone has no input")?;
        chain.pump("naming files to rclone", Cursor::new(lines(names)), stdin, ());
        let output = chain.task("reading from rclone", |clock| Ok(watch(stdout, clock)));
        let Err(error) = chain.finish() else { return Ok(()) };
        match output.despite(&error).map(|last| last.text()) {
            Some(last) if last.contains(DENIED) && !self.is_there.load(Ordering::Relaxed) => {
                Err(error.context(hinted(
                    last,
                    format_args!(
                        "make the bucket of {} there: it is missing, or this key may not see it",
                        self.remote
                    ),
                )))
            }
            Some(last) if !last.is_empty() => Err(error.context(last)),
            _ => Err(error),
        }
    }

    /// Copies one file to `name` there.
    pub fn copy_one(&self, from: &Path, name: &str) -> Result<()> {
        let output = self.answer(
            self.command("copyto")
                .arg("--ignore-times")
                .arg(from)
                .arg(self.at(name)),
            None,
            self.stall,
        )?;
        if !output.success {
            bail!("{name} cannot be copied to {}: {}", self.remote, output.stderr);
        }
        Ok(())
    }

    /// Compares the files `names`, of `bytes` bytes in all, with those below `from`. That they differ is [`Differs`].
    pub fn check(&self, from: &Path, names: &[String], bytes: u64) -> Result<Proof> {
        // Checksums are taken without a sign of life.
        let patience = self.stall + Duration::from_secs(bytes / SLOWEST_SUMS);
        let compare = |word: &str| {
            let mut command = self.command(word);
            command
                .args(["--files-from-raw=-", LINKS, "--one-way"])
                .arg(from)
                .arg(&self.remote);
            self.answer(&mut command, Some(lines(names)), patience)
        };
        let output = compare("check")?;
        self.judge(&output, names.len())?;
        if number_before(&output.stderr, "hashes could not be checked").is_none() {
            return Ok(Proof::Hash);
        }
        let output = compare("cryptcheck")?;
        // The latter of a crypt remote over one that has none.
        let without_sums = ["is not a crypt remote", "does not support any hashes"];
        if without_sums.iter().any(|why| output.stderr.contains(why)) {
            return Ok(Proof::Size);
        }
        self.judge(&output, names.len())?;
        Ok(Proof::Crypt)
    }

    /// Refuses a comparison in which not all of this number of files match. Nothing else counts: a name that is on
    /// neither side is no difference to rclone, and a link beside the files that leads nowhere is an error.
    fn judge(&self, output: &Output, files: usize) -> Result<()> {
        let (remote, said) = (&self.remote, &output.stderr);
        if number_before(said, "matching files") == Some(files as u64) {
            return Ok(());
        }
        ensure!(
            !has_differed(output.success, said),
            Differs(format!("what is at {remote} differs from what was sent: {said}"))
        );
        bail!("what is at {remote} cannot be compared with what was sent: {said}")
    }

    /// The contents of a file there. That there is no such file is told by the chain.
    pub fn read(&self, chain: &mut Chain, name: &str) -> Result<ChildOutput> {
        let mut command = self.command("cat");
        command.arg(self.at(name));
        Ok(chain.stream("rclone cat", command, Input::Null)?.1)
    }

    /// Deletes files there.
    pub fn delete(&self, names: &[String]) -> Result<()> {
        let output = self.answer(
            self.command("delete")
                // Each file is asked for by its name: a listing leaves out what lies behind a link.
                .args(["--files-from-raw=-", "--no-traverse"])
                .arg(&self.remote),
            Some(lines(names)),
            self.stall,
        )?;
        if output.success {
            return Ok(());
        }
        let message = format!("old copies at {} cannot be deleted: {}", self.remote, output.stderr);
        match output.stderr.contains(DENIED) {
            true => bail!(hinted(
                message,
                "give rclone a key that may delete there, or set BACKUP_OFFSITE_KEEP_DAYS=0 in .env and leave the retention to \
                 the provider"
            )),
            false => bail!(message),
        }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.remote)
    }

    fn answer(&self, command: &mut Command, input: Option<Vec<u8>>, patience: Duration) -> Result<Output> {
        let command = std::mem::replace(command, Command::new("true"));
        process::output("rclone", command, input, patience)
    }

    fn command(&self, word: &str) -> Command {
        let mut command = process::command_keeping(&self.program, process::is_cloud);
        let seconds = format!("{}s", self.stall.as_secs());
        command
            .current_dir(&self.dir)
            .arg(word)
            .args(["--ask-password=false", "--retries=3", "--low-level-retries=5"])
            .arg(format!("--timeout={seconds}"))
            .arg(format!("--contimeout={}s", self.stall.as_secs().min(60)));
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        if self.is_there.load(Ordering::Relaxed) {
            command.env(BUCKET_IS_THERE, "true");
        }
        command
    }
}

fn lines(names: &[String]) -> Vec<u8> {
    names
        .iter()
        .flat_map(|name| [name.as_bytes(), b"\n"].concat())
        .collect()
}

/// Reads rclone's report to its end and gives its last lines, without those on progress. The clock is wound up by each
/// line, and by progress only when more has been transferred.
fn watch(from: impl Read, clock: &Clock) -> Tail {
    let mut last = Tail::default();
    let mut transferred = String::new();
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        match progress(&String::from_utf8_lossy(&line)) {
            Some(now) if now == transferred => continue,
            Some(now) => now.clone_into(&mut transferred),
            None => last.push(&[&line, &b"\n"[..]].concat()),
        }
        clock.tick();
    }
    last
}

/// How much has been transferred, in a line like `... NOTICE:    2.861 MiB / 5 MiB, 57%, 1 MiB/s, ETA 2s`.
fn progress(line: &str) -> Option<&str> {
    let (done, rest) = line.split_once(" / ")?;
    rest.contains("ETA").then(|| done.rsplit(": ").next())?.map(str::trim)
}

/// Whether a comparison has come to its end and found a difference. The number of differences that rclone tells counts
/// errors, too; its last words do not. A file that is not of a remote's own making is an error to one of type crypt.
fn has_differed(succeeded: bool, said: &str) -> bool {
    match said.rsplit_once("Failed to ") {
        Some((_, words)) => words.ends_with("differences found") || words.contains("not an encrypted file"),
        None => succeeded && said.contains("differences found"),
    }
}

/// Whether nothing is wrong with a list but links in it that lead nowhere, which rclone passes over, and none is in the
/// place of a directory of ours: what that held on a disk that is not mounted is not gone. Only rclone's last lines are
/// known; the last one tells the number of errors.
fn has_broken_links_only(said: &str, stack: Option<&Identity>) -> bool {
    let errors = said.split("ERROR : ");
    let broken: Vec<&str> = errors
        .filter_map(|error| Some(error.split_once(": Listing error: symlink:")?.0))
        .collect();
    let all = number_before(said, "errors: last error was").unwrap_or(1);
    all == broken.len() as u64 && !broken.into_iter().any(|path| is_our_dir(path, stack))
}

/// The number that stands before `words`.
fn number_before(text: &str, words: &str) -> Option<u64> {
    let (before, _) = text.split_once(words)?;
    before.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests;
