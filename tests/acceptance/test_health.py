"""What a worker says of its health, from outside: `pgtasks health`, /livez, /readyz."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from acceptance.checker import Checker
from acceptance.conftest import SHORT, TASKS, StartWorker
from acceptance.history import History
from acceptance.own_server import OwnServer
from acceptance.tables import Tables
from acceptance.tasks_that_break import PARTS, breaks
from acceptance.tasks_under_test import blocking, quick, slow, swallows_cancellation
from acceptance.worker_process import WorkerProcess, environment
from eventually import eventually, eventually_async

from pgtasks import Client, Config, connect, exit_codes
from pgtasks.config import DatabaseConfig
from pgtasks.health_file import PLACES

STALE_SECONDS = 5.0
STALE = {"PGTASKS__WORKER__HEALTH__STALE_AFTER": f"{STALE_SECONDS:g}s"}
LATE_SECONDS = 4.0
"""A beat of the loop, one of the supervisor, and some for a busy machine."""
QUICK_SECONDS = 0.5
BREAKING = "acceptance.tasks_that_break"
PASSWORD = "s3cr3t-of-the-test"
END_LISTENER = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pgtasks listener'
"""


@attrs.frozen
class Asked:
    """What `pgtasks health` said."""

    code: int
    workers: list[dict[str, Any]]

    @property
    def kinds(self) -> set[str]:
        """What is wrong with any of them."""
        return {problem["kind"] for worker in self.workers for problem in worker["problems"]}


def ask(folder: Path, *arguments: str) -> Asked:
    """Ask for the health of the workers of a folder."""
    done = command(folder, "--json", *arguments)
    return Asked(done.returncode, json.loads(done.stdout))


def command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `pgtasks health` in a folder; it never takes long."""
    full = (sys.executable, "-m", "pgtasks", "health", *arguments)
    return subprocess.run(
        full, cwd=folder, env=environment(), capture_output=True, text=True, timeout=20, check=False
    )


def becomes(folder: Path, code: int, *kinds: str, within_seconds: float = 10) -> Asked:
    """Wait until the answer is this one."""

    def right() -> Asked:
        asked = ask(folder)
        assert (asked.code, asked.kinds) == (code, set(kinds))
        return asked

    return eventually(right, within_seconds=within_seconds)


def becomes_well(folder: Path, *, within_seconds: float = 10) -> Asked:
    """Wait until nothing is wrong."""
    return becomes(folder, exit_codes.OK, within_seconds=within_seconds)


# The command


async def test_a_worker_that_works_is_live_and_ready(
    start_worker: StartWorker, client: Client, tables: Tables, tmp_path: Path
) -> None:
    worker = start_worker("--processes", "2").wait_until_ready(2)

    asked = becomes_well(tmp_path)
    assert ask(tmp_path, "--ready") == asked
    [told] = asked.workers
    assert (told["pid"], told["processes"], told["ready"]) == (worker.pid, 2, True)
    text = command(tmp_path).stdout
    assert text == f"ok    worker {worker.pid}: live, ready\n"

    assert worker.stop() == exit_codes.OK
    assert ask(tmp_path) == Asked(exit_codes.FAILED, [])


def test_without_a_worker_it_says_so(tmp_path: Path) -> None:
    done = command(tmp_path)
    assert done.returncode == exit_codes.FAILED
    assert f"no worker of {tmp_path} runs here" in done.stdout
    assert "pgtasks worker" in done.stdout


def test_a_wrong_argument_is_a_mistake_of_usage(tmp_path: Path) -> None:
    assert command(tmp_path, "--pid", "first").returncode == exit_codes.USAGE


def test_a_worker_is_asked_for_by_its_folder_or_its_number(
    start_worker: StartWorker, database_url: str, tmp_path: Path
) -> None:
    worker = start_worker().wait_until_ready()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    becomes_well(tmp_path)

    done = command(elsewhere)
    assert done.returncode == exit_codes.FAILED
    assert f"worker {worker.pid} of {tmp_path}" in done.stdout
    assert ask(elsewhere, "--pid", str(worker.pid)).code == exit_codes.OK
    assert worker.pid in {one["pid"] for one in ask(elsewhere, "--all").workers}
    assert command(tmp_path, "--pid", "1").returncode == exit_codes.FAILED

    # Two of one folder: both have to be well.
    other = WorkerProcess.start(
        (TASKS, "--log-format", "json"), {**SHORT, "PGTASKS_DATABASE_URL": database_url}, tmp_path
    )
    try:
        other.wait_until_ready()
        asked = becomes_well(tmp_path)
        assert {one["pid"] for one in asked.workers} == {worker.pid, other.pid}
        other.signal(signal.SIGKILL)
        other.wait()
        eventually(lambda: _equal([w["pid"] for w in ask(tmp_path).workers], [worker.pid]))
    finally:
        other.end()


def test_a_worker_whose_file_somebody_removed_makes_another(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    """As systemd does with what an account has in memory when it logs out."""
    worker = start_worker().wait_until_ready()
    becomes_well(tmp_path)
    [file] = [
        path for place in PLACES for path in Path(place).glob(f"pgtasks-*/{worker.pid}-*.worker")
    ]

    file.unlink()

    becomes_well(tmp_path)
    assert worker.stop() == exit_codes.OK
    assert not list(file.parent.glob(f"{worker.pid}-*"))


async def test_a_task_that_blocks_the_loop_makes_it_red_until_it_has_ended(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, tmp_path: Path
) -> None:
    """The process lives, and so do its leases; it just does nothing."""
    worker = start_worker(environ=STALE).wait_until_ready()
    becomes_well(tmp_path)
    await blocking.defer("blocking", STALE_SECONDS + LATE_SECONDS + 3)
    history.wait_until_started(1)

    red = becomes(
        tmp_path, exit_codes.FAILED, "held up", within_seconds=STALE_SECONDS + LATE_SECONDS
    )
    [problem] = red.workers[0]["problems"]
    [child] = worker.children()
    assert problem["pid"] == child
    assert problem["seconds"] > STALE_SECONDS
    done = command(tmp_path)
    assert done.returncode == exit_codes.FAILED
    assert "the event loop of a process is held up" in done.stdout
    assert "a task blocks it" in done.stdout
    assert not history.keys("end")

    becomes_well(tmp_path)
    await tables.drained()
    assert history.starts() == {"blocking": 1}
    assert worker.children() == [child]


def test_a_child_that_was_stopped_is_red(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker("--processes", "2", environ=STALE).wait_until_ready(2)
    becomes_well(tmp_path)
    child = worker.children()[0]

    os.kill(child, signal.SIGSTOP)
    red = becomes(
        tmp_path, exit_codes.FAILED, "frozen", within_seconds=STALE_SECONDS + LATE_SECONDS
    )
    assert [problem["pid"] for problem in red.workers[0]["problems"]] == [child]

    os.kill(child, signal.SIGCONT)
    becomes_well(tmp_path)


def test_a_supervisor_that_was_stopped_is_red(start_worker: StartWorker, tmp_path: Path) -> None:
    """Nobody is there to say how its children are; asking does not hang."""
    worker = start_worker(environ=STALE).wait_until_ready()
    becomes_well(tmp_path)

    worker.signal(signal.SIGSTOP)
    becomes(tmp_path, exit_codes.FAILED, "silent", within_seconds=STALE_SECONDS + LATE_SECONDS)
    interpreter = _seconds_of((sys.executable, "-c", "import pgtasks.cli.app"))
    assert _seconds_of((sys.executable, "-m", "pgtasks", "health")) < interpreter + QUICK_SECONDS

    worker.signal(signal.SIGCONT)
    becomes_well(tmp_path)


def _seconds_of(full: tuple[str, ...]) -> float:
    """The least of three runs."""
    taken = []
    for _ in range(3):
        began_at = time.monotonic()
        subprocess.run(full, cwd="/", env=environment(), capture_output=True, check=False)
        taken.append(time.monotonic() - began_at)
    return min(taken)


async def test_a_worker_that_stops_is_live_and_not_ready(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, tmp_path: Path
) -> None:
    worker = start_worker().wait_until_ready()
    becomes_well(tmp_path)
    await slow.defer("running", 3.0)
    history.wait_until_started(1)

    worker.signal()

    becomes(tmp_path, exit_codes.OK, "stopping")
    assert ask(tmp_path, "--ready").code == exit_codes.FAILED
    assert worker.wait() == exit_codes.OK
    assert ask(tmp_path) == Asked(exit_codes.FAILED, [])


def test_a_start_that_takes_long_is_red_only_after_its_time(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n")
    worker = start_worker("hangs", environ={"PGTASKS__WORKER__HEALTH__START_WITHIN": "5s"})

    becomes(tmp_path, exit_codes.OK, "starting")
    assert ask(tmp_path, "--ready").code == exit_codes.FAILED
    becomes(tmp_path, exit_codes.FAILED, "slow start", within_seconds=5 + LATE_SECONDS)
    worker.signal(signal.SIGKILL)


# Over HTTP


@attrs.frozen
class Http:
    """Where a worker answers over HTTP."""

    port: int

    @property
    def environ(self) -> dict[str, str]:
        """The setting for it."""
        return {"PGTASKS__WORKER__HEALTH__LISTEN": str(self.port)}

    def get(self, path: str) -> tuple[int, str]:
        """The status and the body; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as told:
                return told.status, told.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def becomes(self, live: int, ready: int, *, within_seconds: float = 10) -> None:
        """Wait until both are answered so."""

        def right() -> None:
            assert (self.get("/livez")[0], self.get("/readyz")[0]) == (live, ready)

        eventually(right, within_seconds=within_seconds)


@pytest.fixture
def http() -> Http:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Http(server.getsockname()[1])


async def test_it_is_told_over_http_too(
    http: Http, start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker(environ=http.environ)
    http.becomes(200, 503)
    worker.wait_until_ready()
    http.becomes(200, 200)
    await slow.defer("running", 3.0)
    history.wait_until_started(1)

    worker.signal()

    http.becomes(200, 503)
    assert http.get("/readyz") == (503, "the worker is stopping\n")
    assert worker.wait() == exit_codes.OK
    assert http.get("/livez") == (0, "")


def test_nothing_is_answered_unless_asked_for(start_worker: StartWorker) -> None:
    worker = start_worker().wait_until_ready()
    assert not worker.lines("answering")
    assert not _listening(worker)


def _listening(worker: WorkerProcess) -> set[str]:
    """The inodes of sockets that listen and belong to the supervisor."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("looks into /proc")
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    own = set()
    for link in Path(f"/proc/{worker.pid}/fd").iterdir():
        own.add(str(link.readlink()))
    return listening & own


async def test_clients_that_misbehave_hold_nothing_up(
    http: Http, start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """The supervisor replaces a child and stops as quickly as it would without them."""
    worker = start_worker(environ=http.environ).wait_until_ready()
    http.becomes(200, 200)
    address = ("127.0.0.1", http.port)
    misbehaving = [socket.create_connection(address, timeout=5) for _ in range(200)]
    for number, one in enumerate(misbehaving):
        with suppress(OSError):  # sent away already
            one.sendall((b"GET /livez HTTP/1.1\r\nX: ", b"\xff" * 65536, b"", b"\r\n")[number % 4])

    [child] = worker.children()
    os.kill(child, signal.SIGKILL)
    worker.wait_for("worker ready", times=2)
    await quick.defer("after")
    history.wait_until_started(1)
    http.becomes(200, 200, within_seconds=10)

    stopped_at = time.monotonic()
    assert worker.stop() == exit_codes.OK
    assert time.monotonic() - stopped_at < 3
    for one in misbehaving:
        one.close()
    assert "Traceback" not in worker.text(), worker.text()


def test_a_port_that_is_taken_is_refused_like_any_wrong_setting(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "pgtasks.toml").write_text(f"[worker.health]\nlisten = {port}\n")
        worker = start_worker()
        assert worker.wait() == exit_codes.USAGE
    assert f"pgtasks.toml:2: worker.health.listen: cannot listen on 127.0.0.1:{port}" in (
        worker.text()
    )
    assert "in use" in worker.text()
    assert "Traceback" not in worker.text()
    assert not worker.leftovers()


def test_each_worker_of_a_machine_may_have_its_own_port(
    http: Http, start_worker: StartWorker
) -> None:
    start_worker(environ=http.environ).wait_until_ready()
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = Http(server.getsockname()[1])
    start_worker(environ=other.environ).wait_until_ready()
    http.becomes(200, 200)
    other.becomes(200, 200)


# The database


@pytest.fixture
def server() -> Iterator[OwnServer]:
    """A server that this test takes away."""
    with OwnServer() as own:
        own.create_database()
        yield own


async def test_a_database_that_is_away_ends_readiness_and_not_liveness(  # noqa: PLR0917 - by name
    server: OwnServer,
    http: Http,
    start_worker: StartWorker,
    history: History,
    checker: Checker,
    tmp_path: Path,
) -> None:
    """To start a worker anew would mend nothing. Nobody is told where the database is."""
    checker.url = server.url
    environ = {
        **STALE,
        **http.environ,
        "PGTASKS_DATABASE_URL": server.url,
        "PGTASKS__WORKER__QUEUE_FETCH__ERROR_DELAY": "2s",
    }
    start_worker(environ=environ).wait_until_ready()
    http.becomes(200, 200)
    away_at = time.monotonic()
    await asyncio.to_thread(server.stop, "fast")
    http.becomes(200, 503)
    becomes(tmp_path, exit_codes.OK, "database")
    answers = []
    while time.monotonic() - away_at < STALE_SECONDS + LATE_SECONDS:
        assert http.get("/livez") == (200, "ok\n")
        answers.append(http.get("/readyz"))
        asked = await asyncio.to_thread(ask, tmp_path)
        assert (asked.code, asked.kinds) == (exit_codes.OK, {"database"})
    assert set(answers) == {(503, "the database does not answer\n")}
    assert ask(tmp_path, "--ready").code == exit_codes.FAILED

    await asyncio.to_thread(server.start)
    http.becomes(200, 200)
    async with connect(config=Config(database=DatabaseConfig(url=server.url))):
        await quick.defer("after")
        history.wait_until_started(1)


def test_a_database_that_is_waited_for_at_the_start_is_no_reason_to_start_anew(
    http: Http, start_worker: StartWorker, tmp_path: Path
) -> None:
    url = f"postgresql://somebody:{PASSWORD}@127.0.0.1:{http.port + 1}/shop"
    worker = start_worker(environ={**http.environ, "PGTASKS_DATABASE_URL": url})
    worker.wait_for("waiting for the database")

    http.becomes(200, 503)
    asked = ask(tmp_path)
    assert (asked.code, asked.kinds) == (exit_codes.OK, {"starting"})
    told = http.get("/readyz")[1] + command(tmp_path).stdout + command(tmp_path, "--json").stdout
    assert not any(word in told for word in (PASSWORD, "somebody", "127.0.0.1", "postgresql"))
    assert worker.stop() == exit_codes.OK


# Parts that die by a mistake of ours


@pytest.mark.parametrize("part", PARTS)
async def test_no_worker_is_alive_and_idle_when_a_part_of_it_dies(
    part: str, start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """Its process ends, another takes its place; what ran is no suspect and costs no attempt."""
    arguments = (BREAKING, TASKS, "--queue", "default", "--concurrency", "4")
    worker = start_worker(*arguments, environ=STALE).wait_until_ready()
    [child] = worker.children()
    await slow.defer("beside", 2.0)
    history.wait_until_started(1)
    with history.lasting_fault("broken", child):
        await breaks.defer(part)
        history.wait_until_started(2)
        if part == "listener":

            async def ended() -> None:
                assert await tables.connection.fetchval(END_LISTENER)

            await eventually_async(ended)

        worker.wait_for("a part of the worker failed")
        failed_at = time.monotonic()
        worker.wait_for("worker ready", times=2)
    ready_in = time.monotonic() - failed_at
    await quick.defer("after")
    await tables.drained()

    assert ready_in < 2 + LATE_SECONDS
    assert child not in worker.children()
    [death] = worker.lines("worker process died")
    assert "broken by the test" in death["cause"] or "exited with code 1" in death["cause"], death
    assert not worker.lines("running suspects alone")
    assert history.keys("end") == {"beside", "after"}
    outcomes = await tables.outcomes()
    assert outcomes == {"done": 3}
    assert all(not row.state.get("failures") for row in await tables.archived())
    becomes_well(history.path.parent)
    assert worker.stop() == exit_codes.OK


async def test_a_task_that_will_not_end_does_not_keep_a_broken_worker(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    arguments = (BREAKING, TASKS, "--queue", "default", "--concurrency", "4")
    worker = start_worker(*arguments).wait_until_ready()
    [child] = worker.children()
    await swallows_cancellation.defer("deaf", 60.0)
    history.wait_until_started(1)
    with history.lasting_fault("broken", child):
        await breaks.defer("scheduler")
        worker.wait_for("worker process died")

    assert child not in worker.children()
    failed = worker.wait_for("a part of the worker failed")
    died = worker.lines("worker process died")[0]
    assert failed
    assert died["pid"] == child
    worker.wait_for("worker ready", times=2)


def _equal(one: object, other: object) -> None:
    assert one == other
