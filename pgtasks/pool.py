"""Pool: slots, the queues they are shared by, and whose turn it is."""

import random
from collections.abc import Callable, Mapping, Sequence

import attrs

from pgtasks.config import BalanceStrategy


@attrs.frozen
class Pool:
    """So many slots for the messages of these queues."""

    slots: int
    queues: tuple[str, ...]
    strategy: BalanceStrategy = "round-robin"
    weights: Mapping[str, int] = attrs.field(factory=dict)

    def order(self) -> Callable[[], Sequence[str]]:
        """Return what says, each time it is called, in which order to look at the queues."""
        match self.strategy:
            case "priority":
                return lambda: self.queues
            case "weighted":
                return self._drawn
            case _:
                return _Rotation(self.queues).next

    def _drawn(self) -> Sequence[str]:
        # Source: P. Efraimidis, P. Spirakis, "Weighted random sampling with a reservoir", 2006.
        return sorted(
            self.queues,
            key=lambda queue: random.random() ** (1 / self.weights.get(queue, 1)),
            reverse=True,
        )


@attrs.define
class _Rotation:
    queues: Sequence[str]
    turn: int = -1

    def next(self) -> Sequence[str]:
        """Begin one queue further than the last time, so that a full one starves no other."""
        self.turn = (self.turn + 1) % len(self.queues)
        return [*self.queues[self.turn :], *self.queues[: self.turn]]
