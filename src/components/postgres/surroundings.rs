//! What a recovery point tells of the live server beside the dump. It is asked by the call of the engine that dumps.

use std::io::{self, Read};

use anyhow::{bail, Result};

use super::messages::{self, Messages};
use super::{leftovers, scratch, sql, JOURNAL, ROLE_FACT};
use crate::app::App;
use crate::components::tables::told_place;
use crate::engine::Docker;

/// Takes a script of SQL, a shell script that logs in, options of psql and where the server is, before the command.
/// Runs the script by psql, and prints what that says, where it fails [`FAILED`] and why, and NUL, which is in no dump:
/// one call of the engine takes less than two.
pub(super) const FIRST: &str = r#"{ why=$(printf %s "$1" |
  PGCLIENTENCODING=UTF8 PGCONNECT_TIMEOUT=10 sh -c "$2" sh psql $3 "$4" 2>&1 >&3) || printf '\001%s' "$why"; } 3>&1
printf '\0'
shift 4
exec "$@""#;

/// Is in no answer.
const FAILED: char = '\u{1}';

/// What psql answered before the dump.
fn answered(told: &[u8]) -> Result<String> {
    let told = String::from_utf8_lossy(told).into_owned();
    let Some((_, why)) = told.split_once(FAILED) else {
        return Ok(told);
    };
    let mut said = Messages::default();
    why.lines().for_each(|line| said.take(line));
    bail!("psql: {}", said.text())
}

/// The options of psql for it.
pub(super) fn options() -> String {
    [&messages::FLAGS[..], &sql::PSQL_FLAGS].concat().join(" ")
}

/// What [`facts`] reads the answers to.
pub(super) fn script(app: &App) -> Result<String> {
    let scripts = [
        sql::sweep_list(&app.config.postgres_db)?,
        sql::roles(),
        sql::migrations(told_place(app).as_ref())?,
        sql::LIKENESS.to_owned(),
    ];
    Ok(scripts.join(sql::SEPARATE))
}

/// What comes before the first NUL, and what was read behind that if it came.
pub(super) fn split_at_nul(from: &mut impl Read) -> io::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let (mut read, mut block) = (Vec::new(), [0; 8192]);
    loop {
        let from_here = read.len();
        match from.read(&mut block)? {
            0 => return Ok((read, None)),
            n => read.extend_from_slice(&block[..n]),
        }
        if let Some(at) = read[from_here..].iter().position(|byte| *byte == 0) {
            let behind = read.split_off(from_here + at + 1);
            read.pop();
            return Ok((read, Some(behind)));
        }
    }
}

/// What a drill has to know of the live server beside the dump: the rights of its roles, n8n's migrations, and what it
/// is like. Clears what killed restores have left there.
pub(super) fn facts(app: &App, docker: &Docker, told: &[u8]) -> Result<Vec<(String, String)>> {
    let [left, roles, migrations, likeness] = sql::separated(&answered(told)?)?;
    leftovers::clear(app, docker, &left, JOURNAL);
    let roles = sql::parse_roles(&roles)?.into_iter();
    let mut facts: Vec<_> = roles
        .map(|role| (format!("{ROLE_FACT}{}", role.name), role.rights()))
        .collect();
    if let Some((count, newest)) = sql::parse_migrations(&migrations)? {
        facts.push(("n8n.migrations".to_owned(), format!("{count} {newest}")));
    }
    let likeness = [scratch::PRELOAD_FACT, scratch::LOCALE_FACT]
        .into_iter()
        .zip(likeness.lines());
    let told = likeness.filter(|(_, value)| !value.is_empty());
    facts.extend(told.map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_psql_that_fails_before_the_dump_says_why() {
        let printed = |log_in: &str| {
            let first = ["-c", FIRST, "sh", "SELECT 1", log_in, "-X -q", "target"];
            let made = std::process::Command::new("sh")
                .args(first)
                .args(["echo", "dump"])
                .output()
                .unwrap();
            let (told, dump) = split_at_nul(&mut &made.stdout[..]).unwrap();
            assert_eq!(dump.as_deref(), Some(&b"dump\n"[..]));
            answered(&told).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(
            printed(r#"cat; echo " $*"; echo "psql:<stdin>:1: WARNING:  01000: w" >&2"#),
            Ok("SELECT 1 psql -X -q target\n".to_owned())
        );
        let denied = "ERROR:  42501: permission denied for table migrations";
        assert_eq!(
            printed(&format!("echo some; echo 'psql:<stdin>:9: {denied}' >&2; exit 3")),
            Err("psql: ERROR 42501 permission denied for table migrations".to_owned())
        );
        assert_eq!(
            printed("echo 'psql: error: no such server' >&2; exit 2"),
            Err("psql: error: no such server".to_owned())
        );
    }

    #[test]
    fn what_comes_first_is_split_from_the_dump() {
        let split = |bytes: &[u8]| {
            let mut from = bytes;
            let (told, dump) = split_at_nul(&mut from).unwrap();
            (told, dump.map(|begun| [&begun[..], from].concat()))
        };
        for (bytes, head, rest) in [
            (&b"a\tb\n\0--\n"[..], &b"a\tb\n"[..], Some(&b"--\n"[..])),
            (b"\0--", b"", Some(b"--")),
            (b"a\0", b"a", Some(b"")),
            // It has ended before that.
            (b"a\tb", b"a\tb", None),
            (b"", b"", None),
        ] {
            assert_eq!(split(bytes), (head.to_vec(), rest.map(<[u8]>::to_vec)));
        }
        let long = [&[b'a'; 8192][..], b"\0", &[b'b'; 9000]].concat();
        let (told, dump) = split(&long);
        assert_eq!((told.len(), dump.unwrap().len()), (8192, 9000));
    }
}
