-- Tell listening workers to look at the queues $1, which have been committed before. A commit that
-- notifies holds a lock of the whole server until it is done: this one does not wait for the disk.
SELECT pg_notify('pgtasks', queue), set_config('synchronous_commit', 'off', true)
FROM pg_catalog.unnest($1::text[]) AS queue
