//! SQL of the zero-loss restore: pure functions that build `psql` scripts and read their answers.
//!
//! The dump is loaded into a *staged* database, which then takes the live name in one transaction while the live
//! one gets an *old* name. Until that transaction commits nothing that is committed differs from before, so death
//! at any moment leaves a whole database under the live name, accepting connections.
//!
//! Scripts are for PostgreSQL 12 to 18 and go to the standard input of `psql` with [`PSQL_FLAGS`], connected by
//! [`conninfo`] to one of [`maintenance_databases`], or to the staged database where the function says so. Answers
//! are lines of tab-separated fields in which every name is hex of its UTF-8, so that no name can break a line.

use anyhow::{bail, ensure, Context, Result};

/// Flags of every `psql` that runs a script of this module: no rc file, unaligned tuples only, quiet, never ask for a
/// password, stop at the first error (exit status 3), script on standard input with line numbers in messages.
pub const PSQL_FLAGS: [&str; 6] = ["-XAtqw", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d"];

/// Longest name the server stores, in bytes (NAMEDATALEN - 1); longer ones would be cut silently.
const MAX_NAME: usize = 63;

/// First lines of every script: the settings of a database or role must not bend what follows.
const PRELUDE: &str = "SET client_min_messages = warning;\n\
    SET search_path = pg_catalog;\n\
    SET client_encoding = 'UTF8';\n\
    SET standard_conforming_strings = on;\n\
    SET default_transaction_read_only = off;\n\
    SET statement_timeout = 0;\n\
    SET lock_timeout = '10s';\n\
    SET synchronous_commit = on;\n\
    SET ROLE NONE;\n\
    DO $prelude$ BEGIN PERFORM pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
    WHERE name IN ('idle_session_timeout', 'transaction_timeout'); END $prelude$;\n";

/// Stands between scripts that run in one session, and has psql print a line that no script prints.
pub const SEPARATE: &str = "\\echo =====\n";
const SEPARATOR: &str = "=====";

/// Reads the output of scripts with [`SEPARATE`] between them.
///
/// # Errors
/// When it is not of `N` scripts.
pub fn separated<const N: usize>(output: &str) -> Result<[String; N]> {
    let mut answers = vec![String::new()];
    for line in output.split_inclusive('\n') {
        match answers.last_mut() {
            Some(answer) if line.trim_end() != SEPARATOR => answer.push_str(line),
            _ => answers.push(String::new()),
        }
    }
    let count = answers.len();
    match answers.try_into() {
        Ok(answers) => Ok(answers),
        Err(_) => bail!("psql gave {count} answers instead of {N}"),
    }
}

/// Name of the database that a restore of the run `stamp` (YYYYMMDD_HHMMSS) loads into.
pub fn staged_name(stamp: &str) -> String {
    format!("n8n_restore_{stamp}")
}

/// Name that the live database gets when the staged one of the run `stamp` (YYYYMMDD_HHMMSS) replaces it.
pub fn old_name(stamp: &str) -> String {
    format!("n8n_old_{stamp}")
}

/// What a database of ours is there for; its comment says so, for later runs and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Being loaded, or left by a restore that died: may go.
    Staged,
    /// Was live until a restore replaced it: may go while the live name exists.
    Replaced,
    /// As `Replaced`, but the user asked to keep it: stays.
    Kept,
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Mark::Staged => "staged for",
            Mark::Replaced => "replaced",
            Mark::Kept => "kept",
        }
    }

    /// The mark in one word.
    pub fn kind(self) -> &'static str {
        self.word().split(' ').next().unwrap_or_default()
    }

    /// First line of the comment on a database of ours that belongs to `live`; the live one's own comment, if it
    /// had one, follows on the next lines.
    fn comment(self, live: &str) -> Result<String> {
        Ok(format!("n8n-backup: {} {}", self.word(), ident(live)?))
    }
}

/// `name` as a quoted SQL identifier.
///
/// # Errors
/// Where no database or role can have that name: empty, longer than 63 bytes, or with a NUL.
pub fn ident(name: &str) -> Result<String> {
    ensure!(!name.is_empty(), "a PostgreSQL name cannot be empty");
    ensure!(
        name.len() <= MAX_NAME,
        "PostgreSQL name is longer than {MAX_NAME} bytes: {name}"
    );
    ensure!(!name.contains('\0'), "a PostgreSQL name cannot contain NUL");
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// `text` as an SQL string literal, right under both settings of `standard_conforming_strings`.
///
/// # Errors
/// Where `text` contains a NUL, which no PostgreSQL string can hold.
pub fn literal(text: &str) -> Result<String> {
    ensure!(!text.contains('\0'), "PostgreSQL text cannot contain NUL");
    let quoted = text.replace('\'', "''");
    Ok(if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    })
}

/// libpq connection string for the value of `-d`: there a bare name with `=` or of the form `postgresql://...` would
/// be taken for a connection string itself. `application` marks the session in `pg_stat_activity`.
///
/// # Errors
/// As [`ident`], for `user` and `database`.
pub fn conninfo(user: &str, database: &str, application: &str) -> Result<String> {
    ident(user)?;
    ident(database)?;
    let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    Ok(format!(
        "user='{}' dbname='{}' application_name='{}'",
        quote(user),
        quote(database),
        quote(application)
    ))
}

/// `application_name` of the sessions that do `task` for `live`: the same in every run, so that a later one can end
/// what an earlier one left. The server cuts that name at 63 bytes and changes what is not ASCII; hence a hash (FNV-1a).
pub fn application_name(task: &str, live: &str) -> String {
    let hash = live.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("n8n-backup {task} {hash:016x}")
}

/// Databases to connect to for work on `live`, best first; the second is for servers that lack the first.
///
/// # Errors
/// Where `live` is a template database, which a restore cannot replace.
pub fn maintenance_databases(live: &str) -> Result<&'static [&'static str]> {
    match live {
        "template0" | "template1" => bail!("{live} is a template database and cannot be restored"),
        "postgres" => Ok(&["template1"]),
        _ => Ok(&["postgres", "template1"]),
    }
}

/// What [`server`] asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`, such as 160004.
    pub version: u32,
    /// The user may do everything below.
    pub superuser: bool,
    /// The user may create databases.
    pub createdb: bool,
    /// The live database is there.
    pub exists: bool,
    /// The user is the live database's owner or a member of it.
    pub owns: bool,
    /// Size of the live database in bytes; 0 where it does not exist or may not be asked.
    pub size: u64,
    /// `max_wal_size` in bytes: what a load may write to the data directory on top of the data.
    pub wal: u64,
    /// Directory in the server's file system that will hold the data; empty where the user may not know.
    pub directory: String,
}

impl Server {
    /// Whether the user can stage and swap: a superuser, or an owner who may create databases.
    pub fn may_restore(&self) -> bool {
        self.superuser || (self.createdb && (self.owns || !self.exists))
    }
}

/// Asks for the server's version, the user's powers and the live database's size. Read by [`parse_server`]. No field may
/// be NULL, which concat_ws would leave out.
pub fn server(live: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}\
SELECT concat_ws(E'\\t', current_setting('server_version_num'), r.rolsuper, r.rolcreatedb, d.oid IS NOT NULL,
    coalesce(pg_has_role(d.datdba, 'MEMBER'), false),
    coalesce(CASE WHEN r.rolsuper OR has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) END, 0),
    pg_size_bytes(current_setting('max_wal_size')),
    encode(convert_to(coalesce(nullif(pg_tablespace_location(d.dattablespace), ''),
        CASE WHEN pg_has_role('pg_read_all_settings', 'MEMBER') THEN current_setting('data_directory') END, ''),
        'UTF8'), 'hex'))
FROM pg_roles r LEFT JOIN pg_database d ON d.datname = {live}
WHERE r.rolname = current_user;
",
        live = name_literal(live)?
    ))
}

/// Reads the answer to [`server`].
pub fn parse_server(output: &str) -> Result<Server> {
    let line = output.lines().next().unwrap_or_default();
    let fields: Vec<&str> = line.split('\t').collect();
    let [version, superuser, createdb, exists, owns, size, wal, directory] = fields[..] else {
        bail!("unexpected answer about the PostgreSQL server: {line:?}");
    };
    Ok(Server {
        version: number(version)?,
        superuser: truth(superuser)?,
        createdb: truth(createdb)?,
        exists: truth(exists)?,
        owns: truth(owns)?,
        size: number(size)?,
        wal: number(wal)?,
        directory: unhex(directory)?,
    })
}

/// Statements that make a database like the live one, as [`describe`] found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Create the staged database and its privileges; each statement for itself, none may be in a transaction.
    pub create: Vec<String>,
    /// Settings: before the load, as the dump of a whole server has them, because what is computed meanwhile (a materialized
    /// view, a check) may depend on them. The load undoes those that would break it.
    pub settings: Vec<String>,
    /// Connection limit, security labels: after the load, which a limit of 0 would break.
    pub limits: Vec<String>,
}

/// Asks for the statements that create `staged` like `live`. Where `live` is lost, a staged database that an
/// earlier in-place restore of it left is the model, else `template1` with UTF8 and the user as its owner. Read by
/// [`parse_describe`].
///
/// The staged database lets nobody in before it is marked as ours and has the live one's privileges. The collation
/// version is not copied: indexes are built anew by the load.
pub fn describe(live: &str, staged: &str) -> Result<String> {
    Ok(format!(
        r#"{PRELUDE}
WITH src AS (
    SELECT d.*, to_jsonb(d) AS j, d.datname <> 'template1' AS found, t.spcname, quote_ident({staged}) AS target,
        CASE WHEN d.datname <> 'template1' THEN pg_get_userbyid(d.datdba) ELSE current_user END AS owner,
        CASE WHEN d.datname <> 'template1' THEN pg_encoding_to_char(d.encoding) ELSE 'UTF8' END AS charset,
        {comment} || coalesce(E'\n' || CASE WHEN d.datname = {live} THEN note
            WHEN ours THEN nullif(substr(note, length({comment}) + 2), '') END, '') AS note
    FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
    CROSS JOIN LATERAL (SELECT shobj_description(d.oid, 'pg_database') AS note) n
    CROSS JOIN LATERAL (SELECT coalesce(note = {comment} OR starts_with(note, {comment} || E'\n'), false) AS ours) o
    WHERE d.datname = {live} OR ours OR d.datname = 'template1'
    ORDER BY d.datname = {live} DESC, ours DESC, d.datname DESC LIMIT 1
), ddl(phase, step, sql) AS (
    SELECT 'create', 1, format('CREATE DATABASE %s TEMPLATE template0 OWNER %I ENCODING %L LC_COLLATE %L LC_CTYPE %L',
        target, owner, charset, datcollate, datctype)
        || CASE j->>'datlocprovider'
            WHEN 'c' THEN ' LOCALE_PROVIDER libc'
            WHEN 'i' THEN ' LOCALE_PROVIDER icu ICU_LOCALE ' || quote_literal(coalesce(j->>'datlocale', j->>'daticulocale'))
                || coalesce(' ICU_RULES ' || quote_literal(j->>'daticurules'), '')
            WHEN 'b' THEN ' LOCALE_PROVIDER builtin BUILTIN_LOCALE ' || quote_literal(j->>'datlocale')
            ELSE '' END
        -- The default one is not named: that alone would take a privilege on it.
        || CASE WHEN spcname = 'pg_default' THEN '' ELSE format(' TABLESPACE %I', spcname) END || ' ALLOW_CONNECTIONS false'
    FROM src
    UNION ALL SELECT 'create', 2, format('COMMENT ON DATABASE %s IS %L', target, note) FROM src
    UNION ALL SELECT 'create', 3, format('REVOKE ALL ON DATABASE %s FROM PUBLIC, %I', target, owner)
    FROM src WHERE found AND datacl IS NOT NULL
    UNION ALL SELECT 'create',
        CASE WHEN a.grantor = datdba THEN 4 ELSE 5 END + CASE WHEN a.is_grantable THEN 0 ELSE 2 END,
        CASE WHEN a.grantor = datdba THEN '' ELSE format('SET ROLE %I; ', g.rolname) END
        || format('GRANT %s ON DATABASE %s TO %s', a.privilege_type, target,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END)
        || CASE WHEN a.is_grantable AND a.grantee <> datdba THEN ' WITH GRANT OPTION' ELSE '' END
        || CASE WHEN a.grantor = datdba THEN '' ELSE '; RESET ROLE' END
    FROM src CROSS JOIN LATERAL aclexplode(datacl) a JOIN pg_roles g ON g.oid = a.grantor
    LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE found AND (a.grantee = 0 OR r.oid IS NOT NULL)
    UNION ALL SELECT 'create', 8, format('ALTER DATABASE %s ALLOW_CONNECTIONS true', target) FROM src
    UNION ALL SELECT 'settings', 1, 'ALTER '
        || CASE WHEN s.setrole = 0 THEN 'DATABASE ' ELSE format('ROLE %I IN DATABASE ', r.rolname) END || target
        || format(' SET %I TO ', v.name)
        -- The value of a list is stored as quoted identifiers; as one literal it would become one element.
        || CASE WHEN v.name IN ('search_path', 'temp_tablespaces', 'local_preload_libraries',
                'session_preload_libraries', 'shared_preload_libraries', 'unix_socket_directories')
            THEN coalesce((SELECT string_agg(quote_literal(coalesce(replace(m[1], '""', '"'), rtrim(m[2]))), ', ' ORDER BY n)
                FROM regexp_matches(v.value, '"((?:[^"]|"")*)"|([^\s,"][^,]*)', 'g') WITH ORDINALITY AS x(m, n)), '''''')
            ELSE quote_literal(v.value) END
    FROM src JOIN pg_db_role_setting s ON s.setdatabase = src.oid LEFT JOIN pg_roles r ON r.oid = s.setrole
    CROSS JOIN LATERAL unnest(s.setconfig) c
    CROSS JOIN LATERAL (SELECT split_part(c, '=', 1) AS name, substr(c, strpos(c, '=') + 1) AS value) v
    WHERE found AND (s.setrole = 0 OR r.oid IS NOT NULL)
    UNION ALL SELECT 'limits', 1, format('ALTER DATABASE %s CONNECTION LIMIT %s', target, datconnlimit)
    FROM src WHERE found AND datconnlimit >= 0
    UNION ALL SELECT 'limits', 2, format('SECURITY LABEL FOR %I ON DATABASE %s IS %L', l.provider, target, l.label)
    FROM src JOIN pg_shseclabel l ON l.objoid = src.oid AND l.classoid = 'pg_database'::regclass WHERE found
    UNION ALL SELECT 'limits', 3, format('ALTER DATABASE %s IS_TEMPLATE true', target)
    FROM src WHERE found AND datistemplate
)
SELECT phase || E'\t' || encode(convert_to(sql, 'UTF8'), 'hex') FROM ddl ORDER BY phase, step, sql;
"#,
        live = name_literal(live)?,
        staged = name_literal(staged)?,
        comment = literal(&Mark::Staged.comment(live)?)?,
    ))
}

/// Reads the answer to [`describe`].
pub fn parse_describe(output: &str) -> Result<Description> {
    let mut description = Description::default();
    for line in output.lines() {
        match line.split_once('\t') {
            Some(("create", sql)) => description.create.push(unhex(sql)?),
            Some(("settings", sql)) => description.settings.push(unhex(sql)?),
            Some(("limits", sql)) => description.limits.push(unhex(sql)?),
            _ => bail!("unexpected line in the database's description: {line:?}"),
        }
    }
    ensure!(!description.create.is_empty(), "the server described no database");
    Ok(description)
}

/// Script that runs `statements` of a [`Description`], each in its own transaction.
pub fn script(statements: &[String]) -> String {
    let mut script = PRELUDE.to_owned();
    for statement in statements {
        script.push_str(statement);
        script.push_str(";\n");
    }
    script
}

/// As [`script`], and a statement that fails does not stop the others: a user who is no superuser may not give every
/// setting. [`differences`] tells what is missing then.
pub fn lenient_script(statements: &[String]) -> String {
    format!(
        "\\set ON_ERROR_STOP off\n{}\\set ON_ERROR_STOP on\n",
        script(statements)
    )
}

/// Asks in which properties `staged` differs from `live` after both scripts of its [`Description`]: one name of a
/// `pg_database` column (or `privileges`, `settings`, `labels`) per line, none where they are alike.
pub fn differences(live: &str, staged: &str) -> Result<String> {
    Ok(format!(
        r#"{PRELUDE}
WITH p AS (
    SELECT d.datname, e.key, e.value FROM pg_database d CROSS JOIN LATERAL jsonb_each_text(
        to_jsonb(d) - ARRAY['oid', 'datname', 'datallowconn', 'datlastsysoid', 'datfrozenxid', 'datminmxid',
            'datcollversion', 'dathasloginevt', 'datacl']
        || jsonb_build_object(
            'privileges', (SELECT array_agg(a::text ORDER BY a::text)
                FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a),
            'labels', (SELECT array_agg(l.provider || ':' || l.label ORDER BY l.provider)
                FROM pg_shseclabel l WHERE l.objoid = d.oid AND l.classoid = 'pg_database'::regclass),
            'settings', (SELECT array_agg(s.setrole || ':' || c ORDER BY s.setrole, c)
                FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c WHERE s.setdatabase = d.oid))) e
)
SELECT key FROM (SELECT * FROM p WHERE datname = {live}) a FULL JOIN (SELECT * FROM p WHERE datname = {staged}) b
USING (key) WHERE a.value IS DISTINCT FROM b.value ORDER BY key;
"#,
        live = name_literal(live)?,
        staged = name_literal(staged)?
    ))
}

/// Asks what stands in the way of a restore with `extensions`: lines of kind and hex name. Read by [`parse_named`].
/// `prepared`: a prepared transaction, with which the swap will fail. `subscription`: it stays with the old database, which
/// cannot be dropped then. `slot`: it goes with the old database. `extension`: the server does not have it. `bound`: an extension
/// that can be created in a database of the live one's name only.
pub fn blockers(live: &str, extensions: &[String]) -> Result<String> {
    let mut list = String::from("NULL");
    for extension in extensions {
        list.push_str(", ");
        list.push_str(&literal(extension)?);
    }
    Ok(format!(
        "{PRELUDE}\
SELECT kind || E'\\t' || encode(convert_to(name, 'UTF8'), 'hex') FROM (
    SELECT 'prepared' AS kind, gid AS name FROM pg_prepared_xacts WHERE database = {live}
    UNION ALL SELECT 'slot', slot_name FROM pg_replication_slots WHERE database = {live}
    UNION ALL SELECT 'subscription', s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
    WHERE d.datname = {live}
    UNION ALL SELECT 'extension', x FROM unnest(ARRAY[{list}]::text[]) x
    WHERE x IS NOT NULL AND NOT EXISTS (SELECT FROM pg_available_extensions a WHERE a.name::text = x)
    UNION ALL SELECT 'bound', x FROM unnest(ARRAY[{list}]::text[]) x
    WHERE x = 'pg_cron' AND current_setting('cron.database_name', true) = {live}
) b ORDER BY 1;
",
        live = name_literal(live)?
    ))
}

/// Reads lines of a word and a hex name, the answer to [`blockers`].
pub fn parse_named(output: &str) -> Result<Vec<(String, String)>> {
    output
        .lines()
        .map(|line| {
            let (kind, name) = line
                .split_once('\t')
                .with_context(|| format!("unexpected line from psql: {line:?}"))?;
            Ok((kind.to_owned(), unhex(name)?))
        })
        .collect()
}

/// Has a replaced database stay, as if the user had asked for it.
pub fn keep_replaced(live: &str, old: &str) -> Result<String> {
    Ok(format!(
        "COMMENT ON DATABASE {} IS {};\n",
        ident(old)?,
        literal(&Mark::Kept.comment(live)?)?
    ))
}

/// The swap: in one transaction `live` (where it exists) becomes `old`, marked as `Replaced` or `Kept`, and `staged`
/// becomes `live` with its comment. Prints `swapped` after the commit.
///
/// RENAME locks a database against new sessions, then waits up to 5 s for its sessions to leave: [`terminate`] must run
/// beside it, since sessions that slip in between this one's own termination and the lock would hold it up. One DO
/// block, so that no client can stand still in the middle with the lock held. The staged database comes first,
/// since autovacuum may be in it and the live one must not wait for that.
pub fn swap(live: &str, staged: &str, old: &str, mark: Mark) -> Result<String> {
    // The names go in as settings: inside the dollar quotes a name could end them.
    Ok(format!(
        r#"{PRELUDE}
SET statement_timeout = '30s';
SET lock_timeout = '3s';
SET n8n_backup.live = {live};
SET n8n_backup.staged = {staged};
SET n8n_backup.old = {old};
SET n8n_backup.staged_mark = {staged_mark};
SET n8n_backup.old_mark = {old_mark};
DO $swap$
DECLARE
    live text := current_setting('n8n_backup.live');
    staged text := current_setting('n8n_backup.staged');
    old text := current_setting('n8n_backup.old');
    staged_mark text := current_setting('n8n_backup.staged_mark');
    old_mark text := current_setting('n8n_backup.old_mark');
    note text;
    id oid;
BEGIN
    SELECT shobj_description(oid, 'pg_database') INTO note FROM pg_database WHERE datname = staged;
    IF note IS NULL OR NOT (note = staged_mark OR starts_with(note, staged_mark || E'\n')) THEN
        RAISE EXCEPTION 'database % is not staged', staged;
    END IF;
    note := nullif(substr(note, length(staged_mark) + 2), '');
    EXECUTE format('ALTER DATABASE %I RENAME TO %I', staged, staged || '_swap');
    SELECT oid INTO id FROM pg_database WHERE datname = live;
    IF FOUND THEN
        IF EXISTS (SELECT FROM pg_prepared_xacts p WHERE p.database = live) THEN
            RAISE EXCEPTION 'database % has prepared transactions', live
                USING HINT = 'End them with ROLLBACK PREPARED or COMMIT PREPARED.';
        END IF;
        note := shobj_description(id, 'pg_database');
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datid = id AND usesysid IS NOT NULL AND pg_has_role(usesysid, 'MEMBER');
        PERFORM pg_sleep(0.01);
        EXECUTE format('ALTER DATABASE %I RENAME TO %I', live, old);
        EXECUTE format('COMMENT ON DATABASE %I IS %L', old, concat_ws(E'\n', old_mark, note));
    END IF;
    EXECUTE format('ALTER DATABASE %I RENAME TO %I', staged || '_swap', live);
    EXECUTE format('COMMENT ON DATABASE %I IS %L', live, note);
END $swap$;
SELECT 'swapped';
"#,
        live = name_literal(live)?,
        staged = name_literal(staged)?,
        old = name_literal(old)?,
        staged_mark = literal(&Mark::Staged.comment(live)?)?,
        old_mark = literal(&mark.comment(live)?)?,
    ))
}

/// Runs beside [`swap`] in a second session: while the swap holds its lock on `live` or `staged`, ends their
/// sessions, and returns when the swap has committed or its session (known by `application`) has gone, at the latest
/// after 40 s (5 s when it never comes). It ends nobody before the swap has the lock.
pub fn terminate(live: &str, staged: &str, application: &str) -> Result<String> {
    Ok(format!(
        r#"{PRELUDE}
SET n8n_backup.live = {live};
SET n8n_backup.staged = {staged};
SET n8n_backup.application = {application};
DO $terminate$
DECLARE
    live oid := (SELECT oid FROM pg_database WHERE datname = current_setting('n8n_backup.live'));
    staged oid := (SELECT oid FROM pg_database WHERE datname = current_setting('n8n_backup.staged'));
    seen boolean := false;
    here boolean;
BEGIN
    -- The swap may have been over before this session began.
    IF staged IS NULL THEN RETURN; END IF;
    WHILE clock_timestamp() < statement_timestamp() + CASE WHEN seen THEN interval '40 s' ELSE interval '5 s' END LOOP
        PERFORM pg_stat_clear_snapshot();
        here := EXISTS (SELECT FROM pg_stat_activity WHERE application_name = current_setting('n8n_backup.application'));
        EXIT WHEN seen AND NOT here
            OR staged = (SELECT oid FROM pg_database WHERE datname = current_setting('n8n_backup.live'));
        seen := seen OR here;
        PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.objid = a.datid
            WHERE a.datid IN (live, staged) AND a.usesysid IS NOT NULL AND pg_has_role(a.usesysid, 'MEMBER')
            AND l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.granted
            AND l.mode = 'AccessExclusiveLock';
        PERFORM pg_sleep(0.01);
    END LOOP;
END $terminate$;
"#,
        live = name_literal(live)?,
        staged = name_literal(staged)?,
        application = literal(application)?,
    ))
}

/// Ends the sessions called `application` that an earlier run left; prints how many.
///
/// `pg_terminate_backend` stands in the select list, here as everywhere: in WHERE the planner may call it before the other
/// conditions, for the sessions of others.
pub fn end_sessions(application: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}\
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = {} AND pid <> pg_backend_pid() AND pg_has_role(usesysid, 'MEMBER');
",
        literal(application)?
    ))
}

/// Asks who else is connected to `database`: a line for each program, with its user.
pub fn other_sessions(database: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}\
SELECT DISTINCT coalesce(nullif(application_name, ''), 'a program') || ' as user ' || coalesce(usename, '?') FROM pg_stat_activity
    WHERE datname = {} AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    AND coalesce(application_name, '') NOT LIKE 'n8n-backup %';
",
        name_literal(database)?
    ))
}

/// Asks whether a session called `application` works: `t` or `f`. One that waits for its client or for a lock does not.
/// A server that is paused or hangs gives no answer at all.
pub fn works(application: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}\
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = {} AND state = 'active'
    AND coalesce(wait_event_type, '') NOT IN ('Client', 'Lock'));
",
        literal(application)?
    ))
}

/// Asks for the number by which the server knows `database`, whatever it is called later: one line, none where it does not
/// exist. Read by [`parse_oid`].
pub fn oid(database: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}SELECT oid FROM pg_database WHERE datname = {};\n",
        name_literal(database)?
    ))
}

/// Reads the answer to [`oid`].
pub fn parse_oid(output: &str) -> Result<Option<u32>> {
    match output.trim() {
        "" => Ok(None),
        oid => number(oid).map(Some),
    }
}

/// Asks whether a database is there: `t` or `f`. One whose drop was cut short is not (PostgreSQL marks it as invalid by this limit).
pub fn exists(database: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}SELECT EXISTS (SELECT FROM pg_database WHERE datname = {} AND datconnlimit <> -2);\n",
        name_literal(database)?
    ))
}

/// A database of ours that is not live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub mark: Mark,
    /// Its name.
    pub name: String,
    /// Its size in bytes; 0 where the user may not ask.
    pub bytes: u64,
}

/// Asks which databases of ours belong to `live`: lines of `staged`, `replaced` or `kept`, hex name and size in bytes, oldest
/// first. Staged and replaced ones may be dropped, kept ones not. Read by [`parse_leftovers`].
///
/// `replaced` is listed only while the live database exists. A database under a staged name without a comment that lets
/// nobody in is what death between CREATE DATABASE and its first comment leaves: empty. What has the mark and another name is
/// somebody's, who renamed it to keep it.
pub fn sweep_list(live: &str) -> Result<String> {
    let mut marks = Vec::new();
    for mark in [Mark::Staged, Mark::Replaced, Mark::Kept] {
        marks.push(format!("('{}', {})", mark.kind(), literal(&mark.comment(live)?)?));
    }
    Ok(format!(
        r#"{PRELUDE}
SELECT concat_ws(E'\t', coalesce(kind, 'staged'), encode(convert_to(datname, 'UTF8'), 'hex'),
    CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) ELSE 0 END)
FROM (SELECT oid, datname, datallowconn, shobj_description(oid, 'pg_database') AS note FROM pg_database) d
LEFT JOIN (VALUES {marks}) m(kind, mark) ON note = mark OR starts_with(note, mark || E'\n')
WHERE datname <> {live} AND (kind = 'kept'
    OR datname ~ '^n8n_restore_[0-9]{{8}}_[0-9]{{6}}$' AND (kind = 'staged' OR note IS NULL AND NOT datallowconn)
    OR datname ~ '^n8n_old_[0-9]{{8}}_[0-9]{{6}}$' AND kind = 'replaced'
        AND EXISTS (SELECT FROM pg_database l WHERE l.datname = {live} AND l.datallowconn))
ORDER BY oid;
"#,
        marks = marks.join(", "),
        live = name_literal(live)?
    ))
}

/// Reads the answer to [`sweep_list`].
pub fn parse_leftovers(output: &str) -> Result<Vec<Leftover>> {
    output
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [kind, name, bytes] = fields[..] else {
                bail!("unexpected line about the databases: {line:?}");
            };
            let mut marks = [Mark::Staged, Mark::Replaced, Mark::Kept].into_iter();
            Ok(Leftover {
                mark: marks
                    .find(|mark| mark.kind() == kind)
                    .with_context(|| format!("unexpected kind of database: {kind:?}"))?,
                name: unhex(name)?,
                bytes: number(bytes)?,
            })
        })
        .collect()
}

/// Drops `database` where it exists, ending its sessions: only for one that [`sweep_list`] gave, or for the live one of an
/// in-place restore. DROP DATABASE allows no transaction; after a death half-way the server refuses connections to it
/// and the next sweep drops it.
pub fn drop_database(database: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}\
SELECT format('ALTER DATABASE %I IS_TEMPLATE false', datname) FROM pg_database
    WHERE datname = {name} AND datistemplate \\gexec
SELECT CASE WHEN current_setting('server_version_num')::int < 130000 THEN
    (SELECT 'SELECT WHERE 0 = ' || count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = {name} AND usesysid IS NOT NULL) END \\gexec
SELECT format('DROP DATABASE %I', datname)
    || CASE WHEN current_setting('server_version_num')::int >= 130000 THEN ' WITH (FORCE)' ELSE '' END
    FROM pg_database WHERE datname = {name} \\gexec
",
        name = name_literal(database)?
    ))
}

/// Asks which of `roles` the server lacks: one hex name per line, in the given order. Read by [`parse_names`].
pub fn missing_roles(roles: &[String]) -> Result<String> {
    let mut list = String::from("NULL");
    for role in roles {
        // Not name_literal: a name that is too long is simply one that no role has.
        list.push_str(", ");
        list.push_str(&literal(role)?);
    }
    Ok(format!(
        "{PRELUDE}\
SELECT encode(convert_to(name, 'UTF8'), 'hex') FROM unnest(ARRAY[{list}]::text[]) WITH ORDINALITY AS x(name, n)
    WHERE name IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname::text = x.name) ORDER BY n;
"
    ))
}

/// Reads one hex name per line, the answer to [`missing_roles`].
pub fn parse_names(output: &str) -> Result<Vec<String>> {
    output.lines().map(unhex).collect()
}

/// Asks, connected to a database of n8n's, for its stored credentials: lines of hex ID and hex data. The table may stand
/// in any schema, and its name may have a prefix. Read by [`parse_pairs`].
pub fn credentials() -> String {
    format!(
        r#"{PRELUDE}
SELECT format('SELECT concat_ws(E''\t'', encode(convert_to(id::text, ''UTF8''), ''hex''), encode(convert_to(data::text, ''UTF8''), ''hex'')) FROM %s ORDER BY 1',
    c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND right(c.relname, 18) = 'credentials_entity'
AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('id', 'data') AND NOT a.attisdropped) = 2
ORDER BY c.oid \gexec
"#
    )
}

/// Reads lines of two hex texts, the answer to [`credentials`].
pub fn parse_pairs(output: &str) -> Result<Vec<(String, String)>> {
    output
        .lines()
        .map(|line| match line.split_once('\t') {
            Some((left, right)) => Ok((unhex(left)?, unhex(right)?)),
            None => bail!("unexpected line from psql"),
        })
        .collect()
}

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

/// Has psql tell its own version. Read by [`knows_restrict`].
pub const PSQL_VERSION: &str = "\\echo :VERSION_NAME\n";

/// Whether `psql` has `\restrict`, by its version: since the minor releases of August 2025.
pub fn knows_restrict(version: &str) -> bool {
    let number = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or_default();
    let mut parts = number.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(13)), Some(Ok(minor))) => minor >= 22,
        (Some(Ok(14)), Some(Ok(minor))) => minor >= 19,
        (Some(Ok(15)), Some(Ok(minor))) => minor >= 14,
        (Some(Ok(16)), Some(Ok(minor))) => minor >= 10,
        (Some(Ok(17)), Some(Ok(minor))) => minor >= 6,
        (Some(Ok(major)), _) => major >= 18,
        _ => false,
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
    WHEN kind NOT IN ('s', 'f') AND has_table_privilege(oid, 'SELECT') THEN
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

/// `name` as a literal, checked as [`ident`] does: a longer one would silently miss in a comparison.
fn name_literal(name: &str) -> Result<String> {
    ident(name)?;
    literal(name)
}

fn number<T: std::str::FromStr>(field: &str) -> Result<T> {
    field
        .parse()
        .ok()
        .with_context(|| format!("psql gave {field:?} where a number was expected"))
}

fn truth(field: &str) -> Result<bool> {
    match field {
        "t" => Ok(true),
        "f" => Ok(false),
        _ => bail!("psql gave {field:?} where t or f was expected"),
    }
}

fn unhex(field: &str) -> Result<String> {
    String::from_utf8(bytes_of(field)?).with_context(|| format!("psql gave {field:?}, which is not UTF-8"))
}

/// As [`unhex`], for names of a database whose encoding (SQL_ASCII) does not say what its bytes are.
fn unhex_lossy(field: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes_of(field)?).into_owned())
}

fn bytes_of(field: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes: Option<Vec<u8>> = field
        .as_bytes()
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        })
        .collect();
    bytes.with_context(|| format!("psql gave {field:?} where hex was expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_one_session_are_told_apart() {
        let both: [String; 2] = separated("a\nb\n=====\n").unwrap();
        assert_eq!(both, ["a\nb\n", ""]);
        assert_eq!(separated::<1>("").unwrap(), [""]);
        assert_eq!(separated::<3>("=====\n=====\nc\n").unwrap(), ["", "", "c\n"]);
        assert!(separated::<2>("a\n").is_err() && separated::<1>("=====\n").is_err());
    }

    #[test]
    fn names_are_quoted_or_refused() {
        assert_eq!(ident("a\"b;--").unwrap(), "\"a\"\"b;--\"");
        assert!(ident(&"x".repeat(63)).is_ok());
        assert!(ident(&"x".repeat(64)).is_err());
        assert!(ident(&"\u{e4}".repeat(32)).is_err(), "64 bytes in UTF-8");
        assert!(ident("").is_err());
        assert!(ident("a\0b").is_err());
        assert_eq!(literal("it's").unwrap(), "'it''s'");
        assert_eq!(literal(r"\'").unwrap(), r" E'\\'''");
        assert!(literal("a\0b").is_err());
    }

    #[test]
    fn connection_string_takes_hostile_names_as_they_are() {
        assert_eq!(
            conninfo("n8n", r"host=x '\", "t").unwrap(),
            r"user='n8n' dbname='host=x \'\\' application_name='t'"
        );
        assert!(conninfo("", "n8n", "t").is_err());
    }

    #[test]
    fn maintenance_database_is_never_the_live_one() {
        for live in ["n8n", "postgres"] {
            let names = maintenance_databases(live).unwrap();
            assert!(!names.is_empty() && !names.contains(&live));
        }
        assert!(maintenance_databases("template1").is_err());
    }

    #[test]
    fn application_names_differ_by_database_and_fit() {
        let long = application_name("restore", &"\u{e4}".repeat(31));
        assert!(long.len() <= MAX_NAME && long.is_ascii());
        assert_ne!(long, application_name("restore", "n8n"));
        // FNV-1a of the empty string is its offset basis.
        assert_eq!(application_name("t", ""), "n8n-backup t cbf29ce484222325");
    }

    #[test]
    fn a_name_cannot_end_the_dollar_quotes_of_the_swap() {
        let script = swap("$swap$; DROP", "s", "o", Mark::Kept).unwrap();
        let body = script.split_once("DO $swap$").unwrap().1;
        assert_eq!(body.matches("$swap$").count(), 1, "only our own end");
        assert!(script.contains("'n8n-backup: kept \"$swap$; DROP\"'"));
    }

    #[test]
    fn sweep_tells_names_apart_where_one_begins_like_the_other() {
        // `"a"` is a prefix of `"a""b"`: only equality or a line feed may follow.
        let list = sweep_list("n8n").unwrap();
        assert!(list.contains("('staged', 'n8n-backup: staged for \"n8n\"')"));
        assert!(list.contains(r"note = mark OR starts_with(note, mark || E'\n')"));
        assert!(list.contains("'^n8n_restore_[0-9]{8}_[0-9]{6}$'"));
    }

    #[test]
    fn reads_the_server() {
        let server = parse_server("150018\tt\tt\tt\tf\t7471619\t1073741824\t2f64\n").unwrap();
        assert_eq!((server.version, server.size), (150_018, 7_471_619));
        assert_eq!(server.directory, "/d");
        assert!(server.may_restore());
        let other = "150018\tf\tt\tt\tf\t0\t0\t";
        assert!(!parse_server(other).unwrap().may_restore());
        assert!(parse_server("").is_err());
        assert!(parse_server("150018\tx\tt\tt\tf\t0\t0\t").is_err());
    }

    #[test]
    fn reads_a_description_into_two_scripts() {
        let description = parse_describe("limits\t42\ncreate\t41\ncreate\t430a\nsettings\t44\n").unwrap();
        assert_eq!(description.create, ["A", "C\n"]);
        assert_eq!(description.limits, ["B"]);
        assert_eq!(description.settings, ["D"]);
        assert!(script(&description.create).ends_with(";\nA;\nC\n;\n"));
        assert!(parse_describe("").is_err(), "no database, no description");
        assert!(parse_describe("create 41").is_err());
    }

    #[test]
    fn reads_counts_and_refuses_what_it_does_not_know() {
        let lines = "r\t70\t410942\t3\tf\ns\t70\t41\t-7\tt\np\t70\t41\t?\tf\n";
        let counts = parse_counts(lines).unwrap();
        assert_eq!(counts[0].kind, CountKind::Table);
        assert_eq!(counts[0].name, "A\tB");
        assert_eq!(counts[0].value, Some(3));
        assert_eq!((counts[1].value, counts[1].called), (Some(-7), true));
        assert_eq!(counts[2].value, None);
        for bad in [
            "",
            "r\t70\t41\t3",
            "z\t70\t41\t3\tf",
            "r\t7\t41\t3\tf",
            "r\t70\t41\tx\tf",
        ] {
            assert!(parse_counts(&format!("{bad}\n")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn restrict_came_with_minor_releases() {
        for (version, known) in [
            ("psql (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)", true),
            ("psql (PostgreSQL) 15.13", false),
            ("psql (PostgreSQL) 16.10", true),
            ("psql (PostgreSQL) 16.9 (Debian 16.9-1.pgdg120+1)", false),
            ("psql (PostgreSQL) 12.22", false),
            ("psql (PostgreSQL) 17.6", true),
            ("psql (PostgreSQL) 18.0", true),
            ("psql (PostgreSQL) 18beta1", false),
            ("", false),
        ] {
            assert_eq!(knows_restrict(version), known, "{version}");
        }
    }

    #[test]
    fn the_restriction_is_lifted_before_the_marker() {
        assert!(load_prelude(Some("T")).ends_with("\n\\restrict T\n"));
        assert!(!load_prelude(None).contains("restrict"));
        assert!(load_epilogue("m", Some("T"))
            .unwrap()
            .starts_with("\n\n\\unrestrict T\n\\echo\n"));
        assert!(!load_epilogue("m", None).unwrap().contains("restrict"));
    }

    #[test]
    fn reads_names() {
        assert_eq!(parse_names("61\nc3a4\n").unwrap(), ["a", "\u{e4}"]);
        assert_eq!(
            parse_named("slot\t61\n").unwrap(),
            [("slot".to_owned(), "a".to_owned())]
        );
        assert!(parse_named("slot").is_err());
        let query = missing_roles(&["a'b".to_owned()]).unwrap();
        assert!(query.contains("'a''b'"));
    }
}
