"""With no database configured: a project folder, a worker, and a program that defers."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from acceptance.history import VARIABLE, History
from acceptance.own_server import not_served, servers_of
from acceptance.worker_process import WorkerProcess, environment
from eventually import eventually

from pgtasks import exit_codes

MODULE = """
from acceptance.history import record
from pgtasks import task

@task
async def greet(name: str) -> None:
    record("start", name)
"""
PROGRAM = """
import asyncio, sys
from shop import greet
from pgtasks import connect

async def main() -> None:
    async with connect() as client:
        await greet.defer(sys.argv[1])
        print(await client.pool.fetchval("SHOW data_directory"))

asyncio.run(main())
"""


@pytest.fixture
def project() -> Iterator[Path]:
    """A folder with one module of tasks, where the account that root steps down to may enter."""
    folder = Path(tempfile.mkdtemp(prefix="pgtasks-project-"))
    folder.chmod(0o755)
    (folder / "shop.py").write_text(MODULE)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def worker(project: Path, history: History) -> Iterator[WorkerProcess]:
    """A worker that starts the embedded server."""
    settings = {VARIABLE: str(history.path)}
    worker = WorkerProcess.start(("shop", "--log-format", "json"), settings, project)
    yield worker
    worker.end()


def defer(project: Path, name: str) -> Path:
    """Defer from a program of its own; gives the server's data folder."""
    finished = subprocess.run(
        (sys.executable, "-c", PROGRAM, name),
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return Path(finished.stdout.strip())


def _greeted(history: History, name: str) -> None:
    assert name in history.starts()


def end_server(data: Path) -> None:
    """Make sure that nothing is left, even of a server that should have ended."""
    for pid in servers_of(data):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)


def test_worker_starts_a_server_that_others_find_and_kill_leaves_none(
    project: Path, worker: WorkerProcess, history: History
) -> None:
    worker.wait_until_ready()
    data = defer(project, "Ada")
    try:
        eventually(lambda: _greeted(history, "Ada"))
        assert len(servers_of(data)) == 1

        worker.end()  # kill -9 of all that would have stopped it

        eventually(lambda: not_served(data), within_seconds=15)
    finally:
        end_server(data)


def test_worker_that_stops_stops_its_server(
    project: Path, worker: WorkerProcess, history: History
) -> None:
    worker.wait_until_ready()
    data = defer(project, "Ada")
    try:
        eventually(lambda: _greeted(history, "Ada"))

        assert worker.stop() == exit_codes.OK

        eventually(lambda: not_served(data), within_seconds=15)
    finally:
        end_server(data)
