//! The role that loads a dump of unknown origin.

use anyhow::Result;

use super::*;
use crate::formats::n8n::{Place, Table};

/// Name of the role that loads into the database of the run `stamp` (YYYYMMDD_HHMMSS).
pub fn loader_name(stamp: &str) -> String {
    format!("n8n_load_{stamp}")
}

/// Comment on such a role, which says whose it is.
fn comment(live: &str) -> Result<String> {
    literal(&format!("n8n-backup: loads for {}", ident(live)?))
}

/// Makes the role `loader`, which may connect to `staged` and make what it likes there. A server that logs statements
/// does not log its password.
pub fn create_loader(loader: &str, password: &str, live: &str, staged: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}SET log_statement = 'none';\nSET log_min_duration_statement = -1;\nSET log_min_error_statement = 'panic';\n\
         CREATE ROLE {loader} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS PASSWORD {password};\n\
         COMMENT ON ROLE {loader} IS {comment};\n\
         GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {staged} TO {loader};\n",
        loader = ident(loader)?,
        password = literal(password)?,
        comment = comment(live)?,
        staged = ident(staged)?,
    ))
}

/// Lets `loader` make tables in the schema that a new database has. Connected to the staged database.
pub fn admit_loader(loader: &str) -> Result<String> {
    Ok(format!("{PRELUDE}GRANT ALL ON SCHEMA public TO {};\n", ident(loader)?))
}

/// Asks for the owner of n8n's tables at `place`, connected to the live database: a hex name, or nothing where they are
/// not there.
pub fn owner_of_n8n(place: &Place) -> Result<String> {
    Ok(format!(
        "{PRELUDE}\
SELECT encode(convert_to(pg_get_userbyid(relowner), 'UTF8'), 'hex') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND {};
",
        is_n8ns(Some(place), Table::Workflow.name())?
    ))
}

/// Gives what `loader` owns to `owner`, where n8n, which logs in as `login`, has its rights; else to `login`, or where
/// that is not known, to the owner of the database. Drops the role. n8n's migrations create tables: what the dump says
/// of the schema's privileges is left out, so they are granted. Connected to the staged database. Prints the new owner,
/// a hex name.
pub fn hand_over(loader: &str, owner: Option<&str>, login: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}\
SELECT coalesce(
    (SELECT rolname FROM pg_roles o WHERE rolname::text = {owner} AND NOT EXISTS (SELECT FROM pg_roles l
        WHERE l.rolname::text = {login} AND NOT pg_has_role(l.oid, o.oid, 'USAGE'))),
    (SELECT rolname FROM pg_roles WHERE rolname::text = {login}),
    (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database())) AS owner \\gset
REASSIGN OWNED BY {loader} TO :\"owner\";
DROP OWNED BY {loader};
DROP ROLE {loader};
SELECT format('GRANT ALL ON SCHEMA public TO %I', :'owner') FROM pg_namespace WHERE nspname = 'public' \\gexec
SELECT encode(convert_to(:'owner', 'UTF8'), 'hex');
",
        owner = literal(owner.unwrap_or_default())?,
        login = literal(login)?,
        loader = ident(loader)?,
    ))
}

/// What the role `login` lacks to make tables in n8n's `schema` of the database that one is connected to, as n8n's
/// migrations do: a statement for each, in which that is called `database`. Where the schema is not `public`, n8n begins
/// by making it if it is not there, for which it needs a right on the database even if it is.
fn lacks(login: &str, schema: &str, database: &str) -> Result<String> {
    Ok(format!(
        "FROM pg_roles r JOIN pg_namespace n ON n.nspname = {schema} CROSS JOIN LATERAL (VALUES
        (format('GRANT ALL ON SCHEMA %I TO %I', nspname, rolname),
            has_schema_privilege(r.oid, n.oid, 'CREATE') AND has_schema_privilege(r.oid, n.oid, 'USAGE')),
        (format('GRANT CREATE ON DATABASE %I TO %I', {database}, rolname),
            nspname = 'public' OR has_database_privilege(r.oid, current_database(), 'CREATE'))) s(statement, has)
    WHERE rolname::text = {login} AND NOT has ORDER BY statement DESC",
        login = literal(login)?,
        schema = literal(schema)?,
        database = literal(database)?,
    ))
}

/// Lets `login` make tables in n8n's `schema`, as far as the user may, connected to the database `loaded`, which will
/// be called `live`. The first and the last script ask which statements that still takes: lines of hex.
pub fn let_migrate(login: &str, schema: &str, loaded: &str, live: &str) -> Result<[String; 3]> {
    let needed = lacks(login, schema, live)?;
    let ask = format!("{PRELUDE}SELECT encode(convert_to(statement, 'UTF8'), 'hex') {needed};\n");
    let statements = lacks(login, schema, loaded)?;
    let grant = format!("\\set ON_ERROR_STOP off\nSELECT statement {statements} \\gexec\n\\set ON_ERROR_STOP on\n");
    Ok([ask.clone(), grant, ask])
}

/// Asks, connected to the loaded database, what it takes so that the role `login` may read and write n8n's tables at
/// `place`: statements, lines of hex, none where it may, or may take on the role of their owner. Nobody is to get the
/// rights of a superuser by that. Tables of other programs beside them are not looked at.
pub fn out_of_reach(login: &str, place: &Place) -> Result<String> {
    let names = place
        .names()
        .iter()
        .map(|name| literal(name))
        .collect::<Result<Vec<_>>>()?;
    Ok(format!(
        "{PRELUDE}\
SELECT DISTINCT encode(convert_to(CASE WHEN o.rolsuper
    THEN format('GRANT ALL ON ALL TABLES IN SCHEMA %1$I TO %2$I; GRANT ALL ON ALL SEQUENCES IN SCHEMA %1$I TO %2$I',
        n.nspname, r.rolname)
    ELSE format('GRANT %I TO %I', o.rolname, r.rolname) END, 'UTF8'), 'hex')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner, pg_roles r
    WHERE r.rolname::text = {login} AND n.nspname = {schema} AND c.relname IN ({names}) AND c.relkind IN ('r', 'p')
    AND NOT pg_has_role(r.oid, o.oid, 'MEMBER')
    AND NOT (has_table_privilege(r.oid, c.oid, 'SELECT') AND has_table_privilege(r.oid, c.oid, 'INSERT')
        AND has_table_privilege(r.oid, c.oid, 'UPDATE') AND has_table_privilege(r.oid, c.oid, 'DELETE')) ORDER BY 1;
",
        login = literal(login)?,
        schema = literal(&place.schema)?,
        names = names.join(", "),
    ))
}

/// Drops the roles that restores of `live` have left. One that something still depends on stays: it has no rights.
pub fn sweep_loaders(live: &str) -> Result<String> {
    Ok(format!(
        r#"{PRELUDE}
SET n8n_backup.comment = {comment};
DO $sweep$
DECLARE
    loader name;
BEGIN
    FOR loader IN SELECT rolname FROM pg_roles WHERE rolname ~ '^n8n_load_[0-9]{{8}}_[0-9]{{6}}$'
        AND shobj_description(oid, 'pg_authid') = current_setting('n8n_backup.comment') LOOP
        BEGIN
            EXECUTE format('DROP ROLE %I', loader);
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            NULL;
        END;
    END LOOP;
END $sweep$;
"#,
        comment = comment(live)?,
    ))
}
