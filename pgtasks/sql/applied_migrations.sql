-- The numbers of the migrations this database has, in order.
SELECT version FROM pgtasks.migration ORDER BY version
