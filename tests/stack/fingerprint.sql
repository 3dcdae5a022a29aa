-- Describes the contents of a database, line by line, in an order that does
-- not depend on where rows and objects happen to lie. What pg_dump says of
-- the definitions is added by stack.sh.
\set QUIET on
\pset format unaligned
\pset tuples_only on
\pset fieldsep '|'
\set ON_ERROR_STOP on
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET extra_float_digits = 1;
SET bytea_output = 'hex';
SET xmlbinary = 'base64';
SET lc_monetary = 'C';
SET row_security = off;
SET search_path = pg_catalog;
SET statement_timeout = 0;

SELECT 'database', 'properties', pg_encoding_to_char(encoding), datcollate, datctype, datconnlimit, datallowconn, pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database();
SELECT 'database', 'comment', quote_nullable(shobj_description(oid, 'pg_database')) FROM pg_database WHERE datname = current_database();
SELECT 'database', 'acl', a FROM (SELECT unnest(datacl)::text a FROM pg_database WHERE datname = current_database()) x ORDER BY a COLLATE "C";
SELECT 'database', 'setting', coalesce(r.rolname, '-'), c FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
  WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 3, 4;
SELECT 'extension', extname, extversion FROM pg_extension ORDER BY extname COLLATE "C";

SELECT format('SELECT ''rows'', %L, count(*), md5(string_agg(h, '''' ORDER BY h COLLATE "C")) FROM (SELECT md5("fingerprint row"::text) h FROM ONLY %s "fingerprint row") x',
  quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(n.nspname) || '.' || quote_ident(c.relname))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND (c.relkind = 'r' OR c.relispopulated)
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C" \gexec
SELECT 'not populated', quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND NOT c.relispopulated ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C";
SELECT format('SELECT ''sequence'', %L, last_value, is_called FROM %s', quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(n.nspname) || '.' || quote_ident(c.relname))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C" \gexec
SELECT 'large object', oid, pg_get_userbyid(lomowner), lomacl::text, md5(lo_get(oid)), quote_nullable(obj_description(oid, 'pg_largeobject')) FROM pg_largeobject_metadata ORDER BY oid;
SELECT 'invalid index', indexrelid::regclass FROM pg_index WHERE NOT indisvalid OR NOT indisready ORDER BY indexrelid::regclass::text COLLATE "C";
