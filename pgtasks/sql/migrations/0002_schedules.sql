-- Schedules: rules that say when messages of a task are sent, and the ledger of what was sent.
--
-- A schedule fires at its ticks. Whoever fires one moves next_fire_at to the next tick, writes the
-- ledger and sends the message, in one statement: of many workers that try, the others find
-- next_fire_at moved and send nothing. There is no leader.

CREATE TABLE pgtasks.schedule (
    name text PRIMARY KEY,
    task text NOT NULL,
    queue text NOT NULL CHECK (pgtasks.is_queue_name(queue)),
    args jsonb NOT NULL,
    cron text,
    every interval,
    timezone text NOT NULL,
    jitter interval NOT NULL,
    misfire text NOT NULL CHECK (misfire IN ('coalesce', 'skip', 'catch_up')),
    catch_up_limit integer NOT NULL CHECK (catch_up_limit > 0),
    overlap text NOT NULL CHECK (overlap IN ('allow', 'skip')),
    -- Whose code declares it; NULL for one made at run time, which nobody's start touches.
    owner text,
    -- When a running worker last declared it; what nobody declares any more goes stale.
    seen_at timestamptz CHECK ((seen_at IS NULL) = (owner IS NULL)),
    is_paused boolean NOT NULL DEFAULT false,
    next_fire_at timestamptz,
    last_fire_at timestamptz,
    last_queue text,
    last_message_id bigint,
    -- Raised by every change of the rule, so that nobody fires what was changed meanwhile.
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((cron IS NULL) <> (every IS NULL))
);
CREATE INDEX schedule_next_fire_at_idx ON pgtasks.schedule (next_fire_at) WHERE NOT is_paused;

-- One row a tick. No foreign key: a schedule that is removed and made again must not fire the
-- ticks that it has fired.
CREATE TABLE pgtasks.fire (
    schedule text NOT NULL,
    fire_at timestamptz NOT NULL,
    fired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    queue text NOT NULL,
    -- NULL: not sent, the message before was still queued or running.
    message_id bigint,
    PRIMARY KEY (schedule, fire_at)
);
CREATE INDEX fire_fire_at_idx ON pgtasks.fire (fire_at);
