\.
CREATE TEMP TABLE instance AS SELECT pg_temp.unhex(data) AS key FROM fed WHERE kind = 'instance';
CREATE TEMP TABLE data_keys AS
SELECT n, pg_temp.unhex(id) AS id, pg_temp.unhex(algorithm) AS algorithm, pg_temp.unwrap(pg_temp.unhex(data), instance.key) AS value,
    NULL::bytea AS key
FROM fed, instance WHERE kind = 'key';
UPDATE data_keys SET key = CASE
    WHEN algorithm = 'aes-256-cbc' THEN pg_temp.low_bytes(value)
    WHEN value ~* '^[0-9a-f]{64}$' THEN decode(value, 'hex')
END;
ALTER TABLE data_keys ADD PRIMARY KEY (id);
-- What has no prefix is under the stored legacy key, or where there is none, under the instance key.
CREATE TEMP TABLE legacy AS
(SELECT 1 AS rank, n, key FROM data_keys WHERE algorithm = 'aes-256-cbc'
UNION ALL SELECT 2, 0, pg_temp.low_bytes(key) FROM instance) ORDER BY rank, n LIMIT 1;

CREATE FUNCTION pg_temp.verdict(kind text, sealed text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    parts text[] := regexp_match(sealed, '^([A-Za-z0-9_-]{1,36}):([A-Za-z0-9+/=]+)$');
    held data_keys;
    clear text;
BEGIN
    IF sealed = '' THEN
        RETURN 'opened';
    ELSIF kind = 'signing' THEN
        clear := pg_temp.unwrap(sealed, (SELECT instance.key FROM instance));
    ELSIF parts IS NOT NULL THEN
        SELECT * INTO held FROM data_keys WHERE id = parts[1];
        IF NOT FOUND THEN
            RETURN 'missing';
        END IF;
        clear := CASE held.algorithm WHEN 'aes-256-cbc' THEN pg_temp.cbc(parts[2], held.key) ELSE pg_temp.gcm(parts[2], held.key) END;
    ELSIF sealed LIKE 'U2FsdGVkX1%' THEN
        clear := pg_temp.cbc(sealed, (SELECT legacy.key FROM legacy));
    ELSE
        RETURN 'unknown';
    END IF;
    RETURN CASE WHEN clear IS NULL OR kind = 'credential' AND NOT pg_temp.is_json(clear) THEN 'failed' ELSE 'opened' END;
END $$;

CREATE TEMP TABLE verdicts AS
SELECT pg_temp.verdict(kind, pg_temp.unhex(data)) AS verdict, kind, id, name, type FROM fed WHERE kind NOT IN ('instance', 'key')
UNION ALL
SELECT CASE WHEN key IS NULL THEN 'failed' ELSE 'opened' END, kind, fed.id, name, type FROM fed JOIN data_keys USING (n)
WHERE pg_temp.unhex(type) = 'active';
SELECT concat_ws(E'\t', verdict, kind, id, name, type) FROM verdicts WHERE verdict <> 'opened';
SELECT concat_ws(E'\t', 'opened', kind, count(*)) FROM verdicts WHERE verdict = 'opened' GROUP BY kind;
SELECT 'end';
