"""waiting: how well 100 slots are kept busy by tasks that wait, beside a bare loop."""

from benchmarks.bench import Bench, create_queues
from benchmarks.drain import timed_drain
from benchmarks.process import bare, worker
from benchmarks.report import Result
from benchmarks.rounds import compete
from benchmarks.stats import Series, ratio
from benchmarks.workload import WAIT_SECONDS, wait
from pgtasks import connect

SLOTS = 100
WORKER, BARE = "worker, 100 slots", "bare loop, 100 runners"
QUEUES = {WORKER: "bench_waiting", BARE: "bench_waiting_bare"}
IDEAL = SLOTS / WAIT_SECONDS


async def run(bench: Bench) -> Result:
    """Work off tasks of 10 ms, 100 of them at a time."""
    count = max(SLOTS, bench.messages // 10)
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, *QUEUES.values())
        async with (
            worker(bench.url, QUEUES[WORKER], folder=bench.folder, concurrency=SLOTS),
            bare("bare_loop", bench.url, QUEUES[BARE], "wait", folder=bench.folder) as loop,
        ):
            ours, beside = [
                timed_drain(connection, label, QUEUES[label], wait, count) for label in QUEUES
            ]
            samples = await compete([ours, loop.only_in(beside)], bench.rounds)
    shares = {label: ratio(found, [IDEAL] * len(found)) for label, found in samples.items()}
    return Result(
        "waiting",
        f"{count:,} async tasks that wait for {WAIT_SECONDS * 1000:g} ms, {SLOTS} at a time",
        (
            Series(WORKER, "messages/s", samples[WORKER], beside=BARE),
            Series(BARE, "messages/s", samples[BARE]),
        ),
        (
            f"{SLOTS} slots that were never empty, and timers that were never late, would do "
            f"{IDEAL:,.0f}/s: the worker reached {shares[WORKER]:.0%} of that, the bare loop "
            f"{shares[BARE]:.0%}. One process each."
        ),
    )
