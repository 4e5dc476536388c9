"""Workers killed at the worst moments of a message's way, and leases that cannot be kept."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager

import pytest
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.evidence import CREATE_EFFECTS
from acceptance.history import History
from acceptance.least_rights import as_a_worker
from acceptance.proxy import Proxy
from acceptance.tables import Tables
from acceptance.tasks_under_test import fails_at_first, quick, slow_at_first, takes_effect
from acceptance.trap import STATEMENTS, Trap
from acceptance.worker_process import WorkerProcess
from eventually import eventually_async

from pgtasks import Client

ROUNDS = 25 if "PGTASKS_TEST_LONG" in os.environ else 1
"""How often each moment is met."""
LEASE_SECONDS = 3.0
LATE_SECONDS = 3.0


@pytest.fixture
def reach(database_url: str) -> Iterator[Mapping[str, str]]:
    """As a role that may do what a worker has to, and nothing else."""
    with as_a_worker(database_url) as reach:
        yield reach


@pytest.fixture
async def proxy(reach: Mapping[str, str]) -> AsyncIterator[Proxy]:
    async with Proxy.to(reach["PGTASKS_DATABASE_URL"]) as opened:
        yield opened


@pytest.fixture
async def effects(tables: Tables) -> None:
    await tables.connection.execute(f"{CREATE_EFFECTS}; GRANT INSERT ON effect TO PUBLIC")


async def ready_behind(start_worker: StartWorker, proxy: Proxy, **environ: str) -> WorkerProcess:
    """Start a worker that reaches its database through the proxy."""
    settings = {"PGTASKS_DATABASE_URL": proxy.url, **environ}
    worker = start_worker("--concurrency", "4", environ=settings)
    return await asyncio.to_thread(worker.wait_until_ready)


@contextmanager
def trapped(proxy: Proxy, statement: bytes, *, is_done: bool) -> Iterator[Trap]:
    trap = Trap(statement, is_done)
    trap.set(proxy.links)
    proxy.faults.holds = trap.holds
    yield trap
    proxy.faults.holds = lambda _link, _is_answer: False


@pytest.mark.timeout(120 + 60 * ROUNDS)
@pytest.mark.parametrize("statement", STATEMENTS)
async def test_a_worker_is_killed_while_a_statement_is_on_its_way(  # noqa: PLR0917 - fixtures
    statement: str,
    start_worker: StartWorker,
    proxy: Proxy,
    client: Client,
    tables: Tables,
    effects: None,
    history: History,
    checker: Checker,
) -> None:
    """Before it arrives, and when it is done: nobody is left who knows which."""
    keeps = "delete" if statement == "complete" else "archive"
    for round_, is_done in enumerate((False, True) * ROUNDS):
        worker = await ready_behind(start_worker, proxy, PGTASKS__TASK__ON_SUCCESS=keeps)
        await _let_a_worker_prepare(history, round_)
        with trapped(proxy, STATEMENTS[statement], is_done=is_done) as trap:
            await _defer(statement, history, round_)
            async with asyncio.timeout(20):
                await trap.caught.wait()
            await asyncio.to_thread(worker.end)

    await ready_behind(start_worker, proxy, PGTASKS__TASK__ON_SUCCESS=keeps)
    await checker.check(keeps_successes=keeps == "archive")


async def _let_a_worker_prepare(history: History, round_: int) -> None:
    """Have it run one of each, so that its statements are prepared and its traps are not early."""
    keys = [f"before-{round_}-{n}" for n in range(4)]
    history.accepted_many(keys, await fails_at_first.defer_many([(key, 1) for key in keys]))

    async def done() -> None:
        assert set(keys) <= history.keys("end")

    await eventually_async(done, within_seconds=20)


async def _defer(statement: str, history: History, round_: int) -> None:
    for n in range(3):
        key = f"caught-{round_}-{n}"
        match statement:
            case "retry":
                handle = await fails_at_first.defer(key, 1)
            case "commit":
                handle = await takes_effect.defer(key)
            case _:
                handle = await quick.defer(key)
        history.accepted(key, handle, has_effect=statement == "commit")


async def test_a_run_whose_lease_cannot_be_kept_is_over_before_another_begins(  # noqa: PLR0917
    start_worker: StartWorker,
    proxy: Proxy,
    client: Client,
    tables: Tables,
    history: History,
    checker: Checker,
) -> None:
    """Only what extends leases is cut off, for two leases; all else of the worker goes on."""
    await ready_behind(start_worker, proxy)
    keys = [f"m{n}" for n in range(4)]
    history.accepted_many(keys, await slow_at_first.defer_many([(key, 60.0) for key in keys]))
    await asyncio.to_thread(history.wait_until_started, 4)
    # On a way of its own: it is well, and would begin them as soon as they are free.
    await asyncio.to_thread(start_worker("--concurrency", "4").wait_until_ready)

    with history.lasting_fault("cut-off"):
        proxy.faults.holds = lambda link, _: link.sees(b"pgtasks keeper")
        await asyncio.sleep(2 * LEASE_SECONDS)
        proxy.faults.holds = lambda _link, _is_answer: False

    figures = await checker.check()
    assert history.keys("cancelled") == set(keys)
    assert (figures.starts, figures.overlaps) == (8, 0)
    assert figures.recovered_in["cut-off"] < LEASE_SECONDS + 1 + LATE_SECONDS
