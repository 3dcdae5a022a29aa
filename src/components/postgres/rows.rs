//! Rows put into tables of the live database, all of them or none.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::{ensure, Context as _, Result};

use super::{sql, Psql};
use crate::app::App;
use crate::components::put::{lacking as refuse_lacking, Guard, How, Put, CHANGED, GONE, IN_USE};
use crate::formats::pg_dump::TableName;
use crate::process::hinted;

/// Puts rows into the live database in one transaction, in which nothing is deleted. None where a guard does not hold
/// by then.
pub fn put_rows(app: &App, puts: &[Put], guard: Option<Guard<'_>>) -> Result<()> {
    let docker = app.docker()?;
    docker.running(&app.config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
    let database = &app.config.postgres_db;
    let role = role_of_n8n(app, &Psql::live(app, &docker))?;
    let docker = match app.config.found.login_password.as_ref().filter(|_| role.is_some()) {
        Some(password) => docker.with_login(&app.config.postgres_container, "PGPASSWORD", password),
        None => docker,
    };
    let mut psql = Psql::live(app, &docker);
    psql.user = role.unwrap_or(psql.user);
    let mut tables: Vec<&TableName> = puts.iter().map(|put| &put.table).collect();
    tables.sort_unstable();
    tables.dedup();
    let lead = match role {
        // A session of n8n's may begin with the rights of another role (ALTER ROLE ... SET role).
        Some(_) => format!("{}RESET ROLE;\n", sql::PRELUDE),
        None => sql::PRELUDE.to_owned(),
    };
    let known = psql.run(database, "workflows", format!("{lead}{}", columns(&tables)?));
    let known = parse_columns(&known.map_err(|error| shut_out(app, role, error))?)?;
    let mut lacking = Vec::new();
    for put in puts {
        let own = known
            .get(&put.table)
            .with_context(|| format!("the live database has no table {}", put.table))?;
        let missing = put
            .columns
            .iter()
            .filter(|name| !own.iter().any(|column| column.name == **name));
        lacking.extend(missing.map(|name| format!("{}.{name}", put.table.name)));
    }
    lacking.dedup();
    refuse_lacking(&lacking)?;
    let output = psql
        .run_long(database, "workflows", format!("{lead}{}", script(puts, &known, guard)?))
        .map_err(|error| {
            let said = format!("{error:#}");
            match REFUSALS.iter().find(|(code, _)| said.contains(code)) {
                Some((_, why)) => hinted(why, "run the same command again").into(),
                None => error,
            }
        })?;
    ensure!(
        output.lines().any(|line| line == COMMITTED),
        "psql ended before the end of the transaction"
    );
    Ok(())
}

/// Refuses to begin where n8n's role could write no rows.
pub fn check_put(app: &App) -> Result<()> {
    let docker = app.docker()?;
    docker.running(&app.config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
    role_of_n8n(app, &Psql::live(app, &docker)).map(drop)
}

/// The role that n8n logs in as, where it has fewer rights than ours: triggers and checks of n8n's tables, whoever they
/// are from, run with the rights of whoever writes.
fn role_of_n8n<'a>(app: &'a App, live: &Psql<'_>) -> Result<Option<&'a str>> {
    let config = &app.config;
    let login = config.found.login.as_str();
    if login.is_empty() || login == app.postgres_login().0 {
        return Ok(None);
    }
    let may = live.run(&config.postgres_db, "workflows", sql::lesser_role(login)?)?;
    ensure!(
        may.trim() != "f",
        hinted(
            format_args!("n8n's role {login}, with whose rights rows are written, may not make temporary tables"),
            format_args!(
                "have a superuser run GRANT TEMPORARY ON DATABASE {} TO {};",
                sql::ident(&config.postgres_db)?,
                sql::ident(login)?
            )
        )
    );
    Ok((may.trim() == "t").then_some(login))
}

/// Adds what to do to the failure of a login as n8n's role.
fn shut_out(app: &App, role: Option<&str>, error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    let is_refused = ["FATAL:", "fe_sendauth"].iter().any(|said| text.contains(said));
    match role.filter(|_| is_refused) {
        Some(role) => hinted(
            format_args!("n8n's role {role}, with whose rights rows are written, cannot log in: {text}"),
            format_args!(
                "have pg_hba.conf let it in from within {}; where it is its password that is not known, set \
                 BACKUP_POSTGRES_USER={role} and BACKUP_POSTGRES_PASSWORD in .env while you run this command",
                app.config.postgres_container
            ),
        )
        .into(),
        None => error,
    }
}

/// The errors that the script raises, of whose text the log would have nothing: SQLSTATEs of a class of our own.
const REFUSALS: [(&str, &str); 3] = [("NB001", IN_USE), ("NB002", CHANGED), ("NB003", GONE)];

/// Raises the error `why`.
fn refusal(why: &str) -> String {
    let code = REFUSALS
        .iter()
        .find(|(_, known)| *known == why)
        .map_or("P0001", |(code, _)| code);
    format!("RAISE EXCEPTION '{why}' USING ERRCODE = '{code}'")
}

/// What psql prints at the end of the script: with a script that is cut off it exits with 0, too.
const COMMITTED: &str = "committed";

/// A column of a live table.
struct Column {
    name: String,
    kind: String,
    is_key: bool,
}

/// Asks for the columns of tables, and which make the primary key: lines of hex names.
fn columns(tables: &[&TableName]) -> Result<String> {
    let mut names = Vec::new();
    for table in tables {
        names.push(sql::literal(&qualified(table)?)?);
    }
    Ok(format!(
        "SELECT concat_ws(E'\\t', {}, coalesce(a.attnum = ANY (i.indkey), false)) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
         LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary \
         WHERE c.oid IN (SELECT to_regclass(x) FROM unnest(ARRAY[{}]::text[]) x) \
         AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY c.oid, a.attnum;\n",
        // Without a length, a value that is too long is an error and is not cut.
        ["n.nspname", "c.relname", "a.attname", "format_type(a.atttypid, -1)"]
            .map(|name| format!("encode(convert_to({name}::text, 'UTF8'), 'hex')"))
            .join(", "),
        names.join(", ")
    ))
}

fn parse_columns(output: &str) -> Result<HashMap<TableName, Vec<Column>>> {
    let mut tables: HashMap<TableName, Vec<Column>> = HashMap::new();
    for line in output.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [schema, table, name, kind, key] = fields[..] else {
            anyhow::bail!("unexpected line from psql: {line:?}")
        };
        let table = TableName {
            schema: sql::unhex(schema)?,
            name: sql::unhex(table)?,
        };
        tables.entry(table).or_default().push(Column {
            name: sql::unhex(name)?,
            kind: sql::unhex(kind)?,
            is_key: sql::truth(key)?,
        });
    }
    Ok(tables)
}

fn qualified(table: &TableName) -> Result<String> {
    Ok(format!("{}.{}", sql::ident(&table.schema)?, sql::ident(&table.name)?))
}

/// The transaction. Values travel as text, as rows of COPY, and become those of the columns' types by the server.
fn script(puts: &[Put], known: &HashMap<TableName, Vec<Column>>, guard: Option<Guard<'_>>) -> Result<String> {
    let mut text = "BEGIN;\n".to_owned();
    if let Some(Guard { table, id, off, read }) = guard {
        let (table, id) = (qualified(table)?, sql::literal(id)?);
        let mut refused = Vec::new();
        for column in off {
            let used = format!("coalesce({}::text, 'false') <> 'false'", sql::ident(column)?);
            refused.push((used, IN_USE));
        }
        if let Some((column, value)) = read {
            let value = value.map_or_else(|| Ok("NULL".to_owned()), sql::literal)?;
            refused.push((format!("{} IS DISTINCT FROM {value}", sql::ident(column)?), CHANGED));
        }
        // Whoever writes the row meanwhile waits for the end.
        let mut block = format!("PERFORM FROM {table} WHERE id::text = {id} FOR UPDATE;\n");
        for (condition, why) in refused {
            let _ = writeln!(
                block,
                "IF EXISTS (SELECT FROM {table} WHERE id::text = {id} AND {condition}) THEN {}; END IF;",
                refusal(why)
            );
        }
        ensure!(!block.contains("$guard$"), "{id} is no ID");
        let _ = writeln!(text, "DO $guard$ BEGIN {block}END $guard$;");
    }
    for (at, put) in puts.iter().enumerate() {
        let own = known.get(&put.table).map_or(&[][..], Vec::as_slice);
        let fields: Vec<String> = (0..put.columns.len()).map(|n| format!("c{n} text")).collect();
        let _ = writeln!(
            text,
            "CREATE TEMPORARY TABLE put_{at} ({}) ON COMMIT DROP;",
            fields.join(", ")
        );
        let _ = writeln!(text, "COPY pg_temp.put_{at} FROM stdin;");
        for row in &put.rows {
            let fields: Vec<String> = row.iter().map(|field| copied(field.as_deref())).collect();
            let _ = writeln!(text, "{}", fields.join("\t"));
        }
        text.push_str("\\.\n");
        text.push_str(&statement(put, own, at)?);
    }
    let _ = writeln!(text, "COMMIT;\n\\echo {COMMITTED}");
    Ok(text)
}

/// Moves the rows of a temporary table to their place.
fn statement(put: &Put, own: &[Column], at: usize) -> Result<String> {
    let table = qualified(&put.table)?;
    let mut values = Vec::new();
    for (n, name) in put.columns.iter().enumerate() {
        let column = own.iter().find(|column| column.name == *name);
        let column = column.with_context(|| format!("no column {name}"))?;
        values.push((sql::ident(name)?, format!("s.c{n}::{}", column.kind), column.is_key));
    }
    let list = |part: fn(&(String, String, bool)) -> &str| values.iter().map(part).collect::<Vec<_>>().join(", ");
    let insert = format!(
        "INSERT INTO {table} ({}) SELECT {} FROM pg_temp.put_{at} s",
        list(|value| &value.0),
        list(|value| &value.1)
    );
    Ok(match put.how {
        How::Insert => format!("{insert};\n"),
        How::InsertMissing => format!("{insert} ON CONFLICT DO NOTHING;\n"),
        How::Replace => {
            let pairs = |is_key: bool, own: &str, between: &str| {
                let chosen = values.iter().filter(|value| value.2 == is_key);
                let pairs = chosen.map(|(name, value, _)| format!("{own}{name} = {value}"));
                pairs.collect::<Vec<_>>().join(between)
            };
            let (set, key) = (pairs(false, "", ", "), pairs(true, "t.", " AND "));
            ensure!(!key.is_empty(), "table {table} has no primary key in the backup");
            let update = format!("UPDATE {table} t SET {set} FROM pg_temp.put_{at} s WHERE {key};\n");
            ensure!(!update.contains("$put$"), "{table} has a column with an unusual name");
            format!(
                "DO $put$ DECLARE n bigint; BEGIN {update}GET DIAGNOSTICS n = ROW_COUNT;\n\
                 IF n <> {} THEN {}; END IF; END $put$;\n",
                put.rows.len(),
                refusal(GONE)
            )
        }
    })
}

/// A field in COPY's text format.
fn copied(field: Option<&str>) -> String {
    let Some(text) = field else { return "\\N".to_owned() };
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
        .replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::process::hint_of;
    use crate::testing::TempDir;

    #[test]
    fn a_login_that_fails_as_n8ns_role_says_what_to_do() {
        let app = App::new(Config::without_env_file(TempDir::new().path()).unwrap());
        let failed = |text: &'static str| anyhow::anyhow!(text);
        let refused = "psql: error: FATAL:  no pg_hba.conf entry for host";
        let error = shut_out(&app, Some("app"), failed(refused));
        assert!(error.to_string().contains("n8n's role app"), "{error:#}");
        assert!(hint_of(&error).unwrap().contains("BACKUP_POSTGRES_USER"));
        let silent = "psql: error: connection to server on socket failed: fe_sendauth: no password supplied";
        assert!(hint_of(&shut_out(&app, Some("app"), failed(silent))).is_some());
        assert_eq!(shut_out(&app, None, failed(refused)).to_string(), refused);
        let other = "psql: ERROR 42501 permission denied";
        assert_eq!(shut_out(&app, Some("app"), failed(other)).to_string(), other);
    }

    #[test]
    fn values_are_data_and_names_are_quoted() {
        let table = TableName {
            schema: "a\"b".to_owned(),
            name: "t".to_owned(),
        };
        let put = |how| Put {
            table: table.clone(),
            how,
            columns: vec!["id".to_owned(), "n m".to_owned()],
            rows: vec![vec![Some("1\\.\n\t\r'".to_owned()), None]],
        };
        let column = |name: &str, kind: &str, is_key| Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            is_key,
        };
        let known = HashMap::from([(
            table.clone(),
            vec![column("id", "bpchar", true), column("n m", "json", false)],
        )]);
        let puts = [How::Insert, How::InsertMissing, How::Replace].map(put);
        let text = script(&puts, &known, None).unwrap();
        assert!(
            text.contains("COPY pg_temp.put_0 FROM stdin;\n1\\\\.\\n\\t\\r'\t\\N\n\\.\n"),
            "{text}"
        );
        let insert = "INSERT INTO \"a\"\"b\".\"t\" (\"id\", \"n m\") SELECT s.c0::bpchar, s.c1::json FROM pg_temp.put_";
        assert!(text.contains(&format!("{insert}0 s;\n")), "{text}");
        assert!(
            text.contains(&format!("{insert}1 s ON CONFLICT DO NOTHING;\n")),
            "{text}"
        );
        let update =
            "UPDATE \"a\"\"b\".\"t\" t SET \"n m\" = s.c1::json FROM pg_temp.put_2 s WHERE t.\"id\" = s.c0::bpchar;\n";
        let replace =
            format!("DO $put$ DECLARE n bigint; BEGIN {update}GET DIAGNOSTICS n = ROW_COUNT;\nIF n <> 1 THEN");
        assert!(text.contains(&replace), "{text}");
        assert!(text.ends_with("COMMIT;\n\\echo committed\n"));
    }
}
