"""retention: a queue worked off while a long archive is pruned, beside one left in peace."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import asyncpg
import attrs

from benchmarks.bench import Bench, create_queues, empty, fill, wait_until_empty
from benchmarks.process import worker
from benchmarks.report import Result
from benchmarks.rounds import Sample, compete
from benchmarks.stats import Series, percentile
from benchmarks.workload import nothing
from pgtasks import connect
from pgtasks.connection import WORKER_SETTINGS, Connection
from pgtasks.pruner import PRUNER_SETTINGS, Pruning
from pgtasks.retention import Limits, Retention
from pgtasks.store import BEGINNING, Executor, Store

QUEUE, PROBED = "bench_retention", "bench_probed"
ARCHIVED_TIMES = 4
"""So many times as many messages are in the archive as are worked off."""
PROBE_SECONDS = 0.01
PROBED_AT_ONCE = 20

WEEK_OLD = Retention(Limits(timedelta(days=7), None), Limits(timedelta(days=7), None))
ALONE, BESIDE = "nobody prunes", "while pruned"
DRAINED, CLAIMED = "worker, {}", "claim p99, {}"
PRUNED, LONGEST = "deleted meanwhile", "longest statement of the pruner"
FILL = f"""
    INSERT INTO pgmq."a_{QUEUE}" (msg_id, vt, archived_at, message, headers)
    SELECT -number, now(), now() - interval '30 days' + number * interval '1 ms',
    jsonb_build_object(
        'metadata', jsonb_build_object('id', gen_random_uuid(), 'worker_name', 'shop.send'),
        'args', jsonb_build_object('user', number)
    ), jsonb_build_object('pgtasks', jsonb_build_object(
        'outcome', CASE WHEN number % 10 = 0 THEN 'failed' ELSE 'done' END,
        'attempts', 1, 'seconds', 0.1, 'worker', 'host:1:abcdef01'
    ))
    FROM generate_series(1, $1::integer) AS number
"""  # noqa: S608


async def run(bench: Bench) -> Result:
    """Work off no-op tasks, alternately with and without somebody who prunes their archive."""
    archived = bench.messages * ARCHIVED_TIMES
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, QUEUE, PROBED)
        await _fill_probed(connection)
        async with worker(bench.url, QUEUE, folder=bench.folder):
            turns = [_turn(bench, connection, archived, pruned=pruned) for pruned in (False, True)]
            samples = await compete(turns, bench.rounds)
    return _result(bench.messages, archived, samples)


def _turn(
    bench: Bench, connection: Connection, archived: int, *, pruned: bool
) -> Callable[[], Awaitable[Sample]]:
    label = BESIDE if pruned else ALONE

    async def turn() -> Sample:
        await _refill(connection, archived)
        await empty(connection, QUEUE)
        claims: list[float] = []
        async with _claiming(bench, claims), _pruning(bench, on=pruned) as batches:
            began = await fill(connection, QUEUE, nothing, ((n,) for n in range(bench.messages)))
            ended = await wait_until_empty(connection, QUEUE, 0.01)
        seconds = ended - began
        sample = {
            DRAINED.format(label): bench.messages / seconds,
            CLAIMED.format(label): 1000 * percentile(claims, 99),
        }
        if pruned:
            sample[PRUNED] = sum(batches.deleted) / seconds
            sample[LONGEST] = 1000 * max(batches.seconds)
        return sample

    return turn


async def _refill(connection: Connection, archived: int) -> None:
    """Make the archive as it was, with what autovacuum would long have done to it."""
    await connection.execute(f'TRUNCATE pgmq."a_{QUEUE}"')
    await connection.execute(FILL, archived, timeout=120)
    await connection.execute(f'VACUUM (ANALYZE) pgmq."a_{QUEUE}"', timeout=120)
    await connection.execute("CHECKPOINT", timeout=120)


async def _fill_probed(connection: Connection) -> None:
    bodies = ["{}"] * 1000
    await Store(connection).send_many(PROBED, bodies, None, timedelta(0), None)


@asynccontextmanager
async def _claiming(bench: Bench, seconds: list[float]) -> AsyncIterator[None]:
    """Claim now and then from another queue of the same database, and note how long it takes."""

    async def claim() -> None:
        while True:
            began = time.perf_counter()
            await store.claim(PROBED, PROBED_AT_ONCE, timedelta(0), BEGINNING)
            seconds.append(time.perf_counter() - began)
            await anyio.sleep(PROBE_SECONDS)

    async with _connected(bench, WORKER_SETTINGS) as connection, anyio.create_task_group() as group:
        store = Store(connection)
        group.start_soon(claim)
        yield
        group.cancel_scope.cancel()


@asynccontextmanager
async def _pruning(bench: Bench, *, on: bool) -> AsyncIterator["_Batches"]:
    """Prune the archive for the length of the block, as a worker would."""
    async with _connected(bench, PRUNER_SETTINGS) as connection, anyio.create_task_group() as group:
        batches = _Batches(connection)
        if on:
            group.start_soon(Pruning(QUEUE, Store(batches)).run, WEEK_OLD)
        yield batches
        group.cancel_scope.cancel()


@asynccontextmanager
async def _connected(bench: Bench, settings: Any) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(bench.url, timeout=10, server_settings=dict(settings))
    try:
        yield connection
    finally:
        connection.terminate()


@attrs.frozen
class _Batches(Executor):
    """A connection that notes what each statement took, and how many rows it deleted."""

    on: Connection
    seconds: list[float] = attrs.field(factory=list)
    deleted: list[int] = attrs.field(factory=list)

    async def fetch(self, query: str, /, *args: Any) -> list[Any]:
        return await self.on.fetch(query, *args)

    async def fetchrow(self, query: str, /, *args: Any) -> Any:
        began = time.perf_counter()
        row = await self.on.fetchrow(query, *args)
        self.seconds.append(time.perf_counter() - began)
        if row is not None and "deleted" in row.keys():  # noqa: SIM118 - of a row of asyncpg
            self.deleted.append(row["deleted"])
        return row

    async def fetchval(self, query: str, /, *args: Any) -> Any:
        return await self.on.fetchval(query, *args)


def _result(messages: int, archived: int, samples: dict[str, tuple[float, ...]]) -> Result:
    def series(label: str, unit: str, beside: str | None = None) -> Series:
        return Series(label, unit, samples[label], beside=beside)

    drained, claimed = DRAINED.format(ALONE), CLAIMED.format(ALONE)
    return Result(
        "retention",
        f"{messages:,} no-op async tasks worked, with {archived:,} old messages in the archive",
        (
            series(drained, "messages/s"),
            series(DRAINED.format(BESIDE), "messages/s", drained),
            series(claimed, "ms"),
            series(CLAIMED.format(BESIDE), "ms", claimed),
            series(PRUNED, "messages/s"),
            series(LONGEST, "ms"),
        ),
        (
            "One worker process at its defaults empties the queue, and one connection prunes its "
            "archive at the same time. The claims that are timed are of 20 messages each, in "
            "another queue of the same database, every 10 ms."
        ),
    )
