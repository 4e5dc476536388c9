-- The tables of queues from which this role may claim, and of their archives, with the rights on
-- each that a worker needs and this role has not.
SELECT pg_catalog.format('pgmq.%I', pg_class.relname) AS name, ARRAY(
    SELECT needed
    FROM pg_catalog.unnest(CASE
        WHEN pg_class.relname ~ '^q_'::text THEN '{SELECT,UPDATE,DELETE}'::text[]
        ELSE '{SELECT,INSERT}'::text[]
    END) AS needed
    WHERE NOT has_table_privilege(pg_class.oid, needed)
) AS lacking
FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
JOIN pg_class AS queue ON queue.relnamespace = pg_class.relnamespace
    AND queue.relname = pg_catalog.concat('q_', substr(pg_class.relname::text, 3))::name
WHERE nspname = 'pgmq' AND pg_class.relname ~ '^[aq]_'::text
    AND pg_class.relkind = ANY('{r,p}'::"char"[]) AND queue.relkind = ANY('{r,p}'::"char"[])
    AND has_table_privilege(queue.oid, 'UPDATE'::text)
ORDER BY 1
