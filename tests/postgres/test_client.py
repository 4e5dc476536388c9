"""Deferring: what is stored when, on whose connection, and what is refused with which words."""

import asyncio
import json
import logging
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import anyio.to_thread
import asyncpg
import attrs
import pytest
from postgres.rows import Rows, seconds

from pgtasks import (
    ArgumentError,
    Client,
    Config,
    DatabaseUnreachable,
    NamedTask,
    NotConnectedError,
    Registry,
    SchemaError,
    connect,
    current_client,
    task,
)
from pgtasks.config import DatabaseConfig, QueueFetchConfig, WorkerConfig
from pgtasks.database_url import with_database

registry = Registry()


@task(name="app.greet", registry=registry)
async def greet(name: str, *, loudly: bool = False) -> None: ...


@task(name="app.add", queue="sums", registry=registry)
def add(a: int, b: int = 1) -> None: ...


@task(name="app.odd", registry=registry)
def odd(queue: str, delay: int, at: str, connection: int, args: int) -> None: ...


@task(name="app.method", registry=registry)
def method(self: int) -> None: ...


async def stored(rows: Rows, queue: str = "default") -> list[Any]:
    found = [json.loads(row["message"]) for row in await rows.all(queue)]
    return [envelope["args"] for envelope in found]


async def delay_of(rows: Rows, message_id: int) -> float:
    found: float = await rows.connection.fetchval(
        "SELECT extract(epoch FROM vt - enqueued_at)::float8 FROM pgmq.q_default WHERE msg_id = $1",
        message_id,
    )
    return found


# What is stored


async def test_a_deferred_call_is_in_the_table_when_it_returns(client: Client, rows: Rows):
    handle = await greet.defer("ada", loudly=True)
    [row] = await rows.all()
    assert (handle.queue, handle.message_id) == ("default", row["msg_id"])
    assert json.loads(row["message"]) == {
        "metadata": {"id": str(handle.id), "worker_name": "app.greet"},
        "args": {"name": "ada", "loudly": True},
    }
    assert (row["headers"], row["read_ct"]) == (None, 0)
    assert handle.id.version == 7


async def test_options_never_clash_with_arguments(client: Client, rows: Rows):
    call = {"queue": "q", "delay": 9, "at": "a", "connection": 3, "args": 5}
    await odd.options(delay=0).defer(**call)  # type: ignore[arg-type]
    assert await stored(rows) == [call]


async def test_an_argument_may_be_named_self(client: Client, rows: Rows):
    await method.defer(self=1)
    await method.options(delay=0).defer_many([{"self": 2}])
    await NamedTask("x").defer(self=3)
    assert await stored(rows) == [{"self": 1}, {"self": 2}, {"self": 3}]


async def test_what_options_say_of_a_message_travels_in_its_headers(client: Client, rows: Rows):
    handle = await greet.options(retries=0, timeout="250ms").defer("ada")
    assert await rows.state(handle.message_id) == {"options": {"retries": 0, "timeout": 0.25}}


async def test_a_queue_is_created_when_it_is_first_used(client: Client, rows: Rows):
    handle = await greet.options(queue="fresh").defer("ada")
    assert (handle.queue, await stored(rows, "fresh")) == ("fresh", [{"name": "ada"}])
    await greet.options(queue="fresh").defer("bob")
    assert len(await rows.all("fresh")) == 2


async def test_many_may_be_the_first_to_use_a_queue_at_once(client: Client, rows: Rows):
    await asyncio.gather(*(add.defer(n) for n in range(30)))
    assert sorted(call["a"] for call in await stored(rows, "sums")) == list(range(30))


async def test_the_queue_is_the_configurations_unless_the_task_names_one(
    config: Config, rows: Rows
):
    config = attrs.evolve(config, task=attrs.evolve(config.task, queue="elsewhere"))
    async with connect(config=config):
        assert (await greet.defer("ada")).queue == "elsewhere"
        assert (await add.defer(1)).queue == "sums"


async def test_a_task_can_be_deferred_by_its_name(client: Client, rows: Rows):
    await NamedTask("app.greet").defer(name="ada", loudly=True)
    await NamedTask("app.greet").defer("ada", 5)
    await NamedTask("app.greet").options(queue="default", delay=1).defer()
    assert await stored(rows) == [{"name": "ada", "loudly": True}, ["ada", 5], {}]
    names = {json.loads(row["message"])["metadata"]["worker_name"] for row in await rows.all()}
    assert names == {"app.greet"}


# When it is due


@pytest.mark.parametrize("delay", [0.001, "1ms", "250ms", seconds(90.001), 3600])
async def test_a_delay_counts_to_the_millisecond(client: Client, rows: Rows, delay: Any):
    handle = await greet.options(delay=delay).defer("ada")
    expected = {"1ms": 0.001, "250ms": 0.25}.get(str(delay)) or (
        delay.total_seconds() if isinstance(delay, timedelta) else delay
    )
    assert expected <= await delay_of(rows, handle.message_id) < expected + 1


@pytest.mark.parametrize(
    "at",
    [
        datetime(2031, 7, 1, 12, 0, 0, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2031, 1, 1, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
        datetime(2031, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        datetime(2031, 4, 6, 1, 45, tzinfo=ZoneInfo("Australia/Lord_Howe")),
    ],
)
async def test_a_moment_is_the_same_in_every_zone(client: Client, rows: Rows, at: datetime):
    handle = await greet.options(at=at).defer("ada")
    [second] = await greet.options(at=at).defer_many([("bob",)])
    for made in (handle, second):
        assert (await rows.one(made.message_id))["vt"] == at.astimezone(UTC)


# Many


async def test_many_calls_are_stored_in_their_order(client: Client, rows: Rows):
    """2,500 calls take more than one statement."""
    handles = await greet.defer_many([(str(n),) for n in range(2500)])
    assert [handle.message_id for handle in handles] == [row["msg_id"] for row in await rows.all()]
    assert [call["name"] for call in await stored(rows)] == [str(n) for n in range(2500)]
    ids = [json.loads(row["message"])["metadata"]["id"] for row in await rows.all()]
    assert [str(handle.id) for handle in handles] == ids
    assert len(set(ids)) == 2500


async def test_each_of_many_calls_is_positional_or_named(client: Client, rows: Rows):
    await greet.defer_many([("a",), ["b"], {"name": "c", "loudly": True}])
    assert await stored(rows) == [{"name": "a"}, {"name": "b"}, {"name": "c", "loudly": True}]


async def test_one_bad_call_of_many_stores_nothing(client: Client, rows: Rows):
    calls: list[Any] = [(str(n),) for n in range(1500)]
    for bad in ((), (1,), {"nam": "x"}, ("a\0",), "ada"):
        with pytest.raises(ArgumentError, match="^call 1500 of defer_many: "):
            await greet.defer_many([*calls, bad])
    assert await rows.all() == []


async def test_many_are_all_stored_or_none(client: Client, rows: Rows):
    """The last of three statements fails."""
    await rows.connection.execute(
        "ALTER TABLE pgmq.q_default ADD CHECK (message #>> '{args,name}' <> '2400')"
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await greet.defer_many([(str(n),) for n in range(2500)])
    assert await rows.all() == []


async def test_no_calls_store_nothing(client: Client, rows: Rows):
    assert await greet.defer_many([]) == []
    assert await greet.defer_many(iter([])) == []
    assert await rows.all() == []


# From where


def test_without_an_event_loop(config: Config, database_url: str):
    with connect(config=config) as opened:
        handle = greet.defer_sync("ada")
        many = add.defer_many_sync([(n,) for n in range(3)])
        named = NamedTask("elsewhere").defer_sync(1)
        assert current_client() is opened
    found = asyncio.run(_stored_at(database_url))
    assert [handle.message_id, named.message_id] == [row[0] for row in found["q_default"]]
    assert [one.message_id for one in many] == [row[0] for row in found["q_sums"]]
    with pytest.raises(NotConnectedError):
        greet.defer_sync("ada")
    assert not [thread for thread in threading.enumerate() if "portal" in thread.name.lower()]


async def _stored_at(url: str) -> dict[str, list[Any]]:
    connection = await asyncpg.connect(url)
    found = {
        table: await connection.fetch(f"SELECT msg_id, message FROM pgmq.{table} ORDER BY 1")
        for table in ("q_default", "q_sums")
    }
    await connection.close()
    return found


async def test_from_a_thread(client: Client, rows: Rows):
    handle = await anyio.to_thread.run_sync(greet.defer_sync, "ada")
    assert [row["msg_id"] for row in await rows.all()] == [handle.message_id]


async def in_thread(name: str) -> None:
    await anyio.to_thread.run_sync(greet.defer_sync, name)


async def test_from_many_threads_and_the_loop_at_once(client: Client, rows: Rows):
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(in_thread, str(number))
            group.start_soon(greet.defer, str(number))
    assert len(await rows.all()) == 40


async def test_from_another_event_loop(client: Client, rows: Rows):
    def elsewhere() -> None:
        asyncio.run(greet.defer("ada"))
        asyncio.run(greet.defer_many([("a",), ("b",)]))

    await anyio.to_thread.run_sync(elsewhere)
    assert len(await rows.all()) == 3


async def test_blocking_the_clients_own_loop_is_refused(client: Client, rows: Rows):
    with pytest.raises(RuntimeError, match=r"use `await ….defer\(…\)`"):
        greet.defer_sync("ada")
    with pytest.raises(RuntimeError, match="use `await"):
        greet.defer_many_sync([("ada",)])
    assert await rows.all() == []


async def test_a_connection_belongs_to_a_loop(client: Client, rows: Rows):
    with pytest.raises(TypeError, match="belongs to an event loop"):
        greet.options(connection=rows.connection).defer_sync("ada")


# On the caller's connection


async def test_it_is_rolled_back_with_the_callers_transaction(client: Client, rows: Rows):
    async with client.pool.acquire() as connection:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with connection.transaction():
                await greet.options(connection=connection).defer("ada")
                await greet.options(connection=connection).defer_many([("b",), ("c",)])
                assert await connection.fetchval("SELECT count(*) FROM pgmq.q_default") == 3
                raise ZeroDivisionError
    assert await rows.all() == []


async def test_it_is_committed_with_the_callers_transaction(client: Client, rows: Rows):
    async with client.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("CREATE TABLE public.mine (x int)")
            handle = await greet.options(connection=connection).defer("ada")
            assert await rows.all() == []
        await connection.execute("DROP TABLE public.mine")
    assert [row["msg_id"] for row in await rows.all()] == [handle.message_id]


async def test_a_queue_that_is_missing_does_not_break_the_callers_transaction(
    client: Client, rows: Rows
):
    async with client.pool.acquire() as connection:
        async with connection.transaction():
            await add.options(connection=connection).defer(1)
            await connection.fetchval("SELECT 1")
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with connection.transaction():
                await greet.options(connection=connection, queue="fresh").defer("ada")
                raise ZeroDivisionError
    assert await stored(rows, "sums") == [{"a": 1}]
    assert await rows.all("fresh") == []


async def test_a_callers_own_connection_will_do(client: Client, rows: Rows, database_url: str):
    connection = await asyncpg.connect(database_url)
    async with connection.transaction(isolation="serializable"):
        await add.options(connection=connection).defer_many([(1,), (2,)])
    await connection.close()
    assert await stored(rows, "sums") == [{"a": 1}, {"a": 2}]


async def test_all_connections_may_be_in_transactions_that_defer(config: Config, rows: Rows):
    small = attrs.evolve(config.database, max_connections=2, acquire_timeout=seconds(2))
    async with connect(config=attrs.evolve(config, database=small)) as client:
        inside = [0]

        async def work() -> None:
            async with client.pool.acquire() as connection, connection.transaction():
                inside[0] += 1
                while inside[0] < 2:
                    await asyncio.sleep(0.01)
                await add.options(connection=connection).defer(1)

        await asyncio.gather(work(), work())
    assert len(await rows.all("sums")) == 2


# Refusals


async def test_without_a_client():
    with pytest.raises(NotConnectedError, match=r"async with pgtasks\.connect\(\)"):
        await greet.defer("ada")


async def test_a_client_that_is_closed_is_no_client(config: Config, rows: Rows):
    async with connect(config=config) as client:
        pass
    with pytest.raises(NotConnectedError, match=r"async with connect\(\)"):
        _ = client.pool
    with pytest.raises(NotConnectedError):
        await greet.defer("ada")
    async with client:  # and it can be opened again
        await greet.defer("ada")
    assert len(await rows.all()) == 1


async def test_the_innermost_client_is_the_default(config: Config, rows: Rows):
    async with connect(config=config) as outer:
        async with connect(config=config) as inner:
            assert current_client() is inner
        assert current_client() is outer


@pytest.mark.parametrize(
    "call",
    [
        lambda: greet.defer(loudly=True),  # type: ignore[call-arg]
        lambda: greet.defer("ada", True),  # type: ignore[call-arg]
        lambda: greet.defer("ada", quietly=True),  # type: ignore[call-arg]
        lambda: greet.defer(5),  # type: ignore[arg-type]
        lambda: greet.defer("ada", loudly="yes"),  # type: ignore[arg-type]
        lambda: greet.defer("a\0"),
        lambda: greet.defer("\ud800"),
        lambda: greet.defer("x" * 2_000_000),
        lambda: add.defer(float("nan")),  # type: ignore[arg-type]
        lambda: add.defer(10**5000),
        lambda: NamedTask("x").defer(object()),
        lambda: NamedTask("x").defer(float("inf")),
        lambda: NamedTask("x").defer(b"bytes"),
    ],
)
async def test_wrong_arguments_are_type_errors_before_anything_is_sent(
    client: Client, rows: Rows, call: Any
):
    with pytest.raises(ArgumentError) as refused:
        await call()
    assert isinstance(refused.value, TypeError)
    assert len(str(refused.value)) < 1000
    assert await rows.all() == []
    assert "sums" not in await queues(rows)


async def queues(rows: Rows) -> list[str]:
    return [row[0] for row in await rows.connection.fetch("SELECT queue_name FROM pgmq.meta")]


SECRET = "hunter2-secret"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@127.0.0.1:1/app",
        f"postgresql://ada:{SECRET}@no-such-host.invalid/app",
        f"postgresql://127.0.0.1:1/app?user=ada&password={SECRET}",
        f"postgresql://ada:{SECRET}@127.0.0.1:1,127.0.0.1:2/app",
        f"postgresql://ada:%zz{SECRET}@127.0.0.1:1/app",
    ],
)
async def test_an_unreachable_database_is_named_without_its_password(
    url: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    config = Config(database=DatabaseConfig(url=url, connect_timeout=seconds(2)))
    with pytest.raises(DatabaseUnreachable) as refused:
        async with connect(config=config):
            pass
    assert isinstance(refused.value, ConnectionError)
    shown = str(refused.value)
    assert "127.0.0.1" in shown or "no-such-host" in shown
    assert "PGTASKS_DATABASE_URL" in shown
    everything = "".join(traceback.format_exception(refused.value)) + caplog.text
    assert SECRET not in everything


async def test_a_server_that_says_nothing_is_given_up_in_time():
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"postgresql://ada:{SECRET}@127.0.0.1:{port}/app"
    config = Config(database=DatabaseConfig(url=url, connect_timeout=seconds(0.5)))
    began = time.monotonic()
    with pytest.raises(DatabaseUnreachable, match="no answer within 0.5 s"):
        async with connect(config=config):
            pass
    assert time.monotonic() - began < 5
    async with asyncio.timeout(10):
        await left.wait()
    server.close()
    await server.wait_closed()


async def test_a_wrong_database_name_is_said(database_url: str):
    with pytest.raises(DatabaseUnreachable, match="does not exist"):
        async with connect(with_database(database_url, "missing")):
            pass


async def test_a_missing_schema_names_the_command(empty_database_url: str):
    with pytest.raises(SchemaError, match="pgtasks db upgrade"):
        async with connect(empty_database_url):
            pass
    with pytest.raises(NotConnectedError):
        current_client()


async def test_a_schema_that_vanishes_is_said_too(client: Client, rows: Rows):
    await rows.connection.execute("DROP SCHEMA pgtasks, pgmq CASCADE")
    with pytest.raises(SchemaError, match="pgtasks db upgrade"):
        await greet.defer("ada")


async def test_a_database_that_goes_away_is_said_to_leave_it_open(client: Client, rows: Rows):
    """Between sending and the answer, nobody knows."""
    await rows.connection.execute(
        "CREATE FUNCTION pgtasks.cut() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
        "CREATE TRIGGER cut AFTER INSERT ON pgmq.q_default EXECUTE FUNCTION pgtasks.cut()"
    )
    with pytest.raises(DatabaseUnreachable, match="may be there"):
        await greet.defer("ada")
    await rows.connection.execute("DROP TRIGGER cut ON pgmq.q_default")
    await greet.defer("bob")  # the pool has mended itself
    assert await stored(rows) == [{"name": "bob"}]


async def test_a_used_up_pool_is_given_up_in_time(config: Config, rows: Rows):
    small = attrs.evolve(config.database, max_connections=1, acquire_timeout=seconds(0.3))
    async with connect(config=attrs.evolve(config, database=small)) as client:
        async with client.pool.acquire():
            began = time.monotonic()
            with pytest.raises(DatabaseUnreachable):
                await greet.defer("ada")
            assert time.monotonic() - began < 5
        await greet.defer("ada")


# Leaving nothing behind


async def test_a_closed_client_leaves_no_connection(config: Config, rows: Rows):
    async with connect(config=config):
        await asyncio.gather(*(greet.defer(str(n)) for n in range(10)))
        assert await connections(rows) > 0
    async with asyncio.timeout(10):
        while await connections(rows):
            await asyncio.sleep(0.01)


async def connections(rows: Rows) -> int:
    found: int = await rows.connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'pgtasks client'"
    )
    return found


async def test_notifications_can_be_switched_off(config: Config, rows: Rows, database_url: str):
    silent = attrs.evolve(config, worker=WorkerConfig(queue_fetch=QueueFetchConfig(notify=False)))
    told: list[Any] = []
    listening = await asyncpg.connect(database_url)
    await listening.add_listener("pgtasks", lambda *heard: told.append(heard[3]))
    async with connect(config=silent):
        await greet.defer("ada")
        await greet.defer_many([("a",), ("b",)])
    async with connect(config=config):
        await greet.options(queue="loud").defer_many([("a",), ("b",)])
    async with asyncio.timeout(10):
        while not told:
            await listening.fetchval("SELECT 1")
    assert told == ["loud"]
    await listening.close()
