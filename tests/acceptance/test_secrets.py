"""A password gets into nothing that anybody reads: logs, errors, process lists, other processes."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
from acceptance.conftest import TASKS, StartWorker
from acceptance.processes import children_of, running
from acceptance.worker_process import environment

SECRET = "s3cr3t-of-the-test"
PROGRAM = """
import asyncio, logging, pgtasks
from pgtasks.cli import main

for words in (["queue", "list"], ["doctor"], ["db", "check"], ["config", "show"], ["defer", "work"],
              ["config", "check"], ["health"], ["schedule", "list"]):
    print(words, main(words))

logging.basicConfig(level="DEBUG")

async def connecting():
    async with pgtasks.connect():
        pass

asyncio.run(connecting(), debug=True)
"""
WAITING = ["dead port", "wrong password", "wrong host", "an @ in it"]
"""For which a worker is started too: it says other things."""


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """Of a server that asks for a password, and does not take it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, suppress(OSError, struct.error):
                        _refuse(client)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def _refuse(client: socket.socket) -> None:
    client.recv(8)
    client.sendall(b"N")
    client.recv(10_000)
    client.sendall(b"R" + struct.pack("!ii", 8, 3))
    client.recv(10_000)
    fields = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "me"\0\0'
    client.sendall(b"E" + struct.pack("!i", 4 + len(fields)) + fields)


ADDRESSES = {
    "dead port": "postgresql://me:{}@127.0.0.1:1/app",
    "wrong password": "postgresql://me:{}@127.0.0.1:{port}/app",
    "wrong host": "postgresql://me:{}@no-such-host.invalid/app",
    "bad sslmode": "postgresql://me:{}@127.0.0.1:1/app?sslmode=all",
    "no root certificate": "postgresql://me:{}@127.0.0.1:1/app?sslmode=verify-full&sslrootcert=/no",
    "bad escapes": "postgresql://me:{}%zz%@127.0.0.1:1/app",
    "in the query": "postgresql://127.0.0.1:1/app?user=me&password={}",
    "not a port": "postgresql://me:{}@127.0.0.1:five/app",
    "no host": "postgresql://me:{}",
    "an @ in it": "postgresql://me:a@{}@127.0.0.1:1/app",
    "a / in it": "postgresql://me:a/{}@127.0.0.1:1/app",
    "a ? in it": "postgresql://me:a?{}@127.0.0.1:1/app",
    "a # in it": "postgresql://me:a#{}@127.0.0.1:1/app",
    "a : and an @ in it": "postgresql://me:a@b:{}@127.0.0.1/app",
    "a bracket in it": "postgresql://me:[{}@127.0.0.1/app",
    "another scheme": "mysql://me:{}@127.0.0.1/app",
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_no_address_that_fails_is_shown_with_its_password(
    name: str, refusing_port: int, tmp_path: Path
):
    """Neither by commands, nor by a worker, nor in the traceback of a program, at DEBUG."""
    url = ADDRESSES[name].replace("{port}", str(refusing_port)).replace("{}", SECRET)
    environ = {
        **environment(),
        "PGTASKS_DATABASE_URL": url,
        "PGTASKS__DATABASE__CONNECT_TIMEOUT": "2s",
        "PYTHONASYNCIODEBUG": "1",
        "HOME": str(tmp_path),
    }
    commands = [[sys.executable, "-X", "dev", "-c", PROGRAM]]
    if name in WAITING:
        commands.append([sys.executable, "-m", "pgtasks", "worker", TASKS, "--log-level", "debug"])
    with ExitStack() as stack:
        started = [stack.enter_context(_running(words, environ, tmp_path)) for words in commands]
        assert started[0].wait(60) != 0
        for worker in started[1:]:
            # It waits for a database that may come up.
            with suppress(subprocess.TimeoutExpired):
                worker.wait(4)
    said = [file.read_text(errors="replace") for file in sorted(tmp_path.glob("said-*"))]
    assert len(said) == len(commands)
    assert "Traceback" in said[0]
    assert "['schedule', 'list']" in said[0]
    assert [text for text in said if SECRET in text] == []


@contextmanager
def _running(
    words: list[str], environ: dict[str, str], folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command to its end, or to the end of the block; what it says is kept in a file."""
    file = folder / f"said-{len(list(folder.glob('said-*')))}"
    with file.open("wb") as said:
        process = subprocess.Popen(
            words, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def _with_password(url: str) -> str:
    """The same database, whose server asks for no password and is told one."""
    return urlunsplit(urlsplit(url)._replace(netloc=f"postgres:{quote(SECRET)}@"))


@pytest.mark.parametrize("way", ["variable", "file", "flag"])
def test_no_process_shows_a_password(
    start_worker: StartWorker, database_url: str, tmp_path: Path, way: str
):
    """Not in its arguments, unless somebody puts it there, and what it starts inherits none."""
    url = _with_password(database_url)
    arguments, environ = ["--log-level", "debug", "--processes", "2"], {"PGTASKS_DATABASE_URL": ""}
    if way == "variable":
        environ["PGTASKS_DATABASE_URL"] = url
    elif way == "file":
        file = tmp_path / "pgtasks.toml"
        file.write_text(f"[database]\nurl = {json.dumps(url)}\n")
        file.chmod(0o600)
    else:
        arguments += ["--database-url", url]
    worker = start_worker(*arguments, environ=environ).wait_until_ready(2)

    started = children_of(worker.pid)
    shown = {one.pid: one.command for one in running() if one.pid in {worker.pid, *started}}
    assert len(started) == 2
    for pid, command in shown.items():
        assert SECRET not in command or (way == "flag" and pid == worker.pid), command
    assert [pid for pid in started if SECRET in _environment_of(pid) and way != "variable"] == []
    worker.stop()
    assert SECRET not in worker.text()
    assert ("can be read by everybody" in worker.text()) is (way == "flag")


def _environment_of(pid: int) -> str:
    file = Path(f"/proc/{pid}/environ")
    return file.read_text(errors="replace") if file.exists() else ""


def test_no_representation_shows_a_password(tmp_path: Path):
    """Of the settings, wherever they are, nor of a command's arguments."""
    from pgtasks import layers
    from pgtasks.assignment import Assignment
    from pgtasks.cli.options import Source
    from pgtasks.client import connect
    from pgtasks.config import Config, DatabaseConfig
    from pgtasks.connection import Line
    from pgtasks.database import Database, given
    from pgtasks.merger import Layer, Merger, Origin
    from pgtasks.testing import temporary_database

    url = f"postgresql://me:{SECRET}@db/app?sslpassword={SECRET}"
    config = Config(database=DatabaseConfig(url=url))
    merger = Merger()
    layer = Layer.of(("database", "url"), url, Origin("variable", "X"))
    merger.add(layer)
    for value in (
        config, config.database, given(config), layers.load({"database.url": url}, folder=tmp_path),
        layers.Flag("--database-url", url), layer, merger, Source(database_url=url),
        Assignment((), config, None, None), Database(config.database, None),
        Line(config.database, "tests"), connect(url), connect(config=config),
        temporary_database(url), temporary_database(config=config),
    ):  # fmt: skip
        assert SECRET not in repr(value), type(value)
        assert SECRET not in str(value), type(value)
        assert SECRET not in f"{[value]}", type(value)
    assert os.environ.get("PGTASKS_DATABASE_URL") != url
