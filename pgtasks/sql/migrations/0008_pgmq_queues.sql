-- pgmq's functions, first part: queues. (The steps named pgmq_… are run where pgmq is ours.)
--
-- The four steps 0008 to 0011 give the schema pgmq the functions of pgmq 1.13: their names, the
-- names, types and defaults of their arguments, the columns of their results, their error codes
-- and their locks are those that its clients know. What they do is written anew, for tables that
-- workers of pgtasks use as well.
--
--     0008  queues: make, drop, list, measure
--     0009  send
--     0010  read, and finish: delete, archive, set_vt
--     0011  tell: notifications of inserts, and topics
--
-- All functions run with the rights of who calls them, and find names in pg_catalog only. The
-- table of a queue is named in text that is executed, so that no plan is kept: format('%I') of what
-- pgmq.format_table_name() returns. Functions whose names begin with _pgtasks are ours alone.

CREATE UNLOGGED TABLE IF NOT EXISTS pgmq.notify_insert_throttle (
    queue_name varchar UNIQUE NOT NULL REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
    throttle_interval_ms integer NOT NULL DEFAULT 0,
    last_notified_at timestamptz NOT NULL DEFAULT to_timestamp(0)
);
CREATE INDEX IF NOT EXISTS idx_notify_throttle_active
    ON pgmq.notify_insert_throttle (queue_name) WHERE throttle_interval_ms > 0;

-- In a pattern "*" stands for one segment between dots and "#" for any characters.
CREATE TABLE IF NOT EXISTS pgmq.topic_bindings (
    pattern text NOT NULL,
    queue_name text NOT NULL REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
    bound_at timestamptz NOT NULL DEFAULT now(),
    compiled_regex text GENERATED ALWAYS AS (
        '^' || replace(replace(replace(pattern, '.', '\.'), '*', '[^.]+'), '#', '.*') || '$'
    ) STORED,
    UNIQUE (pattern, queue_name)
);

-- A client that brings pgmq's SQL with it looks here first, and finds that it is there already.
CREATE TABLE IF NOT EXISTS pgmq.__pgmq_migrations (
    name text PRIMARY KEY,
    version text,
    run_at timestamptz DEFAULT clock_timestamp()
);
INSERT INTO pgmq.__pgmq_migrations (name, version)
VALUES ('pgmq.sql', '1.13.0') ON CONFLICT (name) DO NOTHING;

-- Names

-- The table of a queue: prefix is "q" for what waits and "a" for the archive.
CREATE OR REPLACE FUNCTION pgmq.format_table_name(queue_name text, prefix text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF queue_name ~ '[$;'']|--' THEN
        RAISE EXCEPTION 'the name of a queue contains invalid characters: %',
            quote_literal(queue_name) USING HINT = 'It may not contain $ or ; or '' or --.';
    END IF;
    RETURN lower(prefix || '_' || queue_name);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.validate_queue_name(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF queue_name IS NULL THEN
        RAISE EXCEPTION 'the name of a queue cannot be NULL';
    ELSIF length(queue_name) > 47 THEN
        RAISE EXCEPTION 'the name of a queue is too long: it has % characters, and may have 47',
            length(queue_name);
    END IF;
    PERFORM pgmq.format_table_name(queue_name, 'q');
END
$$;

-- Wait until nobody else makes or drops the queue; held until the end of the transaction.
CREATE OR REPLACE FUNCTION pgmq.acquire_queue_lock(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('pgmq.queue_' || queue_name));
END
$$;

-- Making

CREATE OR REPLACE FUNCTION pgmq.create_non_partitioned(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq.validate_queue_name(queue_name);
    PERFORM pgtasks.make_queue(queue_name, false);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.create(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq.create_non_partitioned(queue_name);
END
$$;

-- A crash of the server empties it; its archive is kept.
CREATE OR REPLACE FUNCTION pgmq.create_unlogged(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq.validate_queue_name(queue_name);
    PERFORM pgtasks.make_queue(queue_name, true);
END
$$;

-- Partitioned queues: there are none here. These answer as pgmq does without pg_partman.

CREATE OR REPLACE FUNCTION pgmq._extension_exists(extension_name text) RETURNS boolean
LANGUAGE sql
RETURN EXISTS (SELECT FROM pg_extension WHERE extname = extension_name::name);

CREATE OR REPLACE FUNCTION pgmq._get_pg_partman_schema() RETURNS text
LANGUAGE sql
RETURN (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_partman');

CREATE OR REPLACE FUNCTION pgmq._get_pg_partman_major_version() RETURNS integer
LANGUAGE sql
RETURN (
    SELECT split_part(extversion, '.', 1)::integer FROM pg_extension WHERE extname = 'pg_partman'
);

CREATE OR REPLACE FUNCTION pgmq._get_partition_col(partition_interval text) RETURNS text
LANGUAGE sql
RETURN CASE WHEN partition_interval ~ '^\s*\d+\s*$' THEN 'msg_id' ELSE 'enqueued_at' END;

CREATE OR REPLACE FUNCTION pgmq._ensure_pg_partman_installed() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'pg_partman is required for partitioned queues'
        USING HINT = 'These functions are made by pgtasks, which has no partitioned queues.';
END
$$;

CREATE OR REPLACE FUNCTION pgmq.create_partitioned(
    queue_name text,
    partition_interval text DEFAULT '10000',
    retention_interval text DEFAULT '100000',
    premake integer DEFAULT 4
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq.validate_queue_name(queue_name);
    PERFORM pgmq._ensure_pg_partman_installed();
END
$$;

CREATE OR REPLACE FUNCTION pgmq.convert_archive_partitioned(
    table_name text,
    partition_interval text DEFAULT '10000',
    retention_interval text DEFAULT '100000',
    leading_partition integer DEFAULT 10
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq._ensure_pg_partman_installed();
END
$$;

-- Whether a table belongs to an extension pgmq; here none does.
CREATE OR REPLACE FUNCTION pgmq._belongs_to_pgmq(table_name text) RETURNS boolean
LANGUAGE sql
RETURN EXISTS (
    SELECT FROM pg_depend JOIN pg_extension ON pg_extension.oid = refobjid
    WHERE classid = 'pg_class'::regclass AND objid = to_regclass(format('pgmq.%I', table_name))
        AND refclassid = 'pg_extension'::regclass AND extname = 'pgmq' AND deptype = 'e'
);

CREATE OR REPLACE FUNCTION pgmq.detach_archive(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE WARNING 'detach_archive() is deprecated, and does nothing';
END
$$;

-- Dropping

-- False when there is no such queue. Names in other letters have the same tables, and go too.
CREATE OR REPLACE FUNCTION pgmq.drop_queue(queue_name text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
    archive text := pgmq.format_table_name(queue_name, 'a');
BEGIN
    PERFORM pgmq.acquire_queue_lock(queue_name);
    -- Not to_regclass: it may know a table that somebody has dropped while we waited.
    IF NOT EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = 'pgmq'::regnamespace AND relname = queue::name
    ) THEN
        RAISE NOTICE 'there is no queue %', quote_ident(queue_name);
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE pgmq.%I', queue);
    EXECUTE format('DROP TABLE IF EXISTS pgmq.%I', archive);
    DELETE FROM pgmq.meta WHERE lower(meta.queue_name) = lower(drop_queue.queue_name);
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.drop_queue(queue_name text, partitioned boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE WARNING 'drop_queue(queue_name, partitioned) is deprecated: call drop_queue(queue_name)';
    PERFORM pgmq.drop_queue(queue_name);
    RETURN true;
END
$$;

-- Delete all that waits or is leased, and tell how much it was; the archive is left alone.
CREATE OR REPLACE FUNCTION pgmq.purge_queue(queue_name text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
    purged bigint;
BEGIN
    -- First the lock, so that nothing is sent between the two.
    EXECUTE format('LOCK TABLE pgmq.%I IN ACCESS EXCLUSIVE MODE', queue);
    EXECUTE format('SELECT count(*) FROM pgmq.%I', queue) INTO purged;
    EXECUTE format('TRUNCATE pgmq.%I', queue);
    RETURN purged;
END
$$;

-- Looking

CREATE OR REPLACE FUNCTION pgmq.list_queues() RETURNS SETOF pgmq.queue_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT queue_name, is_partitioned, is_unlogged, created_at
        FROM pgmq.meta ORDER BY queue_name;
END
$$;

-- Ages are NULL when the queue is empty. All messages there ever were are counted by the sequence
-- that numbers them, sends that were rolled back included.
CREATE OR REPLACE FUNCTION pgmq.metrics(queue_name text) RETURNS pgmq.metrics_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
    numbers name;
    result pgmq.metrics_result;
BEGIN
    SELECT relname INTO numbers FROM pg_class
    WHERE oid = pg_get_serial_sequence(format('pgmq.%I', queue), 'msg_id')::regclass;
    EXECUTE format(
        'SELECT $1, count(*),
            extract(epoch FROM clock_timestamp() - max(enqueued_at))::integer,
            extract(epoch FROM clock_timestamp() - min(enqueued_at))::integer,
            (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM pgmq.%I),
            clock_timestamp(),
            count(*) FILTER (WHERE vt <= clock_timestamp()),
            NULL::bigint
        FROM pgmq.%I', numbers, queue) INTO result USING queue_name;
    RETURN result;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.metrics_all() RETURNS SETOF pgmq.metrics_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT queue_name FROM pgmq.meta ORDER BY queue_name LOOP
        RETURN NEXT pgmq.metrics(name);
    END LOOP;
END
$$;
