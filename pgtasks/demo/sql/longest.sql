-- The longest function, and where it is.
SELECT path, longest_name AS name, longest_line AS line, longest_lines AS lines
FROM pgtasks_demo.file
WHERE longest_lines > 0
ORDER BY longest_lines DESC, path
LIMIT 1
