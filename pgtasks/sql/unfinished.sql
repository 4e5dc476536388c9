-- How many messages of the queue are due, or were claimed at $1 or later and run now. One that
-- waits to be tried again has had as many deliveries as have ended in a way that was written down.
-- Where nobody knows when a message was claimed, all that run are counted.
SELECT count(*)
FROM {q}
WHERE vt <= clock_timestamp() OR (
    {wide: last_read_at >= $1::timestamptz|$1::timestamptz IS NOT NULL} AND read_ct::numeric > (
    SELECT coalesce(sum(CASE WHEN jsonb_typeof(value) = 'number' THEN value::numeric END), 0)
    FROM jsonb_each(
        CASE WHEN jsonb_typeof(headers -> 'pgtasks'::text) = 'object'
            THEN headers -> 'pgtasks'::text
        END
    )
    WHERE key IN ('failures', 'snoozes', 'releases', 'unknown', 'elsewhere')
))
