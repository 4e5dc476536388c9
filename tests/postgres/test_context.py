"""What a running task may ask and do: its own transaction, and who it is."""

import asyncio
import contextvars
import threading
import uuid
from typing import Any

import anyio
import anyio.to_thread
import asyncpg
import attrs
import pytest
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import (
    Config,
    Context,
    LeaseLost,
    Registry,
    RetryLater,
    current_message,
    task,
)
from pgtasks.store import Store

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
async def effects(rows: Rows) -> Any:
    """A table of the user's; the name of the effect of each run."""
    await rows.connection.execute("CREATE SCHEMA app; CREATE TABLE app.effect (name text)")

    async def read() -> list[str]:
        found = await rows.fetch("SELECT name FROM app.effect ORDER BY name")
        return [row[0] for row in found]

    return read


INSERT = "INSERT INTO app.effect VALUES ($1)"


# Who it is


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_run_knows_its_message(
    config: Config, registry: Registry, rows: Rows, is_async: bool
):
    seen = list[Context]()

    async def on_loop(context: Context, a: int) -> None:
        assert current_message() is context
        seen.append(context)

    def in_thread(a: int, *, context: Context) -> None:
        assert current_message() is context
        assert threading.current_thread() is not threading.main_thread()
        seen.append(context)

    work: Any = task(name="work", registry=registry)(on_loop if is_async else in_thread)
    async with working(config, registry):
        handle = await work.defer(5)
        await rows.empty()
    [context] = seen
    assert (context.id, context.queue, context.message_id) == (
        str(handle.id), "default", handle.message_id,
    )  # fmt: skip
    assert (context.task, context.attempt, context.resources) == ("work", 1, None)
    assert (context.cancelled, context.lost, context.settled) == (False, False, False)
    assert uuid.UUID(context.id) == handle.id
    found: Any = await rows.connection.fetchval("SELECT clock_timestamp()")
    assert 0 <= (found - context.enqueued_at).total_seconds() < 60
    with pytest.raises(RuntimeError, match="only known inside a task"):
        current_message()


async def test_runs_at_once_each_know_their_own(config: Config, registry: Registry, rows: Rows):
    seen = dict[int, int]()

    @task(name="work", registry=registry)
    async def work(number: int) -> None:
        before = current_message().message_id
        await asyncio.sleep(0.02)
        inner = await anyio.to_thread.run_sync(lambda: current_message().message_id)
        assert before == current_message().message_id == inner
        seen[number] = before

    async with working(config, registry):
        handles = await work.defer_many([(n,) for n in range(20)])
        await rows.empty()
    assert seen == {n: handle.message_id for n, handle in enumerate(handles)}


async def test_a_context_variable_of_one_run_is_not_seen_by_the_next(
    config: Config, registry: Registry, rows: Rows
):
    """They may run in the same long-lived coroutine."""
    config = attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=1))
    seen = list[str]()

    @task(name="work", registry=registry)
    async def work() -> None:
        seen.append(variable.get())
        variable.set("set by an earlier run")

    async with working(config, registry):
        await work.defer_many([()] * 3)
        await rows.empty()
    assert seen == ["unset"] * 3


# Its transaction


@pytest.mark.parametrize("on_success", ["delete", "archive"])
async def test_writes_and_completion_are_one_transaction(
    config: Config, registry: Registry, rows: Rows, effects: Any, on_success: Any
):
    @task(name="work", registry=registry, on_success=on_success)
    async def work(context: Context, name: str) -> None:
        async with context.transaction() as connection:
            await connection.execute(INSERT, name)
            await follow.options(connection=connection).defer(f"{name} again")
        assert context.settled
        assert await effects() == [name]
        # Nothing of it is left to be settled.
        assert context.message_id not in [row["msg_id"] for row in await rows.all()]

    @task(name="follow", registry=registry)
    async def follow(name: str) -> None:
        async with current_message().transaction() as connection:
            await connection.execute(INSERT, name)

    async with working(config, registry):
        handle = await work.defer("effect")
        await rows.empty()
    assert await effects() == ["effect", "effect again"]
    archived = await rows.archived()
    if on_success == "archive":
        assert archived[handle.message_id]["outcome"] == "done"
    else:
        assert archived == {}


async def test_what_ends_the_message_there_is_planned_anew(
    config: Config, registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    """A plan from when the queue was empty may be kept on a connection of the pool."""
    modes = list[str]()

    def watch(name: str) -> None:
        real = getattr(Store, name)

        async def watched(store: Store, *args: Any) -> Any:
            modes.append(await store.on.fetchval("SELECT current_setting('plan_cache_mode')"))
            return await real(store, *args)

        monkeypatch.setattr(Store, name, watched)

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        await context.extend(60)
        async with context.transaction() as connection:
            modes.append(await connection.fetchval("SELECT current_setting('plan_cache_mode')"))

    watch("extend")
    watch("complete")
    async with working(config, registry):
        await work.defer()
        await rows.empty()
    assert modes == ["force_custom_plan", "auto", "force_custom_plan"]


async def test_an_error_in_the_transaction_undoes_everything(
    config: Config, registry: Registry, rows: Rows, effects: Any
):
    """However often it is delivered, its effect is there once."""
    ran = list[int]()

    @task(name="work", registry=registry, retries=5)
    async def work(context: Context) -> None:
        ran.append(1)
        async with context.transaction() as connection:
            await connection.execute(INSERT, "effect")
            await work.options(queue="elsewhere", connection=connection).defer()
            match len(ran):
                case 1:
                    raise ValueError
                case 2:
                    raise RetryLater(0)
                case 3:
                    await connection.execute("SELECT 1 / 0")

    async with working(config, registry):
        await work.defer()
        await rows.empty()
    assert (len(ran), await effects()) == (4, ["effect"])
    assert len(await rows.all("elsewhere")) == 1


async def test_a_lease_that_was_taken_meanwhile_undoes_everything(
    config: Config, registry: Registry, rows: Rows, effects: Any
):
    raised = list[BaseException]()

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        try:
            async with context.transaction() as connection:
                await connection.execute(INSERT, "stale")
                await rows.steal(context.message_id)
        except LeaseLost as error:
            raised.append(error)
            raise

    async with working(config, registry):
        handle = await work.defer()
        async with asyncio.timeout(15):
            while not raised:
                await asyncio.sleep(0.01)
    assert await effects() == []
    row = await rows.one(handle.message_id)
    assert (row["read_ct"], row["headers"], row["due_in"] > 3000) == (2, None, True)


async def test_of_two_deliveries_one_has_its_effect(
    config: Config, registry: Registry, rows: Rows, effects: Any, database_url: str
):
    """The second worker's completion waits for the first one's and then finds the lease over."""
    ready, go_on = anyio.Event(), anyio.Event()

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        async with context.transaction() as connection:
            await connection.execute(INSERT, f"delivery {context.message.delivery}")
            ready.set()
            await go_on.wait()

    async with working(config, registry):
        handle = await work.defer()
        await ready.wait()
        other = await asyncpg.connect(database_url)
        async with other.transaction():
            await other.execute("UPDATE pgmq.q_default SET read_ct = 2")
            await other.execute(INSERT, "delivery 2")
            await other.execute("DELETE FROM pgmq.q_default WHERE read_ct = 2")
            go_on.set()
            await asyncio.sleep(0.1)
        await other.close()
        await rows.empty()
    assert await effects() == ["delivery 2"]
    assert handle.message_id not in await rows.archived()


async def test_an_end_that_comes_after_the_transaction_does_not_matter(
    config: Config, registry: Registry, rows: Rows, effects: Any, heard: Any
):
    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        async with context.transaction() as connection:
            await connection.execute(INSERT, "effect")
        raise ValueError("too late to matter")

    async with working(config, registry):
        await work.defer()
        await rows.empty()
    assert (await effects(), await rows.archived()) == (["effect"], {})
    assert "ended badly after its transaction had completed the message" in heard.events()


async def test_what_follows_the_transaction_is_not_cancelled(
    config: Config, registry: Registry, rows: Rows, heard: Any
):
    ends = list[str]()

    @task(name="work", registry=registry, lease="600ms")
    async def work(context: Context) -> None:
        async with context.transaction():
            pass
        try:
            await asyncio.sleep(2)
            ends.append("ended")
        except asyncio.CancelledError:
            ends.append(f"cancelled, lost={context.lost}")
            raise

    async with working(config, registry):
        await work.defer()
        async with asyncio.timeout(10):
            while not ends:
                await asyncio.sleep(0.01)
    assert ends == ["ended"]
    assert "lease lost, run cancelled" not in heard.events()


async def test_a_second_transaction_is_refused(config: Config, registry: Registry, rows: Rows):
    raised = list[str]()

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        async with context.transaction():
            pass
        try:
            async with context.transaction():
                pass
        except RuntimeError as error:
            raised.append(str(error))

    async with working(config, registry):
        await work.defer()
        await rows.empty()
    assert raised == ["this message was completed by an earlier transaction()"]


async def test_transactions_of_as_many_runs_as_there_are_connections_may_defer(
    config: Config, registry: Registry, rows: Rows
):
    """Their first defer to a queue must not wait for a connection that they hold themselves."""
    config = attrs.evolve(
        config,
        database=attrs.evolve(config.database, max_connections=2, acquire_timeout=seconds(2)),
    )
    inside, failed = list[int](), list[BaseException]()

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        try:
            async with context.transaction() as connection:
                inside.append(1)
                while len(inside) < 2:
                    await asyncio.sleep(0.01)
                await follow.options(connection=connection).defer()
        except BaseException as error:
            failed.append(error)
            raise

    @task(name="follow", registry=registry, queue="follow")
    async def follow() -> None: ...

    await rows.call("work")
    await rows.call("work")
    async with working(config, registry):
        await rows.empty()
    assert failed == []
