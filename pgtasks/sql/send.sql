-- Put one message ($1) with its headers ($2) into the queue, due after the delay $3 or at the
-- moment $4; its id.
INSERT INTO {q} (vt, message, headers)
VALUES (coalesce($4::timestamptz, clock_timestamp() + $3::interval), $1::jsonb, $2::jsonb)
RETURNING msg_id
