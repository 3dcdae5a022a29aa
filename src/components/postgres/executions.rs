//! Dumps without the rows of n8n's executions (`BACKUP_EXECUTIONS=off`), which are most of a grown database. The tables
//! themselves, their sequences and all else stay, so that n8n works on what such a dump brings back.

use anyhow::{bail, ensure, Result};

use super::{sql, Psql, JOURNAL};
use crate::app::App;
use crate::formats::pg_dump;
use crate::process::Observer;

/// The fact of a recovery point whose dump holds no executions, and its value.
pub(super) const FACT: (&str, &str) = ("postgres.executions", "left out");
/// What a restore and a drill of such a dump say.
pub(super) const WARNING: &str =
    "The dump holds no executions (BACKUP_EXECUTIONS=off when it was made): what it brings back has no history of \
     past executions, and none that wait";

/// What is asked of the server.
struct Scripts {
    /// The tables of executions.
    tables: String,
    /// Those of them that hold what does not belong to an execution: binary data of a chat or an agent.
    shared: String,
    /// The other tables of which a row refers to one of those, so that it could not be loaded without.
    referring: String,
}

/// Leads the name of a table, in hexadecimal, before its rows: no line of COPY begins so.
const HEAD: &str = "\\=";

/// Reads tables, each by its name and then its rows as COPY writes them, as they come: there may be millions.
struct Holding {
    is_one: fn(&str) -> bool,
    /// The beginning of a line that goes on.
    line: Vec<u8>,
    table: String,
    /// Those with a row that `is_one`.
    found: Vec<String>,
}

impl Holding {
    fn new(is_one: fn(&str) -> bool) -> Self {
        Self {
            is_one,
            line: Vec::new(),
            table: String::new(),
            found: Vec::new(),
        }
    }
}

impl Observer for Holding {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                break;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            match line.trim_end_matches('\n') {
                line if line.starts_with(HEAD) => self.table = sql::unhex(&line[HEAD.len()..])?,
                line if (self.is_one)(line) && self.found.last() != Some(&self.table) => {
                    self.found.push(self.table.clone());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The tables, of those that a script reads, that hold a row which `is_one`.
fn holding(app: &App, psql: &Psql<'_>, script: &str, is_one: fn(&str) -> bool) -> Result<Vec<String>> {
    let database = &app.config.postgres_db;
    let read = psql.pass(database, "dump", script.to_owned(), Holding::new(is_one))?;
    Ok(read.found)
}

/// Whether no part of a key is NULL.
fn refers(key: &str) -> bool {
    !key.split('\t').any(|part| part == "\\N")
}

/// Whether binary data are of something else than an execution.
fn is_shared(source: &str) -> bool {
    source != "execution" && source != "\\N"
}

/// What is left out of a dump.
pub(super) struct LeftOut {
    scripts: Scripts,
    /// Its tables, as patterns of pg_dump.
    tables: Vec<String>,
    /// The options of pg_dump.
    pub(super) options: Vec<String>,
}

impl LeftOut {
    /// Nothing, where the settings do not ask for it or the rest could not be loaded without it.
    pub(super) fn plan(app: &App, psql: &Psql<'_>) -> Result<Option<Self>> {
        if app.config.executions {
            return Ok(None);
        }
        let scripts = scripts(&app.config.found.schema, &app.config.found.table_prefix)?;
        let tables = psql.run(&app.config.postgres_db, "dump", scripts.tables.clone())?;
        let mut tables = sql::parse_names(&tables)?;
        let referring = holding(app, psql, &scripts.referring, refers)?;
        if !referring.is_empty() {
            JOURNAL.warn(format_args!(
                "Executions are not left out of this dump, because rows of other tables refer to them: {}",
                referring.join(", ")
            ));
            return Ok(None);
        }
        let shared = holding(app, psql, &scripts.shared, is_shared)?;
        tables.retain(|table| !shared.contains(table));
        if tables.is_empty() {
            JOURNAL.warn("BACKUP_EXECUTIONS=off leaves nothing out: no table of executions was found");
            return Ok(None);
        }
        JOURNAL.info("Executions are left out (BACKUP_EXECUTIONS=off)");
        if !shared.is_empty() {
            JOURNAL.info(format_args!(
                "Binary data of executions are not left out, because what does not belong to one lies among them: {}",
                shared.join(", ")
            ));
        }
        let option = |table: &String| format!("--exclude-table-data={table}");
        let options = tables.iter().map(option).collect();
        Ok(Some(Self {
            scripts,
            tables,
            options,
        }))
    }

    /// Makes sure that no row was written while the dump was made that refers to an execution, or belongs to none.
    pub(super) fn check(&self, app: &App, psql: &Psql<'_>) -> Result<()> {
        let mut shared = holding(app, psql, &self.scripts.shared, is_shared)?;
        shared.retain(|table| self.tables.contains(table));
        ensure!(
            shared.is_empty(),
            "binary data that belong to no execution were written meanwhile ({}): the next dump holds them",
            shared.join(", ")
        );
        let referring = holding(app, psql, &self.scripts.referring, refers)?;
        ensure!(
            referring.is_empty(),
            "rows that refer to executions were written meanwhile ({}): the next dump holds all",
            referring.join(", ")
        );
        Ok(())
    }
}

/// The scripts for n8n's tables in a schema, or in any where none is known.
fn scripts(schema: &str, prefix: &str) -> Result<Scripts> {
    if prefix.len() > 40 {
        bail!("DB_TABLE_PREFIX is too long: {prefix}");
    }
    let first = sql::literal(&format!("{prefix}execution_"))?;
    let evaluations = sql::literal(&format!("{prefix}test_case_execution"))?;
    let binary = sql::literal(&format!("{prefix}binary_data"))?;
    let within = match schema {
        "" => "n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'".to_owned(),
        schema => format!("n.nspname = {}", sql::literal(schema)?),
    };
    // Since n8n 2 the files of executions may lie in the database, with nothing that refers to them by a key.
    let of_files = format!(
        "c.relname = {binary} AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'sourceType')"
    );
    // What an evaluation of a workflow recorded goes with the executions that it consists of.
    let ours = format!(
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND {within} \
         AND (left(c.relname, length({first})) = {first} OR c.relname = {evaluations} OR {of_files})"
    );
    // As a pattern of pg_dump: what is quoted has no meaning there.
    let quoted = |name: &str| format!(r#"'"' || replace({name}, '"', '""') || '"'"#);
    let pattern = format!("{} || '.' || {}", quoted("n.nspname"), quoted("c.relname"));
    let tables = format!("SELECT encode(convert_to({pattern}, 'UTF8'), 'hex') {ours} ORDER BY c.oid");
    // Read by COPY, which runs nothing of the database's own: see [`sql::migrations`]. It takes no partitioned table.
    let shared = format!(
        "SELECT format('SELECT %L', '{HEAD}' || encode(convert_to(name, 'UTF8'), 'hex')), \
         format('COPY %s (\"sourceType\") TO STDOUT', part) \
         FROM (SELECT c.oid, c.relkind, {pattern} AS name {ours} AND {of_files}) o CROSS JOIN LATERAL \
         (SELECT o.oid::regclass WHERE relkind = 'r' UNION SELECT relid FROM pg_partition_tree(o.oid) WHERE isleaf) \
         t(part) \\gexec\n"
    );
    // The keys of a partitioned table are those of its partitions, too. COPY gives no generated column: such a key counts
    // as one that refers.
    let referring = format!(
        "SELECT format('SELECT %L', '{HEAD}' || encode(convert_to(f.conrelid::regclass::text, 'UTF8'), 'hex')), \
         (SELECT CASE WHEN bool_or(a.attgenerated <> '') THEN 'SELECT 1' \
         ELSE format('COPY %s (%s) TO STDOUT', f.conrelid::regclass, string_agg(quote_ident(a.attname), ', ')) END \
         FROM pg_attribute a WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)) \
         FROM pg_constraint f JOIN pg_class r ON r.oid = f.conrelid WHERE f.contype = 'f' AND r.relkind = 'r' \
         AND f.confrelid IN (SELECT c.oid {ours}) AND f.conrelid NOT IN (SELECT c.oid {ours}) ORDER BY f.oid \\gexec\n"
    );
    Ok(Scripts {
        tables: sql::script(&[tables]),
        shared: format!("{}{shared}", sql::script(&[])),
        referring: format!("{}{referring}", sql::script(&[])),
    })
}

/// Whether a dump holds n8n's table of executions without its rows. pg_dump writes the rows of an empty table too, as none.
pub(super) fn are_left_out(summary: &pg_dump::Summary) -> bool {
    let mut tables = summary.tables.iter();
    let bare = |table: &pg_dump::TableName| !summary.copies.iter().any(|(copied, _)| copied == table);
    let of_n8n = |table: &&pg_dump::TableName| table.name.ends_with("execution_entity");
    // One that holds no rows at all is of another kind.
    summary.inserts == 0 && !summary.copies.is_empty() && tables.by_ref().filter(of_n8n).any(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let asked = scripts("o'dd", "x'_").unwrap();
        assert!(asked.tables.contains("n.nspname = 'o''dd'"), "{}", asked.tables);
        assert!(asked.referring.contains("'x''_execution_'"), "{}", asked.referring);
        assert!(scripts("", &"x".repeat(50)).is_err());
    }

    #[test]
    fn tables_are_known_by_their_rows() {
        let holding = |output: &str, is_one: fn(&str) -> bool, size: usize| {
            let mut holding = Holding::new(is_one);
            output
                .as_bytes()
                .chunks(size)
                .for_each(|chunk| holding.feed(chunk).unwrap());
            holding.found
        };
        let keys = "\\=61\n\\N\t1\n\\=62\n\\N\t\\N\n2\t1\n3\t1\n\\=63\n";
        let sources = "\\=61\nexecution\n\\N\n\\=62\nexecution\nchat\n";
        for size in [1, 7, 100] {
            assert_eq!(holding(keys, refers, size), ["b"]);
            assert_eq!(holding(sources, is_shared, size), ["b"]);
        }
        assert!(holding("", is_shared, 1).is_empty());
        let asked = scripts("", "").unwrap();
        for script in [asked.shared, asked.referring] {
            assert!(
                script.contains("TO STDOUT") && !script.contains("EXISTS (SELECT 1"),
                "{script}"
            );
        }
    }

    #[test]
    fn a_dump_without_executions_is_known_by_itself() {
        let table = |name: &str| pg_dump::TableName {
            schema: "public".to_owned(),
            name: name.to_owned(),
        };
        let summary = |copies: &[&str]| pg_dump::Summary {
            tables: vec![table("n8n_execution_entity"), table("n8n_workflow_entity")],
            copies: copies.iter().map(|name| (table(name), 0)).collect(),
            ..pg_dump::Summary::default()
        };
        assert!(are_left_out(&summary(&["n8n_workflow_entity"])));
        assert!(!are_left_out(&summary(&[
            "n8n_workflow_entity",
            "n8n_execution_entity"
        ])));
        assert!(!are_left_out(&summary(&[])), "a dump of the schema alone");
    }
}
