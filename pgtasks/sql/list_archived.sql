-- Up to $1 archived messages of the queue, the latest first. None of the rest matters where it is
-- null: of the task $2, with the outcome $3 ('none': no outcome of ours), archived within $4,
-- archived $5 ago or earlier, with the text $6 in the last error or the reason.
SELECT msg_id, read_ct, pgtasks.clamped(enqueued_at) AS enqueued_at,
    {wide: pgtasks.clamped(last_read_at)|NULL::timestamptz} AS last_read_at,
    pgtasks.clamped(archived_at) AS archived_at,
    left(message::text, 2000) AS message, left(headers::text, 100000) AS headers,
    message #>> '{metadata,worker_name}'::text[] AS task, message #>> '{metadata,id}'::text[] AS id,
    headers #>> '{pgtasks,outcome}'::text[] AS outcome
FROM {a}
WHERE ($2::text IS NULL OR message #>> '{metadata,worker_name}'::text[] = $2)
    AND ($3::text IS NULL OR coalesce(headers #>> '{pgtasks,outcome}'::text[], 'none') = $3)
    AND ($4::interval IS NULL OR {a}.archived_at >= (SELECT clock_timestamp()) - $4)
    AND ($5::interval IS NULL OR {a}.archived_at <= (SELECT clock_timestamp()) - $5)
    AND ($6::text IS NULL OR strpos(lower(pg_catalog.concat_ws(
        ' ', headers #>> '{pgtasks,errors,-1,error}'::text[], headers #>> '{pgtasks,reason}'::text[]
    )), lower($6)) > 0)
ORDER BY {a}.archived_at DESC, msg_id DESC
LIMIT $1
