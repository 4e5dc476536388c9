-- Settings and states of the server that may get into a worker's way: how full the queue of
-- notifications is, how many connections are used, which process serves us, and the time-outs that
-- hold for this role, in milliseconds (null where this server has no such setting).
SELECT pg_notification_queue_usage() AS notification_queue,
    pg_backend_pid() AS backend,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer AS max_connections,
    current_setting('autovacuum') = 'on' AS autovacuum,
    age(datfrozenxid) AS frozen_age,
    current_setting('autovacuum_freeze_max_age')::integer AS freeze_max_age,
    (SELECT pg_catalog.jsonb_object_agg(name, setting::bigint)::text
    FROM pg_settings WHERE name IN (
        'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
        'idle_session_timeout', 'transaction_timeout'
    )) AS timeouts
FROM pg_database
WHERE datname = current_database()
