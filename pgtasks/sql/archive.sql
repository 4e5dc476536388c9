-- End leases ($1 ids in order, stored at $2, all of the delivery $3) by moving their messages to the
-- archive, with what became of them ($4) in their headers; the ids that were still ours.
WITH ended AS (
    DELETE FROM {q}
    WHERE msg_id = ANY($1::bigint[]) AND read_ct = $3::integer
        AND date_part('epoch', pgtasks.clamped(enqueued_at))
            = ($2::float8[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
    RETURNING msg_id, read_ct, enqueued_at, {wide: last_read_at,} vt, message, headers
)
INSERT INTO {a} (
    msg_id, read_ct, enqueued_at, {wide: last_read_at,} archived_at, vt, message, headers
)
SELECT msg_id, read_ct, enqueued_at, {wide: last_read_at,} clock_timestamp(), vt, message,
    pgtasks.with_state(
        headers, ($4::text[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]::jsonb
    )
FROM ended
RETURNING msg_id
