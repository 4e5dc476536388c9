"""Parcel: the messages of one call on their way to the database, and who waits to hear of them."""

import asyncio
import concurrent.futures
from collections.abc import Sequence
from time import monotonic
from typing import Self

import attrs

from pgtasks.call import Call
from pgtasks.message import Handle, write_envelopes

Answer = asyncio.Future[list[Handle]] | concurrent.futures.Future[list[Handle]]
"""What the caller waits for: on the client's own loop, or anywhere else."""


@attrs.define(eq=False)
class Parcel:
    """Messages that are stored all or none, in one statement, perhaps with those of others."""

    call: Call
    ids: Sequence[str]
    bodies: Sequence[str]
    answer: Answer | None = None
    """None: its caller does it itself."""
    put_at: float = attrs.field(factory=monotonic)

    @classmethod
    def of(cls, call: Call, many_args: Sequence[bytes], answer: Answer | None = None) -> Self:
        """Return the messages of calls with these arguments."""
        return cls(call, *write_envelopes(call.task, many_args), answer)

    @property
    def size(self) -> int:
        """How many characters are to be stored."""
        return sum(map(len, self.bodies))

    def handles(self, numbers: Sequence[int]) -> list[Handle]:
        """Return the handles of its messages, in order, once their numbers are known."""
        queue, found = self.call.queue, zip(self.ids, numbers, strict=True)
        return [Handle(id_, queue, number) for id_, number in found]

    def is_wanted(self) -> bool:
        """Tell whether its caller still waits; if so, it can no longer be taken back."""
        if self.answer is None or self.answer.done():
            return False
        if isinstance(self.answer, asyncio.Future) or self.answer.running():
            return True
        return self.answer.set_running_or_notify_cancel()

    def stored(self, numbers: Sequence[int]) -> None:
        """Tell the caller the numbers of its messages."""
        if self.answer is not None and self.is_wanted():
            self.answer.set_result(self.handles(numbers))

    def refused(self, error: BaseException) -> None:
        """Tell the caller why its messages were not stored, or may not have been."""
        if self.answer is not None and self.is_wanted():
            self.answer.set_exception(error)
