-- Create the database {name} as a copy of the database {template}.
CREATE DATABASE {name} TEMPLATE {template}
