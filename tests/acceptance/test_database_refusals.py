"""The database is there, and says no: locks, limits, time-outs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.tables import Tables
from acceptance.tasks_under_test import hoards_connections, quick, slow, writes_in_a_transaction
from eventually import eventually, eventually_async

from pgtasks import Client, exit_codes
from pgtasks.errors import DatabaseUnreachable

BACK_SECONDS = 5.0
LATE_SECONDS = 3.0
LEASE_SECONDS = 3.0
MOST_WAITING = 8
"""Statements that wait for a lock: two a part, one of which is about to be ended."""
MANY = [f"m{n}" for n in range(60)]
_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


# Locks


async def test_a_table_that_somebody_locks_is_waited_for(
    start_worker: StartWorker,
    tables: Tables,
    client: Client,
    history: History,
    database_url: str,
) -> None:
    """For longer than a statement may take; no statement is left behind to wait there.

    One that was left would claim messages when the lock is gone, and nobody would run them.
    """
    worker = start_worker("--concurrency", "4").wait_until_ready()
    await slow.defer("settled-later", 1.0)
    history.wait_until_started(1)
    waiting = [0]
    lock = "LOCK TABLE pgmq.q_default IN ACCESS EXCLUSIVE MODE"
    with history.lasting_fault("locked-table"):
        async with locked(database_url, lock):
            until = time.monotonic() + 9
            while time.monotonic() < until:
                waiting.append(await tables.connection.fetchval(_WAITING))
                await asyncio.sleep(0.1)
    back_at = time.monotonic()
    for key in MANY:
        await quick.defer(key)
    eventually(lambda: _ended(history, *MANY), within_seconds=BACK_SECONDS + LATE_SECONDS)

    assert max(waiting) <= MOST_WAITING
    assert min(event.at for event in history.events("end") if event.at > back_at) < (
        back_at + BACK_SECONDS
    )
    await tables.drained()
    assert not history.lost(["settled-later"])
    assert history.starts()["settled-later"] <= 2
    assert not worker.lines("running suspects")
    assert worker.stop() == exit_codes.OK


async def test_a_completion_that_waits_for_a_lock_ends_before_its_lease(
    start_worker: StartWorker,
    tables: Tables,
    client: Client,
    history: History,
    database_url: str,
) -> None:
    """The task is still running then: another run must not begin beside it."""
    worker = start_worker(environ={"PGTASKS__TASK__DELAY": "100ms"}).wait_until_ready()
    await writes_in_a_transaction.defer("completes", 0.5)
    history.wait_until_started(1)
    async with locked(database_url, "LOCK TABLE pgmq.q_default IN ACCESS EXCLUSIVE MODE"):
        eventually(lambda: _happened(history, "raised"))
        await asyncio.sleep(LEASE_SECONDS)
    await tables.drained()
    ended = history.of("completes", "raised")[0]
    assert ended.at - history.of("completes")[0].at < LEASE_SECONDS
    assert history.of("completes")[1].at > ended.at
    assert worker.stop() == exit_codes.OK


async def test_rows_that_somebody_locks_are_left_alone(
    start_worker: StartWorker,
    tables: Tables,
    client: Client,
    history: History,
    database_url: str,
) -> None:
    """Others are claimed past them; those that run are ended before their leases are over."""
    worker = start_worker("--concurrency", "4").wait_until_ready()
    await slow.defer("runs", 60.0)
    history.wait_until_started(1)
    await slow.options(delay=0.5).defer_many([(key, 0.01) for key in MANY])
    with history.lasting_fault("locked-rows"):
        async with locked(database_url, "SELECT FROM pgmq.q_default FOR UPDATE"):
            locked_at = time.monotonic()
            await quick.defer("passes")
            eventually(lambda: _ended(history, "passes"))
            eventually(lambda: _cancelled(history, "runs"))
            assert history.of("runs", "cancelled")[0].at - locked_at < LEASE_SECONDS
            assert not history.keys("end") & set(MANY)
    back_at = time.monotonic()
    eventually(lambda: _ended(history, *MANY), within_seconds=BACK_SECONDS + LATE_SECONDS)

    assert min(history.of(key)[0].at for key in MANY) - back_at < BACK_SECONDS
    assert {history.starts()[key] for key in MANY} == {1}
    worker.signal()
    assert worker.wait() in (exit_codes.OK, exit_codes.UNSETTLED)


# Limits


async def test_limits_of_other_programs_do_not_bind_a_worker(
    start_worker: StartWorker,
    tables: Tables,
    client: Client,
    history: History,
    database_url: str,
) -> None:
    """Of the role or the database, and much shorter than a worker needs when it has to wait."""
    name = await tables.connection.fetchval("SELECT current_database()")
    for limit in (
        "statement_timeout = '100ms'",
        "lock_timeout = '50ms'",
        "idle_in_transaction_session_timeout = '1s'",
        "idle_session_timeout = '1s'",
    ):
        await tables.connection.execute(f'ALTER DATABASE "{name}" SET {limit}')
    worker = start_worker("--concurrency", "8").wait_until_ready()
    async with locked(database_url, "LOCK TABLE pgmq.q_default IN SHARE ROW EXCLUSIVE MODE"):
        await asyncio.sleep(1)
    await slow.defer("long", 4.0)
    await writes_in_a_transaction.defer("transaction", 0.2)
    await quick.defer_many([(key,) for key in MANY])
    eventually(lambda: _ended(history, "long", "transaction", *MANY))
    await tables.drained()

    assert not history.duplicates()
    assert {line["level"] for line in worker.lines()} == {"info"}, worker.text()
    assert worker.stop() == exit_codes.OK


async def test_a_transaction_that_the_role_may_not_keep_open_is_tried_again(
    start_worker: StartWorker, tables: Tables, client: Client, history: History
) -> None:
    """The user's own: its limits stand, and its message fails and is retried as any other."""
    name = await tables.connection.fetchval("SELECT current_database()")
    setting = "idle_in_transaction_session_timeout = '200ms'"
    await tables.connection.execute(f'ALTER DATABASE "{name}" SET {setting}')
    environ = {"PGTASKS__TASK__RETRIES": "1", "PGTASKS__TASK__DELAY": "100ms"}
    worker = start_worker(environ=environ | {"PGTASKS__TASK__JITTER": "0"}).wait_until_ready()
    await writes_in_a_transaction.defer("too-long", 1.0)
    await quick.defer_many([(key,) for key in MANY])
    await tables.drained()

    assert history.starts()["too-long"] == 2
    assert await tables.outcomes() == {"done": len(MANY), "failed": 1}
    assert worker.stop() == exit_codes.OK


async def test_too_many_connections_are_waited_out(
    start_worker: StartWorker,
    tables: Tables,
    client: Client,
    history: History,
    limited: "Role",
) -> None:
    """At the start and later: the worker stays, and keeps what it runs while it can."""
    await limited.may_connect(0)
    worker = start_worker(environ={"PGTASKS_DATABASE_URL": limited.url})
    worker.wait_for("waiting for the database", within_seconds=20)
    await limited.may_connect(-1)
    worker.wait_until_ready()
    await slow.defer("running", 4.0)
    history.wait_until_started(1)

    await limited.may_connect(0)
    await tables.connection.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1",
        limited.name,
    )
    worker.wait_for("fetching failed")
    await limited.may_connect(-1)
    back_at = time.monotonic()
    await quick.defer("after")
    eventually(lambda: _ended(history, "after"), within_seconds=BACK_SECONDS + LATE_SECONDS)

    assert history.of("after")[0].at - back_at < BACK_SECONDS
    await tables.drained()
    assert history.starts() == {"running": 1, "after": 1}
    assert len(worker.lines("worker ready")) == 1, "its process was replaced"
    assert worker.stop() == exit_codes.OK


# Tasks that take what the worker needs


async def test_a_task_that_takes_every_connection_costs_no_lease(
    start_worker: StartWorker, tables: Tables, client: Client, history: History
) -> None:
    """And leaves transactions open: what the worker itself needs is its own."""
    worker = start_worker("--concurrency", "4").wait_until_ready()
    await hoards_connections.defer("hoards", 5.0)
    eventually(lambda: _happened(history, "hoarded"))
    await slow.defer("beside", 4.0)
    await quick.defer_many([(key,) for key in MANY])
    eventually(lambda: _ended(history, *MANY))
    assert "hoards" not in history.keys("end")
    await tables.drained()

    assert not history.duplicates()
    assert set(await tables.outcomes()) == {"done"}
    assert worker.stop() == exit_codes.OK


# Clients


async def test_a_defer_that_is_given_up_leaves_nothing_that_waits(
    tables: Tables, client: Client, database_url: str
) -> None:
    """Each call on a locked table would else leave a connection of the server's behind."""

    async def nobody_waits() -> None:
        assert await tables.connection.fetchval(_WAITING) == 0

    async with locked(database_url, "LOCK TABLE pgmq.q_default IN ACCESS EXCLUSIVE MODE"):
        began_at = time.monotonic()
        with pytest.raises(DatabaseUnreachable, match="may be there"):
            await quick.defer("given-up")
        assert time.monotonic() - began_at < BACK_SECONDS + 2
        await eventually_async(nobody_waits, within_seconds=LATE_SECONDS)
    await asyncio.sleep(0.2)
    assert not await tables.waiting()


class Role:
    """A role whose connections can be limited: a superuser's never are."""

    def __init__(self, tables: Tables, url: str) -> None:
        self.name = f"limited_{uuid4().hex[:8]}"
        self.url = url.replace("//postgres@", f"//{self.name}@")
        self.connection = tables.connection

    async def may_connect(self, times: int) -> None:
        """Limit its connections; -1 is as many as there are."""
        await self.connection.execute(f"ALTER ROLE {self.name} CONNECTION LIMIT {times}")


@pytest.fixture
async def limited(tables: Tables, database_url: str) -> AsyncIterator[Role]:
    role = Role(tables, database_url)
    await tables.connection.execute(
        f"CREATE ROLE {role.name} LOGIN; GRANT USAGE ON SCHEMA pgtasks, pgmq TO {role.name};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA pgtasks, pgmq TO {role.name};"
        f"GRANT ALL ON ALL FUNCTIONS IN SCHEMA pgtasks, pgmq TO {role.name}"
    )
    yield role
    await tables.connection.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role.name}';"
        f"DROP OWNED BY {role.name}; DROP ROLE {role.name}"
    )


@asynccontextmanager
async def locked(url: str, statement: str) -> AsyncIterator[None]:
    """Hold what a statement locks for the length of a block."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


def _ended(history: History, *keys: str) -> None:
    assert set(keys) <= history.keys("end")


def _cancelled(history: History, key: str) -> None:
    assert history.of(key, "cancelled")


def _happened(history: History, what: str) -> None:
    assert history.keys(what)
