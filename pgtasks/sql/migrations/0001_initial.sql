-- Two schemas.
--
-- pgmq     the messages, laid out as pgmq 1.13 lays them out, so that its clients and tools can
--          read them: pgmq.meta lists the queues, pgmq.q_<queue> holds what is waiting or leased,
--          pgmq.a_<queue> what was archived. No column of ours is added to any of them.
-- pgtasks  everything else.
--
-- A message is due when its vt has passed. A worker that claims it moves vt to the end of its
-- lease and raises read_ct, which never falls: (msg_id, read_ct) is the lease. Settling names
-- both. What more must be known of a message stands in its headers under the one key "pgtasks".

CREATE SCHEMA IF NOT EXISTS pgtasks;
COMMENT ON SCHEMA pgtasks IS 'pgtasks: background tasks on plain PostgreSQL';

CREATE TABLE pgtasks.migration (
    version integer PRIMARY KEY CHECK (version > 0),
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE SCHEMA IF NOT EXISTS pgmq;

CREATE TABLE IF NOT EXISTS pgmq.meta (
    queue_name varchar UNIQUE NOT NULL,
    is_partitioned boolean NOT NULL,
    is_unlogged boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The one rule for queue names; pgtasks/queue_name.py states the same.
CREATE FUNCTION pgtasks.is_queue_name(name text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT coalesce(name ~ '^[a-z][a-z0-9_]{0,46}$' AND name <> 'periodic', false) $$;

-- Create the tables of a queue unless they exist; true when it created them.
CREATE FUNCTION pgtasks.create_queue(name text) RETURNS boolean
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
    INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged)
    VALUES (name, false, false) ON CONFLICT (queue_name) DO NOTHING;
    RETURN true;
END
$$;

-- A moment that every client can hold: a foreign row may be dated before Christ, or never.
CREATE FUNCTION pgtasks.clamped(moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN moment IS NOT NULL THEN
        greatest(least(moment, timestamptz '9999-12-31 00:00:00+00'), timestamptz 'epoch')
    END
$$;

-- Headers with our part set to state; a foreign client's headers are kept whatever they are.
CREATE FUNCTION pgtasks.with_state(headers jsonb, state jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN state IS NULL THEN headers
        WHEN headers IS NULL THEN jsonb_build_object('pgtasks', state)
        WHEN jsonb_typeof(headers) = 'object' THEN headers || jsonb_build_object('pgtasks', state)
        ELSE jsonb_build_object('pgtasks', state, 'foreign', headers)
    END
$$;

-- Headers with one more counted under name in our part: a release, or a crash.
CREATE FUNCTION pgtasks.with_one_more(headers jsonb, name text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT pgtasks.with_state(headers, ours || jsonb_build_object(name, CASE
        WHEN jsonb_typeof(ours -> name) = 'number' THEN (ours ->> name)::numeric + 1
        ELSE 1
    END))
    FROM (SELECT CASE
        WHEN jsonb_typeof(headers -> 'pgtasks') = 'object' THEN headers -> 'pgtasks'
        ELSE '{}'
    END) AS state (ours)
$$;
