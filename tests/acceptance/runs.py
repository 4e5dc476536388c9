"""Runs and faults, put together from what was written down."""

import math
from collections import defaultdict
from collections.abc import Sequence

import attrs
from acceptance.history import Event

ENDS = ("end", "raised", "cancelled", "snoozed")
WRITING_SECONDS = 1.5
"""How long the end of a run may take to be written and to reach the disk: a fault in this time
may cost the settlement, and the message runs again. A second and a half for a busy machine."""
DYING_SECONDS = 0.1
"""How long after a signal is noted a process may go on: a quick run begins every 12 µs."""


@attrs.frozen
class Fault:
    """Something bad that was done to processes, or to all of them."""

    kind: str
    pids: frozenset[int]
    """Whom it hit; empty: everybody."""
    at: float
    until: float

    def hit(self, run: "Run") -> bool:
        """Tell whether a run, or the writing of its end, may have suffered from it."""
        begun = run.started_at <= self.until + DYING_SECONDS
        is_in_time = begun and self.at <= run.ended_at + WRITING_SECONDS
        return is_in_time and (not self.pids or run.pid in self.pids)


@attrs.define
class Run:
    """One start of a message, and its end."""

    key: str
    pid: int
    delivery: int
    attempt: int | None
    started_at: float
    ended_at: float = math.inf
    how: str = ""
    """One of `ENDS`; empty when it never ended."""


def runs_of(events: Sequence[Event]) -> dict[str, list[Run]]:
    """All runs of each message, in the order they started."""
    runs: dict[str, list[Run]] = defaultdict(list)
    going: dict[tuple[str, int, int], Run] = {}
    for event in events:
        place = event.key, event.pid, event.delivery
        if event.what == "start":
            attempt = int(event.note) if event.note.isdigit() else None
            run = Run(event.key, event.pid, event.delivery, attempt, event.at)
            going[place] = run
            runs[event.key].append(run)
        elif event.what in ENDS and place in going:
            run = going.pop(place)
            run.ended_at, run.how = event.at, event.what
    for of_one in runs.values():
        of_one.sort(key=lambda run: run.started_at)
    return runs


def faults_of(events: Sequence[Event], notes: Sequence[Event]) -> list[Fault]:
    """The faults, with those that lasted from their beginning to their end.

    A task that ends its own process is one as well, for all that runs beside it.
    """
    faults = [
        Fault("death", frozenset({event.pid}), event.at, event.at)
        for event in events
        if event.what == "dies"
    ]
    for number, note in enumerate(notes):
        if note.what == "fault":
            over = (n.at for n in notes[number:] if _is_over(note, n))
            until = next(over, note.at)
            faults.append(Fault(note.key, frozenset(map(int, note.note.split())), note.at, until))
    return faults


def _is_over(fault: Event, note: Event) -> bool:
    return note.what == "over" and (note.key, note.note) == (fault.key, fault.note)
