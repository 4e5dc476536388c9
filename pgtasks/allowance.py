"""Allowance: how often something is done because others ask for it, when nothing comes of it."""

from time import monotonic

import attrs


@attrs.define
class Allowance:
    """So many in a row, and then one a pause; all of them anew when something came of one.

    Whoever is asked in earnest never notices it: what was asked for is found, most times.
    """

    _in_a_row: int
    _pause_seconds: float
    _even_at: float = attrs.field(default=0.0, init=False)
    """When those that were spent would have been one a pause."""

    def spend(self) -> None:
        """Note one of which nothing came."""
        self._even_at = max(self._even_at, monotonic()) + self._pause_seconds

    def restore(self) -> None:
        """Note one of which something came."""
        self._even_at = 0.0

    def next_at(self) -> float:
        """Return from when on the next is allowed, by the monotonic clock; 0.0: at once."""
        at = self._even_at - (self._in_a_row - 1) * self._pause_seconds
        return at if at > monotonic() else 0.0
