"""bulk-defer: how fast many messages are stored at once, beside the bare statements for it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from benchmarks.bench import Bench, create_queues, empty
from benchmarks.report import Result
from benchmarks.rounds import Sample, compete
from benchmarks.stamps import now
from benchmarks.stats import Series
from benchmarks.workload import nothing
from pgtasks import connect
from pgtasks.connection import Connection
from pgtasks.message import new_id, write_envelope

QUEUE = "bench_bulk"
CHUNK = 1000
OURS, UNNEST, COPY = "defer_many", "bare INSERT … unnest", "bare COPY"
INSERT = f"""
    INSERT INTO pgmq."q_{QUEUE}" (vt, message)
    SELECT clock_timestamp(), body::jsonb FROM unnest($1::text[]) AS body
"""  # noqa: S608


async def run(bench: Bench) -> Result:
    """Store the same messages in three ways, each in one transaction that waits for the disk."""
    calls = [(number,) for number in range(bench.messages)]
    args = (f'{{"number":{number}}}'.encode() for number in range(bench.messages))
    bodies = [write_envelope(new_id(), nothing.name, body) for body in args]
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, QUEUE)

        async def ours() -> None:
            await nothing.options(queue=QUEUE).defer_many(calls)

        async def unnest() -> None:
            await _insert(connection, bodies)

        async def copy() -> None:
            await _copy(connection, bodies)

        ways = ((OURS, ours), (UNNEST, unnest), (COPY, copy))
        samples = await compete([_timed(bench, connection, *way) for way in ways], bench.rounds)
    return Result(
        "bulk-defer",
        f"{bench.messages:,} messages stored at once",
        (
            Series(OURS, "messages/s", samples[OURS], beside=COPY),
            Series(UNNEST, "messages/s", samples[UNNEST], beside=COPY),
            Series(COPY, "messages/s", samples[COPY]),
        ),
        "The bare statements get rows that were encoded before, and give no ids back.",
    )


def _timed(
    bench: Bench, connection: Connection, label: str, way: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[Sample]]:
    async def turn() -> Sample:
        await empty(connection, QUEUE)
        began = now()
        await way()
        return {label: bench.messages / (now() - began)}

    return turn


async def _insert(connection: Connection, bodies: list[str]) -> None:
    async with connection.transaction():
        for start in range(0, len(bodies), CHUNK):
            await connection.execute(INSERT, bodies[start : start + CHUNK])


async def _copy(connection: Connection, bodies: list[str]) -> None:
    due_at = datetime.now(UTC)
    await connection.copy_records_to_table(
        f"q_{QUEUE}",
        schema_name="pgmq",
        columns=["vt", "message"],
        records=((due_at, body) for body in bodies),
    )
