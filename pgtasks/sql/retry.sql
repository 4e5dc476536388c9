-- End leases ($1 ids in order, stored at $2, all of the delivery $3) by making their messages due
-- again after their delays ($4), with what is known of them so far ($5) in their headers; the ids
-- that were still ours.
UPDATE {q}
SET vt = clock_timestamp() + ($4::interval[])[pg_catalog.width_bucket(msg_id, $1::bigint[])],
    headers = pgtasks.with_state(
        headers, ($5::text[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]::jsonb
    )
WHERE msg_id = ANY($1::bigint[]) AND read_ct = $3::integer
    AND date_part('epoch', pgtasks.clamped(enqueued_at))
        = ($2::float8[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
RETURNING msg_id
