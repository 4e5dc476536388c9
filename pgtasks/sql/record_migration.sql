-- Remember that the migration numbered $1, named $2, was applied.
INSERT INTO pgtasks.migration (version, name) VALUES ($1, $2)
