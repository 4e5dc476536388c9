"""Backoff: how long to wait before trying the database again."""

import random

import attrs


@attrs.define
class Backoff:
    """Pauses that grow while the trouble lasts, each drawn anew from zero to its bound.

    The draw over the whole range ("full jitter") keeps a fleet that lost its database in one
    moment from coming back in one moment.
    Source: M. Brooker, "Exponential Backoff And Jitter", 2015.
    """

    longest_seconds: float
    first_seconds: float = 0.1
    _rounds: int = attrs.field(default=0, init=False)

    def next_seconds(self) -> float:
        """Return the next pause, in seconds."""
        bound = min(self.longest_seconds, self.first_seconds * 2 ** min(self._rounds, 32))
        self._rounds += 1
        return random.uniform(bound / 10, bound)

    def reset(self) -> None:
        """Start over: the trouble has ended."""
        self._rounds = 0
