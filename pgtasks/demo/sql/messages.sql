-- What became of the messages: done, done after a failed attempt, given up, still waiting; how
-- many attempts failed, and how many deliveries a worker that died did not end.
WITH archived AS (
    SELECT read_ct,
        headers #>> '{pgtasks,outcome}' AS outcome,
        coalesce((headers #>> '{pgtasks,failures}')::bigint, 0) AS failures,
        coalesce((headers #>> '{pgtasks,releases}')::bigint, 0) AS releases
    FROM pgmq.a_pgtasks_demo
)
SELECT count(*) AS ended,
    count(*) FILTER (WHERE outcome = 'done') AS done,
    count(*) FILTER (WHERE outcome = 'done' AND failures > 0) AS retried,
    count(*) FILTER (WHERE outcome IS DISTINCT FROM 'done') AS given_up,
    coalesce(sum(failures), 0)::bigint AS failures,
    count(*) FILTER (
        WHERE read_ct > failures + releases + (CASE outcome WHEN 'failed' THEN 0 ELSE 1 END)
    ) AS redelivered,
    (SELECT count(*) FROM pgmq.q_pgtasks_demo) AS waiting
FROM archived
