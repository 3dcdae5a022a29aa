-- Prints what n8n has encrypted in this database as open.js and open.sql take it: the keys first, and no credential
-- that holds nothing. Where n8n's tables are stands in braces, in the condition at the end.
SET client_min_messages = error;
CREATE FUNCTION pg_temp.field(about oid, attribute text) RETURNS text LANGUAGE sql AS $$
SELECT coalesce((SELECT format('encode(convert_to(coalesce(t.%I::text, ''''), ''UTF8''), ''hex'')', attname) FROM pg_attribute
    WHERE attrelid = about AND attname = attribute AND attnum > 0 AND NOT attisdropped), '''''')
$$;
CREATE FUNCTION pg_temp.row_of(kind text, variadic fields text[]) RETURNS text LANGUAGE sql AS
$$ SELECT format('COPY (SELECT %s, %s FROM ', kind, array_to_string(fields, ', ')) $$;
SELECT CASE source.suffix
    WHEN 'deployment_key' THEN format('%s %s t WHERE type::text = ''data_encryption'' OR type::text LIKE ''signing.%%'' ORDER BY "createdAt", id) TO STDOUT',
        pg_temp.row_of('CASE WHEN type::text = ''data_encryption'' THEN ''key'' ELSE ''signing'' END', pg_temp.field(c.oid, 'id'),
            pg_temp.field(c.oid, 'type'), pg_temp.field(c.oid, 'status'), pg_temp.field(c.oid, 'algorithm'), pg_temp.field(c.oid, 'value')),
        c.oid::regclass)
    WHEN 'credentials_entity' THEN format('%s %s t WHERE data::text <> '''' ORDER BY id) TO STDOUT',
        pg_temp.row_of('''credential''', pg_temp.field(c.oid, 'id'), pg_temp.field(c.oid, 'name'), pg_temp.field(c.oid, 'type'), '''''',
            pg_temp.field(c.oid, 'data')),
        c.oid::regclass)
    ELSE format('%s %s u, unnest(ARRAY[u."mfaSecret"::text] || string_to_array(u."mfaRecoveryCodes"::text, '','')) WITH ORDINALITY AS t(sealed, n) '
        'WHERE sealed <> '''' ORDER BY u.id, n) TO STDOUT',
        'COPY (SELECT ''mfa'', encode(convert_to(u.id::text, ''UTF8''), ''hex''), '''', '''', '''', encode(convert_to(sealed, ''UTF8''), ''hex'') FROM',
        c.oid::regclass)
    END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN (VALUES (1, 'deployment_key', ARRAY['id', 'type', 'value', 'createdAt']), (2, 'credentials_entity', ARRAY['id', 'data']),
    (3, 'user', ARRAY['id', 'mfaSecret', 'mfaRecoveryCodes'])) source(rank, suffix, needs) ON c.relname = {prefix} || source.suffix
WHERE c.relkind IN ('r', 'p') AND n.nspname = {schema}
AND needs <@ ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
ORDER BY source.rank, c.oid \gexec
