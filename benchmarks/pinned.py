"""pinned: a queue worked off again and again under a transaction that stays open, and without one.

While a transaction is open, nothing that was deleted since it began can be cleaned up: whoever
looks for the next message by walking past what is dead gets slower with every message.
"""

import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from benchmarks.bench import Bench, create_queues, empty, fill, wait_until_empty
from benchmarks.process import worker
from benchmarks.report import Curve, Result
from benchmarks.rounds import Sample, compete
from benchmarks.stats import Series
from benchmarks.workload import nothing
from pgtasks import connect
from pgtasks.connection import Connection

QUEUE = "bench_pinned"
STEPS = 20
PINNED, CONTROL = "old transaction", "control"
FIRST, LAST = "{}, first three", "{}, last three"
HAS_SNAPSHOT = """
    SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""


async def run(bench: Bench) -> Result:
    """Fill and empty a queue 20 times in a row, alternately with and without a snapshot."""
    count = max(1, bench.messages // 10)
    steps: dict[str, list[list[float]]] = {PINNED: [], CONTROL: []}
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, QUEUE)
        async with worker(bench.url, QUEUE, folder=bench.folder):
            turns = [_turn(bench, connection, label, count, steps[label]) for label in steps]
            samples = await compete(turns, bench.rounds)
    return Result(
        "pinned",
        f"{STEPS} times {count:,} no-op async tasks worked, under an open transaction",
        tuple(
            series
            for label in steps
            for first, last in [(FIRST.format(label), LAST.format(label))]
            for series in (
                Series(first, "messages/s", samples[first]),
                Series(last, "messages/s", samples[last], beside=first),
            )
        ),
        (
            f"Each time a new table, and {STEPS} times one after the other it is filled and "
            "emptied, with a snapshot held open all the while; control: the same without it. One "
            "worker process at its defaults; the rates are medians of three."
        ),
        # The warm-up's steps stand first.
        tuple(_curve(label, taken[1:]) for label, taken in steps.items()),
    )


def _turn(
    bench: Bench, connection: Connection, label: str, count: int, steps: list[list[float]]
) -> Callable[[], Awaitable[Sample]]:
    async def turn() -> Sample:
        await empty(connection, QUEUE)
        async with _snapshot(bench, on=label == PINNED):
            rates = [await _step(connection, count) for _ in range(STEPS)]
        steps.append(rates)
        first, last = statistics.median(rates[:3]), statistics.median(rates[-3:])
        return {FIRST.format(label): first, LAST.format(label): last}

    return turn


async def _step(connection: Connection, count: int) -> float:
    began = await fill(connection, QUEUE, nothing, ((number,) for number in range(count)))
    ended = await wait_until_empty(connection, QUEUE, 0.002)
    return count / (ended - began)


@asynccontextmanager
async def _snapshot(bench: Bench, *, on: bool) -> AsyncIterator[None]:
    async with bench.connection() as connection:
        if not on:
            yield
            return
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT 1")
            assert await connection.fetchval(HAS_SNAPSHOT)
            yield


def _curve(label: str, taken: list[list[float]]) -> Curve:
    """Return the median of each step over the rounds."""
    numbers = tuple(float(number) for number in range(1, STEPS + 1))
    return Curve(label, numbers, tuple(map(statistics.median, zip(*taken, strict=True))))
