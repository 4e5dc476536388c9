-- Do what send.sql does, and tell listening workers, with the channel payload $5. Most messages of
-- many are not told of, and this takes a twentieth longer.
WITH sent AS (
    INSERT INTO {q} (vt, message, headers)
    VALUES (coalesce($4::timestamptz, clock_timestamp() + $3::interval), $1::jsonb, $2::jsonb)
    RETURNING msg_id
)
SELECT msg_id, pg_notify('pgtasks', $5) FROM sent
