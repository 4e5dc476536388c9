-- Fire the tick $5 of the schedule $1 as it was read (its revision $2, next tick $3 and last
-- message $4): move its next tick to $6, write the ledger, and unless the message is null send $7
-- with the headers $8 to the queue $9, due after $10, telling listening workers when $11.
-- No row: somebody else fired it, or it was changed.
WITH due AS (
    SELECT name
    FROM pgtasks.schedule
    WHERE name = $1 AND revision = $2 AND next_fire_at = $3 AND NOT is_paused
        AND last_message_id IS NOT DISTINCT FROM $4::bigint
        AND next_fire_at <= clock_timestamp()
    FOR UPDATE SKIP LOCKED
),
sent AS (
    INSERT INTO {q} (vt, message, headers)
    SELECT clock_timestamp() + $10::interval, $7::jsonb, $8::jsonb
    FROM due
    WHERE $7::text IS NOT NULL
    RETURNING msg_id
),
noted AS (
    -- A tick that is there already ends the whole statement with an error, and sends nothing.
    INSERT INTO pgtasks.fire (schedule, fire_at, queue, message_id)
    SELECT name, $5, $9, (SELECT msg_id FROM sent)
    FROM due
)
UPDATE pgtasks.schedule
SET next_fire_at = $6,
    last_fire_at = $5,
    last_queue = CASE WHEN $7::text IS NULL THEN last_queue ELSE $9 END,
    last_message_id = CASE
        WHEN $7::text IS NULL THEN last_message_id ELSE (SELECT msg_id FROM sent)
    END
FROM due
WHERE schedule.name = due.name
RETURNING last_queue, last_message_id,
    CASE WHEN $11 AND $7::text IS NOT NULL THEN pg_notify('pgtasks', $9) END
