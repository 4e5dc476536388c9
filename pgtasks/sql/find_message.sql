-- One message by its id in the queue ($1) or by its own id ($2), waiting, leased or archived.
SELECT place, msg_id, read_ct, pgtasks.clamped(enqueued_at) AS enqueued_at,
    pgtasks.clamped(last_read_at) AS last_read_at, pgtasks.clamped(vt) AS vt,
    pgtasks.clamped(archived_at) AS archived_at, vt <= clock_timestamp() AS is_due,
    message::text, headers::text
FROM (
    SELECT 'queue' AS place, msg_id, read_ct, enqueued_at,
        {wide: last_read_at|NULL::timestamptz AS last_read_at}, vt,
        NULL::timestamptz AS archived_at, message, headers
    FROM {q}
    UNION ALL
    SELECT 'archive', msg_id, read_ct, enqueued_at, {wide: last_read_at|NULL}, vt, archived_at,
        message, headers
    FROM {a}
) AS everywhere
WHERE msg_id = $1 OR ($2::text IS NOT NULL AND message #>> '{metadata,id}'::text[] = $2)
LIMIT 1
