"""Bulk: many messages of one call, stored in one transaction, chunk by chunk.

While the server works on one chunk, the next is made ready: it takes about as long.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar, cast

import anyio
import attrs

from pgtasks.binary_rows import binary_rows
from pgtasks.call import Call
from pgtasks.connection import Connection, storing_seconds, transaction
from pgtasks.errors import DatabaseError
from pgtasks.message import Handle, write_envelopes
from pgtasks.store import Executor, Store

A = TypeVar("A")
B = TypeVar("B")

SLICE = 500
"""How many calls are encoded at a time: for so long the event loop does nothing else."""
CHUNK = 5_000
"""Messages of a statement: with 1,000 the same took the server an eighth longer. The first are
smaller, so that it has something to do soon."""
CHUNK_CHARACTERS = 4_000_000
"""of a statement, which is in memory several times, here and there."""


@attrs.define
class _Chunk:
    """What goes in one statement."""

    ids: list[str] = attrs.field(factory=list)
    bodies: list[str] = attrs.field(factory=list)
    size: int = 0

    def handles(self, queue: str, numbers: Sequence[int]) -> list[Handle]:
        return [Handle(id_, queue, row) for id_, row in zip(self.ids, numbers, strict=True)]


@attrs.define
class Bulk:
    """A call of `defer_many` that is too large for one statement."""

    _call: Call
    _slices: Iterator[Sequence[bytes]]
    """The arguments of its calls, encoded when they are asked for."""
    _notify: bool
    _patience: anyio.CancelScope | None = None
    """Of whoever does not wait for ever: its deadline moves on with every statement."""
    _handles: list[Handle] = attrs.field(factory=list, init=False)
    _limit: int = attrs.field(default=SLICE, init=False)
    """Messages of the next statement."""

    async def store(self, on: Executor) -> list[Handle]:
        """Store all or none, in a transaction; return the handles in order."""
        store = Store(on)
        async with transaction(cast("Connection", on)):
            stored, numbers = _Chunk(), list[int]()
            chunk = await self._after(stored, numbers)
            while chunk.bodies:
                stored, (numbers, chunk) = (
                    chunk,
                    await _both(self._send(store, chunk), self._after(stored, numbers)),
                )
            self._handles += stored.handles(self._call.queue, numbers)
            if self._notify:
                await store.notify(self._call.queue)
        return self._handles

    async def _send(self, store: Store, chunk: _Chunk) -> list[int]:
        # COPY and not INSERT: 50,000 messages took the server 121 ms this way, and 167 that way.
        call, bodies = self._call, chunk.bodies
        drawn = await store.draw_numbers(call.queue, len(bodies), call.delay, call.at)
        if drawn is None:
            return await call.store(store, bodies, notify=False)
        numbers, last_due = drawn
        # A microsecond apart, as if stored one after the other: workers look for what became due
        # since a moment, and would meet thousands of the same moment again and again.
        apart = 1 if call.at is None else 0
        due = [last_due - apart * place for place in range(len(bodies) - 1, -1, -1)]
        taken = await store.copy(call.queue, binary_rows(numbers, due, call.headers, bodies))
        if taken != len(bodies):
            raise DatabaseError(
                f"{len(bodies) - taken} of {len(bodies)} messages were kept from the queue "
                f"{call.queue}, by a trigger on its table it seems. Nothing was stored."
            )
        return numbers

    async def _after(self, stored: _Chunk, numbers: Sequence[int]) -> _Chunk:
        """Note what was stored, and make the chunk ready that comes after the one under way."""
        await asyncio.sleep(0)  # first the statement is sent
        self._handles += stored.handles(self._call.queue, numbers)
        chunk = _Chunk()
        while len(chunk.bodies) < self._limit and chunk.size < CHUNK_CHARACTERS:
            many_args = next(self._slices, None)
            if many_args is None:
                break
            ids, bodies = write_envelopes(self._call.task, many_args)
            chunk.ids += ids
            chunk.bodies += bodies
            chunk.size += sum(map(len, bodies))
            self._wait_for(chunk)
            await asyncio.sleep(0)
        self._limit = min(2 * self._limit, CHUNK)
        return chunk

    def _wait_for(self, chunk: _Chunk) -> None:
        if self._patience is not None:
            seconds = storing_seconds(CHUNK + len(chunk.bodies), CHUNK_CHARACTERS + chunk.size)
            self._patience.deadline = anyio.current_time() + seconds


async def _both(
    statement: Coroutine[Any, Any, A], meanwhile: Coroutine[Any, Any, B]
) -> tuple[A, B]:
    """Return what both return. The statement has ended, too, when the other one fails."""
    sent = asyncio.ensure_future(statement)
    try:
        done = await meanwhile
    except BaseException as error:
        if not isinstance(error, Exception):
            sent.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([sent])
        if not sent.cancelled():
            sent.exception()  # the other failed first
        raise
    return await sent, done
