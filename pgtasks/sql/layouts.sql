-- The queues whose tables are not laid out as ours are, since another program's pgmq made them: is
-- the column last_read_at there, are they partitioned, is the column headers there? '*' stands for
-- the queues that this pgmq is yet to make. Names are compared as names: as text no index serves
-- them, and with 1,500 queues this took longer than a worker waits.
SELECT queue, is_wide, is_partitioned, has_headers
FROM (
    SELECT substr(relname::text, 3) AS queue,
        NOT EXISTS (
            SELECT FROM (VALUES ('q_'), ('a_')) AS tables (prefix)
            WHERE NOT EXISTS (
                SELECT
                FROM pg_class AS either JOIN pg_attribute ON attrelid = either.oid
                WHERE either.relnamespace = pg_namespace.oid
                    AND either.relname = (prefix || substr(pg_class.relname::text, 3))::name
                    AND attname = 'last_read_at' AND NOT attisdropped
            )
        ) AS is_wide,
        relkind = 'p' AS is_partitioned,
        EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = pg_class.oid AND attname = 'headers' AND NOT attisdropped
        ) AS has_headers
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'pgmq' AND relkind IN ('r', 'p') AND NOT relispartition
        AND relname::text ~ '^q_'::text
    UNION ALL
    SELECT '*', pg_catalog.bool_or(attname = 'last_read_at'), false,
        pg_catalog.bool_or(attname = 'headers')
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE nspname = 'pgmq' AND relname = 'message_record' AND NOT attisdropped
    GROUP BY pg_class.oid
) AS known
WHERE is_partitioned OR NOT is_wide OR NOT has_headers
