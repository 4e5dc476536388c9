"""Backlog: what waits to be stored, and which of it goes together in the next statement."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from math import inf

import attrs

from pgtasks.parcel import Parcel

MAX_MESSAGES = 500
"""of a statement, and"""
MAX_CHARACTERS = 1_000_000
"""of its messages, unless a single parcel is larger."""


@attrs.define(eq=False)
class Backlog:
    """Parcels that wait. A batch is of one queue; queues take turns."""

    _waiting: dict[str, deque[Parcel]] = attrs.field(factory=dict, init=False)
    """By queue; the one whose turn it is comes first."""
    _apart: deque[Parcel] = attrs.field(factory=deque, init=False)
    """One of them spoiled a statement that held all: each goes alone now."""

    def __bool__(self) -> bool:
        return bool(self._waiting or self._apart)

    def put(self, parcel: Parcel) -> None:
        """Add a parcel, behind the others of its queue."""
        self._waiting.setdefault(parcel.call.queue, deque()).append(parcel)

    def put_apart(self, batch: Sequence[Parcel]) -> None:
        """Add the parcels of a statement that was refused, to be stored one by one."""
        self._apart.extend(batch)

    def take(self) -> list[Parcel]:
        """Return the next batch, without those that nobody waits for any more."""
        while self._apart:
            if (alone := self._apart.popleft()).is_wanted():
                return [alone]
        while self._waiting:
            if batch := self._take_of(next(iter(self._waiting))):
                return batch
        return []

    def refuse(self, reason: Callable[[], BaseException], *, put_before: float = inf) -> None:
        """Tell those who have waited since before a moment why their messages do not go."""
        waiting, self._waiting, apart, self._apart = self._waiting, {}, self._apart, deque()
        for parcel in chain(apart, *waiting.values()):
            if parcel.put_at < put_before:
                parcel.refused(reason())
            else:
                self.put(parcel)

    def _take_of(self, queue: str) -> list[Parcel]:
        waiting, batch = self._waiting.pop(queue), list[Parcel]()
        messages = characters = 0
        while waiting:
            messages += len(waiting[0].bodies)
            characters += waiting[0].size
            if batch and (messages > MAX_MESSAGES or characters > MAX_CHARACTERS):
                self._waiting[queue] = waiting  # behind the other queues
                break
            if (parcel := waiting.popleft()).is_wanted():
                batch.append(parcel)
        return batch
