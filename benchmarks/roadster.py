"""roadster: the figure that Roadster publishes for its Postgres worker, measured here.

Their benchmark stores 1,000 messages in one batch, lets running workers work them, and takes the
time from the call that stores them until the last is done; the best of 1 to 1,000 worker loops.
"""

from benchmarks.bench import Bench, create_queues, empty, wait_until_empty
from benchmarks.process import worker
from benchmarks.report import Result
from benchmarks.rounds import Sample, compete
from benchmarks.stamps import now
from benchmarks.stats import Series
from benchmarks.workload import example
from pgtasks import connect

QUEUE = "bench_roadster"
MESSAGES = 1000
CONCURRENCY = 1, 10, 20, 100
PROCESSES = 1, 2


async def run(bench: Bench) -> Result:
    """Measure each setting of the worker on its own, one after the other."""
    series = [
        await _series(bench, processes, concurrency)
        for processes in PROCESSES
        for concurrency in CONCURRENCY
    ]
    best = min(series, key=lambda one: one.median)
    return Result(
        "roadster",
        f"{MESSAGES:,} messages deferred in one batch, then all worked",
        tuple(series),
        (
            f"Best setting here: {best.label}, median {best.median:.0f} ms, best round "
            f"{best.low:.0f} ms. Roadster publishes 280 ms (Apple M3) and 329 ms (Ryzen 5800X) "
            "for its best setting, in Rust. Other machines, other servers, and their clock stops "
            "when the last task has run, ours when its row is deleted: an order of magnitude, "
            "not a ranking."
        ),
    )


async def _series(bench: Bench, processes: int, concurrency: int) -> Series:
    label = _label(processes, concurrency)
    calls = [(f"Maximilian Mustermann {number}", number) for number in range(MESSAGES)]
    task = example.options(queue=QUEUE)
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, QUEUE)

        async def turn() -> Sample:
            await empty(connection, QUEUE)
            began = now()
            await task.defer_many(calls)
            ended = await wait_until_empty(connection, QUEUE, 0.002)
            return {label: 1000 * (ended - began)}

        async with worker(
            bench.url, QUEUE, folder=bench.folder, processes=processes, concurrency=concurrency
        ):
            samples = await compete([turn], bench.rounds * (1 if bench.quick else 4))
    return Series(label, "ms", samples[label])


def _label(processes: int, concurrency: int) -> str:
    processes_said = "1 process" if processes == 1 else f"{processes} processes"
    slots_said = "1 slot" if concurrency == 1 else f"{concurrency} slots each"
    return f"{processes_said}, {slots_said}"
