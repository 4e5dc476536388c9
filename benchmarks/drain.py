"""drain and drain-sync: how fast a real worker works off a full queue, beside a bare loop."""

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.bench import Bench, create_queues, empty, fill, wait_until_empty
from benchmarks.process import bare, worker
from benchmarks.report import Result
from benchmarks.rounds import Sample, compete
from benchmarks.stats import Series
from benchmarks.workload import nothing, nothing_sync
from pgtasks import Task, connect
from pgtasks.connection import Connection

ONE, TWO, BARE = "worker, 1 process", "worker, 2 processes", "bare loop, 1 process"
QUEUES = {ONE: "bench_one", TWO: "bench_two", BARE: "bench_bare"}


async def run(bench: Bench) -> Result:
    """Work off no-op async tasks."""
    samples = await _drain(bench, nothing, bench.messages, "async")
    return _result("drain", f"{bench.messages:,} no-op async tasks worked", samples)


async def run_sync(bench: Bench) -> Result:
    """Work off no-op sync tasks, which run in threads; fewer, because each takes longer."""
    count = max(1, bench.messages // 5)
    samples = await _drain(bench, nothing_sync, count, "sync")
    return _result("drain-sync", f"{count:,} no-op sync tasks worked, in threads", samples)


async def _drain(
    bench: Bench, task: Task[[int], Any], count: int, kind: str
) -> dict[str, tuple[float, ...]]:
    folder, url = bench.folder, bench.url
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, *QUEUES.values())
        # All of them are there all the time, idle but for their turn: so rounds can be paired.
        async with (
            worker(url, QUEUES[ONE], folder=folder, processes=1),
            worker(url, QUEUES[TWO], folder=folder, processes=2),
            bare("bare_loop", url, QUEUES[BARE], kind, folder=folder) as loop,
        ):
            *workers, beside = [
                timed_drain(connection, label, QUEUES[label], task, count) for label in QUEUES
            ]
            return await compete([*workers, loop.only_in(beside)], bench.rounds)


def timed_drain(
    connection: Connection, label: str, queue: str, task: Task[[int], Any], count: int
) -> Callable[[], Awaitable[Sample]]:
    """Return a turn that fills a queue, and tells how many messages a second were worked."""

    async def turn() -> Sample:
        await empty(connection, queue)
        began = await fill(connection, queue, task, ((number,) for number in range(count)))
        ended = await wait_until_empty(connection, queue, 0.01)
        return {label: count / (ended - began)}

    return turn


def _result(name: str, title: str, samples: dict[str, tuple[float, ...]]) -> Result:
    return Result(
        name,
        title,
        (
            Series(ONE, "messages/s", samples[ONE], beside=BARE),
            Series(TWO, "messages/s", samples[TWO], beside=BARE),
            Series(BARE, "messages/s", samples[BARE]),
        ),
        (
            "From the commit that made all of them visible to idle workers until the queue's "
            "table is empty, all settings at their defaults (20 slots a process)."
        ),
    )
