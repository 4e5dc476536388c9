"""Workers vacuum the tables of busy queues, one at a time, where it is of use."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import attrs
import pytest
from eventually import eventually_async
from postgres.conftest import Heard
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import Config, Registry, cleaner, task
from pgtasks.cleaner import Cleaner
from pgtasks.config import DatabaseConfig, VacuumConfig
from pgtasks.store import Store

Q = "default"
LEAST = 1000
FEW = VacuumConfig(dead_rows=LEAST)

Worn = Callable[[], Awaitable[None]]


@pytest.fixture
async def worn(rows: Rows, store: Store) -> Worn:
    """Leave many dead rows in the queue, and say so."""
    # Postgres' own is not to come first.
    await rows.connection.execute("ALTER TABLE pgmq.q_default SET (autovacuum_enabled = off)")

    async def leave() -> None:
        await store.send_many(Q, ["{}"] * 2 * LEAST, None, seconds(0), None)
        await rows.connection.execute("DELETE FROM pgmq.q_default WHERE vt <= clock_timestamp()")
        await eventually_async(enough)

    async def enough() -> None:
        assert (await told(rows))[0] >= LEAST

    return leave


async def told(rows: Rows) -> tuple[int, int]:
    """What the server says of the queue: how many dead rows, and how often it was vacuumed."""
    await rows.fetch("SELECT pg_stat_clear_snapshot()")
    if await rows.connection.fetchval("SELECT current_setting('server_version_num')::int") > 150000:
        await rows.fetch("SELECT pg_stat_force_next_flush()")
    [row] = await rows.fetch(
        "SELECT n_dead_tup, vacuum_count FROM pg_stat_user_tables WHERE relname = 'q_default'"
    )
    return row[0], row[1]


async def next_turn(rows: Rows) -> None:
    """Let the turn be anybody's again."""
    await rows.connection.execute("DELETE FROM pgtasks.turn")


def made(database: DatabaseConfig, worked: Callable[[], int] = int) -> Cleaner:
    return Cleaner([Q], FEW, database, worked)


async def test_what_is_mostly_dead_rows_is_vacuumed(
    database: DatabaseConfig, rows: Rows, worn: Worn
):
    await worn()
    await made(database).look()
    assert await told(rows) == (0, 1)


async def test_what_is_mostly_alive_is_left_to_the_server(
    database: DatabaseConfig, rows: Rows, store: Store, worn: Worn
):
    """It would take as long as for all its rows, to the good of few."""
    await store.send_many(Q, ["{}"] * 4 * LEAST, None, seconds(60), None)
    await worn()
    await made(database).look()
    assert (await told(rows))[1] == 0


async def test_of_many_workers_one_does_it(database: DatabaseConfig, rows: Rows, worn: Worn):
    for _ in range(2):
        await worn()
        await asyncio.gather(*(made(database).look() for _ in range(3)))
    assert (await told(rows))[1] == 1


async def test_a_locked_table_is_not_waited_for(database: DatabaseConfig, rows: Rows, worn: Worn):
    await worn()
    async with rows.connection.transaction():
        await rows.connection.execute("LOCK TABLE pgmq.q_default IN SHARE UPDATE EXCLUSIVE MODE")
        async with asyncio.timeout(5):
            await made(database).look()
    assert (await told(rows))[1] == 0


async def test_where_an_old_transaction_keeps_them_it_is_tried_rarely(
    database: DatabaseConfig, rows: Rows, worn: Worn
):
    snapshot = await asyncpg.connect(database.url)
    one = made(database)
    async with snapshot.transaction(isolation="repeatable_read"):
        await snapshot.fetch("SELECT count(*) FROM pgmq.q_default")
        await worn()
        for _ in range(3):
            await one.look()
            await next_turn(rows)
        assert await told(rows) == (2 * LEAST, 1)
    await snapshot.close()


@pytest.fixture
async def strangers(database: DatabaseConfig, rows: Rows) -> AsyncIterator[DatabaseConfig]:
    """The database, as a role sees it that owns nothing."""
    role = f"stranger_{uuid4().hex[:12]}"
    parts = urlsplit(database.url or "")
    place = parts.netloc.rpartition("@")[2]
    await rows.connection.execute(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA pgmq, pgtasks TO {role}"
    )
    yield DatabaseConfig(url=urlunsplit(parts._replace(netloc=f"{role}@{place}")))
    await rows.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_role_that_may_not_says_so_once_and_does_nothing_else(
    strangers: DatabaseConfig, rows: Rows, worn: Worn, heard: Heard
):
    logging.getLogger("pgtasks").setLevel(logging.DEBUG)
    await worn()
    one = made(strangers)
    await one.look()
    await one.look()
    assert heard.events() == ["this role may not vacuum, autovacuum has to"]
    assert (await told(rows))[1] == 0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the database was asked for, with no pause between."""
    found, real = list[Any](), Store.dead_rows

    async def counted(self: Store, *args: Any) -> Any:
        found.append(args)
        return await real(self, *args)

    monkeypatch.setattr(Store, "dead_rows", counted)
    monkeypatch.setattr(cleaner, "LOOK", seconds(0.01))
    return found


async def test_an_idle_worker_asks_for_nothing(
    database: DatabaseConfig, rows: Rows, asked: list[Any]
):
    worked = [0]
    running = asyncio.create_task(made(database, lambda: worked[0]).run())
    await rows.fetch("SELECT pg_sleep(0.2)")
    assert asked == []
    worked[0] = LEAST
    async with asyncio.timeout(10):
        while not asked:
            await asyncio.sleep(0.01)
    await rows.fetch("SELECT pg_sleep(0.2)")
    assert len(asked) == 1
    running.cancel()


async def test_a_worker_vacuums_while_it_works(
    config: Config, registry: Registry, rows: Rows, worn: Worn, asked: list[Any]
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    await worn()
    await rows.connection.execute("SET synchronous_commit = off")
    async with working(with_few(config), registry):
        await work.defer_many([()] * LEAST)
        await rows.empty()

        async def vacuumed() -> None:
            assert (await told(rows))[1] > 0

        await eventually_async(vacuumed)


def with_few(config: Config) -> Config:
    return attrs.evolve(config, worker=attrs.evolve(config.worker, vacuum=FEW))
