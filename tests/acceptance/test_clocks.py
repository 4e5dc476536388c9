"""Wrong clocks change nothing: only the database's decides what is due, leased, or to be fired."""

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.tables import Tables
from acceptance.tasks_under_test import fails_at_first, quick, slow
from acceptance.worker_process import WorkerProcess, environment
from acceptance.wrong_clock import needs_faketime, step, stepping, wrong_by
from eventually import eventually

from pgtasks import Client

pytestmark = needs_faketime

TICKS = "acceptance.scheduled_tasks"
LATE_SECONDS = 3.0
STEPS = ("+86400s", "-86400s", "+3600s", "-5s", "+0s")
QUICK_RETRIES = {"PGTASKS__TASK__DELAY": "500ms", "PGTASKS__TASK__JITTER": "0"}
DEFERRING = """
import asyncio, datetime, sys
from pgtasks import connect
from acceptance.tasks_under_test import quick

async def main():
    async with connect():
        handle = await quick.options(delay=1.5).defer("delayed")
        print(datetime.datetime.now().timestamp(), handle.message_id)

asyncio.run(main())
"""


@pytest.mark.parametrize("offset", ["+3600s", "-1d"])
async def test_a_worker_whose_clock_is_wrong_does_as_its_neighbour(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    tables: Tables,
    client: Client,
    history: History,
    checker: Checker,
    offset: str,
) -> None:
    """Leases, delays and retries, with a worker beside it that would take what it leaves."""
    worker = start_worker(
        "--concurrency", "2", environ={**wrong_by(offset), **QUICK_RETRIES, "TZ": "Asia/Kathmandu"}
    )
    other = start_worker("--concurrency", "2", environ=QUICK_RETRIES)
    _check_clock(worker.wait_until_ready(), offset)
    other.wait_until_ready()
    began_at = time.monotonic()
    long = [f"long{n}" for n in range(3)]
    history.accepted_many(long, await slow.defer_many([(key, 4.5) for key in long]))
    history.accepted("fails", await fails_at_first.defer("fails", 1))
    history.accepted("delayed", await quick.options(delay=2).defer("delayed"))
    await tables.drained()

    assert set(history.starts().values()) == {1, 2}, "a lease was lost"
    assert history.starts()["fails"] == 2
    assert 2 <= history.of("delayed")[0].at - began_at < 2 + LATE_SECONDS
    first, second = history.of("fails")
    assert 0.5 <= second.at - first.at < 1 + LATE_SECONDS
    assert {event.pid for event in history.events("start")} & set(worker.children())
    await checker.check()


async def test_a_clock_that_steps_to_and_fro_costs_no_lease(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    tables: Tables,
    client: Client,
    history: History,
    checker: Checker,
    tmp_path: Path,
) -> None:
    file = tmp_path / "offset"
    step(file, "+0s")
    worker = start_worker("--concurrency", "8", environ=stepping(file)).wait_until_ready()
    start_worker("--concurrency", "2").wait_until_ready()
    keys = [f"m{n}" for n in range(8)]
    history.accepted_many(keys, await slow.defer_many([(key, 7.0) for key in keys]))
    for offset in STEPS:
        step(file, offset)
        await quick.defer("while")
        await asyncio.sleep(1.3)
    await tables.drained()

    assert {history.starts()[key] for key in keys} == {1}
    await checker.check()
    seen = [datetime.fromisoformat(line["ts"]) for line in worker.lines()]
    assert max(abs(datetime.now(UTC) - at) for at in seen) < timedelta(days=2)


@pytest.mark.parametrize("offset", ["+3600s", "-1d"])
async def test_a_delay_does_not_depend_on_the_clock_of_who_defers(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    database_url: str,
    tables: Tables,
    client: Client,
    history: History,
    offset: str,
) -> None:
    start_worker().wait_until_ready()
    environ = {**environment(), **wrong_by(offset), "PGTASKS_DATABASE_URL": database_url}
    deferred = await asyncio.to_thread(
        subprocess.run,
        (sys.executable, "-c", DEFERRING),
        env=environ,
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    said_at = time.monotonic()
    clock, _ = deferred.stdout.split()
    assert abs(float(clock) - time.time()) > 3000, "its clock was not wrong"
    eventually(lambda: _ended(history, "delayed"))
    assert history.of("delayed")[0].at - said_at < 1.5 + LATE_SECONDS


async def test_workers_whose_clocks_differ_fire_each_tick_once(
    start_worker: StartWorker, tables: Tables, history: History
) -> None:
    for offset in ("+3600s", "-1d", "+0s"):
        start_worker(TICKS, environ=wrong_by(offset)).wait_until_ready()
    await asyncio.to_thread(
        eventually, lambda: _at_least(history, 5), within_seconds=5 + LATE_SECONDS + 5
    )
    rows = await tables.connection.fetch("SELECT fire_at FROM pgtasks.fire ORDER BY fire_at")
    ticks = [row["fire_at"] for row in rows]
    assert {late - early for early, late in pairwise(ticks)} == {timedelta(seconds=1)}
    assert not history.duplicates()


def _check_clock(worker: WorkerProcess, offset: str) -> None:
    said = datetime.fromisoformat(worker.lines("worker ready")[0]["ts"])
    assert abs(datetime.now(UTC) - said) > timedelta(minutes=50), f"its clock is not {offset}"


def _ended(history: History, key: str) -> None:
    assert key in history.keys("end")


def _at_least(history: History, count: int) -> None:
    assert len(history.starts()) >= count
