-- Make due what is due later in the queue and is not leased: delayed, or to be tried again; but for
-- the ids $1. What is leased has had more deliveries than have ended in a way that was written
-- down. The ids.
UPDATE {q}
SET vt = clock_timestamp()
WHERE vt > clock_timestamp() AND msg_id <> ALL($1::bigint[]) AND read_ct::numeric <= (
    SELECT coalesce(sum(CASE WHEN jsonb_typeof(value) = 'number' THEN value::numeric END), 0)
    FROM jsonb_each(
        CASE WHEN jsonb_typeof(headers -> 'pgtasks'::text) = 'object'
            THEN headers -> 'pgtasks'::text
        END
    )
    WHERE key IN ('failures', 'snoozes', 'releases', 'unknown', 'elsewhere')
)
RETURNING msg_id
