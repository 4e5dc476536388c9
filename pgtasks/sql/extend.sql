-- Extend leases ($1 ids, $2 deliveries) to $3 from now. A row of the answer a lease: was it
-- extended, and is it still ours? Rows locked by somebody else are left for the next round, so
-- that this statement never waits and never deadlocks with a settlement.
WITH lease AS (
    SELECT * FROM unnest($1::bigint[], $2::integer[], $3::interval[]) AS l (msg_id, read_ct, length)
), held AS (
    SELECT message.msg_id, lease.length
    FROM {q} AS message
    JOIN lease ON lease.msg_id = message.msg_id AND lease.read_ct = message.read_ct
    FOR UPDATE OF message SKIP LOCKED
), extended AS (
    UPDATE {q} AS message
    -- A task may have asked for more time than this.
    SET vt = greatest(message.vt, clock_timestamp() + held.length)
    FROM held
    WHERE message.msg_id = held.msg_id
    RETURNING message.msg_id
)
SELECT lease.msg_id, lease.read_ct,
    extended.msg_id IS NOT NULL AS extended,
    EXISTS (
        SELECT FROM {q} AS message
        WHERE message.msg_id = lease.msg_id AND message.read_ct = lease.read_ct
    ) AS held
FROM lease
LEFT JOIN extended ON extended.msg_id = lease.msg_id
