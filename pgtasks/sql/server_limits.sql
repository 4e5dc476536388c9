-- Settings and states of the server that may get into a worker's way: how full the queue of
-- notifications is, how many connections are used, which process serves us, whether this role sees
-- what other roles' sessions do, and the time-outs that hold for this role: how long each is, in
-- milliseconds, and the statement to which it would be changed (null where it was not the server
-- that set it).
SELECT pg_notification_queue_usage() AS notification_queue,
    pg_backend_pid() AS backend,
    -- Not those of pg_stat_activity: it tells a role little of the sessions of others.
    (SELECT sum(numbackends) FROM pg_stat_database)::integer AS connections,
    pg_has_role('pg_read_all_stats'::name, 'USAGE'::text) AS sees_all,
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer AS max_connections,
    current_setting('autovacuum') = 'on' AS autovacuum,
    age(datfrozenxid) AS frozen_age,
    mxid_age(datminmxid) AS multixact_age,
    current_database() AS database,
    (SELECT pg_catalog.jsonb_object_agg(name, pg_catalog.jsonb_build_array(
        setting::bigint,
        CASE source
            WHEN 'client' THEN NULL
            WHEN 'database' THEN pg_catalog.format('ALTER DATABASE %I', current_database())
            WHEN 'database user' THEN pg_catalog.format(
                'ALTER ROLE %I IN DATABASE %I', session_user, current_database())
            ELSE pg_catalog.format('ALTER ROLE %I', session_user)
        END))::text
    FROM pg_settings WHERE name IN (
        'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
        'idle_session_timeout', 'transaction_timeout'
    )) AS timeouts
FROM pg_database
WHERE datname = current_database()
