"""What the tests on a real server share."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import attrs
import pytest
from postgres.rows import Rows, seconds

from pgtasks import Client, Config, Registry, connect
from pgtasks.config import DatabaseConfig, QueueFetchConfig, TaskConfig, WorkerConfig
from pgtasks.store import Store


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
        task=TaskConfig(delay=0, jitter=0, retries=2, timeout=seconds(30)),
    )


@pytest.fixture
async def client(config: Config) -> AsyncIterator[Client]:
    """The default client of the process while the test runs."""
    async with connect(config=config) as opened:
        yield opened


@attrs.define
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
