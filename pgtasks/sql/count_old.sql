-- How many archived messages there are up to the mark ($1, $2), of those that are done or of all
-- others.
SELECT count(*)
FROM {a}
WHERE {ended} AND (archived_at, msg_id) <= ($1::text::timestamptz, $2::bigint)
