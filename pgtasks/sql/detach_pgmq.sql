-- Take our functions and types out of the schema pgmq, and our mark with them. What somebody has
-- built on one of them keeps them all there, and is named in the error.
DO $$
DECLARE
    made record;
BEGIN
    IF NOT pgtasks.owns_pgmq() THEN
        RAISE EXCEPTION 'the functions in the schema pgmq are not those of pgtasks'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = '`pgtasks db check` says whose pgmq it is.';
    END IF;
    LOCK TABLE pgmq.meta IN EXCLUSIVE MODE;
    FOR made IN
        SELECT relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE tgfoid = 'pgmq.notify_queue_listeners()'::regprocedure
            AND tgname = 'trigger_notify_queue_insert_listeners'
            AND relnamespace = 'pgmq'::regnamespace
    LOOP
        EXECUTE format(
            'DROP TRIGGER trigger_notify_queue_insert_listeners ON pgmq.%I', made.relname);
    END LOOP;
    EXECUTE (
        SELECT format('DROP FUNCTION %s', string_agg(oid::regprocedure::text, ', '))
        FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace
    );
    DROP TYPE pgmq.message_record, pgmq.queue_record, pgmq.metrics_result;
    -- Who brings pgmq's SQL along would believe that it is there.
    DROP TABLE pgmq.__pgmq_migrations;
    IF obj_description('pgmq'::regnamespace, 'pg_namespace') LIKE '%as pgtasks made them' THEN
        COMMENT ON SCHEMA pgmq IS NULL;
    END IF;
END
$$
