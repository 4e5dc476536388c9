"""Finding: what one check of `pgtasks doctor` found, and what checks look at."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import attrs

from pgtasks.cli.session import Session

Level = Literal["ok", "warn", "fail"]


@attrs.frozen
class Finding:
    """What one check found.

    Attributes:
        check: which one; always the same word.
        level: "fail" when tasks cannot run, "warn" when they may not run as meant.
        text: what is so.
        next_step: what to do about it, or None.
    """

    check: str
    level: Level
    text: str
    next_step: str | None = None


@attrs.frozen
class Patient:
    """What the checks of a database look at."""

    session: Session
    facts: Any
    """What the server says of itself; see sql/server_facts.sql."""
    clock_difference: float
    """Seconds that its clock is ahead of ours."""
    round_trip: float
    counts: list[dict[str, Any]] = attrs.field(factory=list)
    """How much is in each queue."""


Check = Callable[[Patient], Awaitable[Sequence[Finding]]]
