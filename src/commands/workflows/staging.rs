//! Files that get their places together, and threads that write them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{anyhow, Context as _, Result};

use crate::formats::n8n::{self, Record, Spans};
use crate::process::hinted;

/// What stands in for a directory, or in it, until its files are whole.
const PARTIAL: &str = ".n8n-backup.partial";

/// A directory whose files are not yet whole, beside or in the one that they are for. It is removed when this is
/// dropped.
pub struct Staging {
    /// Where the files are to be.
    pub dir: PathBuf,
    /// Where they are.
    pub staged: PathBuf,
    /// There is no such directory yet, so that this one can become it.
    is_new: bool,
}

impl Staging {
    pub fn make(dir: &Path, force: bool) -> Result<Self> {
        let held = match fs::read_dir(dir) {
            Ok(names) => names
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<Result<Vec<_>, _>>()
                .map(|names| Some(names.iter().any(|name| name != PARTIAL))),
            Err(error) if error.kind() == ErrorKind::NotFound && dir.symlink_metadata().is_err() => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => {
                return Err(hinted(format!("{} is no directory", dir.display()), "name another one by --to").into());
            }
            Err(error) => Err(error),
        }
        .with_context(|| format!("Cannot read {}", dir.display()))?;
        if held == Some(true) && !force {
            return Err(hinted(
                format!("{} holds files", dir.display()),
                "name another directory, or write to it with --force",
            )
            .into());
        }
        let staged = match (held, dir.file_name()) {
            (None, Some(name)) => dir.with_file_name(format!(".{}{PARTIAL}", name.to_string_lossy())),
            _ => dir.join(PARTIAL),
        };
        let staging = Self {
            dir: dir.to_owned(),
            staged,
            is_new: held.is_none(),
        };
        // What a run that was killed has left.
        let _ = fs::remove_dir_all(&staging.staged);
        private_dir(&staging.staged).with_context(|| format!("Cannot make {}", dir.display()))?;
        private_dir(&staging.staged.join("history")).with_context(|| format!("Cannot make {}", dir.display()))?;
        Ok(staging)
    }

    /// Gives the files their places.
    pub fn publish(self) -> Result<()> {
        let history = Path::new("history");
        // It stays where there is something in it.
        let with_history = fs::remove_dir(self.staged.join(history)).is_err();
        if self.is_new {
            return fs::rename(&self.staged, &self.dir).with_context(|| format!("Cannot write {}", self.dir.display()));
        }
        if with_history {
            match private_dir(&self.dir.join(history)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("Cannot make {}/history", self.dir.display()));
                }
                _ => self.publish_files(history)?,
            }
        }
        self.publish_files(Path::new(""))
    }

    fn publish_files(&self, below: &Path) -> Result<()> {
        let (from, to) = (self.staged.join(below), self.dir.join(below));
        for entry in fs::read_dir(&from).with_context(|| format!("Cannot read {}", from.display()))? {
            let entry = entry.with_context(|| format!("Cannot read {}", from.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let place = to.join(entry.file_name());
                fs::rename(entry.path(), &place).with_context(|| format!("Cannot write {}", place.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.staged);
    }
}

fn private_dir(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(dir)
}

/// Writes a new file for our user alone, or to the end of one. It is not brought to disk: an export can be repeated,
/// and that of ten thousand workflows would take minutes.
pub fn write(path: &Path, text: &str, append: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    match append {
        true => options.append(true),
        false => options.write(true).create_new(true).mode(0o600),
    };
    options
        .open(path)
        .and_then(|mut file: File| file.write_all(text.as_bytes()))
        .with_context(|| format!("Cannot write {}", path.display()))
}

/// Bytes of workflows that are handed over together.
const BATCH: usize = 64 << 10;

/// A workflow whose columns are to be written.
struct Job {
    row: Record,
    path: PathBuf,
}

/// What became of it: where its columns stand in the file, or why it cannot be written as JSON.
pub type Opened = (String, Result<Spans, String>);

/// Writes the columns of workflows in threads of its own: that takes longer than to read the dump.
pub struct Writer {
    jobs: Option<SyncSender<Vec<Job>>>,
    /// What is sent next: a thread is not to be woken for each small workflow.
    batch: Vec<Job>,
    bytes: usize,
    threads: Vec<JoinHandle<Result<Vec<Opened>>>>,
}

impl Writer {
    pub fn start() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
        let (jobs, queue) = sync_channel(2 * threads);
        let queue = Arc::new(Mutex::new(queue));
        let start = |_| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || work(&queue))
        };
        Self {
            jobs: Some(jobs),
            batch: Vec::new(),
            bytes: 0,
            threads: (0..threads).map(start).collect(),
        }
    }

    /// Writes a workflow to a new file.
    pub fn write(&mut self, row: Record, path: PathBuf) {
        self.bytes += row.fields().map(|(_, field)| field.map_or(0, str::len)).sum::<usize>();
        self.batch.push(Job { row, path });
        if self.bytes >= BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        self.bytes = 0;
        if let Some(jobs) = &self.jobs {
            // Where no thread is left, the reason comes with the end.
            let _ = jobs.send(std::mem::take(&mut self.batch));
        }
    }

    /// Waits for the files. Another call gives nothing.
    pub fn finish(&mut self) -> Result<Vec<Opened>> {
        self.send();
        self.jobs = None;
        let mut all = Vec::new();
        for thread in self.threads.drain(..) {
            all.extend(thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))?);
        }
        Ok(all)
    }
}

fn work(queue: &Mutex<Receiver<Vec<Job>>>) -> Result<Vec<Opened>> {
    let mut done = Vec::new();
    let mut text = String::new();
    loop {
        let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return Ok(done) };
        for Job { row, path } in batch {
            text.clear();
            let opened = n8n::open(&row, &mut text).map_err(|error| format!("{error:#}"));
            if opened.is_ok() {
                write(&path, &text, false)?;
            }
            done.push((row.text("id").to_owned(), opened));
        }
    }
}
