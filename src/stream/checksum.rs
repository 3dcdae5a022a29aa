//! SHA-256 of streams that pass by.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::process::{self, find_on_path, Chain, ChildInput, Finished, Input, Observer, Pending};

/// Feeds a program that takes the checksum.
pub struct Digest(Option<ChildInput>);

/// The checksum that the program prints.
pub struct Sum(Pending<Vec<u8>>);

impl Digest {
    /// Starts the program: `openssl` where `path` has one that works, since it uses what the processor has for SHA-256
    /// (five times as fast), else `sha256sum`.
    pub fn start(chain: &mut Chain, path: Option<&OsString>) -> Result<(Self, Sum)> {
        let (name, command) = program(path);
        let (stdin, stdout) = chain.stream(name, command, Input::Piped)?;
        let output = chain.collect("reading a checksum", stdout, 1024);
        Ok((Self(stdin), Sum(output)))
    }
}

fn program(path: Option<&OsString>) -> (&'static str, Command) {
    static WORKS: OnceLock<bool> = OnceLock::new();
    if let Some(openssl) = find_on_path("openssl", path) {
        if *WORKS.get_or_init(|| works(&openssl)) {
            return ("openssl dgst", openssl_dgst(&openssl));
        }
    }
    ("sha256sum", process::command("sha256sum"))
}

fn openssl_dgst(openssl: &Path) -> Command {
    let mut command = process::command(openssl);
    // -r: the output of sha256sum.
    command.args(["dgst", "-sha256", "-r"]);
    command
}

/// Whether it knows the checksum of an empty stream: a setting or library that is broken must not cost a backup.
fn works(openssl: &Path) -> bool {
    const OF_NOTHING: &[u8] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 ";
    let output = process::output("openssl dgst", openssl_dgst(openssl), None, Duration::from_secs(20));
    output.is_ok_and(|output| output.success && output.stdout.starts_with(OF_NOTHING))
}

impl Observer for Digest {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        match &mut self.0 {
            Some(stdin) => Ok(stdin.write_all(chunk)?),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.0 = None;
        Ok(())
    }
}

impl Sum {
    /// The SHA-256 in hexadecimal.
    pub fn get(self, finished: &Finished) -> Result<String> {
        let line = String::from_utf8(self.0.get(finished)?).context("the checksum is no text")?;
        match line.split_whitespace().next() {
            Some(sum) if sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(sum.to_ascii_lowercase()),
            _ => bail!("no checksum was given"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use super::*;
    use crate::testing::TempDir;

    fn digest_of(bytes: &[u8], path: Option<&OsString>) -> String {
        let mut chain = Chain::new(Duration::from_secs(20));
        let (digest, sum) = Digest::start(&mut chain, path).unwrap();
        chain.pump("reading", Cursor::new(bytes.to_vec()), io::sink(), digest);
        sum.get(&chain.finish().unwrap()).unwrap()
    }

    #[test]
    fn an_openssl_that_does_not_work_is_not_used() {
        assert!(!works(Path::new("/bin/false")) && !works(Path::new("/bin/echo")));
    }

    /// The examples of FIPS 180-2, with whatever is there and with no openssl.
    #[test]
    fn either_program_gives_the_sha256() {
        let dir = TempDir::new();
        for path in [None, Some(dir.path().as_os_str().to_owned())] {
            assert_eq!(
                digest_of(b"", path.as_ref()),
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            );
            assert_eq!(
                digest_of(b"abc", path.as_ref()),
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            );
        }
    }
}
