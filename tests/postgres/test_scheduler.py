"""Fetching for one pool of slots: how much, how far ahead, and when again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from postgres.rows import Rows, seconds

from pgtasks.config import DatabaseConfig, QueueFetchConfig
from pgtasks.fetcher import LARGEST_CLAIM
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease
from pgtasks.pool import Pool
from pgtasks.scheduler import Scheduler
from pgtasks.settlement import Run
from pgtasks.settlement import crashed as settle_crashed
from pgtasks.settler import Settler
from pgtasks.slot import Slot
from pgtasks.store import Store

Q = "default"


@attrs.define
class Bench:
    """A scheduler whose runs wait at a gate, and that knows nothing of tasks."""

    scheduler: Scheduler
    settler: Settler
    keeper: Keeper
    ran: list[int]
    gate: asyncio.Event

    async def has_run(self, number: int) -> None:
        """Wait until so many were started."""
        async with asyncio.timeout(15):
            while len(self.ran) < number:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def fetching(
    database: DatabaseConfig, slots: int, *, divert: Any = lambda _: False, fails: bool = False
) -> AsyncIterator[Bench]:
    ran, gate = list[int](), asyncio.Event()
    keeper = Keeper(database, lambda _: None)
    settler = Settler(database, keeper, None, lambda _: None)

    async def run(lease: Lease, _: Slot) -> None:
        ran.append(lease.message.message_id)
        await gate.wait()
        if fails:
            raise RuntimeError("a fault of ours")
        settler.put(lease, settle_crashed(lease.message, "test", Run(0.0, "tests")))

    scheduler = Scheduler(
        pool=Pool(slots, (Q,)),
        leases={Q: seconds(60)},
        run_message=run,
        divert=divert,
        database=database,
        fetching=QueueFetchConfig(empty_delay=seconds(30), error_delay=seconds(0.2)),
        settler=settler,
        keeper=keeper,
    )
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(settler.run)
            async with anyio.create_task_group() as running:
                running.start_soon(scheduler.run)
                yield Bench(scheduler, settler, keeper, ran, gate)
                gate.set()
                scheduler.stop()
            settler.close()


async def fill(rows: Rows, number: int) -> list[int]:
    return await Store(rows.connection).send_many(Q, ["{}"] * number, None, seconds(0), None)


async def claimed(rows: Rows) -> int:
    return sum(row["read_ct"] for row in await rows.all())


async def test_it_claims_what_it_has_slots_for_until_it_knows_better(
    database: DatabaseConfig, rows: Rows
):
    """Nothing has ended yet: nobody knows how long these take."""
    made = await fill(rows, 20)
    async with fetching(database, 3) as bench:
        await bench.has_run(3)
        await rows.connection.fetchval("SELECT pg_sleep(0.2)")
        assert (bench.ran, await claimed(rows), bench.scheduler.running) == (made[:3], 3, 3)
        bench.gate.set()
        await bench.has_run(20)
        await rows.empty()
    assert sorted(bench.ran) == made
    assert set(await rows.archived()) == set(made)


async def test_it_starts_the_longest_due_first(database: DatabaseConfig, rows: Rows):
    late, early = [
        await rows.put("{}", vt=f"clock_timestamp() - interval '{age} s'") for age in (1, 9)
    ]
    async with fetching(database, 1) as bench:
        bench.gate.set()
        await bench.has_run(2)
    assert bench.ran == [early, late]


async def test_it_claims_ahead_of_quick_runs_and_no_more_than_a_bound(
    database: DatabaseConfig, rows: Rows
):
    await fill(rows, 500)
    async with fetching(database, 2) as bench:
        bench.gate.set()
        await bench.has_run(500)
        await rows.empty()
        bench.gate.clear()
        await fill(rows, 3 * LARGEST_CLAIM)
        bench.scheduler.wake()
        await bench.has_run(502)
        await asyncio.sleep(0.3)
        ahead = await claimed(rows)
        assert 2 < ahead <= LARGEST_CLAIM + 2
        assert bench.scheduler.running == 2
        bench.scheduler.stop()
        bench.gate.set()
    left = await rows.all()
    assert {row["due_in"] <= 0 for row in left} == {True}
    assert len(left) + len(await rows.archived()) == 500 + 3 * LARGEST_CLAIM
    for row in left[:50]:
        assert (await rows.state(row["msg_id"])).get("releases", 0) == row["read_ct"]


async def test_what_was_claimed_ahead_and_not_reached_is_given_back_when_slots_are_slow(
    database: DatabaseConfig, rows: Rows
):
    """Here there is no room left, so that it asks itself why."""
    await fill(rows, 500)
    async with fetching(database, 1) as bench:
        bench.gate.set()
        await bench.has_run(500)
        await rows.empty()
        bench.gate.clear()
        await fill(rows, 2 * LARGEST_CLAIM)
        bench.scheduler.wake()
        async with asyncio.timeout(15):
            while sum(row["due_in"] > 0 for row in await rows.all()) != 1:
                await asyncio.sleep(0.05)
        assert await claimed(rows) > 1
        bench.scheduler.stop()


async def test_a_wake_up_is_heard_at_once(database: DatabaseConfig, rows: Rows):
    async with fetching(database, 2) as bench:
        bench.gate.set()
        for number in range(20):
            await fill(rows, 1)
            bench.scheduler.wake(Q)
            async with asyncio.timeout(5):
                await bench.has_run(number + 1)


async def test_a_wake_up_between_an_empty_look_and_the_wait_is_heard(
    database: DatabaseConfig, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    """It comes when the answer that nothing waits is on its way."""
    next_dues, looks = Store.next_dues, list[dict[str, float]]()

    async def late(self: Store, *args: Any) -> dict[str, float]:
        looks.append(await next_dues(self, *args))
        if len(looks) == 1:
            await fill(rows, 1)
            bench.scheduler.wake(Q)
        return looks[-1]

    monkeypatch.setattr(Store, "next_dues", late)
    async with fetching(database, 2) as bench:
        bench.gate.set()
        async with asyncio.timeout(10):
            await bench.has_run(1)
        assert looks[0] == {}


async def test_a_wake_up_for_another_queue_is_ignored(database: DatabaseConfig, rows: Rows):
    async with fetching(database, 2) as bench:
        bench.scheduler.wake("elsewhere")
        await fill(rows, 1)
        bench.scheduler.wake()
        bench.gate.set()
        await bench.has_run(1)


async def test_errors_of_the_database_are_waited_out(
    database: DatabaseConfig, rows: Rows, heard: Any
):
    async with fetching(database, 2) as bench:
        bench.gate.set()
        await rows.connection.execute("ALTER TABLE pgmq.q_default RENAME TO q_away")
        bench.scheduler.wake()
        async with asyncio.timeout(15):
            while "fetching failed, trying again" not in heard.events():
                await asyncio.sleep(0.01)
        await rows.connection.execute("ALTER TABLE pgmq.q_away RENAME TO q_default")
        await fill(rows, 3)
        await bench.has_run(3)


async def test_a_fault_of_ours_costs_one_run_and_no_slot(
    database: DatabaseConfig, rows: Rows, heard: Any
):
    made = await fill(rows, 3)
    async with fetching(database, 1, fails=True) as bench:
        bench.gate.set()
        await bench.has_run(3)
    assert sorted(bench.ran) == made
    assert len(await rows.all()) == 3  # their leases run out
    assert bench.keeper.held() == []
    assert (
        heard.events(40)
        == ["running a message failed; it is tried again when its lease runs out"] * 3
    )


async def test_a_suspect_is_not_started(database: DatabaseConfig, rows: Rows):
    """A first delivery is none, and nobody is asked about it."""
    asked = list[int]()

    def divert(lease: Lease) -> bool:
        asked.append(lease.message.message_id)
        return lease.message.delivery > 5

    first = await rows.put("{}")
    second = await rows.put("{}", read_ct="1")
    suspect = await rows.put("{}", read_ct="9")
    async with fetching(database, 5, divert=divert) as bench:
        bench.gate.set()
        await bench.has_run(2)
        async with asyncio.timeout(10):
            while len(asked) < 2:
                await asyncio.sleep(0.01)
    assert sorted(bench.ran) == [first, second]
    assert sorted(asked) == [second, suspect]


@pytest.mark.parametrize("what", [{"lost": True}, {"kept_until": 0.0}])
async def test_a_lease_that_was_lost_or_over_before_its_turn_is_not_started(
    database: DatabaseConfig, rows: Rows, what: dict[str, Any]
):
    """The second is what a process meets that was frozen, before its keeper knows."""
    await fill(rows, 300)
    async with fetching(database, 1) as bench:
        bench.gate.set()
        await bench.has_run(300)
        await rows.empty()
        bench.gate.clear()
        made = await fill(rows, 5)
        bench.scheduler.wake()
        await bench.has_run(301)
        async with asyncio.timeout(10):
            while len(bench.keeper.held()) < 5:
                await asyncio.sleep(0.01)
        for lease in bench.keeper.held():
            if lease.message.message_id in made[1:3]:
                for name, value in what.items():
                    setattr(lease, name, value)
        bench.gate.set()
        await bench.has_run(303)
    assert bench.ran[300:] == [made[0], made[3], made[4]]


async def test_stopping_while_nothing_is_there_ends_at_once(database: DatabaseConfig, rows: Rows):
    async with fetching(database, 4) as bench:
        await asyncio.sleep(0.05)
        bench.scheduler.stop()
    assert bench.scheduler.running == 0


@pytest.mark.parametrize("slots", [1, 50])
async def test_every_message_is_run_once_whatever_the_slots(
    database: DatabaseConfig, rows: Rows, slots: int
):
    made = await fill(rows, 1200)
    async with fetching(database, slots) as bench:
        bench.gate.set()
        await bench.has_run(1200)
        await rows.empty()
    assert sorted(bench.ran) == made
