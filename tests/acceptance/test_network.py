"""Workers behind a network that loses, delays, cuts and swallows."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.evidence import CREATE_EFFECTS
from acceptance.history import History
from acceptance.proxy import Link, Proxy
from acceptance.tables import Tables
from acceptance.tasks_under_test import quick, slow, takes_effect
from acceptance.worker_process import WorkerProcess
from eventually import eventually, eventually_async

from pgtasks import Client, connect, exit_codes
from pgtasks.config import Config, DatabaseConfig
from pgtasks.errors import DatabaseUnreachable

CALL_SECONDS = 5.0
"""The longest any call may take over a network that swallows everything."""
LATE_SECONDS = 3.0
MOST_CUTS = 6
"""A message whose every claim is lost is taken for one that ends its process."""


@pytest.fixture
async def proxy(database_url: str, history: History) -> AsyncIterator[Proxy]:
    """What stands between the workers of this test and its database, and is the fault in it."""
    async with Proxy.to(database_url) as opened:
        with history.lasting_fault("network"):
            yield opened


def behind(start_worker: StartWorker, proxy: Proxy, *arguments: str) -> WorkerProcess:
    """Start a worker that reaches its database through the proxy."""
    return start_worker(*arguments, environ={"PGTASKS_DATABASE_URL": proxy.url})


async def ready(worker: WorkerProcess) -> WorkerProcess:
    """Wait for a worker in a thread: its way to the database is on this loop."""
    return await asyncio.to_thread(worker.wait_until_ready)


async def drained(tables: Tables, within_seconds: float = 30) -> None:
    await tables.drained(within_seconds)


@pytest.mark.parametrize(
    "statement",
    [b"UPDATE pgmq.", b"DELETE FROM", b"INSERT INTO pgmq.", b"WITH due AS"],
    ids=["put back", "complete", "archive", "claim"],
)
async def test_an_answer_that_is_lost_loses_and_doubles_nothing(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    proxy: Proxy,
    client: Client,
    tables: Tables,
    history: History,
    statement: bytes,
) -> None:
    """The statement has happened, and nobody was told: several times, for each kind."""
    cut: list[float] = []

    def lose(link: Link, _piece: bytes) -> bool:
        is_over = len(cut) == MOST_CUTS or (cut and time.monotonic() - cut[-1] < 0.2)
        if is_over or not link.sees(statement):
            return True
        cut.append(time.monotonic())
        return False

    worker = await ready(behind(start_worker, proxy, "--concurrency", "4"))
    proxy.faults.on_answer = lose
    handles = await quick.defer_many([(f"m{n}",) for n in range(300)])
    await drained(tables)
    proxy.faults.on_answer = lambda _link, _piece: True

    assert cut, "no such statement was sent"
    assert history.lost(f"m{n}" for n in range(300)) == set()
    await tables.all_done_once(handle.message_id for handle in handles)
    assert await asyncio.to_thread(worker.stop) == exit_codes.OK


async def test_connections_cut_after_any_number_of_bytes(
    start_worker: StartWorker, proxy: Proxy, client: Client, tables: Tables, history: History
) -> None:
    """A claim whose answer breaks off is run again when its lease is over."""
    lengths = iter(range(100, 20_000, 737))
    limits: dict[Link, int] = {}

    def cut(link: Link, piece: bytes) -> bool:
        if link not in limits:
            limits[link] = link.answered - len(piece) + next(lengths, 10**9)
        return link.answered < limits[link]

    worker = await ready(behind(start_worker, proxy, "--concurrency", "4"))
    proxy.faults.on_answer = cut
    handles = await quick.defer_many([(f"m{n}",) for n in range(400)])

    async def had_enough() -> None:
        assert len(limits) > 12 or not await tables.waiting()

    await eventually_async(had_enough, within_seconds=30)
    proxy.faults.on_answer = lambda _link, _piece: True
    await drained(tables)
    assert history.lost(f"m{n}" for n in range(400)) == set()
    await tables.all_done_once(handle.message_id for handle in handles)
    assert await asyncio.to_thread(worker.stop) == exit_codes.OK


async def test_a_slow_network_that_resets_connections(
    start_worker: StartWorker, proxy: Proxy, client: Client, tables: Tables, history: History
) -> None:
    """0.2 s each way, and one piece of twenty ends its connection: no lease is lost to it."""
    worker = await ready(behind(start_worker, proxy, "--concurrency", "8"))
    proxy.faults.delay_seconds, proxy.faults.reset_share = 0.1, 0.05
    handles = await slow.defer_many([(f"m{n}", 0.5) for n in range(40)])
    await drained(tables, 60)
    proxy.faults.delay_seconds, proxy.faults.reset_share = 0.0, 0.0
    assert history.lost(f"m{n}" for n in range(40)) == set()
    await tables.all_done_once(handle.message_id for handle in handles)
    assert await asyncio.to_thread(worker.stop) == exit_codes.OK


async def test_a_network_that_swallows_everything(
    start_worker: StartWorker, proxy: Proxy, client: Client, tables: Tables, history: History
) -> None:
    """What runs is cancelled before its lease is over; then all goes on as before."""
    worker = await ready(behind(start_worker, proxy, "--concurrency", "4"))
    await slow.defer("running", 30.0)
    await asyncio.to_thread(history.wait_until_started, 1)
    proxy.faults.stalled.set()
    stalled_at = time.monotonic()
    await asyncio.to_thread(eventually, lambda: _happened(history, "cancelled"))
    proxy.faults.stalled.clear()
    lease_seconds = 3.0
    assert history.of("running", "cancelled")[0].at - stalled_at < lease_seconds
    await quick.defer("after")
    await asyncio.to_thread(
        eventually, lambda: _ended(history, "after"), within_seconds=CALL_SECONDS + LATE_SECONDS
    )
    assert await asyncio.to_thread(worker.stop) in (exit_codes.OK, exit_codes.UNSETTLED)


@pytest.mark.parametrize(
    "statement",
    [b"WITH due AS", b"INSERT INTO pgmq", b"WITH ours AS", b"COMMIT;"],
    ids=["claim", "archive", "extend", "commit"],
)
async def test_a_connection_that_falls_silent_in_a_statement_is_given_up_in_time(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    proxy: Proxy,
    client: Client,
    tables: Tables,
    history: History,
    checker: Checker,
    statement: bytes,
) -> None:
    """It stays open, and nothing passes any more; another one does its work soon after."""
    silent: dict[Link, float] = {}
    again: list[float] = []

    def holds(link: Link, _is_answer: bool) -> bool:
        if link.sees(statement) and link not in silent:
            if silent:
                again.append(time.monotonic())
            else:
                history.fault("silent-network")
                silent[link] = time.monotonic()
        return link in silent

    await tables.connection.execute(CREATE_EFFECTS)
    worker = await ready(behind(start_worker, proxy, "--concurrency", "8"))
    history.accepted("long", await slow.defer("long", 5.0))
    await asyncio.to_thread(history.wait_until_started, 1)
    proxy.faults.holds = holds
    for n in range(40):
        history.accepted(f"m{n}", await quick.defer(f"m{n}"))
        history.accepted(f"e{n}", await takes_effect.defer(f"e{n}"), has_effect=True)
    await eventually_async(partial(_any, again), within_seconds=CALL_SECONDS + 5)
    assert again[0] - min(silent.values()) < CALL_SECONDS + LATE_SECONDS
    await drained(tables)
    proxy.faults.holds = lambda _link, _is_answer: False
    assert history.starts()["long"] == 1, "its lease was lost"
    await checker.check()
    assert len(worker.lines("worker ready")) == 1, "its process was replaced"


async def test_no_call_of_a_client_takes_longer_than_its_bound(
    proxy: Proxy, client: Client, tables: Tables
) -> None:
    config = Config(database=DatabaseConfig(url=proxy.url, connect_timeout="2s"))  # type: ignore[arg-type]
    async with connect(config=config):
        await quick.defer("before")
        proxy.faults.stalled.set()
        began_at = time.monotonic()
        with pytest.raises(DatabaseUnreachable):
            await quick.defer("stalled")
        took = time.monotonic() - began_at
        proxy.faults.stalled.clear()
        assert took < CALL_SECONDS + 2
        await quick.defer("after")


async def test_sigterm_while_the_network_swallows_everything(
    start_worker: StartWorker, proxy: Proxy, client: Client, tables: Tables, history: History
) -> None:
    """It ends within its grace and a little, whatever it could not tell the database."""
    worker = await ready(behind(start_worker, proxy, "--concurrency", "4"))
    await slow.defer("running", 60.0)
    await asyncio.to_thread(history.wait_until_started, 1)
    proxy.faults.stalled.set()
    worker.signal()
    grace_seconds = 5.0
    code = await asyncio.to_thread(worker.wait, grace_seconds + 3 + LATE_SECONDS)
    assert code in (exit_codes.OK, exit_codes.UNSETTLED)
    assert not worker.leftovers()


async def test_a_listener_whose_server_is_gone_without_a_word(
    start_worker: StartWorker, proxy: Proxy, client: Client, tables: Tables, history: History
) -> None:
    """It finds out by asking; until then messages are found by the poll."""
    worker = await ready(behind(start_worker, proxy))
    await asyncio.to_thread(eventually, lambda: _listens(proxy))
    [link] = [link for link in proxy.links if link.sees(b"LISTEN")]
    link.is_half_open = True
    await tables.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'pgtasks listener'"
    )
    lost_at = time.monotonic()
    await quick.defer("polled")
    await asyncio.to_thread(eventually, lambda: _ended(history, "polled"))
    assert history.of("polled")[0].at - lost_at < 1 + LATE_SECONDS
    await asyncio.to_thread(eventually, lambda: _listens(proxy, but=link), within_seconds=15 + 5)
    link.is_half_open = False
    assert await asyncio.to_thread(worker.stop) == exit_codes.OK


def _listens(proxy: Proxy, but: Link | None = None) -> None:
    assert [link for link in proxy.links if link is not but and link.sees(b"LISTEN")]


async def _any(times: list[float]) -> None:
    assert times


def _happened(history: History, what: str) -> None:
    assert history.keys(what)


def _ended(history: History, key: str) -> None:
    assert key in history.keys("end")
