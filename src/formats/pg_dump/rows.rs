//! Rows of chosen tables.

use anyhow::{ensure, Context, Result};

use super::bytes::find;
use super::lexer::{Lexer, State, Stop};
use super::names::{Column, TableName};
use super::Summary;

/// Takes the rows of a dump.
pub trait Sink {
    /// Is told of the COPY data of a table, and of the tables that were created before. Gives whether its rows are
    /// wanted.
    fn table(&mut self, table: &TableName, columns: &[Column], created: &[(TableName, Vec<Column>)]) -> Result<bool>;

    /// Takes a row of that table: a field for each column, none for NULL.
    fn row(&mut self, fields: Vec<Option<String>>) -> Result<()>;
}

/// Reads a dump as [`Scanner`](super::Scanner) does, and gives the rows that are wanted to `sink`. Of these, one at a
/// time is held in memory.
pub struct Rows<S> {
    lexer: Lexer,
    sink: S,
    /// The rows that are being read are wanted.
    wanted: bool,
    /// Columns of the table.
    columns: usize,
    /// The beginning of a row that goes on in the next chunk.
    line: Vec<u8>,
    /// Where rows cannot be read, the dump is read on without them.
    lenient: bool,
    failed: bool,
}

impl<S: Sink> Rows<S> {
    /// A reader at the beginning of a dump.
    pub fn new(sink: S) -> Self {
        let mut lexer = Lexer::new(false);
        lexer.collects = true;
        Self {
            lexer,
            sink,
            wanted: false,
            columns: 0,
            line: Vec::new(),
            lenient: false,
            failed: false,
        }
    }

    /// The same, for whom the proof of the dump is what matters: where rows cannot be read, it reads on without them.
    pub fn lenient(self) -> Self {
        let lenient = true;
        Self { lenient, ..self }
    }

    /// Whether there were rows that could not be read.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Reads the next bytes; where the stream is cut into chunks makes no difference.
    ///
    /// # Errors
    /// Those of [`Scanner::feed`](super::Scanner::feed), those of the sink, and a row that does not fit its columns.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.lexer.refuse_nul(chunk, 0)?;
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.wanted {
                let (part, after) = rest.split_at(find(b'\n', rest).map_or(rest.len(), |end| end + 1));
                self.lexer.read(part, Stop::End)?;
                rest = after;
                let taken = self.take(part);
                self.unless_lenient(taken)?;
            } else {
                rest = &rest[self.lexer.read(rest, Stop::Copy)?..];
                if std::mem::take(&mut self.lexer.copy_begins) && !self.failed {
                    let begun = self.begin();
                    self.unless_lenient(begun)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the dump; see [`Scanner::finish`](super::Scanner::finish).
    pub fn finish(mut self) -> Result<(S, Summary)> {
        self.lexer.end()?;
        Ok((self.sink, self.lexer.summary))
    }

    fn unless_lenient(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() && self.lenient {
            self.failed = true;
            self.wanted = false;
            return Ok(());
        }
        result
    }

    fn begin(&mut self) -> Result<()> {
        let lexer = &mut self.lexer;
        let created = lexer.created.iter().find(|(table, _)| *table == lexer.copy);
        let kinds = created.map_or(&[][..], |(_, columns)| columns);
        let mut columns = std::mem::take(&mut lexer.columns);
        if columns.is_empty() {
            columns = kinds.to_vec();
        }
        for column in &mut columns {
            let created = kinds.iter().find(|known| known.name == column.name);
            column.kind = created.map_or_else(String::new, |known| known.kind.clone());
        }
        self.columns = columns.len();
        self.wanted = self.sink.table(&lexer.copy, &columns, &lexer.created)?;
        Ok(())
    }

    /// Takes a line of the data, or a part of one, which the lexer has read.
    fn take(&mut self, part: &[u8]) -> Result<()> {
        let Some(end) = part.strip_suffix(b"\n") else {
            self.line.extend_from_slice(part);
            return Ok(());
        };
        if self.lexer.state == State::Sql {
            self.wanted = false;
            self.line.clear();
            return Ok(());
        }
        let fields = match self.line.is_empty() {
            true => fields(end),
            false => {
                self.line.extend_from_slice(end);
                let fields = fields(&self.line);
                self.line.clear();
                fields
            }
        };
        let line = self.lexer.line() - 1;
        let fields = fields.with_context(|| format!("line {line} of the dump"))?;
        let (count, columns) = (fields.len(), self.columns);
        ensure!(
            count == columns,
            "line {line} of the dump: a row of {count} field(s) in a table of {columns} column(s)"
        );
        self.sink.row(fields)
    }
}

/// The fields of a row in COPY's text format.
fn fields(line: &[u8]) -> Result<Vec<Option<String>>> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(line) = rest {
        let end = find(b'\t', line);
        let field = &line[..end.unwrap_or(line.len())];
        rest = end.map(|end| &line[end + 1..]);
        fields.push(match field {
            b"\\N" => None,
            _ => Some(String::from_utf8(unescaped(field)).context("it is not in UTF-8")?),
        });
    }
    Ok(fields)
}

/// Undoes the escapes of COPY's text format.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = find(b'\\', rest) {
        text.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let (byte, length) = match rest {
            [] => (b'\\', 0),
            [b'b', ..] => (8, 1),
            [b'f', ..] => (12, 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'v', ..] => (11, 1),
            [b'x', digits @ ..] => match number(digits, 16, 2) {
                (_, 0) => (b'x', 1),
                (byte, length) => (byte, length + 1),
            },
            [b'0'..=b'7', ..] => number(rest, 8, 3),
            [other, ..] => (*other, 1),
        };
        text.push(byte);
        rest = &rest[length..];
    }
    text.extend_from_slice(rest);
    text
}

/// The number that `digits` begin with, of at most `most` digits, and how many there are.
fn number(digits: &[u8], radix: u32, most: usize) -> (u8, usize) {
    let values = digits
        .iter()
        .take(most)
        .map_while(|&digit| char::from(digit).to_digit(radix));
    let (value, length) = values.fold((0, 0), |(value, length), digit| (value * radix + digit, length + 1));
    (value.to_le_bytes()[0], length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Taken {
        tables: Vec<(String, Vec<Column>)>,
        rows: Vec<Vec<Option<String>>>,
    }

    impl Sink for Taken {
        fn table(&mut self, table: &TableName, columns: &[Column], _: &[(TableName, Vec<Column>)]) -> Result<bool> {
            self.tables.push((table.to_string(), columns.to_vec()));
            Ok(table.name != "other")
        }

        fn row(&mut self, fields: Vec<Option<String>>) -> Result<()> {
            self.rows.push(fields);
            Ok(())
        }
    }

    const DUMP: &str = r#"--
-- PostgreSQL database dump
--
CREATE TABLE public.other (a integer, b text);
CREATE TABLE public."Odd t" (
    id character varying(36) DEFAULT 'a,b'::character varying NOT NULL,
    "order" timestamp(3) with time zone,
    doc json DEFAULT '[]'::json NOT NULL,
    CONSTRAINT "CHK" CHECK (((id)::text = ANY (ARRAY['x'::text, 'y'::text])))
);
COPY public.other (a, b) FROM stdin;
1	x
2	\\.
\.


COPY public."Odd t" ("order", id, doc) FROM stdin;
\N		\\N
a\tb\n\b\f\r\v	\101\x41\xzz\q	{"k":"\\\\ \\n \\u00e4"}
\\.		
\.
--
-- PostgreSQL database dump complete
--
"#;

    #[test]
    fn rows_are_the_same_wherever_the_dump_is_cut() {
        for size in [1, 2, 3, 7, 64, DUMP.len()] {
            let mut rows = Rows::new(Taken::default());
            for chunk in DUMP.as_bytes().chunks(size) {
                rows.feed(chunk).unwrap();
            }
            let (taken, summary) = rows.finish().unwrap();
            assert_eq!(summary.incomplete, None);
            let counted: Vec<u64> = summary.copies.iter().map(|(_, rows)| *rows).collect();
            assert_eq!(counted, [2, 3]);
            let column = |name: &str, kind: &str| Column {
                name: name.to_owned(),
                kind: kind.to_owned(),
            };
            let columns = vec![
                column("order", "timestamp with time zone"),
                column("id", "character varying default character varying not null"),
                column("doc", "json default json not null"),
            ];
            assert_eq!(taken.tables[1], ("public.Odd t".to_owned(), columns), "{size}");
            let text = |text: &str| Some(text.to_owned());
            assert_eq!(
                taken.rows,
                [
                    vec![None, text(""), text("\\N")],
                    vec![
                        text("a\tb\n\u{8}\u{c}\r\u{b}"),
                        text("AAxzzq"),
                        text(r#"{"k":"\\ \n \u00e4"}"#)
                    ],
                    vec![text("\\."), text(""), text("")],
                ],
                "{size}"
            );
        }
    }

    #[test]
    fn a_row_that_does_not_fit_is_named_by_its_line() {
        for (row, what) in [
            ("1\t2", "line 2 of the dump: a row of 2"),
            ("\\xff", "line 2 of the dump"),
        ] {
            let mut rows = Rows::new(Taken::default());
            let error = rows
                .feed(format!("COPY t (a) FROM stdin;\n{row}\n\\.\n").as_bytes())
                .unwrap_err();
            assert!(format!("{error:#}").contains(what), "{error:#}");
        }
    }
}
