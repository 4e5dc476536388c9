"""Worker processes, a client to defer with, and what can be seen of both from outside."""

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
from acceptance.checker import Checker
from acceptance.history import VARIABLE, History
from acceptance.tables import Tables
from acceptance.worker_process import WorkerProcess

from pgtasks import Client, Config, connect
from pgtasks.config import DatabaseConfig
from pgtasks.store import Store

TASKS = "acceptance.tasks_under_test"
SHORT = {
    "PGTASKS__TASK__LEASE": "3s",
    "PGTASKS__WORKER__GRACE": "5s",
    "PGTASKS__WORKER__QUEUE_FETCH__EMPTY_DELAY": "1s",
    "PGTASKS__TASK__ON_SUCCESS": "archive",
}
"""Settings under which faults are seen soon, and successes can be counted."""


class StartWorker(Protocol):
    """Starts a worker that is ended with the test."""

    def __call__(
        self, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> WorkerProcess: ...


@pytest.fixture
def history(tmp_path: Path) -> History:
    """What the tasks of this test do."""
    return History(tmp_path / "history")


@pytest.fixture
def checker(database_url: str, history: History) -> Checker:
    """What is asked at the end of a test whether every promise was kept."""
    return Checker(history, database_url)


@pytest.fixture
def start_worker(
    tmp_path: Path, database_url: str, history: History, checker: Checker
) -> Iterator[StartWorker]:
    """Starts workers on the test's database: options alone are for `TASKS`."""
    started = checker.workers

    def start(*arguments: str, environ: Mapping[str, str] | None = None) -> WorkerProcess:
        settings = {
            **SHORT,
            "PGTASKS_DATABASE_URL": database_url,
            VARIABLE: str(history.path),
            **(environ or {}),
        }
        modules = () if arguments and not arguments[0].startswith("-") else (TASKS,)
        every = (*modules, *arguments, "--log-format", "json")
        started.append(WorkerProcess.start(every, settings, tmp_path))
        return started[-1]

    yield start
    for worker in started:
        worker.end()


@pytest.fixture
async def client(database: DatabaseConfig) -> AsyncIterator[Client]:
    """This process's way to defer."""
    async with connect(config=Config(database=database)) as opened:
        yield opened


@pytest.fixture
async def tables(connection: "asyncpg.Connection[asyncpg.Record]", client: Client) -> Tables:
    """The queue `default`, which is there from the start."""
    await Store(connection).create_queue("default")
    return Tables(connection)
