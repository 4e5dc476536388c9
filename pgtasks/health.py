"""Health: whether a worker works, judged from the pulses of its processes. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

import attrs

from pgtasks.pulse import Part, Reading

Kind = Literal[
    "starting", "slow start", "frozen", "held up", "claiming", "settling", "extending", "firing",
    "database", "draining", "stopping", "ended", "silent",
]  # fmt: skip

TEXTS: Final[dict[Kind, str]] = {
    "starting": "a process is starting",
    "slow start": "a process has not become ready in time",
    "frozen": "a process does not run",
    "held up": "the event loop of a process is held up",
    "claiming": "messages are not claimed",
    "settling": "outcomes are not written",
    "extending": "leases are not extended",
    "firing": "schedules do not fire",
    "database": "the database does not answer",
    "draining": "a process is stopping",
    "stopping": "the worker is stopping",
    "ended": "the worker has ended",
    "silent": "the worker does not run",
}
"""What is told to whoever asks: no name, no address, nothing of the application's."""

_PASSING: Final = {"starting", "database", "draining", "stopping"}
"""What a restart would not mend, or would make worse."""
_FETCHING: Final[set[Part]] = {"claiming", "firing"}


@attrs.frozen
class Problem:
    """Something that keeps a worker from working.

    Attributes:
        kind: what it is.
        seconds: for how long, as far as is known.
        pid: the process it is about; None: all of the worker.
    """

    kind: Kind
    seconds: float
    pid: int | None = None

    @property
    def text(self) -> str:
        """What it is in words, without a name."""
        return TEXTS[self.kind]

    @property
    def is_fatal(self) -> bool:
        """Whether the worker has to be started anew, as far as can be told."""
        return self.kind not in _PASSING


@attrs.frozen
class Process:
    """One process of a worker, as its supervisor sees it.

    Attributes:
        pid: its number; None while there is none.
        is_ready: whether it has said that it is.
        vacant_seconds: for how long there has been none in its place that was.
        readings: what its parts say.
    """

    pid: int | None
    is_ready: bool
    vacant_seconds: float = 0.0
    readings: Sequence[Reading] = ()


@attrs.frozen
class Health:
    """Whether a worker works.

    Attributes:
        problems: what is wrong; nothing, most of the time.
        processes: how many processes it has.

    Example:
        ```python
        worker.health().is_ready
        ```
    """

    problems: tuple[Problem, ...] = ()
    processes: int = 1

    @property
    def is_live(self) -> bool:
        """Whether there is no reason to start it anew. Does not depend on the database."""
        return not any(problem.is_fatal for problem in self.problems)

    @property
    def is_ready(self) -> bool:
        """Whether it runs what is sent: started, not stopping, and the database answers."""
        return not self.problems

    def reasons(self, *, ready: bool) -> list[str]:
        """What keeps it from being live, or ready: each reason once, without a name."""
        told = (one.text for one in self.problems if ready or one.is_fatal)
        return list(dict.fromkeys(told))


def judge(processes: Iterable[Process], *, stale_after: float, start_within: float) -> Health:
    """Say what is wrong with the processes of a worker.

    Args:
        processes: all of them.
        stale_after: for how many seconds a promise may be broken.
        start_within: in how many seconds a process has to be ready.
    """
    known = list(processes)
    problems = [one for process in known for one in _problems(process, stale_after, start_within)]
    return Health(tuple(problems), len(known))


def _problems(process: Process, stale_after: float, start_within: float) -> Iterator[Problem]:
    if not process.is_ready:
        kind: Kind = "slow start" if process.vacant_seconds > start_within else "starting"
        yield Problem(kind, process.vacant_seconds, process.pid)
        return
    late = _late(process)
    if late.get("loop", 0.0) > stale_after:
        # The keeper has a thread of its own, which no `time.sleep` of a task's holds up.
        kind = "frozen" if late.get("extending", 0.0) > stale_after / 2 else "held up"
        yield Problem(kind, late["loop"], process.pid)
        return
    for part, seconds in late.items():
        if seconds > stale_after:
            yield Problem(part, seconds, process.pid)  # type: ignore[arg-type] # not the loop
    fetching = [reading for reading in process.readings if reading.part in _FETCHING]
    failing = [one.failing_seconds for one in fetching if one.failing_seconds is not None]
    if failing:
        yield Problem("database", max(failing), process.pid)
    if any(reading.is_over for reading in fetching):
        yield Problem("draining", 0.0, process.pid)


def _late(process: Process) -> dict[Part, float]:
    """For how long each part has been late; of several schedulers, the latest counts."""
    late: dict[Part, float] = {}
    for reading in process.readings:
        late[reading.part] = max(late.get(reading.part, 0.0), reading.late_seconds)
    return late
