"""Filter: which of the archived messages of a queue are meant."""

from datetime import timedelta

import attrs


@attrs.frozen
class Filter:
    """What a message has to be like; what is None or empty here does not matter.

    Attributes:
        task: it names this task.
        outcome: it ended so; "none" when pgtasks did not write how.
        since: it ended within this length of time.
        before: it ended so long ago or earlier.
        error: its last error, or the reason it was given up for, has this text in it.
        numbers: it is one of these, or of the own ids.
        ids: it is one of these, or of the numbers.
    """

    task: str | None = None
    outcome: str | None = None
    since: timedelta | None = None
    before: timedelta | None = None
    error: str | None = None
    numbers: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()

    @property
    def means_done(self) -> bool:
        """Whether it asks for what is done, which has to be said."""
        return self.outcome == "done"

    @property
    def means_all(self) -> bool:
        """Whether all matters nothing, or that it is done."""
        return attrs.evolve(self, outcome=None if self.means_done else self.outcome) == Filter()
