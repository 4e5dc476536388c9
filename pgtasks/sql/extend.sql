-- Extend leases ($1 ids, $2 deliveries) to $3 from now. A row of the answer a lease: was it
-- extended, and is it still ours? Rows locked by somebody else are left for the next round, so
-- that this statement never waits and never deadlocks with a settlement.
WITH ours AS (
    SELECT msg_id
    FROM {q}
    WHERE msg_id = ANY($1::bigint[])
        AND read_ct = ($2::integer[])[array_position($1::bigint[], msg_id)]
    FOR UPDATE SKIP LOCKED
), extended AS (
    UPDATE {q}
    -- A task may have asked for more time than this.
    SET vt = greatest(
        vt, clock_timestamp() + ($3::interval[])[array_position($1::bigint[], msg_id)]
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
            AND read_ct = ($2::integer[])[array_position($1::bigint[], msg_id)]
    )) AS held
FROM unnest($1::bigint[], $2::integer[]) AS lease (msg_id, read_ct)
