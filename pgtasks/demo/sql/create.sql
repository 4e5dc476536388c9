-- What belongs to the demo, beside its queue: a row for each file that was measured. The number of
-- its message is the key: were a message's work ever done twice, the second would be refused.
CREATE SCHEMA pgtasks_demo;
COMMENT ON SCHEMA pgtasks_demo IS 'made by `pgtasks demo`, which will drop it';
CREATE TABLE pgtasks_demo.file (
    message_id bigint PRIMARY KEY,
    path text NOT NULL,
    bytes bigint NOT NULL,
    lines bigint NOT NULL,
    functions bigint NOT NULL,
    longest_name text NOT NULL,
    longest_line integer NOT NULL,
    longest_lines integer NOT NULL
);
SELECT pgtasks.create_queue('pgtasks_demo');
