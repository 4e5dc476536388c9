-- Pause the schedule $1; no row when there is none.
UPDATE pgtasks.schedule SET is_paused = true WHERE name = $1 RETURNING name
