"""Deferring at the same time: what goes together, and that nobody pays for another's mistake."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import asyncpg
import attrs
import pytest
from eventually import eventually_async
from postgres.rows import LOCKS, Rows, seconds

from pgtasks import (
    Client,
    Config,
    DatabaseUnreachable,
    NotConnectedError,
    Registry,
    connect,
    task,
)
from pgtasks.message import Handle

registry = Registry()


@task(name="app.work", registry=registry)
async def work(number: int) -> None: ...


@pytest.fixture
async def held(rows: Rows, database_url: str) -> AsyncIterator[Callable[[], Any]]:
    """Holds the queue `default` up for the length of a block: who stores in it waits."""
    other = await asyncpg.connect(database_url)

    @asynccontextmanager
    async def hold() -> AsyncIterator[None]:
        async with other.transaction():
            await other.execute("LOCK TABLE pgmq.q_default IN EXCLUSIVE MODE")
            yield

    yield hold
    await other.close()


@pytest.fixture
async def statements(rows: Rows) -> Callable[[], Awaitable[list[int]]]:
    """Tells how many messages each statement has stored."""
    await rows.connection.execute(
        "CREATE TABLE pgtasks.stored (n int, at timestamptz DEFAULT clock_timestamp());"
        "CREATE FUNCTION pgtasks.note() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO pgtasks.stored SELECT count(*) FROM made; RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER INSERT ON pgmq.q_default REFERENCING NEW TABLE AS made "
        "FOR EACH STATEMENT EXECUTE FUNCTION pgtasks.note()"
    )

    async def told() -> list[int]:
        found = await rows.fetch("SELECT n FROM pgtasks.stored ORDER BY at")
        return [row["n"] for row in found]

    return told


async def waiting(rows: Rows, count: int) -> None:
    """Wait until so many connections wait for a lock."""

    async def wait() -> None:
        found = await rows.fetch(f"SELECT count(DISTINCT pid) {LOCKS[16:]} NOT granted")
        assert found[0][0] >= count

    await eventually_async(wait)


async def two_under_way(rows: Rows) -> list["asyncio.Task[Handle]"]:
    """Defer 0 and 1, of which each has a statement on its way: what comes now has to wait."""
    first = deferring(0)
    await waiting(rows, 1)
    second = deferring(1)
    await waiting(rows, 2)
    return first + second


def deferring(*numbers: int) -> list["asyncio.Task[Handle]"]:
    return [asyncio.ensure_future(work.defer(number)) for number in numbers]


async def numbers(rows: Rows) -> list[int]:
    return [json.loads(row["message"])["args"]["number"] for row in await rows.all()]


async def check(rows: Rows, handles: dict[int, Handle]) -> None:
    """Each handle is that of the message that was deferred, and there are no others."""
    found = {}
    for row in await rows.all():
        message = json.loads(row["message"])
        found[message["args"]["number"]] = (row["msg_id"], message["metadata"]["id"])
    assert found == {n: (one.message_id, str(one.id)) for n, one in handles.items()}


async def test_a_message_that_is_alone_is_sent_alone(client: Client, rows: Rows, statements: Any):
    made = {number: await work.defer(number) for number in range(5)}
    await check(rows, made)
    assert await statements() == [1] * 5


async def test_what_comes_meanwhile_goes_together(
    client: Client, rows: Rows, held: Any, statements: Any
):
    async with held():
        tasks = await two_under_way(rows)
        tasks += deferring(*range(2, 60))
        await asyncio.sleep(0)
    await check(rows, dict(enumerate(await asyncio.gather(*tasks))))
    sizes = await statements()
    assert sorted(sizes) == [1, 1, 58]


async def test_from_loops_and_threads_at_once(client: Client, rows: Rows):
    """Each caller gets the handle of its own message."""
    made: dict[int, Handle] = {}

    async def here(first: int) -> None:
        for number in range(first, first + 20):
            made[number] = await work.defer(number)

    def in_thread(first: int) -> None:
        for number in range(first, first + 20):
            made[number] = work.defer_sync(number)

    def in_other_loop(first: int) -> None:
        async def together() -> None:
            await asyncio.gather(*(here(first + 20 * n) for n in range(3)))

        asyncio.run(together())

    async with anyio.create_task_group() as group:
        for place in range(5):
            group.start_soon(here, 1000 * place)
            group.start_soon(anyio.to_thread.run_sync, in_thread, 1000 * place + 100)
            group.start_soon(anyio.to_thread.run_sync, in_other_loop, 1000 * place + 200)
    assert len(made) == 5 * 100
    await check(rows, made)


async def test_each_has_its_own_options(client: Client, rows: Rows, held: Any, statements: Any):
    ways = [
        work.options(delay=3600),
        work.options(retries=7),
        work,
        work.options(timeout=5, delay=60),
    ]
    async with held():
        tasks = await two_under_way(rows)
        tasks += [asyncio.ensure_future(ways[n % 4].defer(n)) for n in range(2, 40)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert sorted(await statements()) == [1, 1, 38]
    for row in await rows.all():
        number = json.loads(row["message"])["args"]["number"]
        if number > 1:
            delay, options = [
                (3600, None), (0, {"retries": 7}), (0, None), (60, {"timeout": 5.0}),
            ][number % 4]  # fmt: skip
            assert delay - 60 < row["due_in"] <= delay
            said = None if options is None else {"pgtasks": {"options": options}}
            assert json.loads(row["headers"] or "null") == said


async def test_queues_at_the_same_time(client: Client, rows: Rows):
    """Some of them are made by the first message."""
    handles = await asyncio.gather(*(work.options(queue=f"q{n % 7}").defer(n) for n in range(140)))
    for queue in range(7):
        found = {row["msg_id"]: json.loads(row["message"]) for row in await rows.all(f"q{queue}")}
        assert {id_: message["args"]["number"] for id_, message in found.items()} == {
            handles[n].message_id: n for n in range(queue, 140, 7)
        }


async def test_only_the_one_that_is_refused_is_told_so(client: Client, rows: Rows, held: Any):
    await rows.connection.execute(
        "ALTER TABLE pgmq.q_default ADD CHECK ((message #>> '{args,number}')::int % 10 <> 3)"
    )
    async with held():
        tasks = await two_under_way(rows)
        tasks += deferring(*range(2, 30))
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number, result in enumerate(results):
        expected = asyncpg.CheckViolationError if number % 10 == 3 else Handle
        assert isinstance(result, expected)
    assert sorted(await numbers(rows)) == [n for n in range(30) if n % 10 != 3]


async def test_what_fails_at_the_commit_is_not_acknowledged(client: Client, rows: Rows, held: Any):
    await rows.connection.execute(
        "CREATE FUNCTION pgtasks.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.message #>> '{args,number}' = '3' THEN RAISE 'too late'; END IF; "
        "RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON pgmq.q_default DEFERRABLE "
        "INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgtasks.fail()"
    )
    async with held():
        tasks = await two_under_way(rows) + deferring(*range(2, 10))
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [n for n, result in enumerate(results) if not isinstance(result, Handle)] == [3]
    assert isinstance(results[3], asyncpg.RaiseError)
    assert 3 not in await numbers(rows)


async def test_who_gives_up_takes_nobody_along(client: Client, rows: Rows, held: Any):
    """One is cancelled while it waits, one while its statement is on its way."""
    async with held():
        tasks = deferring(0)
        await waiting(rows, 1)
        tasks += deferring(1, 2, 3)
        await waiting(rows, 2)
        tasks += deferring(*range(4, 20))
        await asyncio.sleep(0)
        tasks[2].cancel()
        tasks[7].cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = [n for n, one in enumerate(results) if isinstance(one, asyncio.CancelledError)]
    assert cancelled == [2, 7]
    # The first went in the same statement as its neighbours, the second had not been sent.
    assert sorted(await numbers(rows)) == [n for n in range(20) if n != 7]


async def test_a_thread_that_gives_up_takes_nobody_along(client: Client, rows: Rows, held: Any):
    async def elsewhere() -> None:
        with anyio.move_on_after(0.05):
            await work.defer(99)

    async with held():
        tasks = await two_under_way(rows)
        await anyio.to_thread.run_sync(lambda: asyncio.run(elsewhere()))
        tasks += deferring(2)
    await asyncio.gather(*tasks)
    assert sorted(await numbers(rows)) == [0, 1, 2]


async def test_a_connection_that_breaks_is_the_matter_of_those_on_it(
    client: Client, rows: Rows, held: Any
):
    async with held():
        tasks = await two_under_way(rows)
        tasks += deferring(*range(2, 10))
        await asyncio.sleep(0)
        await rows.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        broken = await asyncio.gather(*tasks[:2], return_exceptions=True)
    for error in broken:
        assert isinstance(error, DatabaseUnreachable)
        assert "may be there" in str(error)
    await asyncio.gather(*tasks[2:])
    assert sorted(await numbers(rows)) == list(range(2, 10))


async def test_what_waits_when_the_client_closes_is_stored(config: Config, rows: Rows, held: Any):
    async with connect(config=config) as client:
        async with held():
            tasks = await two_under_way(rows) + deferring(*range(2, 20))
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(client.close())
            await asyncio.sleep(0)
        await closing
        await check(rows, dict(enumerate(await asyncio.gather(*tasks))))


async def test_nobody_waits_for_ever_for_a_client_that_closes(
    config: Config, rows: Rows, held: Any
):
    """The server does not answer: those on their way may be stored, the others are not."""
    async with held():
        async with connect(config=config):
            tasks = await two_under_way(rows)
            tasks += deferring(*range(2, 10))
            in_thread = asyncio.ensure_future(anyio.to_thread.run_sync(work.defer_sync, 10))
            await asyncio.sleep(0.05)
        results = await asyncio.gather(*tasks, in_thread, return_exceptions=True)
    for result in results[:2]:
        assert isinstance(result, DatabaseUnreachable)
    for result in results[2:]:
        assert isinstance(result, NotConnectedError)
    assert not set(await numbers(rows)) & set(range(2, 11))


async def test_a_pool_of_one_serves_its_users_too(config: Config, rows: Rows):
    """However busy deferring is, somebody else's turn comes."""
    small = attrs.evolve(config.database, max_connections=1, acquire_timeout=seconds(20))
    async with connect(config=attrs.evolve(config, database=small)) as client:
        is_over = False

        async def go_on() -> None:
            while not is_over:
                await work.defer(1)

        tasks = [asyncio.ensure_future(go_on()) for _ in range(3)]
        try:
            for _ in range(5):
                async with client.pool.acquire(timeout=20) as connection:
                    assert await connection.fetchval("SELECT 1") == 1
        finally:
            is_over = True
            await asyncio.gather(*tasks)


async def test_a_connection_is_given_back_when_nothing_is_deferred(client: Client, rows: Rows):
    await work.defer(1)
    pool = client.pool

    async def all_idle() -> None:
        assert pool.get_idle_size() == pool.get_size()

    await eventually_async(all_idle)
    await work.defer(2)
    assert await numbers(rows) == [1, 2]


async def test_workers_are_told_of_the_last_message_too(
    client: Client, rows: Rows, database_url: str
):
    """After a notification that comes once all are stored, whoever looks finds all."""
    listening = await asyncpg.connect(database_url)
    told: list[str] = []
    await listening.add_listener("pgtasks", lambda *heard: told.append(heard[3]))
    for _ in range(20):
        await asyncio.gather(*(work.defer(n) for n in range(7)))
        await work.defer(8)
        before = len(told)

        async def is_told(before: int = before) -> None:
            assert len(told) > before or (await listening.fetchval("SELECT 1") and told)

        await eventually_async(is_told)
    assert set(told) == {"default"}
    await listening.close()


# Many at once


async def test_many_are_read_in_the_callers_thread(client: Client, rows: Rows):
    """What it iterates over may be bound to its thread, as a database session is."""
    threads: set[int] = set()

    def calls() -> Iterator[tuple[int]]:
        for number in range(2000):
            threads.add(threading.get_ident())
            yield (number,)

    async def elsewhere() -> int:
        await work.defer_many(calls())
        work.defer_many_sync(calls())
        return threading.get_ident()

    own = await anyio.to_thread.run_sync(lambda: asyncio.run(elsewhere()))
    assert threads == {own}
    assert len(await numbers(rows)) == 4000


async def test_what_interrupts_many_leaves_nothing(client: Client, rows: Rows, held: Any):
    def calls(last: BaseException | None) -> Iterator[tuple[int]]:
        for number in range(3000):
            yield (number,)
        if last is not None:
            raise last

    with pytest.raises(ZeroDivisionError):
        await work.defer_many(calls(ZeroDivisionError()))
    async with client.pool.acquire() as connection, connection.transaction():
        await work.options(connection=connection).defer(1)
        with pytest.raises(ZeroDivisionError):
            await work.options(connection=connection).defer_many(calls(ZeroDivisionError()))
        await work.options(connection=connection).defer(2)
    async with held():
        with anyio.move_on_after(0.1) as bound:
            await work.defer_many(calls(None))
        assert bound.cancelled_caught
    assert await numbers(rows) == [1, 2]
    await work.defer_many(calls(None))
    assert len(await numbers(rows)) == 3002


async def test_many_make_their_queue(client: Client, rows: Rows):
    handles = await work.options(queue="fresh", delay=60).defer_many([(n,) for n in range(1200)])
    assert [handle.message_id for handle in handles] == [
        row["msg_id"] for row in await rows.all("fresh")
    ]
    assert all(0 < row["due_in"] <= 60 for row in await rows.all("fresh"))


async def test_the_loop_goes_on_while_many_are_stored(client: Client, rows: Rows):
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.ensure_future(others())
    await work.defer_many([(n,) for n in range(10_000)])
    other.cancel()
    assert turns > 10
