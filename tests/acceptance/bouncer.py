"""A PgBouncer of one test's own, where the machine has the program."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest
from eventually import eventually

PROGRAM = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
SETTINGS = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {servers}
max_client_conn = 400
server_check_delay = 1
server_login_retry = 1
{more}
"""

needs_pgbouncer = pytest.mark.skipif(
    not Path(PROGRAM).exists(), reason="PgBouncer is not installed (apt-get install pgbouncer)"
)


@attrs.define(eq=False)
class Bouncer:
    """Stands between clients and the server of a URL, with few connections to that server."""

    _server_url: str
    servers: int = 3
    mode: str = "transaction"
    more: str = ""
    """Further settings, one a line."""
    port: int = attrs.field(init=False)
    _folder: Path = attrs.field(init=False)
    _process: "subprocess.Popen[bytes]" = attrs.field(init=False)

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="pgtasks-bouncer-"))
        self._folder.chmod(0o755)  # for the account that root steps down to
        self.port = free_port()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The address of the same database through it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}{urlsplit(self._server_url).path}"

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        parts = urlsplit(self._server_url)
        query = parse_qs(parts.query)
        host = query["host"][0]  # the servers of these tests listen on a Unix socket only
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(
            SETTINGS.format(
                host=host,
                port=query["port"][0],
                user=parts.username or "postgres",
                own_port=self.port,
                mode=self.mode,
                servers=self.servers,
                more=self.more,
            )
        )
        log = (self._folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                (PROGRAM, str(settings)),
                stdout=log,
                stderr=log,
                cwd="/",
                **_step_down(host),  # type: ignore[call-overload]
            )
        eventually(self._answers)

    def stop(self) -> None:
        """End it at once, with all connections, as when its machine goes."""
        self._process.kill()
        self._process.wait(10)

    def pause(self) -> None:
        """Let no statement through until `resume`, as before the server is restarted."""
        self._process.send_signal(signal.SIGUSR1)

    def resume(self) -> None:
        """Let what waits go on."""
        self._process.send_signal(signal.SIGUSR2)

    def text(self) -> str:
        """What it has logged."""
        return (self._folder / "log").read_text(errors="replace")

    def _answers(self) -> None:
        assert self._process.poll() is None, self.text()
        with socket.socket() as knock:
            assert knock.connect_ex(("127.0.0.1", self.port)) == 0, self.text()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def _step_down(socket_folder: str) -> dict[str, int]:
    """It will not run as root, and has to reach the server's socket: be who owns that."""
    if os.geteuid() != 0:
        return {}
    owner = Path(socket_folder).stat()
    return {"user": owner.st_uid, "group": owner.st_gid}
