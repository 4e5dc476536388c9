"""Lease: a worker's hold on one message, from its claim to its settlement."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from time import monotonic
from typing import Any

import attrs

from pgtasks.message import Message


@attrs.define(eq=False)
class Lease:
    """One held message, shared by the event loop that runs it and the thread that extends it.

    Each field is written by one side only, as said beside it.
    """

    message: Message
    length_seconds: float
    key: tuple[str, int] = attrs.field(init=False)
    """What it is known by: the queue and the row."""
    place: int = attrs.field(default=-1, init=False)
    """Its place on the board that the supervisor reads after a crash. Written by the loop."""
    kept_until: float = attrs.field(init=False)
    """Until when it surely lasts, on the local monotonic clock. Written by the keeper."""
    extend_at: float = attrs.field(init=False)
    """When to extend it. Written by the keeper."""
    settling: bool = attrs.field(default=False, init=False)
    """Its settlement may be on its way. Written by the loop."""
    lost: bool = attrs.field(default=False, init=False)
    """It belongs to somebody else. Written by the keeper, and by the loop after a settlement."""
    cancel: Callable[[str], None] | None = attrs.field(default=None, init=False)
    """Ends the run, with the reason; None while nothing runs. Written by the loop."""

    def __attrs_post_init__(self) -> None:
        message = self.message
        self.key = (message.queue, message.message_id)
        self.kept_until = message.claimed_at + self.length_seconds
        self.extend_at = message.claimed_at + self.length_seconds / 3

    def renewed(self, asked_at: float, length_seconds: float) -> None:
        """Note that it lasts `length_seconds` from `asked_at`, at least."""
        self.kept_until = max(self.kept_until, asked_at + length_seconds)
        self.extend_at = asked_at + length_seconds / 3

    @property
    def over_at(self) -> float:
        """When it is given up: a little before another worker may start the message."""
        return self.kept_until - min(1.0, self.length_seconds / 6)

    def is_over(self) -> bool:
        """Tell whether it may have run out: another worker may be about to start the message."""
        return monotonic() > self.over_at

    def may_begin(self) -> bool:
        """Tell whether its message may be run now.

        A process that was frozen asks this before its keeper knows what is lost.
        """
        return not self.lost and not self.is_over()


def leased(queue: str, row: Iterable[Any], claimed_at: float, length: timedelta) -> Lease:
    """Return the lease that a row of a claim stands for."""
    message_id, delivery, enqueued_epoch, _due_at, body, headers = row
    message = Message(queue, message_id, delivery, enqueued_epoch, body, headers, claimed_at)
    return Lease(message, length.total_seconds())
