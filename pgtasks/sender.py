"""Sender: stores what is deferred, at once; what comes while a statement is on its way goes next.

Nobody waits for company: a message that is alone is sent alone, and the busier the database is, the
more go together.
"""

import asyncio
from contextvars import Context
from functools import partial

import attrs

from pgtasks.backlog import Backlog
from pgtasks.carrier import Carrier
from pgtasks.config import DatabaseConfig
from pgtasks.connection import Pool
from pgtasks.errors import NotConnectedError
from pgtasks.message import Handle
from pgtasks.notifier import Notifier
from pgtasks.parcel import Parcel

CARRIERS = 2
"""While the server works on one batch, the next is made ready and sent."""


@attrs.define(eq=False)
class Sender:
    """The backlog, and carriers as long as there is something in it. Lives on one event loop."""

    _pool: Pool
    _database: DatabaseConfig
    _notifier: Notifier
    _backlog: Backlog = attrs.field(factory=Backlog, init=False)
    _carriers: dict[Carrier, asyncio.Task[None]] = attrs.field(factory=dict, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    async def send(self, parcel: Parcel) -> list[Handle]:
        """Store a parcel, and return the handles of its messages."""
        if not self._backlog:
            for carrier in self._carriers:
                if carrier.can_lend:
                    return await carrier.store_alone(parcel)
        answer: asyncio.Future[list[Handle]] = asyncio.get_running_loop().create_future()
        parcel.answer = answer
        self.put(parcel)
        return await answer

    def put(self, parcel: Parcel) -> None:
        """Have a parcel stored; who waits for its answer is told."""
        if self._is_closed:
            parcel.refused(_closed())
            return
        self._backlog.put(parcel)
        if not any(carrier.is_coming for carrier in self._carriers):
            self._call_carrier()

    async def close(self) -> None:
        """Store what waits, and let the connections go."""
        self._is_closed = True
        for carrier in self._carriers:
            carrier.leave()
        if self._carriers:
            await asyncio.wait(self._carriers.values())

    def abandon(self) -> None:
        """Store nothing more; whoever waits is told."""
        self._is_closed = True
        self._backlog.refuse(_closed)
        for task in self._carriers.values():
            task.cancel()

    def _call_carrier(self) -> None:
        for carrier in self._carriers:
            if carrier.is_free:
                carrier.wake()
                return
        if len(self._carriers) < CARRIERS:
            carrier = Carrier(self._backlog, self._notifier, self._pool, self._database)
            # In a context of its own: it works for all callers, not for the one who comes first.
            task = asyncio.get_running_loop().create_task(carrier.run(), context=Context())
            self._carriers[carrier] = task
            task.add_done_callback(partial(self._ended, carrier))

    def _ended(self, carrier: Carrier, task: asyncio.Task[None]) -> None:
        del self._carriers[carrier]
        if task.cancelled():
            self._backlog.refuse(_closed)
        elif (error := task.exception()) is not None:
            self._backlog.refuse(lambda: error)
        elif self._backlog:
            self._call_carrier()  # for what was put since it last looked


def _closed() -> NotConnectedError:
    return NotConnectedError("the client was closed before this was stored")
