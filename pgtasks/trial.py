"""Trial: how messages are run that may have ended their process."""

from collections.abc import Iterable
from typing import Self

import attrs

from pgtasks.board import Entry

CRASHES = 3
"""So many processes that died while a message ran, the last of them with it alone, prove it."""


@attrs.frozen
class Trial:
    """Messages to be run in a process of their own.

    Most processes die of something else: so what ran when one died is first run together, where
    nobody waits for the others. Only what that process dies of is run one by one.
    """

    entries: tuple[Entry, ...]
    is_together: bool = False
    """All at once; else one by one."""
    crashes: int = CRASHES - 1
    """So many deaths of a process that ran one of them alone are a proof."""

    @classmethod
    def first(cls, entries: Iterable[Entry]) -> Self:
        """Return the first trial of what ran when a process died; a single one is alone anyway."""
        tried = tuple(entries)
        return cls(tried, is_together=len(tried) > 1)

    def then(self, entries: Iterable[Entry]) -> "Trial":
        """Return the trial of what ran when this one's process died."""
        return Trial(tuple(entries), crashes=self.crashes - self.is_together)
