-- Tell listening workers to look at the queue named $1.
SELECT pg_notify('pgtasks', $1)
