"""Health of a worker inside an application, and what becomes of it when a part of it fails."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import attrs
import pytest
from eventually import eventually_async
from postgres.conftest import Heard
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import Client, Config, Registry, Worker, task
from pgtasks.config import HealthConfig
from pgtasks.crew import Crew
from pgtasks.errors import WorkerFault
from pgtasks.fetcher import Fetcher
from pgtasks.health import Health
from pgtasks.keeper import Keeper
from pgtasks.listener import Listener
from pgtasks.pruner import Pruner
from pgtasks.settler import Settler
from pgtasks.ticker import Ticker

PARTS: dict[str, tuple[type, str]] = {
    "scheduler": (Fetcher, "take_turns"),
    "settler": (Settler, "_write"),
    "keeper": (Keeper, "_round"),
    "ticker": (Ticker, "_look"),
    "listener": (Listener, "_listen"),
    "pruner": (Pruner, "look"),
    "report": (Crew, "_report"),
}


def kinds(health: Health) -> list[str]:
    return [problem.kind for problem in health.problems]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while left := [one.name for one in threading.enumerate() if one.name == "pgtasks-keeper"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


# Health


async def test_a_worker_tells_its_health_from_its_first_to_its_last_moment(
    config: Config, registry: Registry, rows: Rows
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    worker = Worker(config=config, registry=registry)
    assert kinds(worker.health()) == ["starting"]
    async with worker:
        assert worker.health() == Health()
        worker.stop()
        assert kinds(worker.health()) == ["stopping"]
        assert worker.health().is_live
        await worker.ended.wait()
        assert kinds(worker.health()) == ["ended"]
    assert not worker.health().is_live


async def test_who_asks_on_another_loop_hears_of_a_loop_that_is_held_up(
    config: Config, registry: Registry, rows: Rows
):
    """As a web application does that runs its worker in a thread; here the other way round."""
    held, release = threading.Event(), threading.Event()

    @task(name="block", registry=registry)
    async def block() -> None:
        held.set()
        release.wait(30)

    health = HealthConfig(stale_after=seconds(5))
    limited = attrs.evolve(config, worker=attrs.evolve(config.worker, health=health))
    worker, stop = Worker(config=limited, registry=registry), threading.Event()

    async def run() -> None:
        async with worker:
            while not stop.is_set():
                await anyio.sleep(0.01)

    running = threading.Thread(target=lambda: asyncio.run(run()))
    running.start()
    try:
        await eventually_async(_becomes(worker))
        await rows.call("block")
        await rows.connection.execute("NOTIFY pgtasks, 'default'")
        await eventually_async(_is_set(held))
        await eventually_async(_becomes(worker, "held up"))
        release.set()
        await eventually_async(_becomes(worker))
    finally:
        release.set()
        stop.set()
        running.join(20)
    assert not running.is_alive()


async def test_who_asks_on_its_own_loop_is_answered_for_the_moment(
    config: Config, registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    """What held it up has ended, or nobody could ask."""

    @task(name="work", registry=registry)
    async def work() -> None: ...

    async with working(config, registry) as worker:
        loop = next(one for one in worker._pulses.read() if one.part == "loop")
        late = attrs.evolve(loop, late_seconds=999.0)
        monkeypatch.setattr("pgtasks.pulse.Pulses.read", lambda _: [late])
        assert worker.health().is_ready
        elsewhere = await asyncio.to_thread(worker.health)
        assert kinds(elsewhere) == ["held up"]


async def test_a_database_that_refuses_ends_readiness_until_it_does_not(
    config: Config, registry: Registry, rows: Rows, client: Client
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    soon = attrs.evolve(config.worker.queue_fetch, empty_delay=seconds(0.1), error_delay=seconds(1))
    quick = attrs.evolve(config, worker=attrs.evolve(config.worker, queue_fetch=soon))
    async with working(quick, registry) as worker:
        await rows.fetch("ALTER TABLE pgmq.q_default RENAME TO q_hidden")
        await eventually_async(_becomes(worker, "database"))
        assert worker.health().is_live
        await rows.fetch("ALTER TABLE pgmq.q_hidden RENAME TO q_default")
        await eventually_async(_becomes(worker))


async def promised(worker: Worker, part: str) -> float:
    """The moment at which a part is heard of again, at the latest."""
    found = [one for one in worker._pulses.read() if one.part == part]
    assert len(found) == 1, found
    return time.monotonic() - found[0].late_seconds


async def test_parts_that_wait_say_for_how_long(config: Config, registry: Registry, rows: Rows):
    """A queue that is looked at every half minute, outcomes that nobody waits for."""

    @task(name="work", registry=registry)
    async def work() -> None: ...

    async with working(config, registry) as worker:

        async def they_do() -> None:
            now = time.monotonic()
            assert 20 < await promised(worker, "claiming") - now < 31
            assert await promised(worker, "settling") == float("inf")
            assert 0 < await promised(worker, "firing") - now < 6
            assert -1 < await promised(worker, "extending") - now < 1
            assert -1 < await promised(worker, "loop") - now < 1.1

        await eventually_async(they_do)


async def test_slots_that_are_all_taken_are_no_fault(
    config: Config, registry: Registry, rows: Rows, client: Client
):
    """Nothing is claimed meanwhile, and the scheduler says that it goes on."""
    started = anyio.Event()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.set()
        await anyio.sleep_forever()

    one = attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=1, grace=seconds(0)))
    async with working(one, registry) as worker:
        await work.defer()
        await started.wait()
        for _ in range(2):
            before = await promised(worker, "claiming")

            async def later(before: float = before) -> None:
                assert await promised(worker, "claiming") > before

            await eventually_async(later, within_seconds=4)
            assert await promised(worker, "claiming") - time.monotonic() < 1.1
        assert worker.health().is_ready


def _becomes(worker: Worker, *expected: str) -> Callable[[], Any]:
    async def right() -> None:
        assert kinds(worker.health()) == [*expected], worker.health()

    return right


def _is_set(event: threading.Event) -> Callable[[], Any]:
    async def is_set() -> None:
        assert event.is_set()

    return is_set


# Faults of ours


def broken(*_: object, **__: object) -> None:
    raise ZeroDivisionError("broken by the test")


def faults(error: BaseException) -> list[WorkerFault]:
    """Those in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        return [fault for inner in error.exceptions for fault in faults(inner)]
    return [error] if isinstance(error, WorkerFault) else []


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_that_fails_ends_the_worker_and_says_so(
    part: str, config: Config, rows: Rows, heard: Heard, monkeypatch: pytest.MonkeyPatch
):
    """Never is it left alive and idle."""
    registry = Registry()

    @task(name="work", registry=registry)
    async def work() -> None: ...

    monkeypatch.setattr("pgtasks.pruner._part_of", lambda _: 0.01)
    monkeypatch.setattr(*PARTS[part], broken)
    await rows.call("work")
    # What waits for its outcome to be written must not wait for a settler that is no more.
    durable = attrs.evolve(config, worker=attrs.evolve(config.worker, durable=True))
    with pytest.raises(BaseExceptionGroup) as caught:
        async with working(durable, registry):
            await anyio.sleep_forever()
    [fault] = faults(caught.value)
    assert f"because its {part} failed: " in str(fault)
    assert "ZeroDivisionError: broken by the test" in str(fault)
    assert "report it" in str(fault)
    assert heard.fields("a part of the worker failed, ending it") == {"part": part}


@pytest.mark.parametrize("part", ["scheduler", "keeper"])
async def test_what_runs_when_a_part_fails_is_given_back(
    part: str, config: Config, registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    started, cancelled = anyio.Event(), anyio.Event()

    @task(name="work", registry=registry)
    async def work() -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    message_id = await rows.call("work")
    worker = Worker(config=config, registry=registry)

    async def break_it() -> None:
        await started.wait()
        monkeypatch.setattr(*PARTS[part], broken)
        await rows.connection.execute("NOTIFY pgtasks, 'default'")

    async with anyio.create_task_group() as group:
        group.start_soon(break_it)
        with pytest.raises(WorkerFault, match=f"its {part} failed"), anyio.fail_after(20):
            await worker.run()
    assert cancelled.is_set()
    assert await rows.state(message_id) == {"releases": 1}
    assert (await rows.one(message_id))["due_in"] <= 0
