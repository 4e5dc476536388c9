"""Watermark: how far back a claim has to look in its queue's index."""

import math
from datetime import datetime
from time import monotonic

import attrs

from pgtasks.store import BEGINNING

LAG_SECONDS = 0.1
FULL_LOOK_SECONDS = 2.0
FULL_LOOK_SHARE = 0.05
"""How much of the time full looks may take: over a million dead entries one takes 150 ms."""
LONGEST_WITHOUT_SECONDS = 30.0
"""A full look comes after so long, whatever the last one took."""


@attrs.define
class Watermark:
    """The due moment before which a queue was found empty, and when to look behind it again.

    Every claim leaves dead index entries where its messages stood, and while any transaction on
    the server is old they cannot be cleaned up: a claim that starts at the left end steps over
    all of them (10,000 messages a second fell to 1,460 after 100,000 messages). Starting where
    the last claims were keeps it flat. What becomes visible behind the mark - late commits, rows
    another client had locked, foreign rows dated back - is found by a full look every two seconds,
    or as often as its cost allows. The mark lags behind the claims by a tenth of a second at least:
    what was sent before a claim, and committed soon after it, is seen by the next one. A longer lag
    lets claims step over more: with half a second they took twice as long under an old transaction.
    """

    mark: datetime = BEGINNING
    """Where claims start between full looks."""
    _next_mark: datetime = BEGINNING
    """How far the claims had come when the mark was moved last."""
    _newest: datetime = BEGINNING
    _moved_at: float = attrs.field(factory=monotonic)
    _looked_fully_at: float = -math.inf
    """When the last full look began."""
    _full_look_seconds: float = 0.0
    """How long the last full look took."""
    _hurries: bool = False

    def since(self) -> datetime:
        """Return where the next claim has to start."""
        now = monotonic()
        if now >= self._full_look_at():
            self._looked_fully_at, self._hurries = now, False
            return BEGINNING
        return self.mark

    def look_again(self) -> None:
        """Let the next claim begin where the full look did that found something due.

        It may stand behind the mark: a claim from there would never take it.
        """
        self._looked_fully_at = -math.inf

    def looked_fully(self, seconds: float) -> None:
        """Note how long a full look took."""
        self._full_look_seconds = seconds

    def hurry(self) -> float:
        """Ask for a full look as soon as it may be, and return when that is."""
        self._hurries = True
        return max(self._full_look_at(), monotonic())

    def passed(self, due_at: datetime) -> None:
        """Note that everything due before this moment was claimed."""
        now = monotonic()
        if now - self._moved_at >= LAG_SECONDS:
            self.mark, self._next_mark, self._moved_at = self._next_mark, self._newest, now
        self._newest = max(self._newest, due_at)

    def _full_look_at(self) -> float:
        rest = min(self._full_look_seconds / FULL_LOOK_SHARE, LONGEST_WITHOUT_SECONDS)
        return self._looked_fully_at + max(rest, 0.0 if self._hurries else FULL_LOOK_SECONDS)
