"""One real server for the whole run, one database for each test that asks for it."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from pgtasks import Config, embedded, layout, store
from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection
from pgtasks.testing import temporary_database

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


@pytest.fixture(autouse=True)
def fresh_layouts() -> None:
    """What a process learns of a database holds for the next one's queues too; not among tests."""
    if layout._noted:
        layout._noted.clear()
        store.forget_texts()


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """The address of a new database with nothing in it."""
    with temporary_database(config=_on(server_url), install=False) as database:
        yield database.url


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    """The address of a new database with the schema in it."""
    with temporary_database(config=_on(server_url)) as database:
        yield database.url


@pytest.fixture
def database(database_url: str) -> DatabaseConfig:
    return DatabaseConfig(url=database_url)


@pytest.fixture
async def connection(database: DatabaseConfig) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a new database with the schema in it."""
    opened = await open_connection(database, "tests")
    yield opened
    await opened.close()


def _on(server_url: str) -> Config:
    # Not by its address: no setting of the place where the tests are run is to have a say.
    return Config(database=DatabaseConfig(url=server_url))
