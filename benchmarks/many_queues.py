"""many-queues: what an idle worker costs that serves 200 queues, beside one that serves one.

On a server that is idle itself, and on one that somebody else writes to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import attrs

from benchmarks.bench import Bench, create_queues
from benchmarks.process import Running, worker
from benchmarks.report import Result
from benchmarks.server import empty_database, own_database
from benchmarks.stats import Series
from benchmarks.usage import cpu_seconds, is_told, only_child
from pgtasks.config import QueueFetchConfig
from pgtasks.connection import Connection

QUEUES = 200
WINDOW_SECONDS = 20.0
SETTLE_SECONDS = 3.0
MANY, ONE = f"{QUEUES} queues", "1 queue"
CPU, TIME, STATEMENTS = "{}, CPU", "{}, time in the database", "{}, statements"
PER_POLL = "the 199 queues more, time in the database a poll"
PER_BUSY_POLL = PER_POLL + ", others writing"
WRITE_EVERY_SECONDS = 0.05
USED = """
    SELECT active_time, (xact_commit + xact_rollback)::float8 FROM pg_stat_database
    WHERE datname = current_database()
"""


async def run(bench: Bench) -> Result:
    """Let two workers be idle at the same time, each on a database of its own."""
    title = f"an idle worker on {QUEUES} queues"
    if not is_told():
        return Result("many-queues", title, (), "Not measured: this system has no /proc.")
    async with own_database(bench.url) as other_url:
        one = attrs.evolve(bench, url=other_url)
        names = {MANY: [f"bench_many_{number}" for number in range(QUEUES)], ONE: ["bench_one"]}
        async with bench.connection() as many_database, one.connection() as one_database:
            await create_queues(many_database, *names[MANY])
            await create_queues(one_database, *names[ONE])
            async with (
                worker(bench.url, *names[MANY], folder=bench.folder) as many,
                worker(other_url, *names[ONE], folder=bench.folder) as alone,
            ):
                await anyio.sleep(SETTLE_SECONDS)
                watched = {MANY: (many, many_database), ONE: (alone, one_database)}
                samples = await _watch(watched, bench)
                async with _others_writing(bench):
                    busy = await _watch(watched, bench)
    series = (*_series(samples), _per_poll(PER_POLL, samples), _per_poll(PER_BUSY_POLL, busy))
    return Result("many-queues", title, series, _note())


@asynccontextmanager
async def _others_writing(bench: Bench) -> AsyncIterator[None]:
    """End a transaction that could have written, 20 times a second, in a database of its own."""

    async def write(on: Connection) -> None:
        while True:
            await on.execute("SELECT pg_current_xact_id()")
            await anyio.sleep(WRITE_EVERY_SECONDS)

    async with (
        empty_database(bench.url) as url,
        attrs.evolve(bench, url=url).connection() as connection,
        anyio.create_task_group() as group,
    ):
        group.start_soon(write, connection)
        yield
        group.cancel_scope.cancel()


async def _watch(
    watched: dict[str, tuple[Running, Connection]], bench: Bench
) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    seconds = 5.0 if bench.quick else WINDOW_SECONDS
    before = {label: await _used(*both) for label, both in watched.items()}
    for _ in range(bench.rounds):
        await anyio.sleep(seconds)
        after = {label: await _used(*both) for label, both in watched.items()}
        for label, values in after.items():
            differences = [new - old for new, old in zip(values, before[label], strict=True)]
            cpu, active, statements = (each / seconds for each in differences)
            samples.setdefault(CPU.format(label), []).append(100 * cpu)
            samples.setdefault(TIME.format(label), []).append(active)
            # One a window is our own look.
            samples.setdefault(STATEMENTS.format(label), []).append(statements - 1 / seconds)
        before = after
    return samples


async def _used(running: Running, connection: Connection) -> tuple[float, float, float]:
    """CPU of supervisor and child; milliseconds and transactions in the database, so far."""
    child = await only_child(running.pid)
    row = await connection.fetchrow(USED)
    assert row is not None
    return cpu_seconds(running.pid) + cpu_seconds(child), *row


def _poll_seconds() -> float:
    """How long a worker leaves an empty queue alone, on average: it varies by a tenth."""
    return 0.95 * QueueFetchConfig().empty_delay.total_seconds()


def _series(samples: dict[str, list[float]]) -> tuple[Series, ...]:
    units = {CPU: "% of a core", TIME: "ms a second", STATEMENTS: "a second"}
    return tuple(
        Series(what.format(label), unit, tuple(samples[what.format(label)]), _beside(what, label))
        for what, unit in units.items()
        for label in (MANY, ONE)
    )


def _per_poll(label: str, samples: dict[str, list[float]]) -> Series:
    pairs = zip(samples[TIME.format(MANY)], samples[TIME.format(ONE)], strict=True)
    return Series(label, "ms", tuple((many - one) * _poll_seconds() for many, one in pairs))


def _beside(what: str, label: str) -> str | None:
    return what.format(ONE) if label == MANY else None


def _note() -> str:
    return (
        "Two workers at their defaults, one process each, watched in the same windows. The time "
        "is what the server says its connections were executing something "
        "(`pg_stat_database.active_time`), all of the worker's statements and our own few looks "
        f"included; a poll of all queues comes every {_poll_seconds():g} s on average. CPU is "
        "that of supervisor and child. While no transaction ends on the server, a poll asks no "
        "more than that; the last row is of other rounds, in which another database is written "
        "to 20 times a second, so that each poll asks about each queue. Once in five minutes a "
        "worker looks at the archives of its queues: that round is the highest."
    )
