"""many-queues: what an idle worker costs that serves 200 queues, beside one that serves one.

On a server that is idle itself, and on one that somebody else writes to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import attrs

from benchmarks.bench import Bench, create_queues, is_server_here
from benchmarks.process import Running, worker
from benchmarks.report import Result
from benchmarks.server import empty_database, own_database
from benchmarks.stats import Series
from benchmarks.usage import cpu_seconds, only_child
from pgtasks.config import QueueFetchConfig
from pgtasks.connection import Connection

QUEUES = 200
WINDOW_SECONDS = 20.0
SETTLE_SECONDS = 3.0
MANY, ONE = f"{QUEUES} queues", "1 queue"
CPU, SERVED = "{}, CPU", "{}, CPU of the server for it"
PER_POLL = "the 199 queues more, CPU of the server a poll"
PER_BUSY_POLL = PER_POLL + ", others writing"
WRITE_EVERY_SECONDS = 0.05
BACKENDS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'pgtasks %'
"""


async def run(bench: Bench) -> Result:
    """Let two workers be idle at the same time, each on a database of its own."""
    title = f"an idle worker on {QUEUES} queues"
    async with bench.connection() as connection:
        if not await is_server_here(connection):
            why = "Not measured: it takes a /proc, and a server on the same machine."
            return Result("many-queues", title, (), why)
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
        for label, used in after.items():
            spent = [_since(old, new) for old, new in zip(before[label], used, strict=True)]
            samples.setdefault(CPU.format(label), []).append(100 * spent[0] / seconds)
            samples.setdefault(SERVED.format(label), []).append(1000 * spent[1] / seconds)
        before = after
    return samples


Used = dict[int, float]
"""CPU of processes so far, in seconds."""


async def _used(running: Running, connection: Connection) -> tuple[Used, Used]:
    """CPU of supervisor and child, and of the server's processes for their connections."""
    workers = [running.pid, await only_child(running.pid)]
    backends = [row[0] for row in await connection.fetch(BACKENDS)]
    return {pid: cpu_seconds(pid) for pid in workers}, {pid: cpu_seconds(pid) for pid in backends}


def _since(before: Used, after: Used) -> float:
    """How much more it is, of those that were there before."""
    return sum(seconds - before[pid] for pid, seconds in after.items() if pid in before)


def _poll_seconds() -> float:
    """How long a worker leaves an empty queue alone, on average: it varies by a tenth."""
    return 0.95 * QueueFetchConfig().empty_delay.total_seconds()


def _series(samples: dict[str, list[float]]) -> tuple[Series, ...]:
    units = {CPU: "% of a core", SERVED: "ms a second"}
    return tuple(
        Series(what.format(label), unit, tuple(samples[what.format(label)]), _beside(what, label))
        for what, unit in units.items()
        for label in (MANY, ONE)
    )


def _per_poll(label: str, samples: dict[str, list[float]]) -> Series:
    pairs = zip(samples[SERVED.format(MANY)], samples[SERVED.format(ONE)], strict=True)
    return Series(label, "ms", tuple((many - one) * _poll_seconds() for many, one in pairs))


def _beside(what: str, label: str) -> str | None:
    return what.format(ONE) if label == MANY else None


def _note() -> str:
    return (
        "Two workers at their defaults, one process each, watched in the same windows. CPU is that "
        "of supervisor and child; of the server, that of its processes for their connections, as "
        f"the kernel counts it. A poll of all queues comes every {_poll_seconds():g} s on average. "
        "While no transaction ends on the server, it asks no more than that; the last row is of "
        "other rounds, in which another database is written to 20 times a second, so that each "
        "poll asks about each queue. Once in five minutes a worker looks at the archives of its "
        "queues: that round is the highest."
    )
