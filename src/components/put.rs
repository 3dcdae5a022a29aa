//! Rows that are put into a live database.

use anyhow::{ensure, Result};

use crate::formats::pg_dump::TableName;
use crate::process::hinted;

/// What becomes of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They are new: one whose key is there is an error.
    Insert,
    /// Those whose key is not there are inserted.
    InsertMissing,
    /// All are set to the values given: one whose key is not there is an error.
    Replace,
}

/// Rows for a table.
#[derive(Clone, Debug)]
pub struct Put {
    pub table: TableName,
    pub how: How,
    pub columns: Vec<String>,
    /// A value, or NULL, for each column.
    pub rows: Vec<Vec<Option<String>>>,
}

/// What must hold of a row, if it is there, once the transaction has begun.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    pub table: &'a TableName,
    pub id: &'a str,
    /// Columns of which none may hold anything but false.
    pub off: &'a [&'a str],
    /// A column, and what it held when the row was read.
    pub read: Option<(&'a str, Option<&'a str>)>,
}

/// What a row is said to be that must not be changed.
pub(super) const IN_USE: &str = "it is active now";

/// What is said of a row that is another one than was read.
pub(super) const CHANGED: &str = "it has changed in n8n meanwhile";

/// What a row is said to be that is to be replaced and is not there.
pub(super) const GONE: &str = "the row that is replaced is not there any more";

/// Refuses rows with columns that the live database lacks.
pub(super) fn lacking(columns: &[String]) -> Result<()> {
    ensure!(
        columns.is_empty(),
        hinted(
            format!(
                "The live database lacks columns that are in the backup: {}",
                columns.join(", ")
            ),
            "the backup is of another n8n: update the live one where it is the older; where it is the newer, restore the backup \
             on a test host, update n8n there, and export from it"
        )
    );
    Ok(())
}
