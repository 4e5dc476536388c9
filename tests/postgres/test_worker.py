"""A worker as a whole: how it fetches, shares its slots, listens, stops, and what it leaves."""

import asyncio
import threading
import time
from collections import Counter
from typing import Any, Self

import anyio
import anyio.to_thread
import asyncpg
import attrs
import pytest
from eventually import eventually_async
from postgres.rows import LOCKS, Rows, seconds
from postgres.working import working

from pgtasks import Config, ConfigError, DatabaseUnreachable, Registry, SchemaError, Worker, task
from pgtasks.config import DatabaseConfig, QueueConfig, QueueFetchConfig, WorkerConfig
from pgtasks.store import Store


def with_worker(config: Config, **changes: Any) -> Config:
    return attrs.evolve(config, worker=attrs.evolve(config.worker, **changes))


async def grown(events: list[Any], number: int, *, within_seconds: float = 15) -> None:
    """Wait until so much has happened."""
    async with asyncio.timeout(within_seconds):
        while len(events) < number:
            await asyncio.sleep(0.005)


# Starting and ending


async def test_a_worker_starts_and_stops_and_leaves_nothing(
    config: Config, registry: Registry, rows: Rows
):
    """No connection, no lock, no thread."""

    @task(name="work", registry=registry)
    def work() -> None: ...

    threads = set(threading.enumerate())
    async with working(config, registry) as worker:
        await work.defer()
        await rows.empty()
        assert not worker.is_stopping
    assert (worker.is_stopping, worker.unsettled) == (True, 0)

    async def nobody() -> None:
        others = (
            "SELECT application_name FROM pg_stat_activity "
            "WHERE application_name LIKE 'pgtasks %' AND application_name <> 'pgtasks tests'"
        )
        assert await rows.connection.fetch(others + " AND datname = current_database()") == []
        left = {thread.name for thread in set(threading.enumerate()) - threads}
        assert not [name for name in left if name.startswith("pgtasks")]

    await eventually_async(nobody)
    locks = LOCKS + "locktype = 'advisory'"
    assert await rows.connection.fetchval(locks) == 0


async def test_a_worker_creates_the_queues_it_serves(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[int]()

    @task(name="work", registry=registry, queue="fresh")
    async def work() -> None:
        ran.append(1)

    async with working(config, registry):
        await rows.call("work", queue="fresh")
        await rows.connection.execute("NOTIFY pgtasks, 'fresh'")
        await grown(ran, 1)


async def test_a_worker_installs_the_schema_unless_told_not_to(
    empty_database_url: str, registry: Registry
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    config = Config(database=DatabaseConfig(url=empty_database_url))
    off = attrs.evolve(config.worker, install=attrs.evolve(config.worker.install, enable=False))
    with pytest.raises(SchemaError, match="pgtasks db upgrade"):
        async with working(attrs.evolve(config, worker=off), registry):
            pass
    async with working(config, registry):
        await work.defer()
    async with working(attrs.evolve(config, worker=off), registry):
        pass


async def test_workers_that_start_at_once_on_an_empty_database(
    empty_database_url: str, registry: Registry
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    config = Config(database=DatabaseConfig(url=empty_database_url, connect_timeout=seconds(60)))

    async def start() -> None:
        async with working(config, registry, within_seconds=60):
            await work.defer()

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(start)


async def test_nothing_to_serve_is_refused(config: Config, registry: Registry, rows: Rows):
    with pytest.raises(ConfigError, match="no queue to serve"):
        async with working(config, registry):
            pass


async def test_a_database_that_is_not_there_is_said(registry: Registry):
    task(name="work", registry=registry)(lambda: None)
    config = Config(database=DatabaseConfig(url="postgresql://127.0.0.1:1/x"))
    with pytest.raises(DatabaseUnreachable):
        async with working(config, registry, queues=["default"]):
            pass


async def test_an_error_in_the_block_comes_out_as_it_is(
    config: Config, registry: Registry, rows: Rows
):
    task(name="work", registry=registry)(lambda: None)
    with pytest.raises(ZeroDivisionError):
        async with working(config, registry):
            raise ZeroDivisionError


async def test_an_error_in_the_block_gives_back_what_runs(
    config: Config, registry: Registry, rows: Rows
):
    """At once, without waiting for the grace."""
    started = anyio.Event()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.set()
        await anyio.sleep_forever()

    began = time.monotonic()
    with pytest.raises((ZeroDivisionError, ExceptionGroup)):  # noqa: PT012
        async with working(config, registry):
            handle = await work.defer()
            await started.wait()
            raise ZeroDivisionError
    assert await rows.state(handle.message_id) == {"releases": 1}
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("leaving", [False, True])
async def test_cancelling_the_block_from_outside_gives_back_what_runs(
    config: Config, registry: Registry, rows: Rows, leaving: bool
):
    """While the block runs, and while it waits for the grace at its end."""
    started = anyio.Event()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.set()
        await anyio.sleep_forever()

    began = time.monotonic()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group, working(config, registry):
            handle = await work.defer()
            await started.wait()
            group.start_soon(_cancel, scope)
            if not leaving:
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert await rows.state(handle.message_id) == {"releases": 1}
    assert time.monotonic() - began < 10


async def _cancel(scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    scope.cancel()


# Fetching


async def test_a_notification_is_quicker_than_the_poll(
    config: Config, registry: Registry, rows: Rows
):
    """The poll comes every 30 s; each of these comes between an empty look and a wait."""
    ran = list[float]()

    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(time.monotonic())

    async with working(config, registry):
        for number in range(60):
            await work.defer()
            await grown(ran, number + 1, within_seconds=5)


async def test_what_no_notification_told_of_is_found_by_the_poll(
    config: Config, registry: Registry, rows: Rows
):
    config = with_worker(config, queue_fetch=QueueFetchConfig(empty_delay=seconds(0.3)))
    ran = list[int]()

    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(1)

    async with working(config, registry):
        for number in range(3):
            await rows.call("work")
            await grown(ran, number + 1, within_seconds=8)


async def test_without_notifications_there_is_no_listener(
    config: Config, registry: Registry, rows: Rows
):
    fetching = QueueFetchConfig(empty_delay=seconds(0.3), notify=False)
    ran = list[int]()

    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(1)

    async with working(with_worker(config, queue_fetch=fetching), registry):
        await work.defer()
        await grown(ran, 1)
        listeners = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = $1 AND datname = current_database()"
        )
        assert await rows.connection.fetchval(listeners, "pgtasks listener") == 0


async def test_a_delayed_message_starts_when_it_is_due_and_not_at_the_next_poll(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[float]()

    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(time.monotonic())

    async with working(config, registry):
        began = time.monotonic()
        await work.options(delay="400ms").defer()
        await grown(ran, 1, within_seconds=8)
        assert ran[0] - began >= 0.4
        # Waiting for that one must not make another wait.
        await work.options(delay=20).defer()
        await work.defer()
        await grown(ran, 2, within_seconds=5)


async def test_what_commits_late_is_found(config: Config, registry: Registry, rows: Rows):
    """It stands before what was claimed meanwhile, and its notification tells of it."""
    ran = list[str]()

    @task(name="work", registry=registry)
    async def work(name: str) -> None:
        ran.append(name)

    async with working(config, registry), Transaction(config) as late:
        await work.options(connection=late.connection).defer("late")
        began = time.monotonic()
        while time.monotonic() < began + 1.2:  # until the mark has passed it
            before = len(ran)
            await work.defer("early")
            await grown(ran, before + 1)
        assert "late" not in ran
        await late.commit()
        await grown(ran, before + 2, within_seconds=6)
    assert ran[-1] == "late"


class Transaction:
    """A transaction of somebody else's."""

    def __init__(self, config: Config) -> None:
        self.url = config.database.url

    async def __aenter__(self) -> Self:
        self.connection: Any = await asyncpg.connect(self.url)
        self.transaction = self.connection.transaction()
        await self.transaction.start()
        return self

    async def commit(self) -> None:
        await self.transaction.commit()

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close(timeout=5)


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each claim was sent, by anybody in this process."""
    sent = list[float]()
    claim = Store.claim

    async def counting(self: Store, *args: Any) -> Any:
        sent.append(time.monotonic())
        return await claim(self, *args)

    monkeypatch.setattr(Store, "claim", counting)
    return sent


async def test_a_row_that_somebody_locks_is_stepped_over_and_found_later(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[str]()

    @task(name="work", registry=registry)
    async def work(name: str) -> None:
        ran.append(name)

    made = await rows.call("work", ["locked"])
    async with Transaction(config) as other:
        await other.connection.execute("SELECT FROM pgmq.q_default FOR UPDATE")
        async with working(config, registry):
            await work.defer("free")
            await grown(ran, 1)
            assert ran == ["free"]
            await other.commit()
            await grown(ran, 2, within_seconds=8)
    assert (ran, made > 0) == (["free", "locked"], True)


async def test_a_row_that_somebody_locks_is_no_reason_to_spin(
    config: Config, registry: Registry, rows: Rows, claims: list[float]
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    await rows.call("work")
    async with Transaction(config) as other:
        await other.connection.execute("SELECT FROM pgmq.q_default FOR UPDATE")
        async with working(config, registry):
            await asyncio.sleep(1.5)
            assert len(claims) < 40


async def test_an_idle_worker_rests(
    config: Config, registry: Registry, rows: Rows, claims: list[float]
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    async with working(config, registry):
        await work.options(delay=20).defer()
        await work.defer()
        await rows.connection.execute("SELECT 1")
        await asyncio.sleep(0.5)
        before = len(claims)
        await asyncio.sleep(1)
        assert len(claims) - before <= 2


async def test_foreign_notifications_are_no_reason_to_look(
    config: Config, registry: Registry, rows: Rows, claims: list[float]
):
    ran = list[int]()

    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(1)

    async with working(config, registry):
        await work.defer()
        await grown(ran, 1)
        before = len(claims)
        await rows.connection.execute(
            "DO $$ BEGIN FOR n IN 1..5000 LOOP "
            "PERFORM pg_notify('pgtasks', chr(34) || '; drop' || n); END LOOP; END $$;"
            "NOTIFY pgtasks; NOTIFY pgtasks, 'no_such_queue'"
        )
        await work.defer()
        await grown(ran, 2)
        assert len(claims) - before < 20


async def test_lost_connections_of_every_kind_are_opened_again(
    config: Config, registry: Registry, rows: Rows
):
    config = with_worker(
        config, queue_fetch=QueueFetchConfig(empty_delay=seconds(30), error_delay=seconds(0.2))
    )
    ran = list[int]()

    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(1)

    async with working(config, registry):
        for purpose in ("scheduler", "settler", "keeper", "listener", "client"):
            await work.defer()
            await grown(ran, len(ran) + 0)
            await rows.empty()
            await rows.connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = $1 AND datname = current_database()",
                f"pgtasks {purpose}",
            )
            before = len(ran)
            await deferred_somehow(work)
            await grown(ran, before + 1)
            await rows.empty()


async def deferred_somehow(work: Any) -> None:
    """The first try may find a dead connection in the pool."""
    try:
        await work.defer()
    except DatabaseUnreachable:
        await work.defer()


# Sharing slots


async def test_no_more_runs_at_once_than_there_are_slots(
    config: Config, registry: Registry, rows: Rows
):
    now, most = [0], [0]

    @task(name="work", registry=registry)
    async def work() -> None:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.02)
        now[0] -= 1

    async with working(with_worker(config, concurrency=3), registry):
        await work.defer_many([()] * 30)
        await rows.empty()
    assert most == [3]


async def test_a_queue_with_slots_of_its_own_neither_takes_nor_gives(
    config: Config, registry: Registry, rows: Rows
):
    config = with_worker(config, concurrency=2, queue_config={"slow": QueueConfig(concurrency=1)})
    gate, running = anyio.Event(), list[str]()

    @task(name="slow", registry=registry, queue="slow")
    async def slow() -> None:
        running.append("slow")
        await gate.wait()

    @task(name="quick", registry=registry)
    async def quick() -> None:
        running.append("quick")

    async with working(config, registry):
        await slow.defer_many([()] * 3)
        await grown(running, 1)
        await quick.defer_many([()] * 20)
        await grown(running, 21)
        assert running.count("slow") == 1
        gate.set()
        await rows.empty("slow")
    assert Counter(running) == {"slow": 3, "quick": 20}


async def test_priority_takes_the_first_queue_first(config: Config, registry: Registry, rows: Rows):
    config = with_worker(config, concurrency=1, balance_strategy="priority")
    ran = list[str]()

    @task(name="work", registry=registry)
    async def work(name: str) -> None:
        ran.append(name)

    await Store(rows.connection).create_queue("urgent")
    for number in range(15):
        await rows.call("work", [f"default {number}"])
        await rows.call("work", [f"urgent {number}"], queue="urgent")
    async with working(config, registry, queues=["urgent", "default"]):
        await grown(ran, 30)
    assert ran == [f"{name} {n}" for name in ("urgent", "default") for n in range(15)]


@pytest.mark.parametrize("strategy", ["round-robin", "weighted"])
async def test_a_queue_that_is_always_full_starves_no_other(
    config: Config, registry: Registry, rows: Rows, strategy: Any
):
    config = with_worker(
        config,
        concurrency=1,
        balance_strategy=strategy,
        queue_config={"full": QueueConfig(weight=4)},
    )
    ran = list[str]()

    @task(name="again", registry=registry, queue="full")
    async def again() -> None:
        ran.append("full")
        await again.defer_many([(), ()] if len(ran) < 500 else [()])

    @task(name="other", registry=registry)
    async def other() -> None:
        ran.append("other")

    async with working(config, registry) as worker:
        await again.defer_many([()] * 50)
        await grown(ran, 20)
        await other.defer_many([()] * 10)
        async with asyncio.timeout(15):
            while ran.count("other") < 10:
                await asyncio.sleep(0.01)
        worker.cancel()
    assert ran.count("full") > 10


# Stopping


async def warm(work: Any, rows: Rows, number: int = 300) -> None:
    """Let a worker see that its tasks are quick, so that it claims ahead of its slots."""
    await work.defer_many([()] * number)
    await rows.empty()


async def test_stopping_ends_what_runs_and_gives_the_rest_back(
    config: Config, registry: Registry, rows: Rows
):
    """What was claimed ahead goes back at once; no attempt and no delivery is taken."""
    gate, started = anyio.Event(), list[int]()

    @task(name="quick", registry=registry)
    async def quick() -> None: ...

    @task(name="slow", registry=registry, on_success="archive")
    async def slow() -> None:
        started.append(1)
        await gate.wait()

    async with working(with_worker(config, concurrency=2), registry) as worker:
        await warm(quick, rows)
        handles = await slow.defer_many([()] * 12)
        await grown(started, 2)
        claimed = [row for row in await rows.all() if row["read_ct"]]
        assert len(claimed) > 2  # or there is nothing to see
        worker.stop()

        async def given_back() -> None:
            leased = [row for row in await rows.all() if row["due_in"] > 0]
            assert len(leased) == 2

        await eventually_async(given_back, within_seconds=5)
        gate.set()
    assert len(started) == 2
    done = await rows.archived()
    assert {state["outcome"] for state in done.values()} == {"done"}
    assert len(done) == 2
    left = await rows.all()
    assert {row["msg_id"] for row in left} | set(done) == {one.message_id for one in handles}
    for row in left:
        assert row["due_in"] <= 0
        released = (await rows.state(row["msg_id"])).get("releases", 0)
        assert released == row["read_ct"]  # 0 and 0 for what was never claimed
    assert sum(row["read_ct"] for row in left) == len(claimed) - 2


async def test_nothing_is_started_after_the_word_to_stop(
    config: Config, registry: Registry, rows: Rows
):
    """A claim that was on its way may still get it; then it is given back."""
    gate, started = anyio.Event(), list[int]()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.append(1)
        await gate.wait()

    async with working(config, registry) as worker:
        await work.defer()
        await grown(started, 1)
        worker.stop()
        late = await work.defer()
        await asyncio.sleep(0.2)
        gate.set()
    assert len(started) == 1
    row = await rows.one(late.message_id)
    assert row["due_in"] <= 0
    assert (await rows.state(late.message_id) or {}).get("releases", 0) == row["read_ct"]


async def test_cancelling_gives_back_what_runs(config: Config, registry: Registry, rows: Rows):
    started, cleaned = list[str](), list[str]()

    @task(name="work", registry=registry)
    async def work(name: str) -> None:
        started.append(name)
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append(name)

    async with working(config, registry) as worker:
        await work.defer_many([(name,) for name in "abc"])
        await grown(started, 3)
        began = time.monotonic()
        worker.cancel()
    assert time.monotonic() - began < 10  # and not the grace of 20 s
    assert sorted(cleaned) == ["a", "b", "c"]
    for row in await rows.all():
        assert (row["read_ct"], row["due_in"] <= 0) == (1, True)
        assert await rows.state(row["msg_id"]) == {"releases": 1}


async def test_what_still_runs_after_the_grace_is_given_back(
    config: Config, registry: Registry, rows: Rows
):
    started = list[int]()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.append(1)
        await anyio.sleep_forever()

    async with working(with_worker(config, grace=seconds(0.3)), registry):
        handle = await work.defer()
        await grown(started, 1)
        began = time.monotonic()
    assert 0.3 <= time.monotonic() - began < 10
    assert await rows.state(handle.message_id) == {"releases": 1}


async def test_a_thread_that_still_runs_after_the_grace_keeps_its_lease(
    config: Config, registry: Registry, rows: Rows
):
    """Nobody can end it: to give its message back would start it twice."""
    started, go_on = threading.Event(), threading.Event()

    @task(name="work", registry=registry)
    def work() -> None:
        started.set()
        go_on.wait(30)

    try:
        async with working(with_worker(config, grace=seconds(0.3)), registry) as worker:
            handle = await work.defer()
            await anyio.to_thread.run_sync(started.wait)
        row = await rows.one(handle.message_id)
        assert (row["due_in"] > 0, row["headers"], worker.unsettled) == (True, None, 1)
    finally:
        go_on.set()


async def test_an_end_that_cannot_be_written_is_not_waited_for_for_ever(
    config: Config, registry: Registry, rows: Rows
):
    """The lease runs out then; a worker that nobody can stop would be worse."""
    started, go_on = list[int](), asyncio.Event()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.append(1)
        await go_on.wait()

    other = await asyncpg.connect(config.database.url)
    async with working(config, registry) as worker:
        try:
            handle = await work.defer()
            await grown(started, 1)
            await other.execute("BEGIN; LOCK TABLE pgmq.q_default")
            go_on.set()
            worker.stop()
            async with asyncio.timeout(10):
                await worker.ended.wait()
        finally:
            other.terminate()
    assert worker.unsettled == 1
    assert (await rows.one(handle.message_id))["due_in"] > 0


async def test_what_was_claimed_ahead_is_not_started_any_more(
    config: Config, registry: Registry, rows: Rows
):
    """Even when the claim loop hangs in a statement while the worker is told to end at once."""
    started = list[int]()

    @task(name="quick", registry=registry)
    async def quick() -> None: ...

    @task(name="slow", registry=registry)
    async def slow() -> None:
        started.append(1)
        await anyio.sleep_forever()

    async with working(with_worker(config, concurrency=2), registry, within_seconds=10) as worker:
        await warm(quick, rows)
        await slow.defer_many([()] * 12)
        await grown(started, 2)
        async with Transaction(config) as other:
            await other.connection.execute("LOCK TABLE pgmq.q_default IN ACCESS EXCLUSIVE MODE")
            await rows.connection.execute("NOTIFY pgtasks, 'default'")
            waiting = LOCKS + "NOT granted"
            async with asyncio.timeout(10):
                while not await rows.connection.fetchval(waiting):
                    await asyncio.sleep(0.01)
            worker.cancel()
            await asyncio.sleep(0.3)
            assert len(started) == 2
            await other.commit()
    assert len(started) == 2


async def test_what_was_claimed_ahead_of_slow_tasks_goes_to_others(
    config: Config, registry: Registry, rows: Rows
):
    """They were quick, now they block: another worker must not wait for this one's slots."""
    gate, elsewhere = anyio.Event(), Registry()
    started, ran = list[int](), list[int]()

    @task(name="quick", registry=registry)
    async def quick() -> None: ...

    @task(name="slow", registry=registry)
    async def slow() -> None:
        started.append(1)
        await gate.wait()

    @task(name="slow", registry=elsewhere)
    async def slow_elsewhere() -> None:
        ran.append(1)

    async with working(with_worker(config, concurrency=2), registry):
        await warm(quick, rows)
        await slow.defer_many([()] * 12)
        await grown(started, 2)
        async with working(config, elsewhere):
            try:
                await grown(ran, 10, within_seconds=6)
            finally:
                gate.set()


async def test_a_rolling_restart_runs_everything_once(
    config: Config, registry: Registry, rows: Rows
):
    """The new worker is there before the old one has ended."""
    ran = Counter[int]()

    @task(name="work", registry=registry)
    async def work(number: int) -> None:
        ran[number] += 1
        await asyncio.sleep(0.001)

    async def churn(worker_of: list[Worker]) -> None:
        for _ in range(4):
            async with working(config, registry) as worker:
                worker_of.append(worker)
                await asyncio.sleep(0.15)

    async with working(config, registry):
        await work.defer_many([(n,) for n in range(2000)])
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(churn, [])
        await rows.empty()
    assert ran == Counter(range(2000))


async def test_two_workers_share_one_queue(config: Config, registry: Registry, rows: Rows):
    ran = Counter[int]()

    @task(name="work", registry=registry)
    async def work(number: int) -> None:
        ran[number] += 1
        await asyncio.sleep(0)

    async with working(config, registry), working(config, registry):
        await work.defer_many([(n,) for n in range(1500)])
        await rows.empty()
    assert ran == Counter(range(1500))


# Deliveries that never ended


async def test_a_message_that_is_read_too_often_elsewhere_is_given_up_in_the_end(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[str]()

    @task(name="work", registry=registry)
    async def work(name: str) -> None:
        ran.append(name)

    await rows.call("work", ["once"], read_ct="1")
    await rows.call("work", ["nine times"], read_ct="9")
    await rows.call("work", ["500 times"], read_ct="500")
    before = """'{"pgtasks": {"elsewhere": 489}}'"""
    lost = await rows.call("work", ["and ten times more"], read_ct="499", headers=before)
    async with working(config, registry):
        state = await rows.outcome(lost)
        await rows.empty()
    assert (state["outcome"], state["elsewhere"]) == ("crashed", 489)
    assert sorted(ran) == ["500 times", "nine times", "once"]


async def test_default_settings_work_together(
    database: DatabaseConfig, registry: Registry, rows: Rows
):
    ran = list[int]()

    @task(registry=registry, name="work")
    async def work(n: int) -> None:
        ran.append(n)

    config = Config(database=database, worker=WorkerConfig())
    async with working(config, registry):
        await work.defer_many([(n,) for n in range(200)])
        await rows.empty()
    assert sorted(ran) == list(range(200))
