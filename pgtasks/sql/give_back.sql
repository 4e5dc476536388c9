-- Make the messages of a dead process's leases ($1 ids, all of the delivery $2) due at once, as released:
-- it had not started them, or it was ended on purpose. The ids whose lease still stood.
UPDATE {q}
SET vt = clock_timestamp(), headers = pgtasks.with_one_more(headers, 'releases')
WHERE msg_id = ANY($1::bigint[]) AND read_ct = $2::integer
RETURNING msg_id
