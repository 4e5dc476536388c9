-- Let the schedule $1, paused and of the revision $2, fire again, next at $3: what it missed while
-- it was paused stays missed.
UPDATE pgtasks.schedule SET is_paused = false, next_fire_at = $3
WHERE name = $1 AND revision = $2 AND is_paused
