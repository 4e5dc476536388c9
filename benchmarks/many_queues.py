"""many-queues: what an idle worker costs that serves 200 queues, beside one that serves one."""

import anyio

from benchmarks.bench import Bench, create_queues
from benchmarks.process import Running, worker
from benchmarks.report import Result
from benchmarks.server import own_database
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
        one = Bench(other_url, bench.folder, bench.rounds, bench.messages, bench.quick)
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
    return Result("many-queues", title, _series(samples), _note())


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
    found = [
        Series(what.format(label), unit, tuple(samples[what.format(label)]), _beside(what, label))
        for what, unit in units.items()
        for label in (MANY, ONE)
    ]
    pairs = zip(samples[TIME.format(MANY)], samples[TIME.format(ONE)], strict=True)
    per_poll = tuple((many - one) * _poll_seconds() for many, one in pairs)
    return (*found, Series(PER_POLL, "ms", per_poll))


def _beside(what: str, label: str) -> str | None:
    return what.format(ONE) if label == MANY else None


def _note() -> str:
    return (
        "Two workers at their defaults, one process each, watched in the same windows. The time "
        "is what the server says its connections were executing something "
        "(`pg_stat_database.active_time`), all of the worker's statements and our own few looks "
        f"included; a poll of all queues comes every {_poll_seconds():g} s on average. CPU is "
        "that of supervisor and child."
    )
