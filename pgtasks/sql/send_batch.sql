-- Put messages ($1) of several calls into the queue, in their order: each under its headers ($2),
-- due after its delay ($3) or at its moment ($4). Tell listening workers when $5 names a channel
-- payload; the ids come back in that order, as one array.
WITH sent AS (
    INSERT INTO {q} (vt, message, headers)
    SELECT coalesce(moment, clock_timestamp() + delay), body::jsonb, header::jsonb
    FROM ROWS FROM (
        pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]),
        pg_catalog.unnest($3::interval[]), pg_catalog.unnest($4::timestamptz[])
    ) WITH ORDINALITY AS batch (body, header, delay, moment, place)
    ORDER BY place
    RETURNING msg_id
)
SELECT ARRAY(SELECT msg_id FROM sent),
    CASE WHEN $5::text IS NOT NULL THEN pg_notify('pgtasks', $5) END
