-- Whether there is a schema of the demo's name, and what it says of itself.
SELECT obj_description(oid, 'pg_namespace') AS comment FROM pg_namespace WHERE nspname = 'pgtasks_demo'
