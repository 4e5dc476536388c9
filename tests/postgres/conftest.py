"""What the tests on a real server share."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import attrs
import pytest
from postgres.pgmq_functions import Pgmq
from postgres.rows import Rows, seconds

from pgtasks import Client, Config, Registry, connect, migrate
from pgtasks.config import DatabaseConfig, QueueFetchConfig, TaskConfig, WorkerConfig
from pgtasks.store import Store
from pgtasks.testing import temporary_database

WIPE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
DROP SCHEMA IF EXISTS pgtasks, pgmq, app CASCADE;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET ALL', current_database()); END $$;
"""


@pytest.fixture(scope="session")
def kept_database_url(server_url: str) -> Iterator[str]:
    """One database for all tests of this process: to create one takes longer than most tests."""
    on_server = Config(database=DatabaseConfig(url=server_url))
    with temporary_database(config=on_server, install=False) as database:
        yield database.url


@pytest.fixture
def database_url(kept_database_url: str) -> str:
    """The address of a database with a fresh schema in it, no settings, and nobody connected."""
    asyncio.run(_execute(kept_database_url, WIPE))
    asyncio.run(_execute(kept_database_url, migrate.script()))
    return kept_database_url


async def _execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url, timeout=30)
    try:
        await connection.execute(statements, timeout=60)
    finally:
        await connection.close()


@pytest.fixture
async def rows(connection: "asyncpg.Connection[asyncpg.Record]") -> Rows:
    """The tables of the queue `default`, and of whichever else is made."""
    await Store(connection).create_queue("default")
    return Rows(connection)


@pytest.fixture
def store(rows: Rows) -> Store:
    """The statements, on a database with a queue `default`."""
    return Store(rows.connection)


@pytest.fixture
def registry() -> Registry:
    """A registry of the test's own."""
    return Registry()


@pytest.fixture
def config(database: DatabaseConfig) -> Config:
    """Settings under which things happen soon, and polls are too rare to be of help."""
    return Config(
        database=database,
        worker=WorkerConfig(
            concurrency=8,
            grace=seconds(20),
            queue_fetch=QueueFetchConfig(empty_delay=seconds(30)),
        ),
        task=TaskConfig(delay=seconds(0), jitter=seconds(0), retries=2, timeout=seconds(30)),
    )


@pytest.fixture
async def client(config: Config) -> AsyncIterator[Client]:
    """The default client of the process while the test runs."""
    async with connect(config=config) as opened:
        yield opened


@attrs.define(eq=False)
class Heard(logging.Handler):
    """What was logged under `pgtasks`."""

    records: list[logging.LogRecord] = attrs.field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def events(self, level: int = logging.DEBUG) -> list[str]:
        """The events of at least this level, in order."""
        return [record.getMessage() for record in self.records if record.levelno >= level]

    def fields(self, event: str) -> dict[str, Any]:
        """The fields of the last event of this text."""
        found = [record for record in self.records if record.getMessage() == event]
        assert found, self.events()
        fields: dict[str, Any] = found[-1].__dict__["fields"]
        return fields


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Listen to what pgtasks logs."""
    logger, handler = logging.getLogger("pgtasks"), Heard()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
async def pgmq(connection: "asyncpg.Connection[asyncpg.Record]") -> Pgmq:
    """pgmq's functions, on a database with a queue `jobs`."""
    await connection.execute("SELECT pgmq.create('jobs')")
    return Pgmq(connection)
