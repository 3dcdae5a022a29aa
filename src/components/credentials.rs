//! n8n's stored credentials, and the proof that a key decrypts them.
//!
//! n8n stores what `openssl enc -aes-256-cbc -md md5 -salt -a` writes: base64 of `Salted__`, eight bytes of salt, and the
//! ciphertext of a JSON object, under a key derived from its encryption key by one round of MD5. So openssl proves a
//! key. Key and ciphertext go to it by a pipe, the plaintext comes back by another; none of them touches a disk, an argument,
//! an environment or the log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use crate::config::dotenv;
use crate::config::Secret;
use crate::formats::json::Json;
use crate::process;

/// The variable in `.env` that n8n takes its key from.
const VARIABLE: &str = "N8N_ENCRYPTION_KEY";
/// The member of n8n's `config`, a JSON object, that holds the key where the variable is not set.
const FIELD: &str = "encryptionKey";
/// How the base64 of `Salted__` begins, whatever follows.
const SALTED: &str = "U2FsdGVkX1";
/// openssl reads a password up to this many bytes.
const MAX_KEY: usize = 1000;
/// How many openssl processes work at a time.
const PROCESSES: usize = 4;

/// One row of n8n's credentials.
pub struct Stored {
    /// Its ID.
    pub id: String,
    /// What is stored, encrypted.
    pub data: String,
}

/// What came of decrypting.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// How many were decrypted and are what n8n stores.
    pub decrypted: usize,
    /// The IDs of those that the key does not decrypt.
    pub failed: Vec<String>,
    /// How many are stored in a form that is not known here, and were not tried.
    pub unknown: usize,
}

/// The key in the text of an environment file, `path` in messages; an empty one is none, and so is one that is taken from
/// elsewhere, as by `${NAME}`.
pub fn key_of_env(path: &Path, text: &[u8]) -> Result<Option<Secret>> {
    Ok(settings(path, text)?
        .remove(VARIABLE)
        .filter(|key| !key.is_empty() && !key.contains(ELSEWHERE))
        .map(|key| Secret::new(&key)))
}

/// How many settings an environment file holds.
pub fn count_settings(path: &Path, text: &[u8]) -> Result<usize> {
    Ok(settings(path, text)?.len())
}

/// Stands for what an environment file asks of the process that reads it.
const ELSEWHERE: &str = "\u{1}elsewhere\u{1}";

/// The settings in an environment file, read without an environment: what it asks of it is empty, or is marked where
/// it insists (`${NAME:?}`).
fn settings(path: &Path, text: &[u8]) -> Result<BTreeMap<String, String>> {
    let parse = |outer: &dyn Fn(&str) -> Option<String>| dotenv::parse(path, text, &|name| name == VARIABLE, outer);
    parse(&|_| None).or_else(|_| parse(&|_| Some(ELSEWHERE.to_owned())))
}

/// The key in the text of n8n's `config`; an empty one is none.
pub fn key_of_config(text: &[u8]) -> Result<Option<Secret>> {
    let text = std::str::from_utf8(text).context("n8n's config is not UTF-8")?;
    let config = Json::parse(text)
        .ok()
        .filter(|config| matches!(config, Json::Object(_)))
        .context("n8n's config is not a JSON object")?;
    let key = config.get(FIELD).and_then(Json::as_str);
    Ok(key.filter(|key| !key.is_empty()).map(Secret::new))
}

/// Tries `key` on every one of `rows`.
///
/// # Errors
/// When openssl is missing, cannot do what is asked, or the key has a form that it cannot be given.
pub fn prove(key: &Secret, rows: &[Stored], stall: Duration) -> Result<Proof> {
    let key = bytes_of(key)?;
    check_openssl(stall)?;
    let next = AtomicUsize::new(0);
    let proof = Mutex::new(Ok(Proof::default()));
    let work = || {
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let plain = row
                .data
                .starts_with(SALTED)
                .then(|| decrypt(&key, &row.data, stall))
                .transpose();
            let mut proof = proof.lock().unwrap_or_else(PoisonError::into_inner);
            match (proof.as_mut(), plain) {
                (Ok(proof), Ok(None)) => proof.unknown += 1,
                (Ok(proof), Ok(Some(Some(plain)))) if is_json(&plain) => proof.decrypted += 1,
                (Ok(proof), Ok(Some(_))) => proof.failed.push(row.id.clone()),
                (_, Err(error)) => *proof = Err(error),
                (Err(_), _) => return,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..PROCESSES.min(rows.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut proof = proof.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    proof.failed.sort();
    Ok(proof)
}

/// The key's bytes as n8n takes them: the low byte of each UTF-16 unit.
fn bytes_of(key: &Secret) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = key.reveal().encode_utf16().map(|unit| unit.to_le_bytes()[0]).collect();
    ensure!(
        bytes.len() <= MAX_KEY && !bytes.iter().any(|byte| matches!(byte, b'\n' | b'\0')),
        "the encryption key has a form that openssl does not take: a line break or more than {MAX_KEY} bytes"
    );
    Ok(bytes)
}

/// Has openssl decrypt what is known, so that its failure on a credential is the credential's or the key's.
fn check_openssl(stall: Duration) -> Result<()> {
    let plain = decrypt(b"n8n-backup", "U2FsdGVkX1/756k+oxi1sQa4vaaBvkLOqSiGnqdMtHw=", stall)
        .context("openssl is needed to test the encryption key: install it")?;
    ensure!(
        plain.is_some_and(|plain| plain == b"{}"),
        "openssl on this host does not decrypt AES-256-CBC with an MD5 key: the encryption key cannot be tested"
    );
    Ok(())
}

/// What openssl makes of `data`; none when it fails.
fn decrypt(key: &[u8], data: &str, stall: Duration) -> Result<Option<Vec<u8>>> {
    let mut command = process::command("openssl");
    command.args(["enc", "-d", "-aes-256-cbc", "-md", "md5", "-a", "-pass", "stdin"]);
    let mut input = Vec::with_capacity(key.len() + data.len() + data.len() / 32 + 2);
    input.extend_from_slice(key);
    input.push(b'\n');
    // In lines, since there are versions of openssl that read no long ones.
    for line in data.as_bytes().chunks(64) {
        input.extend_from_slice(line);
        input.push(b'\n');
    }
    let output = process::output("openssl", command, Some(input), stall)?;
    Ok(output.success.then_some(output.stdout))
}

/// Whether a plaintext is what n8n stores. A wrong key gets past openssl once in 256 times, to noise.
fn is_json(plain: &[u8]) -> bool {
    std::str::from_utf8(plain).is_ok_and(|text| {
        let text = text.trim();
        (text.starts_with('{') && text.ends_with('}')) || (text.starts_with('[') && text.ends_with(']'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(20);

    fn config(text: &str) -> Option<String> {
        key_of_config(text.as_bytes())
            .unwrap()
            .map(|key| key.reveal().to_owned())
    }

    #[test]
    fn the_key_in_config_is_found() {
        assert_eq!(config("{\n\t\"encryptionKey\": \"a+b/c\"\n}"), Some("a+b/c".to_owned()));
        assert_eq!(
            config(
                r#"{"a":[1,{"encryptionKey":"no"},"]"],"b":{"c":{}},"n":-1.5e3,"t":true,"encryptionKey":"x\"\\\/\u00e9\ud83d\ude00\n"} "#
            ),
            Some("x\"\\/\u{e9}\u{1f600}\n".to_owned())
        );
        assert_eq!(config(r#"{"other":{"encryptionKey":"no"}}"#), None);
        assert_eq!(config(r#"{"encryptionKey":""}"#), None);
        assert_eq!(config(r#"{"encryptionKey":7}"#), None);
        assert_eq!(config("{}"), None);
    }

    #[test]
    fn what_is_no_json_object_is_refused_without_showing_it() {
        for text in [
            "",
            "hunter2",
            "\"hunter2\"",
            "{\"encryptionKey\":\"hunter2",
            "{\"encryptionKey\" \"hunter2\"}",
            "{\"encryptionKey\":\"hunter2\"} hunter2",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\q\"}",
            "{\"a\":\"\\ud83d\"}",
            "{\"a\":}",
            "{\"a\":[",
        ] {
            let error = format!("{:#}", key_of_config(text.as_bytes()).unwrap_err());
            assert!(
                error.contains("not a JSON object") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_key_in_the_environment_file_is_found() {
        let path = Path::new(".env");
        let key = |text: &str| {
            key_of_env(path, text.as_bytes())
                .unwrap()
                .map(|key| key.reveal().to_owned())
        };
        assert_eq!(key("A=1\nN8N_ENCRYPTION_KEY='a b$c'\n"), Some("a b$c".to_owned()));
        assert_eq!(key("N8N_ENCRYPTION_KEY=\n"), None);
        assert_eq!(key("N8N_ENCRYPTION_KEY=${OUTSIDE}\n"), None);
        assert_eq!(key("N8N_ENCRYPTION_KEY=${OUTSIDE:?}\n"), None);
        assert_eq!(
            key("A=${OUTSIDE:?}\nN8N_ENCRYPTION_KEY=mine\n"),
            Some("mine".to_owned())
        );
        assert_eq!(count_settings(path, b"A=1\n# c\nB=2\n").unwrap(), 2);
    }

    /// Encrypts as n8n does.
    fn encrypt(key: &str, plain: &str) -> String {
        let mut command = process::command("openssl");
        command.args(["enc", "-aes-256-cbc", "-md", "md5", "-a", "-A", "-pass", "stdin"]);
        let input = format!("{key}\n{plain}").into_bytes();
        let output = process::output("openssl", command, Some(input), STALL).unwrap();
        assert!(output.success, "{}", output.stderr);
        output.text()
    }

    fn rows(data: &[String]) -> Vec<Stored> {
        let row = |(n, data): (usize, &String)| Stored {
            id: n.to_string(),
            data: data.clone(),
        };
        data.iter().enumerate().map(row).collect()
    }

    #[test]
    fn the_right_key_decrypts_and_nothing_else_does() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
        let whole = encrypt("right key", "{\"user\":\"J\u{fc}rgen\"}");
        let mut broken = whole.clone();
        broken.replace_range(30..31, if &whole[30..31] == "A" { "B" } else { "A" });
        let data = [
            whole.clone(),
            encrypt("right key", "[]"),
            encrypt("right key", &long),
            encrypt("right key", "no object"),
            broken,
            whole[..whole.len() - 4].to_owned(),
            SALTED.to_owned(),
            "n8n:v2:abc".to_owned(),
            String::new(),
        ];
        let right = prove(&Secret::new("right key"), &rows(&data), STALL).unwrap();
        assert_eq!(right.decrypted, 3);
        assert_eq!(right.failed, ["3", "4", "5", "6"]);
        assert_eq!(right.unknown, 2);
        let wrong = prove(&Secret::new("wrong key"), &rows(&data[..2]), STALL).unwrap();
        assert_eq!((wrong.decrypted, wrong.failed.len()), (0, 2));
    }

    #[test]
    fn a_key_beyond_ascii_is_taken_as_n8n_takes_it() {
        assert_eq!(bytes_of(&Secret::new("a\u{e9}\u{20ac}")).unwrap(), [b'a', 0xe9, 0xac]);
        assert!(bytes_of(&Secret::new("a\nb")).is_err());
    }

    #[test]
    fn noise_is_no_credential() {
        assert!(is_json(b"{}") && is_json(b" [1] "));
        assert!(!is_json(b"{\xff}") && !is_json(b"{") && !is_json(b"") && !is_json(b"x{}"));
    }
}
