-- Seconds until the next message of each queue is due, as in next_due.sql; no row where nothing
-- waits. Two hundred queues took 0.72 ms this way and 0.88 as arms of a UNION ALL: the server makes
-- one node for the text around them, not two hundred. $1 are the oldest due moments to look at.
SELECT place, extract(epoch FROM pgtasks.clamped(vt) - clock_timestamp())::float8 AS seconds
FROM pg_catalog.unnest(ARRAY[
{moments}
]) WITH ORDINALITY AS next (vt, place)
WHERE vt IS NOT NULL
