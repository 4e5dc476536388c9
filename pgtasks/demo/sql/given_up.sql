-- The first $1 messages that were given up, each with its last error.
SELECT msg_id, message #>> '{args,path}' AS path, headers #>> '{pgtasks,outcome}' AS outcome,
    coalesce(headers #>> '{pgtasks,errors,-1,error}', headers #>> '{pgtasks,reason}') AS error
FROM pgmq.a_pgtasks_demo
WHERE headers #>> '{pgtasks,outcome}' IS DISTINCT FROM 'done'
ORDER BY msg_id
LIMIT $1
