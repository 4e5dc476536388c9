-- How many messages up to the number $1 ended, and in how many seconds from the first pick-up.
SELECT count(*) AS messages,
    extract(epoch FROM max(archived_at) - min(last_read_at))::float8 AS seconds
FROM pgmq.a_pgtasks_demo
WHERE msg_id <= $1
