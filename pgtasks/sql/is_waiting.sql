-- Whether the message numbered $1 is still in the queue, waiting or leased.
SELECT EXISTS (SELECT FROM {q} WHERE msg_id = $1)
