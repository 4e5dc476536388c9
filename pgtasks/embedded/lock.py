"""Locks on files: the kernel drops them however a process ends, so they count references."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgtasks.errors import EmbeddedError

POLL_SECONDS = 0.003


def opened(path: Path) -> int:
    """Open a lock file, made when missing.

    Closed on exec, so programs that a holder starts hold nothing. A child forked without exec
    does inherit a reference, on purpose: it inherited the Server too, and must not lose the
    database when its parent goes first.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def is_taken(descriptor: int, kind: int) -> bool:
    """Take a lock if that is possible right now; False when somebody else has it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def shared(path: Path, deadline: float) -> int:
    """A shared lock on `path`: one reference. Waits while the reaper stops the server."""
    descriptor = opened(path)
    try:
        _wait_for(descriptor, fcntl.LOCK_SH, path, deadline)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def exclusive_now(path: Path) -> int | None:
    """An exclusive lock on `path`, or None when somebody has it."""
    descriptor = opened(path)
    if is_taken(descriptor, fcntl.LOCK_EX):
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def gate(path: Path, deadline: float) -> Iterator[None]:
    """Let one process through at a time."""
    descriptor = opened(path)
    try:
        _wait_for(descriptor, fcntl.LOCK_EX, path, deadline)
        yield
    finally:
        # Unlocked by name, not only closed: a child forked meanwhile has a copy of it.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _wait_for(descriptor: int, kind: int, path: Path, deadline: float) -> None:
    while not is_taken(descriptor, kind):
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"Another process has held {path} for too long: it is starting or stopping the "
                f"embedded server there and does not get on. Find it with `fuser {path}`, end it, "
                "and try again."
            )
        time.sleep(POLL_SECONDS)
