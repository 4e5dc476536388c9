-- Make the messages of a dead process's leases ($1 ids in order, stored at $2, all of the delivery
-- $3) due at once, as released: it had not started them, or it was ended on purpose. The ids whose
-- lease still stood. One that was put back in the process's last moment has as many deliveries that
-- ended as it has deliveries: it waits for its own time.
UPDATE {q}
SET vt = clock_timestamp(), headers = pgtasks.with_one_more(headers, 'releases')
WHERE msg_id = ANY($1::bigint[]) AND read_ct = $3::integer
    AND date_part('epoch', pgtasks.clamped(enqueued_at))
        = ($2::float8[])[pg_catalog.width_bucket(msg_id, $1::bigint[])]
    AND read_ct::numeric <> (
        SELECT coalesce(sum(number::text::numeric), 0::numeric)
        FROM pg_catalog.jsonb_each(CASE
            WHEN jsonb_typeof(headers -> 'pgtasks'::text) = 'object'::text
                THEN headers -> 'pgtasks'::text
            ELSE '{}'::jsonb
        END) AS known (name, number)
        WHERE name = ANY('{failures,snoozes,releases,unknown,elsewhere}'::text[])
            AND jsonb_typeof(number) = 'number'::text
    )
RETURNING msg_id
