-- Delete up to $6 archived messages of the queue named $1, of those that are done or of all others,
-- the oldest first: behind the mark ($2, $3) and up to the mark ($4, $5). Says whether it was our
-- turn (nobody else prunes this archive now), how many there were, the mark of the last, and how
-- long it took.
--
-- Without the first mark each batch would step over what all the batches before it have left in
-- the index. Rows that somebody has locked, to put them back, are passed over.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(
        pg_catalog.hashtextextended('pgtasks prune ' || $1::text, 0)
    ) AS is_ours
), old AS MATERIALIZED (
    SELECT archived_at, msg_id
    FROM {a}
    WHERE {ended} AND (SELECT is_ours FROM turn)
        AND (archived_at, msg_id) > ($2::text::timestamptz, $3::bigint)
        AND (archived_at, msg_id) <= ($4::text::timestamptz, $5::bigint)
    ORDER BY archived_at, msg_id
    LIMIT $6
    FOR UPDATE SKIP LOCKED
), pruned AS (
    DELETE FROM {a}
    WHERE msg_id = ANY(ARRAY(SELECT msg_id FROM old))
    RETURNING msg_id
), last AS (
    SELECT archived_at, msg_id FROM old ORDER BY archived_at DESC, msg_id DESC LIMIT 1
)
SELECT is_ours, (SELECT count(*) FROM pruned) AS deleted,
    (SELECT pg_catalog.to_jsonb(archived_at) #>> '{}'::text[] FROM last) AS archived_at,
    (SELECT msg_id FROM last) AS msg_id,
    extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS seconds
FROM turn
