"""How one run ends, and what becomes of its message: every way out settles it."""

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import anyio
import anyio.to_thread
import attrs
import pytest
from eventually import eventually_async
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import (
    Config,
    Context,
    Discard,
    Registry,
    Retry,
    RetryLater,
    Snooze,
    current_message,
    task,
)


async def later(events: list[Any], number: int) -> None:
    """Wait until so much has happened."""
    async with asyncio.timeout(15):
        while len(events) < number:
            await asyncio.sleep(0.01)


# It returns


@pytest.mark.parametrize("is_async", [True, False])
async def test_success_deletes(config: Config, registry: Registry, rows: Rows, is_async: bool):
    ran = list[Any]()

    async def on_loop(a: int, *, b: str = "x") -> None:
        ran.append((a, b, threading.current_thread() is threading.main_thread()))

    def in_thread(a: int, *, b: str = "x") -> None:
        ran.append((a, b, threading.current_thread() is threading.main_thread()))

    work = task(name="work", registry=registry)(on_loop if is_async else in_thread)
    async with working(config, registry):
        await work.defer(1, b="y")
        await rows.empty()
    assert ran == [(1, "y", is_async)]
    assert await rows.archived() == {}


async def test_success_archives_with_what_is_worth_knowing(
    config: Config, registry: Registry, rows: Rows
):
    @task(name="work", registry=registry, on_success="archive")
    async def work() -> None:
        await asyncio.sleep(0.05)

    async with working(config, registry) as worker:
        handle = await work.defer()
        state = await rows.outcome(handle.message_id)
    assert (state["outcome"], state["attempts"], state["worker"]) == ("done", 1, worker.name)
    assert 0.05 <= state["seconds"] < 10
    assert "errors" not in state


async def test_a_sync_function_may_return_something_to_await(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[bool]()

    @task(name="work", registry=registry)
    def work() -> Any:
        async def rest() -> None:
            ran.append(threading.current_thread() is threading.main_thread())

        return rest()

    async with working(config, registry):
        await work.defer()
        await rows.empty()
    assert ran == [True]


# It fails


async def test_a_failure_is_tried_again_and_then_archived_with_its_errors(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[int]()

    @task(name="work", registry=registry, retries=2)
    async def work(context: Context) -> None:
        ran.append(context.attempt)
        raise ValueError(f"attempt {context.attempt}")

    async with working(config, registry) as worker:
        handle = await work.defer()
        state = await rows.outcome(handle.message_id)
    assert ran == [1, 2, 3]
    assert (state["outcome"], state["attempts"], state["failures"]) == ("failed", 3, 3)
    errors = state["errors"]
    assert [error["attempt"] for error in errors] == [1, 2, 3]
    assert [error["error"] for error in errors] == [f"ValueError: attempt {n}" for n in (1, 2, 3)]
    assert {error["worker"] for error in errors} == {worker.name}
    for error in errors:
        assert "test_runner.py" in error["traceback"]
        assert len(error["traceback"]) <= 8000
        assert datetime.fromisoformat(error["at"]).tzinfo is not None


async def test_a_later_success_keeps_the_errors_before_it(
    config: Config, registry: Registry, rows: Rows
):
    @task(name="work", registry=registry, on_success="archive")
    def work() -> None:
        if current_message().attempt == 1:
            raise OSError("first")

    async with working(config, registry):
        state = await rows.outcome((await work.defer()).message_id)
    assert (state["outcome"], state["attempts"], state["failures"]) == ("done", 2, 1)
    assert [error["error"] for error in state["errors"]] == ["OSError: first"]


async def test_on_failure_delete(config: Config, registry: Registry, rows: Rows):
    ran = list[int]()

    @task(name="work", registry=registry, retries=1, on_failure="delete")
    async def work() -> None:
        ran.append(1)
        raise ValueError

    async with working(config, registry):
        await work.defer()
        await rows.empty()
    assert (len(ran), await rows.archived()) == (2, {})


async def test_back_off_waits_by_the_servers_clock(config: Config, registry: Registry, rows: Rows):
    policy = Retry(max_retries=3, delay="200ms", jitter=0, backoff="exponential")
    at = list[float]()

    @task(name="work", registry=registry, retries=policy)
    async def work() -> None:
        at.append(asyncio.get_running_loop().time())
        if len(at) < 4:
            raise ValueError

    async with working(config, registry):
        await work.defer()
        await rows.empty()
    pauses = [later - earlier for earlier, later in pairwise(at)]
    for pause, least in zip(pauses, (0.2, 0.4, 0.8), strict=True):
        assert least <= pause < least + 3  # and not the 30 s of the poll


async def test_errors_that_cannot_be_stored_as_they_are(
    config: Config, registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    # The report of a test cannot carry them either.
    monkeypatch.setattr(logging.getLogger("pgtasks.runner"), "disabled", True)

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    errors = {
        "nul": ValueError("a\0b\ud800c"),
        "long": ValueError("x" * 3_000_000),
        "broken": BrokenError(),
    }

    @task(name="work", registry=registry, retries=0)
    async def work(which: str) -> None:
        raise errors[which]

    async with working(config, registry):
        found = {}
        for which in errors:
            handle = await work.defer(which)
            state = await rows.outcome(handle.message_id)
            found[which] = state["errors"][0]["error"]
    assert found["nul"] == "ValueError: ab\ufffdc"
    assert len(found["long"]) <= 2000
    assert found["broken"].startswith("BrokenError: ")


async def test_anything_raised_is_a_failure_and_the_worker_lives_on(
    config: Config, registry: Registry, rows: Rows
):
    async def cancel_oneself() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    def raising(error: BaseException | type[BaseException]) -> Any:
        async def fail() -> None:
            raise error

        return fail

    def raising_in_thread(error: BaseException | type[BaseException]) -> Any:
        def fail() -> None:
            raise error

        return fail

    kinds = (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration(5),
             GeneratorExit(), StopAsyncIteration(), RecursionError(), MemoryError(),
             BaseExceptionGroup("many", [KeyboardInterrupt()]), BaseException())  # fmt: skip
    ways = {}
    for place, error in enumerate(kinds):
        ways[f"async {place} {type(error).__name__}"] = raising(error)
        ways[f"sync {place} {type(error).__name__}"] = raising_in_thread(error)
    ways["exit"] = lambda: sys.exit(1)
    for name, function in ways.items():
        task(name=name, registry=registry, retries=0)(function)
    made = {name: await rows.call(name) for name in ways}
    async with working(config, registry):
        for name, message_id in made.items():
            state = await rows.outcome(message_id)
            assert (state["outcome"], state["attempts"]) == ("failed", 1), name
    assert await rows.all() == []


async def test_a_task_that_cancels_itself_costs_only_itself(
    config: Config, registry: Registry, rows: Rows
):
    """The slot it ran in, and its neighbours, go on."""
    config = attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=1))
    ran = list[str]()

    @task(name="cancels", registry=registry, retries=0)
    async def cancels(swallow: bool) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            if not swallow:
                raise

    @task(name="leaks", registry=registry, retries=0)
    async def leaks() -> None:
        raise asyncio.CancelledError

    @task(name="fine", registry=registry)
    async def fine(name: str) -> None:
        await asyncio.sleep(0.01)
        ran.append(name)

    async with working(config, registry):
        for swallow in (True, False):
            await cancels.defer(swallow)
            await fine.defer("after")
            await rows.empty(within_seconds=5)
            await leaks.defer()
            await fine.defer("later")
            await rows.empty(within_seconds=5)
    assert ran == ["after", "later"] * 2
    assert [state["outcome"] for state in (await rows.archived()).values()] == ["failed"] * 3


@pytest.mark.parametrize("how", ["waits", "never waits", "is cancelled late", "is shielded"])
async def test_a_scope_that_a_run_left_open_costs_no_slot_and_no_message(
    config: Config, registry: Registry, rows: Rows, how: str
):
    config = attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=1))
    left, ran = list[anyio.CancelScope](), list[int]()

    @task(name="leave", registry=registry)
    async def leave() -> None:
        if how == "waits":
            await asyncio.sleep(0.001)
        scope = anyio.CancelScope(shield=how == "is shielded")
        if how != "is cancelled late":
            scope.deadline = anyio.current_time() + 0.1
        scope.__enter__()
        left.append(scope)

    @task(name="work", registry=registry)
    async def work(number: int) -> None:
        await asyncio.sleep(0.3)
        ran.append(number)

    async with working(config, registry):
        await leave.defer()
        await later(left, 1)
        await rows.empty()
        if how == "is cancelled late":
            left[0].cancel()
        for number in range(3):
            await work.defer(number)
        await rows.empty()
    assert sorted(ran) == [0, 1, 2]
    assert await rows.archived() == {}


async def test_a_run_that_a_scope_of_its_own_ends_after_it_was_left_open_has_failed(
    config: Config, registry: Registry, rows: Rows
):
    config = attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=1))
    ran = list[str]()

    @task(name="leave", registry=registry, retries=0)
    async def leave() -> None:
        anyio.CancelScope(deadline=anyio.current_time()).__enter__()
        await anyio.sleep_forever()

    @task(name="work", registry=registry)
    async def work() -> None:
        await asyncio.sleep(0.01)
        ran.append("work")

    async with working(config, registry):
        for _ in range(2):
            await leave.defer()
            await work.defer()
        await rows.empty()
    assert ran == ["work"] * 2
    assert [state["outcome"] for state in (await rows.archived()).values()] == ["failed"] * 2


async def test_runs_in_the_same_slot_know_nothing_of_each_other(
    config: Config, registry: Registry, rows: Rows
):
    """One after another, in the only slot: whatever one does to its own end, the next is whole."""
    config = attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=1))
    marked, ran = ContextVar("marked", default=0), list[Any]()

    @task(name="late", registry=registry, retries=0, timeout="50ms")
    async def late() -> None:
        await anyio.sleep_forever()

    @task(name="cancels", registry=registry)
    async def cancels() -> None:
        """Cancel itself, and go on."""
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)

    @task(name="too late", registry=registry)
    async def too_late() -> None:
        """Return in the very moment in which it is cancelled."""
        cancel = current_message().lease.cancel
        assert cancel is not None
        cancel("timeout")

    @task(name="quick", registry=registry)
    async def quick() -> None:
        marked.set(marked.get() + 1)

    @task(name="waits", registry=registry)
    async def waits() -> None:
        before = current_message()
        marked.set(marked.get() + 1)
        await asyncio.sleep(0.001)
        ran.append((marked.get(), current_message() is before, before.cancelled))

    # As many as are not claimed ahead: so that they run in the order they were sent in.
    sent = [quick, waits, too_late, waits, late, waits, cancels, waits, late, quick, waits]
    for each in sent:
        await rows.call(each.name)
    async with working(config, registry):
        await rows.empty()
    assert ran == [(1, True, False)] * 5
    states = (await rows.archived()).values()
    assert [state["errors"][0]["error"] for state in states] == [
        "TaskTimeout: still running after 0.05 s"
    ] * 2


async def test_time_is_up_for_a_run_that_blocked_the_loop_before_it_waited(
    config: Config, registry: Registry, rows: Rows
):
    """Its time is counted from its start, not from when it first waits."""
    waited = list[float]()

    @task(name="work", registry=registry, retries=0, timeout="100ms")
    async def work() -> None:
        time.sleep(0.2)  # noqa: ASYNC251 - that is what some code does
        began = time.monotonic()
        try:
            await asyncio.sleep(20)
        finally:
            waited.append(time.monotonic() - began)

    async with working(config, registry):
        state = await rows.outcome((await work.defer()).message_id)
    assert state["errors"][0]["error"].startswith("TaskTimeout")
    assert waited[0] < 5


# It says what to do


@pytest.mark.parametrize("how", ["raised", "returned", "raised in a thread"])
async def test_a_task_steers_its_message(config: Config, registry: Registry, rows: Rows, how: str):
    said = [Snooze(0), RetryLater("1ms", "busy"), Snooze("1ms"), Discard("closed")]
    attempts = list[int]()

    def say() -> Any:
        attempts.append(current_message().attempt)
        signal = said[len(attempts) - 1]
        if how == "returned":
            return signal
        raise signal

    async def work() -> Any:
        return say()

    made = task(name="work", registry=registry)(say if "thread" in how else work)
    async with working(config, registry):
        handle = await made.defer()
        state = await rows.outcome(handle.message_id)
    assert attempts == [1, 1, 2, 2]
    assert (state["outcome"], state["failures"], state["snoozes"]) == ("discarded", 2, 2)
    assert [error["error"] for error in state["errors"]] == ["RetryLater: busy", "Discard: closed"]


async def test_the_delay_that_was_asked_for_is_kept(config: Config, registry: Registry, rows: Rows):
    @task(name="work", registry=registry)
    async def work(later: str) -> None:
        raise RetryLater(seconds(500)) if later == "retry" else Snooze(seconds(500))

    async with working(config, registry):
        for later in ("retry", "snooze"):
            handle = await work.defer(later)

            async def is_put_back(message_id: int = handle.message_id) -> None:
                row = await rows.one(message_id)
                assert row["headers"] is not None
                assert 480 < row["due_in"] <= 500

            await eventually_async(is_put_back)


# It takes too long


async def test_an_async_run_that_takes_too_long_is_cancelled(
    config: Config, registry: Registry, rows: Rows
):
    cleaned = list[bool]()

    @task(name="work", registry=registry, timeout="100ms", retries=0)
    async def work(context: Context) -> None:
        deadline = context.deadline
        assert deadline is not None
        assert 0 < (deadline - datetime.now(UTC)).total_seconds() <= 0.1
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append(context.lost)

    async with working(config, registry):
        state = await rows.outcome((await work.defer()).message_id)
    assert state["errors"][0]["error"] == "TaskTimeout: still running after 0.1 s"
    assert cleaned == [False]


async def test_a_timeout_is_a_failure_like_any_other(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[int]()

    @task(name="work", registry=registry, timeout="50ms", retries=1, on_success="archive")
    async def work() -> None:
        ran.append(1)
        if len(ran) == 1:
            await anyio.sleep_forever()

    async with working(config, registry):
        state = await rows.outcome((await work.defer()).message_id)
    assert (state["outcome"], state["failures"]) == ("done", 1)


async def test_what_a_run_raises_when_its_time_is_up_is_its_error(
    config: Config, registry: Registry, rows: Rows
):
    @task(name="work", registry=registry, timeout="50ms", retries=0)
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    async with working(config, registry):
        state = await rows.outcome((await work.defer()).message_id)
    assert state["errors"][0]["error"] == "ValueError: while cleaning up"


async def test_without_a_timeout_a_run_may_take_as_long_as_it_likes(
    config: Config, registry: Registry, rows: Rows
):
    config = attrs.evolve(config, task=attrs.evolve(config.task, timeout=seconds(0.05)))
    deadlines = list[Any]()

    @task(name="work", registry=registry, timeout=None, retries=0)
    async def work(context: Context) -> None:
        deadlines.append(context.deadline)
        await asyncio.sleep(0.2)

    async with working(config, registry):
        await work.defer()
        await rows.empty()
    assert (deadlines, await rows.archived()) == ([None], {})


async def test_a_thread_that_takes_too_long_keeps_its_lease_and_frees_its_slot(
    config: Config, registry: Registry, rows: Rows
):
    config = attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=1))
    go_on, starts = threading.Event(), list[int]()

    @task(name="stuck", registry=registry, timeout="100ms", lease=1, retries=1)
    def stuck(context: Context) -> None:
        starts.append(context.attempt)
        if len(starts) == 1:
            go_on.wait(20)

    @task(name="fine", registry=registry, on_success="archive")
    def fine() -> None: ...

    try:
        async with working(config, registry):
            made = (await stuck.defer()).message_id
            await later(starts, 1)
            await rows.outcome((await fine.defer()).message_id)  # in the only slot
            ends = set[Any]()
            while len(ends) < 6:  # six thirds of the lease
                row = await rows.one(made)
                assert (row["read_ct"], row["due_in"] > 0) == (1, True)
                ends.add(row["vt"])
            assert starts == [1]
            go_on.set()
            await rows.empty()
    finally:
        go_on.set()
    assert starts == [1, 2]  # it failed by its timeout, and was tried again


async def test_a_thread_that_never_started_leaves_nothing_behind(
    config: Config, registry: Registry, rows: Rows
):
    """Its time was up before the thread could begin, or as it began."""

    @task(name="work", registry=registry, timeout="1us", retries=0)
    def work() -> None: ...

    async with working(config, registry):
        state = await rows.outcome((await work.defer()).message_id)
    assert state["errors"][0]["error"].startswith("TaskTimeout")


# It is not for us


async def test_a_message_of_a_newer_pgtasks_is_put_back_as_it_is(
    config: Config, registry: Registry, rows: Rows
):
    """Whatever its envelope looks like; what else is kept of it stays."""
    [made] = await rows.fetch(
        "INSERT INTO pgmq.q_default (vt, message, headers) VALUES (now(), $1, $2) RETURNING msg_id",
        '["a form of its own"]',
        '{"mine":1,"pgtasks":{"version":2,"lane":{"of":[1,2]}}}',
    )

    @task(name="known", registry=registry)
    def known() -> None: ...

    async with working(config, registry):
        async with asyncio.timeout(15):
            while (await rows.state(made[0])).get("unknown") != 2:
                await asyncio.sleep(0.02)
    row = await rows.one(made[0])
    assert json.loads(row["headers"]) == {
        "mine": 1, "pgtasks": {"version": 2, "lane": {"of": [1, 2]}, "unknown": 2},
    }  # fmt: skip
    assert json.loads(row["message"]) == ["a form of its own"]


async def test_an_unknown_task_is_put_back_at_no_cost(
    config: Config, registry: Registry, rows: Rows
):
    """A newer worker may know it: it runs there as if nothing had been."""
    attempts = list[tuple[int, int]]()
    made = await rows.call("from.the.future", [5])

    @task(name="known", registry=registry)
    def known() -> None: ...

    async with working(config, registry):
        async with asyncio.timeout(15):
            while (await rows.state(made)).get("unknown") != 2:
                await asyncio.sleep(0.02)
    row = await rows.one(made)
    assert await rows.state(made) == {"unknown": 2}
    assert row["due_in"] < 2

    @task(name="from.the.future", registry=registry)
    async def future(x: int, context: Context) -> None:
        attempts.append((x, context.attempt))

    async with working(config, registry):
        await rows.empty()
    assert attempts == [(5, 1)]


async def test_an_alias_is_a_name(config: Config, registry: Registry, rows: Rows):
    ran = list[str]()

    @task(name="new", aliases=["old"], registry=registry)
    async def work() -> None:
        ran.append(current_message().task)

    await rows.call("old")
    async with working(config, registry):
        await rows.empty()
    assert ran == ["new"]


async def test_what_one_message_says_overrides_its_task(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[str]()

    @task(name="work", registry=registry, retries=9, timeout=30, on_failure="archive")
    async def work(kind: str) -> None:
        ran.append(kind)
        if kind == "slow":
            await anyio.sleep_forever()
        if kind == "bad":
            raise ValueError

    async with working(config, registry):
        bad = await work.options(retries=1).defer("bad")
        assert (await rows.outcome(bad.message_id))["attempts"] == 2
        slow = await work.options(timeout="50ms", retries=0).defer("slow")
        state = await rows.outcome(slow.message_id)
        assert state["errors"][0]["error"].startswith("TaskTimeout")
        good = await work.options(on_success="archive").defer("good")
        assert (await rows.outcome(good.message_id))["outcome"] == "done"
        gone = await work.options(on_failure="delete", retries=0).defer("bad")
        await rows.empty()
    assert set(await rows.archived()) == {bad.message_id, slow.message_id, good.message_id}
    assert gone.message_id not in await rows.archived()
    assert ran == ["bad", "bad", "slow", "good", "bad"]


# What runs share


async def test_resources_are_there_before_the_first_and_after_the_last_run(
    config: Config, registry: Registry, rows: Rows
):
    events = list[str]()

    @registry.lifespan
    @asynccontextmanager
    async def resources() -> AsyncIterator[dict[str, int]]:
        events.append("open")
        await asyncio.sleep(0.01)
        yield {"answer": 42}
        events.append("close")

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        events.append(f"run {context.resources['answer']}")

    @task(name="sync", registry=registry)
    def sync() -> None:
        events.append(f"run {current_message().resources['answer']}")

    await rows.call("work")
    await rows.call("sync")
    async with working(config, registry):
        await rows.empty()
    assert events == ["open", "run 42", "run 42", "close"]


async def test_a_lifespan_that_fails_stops_the_worker_before_anything_runs(
    config: Config, registry: Registry, rows: Rows
):
    @registry.lifespan
    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        raise ConnectionError("no mail server")
        yield

    @task(name="work", registry=registry)
    async def work() -> None: ...

    made = await rows.call("work")
    with pytest.raises(ConnectionError, match="no mail server"):
        async with working(config, registry):
            pass
    assert (await rows.one(made))["read_ct"] == 0


# Tasks that come late, and tasks that defer


async def test_a_task_that_is_registered_late_is_run(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[int]()

    @task(name="early", registry=registry)
    async def early() -> None: ...

    async with working(config, registry):

        @task(name="late", registry=registry)
        async def late() -> None:
            ran.append(1)

        await late.defer()
        await rows.empty(within_seconds=5)
    assert ran == [1]


async def test_a_running_sync_task_can_defer(config: Config, registry: Registry, rows: Rows):
    ran = list[str]()

    @task(name="second", registry=registry)
    async def second() -> None:
        ran.append("second")

    @task(name="first", registry=registry)
    def first() -> None:
        second.defer_sync()
        ran.append("first")

    async with working(config, registry):
        await first.defer()
        await later(ran, 2)
        await rows.empty()
    assert sorted(ran) == ["first", "second"]


async def test_what_is_logged_of_a_run_names_it(
    config: Config, registry: Registry, rows: Rows, heard: Any
):
    @task(name="work", registry=registry, retries=0)
    async def work(context: Context) -> None:
        context.log.info("hello %s", "you")
        raise ValueError("no")

    async with working(config, registry):
        handle = await work.defer()
        await rows.outcome(handle.message_id)
    fields = heard.fields("failed, given up")
    assert (fields["task"], fields["queue"], fields["id"]) == ("work", "default", str(handle.id))
    assert (fields["attempt"], fields["error"]) == (1, "ValueError: no")
    assert heard.fields("hello you")["id"] == str(handle.id)
    assert json.dumps(fields)
