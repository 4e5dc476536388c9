-- Until the end of this transaction be the only one to make a template; while it waits, no limit
-- on idle transactions is to end it.
SELECT set_config('idle_in_transaction_session_timeout', '0', true),
    pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('pgtasks.template'))
