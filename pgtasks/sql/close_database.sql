-- Let nobody connect to the database {name} any more: a database somebody is connected to cannot
-- be copied.
ALTER DATABASE {name} ALLOW_CONNECTIONS false
