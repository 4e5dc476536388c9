"""Worker processes, a client to defer with, and what can be seen of both from outside.

Every case that has started a worker, and has passed, is judged in the end: see `Checker`.
"""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
from acceptance.checker import Checker
from acceptance.history import VARIABLE, History
from acceptance.noting import note_defers
from acceptance.tables import Tables
from acceptance.worker_process import WorkerProcess

from pgtasks import Client, Config, connect
from pgtasks.config import DatabaseConfig
from pgtasks.duration import parse_duration
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


_HAS_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember of each test whether it has passed."""
    report = yield
    if report.when == "call":
        item.stash[_HAS_PASSED] = report.passed
    return report


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """What the tasks of this test do."""
    made = History(tmp_path / "history")
    note_defers(made, monkeypatch)
    return made


@pytest.fixture
def checker(
    database_url: str, history: History, request: pytest.FixtureRequest
) -> Iterator[Checker]:
    """What is asked at the end of a test whether every promise was kept.

    What differs from case to case is said by the test: `@pytest.mark.judged(may_overlap=True)`.
    """
    made = Checker(history, database_url)
    yield made
    node: pytest.Item = request.node
    if made.workers and not made.has_judged and node.stash.get(_HAS_PASSED, False):
        marker = node.get_closest_marker("judged")
        asyncio.run(made.check_what_is_left(**({} if marker is None else marker.kwargs)))
    for worker in made.workers:
        worker.end()


@pytest.fixture
def reach(database_url: str) -> Mapping[str, str]:
    """How workers reach the test's database, and as whom; a file of tests may say it otherwise."""
    return {"PGTASKS_DATABASE_URL": database_url}


@pytest.fixture
def start_worker(
    tmp_path: Path, reach: Mapping[str, str], history: History, checker: Checker
) -> StartWorker:
    """Starts workers on the test's database: options alone are for `TASKS`."""
    started = checker.workers

    def start(*arguments: str, environ: Mapping[str, str] | None = None) -> WorkerProcess:
        settings = {
            **SHORT,
            **reach,
            VARIABLE: str(history.path),
            **(environ or {}),
        }
        modules = () if arguments and not arguments[0].startswith("-") else (TASKS,)
        every = (*modules, *arguments, "--log-format", "json")
        started.append(WorkerProcess.start(every, settings, tmp_path))
        lease = parse_duration(settings["PGTASKS__TASK__LEASE"]).total_seconds()
        checker.lease_seconds = max(checker.lease_seconds, lease)
        return started[-1]

    return start


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
