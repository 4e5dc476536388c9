-- End leases ($1 ids, all of the delivery $2) by making their messages due again after their delays ($3),
-- with what is known of them so far ($4) in their headers; the ids that were still ours.
UPDATE {q}
SET vt = clock_timestamp() + ($3::interval[])[pg_catalog.array_position($1::bigint[], msg_id)],
    headers = pgtasks.with_state(
        headers, ($4::text[])[pg_catalog.array_position($1::bigint[], msg_id)]::jsonb
    )
WHERE msg_id = ANY($1::bigint[]) AND read_ct = $2::integer
RETURNING msg_id
