"""Listener: one connection that LISTENs, and tells which queue to look at."""

import asyncio
from collections.abc import Callable, Iterable

import attrs

from pgtasks.backoff import Backoff
from pgtasks.config import DatabaseConfig
from pgtasks.connection import (
    CALL_SECONDS,
    FAILURES,
    OWN_LIMITS,
    Connection,
    open_connection,
)
from pgtasks.events import Events
from pgtasks.outage import Outage

log = Events("pgtasks.listener")

CHANNEL = "pgtasks"
PING_SECONDS = 10.0

INSERTS = "pgmq.q_{}.INSERT"
"""Where pgmq tells of inserted messages of a queue, once enable_notify_insert() has said so: then
clients that know nothing of pgtasks wake its workers."""


@attrs.define(eq=False)
class Listener:
    """A hint, never the truth: whoever polls finds the same messages, later."""

    _database: DatabaseConfig
    _wake: Callable[[str | None], None]
    """Called with the queue to look at; with None after every (re)connect: look at all."""
    _longest_pause: float
    _queues: Iterable[str] = ()
    """Of which pgmq may tell too."""
    _outage: Outage = attrs.field(
        factory=lambda: Outage(log, "not listening, polling meanwhile"), init=False
    )
    is_listening: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    async def run(self) -> None:
        """Listen until cancelled, over every loss of the connection."""
        backoff = Backoff(longest_seconds=self._longest_pause)
        while True:
            try:
                await self._listen(backoff)
            except FAILURES as error:
                self._outage.report(error)
                await asyncio.sleep(backoff.next_seconds())

    async def _listen(self, backoff: Backoff) -> None:
        connection = await open_connection(self._database, "listener", OWN_LIMITS)
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, self._told)
            for queue in self._queues:
                await connection.add_listener(INSERTS.format(queue), self._teller(queue))
            self.is_listening.set()
            backoff.reset()
            self._outage.over()
            self._wake(None)  # what was sent while nobody listened
            await self._ping(connection, lost)
        finally:
            self.is_listening.clear()
            connection.terminate()

    async def _ping(self, connection: Connection, lost: asyncio.Event) -> None:
        # A connection whose other end vanished without a word stays silent for ever: ask.
        while not lost.is_set():
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await lost.wait()
            except TimeoutError:
                await connection.fetchval("SELECT 1", timeout=CALL_SECONDS)
        raise ConnectionError("the server closed the connection")

    def _teller(self, queue: str) -> Callable[..., None]:
        return lambda *_: self._wake(queue)

    def _told(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._wake(str(payload))
