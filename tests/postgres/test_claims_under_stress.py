"""Nothing is lost, and nothing runs twice without a reason, whatever commits when.

Producers commit late, or never; consumers crash with what they claimed, or put it back; another
program reads, deletes and dates back; an old transaction keeps every dead row. The consumers are
real fetchers, with all that makes them quick: marks, full looks, questions about many queues.

`PGTASKS_STRESS_SECONDS=120` goes on for so long, with commits up to six seconds late.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from postgres.rows import seconds

from pgtasks import watermark
from pgtasks.config import DatabaseConfig, QueueFetchConfig
from pgtasks.connection import WORKER_SETTINGS, open_connection
from pgtasks.fetcher import Fetcher
from pgtasks.message import Held
from pgtasks.pool import Pool
from pgtasks.store import Record, Store

SECONDS = float(os.environ.get("PGTASKS_STRESS_SECONDS", "5"))
LATEST = 6.0 if SECONDS > 20 else 1.5
LEASE = 2.0
QUEUES = ("first", "second", "third")
BACK_DATED = """
INSERT INTO pgmq.q_{queue} (vt, message) VALUES (clock_timestamp() - interval '1 hour', '{{}}')
RETURNING msg_id
"""
FOREIGN_READ = """
UPDATE pgmq.q_{queue} SET vt = clock_timestamp() + interval '1 s', read_ct = read_ct + 1
WHERE msg_id IN (
    SELECT msg_id FROM pgmq.q_{queue} WHERE vt <= clock_timestamp()
    ORDER BY msg_id LIMIT 2 FOR UPDATE SKIP LOCKED
)
RETURNING msg_id
"""

Key = tuple[str, int]


@attrs.define
class Ledger:
    """What happened to each message, as those who did it know."""

    committed: set[Key] = attrs.field(factory=set)
    done: Counter[Key] = attrs.field(factory=Counter)
    deliveries: Counter[Key] = attrs.field(factory=Counter)
    excused: Counter[Key] = attrs.field(factory=Counter)
    """Deliveries that did not end the message: a crash, a foreign read, a retry, a late end."""
    produces: bool = True

    @property
    def lost(self) -> set[Key]:
        return self.committed - self.done.keys()

    @property
    def twice(self) -> dict[Key, int]:
        """Messages that were delivered more often than there was a reason for."""
        least = {key: self.excused[key] + (key in self.done) for key in self.deliveries}
        return {key: n for key, n in self.deliveries.items() if n > least[key]}


@attrs.define
class Producer:
    """Sends a few at a time, in transactions of its own."""

    connection: Any
    ledger: Ledger
    chance: random.Random

    async def run(self) -> None:
        while self.ledger.produces:
            turn = self.connection.transaction()
            await turn.start()
            queue = self.chance.choice(QUEUES)
            made = await self.send(queue)
            if self.chance.random() < 0.1:
                await asyncio.sleep(self.chance.uniform(0.0, LATEST))
            if self.chance.random() < 0.05:
                await turn.rollback()
                continue
            await turn.commit()
            self.ledger.committed.update((queue, one) for one in made)
            await asyncio.sleep(self.chance.uniform(0.0, 0.01))

    async def send(self, queue: str) -> list[int]:
        if self.chance.random() < 0.05:
            return [await self.connection.fetchval(BACK_DATED.format(queue=queue))]
        delay = self.chance.choice([0.0, 0.0, 0.0, 0.3])
        bodies = ["{}"] * self.chance.randint(1, 5)
        return await Store(self.connection).send_many(queue, bodies, None, seconds(delay), None)


@attrs.define
class Consumer:
    """Claims by a fetcher, and ends what it got at once, most times."""

    connection: Any
    ledger: Ledger
    chance: random.Random
    claimed: list[tuple[str, Record]] = attrs.field(factory=list)

    async def run(self, database: DatabaseConfig) -> None:
        fetcher = Fetcher(
            Pool(20, QUEUES),
            dict.fromkeys(QUEUES, timedelta(seconds=LEASE)),
            database,
            QueueFetchConfig(empty_delay=seconds(0.2)),
            lambda queue, rows, _: self.claimed.extend((queue, row) for row in rows),
        )
        try:
            while True:
                await fetcher.take_turns(20)
                claimed, self.claimed = self.claimed, []
                for queue, row in claimed:
                    await self.end(queue, Held(row["msg_id"], row["enqueued_at"]), row["read_ct"])
                await asyncio.sleep(max(0.0, fetcher.pause()))
        finally:
            await fetcher.close()

    async def end(self, queue: str, held: Held, delivery: int) -> None:
        key = queue, held.message_id
        self.ledger.deliveries[key] += 1
        fate, store = self.chance.random(), Store(self.connection)
        if fate < 0.03:  # a crash
            self.ledger.excused[key] += 1
        elif fate < 0.06:
            await store.retry(queue, [held], delivery, [seconds(0.1)], [None])
            self.ledger.excused[key] += 1
        elif await store.complete(queue, [held], delivery):
            self.ledger.done[key] += 1
        else:  # the lease was over
            self.ledger.excused[key] += 1


async def read_elsewhere(connection: Any, ledger: Ledger, chance: random.Random) -> None:
    """Be a program that reads, and deletes half of what it read."""
    while ledger.produces:
        queue = chance.choice(QUEUES)
        for row in await connection.fetch(FOREIGN_READ.format(queue=queue)):
            key = (queue, row["msg_id"])
            deleted = f"DELETE FROM pgmq.q_{queue} WHERE msg_id = $1"
            if chance.random() < 0.5 and await connection.execute(deleted, key[1]) == "DELETE 1":
                ledger.done[key] += 1
                # A consumer's lease may have been over already.
                ledger.excused[key] += ledger.deliveries[key] > ledger.excused[key]
        await asyncio.sleep(chance.uniform(0.0, 0.1))


async def stress(
    database: DatabaseConfig, length: float, patience: float, *, is_shared: bool = True
) -> Ledger:
    """Let all of them go on for so long, and wait for the last messages."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - to be seen when it fails
    opened: list[Any] = []

    async def connect() -> Any:
        opened.append(await open_connection(database, "tests", WORKER_SETTINGS))
        return opened[-1]

    def chance(number: int) -> random.Random:
        return random.Random(seed + number)

    pinned = await connect()
    for queue in QUEUES:
        await Store(pinned).create_queue(queue)
    ledger = Ledger()
    try:
        async with pinned.transaction(isolation="repeatable_read"):
            await pinned.fetch("SELECT count(*) FROM pgmq.q_first")
            consumers = [Consumer(await connect(), ledger, chance(n)) for n in range(3)]
            consuming = [asyncio.create_task(one.run(database)) for one in consumers]
            work: list[Callable[[], Awaitable[None]]] = [
                Producer(await connect(), ledger, chance(10 + n)).run for n in range(4)
            ]
            foreign = await connect()
            producing = [asyncio.create_task(_all(run)) for run in work]
            if is_shared:
                producing.append(asyncio.create_task(read_elsewhere(foreign, ledger, chance(20))))
            await asyncio.sleep(length)
            ledger.produces = False
            await asyncio.gather(*producing)
            await _until(lambda: not ledger.lost, patience, consuming)
    finally:
        for one in opened:
            await one.close()
    return ledger


async def _all(run: Callable[[], Awaitable[None]]) -> None:
    await run()


async def _until(
    is_so: Callable[[], bool], patience: float, consuming: list["asyncio.Task[None]"]
) -> None:
    try:
        async with asyncio.timeout(patience):
            while not is_so():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    for one in consuming:
        assert not one.done() or one.exception() is None, one.exception()
        one.cancel()
    await asyncio.gather(*consuming, return_exceptions=True)


@pytest.mark.timeout(SECONDS + 90)
async def test_nothing_is_lost_and_nothing_runs_twice_without_a_reason(database: DatabaseConfig):
    ledger = await stress(database, SECONDS, 40)
    assert len(ledger.committed) > 100
    assert ledger.lost == set()
    assert ledger.twice == {}
    assert set(ledger.done.values()) == {1}
    assert ledger.done.keys() <= ledger.committed


async def test_it_notices_when_nobody_looks_behind_the_mark(
    database: DatabaseConfig, monkeypatch: pytest.MonkeyPatch
):
    """Without this, nobody knows that the test above can fail.

    Another program would find what they miss, and put it before the mark by reading it.
    """
    monkeypatch.setattr(watermark, "FULL_LOOK_SECONDS", 10**6)
    for _ in range(3):  # now and then nothing comes late enough
        ledger = await stress(database, 4, 2 * LEASE, is_shared=False)
        if ledger.lost:
            return
    pytest.fail("nothing was missed, three times")
