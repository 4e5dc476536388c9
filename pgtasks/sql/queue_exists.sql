-- Whether the tables of the queue are there.
SELECT to_regclass('{q}') IS NOT NULL
