-- End leases ($1 ids, $2 deliveries) by moving their messages to the archive, with what became
-- of them ($3) in their headers; the ids that were still ours.
WITH ended AS (
    DELETE FROM {q} AS message
    USING unnest($1::bigint[], $2::integer[], $3::text[]) AS lease (msg_id, read_ct, state)
    WHERE message.msg_id = lease.msg_id AND message.read_ct = lease.read_ct
    RETURNING message.msg_id, message.read_ct, message.enqueued_at, message.last_read_at,
        message.vt, message.message, message.headers, lease.state
)
INSERT INTO {a} (msg_id, read_ct, enqueued_at, last_read_at, archived_at, vt, message, headers)
SELECT msg_id, read_ct, enqueued_at, last_read_at, clock_timestamp(), vt, message,
    pgtasks.with_state(headers, state::jsonb)
FROM ended
RETURNING msg_id
