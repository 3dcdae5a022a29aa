-- Loads executions whose plain dump is about :mb megabytes. Run with part -1
-- first, which makes what the others draw from, then with part 0 and part 1,
-- which may run at the same time. :kind is text or ids. The same :mb and :kind
-- give the same rows.
SET synchronous_commit = off;
SET work_mem = '64MB';
SET client_min_messages = warning;
SET jit = off;
SELECT :part < 0 AS prepare \gset
\if :prepare
DELETE FROM execution_data WHERE "executionId" BETWEEN 10000000 AND 20000000;
DELETE FROM execution_entity WHERE id BETWEEN 10000000 AND 20000000;
CREATE SCHEMA IF NOT EXISTS n8n_backup_big;
DROP TABLE IF EXISTS n8n_backup_big.item;
CREATE UNLOGGED TABLE n8n_backup_big.item (id integer PRIMARY KEY, body text NOT NULL);

-- 6000 items as nodes pass them on, of about 600 characters each. The words
-- are of type name, since an array of a fixed-length type is indexed at once.
DO $$
DECLARE
  syllables name[] := '{ba,ce,di,fo,gu,ha,je,ki,lo,mu,na,pe,ri,so,tu,va,we,xi,yo,zu,ter,ing,ion,est,con,pro,der,sch,ung,ent}';
  words name[] := '{}';
  sizes integer[] := '{1,1,5,20,2,1}';
  texts text[];
  word text;
BEGIN
  PERFORM setseed(0.5);
  FOR n IN 1..3000 LOOP
    word := '';
    FOR m IN 1..2 + n % 3 LOOP
      word := word || syllables[1 + floor(random() * 30)::integer];
    END LOOP;
    words[n] := word;
  END LOOP;
  FOR n IN 0..5999 LOOP
    FOR t IN 1..6 LOOP
      texts[t] := '';
      FOR m IN 1..sizes[t] + (n * t) % (sizes[t] + 1) LOOP
        -- The first words are used more often than the last.
        texts[t] := texts[t] || CASE WHEN m > 1 THEN ' ' ELSE '' END || words[1 + floor(3000 * random() ^ 4)::integer];
      END LOOP;
    END LOOP;
    INSERT INTO n8n_backup_big.item VALUES (n, json_build_object('json', json_build_object(
      'id', md5(random()::text)::uuid, 'createdAt', timestamptz '2025-01-01 00:00+00' + random() * interval '300 days',
      'email', translate(texts[1], ' ', '.') || '@' || translate(texts[2], ' ', '-') || '.example.org', 'status', ('{open,paid,cancelled,refunded}'::text[])[1 + floor(random() * 4)::integer],
      'amount', round((random() * 10000)::numeric, 2), 'quantity', floor(random() * 50), 'active', random() < 0.5, 'subject', texts[3], 'description', texts[4],
      'address', json_build_object('street', texts[5] || ' ' || floor(random() * 200), 'zip', floor(10000 + random() * 89999)::text, 'city', texts[6], 'country', ('{DE,FR,US,JP}'::text[])[1 + floor(random() * 4)::integer]),
      'tags', json_build_array('tag-' || floor(random() * 40), 'tag-' || floor(random() * 40))), 'pairedItem', json_build_object('item', n % 50))::text);
  END LOOP;
END $$;
-- Or items that are mostly identifiers, signatures and payloads in hexadecimal digits.
UPDATE n8n_backup_big.item SET body = json_build_object('json', json_build_object(
  'id', md5('i' || id)::uuid, 'signature', encode(sha512(('s' || id)::bytea), 'hex'), 'payload', encode(sha512(('p' || id)::bytea) || sha512(('q' || id)::bytea), 'hex'),
  'hash', md5('h' || id), 'reference', md5('r' || id)::uuid, 'amount', id * 7919 % 100000), 'pairedItem', json_build_object('item', id % 50))::text
  WHERE :'kind' = 'ids';
ANALYZE n8n_backup_big.item;

-- Noise and text for the files of the volume.
CREATE EXTENSION IF NOT EXISTS pgcrypto;
DO $$ BEGIN
  PERFORM lo_from_bytea(1700000001, encrypt(decode(repeat('00', 16000000), 'hex'), '0123456789abcdef', 'aes-cbc'));
  PERFORM lo_from_bytea(1700000002, (SELECT convert_to(substr(string_agg(i.body, E'\n' ORDER BY hashint4(i.id + 7 * k)), 1, 16000000), 'UTF8') FROM n8n_backup_big.item i, generate_series(1, 5) k));
  PERFORM lo_export(1700000001, '/tmp/n8n-backup-noise'), lo_export(1700000002, '/tmp/n8n-backup-text');
  PERFORM lo_unlink(1700000001), lo_unlink(1700000002);
END $$;
INSERT INTO workflow_entity (id, name, active, nodes, connections, "versionId")
  SELECT 'big' || n, 'Big workflow ' || n, false, '[]', '{}', md5('big' || n)::uuid FROM generate_series(0, 49) n ON CONFLICT DO NOTHING;
\else
-- From 1 to 100 items each, 43.5 kB on average.
CREATE TEMP TABLE planned AS
  SELECT 10000000 + n AS id, 1 + (abs(hashint4(n)) % 100) AS items, n FROM generate_series(:part, (:mb * 1000000::bigint / 43500)::integer - 1, 2) n;
INSERT INTO execution_entity (id, finished, mode, "startedAt", "stoppedAt", status, "workflowId", "createdAt")
  SELECT id, true, (ARRAY['webhook', 'trigger', 'manual'])[1 + n % 3], timestamptz '2025-07-01 00:00+00' + n * interval '11 s', timestamptz '2025-07-01 00:00+00' + n * interval '11.7 s', 'success', 'big' || n % 50, timestamptz '2025-07-01 00:00+00' + n * interval '11 s' FROM planned;
INSERT INTO execution_data ("executionId", "workflowData", data)
  SELECT p.id, json_build_object('id', 'big' || n % 50, 'name', 'Big workflow ' || n % 50, 'nodes', json_build_array(json_build_object('id', md5(n::text)::uuid, 'type', 'n8n-nodes-base.httpRequest'))),
    '[{"version":1,"startData":"1","resultData":"2","executionData":"3"},{},{"runData":"4","pinData":"5","lastNodeExecuted":"HTTP Request ' || n % 9 || '"},{"contextData":{}},['
    || (SELECT string_agg('{"startTime":' || (1750000000000 + n * 11000 + g) || ',"executionTime":' || abs(hashint4(n * 100 + g)) % 900 || ',"executionStatus":"success","source":[{"previousNode":"Node ' || (n * 7 + g) % 13 || '"}],"data":' || i.body || '}', ',' ORDER BY g)
        FROM generate_series(1, p.items) g JOIN n8n_backup_big.item i ON i.id = abs(hashint8(n * 1000::bigint + g)) % 6000) || ']]'
  FROM planned p;
\endif
