-- The schedule named $1.
SELECT schedule.*, args::text AS args_text, clock_timestamp() AS now
FROM pgtasks.schedule
WHERE name = $1
