-- Delete up to $1 rows of the schedules' ledger that are older than $2, the oldest first, but never
-- the latest of a schedule that there still is; how many.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(
        pg_catalog.hashtextextended('pgtasks prune ledger', 0)
    ) AS is_ours
), old AS MATERIALIZED (
    SELECT ctid AS place
    FROM pgtasks.fire
    WHERE (SELECT is_ours FROM turn) AND fire_at < (SELECT clock_timestamp()) - $2::interval
        AND (
            NOT EXISTS (SELECT FROM pgtasks.schedule WHERE name = fire.schedule)
            OR EXISTS (
                SELECT FROM pgtasks.fire AS later
                WHERE later.schedule = fire.schedule AND later.fire_at > fire.fire_at
            )
        )
    ORDER BY fire_at
    LIMIT $1
), pruned AS (
    DELETE FROM pgtasks.fire WHERE ctid = ANY(ARRAY(SELECT place FROM old))
)
SELECT count(*) FROM old
