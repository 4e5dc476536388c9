-- Delete the schedules of the owners $1 that are not among $2 and that no worker has declared for
-- $3; their names.
DELETE FROM pgtasks.schedule
WHERE owner = ANY($1::text[]) AND name <> ALL($2::text[])
    AND seen_at <= clock_timestamp() - $3::interval
RETURNING name
