"""The database goes away in part or wholly, and comes back."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal

import asyncpg
import pytest
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.own_server import OwnServer
from acceptance.tables import Tables
from acceptance.tasks_under_test import quick, slow
from acceptance.worker_process import WorkerProcess
from eventually import eventually, eventually_async

from pgtasks import Client, Config, connect, exit_codes
from pgtasks.config import DatabaseConfig
from pgtasks.errors import DatabaseUnreachable

POLL_SECONDS = 1.0
BACK_SECONDS = 5.0
"""How long after the database is back the worker may need to run messages again."""
LATE_SECONDS = 3.0
AWAY_SECONDS = 6.0
MOST_LINES = 10
"""Four parts that try again and again, and say so once."""

KINDS = ("scheduler", "settler", "keeper", "listener", "client", "supervisor")
SILENCE_SECONDS = 1 + 5 + LATE_SECONDS
"""A poll, the longest a statement may take, and a new connection."""
_OF_THE_WORKER = """
    SELECT application_name, pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'pgtasks %'
        AND application_name <> 'pgtasks client'
"""
_END_ALL = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = $1
"""


async def test_work_goes_on_whichever_connection_is_ended(
    start_worker: StartWorker, tables: Tables, client: Client, history: History
) -> None:
    """Each kind, again and again, while messages are claimed, run, extended and settled."""
    worker = start_worker("--concurrency", "4", environ={"PGTASKS__TASK__LEASE": "1s"})
    worker.wait_until_ready()
    long = await slow.defer_many([(f"long-{n}", 4.0) for n in range(2)])
    short = await slow.defer_many([(f"short-{n}", 0.02) for n in range(250)])
    history.wait_until_started(10)

    ended = dict.fromkeys(KINDS, 0)
    for _ in range(4):
        for kind in KINDS:
            if kind != "client":  # the worker's; ours, with which we defer, has the same name
                ended[kind] += await tables.connection.fetchval(_END_ALL, f"pgtasks {kind}")
            await asyncio.sleep(0.04)
    await tables.drained(30)

    assert all(ended[kind] for kind in ("scheduler", "settler", "keeper", "listener")), ended
    await tables.all_done_once(handle.message_id for handle in (*long, *short))
    assert not history.lost({f"long-{n}" for n in range(2)} | {f"short-{n}" for n in range(250)})
    assert history.starts()["long-0"] == 1, "its lease was lost with the keeper's connection"
    assert worker.stop() == exit_codes.OK


async def test_it_listens_again_after_its_connection_was_ended(
    start_worker: StartWorker, tables: Tables, client: Client, history: History
) -> None:
    """With a poll of half a minute, what is deferred later can only be found by listening."""
    worker = start_worker(environ={"PGTASKS__WORKER__QUEUE_FETCH__EMPTY_DELAY": "30s"})
    worker.wait_until_ready()
    await quick.defer("before")
    history.wait_until_started(1)
    before = await _listeners(tables)

    assert await tables.connection.fetchval(_END_ALL, "pgtasks listener") == 1
    await _until_listening_anew(tables, before)
    deferred_at = time.monotonic()
    await quick.defer("after")
    history.wait_until_started(2)

    assert history.of("after")[0].at - deferred_at < 1.5


async def _listeners(tables: Tables) -> set[int]:
    rows = await tables.connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'pgtasks listener' AND state = 'idle' AND query LIKE 'LISTEN%'"
    )
    return {row["pid"] for row in rows}


async def _until_listening_anew(tables: Tables, before: set[int]) -> None:
    async def anew() -> None:
        assert await _listeners(tables) - before

    await eventually_async(anew)


async def test_read_only_database_is_waited_out(
    start_worker: StartWorker, tables: Tables, client: Client, history: History
) -> None:
    """As a server is while another one takes over: what had ended by then is settled later."""
    worker = start_worker().wait_until_ready()
    name = await tables.connection.fetchval("SELECT current_database()")
    handle = await slow.defer("running", 0.8)
    history.wait_until_started(1)

    await _set(tables, name, "default_transaction_read_only = on")
    # From a connection that may still write: an idle worker only reads, and would note nothing.
    waiting = await quick.defer("waiting")
    worker.wait_for("settling failed")
    worker.wait_for("fetching failed")
    await _set(tables, name, "default_transaction_read_only = off")
    await tables.drained()

    await tables.all_done_once([handle.message_id, waiting.message_id])
    assert history.starts() == {"running": 1, "waiting": 1}
    assert len(worker.lines("worker ready")) == 1
    assert worker.stop() == exit_codes.OK


async def test_serializable_by_default_costs_no_message(
    start_worker: StartWorker, tables: Tables, client: Client, history: History
) -> None:
    name = await tables.connection.fetchval("SELECT current_database()")
    await _set(tables, name, "default_transaction_isolation = serializable")
    worker = start_worker("--processes", "2", "--concurrency", "5").wait_until_ready(2)
    handles = await quick.defer_many([(f"m{n}",) for n in range(300)])

    await tables.drained()

    await tables.all_done_once(handle.message_id for handle in handles)
    assert not history.duplicates()
    assert worker.stop() == exit_codes.OK


async def _set(tables: Tables, database: str, setting: str) -> None:
    """Change a default of the database, for all new connections; end the worker's old ones."""
    async with tables.connection.transaction(readonly=False):
        await tables.connection.execute(f'ALTER DATABASE "{database}" SET {setting}')
    for kind in KINDS:
        if kind != "client":
            await tables.connection.fetchval(_END_ALL, f"pgtasks {kind}")


# A server of its own


@pytest.fixture(scope="module")
def servers() -> Iterator[OwnServer]:
    """The server that the tests below stop and start; initialising one takes seconds."""
    with OwnServer() as server:
        yield server


@pytest.fixture
def server(servers: OwnServer) -> OwnServer:
    """That server, running, with a database for this test."""
    servers.start()
    servers.create_database()
    return servers


@pytest.fixture
async def own_client(server: OwnServer) -> AsyncIterator[Client]:
    config = Config(database=DatabaseConfig(url=server.url))
    async with connect(config=config) as client:
        yield client


@pytest.fixture
def own_worker(
    server: OwnServer, start_worker: StartWorker, checker: Checker
) -> Iterator[WorkerProcess]:
    """A worker on that server, which is there again when the case is judged."""
    checker.url = server.url
    environ = {
        "PGTASKS_DATABASE_URL": server.url,
        "PGTASKS__WORKER__QUEUE_FETCH__ERROR_DELAY": "3s",
    }
    yield start_worker("--concurrency", "4", environ=environ).wait_until_ready()
    server.start()


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_nothing_is_lost_when_postgres_restarts_under_load(
    mode: Literal["immediate", "fast"],
    server: OwnServer,
    own_worker: WorkerProcess,
    own_client: Client,
    checker: Checker,
) -> None:
    """Every message whose `defer` had returned is done once; what ran meanwhile may run twice."""
    history = checker.history
    accepted: list[str] = []
    enough = asyncio.Event()
    deferring = asyncio.create_task(_defer_until(enough, history, accepted))
    await _until_more_than(30, accepted)

    with history.lasting_fault("postgres-killed" if mode == "immediate" else "postgres-away"):
        await asyncio.to_thread(server.stop, mode)
        await asyncio.to_thread(server.start)
    back_at = time.monotonic()
    await _until_more_than(len(accepted) + 30, accepted)
    enough.set()
    await deferring
    eventually(lambda: _ended(history, accepted[-1]), within_seconds=BACK_SECONDS + LATE_SECONDS)

    recovered_at = min(e.at for e in history.events("end") if e.at > back_at)
    assert recovered_at - back_at < BACK_SECONDS
    assert len(own_worker.lines("worker ready")) == 1, "its process was replaced"
    await checker.check()


async def test_worker_waits_quietly_while_postgres_is_away(
    server: OwnServer, own_worker: WorkerProcess, own_client: Client, history: History
) -> None:
    """It runs to their end what it had claimed, and settles it once it can."""
    await slow.defer_many([(f"m{n}", 1.5) for n in range(4)])
    history.wait_until_started(4)
    said_before = len(own_worker.lines())

    await asyncio.to_thread(server.stop, "fast")
    await asyncio.sleep(AWAY_SECONDS)
    said = own_worker.lines()[said_before:]
    await asyncio.to_thread(server.start)
    back_at = time.monotonic()
    await _defer_once("after")
    eventually(lambda: _ended(history, "after"), within_seconds=BACK_SECONDS + LATE_SECONDS)

    assert said, "nobody is told"
    assert len(said) < MOST_LINES, [line["event"] for line in said]
    assert history.of("after")[0].at - back_at < BACK_SECONDS
    async with _tables_of(server) as tables:
        await tables.drained()
    assert not history.lost({f"m{n}" for n in range(4)})
    assert len(own_worker.lines("worker ready")) == 1, "its process was replaced"
    assert "Traceback" not in own_worker.text(), own_worker.text()
    assert own_worker.stop() == exit_codes.OK


async def test_sigterm_while_postgres_is_away_ends_in_time(
    server: OwnServer, own_worker: WorkerProcess, own_client: Client, history: History
) -> None:
    """What could not be settled runs out, and the exit code says so."""
    await slow.defer("unsettled", 1.0)
    history.wait_until_started(1)

    await asyncio.to_thread(server.stop, "fast")
    own_worker.signal()
    code = own_worker.wait(5 + 3 + LATE_SECONDS)

    assert code == exit_codes.UNSETTLED
    assert not own_worker.leftovers()
    assert "Traceback" not in own_worker.text(), own_worker.text()


async def test_connections_that_fall_silent_are_given_up_in_time(
    server: OwnServer, own_worker: WorkerProcess, own_client: Client, history: History
) -> None:
    """As over a network that swallows packets: no answer, no error.

    The lease of what runs cannot be kept on such a connection: then the run is cancelled before
    another one starts.
    """
    await slow.defer("running", 4.0)
    async with _tables_of(server) as tables:
        silent = await _connected(tables, {"scheduler", "listener", "keeper"})
    silenced_at = time.monotonic()
    for pid in silent:
        os.kill(pid, signal.SIGSTOP)
    try:
        await quick.defer("after")
        eventually(lambda: _ended(history, "after"), within_seconds=SILENCE_SECONDS)
        # Ended, or begun anew: the scheduler has a connection again.
        eventually(lambda: _ended_or_begun_anew(history, "running"))
    finally:
        for pid in silent:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    assert history.of("after")[0].at - silenced_at < SILENCE_SECONDS
    assert history.starts()["after"] == 1
    first, *later = history.of("running")
    if later:
        [cancelled] = history.of("running", "cancelled")
        assert first.at < cancelled.at < later[0].at
    assert len(own_worker.lines("worker ready")) == 1, "its process was replaced"
    assert own_worker.stop() == exit_codes.OK


async def _connected(tables: Tables, kinds: set[str]) -> list[int]:
    """Wait until the worker has these connections; gives their servers' process ids."""

    async def all_there() -> list[int]:
        rows = await tables.connection.fetch(_OF_THE_WORKER)
        assert {f"pgtasks {kind}" for kind in kinds} <= {row["application_name"] for row in rows}
        return [row["pid"] for row in rows]

    return await eventually_async(all_there)


@asynccontextmanager
async def _tables_of(server: OwnServer) -> AsyncIterator[Tables]:
    connection = await asyncpg.connect(server.url, timeout=10)
    try:
        yield Tables(connection)
    finally:
        await connection.close()


async def _defer_until(enough: asyncio.Event, history: History, accepted: list[str]) -> None:
    """Defer one after another; note what was accepted, and no more."""
    number = 0
    while not enough.is_set():
        number += 1
        with suppress(DatabaseUnreachable):  # then it may have been stored or not
            history.accepted(f"m{number}", await slow.defer(f"m{number}", 0.02))
            accepted.append(f"m{number}")
        await asyncio.sleep(0.01)


async def _defer_once(key: str) -> None:
    """Defer, again if the first connections are found broken."""
    for _ in range(20):
        with suppress(DatabaseUnreachable):
            await quick.defer(key)
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the client did not recover")


async def _until_more_than(count: int, accepted: Sequence[str]) -> None:
    async def enough() -> None:
        assert len(accepted) > count

    await eventually_async(enough, within_seconds=15)


def _ended(history: History, key: str) -> None:
    assert key in history.keys("end")


def _ended_or_begun_anew(history: History, key: str) -> None:
    assert key in history.keys("end") or history.starts()[key] > 1
