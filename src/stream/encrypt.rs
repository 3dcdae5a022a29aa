//! Encryption at rest: the one place that knows how gpg is called. What it writes are OpenPGP messages (RFC 4880) that
//! gpg alone can read again.
//!
//! With a passphrase, gpg gets no home directory and no keyring, and starts no agent: nothing of the user's is read or
//! touched, and nothing is left behind, whatever ends us. The passphrase goes by standard input, as the line before the
//! data; gpg reads that line byte by byte, and the data after it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{bail, Context, Error, Result};

use crate::config::{Config, Encryption, Recipient, Secret};
use crate::process::{self, find, hinted, Chain, ChildOutput, Input, Missing, Observer, Pending};

/// What gpg is told each time: no questions, no options of the user's, no agent that stays, no network.
const ALWAYS: [&str; 6] = [
    "--batch",
    "--no-tty",
    "--quiet",
    "--no-options",
    "--no-auto-key-locate",
    "--output=-",
];
/// No home directory, no keyring, no random seed, no lock files, no agent.
const ALONE: [&str; 6] = [
    "--homedir=/nonexistent",
    "--no-keyring",
    "--no-random-seed-file",
    "--lock-never",
    "--no-autostart",
    "--no-permission-warning",
];
/// The passphrase is the first line of standard input.
const PASSPHRASE: [&str; 2] = ["--pinentry-mode=loopback", "--passphrase-fd=0"];
/// The data is compressed already. Naming the count of hash rounds keeps gpg from asking an agent for one.
const ENCRYPT: [&str; 2] = ["--cipher-algo=AES256", "--compress-algo=none"];
const STRETCH: [&str; 2] = ["--s2k-digest-algo=SHA512", "--s2k-count=65011712"];
/// gpg writes in pieces of 8 KiB and keeps one back; so much of a message shows whether it can be decrypted.
const PROBE: u64 = 64 << 10;

/// A file that cannot be decrypted here; whether its contents are whole is not known.
#[derive(Debug)]
pub struct Locked {
    /// What is missing, or does not fit.
    pub why: String,
    /// It takes a private key, which a host that only makes backups does not have.
    pub private_key: bool,
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Locked {}

impl Locked {
    /// As the error of `file`.
    fn error(file: &Path, why: String, hint: Option<String>, private_key: bool) -> Error {
        let error = Error::new(Self { why, private_key });
        let message = format!("Cannot decrypt {}", file.display());
        match hint {
            Some(hint) => error.context(hinted(message, hint)),
            None => error.context(message),
        }
    }
}

/// The gpg of this host.
#[derive(Debug)]
pub struct Gpg {
    program: PathBuf,
    stall: Duration,
}

/// How a message can be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Passphrase,
    PrivateKey,
}

impl Gpg {
    /// Looks for gpg on `path`. `stall` bounds how long it may take for an answer.
    pub fn locate(path: Option<&OsString>, stall: Duration) -> Result<Self> {
        let missing = Missing {
            what: "gpg not found",
            hint: "install gnupg, which encrypts the backups",
        };
        let program = find("gpg", path).ok_or(missing)?;
        Ok(Self { program, stall })
    }

    /// Proves that something can be encrypted, before there is anything to encrypt.
    pub fn check(&self, encryption: &Encryption) -> Result<()> {
        let output = process::output(
            "gpg --encrypt",
            self.encrypting(encryption),
            Some(first_line(encryption)),
            self.stall,
        )?;
        if !output.success {
            let setting = match encryption {
                Encryption::Passphrase(_) => "the passphrase of BACKUP_GPG_PASSPHRASE".to_owned(),
                Encryption::Recipient(recipient) => format!("BACKUP_GPG_RECIPIENT {recipient}"),
            };
            bail!("Cannot encrypt with {setting}: {}", output.stderr);
        }
        Ok(())
    }

    /// Encrypts `from`, which passes `observer` on its way. Gives the encrypted stream, and the observer when all is
    /// done.
    pub fn encrypt<O: Observer>(
        &self,
        chain: &mut Chain,
        encryption: &Encryption,
        from: impl Read + Send + 'static,
        observer: O,
    ) -> Result<(ChildOutput, Pending<O>)> {
        let (stdin, stdout) = chain.stream("gpg --encrypt", self.encrypting(encryption), Input::Piped)?;
        let mut stdin = stdin.context("gpg has no input")?;
        // If gpg is gone already, the chain tells why.
        let _ = stdin.write_all(&first_line(encryption));
        let observer = chain.pump("encrypting", from, stdin, observer);
        Ok((stdout, observer))
    }

    /// Encrypts a text.
    pub fn encrypt_text(&self, encryption: &Encryption, text: &str) -> Result<Vec<u8>> {
        let mut input = first_line(encryption);
        input.extend_from_slice(text.as_bytes());
        let output = process::output("gpg --encrypt", self.encrypting(encryption), Some(input), self.stall)?;
        if !output.success {
            bail!("gpg --encrypt: {}", output.stderr);
        }
        Ok(output.stdout)
    }

    /// Decrypts `file`, named `name` in messages. A passphrase or key that does not fit is found out before anything
    /// is given, and is a [`Locked`].
    pub fn decrypt(
        &self,
        chain: &mut Chain,
        encryption: Option<&Encryption>,
        mut file: File,
        name: &Path,
    ) -> Result<ChildOutput> {
        let reading = || format!("Cannot read {}", name.display());
        let mut start = Vec::new();
        (&mut file).take(PROBE).read_to_end(&mut start).with_context(reading)?;
        file.rewind().with_context(reading)?;
        let lock = lock_of(&start).with_context(|| format!("{} is not an encrypted file of gpg", name.display()))?;
        let passphrase = match (lock, encryption) {
            (Lock::PrivateKey, _) => None,
            (Lock::Passphrase, Some(Encryption::Passphrase(passphrase))) => Some(passphrase),
            (Lock::Passphrase, _) => {
                let why = "it is encrypted with a passphrase, and BACKUP_GPG_PASSPHRASE is not set".to_owned();
                let hint = format!(
                    "set BACKUP_GPG_PASSPHRASE in .env to the passphrase that it was encrypted with{}",
                    encryption.map_or("", |_| ", and BACKUP_GPG_RECIPIENT to nothing")
                );
                return Err(Locked::error(name, why, Some(hint), false));
            }
        };
        self.probe(passphrase, &start, name)?;
        let Some(passphrase) = passphrase else {
            let input = Input::From(Stdio::from(file));
            return Ok(chain.stream("gpg --decrypt", self.decrypting(None), input)?.1);
        };
        let (stdin, stdout) = chain.stream("gpg --decrypt", self.decrypting(Some(passphrase)), Input::Piped)?;
        let mut stdin = stdin.context("gpg has no input")?;
        let _ = stdin.write_all(&line(passphrase));
        chain.pump("decrypting", file, stdin, ());
        Ok(stdout)
    }

    /// Decrypts the start of a message, so that a wrong passphrase is not taken for a damaged file.
    fn probe(&self, passphrase: Option<&Secret>, start: &[u8], name: &Path) -> Result<()> {
        let mut input = passphrase.map(line).unwrap_or_default();
        input.extend_from_slice(start);
        let output = process::output("gpg --decrypt", self.decrypting(passphrase), Some(input), self.stall)?;
        if output.success || !output.stdout.is_empty() {
            return Ok(());
        }
        // The start alone was given to it.
        let told: Vec<&str> = output.stderr_lines().filter(|line| !tells_cut(line)).collect();
        let (what, hint) = match passphrase {
            Some(_) if tells_wrong_passphrase(&output.stderr) => ("BACKUP_GPG_PASSPHRASE is not its passphrase", None),
            Some(_) => (
                "BACKUP_GPG_PASSPHRASE is not its passphrase, or the file is damaged",
                None,
            ),
            None => (
                "its private key is not at hand",
                Some("import its private key into the keyring of the user who runs this, and unlock it".to_owned()),
            ),
        };
        let why = format!("{what} ({})", told.join(" / "));
        Err(Locked::error(name, why, hint, passphrase.is_none()))
    }

    fn encrypting(&self, encryption: &Encryption) -> Command {
        let mut gpg = self.command();
        gpg.args(ENCRYPT);
        match encryption {
            Encryption::Passphrase(_) => gpg.args(ALONE).args(PASSPHRASE).args(STRETCH).arg("--symmetric"),
            // A key in a file is taken as valid; one of the keyring was named by the user, which is as good.
            Encryption::Recipient(Recipient::File(file)) => {
                let mut recipient = OsString::from("--recipient-file=");
                recipient.push(file);
                gpg.args(ALONE).arg(recipient).arg("--encrypt")
            }
            Encryption::Recipient(Recipient::Key(key)) => gpg
                .args(["--no-autostart", "--trust-model=always"])
                .arg(format!("--recipient={key}"))
                .arg("--encrypt"),
        };
        gpg
    }

    /// Without a passphrase it is the keyring and the agent of the user that decrypt.
    fn decrypting(&self, passphrase: Option<&Secret>) -> Command {
        let mut gpg = self.command();
        if passphrase.is_some() {
            gpg.args(ALONE).args(PASSPHRASE);
        }
        gpg.arg("--decrypt");
        gpg
    }

    fn command(&self) -> Command {
        let mut gpg = process::command(&self.program);
        gpg.args(ALWAYS);
        gpg
    }
}

/// The gpg of this host.
pub(super) fn gpg(config: &Config) -> Result<Gpg> {
    Gpg::locate(config.path.as_ref(), config.stall)
}

/// Whether what `encryption` encrypts can be decrypted with it.
pub const fn can_read(encryption: &Encryption) -> bool {
    matches!(encryption, Encryption::Passphrase(_))
}

/// Whether what begins so was made by somebody who knows the passphrase of the settings. Anybody can encrypt to a public key.
pub fn is_of_passphrase(start: &[u8]) -> bool {
    lock_of(start) == Some(Lock::Passphrase)
}

/// What gpg reads before the data.
fn first_line(encryption: &Encryption) -> Vec<u8> {
    match encryption {
        Encryption::Passphrase(passphrase) => line(passphrase),
        Encryption::Recipient(_) => Vec::new(),
    }
}

fn line(passphrase: &Secret) -> Vec<u8> {
    format!("{}\n", passphrase.reveal()).into_bytes()
}

/// Whether gpg says that the session key is wrong: `gpg: decryption failed: Bad session key` (2.2). A few wrong
/// passphrases give a key that looks right, and gpg then says something else.
fn tells_wrong_passphrase(stderr: &str) -> bool {
    stderr.contains("Bad session key")
}

/// Whether a line of gpg is on a message that is cut short: `gpg: block_filter: pending bytes!` or
/// `gpg: block_filter 0x0000556b: read error (size=16360,a->size=16360)` (2.2).
fn tells_cut(line: &str) -> bool {
    line.contains("block_filter")
}

/// How a message can be decrypted, by its first packets: RFC 4880, section 4.2 (headers), 5.1 and 5.3 (session keys). Behind
/// them must stand data that are encrypted and protected against changes (5.13, or AEAD): gpg gives out what is not encrypted
/// as well, without a word.
fn lock_of(mut start: &[u8]) -> Option<Lock> {
    let mut lock = None;
    loop {
        let (tag, rest) = match start {
            [first, rest @ ..] if first & 0b1100_0000 == 0b1100_0000 => (first & 0b0011_1111, rest),
            [first, rest @ ..] if first & 0b1000_0000 != 0 => ((first & 0b0011_1100) >> 2, rest),
            _ => return None,
        };
        lock = lock.or(match tag {
            1 => Some(Lock::PrivateKey),
            3 => Some(Lock::Passphrase),
            18 | 20 => return lock,
            _ => return None,
        });
        if !matches!(tag, 1 | 3) {
            return None;
        }
        let is_new = start[0] & 0b0100_0000 != 0;
        let (length, body) = match (is_new, start[0] & 0b11, rest) {
            (true, _, [short @ 0..=191, body @ ..]) => (usize::from(*short), body),
            (true, _, [high @ 192..=223, low, body @ ..]) => {
                (usize::from(*high - 192) * 256 + usize::from(*low) + 192, body)
            }
            (false, 0, [short, body @ ..]) => (usize::from(*short), body),
            (false, 1, [high, low, body @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), body),
            _ => return None,
        };
        start = body.get(length..)?;
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::File(file) => write!(f, "{}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::process::Count;
    use crate::testing::{skip, TempDir};

    const STALL: Duration = Duration::from_secs(20);

    fn passphrase(text: &str) -> Encryption {
        Encryption::Passphrase(Secret::new(text))
    }

    #[test]
    fn only_what_is_encrypted_is_a_message() {
        let key = [0x8c, 2, 4, 9];
        let public = [0xc1, 192, 8].into_iter().chain([0; 200]).collect::<Vec<u8>>();
        let message = |parts: &[&[u8]]| lock_of(&parts.concat());
        for sealed in [0xd2, 0xd4] {
            assert_eq!(message(&[&key, &[sealed, 1]]), Some(Lock::Passphrase));
            assert_eq!(message(&[&public, &key, &[sealed]]), Some(Lock::PrivateKey));
        }
        // Plain or compressed text, and what is not protected against changes, behind a session key or alone.
        for open in [0xcb, 0xac, 0xa3, 0xc9, 0xd3] {
            assert_eq!(message(&[&key, &[open, 1]]), None, "{open:x}");
            assert_eq!(message(&[&[open, 1]]), None, "{open:x}");
        }
        for cut in [
            &key[..1],
            &key[..3],
            &key,
            &[0x8c, 200, 0xd2],
            &[0x8f, 0xd2],
            &[0xd2, 1],
        ] {
            assert_eq!(message(&[cut]), None, "{cut:?}");
        }
    }

    #[test]
    fn what_a_stranger_wraps_in_plain_is_refused() {
        let Ok(gpg) = Gpg::locate(None, STALL) else {
            return skip("encrypt::what_a_stranger_wraps_in_plain_is_refused", "no gpg");
        };
        let dir = TempDir::new();
        let file = dir.path().join("n8n.sql.gz.gpg");
        let key = passphrase("the right passphrase");
        let sealed = process::output("gpg", gpg.encrypting(&key), Some(first_line(&key)), STALL).unwrap();
        let session_key = &sealed.stdout[..2 + usize::from(sealed.stdout[1])];
        let literal = b"\xcb\x0bb\0\0\0\0\0evil\n";
        for forged in [literal.to_vec(), [session_key, literal].concat()] {
            std::fs::write(&file, forged).unwrap();
            let mut chain = Chain::new(STALL);
            assert!(gpg
                .decrypt(&mut chain, Some(&key), File::open(&file).unwrap(), &file)
                .is_err());
        }
    }

    #[test]
    fn what_gpg_says_is_known() {
        let said = "gpg: decryption failed: Bad session key / gpg: block_filter: pending bytes!";
        assert!(tells_wrong_passphrase(said));
        assert!(!tells_wrong_passphrase("gpg: decryption failed: No secret key"));
        let told: Vec<bool> = said.split(" / ").map(tells_cut).collect();
        assert_eq!(told, [false, true]);
    }

    #[test]
    fn no_argument_holds_the_passphrase() {
        let gpg = Gpg {
            program: PathBuf::from("gpg"),
            stall: STALL,
        };
        let secret = Secret::new("open sesame 1234");
        let encryption = Encryption::Passphrase(secret.clone());
        for command in [gpg.encrypting(&encryption), gpg.decrypting(Some(&secret))] {
            assert!(!format!("{command:?}").contains("sesame"));
        }
    }

    #[test]
    fn what_is_encrypted_is_decrypted_with_the_same_passphrase_only() {
        let Ok(gpg) = Gpg::locate(None, STALL) else {
            return skip(
                "encrypt::what_is_encrypted_is_decrypted_with_the_same_passphrase_only",
                "no gpg",
            );
        };
        let dir = TempDir::new();
        for bytes in [0, 1, 9000, 1_000_000] {
            let file = dir.path().join(format!("{bytes}.gpg"));
            let right = passphrase(" a passphrase with \u{e4} blanks ");
            gpg.check(&right).unwrap();
            let mut chain = Chain::new(STALL);
            let (stream, seen) = gpg
                .encrypt(&mut chain, &right, io::repeat(7).take(bytes), Count::default())
                .unwrap();
            chain.pump("writing", stream, File::create(&file).unwrap(), ());
            assert_eq!(seen.get(&chain.finish().unwrap()).unwrap().0, bytes);

            let read = |encryption: Option<&Encryption>| -> Result<u64> {
                let mut chain = Chain::new(STALL);
                let plain = gpg.decrypt(&mut chain, encryption, File::open(&file)?, &file)?;
                let count = chain.pump("reading", plain, io::sink(), Count::default());
                Ok(count.get(&chain.finish()?)?.0)
            };
            assert_eq!(read(Some(&right)).unwrap(), bytes);
            for wrong in [None, Some(&passphrase("wrong passphrase"))] {
                let error = read(wrong).unwrap_err();
                assert!(error.downcast_ref::<Locked>().is_some(), "{error:#}");
            }
            let whole = std::fs::read(&file).unwrap();
            std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
            assert!(read(Some(&right)).is_err());
        }
    }
}
