-- How the tables of queues and archives and our own are doing: rows, dead rows, when they were last
-- vacuumed, whether that is switched off, and how far their oldest transaction is from wraparound.
SELECT pg_catalog.format('%I.%I', nspname, pg_class.relname) AS name,
    n_live_tup AS rows, n_dead_tup AS dead_rows,
    extract(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8
        AS vacuumed_seconds_ago,
    coalesce('autovacuum_enabled=false' = ANY(reloptions)
        OR 'autovacuum_enabled=off' = ANY(reloptions), false) AS is_never_vacuumed,
    age(relfrozenxid) AS frozen_age,
    mxid_age(relminmxid) AS multixact_age
FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
LEFT JOIN pg_stat_user_tables ON pg_stat_user_tables.relid = pg_class.oid
WHERE relkind = 'r' AND (
    nspname = 'pgtasks' OR (nspname = 'pgmq' AND pg_class.relname ~ '^[aq]_'::text)
)
ORDER BY n_dead_tup DESC NULLS LAST, 1
