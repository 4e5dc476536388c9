"""Calls of a program that defers, over a network that swallows everything."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from time import monotonic

import pytest
from acceptance.proxy import Proxy
from acceptance.tables import Tables
from acceptance.tasks_under_test import quick

from pgtasks import Client, Config, Schedule, connect
from pgtasks.config import DatabaseConfig
from pgtasks.errors import DatabaseUnreachable

CALL_SECONDS = 5.0
CLOSE_SECONDS = 2.0
LATE_SECONDS = 2.0
"""What a busy machine may add."""


@pytest.fixture
async def proxy(database_url: str, tables: Tables) -> AsyncIterator[Proxy]:
    async with Proxy.to(database_url) as opened:
        yield opened


def through(proxy: Proxy) -> Config:
    """As settings are when nothing is said but where the database is."""
    return Config(database=DatabaseConfig(url=proxy.url))


async def in_own_transaction(client: Client) -> None:
    async with client.pool.acquire() as on, on.transaction():
        await quick.options(connection=on).defer("own")


CALLS: Mapping[str, Callable[[Client], Awaitable[object]]] = {
    "defer": lambda _: quick.defer("one"),
    "many defers at once": lambda _: asyncio.gather(*(quick.defer(f"m{n}") for n in range(300))),
    "defer_many": lambda _: quick.defer_many([(f"m{n}",) for n in range(5000)]),
    "defer_sync": lambda _: asyncio.to_thread(quick.defer_sync, "sync"),
    "in a transaction of one's own": in_own_transaction,
    "schedule": lambda _: quick.schedule(Schedule("each", every=5), "scheduled"),
    "look at a schedule": lambda client: client.schedules.find("each"),
    "connect": lambda client: connect(config=client.config).__aenter__(),
}


async def test_each_call_ends_in_time_and_says_that_the_database_is_away(proxy: Proxy) -> None:
    """On the connection that fell silent, on one that cannot be opened, and all at once."""

    async def timed(call: Callable[[Client], Awaitable[object]], client: Client) -> float:
        began_at = monotonic()
        with pytest.raises((DatabaseUnreachable, TimeoutError)):
            await call(client)
        return monotonic() - began_at

    async with connect(config=through(proxy)) as client:
        await quick.defer("before")
        proxy.faults.stalled.set()
        took = await asyncio.gather(*(timed(call, client) for call in CALLS.values()))
        began_at = monotonic()
    closing = monotonic() - began_at
    proxy.faults.stalled.clear()

    late = {
        name: each
        for name, each in zip(CALLS, took, strict=True)
        if each > CALL_SECONDS + LATE_SECONDS
    }
    assert not late
    assert closing < CLOSE_SECONDS + LATE_SECONDS
