-- One message by its id in the queue ($1) or by its own id ($2), waiting, leased or archived.
SELECT 'queue' AS place, msg_id, read_ct, enqueued_at, last_read_at, vt, NULL::timestamptz AS archived_at,
    vt <= clock_timestamp() AS is_due, message::text, headers::text
FROM {q}
WHERE msg_id = $1 OR ($2::text IS NOT NULL AND message #>> '{metadata,id}' = $2)
UNION ALL
SELECT 'archive', msg_id, read_ct, enqueued_at, last_read_at, vt, archived_at,
    false, message::text, headers::text
FROM {a}
WHERE msg_id = $1 OR ($2::text IS NOT NULL AND message #>> '{metadata,id}' = $2)
LIMIT 1
