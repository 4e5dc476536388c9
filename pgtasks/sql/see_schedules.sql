-- Say that a running worker declares the schedules $1, whose owners are $2; the names of those
-- that are there and theirs.
UPDATE pgtasks.schedule
SET seen_at = clock_timestamp()
FROM unnest($1::text[], $2::text[]) AS declared (name, owner)
WHERE schedule.name = declared.name AND schedule.owner = declared.owner
RETURNING schedule.name
