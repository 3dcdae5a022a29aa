//! A database whose n8n starts no workflow by itself.

use anyhow::{bail, Result};

use super::*;

/// Leaves every workflow inactive, of each n8n that is there and of copies of its tables, and takes away what n8n could
/// start one from: published versions and agents, webhooks, and executions that wait or have not begun. What the n8n at
/// hand does not have is left out.
/// Connected to the staged database. Read by [`parse_deactivated`].
pub fn deactivate() -> String {
    format!(
        r#"{PRELUDE}
DO $deactivate$
DECLARE
    n8n record;
    cleared text;
    published text;
    done bigint;
    total bigint;
BEGIN
    FOR n8n IN
        SELECT n.nspname AS schema, left(c.relname, -15) AS prefix
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND right(c.relname, 15) = 'workflow_entity' AND n.nspname !~ '^pg_'
        AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
            AND a.attname IN ('id', 'name', 'nodes', 'connections', 'active')
            AND (a.attname <> 'active' OR a.atttypid = 'bool'::regtype)) = 5
    LOOP
        EXECUTE format('UPDATE %I.%I SET active = false WHERE active', n8n.schema, n8n.prefix || 'workflow_entity');
        GET DIAGNOSTICS done = ROW_COUNT;
        total := coalesce(total, 0) + done;
        FOREACH published IN ARRAY ARRAY['workflow_entity', 'agents'] LOOP
            IF EXISTS (SELECT FROM pg_attribute a WHERE NOT a.attisdropped AND a.attname = 'activeVersionId'
                AND a.attrelid = to_regclass(format('%I.%I', n8n.schema, n8n.prefix || published))) THEN
                EXECUTE format('UPDATE %I.%I SET "activeVersionId" = NULL WHERE "activeVersionId" IS NOT NULL',
                    n8n.schema, n8n.prefix || published);
            END IF;
        END LOOP;
        FOREACH cleared IN ARRAY ARRAY['workflow_published_version', 'workflow_publication_outbox',
            'workflow_publication_trigger_status', 'webhook_entity'] LOOP
            IF to_regclass(format('%I.%I', n8n.schema, n8n.prefix || cleared)) IS NOT NULL THEN
                EXECUTE format('DELETE FROM %I.%I', n8n.schema, n8n.prefix || cleared);
            END IF;
        END LOOP;
        IF (SELECT count(*) FROM pg_attribute a WHERE NOT a.attisdropped AND a.attname IN ('waitTill', 'status')
            AND a.attrelid = to_regclass(format('%I.%I', n8n.schema, n8n.prefix || 'execution_entity'))) = 2 THEN
            EXECUTE format('UPDATE %I.%I SET "waitTill" = NULL, status = ''canceled'' '
                'WHERE "waitTill" IS NOT NULL OR status::text IN (''waiting'', ''new'')',
                n8n.schema, n8n.prefix || 'execution_entity');
        END IF;
    END LOOP;
    PERFORM set_config('n8n_backup.deactivated', coalesce(total::text, ''), false);
END $deactivate$;
SELECT current_setting('n8n_backup.deactivated');
"#
    )
}

/// Reads how many workflows were active.
///
/// # Errors
/// There is no table of workflows.
pub fn parse_deactivated(output: &str) -> Result<u64> {
    match output.trim() {
        "" => bail!("--deactivate: the dump holds no workflows of n8n"),
        count => number(count),
    }
}
