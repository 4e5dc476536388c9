-- Those of the turns $1 that nobody has taken within $2. One that was taken later than so long from
-- now was taken when the clock was wrong.
SELECT what
FROM pg_catalog.unnest($1::text[]) AS wanted (what)
LEFT JOIN pgtasks.turn USING (what)
WHERE taken_at IS NULL
    OR taken_at <= clock_timestamp() - $2::interval
    OR taken_at > clock_timestamp() + $2::interval
