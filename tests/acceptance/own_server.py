"""A Postgres server of one test's own, that can be taken away and brought back."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

import attrs
from acceptance.addresses import run_statement
from acceptance.processes import running
from eventually import eventually

from pgtasks import embedded
from pgtasks.database_url import with_database
from pgtasks.embedded import Server


@attrs.define(eq=False)
class OwnServer:
    """An embedded server that keeps what it has said to be stored, as a real one does."""

    folder: Path = attrs.field(factory=lambda: Path(tempfile.mkdtemp(prefix="pgtasks-own-")))
    _server: Server = attrs.field(init=False)
    _database: str = attrs.field(default="postgres", init=False)

    def __enter__(self) -> Self:
        self.folder.chmod(0o755)  # for the account that root steps down to
        self._server = embedded.start(self.folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        data = self._server.data_folder
        try:
            eventually(lambda: not_served(data), within_seconds=40)
        finally:
            for pid in servers_of(data):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT)
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The address of the latest database; it stays the same over restarts."""
        return with_database(self._server.url, self._database)

    @property
    def account(self) -> tuple[int, int]:
        """The user and the group that it runs as."""
        owner = self._server.data_folder.stat()
        return owner.st_uid, owner.st_gid

    def create_database(self, more: str = "") -> None:
        """Create an empty database, to be used from now on; `more` is said of it in SQL."""
        self._database = f"test_{uuid4().hex[:12]}"
        run_statement(self._server.url, f'CREATE DATABASE "{self._database}" {more}')

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop it and return when it is gone; `immediate` is as if its machine had lost power."""
        data = self._server.data_folder
        owner = data.stat()
        as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
        pg_ctl = str(self._server.binaries / "pg_ctl")
        if not Path(pg_ctl).exists():
            os.kill(servers_of(data)[0], {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        else:
            subprocess.run(
                (pg_ctl, "-D", str(data), "-m", mode, "-w", "stop"),
                check=True,
                timeout=60,
                cwd="/",
                stdout=subprocess.DEVNULL,
                **as_owner,  # type: ignore[call-overload]
            )
        eventually(lambda: not_served(data), within_seconds=20)

    def start(self) -> None:
        """Bring it back, at the same address; nothing happens when it runs."""
        before, self._server = self._server, embedded.start(self.folder)
        before.close()

    def copy(self) -> Path:
        """Keep what it has stored by now, as a standby does; it is stopped for that."""
        kept = self.folder / "standby"
        self.stop("fast")
        subprocess.run(("cp", "-a", str(self._server.data_folder), str(kept)), check=True)
        self.start()
        return kept

    def replace_by(self, standby: Path) -> None:
        """Lose power, and let a standby take its place and address that has only what it has."""
        data = self._server.data_folder
        self.stop("immediate")
        shutil.rmtree(data)
        standby.rename(data)
        signal_file = data / "standby.signal"
        signal_file.touch()
        os.chown(signal_file, *self.account)
        self.start()
        run_statement(self.url, "SELECT pg_promote()")


def servers_of(data: Path) -> list[int]:
    """The main processes of servers on a data folder: none or one."""
    found = {one.pid: one for one in running() if f" -D {data}" in one.command}
    # What it has just forked still has its command line.
    return [pid for pid, one in found.items() if one.parent not in found]


def not_served(data: Path) -> None:
    """No server runs on a data folder."""
    assert not servers_of(data)
