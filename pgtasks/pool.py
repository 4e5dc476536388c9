"""Pool: slots, the queues they are shared by, and whose turn it is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import attrs

from pgtasks.config import BalanceStrategy


class Turns(Protocol):
    """Whose turn it is, among queues that want to be looked at."""

    def order(self, asking: Iterable[str]) -> list[str]:
        """Return these queues in the order in which to look at them."""

    def share(self, queue: str, behind: Sequence[str], room: int) -> int:
        """Return how much of the room a queue may take while others wait behind it."""

    def took(self, queue: str, count: int) -> None:
        """Note how many messages a queue had."""


@attrs.frozen
class Pool:
    """So many slots for the messages of these queues."""

    slots: int
    queues: tuple[str, ...]
    strategy: BalanceStrategy = "round-robin"
    weights: Mapping[str, int] = attrs.field(factory=dict)
    is_shared_out: bool = False
    """Its slots are counted over all processes of the worker."""

    def turns(self) -> Turns:
        """Return what says whose turn it is, with nobody served yet."""
        if self.strategy == "priority":
            return _Strict(self.queues)
        weights = self.weights if self.strategy == "weighted" else {}
        return _Fair({queue: weights.get(queue, 1) for queue in self.queues})


@attrs.frozen
class _Strict:
    """The first that is listed takes what it can."""

    _queues: Sequence[str]

    def order(self, asking: Iterable[str]) -> list[str]:
        return sorted(asking, key=self._queues.index)

    def share(self, queue: str, behind: Sequence[str], room: int) -> int:  # noqa: ARG002
        return room

    def took(self, queue: str, count: int) -> None:
        pass


@attrs.define
class _Fair:
    """Each in turn, by weight: the one that has had the least for its weight comes first.

    What a queue has had counts from when it last had nothing to ask for: an idle one saves up no
    turns, and one that was never served does not wait for the others to have as little.
    Source: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing", 1996.
    """

    _weights: Mapping[str, int]
    _had: dict[str, float] = attrs.field(init=False)
    """By queue: messages for each unit of its weight."""
    _least: float = attrs.field(default=0.0, init=False)
    """What the busy queue had had that was served first the last time."""
    _has_begun: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._had = dict.fromkeys(self._weights, 0.0)

    def order(self, asking: Iterable[str]) -> list[str]:
        self._has_begun = False
        asking = list(asking)
        for queue in asking:
            self._had[queue] = max(self._had[queue], self._least)
        return sorted(asking, key=self._had.__getitem__)

    def share(self, queue: str, behind: Sequence[str], room: int) -> int:
        mine = self._weights[queue]
        return math.ceil(room * mine / (mine + sum(self._weights[other] for other in behind)))

    def took(self, queue: str, count: int) -> None:
        if not count:
            return
        if not self._has_begun:
            self._has_begun, self._least = True, self._had[queue]
        self._had[queue] += count / self._weights[queue]
