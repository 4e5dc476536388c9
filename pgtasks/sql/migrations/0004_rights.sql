-- Who may do what with queues that are yet to be made, and functions that nobody can lead astray.
--
-- The body of a function that is kept as text is read anew wherever it is used, and finds operators
-- by the search_path of whoever uses it: `headers -> 'pgtasks'` would call a "->" for two jsonb that
-- somebody has put into the schema public. These bodies are read once, here.

CREATE OR REPLACE FUNCTION pgtasks.is_queue_name(name text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(name ~ '^[a-z][a-z0-9_]{0,46}$' AND name <> 'periodic', false);

CREATE OR REPLACE FUNCTION pgtasks.clamped(moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN moment IS NOT NULL THEN
    greatest(least(moment, timestamptz '9999-12-31 00:00:00+00'), timestamptz 'epoch')
END;

CREATE OR REPLACE FUNCTION pgtasks.with_state(headers jsonb, state jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN state IS NULL THEN headers
    WHEN headers IS NULL THEN jsonb_build_object('pgtasks', state)
    WHEN jsonb_typeof(headers) = 'object' THEN headers || jsonb_build_object('pgtasks', state)
    ELSE jsonb_build_object('pgtasks', state, 'foreign', headers)
END;

CREATE OR REPLACE FUNCTION pgtasks.with_one_more(headers jsonb, name text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT pgtasks.with_state(headers, ours || jsonb_build_object(name, CASE
        WHEN jsonb_typeof(ours -> name) = 'number' THEN (ours ->> name)::numeric + 1
        ELSE 1
    END))
    FROM (SELECT CASE
        WHEN jsonb_typeof(headers -> 'pgtasks') = 'object' THEN headers -> 'pgtasks'
        ELSE '{}'
    END) AS state (ours)
);

-- The roles that get their rights on each queue as it is made; `pgtasks db roles` prints the SQL
-- that fills this. Rights for tables yet to be made can be given by default to whole tables only,
-- and a producer must not read messages.
CREATE TABLE pgtasks.grantee (
    role name PRIMARY KEY,
    rights text NOT NULL CHECK (rights IN ('producer', 'worker', 'reader'))
);
-- Whoever may make a queue has to see who gets rights on it.
GRANT SELECT ON pgtasks.grantee TO PUBLIC;

-- Give these roles, as far as they exist, their rights on the tables of a queue.
CREATE FUNCTION pgtasks.grant_queue(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    grantee record;
    queue text := 'q_' || name;
    archive text := 'a_' || name;
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
    END LOOP;
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
    PERFORM pgtasks.grant_queue(name);
    RETURN true;
END
$$;
