-- Give the database {name} its final name {template}.
ALTER DATABASE {name} RENAME TO {template}
