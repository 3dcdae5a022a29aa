-- What a dump has to carry besides n8n's own tables: every kind of object and
-- every kind of value that has ever been dumped wrongly, cut or misread.

CREATE ROLE n8n_reader NOLOGIN;
CREATE SCHEMA "Odd Schema; --";
COMMENT ON SCHEMA "Odd Schema; --" IS 'quote '' double " backslash \ and
-- PostgreSQL database dump complete
second line';

-- Values -------------------------------------------------------------------

-- Every code point that UTF-8 may hold: all but 0 and the surrogates.
CREATE TABLE unicode_text (chunk integer PRIMARY KEY, body text NOT NULL);
INSERT INTO unicode_text SELECT c / 4096, string_agg(chr(c), '' ORDER BY c) FROM generate_series(1, 1114111) c WHERE c NOT BETWEEN 55296 AND 57343 GROUP BY 1;

CREATE TABLE byte_values (id integer PRIMARY KEY, body bytea);
INSERT INTO byte_values SELECT 0, string_agg(set_byte('\x00', 0, b), '' ORDER BY b) FROM generate_series(0, 255) b;
INSERT INTO byte_values SELECT b + 1, set_byte('\x00', 0, b) FROM generate_series(0, 255) b;
INSERT INTO byte_values VALUES (1000, ''), (1001, NULL), (1002, decode(repeat('00', 300000), 'hex')), (1003, decode(repeat('1f8b08', 100000), 'hex'));

CREATE TABLE large_text (id integer PRIMARY KEY, body text);
INSERT INTO large_text VALUES (1, repeat('a', 3000000)), (2, repeat(E'\\\n\t', 400000));
INSERT INTO large_text SELECT 3, string_agg(md5(n::text), '') FROM generate_series(1, 60000) n;
ALTER TABLE large_text ALTER body SET STORAGE EXTERNAL;
INSERT INTO large_text SELECT 4, string_agg(md5((-n)::text), E'\n') FROM generate_series(1, 20000) n;

CREATE TABLE awkward_text (line text, note text);
INSERT INTO awkward_text SELECT chr(n), 'control ' || n FROM generate_series(1, 32) n;
INSERT INTO awkward_text VALUES ('\.', 'end of data'), ('\\.', NULL), ('\N', 'not a null'), (NULL, 'a null'), ('', 'empty'), ('""', NULL), (' ', 'blank'), ('\', 'backslash'), (E'\\\n', NULL),
  (E'a\r\nb', 'dos'), (E'\r', NULL), (E'tab\tin', NULL), ('--', NULL), (';', NULL), ('/* open', NULL), ('$$', NULL), ('$_$', NULL), (E'\x7f', NULL), (U&'\FEFFbom', NULL), (U&'\202Ertl', NULL),
  ('COPY x FROM stdin;', NULL), ('COPY public.settings (key, value, "loadOnStartup") FROM stdin;', NULL), ('-- PostgreSQL database dump complete', NULL), ('-- PostgreSQL database dump', NULL),
  ('DROP TABLE workflow_entity;', NULL), ('\connect postgres', NULL), ('\q', NULL), ('\restrict abc', NULL), ('\unrestrict abc', NULL), ('\! touch /tmp/owned', NULL), ('NULL', NULL), (E'-- \n-- PostgreSQL database dump complete\n--\n', NULL);
CREATE TABLE one_column (line text);
INSERT INTO one_column SELECT line FROM awkward_text;

CREATE TABLE empty_table (id integer PRIMARY KEY, body text DEFAULT 'x');
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy; --', 'quote''d');
CREATE DOMAIN positive AS integer DEFAULT 1 NOT NULL CONSTRAINT is_positive CHECK (VALUE > 0);
CREATE TYPE "Pair Type" AS (a integer, "B b" text);
CREATE TYPE float_range AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TABLE types (
  id bigint GENERATED ALWAYS AS IDENTITY (START 1000 INCREMENT 7 CYCLE MAXVALUE 5000) PRIMARY KEY,
  small smallint, big bigint, num numeric, money_value money, f4 real, f8 double precision, b boolean, c character(5), vc character varying(10), d date, t time, tz timetz, ts timestamp, tsz timestamptz, iv interval,
  u uuid, j json, jb jsonb, x xml, ip inet, net cidr, mac macaddr, bits bit varying(20), pt point, poly polygon, ia integer[], ta text[][], m mood, p positive, pr "Pair Type", pra "Pair Type"[], fr float_range, ir int4multirange, v tsvector, q tsquery, o oid, lsn pg_lsn);
INSERT INTO types VALUES (DEFAULT, -32768, 9223372036854775807, 'NaN', '-12345.67', 'NaN', '-Infinity', true, 'ab', E'\\t', '4713-01-01 BC', '24:00', '23:59:59.999999+15:59', 'infinity', '-infinity', '-1 year 2 mons -3 days 04:05:06.789',
  'ffffffff-ffff-ffff-ffff-ffffffffffff', '{"a" :  1, "a": 2, "u": "\u0000"}', '{"b": [1, null, "\""], "a": 1e400}', '<a b="1">&amp;<![CDATA[x]]></a>', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', B'1010', '(1e300,-0)', '((0,0),(1,1),(1,0))',
  '[-1:1]={1,NULL,3}', ARRAY[['a,b', 'NULL'], ['"', '\']], 'quote''d', 5, ROW(1, 'x,")'), ARRAY[ROW(1, NULL)::"Pair Type", ROW(NULL, '')::"Pair Type"], '[1.5,infinity)', '{[1,3),[5,9)}', 'a:1 ''b c'':2A', 'a & !b', 4294967295, 'FFFFFFFF/FFFFFFFF');
INSERT INTO types (num, f4, f8, d, ts, tsz, ia) VALUES ('Infinity', 1e-45, 0.1 + 0.2::float8, 'infinity', '294276-12-31 23:59:59.999999', '4713-01-01 00:00:00+00 BC', '{}'), ('-Infinity', 3.4028235e38, 5e-324, '-infinity', '-infinity', 'infinity', NULL), (repeat('9', 1000)::numeric / 7, -0.0, '-0', '5874897-12-31', NULL, NULL, NULL), (1.10, 1, 1, NULL, NULL, NULL, NULL);

-- Tables -------------------------------------------------------------------

CREATE TABLE "Odd Schema; --"."Mixed Case" ("Id" serial PRIMARY KEY, "with blank" text, "quote""d" text, "semi;colon" text, "select" text, U&"\00fcn\00ef" text COLLATE "C",
  "sum" integer, "double" integer GENERATED ALWAYS AS ("sum" * 2) STORED, CONSTRAINT "odd; check" CHECK ("with blank" <> E'; DROP TABLE x;\n--' OR "sum" > 0));
INSERT INTO "Odd Schema; --"."Mixed Case" ("with blank", "quote""d", "semi;colon", "select", U&"\00fcn\00ef", "sum") SELECT 'b' || n, '"', ';', NULL, E'\u00fc', n FROM generate_series(1, 50) n;
COMMENT ON TABLE "Odd Schema; --"."Mixed Case" IS E'it''s \\ a "table";\n\\.\nCOPY x FROM stdin;\n';
COMMENT ON COLUMN "Odd Schema; --"."Mixed Case"."quote""d" IS '';
CREATE TABLE "line
break" ("col
umn" text);
INSERT INTO "line
break" VALUES ('x');
CREATE TABLE "\." ("\N" text);
INSERT INTO "\." VALUES ('\.');

CREATE TABLE measurement (id bigint, at date NOT NULL, value numeric DEFAULT 0) PARTITION BY RANGE (at);
CREATE INDEX ON measurement (at, id);
CREATE TABLE measurement_2024 PARTITION OF measurement FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST ((id % 2));
CREATE TABLE measurement_2024_even PARTITION OF measurement_2024 FOR VALUES IN (0);
CREATE TABLE measurement_2024_odd PARTITION OF measurement_2024 FOR VALUES IN (1);
CREATE TABLE measurement_rest PARTITION OF measurement DEFAULT;
INSERT INTO measurement SELECT n, date '2024-06-01' + n, n / 7.0 FROM generate_series(1, 500) n;

CREATE TABLE parent (id integer PRIMARY KEY, name text DEFAULT 'parent');
CREATE TABLE child (extra text, CONSTRAINT positive_id CHECK (id > 0) NO INHERIT) INHERITS (parent);
INSERT INTO parent SELECT n FROM generate_series(1, 10) n;
INSERT INTO child SELECT n, 'child', 'extra' FROM generate_series(5, 15) n;

CREATE UNLOGGED TABLE scratch (id integer PRIMARY KEY, body text);
INSERT INTO scratch SELECT n, md5(n::text) FROM generate_series(1, 100) n;

CREATE TABLE head (id integer PRIMARY KEY, latest integer);
CREATE TABLE item (id integer PRIMARY KEY, head integer NOT NULL REFERENCES head ON DELETE CASCADE);
INSERT INTO head VALUES (1, 11), (2, NULL);
INSERT INTO item VALUES (11, 1), (12, 1), (21, 2);
ALTER TABLE head ADD CONSTRAINT head_latest FOREIGN KEY (latest) REFERENCES item DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE item ADD CONSTRAINT never_checked CHECK (id < 15) NOT VALID;

CREATE TABLE dropped_column (a integer, gone text, b text DEFAULT 'b', c text);
INSERT INTO dropped_column VALUES (1, 'gone', 'x', 'y');
ALTER TABLE dropped_column DROP COLUMN gone;
ALTER TABLE dropped_column ALTER c SET STATISTICS 500, ALTER c SET STORAGE MAIN, ALTER b SET (n_distinct = 5);
ALTER TABLE dropped_column SET (fillfactor = 70, autovacuum_enabled = false);

CREATE TABLE booking (room integer, during tsrange, EXCLUDE USING gist (during WITH &&) WHERE (room = 1));
INSERT INTO booking VALUES (1, '[2025-01-01,2025-01-02)'), (2, '[2025-01-01,2025-01-03)');

-- Sequences ----------------------------------------------------------------

CREATE SEQUENCE countdown AS integer INCREMENT -3 MINVALUE -1000 MAXVALUE 500 START 500 CACHE 5 CYCLE;
DO $$ BEGIN PERFORM nextval('countdown'), nextval('countdown'); END $$;
CREATE SEQUENCE never_used;
CREATE SEQUENCE "Odd Schema; --"."owned; Seq" INCREMENT 10 OWNED BY "Odd Schema; --"."Mixed Case"."sum";
DO $$ BEGIN
  PERFORM setval('"Odd Schema; --"."owned; Seq"', 9007199254740993, false);
  PERFORM setval('execution_entity_id_seq', 2147480000);
END $$;

-- Code ---------------------------------------------------------------------

CREATE FUNCTION looks_like_a_dump(n integer DEFAULT 1, VARIADIC rest text[] DEFAULT '{}') RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = 'public', pg_temp AS $outer$
BEGIN
  -- $$ and $_$ and ''
  RETURN $body$
--
-- PostgreSQL database dump complete
--

COPY public.settings (key, value, "loadOnStartup") FROM stdin;
a	b	t
\.
\connect postgres
DROP DATABASE n8n;
\unrestrict abc
$body$ || n;
END
$outer$;
CREATE FUNCTION add_one(integer) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN $1 + 1;
CREATE FUNCTION lines() RETURNS TABLE (id integer, "Line; no" text) LANGUAGE sql AS 'SELECT 1, ''x\.''
UNION ALL SELECT 2, ''$_$''';
CREATE PROCEDURE do_nothing(INOUT a integer) LANGUAGE plpgsql AS 'BEGIN a := a; END';
CREATE AGGREGATE multiply(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
CREATE FUNCTION same_length(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT length($1) = length($2)';
CREATE OPERATOR === (FUNCTION = same_length, LEFTARG = text, RIGHTARG = text, COMMUTATOR = ===);
CREATE FUNCTION mood_number(mood) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT CASE $1 WHEN 'sad' THEN 0 ELSE 1 END $$;
CREATE CAST (mood AS integer) WITH FUNCTION mood_number(mood) AS ASSIGNMENT;

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW."updatedAt" := CURRENT_TIMESTAMP; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE OF name, nodes ON workflow_entity FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION touch();
CREATE TRIGGER "off; --" BEFORE UPDATE ON credentials_entity FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE credentials_entity DISABLE TRIGGER "off; --";
CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM count(*) FROM new_rows; RETURN NULL; END $$;
CREATE TRIGGER seen AFTER INSERT ON settings REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION seen();
CREATE RULE keep AS ON DELETE TO installed_packages WHERE old."packageName" = 'keep' DO INSTEAD NOTHING;

-- Views --------------------------------------------------------------------

CREATE VIEW failed_executions WITH (security_barrier) AS SELECT e.id, w.name, e."startedAt" FROM execution_entity e JOIN workflow_entity w ON w.id = e."workflowId" WHERE e.status IN ('error', 'crashed');
CREATE VIEW by_primary_key AS SELECT w.id, w.name, w.active, count(e.id) AS executions FROM workflow_entity w LEFT JOIN execution_entity e ON e."workflowId" = w.id GROUP BY w.id;
CREATE RECURSIVE VIEW folder_path (id, path) AS SELECT id, name::text FROM folder WHERE "parentFolderId" IS NULL UNION ALL SELECT f.id, p.path || ' / ' || f.name FROM folder f JOIN folder_path p ON p.id = f."parentFolderId";
CREATE VIEW "Odd Schema; --"."View; --" AS SELECT "Id", "sum" AS "text;" FROM "Odd Schema; --"."Mixed Case" WHERE "with blank" <> E'line\n-- PostgreSQL database dump complete\n' WITH CASCADED CHECK OPTION;
CREATE MATERIALIZED VIEW execution_counts AS SELECT "workflowId", count(*) AS n FROM execution_entity GROUP BY 1;
CREATE UNIQUE INDEX ON execution_counts ("workflowId");
CREATE MATERIALIZED VIEW not_filled AS SELECT * FROM execution_counts WITH NO DATA;

-- Indexes and statistics ---------------------------------------------------

CREATE INDEX "partial; index" ON execution_entity (id DESC NULLS LAST) INCLUDE (mode) WHERE status = 'error';
CREATE INDEX lower_name ON workflow_entity (lower(name::text) text_pattern_ops, (length(name)));
CREATE INDEX destination_gin ON event_destinations USING gin (destination jsonb_path_ops);
CREATE INDEX executions_brin ON execution_entity USING brin ("startedAt") WITH (pages_per_range = 16);
CREATE INDEX settings_hash ON settings USING hash (key);
CREATE STATISTICS execution_stats (dependencies, mcv) ON mode, status FROM execution_entity;
ALTER TABLE execution_entity CLUSTER ON execution_entity_pkey;
ALTER TABLE settings REPLICA IDENTITY FULL;
CREATE COLLATION numeric_order (provider = icu, locale = 'en-u-kn-true');
CREATE TABLE collated (name text COLLATE numeric_order PRIMARY KEY);
INSERT INTO collated SELECT 'file' || n FROM generate_series(1, 30) n;
CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);

-- Large objects ------------------------------------------------------------

DO $$ BEGIN
  PERFORM lo_from_bytea(54321, decode(repeat('000102fdfeff0a5c2e', 50000), 'hex'));
  PERFORM lo_from_bytea(54322, '');
END $$;
GRANT SELECT ON LARGE OBJECT 54321 TO n8n_reader;
COMMENT ON LARGE OBJECT 54321 IS 'large; object';

-- Rights -------------------------------------------------------------------

GRANT USAGE ON SCHEMA "Odd Schema; --" TO n8n_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO n8n_reader WITH GRANT OPTION;
REVOKE ALL ON credentials_entity FROM n8n_reader;
GRANT SELECT (id, name), UPDATE (name) ON credentials_entity TO n8n_reader;
GRANT USAGE ON SEQUENCE countdown TO PUBLIC;
REVOKE EXECUTE ON FUNCTION looks_like_a_dump FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO n8n_reader;
ALTER TABLE empty_table OWNER TO n8n_reader;
ALTER TABLE variables ENABLE ROW LEVEL SECURITY;
ALTER TABLE variables FORCE ROW LEVEL SECURITY;
CREATE POLICY "own; project" ON variables AS RESTRICTIVE FOR SELECT TO n8n_reader USING ("projectId" IS NULL);
CREATE POLICY writers ON variables FOR ALL USING (true) WITH CHECK (key <> E'; --\n');
CREATE PUBLICATION n8n_changes FOR TABLE workflow_entity WHERE (active), TABLE webhook_entity;

-- Comes last in a dump: its comment looks like the end of one.
CREATE FUNCTION ignore_command() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE EVENT TRIGGER zz_ignore ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION ignore_command();
COMMENT ON EVENT TRIGGER zz_ignore IS '
--
-- PostgreSQL database dump complete
--
';
