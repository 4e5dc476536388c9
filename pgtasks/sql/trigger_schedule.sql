-- Send a message ($2 with the headers $3) of the schedule $1 to the queue $4 now, beside its ticks,
-- telling listening workers when $5; the message's number, or no row when there is no such schedule.
WITH known AS (
    SELECT name FROM pgtasks.schedule WHERE name = $1 FOR UPDATE
),
sent AS (
    INSERT INTO {q} (vt, message, headers)
    SELECT clock_timestamp(), $2::jsonb, $3::jsonb FROM known
    RETURNING msg_id
)
UPDATE pgtasks.schedule
SET last_queue = $4, last_message_id = (SELECT msg_id FROM sent)
FROM known
WHERE schedule.name = known.name
RETURNING last_message_id, CASE WHEN $5 THEN pg_notify('pgtasks', $4) END
