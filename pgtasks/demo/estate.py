"""Estate: the schema and the queue that the demo makes, has to itself, and drops."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import asyncpg

from pgtasks.config import DatabaseConfig
from pgtasks.connection import FAILURES, Connection, is_transient, unreachable
from pgtasks.database import Database
from pgtasks.demo.statement import statement
from pgtasks.errors import DatabaseError, SchemaError
from pgtasks.layers import Loaded
from pgtasks.store import Store

MARK = "made by `pgtasks demo`, which will drop it"


async def prepare(database: Database, loaded: Loaded) -> tuple[Database, asyncpg.Record]:
    """Reach the database and bring its schema up to date; it, and what was known of it before.

    Raises:
        DatabaseError: it cannot be reached, or not be used.
    """
    async with _connection(database) as connection:
        facts = await Store(connection).server_facts()
    return await database.prepare(install=loaded.config.worker.install.enable), facts


@asynccontextmanager
async def only_demo(database: Database) -> AsyncIterator[None]:
    """Keep other demos out of this database for the length of a block.

    Raises:
        DatabaseError: there is one already.
    """
    async with database.connection("demo") as connection:
        # A transaction that stays open, not a lock of the session: it holds through a pooler too.
        await connection.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0")
        if not await connection.fetchval(statement("reserve")):
            raise DatabaseError(
                "another `pgtasks demo` is running in this database: wait until it has ended, or "
                "give this one another database (PGTASKS_DATABASE_URL)"
            )
        yield


async def create(database: Database) -> None:
    """Make the schema and the queue anew; what an earlier demo left is dropped.

    Raises:
        SchemaError: this role may not, or somebody else's schema has the demo's name.
    """
    # Shielded, so that an interrupted demo knows whether there is something to drop.
    with anyio.CancelScope(shield=True):
        async with _connection(database) as connection, connection.transaction():
            await _check_ours(connection)
            await connection.execute(statement("drop"))
            await connection.execute(statement("create"))


async def drop(database: Database) -> None:
    """Drop the schema and the queue, even while everything is being cancelled.

    Raises:
        DatabaseError: they could not be dropped.
    """
    with anyio.CancelScope(shield=True):
        async with _connection(database) as connection, connection.transaction():
            await _check_ours(connection)
            await connection.execute(statement("drop"))


def explained(database: DatabaseConfig, error: Exception) -> Exception:
    """Return the error that says in words what the driver raised, and what to do."""
    if isinstance(error, DatabaseError):
        return error
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return SchemaError(
            f"the demo may not work in this database: {error}\n"
            "It makes a schema and a queue, and drops them: use a role that may, or leave the "
            "database unset for the embedded one."
        )
    if is_transient(error):
        return unreachable(database, error)
    return DatabaseError(f"the database refused what the demo asked of it: {error}")


@asynccontextmanager
async def _connection(database: Database) -> AsyncIterator[Connection]:
    try:
        async with database.connection("demo") as connection:
            yield connection
    except FAILURES as error:
        raise explained(database.config, error) from error


async def _check_ours(connection: Connection) -> None:
    row = await connection.fetchrow(statement("comment"))
    if row is not None and row["comment"] != MARK:
        raise SchemaError(
            "this database has a schema pgtasks_demo that the demo did not make; it is left "
            "alone. Rename it, or give the demo another database (PGTASKS_DATABASE_URL)"
        )
