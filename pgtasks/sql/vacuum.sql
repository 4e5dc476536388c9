-- Let the space of the queue's dead rows be used again. Nobody waits for it, nor it for anybody: it
-- leaves a locked table alone, and does not give space back to the system, which takes a lock.
VACUUM (SKIP_LOCKED, TRUNCATE off, PARALLEL 0) {q}
