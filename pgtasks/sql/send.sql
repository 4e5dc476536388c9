-- Put one message ($1) with its headers ($2) into the queue, due after the delay $3 or at the
-- moment $4, and tell listening workers when $5 names a channel payload.
WITH sent AS (
    INSERT INTO {q} (vt, message, headers)
    VALUES (coalesce($4::timestamptz, clock_timestamp() + $3::interval), $1::jsonb, $2::jsonb)
    RETURNING msg_id
)
SELECT msg_id, CASE WHEN $5::text IS NOT NULL THEN pg_notify('pgtasks', $5) END FROM sent
