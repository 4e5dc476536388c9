-- The message of one lease ($1 id, stored at $2, $3 delivery), as a claim would have returned it.
SELECT msg_id, read_ct, date_part('epoch', pgtasks.clamped(enqueued_at)) AS enqueued_at,
    date_part('epoch', now()) AS due_at, message::text, headers::text
FROM {q}
WHERE msg_id = $1 AND read_ct = $3
    AND date_part('epoch', pgtasks.clamped(enqueued_at)) = $2
