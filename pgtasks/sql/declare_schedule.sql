-- Make or change the schedule named $1, of the owner $13 (NULL: made at run time), with $14 as its
-- next tick unless it keeps its times. One of another owner is left alone, except when no worker
-- has declared it for $15. Returns nothing when it was left alone.
INSERT INTO pgtasks.schedule AS known (
    name, task, queue, args, cron, every, timezone, jitter, misfire, catch_up_limit, overlap,
    is_paused, owner, next_fire_at, seen_at
)
VALUES (
    $1, $2, $3, $4::jsonb, $5, $6, $7, $8, $9, $10, $11,
    coalesce($12, false), $13, $14, CASE WHEN $13::text IS NOT NULL THEN clock_timestamp() END
)
ON CONFLICT (name) DO UPDATE
SET task = excluded.task,
    queue = excluded.queue,
    args = excluded.args,
    cron = excluded.cron,
    every = excluded.every,
    timezone = excluded.timezone,
    jitter = excluded.jitter,
    misfire = excluded.misfire,
    catch_up_limit = excluded.catch_up_limit,
    overlap = excluded.overlap,
    is_paused = coalesce($12, known.is_paused),
    owner = excluded.owner,
    seen_at = excluded.seen_at,
    next_fire_at = CASE
        WHEN (known.cron, known.every, known.timezone)
            IS NOT DISTINCT FROM (excluded.cron, excluded.every, excluded.timezone)
        THEN coalesce(known.next_fire_at, excluded.next_fire_at)
        ELSE excluded.next_fire_at
    END,
    revision = known.revision + CASE
        WHEN (known.task, known.queue, known.args, known.cron, known.every, known.timezone,
              known.jitter, known.misfire, known.catch_up_limit, known.overlap)
            IS DISTINCT FROM
             (excluded.task, excluded.queue, excluded.args, excluded.cron, excluded.every,
              excluded.timezone, excluded.jitter, excluded.misfire, excluded.catch_up_limit,
              excluded.overlap)
        THEN 1 ELSE 0
    END,
    changed_at = clock_timestamp()
WHERE known.owner IS NOT DISTINCT FROM excluded.owner
    OR known.seen_at < clock_timestamp() - $15::interval
RETURNING name
