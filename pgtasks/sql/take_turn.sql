-- Take the turn $1 unless somebody has taken it within $2; no row then.
INSERT INTO pgtasks.turn (what, taken_at)
VALUES ($1, clock_timestamp())
ON CONFLICT (what) DO UPDATE
SET taken_at = clock_timestamp()
WHERE turn.taken_at <= clock_timestamp() - $2::interval
    OR turn.taken_at > clock_timestamp() + $2::interval
RETURNING what
