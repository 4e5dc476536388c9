-- The version of a pgmq that was installed by its SQL, as its own list of migrations has it.
SELECT version FROM pgmq.__pgmq_migrations ORDER BY run_at DESC LIMIT 1
