-- The mark in the archive that has $3 messages between it and the later mark ($1, $2); none when
-- there are not so many. Of those that are done, or of all others.
SELECT pg_catalog.to_jsonb(archived_at) #>> '{}'::text[] AS archived_at, msg_id
FROM {a}
WHERE {ended} AND (archived_at, msg_id) < ($1::text::timestamptz, $2::bigint)
ORDER BY {a}.archived_at DESC, msg_id DESC
OFFSET $3
LIMIT 1
