"""One real server for the whole run, one database for each test that asks for it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from pgtasks import embedded, migrate
from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection

# A run in the background of a shell ignores Ctrl-C, and all that it starts would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The server that all processes of this run share; the last to leave stops it."""
    with embedded.start(Path(__file__).parent.parent, durable=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of a migrated database to copy; one for each process of the run."""
    name = f"template_{uuid4().hex[:12]}"

    async def make() -> None:
        await _execute(server_url, f'CREATE DATABASE "{name}"')
        connection = await open_connection(DatabaseConfig(url=named(server_url, name)), "tests")
        await migrate.upgrade(connection)
        await connection.close()

    asyncio.run(make())
    yield name
    asyncio.run(_execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """The address of a new database with nothing in it."""
    with _new_database(server_url, "template1") as url:
        yield url


@pytest.fixture
def database_url(server_url: str, template: str) -> Iterator[str]:
    """The address of a new database with the schema in it."""
    with _new_database(server_url, template) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> DatabaseConfig:
    return DatabaseConfig(url=database_url)


@pytest.fixture
async def connection(database: DatabaseConfig) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a new database with the schema in it."""
    opened = await open_connection(database, "tests")
    yield opened
    await opened.close()


class _new_database:  # noqa: N801 - used as a function
    def __init__(self, server_url: str, template: str) -> None:
        self.server_url, self.template = server_url, template
        self.name = f"test_{uuid4().hex[:12]}"

    def __enter__(self) -> str:
        statement = f'CREATE DATABASE "{self.name}" TEMPLATE "{self.template}"'
        asyncio.run(_execute(self.server_url, statement))
        return named(self.server_url, self.name)

    def __exit__(self, *_: object) -> None:
        asyncio.run(_execute(self.server_url, f'DROP DATABASE "{self.name}" WITH (FORCE)'))


def named(server_url: str, database: str) -> str:
    """The address of another database of the same server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{database}"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement, timeout=60)
    finally:
        await connection.close()
