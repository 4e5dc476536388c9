"""History: what tasks did, told by themselves, in a file that outlives every process.

Not in the database: it is the one under test.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

import attrs
from eventually import eventually

VARIABLE = "PGTASKS_TEST_HISTORY"


@attrs.frozen
class Event:
    """One line: what happened to which message, where and when."""

    what: str
    key: str
    pid: int
    at: float
    """The machine's monotonic clock, which all its processes share."""
    note: str


def record(what: str, key: str, note: object = "") -> None:
    """Append an event; it is in the file when this returns, whatever becomes of the process."""
    line = f"{what} {key} {os.getpid()} {monotonic()} {note}\n"
    fd = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # No fsync: it would guard against the machine's end only, and take 3 ms a line.
        os.write(fd, line.encode())
    finally:
        os.close(fd)


@attrs.frozen
class History:
    """The events so far, and what can be told from them."""

    path: Path

    def events(self, what: str | None = None) -> list[Event]:
        """All events, or those of one kind, in the order they were recorded."""
        if not self.path.exists():
            return []
        events = [_read(line) for line in self.path.read_text().splitlines()]
        return [event for event in events if what in (None, event.what)]

    def of(self, key: str, what: str = "start") -> list[Event]:
        """The events of one message: by default its starts."""
        return [event for event in self.events(what) if event.key == key]

    def keys(self, what: str) -> set[str]:
        """The messages to which this happened, once or more often."""
        return {event.key for event in self.events(what)}

    def starts(self) -> Counter[str]:
        """How often each message was started."""
        return Counter(event.key for event in self.events("start"))

    def lost(self, expected: Iterable[str]) -> set[str]:
        """The messages that no run ever ended."""
        return set(expected) - self.keys("end")

    def wait_until_started(self, count: int, *, within_seconds: float = 10) -> None:
        """Wait until so many messages have been started."""

        def enough() -> None:
            assert len(self.starts()) >= count

        eventually(enough, within_seconds=within_seconds)

    def duplicates(self) -> set[str]:
        """The messages that were started more than once."""
        return {key for key, count in self.starts().items() if count > 1}


def _read(line: str) -> Event:
    what, key, pid, at, note = line.split(" ", 4)
    return Event(what, key, int(pid), float(at), note)
