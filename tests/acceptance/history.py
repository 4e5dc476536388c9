"""History: what tasks did, told by themselves, in a file that outlives every process.

Not in the database: it is the one under test. Who defers writes down what was accepted, and who
does harm writes down what and to whom, so that a checker can hold one against the other.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import attrs
from eventually import eventually

from pgtasks import Handle, current_message

VARIABLE = "PGTASKS_TEST_HISTORY"
ANY = "any"
"""An outcome that nobody has named."""


@attrs.frozen
class Event:
    """One line: what happened to which message, where and when."""

    what: str
    key: str
    pid: int
    at: float
    """The machine's monotonic clock, which all its processes share."""
    delivery: int
    """The delivery of the message that was running; 0 outside of one."""
    note: str


def record(what: str, key: str, note: object = "") -> None:
    """Append an event; it is in the file when this returns, whatever becomes of the process."""
    _append(Path(os.environ[VARIABLE]), what, key, note)


def _append(path: Path, what: str, key: str, note: object) -> None:
    line = f"{what} {key} {os.getpid()} {monotonic()} {_delivery()} {note}\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # No fsync: it would guard against the machine's end only, and take 3 ms a line.
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def _delivery() -> int:
    try:
        return current_message().message.delivery
    except RuntimeError:
        return 0


@attrs.frozen
class History:
    """The events so far, and what can be told from them."""

    path: Path

    # What tests write down, in a file beside it

    @property
    def _notes(self) -> Path:
        return self.path.with_name(f"{self.path.name}-notes")

    def note(self, what: str, key: str, note: object = "") -> None:
        """Write down what somebody did to the workers or their database."""
        _append(self._notes, what, key, note)

    def accepted(
        self, key: str, handle: Handle, *, becomes: str = "done", has_effect: bool = False
    ) -> None:
        """Write down that `defer` has returned, and how the message is to end.

        Each `defer` of a test is written down anyway, as one whose message may end in any way.

        Args:
            key: the task's first argument.
            handle: what `defer` returned.
            becomes: its outcome in the archive, or `ANY`.
            has_effect: its task writes a row of the table `effect` in its own transaction.
        """
        effect = "effect" if has_effect else "-"
        self.note("accepted", key, f"{handle.queue} {handle.message_id} {becomes} {effect}")

    def accepted_many(self, keys: Iterable[str], handles: Iterable[Handle]) -> None:
        """Write down that `defer_many` has returned."""
        for key, handle in zip(keys, handles, strict=True):
            self.accepted(key, handle)

    def unsure(self, key: str) -> None:
        """Write down that `defer` has failed in a way that leaves open whether it had happened."""
        self.note("unsure", key)

    def rolled_back(self, key: str) -> None:
        """Write down that the transaction was rolled back in which a message was deferred."""
        self.note("rolled-back", key)

    def fault(self, kind: str, *pids: int) -> None:
        """Write down a fault just before it is done: to these processes, or to all of them."""
        self.note("fault", kind, " ".join(map(str, pids)))

    @contextmanager
    def lasting_fault(self, kind: str, *pids: int) -> Iterator[None]:
        """Write down a fault that lasts as long as the block."""
        self.fault(kind, *pids)
        try:
            yield
        finally:
            self.note("over", kind, " ".join(map(str, pids)))

    # What can be told

    def events(self, what: str | None = None) -> list[Event]:
        """What tasks did, all of it or one kind, in the order it was recorded."""
        return [event for event in _events(self.path) if what in (None, event.what)]

    def notes(self) -> list[Event]:
        """What tests did, in the order it was written down."""
        return _events(self._notes)

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


def _events(path: Path) -> list[Event]:
    if not path.exists():
        return []
    # Without the last line unless it is whole: at the end of a page, half of one can be seen.
    whole, _, _ = path.read_text().rpartition("\n")
    return [_read(line) for line in whole.splitlines()]


def _read(line: str) -> Event:
    what, key, pid, at, delivery, note = line.split(" ", 5)
    return Event(what, key, int(pid), float(at), int(delivery), note)
