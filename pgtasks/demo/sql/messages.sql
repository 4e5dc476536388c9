-- What became of the messages: ended, done, done after a failed attempt, given up, still waiting.
SELECT count(*) AS ended,
    count(*) FILTER (WHERE outcome = 'done') AS done,
    count(*) FILTER (WHERE outcome = 'done' AND failures > 0) AS retried,
    count(*) FILTER (WHERE outcome IS DISTINCT FROM 'done') AS given_up,
    (SELECT count(*) FROM pgmq.q_pgtasks_demo) AS waiting
FROM pgmq.a_pgtasks_demo, LATERAL (
    SELECT headers #>> '{pgtasks,outcome}' AS outcome,
        (headers #>> '{pgtasks,failures}')::bigint AS failures
) AS state
