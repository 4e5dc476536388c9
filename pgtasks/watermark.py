"""Watermark: how far back a claim has to look in its queue's index."""

from datetime import datetime
from time import monotonic

import attrs

from pgtasks.store import BEGINNING

LAG_SECONDS = 0.5
FULL_LOOK_SECONDS = 2.0


@attrs.define
class Watermark:
    """The due moment before which a queue was found empty, and when to look behind it again.

    Every claim leaves dead index entries where its messages stood, and while any transaction on
    the server is old they cannot be cleaned up: a claim that starts at the left end steps over
    all of them (10,000 messages a second fell to 1,460 after 100,000 messages). Starting where
    the last claims were keeps it flat. What becomes visible behind the mark - late commits, rows
    another client had locked, foreign rows dated back - is found by a full look every two seconds.
    The mark lags behind the claims by half a second at least: what was sent before a claim, and
    committed after it, is seen by the next one.
    """

    mark: datetime = BEGINNING
    """Where claims start between full looks."""
    _next_mark: datetime = BEGINNING
    """How far the claims had come when the mark was moved last."""
    _newest: datetime = BEGINNING
    _moved_at: float = attrs.field(factory=monotonic)
    _full_look_at: float = 0.0
    _full_look_seconds: float = 0.0
    """How long the last full look took."""

    def since(self) -> datetime:
        """Return where the next claim has to start."""
        now = monotonic()
        if now >= self._full_look_at:
            self._full_look_at = now + FULL_LOOK_SECONDS
            return BEGINNING
        return self.mark

    def looked_fully(self, seconds: float) -> None:
        """Note how long a full look took."""
        self._full_look_seconds = seconds

    def hurry(self) -> float:
        """Ask for a full look soon, and return when it may be: it must not take 5 % of the time."""
        last = self._full_look_at - FULL_LOOK_SECONDS
        soon = last + 20 * self._full_look_seconds
        self._full_look_at = min(self._full_look_at, max(soon, monotonic()))
        return self._full_look_at

    def look_fully(self) -> None:
        """Let the next claim start at the beginning."""
        self._full_look_at = 0.0

    def passed(self, due_at: datetime) -> None:
        """Note that everything due before this moment was claimed."""
        now = monotonic()
        if now - self._moved_at >= LAG_SECONDS:
            self.mark, self._next_mark, self._moved_at = self._next_mark, self._newest, now
        self._newest = max(self._newest, due_at)
