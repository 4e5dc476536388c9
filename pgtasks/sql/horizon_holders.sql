-- What keeps old row versions from being removed, the oldest first, at most $1: transactions of
-- this server that have written or hold a snapshot, standbys that tell of theirs, prepared
-- transactions and replication slots; how many transactions and how many seconds old each is (null
-- where nobody knows), whose, and the statement that ends it.
SELECT kind, owner, transactions, seconds, doing, ending FROM (
    SELECT CASE backend_type WHEN 'walsender' THEN 'standby' ELSE 'transaction' END AS kind,
        -- Between two statements of READ COMMITTED there is no snapshot; what it wrote holds them up.
        greatest(age(backend_xmin), age(backend_xid)) AS transactions,
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds,
        pg_catalog.format('pid %s, role %s, database %s, application %s', pid,
            coalesce(usename, '?'), coalesce(datname, '?'),
            coalesce(nullif(application_name, ''), '?')) AS owner,
        pg_catalog.concat_ws(': ', state, left(query, 200)) AS doing,
        pg_catalog.format('SELECT pg_terminate_backend(%s)', pid) AS ending
    FROM pg_stat_activity
    WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
        -- Another database's does not hold up ours, but a walsender's does.
        AND (datname = current_database() OR datname IS NULL)
    UNION ALL
    SELECT 'prepared transaction', age(transaction),
        extract(epoch FROM clock_timestamp() - prepared)::float8,
        pg_catalog.format('gid %s, role %s', gid, owner), 'prepared',
        pg_catalog.format('ROLLBACK PREPARED %L', gid)
    FROM pg_prepared_xacts
    WHERE database = current_database()
    UNION ALL
    SELECT 'replication slot', greatest(age(xmin), age(catalog_xmin)), NULL,
        pg_catalog.format('slot %s', slot_name),
        CASE WHEN active THEN 'active' ELSE 'not active' END,
        pg_catalog.format('SELECT pg_drop_replication_slot(%L)', slot_name)
    FROM pg_replication_slots
    WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
) AS holder
ORDER BY transactions DESC, kind, owner
LIMIT $1
