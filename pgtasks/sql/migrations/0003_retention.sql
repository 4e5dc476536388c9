-- What is kept of what has ended.
--
-- Archives are pruned oldest first, successes and all else each by limits of their own. Each of
-- the two has an index, so that neither is looked for among a million rows of the other.

-- Which worker looks after what: whoever takes a turn does, and the others leave it alone for a
-- while. There is no leader.
CREATE TABLE pgtasks.turn (
    what text PRIMARY KEY,
    taken_at timestamptz NOT NULL
);

-- The indexes by which the archive of a queue is pruned. Not named a_…, as the archive of another
-- queue might be.
CREATE FUNCTION pgtasks.index_archive(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON pgmq.%I (archived_at, msg_id)
            WHERE headers #>> ''{pgtasks,outcome}'' = ''done''',
        'done_at_idx_' || name, 'a_' || name);
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON pgmq.%I (archived_at, msg_id)
            WHERE headers #>> ''{pgtasks,outcome}'' IS DISTINCT FROM ''done''',
        'failed_at_idx_' || name, 'a_' || name);
END
$$;

CREATE OR REPLACE FUNCTION pgtasks.create_queue(name text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pgtasks.is_queue_name(name) THEN
        RAISE EXCEPTION 'pgtasks: % cannot be the name of a queue', quote_nullable(name)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Use 1 to 47 of a-z, 0-9 and _, starting with a letter; "periodic" is reserved.';
    END IF;
    -- The key that pgmq itself takes for a queue, so that neither creates beside the other.
    PERFORM pg_advisory_xact_lock(hashtext('pgmq.queue_' || name));
    IF to_regclass(format('pgmq.%I', 'q_' || name)) IS NOT NULL THEN
        INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged)
        VALUES (name, false, false) ON CONFLICT (queue_name) DO NOTHING;
        RETURN false;
    END IF;
    EXECUTE format(
        'CREATE TABLE pgmq.%I (
            msg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            read_ct integer NOT NULL DEFAULT 0,
            enqueued_at timestamptz NOT NULL DEFAULT now(),
            last_read_at timestamptz,
            vt timestamptz NOT NULL,
            message jsonb,
            headers jsonb
        )', 'q_' || name);
    EXECUTE format('CREATE INDEX %I ON pgmq.%I (vt)', 'q_' || name || '_vt_idx', 'q_' || name);
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS pgmq.%I (
            msg_id bigint PRIMARY KEY,
            read_ct integer NOT NULL DEFAULT 0,
            enqueued_at timestamptz NOT NULL DEFAULT now(),
            last_read_at timestamptz,
            archived_at timestamptz NOT NULL DEFAULT now(),
            vt timestamptz NOT NULL,
            message jsonb,
            headers jsonb
        )', 'a_' || name);
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON pgmq.%I (archived_at)',
                   'archived_at_idx_' || name, 'a_' || name);
    PERFORM pgtasks.index_archive(name);
    INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged)
    VALUES (name, false, false) ON CONFLICT (queue_name) DO NOTHING;
    RETURN true;
END
$$;

-- The archives that are there already, as far as this role may: one that another program made and
-- owns is pruned too, by the slower way.
SELECT pgtasks.index_archive(queue_name)
FROM pgmq.meta
JOIN pg_class ON pg_class.oid = to_regclass(format('pgmq.%I', 'a_' || queue_name))
WHERE pgtasks.is_queue_name(queue_name)
    AND pg_has_role(relowner, 'USAGE') AND has_schema_privilege('pgmq', 'CREATE')
    AND (
        SELECT count(*)
        FROM pg_attribute
        WHERE attrelid = pg_class.oid AND NOT attisdropped
            AND attname IN ('msg_id', 'archived_at', 'headers')
    ) = 3;
