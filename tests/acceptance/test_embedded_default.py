"""With no database configured: a project folder, a worker, and a program that defers."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
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
def start(project: Path, history: History) -> Iterator[Callable[[], WorkerProcess]]:
    """Starts workers that start, or find, the embedded server."""
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        settings = {VARIABLE: str(history.path)}
        started.append(WorkerProcess.start(("shop", "--log-format", "json"), settings, project))
        return started[-1].wait_until_ready()

    yield start
    for worker in started:
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


def test_worker_brings_its_server_and_leaves_none_behind(
    project: Path, start: Callable[[], WorkerProcess], history: History
) -> None:
    """Others find it; it ends with a worker that is killed, and with one that stops."""
    killed = start()
    data = defer(project, "Ada")
    try:
        eventually(lambda: _greeted(history, "Ada"))
        assert len(servers_of(data)) == 1

        killed.end()  # kill -9 of all that would have stopped it

        eventually(lambda: not_served(data), within_seconds=15)

        stopped = start()
        assert defer(project, "Grace") == data, "the data are those of before"
        eventually(lambda: _greeted(history, "Grace"))

        assert stopped.stop() == exit_codes.OK

        eventually(lambda: not_served(data), within_seconds=15)
    finally:
        end_server(data)
