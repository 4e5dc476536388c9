"""Health file: where a supervisor writes every second how its worker is, for `pgtasks health`.

Reading a file cannot hang, however the worker does, and a file that nobody has refreshed says that
its supervisor hangs. The supervisor holds a lock on it: a file that can be locked is a dead one's,
whoever has its process id now. It is written in place, so that a full disk does not stop it.
"""

import fcntl
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep
from typing import Final, Self
from uuid import uuid4

import attrs
import msgspec

from pgtasks.embedded import lock
from pgtasks.health import Health, Problem

PLACES: Final = ("/dev/shm", "/tmp", "/var/tmp")  # noqa: S108 - owner and mode are checked
"""Where there may be room, the best first: memory before disks. Never the working folder, which
others would not find, nor a folder that a variable names, which a probe may not have."""
MOST_BYTES: Final = 1 << 20
TRIES: Final = 50
TRY_SECONDS: Final = 0.001
"""How often, and how long apart, a file is read that is being written at this moment."""
SUFFIX: Final = ".worker"


@attrs.frozen
class Status:
    """What a supervisor says of its worker.

    Attributes:
        pid: the supervisor.
        host: the machine or container: several may share a folder for temporary files.
        project_folder: where the worker's settings come from.
        stale_after: for how many seconds nothing may be heard of a part.
        written_at: when, by `time.monotonic`.
        health: how it is.
    """

    pid: int
    host: str
    project_folder: str
    stale_after: float
    written_at: float
    health: Health

    @classmethod
    def of(cls, project_folder: Path, stale_after: float, health: Health) -> Self:
        """The status of this process's worker now."""
        folder = str(project_folder)
        return cls(os.getpid(), gethostname(), folder, stale_after, monotonic(), health)

    def heard(self, now: float) -> "Status":
        """What it comes to: with a supervisor that has not been heard of for too long, all red."""
        silent_seconds = now - self.written_at
        if silent_seconds <= self.stale_after:
            return self
        silent = Problem("silent", silent_seconds, self.pid)
        return attrs.evolve(self, health=attrs.evolve(self.health, problems=(silent,)))


@attrs.define(eq=False)
class HealthFile:
    """The file of one worker, locked until it ends."""

    path: Path
    _descriptor: int

    @classmethod
    def make(cls, status: Status, places: Iterable[str] = PLACES) -> Self:
        """Make the file of this process's worker, in the first place that takes it.

        Raises:
            OSError: none does.
        """
        refused: OSError | None = None
        for place in places:
            try:
                return cls._make_in(_own_folder(Path(place)), status)
            except OSError as error:
                refused = refused or error
        raise refused or FileNotFoundError("no place to write to is known")

    @classmethod
    def _make_in(cls, folder: Path, status: Status) -> Self:
        name = f"{status.pid}-{uuid4().hex[:8]}"
        # Under its name only once it is locked and filled: before, it would be a dead one's.
        unfinished, path = folder / f"{name}.new", folder / f"{name}{SUFFIX}"
        descriptor = lock.exclusive_now(unfinished)
        if descriptor is None:
            raise BlockingIOError(f"{unfinished} is locked")
        made = cls(path, descriptor)
        try:
            made.write(status)
            unfinished.rename(path)
            list(_read_all(folder))  # removes what workers left that were killed
        except BaseException:
            made.close()
            unfinished.unlink(missing_ok=True)
            raise
        return made

    def write(self, status: Status) -> None:
        """Say anew how the worker is.

        Raises:
            OSError: it cannot be written.
        """
        text = msgspec.json.encode(status)
        os.pwrite(self._descriptor, b"%08x %s\n" % (zlib.crc32(text), text), 0)

    def is_gone(self) -> bool:
        """Whether somebody has removed the file, so that nobody can find it."""
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """Remove the file: the worker has ended."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def find_workers(places: Iterable[str] = PLACES) -> list[Status]:
    """What the workers on this machine say that this account may ask about; root asks about all.

    Files of workers that are gone are removed.
    """
    host, now = gethostname(), monotonic()
    statuses = [status for folder in _folders(places) for status in _read_all(folder)]
    found = [status.heard(now) for status in statuses if status.host == host]
    return sorted(found, key=lambda status: status.pid)


def _own_folder(place: Path) -> Path:
    """The folder of this account's workers in a place, made when it is missing."""
    folder = place / f"pgtasks-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_owned(folder, os.geteuid()):
        raise PermissionError(f"{folder} is not a folder of this account alone")
    return folder


def _folders(places: Iterable[str]) -> Iterator[Path]:
    for place in dict.fromkeys(places):
        # A container may start as root and run its worker as somebody else.
        pattern = "pgtasks-*" if os.geteuid() == 0 else f"pgtasks-{os.geteuid()}"
        for folder in Path(place).glob(pattern):
            account = folder.name.removeprefix("pgtasks-")
            if account.isdecimal() and _is_owned(folder, int(account)):
                yield folder


def _is_owned(folder: Path, account: int) -> bool:
    """Whether it is a folder that this account alone can write to."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == account
    return mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read_all(folder: Path) -> Iterator[Status]:
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # gone meanwhile
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                continue
            if lock.is_taken(descriptor, fcntl.LOCK_SH):
                path.unlink(missing_ok=True)
            elif status := _read(descriptor):
                yield status
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> Status | None:
    """Read a status; again when it is being written at this moment."""
    for _ in range(TRIES):
        line = os.pread(descriptor, MOST_BYTES, 0).partition(b"\n")[0]
        check, _, text = line.partition(b" ")
        if check == b"%08x" % zlib.crc32(text):
            with suppress(msgspec.DecodeError):  # written by another version of pgtasks
                return msgspec.json.decode(text, type=Status)
            return None
        sleep(TRY_SECONDS)
    return None
