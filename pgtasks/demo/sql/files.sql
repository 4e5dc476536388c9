-- What the tasks found, over all files.
SELECT count(*) AS files, coalesce(sum(bytes), 0)::bigint AS bytes,
    coalesce(sum(lines), 0)::bigint AS lines, coalesce(sum(functions), 0)::bigint AS functions
FROM pgtasks_demo.file
