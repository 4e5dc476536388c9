-- Drop all that the demo made. A worker that still uses it is not waited for longer than this.
SET LOCAL lock_timeout = '4s';
SELECT pg_advisory_xact_lock(hashtext('pgmq.queue_pgtasks_demo'));
DROP SCHEMA IF EXISTS pgtasks_demo CASCADE;
DROP TABLE IF EXISTS pgmq.q_pgtasks_demo, pgmq.a_pgtasks_demo;
DELETE FROM pgmq.meta WHERE queue_name = 'pgtasks_demo';
