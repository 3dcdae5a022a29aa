//! The role that loads a dump of unknown origin.

use anyhow::Result;

use super::*;

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

/// Asks for the owner of n8n's tables, connected to the live database: a hex name, or nothing where they are not there.
pub fn owner_of_n8n() -> String {
    format!(
        "{PRELUDE}\
SELECT encode(convert_to(pg_get_userbyid(relowner), 'UTF8'), 'hex') FROM pg_class
    WHERE relkind IN ('r', 'p') AND right(relname, 15) = 'workflow_entity' ORDER BY oid LIMIT 1;
"
    )
}

/// Gives what `loader` owns to `owner`, or to the owner of the database, and drops the role. Connected to the staged
/// database. Prints the new owner, a hex name.
pub fn hand_over(loader: &str, owner: Option<&str>) -> Result<String> {
    let owner = match owner {
        Some(owner) => name_literal(owner)?,
        None => "(SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database())".to_owned(),
    };
    Ok(format!(
        "{PRELUDE}\
SELECT format('REASSIGN OWNED BY %I TO %I', {name}, {owner}) \\gexec
DROP OWNED BY {loader};
DROP ROLE {loader};
SELECT encode(convert_to({owner}::text, 'UTF8'), 'hex');
",
        name = name_literal(loader)?,
        loader = ident(loader)?,
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
