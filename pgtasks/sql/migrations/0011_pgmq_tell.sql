-- pgmq's functions, fourth part: telling of inserts, and topics.
--
-- A queue for which it is enabled tells of its inserts on the channel `pgmq.q_<queue>.INSERT`, when
-- they are committed, without a payload, and at most once in an interval. Workers of pgtasks need
-- none of it: they listen on a channel of their own.

-- Tell, unless somebody was told of this queue within the interval. The row that says so is locked
-- by those who tell only: whoever finds it recent enough waits for nobody.
CREATE OR REPLACE FUNCTION pgmq.notify_queue_listeners() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Triggers that are made elsewhere do not say the name of the queue.
    queue text := coalesce(TG_ARGV[0], substr(TG_TABLE_NAME, 3));
    length_ms integer;
    told_at timestamptz;
BEGIN
    SELECT throttle_interval_ms, last_notified_at INTO length_ms, told_at
    FROM pgmq.notify_insert_throttle WHERE queue_name = queue;
    IF length_ms > 0 THEN
        IF told_at > clock_timestamp() - make_interval(secs => length_ms / 1000.0) THEN
            RETURN NULL;
        END IF;
        UPDATE pgmq.notify_insert_throttle SET last_notified_at = clock_timestamp()
        WHERE queue_name = queue AND last_notified_at = told_at;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM pg_notify('pgmq.' || TG_TABLE_NAME || '.' || TG_OP, NULL);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.enable_notify_insert(
    queue_name text, throttle_interval_ms integer DEFAULT 250
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    IF throttle_interval_ms IS NULL OR throttle_interval_ms < 0 THEN
        RAISE EXCEPTION 'throttle_interval_ms is % and cannot be negative', throttle_interval_ms;
    ELSIF NOT EXISTS (
        SELECT FROM pgmq.meta WHERE meta.queue_name = enable_notify_insert.queue_name
    ) THEN
        RAISE EXCEPTION 'there is no queue %', quote_nullable(queue_name)
            USING HINT = 'Make it: SELECT pgmq.create(...).';
    ELSIF octet_length('pgmq.' || queue || '.INSERT') > 63 THEN
        RAISE EXCEPTION 'the name of the queue % is too long for that of a channel', queue_name;
    END IF;
    INSERT INTO pgmq.notify_insert_throttle AS throttle (queue_name, throttle_interval_ms)
    VALUES (enable_notify_insert.queue_name, enable_notify_insert.throttle_interval_ms)
    ON CONFLICT ON CONSTRAINT notify_insert_throttle_queue_name_key DO UPDATE
    SET throttle_interval_ms = excluded.throttle_interval_ms, last_notified_at = to_timestamp(0);
    EXECUTE format(
        'DROP TRIGGER IF EXISTS trigger_notify_queue_insert_listeners ON pgmq.%I', queue);
    EXECUTE format(
        'CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners
        AFTER INSERT ON pgmq.%I DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION pgmq.notify_queue_listeners(%L)', queue, queue_name);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.disable_notify_insert(queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    EXECUTE format(
        'DROP TRIGGER IF EXISTS trigger_notify_queue_insert_listeners ON pgmq.%I', queue);
    DELETE FROM pgmq.notify_insert_throttle AS throttle
    WHERE throttle.queue_name = disable_notify_insert.queue_name;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.update_notify_insert(
    queue_name text, throttle_interval_ms integer
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF throttle_interval_ms IS NULL OR throttle_interval_ms < 0 THEN
        RAISE EXCEPTION 'throttle_interval_ms is % and cannot be negative', throttle_interval_ms;
    END IF;
    UPDATE pgmq.notify_insert_throttle AS throttle
    SET throttle_interval_ms = update_notify_insert.throttle_interval_ms,
        last_notified_at = to_timestamp(0)
    WHERE throttle.queue_name = update_notify_insert.queue_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the queue % does not tell of its inserts', quote_nullable(queue_name)
            USING HINT = 'Make it do so: SELECT pgmq.enable_notify_insert(...).';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.list_notify_insert_throttles()
RETURNS TABLE (queue_name text, throttle_interval_ms integer, last_notified_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT throttle.queue_name::text, throttle.throttle_interval_ms, throttle.last_notified_at
        FROM pgmq.notify_insert_throttle AS throttle ORDER BY throttle.queue_name;
END
$$;

-- Topics: a message that is sent under a key goes into each queue that is bound to a pattern which
-- the key fits.

CREATE OR REPLACE FUNCTION pgmq.validate_routing_key(routing_key text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF routing_key IS NULL OR routing_key = '' THEN
        RAISE EXCEPTION 'a routing key cannot be empty';
    ELSIF length(routing_key) > 255 THEN
        RAISE EXCEPTION 'a routing key has at most 255 characters, and this one %',
            length(routing_key);
    ELSIF routing_key !~ '^[A-Za-z0-9._-]+$' THEN
        RAISE EXCEPTION 'a routing key is of A-Z, a-z, 0-9, ".", "_" and "-": %',
            quote_literal(routing_key);
    ELSIF routing_key ~ '^\.|\.$|\.\.' THEN
        RAISE EXCEPTION 'a routing key has no dot at either end, and no two together: %',
            quote_literal(routing_key);
    END IF;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.validate_topic_pattern(pattern text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pattern IS NULL OR pattern = '' THEN
        RAISE EXCEPTION 'a pattern cannot be empty';
    ELSIF length(pattern) > 255 THEN
        RAISE EXCEPTION 'a pattern has at most 255 characters, and this one %', length(pattern);
    ELSIF pattern !~ '^[A-Za-z0-9._*#-]+$' THEN
        RAISE EXCEPTION 'a pattern is of A-Z, a-z, 0-9, ".", "_", "-", "*" and "#": %',
            quote_literal(pattern);
    ELSIF pattern ~ '^\.|\.$|\.\.' THEN
        RAISE EXCEPTION 'a pattern has no dot at either end, and no two together: %',
            quote_literal(pattern);
    ELSIF pattern ~ '[*#][*#]' THEN
        RAISE EXCEPTION 'in a pattern there is something between two of "*" and "#": %',
            quote_literal(pattern);
    END IF;
    RETURN true;
END
$$;

-- Nothing happens when it is bound already.
CREATE OR REPLACE FUNCTION pgmq.bind_topic(pattern text, queue_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq.validate_topic_pattern(pattern);
    IF NOT EXISTS (SELECT FROM pgmq.meta WHERE meta.queue_name = bind_topic.queue_name) THEN
        RAISE EXCEPTION 'there is no queue %', quote_nullable(queue_name)
            USING HINT = 'Make it: SELECT pgmq.create(...).';
    END IF;
    INSERT INTO pgmq.topic_bindings AS binding (pattern, queue_name)
    VALUES (bind_topic.pattern, bind_topic.queue_name)
    ON CONFLICT DO NOTHING;
END
$$;

-- False when it was not bound.
CREATE OR REPLACE FUNCTION pgmq.unbind_topic(pattern text, queue_name text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM pgmq.topic_bindings AS binding
    WHERE binding.pattern = unbind_topic.pattern AND binding.queue_name = unbind_topic.queue_name;
    RETURN FOUND;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.list_topic_bindings()
RETURNS TABLE (pattern text, queue_name text, bound_at timestamptz, compiled_regex text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT binding.pattern, binding.queue_name, binding.bound_at, binding.compiled_regex
        FROM pgmq.topic_bindings AS binding
        ORDER BY binding.bound_at DESC, binding.pattern, binding.queue_name;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.list_topic_bindings(queue_name text)
RETURNS TABLE (pattern text, queue_name text, bound_at timestamptz, compiled_regex text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT binding.pattern, binding.queue_name, binding.bound_at, binding.compiled_regex
    FROM pgmq.topic_bindings AS binding WHERE binding.queue_name = $1
    ORDER BY binding.bound_at DESC, binding.pattern;
END;

-- The bindings that a message under this key would go by; a queue may be among them twice.
CREATE OR REPLACE FUNCTION pgmq.test_routing(routing_key text)
RETURNS TABLE (pattern text, queue_name text, compiled_regex text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgmq.validate_routing_key(routing_key);
    RETURN QUERY
        SELECT binding.pattern, binding.queue_name, binding.compiled_regex
        FROM pgmq.topic_bindings AS binding
        WHERE routing_key ~ binding.compiled_regex
        ORDER BY binding.pattern, binding.queue_name;
END
$$;

-- The number of queues it was sent to: to each once, however many of its patterns fit.
CREATE OR REPLACE FUNCTION pgmq.send_topic(
    routing_key text, msg jsonb, headers jsonb, delay integer
) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text;
    queues integer := 0;
BEGIN
    FOR queue IN SELECT DISTINCT queue_name FROM pgmq.test_routing(routing_key) ORDER BY 1 LOOP
        PERFORM pgmq.send(queue, msg, headers, delay);
        queues := queues + 1;
    END LOOP;
    RETURN queues;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_topic(routing_key text, msg jsonb) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pgmq.send_topic(routing_key, msg, NULL, 0);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_topic(
    routing_key text, msg jsonb, delay integer
) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pgmq.send_topic(routing_key, msg, NULL, delay);
END
$$;

-- All to each queue; where each message went, and under which number.
CREATE OR REPLACE FUNCTION pgmq.send_batch_topic(
    routing_key text, msgs jsonb[], headers jsonb[], delay timestamptz
) RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue text;
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, headers);
    FOR queue IN
        SELECT DISTINCT routed.queue_name FROM pgmq.test_routing(routing_key) AS routed ORDER BY 1
    LOOP
        RETURN QUERY SELECT queue, id FROM pgmq._send_batch(queue, msgs, headers, delay) AS id;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch_topic(
    routing_key text, msgs jsonb[]
) RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(
        routing_key, msgs, NULL::jsonb[], clock_timestamp());
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch_topic(
    routing_key text, msgs jsonb[], delay integer
) RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(
        routing_key, msgs, NULL::jsonb[], clock_timestamp() + make_interval(secs => delay));
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch_topic(
    routing_key text, msgs jsonb[], delay timestamptz
) RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(
        routing_key, msgs, NULL::jsonb[], delay);
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch_topic(
    routing_key text, msgs jsonb[], headers jsonb[]
) RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(
        routing_key, msgs, headers, clock_timestamp());
END
$$;

CREATE OR REPLACE FUNCTION pgmq.send_batch_topic(
    routing_key text, msgs jsonb[], headers jsonb[], delay integer
) RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(
        routing_key, msgs, headers, clock_timestamp() + make_interval(secs => delay));
END
$$;
