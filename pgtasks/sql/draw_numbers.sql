-- The numbers of the next $1 messages of the queue, in order, for whoever copies them into it, and
-- when they become due, after the delay $2 or at the moment $3: in microseconds since 2000, as
-- COPY reads it. NULL instead of numbers where this role may not draw them or not copy: COPY needs
-- the right to insert whole rows, and knows no row security.
WITH source AS MATERIALIZED ( -- else it would be looked for once for each number
    SELECT pg_get_serial_sequence('{q}'::text, 'msg_id'::text)::regclass AS numbers
)
SELECT CASE WHEN has_sequence_privilege(numbers::oid, 'USAGE'::text)
        AND has_table_privilege('{q}'::regclass::oid, 'INSERT'::text)
        AND NOT row_security_active('{q}'::regclass::oid)
    THEN ARRAY(SELECT nextval(numbers) FROM pg_catalog.generate_series(1, $1::integer)) END,
    (extract(epoch FROM
        coalesce($3::timestamptz, clock_timestamp() + $2::interval)
        - '2000-01-01 00:00:00+00'::timestamptz
    ) * 1000000::numeric)::bigint
FROM source
