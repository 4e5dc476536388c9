"""Ties: what a running task may ask of its worker, through its context."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

import anyio
import attrs

from pgtasks import settlement
from pgtasks.client import Client
from pgtasks.connection import CALL_SECONDS, Connection, bounded, transaction
from pgtasks.context import Context
from pgtasks.errors import LeaseLost
from pgtasks.message import Message
from pgtasks.settlement import Run
from pgtasks.settler import Settler
from pgtasks.store import Extension, Record, Store

SHORTEST_END_SECONDS = 0.1


@attrs.frozen
class WorkerTies:
    """The ties of all messages of one worker."""

    client: Client
    settler: Settler
    worker: str
    resources: Any = None

    @asynccontextmanager
    async def transaction(self, context: Context) -> AsyncIterator[Connection]:
        """Open a transaction that ends with the fenced completion of the context's message."""
        lease = context.lease
        async with self._connection() as connection:
            try:
                async with transaction(connection):
                    yield connection
                    # The row may be gone before this side knows: the keeper must not wonder.
                    lease.settling = True
                    await self._end(context, connection)
            except BaseException:
                lease.settling = False
                raise
        self.settler.forget(lease)

    async def extend(self, context: Context, length: timedelta) -> None:
        """Extend the lease of the context's message now; waits while somebody looks at its row."""
        message, asked_at = context.message, monotonic()
        extension = Extension(message.held, message.delivery, length)
        async with self._connection() as connection:
            with anyio.fail_after(CALL_SECONDS):
                while True:
                    row = await bounded(connection, partial(_extend, message.queue, extension))
                    if not row["held"]:
                        raise LeaseLost(_lost_text(message))
                    if row["extended"]:
                        break
                    await anyio.sleep(0.05)
        context.lease.renewed(asked_at, length.total_seconds())

    def _connection(self) -> Any:
        seconds = self.client.config.database.acquire_timeout.total_seconds()
        return self.client.pool.acquire(timeout=seconds)

    async def _end(self, context: Context, connection: Connection) -> None:
        # Not beyond the lease: whoever has the message next must not begin while this one waits.
        left = context.lease.over_at - monotonic()
        seconds = min(CALL_SECONDS, max(SHORTEST_END_SECONDS, left))
        if not await bounded(connection, partial(self._complete, context), seconds=seconds):
            raise LeaseLost(_lost_text(context.message))

    async def _complete(self, context: Context, connection: Connection) -> bool:
        """Complete the context's message; tell whether its lease was still held."""
        message, store = context.message, Store(connection)
        await store.guard_transaction()
        run = Run(monotonic() - context.started_at, self.worker)
        ending = settlement.succeeded(message, context.policy, run)
        held = [message.held]
        if ending.action == "complete":
            ended = await store.complete(message.queue, held, message.delivery)
        else:
            ended = await store.archive(message.queue, held, message.delivery, [ending.state])
        return bool(ended)


async def _extend(queue: str, extension: Extension, connection: Connection) -> Record:
    async with transaction(connection):
        await Store(connection).guard_transaction()
        [row] = await Store(connection).extend(queue, [extension])
    return row


def _lost_text(message: Message) -> str:
    return (
        f"message {message.message_id} of {message.queue!r} belongs to somebody else now: the "
        "lease ran out before it could be extended"
    )
