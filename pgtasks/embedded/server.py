"""Server: the embedded Postgres of a project, as one process holds it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from pgtasks.embedded import binaries as installed
from pgtasks.embedded import cluster, lock, postmaster, reaper
from pgtasks.embedded.binaries import Binaries
from pgtasks.embedded.handshake import answered_version
from pgtasks.embedded.place import PORT, Home, Place
from pgtasks.errors import EmbeddedError

START_SECONDS = 120.0
POLL_SECONDS = 0.002
LOG_BYTES = 4_000_000


@attrs.define(eq=False)
class Server:
    """A running server and this process's reference to it; it stops after the last one."""

    url: str
    version: str
    data_folder: Path
    binaries: Path
    _reference: int | None = attrs.field(repr=False)
    _closing: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def close(self) -> None:
        """Drop this process's reference. The server stops if it was the last; see `start`."""
        with self._closing:
            reference, self._reference = self._reference, None
        if reference is not None:
            # Closed, not unlocked: a forked child may share this reference and still need it.
            os.close(reference)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def start(project_folder: Path, *, durable: bool = True) -> Server:
    """Start the project's Postgres server, or use the one that runs (blocking; no event loop).

    The server is shared by all processes that start it for the same folder, and stops shortly
    after the last of them has closed it or ended, in whatever way it ended. The data is in
    `.pgtasks/pg<major>` of the project. It listens on a Unix socket only.

    Args:
        project_folder: The project; it must exist.
        durable: False for tests: faster, in a data folder of its own (`pg<major>-scratch`), and
            lost at a power cut.

    Raises:
        EmbeddedError: No server is installed, or it cannot be started; says what to do.

    Example:
        ```python
        with embedded.start(Path.cwd()) as server:
            connection = await asyncpg.connect(server.url)
        ```
    """
    with _explained(project_folder):
        place, found = _locate(project_folder.resolve(strict=True), durable=durable)
        deadline = time.monotonic() + START_SECONDS
        with lock.gate(place.gate, deadline):
            reference = lock.shared(place.lock, deadline)
            try:
                _ensure_data(place, found, deadline, durable=durable)
                version = _ensure_running(place, found, deadline)
            except BaseException:
                os.close(reference)
                raise
    url = f"postgresql://{cluster.SUPERUSER}@/{cluster.DATABASE}?host={place.socket_folder}&port={PORT}"
    return Server(url, version or found.version, place.data, found.folder, reference)


def _locate(project_folder: Path, *, durable: bool) -> tuple[Place, Binaries]:
    home = Home.of(project_folder)
    found = installed.find(home.account)
    name = f"pg{found.major}" if durable else f"pg{found.major}-scratch"
    home.make()
    place = Place(home.folder.resolve(), name, home.account)
    if place.data.exists():
        place.check_owner()
    place.make_locks()
    return place, found


def _ensure_data(place: Place, found: Binaries, deadline: float, *, durable: bool) -> None:
    cluster.check_version(place, found, durable=durable)
    if place.data.exists():
        return
    _evict(place, deadline)
    cluster.create(place, found, durable=durable)


def _evict(place: Place, deadline: float) -> None:
    """Stop the server of a data folder that was deleted under it; it has nothing to save."""
    while (unwatched := lock.exclusive_now(place.mark)) is None:
        pid = int(place.mark.read_text() or 0)
        if pid and postmaster.serves(pid, place.data):
            os.kill(pid, reaper.IMMEDIATE)
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"{place.data} was deleted, and its server (pid {pid}) does not stop. End it with "
                f"`kill -QUIT {pid}` and try again."
            )
        time.sleep(0.05)
    os.close(unwatched)


def _ensure_running(place: Place, found: Binaries, deadline: float) -> str:
    """Wait for an answer, starting the server once if there is none; gives its version."""
    log_start: int | None = None
    while time.monotonic() < deadline:
        version = _answer(place)
        unwatched = lock.exclusive_now(place.mark)
        try:
            if version is not None:
                if unwatched is not None:
                    _watch(place, unwatched)
                return version
            if unwatched is not None:
                if log_start is not None:
                    raise _failed("ended while starting", place, found, log_start)
                log_start = _launch_or_watch(place, found, unwatched)
        finally:
            if unwatched is not None:
                os.close(unwatched)
        time.sleep(POLL_SECONDS)
    pid = postmaster.recorded_pid(place.data)
    raise _failed(f"(pid {pid}) does not answer", place, found, log_start)


def _answer(place: Place) -> str | None:
    if not postmaster.claims_to_be_ready(place.data) or not place.socket.exists():
        return None
    place.check_socket_folder()
    return answered_version(place.socket, cluster.SUPERUSER, cluster.DATABASE)


def _launch_or_watch(place: Place, found: Binaries, mark: int) -> int:
    """Launch the server, unless one whose reaper was killed is still coming up or going down."""
    pid = postmaster.recorded_pid(place.data)
    if pid is not None and postmaster.serves(pid, place.data):
        _watch(place, mark)
        return _log_size(place)
    postmaster.clear_leftovers(place.data, place.socket)
    place.check_socket_folder()
    log_start = _trimmed_log_size(place)
    options = (
        *("-D", str(place.data), "-k", str(place.socket_folder), "-p", str(PORT)),
        *("-c", "listen_addresses="),
    )
    _send_reaper(place, mark, found.program("postgres"), *options)
    return log_start


def _watch(place: Place, mark: int) -> None:
    """Send a reaper for a server whose own was killed."""
    pid = postmaster.recorded_pid(place.data)
    if pid is not None:
        _send_reaper(place, mark, str(pid))


def _send_reaper(place: Place, mark: int, *server: str) -> None:
    """Start a reaper and hand it the mark; `server` is a command line or the pid to watch."""
    watched = lock.opened(place.lock)  # an own opening: ours must not keep it from waiting
    account = place.account
    try:
        subprocess.run(  # noqa: S603
            (
                *(sys.executable, "-I", "-S", reaper.__file__),
                *(str(watched), str(mark), str(account.uid), str(account.gid)),
                *(str(place.socket_folder), str(place.log), *server),
            ),
            check=True,
            cwd="/",
            env=installed.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(watched, mark),
            start_new_session=True,
        )
    finally:
        os.close(watched)


def _log_size(place: Place) -> int:
    return place.log.stat().st_size if place.log.exists() else 0


def _trimmed_log_size(place: Place) -> int:
    if _log_size(place) > LOG_BYTES:
        place.log.replace(place.log.with_suffix(".log.1"))
    return _log_size(place)


def _failed(what: str, place: Place, found: Binaries, log_start: int | None) -> EmbeddedError:
    said = ""
    if place.log.exists():
        with place.log.open("rb") as log:
            log.seek(log_start or 0)
            said = log.read().decode(errors="replace")[-4000:]
    return EmbeddedError(
        f"The embedded Postgres {found.version} of {place.data} {what} (account "
        f"{place.account.name}, log {place.log}). {cluster.next_step(said)}"
    )


@contextmanager
def _explained(project_folder: Path) -> Iterator[None]:
    """Say what the system refused in terms of the embedded server."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(
            f"The embedded Postgres of {project_folder} cannot be used: {error}. Check that the "
            "folder exists, that this account may write to it and that its disk is not full; or "
            "set PGTASKS_DATABASE_URL to a database that runs already."
        ) from error
