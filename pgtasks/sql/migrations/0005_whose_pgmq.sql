-- Whose is the schema pgmq?
--
-- Where nobody has put functions into it, it is ours: here it gets pgmq's types, and our mark, and
-- the steps named pgmq_… give it pgmq's functions, written anew, so that every client of pgmq can
-- use our queues on a server without the extension. Where the extension is installed, or its SQL
-- was run by hand or by a client, we are guests: nothing is made or changed in pgmq but by its own
-- functions.
--
-- What decides is one function, for these steps and for pgtasks itself.

-- Whether pgmq's types and functions are those that pgtasks made. The mark is on a type: it goes
-- with it, whoever drops or remakes it.
CREATE FUNCTION pgtasks.owns_pgmq() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN EXISTS (
    SELECT FROM pg_namespace
    JOIN pg_type ON typnamespace = pg_namespace.oid
    JOIN pg_description ON objoid = pg_type.oid AND classoid = 'pg_type'::regclass AND objsubid = 0
    WHERE nspname = 'pgmq' AND typname = 'message_record' AND description LIKE 'made by pgtasks%'
) AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pgmq');

-- Whether nobody's code is in pgmq, the tables are such as pgmq 1.13 reads, and this role may add
-- to the schema.
CREATE FUNCTION pgtasks.is_pgmq_free() RETURNS boolean
LANGUAGE sql STABLE
RETURN has_schema_privilege('pgmq', 'CREATE')
    AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pgmq')
    AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace)
    AND NOT EXISTS (
        SELECT FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace
        AND (relkind = 'c' OR relname = '__pgmq_migrations')
    )
    AND NOT EXISTS (
        SELECT FROM pgmq.meta
        JOIN pg_class ON relnamespace = 'pgmq'::regnamespace
            AND relname = ('q_' || lower(queue_name))::name
        WHERE (
            SELECT count(*) FROM pg_attribute
            WHERE attrelid = pg_class.oid AND NOT attisdropped
            AND attname IN ('last_read_at', 'headers')
        ) < 2
    );

DO $$
BEGIN
    IF pgtasks.owns_pgmq() OR NOT pgtasks.is_pgmq_free() THEN
        RETURN;
    END IF;
    CREATE TYPE pgmq.message_record AS (
        msg_id bigint,
        read_ct integer,
        enqueued_at timestamptz,
        last_read_at timestamptz,
        vt timestamptz,
        message jsonb,
        headers jsonb
    );
    CREATE TYPE pgmq.queue_record AS (
        queue_name varchar,
        is_partitioned boolean,
        is_unlogged boolean,
        created_at timestamptz
    );
    CREATE TYPE pgmq.metrics_result AS (
        queue_name text,
        queue_length bigint,
        newest_msg_age_sec integer,
        oldest_msg_age_sec integer,
        total_messages bigint,
        scrape_time timestamptz,
        queue_visible_length bigint,
        default_partition_length bigint
    );
    COMMENT ON TYPE pgmq.message_record IS 'made by pgtasks: pgmq 1.13.0';
    IF obj_description('pgmq'::regnamespace, 'pg_namespace') IS NULL THEN
        COMMENT ON SCHEMA pgmq IS 'queues, and the functions of pgmq 1.13 as pgtasks made them';
    END IF;
END
$$;

DROP FUNCTION pgtasks.is_pgmq_free();

-- Give the roles of pgtasks.grantee, as far as they exist, their rights on the tables of a queue.
-- The sequence is what pgmq.metrics() counts all messages by.
CREATE OR REPLACE FUNCTION pgtasks.grant_queue(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    grantee record;
    queue text := 'q_' || name;
    archive text := 'a_' || name;
    numbers name := (
        SELECT relname FROM pg_class
        WHERE oid = pg_get_serial_sequence(format('pgmq.%I', queue), 'msg_id')::regclass
    );
BEGIN
    FOR grantee IN
        SELECT role, rights FROM pgtasks.grantee JOIN pg_roles ON rolname = role ORDER BY role
    LOOP
        CASE grantee.rights
        WHEN 'producer' THEN
            EXECUTE format(
                'GRANT INSERT (vt, message, headers), SELECT (msg_id) ON pgmq.%I TO %I',
                queue, grantee.role);
        WHEN 'worker' THEN
            EXECUTE format(
                'GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.%I, pgmq.%I TO %I',
                queue, archive, grantee.role);
        WHEN 'reader' THEN
            EXECUTE format(
                'GRANT SELECT ON pgmq.%I, pgmq.%I TO %I', queue, archive, grantee.role);
        END CASE;
        IF numbers IS NOT NULL AND grantee.rights IN ('worker', 'reader') THEN
            EXECUTE format('GRANT SELECT ON SEQUENCE pgmq.%I TO %I', numbers, grantee.role);
        END IF;
    END LOOP;
END
$$;

-- Create the tables of a queue unless they exist; true when it created them. For our own pgmq: a
-- queue is the same whether pgmq.create() or pgtasks.create_queue() made it. The name was checked.
CREATE FUNCTION pgtasks.make_queue(name text, is_unlogged boolean) RETURNS boolean
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
    IF pgtasks.owns_pgmq() OR to_regprocedure('pgmq.create(text)') IS NULL THEN
        RETURN pgtasks.make_queue(name, false);
    END IF;
    -- Somebody else's pgmq makes its queues itself.
    PERFORM pg_advisory_xact_lock(hashtext('pgmq.queue_' || name));
    IF to_regclass(format('pgmq.%I', 'q_' || name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pgmq.create(name);
    PERFORM pgtasks.grant_queue(name);
    RETURN true;
END
$$;

-- Sequences of queues that there are already, as far as this role may.
SELECT pgtasks.grant_queue(lower(queue_name))
FROM pgmq.meta
JOIN pg_class ON pg_class.oid = to_regclass(format('pgmq.%I', 'q_' || lower(queue_name)))
WHERE pgtasks.owns_pgmq() AND pg_has_role(relowner, 'USAGE')
    AND to_regclass(format('pgmq.%I', 'a_' || lower(queue_name))) IS NOT NULL;
