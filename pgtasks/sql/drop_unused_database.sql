-- Drop the database {name}; refused while somebody is connected to it.
DROP DATABASE IF EXISTS {name}
