-- Create the queue named $1 unless it exists; true when it did not.
SELECT pgtasks.create_queue($1)
