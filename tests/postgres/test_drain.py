"""Tests run what they have deferred, here and now, and hear of what went wrong."""

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from postgres.conftest import Heard
from postgres.rows import Rows

from pgtasks import (
    Client,
    Config,
    Context,
    DecodeError,
    Discard,
    PgtasksError,
    QueueNameError,
    Registry,
    Retry,
    RetryLater,
    SchemaError,
    Snooze,
    UnknownTaskError,
    connect,
    task,
)
from pgtasks.config import DatabaseConfig
from pgtasks.testing import drain


@pytest.fixture
def ran() -> list[object]:
    """What the tasks of a test have to say."""
    return []


# What it runs


async def test_it_runs_what_is_due(client: Client, registry: Registry, ran: list[object]):
    @task(name="work", registry=registry)
    async def work(number: int) -> None:
        ran.append(number)

    for number in range(5):
        await work.defer(number)
    drained = await drain(registry=registry)
    assert ran == [0, 1, 2, 3, 4]
    assert drained.counts == {"done": 5}
    assert [run.task for run in drained.runs] == ["work"] * 5


async def test_nothing_to_run_is_no_reason_to_wait(client: Client, registry: Registry):
    began = time.monotonic()
    assert (await drain(registry=registry)).runs == ()
    assert time.monotonic() - began < 2


async def test_it_runs_what_tasks_defer_in_turn(
    client: Client, registry: Registry, ran: list[object]
):
    """Into queues that were not there before, too."""

    @task(name="down", queue="first", registry=registry)
    async def down(number: int) -> None:
        ran.append(number)
        if number:
            await down.options(queue=f"queue_{number}").defer(number - 1)

    await down.defer(3)
    await drain(registry=registry)
    assert ran == [3, 2, 1, 0]


async def test_what_a_transaction_of_a_task_defers_is_run(
    client: Client, registry: Registry, ran: list[object]
):
    @task(name="first", queue="a", registry=registry)
    async def first(context: Context) -> None:
        async with context.transaction() as connection:
            await second.options(connection=connection).defer()

    @task(name="second", queue="b", registry=registry)
    async def second() -> None:
        ran.append("second")

    await first.defer()
    drained = await drain(registry=registry)
    assert ran == ["second"]
    assert drained.counts == {"done": 2}


async def test_sync_tasks_and_the_lifespan_are_real(
    client: Client, registry: Registry, ran: list[object]
):
    @registry.lifespan
    @asynccontextmanager
    async def resources() -> AsyncIterator[str]:
        ran.append("begin")
        yield "a resource"
        ran.append("end")

    @task(name="work", registry=registry)
    def work(context: Context) -> None:
        ran.append(context.resources)

    await work.defer()
    await drain(registry=registry)
    assert ran == ["begin", "a resource", "end"]


async def test_only_the_queues_that_are_named(
    client: Client, registry: Registry, ran: list[object], rows: Rows
):
    @task(name="work", registry=registry)
    async def work(number: int) -> None:
        ran.append(number)

    await work.options(queue="emails").defer(1)
    await work.options(queue="reports").defer(2)
    await drain(queues=["reports"], registry=registry)
    assert ran == [2]
    assert len(await rows.all("emails")) == 1
    with pytest.raises(QueueNameError):
        await drain(queues=["periodic"], registry=registry)


async def test_one_at_a_time_unless_told_otherwise(client: Client, registry: Registry):
    running, most = 0, 0

    @task(name="work", registry=registry)
    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.02)
        running -= 1

    await work.defer_many([()] * 6)
    await drain(registry=registry)
    assert most == 1
    await work.defer_many([()] * 6)
    await drain(registry=registry, concurrency=3)
    assert most == 3


async def test_it_works_on_the_database_of_the_open_client(
    database: DatabaseConfig, registry: Registry, ran: list[object], monkeypatch: pytest.MonkeyPatch
):
    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(1)

    monkeypatch.setenv("PGTASKS_DATABASE_URL", "postgresql://127.0.0.1:1/elsewhere")
    async with connect(database.url):
        await work.defer()
        await drain(registry=registry)
    assert ran == [1]


async def test_without_a_client_it_works_on_the_configured_one(
    database: DatabaseConfig, registry: Registry, ran: list[object], monkeypatch: pytest.MonkeyPatch
):
    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(1)

    async with connect(database.url):
        await work.defer()
    monkeypatch.setenv("PGTASKS_DATABASE_URL", str(database.url))
    await drain(registry=registry)
    async with connect(database.url):
        await work.defer()
    monkeypatch.setenv("PGTASKS_DATABASE_URL", "postgresql://127.0.0.1:1/elsewhere")
    await drain(registry=registry, config=Config(database=database))
    assert ran == [1, 1]


async def test_a_database_without_the_schema_is_refused(
    empty_database_url: str, registry: Registry
):
    with pytest.raises(SchemaError):
        await drain(
            registry=registry, config=Config(database=DatabaseConfig(url=empty_database_url))
        )


# Later


async def test_what_is_due_later_waits_unless_it_is_asked_for(
    client: Client, registry: Registry, ran: list[object], rows: Rows
):
    @task(name="work", registry=registry)
    async def work(number: int) -> None:
        ran.append(number)

    await work.options(delay="1h").defer(1)
    await work.defer(2)
    await drain(registry=registry)
    assert ran == [2]
    await drain(registry=registry, delayed=True)
    assert ran == [2, 1]
    assert await rows.all() == []


async def test_delayed_retries_are_worked_off_when_asked_for(
    client: Client, registry: Registry, ran: list[object]
):
    @task(name="third", retries=Retry(delay="1h"), registry=registry)
    async def third(context: Context) -> None:
        ran.append(context.attempt)
        if context.attempt < 3:
            raise ConnectionError

    await third.defer()
    with pytest.raises(ConnectionError):
        await drain(registry=registry)
    assert ran == [1]
    drained = await drain(registry=registry, delayed=True)
    assert ran == [1, 2, 3]
    assert drained.counts == {"done": 1}
    assert drained.errors == []


async def test_what_another_worker_runs_is_neither_taken_nor_waited_for(
    client: Client, registry: Registry, ran: list[object], rows: Rows
):
    @task(name="work", registry=registry)
    async def work() -> None:
        ran.append(1)

    handle = await work.defer()
    await rows.steal(handle.message_id)
    await rows.set(handle.message_id, "last_read_at = clock_timestamp() - interval '1 s'")
    drained = await drain(registry=registry, delayed=True, within=5)
    assert drained.runs == ()
    assert ran == []
    assert (await rows.one(handle.message_id))["read_ct"] == 1


# What went wrong


async def test_the_error_of_a_task_is_raised_as_it_is(client: Client, registry: Registry):
    @task(name="fail", registry=registry)
    async def fail() -> None:
        raise ZeroDivisionError("at first")

    handle = await fail.defer()
    with pytest.raises(ZeroDivisionError, match="at first") as caught:
        await drain(registry=registry)
    assert caught.value.__notes__ == [f"task fail, queue default, message {handle.message_id}"]
    assert caught.traceback[-1].name == "fail"


async def test_several_errors_are_raised_together(client: Client, registry: Registry):
    @task(name="fail", registry=registry)
    async def fail(number: int) -> None:
        if number:
            raise ValueError(number)

    await fail.defer_many([(0,), (1,), (2,)])
    with pytest.raises(ExceptionGroup, match="2 messages") as caught:
        await drain(registry=registry)
    assert sorted(str(error) for error in caught.value.exceptions) == ["1", "2"]


async def test_errors_can_be_looked_at_instead(client: Client, registry: Registry):
    @task(name="fail", retries=0, registry=registry)
    async def fail() -> None:
        raise ValueError("no")

    await fail.defer()
    drained = await drain(registry=registry, raise_errors=False)
    assert drained.counts == {"given up": 1}
    assert [str(error) for error in drained.errors] == ["no"]


@pytest.mark.parametrize(
    ("signal", "kind"),
    [(Snooze("1h"), "snoozed"), (RetryLater("1h"), "retried"), (Discard("no use"), "given up")],
)
async def test_what_tasks_raise_to_steer_is_no_error(
    client: Client, registry: Registry, signal: Exception, kind: str
):
    @task(name="steer", registry=registry)
    async def steer() -> None:
        raise signal

    await steer.defer()
    drained = await drain(registry=registry)
    assert drained.counts == {kind: 1}
    assert drained.runs[0].error is signal


async def test_having_asked_for_later_too_often_is_one(client: Client, registry: Registry):
    @task(name="later", retries=1, registry=registry)
    async def later() -> None:
        raise RetryLater(0, "still busy")

    await later.defer()
    with pytest.raises(RetryLater, match="still busy"):
        await drain(registry=registry)


async def test_a_timeout_of_a_task_is_one(client: Client, registry: Registry):
    @task(name="slow", timeout=0.05, retries=0, registry=registry)
    async def slow() -> None:
        await anyio.sleep_forever()

    await slow.defer()
    with pytest.raises(TimeoutError, match=r"still running after 0\.05 s"):
        await drain(registry=registry)


async def test_a_message_that_does_not_fit_is_one(client: Client, registry: Registry, rows: Rows):
    @task(name="work", registry=registry)
    async def work(number: int) -> None: ...

    await rows.call("work", {"number": "seven"})
    with pytest.raises(DecodeError, match="number"):
        await drain(registry=registry)


@pytest.mark.parametrize("delayed", [False, True])
async def test_a_task_that_is_not_registered_is_one(
    client: Client, registry: Registry, rows: Rows, delayed: bool
):
    """And is not tried for ever."""

    @task(name="work", registry=registry)
    async def work() -> None: ...

    await rows.call("worc")
    with pytest.raises(UnknownTaskError, match="did you mean 'work'"):
        await drain(registry=registry, delayed=delayed, within=5)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
async def test_a_task_does_not_end_the_test_run(
    client: Client, registry: Registry, error: type[BaseException]
):
    @task(name="leave", registry=registry)
    def leave() -> None:
        raise error

    await leave.defer()
    with pytest.raises(PgtasksError, match=error.__name__) as caught:
        await drain(registry=registry)
    assert isinstance(caught.value.__cause__, error)


async def test_what_never_ends_is_given_back_and_named(
    client: Client, registry: Registry, rows: Rows
):
    @task(name="wait", registry=registry)
    async def wait() -> None:
        await anyio.sleep_forever()

    handle = await wait.defer()
    with pytest.raises(TimeoutError, match=r"not done after 0\.2s.*1 of wait in default"):
        await drain(registry=registry, within="200ms")
    row = await rows.one(handle.message_id)
    assert row["due_in"] <= 0
    assert (await rows.state(handle.message_id)) == {"releases": 1}


async def test_a_chain_without_end_is_ended(client: Client, registry: Registry):
    @task(name="again", registry=registry)
    async def again() -> None:
        await again.options(delay="1d").defer()

    await again.defer()
    drained = await drain(registry=registry, within=5)
    assert drained.counts == {"done": 1}
    with pytest.raises(TimeoutError, match="defer itself again"):
        await drain(registry=registry, delayed=True, within=0.5)


# What it leaves alone


async def test_no_schedule_fires(client: Client, registry: Registry, ran: list[object], rows: Rows):
    @task(name="tick", every=1, registry=registry)
    async def tick() -> None:
        ran.append("tick")

    @task(name="work", registry=registry)
    async def work() -> None:
        await anyio.sleep(1.2)

    await work.defer()
    await drain(registry=registry)
    assert ran == []
    assert await rows.fetch("SELECT FROM pgtasks.schedule") == []


async def test_the_client_of_the_test_is_the_default_one_again(
    client: Client, registry: Registry, heard: Heard
):
    from pgtasks import current_client

    @task(name="work", registry=registry)
    async def work() -> None:
        assert current_client() is not client

    await work.defer()
    await drain(registry=registry)
    assert current_client() is client
    assert "worker stopped" in heard.events()


async def test_it_does_not_outlive_its_call(client: Client, registry: Registry, rows: Rows):
    """No connection of the worker is left, and no thread."""

    @task(name="work", registry=registry)
    async def work() -> None: ...

    await work.defer()
    await drain(registry=registry)
    names = await rows.fetch(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name IN ('pgtasks drain', 'pgtasks keeper', 'pgtasks settler', "
        "'pgtasks scheduler')"
    )
    assert [name[0] for name in names] == []
    assert "pgtasks-keeper" not in {thread.name for thread in threading.enumerate()}
