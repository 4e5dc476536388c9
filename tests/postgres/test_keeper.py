"""Leases are extended whatever the worker's own loop does, and given up in time."""

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import asyncpg
import attrs
import pytest
from eventually import eventually_async
from postgres.rows import LOCKS, Rows, seconds
from postgres.working import working

from pgtasks import Config, Context, Registry, task
from pgtasks.config import DatabaseConfig
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease, leased
from pgtasks.store import BEGINNING, Store

Q = "default"


@attrs.define
class Kept:
    """A keeper, and what it said was lost."""

    keeper: Keeper
    lost: list[int]
    store: Store
    late_seconds: float = -math.inf
    """How long after its end, for all the worker knows, a lease was given up at the latest."""

    async def claim(self, length: float, queue: str = Q) -> Lease:
        """Claim one message and have its lease kept."""
        asked_at = time.monotonic()
        [row] = await self.store.claim(queue, 1, seconds(length), BEGINNING)
        lease = leased(queue, row, asked_at, seconds(length))
        self.keeper.hold(lease)
        return lease


@pytest.fixture
def kept(database: DatabaseConfig, store: Store) -> Iterator[Kept]:
    def lose(lease: Lease) -> None:
        made.lost.append(lease.message.message_id)
        made.late_seconds = max(made.late_seconds, time.monotonic() - lease.kept_until)

    keeper = Keeper(database, lose)
    made = Kept(keeper, [], store)
    keeper.start()
    yield made
    keeper.stop()
    deadline = time.monotonic() + 20
    while keeper.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def extended_times(rows: Rows, message_id: int, times: int) -> list[float]:
    """Wait until a lease was extended so often; the least that was left of it, each time seen."""
    seen, left = set[Any](), list[float]()
    async with asyncio.timeout(20):
        while len(seen) <= times:
            row = await rows.one(message_id)
            seen.add(row["vt"])
            left.append(row["due_in"])
    return left


async def test_a_lease_is_kept_until_it_is_let_go(kept: Kept, rows: Rows):
    made = await rows.put("{}")
    lease = await kept.claim(1.5)
    left = await extended_times(rows, made, 5)
    assert min(left) > 0.3  # a third of it is gone when it is extended; the rest is patience
    assert (kept.lost, lease.is_over()) == ([], False)
    kept.keeper.let_go(lease)
    assert kept.keeper.held() == []
    await is_over(rows, made)
    assert kept.lost == []


async def is_over(rows: Rows, message_id: int) -> None:
    async def due() -> None:
        assert (await rows.one(message_id))["due_in"] < 0

    await eventually_async(due)


async def test_a_lease_that_was_taken_is_told_and_not_extended(kept: Kept, rows: Rows):
    made, other = await rows.put("{}"), await rows.put("{}")
    lease, neighbour = await kept.claim(1), await kept.claim(1)
    await rows.steal(made)
    await told(kept, made)
    assert (lease.lost, neighbour.lost) == (True, False)
    row = await rows.one(made)
    assert (row["read_ct"], row["due_in"] > 3000) == (2, True)
    await extended_times(rows, other, 3)
    assert kept.lost == [made]


async def told(kept: Kept, message_id: int) -> None:
    async def is_told() -> None:
        assert message_id in kept.lost

    await eventually_async(is_told)


async def test_a_message_that_is_gone_is_told(kept: Kept, rows: Rows):
    made = await rows.put("{}")
    await kept.claim(0.6)
    await rows.connection.execute("DELETE FROM pgmq.q_default")
    await told(kept, made)


async def test_a_lease_that_is_being_settled_is_not_called_lost(kept: Kept, rows: Rows):
    """Its row is gone because we completed it."""
    gone, made = await rows.put("{}"), await rows.put("{}")
    lease, _ = await kept.claim(0.6), await kept.claim(0.6)
    lease.settling = True
    await rows.connection.execute("DELETE FROM pgmq.q_default WHERE msg_id = $1", gone)
    await extended_times(rows, made, 6)
    assert kept.lost == []


async def test_a_message_that_was_put_back_is_left_alone(kept: Kept, rows: Rows):
    """The loop may be blocked between the settlement's commit and letting go of the lease."""
    made, other = await rows.put("{}"), await rows.put("{}")
    lease, _ = await kept.claim(1), await kept.claim(1)
    lease.settling = True
    await kept.store.retry(Q, [lease.message.held], 1, [seconds(0)], ['{"failures": 1}'])
    await extended_times(rows, other, 3)
    assert (await rows.one(made))["due_in"] <= 0


async def test_a_locked_row_is_tried_again_and_holds_up_no_other(
    kept: Kept, rows: Rows, database_url: str
):
    locked, free = await rows.put("{}"), await rows.put("{}")
    await kept.claim(2), await kept.claim(2)
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("SELECT FROM pgmq.q_default WHERE msg_id = $1 FOR UPDATE", locked)
        before = (await rows.one(locked))["vt"]
        await extended_times(rows, free, 2)
        assert (await rows.one(locked))["vt"] == before
    await extended_times(rows, locked, 2)
    await holder.close()
    assert kept.lost == []


async def test_a_lease_that_cannot_be_kept_is_given_up_before_it_runs_out(
    kept: Kept, rows: Rows, database_url: str
):
    """Nothing can be extended while somebody locks the table."""
    made = await rows.put("{}")
    await kept.claim(3)
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("LOCK TABLE pgmq.q_default IN ACCESS EXCLUSIVE MODE")
        await told(kept, made)
    await holder.close()
    assert kept.late_seconds < 0


async def test_the_trouble_of_many_queues_hides_the_end_of_no_lease(
    kept: Kept, rows: Rows, database_url: str
):
    """To try each of them takes longer than a lease: each is given up in time all the same."""
    queues = [f"q{number}" for number in range(12)]
    for queue in queues:
        await kept.store.create_queue(queue)
        await rows.put("{}", queue=queue)
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        leases = [await kept.claim(1.5, queue) for queue in queues]
        for queue in queues:
            await holder.execute(f"LOCK TABLE pgmq.q_{queue} IN ACCESS EXCLUSIVE MODE")

        async def all_lost() -> None:
            assert all(lease.lost for lease in leases)

        await eventually_async(all_lost)
    await holder.close()
    assert kept.late_seconds < 0.5, "its margin is a quarter of a second"


async def test_a_claim_that_waited_for_longer_than_its_lease_is_given_back(
    config: Config, registry: Registry, rows: Rows, database_url: str, heard: Any
):
    """Another worker might run the message by now; and nobody takes it for one that crashes."""
    starts: list[int] = []

    @task(name="work", registry=registry, lease=1, on_success="archive")
    async def work() -> None:
        starts.append(1)

    holder = await asyncpg.connect(database_url)
    async with working(config, registry):
        await eventually_async(partial(scheduler_rests, rows))
        async with holder.transaction():
            made = await Rows(holder).call("work")
            await holder.execute(
                "LOCK TABLE pgmq.q_default IN ACCESS EXCLUSIVE MODE; NOTIFY pgtasks, 'default'"
            )
            await Store(rows.connection).notify(Q)
            await eventually_async(partial(somebody_waits, rows))
            await asyncio.sleep(1.2)  # longer than the lease
        state = await rows.outcome(made)
    await holder.close()
    assert (starts, state["releases"]) == ([1], 1)
    assert not [event for event in heard.events() if event.startswith("lease lost")]


async def scheduler_rests(rows: Rows) -> None:
    assert await rows.connection.fetchval(
        "SELECT clock_timestamp() - state_change > interval '0.2 s' FROM pg_stat_activity WHERE "
        "datname = current_database() AND application_name = 'pgtasks scheduler' "
        "AND state = 'idle'"
    )


async def somebody_waits(rows: Rows) -> None:
    assert await rows.connection.fetchval(LOCKS + "NOT granted")


async def test_a_lost_connection_is_opened_again(kept: Kept, rows: Rows):
    made = await rows.put("{}")
    await kept.claim(3)
    await extended_times(rows, made, 1)
    for _ in range(2):
        ended = await rows.connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'pgtasks keeper' AND datname = current_database()"
        )
        assert ended
        await extended_times(rows, made, 1)
    assert kept.lost == []


@pytest.mark.parametrize("another", ["read_ct = read_ct", "read_ct = 0, enqueued_at = now()"])
async def test_what_is_claimed_again_here_is_kept_by_its_new_lease(
    kept: Kept, rows: Rows, another: str
):
    """Somebody made it due; or its number is another message's, of a standby that took over."""
    made = await rows.put("{}")
    old = await kept.claim(1)
    await rows.set(made, f"vt = clock_timestamp() - interval '1 s', {another}")
    new = await kept.claim(1)
    assert (kept.lost, old.lost) == ([made], True)
    kept.keeper.let_go(old)
    assert kept.keeper.held() == [new]
    await extended_times(rows, made, 3)
    assert (kept.lost, new.lost) == ([made], False)


# In a worker


class Claiming(threading.Thread):
    """Another worker, in a thread of its own: it starts whatever it can get."""

    def __init__(self, url: str) -> None:
        super().__init__(name="claiming", daemon=True)
        self.url, self.got, self.done = url, list[int](), threading.Event()

    def run(self) -> None:
        asyncio.run(self._claim())

    async def _claim(self) -> None:
        connection = await asyncpg.connect(self.url)
        while not self.done.is_set():
            rows = await Store(connection).claim(Q, 10, seconds(60), BEGINNING)
            self.got += [row["msg_id"] for row in rows]
            await asyncio.sleep(0.02)
        await connection.close()


@pytest.fixture
def claiming(database_url: str) -> Iterator[Claiming]:
    other = Claiming(database_url)
    yield other
    other.done.set()
    if other.is_alive():
        other.join(20)


async def test_code_that_blocks_the_loop_keeps_its_lease(
    config: Config, registry: Registry, rows: Rows, claiming: Claiming
):
    """Three leases long, and nobody else gets the message."""
    starts: list[int] = []

    @task(name="block", registry=registry, lease=1, on_success="archive")
    async def block() -> None:
        starts.append(1)
        claiming.start()
        time.sleep(3)  # noqa: ASYNC251 - that is what some code does

    made = await rows.call("block")
    async with working(config, registry):
        await rows.outcome(made)
    assert (claiming.got, starts) == ([], [1])


async def test_a_lease_lost_while_the_loop_is_blocked_costs_no_other(
    config: Config, registry: Registry, rows: Rows, claiming: Claiming, database_url: str
):
    waiting, ready = anyio.Event(), anyio.Event()

    @task(name="wait", registry=registry, lease=1)
    async def wait() -> None:
        waiting.set()
        await anyio.sleep_forever()

    @task(name="block", registry=registry, lease=1, on_success="archive")
    async def block() -> None:
        ready.set()
        await waiting.wait()
        thief = threading.Thread(target=lambda: asyncio.run(steal()))
        thief.start()
        thief.join()
        claiming.start()
        time.sleep(3)  # noqa: ASYNC251

    async def steal() -> None:
        connection = await asyncpg.connect(database_url)
        await Rows(connection).steal(stolen)
        await connection.close()

    stolen = await rows.call("wait")
    made = await rows.call("block")
    async with working(config, registry) as worker:
        await ready.wait()
        await rows.outcome(made)
        assert claiming.got == []
        worker.cancel()


async def test_a_lost_lease_cancels_the_run_and_its_outcome_does_not_count(
    config: Config, registry: Registry, rows: Rows, heard: Any
):
    started, seen = anyio.Event(), list[Any]()

    @task(name="work", registry=registry, lease=1, timeout=None)
    async def work(context: Context) -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            seen.append((context.cancelled, context.lost))

    async with working(config, registry):
        made = await rows.call("work")
        await rows.connection.execute("NOTIFY pgtasks, 'default'")
        await started.wait()
        await rows.steal(made)
        async with asyncio.timeout(15):
            while not seen:
                await asyncio.sleep(0.01)
    row = await rows.one(made)
    assert (row["read_ct"], row["headers"], row["due_in"] > 3000) == (2, None, True)
    assert seen == [(True, True)]
    assert heard.fields("worker stopped")["lost"] == 1
    assert "lease lost, run cancelled" in heard.events()
    assert heard.events(40) == []  # and it is no error of anybody's


async def test_a_lost_lease_of_a_thread_does_not_count_either(
    config: Config, registry: Registry, rows: Rows, heard: Any
):
    started, go_on = threading.Event(), threading.Event()

    @task(name="work", registry=registry, lease=1)
    def work() -> None:
        started.set()
        go_on.wait(20)

    made = await rows.call("work")
    async with working(config, registry):
        await anyio.to_thread.run_sync(started.wait)
        await rows.steal(made)

        async def is_told() -> None:
            assert "lease lost, run cancelled" in heard.events()

        await eventually_async(is_told)
        go_on.set()
    row = await rows.one(made)
    assert (row["read_ct"], row["headers"]) == (2, None)
    assert heard.fields("worker stopped")["lost"] == 1


async def test_a_zombies_outcome_is_rejected(config: Config, registry: Registry, rows: Rows):
    """It slept, the message ran elsewhere and is being retried there; then it returns."""
    started, go_on = anyio.Event(), anyio.Event()

    @task(name="work", registry=registry, on_success="archive")
    async def work() -> None:
        started.set()
        await go_on.wait()

    made = await rows.call("work")
    async with working(config, registry):
        await started.wait()
        await rows.steal(made)
        go_on.set()
    row = await rows.one(made)
    assert (row["read_ct"], row["headers"], await rows.archived()) == (2, None, {})


async def test_asking_for_more_time(config: Config, registry: Registry, rows: Rows):
    extended = anyio.Event()
    go_on = anyio.Event()

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        await context.extend(500)
        extended.set()
        await go_on.wait()

    made = await rows.call("work")
    async with working(config, registry):
        await extended.wait()
        assert (await rows.one(made))["due_in"] > 400
        go_on.set()


async def test_more_time_is_not_taken_back(config: Config, registry: Registry, rows: Rows):
    extended, go_on = anyio.Event(), anyio.Event()

    @task(name="work", registry=registry, lease=1)
    async def work(context: Context) -> None:
        await context.extend(500)
        extended.set()
        await go_on.wait()

    # A neighbour whose lease shows when the keeper has been round.
    @task(name="neighbour", registry=registry, lease=1)
    async def neighbour() -> None:
        await go_on.wait()

    made, other = await rows.call("work"), await rows.call("neighbour")
    async with working(config, registry):
        try:
            await extended.wait()
            await extended_times(rows, other, 3)
            assert (await rows.one(made))["due_in"] > 400
        finally:
            go_on.set()


async def test_asking_for_more_time_tells_when_it_is_too_late(
    config: Config, registry: Registry, rows: Rows
):
    from pgtasks import LeaseLost

    raised = list[BaseException]()

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        await rows.steal(made)
        try:
            await context.extend("10s")
        except LeaseLost as error:
            raised.append(error)
            raise

    made = await rows.call("work")
    async with working(config, registry):
        async with asyncio.timeout(15):
            while not raised:
                await asyncio.sleep(0.01)
    assert "belongs to somebody else" in str(raised[0])
    assert (await rows.one(made))["headers"] is None


async def test_more_time_that_was_not_given_is_not_claimed_to_be(
    config: Config, registry: Registry, rows: Rows, database_url: str
):
    """Somebody looks at the row under a lock; when extend returns, the lease must be longer."""
    started, locked, asked = anyio.Event(), anyio.Event(), anyio.Event()
    left = list[float]()

    @task(name="work", registry=registry, retries=0)
    async def work(context: Context) -> None:
        started.set()
        await locked.wait()
        asked.set()
        await context.extend(500)
        left.append((await rows.one(made))["due_in"])

    made = await rows.call("work")
    holder = await asyncpg.connect(database_url)
    async with working(config, registry):
        await started.wait()
        async with holder.transaction():
            await holder.execute("SELECT FROM pgmq.q_default WHERE msg_id = $1 FOR UPDATE", made)
            locked.set()
            await asked.wait()
            for _ in range(20):
                await holder.fetchval("SELECT pg_sleep(0.02)")
        async with asyncio.timeout(15):
            while await rows.all():
                await asyncio.sleep(0.01)
    await holder.close()
    assert left == [] or left[0] > 400
