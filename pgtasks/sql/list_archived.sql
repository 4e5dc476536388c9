-- Up to $1 archived messages of the queue, the latest first, from the task named $2 when one is
-- named, with the outcome $3 when one is named.
SELECT msg_id, read_ct, pgtasks.clamped(enqueued_at) AS enqueued_at,
    pgtasks.clamped(last_read_at) AS last_read_at, pgtasks.clamped(archived_at) AS archived_at,
    left(message::text, 2000) AS message, left(headers::text, 100000) AS headers,
    message #>> '{metadata,worker_name}' AS task, message #>> '{metadata,id}' AS id,
    headers #>> '{pgtasks,outcome}' AS outcome
FROM {a}
WHERE ($2::text IS NULL OR message #>> '{metadata,worker_name}' = $2)
    AND ($3::text IS NULL OR headers #>> '{pgtasks,outcome}' = $3)
ORDER BY {a}.archived_at DESC, msg_id DESC
LIMIT $1
