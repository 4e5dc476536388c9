-- Up to $1 archived messages that may be put back, the first archived first: behind the mark
-- ($2, $3), up to the moment $4, of those that are done or of all others. None of the rest matters
-- where it is null: of the task $5, with the outcome $6 ('none': no outcome of ours), archived
-- within $7, archived $8 ago or earlier, with the text $9 in the last error or the reason, and
-- numbered $10 or with an own id among $11.
SELECT pg_catalog.to_jsonb(archived_at) #>> '{}'::text[] AS archived_at, msg_id,
    message #>> '{metadata,id}'::text[] AS id, message #>> '{metadata,worker_name}'::text[] AS task,
    headers #>> '{pgtasks,outcome}'::text[] AS outcome
FROM {a}
WHERE {ended} AND (archived_at, msg_id) > ($2::text::timestamptz, $3::bigint)
    AND archived_at <= $4::text::timestamptz
    AND ($5::text IS NULL OR message #>> '{metadata,worker_name}'::text[] = $5)
    AND ($6::text IS NULL OR coalesce(headers #>> '{pgtasks,outcome}'::text[], 'none') = $6)
    AND ($7::interval IS NULL OR archived_at >= (SELECT clock_timestamp()) - $7)
    AND ($8::interval IS NULL OR archived_at <= (SELECT clock_timestamp()) - $8)
    AND ($9::text IS NULL OR strpos(lower(pg_catalog.concat_ws(
        ' ', headers #>> '{pgtasks,errors,-1,error}'::text[], headers #>> '{pgtasks,reason}'::text[]
    )), lower($9)) > 0)
    AND (
        ($10::bigint[] IS NULL AND $11::text[] IS NULL)
        OR msg_id = ANY($10) OR message #>> '{metadata,id}'::text[] = ANY($11)
    )
ORDER BY {a}.archived_at, msg_id
LIMIT $1
