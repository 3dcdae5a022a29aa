//! The staged database, its swap with the live one, and what killed restores leave.

use anyhow::{bail, ensure, Context, Result};

use super::*;

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
    pub(super) fn word(self) -> &'static str {
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
    pub(super) fn comment(self, live: &str) -> Result<String> {
        Ok(format!("n8n-backup: {} {}", self.word(), ident(live)?))
    }
}

/// Statements that make a database like the live one, as [`describe`] found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Create the staged database and its privileges; each statement for itself, none may be in a transaction.
    pub create: Vec<String>,
    /// Settings: before the load, as the dump of a whole server has them, because what is computed meanwhile (a materialized
    /// view, a check) may depend on them. The load undoes those that would break it.
    pub settings: Vec<String>,
    /// Connection limit, security labels: after the load, which a small limit would break; in place before, and that
    /// limit is lifted meanwhile.
    pub limits: Vec<String>,
}

/// Asks for the statements that create `staged` like `live`. Where `live` is lost, a staged database that an
/// earlier in-place restore of it left is the model, else what a drop that was cut short has left of `live`, else
/// `template1` with UTF8 and the user as its owner. Read by [`parse_describe`].
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
    ORDER BY d.datname = {live} AND d.datconnlimit <> {INVALID} DESC, ours DESC, d.datname = {live} DESC, d.datname DESC LIMIT 1
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

/// Lifts the connection limit of `database`.
pub fn lift_limit(database: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}ALTER DATABASE {} CONNECTION LIMIT -1;\n",
        ident(database)?
    ))
}

/// Has a replaced database stay, as if the user had asked for it.
pub fn keep_replaced(live: &str, old: &str) -> Result<String> {
    Ok(format!(
        "COMMENT ON DATABASE {} IS {};\n",
        ident(old)?,
        literal(&Mark::Kept.comment(live)?)?
    ))
}

/// The SQLSTATE of a swap that would replace a database which was not there before: of a class of our own.
pub const CREATED_MEANWHILE: &str = "NB004";

/// The swap: in one transaction `live` (where it exists) becomes `old`, marked as `Replaced` or `Kept`, and `staged`
/// becomes `live` with its comment. Prints `swapped` after the commit. What is left of a `live` whose drop was cut
/// short goes before that.
///
/// RENAME locks a database against new sessions, then waits up to 5 s for its sessions to leave: [`terminate`] must run
/// beside it, since sessions that slip in between this one's own termination and the lock would hold it up. One DO
/// block, so that no client can stand still in the middle with the lock held. The staged database comes first,
/// since autovacuum may be in it and the live one must not wait for that.
///
/// Without a `mark` nothing may be replaced: a `live` that is there is the error [`CREATED_MEANWHILE`].
pub fn swap(live: &str, staged: &str, old: &str, mark: Option<Mark>) -> Result<String> {
    // The names go in as settings: inside the dollar quotes a name could end them.
    Ok(format!(
        r#"{PRELUDE}
SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE datname = {live} AND datconnlimit = {INVALID} \gexec
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
        IF old_mark = '' THEN
            RAISE EXCEPTION 'database % was created meanwhile', live USING ERRCODE = '{CREATED_MEANWHILE}';
        END IF;
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
        old_mark = literal(&mark.map_or_else(|| Ok(String::new()), |mark| mark.comment(live))?)?,
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

/// A database of ours that is not live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub mark: Mark,
    /// Its name.
    pub name: String,
    /// Its size in bytes; 0 where the user may not ask, or its files are gone.
    pub bytes: u64,
}

/// Asks which databases of ours belong to `live`: lines of `staged`, `replaced` or `kept`, hex name and size in bytes, oldest
/// first. Staged and replaced ones may be dropped, kept ones not. Read by [`parse_leftovers`].
///
/// What is left of a drop that was cut short may have no files, and then its size is NULL, which concat_ws would leave
/// out.
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
    coalesce(CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END, 0))
FROM (SELECT oid, datname, datallowconn, shobj_description(oid, 'pg_database') AS note FROM pg_database) d
LEFT JOIN (VALUES {marks}) m(kind, mark) ON note = mark OR starts_with(note, mark || E'\n')
WHERE datname <> {live} AND (kind = 'kept'
    OR datname ~ '^n8n_restore_[0-9]{{8}}_[0-9]{{6}}$' AND (kind = 'staged' OR note IS NULL AND NOT datallowconn)
    OR datname ~ '^n8n_old_[0-9]{{8}}_[0-9]{{6}}$' AND kind = 'replaced'
        AND EXISTS (SELECT FROM pg_database l WHERE l.datname = {live} AND l.datallowconn AND l.datconnlimit <> {INVALID}))
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
