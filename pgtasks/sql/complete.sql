-- End leases ($1 ids, $2 deliveries) by deleting their messages; the ids that were still ours.
DELETE FROM {q} AS message
USING unnest($1::bigint[], $2::integer[]) AS lease (msg_id, read_ct)
WHERE message.msg_id = lease.msg_id AND message.read_ct = lease.read_ct
RETURNING message.msg_id
