-- Those of the queues $1 that have at least $2 dead rows and more than live ones: how many, and
-- whether this role may vacuum them.
SELECT queue, pg_stat_get_dead_tuples(pg_class.oid) AS dead_rows,
    pg_has_role(relowner, 'USAGE'::text) OR CASE
        -- A right since PostgreSQL 17.
        WHEN current_setting('server_version_num')::integer >= 170000
        THEN has_table_privilege(pg_class.oid, 'MAINTAIN'::text)
        ELSE false
    END AS may_vacuum
FROM pg_catalog.unnest($1::text[]) AS asked (queue)
JOIN pg_class ON pg_class.oid = to_regclass(pg_catalog.format('pgmq.%I', 'q_'::text || queue))
WHERE pg_stat_get_dead_tuples(pg_class.oid)
    >= greatest($2::bigint, pg_stat_get_live_tuples(pg_class.oid))
ORDER BY 2 DESC
