-- Make the messages of a dead process's leases ($1 ids, $2 deliveries) due at once, as released:
-- it had not started them, or it was ended on purpose. The ids whose lease still stood.
UPDATE {q} AS message
SET vt = clock_timestamp(), headers = pgtasks.with_one_more(message.headers, 'releases')
FROM unnest($1::bigint[], $2::integer[]) AS lease (msg_id, read_ct)
WHERE message.msg_id = lease.msg_id AND message.read_ct = lease.read_ct
RETURNING message.msg_id
