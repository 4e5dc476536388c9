-- The next $4 schedules to fire, the first due first, that are among the declared ones $1 or were
-- made at run time for one of the tasks $2; without those named $3.
SELECT schedule.*, args::text AS args_text, clock_timestamp() AS now
FROM pgtasks.schedule
WHERE NOT is_paused AND next_fire_at IS NOT NULL AND name <> ALL($3::text[])
    AND (name = ANY($1::text[]) OR (owner IS NULL AND task = ANY($2::text[])))
ORDER BY next_fire_at, name
LIMIT $4
