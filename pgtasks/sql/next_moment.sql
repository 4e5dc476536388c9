-- The moment when the next message of one queue among many is due, the {place}th in next_dues.sql.
SELECT vt
FROM {q}
WHERE vt >= ($1::timestamptz[])[{place}] AND vt < 'infinity'
ORDER BY vt
LIMIT 1
