"""Workers that cannot start say why in a few words, and end."""

import socket
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from acceptance.addresses import run_statement
from acceptance.conftest import StartWorker
from acceptance.worker_process import WorkerProcess

from pgtasks import exit_codes

SOON_SECONDS = 10.0
PASSWORD = "s3cr3t-of-the-test"

MODULES = {
    "raises.py": 'raise ValueError("the setting FOO is missing")\n',
    "cannot_be_read.py": "def (:\n",
    "imports_what_is_not_there.py": "import a_package_that_is_not_installed\n",
    "without_a_task.py": "x = 1\n",
    "exits.py": "import sys\nsys.exit('not today')\n",
    "opens_nothing.py": """
from contextlib import asynccontextmanager
from pgtasks import lifespan, task

@lifespan
@asynccontextmanager
async def resources():
    raise ConnectionError("the mail server does not answer")
    yield

@task
async def work() -> None: ...
""",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder workers start in, with the modules above."""
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def refused(worker: WorkerProcess, code: int = exit_codes.FAILED) -> str:
    """It ended soon, by itself, with this code; gives what it said."""
    asked_at = time.monotonic()
    assert worker.wait(SOON_SECONDS) == code, worker.text()
    assert time.monotonic() - asked_at < SOON_SECONDS
    assert not worker.leftovers()
    return worker.text()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("not_there", "no module named 'not_there'"),
        ("raises", "the setting FOO is missing"),
        ("cannot_be_read", "SyntaxError"),
        ("imports_what_is_not_there", "a_package_that_is_not_installed"),
        ("without_a_task", "no task is registered"),
        ("exits", "exits"),
    ],
)
def test_module_that_cannot_be_used_is_named(
    module: str, said: str, folder: Path, start_worker: StartWorker
) -> None:
    text = refused(start_worker(module, "--processes", "2"))

    assert said in text
    assert module in text
    assert "Traceback" not in text
    assert "pgtasks/child.py" not in text


@pytest.mark.judged(shows_tracebacks=True)
def test_lifespan_that_fails_is_shown_in_its_own_lines(
    folder: Path, start_worker: StartWorker
) -> None:
    text = refused(start_worker("opens_nothing"))

    assert "ConnectionError: the mail server does not answer" in text
    assert 'opens_nothing.py", line 8' in text
    assert len(text.splitlines()) < 20
    assert "a mistake in pgtasks" not in text


def test_no_module_at_all_is_a_mistake_of_usage(folder: Path, database_url: str) -> None:
    worker = WorkerProcess.start((), {"PGTASKS_DATABASE_URL": database_url}, folder)

    text = refused(worker, exit_codes.USAGE)

    assert "no module" in text
    assert "Traceback" not in text


def test_queue_that_nobody_knows_is_named_beside_those_that_are(start_worker: StartWorker) -> None:
    text = refused(start_worker("--queue", "emials"), exit_codes.USAGE)

    assert "'emials'" in text
    assert "default" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("wrong", ["database", "role"])
def test_wrong_address_is_refused_without_its_password(
    wrong: str, level: str, start_worker: StartWorker, database_url: str
) -> None:
    url = _wrong(database_url, wrong)
    worker = start_worker("--log-level", level, environ={"PGTASKS_DATABASE_URL": url})

    text = refused(worker)

    assert "nobody_knows" in text
    assert "cannot connect" in text
    assert PASSWORD not in text
    assert "Traceback" not in text


def test_server_that_does_not_answer_is_waited_for_until_told_to_stop(
    start_worker: StartWorker,
) -> None:
    """It may come up a moment later, as in a group of containers."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/nobody_knows"
    worker = start_worker("--log-level", "debug", environ={"PGTASKS_DATABASE_URL": url})

    worker.wait_for("waiting for the database", times=2)
    assert worker.process.poll() is None
    assert worker.stop() == exit_codes.OK

    assert not worker.leftovers()
    assert str(port) in worker.text()
    assert PASSWORD not in worker.text()
    assert "Traceback" not in worker.text(), worker.text()


def _wrong(url: str, part: str) -> str:
    """The same server with a role and a password, and one part of the address wrong."""
    role = "nobody_knows" if part == "role" else "postgres"
    database = "nobody_knows" if part == "database" else urlsplit(url).path[1:]
    parts = urlsplit(url)._replace(netloc=f"{role}:{PASSWORD}@", path=f"/{database}")
    return urlunsplit(parts)


def test_password_is_in_no_line_of_a_worker_that_works(
    start_worker: StartWorker, database_url: str
) -> None:
    url = urlunsplit(urlsplit(database_url)._replace(netloc=f"postgres:{PASSWORD}@"))
    worker = start_worker("--log-level", "debug", environ={"PGTASKS_DATABASE_URL": url})
    worker.wait_until_ready()

    assert worker.stop() == exit_codes.OK
    assert PASSWORD not in worker.text()


def test_schema_of_a_newer_version_is_left_alone(
    start_worker: StartWorker, database_url: str
) -> None:
    run_statement(
        database_url, "INSERT INTO pgtasks.migration (version, name) VALUES (9999, 'later')"
    )

    text = refused(start_worker())

    assert "9999" in text
    assert "pgtasks package" in text
    assert "Traceback" not in text


def test_schema_that_may_not_be_installed_is_asked_for(
    start_worker: StartWorker, empty_database_url: str
) -> None:
    environ = {
        "PGTASKS_DATABASE_URL": empty_database_url,
        "PGTASKS__WORKER__INSTALL__ENABLE": "false",
    }

    text = refused(start_worker(environ=environ))

    assert "pgtasks db upgrade" in text
    assert "Traceback" not in text


def test_schema_is_installed_once_by_workers_that_start_together(
    start_worker: StartWorker, empty_database_url: str
) -> None:
    workers = [start_worker(environ={"PGTASKS_DATABASE_URL": empty_database_url}) for _ in range(3)]

    for worker in workers:
        worker.wait_until_ready()
    for worker in workers:
        assert worker.stop() == exit_codes.OK


def test_database_that_can_only_be_read_is_named_as_such(
    start_worker: StartWorker, database_url: str
) -> None:
    """A standby: what has to be made at the start cannot be made there."""
    _make_read_only(database_url)

    text = refused(start_worker())

    assert "can only be read" in text
    assert "primary" in text
    assert "Traceback" not in text


def test_database_that_can_only_be_read_is_waited_for_where_a_schema_is_missing(
    start_worker: StartWorker, empty_database_url: str
) -> None:
    """It may become the primary a moment later."""
    _make_read_only(empty_database_url)
    worker = start_worker(environ={"PGTASKS_DATABASE_URL": empty_database_url})

    worker.wait_for("waiting for the database", times=2)
    _make_read_only(empty_database_url, "off")
    worker.wait_until_ready()

    assert worker.stop() == exit_codes.OK
    assert "Traceback" not in worker.text(), worker.text()


def _make_read_only(url: str, switch: str = "on") -> None:
    name = urlsplit(url).path[1:]
    statement = f'ALTER DATABASE "{name}" SET default_transaction_read_only = {switch}'
    run_statement(url, f"SET transaction_read_only = off; {statement}")
