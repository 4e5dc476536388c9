"""pgmq-functions: what pgmq's functions cost the server, beside the same statements prepared."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from benchmarks.bench import Bench, create_queues, empty, is_server_here
from benchmarks.report import Result
from benchmarks.rounds import Sample, compete
from benchmarks.stats import Series
from benchmarks.usage import cpu_seconds
from pgtasks.connection import Connection

QUEUE = "bench_functions"
BODY = '{"order": 4711, "text": "a message of ordinary length"}'
FUNCTION, STATEMENT = "{}, function", "{}, statement"

_COLUMNS = "msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers"
_SEND = f"""
    INSERT INTO pgmq.q_{QUEUE} (vt, message, headers)
    VALUES (clock_timestamp(), $1::jsonb, NULL) RETURNING msg_id
"""  # noqa: S608
_READ = f"""
    UPDATE pgmq.q_{QUEUE}
    SET vt = clock_timestamp() + interval '1 hour', last_read_at = clock_timestamp(),
        read_ct = read_ct + 1
    WHERE msg_id = ANY(ARRAY(
        SELECT msg_id FROM pgmq.q_{QUEUE} WHERE vt <= clock_timestamp()
        ORDER BY msg_id LIMIT $1::integer FOR UPDATE SKIP LOCKED
    ))
    RETURNING {_COLUMNS}
"""  # noqa: S608
_ARCHIVE = f"""
    WITH ended AS (
        DELETE FROM pgmq.q_{QUEUE} WHERE msg_id = ANY($1::bigint[]) RETURNING {_COLUMNS}
    )
    INSERT INTO pgmq.a_{QUEUE} ({_COLUMNS}) SELECT {_COLUMNS} FROM ended RETURNING msg_id
"""  # noqa: S608
_FILL = f"""
    INSERT INTO pgmq.q_{QUEUE} (vt, message)
    SELECT clock_timestamp() + $2::text::interval, $3::jsonb FROM generate_series(1, $1::integer)
"""  # noqa: S608
_SENDS = f"SELECT * FROM pgmq.send('{QUEUE}', $1::jsonb)"  # noqa: S608
_READS = f"SELECT * FROM pgmq.read('{QUEUE}', 3600, $1::integer)"  # noqa: S608
_ARCHIVES = f"SELECT * FROM pgmq.archive('{QUEUE}', $1::bigint[])"  # noqa: S608


@attrs.frozen
class Call:
    """Something that clients do, by a function and by a statement."""

    label: str
    function: str
    statement: str
    repeats: int
    arguments: Callable[[int], Any]
    """What the call of this number is given."""
    waiting: Sequence[tuple[int, str]]
    """How many messages there are before, and when they are due."""


async def run(bench: Bench) -> Result:
    """Call each some hundred times on one connection, and ask the kernel what its process used."""
    async with bench.connection() as connection:
        if not await is_server_here(connection):
            title = "not measured: it takes a /proc, and a server on the same machine"
            return Result("pgmq-functions", title, ())
        await create_queues(connection, QUEUE)
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
        calls = _calls(10 if bench.quick else 1, bench.messages)
        turns = [
            _turn(connection, pid, call, form, text)
            for call in calls
            for form, text in ((FUNCTION, call.function), (STATEMENT, call.statement))
        ]
        samples = await compete(turns, bench.rounds)
    return Result(
        "pgmq-functions",
        "processor time of the server for one call of a function of pgmq, as pgtasks makes them",
        tuple(_series(call, form, samples) for call in calls for form in (FUNCTION, STATEMENT)),
        (
            f"On one connection, in a queue of {bench.messages:,} messages. The statements are "
            "prepared once; a function that takes the name of its queue plans anew at each call. "
            "Reading is the exception: to find the first due messages among many that are not, "
            "the statement walks past these."
        ),
    )


def _calls(fewer: int, count: int) -> tuple[Call, ...]:
    few, many = 20 // fewer or 1, 200 // fewer
    ready = ((count, "-1 second"),)
    behind = ((count, "1 hour"), (2 * many, "-1 second"))
    return (
        Call("send", _SENDS, _SEND, many, lambda _: BODY, ()),
        Call("read, and there is nothing", _READS, _READ, many, lambda _: 1, ()),
        Call("read 1", _READS, _READ, many, lambda _: 1, ready),
        Call("read 100", _READS, _READ, few, lambda _: 100, ready),
        Call("read 1 behind delayed ones", _READS, _READ, many, lambda _: 1, behind),
        Call(
            "archive 100", _ARCHIVES, _ARCHIVE, few,
            lambda n: list(range(100 * n + 1, 100 * n + 101)), ready,
        ),
    )  # fmt: skip


def _turn(
    connection: Connection, pid: int, call: Call, form: str, text: str
) -> Callable[[], Awaitable[Sample]]:
    async def turn() -> Sample:
        await empty(connection, QUEUE)
        await connection.execute(f"ALTER TABLE pgmq.q_{QUEUE} ALTER msg_id RESTART")
        await connection.execute(f"TRUNCATE pgmq.a_{QUEUE}")
        for count, due in call.waiting:
            await connection.fetch(_FILL, count, due, BODY)
        await connection.execute(f"VACUUM ANALYZE pgmq.q_{QUEUE}")
        prepared = await connection.prepare(text)
        await prepared.fetch(call.arguments(0))
        began = cpu_seconds(pid)
        for number in range(1, call.repeats + 1):
            await prepared.fetch(call.arguments(number))
        return {form.format(call.label): 1e6 * (cpu_seconds(pid) - began) / call.repeats}

    return turn


def _series(call: Call, form: str, samples: dict[str, tuple[float, ...]]) -> Series:
    label = form.format(call.label)
    beside = STATEMENT.format(call.label) if form == FUNCTION else None
    return Series(label, "µs", samples[label], beside)
