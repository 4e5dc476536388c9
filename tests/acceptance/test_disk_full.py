"""The disk of the database is full for a while."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from acceptance.addresses import run_statement
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.own_server import OwnServer
from acceptance.small_disk import SmallDisk, small_disk
from acceptance.tasks_under_test import quick, slow
from acceptance.worker_process import WorkerProcess
from eventually import eventually

from pgtasks import Client, Config, connect
from pgtasks.config import DatabaseConfig
from pgtasks.errors import DatabaseError, DatabaseUnreachable

FULL_SECONDS = float(os.environ.get("PGTASKS_TEST_DISK_SECONDS", "5"))
"""20 is the long run."""
BACK_SECONDS = 10.0
LATE_SECONDS = 3.0
LONG = "x" * 2_000
"""So that few messages fit on a page, and fewer into what free space a table has left."""


@pytest.fixture
def server() -> Iterator[OwnServer]:
    with OwnServer() as running:
        yield running


@pytest.fixture
def disk(server: OwnServer, tmp_path: Path) -> Iterator[SmallDisk]:
    """Where the database is, but not its log: without that no server goes on."""
    folder = server.folder / "disk"
    with small_disk(folder, server.account) as mounted:
        run_statement(server.url, f"CREATE TABLESPACE small LOCATION '{folder / 'space'}'")
        server.create_database("TABLESPACE small")
        yield mounted
        server.stop("immediate")


@pytest.fixture
async def client(disk: SmallDisk, server: OwnServer) -> AsyncIterator[Client]:
    async with connect(config=Config(database=DatabaseConfig(url=server.url))) as client:
        yield client


@pytest.fixture
def worker(
    disk: SmallDisk, server: OwnServer, start_worker: StartWorker, checker: Checker
) -> WorkerProcess:
    checker.url = server.url
    environ = {
        "PGTASKS_DATABASE_URL": server.url,
        "PGTASKS__WORKER__QUEUE_FETCH__ERROR_DELAY": "3s",
    }
    return start_worker("--concurrency", "4", environ=environ).wait_until_ready()


async def test_a_full_disk_loses_nothing(
    disk: SmallDisk, worker: WorkerProcess, client: Client, history: History, checker: Checker
) -> None:
    """Who defers is told that nothing was stored; what ran meanwhile is settled afterwards."""
    for n in range(30):
        history.accepted(f"before{n}", await slow.defer(f"before{n}", 0.3))
    refusals: list[DatabaseError] = []
    with history.lasting_fault("disk-full"):
        await asyncio.to_thread(disk.fill)
        until, number = time.monotonic() + FULL_SECONDS, 0
        while time.monotonic() < until or not refusals:
            number += 1
            key = f"full{number}-{LONG}"
            try:
                history.accepted(key, await quick.defer(key))
            except DatabaseError as error:
                refusals.append(error)
            await asyncio.sleep(0.02)
        await asyncio.to_thread(disk.empty)
    back_at = time.monotonic()
    history.accepted("after", await quick.defer("after"))
    eventually(lambda: _ended(history, "after"), within_seconds=BACK_SECONDS + LATE_SECONDS)

    assert history.of("after")[0].at - back_at < BACK_SECONDS
    assert not any(isinstance(error, DatabaseUnreachable) for error in refusals)
    assert "Nothing was stored" in str(refusals[0])
    assert len(worker.lines("worker ready")) == 1, "its process was replaced"
    await checker.check()


def _ended(history: History, key: str) -> None:
    assert key in history.keys("end")
