-- pgmq's functions, third part: reading and finishing.
--
-- What is read is not due again before its vt; nobody need be heard of in between, and nothing
-- fences: a client of these functions may finish what another one has read.
--
-- The order is that of pgmq: by msg_id among what is due. No index has this order, and neither of
-- the two ways to it is always a short one. By msg_id one walks past all that is delayed or being
-- worked on, 0.15 s for a million delayed messages; by vt one finds what is due, and sorts all of
-- it. pgmq._pgtasks_first() looks for a short one:
--
--     a table of up to 50 pages is walked by msg_id, and no more need be known: to ask costs as
--         much as to read one message;
--     else the first messages by msg_id, a hundred more than are wanted: mostly enough are due;
--     else what is due by vt, up to a thousand: mostly that is all that is due;
--     else the first five thousand by msg_id.
--
-- Only where more than a thousand are due and five thousand that are not stand before them is the
-- order another one: the longest due first. Whatever the queue, a read looks at some six thousand
-- rows more than it is asked for, and at no more.

-- The messages to choose from: the lowest msg_id of those that are due, some more than are wanted,
-- for others may be reading them too. NULL when any will do that is due.
CREATE OR REPLACE FUNCTION pgmq._pgtasks_first(
    queue text, moment timestamptz, wanted bigint, condition jsonb
) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    small CONSTANT bigint := 50 * 8192;
    spare CONSTANT bigint := 100;
    few CONSTANT bigint := 1000;
    far CONSTANT bigint := 5000;
    candidates bigint[];
    nearest bigint[];
    seen bigint;
BEGIN
    IF pg_relation_size(format('pgmq.%I', queue)::regclass) <= small THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        'SELECT coalesce(array_agg(msg_id) FILTER (
            WHERE vt <= $1 AND ($2 IS NULL OR message @> $2)), ''{}''), count(*)
        FROM (SELECT msg_id, vt, message FROM pgmq.%I ORDER BY msg_id LIMIT $3) AS front', queue)
    INTO candidates, seen USING moment, condition, wanted + spare;
    IF seen < wanted + spare OR cardinality(candidates) >= wanted THEN
        RETURN candidates;
    END IF;
    EXECUTE format(
        'SELECT ARRAY(
            SELECT msg_id FROM pgmq.%I
            WHERE vt <= $1 AND ($2 IS NULL OR message @> $2)
            ORDER BY vt LIMIT $3
        )', queue)
    INTO candidates USING moment, condition, wanted + few;
    IF cardinality(candidates) < wanted + few THEN
        RETURN candidates;
    END IF;
    EXECUTE format(
        'SELECT ARRAY(
            SELECT msg_id
            FROM (SELECT msg_id, vt, message FROM pgmq.%I ORDER BY msg_id LIMIT $4) AS front
            WHERE vt <= $1 AND ($2 IS NULL OR message @> $2)
            LIMIT $3
        )', queue)
    INTO nearest USING moment, condition, wanted + spare, wanted + far;
    RETURN CASE WHEN cardinality(nearest) >= wanted THEN nearest ELSE candidates[:wanted] END;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.read(
    queue_name text, vt integer, qty integer, conditional jsonb DEFAULT '{}'
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
    moment timestamptz := clock_timestamp();
    wanted integer := coalesce(qty, 2147483647);
    condition jsonb := nullif(conditional, '{}');
    candidates bigint[] := pgmq._pgtasks_first(queue, moment, wanted, condition);
    got bigint;
BEGIN
    IF candidates = '{}' THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'UPDATE pgmq.%I
        SET vt = clock_timestamp() + $5, last_read_at = clock_timestamp(),
            read_ct = least(read_ct, 2147483646) + 1
        WHERE msg_id = ANY(ARRAY(
            SELECT msg_id FROM pgmq.%I
            WHERE ($1 IS NULL OR msg_id = ANY($1))
                AND vt <= $2 AND ($3 IS NULL OR message @> $3)
            ORDER BY msg_id LIMIT $4
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers', queue, queue)
    USING candidates, moment, condition, wanted, make_interval(secs => vt);
    GET DIAGNOSTICS got = ROW_COUNT;
    IF candidates IS NULL OR got >= least(wanted, cardinality(candidates)) THEN
        RETURN;
    END IF;
    -- Others are reading these.
    RETURN QUERY EXECUTE format(
        'UPDATE pgmq.%I
        SET vt = clock_timestamp() + $4, last_read_at = clock_timestamp(),
            read_ct = least(read_ct, 2147483646) + 1
        WHERE msg_id = ANY(ARRAY(
            SELECT msg_id FROM pgmq.%I
            WHERE vt <= $1 AND ($2 IS NULL OR message @> $2)
            ORDER BY vt LIMIT $3
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers', queue, queue)
    USING moment, condition, wanted - got, make_interval(secs => vt);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.pop(queue_name text, qty integer DEFAULT 1)
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
    moment timestamptz := clock_timestamp();
    wanted integer := coalesce(qty, 2147483647);
    candidates bigint[] := pgmq._pgtasks_first(queue, moment, wanted, NULL);
    got bigint;
BEGIN
    IF candidates = '{}' THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'DELETE FROM pgmq.%I
        WHERE msg_id = ANY(ARRAY(
            SELECT msg_id FROM pgmq.%I
            WHERE ($1 IS NULL OR msg_id = ANY($1)) AND vt <= $2
            ORDER BY msg_id LIMIT $3
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers', queue, queue)
    USING candidates, moment, wanted;
    GET DIAGNOSTICS got = ROW_COUNT;
    IF candidates IS NULL OR got >= least(wanted, cardinality(candidates)) THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'DELETE FROM pgmq.%I
        WHERE msg_id = ANY(ARRAY(
            SELECT msg_id FROM pgmq.%I
            WHERE vt <= $1
            ORDER BY vt LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers', queue, queue)
    USING moment, wanted - got;
END
$$;

-- Reading group by group
--
-- Messages are of one group whose headers have the same "x-pgmq-group", or none. Of a group only
-- those may be read before which all are due, in the order of their msg_id; a group whose first
-- message is delayed or being worked on is passed over. Who reads of a group holds the lock of its
-- first message until the end of the transaction, so that no second one reads of it meanwhile.
-- Each call looks at the whole queue.

-- One message of each of up to qty groups: the first.
CREATE OR REPLACE FUNCTION pgmq.read_grouped_head(queue_name text, vt integer, qty integer)
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH groups AS MATERIALIZED (
            SELECT min(msg_id) AS head FROM pgmq.%I
            GROUP BY coalesce(headers ->> ''x-pgmq-group'', ''_default_fifo_group'')
        ),
        heads AS MATERIALIZED (
            SELECT msg_id FROM groups JOIN pgmq.%I AS message ON msg_id = head
            WHERE vt <= $1
            ORDER BY msg_id LIMIT $2
            FOR UPDATE OF message SKIP LOCKED
        ),
        taken AS (
            UPDATE pgmq.%I
            SET vt = clock_timestamp() + $3, last_read_at = clock_timestamp(),
                read_ct = least(read_ct, 2147483646) + 1
            WHERE msg_id IN (SELECT msg_id FROM heads)
            RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
        )
        SELECT msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
        FROM taken ORDER BY msg_id', queue, queue, queue)
    USING clock_timestamp(), qty, make_interval(secs => vt);
END
$$;

-- The groups in turns: the first messages of all, then the second ones, until there are qty.
CREATE OR REPLACE FUNCTION pgmq.read_grouped_rr(queue_name text, vt integer, qty integer)
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH groups AS MATERIALIZED (
            SELECT coalesce(headers ->> ''x-pgmq-group'', ''_default_fifo_group'') AS name,
                min(msg_id) AS head,
                coalesce(min(msg_id) FILTER (WHERE vt > $1), 9223372036854775807) AS stop
            FROM pgmq.%I GROUP BY 1
        ),
        held AS MATERIALIZED (
            SELECT name, head, stop FROM groups JOIN pgmq.%I AS message ON msg_id = head
            WHERE vt <= $1
            ORDER BY head LIMIT $2
            FOR UPDATE OF message SKIP LOCKED
        ),
        chosen AS MATERIALIZED (
            SELECT msg_id, head, row_number() OVER (PARTITION BY head ORDER BY msg_id) AS layer
            FROM pgmq.%I JOIN held
                ON coalesce(headers ->> ''x-pgmq-group'', ''_default_fifo_group'') = name
                AND msg_id < stop
            ORDER BY layer, head LIMIT $2
        ),
        taken AS (
            UPDATE pgmq.%I AS message
            SET vt = clock_timestamp() + $3, last_read_at = clock_timestamp(),
                read_ct = least(read_ct, 2147483646) + 1
            FROM chosen WHERE message.msg_id = chosen.msg_id
            RETURNING message.*, layer, head
        )
        SELECT msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
        FROM taken ORDER BY layer, head', queue, queue, queue, queue)
    USING clock_timestamp(), qty, make_interval(secs => vt);
END
$$;

-- As much as there is of the group that has waited longest, then of the next, until there are qty.
CREATE OR REPLACE FUNCTION pgmq.read_grouped(queue_name text, vt integer, qty integer)
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
    moment timestamptz := clock_timestamp();
    wanted integer := coalesce(qty, 2147483647);
    chosen bigint[] := '{}';
    candidate record;
    is_held boolean;
BEGIN
    FOR candidate IN EXECUTE format(
        'SELECT head, array_agg(msg_id ORDER BY msg_id) AS ids
        FROM (
            SELECT msg_id, min(msg_id) OVER of_group AS head,
                min(msg_id) FILTER (WHERE vt > $1) OVER of_group AS stop
            FROM pgmq.%I
            WINDOW of_group AS (
                PARTITION BY coalesce(headers ->> ''x-pgmq-group'', ''_default_fifo_group'')
            )
        ) AS grouped
        WHERE stop IS NULL OR msg_id < stop
        GROUP BY head ORDER BY head', queue) USING moment
    LOOP
        EXIT WHEN cardinality(chosen) >= wanted;
        EXECUTE format(
            'SELECT true FROM pgmq.%I WHERE msg_id = $1 AND vt <= $2 FOR UPDATE SKIP LOCKED',
            queue) INTO is_held USING candidate.head, moment;
        IF is_held THEN
            chosen := chosen || (candidate.ids)[:wanted - cardinality(chosen)];
        END IF;
    END LOOP;
    RETURN QUERY EXECUTE format(
        'WITH taken AS (
            UPDATE pgmq.%I AS message
            SET vt = clock_timestamp() + $2, last_read_at = clock_timestamp(),
                read_ct = least(read_ct, 2147483646) + 1
            FROM unnest($1) WITH ORDINALITY AS chosen (id, place)
            WHERE msg_id = id
            RETURNING message.*, place
        )
        SELECT msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
        FROM taken ORDER BY place', queue)
    USING chosen, make_interval(secs => vt);
END
$$;

-- Waiting
--
-- As above, but when there is nothing they look again every poll_interval_ms, for
-- max_poll_seconds. The connection and its transaction are taken meanwhile.

CREATE OR REPLACE FUNCTION pgmq.read_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100,
    conditional jsonb DEFAULT '{}'
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    until timestamptz := clock_timestamp() + make_interval(secs => coalesce(max_poll_seconds, 5));
BEGIN
    LOOP
        RETURN QUERY SELECT * FROM pgmq.read(queue_name, vt, qty, conditional);
        EXIT WHEN FOUND OR clock_timestamp() >= until;
        PERFORM pg_sleep(least(
            greatest(coalesce(poll_interval_ms, 100), 1) / 1000.0,
            extract(epoch FROM until - clock_timestamp())
        ));
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.read_grouped_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    until timestamptz := clock_timestamp() + make_interval(secs => coalesce(max_poll_seconds, 5));
BEGIN
    LOOP
        RETURN QUERY SELECT * FROM pgmq.read_grouped(queue_name, vt, qty);
        EXIT WHEN FOUND OR clock_timestamp() >= until;
        PERFORM pg_sleep(least(
            greatest(coalesce(poll_interval_ms, 100), 1) / 1000.0,
            extract(epoch FROM until - clock_timestamp())
        ));
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.read_grouped_rr_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    until timestamptz := clock_timestamp() + make_interval(secs => coalesce(max_poll_seconds, 5));
BEGIN
    LOOP
        RETURN QUERY SELECT * FROM pgmq.read_grouped_rr(queue_name, vt, qty);
        EXIT WHEN FOUND OR clock_timestamp() >= until;
        PERFORM pg_sleep(least(
            greatest(coalesce(poll_interval_ms, 100), 1) / 1000.0,
            extract(epoch FROM until - clock_timestamp())
        ));
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.read_grouped_head_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    until timestamptz := clock_timestamp() + make_interval(secs => coalesce(max_poll_seconds, 5));
BEGIN
    LOOP
        RETURN QUERY SELECT * FROM pgmq.read_grouped_head(queue_name, vt, qty);
        EXIT WHEN FOUND OR clock_timestamp() >= until;
        PERFORM pg_sleep(least(
            greatest(coalesce(poll_interval_ms, 100), 1) / 1000.0,
            extract(epoch FROM until - clock_timestamp())
        ));
    END LOOP;
END
$$;

-- An index that pgmq's clients make for grouped reads. They get by without it.

CREATE OR REPLACE FUNCTION pgmq._create_fifo_index_if_not_exists(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
    index text := queue || '_fifo_idx';
BEGIN
    IF octet_length(index) > 63 THEN
        index := 'fifo_idx_' || md5(queue);
    END IF;
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON pgmq.%I USING gin (headers)', index, queue);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.create_fifo_index(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq._create_fifo_index_if_not_exists(queue_name);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.create_fifo_indexes_all() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq.create_fifo_index(queue_name) FROM pgmq.meta ORDER BY queue_name;
END
$$;

-- Finishing

CREATE OR REPLACE FUNCTION pgmq.delete(queue_name text, msg_id bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    EXECUTE format('DELETE FROM pgmq.%I WHERE msg_id = $1',
                   pgmq.format_table_name(queue_name, 'q')) USING msg_id;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted > 0;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.delete(queue_name text, msg_ids bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'DELETE FROM pgmq.%I WHERE msg_id = ANY($1) RETURNING msg_id',
        pgmq.format_table_name(queue_name, 'q'))
    USING msg_ids;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.archive(queue_name text, msg_id bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    archived bigint;
BEGIN
    EXECUTE format(
        'WITH ended AS (
            DELETE FROM pgmq.%I WHERE msg_id = $1
            RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
        )
        INSERT INTO pgmq.%I (msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers)
        SELECT msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers FROM ended',
        pgmq.format_table_name(queue_name, 'q'), pgmq.format_table_name(queue_name, 'a'))
    USING msg_id;
    GET DIAGNOSTICS archived = ROW_COUNT;
    RETURN archived > 0;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.archive(queue_name text, msg_ids bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH ended AS (
            DELETE FROM pgmq.%I WHERE msg_id = ANY($1)
            RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
        )
        INSERT INTO pgmq.%I (msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers)
        SELECT msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers FROM ended
        RETURNING msg_id',
        pgmq.format_table_name(queue_name, 'q'), pgmq.format_table_name(queue_name, 'a'))
    USING msg_ids;
END
$$;

-- When messages are due: so many seconds from now, or at a moment.

CREATE OR REPLACE FUNCTION pgmq.set_vt(queue_name text, msg_id bigint, vt integer)
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'UPDATE pgmq.%I SET vt = $2 WHERE msg_id = $1
        RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers',
        pgmq.format_table_name(queue_name, 'q'))
    USING msg_id, clock_timestamp() + make_interval(secs => vt);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.set_vt(queue_name text, msg_id bigint, vt timestamptz)
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'UPDATE pgmq.%I SET vt = $2 WHERE msg_id = $1
        RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers',
        pgmq.format_table_name(queue_name, 'q'))
    USING msg_id, vt;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.set_vt(queue_name text, msg_ids bigint[], vt integer)
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'UPDATE pgmq.%I SET vt = $2 WHERE msg_id = ANY($1)
        RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers',
        pgmq.format_table_name(queue_name, 'q'))
    USING msg_ids, clock_timestamp() + make_interval(secs => vt);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.set_vt(queue_name text, msg_ids bigint[], vt timestamptz)
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'UPDATE pgmq.%I SET vt = $2 WHERE msg_id = ANY($1)
        RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers',
        pgmq.format_table_name(queue_name, 'q'))
    USING msg_ids, vt;
END
$$;
