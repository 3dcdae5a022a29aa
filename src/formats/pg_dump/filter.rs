//! Passes a dump on, without the lines that the psql or the server at hand does not know.

use std::io::Write;

use anyhow::{Context, Result};

use super::bytes::{count_newlines, find};
use super::lexer::{Lexer, Stop, MAX_TEXT};
use super::Summary;

/// The longest beginning of a line that is held back: longer than a command of psql that the lexer would wait for.
pub(super) const MAX_LINE: usize = 2 * MAX_TEXT;

/// Which lines a [`Filter`] leaves out.
#[derive(Debug, Clone, Default)]
pub struct Strip {
    /// The lines `\restrict TOKEN` and `\unrestrict TOKEN`, for a `psql` that does not know them.
    pub restrict: bool,
    /// The lines `SET name = value;` with one of these names, for a server that does not know the parameter.
    pub settings: Vec<String>,
    /// The lines, as pg_dump writes them, that say what belongs to whom and who may do what with it, and what only the owner
    /// of the schema public may say of that.
    pub privileges: bool,
    /// The extension pg_cron with its jobs, which can be created in the live database alone.
    pub pg_cron: bool,
}

impl Strip {
    fn takes(&self, line: &[u8]) -> bool {
        let line = line.trim_ascii_end();
        let is = |begin: &[u8], end: &[u8]| {
            let word = line.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
            word.is_some_and(|word| !word.is_empty() && word.iter().all(u8::is_ascii_alphanumeric))
        };
        self.restrict && (is(b"\\restrict ", b"") || is(b"\\unrestrict ", b""))
            || self
                .settings
                .iter()
                .any(|name| is(format!("SET {name} = ").as_bytes(), b";"))
            || self.privileges && (is_about_privileges(line) || line == PUBLIC)
    }
}

/// Whether a statement that begins with this line is about pg_cron, as pg_dump writes them.
fn is_about_pg_cron(line: &[u8]) -> bool {
    const BEGINS: [&[u8]; 4] = [
        b"CREATE EXTENSION IF NOT EXISTS pg_cron ",
        b"COMMENT ON EXTENSION pg_cron ",
        b"COPY cron.",
        b"SELECT pg_catalog.setval('cron.",
    ];
    let holds = |word: &[u8]| line.windows(word.len()).any(|part| part == word);
    BEGINS.iter().any(|begin| line.starts_with(begin))
        || is_about_privileges(line.trim_ascii_end()) && (holds(b" cron.") || holds(b" SCHEMA cron "))
}

/// What pg_dump writes where the schema was dropped and made again.
const PUBLIC: &[u8] = b"COMMENT ON SCHEMA public IS '';";

/// The role that what follows is made by, or granted by.
const SESSION: &[u8] = b"SET SESSION AUTHORIZATION ";

/// Whether a line begins a statement that may be about owners or privileges; a quoted name in it may hold line breaks.
fn may_be_about_privileges(line: &[u8]) -> bool {
    [&b"ALTER "[..], b"GRANT ", b"REVOKE ", SESSION]
        .iter()
        .any(|begin| line.starts_with(begin))
}

/// Whether these lines are one statement that gives something to an owner, or privileges on it.
fn is_about_privileges(line: &[u8]) -> bool {
    if !may_be_about_privileges(line) {
        return false;
    }
    // Every second part is a quoted identifier, in which anything may stand.
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b'"').collect();
    let words = parts.iter().step_by(2).copied().collect::<Vec<_>>().concat();
    let words = String::from_utf8_lossy(&words);
    let Some(words) = words.strip_suffix(';').filter(|_| parts.len() % 2 == 1) else {
        return false;
    };
    let begins = ["GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES "];
    if line.starts_with(SESSION) {
        // One role, as a string or as a name.
        let inner = words.strip_suffix('\'').and_then(|words| words.split_once('\''));
        let role = inner.map_or(words, |(_, role)| role);
        return !role.contains(['\'', '$', ';', '\\']);
    }
    // pg_dump writes no string in any of them, and no second statement after it.
    !words.contains(['\'', '$', ';'])
        && (begins.iter().any(|begin| words.starts_with(begin))
            || words.starts_with("ALTER ") && words.contains(" OWNER TO "))
}

/// Passes a dump on, statement text unchanged, without the lines that psql or the server at hand does not know.
///
/// A line that is left out becomes an empty line, so that the line numbers in psql's messages are those of the dump.
pub struct Filter {
    lexer: Lexer,
    strip: Strip,
    /// The beginning of a line, or the lines of a statement, that may have to be left out.
    line: Vec<u8>,
    /// How much of it the lexer has read.
    known: usize,
    /// The statement that is read, with its data, is left out.
    leaving: bool,
}

impl Filter {
    /// A filter at the beginning of a dump.
    pub fn new(strip: Strip) -> Self {
        Self {
            lexer: Lexer::new(true),
            strip,
            line: Vec::new(),
            known: 0,
            leaving: false,
        }
    }

    /// Reads the next bytes and writes to `out` what can be passed on, line by line where statements begin.
    ///
    /// # Errors
    /// The errors of [`Scanner::feed`](super::Scanner::feed); any command of psql other than a proper `\restrict TOKEN`
    /// or `\unrestrict TOKEN` line, of which no byte has been written then; a failure to write. After an error the
    /// filter must not be used again.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl Write) -> Result<()> {
        self.lexer.refuse_nul(chunk, self.line.len() - self.known)?;
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.line.is_empty() && !self.lexer.begins_line(0) {
                let (read, after) = rest.split_at(self.lexer.read(rest, Stop::Line)?);
                match self.leaving {
                    true => pass_newlines(read, out)?,
                    false => pass(read, out)?,
                }
                rest = after;
                continue;
            }
            let most = rest.len().min(MAX_LINE - self.line.len());
            let (part, after) = rest.split_at(find(b'\n', &rest[..most]).map_or(most, |end| end + 1));
            self.line.extend_from_slice(part);
            rest = after;
            if self.line.len() == MAX_LINE || part.ends_with(b"\n") {
                self.know_line()?;
                if self.line.len() == MAX_LINE || self.is_whole() {
                    self.pass_line(out)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what was held back and ends the dump. A dump that is cut off is no error: see [`Summary::incomplete`].
    pub fn finish(mut self, out: &mut impl Write) -> Result<Summary> {
        self.know_line()?;
        self.lexer.end()?;
        self.pass_line(out)?;
        Ok(self.lexer.summary)
    }

    fn know_line(&mut self) -> Result<()> {
        self.lexer.read(&self.line[self.known..], Stop::End)?;
        self.known = self.line.len();
        Ok(())
    }

    /// Whether nothing that follows is of importance to the lines that are held back.
    fn is_whole(&self) -> bool {
        let asks = self.strip.privileges || self.strip.pg_cron;
        !(asks && may_be_about_privileges(&self.line)) || self.lexer.begins_line(0)
    }

    fn pass_line(&mut self, out: &mut impl Write) -> Result<()> {
        let is_pg_cron = self.strip.pg_cron && is_about_pg_cron(&self.line);
        self.leaving = is_pg_cron && !self.lexer.begins_line(0);
        match is_pg_cron || self.strip.takes(&self.line) {
            true => pass_newlines(&self.line, out)?,
            false => pass(&self.line, out)?,
        }
        self.line.clear();
        self.known = 0;
        Ok(())
    }
}

fn pass_newlines(bytes: &[u8], out: &mut impl Write) -> Result<()> {
    pass(&vec![b'\n'; count_newlines(bytes) as usize], out)
}

fn pass(bytes: &[u8], out: &mut impl Write) -> Result<()> {
    out.write_all(bytes).context("the dump could not be passed on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_cron_is_left_out_with_its_jobs_wherever_the_dump_is_cut() {
        let kept = [
            "CREATE TABLE t (a text);\n",
            "COPY t (a) FROM stdin;\nCOPY cron.job (a)\n\\.\n\n",
        ];
        let left = [
            "CREATE EXTENSION IF NOT EXISTS pg_cron WITH SCHEMA pg_catalog;\n",
            "COMMENT ON EXTENSION pg_cron IS 'Job scheduler';\n",
            "COPY cron.job (jobid, command) FROM stdin;\n1\tSELECT 1;\n2\tVACUUM\n\\.\n",
            "SELECT pg_catalog.setval('cron.jobid_seq', 2, true);\n",
            "GRANT USAGE ON SCHEMA cron TO app;\n",
        ];
        let text = [kept[0], left[0], left[1], left[2], kept[1], left[3], left[4]].concat();
        let newlines = |text: &str| "\n".repeat(text.matches('\n').count());
        let expected = [
            kept[0].to_owned(),
            newlines(&left[..3].concat()),
            kept[1].to_owned(),
            newlines(&left[3..].concat()),
        ]
        .concat();
        for size in 1..text.len() {
            let mut filter = Filter::new(Strip {
                pg_cron: true,
                ..Strip::default()
            });
            let mut out = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                filter.feed(chunk, &mut out).unwrap();
            }
            let summary = filter.finish(&mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{size}");
            assert!(summary.has_pg_cron());
            let left = summary.without_pg_cron();
            assert_eq!((left.copies.len(), left.sequences.len()), (1, 0));
        }
    }

    #[test]
    fn lines_on_owners_and_privileges_are_left_out() {
        let filtered = |line: &str| {
            let mut filter = Filter::new(Strip {
                privileges: true,
                ..Strip::default()
            });
            let mut out = Vec::new();
            for part in format!("{line}\n").as_bytes().chunks(7) {
                filter.feed(part, &mut out).unwrap();
            }
            filter.finish(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        for line in [
            "ALTER TABLE public.t OWNER TO n8n;",
            "ALTER FUNCTION \"Odd; '$\".f(integer, text) OWNER TO \"who's\";",
            "GRANT SELECT(id),UPDATE(name) ON TABLE public.t TO reader WITH GRANT OPTION;",
            "REVOKE ALL ON FUNCTION pg_catalog.f() FROM PUBLIC;",
            "ALTER DEFAULT PRIVILEGES FOR ROLE n8n IN SCHEMA public GRANT SELECT ON TABLES TO reader;",
            "SET SESSION AUTHORIZATION 'n8n';",
            "SET SESSION AUTHORIZATION \"o'd;d\";",
            "SET SESSION AUTHORIZATION DEFAULT;",
            "ALTER TABLE public.\"two\nlines; and\n\nmore\" OWNER TO n8n;",
            "GRANT SELECT ON TABLE public.\"two\n\" TO \"\nwho\";",
        ] {
            let newlines = "\n".repeat(line.matches('\n').count() + 1);
            assert_eq!(filtered(line), newlines, "{line}");
        }
        for line in [
            "ALTER TABLE public.t ADD CONSTRAINT c CHECK (true);",
            "ALTER TABLE public.t ALTER c SET DEFAULT ' OWNER TO n8n;',",
            "GRANT SELECT ON t TO reader; DROP TABLE t;",
            "SET SESSION AUTHORIZATION 'a'; DROP TABLE t; SELECT 'b';",
            "GRANT SELECT ON t",
            "ALTER TABLE \" OWNER TO \" ADD c integer;",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"a\nb\" PRIMARY KEY (id);",
            "GRANT SELECT ON TABLE public.\"two\nlines\" TO reader; DROP TABLE t;",
        ] {
            assert_eq!(filtered(line), format!("{line}\n"));
        }
    }
}
