"""single-defer: how fast messages are stored one by one, beside a bare INSERT and commit."""

from collections.abc import Awaitable, Callable

import anyio
import asyncpg

from benchmarks.bench import Bench, create_queues, empty
from benchmarks.process import bare
from benchmarks.report import Result
from benchmarks.rounds import Sample, compete
from benchmarks.stamps import now
from benchmarks.stats import Series
from benchmarks.workload import nothing
from pgtasks import connect
from pgtasks.connection import Connection, Pool
from pgtasks.message import new_id, write_envelope
from pgtasks.sender import CARRIERS

QUEUE = "bench_single"
AT_ONCE = 50
BODY = write_envelope(new_id(), nothing.name, b'{"number":1}')
"""What `defer` stores, too."""
INSERT = f'INSERT INTO pgmq."q_{QUEUE}" (vt, message) VALUES (clock_timestamp(), $1::jsonb)'  # noqa: S608
NOTIFYING = f"""
    WITH sent AS ({INSERT} RETURNING msg_id) SELECT pg_notify('pgtasks', '{QUEUE}') FROM sent
"""  # noqa: S608

OURS, INSERTED, NOTIFIED = "defer", "bare INSERT", "bare INSERT with NOTIFY"
Store = Callable[[], Awaitable[object]]


async def run(bench: Bench) -> Result:
    """Store messages for some seconds: by one coroutine, then by 50 at once."""
    seconds = 0.5 if bench.quick else 3.0
    stamps = bench.folder / "single-defer.stamps"
    stamps.touch()
    async with (
        bench.connection() as connection,
        # A system that defers has a worker that listens, and each NOTIFY has to wake it.
        bare("bare_listen", bench.url, "pgtasks", str(stamps), folder=bench.folder),
        asyncpg.create_pool(bench.url, min_size=AT_ONCE, max_size=AT_ONCE) as pool,
        connect(config=bench.config),
    ):
        await create_queues(connection, QUEUE)
        turns = [
            _turn(f"{label}, {said}", store, connection, count, seconds)
            for count, said in ((1, "one after another"), (AT_ONCE, f"{AT_ONCE} at once"))
            for label, store in _ways(connection if count == 1 else pool)
        ]
        samples = await compete(turns, bench.rounds)
    return Result(
        "single-defer",
        "messages stored one by one, each awaited until it is on disk",
        tuple(_series(label, samples) for label in samples),
        (
            f"`defer` has at most {CARRIERS} statements under way; the bare statements have one "
            f"connection, or {AT_ONCE}. One process listens."
        ),
    )


def _ways(on: Connection | Pool) -> tuple[tuple[str, Store], ...]:
    task = nothing.options(queue=QUEUE)
    return (
        (OURS, lambda: task.defer(1)),
        (INSERTED, lambda: on.execute(INSERT, BODY)),
        (NOTIFIED, lambda: on.fetchval(NOTIFYING, BODY)),
    )


def _turn(
    label: str, store: Store, connection: Connection, count: int, seconds: float
) -> Callable[[], Awaitable[Sample]]:
    async def turn() -> Sample:
        await empty(connection, QUEUE)
        return {label: await _rate(store, count, seconds)}

    return turn


async def _rate(store: Store, count: int, seconds: float) -> float:
    """Let `count` coroutines store one message after another; return messages a second."""
    stored = 0
    began = now()

    async def go_on() -> None:
        nonlocal stored
        while now() - began < seconds:
            await store()
            stored += 1

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(go_on)
    return stored / (now() - began)


def _series(label: str, samples: dict[str, tuple[float, ...]]) -> Series:
    what, _, said = label.partition(", ")
    beside = None if what == INSERTED else f"{INSERTED}, {said}"
    return Series(label, "messages/s", samples[label], beside)
