"""Pool: slots, the queues they are shared by, and whose turn it is."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs

from pgtasks.config import WorkerConfig
from pgtasks.errors import ConfigError

Strategy = Literal["round-robin", "priority", "weighted"]


@attrs.frozen
class Pool:
    """So many slots for the messages of these queues."""

    slots: int
    queues: tuple[str, ...]
    strategy: Strategy = "round-robin"
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


def pools(config: WorkerConfig, queues: Sequence[str]) -> list[Pool]:
    """Return the pools that serve these queues: dedicated ones, and one shared by the rest.

    Raises:
        ConfigError: there is no queue to serve.
    """
    if not queues:
        raise ConfigError(
            "there is no queue to serve: no task is registered and none is named; "
            "name the modules of your tasks, as in `pgtasks worker myapp.tasks`"
        )
    dedicated = {
        name: settings.concurrency
        for name, settings in config.queue_config.items()
        if settings.concurrency is not None and name in queues
    }
    shared = tuple(queue for queue in queues if queue not in dedicated)
    made = [Pool(slots, (queue,)) for queue, slots in dedicated.items()]
    if shared:
        weights = {name: settings.weight for name, settings in config.queue_config.items()}
        made.append(Pool(config.concurrency, shared, config.balance_strategy, weights))
    return made
