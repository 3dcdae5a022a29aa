//! What the server is asked, and told, beside the swap.

use anyhow::{bail, Context as _, Result};

use super::*;
use crate::formats::n8n::Place;

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

/// The connection limit by which PostgreSQL marks a database as invalid, whose drop was cut short.
pub const INVALID: i32 = -2;

/// What [`server`] asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`, such as 160004.
    pub version: u32,
    /// The user may do everything below.
    pub superuser: bool,
    /// The user may create databases.
    pub createdb: bool,
    /// The live database is there, and is more than the remainder of one.
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

    /// What a superuser does so that `user` may.
    pub fn how_to_allow(&self, user: &str, live: &str) -> Result<String> {
        let (user, live) = (ident(user)?, ident(live)?);
        let createdb = (!self.createdb).then(|| format!("ALTER ROLE {user} CREATEDB;"));
        let owner = (self.exists && !self.owns).then(|| format!("ALTER DATABASE {live} OWNER TO {user};"));
        let statements: Vec<String> = createdb.into_iter().chain(owner).collect();
        Ok(format!(
            "have a superuser run {} or set BACKUP_POSTGRES_USER in .env to a superuser",
            statements.join(" ")
        ))
    }
}

/// Asks for the server's version, the user's powers and the live database's size. Read by [`parse_server`]. No field may
/// be NULL, which concat_ws would leave out.
pub fn server(live: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}\
SELECT concat_ws(E'\\t', current_setting('server_version_num'), r.rolsuper, r.rolcreatedb,
    d.oid IS NOT NULL AND d.datconnlimit <> {INVALID},
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

/// Asks what stands in the way of a restore with `extensions`: lines of kind and hex name. Read by [`parse_named`].
/// `prepared`: a prepared transaction, with which the swap will fail. `subscription`: it stays with the old database, which
/// cannot be dropped then. `slot`: it goes with the old database. `extension`: the server does not have it. `rights`: an
/// extension that only a superuser may create, which the user is not (supautils lets others create some). `trigger`: the user
/// may not create event triggers. With `lent_` before these two the user may, and nobody who is no superuser. `session`: a session in the live database that the user may not end, as pg_cron's own.
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
    UNION ALL SELECT CASE WHEN me.rolsuper THEN 'lent_rights' ELSE 'rights' END, x
    FROM unnest(ARRAY[{list}]::text[]) x, pg_roles me
    WHERE me.rolname = current_user
        AND (me.rolsuper OR x <> ALL (string_to_array(replace(coalesce(
            (SELECT setting FROM pg_settings WHERE name = 'supautils.privileged_extensions'), ''), ' ', ''), ',')))
        AND EXISTS (SELECT FROM pg_available_extension_versions v JOIN pg_available_extensions a
            ON a.name = v.name AND a.default_version = v.version
            WHERE v.name::text = x AND v.superuser AND to_jsonb(v)->>'trusted' IS DISTINCT FROM 'true')
    UNION ALL SELECT CASE WHEN rolsuper THEN 'lent_trigger' ELSE 'trigger' END, 'none'
    FROM pg_roles WHERE rolname = current_user
        AND (rolsuper OR rolname::text IS DISTINCT FROM current_setting('supautils.privileged_role', true))
    UNION ALL SELECT DISTINCT 'session',
        coalesce(nullif(application_name, ''), 'a program') || ' as user ' || coalesce(usename, '?')
    FROM pg_stat_activity WHERE datname = {live} AND NOT pg_has_role(usesysid, 'MEMBER')
) b ORDER BY 1;
",
        live = name_literal(live)?
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

/// The schemas of the database beside n8n's `own` that hold tables of other programs, each with the number of these, in one
/// line for people. What an extension made is the extension's. An empty `own` is one that is not known: then there is none.
pub fn other_schemas(own: &str) -> Result<String> {
    if own.is_empty() {
        return Ok("SELECT '';\n".to_owned());
    }
    Ok(format!(
        "{PRELUDE}SELECT coalesce(string_agg(format('%s (%s)', name, tables), ', ' ORDER BY name), '') FROM ( \
         SELECT n.nspname AS name, count(*) AS tables FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND n.nspname <> {} AND n.nspname <> 'information_schema' \
         AND n.nspname NOT LIKE 'pg\\_%' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
         WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
         GROUP BY 1) s;\n",
        literal(own)?
    ))
}

/// Asks whether a database is there: `t` or `f`. One whose drop was cut short is not.
pub fn exists(database: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}SELECT EXISTS (SELECT FROM pg_database WHERE datname = {} AND datconnlimit <> {INVALID});\n",
        name_literal(database)?
    ))
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

/// Asks whether `role` is there and has all rights of the user that asks: `t` or `f`.
pub fn has_our_rights(role: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}SELECT EXISTS (SELECT FROM pg_roles WHERE rolname::text = {} AND pg_has_role(oid, current_user, 'USAGE'));\n",
        literal(role)?
    ))
}

/// Asks, connected to the live database, whether `role` may make temporary tables there: `t` or `f`, and nothing where it
/// is not there or has all rights of the user that asks.
pub fn lesser_role(role: &str) -> Result<String> {
    Ok(format!(
        "{PRELUDE}SELECT has_database_privilege(oid, current_database(), 'TEMPORARY') FROM pg_roles\n\
    WHERE rolname::text = {} AND NOT pg_has_role(oid, current_user, 'USAGE');\n",
        literal(role)?
    ))
}

/// Asks whether another session works in the database: `t` or `f`. n8n looks by `SELECT 1` whether it is there.
pub const OTHERS_WORK: &str =
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE datname = current_database()\n\
    AND state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()\n\
    AND query <> 'SELECT 1');\n";

/// Makes `name` an empty database in UTF-8, on a scratch server.
pub fn scratch_database(name: &str) -> Result<String> {
    let name = ident(name)?;
    Ok(format!(
        "{PRELUDE}DROP DATABASE IF EXISTS {name};\nCREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8';\n"
    ))
}

/// Asks, connected to a database of n8n's, for the files of binary data that executions name: lines of hex. The table may
/// stand in any schema and its name have any prefix.
pub fn binary_files(place: Option<&Place>) -> Result<String> {
    Ok(format!(
        r#"{PRELUDE}
SELECT format('SELECT DISTINCT encode(convert_to(m[1], ''UTF8''), ''hex'') FROM %s t, regexp_matches(t.data::text, ''filesystem-v2:(workflows/[^"\\]+)'', ''g'') m',
    c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND {}
AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'data' AND NOT a.attisdropped)
ORDER BY c.oid \gexec
"#,
        is_n8ns(place, "execution_data")?
    ))
}

/// The condition that the relation `c` in the schema `n` is n8n's table `name`, by its place, or where none is known by
/// the end of its name.
pub fn is_n8ns(place: Option<&Place>, name: &str) -> Result<String> {
    Ok(match place {
        Some(place) => format!(
            "n.nspname = {} AND c.relname = {}",
            literal(&place.schema)?,
            literal(&format!("{}{name}", place.prefix))?
        ),
        None => format!(
            "right(c.relname, {}) = '{name}' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'",
            name.len()
        ),
    })
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

/// Asks, connected to a database of n8n's, for the migrations that it has seen. Read by [`parse_migrations`].
///
/// `COPY` of columns plans nothing and casts nothing. A query of a table may run functions of the database with our
/// rights: those of casts, and those of indexes, which the planner computes.
pub fn migrations(place: Option<&Place>) -> Result<String> {
    Ok(format!(
        r#"{PRELUDE}
SELECT 'SELECT ''migrations''', format('COPY %s (id, name) TO STDOUT', c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND {}
AND ARRAY['id', 'name', 'timestamp'] <@ ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid)
ORDER BY c.oid LIMIT 1 \gexec
"#,
        is_n8ns(place, "migrations")?
    ))
}

/// Reads the answer to [`migrations`]: how many, and the name of the newest, where there is such a table.
pub fn parse_migrations(output: &str) -> Result<Option<(u64, String)>> {
    let mut lines = output.lines();
    if lines.next().is_none() {
        return Ok(None);
    }
    let (mut count, mut newest) = (0, (i64::MIN, "none"));
    for line in lines {
        let (id, name) = line
            .split_once('\t')
            .with_context(|| format!("unexpected line about the migrations: {line:?}"))?;
        count += 1;
        newest = newest.max((number(id)?, name));
    }
    Ok(Some((count, newest.1.to_owned())))
}

/// What a role may do on its server, beside what a dump tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// It is a superuser.
    pub superuser: bool,
    /// The roles that it is a member of.
    pub member_of: Vec<String>,
}

impl Role {
    /// For a manifest: words, and the names in hexadecimal.
    pub fn rights(&self) -> String {
        let words = self.superuser.then(|| "superuser".to_owned()).into_iter();
        let groups = self.member_of.iter().map(|name| format!("member:{}", hex(name)));
        words.chain(groups).collect::<Vec<_>>().join(" ")
    }

    /// Reads [`Role::rights`].
    pub fn parse(name: &str, rights: &str) -> Self {
        let groups = rights
            .split_whitespace()
            .filter_map(|word| unhex(word.strip_prefix("member:")?).ok());
        Self {
            name: name.to_owned(),
            superuser: rights.split_whitespace().any(|word| word == "superuser"),
            member_of: groups.collect(),
        }
    }
}

/// Asks for the roles of the server. Read by [`parse_roles`].
pub fn roles() -> String {
    format!(
        "{PRELUDE}\
SELECT concat_ws(E'\\t', encode(convert_to(r.rolname, 'UTF8'), 'hex'), concat_ws(' ', CASE WHEN r.rolsuper THEN 'superuser' END,
    (SELECT string_agg('member:' || encode(convert_to(g.rolname, 'UTF8'), 'hex'), ' ' ORDER BY g.rolname)
        FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname !~ '^pg_')))
FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY r.rolname;
"
    )
}

/// Reads the answer to [`roles`].
pub fn parse_roles(output: &str) -> Result<Vec<Role>> {
    let role = |line: &str| {
        let (name, rights) = line.split_once('\t').unwrap_or((line, ""));
        Ok(Role::parse(&unhex(name)?, rights))
    };
    output.lines().map(role).collect()
}

/// Gives the roles of a scratch server, all of which are there, what they were recorded with. What a role had as the
/// owner of the live database is not among it: in a new one it has no more than a restore gives it.
pub fn grant_rights(roles: &[Role]) -> Result<String> {
    let mut script = PRELUDE.to_owned();
    for role in roles {
        let name = ident(&role.name)?;
        if role.superuser {
            script.push_str(&format!("ALTER ROLE {name} SUPERUSER;\n"));
        }
        for group in &role.member_of {
            script.push_str(&format!("GRANT {} TO {name};\n", ident(group)?));
        }
    }
    Ok(script)
}

/// What a superuser runs so that a role which was created without login is what it was.
pub fn let_log_in(role: &Role) -> Result<String> {
    let name = ident(&role.name)?;
    let superuser = if role.superuser { " SUPERUSER" } else { "" };
    let mut text = format!("ALTER ROLE {name} LOGIN{superuser} PASSWORD '...'");
    for group in &role.member_of {
        text.push_str(&format!("; GRANT {} TO {name}", ident(group)?));
    }
    Ok(text)
}

/// Asks for what a scratch server is to be like: a line with the libraries that this one preloads, where the user may know, and
/// one that [`Locale::parse`] reads.
pub const LIKENESS: &str = "SELECT coalesce((SELECT regexp_replace(trim(replace(setting, '\"', '')), '[\\s,]+', ' ', 'g')
    FROM pg_catalog.pg_settings WHERE name = 'shared_preload_libraries'), '');
SELECT concat_ws(' ', pg_catalog.pg_encoding_to_char(encoding), coalesce(j->>'datlocprovider', 'c'), datcollate, datctype,
    coalesce(j->>'datlocale', j->>'daticulocale'))
    FROM pg_catalog.pg_database d CROSS JOIN LATERAL pg_catalog.to_jsonb(d) j WHERE datname = pg_catalog.current_database();
";

/// The encoding and the locales of a database.
#[derive(Debug, PartialEq, Eq)]
pub struct Locale {
    encoding: String,
    provider: String,
    /// `LC_COLLATE` and `LC_CTYPE`; those of the cluster without it.
    libc: Option<[String; 2]>,
    other: Option<String>,
}

impl Locale {
    /// An encoding with the locales of the cluster, unless it is one that fits few.
    pub fn plain(encoding: &str) -> Self {
        Self {
            encoding: encoding.to_owned(),
            provider: "c".to_owned(),
            libc: (encoding != "UTF8").then(|| ["C", "C"].map(str::to_owned)),
            other: None,
        }
    }

    /// Reads the answer to [`LIKENESS`]. A locale whose name has blanks is none.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let (encoding, provider, collate, ctype, other) = match words[..] {
            [encoding, provider, collate, ctype] => (encoding, provider, collate, ctype, None),
            [encoding, provider, collate, ctype, other] => (encoding, provider, collate, ctype, Some(other)),
            _ => return None,
        };
        Some(Self {
            encoding: encoding.to_owned(),
            provider: provider.to_owned(),
            libc: Some([collate, ctype].map(str::to_owned)),
            other: other.map(str::to_owned),
        })
    }

    /// Makes an empty database of it.
    pub fn create_database(&self, name: &str) -> Result<String> {
        let mut script = format!(
            "{PRELUDE}CREATE DATABASE {} TEMPLATE template0 ENCODING {}",
            ident(name)?,
            literal(&self.encoding)?
        );
        if let Some([collate, ctype]) = &self.libc {
            script.push_str(&format!(
                " LC_COLLATE {} LC_CTYPE {}",
                literal(collate)?,
                literal(ctype)?
            ));
        }
        match (self.provider.as_str(), &self.other) {
            ("i", Some(other)) => script.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(other)?)),
            ("b", Some(other)) => {
                script.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(other)?));
            }
            _ => {}
        }
        script.push_str(";\n");
        Ok(script)
    }
}
