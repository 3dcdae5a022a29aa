-- Opens what n8n has encrypted, with pgcrypto, in a database of its own: what open.js does, but for GCM's tag, which
-- pgcrypto cannot check. So a key is proven by what comes out, and a damaged credential is found only where it no longer
-- is JSON. The rows follow in temporary tables; no error quotes them, and the server logs no statement.
\set VERBOSITY terse
SET client_min_messages = error;
CREATE EXTENSION pgcrypto;
CREATE TEMP TABLE fed (n serial, kind text, id text, name text, type text, algorithm text, data text);

CREATE FUNCTION pg_temp.unhex(field text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT convert_from(decode(field, 'hex'), 'UTF8') $$;

-- The low byte of each UTF-16 unit, as n8n takes a key for CBC.
CREATE FUNCTION pg_temp.low_bytes(key text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
SELECT coalesce(decode(string_agg(CASE WHEN point > 65535 THEN lpad(to_hex((point - 65536) >> 10 & 255), 2, '0') ELSE '' END
    || lpad(to_hex(point & 255), 2, '0'), '' ORDER BY n), 'hex'), '')
FROM (SELECT n, ascii(c) point FROM regexp_split_to_table(key, '') WITH ORDINALITY x(c, n) WHERE c <> '') points
$$;

-- Text that people or programs have written: neither noise nor empty.
CREATE FUNCTION pg_temp.plain(bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN nullif(substring(convert_from(bytes, 'UTF8') FROM '^[^\x01-\x08\x0e-\x1f\x7f]*$'), '');
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;

-- As `openssl enc -aes-256-cbc -md md5`.
CREATE FUNCTION pg_temp.cbc(data text, key bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    input bytea := decode(data, 'base64');
    secret bytea := key || substr(input, 9, 8);
    first bytea := digest(secret, 'md5');
    second bytea := digest(first || secret, 'md5');
BEGIN
    RETURN pg_temp.plain(decrypt_iv(substr(input, 17), first || second, digest(second || secret, 'md5'), 'aes-cbc/pad:pkcs'));
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;

-- HKDF gives key and IV; without its tag, GCM is CTR, and its second counter block the first of the text.
CREATE FUNCTION pg_temp.gcm(data text, key bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    info bytea := 'n8n-encryption-v1';
    input bytea := decode(data, 'base64');
    sealed bytea := substr(input, 50);
    blocks integer := (length(sealed) + 15) / 16;
    pseudo bytea := hmac(key, substr(input, 2, 32), 'sha256');
    first bytea := hmac(info || '\x01'::bytea, pseudo, 'sha256');
    iv bytea := substr(hmac(first || info || '\x02'::bytea, pseudo, 'sha256'), 1, 12);
    stream bytea;
    padded bytea := sealed || decode(repeat('00', blocks * 16 - length(sealed)), 'hex');
BEGIN
    IF get_byte(input, 0) <> 1 OR length(key) <> 32 OR blocks = 0 THEN
        RETURN NULL;
    END IF;
    stream := encrypt((SELECT string_agg(iv || int4send(n + 1), '' ORDER BY n) FROM generate_series(1, blocks) n), first,
        'aes-ecb/pad:none');
    RETURN pg_temp.plain(substr((
        SELECT string_agg(int8send(('x' || encode(substr(padded, at, 8), 'hex'))::bit(64)::bigint
            # ('x' || encode(substr(stream, at, 8), 'hex'))::bit(64)::bigint), '' ORDER BY at)
        FROM generate_series(1, blocks * 16, 8) at), 1, length(sealed)));
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;

-- What a row of deployment_key holds, in the clear, under CBC or under GCM.
CREATE FUNCTION pg_temp.unwrap(value text, instance text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
SELECT CASE
    WHEN value = instance OR value ~* '^[0-9a-f]{64}$' THEN value
    WHEN value LIKE 'U2FsdGVkX1%' THEN substring(pg_temp.cbc(value, pg_temp.low_bytes(instance)) FROM '^[0-9a-fA-F]{64}$')
    ELSE pg_temp.gcm(value, digest(convert_to(instance, 'UTF8'), 'sha256'))
END
$$;

CREATE FUNCTION pg_temp.is_json(value text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN json_typeof(value::json) IN ('object', 'array');
EXCEPTION WHEN others THEN
    RETURN false;
END $$;

COPY fed (kind, id, name, type, algorithm, data) FROM stdin;
