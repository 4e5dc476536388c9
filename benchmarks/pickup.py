"""pickup: how soon an idle worker starts a message, beside a bare NOTIFY and LISTEN."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from benchmarks.bench import LONGEST_SECONDS, Bench, create_queues
from benchmarks.process import bare, worker
from benchmarks.report import Result, distribution
from benchmarks.rounds import Sample, compete
from benchmarks.stamps import now, read_stamps
from benchmarks.stats import Series, percentile
from benchmarks.workload import stamp
from pgtasks import connect

QUEUE = "bench_pickup"
CHANNEL = "bench_listen"
SPACING_SECONDS = 0.02
BARE = f"""
    WITH sent AS (
        INSERT INTO pgmq."q_{QUEUE}_bare" (vt, message)
        VALUES (clock_timestamp(), '{{"number": 1}}') RETURNING msg_id
    )
    SELECT pg_notify('{CHANNEL}', $1::text) FROM sent
"""  # noqa: S608
PARTS = {"p50": 50, "p99": 99, "max": 100}


async def run(bench: Bench) -> Result:
    """Defer 200 messages, 20 ms apart, and compare when each was stored and started."""
    count = 50 if bench.quick else 200
    taken: dict[str, list[float]] = {}
    ours, theirs = (_new_file(bench, name) for name in ("worker", "listen"))
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, QUEUE, f"{QUEUE}_bare")
        task = stamp.options(queue=QUEUE)
        async with (
            worker(bench.url, QUEUE, folder=bench.folder, stamps=ours),
            bare("bare_listen", bench.url, CHANNEL, str(theirs), folder=bench.folder),
        ):
            turns = [
                _turn("worker", task.defer, ours, count, taken),
                _turn("LISTEN", lambda i: connection.fetchval(BARE, str(i)), theirs, count, taken),
            ]
            samples = await compete(turns, bench.rounds)
    return Result(
        "pickup",
        f"an idle worker, {count} messages {SPACING_SECONDS * 1000:g} ms apart",
        tuple(_series(label, samples) for label in samples),
        (
            "From the commit: until the task runs, since the sender had Postgres' answer (below 0 "
            "it ran before that). From the call: since `defer` was called, encoding and commit "
            "included. LISTEN: a bare INSERT with NOTIFY, until a bare listener is called."
        ),
        tuple(distribution(label, found) for label, found in taken.items()),
    )


def _new_file(bench: Bench, name: str) -> Path:
    file = bench.folder / f"pickup-{name}.stamps"
    file.touch()
    return file


def _turn(
    label: str,
    send: Callable[[int], Awaitable[object]],
    stamps: Path,
    count: int,
    taken: dict[str, list[float]],
) -> Callable[[], Awaitable[Sample]]:
    async def turn() -> Sample:
        called, answered = {}, {}
        for number in range(count):
            called[number] = now()
            await send(number)
            answered[number] = now()
            await anyio.sleep(SPACING_SECONDS)
        started = await _all_stamps(stamps, count)
        sample: dict[str, float] = {}
        for said, moments in (("from the commit", answered), ("from the call", called)):
            latencies = [1000 * (started[number] - moments[number]) for number in range(count)]
            taken.setdefault(f"{label}, {said}", []).extend(latencies)
            for part, percent in PARTS.items():
                sample[f"{label}, {said}, {part}"] = percentile(latencies, percent)
        return sample

    return turn


async def _all_stamps(file: Path, count: int) -> dict[int, float]:
    stamps: dict[int, float] = {}
    with anyio.fail_after(LONGEST_SECONDS):
        while len(stamps) < count:
            await anyio.sleep(0.05)
            stamps |= read_stamps(file)
    return stamps


def _series(label: str, samples: dict[str, tuple[float, ...]]) -> Series:
    side, _, rest = label.partition(", ")
    from_call = rest.startswith("from the call")
    beside = f"LISTEN, {rest}" if side == "worker" and from_call else None
    return Series(label, "ms", samples[label], beside)
