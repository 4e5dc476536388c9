-- The names of all queues, in order.
SELECT queue_name::text FROM pgmq.meta ORDER BY 1
