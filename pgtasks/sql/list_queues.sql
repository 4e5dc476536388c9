-- The names of all queues, in order; but for the one in which Roadster keeps its schedules.
SELECT queue_name::text FROM pgmq.meta WHERE lower(queue_name::text) <> 'periodic' ORDER BY 1
