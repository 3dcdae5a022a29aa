-- Tables named and shaped like those of n8n, with a little of everything in
-- them. Expects the psql variable key: n8n's encryption key.
DO $$ BEGIN PERFORM setseed(0.42); END $$;

CREATE EXTENSION pgcrypto;
CREATE EXTENSION "uuid-ossp";

-- What `openssl enc -aes-256-cbc -md md5 -salt -a -A` gives: "Salted__", the
-- salt and the ciphertext in base64; key and initialisation vector are three
-- rounds of MD5 over password and salt.
CREATE FUNCTION pg_temp.salted_aes(plain text, password text, salt bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  secret bytea := convert_to(password, 'UTF8') || salt;
  a bytea := digest(secret, 'md5');
  b bytea := digest(a || secret, 'md5');
  c bytea := digest(b || secret, 'md5');
BEGIN
  RETURN translate(encode(convert_to('Salted__', 'UTF8') || salt
    || encrypt_iv(convert_to(plain, 'UTF8'), a || b, c, 'aes-cbc/pad:pkcs'), 'base64'), E'\n', '');
END $$;

CREATE FUNCTION pg_temp.id16(n bigint, kind text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT substr(translate(encode(sha256(convert_to(kind || n, 'UTF8')), 'base64'), '+/=', 'XYZ'), 1, 16) $$;
CREATE FUNCTION pg_temp.uuid(n bigint, kind text) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT md5(kind || n)::uuid $$;

CREATE TABLE migrations (id serial PRIMARY KEY, "timestamp" bigint NOT NULL, name character varying NOT NULL);
CREATE TABLE settings (key character varying(255) PRIMARY KEY, value text NOT NULL, "loadOnStartup" boolean DEFAULT false NOT NULL);
CREATE TABLE role (slug character varying(128) PRIMARY KEY, "displayName" text, description text, "roleType" text, "systemRole" boolean DEFAULT false NOT NULL,
  "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, "updatedAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL);
CREATE INDEX "IDX_UniqueRoleDisplayName" ON role ("displayName");
CREATE TABLE scope (slug character varying(128) PRIMARY KEY, "displayName" text, description text);
CREATE TABLE role_scope ("roleSlug" character varying(128) REFERENCES role ON UPDATE CASCADE ON DELETE CASCADE,
  "scopeSlug" character varying(128) REFERENCES scope ON UPDATE CASCADE ON DELETE CASCADE, PRIMARY KEY ("roleSlug", "scopeSlug"));
CREATE TABLE "user" (id uuid DEFAULT uuid_in(overlay(overlay(md5(random()::text || ':' || clock_timestamp()::text) placing '4' from 13) placing '8' from 17)::cstring) PRIMARY KEY,
  email character varying(255), "firstName" character varying(32), "lastName" character varying(32), password character varying(255), "personalizationAnswers" json,
  settings json, disabled boolean DEFAULT false NOT NULL, "mfaEnabled" boolean DEFAULT false NOT NULL, "mfaSecret" text, "mfaRecoveryCodes" text, "lastActiveAt" date,
  "roleSlug" character varying(128) DEFAULT 'global:member' NOT NULL REFERENCES role,
  "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, "updatedAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL);
CREATE UNIQUE INDEX "UQ_e12875dfb3b1d92d7d7c5377e2" ON "user" (email);
CREATE TABLE auth_identity ("userId" uuid REFERENCES "user", "providerId" character varying(64), "providerType" character varying(32),
  "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, PRIMARY KEY ("providerId", "providerType"));
CREATE TABLE auth_provider_sync_history (id serial PRIMARY KEY, "providerType" character varying(32) NOT NULL, "runMode" text NOT NULL, status text NOT NULL,
  "startedAt" timestamptz DEFAULT CURRENT_TIMESTAMP NOT NULL, "endedAt" timestamptz DEFAULT CURRENT_TIMESTAMP NOT NULL, scanned integer NOT NULL, created integer NOT NULL, error text);
CREATE TABLE user_api_keys (id character varying(36) PRIMARY KEY, "userId" uuid NOT NULL REFERENCES "user" ON DELETE CASCADE, label character varying(100) NOT NULL,
  "apiKey" character varying NOT NULL UNIQUE, scopes json, audience character varying DEFAULT 'public-api' NOT NULL, UNIQUE ("userId", label));
CREATE TABLE invalid_auth_token (token character varying(512) PRIMARY KEY, "expiresAt" timestamptz(3) NOT NULL);
CREATE TABLE project (id character varying(36) PRIMARY KEY, name character varying(255) NOT NULL, type character varying(36) NOT NULL, icon json, description character varying(512),
  "creatorId" uuid REFERENCES "user" ON DELETE SET NULL, "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, "updatedAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL);
CREATE TABLE project_relation ("projectId" character varying(36) REFERENCES project ON DELETE CASCADE, "userId" uuid REFERENCES "user" ON DELETE CASCADE,
  role character varying NOT NULL, PRIMARY KEY ("projectId", "userId"));
CREATE TABLE project_secrets_provider_access ("providerId" integer, "projectId" character varying(36) REFERENCES project ON DELETE CASCADE, PRIMARY KEY ("providerId", "projectId"));
CREATE TABLE folder (id character varying(36) PRIMARY KEY, name character varying(128) NOT NULL, "parentFolderId" character varying(36) REFERENCES folder ON DELETE CASCADE,
  "projectId" character varying(36) NOT NULL REFERENCES project ON DELETE CASCADE);
CREATE UNIQUE INDEX "IDX_14f68deffaf858465715995508" ON folder ("projectId", id);
CREATE TABLE tag_entity (id character varying(36) PRIMARY KEY, name character varying(24) NOT NULL,
  "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, "updatedAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL);
CREATE UNIQUE INDEX idx_812eb05f7451ca757fb98444ce ON tag_entity (name);
CREATE TABLE folder_tag ("folderId" character varying(36) REFERENCES folder ON DELETE CASCADE, "tagId" character varying(36) REFERENCES tag_entity ON DELETE CASCADE, PRIMARY KEY ("folderId", "tagId"));
CREATE TABLE workflow_entity (name character varying(128) NOT NULL, active boolean NOT NULL, nodes json NOT NULL, connections json NOT NULL,
  "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, "updatedAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL,
  settings json, "staticData" json, "pinData" json, "versionId" character(36) NOT NULL, "triggerCount" integer DEFAULT 0 NOT NULL, id character varying(36) PRIMARY KEY, meta json,
  "parentFolderId" character varying(36) REFERENCES folder ON DELETE CASCADE, "isArchived" boolean DEFAULT false NOT NULL, "versionCounter" integer DEFAULT 1 NOT NULL, description text,
  "activeVersionId" character varying(36));
CREATE INDEX idx_workflow_entity_name ON workflow_entity (name);
CREATE TABLE workflows_tags ("workflowId" character varying(36) REFERENCES workflow_entity ON DELETE CASCADE, "tagId" character varying(36) REFERENCES tag_entity ON DELETE CASCADE, PRIMARY KEY ("workflowId", "tagId"));
CREATE TABLE workflow_history ("versionId" character varying(36) PRIMARY KEY, "workflowId" character varying(36) NOT NULL REFERENCES workflow_entity ON DELETE CASCADE, authors character varying(255) NOT NULL,
  nodes json NOT NULL, connections json NOT NULL, name character varying(128), autosaved boolean DEFAULT false NOT NULL, "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL);
-- The two tables point at each other.
ALTER TABLE workflow_entity ADD CONSTRAINT "FK_08d6c67b7f722b0039d9d5ed620" FOREIGN KEY ("activeVersionId") REFERENCES workflow_history ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE workflow_statistics (id serial PRIMARY KEY, count bigint DEFAULT 0, "latestEvent" timestamptz(3), name character varying(128) NOT NULL, "workflowId" character varying(36) NOT NULL,
  "rootCount" bigint DEFAULT 0, "workflowName" character varying(128), UNIQUE ("workflowId", name));
CREATE TABLE workflow_dependency (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "workflowId" character varying(36) NOT NULL REFERENCES workflow_entity ON DELETE CASCADE,
  "dependencyType" character varying(32) NOT NULL, "dependencyKey" character varying(255) NOT NULL, "dependencyInfo" json, "indexVersionId" smallint DEFAULT 1 NOT NULL);
COMMENT ON COLUMN workflow_dependency."dependencyType" IS 'Kind: "credential", "nodeType", "webhookPath" or "workflowCall"';
CREATE TABLE workflow_publish_history (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "workflowId" character varying(36) NOT NULL REFERENCES workflow_entity ON DELETE CASCADE,
  "versionId" character varying(36), event character varying(36) NOT NULL CHECK (event IN ('activated', 'deactivated')), "userId" uuid REFERENCES "user" ON DELETE SET NULL);
CREATE TABLE credentials_entity (name character varying(128) NOT NULL, data text NOT NULL, type character varying(128) NOT NULL,
  "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, "updatedAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, id character varying(36) PRIMARY KEY,
  "isManaged" boolean DEFAULT false NOT NULL, "isGlobal" boolean DEFAULT false NOT NULL);
CREATE INDEX idx_07fde106c0b471d8cc80a64fc8 ON credentials_entity (type);
CREATE TABLE shared_workflow ("workflowId" character varying(36) REFERENCES workflow_entity ON DELETE CASCADE, "projectId" character varying(36) REFERENCES project ON DELETE CASCADE,
  role text NOT NULL, PRIMARY KEY ("workflowId", "projectId"));
CREATE TABLE shared_credentials ("credentialsId" character varying(36) REFERENCES credentials_entity ON DELETE CASCADE, "projectId" character varying(36) REFERENCES project ON DELETE CASCADE,
  role text NOT NULL, PRIMARY KEY ("credentialsId", "projectId"));
CREATE TABLE webhook_entity ("webhookPath" character varying NOT NULL, method character varying NOT NULL, node character varying NOT NULL, "webhookId" character varying, "pathLength" integer,
  "workflowId" character varying(36) NOT NULL REFERENCES workflow_entity ON DELETE CASCADE, PRIMARY KEY ("webhookPath", method));
CREATE INDEX idx_16f4436789e804e3e1c9eeb240 ON webhook_entity ("webhookId", method, "pathLength");
CREATE TABLE execution_entity (id serial PRIMARY KEY, finished boolean NOT NULL, mode character varying NOT NULL, "retryOf" character varying, "retrySuccessId" character varying,
  "startedAt" timestamptz(3), "stoppedAt" timestamptz(3), "waitTill" timestamptz(3), status character varying NOT NULL,
  "workflowId" character varying(36) NOT NULL REFERENCES workflow_entity ON DELETE CASCADE, "deletedAt" timestamptz(3), "createdAt" timestamptz(3) DEFAULT CURRENT_TIMESTAMP(3) NOT NULL, "storedAt" character varying(2) DEFAULT 'db' NOT NULL);
CREATE INDEX idx_execution_entity_stopped_at_status_deleted_at ON execution_entity ("stoppedAt", status, "deletedAt") WHERE "stoppedAt" IS NOT NULL AND "deletedAt" IS NULL;
CREATE INDEX idx_execution_entity_wait_till_status_deleted_at ON execution_entity ("waitTill", status, "deletedAt") WHERE "waitTill" IS NOT NULL AND "deletedAt" IS NULL;
CREATE INDEX "IDX_execution_entity_workflowId_startedAt" ON execution_entity ("workflowId", "startedAt") WHERE "startedAt" IS NOT NULL AND "deletedAt" IS NULL;
CREATE TABLE execution_data ("executionId" integer PRIMARY KEY REFERENCES execution_entity ON DELETE CASCADE, "workflowData" json NOT NULL, data text NOT NULL, "workflowVersionId" character varying(36));
CREATE TABLE execution_metadata (id serial PRIMARY KEY, "executionId" integer NOT NULL REFERENCES execution_entity ON DELETE CASCADE, key character varying(255) NOT NULL, value text NOT NULL);
CREATE UNIQUE INDEX "IDX_cec8eea3bf49551482ccb4933e" ON execution_metadata ("executionId", key);
CREATE TABLE execution_annotations (id serial PRIMARY KEY, "executionId" integer NOT NULL UNIQUE REFERENCES execution_entity ON DELETE CASCADE, vote character varying(6), note text);
CREATE TABLE annotation_tag_entity (id character varying(16) PRIMARY KEY, name character varying(24) NOT NULL UNIQUE);
CREATE TABLE execution_annotation_tags ("annotationId" integer REFERENCES execution_annotations ON DELETE CASCADE, "tagId" character varying(24) REFERENCES annotation_tag_entity ON DELETE CASCADE, PRIMARY KEY ("annotationId", "tagId"));
CREATE TABLE processed_data ("workflowId" character varying(36) REFERENCES workflow_entity ON DELETE CASCADE, context character varying(255), value text NOT NULL, PRIMARY KEY ("workflowId", context));
CREATE TABLE installed_packages ("packageName" character varying(214) PRIMARY KEY, "installedVersion" character varying(50) NOT NULL, "authorName" character varying(70), "authorEmail" character varying(70));
CREATE TABLE installed_nodes (name character varying(200) PRIMARY KEY, type character varying(200) NOT NULL, "latestVersion" integer DEFAULT 1 NOT NULL, package character varying(241) NOT NULL REFERENCES installed_packages ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE variables (key character varying(50) NOT NULL, type character varying(50) DEFAULT 'string' NOT NULL, value character varying(255), id character varying(36) PRIMARY KEY, "projectId" character varying(36) REFERENCES project ON DELETE CASCADE);
CREATE UNIQUE INDEX variables_global_key_unique ON variables (key) WHERE "projectId" IS NULL;
CREATE UNIQUE INDEX variables_project_key_unique ON variables ("projectId", key) WHERE "projectId" IS NOT NULL;
CREATE TABLE event_destinations (id uuid PRIMARY KEY, destination jsonb NOT NULL);
CREATE TABLE insights_metadata ("metaId" integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "workflowId" character varying(36) REFERENCES workflow_entity ON DELETE SET NULL,
  "projectId" character varying(36) REFERENCES project ON DELETE SET NULL, "workflowName" character varying(128) NOT NULL, "projectName" character varying(255) NOT NULL);
CREATE TABLE insights_raw (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "metaId" integer NOT NULL REFERENCES insights_metadata ON DELETE CASCADE, type integer NOT NULL, value bigint NOT NULL, "timestamp" timestamptz(0) DEFAULT CURRENT_TIMESTAMP NOT NULL);
CREATE TABLE insights_by_period (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "metaId" integer NOT NULL REFERENCES insights_metadata ON DELETE CASCADE, type integer NOT NULL, value bigint NOT NULL, "periodUnit" integer NOT NULL, "periodStart" timestamptz(0) DEFAULT CURRENT_TIMESTAMP);
COMMENT ON COLUMN insights_by_period."periodUnit" IS '0: hour, 1: day, 2: week';
CREATE TABLE test_run (id character varying(36) PRIMARY KEY, "workflowId" character varying(36) NOT NULL REFERENCES workflow_entity ON DELETE CASCADE, status character varying NOT NULL, metrics json);
CREATE TABLE test_case_execution (id character varying(36) PRIMARY KEY, "testRunId" character varying(36) NOT NULL REFERENCES test_run ON DELETE CASCADE, "executionId" integer REFERENCES execution_entity ON DELETE SET NULL, status character varying NOT NULL, inputs json, outputs json);
CREATE TABLE data_table (id character varying(36) PRIMARY KEY, name character varying(128) NOT NULL, "projectId" character varying(36) NOT NULL REFERENCES project ON DELETE CASCADE, UNIQUE ("projectId", name));
CREATE TABLE data_table_column (id character varying(36) PRIMARY KEY, name character varying(128) NOT NULL, type character varying(32) NOT NULL, index integer NOT NULL, "dataTableId" character varying(36) NOT NULL REFERENCES data_table ON DELETE CASCADE);
CREATE TABLE "data_table_user_Xk29QmT0vLw8aB3c" (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "Kunde" text, "Betrag" double precision, "bezahlt" boolean, "am" timestamptz(3));
CREATE TABLE chat_hub_agents (id uuid PRIMARY KEY, name character varying(256) NOT NULL, "systemPrompt" text NOT NULL, "ownerId" uuid NOT NULL REFERENCES "user" ON DELETE CASCADE, "credentialId" character varying(36) REFERENCES credentials_entity ON DELETE SET NULL, tools json DEFAULT '[]' NOT NULL);
CREATE TABLE chat_hub_sessions (id uuid PRIMARY KEY, title character varying(256) NOT NULL, "ownerId" uuid NOT NULL REFERENCES "user" ON DELETE CASCADE, "lastMessageAt" timestamptz(3), "agentId" uuid REFERENCES chat_hub_agents ON DELETE SET NULL);
CREATE TABLE chat_hub_messages (id uuid PRIMARY KEY, "sessionId" uuid NOT NULL REFERENCES chat_hub_sessions ON DELETE CASCADE, "previousMessageId" uuid REFERENCES chat_hub_messages ON DELETE CASCADE, type character varying(16) NOT NULL, content text NOT NULL, "executionId" integer REFERENCES execution_entity ON DELETE SET NULL);
CREATE TABLE oauth_clients (id character varying PRIMARY KEY, name character varying(255) NOT NULL, "redirectUris" json NOT NULL, "grantTypes" json NOT NULL, "clientSecret" character varying(255));
CREATE TABLE oauth_authorization_codes (code character varying(255) PRIMARY KEY, "clientId" character varying NOT NULL REFERENCES oauth_clients ON DELETE CASCADE, "userId" uuid NOT NULL REFERENCES "user" ON DELETE CASCADE, "expiresAt" bigint NOT NULL);
CREATE TABLE oauth_access_tokens (token character varying PRIMARY KEY, "clientId" character varying NOT NULL REFERENCES oauth_clients ON DELETE CASCADE, "userId" uuid NOT NULL REFERENCES "user" ON DELETE CASCADE);
CREATE TABLE oauth_refresh_tokens (token character varying(255) PRIMARY KEY, "clientId" character varying NOT NULL REFERENCES oauth_clients ON DELETE CASCADE, "userId" uuid NOT NULL REFERENCES "user" ON DELETE CASCADE, "expiresAt" bigint NOT NULL);
CREATE TABLE oauth_user_consents (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "userId" uuid NOT NULL REFERENCES "user" ON DELETE CASCADE, "clientId" character varying NOT NULL REFERENCES oauth_clients ON DELETE CASCADE, "grantedAt" bigint NOT NULL, UNIQUE ("userId", "clientId"));
CREATE TABLE binary_data ("fileId" uuid PRIMARY KEY, "sourceType" character varying(50) NOT NULL CHECK ("sourceType" IN ('execution', 'chat_message_attachment')), "sourceId" character varying(255) NOT NULL, data bytea NOT NULL, "mimeType" character varying(255), "fileName" character varying(255), "fileSize" integer NOT NULL);
CREATE INDEX "IDX_56900edc3cfd16612e2ef2c6a8" ON binary_data ("sourceType", "sourceId");

INSERT INTO migrations ("timestamp", name) SELECT 1587669153312 + n * 1700000000::bigint, 'Migration' || n || (1587669153312 + n * 1700000000::bigint) FROM generate_series(1, 120) n;
INSERT INTO settings VALUES ('userManagement.isInstanceOwnerSetUp', 'true', true), ('ui.banners.dismissed', '["V1"]', true),
  ('features.ldap', '{"loginEnabled":false,"bindingAdminPassword":""}', true), ('features.sourceControl.sshKeys', E'{"publicKey":"ssh-ed25519 AAAA\\n"}', true), ('empty', '', false);
INSERT INTO role (slug, "displayName", "roleType", "systemRole", "createdAt", "updatedAt") SELECT s, initcap(translate(s, ':', ' ')), split_part(s, ':', 1), true, '2025-01-01', '2025-01-01'
  FROM unnest(ARRAY['global:owner', 'global:admin', 'global:member', 'project:personalOwner', 'project:admin', 'project:editor', 'project:viewer', 'credential:owner', 'workflow:owner']) s;
INSERT INTO scope SELECT r || ':' || a, initcap(a || ' ' || r), NULL FROM unnest(ARRAY['workflow', 'credential', 'project', 'tag', 'user', 'variable', 'folder', 'dataTable']) r, unnest(ARRAY['create', 'read', 'update', 'delete', 'list', 'share', 'execute']) a;
INSERT INTO role_scope SELECT r.slug, s.slug FROM role r, scope s WHERE r."roleType" = 'global' OR s.slug LIKE r."roleType" || ':%';
INSERT INTO "user" (id, email, "firstName", "lastName", password, settings, "roleSlug", "lastActiveAt", "createdAt", "updatedAt")
  SELECT pg_temp.uuid(n, 'user'), 'user' || n || '@example.org', (ARRAY[E'Zo\u00eb', E'J\u00fcrgen', E'\u674e', 'O''Brien', 'Ana "Ani"'])[1 + n % 5], 'Name' || n, '$2a$10$' || substr(encode(sha256(n::text::bytea), 'hex'), 1, 53),
  '{"userActivated": true}', CASE n WHEN 1 THEN 'global:owner' ELSE 'global:member' END, date '2025-06-01' + n, timestamptz '2025-01-01 00:00+00' + n * interval '1 day', timestamptz '2025-01-02 00:00+00' + n * interval '1 day' FROM generate_series(1, 25) n;
INSERT INTO auth_identity SELECT id, email, 'ldap', "createdAt" FROM "user" WHERE "roleSlug" = 'global:member';
INSERT INTO auth_provider_sync_history ("providerType", "runMode", status, "startedAt", "endedAt", scanned, created, error) VALUES ('ldap', 'live', 'success', '2025-05-05', '2025-05-05', 24, 3, ''), ('ldap', 'dry', 'error', '2025-05-06', '2025-05-06', 0, 0, E'connect ECONNREFUSED\n    at TCPConnectWrap');
INSERT INTO user_api_keys SELECT pg_temp.id16(row_number() OVER (ORDER BY email), 'key'), id, 'My API Key', 'n8n_api_' || md5(email), '["workflow:read"]' FROM "user" LIMIT 5;
INSERT INTO project (id, name, type, "createdAt", "updatedAt") SELECT pg_temp.id16(n, 'project'), CASE WHEN n <= 25 THEN 'User ' || n || ' <user' || n || '@example.org>' ELSE 'Team ' || n END, CASE WHEN n <= 25 THEN 'personal' ELSE 'team' END, '2025-01-01', '2025-01-01' FROM generate_series(1, 30) n;
INSERT INTO project_relation SELECT pg_temp.id16(n, 'project'), pg_temp.uuid(1 + (n - 1) % 25, 'user'), CASE WHEN n <= 25 THEN 'project:personalOwner' ELSE 'project:admin' END FROM generate_series(1, 30) n;
INSERT INTO folder SELECT pg_temp.id16(n, 'folder'), 'Folder ' || n, CASE WHEN n > 1 THEN pg_temp.id16(n / 2, 'folder') END, pg_temp.id16(26, 'project') FROM generate_series(1, 8) n;
INSERT INTO tag_entity SELECT pg_temp.id16(n, 'tag'), 'tag ' || n, '2025-01-01', '2025-01-01' FROM generate_series(1, 12) n;
INSERT INTO folder_tag SELECT f.id, t.id FROM folder f, tag_entity t WHERE t.name = 'tag ' || length(f.name);
INSERT INTO workflow_entity (id, name, active, nodes, connections, "createdAt", "updatedAt", settings, "staticData", "pinData", "versionId", "triggerCount", meta, "parentFolderId")
  SELECT pg_temp.id16(n, 'workflow'), 'Workflow ' || n || CASE WHEN n % 7 = 0 THEN E' \u2013 \u00dcbersicht \U0001f4e6' ELSE '' END, n % 3 = 0,
  (SELECT json_agg(json_build_object('id', pg_temp.uuid(n * 100 + m, 'node'), 'name', 'Node ' || m, 'type', (ARRAY['n8n-nodes-base.httpRequest', 'n8n-nodes-base.set', 'n8n-nodes-base.code', 'n8n-nodes-base.if', 'n8n-nodes-base.webhook'])[1 + m % 5], 'typeVersion', m % 4, 'position', json_build_array(m * 220, n * 10),
    'parameters', json_build_object('url', 'https://api.example.org/v' || m || '/{{$json["id"]}}', 'jsCode', E'// line\nreturn items.map(i => ({json: {...i.json, back: "\\\\", tab: "\t"}}));'))) FROM generate_series(1, 3 + n % 15) m),
  (SELECT json_object_agg('Node ' || m, json_build_object('main', json_build_array(json_build_array(json_build_object('node', 'Node ' || (m + 1), 'type', 'main', 'index', 0))))) FROM generate_series(1, 2 + n % 15) m),
  timestamptz '2025-02-01 00:00+00' + n * interval '1 hour', timestamptz '2025-03-01 00:00+00' + n * interval '1 hour', '{"executionOrder":"v1"}', CASE WHEN n % 4 = 0 THEN '{"node:Schedule":{"recurrenceRules":[]}}'::json END, CASE WHEN n % 5 = 0 THEN '{}'::json END,
  pg_temp.uuid(n, 'version')::text, n % 3, '{"templateCredsSetupCompleted":true}', CASE WHEN n % 6 = 0 THEN pg_temp.id16(1 + n % 8, 'folder') END FROM generate_series(1, 120) n;
INSERT INTO workflow_history SELECT w."versionId", w.id, E'Zo\u00eb Name1', w.nodes, w.connections, NULL, false, w."createdAt" FROM workflow_entity w;
UPDATE workflow_entity SET "activeVersionId" = "versionId" WHERE active;
INSERT INTO workflow_publish_history ("workflowId", "versionId", event, "userId") SELECT id, "versionId", 'activated', pg_temp.uuid(1, 'user') FROM workflow_entity WHERE active ORDER BY id;
INSERT INTO workflow_dependency ("workflowId", "dependencyType", "dependencyKey") SELECT id, 'nodeType', 'n8n-nodes-base.set' FROM workflow_entity ORDER BY id;
INSERT INTO workflow_statistics (count, "latestEvent", name, "workflowId", "rootCount", "workflowName") SELECT 10 + length(name), "updatedAt", 'production_success', id, 3, name FROM workflow_entity ORDER BY id;
INSERT INTO workflows_tags SELECT w.id, t.id FROM workflow_entity w, tag_entity t WHERE length(w.name) % 12 = split_part(t.name, ' ', 2)::int;
INSERT INTO credentials_entity SELECT 'Credential ' || n || CASE n WHEN 7 THEN ' ''quoted'' "double" \back' ELSE '' END,
  pg_temp.salted_aes(CASE n
    WHEN 1 THEN '{}'
    WHEN 2 THEN json_build_object('privateKey', E'-----BEGIN PRIVATE KEY-----\n' || repeat('MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n', 40) || '-----END PRIVATE KEY-----')::text
    WHEN 3 THEN E'{"user":"J\u00fcrgen","password":"p\u00e4ssw\u00f6rd \\"quoted\\" \U0001f511"}'
    ELSE json_build_object('user', 'service' || n, 'password', 'secret-' || md5('p' || n), 'host', 'db' || n || '.example.org', 'port', 5432 + n)::text END,
    :'key', substr(digest('salt' || n, 'sha256'), 1, 8)),
  (ARRAY['postgres', 'httpBasicAuth', 'slackApi', 'googleSheetsOAuth2Api', 'sshPrivateKey'])[1 + n % 5], '2025-02-02', '2025-02-02', pg_temp.id16(n, 'credential') FROM generate_series(1, 20) n;
INSERT INTO shared_workflow SELECT pg_temp.id16(n, 'workflow'), pg_temp.id16(1 + n % 30, 'project'), 'workflow:owner' FROM generate_series(1, 120) n;
INSERT INTO shared_credentials SELECT pg_temp.id16(n, 'credential'), pg_temp.id16(1 + n % 30, 'project'), 'credential:owner' FROM generate_series(1, 20) n;
INSERT INTO webhook_entity SELECT 'hook/' || n || '/:id', (ARRAY['GET', 'POST'])[1 + n % 2], 'Webhook', pg_temp.uuid(n, 'hook'), 3, pg_temp.id16(n, 'workflow') FROM generate_series(1, 40) n;
INSERT INTO execution_entity (finished, mode, "startedAt", "stoppedAt", "waitTill", status, "workflowId", "createdAt")
  SELECT n % 10 <> 0, (ARRAY['webhook', 'trigger', 'manual', 'integrated'])[1 + n % 4], timestamptz '2025-06-01 00:00+00' + n * interval '37 s', timestamptz '2025-06-01 00:00+00' + n * interval '37.5 s',
  CASE WHEN n % 97 = 0 THEN timestamptz '3000-01-01 00:00+00' END, CASE WHEN n % 10 = 0 THEN 'error' ELSE 'success' END, pg_temp.id16(1 + n % 120, 'workflow'), timestamptz '2025-06-01 00:00+00' + n * interval '37 s' FROM generate_series(1, 1500) n;
INSERT INTO execution_data SELECT n, json_build_object('id', pg_temp.id16(1 + n % 120, 'workflow'), 'name', 'Workflow ' || (1 + n % 120), 'nodes', json_build_array()),
  '[{"startData":"1","resultData":"2"},{},' || (SELECT string_agg(json_build_object('id', md5(n::text || m), 'email', 'a' || m || '@example.org', 'text', E'line one\nline "two"\\' || chr(233))::text, ',' ORDER BY m) FROM generate_series(1, 1 + n % 20) m) || ']', pg_temp.uuid(1 + n % 120, 'version') FROM generate_series(1, 1500) n;
INSERT INTO execution_metadata ("executionId", key, value) SELECT n, 'order', 'value ' || n FROM generate_series(1, 1500, 11) n;
INSERT INTO execution_annotations ("executionId", vote, note) SELECT n, CASE WHEN n % 2 = 0 THEN 'up' ELSE 'down' END, CASE WHEN n % 3 = 0 THEN '' END FROM generate_series(1, 1500, 101) n;
INSERT INTO annotation_tag_entity SELECT pg_temp.id16(n, 'atag'), 'review ' || n FROM generate_series(1, 3) n;
INSERT INTO execution_annotation_tags SELECT a.id, t.id FROM execution_annotations a, annotation_tag_entity t WHERE a.id % 3 + 1 = right(t.name, 1)::int;
INSERT INTO processed_data SELECT id, 'n' || length(name), '{"mode":"entries"}' FROM workflow_entity WHERE active;
INSERT INTO installed_packages VALUES ('n8n-nodes-example', '0.3.1', 'A. Author', 'a@example.org'), ('@scope/n8n-nodes-other', '1.0.0', NULL, NULL);
INSERT INTO installed_nodes VALUES ('Example', 'n8n-nodes-example.example', 1, 'n8n-nodes-example'), ('Other', '@scope/n8n-nodes-other.other', 2, '@scope/n8n-nodes-other');
INSERT INTO variables SELECT 'VAR_' || n, 'string', CASE n WHEN 1 THEN '' WHEN 2 THEN NULL ELSE '\value ' || n END, pg_temp.id16(n, 'variable'), CASE WHEN n > 6 THEN pg_temp.id16(26, 'project') END FROM generate_series(1, 10) n;
INSERT INTO event_destinations SELECT pg_temp.uuid(n, 'event'), jsonb_build_object('__type', '$$MessageEventBusDestinationSyslog', 'host', 'log' || n, 'enabled', n = 1) FROM generate_series(1, 3) n;
INSERT INTO insights_metadata ("workflowId", "projectId", "workflowName", "projectName") SELECT id, NULL, name, 'Team 26' FROM workflow_entity ORDER BY id;
INSERT INTO insights_raw ("metaId", type, value, "timestamp") SELECT 1 + n % 120, n % 4, n * 7, timestamptz '2025-06-01 00:00+00' + n * interval '1 min' FROM generate_series(1, 800) n;
INSERT INTO insights_by_period ("metaId", type, value, "periodUnit", "periodStart") SELECT 1 + n % 120, n % 4, n * 70, n % 3, timestamptz '2025-06-01 00:00+00' + n * interval '1 h' FROM generate_series(1, 500) n;
INSERT INTO test_run SELECT pg_temp.id16(n, 'run'), pg_temp.id16(n, 'workflow'), 'completed', '{"score":0.5}' FROM generate_series(1, 4) n;
INSERT INTO test_case_execution SELECT pg_temp.id16(n, 'case'), pg_temp.id16(1 + n % 4, 'run'), n, 'success', '{}', NULL FROM generate_series(1, 40) n;
INSERT INTO data_table SELECT 'Xk29QmT0vLw8aB3c', 'Kunden', pg_temp.id16(26, 'project');
INSERT INTO data_table_column SELECT pg_temp.id16(i, 'column'), c, 'string', i - 1, 'Xk29QmT0vLw8aB3c' FROM unnest(ARRAY['Kunde', 'Betrag', 'bezahlt', 'am']) WITH ORDINALITY u(c, i);
INSERT INTO "data_table_user_Xk29QmT0vLw8aB3c" ("Kunde", "Betrag", bezahlt, am) SELECT 'Kunde ' || n, n / 3.0, n % 2 = 0, timestamptz '2025-06-01 00:00+00' + n * interval '1 d' FROM generate_series(1, 100) n;
INSERT INTO chat_hub_sessions SELECT pg_temp.uuid(n, 'chat'), 'Session ' || n, pg_temp.uuid(1, 'user'), NULL, NULL FROM generate_series(1, 3) n;
INSERT INTO chat_hub_messages SELECT pg_temp.uuid(n, 'message'), pg_temp.uuid(1 + n % 3, 'chat'), CASE WHEN n > 3 THEN pg_temp.uuid(n - 3, 'message') END, 'human', E'Hello\r\nworld ' || n, NULL FROM generate_series(1, 30) n;
INSERT INTO oauth_clients VALUES ('client', 'MCP', '["http://localhost/cb"]', '["authorization_code"]', NULL);
INSERT INTO oauth_user_consents ("userId", "clientId", "grantedAt") VALUES (pg_temp.uuid(1, 'user'), 'client', 1750000000000);
INSERT INTO binary_data SELECT pg_temp.uuid(n, 'file'), 'execution', n, decode(repeat(md5(n::text), n * 8), 'hex'), 'application/octet-stream', 'file ' || n || '.bin', n * 128 FROM generate_series(1, 20) n;
