-- For the messages after the number $1, which were sent one at a time: milliseconds from being
-- stored until a worker had them, and until they were done; median and longest.
WITH single AS (
    SELECT extract(epoch FROM last_read_at - enqueued_at)::float8 * 1000 AS picked_up,
        extract(epoch FROM archived_at - enqueued_at)::float8 * 1000 AS ended
    FROM pgmq.a_pgtasks_demo
    WHERE msg_id > $1
)
SELECT count(*) AS messages,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY picked_up) AS picked_up, max(picked_up) AS picked_up_max,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY ended) AS ended, max(ended) AS ended_max
FROM single
