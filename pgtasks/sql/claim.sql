-- Claim up to $1 due messages, the longest due first: a lease of $2 on each. $3 is the oldest
-- due moment to look at. Moments are told in seconds since 1970: a worker takes 0.5 µs to make a
-- datetime of one, and needs few of them.
WITH due AS MATERIALIZED (
    SELECT ctid AS place, vt AS due_at{partitioned: , tableoid AS part}
    FROM {q}
    WHERE vt >= $3::timestamptz AND vt <= (SELECT clock_timestamp())
    ORDER BY vt
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE {q} AS message
SET vt = clock_timestamp() + $2::interval,
    {wide: last_read_at = clock_timestamp(),}
    -- A foreign row may stand at the type's end; it must not make the whole claim fail.
    read_ct = least(message.read_ct, 2147483646) + 1
FROM due
WHERE message.ctid = due.place{partitioned:  AND message.tableoid = due.part}
RETURNING message.msg_id, message.read_ct,
    date_part('epoch', pgtasks.clamped(message.enqueued_at)) AS enqueued_at,
    date_part('epoch', pgtasks.clamped(due.due_at)) AS due_at,
    message.message::text, message.headers::text
