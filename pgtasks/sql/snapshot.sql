-- What differs as soon as a transaction has ended that may have written, in any database of the
-- server; and with every connection and server, since what another one says is no answer.
SELECT pg_current_snapshot()::text || ' '::text || pg_backend_pid()::text || ' '::text
    || pg_postmaster_start_time()::text
