-- Let ticks of the schedule $1, as it was read (its revision $2 and next tick $3), pass without
-- firing: its next one is $4.
UPDATE pgtasks.schedule
SET next_fire_at = $4
WHERE name = $1 AND revision = $2 AND next_fire_at = $3
