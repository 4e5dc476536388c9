-- pgmq's functions, second part: sending.
--
-- Messages are due after a delay in seconds, from when they are sent and not from the start of the
-- transaction, or at a moment. The six forms of send() are alike, and each does its work itself: to
-- call another costs as much as the insertion. Those of send_batch() meet in one.

CREATE OR REPLACE FUNCTION pgmq.send(queue_name text, msg jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'INSERT INTO pgmq.%I (vt, message, headers) VALUES ($1, $2, $3) RETURNING msg_id',
        pgmq.format_table_name(queue_name, 'q'))
    USING clock_timestamp(), msg, NULL::jsonb;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send(queue_name text, msg jsonb, delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'INSERT INTO pgmq.%I (vt, message, headers) VALUES ($1, $2, $3) RETURNING msg_id',
        pgmq.format_table_name(queue_name, 'q'))
    USING clock_timestamp() + make_interval(secs => delay), msg, NULL::jsonb;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send(
    queue_name text, msg jsonb, delay timestamptz
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'INSERT INTO pgmq.%I (vt, message, headers) VALUES ($1, $2, $3) RETURNING msg_id',
        pgmq.format_table_name(queue_name, 'q'))
    USING delay, msg, NULL::jsonb;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send(queue_name text, msg jsonb, headers jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'INSERT INTO pgmq.%I (vt, message, headers) VALUES ($1, $2, $3) RETURNING msg_id',
        pgmq.format_table_name(queue_name, 'q'))
    USING clock_timestamp(), msg, headers;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send(
    queue_name text, msg jsonb, headers jsonb, delay integer
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'INSERT INTO pgmq.%I (vt, message, headers) VALUES ($1, $2, $3) RETURNING msg_id',
        pgmq.format_table_name(queue_name, 'q'))
    USING clock_timestamp() + make_interval(secs => delay), msg, headers;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send(
    queue_name text, msg jsonb, headers jsonb, delay timestamptz
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'INSERT INTO pgmq.%I (vt, message, headers) VALUES ($1, $2, $3) RETURNING msg_id',
        pgmq.format_table_name(queue_name, 'q'))
    USING delay, msg, headers;
END
$$;

-- What the forms for many have in common.

CREATE OR REPLACE FUNCTION pgmq._validate_batch_params(msgs jsonb[], headers jsonb[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF msgs IS NULL OR cardinality(msgs) = 0 THEN
        RAISE EXCEPTION 'there are no messages to send: msgs is empty or NULL';
    ELSIF cardinality(headers) <> cardinality(msgs) THEN
        RAISE EXCEPTION 'there are % headers for % messages: give each message its own, or none',
            cardinality(headers), cardinality(msgs);
    END IF;
END
$$;

-- The numbers are in the order of the messages.
CREATE OR REPLACE FUNCTION pgmq._send_batch(
    queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'INSERT INTO pgmq.%I (vt, message, headers)
        SELECT $1, sent.message, sent.headers
        FROM unnest($2, $3) WITH ORDINALITY AS sent (message, headers, place)
        ORDER BY place
        RETURNING msg_id', pgmq.format_table_name(queue_name, 'q'))
    USING delay, msgs, headers;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[]) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, NULL::jsonb[]);
    RETURN QUERY SELECT * FROM pgmq._send_batch(
        queue_name, msgs, NULL::jsonb[], clock_timestamp());
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch(
    queue_name text, msgs jsonb[], delay integer
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, NULL::jsonb[]);
    RETURN QUERY SELECT * FROM pgmq._send_batch(
        queue_name, msgs, NULL::jsonb[], clock_timestamp() + make_interval(secs => delay));
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch(
    queue_name text, msgs jsonb[], delay timestamptz
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, NULL::jsonb[]);
    RETURN QUERY SELECT * FROM pgmq._send_batch(
        queue_name, msgs, NULL::jsonb[], delay);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch(
    queue_name text, msgs jsonb[], headers jsonb[]
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, headers);
    RETURN QUERY SELECT * FROM pgmq._send_batch(
        queue_name, msgs, headers, clock_timestamp());
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch(
    queue_name text, msgs jsonb[], headers jsonb[], delay integer
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, headers);
    RETURN QUERY SELECT * FROM pgmq._send_batch(
        queue_name, msgs, headers, clock_timestamp() + make_interval(secs => delay));
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch(
    queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, headers);
    RETURN QUERY SELECT * FROM pgmq._send_batch(
        queue_name, msgs, headers, delay);
END
$$;
