-- Extend leases ($1 ids in order, stored at $2, $3 deliveries) to $4 from now. A row of the answer a
-- lease: was it extended, and is it still ours? Rows locked by somebody else are left for the next
-- round, so that this statement never waits and never deadlocks with a settlement. A lease that is
-- being settled ($5) is only extended while its headers are those it was claimed with ($6): if its
-- message was put back, which its worker need not know yet, it must not be kept from others.
WITH ours AS (
    SELECT msg_id
    FROM {q}
    WHERE msg_id = ANY($1::bigint[])
        AND read_ct = ($3::integer[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
        AND date_part('epoch', pgtasks.clamped(enqueued_at))
            = ($2::float8[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
        AND (
            NOT ($5::boolean[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
            OR headers IS NOT DISTINCT FROM
                (($6::text[])[pg_catalog.width_bucket(msg_id, $1::bigint[])])::jsonb
        )
    FOR UPDATE SKIP LOCKED
), extended AS (
    UPDATE {q}
    -- A task may have asked for more time than this.
    SET vt = greatest(
        vt, clock_timestamp() + ($4::interval[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
    )
    WHERE msg_id = ANY(ARRAY(SELECT msg_id FROM ours))
    RETURNING msg_id
)
SELECT lease.msg_id, lease.read_ct,
    lease.msg_id = ANY(ARRAY(SELECT msg_id FROM extended)) AS extended,
    lease.msg_id = ANY(ARRAY(
        SELECT msg_id
        FROM {q}
        WHERE msg_id = ANY($1::bigint[])
            AND read_ct = ($3::integer[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
            AND date_part('epoch', pgtasks.clamped(enqueued_at))
                = ($2::float8[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
    )) AS held
FROM unnest($1::bigint[], $3::integer[]) AS lease (msg_id, read_ct)
