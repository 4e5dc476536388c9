-- Be the only demo in this database, until the transaction ends; false when there is another.
SELECT pg_try_advisory_xact_lock(hashtext('pgtasks'), hashtext('demo'))
