//! Reads n8n's tables out of a dump.

use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};

use super::directory::Directory;
use super::record::Record;
use super::tables::{Place, Table};
use crate::formats::pg_dump::{Column, Rows, Sink, Summary, TableName};

/// Takes what may be too large to be held.
pub trait Visitor: Send + 'static {
    /// Whether the rows of a table are read: the small ones are for the [`Directory`].
    fn wants(&self, table: Table) -> bool;

    /// Takes a row of the workflows, versions or credentials.
    fn visit(&mut self, table: Table, record: Record) -> Result<()>;
}

/// Gives the large tables to a visitor and holds the small ones.
pub struct Reader<V> {
    visitor: V,
    directory: Directory,
    place: Option<Place>,
    told: Option<Place>,
    found: bool,
    /// The table that is read, and its columns.
    current: Option<(Table, Arc<Vec<Column>>)>,
}

impl<V: Visitor> Reader<V> {
    /// A reader of a dump. Of several n8n it reads the one that is `told`.
    pub fn rows(visitor: V, told: Option<Place>) -> Rows<Self> {
        Rows::new(Self {
            visitor,
            directory: Directory::default(),
            place: None,
            told,
            found: false,
            current: None,
        })
    }

    /// What was read, once the dump has proven to be whole.
    ///
    /// # Errors
    /// It is not whole, or no dump of n8n's database with its data as COPY.
    pub fn finish(rows: Rows<Self>) -> Result<(V, Directory)> {
        let (mut reader, summary) = rows.finish()?;
        let summary = summary.whole()?;
        ensure!(reader.found, why_not_found(&summary));
        reader.directory.place = reader.place;
        Ok((reader.visitor, reader.directory))
    }

    /// What was read, where there was a table of workflows.
    pub fn into_visitor(self) -> Option<V> {
        self.found.then_some(self.visitor)
    }
}

impl<V: Visitor> Sink for Reader<V> {
    fn table(&mut self, table: &TableName, columns: &[Column], created: &[(TableName, Vec<Column>)]) -> Result<bool> {
        let place = match &self.place {
            Some(place) => place,
            None if created.is_empty() => bail!(
                "the dump does not create its tables (pg_dump --data-only), and without these n8n's are not known: make \
                 one with pg_dump's defaults"
            ),
            None => self.place.insert(Place::find(created, self.told.as_ref())?),
        };
        let Some(known) = place.table(table) else {
            return Ok(false);
        };
        self.found |= known == Table::Workflow;
        let columns = Arc::new(columns.to_vec());
        self.directory.columns.insert(known, Arc::clone(&columns));
        self.current = Some((known, columns));
        Ok(self.visitor.wants(known))
    }

    fn row(&mut self, fields: Vec<Option<String>>) -> Result<()> {
        let (table, columns) = self.current.as_ref().context("a row without a table")?;
        let record = Record::new(Arc::clone(columns), fields);
        match table {
            Table::Workflow | Table::History | Table::Credential => self.visitor.visit(*table, record),
            table => {
                self.directory.add(*table, record);
                Ok(())
            }
        }
    }
}

fn why_not_found(summary: &Summary) -> &'static str {
    match (summary.inserts, summary.tables.is_empty(), summary.copies.is_empty()) {
        (1.., _, _) => {
            "its rows are INSERT statements (pg_dump --inserts), which are not read: make one with pg_dump's defaults"
        }
        (0, true, _) => "the dump holds no table",
        (0, false, true) => "the dump holds no rows (pg_dump --schema-only): make one with pg_dump's defaults",
        (0, false, false) => "the dump holds no rows of n8n's workflows",
    }
}
