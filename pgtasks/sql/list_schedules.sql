-- All schedules by name.
SELECT schedule.*, args::text AS args_text, clock_timestamp() AS now
FROM pgtasks.schedule
ORDER BY name
