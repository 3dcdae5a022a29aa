//! Loading a dump into an empty database, and comparing the two: what a restore and a drill have in common.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{anyhow, bail, Context as _, Result};

use super::messages::Printed;
use super::sql::{self, CountKind};
use super::Psql;
use crate::formats::pg_dump::{self, Filter, Strip, TableName};
use crate::process::{hinted, Input, BLOCK};
use crate::report::log::Journal;
use crate::report::progress::Progress;
use crate::store::Stamp;
use crate::stream::read::read;

/// What to do with a dump that is not loaded here.
const BY_PSQL: &str = "restore it by psql itself, after a look at it";

/// Refuses what must not reach psql.
pub fn check_statements(summary: &pg_dump::Summary) -> Result<()> {
    if summary.creates_database {
        bail!(hinted(
            "The dump creates or connects to a database by itself (pg_dump --create)",
            BY_PSQL
        ));
    }
    if let Some(line) = summary.command {
        bail!("The dump holds a psql command that pg_dump does not write (line {line}): it is not run");
    }
    if let Some(line) = summary.outside {
        bail!(
            "The dump holds a statement that acts outside of its database (line {line}): on roles, other databases, the \
             server, or its host's files and programs. It is not run; pg_dump writes none"
        );
    }
    if summary.standard_conforming_strings_off {
        bail!(hinted("The dump turns standard_conforming_strings off", BY_PSQL));
    }
    if let Some(line) = summary.drops {
        bail!(hinted(
            format_args!(
                "The dump drops what is not there in a fresh database (line {line}; pg_dump --clean without --if-exists)"
            ),
            BY_PSQL
        ));
    }
    let is_hypertable = |(table, rows): &(TableName, u64)| {
        *rows > 0 && table.schema == "_timescaledb_catalog" && table.name == "hypertable"
    };
    if summary.copies.iter().any(is_hypertable) {
        bail!(hinted(
            "The dump holds hypertables of TimescaleDB, which are loaded only between its functions timescaledb_pre_restore \
             and timescaledb_post_restore",
            BY_PSQL
        ));
    }
    if !summary.tables.is_empty() && summary.copies.is_empty() && summary.inserts == 0 {
        bail!(hinted(
            "The dump holds tables and no rows (pg_dump --schema-only)",
            BY_PSQL
        ));
    }
    Ok(())
}

/// What a server of `version` (`server_version_num`) does not take.
pub fn strip(version: u32) -> Strip {
    Strip {
        restrict: true,
        settings: unknown_settings(version),
        ..Strip::default()
    }
}

/// Streams the dump, without what `strip` takes, into `database`, which is empty. `restrict` says whether psql can be told
/// to take no meta-command. `summary` is what the file held when it was verified. Gives whether all privileges of the
/// dump could be given.
///
/// # Errors
/// `Database restore failed`, and why.
pub fn load(
    psql: &Psql<'_>,
    database: &str,
    file: &Path,
    summary: &pg_dump::Summary,
    restrict: bool,
    strip: Strip,
) -> Result<bool> {
    let marker = format!("n8n-backup-loaded-{}-{}", std::process::id(), Stamp::now());
    let token = if restrict { Some(token()?) } else { None };
    let prelude = sql::load_prelude(token.as_deref());
    let epilogue = sql::load_epilogue(&marker, token.as_deref())?;
    let mut chain = psql.app.chain();
    chain.pulse(psql.works(database, "load")?);
    let contents = read(&psql.app.config, &mut chain, file)?;
    let (stdin, stdout) = chain.stream("psql", psql.loader(database, "load")?, Input::Piped)?;
    let stdin = stdin.context("psql has no input")?;
    let bytes = summary.bytes;
    let loaded = chain.task("loading", move |clock| {
        let progress = Progress::new("loading", || Some(bytes));
        let mut to = BufWriter::with_capacity(BLOCK, stdin);
        to.write_all(prelude.as_bytes())?;
        let summary = feed(contents, Filter::new(strip), &mut to, |bytes| {
            progress.add(bytes);
            clock.tick();
        })?;
        to.write_all(epilogue.as_bytes())?;
        to.flush()?;
        Ok(summary)
    });
    let printed = chain.pump("reading from psql", stdout, io::sink(), Printed::new(&marker));
    let finished = match chain.finish() {
        Ok(finished) => finished,
        Err(error) => {
            let messages = printed.despite(&error).map(|printed| printed.messages().text());
            let error = match messages.filter(|text| !text.is_empty()) {
                Some(text) => error.context(text),
                None => error,
            };
            return Err(error.context("Database restore failed"));
        }
    };
    let loaded = loaded.get(&finished).context("Database restore failed")?;
    let printed = printed.get(&finished)?;
    if !printed.reached() {
        bail!("Database restore failed: psql ended before the last line of the dump");
    }
    if loaded != *summary {
        bail!("Database restore failed: the file changed while it was loaded");
    }
    Ok(!printed.messages().lacks_privileges())
}

/// Compares tables, rows and sequences of the loaded `database` with what the dump holds.
///
/// # Errors
/// `Database restore failed`, and the first differences.
pub fn compare(
    psql: &Psql<'_>,
    database: &str,
    summary: &pg_dump::Summary,
    journal: Journal,
) -> Result<Vec<sql::Count>> {
    let counts = psql
        .run_long(database, "restore", sql::table_counts())
        .and_then(|output| sql::parse_counts(&output))
        .context("Database restore failed")?;
    let tables = counts
        .iter()
        .filter(|count| matches!(count.kind, CountKind::Table | CountKind::Partitioned));
    journal.info(format_args!("Found {} tables in restored database", tables.count()));
    let differences = differences(summary, &counts);
    if differences.is_empty() {
        return Ok(counts);
    }
    let first: Vec<&str> = differences.iter().take(5).map(String::as_str).collect();
    Err(anyhow!(
        "the loaded database differs from the dump in {} point(s): {}",
        differences.len(),
        first.join("; ")
    ))
    .context("Database restore failed")
}

/// A word that nobody can guess, for `\restrict` and for the password of a role.
pub(super) fn token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("Cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Settings that newer versions of pg_dump write and a server of `version` does not know.
fn unknown_settings(version: u32) -> Vec<String> {
    if version < 170_000 {
        vec!["transaction_timeout".to_owned()]
    } else {
        Vec::new()
    }
}

/// Passes a dump through the filter.
fn feed(
    mut from: impl Read,
    mut filter: Filter,
    to: &mut impl Write,
    moved: impl Fn(usize),
) -> Result<pg_dump::Summary> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => break,
            Ok(n) => {
                moved(n);
                filter.feed(&block[..n], to)?;
                moved(0);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    filter.finish(to)
}

/// What is known by name: a name of the dump, which is read as UTF-8 whatever its encoding, finds a name of the server.
struct Named<T>(BTreeMap<TableName, T>);

/// What a name of the dump finds.
enum Found<'a, T> {
    One(&'a T),
    /// More than one could be meant.
    Several,
    None,
}

impl<T> Named<T> {
    fn find(&self, name: &TableName) -> Found<'_, T> {
        if let Some(value) = self.0.get(name) {
            return Found::One(value);
        }
        if name.schema.is_ascii() && name.name.is_ascii() {
            return Found::None;
        }
        let alike = ascii_only(name);
        let mut values = self.0.iter().filter(|(there, _)| ascii_only(there) == alike);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Several,
            (None, _) => Found::None,
        }
    }
}

/// A name with one mark for each run of characters beyond ASCII, which other encodings than UTF-8 spell otherwise.
fn ascii_only(name: &TableName) -> TableName {
    let fold = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if c.is_ascii() {
                out.push(c);
            } else if !out.ends_with(char::REPLACEMENT_CHARACTER) {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        out
    };
    TableName {
        schema: fold(&name.schema),
        name: fold(&name.name),
    }
}

/// Where the loaded database is not what the dump holds.
fn differences(summary: &pg_dump::Summary, counts: &[sql::Count]) -> Vec<String> {
    let name = |count: &sql::Count| TableName {
        schema: count.schema.clone(),
        name: count.name.clone(),
    };
    let mut rows = Named(BTreeMap::new());
    let mut sequences = Named(BTreeMap::new());
    for count in counts {
        if count.kind == CountKind::Sequence {
            sequences.0.insert(name(count), (count.value, count.called));
        } else {
            rows.0.insert(name(count), (count.kind, count.value));
        }
    }
    let mut found = Vec::new();
    for table in &summary.tables {
        if matches!(rows.find(table), Found::None) {
            found.push(format!("table {table} is missing"));
        }
    }
    let mut copied: BTreeMap<&TableName, u64> = BTreeMap::new();
    for (table, count) in &summary.copies {
        *copied.entry(table).or_default() += count;
    }
    for (table, expected) in copied {
        match rows.find(table) {
            Found::None => found.push(format!("table {table} is missing")),
            // Of an extension's table, the dump holds a part of the rows.
            Found::One((CountKind::Extension | CountKind::Foreign | CountKind::Partitioned, _) | (_, None))
            | Found::Several => {}
            Found::One((_, Some(there))) if u64::try_from(*there) == Ok(expected) => {}
            Found::One((_, Some(there))) => {
                found.push(format!("table {table} has {there} rows instead of {expected}"));
            }
        }
    }
    for (sequence, value, called) in &summary.sequences {
        match sequences.find(sequence) {
            Found::None => found.push(format!("sequence {sequence} is missing")),
            Found::One((Some(there), there_called)) if (there, there_called) != (value, called) => {
                found.push(format!("sequence {sequence} is at {there} instead of {value}"));
            }
            Found::One(_) | Found::Several => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        TableName {
            schema: "public".to_owned(),
            name: name.to_owned(),
        }
    }

    fn count(name: &str, rows: i64) -> sql::Count {
        sql::Count {
            kind: CountKind::Table,
            schema: "public".to_owned(),
            name: name.to_owned(),
            value: Some(rows),
            called: false,
        }
    }

    #[test]
    fn names_of_other_encodings_find_their_tables() {
        let mut summary = pg_dump::Summary::default();
        summary.tables.push(table("stra\u{fffd}e"));
        summary.copies.push((table("stra\u{fffd}e"), 3));
        assert!(differences(&summary, &[count("stra\u{df}e", 3)]).is_empty());
        assert_eq!(differences(&summary, &[count("stra\u{df}e", 2)]).len(), 1);
        // Two that could be meant prove nothing, none proves that it is missing.
        assert!(differences(&summary, &[count("stra\u{df}e", 2), count("stra\u{e4}e", 1)]).is_empty());
        assert_eq!(differences(&summary, &[count("strase", 3)]).len(), 2);
    }

    #[test]
    fn a_dump_with_hypertables_is_not_loaded() {
        let mut summary = pg_dump::Summary::default();
        let hypertable = TableName {
            schema: "_timescaledb_catalog".to_owned(),
            name: "hypertable".to_owned(),
        };
        // The extension alone, as in every database of TimescaleDB's image.
        summary.copies.push((hypertable, 0));
        check_statements(&summary).unwrap();
        summary.copies[0].1 = 1;
        let error = check_statements(&summary).unwrap_err();
        assert!(format!("{error:#}").contains("timescaledb_pre_restore"), "{error:#}");
    }

    #[test]
    fn a_missing_row_or_table_is_told() {
        let mut summary = pg_dump::Summary::default();
        summary.tables.push(table("a"));
        summary.copies.push((table("a"), 2));
        assert!(differences(&summary, &[count("a", 2)]).is_empty());
        assert_eq!(
            differences(&summary, &[count("a", 1)]),
            ["table public.a has 1 rows instead of 2"]
        );
        assert!(differences(&summary, &[]).contains(&"table public.a is missing".to_owned()));
    }
}
