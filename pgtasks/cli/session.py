"""An open database for the length of a command, with errors in words."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import attrs

from pgtasks.connection import Connection, is_transient, unreachable
from pgtasks.database import Database, open_database
from pgtasks.errors import DatabaseError, PgtasksError, SchemaError, UnknownQueueError
from pgtasks.layers import Loaded
from pgtasks.nearest import nearest
from pgtasks.queue_name import check_queue_name
from pgtasks.store import Executor, Store

LISTING_SECONDS = 60.0
"""Counting a long archive may take longer than a worker's statement ever should."""


@attrs.frozen
class Session:
    """One connection to the database in use."""

    loaded: Loaded
    database: Database
    connection: Connection

    @property
    def store(self) -> Store:
        """The statements, on this connection."""
        return Store(_Patient(self.connection))


@asynccontextmanager
async def open_session(loaded: Loaded, *, with_schema: bool = True) -> AsyncIterator[Session]:
    """Open the database that these settings name, or the embedded one.

    Args:
        loaded: the settings.
        with_schema: whether the schema has to be there; the embedded database gets it.

    Raises:
        DatabaseUnreachable: no connection in time.
        SchemaError: the schema is missing, too old or too new.
        DatabaseError: the server refused what the command asked of it.
    """
    database = await open_database(loaded)
    try:
        with explained(database):
            if with_schema:
                database = await database.prepare(install=database.server is not None)
            async with database.connection("command") as connection:
                yield Session(loaded, database, connection)
    finally:
        database.close()


@contextmanager
def explained(database: Database) -> Iterator[None]:
    """Turn what the driver raises into an error that says what to do."""
    try:
        yield
    except asyncio.CancelledError:
        # Ctrl-C. What asyncio would log of a connection that is half open then helps nobody.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except PgtasksError:  # some of them are OSErrors too, and say already what to do
        raise
    except TimeoutError as error:
        raise DatabaseError(
            "the database took too long to answer; it is busy, or the network fails. Try again"
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseError(
            f"this role may not do that: {error}\n"
            "Give it rights on the schemas pgmq and pgtasks and their tables (`pgtasks db roles` "
            "does), or use another role."
        ) from error
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
        raise SchemaError(f"{error}; `pgtasks doctor` looks for what else is missing") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        if is_transient(error):
            raise unreachable(database.config, error) from error
        raise DatabaseError(f"the database refused: {error}") from error


async def known_queue(store: Store, queue: str, else_do: str = "") -> str:
    """Return the name of a queue that exists.

    Args:
        store: where to look.
        queue: the name.
        else_do: what else would help, a sentence for the error.

    Raises:
        QueueNameError: no queue can have this name.
        UnknownQueueError: there is none; the text names the nearest and all there are.
    """
    check_queue_name(queue)
    names = await store.list_queues()
    if queue in names:
        return queue
    raise UnknownQueueError(unknown_queue(queue, names) + (f"\n{else_do}" if else_do else ""))


def unknown_queue(queue: str, names: Sequence[str]) -> str:
    """Say that a queue does not exist, and which do."""
    if not names:
        return f"there is no queue {queue!r}, nor any other; workers create those of their tasks"
    near = nearest(queue, names)
    hint = f"; did you mean {near!r}?" if near else "."
    more = ", ..." if len(names) > 20 else ""
    return f"there is no queue {queue!r}{hint} There are: {', '.join(names[:20])}{more}"


@attrs.frozen
class _Patient(Executor):
    """A connection whose statements may take longer than a worker's."""

    connection: Connection

    async def fetch(self, query: str, /, *args: Any, timeout: float | None = None) -> list[Any]:  # noqa: ASYNC109 - asyncpg's
        return await self.connection.fetch(query, *args, timeout=timeout or LISTING_SECONDS)

    async def fetchrow(self, query: str, /, *args: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - asyncpg's
        return await self.connection.fetchrow(query, *args, timeout=timeout or LISTING_SECONDS)

    async def fetchval(self, query: str, /, *args: Any) -> Any:
        return await self.connection.fetchval(query, *args, timeout=LISTING_SECONDS)
