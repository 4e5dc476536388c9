-- Let this transaction's commit wait until it is on the disk, whatever the connection's default.
SET LOCAL synchronous_commit TO on
