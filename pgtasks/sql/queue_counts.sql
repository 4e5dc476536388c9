-- How many messages of the queue are due, delayed for the first time, waiting to be tried again
-- or leased, how many are archived, and how long the oldest due one has been due, in seconds.
SELECT
    count(*) FILTER (WHERE vt <= now) AS due,
    count(*) FILTER (WHERE vt > now AND read_ct = 0) AS delayed,
    count(*) FILTER (WHERE vt > now AND read_ct > 0) AS leased_or_retrying,
    (SELECT count(*) FROM {a}) AS archived,
    extract(epoch FROM max(now - vt) FILTER (WHERE vt <= now AND isfinite(vt)))::float8
        AS oldest_due_seconds
FROM {q}, (SELECT clock_timestamp() AS now) AS clock
