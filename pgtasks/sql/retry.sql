-- End leases ($1 ids, $2 deliveries) by making their messages due again after their delays ($3),
-- with what is known of them so far ($4) in their headers; the ids that were still ours.
UPDATE {q} AS message
SET vt = clock_timestamp() + lease.delay,
    headers = pgtasks.with_state(message.headers, lease.state::jsonb)
FROM unnest($1::bigint[], $2::integer[], $3::interval[], $4::text[])
    AS lease (msg_id, read_ct, delay, state)
WHERE message.msg_id = lease.msg_id AND message.read_ct = lease.read_ct
RETURNING message.msg_id
