//! Text for psql and from it: quoting, scripts, fields.

use anyhow::{bail, ensure, Context, Result};

use crate::formats::text::unhex as unhexed;

/// Flags of every `psql` that runs a script of this module: no rc file, unaligned tuples only, quiet, never ask for a
/// password, stop at the first error (exit status 3), script on standard input with line numbers in messages.
pub const PSQL_FLAGS: [&str; 6] = ["-XAtqw", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d"];

/// Longest name the server stores, in bytes (NAMEDATALEN - 1); longer ones would be cut silently.
pub(super) const MAX_NAME: usize = 63;

/// First lines of every script: the settings of a database or role must not bend what follows.
pub const PRELUDE: &str = "SET client_min_messages = warning;\n\
    SET search_path = pg_catalog;\n\
    SET client_encoding = 'UTF8';\n\
    SET standard_conforming_strings = on;\n\
    SET default_transaction_read_only = off;\n\
    SET statement_timeout = 0;\n\
    SET lock_timeout = '10s';\n\
    SET synchronous_commit = on;\n\
    SET ROLE NONE;\n\
    DO $prelude$ BEGIN PERFORM pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
    WHERE name IN ('idle_session_timeout', 'transaction_timeout'); END $prelude$;\n";

/// A whole script of these lines.
pub fn script_of(lines: &str) -> String {
    format!("{PRELUDE}{lines}")
}

/// Stands between scripts that run in one session, and has psql print a line that no script prints.
pub const SEPARATE: &str = "\\echo =====\n";
pub(super) const SEPARATOR: &str = "=====";

/// Reads the output of scripts with [`SEPARATE`] between them.
pub fn separated<const N: usize>(output: &str) -> Result<[String; N]> {
    let mut answers = vec![String::new()];
    for line in output.split_inclusive('\n') {
        match answers.last_mut() {
            Some(answer) if line.trim_end() != SEPARATOR => answer.push_str(line),
            _ => answers.push(String::new()),
        }
    }
    let count = answers.len();
    match answers.try_into() {
        Ok(answers) => Ok(answers),
        Err(_) => bail!("psql gave {count} answers instead of {N}"),
    }
}

/// `name` as a quoted SQL identifier.
///
/// # Errors
/// Where no database or role can have that name: empty, longer than 63 bytes, or with a NUL.
pub fn ident(name: &str) -> Result<String> {
    ensure!(!name.is_empty(), "a PostgreSQL name cannot be empty");
    ensure!(
        name.len() <= MAX_NAME,
        "PostgreSQL name is longer than {MAX_NAME} bytes: {name}"
    );
    ensure!(!name.contains('\0'), "a PostgreSQL name cannot contain NUL");
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// `text` as an SQL string literal, right under both settings of `standard_conforming_strings`.
///
/// # Errors
/// Where `text` contains a NUL, which no PostgreSQL string can hold.
pub fn literal(text: &str) -> Result<String> {
    ensure!(!text.contains('\0'), "PostgreSQL text cannot contain NUL");
    let quoted = text.replace('\'', "''");
    Ok(if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    })
}

/// libpq connection string for the value of `-d`: there a bare name with `=` or of the form `postgresql://...` would
/// be taken for a connection string itself. `application` marks the session in `pg_stat_activity`.
///
/// # Errors
/// As [`ident`], for `user` and `database`.
pub fn conninfo(user: &str, database: &str, port: Option<u16>, application: &str) -> Result<String> {
    ident(user)?;
    ident(database)?;
    let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let port = port.map_or_else(String::new, |port| format!(" port={port}"));
    Ok(format!(
        "user='{}' dbname='{}'{port} application_name='{}'",
        quote(user),
        quote(database),
        quote(application)
    ))
}

/// `application_name` of the sessions that do `task` for `live`: the same in every run, so that a later one can end
/// what an earlier one left. The server cuts that name at 63 bytes and changes what is not ASCII; hence a hash (FNV-1a).
pub fn application_name(task: &str, live: &str) -> String {
    let hash = live.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("n8n-backup {task} {hash:016x}")
}

/// Script that runs `statements` of a [`Description`], each in its own transaction.
pub fn script(statements: &[String]) -> String {
    let mut script = PRELUDE.to_owned();
    for statement in statements {
        script.push_str(statement);
        script.push_str(";\n");
    }
    script
}

/// As [`script`], and a statement that fails does not stop the others: a user who is no superuser may not give every
/// setting. [`differences`] tells what is missing then.
pub fn lenient_script(statements: &[String]) -> String {
    format!(
        "\\set ON_ERROR_STOP off\n{}\\set ON_ERROR_STOP on\n",
        script(statements)
    )
}

/// Reads lines of a word and a hex name, the answer to [`blockers`].
pub fn parse_named(output: &str) -> Result<Vec<(String, String)>> {
    output
        .lines()
        .map(|line| {
            let (kind, name) = line
                .split_once('\t')
                .with_context(|| format!("unexpected line from psql: {line:?}"))?;
            Ok((kind.to_owned(), unhex(name)?))
        })
        .collect()
}

/// Reads one hex name per line, the answer to [`missing_roles`].
pub fn parse_names(output: &str) -> Result<Vec<String>> {
    output.lines().map(unhex).collect()
}

/// `name` as a literal, checked as [`ident`] does: a longer one would silently miss in a comparison.
pub(super) fn name_literal(name: &str) -> Result<String> {
    ident(name)?;
    literal(name)
}

pub(super) fn number<T: std::str::FromStr>(field: &str) -> Result<T> {
    field
        .parse()
        .ok()
        .with_context(|| format!("psql gave {field:?} where a number was expected"))
}

pub fn truth(field: &str) -> Result<bool> {
    match field {
        "t" => Ok(true),
        "f" => Ok(false),
        _ => bail!("psql gave {field:?} where t or f was expected"),
    }
}

/// The UTF-8 of `text` in hexadecimal.
pub(super) fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(field: &str) -> Result<String> {
    String::from_utf8(bytes_of(field)?).with_context(|| format!("psql gave {field:?}, which is not UTF-8"))
}

/// As [`unhex`], for names of a database whose encoding (SQL_ASCII) does not say what its bytes are.
pub(super) fn unhex_lossy(field: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes_of(field)?).into_owned())
}

fn bytes_of(field: &str) -> Result<Vec<u8>> {
    unhexed(field).with_context(|| format!("psql gave {field:?} where hex was expected"))
}
