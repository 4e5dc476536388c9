-- Seconds until the next message of the queue is due: none when nothing waits, not above zero
-- when one is due now.
SELECT extract(epoch FROM pgtasks.clamped(vt) - clock_timestamp())::float8
FROM {q}
WHERE vt >= $1::timestamptz AND vt < 'infinity'
ORDER BY vt
LIMIT 1
