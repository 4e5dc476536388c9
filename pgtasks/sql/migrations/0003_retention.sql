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

-- The indexes by which the archive of a queue is pruned; new queues get them in 0004. Not named
-- a_…, as the archive of another queue might be.
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
