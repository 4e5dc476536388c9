-- The $1 most frequent task names in the queue, with how many messages name each and since when
-- the oldest waits.
SELECT message #>> '{metadata,worker_name}'::text[] AS task, count(*) AS messages,
    pgtasks.clamped(min(enqueued_at)) AS oldest
FROM {q}
GROUP BY 1
ORDER BY 2 DESC
LIMIT $1
