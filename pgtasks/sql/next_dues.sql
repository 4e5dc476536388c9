-- Of one queue among many, the {place}th: seconds until its next message is due, as in next_due.sql;
-- no row when nothing waits. $1 are the oldest due moments to look at, one for each queue.
SELECT {place} AS place, extract(epoch FROM pgtasks.clamped(vt) - clock_timestamp())::float8 AS seconds
FROM (
    SELECT vt
    FROM {q}
    WHERE vt >= ($1::timestamptz[])[{place}] AND vt < 'infinity'
    ORDER BY vt
    LIMIT 1
) AS next
