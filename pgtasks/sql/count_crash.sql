-- Count a proven crash against the message of one lease ($1 id, stored at $2, $3 delivery) and
-- extend the lease by $4; the message as a claim would have returned it.
UPDATE {q} AS message
SET vt = clock_timestamp() + $4::interval,
    headers = pgtasks.with_one_more(message.headers, 'crashes')
WHERE message.msg_id = $1 AND message.read_ct = $3
    AND date_part('epoch', pgtasks.clamped(message.enqueued_at)) = $2
RETURNING message.msg_id, message.read_ct,
    date_part('epoch', pgtasks.clamped(message.enqueued_at)) AS enqueued_at,
    date_part('epoch', now()) AS due_at, message.message::text, message.headers::text
