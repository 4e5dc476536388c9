"""Retention: what is kept of an archive, and at what pace the rest of it goes. Pure."""

from datetime import timedelta
from typing import Any, Self

import attrs
from msgspec import UNSET

from pgtasks.config import WorkerConfig

SMALLEST_BATCH = 10
LARGEST_BATCH = 500
BATCH_SECONDS = 0.01
"""How long a batch should take: nobody waits for longer than a few of these for what it locks."""
RESTS = 15.0
"""So many times as long as a batch took is the pause after it, which on a busy server grows with
it. On two busy cores this deletes 16,000 messages a second and costs a worker 5 to 23 % of its
rate; with batches of 1,000 and a rest of 4 it was 42,000 a second, and 32 %."""


@attrs.frozen
class Limits:
    """What is kept of one half of an archive, the done messages or all others; None: all."""

    age: timedelta | None
    count: int | None


@attrs.frozen
class Retention:
    """What is kept of the archive of one queue."""

    done: Limits
    failed: Limits

    @classmethod
    def of(cls, config: WorkerConfig, queue: str) -> Self:
        """Return what the settings say for a queue, where its own win over the general ones."""
        general, own = config.retention, config.queue_config.get(queue)

        def limit(name: str) -> Any:
            value = getattr(own, name, UNSET)
            return getattr(general, name) if value is UNSET else value

        return cls(
            done=Limits(limit("done_for"), limit("done_count")),
            failed=Limits(limit("failed_for"), limit("failed_count")),
        )


@attrs.define
class Pace:
    """How many messages to delete next, and how long to rest before."""

    size: int = 100

    def after(self, seconds: float) -> float:
        """Note how long a whole batch took; return for how long to rest."""
        growth = min(2.0, max(0.25, BATCH_SECONDS / max(seconds, 1e-6)))
        self.size = min(LARGEST_BATCH, max(SMALLEST_BATCH, int(self.size * growth)))
        return RESTS * seconds
