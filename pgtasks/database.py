"""Which database this process works with: the configured one, or the embedded server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import anyio.to_thread
import asyncpg
import attrs

from pgtasks import embedded, migrate
from pgtasks.config import Config, DatabaseConfig
from pgtasks.connection import (
    FAILURES,
    Connection,
    is_transient,
    open_connection,
    protection,
    unreachable,
)
from pgtasks.errors import DatabaseError, PgtasksError
from pgtasks.layers import Loaded, find_project_folder
from pgtasks.store import Store


@attrs.frozen
class Database:
    """A database that can be connected to."""

    config: DatabaseConfig
    server: embedded.Server | None
    """The embedded server, held up by this process; None when the database is somebody's own."""
    tls: str = ""
    """How a connection was protected on its way, as `connection.protection` says; "": unknown."""

    def close(self) -> None:
        """Let go of the embedded server, if there is one; the last to do so stops it."""
        if self.server is not None:
            self.server.close()

    async def prepare(self, *, install: bool) -> Self:
        """Bring the schema up to date when `install`, else only check that it is.

        Returns the same database with what was found out about the way to it.

        Raises:
            DatabaseUnreachable: no connection in time.
            SchemaError: the schema is not as this version needs it.
            DatabaseError: the server refused.
        """
        async with self.set_up() as connection:
            if install:
                await migrate.upgrade(connection)
            else:
                await migrate.check(connection)
            await Store(connection).note_layouts()
            config = attrs.evolve(self.config, pgbouncer=await self._is_pooled(connection))
            return attrs.evolve(self, config=config, tls=protection(connection))

    async def _is_pooled(self, connection: Connection) -> bool:
        if self.config.pgbouncer is not None:
            return self.config.pgbouncer
        # A pooler introduces itself with a number of its own.
        facts = await Store(connection).server_facts()
        return bool(facts["backend"] != connection.get_server_pid())

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator[Connection]:
        """Open a connection to prepare the database on, for the length of a block.

        Raises:
            DatabaseError: of whatever the server refuses in the block; says what to do.
        """
        try:
            async with self.connection("set-up") as connection:
                yield connection
        except PgtasksError:  # some of them are OSErrors too, and say already what to do
            raise
        except asyncpg.ReadOnlySQLTransactionError as error:
            raise DatabaseError(
                f"this database can only be read, as a standby's: {error}\n"
                "Let database.url lead to the primary (several hosts, target_session_attrs=primary)"
                ", or end default_transaction_read_only."
            ) from error
        except FAILURES as error:
            if is_transient(error):
                raise unreachable(self.config, error) from error
            raise DatabaseError(
                f"the database refused to be prepared: {error}\n`pgtasks doctor` looks for what is "
                "wrong."
            ) from error

    @asynccontextmanager
    async def connection(self, purpose: str) -> AsyncIterator[Connection]:
        """Open one connection for the length of a block."""
        # Whether there is a pooler between may not be known yet.
        connection = await open_connection(self.config, purpose, keeps_statements=False)
        try:
            yield connection
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await connection.close(timeout=1)
            connection.terminate()


def given(config: Config) -> Loaded:
    """Return a configuration made in code as if it had been loaded."""
    return Loaded(config, origins={}, project_folder=find_project_folder(Path.cwd()))


async def open_database(loaded: Loaded) -> Database:
    """Return the configured database; with none configured, start or join the embedded server.

    Raises:
        EmbeddedError: none is configured, and the embedded server cannot be started.
    """
    config = loaded.config.database
    if config.url is not None:
        return Database(config, server=None)
    server = await anyio.to_thread.run_sync(embedded.start, loaded.project_folder)
    return Database(attrs.evolve(config, url=server.url), server)
