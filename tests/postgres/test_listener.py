"""A hint, never the truth: it comes soon, survives every loss, and trusts nothing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
from postgres.rows import Rows

from pgtasks.config import DatabaseConfig
from pgtasks.listener import Listener
from pgtasks.store import Store

PROCESS = (
    "FROM pg_stat_activity WHERE application_name = 'pgtasks listener' "
    "AND datname = current_database()"
)


@attrs.define
class Ear:
    """A listener, and what it told."""

    told: list[str | None]
    listener: Listener

    async def hears(self, what: str | None, *, times: int = 1) -> None:
        """Wait until it was told so often."""
        async with asyncio.timeout(15):
            while self.told.count(what) < times:
                await asyncio.sleep(0.005)


@pytest.fixture
async def ear(database: DatabaseConfig, rows: Rows) -> AsyncIterator[Ear]:
    told = list[str | None]()
    listener = Listener(database, told.append, 0.5, ["emails", "default"])
    running = asyncio.ensure_future(listener.run())
    yield Ear(told, listener)
    running.cancel()
    await asyncio.wait([running], timeout=10)


async def test_it_looks_at_everything_once_when_it_begins(ear: Ear):
    await ear.hears(None)
    assert ear.listener.is_listening.is_set()
    assert ear.told == [None]


async def test_it_tells_which_queue(ear: Ear, rows: Rows):
    await ear.hears(None)
    await Store(rows.connection).notify("emails")
    await ear.hears("emails")
    assert ear.told == [None, "emails"]


async def test_it_hears_what_pgmq_tells_of_the_queues_it_was_given(ear: Ear, rows: Rows):
    await ear.hears(None)
    for channel in ("pgmq.q_other.INSERT", "pgmq.q_default.INSERT", "pgmq.q_emails.INSERT"):
        await rows.fetch("SELECT pg_notify($1, NULL)", channel)
    await ear.hears("emails")
    assert ear.told == [None, "default", "emails"]


async def test_after_a_loss_it_listens_again_and_looks_at_everything(ear: Ear, rows: Rows):
    for loss in range(1, 4):
        await ear.hears(None, times=loss)
        await rows.connection.fetch(f"SELECT pg_terminate_backend(pid) {PROCESS}")
        await ear.hears(None, times=loss + 1)
        await Store(rows.connection).notify(f"after_{loss}")
        await ear.hears(f"after_{loss}")


async def test_it_holds_one_connection_and_no_transaction(ear: Ear, rows: Rows):
    await ear.hears(None)
    states = await rows.connection.fetch(f"SELECT state {PROCESS}")
    assert [row[0] for row in states] == ["idle"]


async def test_foreign_payloads_are_only_passed_on(ear: Ear, rows: Rows):
    await ear.hears(None)
    payloads = ["", '"; drop', "\n\x1b[31m", "é🙂", "x" * 7999]
    for payload in payloads:
        await rows.connection.execute("SELECT pg_notify('pgtasks', $1)", payload)
    await ear.hears(payloads[-1])
    assert ear.told == [None, *payloads]


async def test_other_channels_are_not_heard(ear: Ear, rows: Rows):
    await ear.hears(None)
    await rows.connection.execute("NOTIFY pgtasks_other, 'x'; NOTIFY pgtasks, 'ours'")
    await ear.hears("ours")
    assert ear.told == [None, "ours"]


async def test_a_server_that_is_away_is_waited_for(database: DatabaseConfig, heard: Any):
    """With no end, and without a line in the log for each try."""
    told, tries = list[str | None](), list[int]()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(1)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        away = attrs.evolve(database, url=f"postgresql://ada:hunter2@127.0.0.1:{port}/x")
        running = asyncio.ensure_future(Listener(away, told.append, 0.05).run())
        async with asyncio.timeout(15):
            while len(tries) < 10:
                await asyncio.sleep(0.01)
        assert (told, running.done()) == ([], False)
        running.cancel()
        await asyncio.wait([running], timeout=10)
    assert 1 <= len(heard.events(30)) < 5
    assert "hunter2" not in str([record.__dict__ for record in heard.records])


async def test_it_leaves_no_connection_behind(database: DatabaseConfig, rows: Rows):
    told = list[str | None]()
    running = asyncio.ensure_future(Listener(database, told.append, 0.5).run())
    async with asyncio.timeout(15):
        while not told:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running], timeout=10)
    async with asyncio.timeout(15):
        while await rows.connection.fetchval(f"SELECT count(*) {PROCESS}"):
            await asyncio.sleep(0.01)
