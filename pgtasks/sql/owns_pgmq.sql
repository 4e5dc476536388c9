-- Whether pgmq's functions are those that pgtasks made; false too where there are none.
SELECT pgtasks.owns_pgmq()
