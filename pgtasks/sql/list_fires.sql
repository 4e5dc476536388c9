-- The latest $2 ticks of the schedule $1 that were fired, the latest first.
SELECT fire_at, fired_at, queue, message_id
FROM pgtasks.fire
WHERE schedule = $1
ORDER BY fire_at DESC
LIMIT $2
