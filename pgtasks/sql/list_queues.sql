-- The names of all queues, in order; but for the one in which Roadster keeps its schedules. One that
-- was given to pgmq in capitals has its tables in small letters, as what pgtasks calls it.
SELECT DISTINCT CASE
    WHEN pgtasks.is_queue_name(lower(queue_name::text)) THEN lower(queue_name::text)
    ELSE queue_name::text
END AS name
FROM pgmq.meta
WHERE lower(queue_name::text) <> 'periodic'
ORDER BY 1
