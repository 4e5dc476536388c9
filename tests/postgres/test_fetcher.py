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

from pgtasks import fetcher, watermark
from pgtasks.config import DatabaseConfig, QueueFetchConfig
from pgtasks.fetcher import Fetcher
from pgtasks.pool import Pool
from pgtasks.store import Record, Store
from pgtasks.watermark import Watermark

QUEUES = tuple(f"many_{number:03}" for number in range(150))
EMPTY_DELAY = 30.0
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
            QueueFetchConfig(empty_delay=seconds(EMPTY_DELAY)),
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

    for name in ("claim", "next_due_seconds", "next_dues", "snapshot"):
        count(name)
    yield made
    await made.fetcher.close()


async def test_empty_queues_are_asked_about_together(many: Fetching):
    assert await many.fetch() == []
    assert many.sent == {"snapshot": 1, "next_dues": 3}
    assert many.fetcher.pause() > 26
    assert await many.fetch() == []
    assert many.sent == NOTHING


async def test_they_are_polled_together_for_ever(many: Fetching, monkeypatch: pytest.MonkeyPatch):
    """Their pauses end at one moment, or each would be asked about alone."""
    clock = Clock(many, monkeypatch)
    for _ in range(4):
        await many.connection.execute("SELECT pg_current_xact_id()")
        await clock.turn()
        assert many.sent == {"snapshot": 1, "next_dues": 3}


async def test_they_are_left_alone_while_no_transaction_ends(
    many: Fetching, monkeypatch: pytest.MonkeyPatch
):
    clock = Clock(many, monkeypatch)
    async with asyncio.timeout(10):
        while many.sent != {"snapshot": 1}:  # the server has its own transactions, now and then
            await clock.turn()


async def test_those_in_which_something_waits_are_asked_about_each_time(
    many: Fetching, monkeypatch: pytest.MonkeyPatch
):
    """Time alone makes it due, by the server's clock."""
    await many.send(QUEUES[70], delay=3600)
    clock = Clock(many, monkeypatch)
    for _ in range(5):
        await clock.turn()
        assert many.sent["next_dues"] >= 1


async def test_those_that_are_called_are_asked_about(
    many: Fetching, monkeypatch: pytest.MonkeyPatch
):
    """As all are when the listener hears again: whatever the server's snapshot is."""
    clock = Clock(many, monkeypatch)
    for _ in range(5):
        await clock.turn()
        many.fetcher.wake()
        await many.fetch()
        assert many.sent == {"snapshot": 1, "next_dues": 3}


async def test_another_connection_knows_nothing(many: Fetching, monkeypatch: pytest.MonkeyPatch):
    clock = Clock(many, monkeypatch)
    for _ in range(5):
        await clock.turn()
        many.fetcher._line.drop()
        await clock.turn()
        assert many.sent == {"snapshot": 1, "next_dues": 3}


@pytest.mark.parametrize("is_begun_before", [False, True])
async def test_what_nobody_tells_of_is_found_by_the_next_poll(
    many: Fetching, monkeypatch: pytest.MonkeyPatch, *, is_begun_before: bool
):
    """Written by a program that sends no notification; begun before a look, ended after it."""
    clock = Clock(many, monkeypatch)
    for number in range(20):
        opened = many.connection.transaction()
        if is_begun_before:
            await opened.start()
            sent = await many.send(QUEUES[number * 7])
        await clock.turn()
        await clock.turn()
        if is_begun_before:
            await opened.commit()
        else:
            sent = await many.send(QUEUES[number * 7])
        committed_at = clock.now
        while not (claimed := await clock.turn()):
            assert clock.now - committed_at <= EMPTY_DELAY
        assert claimed == sent


async def test_a_look_from_the_mark_says_nothing_of_what_is_behind_it(
    many: Fetching, monkeypatch: pytest.MonkeyPatch
):
    """Nothing may be written between it and the full look that finds it."""
    monkeypatch.setattr(watermark, "FULL_LOOK_SECONDS", 0.3)
    clock = Clock(many, monkeypatch)
    await clock.turn()
    for look in many.fetcher._looks.values():
        look.watermark = Watermark(mark=datetime.now(UTC), looked_fully_at=time.monotonic())
    await dated_back(many, QUEUES[3])
    assert await clock.turn() == []
    async with asyncio.timeout(5):
        while not await clock.turn():
            await asyncio.sleep(0.01)


class Clock:
    """A clock for the fetcher that goes on to its next poll when it is told to."""

    def __init__(self, many: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        self.many = many
        monkeypatch.setattr(fetcher, "monotonic", lambda: self.now)

    async def turn(self) -> list[tuple[str, int]]:
        """Let it poll; return what it claimed by that."""
        self.now += max(0.0, self.many.fetcher.pause())
        return await self.many.fetch()


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
    assert many.sent == {"snapshot": 1, "next_dues": 1, "claim": 1}
    last = await many.send(QUEUES[149])
    for _ in range(3):
        await many.fetch()
    assert last[0] in many.claimed


async def test_what_appears_behind_the_mark_is_found(many: Fetching):
    """Committed late, or dated back by another program."""
    await many.send(QUEUES[3])
    await many.fetch()
    many.fetcher._looks[QUEUES[3]].watermark.mark = datetime.now(UTC)
    number = await dated_back(many, QUEUES[3])
    async with asyncio.timeout(5):
        while many.claimed[-1] != (QUEUES[3], number):
            many.fetcher.wake()  # as each poll does that is due
            await many.fetch()
            await asyncio.sleep(0.01)


async def dated_back(many: Fetching, queue: str) -> int:
    """Let another program send a message that was due long ago."""
    number: int = await many.connection.fetchval(
        f"INSERT INTO pgmq.q_{queue} (vt, message) "
        "VALUES (clock_timestamp() - interval '1 day', '{}') RETURNING msg_id"
    )
    return number
