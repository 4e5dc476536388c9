-- Delete the schedule $1 if it was made at run time, or if no worker has declared it for $2.
DELETE FROM pgtasks.schedule
WHERE name = $1 AND (owner IS NULL OR seen_at < clock_timestamp() - $2::interval)
RETURNING name
