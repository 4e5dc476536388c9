"""Fault: something bad that is done to an arena, again and again, while work goes on."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from chaos.arena import Arena

Measured = Literal["again", "resumed", "exit", ""]
"""The time until what was hit runs again, from its end until anything ends again, or of a stop."""


class Fault(ABC):
    """One kind of harm. A new one is a small class here and its name in the catalogue.

    What it does is written down with `arena.history.fault(kind, *pids)` just before, or
    `lasting_fault` around it; the methods of `WorkerProcess` do so by themselves.
    """

    name: ClassVar[str]
    """In the words of the report, such as "a child is killed"."""
    measured: ClassVar[Measured] = ""
    """What its target is about."""
    target_seconds: ClassVar[float | None] = None
    """The longest that this may take, without what a busy machine adds."""
    may_overlap: ClassVar[bool] = False
    """Runs may go on that cannot know that their lease is over."""

    @abstractmethod
    async def strike(self, arena: Arena) -> None:
        """Do it once, and undo what has to be undone."""
