-- What keeps old row versions from being removed, the oldest first, at most $1: transactions of
-- this server with a snapshot, prepared transactions and replication slots; how many transactions
-- and how many seconds old each is (null where nobody knows), and whose.
SELECT kind, owner, transactions, seconds, doing FROM (
    SELECT 'transaction' AS kind, age(backend_xmin) AS transactions,
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds,
        pg_catalog.format('pid %s, role %s, database %s, application %s', pid,
            coalesce(usename, '?'), coalesce(datname, '?'),
            coalesce(nullif(application_name, ''), '?')) AS owner,
        pg_catalog.concat_ws(': ', state, left(query, 200)) AS doing
    FROM pg_stat_activity
    WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
        -- Another database's snapshot does not hold up ours, but a walsender's does.
        AND (datname = current_database() OR datname IS NULL)
    UNION ALL
    SELECT 'prepared transaction', age(transaction),
        extract(epoch FROM clock_timestamp() - prepared)::float8,
        pg_catalog.format('gid %s, role %s', gid, owner), 'prepared'
    FROM pg_prepared_xacts
    WHERE database = current_database()
    UNION ALL
    SELECT 'replication slot', greatest(age(xmin), age(catalog_xmin)), NULL,
        pg_catalog.format('slot %s', slot_name),
        CASE WHEN active THEN 'active' ELSE 'not active' END
    FROM pg_replication_slots
    WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
) AS holder
ORDER BY transactions DESC, kind, owner
LIMIT $1
