"""Notifier: when workers are told of a queue: at once, and then no more often than is of use."""

from math import inf

import attrs

SPACING_SECONDS = 0.005
"""A process tells workers of a queue no more often than this. Each notification wakes every worker,
and holds a lock of the whole server until its transaction is committed."""


@attrs.define
class Notifier:
    """What was told, and what is still to be told. All moments are the event loop's."""

    is_on: bool = True
    _told_at: dict[str, float] = attrs.field(factory=dict, init=False)
    _owed: dict[str, float] = attrs.field(factory=dict, init=False)
    """By queue, the moment from which on workers can be told of what was stored silently."""

    def may_tell(self, queue: str, now: float, *, early: bool = False) -> bool:
        """Tell whether a message that is stored now may tell of itself, and note that it does."""
        told_at = self._told_at.get(queue, -inf)
        if not self.is_on or (now < told_at + SPACING_SECONDS and not early):
            return False
        self.told(queue, now)
        return True

    def told(self, queue: str, now: float) -> None:
        """Note that workers are told of a queue."""
        self._told_at[queue] = now
        self._owed.pop(queue, None)

    def stored_silently(self, queue: str) -> bool:
        """Note that a message was committed that workers were not told of.

        Returns whether that is new: nothing was owed to the queue before.
        """
        if not self.is_on or queue in self._owed:
            return False
        self._owed[queue] = self._told_at.get(queue, 0.0) + SPACING_SECONDS
        return True

    def next_at(self) -> float | None:
        """Return the moment from which on something can be told; None when nothing is owed."""
        return min(self._owed.values(), default=None)

    def take_owed(self, now: float, *, but: str | None = None, early: bool = False) -> list[str]:
        """Return the queues to tell of now, when `early` all that are owed; note that they are."""
        taken = [queue for queue, at in self._owed.items() if queue != but and (early or at <= now)]
        for queue in taken:
            self.told(queue, now)
        return taken
