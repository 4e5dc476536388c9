"""Carrier: stores batch after batch on a connection of the pool."""

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import cast

import asyncpg
import attrs

from pgtasks.backlog import Backlog
from pgtasks.config import DatabaseConfig
from pgtasks.connection import (
    FAILURES,
    Connection,
    Pool,
    bounded,
    is_closed,
    is_refusal,
    is_transient,
    storing_seconds,
    unreachable,
    unsure,
)
from pgtasks.events import Events
from pgtasks.message import Handle
from pgtasks.notifier import Notifier
from pgtasks.parcel import Parcel
from pgtasks.store import Executor, Store

log = Events("pgtasks.carrier")

LINGER_SECONDS = 0.02
"""How long a connection is kept with nothing to store: to take one from the pool and give it back
costs as much as all else that Python does for a message."""

LOOK_SECONDS = 0.002
"""How often it is asked whether somebody else needs the connection."""


@attrs.define(eq=False)
class Carrier:
    """One statement on its way at a time; what is put into the backlog meanwhile goes next."""

    _backlog: Backlog
    _notifier: Notifier
    _pool: Pool
    _database: DatabaseConfig
    is_coming: bool = attrs.field(default=True, init=False)
    """It will look into the backlog without being called."""
    _bell: asyncio.Future[None] | None = attrs.field(default=None, init=False)
    """What wakes it while it lingers."""
    _on: Connection = attrs.field(init=False)
    """There while it lingers."""
    _is_lent: bool = attrs.field(default=False, init=False)
    """Somebody else stores on its connection while it lingers."""
    _was_lent: bool = attrs.field(default=False, init=False)
    _is_called: bool = attrs.field(default=False, init=False)
    """It is to look into the backlog once it has its connection back."""
    _is_leaving: bool = attrs.field(default=False, init=False)
    _is_needed: bool = attrs.field(default=False, init=False)
    """The pool has no other connection; as it was at"""
    _looked_at: float = attrs.field(default=-inf, init=False)

    @property
    def is_free(self) -> bool:
        """Whether it has a connection and nothing to do."""
        return self._bell is not None and not self.is_coming and not self._is_lent

    @property
    def can_lend(self) -> bool:
        """Whether a message that is alone can be stored on its connection."""
        return self.is_free and not is_closed(self._on)

    async def run(self) -> None:
        """Store what waits, and end when nothing does."""
        while self._backlog:
            try:
                seconds = self._database.acquire_timeout.total_seconds()
                async with self._pool.acquire(timeout=seconds) as on:
                    await self._serve(cast("Connection", on))
            except TimeoutError as error:
                # Of those who came later, the next connection may still come in time.
                self._backlog.refuse(self._reason(error), put_before=monotonic() - seconds)
            except Exception as error:
                if not is_transient(error):
                    raise
                self._backlog.refuse(self._reason(error))

    async def store_alone(self, parcel: Parcel) -> list[Handle]:
        """Store a parcel while this is free, in the task of whoever waits for it.

        To a message that is alone, in an application that does not do much else, the way through
        the backlog costs more than all else that Python does for it.
        """
        queue, self._is_lent, is_told = parcel.call.queue, True, False
        try:
            tells = self._notifier.may_tell(queue, monotonic())
            numbers = await self._insert(self._on, queue, [parcel], tells=tells)
            is_told = tells
            return parcel.handles(numbers)
        except Exception as error:
            if not is_transient(error):
                raise
            raise unsure(self._database, error) from error
        finally:
            self._take_back(is_owed=not is_told and self._notifier.stored_silently(queue))

    def _take_back(self, *, is_owed: bool) -> None:
        self._is_lent, self._was_lent = False, True
        if is_owed or self._is_called or self._backlog or is_closed(self._on):
            self.wake()

    def wake(self) -> None:
        """Have it look into the backlog."""
        if self._is_lent:
            self._is_called = True
        elif self._bell is not None and not self._bell.done():
            self._bell.set_result(None)
            self.is_coming = True

    def leave(self) -> None:
        """Have it linger no more."""
        self._is_leaving = True
        self.wake()

    def _reason(self, error: Exception) -> Callable[[], BaseException]:
        say = unsure if is_refusal(error) else unreachable
        return lambda: say(self._database, error)

    async def _serve(self, on: Connection) -> None:
        """Store and tell on a connection until it is needed elsewhere, or broken."""
        while not is_closed(on):
            self.is_coming, now = False, monotonic()
            batch = self._backlog.take()
            # A message that is alone tells of itself, which saves a round trip; with many to tell
            # of, the lock that this takes would be held until all are on the disk.
            by_itself = batch[0].call.queue if len(batch) == 1 else None
            is_last = not batch and self._may_not_linger(now)
            queues = self._notifier.take_owed(now, but=by_itself, early=is_last)
            if batch or queues:
                await self._write(on, batch, queues, now)
            elif is_last or not await self._linger(on, now):
                break
        self.is_coming = True

    async def _write(
        self, on: Connection, batch: Sequence[Parcel], queues: Sequence[str], now: float
    ) -> None:
        try:
            if queues:
                await self._tell(on, queues)
            if batch:
                await self._store(on, batch, now)
        except BaseException as error:  # the event loop ends
            for parcel in batch:
                parcel.refused(unsure(self._database, error))
            raise

    async def _store(self, on: Connection, batch: Sequence[Parcel], now: float) -> None:
        queue = batch[0].call.queue
        tells = self._notifier.may_tell(queue, now, early=self._may_not_linger(now))
        try:
            numbers = await self._insert(on, queue, batch, tells=tells)
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            self._notifier.stored_silently(queue)  # what else it was to tell of
            self._failed(batch, error)
        else:
            if not tells:
                self._notifier.stored_silently(queue)
            place = 0
            for parcel in batch:
                parcel.stored(numbers[place : (place := place + len(parcel.bodies))])

    async def _insert(
        self, on: Connection, queue: str, batch: Sequence[Parcel], *, tells: bool
    ) -> Sequence[int]:
        async def store(on: Executor) -> Sequence[int]:
            return await _stored(Store(on), batch, notify=tells)

        messages = sum(len(parcel.bodies) for parcel in batch)
        seconds = storing_seconds(messages, sum(parcel.size for parcel in batch))
        try:
            return await bounded(on, store, seconds=seconds)
        except asyncpg.UndefinedTableError:
            await bounded(on, lambda on: Store(on).create_queue(queue))
            return await bounded(on, store, seconds=seconds)

    def _failed(self, batch: Sequence[Parcel], error: Exception) -> None:
        if is_transient(error):
            for parcel in batch:
                parcel.refused(unsure(self._database, error))
        elif len(batch) == 1:
            batch[0].refused(error)
        else:
            # Nothing of it is stored; which one was refused is found out one by one.
            self._backlog.put_apart(batch)

    async def _tell(self, on: Connection, queues: Sequence[str]) -> None:
        try:
            await bounded(on, lambda on: Store(on).notify_after(queues))
        except FAILURES:
            log.debug("not told", queues=",".join(queues))  # workers look by themselves too

    def _may_not_linger(self, now: float) -> bool:
        """Whether somebody may be waiting for this connection."""
        if now >= self._looked_at + LOOK_SECONDS:
            pool, self._looked_at = self._pool, now
            is_full = pool.get_size() >= pool.get_max_size()
            self._is_needed = is_full and not pool.get_idle_size()
        return self._is_leaving or self._is_needed

    async def _linger(self, on: Connection, now: float) -> bool:
        """Wait for something to do; tell whether there is, or will be soon."""
        loop, owed_at = asyncio.get_running_loop(), self._notifier.next_at()
        seconds = LINGER_SECONDS if owed_at is None else max(0.0, owed_at - now)
        self._on, self._bell, self._was_lent = on, loop.create_future(), False
        timer = loop.call_later(seconds, self.wake)
        try:
            await self._bell
        finally:
            timer.cancel()
            self._bell, self._is_called = None, False
        return bool(self._backlog) or self._was_lent or self._notifier.next_at() is not None


async def _stored(store: Store, batch: Sequence[Parcel], *, notify: bool) -> Sequence[int]:
    """Store the messages of a batch in one statement, and return their numbers in order."""
    if len(batch) == 1:
        return await batch[0].call.store(store, batch[0].bodies, notify=notify)
    first, bodies = batch[0].call, [body for parcel in batch for body in parcel.bodies]
    if all(parcel.call.is_due_as(first) for parcel in batch):
        return await first.store(store, bodies, notify=notify)
    calls = [parcel.call for parcel in batch for _ in parcel.bodies]
    headers, delays = [call.headers for call in calls], [call.delay for call in calls]
    moments = [call.at for call in calls]
    return await store.send_batch(first.queue, bodies, headers, delays, moments, notify=notify)
