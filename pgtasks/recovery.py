"""Recovery: frees what a dead worker process held, and finds out what killed it."""

import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TypeVar

import anyio
import attrs

from pgtasks import settlement
from pgtasks.board import Entry
from pgtasks.config import DatabaseConfig
from pgtasks.connection import FAILURES, Connection, Line
from pgtasks.events import Events
from pgtasks.lease import leased
from pgtasks.message import Held
from pgtasks.settlement import Run, describe_error
from pgtasks.store import Extension, Store

log = Events("pgtasks.recovery")
T = TypeVar("T")

HOLD = timedelta(seconds=5)
"""How long a suspect that waits for a child is held at a time; no longer, because whoever holds it
may die as well."""
PROOF_LEASE = timedelta(seconds=30)
"""How long a proven suspect is held for the next child, which extends it at once."""


@attrs.define(eq=False)
class Recovery:
    """What is to be done in the database after a worker process died.

    Nothing here is ever needed for a message to run again: leases that could not be freed run out.
    """

    _database: DatabaseConfig
    _line: Line = attrs.field(init=False)
    _in_turn: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)
    """Two children may die at once, and there is one connection."""

    def __attrs_post_init__(self) -> None:
        self._line = Line(self._database, "supervisor")

    async def close(self) -> None:
        """Give the connection back."""
        await self._line.close()

    async def give_back(self, entries: Sequence[Entry]) -> None:
        """Make messages due at once that were held and did no harm."""
        alike: dict[tuple[str, int], list[Held]] = defaultdict(list)
        for entry in entries:
            alike[entry.queue, entry.delivery].append(entry.held)
        for (queue, delivery), held in alike.items():
            try:
                await self._call(partial(_give_back, queue=queue, delivery=delivery, held=held))
            except FAILURES as error:
                log.warning(
                    "leases of a dead process run out by themselves",
                    queue=queue,
                    messages=len(held),
                    error=describe_error(error),
                )

    async def hold(self, entries: Collection[Entry]) -> None:
        """Extend the leases of what waits for a child; those that are lost are left alone."""
        alike: dict[str, list[Extension]] = defaultdict(list)
        for entry in entries:
            alike[entry.queue].append(Extension(entry.held, entry.delivery, HOLD))
        for queue, extensions in alike.items():
            try:
                await self._call(partial(_extend, queue=queue, extensions=extensions))
            except FAILURES as error:
                log.debug("suspects not held", queue=queue, error=describe_error(error))

    async def prove(self, suspects: Sequence[Entry], code: int, crashes: int) -> list[Entry]:
        """Count a crash against what ran alone; return what is to be tried alone once more.

        Args:
            suspects: what ran alone.
            code: how its process ended.
            crashes: so many of them are a proof.
        """
        again = []
        for entry in suspects:
            try:
                count = partial(_count_crash, entry=entry, code=code, crashes=crashes)
                if await self._call(count):
                    again.append(entry)
            except FAILURES as error:
                log.warning(
                    "a crash could not be counted",
                    queue=entry.queue,
                    message=entry.message_id,
                    error=describe_error(error),
                )
        return again

    async def _call(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._in_turn:
            return await self._line.call(use)


def cause_of_death(code: int) -> str:
    """Say in words what an exit code means.

    Example:
        >>> cause_of_death(-11)
        'killed by SIGSEGV'
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


async def _give_back(on: Connection, queue: str, delivery: int, held: Sequence[Held]) -> None:
    await Store(on).give_back(queue, held, delivery)
    await Store(on).notify(queue)


async def _extend(on: Connection, queue: str, extensions: Sequence[Extension]) -> None:
    await Store(on).extend(queue, extensions)


async def _count_crash(on: Connection, entry: Entry, code: int, crashes: int) -> bool:
    """Count a crash; tell whether the message may be tried once more."""
    row = await Store(on).count_crash(entry.queue, entry.held, entry.delivery, PROOF_LEASE)
    if row is None:
        return False
    message = leased(entry.queue, row, monotonic(), PROOF_LEASE).message
    if message.state.crashes < crashes:
        return True
    cause = cause_of_death(code)
    reason = f"each process that ran it died, the last one with it alone: {cause}"
    ended = settlement.crashed(message, reason, Run(0.0, "supervisor"))
    await Store(on).archive(entry.queue, [entry.held], entry.delivery, [ended.state])
    log.error(
        "message crashes its process, archived",
        queue=entry.queue,
        message=entry.message_id,
        cause=cause,
    )
    return False
