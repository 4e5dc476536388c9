"""backlog: what a claim costs with a million messages ready, beside one from a short queue."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg

from benchmarks.bench import Bench, create_queues
from benchmarks.report import Result, distribution
from benchmarks.rounds import Sample, compete
from benchmarks.stats import Series, percentile
from pgtasks.connection import WORKER_SETTINGS
from pgtasks.message import Held, new_id, write_envelope
from pgtasks.store import BEGINNING, Store
from pgtasks.watermark import Watermark

LONG, SHORT, DELAYED = "bench_backlog", "bench_short", "bench_delayed"
NAMES = {LONG: "long queue", SHORT: "short queue"}
LEASE = timedelta(seconds=30)
SIZES = 1, 50
FILL = """
    INSERT INTO pgmq."q_{queue}" (vt, message)
    SELECT clock_timestamp() + $2::interval, $3::text::jsonb
    FROM generate_series(1, $1::integer)
"""
BODY = write_envelope(new_id(), "shop.send", b'{"number":1}')
POLL = "empty poll, {} delayed"


async def run(bench: Bench) -> Result:
    """Claim from a long and a short queue in turn, as a worker claims, and poll a delayed one."""
    ready, delayed = bench.messages * 20, bench.messages * 4
    taken: dict[str, list[float]] = {}
    async with bench.connection() as connection, _store(bench) as store:
        await create_queues(connection, LONG, SHORT, DELAYED)
        # The delayed ones first: whoever walks by number meets them before any that is due.
        for queue, count, delay in (
            (LONG, delayed, timedelta(days=1)),
            (LONG, ready, timedelta(0)),
            (DELAYED, delayed, timedelta(days=1)),
        ):
            await connection.execute(FILL.format(queue=queue), count, delay, BODY, timeout=300)
        await connection.execute(f'VACUUM (ANALYZE) pgmq."q_{LONG}"', timeout=300)
        await connection.execute("CHECKPOINT", timeout=300)
        marks = {queue: Watermark() for queue in NAMES}

        async def turn() -> Sample:
            sample = dict(await _polls(store, delayed))
            for size in SIZES:
                sample |= await _claims(store, marks, size, 100 if bench.quick else 400, taken)
            return sample

        samples = await compete([turn], bench.rounds)
    return _result(ready, delayed, samples, taken)


@asynccontextmanager
async def _store(bench: Bench) -> AsyncIterator[Store]:
    connection = await asyncpg.connect(bench.url, timeout=10, server_settings=dict(WORKER_SETTINGS))
    try:
        yield Store(connection)
    finally:
        await connection.close(timeout=5)


async def _claims(
    store: Store,
    marks: dict[str, Watermark],
    size: int,
    times: int,
    taken: dict[str, list[float]],
) -> Sample:
    """Claim and complete so many messages so often, from one queue and the other in turn."""
    seconds: dict[str, list[float]] = {queue: [] for queue in marks}
    for _ in range(times):
        await store.send_many(SHORT, [BODY] * size, None, timedelta(0), None)
        for queue, mark in marks.items():
            seconds[queue].append(await _claim(store, queue, size, mark))
    for queue, found in seconds.items():
        taken.setdefault(_label(queue, size), []).extend(1000 * each for each in found)
    return {
        f"{_label(queue, size)}, p{percent}": 1000 * percentile(found, percent)
        for queue, found in seconds.items()
        for percent in (50, 99)
    }


async def _claim(store: Store, queue: str, size: int, mark: Watermark) -> float:
    since = mark.since()
    began = time.perf_counter()
    rows = await store.claim(queue, size, LEASE, since)
    seconds = time.perf_counter() - began
    if since == BEGINNING:
        mark.looked_fully(seconds)
    assert len(rows) == size
    mark.passed(datetime.fromtimestamp(max(row["due_at"] for row in rows), UTC))
    await store.complete(queue, [Held(row["msg_id"], row["enqueued_at"]) for row in rows], 1)
    return seconds


async def _polls(store: Store, delayed: int) -> Sample:
    """Find nothing, as a worker does: a claim, and the question when something will be due."""
    seconds = []
    for _ in range(200):
        began = time.perf_counter()
        assert not await store.claim(DELAYED, 20, LEASE, BEGINNING)
        await store.next_due_seconds(DELAYED, BEGINNING)
        seconds.append(time.perf_counter() - began)
    label = POLL.format(f"{delayed:,}")
    return {f"{label}, p{percent}": 1000 * percentile(seconds, percent) for percent in (50, 99)}


def _label(queue: str, size: int) -> str:
    return f"{NAMES[queue]}, claim of {size}"


def _result(
    ready: int,
    delayed: int,
    samples: dict[str, tuple[float, ...]],
    taken: dict[str, list[float]],
) -> Result:
    def series(label: str) -> Series:
        is_long = label.startswith(NAMES[LONG])
        beside = label.replace(NAMES[LONG], NAMES[SHORT]) if is_long else None
        return Series(label, "ms", samples[label], beside=beside)

    return Result(
        "backlog",
        f"claims with {ready:,} messages ready and {delayed:,} delayed",
        tuple(series(label) for label in samples),
        (
            "One connection with a worker's settings and watermark claims, and completes, from "
            "the long queue and from one that holds no more than is claimed, in turn; timed is "
            "the claim alone. Every two seconds one starts at the index' left end, as a worker's "
            "does. The long queue was vacuumed and a checkpoint followed, so the first change of a "
            "page writes its image too. An empty poll is a claim that finds nothing, and the "
            "question when something will be due."
        ),
        tuple(distribution(label, found) for label, found in taken.items()),
    )
