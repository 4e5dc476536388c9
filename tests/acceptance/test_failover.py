"""A standby takes over that lacks the last commits: what it lacks is lost, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.own_server import OwnServer
from acceptance.proxy import Proxy
from acceptance.tables import Tables
from acceptance.tasks_under_test import fails_at_first, quick, slow
from eventually import eventually_async

from pgtasks import Client, Config, connect
from pgtasks.config import DatabaseConfig

LONG_SECONDS = 9.0
"""Longer than a worker may need to find that its database is there again, after a silence."""
OLD = [f"old{n}" for n in range(20)]
LOST = [f"lost{n}" for n in range(4)]
NEW = [f"new{n}" for n in range(4)]


@pytest.fixture
def server(checker: Checker) -> Iterator[OwnServer]:
    with OwnServer() as running:
        running.create_database()
        checker.url = running.url
        yield running


@pytest.fixture
async def proxy(server: OwnServer) -> AsyncIterator[Proxy]:
    async with Proxy.to(server.url) as opened:
        yield opened


async def test_what_ends_after_a_standby_took_over_ends_nothing_else_of_the_same_number(
    start_worker: StartWorker,
    server: OwnServer,
    proxy: Proxy,
    history: History,
    checker: Checker,
) -> None:
    """The standby gives numbers anew that it has not seen, and every message has a first delivery.

    A worker that was cut off meanwhile settles what it ran, while another one runs what has the
    number now.
    """
    cut_off = start_worker("--concurrency", "4", environ={"PGTASKS_DATABASE_URL": proxy.url})
    await asyncio.to_thread(cut_off.wait_until_ready)
    async with client(server):
        history.accepted_many(OLD, await quick.defer_many([(key,) for key in OLD]))
    await until_settled(server)
    standby = await asyncio.to_thread(server.copy)
    lost = await defer_what_will_be_lost(server, history)
    await until(history, "start", LOST)

    with history.lasting_fault("postgres-away"):
        proxy.faults.stalled.set()
        await asyncio.to_thread(server.replace_by, standby)
        await until(history, "end", LOST)
        environ = {"PGTASKS_DATABASE_URL": server.url}
        other = start_worker("--concurrency", "4", environ=environ)
        async with client(server):
            new = [await fails_at_first.defer(key, 1, seconds=LONG_SECONDS) for key in NEW]
        history.accepted_many(NEW, new)
        await until(history, "start", NEW)
        proxy.faults.stalled.clear()

    assert {handle.message_id for handle in new} & lost, "no number was given anew"
    await checker.check(within_seconds=3 * LONG_SECONDS)
    assert set(OLD) <= history.keys("end")
    assert history.starts() == {**dict.fromkeys(OLD + LOST, 1), **dict.fromkeys(NEW, 2)}
    assert len(cut_off.lines("lease lost")) >= len(LOST)
    assert not other.lines("lease lost")
    assert len(cut_off.lines("worker ready")) == 1, "its process was replaced"


@asynccontextmanager
async def client(server: OwnServer) -> AsyncIterator[Client]:
    """A way to defer whose connections are new."""
    async with connect(config=Config(database=DatabaseConfig(url=server.url))) as opened:
        yield opened


async def defer_what_will_be_lost(server: OwnServer, history: History) -> set[int]:
    """Defer on the server that is about to go; nobody can say afterwards whether it was there."""
    for key in LOST:
        history.unsure(key)
    # In a transaction of our own: it would be written down as accepted else.
    async with client(server) as ours, ours.pool.acquire() as on, on.transaction():
        handles = await slow.options(connection=on).defer_many([(key, 2.0) for key in LOST])
    return {handle.message_id for handle in handles}


async def until_settled(server: OwnServer) -> None:
    connection = await asyncpg.connect(server.url, timeout=10)
    try:
        await Tables(connection).drained()
    finally:
        await connection.close()


async def until(history: History, what: str, keys: Sequence[str]) -> None:
    async def happened() -> None:
        assert set(keys) <= history.keys(what)

    await eventually_async(happened, within_seconds=20)
