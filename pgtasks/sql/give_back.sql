-- Make the messages of a dead process's leases ($1 ids, all of the delivery $2) due at once, as released:
-- it had not started them, or it was ended on purpose. The ids whose lease still stood. One that was
-- put back in the process's last moment has as many deliveries that ended as it has deliveries:
-- it waits for its own time.
UPDATE {q}
SET vt = clock_timestamp(), headers = pgtasks.with_one_more(headers, 'releases')
WHERE msg_id = ANY($1::bigint[]) AND read_ct = $2::integer
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
