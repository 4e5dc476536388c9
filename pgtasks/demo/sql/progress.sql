-- How many messages have not ended yet, have ended, and of these were given up.
SELECT
    (SELECT count(*) FROM pgmq.q_pgtasks_demo) AS waiting,
    count(*) AS ended,
    count(*) FILTER (WHERE headers #>> '{pgtasks,outcome}' IS DISTINCT FROM 'done') AS given_up
FROM pgmq.a_pgtasks_demo
