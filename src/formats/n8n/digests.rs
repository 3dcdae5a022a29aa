//! What tells the workflows of one backup from those of the next.

use std::collections::BTreeMap;

use anyhow::Result;

use super::content::{digest, CONTENT};
use super::reader::{Reader, Visitor};
use super::record::Record;
use super::tables::{Place, Table};
use crate::formats::pg_dump::Rows;
use crate::formats::text::ascii;

/// The IDs of workflows, and for each a digest, the name, and the version that n8n 2 runs, as printable ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests(pub BTreeMap<String, (u64, String, Option<String>)>);

/// How the workflows differ from those before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Since {
    pub changed: usize,
    pub added: usize,
    /// The names of those that are gone.
    pub deleted: Vec<String>,
}

impl Digests {
    /// A reader of a dump that proves it as a scanner does. Rows that cannot be read are no error of the dump.
    pub fn rows(told: Option<Place>) -> Rows<Reader<Self>> {
        Reader::rows(Self::default(), told).lenient()
    }

    /// Reads what [`Digests::text`] wrote; none where it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let line = |line: &str| {
            let mut fields = line.split('\t');
            let (id, digest, name) = (fields.next()?, fields.next()?, fields.next()?);
            // What an earlier version wrote has no version.
            let published = fields.next().map(str::to_owned);
            let digest = u64::from_str_radix(digest, 16).ok()?;
            Some((id.to_owned(), (digest, name.to_owned(), published)))
        };
        text.lines().map(line).collect::<Option<_>>().map(Self)
    }

    /// A line for each workflow.
    pub fn text(&self) -> String {
        let lines = self.0.iter();
        lines
            .map(|(id, (digest, name, published))| {
                let published = published.as_ref().map_or_else(String::new, |id| format!("\t{id}"));
                format!("{id}\t{digest:016x}\t{name}{published}\n")
            })
            .collect()
    }

    /// How they differ from those before.
    pub fn since(&self, before: &Self) -> Since {
        let mut since = Since::default();
        for (id, now) in &self.0 {
            match before.0.get(id) {
                None => since.added += 1,
                Some(then) => {
                    let published = then.2.is_some() && now.2.is_some() && then.2 != now.2;
                    since.changed += usize::from(published || (then.0, &then.1) != (now.0, &now.1));
                }
            }
        }
        let gone = before.0.iter().filter(|(id, _)| !self.0.contains_key(*id));
        since.deleted = gone.map(|(_, (_, name, _))| name.clone()).collect();
        since
    }
}

impl Since {
    /// `2 workflows changed, 1 deleted (Invoices)`, with at most `most` names.
    pub fn text(&self, most: usize) -> String {
        let mut parts: Vec<String> = Vec::new();
        for (count, what) in [
            (self.changed, "changed"),
            (self.added, "added"),
            (self.deleted.len(), "deleted"),
        ] {
            if count > 0 {
                let noun = match (parts.is_empty(), count) {
                    (false, _) => "",
                    (true, 1) => " workflow",
                    (true, _) => " workflows",
                };
                parts.push(format!("{count}{noun} {what}"));
            }
        }
        if parts.is_empty() {
            return "no workflow changed".to_owned();
        }
        let mut text = parts.join(", ");
        if !self.deleted.is_empty() {
            let more = if self.deleted.len() > most { ", ..." } else { "" };
            let names: Vec<&str> = self.deleted.iter().take(most).map(String::as_str).collect();
            text.push_str(&format!(" ({}{more})", names.join(", ")));
        }
        text
    }
}

impl Visitor for Digests {
    fn wants(&self, table: Table) -> bool {
        table == Table::Workflow
    }

    fn visit(&mut self, _: Table, row: Record) -> Result<()> {
        let columns = [&CONTENT[..], &["name", "active", "isArchived"]].concat();
        let published = row.get("activeVersionId").filter(|_| row.is("active")).map(ascii);
        let entry = (digest(&row, &columns), ascii(row.text("name")), published);
        self.0.insert(ascii(row.text("id")), entry);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(workflows: &[(&str, u64, &str)]) -> Digests {
        let entry = |(id, digest, name): &(&str, u64, &str)| ((*id).to_owned(), (*digest, (*name).to_owned(), None));
        Digests(workflows.iter().map(entry).collect())
    }

    #[test]
    fn what_has_changed_is_one_line() {
        let before = digests(&[("a", 1, "A"), ("b", 2, "B"), ("c", 3, "C")]);
        assert_eq!(Digests::parse(&before.text()), Some(before.clone()));
        assert_eq!(Digests::parse("a\tzz\tA\n"), None);
        for (now, text) in [
            (before.clone(), "no workflow changed"),
            (
                digests(&[("a", 9, "A"), ("b", 9, "B")]),
                "2 workflows changed, 1 deleted (C)",
            ),
            (digests(&[("a", 1, "A")]), "2 workflows deleted (B, ...)"),
            (
                digests(&[("a", 1, "A2"), ("b", 2, "B"), ("c", 3, "C"), ("d", 4, "D")]),
                "1 workflow changed, 1 added",
            ),
        ] {
            assert_eq!(now.since(&before).text(1), text);
        }
        let published = |version: &str| Digests::parse(&format!("a\t1\tA\t{version}\n")).unwrap();
        assert_eq!(Digests::parse(&published("v1").text()), Some(published("v1")));
        assert_eq!(published("v2").since(&published("v1")).text(1), "1 workflow changed");
        assert_eq!(published("v1").since(&published("v1")).text(1), "no workflow changed");
        let earlier = digests(&[("a", 1, "A")]);
        assert_eq!(published("v1").since(&earlier).text(1), "no workflow changed");
    }

    #[test]
    fn rows_that_cannot_be_read_leave_the_dump_whole() {
        let dump =
            "--\n-- PostgreSQL database dump\n--\nCREATE TABLE workflow_entity (id text, name text, nodes json, \
                    connections json);\nCOPY workflow_entity (id, name, nodes, connections) FROM stdin;\n1\ta\t[]\t{}\n\
                    1\tbad\n2\tb\t[]\t{}\n\\.\n--\n-- PostgreSQL database dump complete\n--\n";
        let read = |dump: &str| {
            let mut rows = Digests::rows(None);
            rows.feed(dump.as_bytes()).unwrap();
            let failed = rows.has_failed();
            let (_, summary) = rows.finish().unwrap();
            (failed, summary.incomplete)
        };
        assert_eq!(read(dump), (true, None));
        assert_eq!(read(&dump.replace("1\tbad\n", "")), (false, None));
        assert!(read("CREATE TABLE a (b text);\nCOPY a (b) FROM stdin;\n1\n\\.\n").0);
    }
}
