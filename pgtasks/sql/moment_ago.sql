-- The moment $1 ago, as text: clients cannot hold every moment that a row may bear.
SELECT pg_catalog.to_jsonb(clock_timestamp() - $1::interval) #>> '{}'::text[]
