"""Bench: what every benchmark is given, and what it does with its queues."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import attrs

from benchmarks.stamps import now
from benchmarks.usage import is_here
from pgtasks import Config, Task
from pgtasks.config import DatabaseConfig
from pgtasks.connection import Connection
from pgtasks.store import Store

LONGEST_SECONDS = 180.0
"""What takes longer than this has failed."""


@attrs.frozen
class Bench:
    """A database of its own, a folder for logs, and how much is to be measured."""

    url: str
    folder: Path
    rounds: int
    messages: int
    quick: bool

    @property
    def config(self) -> Config:
        """The defaults, with this database."""
        return Config(database=DatabaseConfig(url=self.url))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Open a plain connection for the length of a block."""
        # No plan that walks a table's dead rows: watching must not cost what is watched.
        settings = {"application_name": "benchmark", "enable_seqscan": "off"}
        connection = await asyncpg.connect(self.url, timeout=10, server_settings=settings)
        try:
            yield connection
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close(timeout=5)


async def is_server_here(connection: Connection) -> bool:
    """Whether the kernel of this machine tells what the server's processes use."""
    return is_here(await connection.fetchval("SELECT pg_backend_pid()"))


async def create_queues(connection: Connection, *queues: str) -> None:
    """Create queues; a worker serves none that it does not find."""
    for queue in queues:
        await Store(connection).create_queue(queue)


async def empty(connection: Connection, *queues: str) -> None:
    """Make queues as new, so that no round pays for the rows of the one before."""
    for queue in queues:
        await connection.execute(f'TRUNCATE pgmq."q_{queue}"')


async def fill(
    connection: Connection, queue: str, task: Task[Any, Any], calls: Iterable[Sequence[Any]]
) -> float:
    """Defer calls in one transaction; return the moment its commit was answered."""
    async with connection.transaction():
        await task.options(queue=queue, connection=connection).defer_many(calls)
    return now()


async def wait_until_empty(connection: Connection, queue: str, every_seconds: float) -> float:
    """Return the moment from which on a queue was empty.

    Raises:
        TimeoutError: it was not, within `LONGEST_SECONDS`.
    """
    # Watched is one message, and when it is gone another that is left, mostly none: a look for
    # any message at all steps over what was deleted in the last half second (no index entry is
    # cleaned up before the asynchronous commit is on disk) and took a third of the rate away.
    newest = await connection.prepare(
        f'SELECT msg_id FROM pgmq."q_{queue}" ORDER BY msg_id DESC LIMIT 1'  # noqa: S608
    )
    is_there = await connection.prepare(
        f'SELECT true FROM pgmq."q_{queue}" WHERE msg_id = $1'  # noqa: S608
    )
    with anyio.fail_after(LONGEST_SECONDS):
        while True:
            looked_at = now()
            message_id = await newest.fetchval()
            if message_id is None:
                return looked_at
            while await is_there.fetchval(message_id):  # noqa: ASYNC110 - the database's event
                await anyio.sleep(every_seconds)
