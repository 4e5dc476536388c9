-- Up to $1 messages of the queue, the next due first, from the task named $2 when one is named.
SELECT msg_id, read_ct, pgtasks.clamped(enqueued_at) AS enqueued_at,
    {wide: pgtasks.clamped(last_read_at)|NULL::timestamptz} AS last_read_at,
    pgtasks.clamped(vt) AS vt, vt <= clock_timestamp() AS is_due,
    left(message::text, 2000) AS message, left(headers::text, 100000) AS headers,
    message #>> '{metadata,worker_name}'::text[] AS task, message #>> '{metadata,id}'::text[] AS id
FROM {q}
WHERE $2::text IS NULL OR message #>> '{metadata,worker_name}'::text[] = $2
ORDER BY {q}.vt, msg_id
LIMIT $1
