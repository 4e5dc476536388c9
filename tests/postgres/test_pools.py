"""Slots shared by several queues: who gets them, how soon, and when an empty queue is looked at."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from time import monotonic
from typing import Any

import anyio
import attrs
import pytest
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import Config, Registry, task
from pgtasks.config import DatabaseConfig, QueueConfig, QueueFetchConfig
from pgtasks.errors import UnknownQueueError
from pgtasks.fetcher import SHORTEST_POLL_SECONDS
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease
from pgtasks.pool import Pool
from pgtasks.scheduler import Scheduler
from pgtasks.settlement import Run, crashed
from pgtasks.settler import Settler
from pgtasks.slot import Slot
from pgtasks.store import Store

WEIGHTS = {"full": QueueConfig(weight=4), "mail": QueueConfig(weight=2)}


@pytest.fixture
def ran(registry: Registry) -> list[str]:
    """The queues of the messages that were started, in order; each task takes as long as asked."""
    started = list[str]()

    def make(queue: str) -> None:
        @task(name=queue, registry=registry, queue=queue)
        async def run(milliseconds: int) -> None:
            started.append(queue)
            await asyncio.sleep(milliseconds / 1000)

    for queue in ("full", "mail", "report"):
        make(queue)
    return started


def sharing(config: Config, slots: int, strategy: Any, **more: Any) -> Config:
    """The settings of a worker whose queues share so many slots."""
    worker = attrs.evolve(
        config.worker, concurrency=slots, balance_strategy=strategy, queue_config=WEIGHTS, **more
    )
    return attrs.evolve(config, worker=worker)


async def fill(registry: Registry, queue: str, count: int, milliseconds: int) -> None:
    await registry.resolve(queue).defer_many([(milliseconds,)] * count)


async def grown(events: Sequence[Any], number: int, *, within_seconds: float = 20) -> None:
    """Wait until so much has happened."""
    async with asyncio.timeout(within_seconds):
        while len(events) < number:
            await asyncio.sleep(0.002)


# Who gets the slots


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("strategy", ["round-robin", "weighted"])
async def test_messages_beside_a_full_queue_start_after_a_few_of_it(
    client: Any, config: Config, registry: Registry, ran: list[str], *, strategy: Any, slots: int
):
    """However much room a claim has, and however long it has been full: no more than were claimed
    before they came."""
    waited = list[int]()
    config = sharing(config, slots, strategy)
    async with working(config, registry, within_seconds=40) as worker:
        await fill(registry, "full", 3000 * slots, 5)
        await grown(ran, 150 * slots)
        for number in range(12):
            queue = ("mail", "report")[number % 2]
            await registry.resolve(queue).defer(5)
            before, there = len(ran), ran.count(queue)
            while ran.count(queue) == there:
                await asyncio.sleep(0.001)
            waited.append(ran[before:].count("full"))
        worker.cancel()
    # A tenth of a second's worth of messages may be ahead, and a claim that is on its way.
    assert max(waited) <= 60 * slots
    assert ran.count("full") < 3000 * slots


@pytest.mark.parametrize("slots", [1, 8])
@pytest.mark.parametrize(
    ("strategy", "shares"),
    [
        ("round-robin", {"full": 1, "mail": 1, "report": 1}),
        ("weighted", {"full": 4, "mail": 2, "report": 1}),
    ],
)
async def test_full_queues_get_their_share_of_the_messages_whatever_these_take(
    client: Any,
    config: Config,
    registry: Registry,
    ran: list[str],
    *,
    strategy: Any,
    shares: dict[str, int],
    slots: int,
):
    for queue, milliseconds in {"full": 1, "mail": 8, "report": 3}.items():
        await fill(registry, queue, 1400, milliseconds)
    config = sharing(config, slots, strategy)
    async with working(config, registry, within_seconds=40) as worker:
        await grown(ran, 1400)
        worker.cancel()
    counts = Counter(ran[:1400])
    whole = sum(shares.values())
    for queue, share in shares.items():
        assert counts[queue] == pytest.approx(1400 * share / whole, rel=0.25), counts


async def test_priority_lets_others_wait_for_as_long_as_there_is_more(
    client: Any, config: Config, registry: Registry, ran: list[str]
):
    for queue in ("report", "mail", "full"):
        await fill(registry, queue, 40, 1)
    config = sharing(config, 2, "priority", queues=("full", "mail", "report"))
    async with working(config, registry):
        await grown(ran, 120)
    assert ran == [queue for queue in ("full", "mail", "report") for _ in range(40)]


async def test_what_is_urgent_is_next_while_others_run(
    client: Any, config: Config, registry: Registry, ran: list[str]
):
    config = sharing(config, 1, "priority", queues=("mail", "full"))
    async with working(config, registry) as worker:
        await fill(registry, "full", 50, 150)
        for _ in range(3):
            there = len(ran)
            await grown(ran, there + 1)
            await fill(registry, "mail", 2, 1)
            await grown(ran, there + 4)
            assert ran[there + 1 : there + 4] == ["mail", "mail", "full"]
        worker.cancel()


# Queues that are not there


async def test_a_table_for_a_queue_that_does_not_exist_is_refused(
    config: Config, registry: Registry, ran: list[str], rows: Rows
):
    own = {"mial": QueueConfig(concurrency=2)}
    config = attrs.evolve(config, worker=attrs.evolve(config.worker, queue_config=own))
    with pytest.raises(UnknownQueueError, match="worker.queue-config.mial: .*mean 'mail'"):
        async with working(config, registry):
            pass
    await Store(rows.connection).create_queue("mial")
    async with working(config, registry):
        pass


async def test_settings_without_effect_are_told_of_once(
    config: Config, registry: Registry, ran: list[str], rows: Rows, heard: Any
):
    async with working(sharing(config, 1, "round-robin"), registry):
        pass
    warned = heard.events(30)
    assert warned == [
        f"worker.queue-config.{queue}.weight has no effect: balance-strategy is round-robin"
        for queue in ("full", "mail")
    ]


# When an empty queue is looked at


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When it was asked what is due; what is found by that is claimed."""
    ask, times = Store.next_dues, list[float]()

    async def noted(self: Store, *args: Any) -> dict[str, float]:
        times.append(monotonic())
        return await ask(self, *args)

    monkeypatch.setattr(Store, "next_dues", noted)
    return times


def fetching(config: Config, **changes: Any) -> Config:
    """These settings with others for how messages are looked for."""
    worker = attrs.evolve(config.worker, queue_fetch=QueueFetchConfig(**changes))
    return attrs.evolve(config, worker=worker)


def pauses(times: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


async def test_looks_grow_rarer_up_to_the_empty_delay_where_nobody_is_told(
    config: Config, registry: Registry, rows: Rows, looks: list[float]
):
    """And begin anew after each message."""
    done = anyio.Event()

    @task(name="work", registry=registry)
    async def work() -> None:
        done.set()

    async with working(fetching(config, empty_delay="300ms", notify=False), registry):
        await grown(looks, 10)
        _, *later = pauses(looks)  # the first look opens its connection
        for pause, bound in zip(later, [0.04, 0.08, 0.16, *[0.3] * 5], strict=False):
            assert 0.85 * bound <= pause <= bound + 0.4, later
        await rows.call("work")
        await done.wait()
        del looks[:]
        await grown(looks, 3)
        assert min(pauses(looks)) < 0.2


async def test_a_foreign_message_starts_within_the_empty_delay(
    config: Config, registry: Registry, rows: Rows
):
    """It is inserted by a client that tells nobody, whether somebody would listen or not."""
    started = list[float]()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.append(monotonic())

    for notify in (True, False):
        async with working(fetching(config, empty_delay="400ms", notify=notify), registry):
            await asyncio.sleep(1.0)  # long enough for looks to be as rare as they get
            for number in range(3):
                there, sent_at = len(started), monotonic()
                await rows.call("work")
                await grown(started, there + 1)
                assert started[-1] - sent_at <= 0.4 + 0.5, (notify, number)


async def test_who_is_told_does_not_look_more_often_than_the_empty_delay_says(
    config: Config, registry: Registry, rows: Rows, looks: list[float], client: Any
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    async with working(fetching(config, empty_delay="30s"), registry):
        await work.defer()
        await rows.empty()
        await asyncio.sleep(0.3)
        before = len(looks)
        await asyncio.sleep(20 * SHORTEST_POLL_SECONDS)
        assert len(looks) <= before + 1


async def test_a_delayed_message_is_not_waited_for_longer_than_it_is_delayed(
    config: Config, registry: Registry, rows: Rows
):
    started = list[float]()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.append(monotonic())

    async with working(fetching(config, empty_delay="30s", notify=False), registry):
        sent_at = monotonic()
        await rows.call("work", vt="clock_timestamp() + interval '500 ms'")
        await grown(started, 1)
    assert 0.4 < started[0] - sent_at < 3.0


async def test_errors_are_tried_again_within_the_error_delay(
    config: Config, registry: Registry, rows: Rows, looks: list[float]
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    async with working(fetching(config, error_delay="200ms", empty_delay="50ms"), registry):
        await grown(looks, 1)
        await rows.connection.execute("ALTER TABLE pgmq.q_default RENAME TO q_away")
        del looks[:]
        await grown(looks, 12)
        tried = pauses(looks)
        await rows.connection.execute("ALTER TABLE pgmq.q_away RENAME TO q_default")
        await rows.call("work")
        await rows.empty()
    assert max(tried) < 0.2 + 0.5
    assert len({round(pause, 3) for pause in tried[4:]}) > 2, "they are drawn anew"


# Slots that are left to messages which run elsewhere


@attrs.define
class Bench:
    """A scheduler for one queue, whose runs end when they are told to."""

    scheduler: Scheduler
    ran: list[int]
    gate: asyncio.Event


@asynccontextmanager
async def counted(database: DatabaseConfig, slots: int, **more: Any) -> AsyncIterator[Bench]:
    """A scheduler whose slots are counted over several processes."""
    ran, gate = list[int](), asyncio.Event()
    keeper = Keeper(database, lambda _: None)
    settler = Settler(database, keeper, None, lambda _: None)

    async def run(lease: Lease, _: Slot) -> None:
        ran.append(lease.message.message_id)
        await gate.wait()
        settler.put(lease, crashed(lease.message, "test", Run(0.0, "tests")))

    more = {"divert": lambda _: False} | more
    scheduler = Scheduler(
        pool=Pool(slots, ("default",), is_shared_out=True),
        leases={"default": seconds(60)},
        run_message=run,
        database=database,
        fetching=QueueFetchConfig(empty_delay=seconds(30)),
        settler=settler,
        keeper=keeper,
        is_counted=True,
        **more,
    )
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(settler.run)
            async with anyio.create_task_group() as running:
                running.start_soon(scheduler.run)
                yield Bench(scheduler, ran, gate)
                gate.set()
                scheduler.stop()
            settler.close()


async def test_a_slot_that_is_lent_stays_empty_until_it_is_taken_back(
    database: DatabaseConfig, rows: Rows
):
    """Also when messages are claimed ahead, as they are when they were quick."""
    async with counted(database, 3, lent=2) as bench:
        bench.gate.set()
        for _ in range(300):
            await rows.put("{}")
        bench.scheduler.wake()
        await grown(bench.ran, 300)
        bench.gate.clear()
        for _ in range(20):
            await rows.put("{}")
        bench.scheduler.wake()
        for expected in (1, 2, 3):
            await grown(bench.ran, 300 + expected)
            await asyncio.sleep(0.2)
            assert (len(bench.ran), bench.scheduler.running) == (300 + expected, expected)
            bench.scheduler.take_back()
        bench.scheduler.take_back()


async def test_no_slot_at_all_claims_nothing(database: DatabaseConfig, rows: Rows):
    made = await rows.put("{}")
    async with counted(database, 1, lent=1) as bench:
        await asyncio.sleep(0.3)
        assert ((await rows.one(made))["read_ct"], bench.ran) == (0, [])
        bench.gate.set()
        bench.scheduler.take_back()
        await grown(bench.ran, 1)


async def test_what_is_diverted_waits_for_a_slot_and_keeps_it(database: DatabaseConfig, rows: Rows):
    first = await rows.put("{}")
    suspect = await rows.put("{}", read_ct="7")
    last = await rows.put("{}")
    diverted = list[int]()

    def divert(lease: Lease) -> bool:
        diverted.append(lease.message.message_id)
        return True

    async with counted(database, 1, divert=divert) as bench:
        await grown(bench.ran, 1)
        await asyncio.sleep(0.1)
        assert (bench.ran, diverted) == ([first], [])
        bench.gate.set()
        await grown(diverted, 1)
        await asyncio.sleep(0.3)
        assert (bench.ran, diverted) == ([first], [suspect])
        bench.scheduler.take_back()
        await grown(bench.ran, 2)
        assert bench.ran == [first, last]


async def test_a_scheduler_ends_although_its_slots_are_lent(database: DatabaseConfig, rows: Rows):
    async with counted(database, 2, lent=2) as bench:
        await asyncio.sleep(0.05)
    assert bench.scheduler.running == 0
