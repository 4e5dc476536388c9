-- What differs as soon as a transaction has ended that may have written, in any database of the
-- server; and with every connection, since what another server says is no answer.
SELECT pg_backend_pid()::text || ' '::text || pg_current_snapshot()::text
