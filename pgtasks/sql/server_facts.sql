-- What doctor asks of the server itself.
SELECT current_setting('server_version') AS version,
    current_setting('server_version_num')::integer AS version_number,
    current_database() AS database, current_user AS role, pg_backend_pid() AS backend,
    pg_is_in_recovery() AS is_standby,
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    clock_timestamp() AS clock,
    -- Not to_regclass: it refuses a role without rights on the schema.
    EXISTS (
        SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = 'pgtasks' AND relname = 'migration'
    ) AS is_installed,
    pg_catalog.has_database_privilege(current_database(), 'CREATE') AS may_create
