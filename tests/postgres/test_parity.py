"""What docs/coming-from-roadster.md promises and no other test shows."""

import functools
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import anyio
import attrs
import pytest
from eventually import eventually_async
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import Client, Config, Registry, connect, current_message, task
from pgtasks.config import DatabaseConfig, TaskConfig
from pgtasks.connection import WORKER_SETTINGS, open_connection
from pgtasks.store import BEGINNING, Store, _on_queue
from pgtasks.testing import drain

P = ParamSpec("P")
R = TypeVar("R")


@pytest.mark.parametrize("first", ["done", "failed"])
async def test_which_message_ends_first_decides_nothing_for_the_others(
    config: Config, registry: Registry, rows: Rows, first: str
):
    """With the defaults: what is done is deleted, what has failed is archived."""

    @task(name="work", registry=registry, retries=0)
    async def work(end: str) -> None:
        if end == "failed":
            raise ValueError(end)

    order = ["done", "failed"] if first == "done" else ["failed", "done"]
    config = attrs.evolve(config, task=TaskConfig())
    async with connect(config=config):
        ids = {end: (await work.defer(end)).message_id for end in order}
        again = (await work.defer("failed")).message_id
        await drain(registry=registry, raise_errors=False)
    assert await rows.all() == []
    assert await rows.archived_ids() == sorted([ids["failed"], again])


async def test_a_pool_keeps_to_its_limits(database: DatabaseConfig, rows: Rows):
    """As many connections as are wanted at once, none more than allowed, and idle ones go."""
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'pgtasks client'"
    )

    async def opened() -> int:
        [row] = await rows.fetch(count)
        return int(row[0])

    limits = attrs.evolve(
        database,
        min_connections=2,
        max_connections=3,
        idle_timeout=seconds(0.2),
        acquire_timeout=seconds(0.2),
    )
    async with connect(config=Config(database=limits)) as client:
        assert await opened() == 2
        async with client.pool.acquire(), client.pool.acquire(), client.pool.acquire():
            assert await opened() == 3
            with pytest.raises(TimeoutError):
                await client.pool.acquire(timeout=0.2)

        async def closed() -> None:
            assert await opened() == 2

        await eventually_async(closed)
        assert await client.pool.fetchval("SELECT 1") == 1


async def test_connections_say_what_they_are_for(config: Config, registry: Registry, rows: Rows):
    """So that the server's own log of slow statements tells them apart."""

    @task(name="work", registry=registry)
    async def work() -> None: ...

    async with working(config, registry):
        await work.defer()
        await rows.empty()
        found = await rows.fetch(
            "SELECT DISTINCT application_name FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'pgtasks %'"
        )
    names = {row[0] for row in found}
    assert names >= {"pgtasks scheduler", "pgtasks settler", "pgtasks client", "pgtasks listener"}


async def test_a_decorator_below_can_open_a_span(client: Client, registry: Registry):
    """The example of the documentation, with a tracer that writes down."""
    spans = list[str]()

    @contextmanager
    def span(name: str, **attributes: Any) -> Iterator[None]:
        spans.append(f"begin {name} {attributes['attempt']}")
        yield
        spans.append("end")

    def traced(fn: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(fn)
        async def run(*args: P.args, **kwargs: P.kwargs) -> R:
            message = current_message()
            with span(message.task, id=message.id, attempt=message.attempt):
                return await fn(*args, **kwargs)

        return run

    @task(name="work", registry=registry)
    @traced
    async def work(number: int, *, twice: bool = False) -> None:
        spans.append(f"run {number} {twice}")

    await work.defer(7, twice=True)
    await drain(registry=registry)
    assert spans == ["begin work 1", "run 7 True", "end"]


async def test_delayed_messages_in_front_cost_a_claim_nothing(database: DatabaseConfig):
    """Roadster's read walks past each of them; a claim begins with what is due."""
    connection = await open_connection(database, "tests", WORKER_SETTINGS)
    try:
        store = Store(connection)
        await store.create_queue("default")
        await store.send_many("default", ["{}"] * 20_000, None, timedelta(hours=1), None)
        await store.send_many("default", ["{}"] * 10, None, timedelta(0), None)
        types = "PREPARE claiming (integer, interval, timestamptz) AS "
        await connection.execute(types + _on_queue("claim", "default"))
        [row] = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE claiming (5, '30s', '-infinity')"
        )
        [plan] = json.loads(row[0])
        touched = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        assert touched < 200, json.dumps(plan, indent=1)
        assert len(await store.claim("default", 100, timedelta(seconds=30), BEGINNING)) == 5
    finally:
        await connection.close()


async def test_a_task_reads_its_settings_where_it_is_enqueued_and_where_it_runs(
    client: Client, registry: Registry, rows: Rows
):
    """The queue is that of the program which defers; how it is run, that of the worker."""

    @task(name="work", queue="fixed", registry=registry)
    async def work() -> None: ...

    handle = await work.options(queue="for_this_one").defer()
    assert handle.queue == "for_this_one"
    assert (await work.defer()).queue == "fixed"
    [row] = await rows.all("fixed")
    assert row["headers"] is None


async def test_many_share_a_delay(client: Client, registry: Registry, rows: Rows):
    @task(name="work", registry=registry)
    async def work(number: int) -> None: ...

    await work.options(delay="1h").defer_many([(number,) for number in range(3)])
    waiting = await rows.all()
    assert len(waiting) == 3
    assert all(3590 < row["due_in"] <= 3600 for row in waiting)


async def test_an_application_may_stop_its_worker(config: Config, registry: Registry, rows: Rows):
    """At any time: what runs ends first."""
    running = anyio.Event()

    @task(name="work", registry=registry, on_success="archive")
    async def work() -> None:
        running.set()
        await anyio.sleep(0.1)

    async with working(config, registry) as worker:
        handle = await work.defer()
        await running.wait()
        worker.stop()
        await worker.ended.wait()
    assert (await rows.archived())[handle.message_id]["outcome"] == "done"
