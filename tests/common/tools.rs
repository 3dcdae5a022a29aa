//! Programs and files that tests use.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Sandbox;

/// A line of `.env` that gives `value` to `name`, whatever the value is.
pub fn env_line(name: &str, value: &str) -> String {
    let mut text = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '"' | '\\' | '$' => text.extend(['\\', c]),
            _ => text.push(c),
        }
    }
    text.push('"');
    text
}

/// The permission bits of a file.
#[track_caller]
pub fn mode(path: &Path) -> u32 {
    match fs::symlink_metadata(path) {
        Ok(meta) => meta.mode() & 0o7777,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The name of a file, as text.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a shell command prints; for the everyday tools (gunzip, tar, touch).
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn sh(script: &str, args: &[&OsStr]) -> String {
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).args(args);
    done(command)
}

/// Runs a command to its end, whatever it says.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn output(mut command: Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command and gives its standard output.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn done(command: Command) -> String {
    let shown = format!("{command:?}");
    let said = output(command);
    assert!(
        said.status.success(),
        "{shown}: {}\n{}{}",
        said.status,
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// Waits for up to a minute: a server may have to recover on a busy machine.
#[track_caller]
pub fn await_true(what: &str, reached: impl Fn() -> bool) {
    assert!(comes_true(reached), "{what}");
}

/// As [`await_true`], for who can say more of what was waited for.
pub fn comes_true(reached: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !reached() {
        if start.elapsed() >= Duration::from_secs(60) {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Makes an executable file. Another process writes it: a child that another thread starts meanwhile would have a copy of
/// our descriptor, and what is open for writing cannot be executed.
///
/// # Panics
/// When it cannot be made.
pub fn script(path: &Path, text: &str) {
    sh(
        "printf %s \"$2\" >\"$1\" && chmod 755 \"$1\"",
        &[path.as_os_str(), text.as_ref()],
    );
}

/// A pipe that nobody reads from, nor ever can.
///
/// # Panics
/// When something else holds its reading end.
pub fn pipe_without_reader() -> PipeWriter {
    let (reader, mut writer) = std::io::pipe().unwrap_or_else(|error| panic!("no pipe: {error}"));
    drop(reader);
    // A child that another thread is starting has a copy of every descriptor until its program begins.
    for _ in 0..10_000 {
        match writer.write_all(b"x") {
            Ok(()) => thread::sleep(Duration::from_millis(1)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                return writer;
            }
        }
    }
    panic!("the pipe still has a reader");
}

/// A pipe that is full, with the reading end that keeps it so.
///
/// # Panics
/// When it cannot be made.
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    const O_NONBLOCK: i32 = 0o4000;
    let (reader, writer) = std::io::pipe().unwrap_or_else(|error| panic!("no pipe: {error}"));
    let again = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let filled = OpenOptions::new()
        .write(true)
        .custom_flags(O_NONBLOCK)
        .open(again)
        .and_then(|mut file| file.write_all(&[b'x'; 1 << 22]));
    let full = filled.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(full, "the pipe takes all");
    (reader, writer)
}

/// Whether the tests run as root, which alone can be another user as well.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Tells the summary of `make test` that a test did not run, and why. The test returns after it.
pub fn skip(test: &str, reason: &str) {
    eprintln!("{test} did not run: {reason}");
    if let Some(file) = std::env::var_os("N8N_BACKUP_SKIPPED") {
        // One line for each test; what another program said at length stands in the test's output.
        let first = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let short: String = first.chars().take(200).collect();
        let _ = writeln!(append(Path::new(&file)), "{test}: {short}");
    }
}

/// Whether a test may mount over files in a mount namespace of its own.
pub fn can_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["-m", "mount", "--bind", "/", "/"]);
    command.output().is_ok_and(|said| said.status.success())
}

/// A backup file as it was before it was encrypted: itself, or a copy beside the project, by gpg alone and the passphrase
/// of `TEST_PASSPHRASE`.
pub fn plain(sandbox: &Sandbox, path: &Path) -> PathBuf {
    let file = name(path);
    let Some(inner) = file.strip_suffix(".gpg") else {
        return path.to_owned();
    };
    let copy = sandbox.aside(format!("plain-{inner}"));
    let _ = fs::remove_file(&copy);
    let mut gpg = Command::new("gpg");
    gpg.args([
        "--batch",
        "--quiet",
        "--homedir",
        "/nonexistent",
        "--no-keyring",
        "--no-autostart",
    ])
    .args(["--pinentry-mode", "loopback", "--passphrase-fd", "0", "--output"])
    .arg(&copy)
    .arg("--decrypt")
    .arg(path)
    .stdin(Stdio::piped())
    .stderr(Stdio::piped());
    let mut child = gpg.spawn().unwrap_or_else(|error| panic!("gpg: {error}"));
    let passphrase = std::env::var_os("TEST_PASSPHRASE").unwrap_or_default();
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(passphrase.as_encoded_bytes());
    }
    let said = child.wait_with_output().unwrap_or_else(|error| panic!("gpg: {error}"));
    assert!(
        said.status.success(),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&said.stderr)
    );
    copy
}

/// The program under test: the one that `N8N_BACKUP_TEST_PROGRAM` names, as the make targets do with what a user installs,
/// else cargo's.
pub fn program() -> PathBuf {
    std::env::var_os("N8N_BACKUP_TEST_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_n8n-backup").into(), PathBuf::from)
}

/// Whether a program is on the PATH.
pub fn has_program(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The checkout that is tested.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn append(path: &Path) -> File {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) fn kill(signal: &str, target: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), "--", target])
        .output();
}

pub(super) fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
