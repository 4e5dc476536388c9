-- End leases ($1 ids, all of the delivery $2) by moving their messages to the archive, with what became
-- of them ($3) in their headers; the ids that were still ours.
WITH ended AS (
    DELETE FROM {q}
    WHERE msg_id = ANY($1::bigint[]) AND read_ct = $2::integer
    RETURNING msg_id, read_ct, enqueued_at, {wide: last_read_at,} vt, message, headers
)
INSERT INTO {a} (
    msg_id, read_ct, enqueued_at, {wide: last_read_at,} archived_at, vt, message, headers
)
SELECT msg_id, read_ct, enqueued_at, {wide: last_read_at,} clock_timestamp(), vt, message,
    pgtasks.with_state(
        headers, ($3::text[])[pg_catalog.array_position($1::bigint[], msg_id)]::jsonb
    )
FROM ended
RETURNING msg_id
