//! The load of a dump, and what is counted after it.

use anyhow::{bail, Result};

use super::*;

/// What stands before the dump in the stream to `psql`, connected to the staged database. Settings that the server
/// does not know are left out; the dump's own SET lines touch none that matters here.
///
/// `synchronous_commit` off is safe: the swap's commit is synchronous and comes later in the same log. The others
/// undo what the settings of a role (or database) could do to the load. `maintenance_work_mem` stays as the server has it: an
/// index that is built in parallel may want all of it as shared memory, of which a container has little.
///
/// Under a `restrict` token `psql` takes no meta-command until [`load_epilogue`] gives the token back: whatever the dump
/// holds, nothing of it is run on the client's side. Only for a `psql` that [`knows_restrict`].
pub fn load_prelude(restrict: Option<&str>) -> String {
    let settings = r#"SET statement_timeout = 0;
SET default_transaction_read_only = off;
SET client_min_messages = warning;
SET ROLE NONE;
DO $load$
BEGIN
    PERFORM pg_catalog.set_config(v.name, v.value, false)
    FROM (VALUES ('default_transaction_isolation', 'read committed'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
        ('idle_session_timeout', '0'), ('transaction_timeout', '0'),
        ('DateStyle', 'ISO'), ('IntervalStyle', 'postgres'),
        ('array_nulls', 'on'), ('synchronous_commit', 'off'), ('default_toast_compression', 'lz4')
    ) v(name, value)
    JOIN pg_catalog.pg_settings s ON s.name = v.name AND s.context IN ('user', 'superuser')
    WHERE s.enumvals IS NULL OR v.value = ANY (s.enumvals) OR v.name <> 'default_toast_compression';
END $load$;
"#;
    match restrict {
        Some(token) => format!("{settings}\\restrict {token}\n"),
        None => settings.to_owned(),
    }
}

/// What stands after the dump's last byte: prints `marker`, which `psql` never reaches when the stream was cut or a statement
/// failed. The marker must be new in each run, and its printing on a line of its own is the only proof of a whole
/// load: exit status 0 is none. Two line feeds first, for a dump that lacks its last one. `restrict` is the token of
/// [`load_prelude`].
pub fn load_epilogue(marker: &str, restrict: Option<&str>) -> Result<String> {
    let unrestrict = restrict.map_or_else(String::new, |token| format!("\\unrestrict {token}\n"));
    Ok(format!(
        "\n\n{unrestrict}\\echo\nSELECT pg_catalog.concat({});\n",
        literal(marker)?
    ))
}

/// What [`table_counts`] found in one relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// What the relation is.
    pub kind: CountKind,
    /// Schema, as stored.
    pub schema: String,
    /// Name, as stored.
    pub name: String,
    /// Rows, or a sequence's last value; none where the user may not read it.
    pub value: Option<i64>,
    /// A sequence's `is_called`; false for tables.
    pub called: bool,
}

/// Kinds of relation in [`table_counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountKind {
    /// A table: its own rows, without those of tables that inherit from it, as pg_dump copies it.
    Table,
    /// A partitioned table: rows of all partitions, which are listed themselves too. A dump copies into it only when made
    /// with `--load-via-partition-root`.
    Partitioned,
    /// A configuration table of an extension: a dump may hold only a part of its rows.
    Extension,
    /// A foreign table, whose rows are elsewhere and are not counted.
    Foreign,
    /// A sequence.
    Sequence,
}

/// Asks, connected to the database in question, for the rows of each table and the state of each sequence of one
/// snapshot. System relations, temporary ones and those of extensions, but for the ones that a dump holds, are left out. Read by [`parse_counts`].
///
/// `textsend` gives names in the client's encoding; what SQL_ASCII holds goes as it is, since it may be anything.
pub fn table_counts() -> String {
    format!(
        r#"{PRELUDE}
SELECT 'SET client_encoding = ''SQL_ASCII''' WHERE current_setting('server_encoding') = 'SQL_ASCII' \gexec
SET row_security = off;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT CASE
    WHEN kind = 's' AND has_sequence_privilege(oid, 'SELECT') THEN
        format('SELECT concat_ws(E''\t'', %L, %L, %L, last_value, is_called) FROM %s', kind, hexschema, hexname, oid::regclass)
    WHEN kind NOT IN ('s', 'f') AND has_table_privilege(oid, 'SELECT') AND NOT row_security_active(oid) THEN
        format('SELECT concat_ws(E''\t'', %L, %L, %L, count(*), false) FROM %s%s', kind, hexschema, hexname,
            CASE WHEN kind = 'p' THEN '' ELSE 'ONLY ' END, oid::regclass)
    ELSE format('SELECT concat_ws(E''\t'', %L, %L, %L, ''?'', false)', kind, hexschema, hexname) END
FROM (
    SELECT c.oid, encode(textsend(n.nspname::text), 'hex') AS hexschema, encode(textsend(c.relname::text), 'hex') AS hexname,
        CASE WHEN c.relkind = 'S' THEN 's' WHEN e.oid IS NOT NULL THEN 'e' ELSE c.relkind::text END AS kind,
        e.oid IS NULL OR c.oid = ANY (e.extconfig) AS wanted
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'
    LEFT JOIN pg_extension e ON e.oid = d.refobjid
    WHERE c.relkind IN ('r', 'p', 'f', 'S') AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
) r WHERE wanted ORDER BY hexschema, hexname \gexec
COMMIT;
"#
    )
}

/// Has the planner's statistics taken, connected to the database in question.
pub fn analyze() -> String {
    format!("{PRELUDE}ANALYZE;\n")
}

/// Reads the answer to [`table_counts`].
pub fn parse_counts(output: &str) -> Result<Vec<Count>> {
    output
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [kind, schema, name, value, called] = fields[..] else {
                bail!("unexpected line in the row counts: {line:?}");
            };
            Ok(Count {
                kind: match kind {
                    "r" => CountKind::Table,
                    "p" => CountKind::Partitioned,
                    "e" => CountKind::Extension,
                    "f" => CountKind::Foreign,
                    "s" => CountKind::Sequence,
                    _ => bail!("unexpected kind in the row counts: {line:?}"),
                },
                schema: unhex_lossy(schema)?,
                name: unhex_lossy(name)?,
                value: if value == "?" { None } else { Some(number(value)?) },
                called: truth(called)?,
            })
        })
        .collect()
}
