"""wal: what a message writes into the server's log, from `defer` to done, beside a bare loop."""

from collections.abc import Awaitable, Callable

import anyio
import asyncpg

from benchmarks.bench import Bench, create_queues, empty, fill, wait_until_empty
from benchmarks.process import bare, worker
from benchmarks.report import Result
from benchmarks.rounds import Sample, compete
from benchmarks.stats import Series
from benchmarks.workload import nothing
from pgtasks import connect
from pgtasks.connection import Connection

OURS, BARE = "bench_wal", "bench_wal_bare"
NAMES = {OURS: "pgtasks", BARE: "bare loop"}
STORED, WORKED, BOTH = "{}, stored at once", "{}, worked", "{}, both"
PAGES = "{}, page images beside that"
SINGLE = 1000
INSERT = """
    INSERT INTO pgmq."q_bench_wal_bare" (vt, message)
    SELECT clock_timestamp(), jsonb_build_object('args', jsonb_build_object('number', number))
    FROM generate_series(1, $1::integer) AS number
"""
WRITTEN = """
    SELECT coalesce(sum(record_size), 0)::float8, coalesce(sum(fpi_size), 0)::float8
    FROM pg_get_wal_stats($1::text::pg_lsn, $2::text::pg_lsn)
"""
UNTOLD = "Full page images could not be told apart, since pg_walinspect is not there. "


async def run(bench: Bench) -> Result:
    """Store and work messages in a new table each time, and read what the server wrote."""
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, OURS, BARE)
        log = _Log(connection, has_inspector=await _add_inspector(connection))
        async with (
            worker(bench.url, OURS, folder=bench.folder),
            bare("bare_loop", bench.url, BARE, "async", folder=bench.folder),
        ):
            turns = [_turn(log, queue, bench.messages) for queue in NAMES]
            samples = await compete([*turns, _single(log)], bench.rounds)
    return Result(
        "wal",
        f"bytes that a message writes into the server's log, {bench.messages:,} messages",
        _series(samples),
        (
            f"{'' if log.has_inspector else UNTOLD}The payload is one integer; pgtasks stores it "
            "in its envelope with an id, the bare loop all but alone. Stored at once is one "
            "transaction; one by one (`defer`) each has a commit of its own. Worked: claimed and "
            "deleted. Nobody else may use the server meanwhile. A page's image is written when "
            "it is first changed after a checkpoint; the tables here are new, so few are."
        ),
    )


class _Log:
    """What the server wrote between two moments."""

    def __init__(self, connection: Connection, *, has_inspector: bool) -> None:
        self.connection, self.has_inspector = connection, has_inspector

    async def now(self) -> str:
        position: str = await self.connection.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        return position

    async def between(self, start: str, end: str) -> tuple[float, float]:
        """Bytes of records, and of page images in them."""
        if not self.has_inspector:
            text = "SELECT ($2::text::pg_lsn - $1::text::pg_lsn)::float8"
            return await self.connection.fetchval(text, start, end), 0.0
        # What committed without waiting is on disk within the second.
        flushed = "SELECT pg_current_wal_flush_lsn() >= $1::text::pg_lsn"
        with anyio.fail_after(20):
            while not await self.connection.fetchval(flushed, end):  # noqa: ASYNC110 - the server's
                await anyio.sleep(0.05)
        row = await self.connection.fetchrow(WRITTEN, start, end, timeout=120)
        assert row is not None
        return row[0], row[1]


async def _add_inspector(connection: Connection) -> bool:
    try:
        await connection.execute("CREATE EXTENSION pg_walinspect")
    except asyncpg.PostgresError:  # not on this server, or not for this role
        return False
    return True


def _turn(log: _Log, queue: str, count: int) -> Callable[[], Awaitable[Sample]]:
    name, connection = NAMES[queue], log.connection

    async def store() -> None:
        if queue == OURS:
            await fill(connection, queue, nothing, ((number,) for number in range(count)))
        else:
            await connection.execute(INSERT, count)

    async def turn() -> Sample:
        await connection.execute("CHECKPOINT")
        await empty(connection, OURS, BARE)
        # In one transaction: the worker must not begin before all is stored.
        start = await log.now()
        async with connection.transaction():
            await store()
            filled = await log.now()
        await wait_until_empty(connection, queue, 0.02)
        end = await log.now()
        stored, stored_images = await log.between(start, filled)
        worked, worked_images = await log.between(filled, end)
        return {
            BOTH.format(name): (stored + worked) / count,
            STORED.format(name): stored / count,
            WORKED.format(name): worked / count,
            PAGES.format(name): (stored_images + worked_images) / count,
        }

    return turn


def _single(log: _Log) -> Callable[[], Awaitable[Sample]]:
    async def turn() -> Sample:
        # Nobody works here: what is measured is the storing alone.
        await create_queues(log.connection, f"{OURS}_single")
        await empty(log.connection, f"{OURS}_single")
        start = await log.now()
        for number in range(SINGLE):
            await nothing.options(queue=f"{OURS}_single").defer(number)
        stored, _ = await log.between(start, await log.now())
        return {f"{NAMES[OURS]}, stored one by one": stored / SINGLE}

    return turn


def _series(samples: dict[str, tuple[float, ...]]) -> tuple[Series, ...]:
    return tuple(Series(label, "B", samples[label], _beside(label, samples)) for label in samples)


def _beside(label: str, samples: dict[str, tuple[float, ...]]) -> str | None:
    side, _, rest = label.partition(", ")
    other = f"{NAMES[BARE]}, {rest}"
    # No ratio of page images: there may be none.
    is_ours = side == NAMES[OURS] and other in samples and not rest.startswith("page images")
    return other if is_ours else None
