-- The pgmq of this database, if another program has installed it: as which extension, whether it has
-- a list of its migrations that this role may read, the columns of its record of a message, and its
-- functions. No row when there is none, or when it is our own: it bears our mark, then, as
-- pgtasks.owns_pgmq() says too, which is not there yet when this is asked for the first time.
SELECT extversion::text AS extension,
    EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = pg_namespace.oid AND relname = '__pgmq_migrations'
            AND pg_catalog.has_schema_privilege(pg_namespace.oid, 'USAGE')
            AND pg_catalog.has_table_privilege(pg_class.oid, 'SELECT')
    ) AS has_migrations,
    ARRAY(
        SELECT attname::text
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = pg_namespace.oid AND relname = 'message_record'
            AND attnum > 0 AND NOT attisdropped
        ORDER BY attnum
    ) AS record,
    ARRAY(
        SELECT proname::text || '(' || pg_catalog.oidvectortypes(proargtypes) || ')'
        FROM pg_proc
        WHERE pronamespace = pg_namespace.oid
    ) AS functions
FROM pg_namespace
LEFT JOIN pg_extension ON extname = 'pgmq'
WHERE nspname = 'pgmq' AND (
    extname IS NOT NULL
    OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = pg_namespace.oid) AND NOT EXISTS (
        SELECT
        FROM pg_type JOIN pg_description ON objoid = pg_type.oid
        WHERE typnamespace = pg_namespace.oid AND typname = 'message_record'
            AND classoid = pg_type.tableoid AND objsubid = 0
            AND description ~ '^made by pgtasks'::text
    )
)
