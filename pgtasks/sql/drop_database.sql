-- Drop the database {name}, whoever is connected to it.
DROP DATABASE IF EXISTS {name} WITH (FORCE)
