-- Room for claims, and vacuum in time.
--
-- A claim writes a second version of its row. Where that finds room on the same page, only what
-- changed is written to the log: of the 950 bytes that a small message costs from defer to done, 750
-- are left. The room is half of each page; a queue that is filled and drained has the same size at
-- its end, since those second versions have to be put somewhere.
--
-- A queue's rows are all short-lived: a fifth of the table, Postgres' default, is too many dead rows
-- for one that holds millions, and at its default pace a vacuum never ends on one that is busy.

CREATE FUNCTION pgtasks.make_room(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'ALTER TABLE pgmq.%I SET (
            fillfactor = 50,
            autovacuum_vacuum_scale_factor = 0.02,
            autovacuum_vacuum_threshold = 1000,
            autovacuum_vacuum_cost_delay = 0
        )', 'q_' || name);
END
$$;

-- Create the tables of a queue unless they exist; true when it created them. For our own pgmq: a
-- queue is the same whether pgmq.create() or pgtasks.create_queue() made it. The name was checked.
CREATE OR REPLACE FUNCTION pgtasks.make_queue(name text, is_unlogged boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := 'q_' || lower(name);
    archive text := 'a_' || lower(name);
    is_new boolean;
BEGIN
    -- The keys that pgmq itself takes for a queue, so that neither creates beside the other. Names
    -- in other letters have the same tables.
    PERFORM pg_advisory_xact_lock(hashtext('pgmq.queue_' || name));
    PERFORM pg_advisory_xact_lock(hashtext('pgmq.queue_' || lower(name)));
    -- Not to_regclass: it may know a table that somebody has dropped while we waited.
    is_new := NOT EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = 'pgmq'::regnamespace AND relname = queue::name
    );
    IF is_new THEN
        IF is_unlogged THEN
            EXECUTE format(
                'CREATE UNLOGGED TABLE pgmq.%I (
                    msg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
                )', queue);
        ELSE
            EXECUTE format(
                'CREATE TABLE pgmq.%I (
                    msg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
                )', queue);
        END IF;
        EXECUTE format(
            'ALTER TABLE pgmq.%I
                ADD COLUMN read_ct integer NOT NULL DEFAULT 0,
                ADD COLUMN enqueued_at timestamptz NOT NULL DEFAULT now(),
                ADD COLUMN last_read_at timestamptz,
                ADD COLUMN vt timestamptz NOT NULL,
                ADD COLUMN message jsonb,
                ADD COLUMN headers jsonb', queue);
        PERFORM pgtasks.make_room(lower(name));
        -- Postgres names it q_…_vt_idx, or something near when the name is too long for that.
        EXECUTE format('CREATE INDEX ON pgmq.%I (vt)', queue);
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
            )', archive);
        IF octet_length('archived_at_idx_' || name) < 64 THEN
            EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON pgmq.%I (archived_at)',
                           'archived_at_idx_' || name, archive);
        ELSE
            EXECUTE format('CREATE INDEX ON pgmq.%I (archived_at)', archive);
        END IF;
        IF pgtasks.is_queue_name(lower(name)) THEN
            PERFORM pgtasks.index_archive(lower(name));
        END IF;
        PERFORM pgtasks.grant_queue(lower(name));
    END IF;
    INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged)
    VALUES (name, false, make_queue.is_unlogged) ON CONFLICT (queue_name) DO NOTHING;
    RETURN is_new;
END
$$;

-- The queues that there are already, as far as this role may, but for those that somebody has set up
-- for himself.
SELECT pgtasks.make_room(lower(queue_name))
FROM pgmq.meta
JOIN pg_class ON pg_class.oid = to_regclass(format('pgmq.%I', 'q_' || lower(queue_name)))
WHERE pgtasks.owns_pgmq() AND pg_has_role(relowner, 'USAGE') AND relkind = 'r'
    AND reloptions IS NULL;
