-- Put archived messages ($1 ids) back into their queue, due after $2, and tell listening workers
-- when $3 names a channel payload. They come back as new ones: numbered anew, never delivered, and
-- with nothing counted against them; their own id, options and errors stay. A row of the answer a
-- message: its number before and now.
WITH chosen AS MATERIALIZED (
    -- Whoever else puts them back, or prunes them, has them: each moves once.
    SELECT msg_id FROM {a} WHERE msg_id = ANY($1::bigint[]) FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM {a}
    WHERE msg_id = ANY(ARRAY(SELECT msg_id FROM chosen))
    RETURNING msg_id, enqueued_at, archived_at, message, CASE
        WHEN jsonb_typeof(headers -> 'pgtasks'::text) = 'object' THEN jsonb_set(
            headers, '{pgtasks}', (headers -> 'pgtasks'::text) - ARRAY[
                'failures', 'snoozes', 'releases', 'unknown', 'crashes', 'elsewhere',
                'outcome', 'attempts', 'seconds', 'worker', 'reason'
            ]
        )
        ELSE headers
    END AS headers
), ordered AS (
    SELECT *, row_number() OVER (ORDER BY archived_at, msg_id) AS place FROM taken
), sent AS (
    INSERT INTO {q} (enqueued_at, vt, message, headers)
    SELECT enqueued_at, clock_timestamp() + $2::interval, message,
        pgtasks.with_one_more(headers, 'redrives')
    FROM ordered
    ORDER BY place
    RETURNING msg_id
), numbered AS (
    SELECT msg_id, row_number() OVER (ORDER BY msg_id) AS place FROM sent
)
SELECT ordered.msg_id AS was, numbered.msg_id,
    CASE WHEN place = 1 AND $3::text IS NOT NULL THEN pg_notify('pgtasks', $3) END
FROM ordered JOIN numbered USING (place)
ORDER BY place
