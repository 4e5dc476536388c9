"""When which queue of many is looked at, and by which statement."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from postgres.rows import seconds

from pgtasks import fetcher
from pgtasks.config import DatabaseConfig, QueueFetchConfig
from pgtasks.fetcher import Fetcher
from pgtasks.pool import Pool
from pgtasks.store import Record, Store

QUEUES = tuple(f"many_{number:03}" for number in range(150))
NOTHING: Counter[str] = Counter()


class Fetching:
    """A fetcher that is told when to fetch, what it claimed, and what it sent for that."""

    def __init__(self, database: DatabaseConfig, connection: Any) -> None:
        self.claimed: list[tuple[str, int]] = []
        self.sent = Counter[str]()
        self.connection = connection
        self.fetcher = Fetcher(
            Pool(50, QUEUES),
            dict.fromkeys(QUEUES, seconds(60)),
            database,
            QueueFetchConfig(empty_delay=seconds(30)),
            self.note,
        )

    def note(self, queue: str, rows: list[Record], _: float) -> None:
        self.claimed += [(queue, row["msg_id"]) for row in rows]

    async def fetch(self, room: int = 50) -> list[tuple[str, int]]:
        """Let it fetch once; return what it claimed by that."""
        before = len(self.claimed)
        self.sent.clear()
        await self.fetcher.take_turns(room)
        return self.claimed[before:]

    async def send(self, queue: str, count: int = 1, delay: float = 0) -> list[tuple[str, int]]:
        ids = await Store(self.connection).send_many(
            queue, ["{}"] * count, None, seconds(delay), None
        )
        return [(queue, made) for made in ids]


@pytest.fixture
async def many(
    database: DatabaseConfig,
    connection: "asyncpg.Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Fetching]:
    """A fetcher of many queues, all of them empty, that counts its statements."""
    for queue in QUEUES:
        await Store(connection).create_queue(queue)
    made = Fetching(database, connection)

    def count(name: str) -> None:
        real = getattr(Store, name)

        async def counted(store: Store, *args: Any) -> Any:
            made.sent[name] += 1
            return await real(store, *args)

        monkeypatch.setattr(Store, name, counted)

    for name in ("claim", "next_due_seconds", "next_dues"):
        count(name)
    yield made
    await made.fetcher.close()


async def test_empty_queues_are_asked_about_together(many: Fetching):
    assert await many.fetch() == []
    assert many.sent == {"next_dues": 3}
    assert many.fetcher.pause() > 26
    assert await many.fetch() == []
    assert many.sent == NOTHING


async def test_they_are_polled_together_for_ever(many: Fetching, monkeypatch: pytest.MonkeyPatch):
    """Their pauses end at one moment, or each would be asked about alone."""
    clock = [time.monotonic()]
    monkeypatch.setattr(fetcher, "monotonic", lambda: clock[0])
    for _ in range(4):
        await many.fetch()
        clock[0] += many.fetcher.pause()
        assert many.sent == {"next_dues": 3}


async def test_only_what_is_due_is_claimed(many: Fetching):
    sent = await many.send(QUEUES[70]) + await many.send(QUEUES[140], 2)
    while len(many.claimed) < len(sent):
        await many.fetch()
        assert many.sent["claim"] <= 1
    assert many.claimed == sent


async def test_a_queue_that_is_called_is_claimed_from_without_asking(many: Fetching):
    await many.fetch()
    sent = await many.send(QUEUES[7])
    assert many.fetcher.wake(QUEUES[7])
    assert await many.fetch() == sent
    assert many.sent == {"claim": 1, "next_due_seconds": 1}


async def test_a_call_while_they_are_asked_about_is_heard(
    many: Fetching, monkeypatch: pytest.MonkeyPatch
):
    """What it tells of was sent too late for the answer that is on its way."""
    real, sent = Store.next_dues, list[tuple[str, int]]()

    async def late(store: Store, queues: Any, since: Any) -> dict[str, float]:
        answer: dict[str, float] = await real(store, queues, since)
        if not sent and QUEUES[7] in queues:
            sent.extend(await many.send(QUEUES[7]))
            many.fetcher.wake(QUEUES[7])
        return answer

    monkeypatch.setattr(Store, "next_dues", late)
    await many.fetch()
    await many.fetch()
    assert many.claimed == sent


async def test_what_is_due_later_is_claimed_then(many: Fetching):
    sent = await many.send(QUEUES[99], delay=0.3)
    assert await many.fetch() == []
    assert 0.05 < many.fetcher.pause() <= 0.3
    await many.connection.fetchval("SELECT pg_sleep($1)", many.fetcher.pause() + 0.01)
    assert await many.fetch() == sent
    assert many.sent["claim"] == 1


async def test_a_busy_queue_does_not_wait_until_all_were_asked_about(many: Fetching):
    await many.fetch()
    sent = await many.send(QUEUES[0], 300)
    many.fetcher.wake(QUEUES[0])
    assert await many.fetch() == sent[:50]
    many.fetcher.wake()
    many.fetcher.wake(QUEUES[0])
    assert await many.fetch() == sent[50:100]
    assert many.sent == {"next_dues": 1, "claim": 1}
    last = await many.send(QUEUES[149])
    for _ in range(3):
        await many.fetch()
    assert last[0] in many.claimed


async def test_what_appears_behind_the_mark_is_found(many: Fetching):
    """Committed late, or dated back by another program."""
    await many.send(QUEUES[3])
    await many.fetch()
    many.fetcher._looks[QUEUES[3]].watermark.mark = datetime.now(UTC)
    [number] = await many.connection.fetchrow(
        f"INSERT INTO pgmq.q_{QUEUES[3]} (vt, message) "
        "VALUES (clock_timestamp() - interval '1 day', '{}') RETURNING msg_id"
    )
    async with asyncio.timeout(5):
        while many.claimed[-1] != (QUEUES[3], number):
            many.fetcher.wake()  # as each poll does that is due
            await many.fetch()
            await asyncio.sleep(0.01)
