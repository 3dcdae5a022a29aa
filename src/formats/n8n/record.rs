//! A row, and its values as n8n gives them.

use std::sync::Arc;

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};

use crate::formats::json::{reformat, string};
use crate::formats::pg_dump::Column;

/// A row of one of n8n's tables.
#[derive(Clone, Debug)]
pub struct Record {
    columns: Arc<Vec<Column>>,
    fields: Vec<Option<String>>,
}

impl Record {
    /// A row with a field for each column.
    pub fn new(columns: Arc<Vec<Column>>, fields: Vec<Option<String>>) -> Self {
        Self { columns, fields }
    }

    /// The value of a column as the database writes it; none where that is NULL or not there.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.position(column).and_then(|at| self.fields[at].as_deref())
    }

    /// The value of a column that every row has.
    pub fn text(&self, column: &str) -> &str {
        self.get(column).unwrap_or_default()
    }

    /// Whether a column is true.
    pub fn is(&self, column: &str) -> bool {
        self.get(column) == Some("t")
    }

    /// Whether the table has a column.
    pub fn has(&self, column: &str) -> bool {
        self.position(column).is_some()
    }

    /// Sets a column that the table has.
    pub fn set(&mut self, column: &str, value: Option<String>) {
        if let Some(at) = self.position(column) {
            self.fields[at] = value;
        }
    }

    /// Sets a column, which is added where the row lacks it.
    pub fn add(&mut self, column: &str, value: Option<String>) {
        if !self.has(column) {
            Arc::make_mut(&mut self.columns).push(Column {
                name: column.to_owned(),
                kind: String::new(),
            });
            self.fields.push(None);
        }
        self.set(column, value);
    }

    /// Its columns and values.
    pub fn fields(&self) -> impl Iterator<Item = (&Column, Option<&str>)> {
        self.columns.iter().zip(self.fields.iter().map(Option::as_deref))
    }

    /// A time, in ISO 8601 as JavaScript writes it.
    pub fn time(&self, column: &str) -> Option<String> {
        self.get(column)
            .map(|text| iso(text).unwrap_or_else(|| text.to_owned()))
    }

    /// Keeps these columns only.
    pub fn only(&self, names: &[&str]) -> Self {
        let kept = self
            .fields()
            .filter(|(column, _)| names.contains(&column.name.as_str()));
        let (columns, fields): (Vec<Column>, Vec<Option<String>>) = kept
            .map(|(column, field)| (column.clone(), field.map(str::to_owned)))
            .unzip();
        Self::new(Arc::new(columns), fields)
    }

    /// Writes the value of a column to `out` as n8n does as JSON, within `depth` levels.
    pub fn write(&self, column: &str, depth: usize, out: &mut String) -> Result<()> {
        let at = self.position(column).context("no such column")?;
        write(&self.columns[at].kind, self.fields[at].as_deref(), depth, out)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// Writes a value of the type `kind`.
fn write(kind: &str, value: Option<&str>, depth: usize, out: &mut String) -> Result<()> {
    let Some(value) = value else {
        out.push_str("null");
        return Ok(());
    };
    let word = kind.split(' ').next().unwrap_or_default();
    match word {
        "json" | "jsonb" => return reformat(value, depth, out),
        "boolean" => out.push_str(if value == "t" { "true" } else { "false" }),
        // As of bigint and numeric, n8n gives the text of what is no number in JSON.
        "smallint" | "integer" | "real" | "double" if value.parse::<f64>().is_ok_and(f64::is_finite) => {
            out.push_str(value);
        }
        "timestamp" => string(iso(value).as_deref().unwrap_or(value), out),
        _ => string(value, out),
    }
    Ok(())
}

/// A time of PostgreSQL (`2026-11-28 03:07:38.9+00`) as JavaScript writes it; without a time zone it is that of UTC.
fn iso(text: &str) -> Option<String> {
    utc(text).or_else(|| converted(text))
}

/// A time of UTC by its text alone: there are many.
fn utc(text: &str) -> Option<String> {
    let time = text.strip_suffix("+00")?;
    let (seconds, part) = time.split_once('.').unwrap_or((time, ""));
    let shape = |(byte, like): (u8, u8)| match like {
        b'0' => byte.is_ascii_digit(),
        like => byte == like,
    };
    let is_time = seconds.len() == 19 && seconds.bytes().zip(*b"0000-00-00 00:00:00").all(shape);
    let (date, clock) = seconds.split_once(' ').filter(|_| is_time)?;
    let millis = part.bytes().all(|byte| byte.is_ascii_digit()).then_some(part)?;
    Some(format!("{date}T{clock}.{:0<3}Z", millis.get(..3).unwrap_or(millis)))
}

fn converted(text: &str) -> Option<String> {
    let time = DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").map_or_else(
        |_| {
            NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
                .ok()
                .map(|time| time.and_utc())
        },
        |time| Some(time.with_timezone(&Utc)),
    )?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_utc() {
        for (text, wanted) in [
            ("2026-11-28 03:07:38.906+00", "2026-11-28T03:07:38.906Z"),
            ("2026-11-28 03:07:38.9+00", "2026-11-28T03:07:38.900Z"),
            ("2026-11-28 03:07:38-03", "2026-11-28T06:07:38.000Z"),
            ("2026-11-28 03:07:38.123999+05:30", "2026-11-27T21:37:38.123Z"),
            ("2026-11-28 03:07:38.5", "2026-11-28T03:07:38.500Z"),
            ("2026-11-28 03:07:38.123999+00", "2026-11-28T03:07:38.123Z"),
            ("2026-11-28 03:07:38+00", "2026-11-28T03:07:38.000Z"),
        ] {
            assert_eq!(iso(text).as_deref(), Some(wanted), "{text}");
        }
        assert_eq!(iso("infinity"), None);
    }

    #[test]
    fn values_are_of_the_type_of_their_column() {
        let written = |kind: &str, value: &str| {
            let mut out = String::new();
            write(kind, Some(value), 0, &mut out).map(|()| out)
        };
        for (kind, value, wanted) in [
            ("boolean not null", "t", "true"),
            ("boolean", "f", "false"),
            ("integer default not null", "-7", "-7"),
            ("double precision", "NaN", "\"NaN\""),
            ("bigint", "12", "\"12\""),
            ("json not null", "[ ]", "[]"),
            ("timestamp with time zone", "infinity", "\"infinity\""),
            ("character varying", "a\"b", "\"a\\\"b\""),
            ("", "x", "\"x\""),
        ] {
            assert_eq!(written(kind, value).unwrap(), wanted, "{kind}");
        }
        assert!(written("json", "{").is_err());
    }
}
